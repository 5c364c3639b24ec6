//! `wait:`: a durable timer. It costs one event to set and one to fire, however long it runs.
//!
//! | what | then |
//! |---|---|
//! | entered | the moment is fixed; one that has come already waits for nothing |
//! | woken, the moment has come | the step has passed; no horizon of the log holds it up |
//! | halted | the step ends as cancelled |

use chrono::DateTime;
use serde_json::Value;

use super::decider::Decider;
use super::event::Event;
use super::failure::{Failure, error_type};
use super::tree;
use crate::definition::plan::{NodeId, Wait};
use crate::ids::StepPath;
use crate::time::Timestamp;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, wait: &Wait) {
    let due = match wait {
        Wait::For(span) => Ok(d.at.plus(*span)),
        Wait::Until(template) => d.scope(&path).evaluate(Some(template)).and_then(|value| moment(&value)),
    };
    match due {
        Ok(due) if due > d.at => d.emit(Event::TimerSet { step: path, due }),
        Ok(_) => fired(d, node, path),
        Err(error) => tree::fail(d, node, path, error),
    }
}

pub(super) fn fired(d: &mut Decider<'_>, node: NodeId, path: StepPath) {
    d.emit(Event::StepPassed { step: path.clone() });
    d.passed(node, path);
}

/// An RFC 3339 time, or seconds since the epoch.
fn moment(value: &Value) -> Result<Timestamp, Failure> {
    let time = match value {
        Value::String(text) => DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|time| Timestamp(time.timestamp_micros())),
        // A float that does not fit saturates; whole seconds are exact for longer than calendars are.
        Value::Number(number) => match number.as_i64() {
            Some(seconds) => Some(Timestamp(seconds.saturating_mul(1_000_000))),
            None => number.as_f64().map(|seconds| Timestamp((seconds * 1e6) as i64)),
        },
        _ => None,
    };
    time.ok_or_else(|| {
        let message = "`until` is neither an RFC 3339 time nor a number of seconds since the epoch";
        Failure::new(error_type::EXPRESSION, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_times_or_seconds() {
        for (value, micros) in [
            (json!("2026-01-02T03:04:05.5+01:00"), Some(1_767_319_445_500_000)),
            (json!(1_767_319_445), Some(1_767_319_445_000_000)),
            (json!(1.5), Some(1_500_000)),
            (json!(-1), Some(-1_000_000)),
            (json!(u64::MAX), Some(i64::MAX)),
            (json!(1e300), Some(i64::MAX)),
            (json!("tomorrow"), None),
            (json!(null), None),
            (json!([1]), None),
        ] {
            assert_eq!(moment(&value).ok(), micros.map(Timestamp), "{value}");
        }
    }
}
