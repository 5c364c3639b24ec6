//! Every limit of a run's state machine, in one place.

use serde_json::Value;

use crate::time::Span;

/// Largest result of one expression or template, as JSON, in bytes.
pub const MAX_EXPRESSION_RESULT_BYTES: usize = 256 * 1024;
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

/// Cuts a text to at most `limit` bytes, on a character boundary.
pub(super) fn truncated(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Whether the value's JSON text is at most `limit` bytes long. Looks at no more of the value than it must; escapes are
/// counted as the characters they stand for.
pub(super) fn fits(value: &Value, limit: usize) -> bool {
    spend(value, limit).is_some()
}

/// What is left of `budget` behind the value.
fn spend(value: &Value, budget: usize) -> Option<usize> {
    match value {
        Value::Null | Value::Bool(true) => budget.checked_sub(4),
        Value::Bool(false) => budget.checked_sub(5),
        // A lower bound; numbers are at most 24 bytes long, so this is off by a small factor only.
        Value::Number(_) => budget.checked_sub(1),
        Value::String(text) => budget.checked_sub(text.len() + 2),
        Value::Array(items) => {
            let mut left = budget.checked_sub(2)?;
            for (index, item) in items.iter().enumerate() {
                left = spend(item, left.checked_sub(usize::from(index > 0))?)?;
            }
            Some(left)
        }
        Value::Object(fields) => {
            let mut left = budget.checked_sub(2)?;
            for (index, (name, item)) in fields.iter().enumerate() {
                left = spend(item, left.checked_sub(name.len() + 3 + usize::from(index > 0))?)?;
            }
            Some(left)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_fits_at_the_limit_and_not_one_past_it() {
        for value in [json!("abc"), json!([null, true, false]), json!({"a": "b", "c": [[], {}]})] {
            let size = value.to_string().len();
            assert!(fits(&value, size), "{value} at {size}");
            assert!(!fits(&value, size - 1), "{value} at {}", size - 1);
        }
    }

    #[test]
    fn texts_are_cut_on_a_character_boundary() {
        assert_eq!(truncated("aé", 3), "aé");
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("", 0), "");
    }
}
