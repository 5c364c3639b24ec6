//! Every limit of a run's state machine, in one place. Those of single expressions and of JSON as such are in
//! [`crate::expression`] and [`crate::json`].

use crate::time::Span;

/// Longest error message kept; the rest is cut off on a character boundary.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 4 * 1024;
/// Longest error type kept.
pub const MAX_ERROR_TYPE_BYTES: usize = 256;
/// Most search attributes of one run.
pub const MAX_SEARCH_ATTRIBUTES: usize = 100;
/// Longest name of a search attribute, in bytes.
pub const MAX_SEARCH_ATTRIBUTE_NAME_BYTES: usize = 256;
/// Largest value of a search attribute, as JSON, in bytes.
pub const MAX_SEARCH_ATTRIBUTE_BYTES: usize = 2 * 1024;
/// First and longest pause before a task that a full stream refused is offered again.
pub const HELD_PAUSE_FIRST: Span = Span::from_millis(250);
pub const HELD_PAUSE_LONGEST: Span = Span::from_secs(5);
/// Longest pause between two looks at a task that nobody has taken yet (a longer start-to-close is its own limit).
pub const UNDELIVERED_PAUSE_LONGEST: Span = Span::from_secs(60);

/// Most events of a run; then it is parked until an operator lets it go on, for as many again.
pub const MAX_EVENTS: u32 = 50_000;
/// Most activities and children under way forwards, and most undos at a time.
pub const MAX_PENDING: usize = 2_000;
/// Most iterations of one `for_each` under way at a time.
pub const MAX_ITERATIONS_AT_ONCE: u32 = 1_000;
/// Longest subject of an `emit`, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 256;
/// First and longest pause before a message to another run that was not answered is sent again.
pub const MESSAGE_PAUSE_FIRST: Span = Span::from_secs(30);
pub const MESSAGE_PAUSE_LONGEST: Span = Span::from_secs(300);
/// Most who wait for one run; one more is refused.
pub const MAX_WAITERS: usize = 1_000;
/// Most signals that wait in a run for a step to take them; one more is refused.
pub const MAX_BUFFERED_SIGNALS: usize = 1_000;
/// Longest name of a signal, in bytes.
pub const MAX_SIGNAL_NAME_BYTES: usize = 256;

/// Cuts a text to at most `limit` bytes, on a character boundary.
pub(super) fn truncated(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_on_a_character_boundary() {
        assert_eq!(truncated("aé", 3), "aé");
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("", 0), "");
    }
}
