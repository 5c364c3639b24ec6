//! `emit:`: publishes an event, once a committed event of the history.
//!
//! What is published is a function of the event ([`super::effect::emissions`]); the state keeps no bodies, only the numbers of
//! the transitions that emitted, so that a new owner knows which of them to read again.
//!
//! | what | then |
//! |---|---|
//! | subject and body are evaluated | emitted, and the step has passed |
//! | they cannot be, or the subject is not one that may be published to | the step fails |

use serde_json::Value;

use super::decider::Decider;
use super::event::{Emitted, Event};
use super::failure::{Failure, error_type};
use super::limits::MAX_SUBJECT_BYTES;
use super::tree;
use crate::definition::plan::{Emit, NodeId};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, emit: &Emit) {
    let scope = d.scope(&path);
    let subject = scope.evaluate(Some(&emit.subject)).and_then(|value| subject(&value));
    match subject.and_then(|subject| Ok((subject, scope.evaluate(emit.body.as_ref())?))) {
        Ok((subject, body)) => {
            d.emit(Event::Emitted(Box::new(Emitted {
                step: path.clone(),
                subject: subject.as_str().into(),
                body,
            })));
            d.passed(node, path);
        }
        Err(error) => tree::fail(d, node, path, error),
    }
}

/// Knarr publishes with its own rights: its own subjects, the server's, and those on which answers are awaited are nobody else's
/// to write to.
fn subject(value: &Value) -> Result<String, Failure> {
    let Value::String(subject) = value else {
        return Err(Failure::new(error_type::EXPRESSION, "the subject is not a text"));
    };
    let first = subject.split('.').next().unwrap_or_default();
    let reserved = subject.starts_with('$') || first.eq_ignore_ascii_case("knarr") || first.starts_with("_INBOX");
    let token = |token: &str| {
        !token.is_empty()
            && !token
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '*' || c == '>')
    };
    if reserved || subject.len() > MAX_SUBJECT_BYTES || !subject.split('.').all(token) {
        let shown = super::limits::truncated(subject, 256);
        let message = format!("`{shown}` is not a subject that may be published to");
        return Err(Failure::new(error_type::EXPRESSION, &message));
    }
    Ok(subject.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subjects_are_tokens_and_not_reserved() {
        for good in ["orders.shipped", "a", "knarrs.a", "a.knarr"] {
            assert_eq!(subject(&json!(good)).as_deref(), Ok(good));
        }
        let long = "s".repeat(MAX_SUBJECT_BYTES + 1);
        for bad in [
            "",
            "a..b",
            "a.",
            "knarr",
            "knarr.in.1",
            "Knarr.in.1",
            "_INBOX.a.b",
            "$SYS.x",
            "$JS",
            "a b",
            "a.*",
            "a.>",
            "a\n",
            &long,
        ] {
            assert!(subject(&json!(bad)).is_err(), "{bad}");
        }
        assert!(subject(&json!(1)).is_err());
    }
}
