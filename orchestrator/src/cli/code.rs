//! Codes of what can be wrong around the command line (`KN0341`–`KN0359`): NATS, the orchestrator's presence, arguments.

use knarr_schemas::codes;

codes! {
    NATS_UNREACHABLE = "KN0341", "nats_unreachable",
        "NATS cannot be reached.",
        "Start it (`knarr dev` starts all that is needed), or name its address with --nats-url or KNARR_NATS_URL.";
    NO_ORCHESTRATOR = "KN0342", "no_orchestrator",
        "NATS is there, but no orchestrator answers.",
        "Start one with `knarr server` or `knarr dev`, or check that --nats-url names the NATS it is connected to.";
    CALL_TIMED_OUT = "KN0343", "call_timed_out",
        "The orchestrator did not answer in time.",
        "Check the log and the health of the orchestrator (`/health/ready` of `knarr server` or `knarr dev`), then try again, with a longer --timeout if it is busy.";
    NO_LOG = "KN0344", "no_log",
        "No stream takes starts and commands: the log stream (KNARR_IN) is missing.",
        "Start an orchestrator on this NATS, which creates it, and check that JetStream is enabled there.";
    LOG_FULL = "KN0345", "log_full",
        "The log stream is at its limit and takes nothing more for now; nothing was stored.",
        "Try again in a while; if it stays full, check that the orchestrator and PostgreSQL are working.";
    NOT_ACKNOWLEDGED = "KN0346", "not_acknowledged",
        "JetStream did not acknowledge the message; it may be stored or not.",
        "Send it again with the same --request-id, which is harmless.";
    NO_ANSWER = "KN0347", "no_answer",
        "The message is stored, but no answer came in time.",
        "It takes effect as soon as an orchestrator works: look with `knarr list`, or send it again with the same --request-id.";
    BAD_ARGUMENT = "KN0348", "bad_argument",
        "An argument cannot be used.",
        "Correct it as the message says; `--help` behind the command tells what it takes.";
    NOT_CONFIRMED = "KN0349", "not_confirmed",
        "The command was not confirmed, so nothing was done.",
        "Answer `y`, or give --yes where nobody can be asked.";
    BAD_REPLY = "KN0350", "bad_reply",
        "An answer cannot be read.",
        "Use the same version of `knarr` as the orchestrator's.";
    NATS_REFUSED = "KN0351", "nats_refused",
        "NATS refused the connection or the message.",
        "Check the credentials and their permissions, and the log of the NATS server.";
    MESSAGE_TOO_LARGE = "KN0352", "message_too_large",
        "The message is larger than can be sent.",
        "Store the data elsewhere and send a reference to it.";
    FILE_UNREADABLE = "KN0353", "file_unreadable",
        "A file cannot be read.",
        "Check its path and permissions, and that it is a text in UTF-8.";
    UNKNOWN_CODE = "KN0354", "unknown_code",
        "There is no such error code.",
        "Codes are `KN` and four digits, as errors print them.";
    STARTS_THROTTLED = "KN0355", "starts_throttled",
        "More starts wait in the log than there is room for: it takes no more of this namespace for now; nothing was stored.",
        "Try again in a while; if it goes on, check that the orchestrator and PostgreSQL are working, or start less at a time.";
    NOT_EXPLORED = "KN0356", "not_explored",
        "The definition cannot be explored.",
        "Report it, with the definition.";
    BAD_HISTORY = "KN0357", "bad_history",
        "The history cannot be replayed.",
        "Give it whole, from its first transition on, as `knarr history <run> -o json` prints it; one that a newer version has recorded, to that version's `knarr`.";
    OUTPUT_CUT = "KN0358", "output_cut",
        "What was to be printed could not be written.",
        "Make room where the output goes; what the command did, it has done.";
    DEMO_WENT_WRONG = "KN0359", "demo_went_wrong",
        "The demonstration did not go as it had to.",
        "Report it, with the output of `knarr history` for the order.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_and_within_their_range() {
        let ids: Vec<_> = ALL.iter().map(|code| code.id).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert!(ids.iter().all(|id| ("KN0341"..="KN0359").contains(id)), "{ids:?}");
        assert!(
            ALL.iter()
                .all(|code| code.cause.ends_with('.') && code.remedy.ends_with('.'))
        );
    }
}
