//! Codes of errors in wire messages and calls (`KN02xx`): one table of cause and remedy.
//!
//! **Invariant:** an id never changes its meaning and is never given out twice; a code that is no longer raised stays in
//! the table, so that old dead letters and histories can be looked up.
//! Codes of definitions (`KN01xx`) and of the server and its environment (`KN03xx`) are kept where they arise.

use crate::body::ErrorBody;

/// One kind of error, with what a person needs to know about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `KN` and four digits.
    pub id: &'static str,
    /// The kind in one subject token: the `<reason>` of a dead letter's subject.
    pub title: &'static str,
    /// One sentence.
    pub cause: &'static str,
    /// One sentence.
    pub remedy: &'static str,
}

impl Code {
    /// The body of an answer or dead letter, with what is known about this case instead of the general cause.
    pub fn error(&self, message: impl Into<String>) -> ErrorBody {
        ErrorBody {
            code: self.id.to_owned(),
            message: message.into(),
            remedy: self.remedy.to_owned(),
        }
    }

    /// The body where nothing is known beyond the kind.
    pub fn plain(&self) -> ErrorBody {
        self.error(self.cause)
    }
}

/// The id that a text begins with, as in `KN0304: JetStream is switched off`, and the text behind it.
pub fn split_id(text: &str) -> Option<(&str, &str)> {
    let (id, rest) = text.split_once(": ")?;
    let digits = id.strip_prefix("KN")?;
    (digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some((id, rest))
}

/// The code with this id.
pub fn lookup(id: &str) -> Option<&'static Code> {
    ALL.iter().copied().find(|code| code.id == id)
}

/// A table of codes: a constant for each, and `ALL`, in the order they are written in, which is that of the ids.
#[macro_export]
macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $cause:literal, $remedy:literal;)*) => {
        $(
            #[doc = $cause]
            pub const $name: $crate::code::Code =
                $crate::code::Code { id: $id, title: $title, cause: $cause, remedy: $remedy };
        )*
        /// Every code, in the order of the ids.
        pub const ALL: &[&$crate::code::Code] = &[$(&$name),*];
    };
}

