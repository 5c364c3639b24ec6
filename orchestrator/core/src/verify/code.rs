//! The codes of what an exploration finds.

use crate::definition::code::Code;

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $remedy:literal;)*) => {
        $(pub const $name: Code = Code { code: $code, cause: $cause, remedy: $remedy };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    UNDO_MISSES_DATA = "KN0170", "An undo reads something that is not there when it is needed, so that it waits for an operator.", "Say what to use instead (`| default(none)`), or read the input or an earlier step.";
    LEFT_UNDONE = "KN0171", "A run ends undone, and something that it did stays.", "Give the step `compensate`, or say `read_only: true` or `no_undo: <reason>`.";
    MAYBE_DONE = "KN0172", "A run completes although a step may have been done whose outcome was unknown, and nothing undoes it.", "Put the step into a `scope`, which undoes what it may have done before it goes on with `otherwise`; or give it `no_undo: <reason>`.";
    STUCK = "KN0173", "A run stands still: nothing can happen to it any more.", "This is a fault of Knarr; please report it, with the definition.";
    WAITS_FOR_EVER = "KN0174", "A run may wait for ever for a signal, while it holds what would be undone.", "Give the `wait_for` a `timeout`.";
    NO_END = "KN0175", "A run can come to a state from which no end can be reached.", "Give the loop, or the retries, an end.";
    STEP_MISSES_DATA = "KN0176", "A step reads something that is not there on some way, and fails.", "Say what to use instead: `| default(…)`.";
    PARKED = "KN0177", "A run waits for an operator, though every worker did what it could.", "See what it waits for.";
    STAYS_AS_DECLARED = "KN0178", "What a step did stays when the run is undone, as the definition says.", "Nothing is to be done; it is told so that it is known.";
    NEVER_COMPLETES = "KN0179", "No run of the definition can complete.", "Give the loop a condition that its steps can make false, or the steps another way to the end.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
