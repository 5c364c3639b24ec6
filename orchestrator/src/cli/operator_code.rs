//! Codes of what operators ask on the command line (`KN0400`–`KN0419`).

use knarr_schemas::codes;

codes! {
    NOTHING_CHOSEN = "KN0400", "nothing_chosen",
        "It is not said what is meant.",
        "Name a workflow id and a step, or give filters such as --workflow or --error-type; --all means everything.";
    NOTHING_FOUND = "KN0401", "nothing_found",
        "Nothing of the run that is named waits for this.",
        "See `knarr parked list` for what does; another operator may have decided about it already.";
    PARTLY_DONE = "KN0402", "partly_done",
        "Some of what was asked was refused, or was not answered.",
        "Look at those that are named; to repeat it with the same --request-id changes nothing about what was done.";
    INTERRUPTED = "KN0403", "interrupted",
        "The command was interrupted before this was asked.",
        "Repeat it with the same --request-id, which changes nothing about what was done.";
    LEFT = "KN0404", "left",
        "The command was interrupted while it waited for the end of a run; the run goes on.",
        "Look at it with `knarr show`, or wait again with the same --request-id, which starts nothing.";
    GOES_ON = "KN0405", "goes_on",
        "What was waited for has begun, and has not come to its end in time; it goes on.",
        "Look at it with `knarr show`, or wait longer with --timeout: the same --request-id waits for the same.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_and_within_their_range() {
        let ids: Vec<_> = ALL.iter().map(|code| code.id).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert!(ids.iter().all(|id| ("KN0400"..="KN0419").contains(id)), "{ids:?}");
        assert!(
            ALL.iter()
                .all(|code| code.cause.ends_with('.') && code.remedy.ends_with('.'))
        );
    }
}