codes! {
    BAD_SUBJECT = "KN0201", "bad_subject",
        "The subject does not have the form of a start or of a message to a run.",
        "Publish to `knarr.start.<namespace>.<workflow>` or `knarr.run.<namespace>.<workflow id>.<verb>`.";
    BAD_TOKEN = "KN0202", "bad_token",
        "A part of the subject is not a canonically encoded token.",
        "Keep letters, digits, `_` and `-`, write every other byte as `%XX` with upper-case digits, leave out control characters, and stay within 200 bytes.";
    BAD_JSON = "KN0203", "bad_json",
        "The body is not valid JSON.",
        "Send one JSON value in UTF-8; an empty body stands for null.";
    BODY_TOO_LARGE = "KN0204", "body_too_large",
        "The body is larger than is allowed here: 2 MiB, unless `body_max_bytes` says less.",
        "Store the data elsewhere and send a reference to it.";
    UNKNOWN_NAMESPACE = "KN0205", "unknown_namespace",
        "There is no such namespace.",
        "Check the namespace, or create it with `knarr namespace create`.";
    UNKNOWN_WORKFLOW = "KN0206", "unknown_workflow",
        "No definition of this name is registered in the namespace.",
        "Register it with `knarr definition register`, or see `knarr definition list` for the names there are.";
    UNKNOWN_VERSION = "KN0207", "unknown_version",
        "The definition is not registered in this version.",
        "Register the version, or name none (`Knarr-Version`, `--version`) to take the default one, which is the highest unless an operator has set another.";
    INPUT_SCHEMA = "KN0208", "input_schema",
        "The input does not match the definition's schema.",
        "Correct the input; `knarr definition show` prints the schema.";
    WORKFLOW_ID_OPEN = "KN0209", "workflow_id_open",
        "An open run has this workflow id already.",
        "Use another workflow id, or say what becomes of the two: `Knarr-Id-Conflict` (`knarr start --id-conflict`) is `use_existing`, `terminate_existing` or `queue`.";
    ID_REUSE = "KN0210", "id_reuse",
        "A closed run had this workflow id, and the start does not allow the id to be used again.",
        "Use another workflow id, or send `Knarr-Id-Reuse: allow_duplicate` (`knarr start --id-reuse`).";
    UNKNOWN_RUN = "KN0211", "unknown_run",
        "No run has this workflow id or run id.",
        "Check namespace and id with `knarr list`; closed runs are dropped after their retention.";
    RUN_CLOSED = "KN0212", "run_closed",
        "The run has come to its end and takes no more messages of this kind.",
        "Look at its end with `knarr show`, or start a new run.";
    BAD_TASK_TOKEN = "KN0213", "bad_task_token",
        "The result has no task token, or one that Knarr did not give out for this run.",
        "Copy the task's `Knarr-Token` header to the result unchanged, and publish to the task's own `Knarr-Reply` subject.";
    UNKNOWN_TASK = "KN0214", "unknown_task",
        "Nobody waits for this task's result any more: it came late, or another attempt has decided.",
        "Acknowledge the task; a late success is recorded and undone where that is needed.";
    VERB_HEADER = "KN0215", "verb_header",
        "The message does not carry the `Knarr-Verb` header that its subject asks for.",
        "Send `Knarr-Verb: <verb> <namespace>`, the same two as in the subject.";
    TASK_HEADERS = "KN0216", "task_headers",
        "The message carries a task's headers but is not a result.",
        "Do not copy a task's headers to other messages; a task delivered to a subject of Knarr's is never taken.";
    SEARCH_ATTRIBUTE = "KN0217", "search_attribute",
        "A search attribute cannot be stored.",
        "Send `Knarr-Search-Attributes` as one JSON object of texts, numbers, booleans, or lists of them.";
    NUL_CHARACTER = "KN0218", "nul_character",
        "A text contains the character U+0000, which cannot be stored.",
        "Remove the character from the data.";
    NUMBER_RANGE = "KN0219", "number_range",
        "A number is out of the range that can be stored and computed with.",
        "Send numbers of that size as text.";
    POISON = "KN0220", "poison",
        "The message could not be applied or stored; it was set aside and its run is parked.",
        "Look at the run with `knarr show`, and report the dead letter as a bug.";
    ANSWER_SUBJECT = "KN0221", "answer_subject",
        "Answers are not sent to this subject.",
        "Name a subject under an allowed inbox prefix (`_INBOX.` unless configured otherwise) in `Knarr-Reply-To`.";
    BAD_HEADER = "KN0222", "bad_header",
        "A header has a value that is not one of those it can have.",
        "See the table of headers in the protocol's documentation.";
    UNKNOWN_VERB = "KN0223", "unknown_verb",
        "A run does not know this verb.",
        "Use one of the verbs in the table of subjects in the protocol's documentation.";
    WORKFLOW_ID = "KN0224", "workflow_id",
        "The workflow id of an un-keyed start could not be found out.",
        "Send `Knarr-Workflow-Id`, or correct the definition's `id` expression or the input it reads.";
    NOT_PARKED = "KN0225", "not_parked",
        "Nothing is parked at this place of the run.",
        "See `knarr parked list` for what is; another operator may have decided about it, or a result that came late.";
    EXPRESSION = "KN0226", "expression",
        "An expression of the definition failed on this run's data.",
        "Correct the data, or the expression in a new version of the definition.";
    UNAVAILABLE = "KN0227", "unavailable",
        "The request was not answered in time; whether it takes effect is not known.",
        "Send it again, with the same request id if it has one, which is harmless.";
    BAD_REQUEST = "KN0228", "bad_request",
        "The body of the request does not have the form that this call asks for.",
        "See the call's schema in the protocol's documentation.";
    DEFINITION_INVALID = "KN0229", "definition_invalid",
        "The definition has errors, so nothing was registered.",
        "Correct what the findings point at; `knarr check <file>` shows the same ones offline.";
    DEFINITION_CONFLICT = "KN0230", "definition_conflict",
        "The same name and version is registered with other content.",
        "Raise `version:`; what runs have started with never changes.";
    REPLY_TOO_LARGE = "KN0231", "reply_too_large",
        "The answer is larger than NATS takes.",
        "Ask for fewer at a time, or raise `max_payload` of the NATS server.";
    BUSY = "KN0232", "busy",
        "This replica has as many requests under way as it takes at a time.",
        "Try again in a moment.";
    STORE_UNAVAILABLE = "KN0233", "store_unavailable",
        "The orchestrator cannot reach PostgreSQL.",
        "Check PostgreSQL and the orchestrator's log, then try again.";
    INTERNAL = "KN0234", "internal",
        "Something inside Knarr failed.",
        "Look at the orchestrator's log, and report it as a bug.";
    SIGNAL_NAME = "KN0235", "signal_name",
        "A signal needs a name that fits.",
        "Publish to `knarr.run.<namespace>.<workflow id>.signal.<name>` with a name of 1 to 200 bytes.";
    SIGNALS_FULL = "KN0236", "signals_full",
        "The run has as many signals waiting as it keeps.",
        "Wait until the run has taken some of them, or send fewer; `knarr show` says how many wait.";
    PAST_PIVOT = "KN0237", "past_pivot",
        "The run has passed its pivot and only goes forward.",
        "Let it come to its end, or terminate it, which undoes nothing.";
    MESSAGE_TOKEN = "KN0238", "message_token",
        "A message between runs does not carry the token that Knarr gives them.",
        "Do not publish to `.message` and `.answer` of a run: send a signal instead.";
    UNREADABLE_RUN = "KN0239", "unreadable_run",
        "The run is stored, but its history cannot be read.",
        "Look at the orchestrator's log, which says what is wrong with it; send the dead letter again once that is mended.";
    TOO_SLOW = "KN0240", "too_slow",
        "Reading the answer from PostgreSQL would take too long; nothing was changed.",
        "Ask for less: name a workflow id or a status other than `running`, or fewer at a time.";
    UNREADABLE_HEADERS = "KN0241", "unreadable_headers",
        "The message's headers are not headers as NATS clients read them.",
        "Send headers as `Name: value` in UTF-8, with names of ASCII characters; `Knarr-Original-Headers` shows what was sent.";
    ANSWER_TOO_LARGE = "KN0242", "answer_too_large",
        "The run's output is larger than NATS takes in an answer.",
        "Ask for a part of what its steps gave (`knarr query <workflow id> --expr`), raise `max_payload` of the NATS server, or let the definition's `output` say less.";
    QUEUES_UNAVAILABLE = "KN0243", "queues_unavailable",
        "The definition is registered, but its task queues could not be set up.",
        "Check NATS, then register the same definition again, which only sets up the queues.";
    QUEUES_REFUSED = "KN0244", "queues_refused",
        "The definition is registered, but NATS refuses its task queues.",
        "Lift the limit or remove the stream that NATS names, then register the same definition again, which only sets up the queues.";
    NOT_ANSWERED = "KN0245", "not_answered",
        "The question was not answered in time; nothing was changed by it.",
        "Ask again, for fewer at a time if it was a list; if that does not help, look at PostgreSQL and the orchestrator's log.";
    TOO_MANY_WAITERS = "KN0246", "too_many_waiters",
        "As many callers wait for the end of this run as may.",
        "Ask for the run's state from time to time, or listen to its event, instead of waiting for its answer.";
    TOO_MANY_NAMESPACES = "KN0251", "too_many_namespaces",
        "The cluster has as many namespaces as it may have.",
        "Use one of those there are; `knarr namespace list` shows them.";
    NOT_FOR_THIS = "KN0257", "not_for_this",
        "This cannot be done about what is parked there.",
        "Retry, mark as done or skip it; only activities take other input, only steps an output, and a run that is parked as a whole is retried, cancelled or terminated (and done where it lacks nothing but its output).";
    OLDER_REPLICAS = "KN0258", "older_replicas",
        "Replicas of an older version are still part of the cluster, and could not read what this would store.",
        "Finish the upgrade of the orchestrators, then send it again; `knarr_format_level` says what all of them can read.";
    NOT_MIGRATABLE = "KN0259", "not_migratable",
        "The run cannot move to that version: something it has passed, or has under way, is another one there.",
        "Let it come to its end with the version it has, or register a version in which what it has passed is the same.";
    LIMIT = "KN0260", "limit",
        "The limit of a run cannot be set to this.",
        "Raise it, to at most 2,000,000 events, 2 GiB of history or 20,000 activities and children at a time; `knarr show -o json` says what it is.";
    BODY_REFERENCE = "KN0261", "body_reference",
        "The message says that its body is an object, and does not name one of its namespace.",
        "Put the body into the bucket `KNARR_BODIES_<namespace>` and send `Knarr-Body: <bucket>/<name>`.";
    BODY_MISSING = "KN0262", "body_missing",
        "The body of the message is an object that is not there (any more).",
        "Put the object before the message is published, and send both again; objects are kept for three days.";
    BODY_DAMAGED = "KN0263", "body_damaged",
        "The body of the message is an object that is not what its digest or size says.",
        "Put the object again under a name of its own, and send the message again.";
    BODY_NOT_STORED = "KN0264", "body_not_stored",
        "The body is too large for its message and could not be put beside it; nothing was sent.",
        "Check that the namespace exists, that its bucket `KNARR_BODIES_<namespace>` has room, and that you may publish to `$O.KNARR_BODIES_<namespace>.>`.";
    SCHEDULE_EXISTS = "KN0265", "schedule_exists",
        "There is a schedule of that name, and it says something else.",
        "Change it with `knarr schedule update`, delete it first, or use another name.";
    UNKNOWN_SCHEDULE = "KN0266", "unknown_schedule",
        "There is no such schedule in this namespace.",
        "Check the name and the namespace; `knarr schedule list` shows what is there.";
    SCHEDULE_REFUSED = "KN0267", "schedule_refused",
        "What was asked of a schedule cannot be done.",
        "Change the request as the message says.";
    BAD_SCHEDULE = "KN0268", "bad_schedule",
        "What a schedule is to do cannot be read.",
        "Correct what the message names; `knarr explain` has a page for its code.";
    RESERVED_ID = "KN0269", "reserved_id",
        "Ids that begin with `$schedule/` or `$trigger/` belong to schedules and triggers.",
        "Use another id; these are spoken to by `knarr schedule` and `knarr trigger`.";
    DETAILS_TOO_LARGE = "KN0270", "details_too_large",
        "The details of a heartbeat are larger than the next attempt's task can carry.",
        "Keep them within 2 KiB: say where the work can be taken up, and keep the work itself elsewhere.";
    TRIGGER_EVENT = "KN0271", "trigger_event",
        "An event that a trigger has read is no JSON, is larger than a body may be, or has headers that cannot be read.",
        "Mend who publishes it, or leave it out with the trigger's `subject`; then publish the event again.";
    TRIGGER_EXPRESSION = "KN0272", "trigger_expression",
        "An expression of a trigger fails for an event, or gives what is no workflow id.",
        "Let the expression say what to do without what is missing (`| default(…)`), or hold such events back with the trigger's `filter`; then publish the event again.";
    EVENT_REFUSED = "KN0273", "event_refused",
        "What a trigger started or signalled for an event was refused.",
        "See the message: start or signal by hand with the dead letter's body, or let the trigger treat such events otherwise (`id_conflict`, `id_reuse`, `start`).";
    UNKNOWN_TRIGGER = "KN0274", "unknown_trigger",
        "There is no such trigger in this namespace.",
        "Check the name and the namespace; `knarr trigger list` shows what is there.";
    TRIGGER_REFUSED = "KN0275", "trigger_refused",
        "What was asked of a trigger cannot be done.",
        "Change the request as the message says.";
    BAD_TRIGGER = "KN0276", "bad_trigger",
        "What a trigger is to do cannot be read.",
        "Correct what the message names; `knarr explain` has a page for its code.";
    QUEUE_LIMIT = "KN0280", "queue_limit",
        "The limit or the lease of a queue is out of range, or its queue has no name that a queue can have.",
        "Name a queue, 1 to 1,000,000 tasks at a time, a rate of 1 to 1,000,000 in a stretch of at least a millisecond, and a lease of a second to 30 days.";
    UNKNOWN_QUERY = "KN0281", "unknown_query",
        "The version of the definition that the run goes by has no query of this name.",
        "Use one of its `queries` (`knarr definition show`), or ask with an expression (`--expr`).";
    QUERY_FAILED = "KN0282", "query_failed",
        "The query gives no value for the run as it stands.",
        "Let the expression say what to answer where something is not there yet: `| default(none)`; `knarr show` says how far the run is.";
    BAD_QUERY = "KN0283", "bad_query",
        "The expression cannot be read, or names what there is not.",
        "Correct it as the message says.";
    SIGNAL_SCHEMA = "KN0284", "signal_schema",
        "The body of the signal does not match the schema of its handler.",
        "Correct the body; the definition says under `signals` what a handler takes.";
    UNKNOWN_UPDATE = "KN0285", "unknown_update",
        "The version of the definition that the run goes by has no update of this name.",
        "Use one of its `updates` (`knarr definition show`); `knarr migrate` moves the run to a version that has it.";
    UPDATE_SCHEMA = "KN0286", "update_schema",
        "The input of the update does not match the update's schema.",
        "Correct the input; the definition says under `updates` what each takes. Nothing of this one has been kept.";
    UPDATE_REFUSED = "KN0287", "update_refused",
        "The update does not pass its `validate` as the run stands, or the run is being undone.",
        "Do as the message says; nothing of this update has been kept, and its id may be used again.";
    UPDATES_FULL = "KN0288", "updates_full",
        "As many updates wait for their handlers as a run keeps.",
        "Send it again when some of them are done: `knarr show` says which the run is at.";
    UPDATE_BEFORE = "KN0289", "update_before",
        "The run that this one continues has taken the update.",
        "Ask that run: name it by its run id (`knarr show` lists it), with the same update id.";
    NO_PLACE = "KN0290", "no_place",
        "As many runs of the workflow are open as its `concurrency` allows, and `on_conflict: reject` lets no start wait.",
        "Start it again when one of them has closed, or let starts wait with `on_conflict: queue`.";
    LINE_FULL = "KN0291", "line_full",
        "As many starts are queued for this workflow id as there may be: 100.",
        "Start it again when the open run has closed, or cancel a queued one with `knarr cancel --run`.";
    START_DELAY = "KN0292", "start_delay",
        "The delay of the start (`Knarr-Start-Delay`) is no duration, or longer than ten years.",
        "Write it like `90s`, `10m`, `1h30m` or `3650d`.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_and_titles_are_unique_and_in_order() {
        let ids: Vec<_> = ALL.iter().map(|code| code.id).collect();
        let titles: BTreeSet<_> = ALL.iter().map(|code| code.title).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert_eq!(titles.len(), ALL.len());
    }

    #[test]
    fn every_code_has_its_form_and_is_found() {
        for code in ALL {
            assert!(code.id.starts_with("KN02") && code.id.len() == 6, "{}", code.id);
            assert!(
                code.title.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                code.title
            );
            assert!(code.cause.ends_with('.') && code.remedy.ends_with('.'), "{}", code.id);
            assert_eq!(lookup(code.id), Some(*code));
        }
        assert_eq!(lookup("KN0200"), None);
        assert_eq!(BAD_JSON.error("line 3").message, "line 3");
    }
}
