//! How tasks are given out: queue, timeout and retries.

use super::Found;
use super::value::{error_types, whole, word};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::Fields;
use crate::definition::keys::RETRY;
use crate::definition::model::{Attempts, CallFields, RetryFields, Text};
use crate::definition::names::name;
use crate::definition::plan::{OnExhausted, RetryPolicy, Timeouts};
use crate::definition::resolve;
use crate::definition::tree::{Kind, Node};

const MAX_ATTEMPTS: u32 = 1_000_000;

pub(super) fn call_fields(fields: &Fields<'_>, found: &mut Found) -> CallFields {
    CallFields {
        queue: fields.get("queue").map(|node| {
            // A stand-in for what cannot be read: nothing follows from it.
            name(node, "queue", found).unwrap_or(Text {
                text: "unreadable".to_owned(),
                place: node.span.clone(),
            })
        }),
        start_to_close: fields.duration("start_to_close", found),
        timeouts: Timeouts {
            schedule_to_start: fields.duration("schedule_to_start", found),
            schedule_to_close: fields.duration("schedule_to_close", found),
            heartbeat: fields.duration("heartbeat", found),
        },
        retry: fields.get("retry").map(|node| retry(node, found)).unwrap_or_default(),
        on_exhausted: on_exhausted(fields, found),
    }
}

/// What an undo that is parked means for the others.
pub(super) fn on_exhausted(fields: &Fields<'_>, found: &mut Found) -> Option<OnExhausted> {
    let words = [("continue", OnExhausted::Continue), ("halt", OnExhausted::Halt)];
    word(fields, "on_exhausted", &words, found)
}

/// Of a definition: when a run that has ended without success begins anew.
pub(super) fn of_run(node: &Node, found: &mut Found) -> RetryPolicy {
    resolve::retry_of_run(&retry(node, found))
}

fn retry(node: &Node, found: &mut Found) -> RetryFields {
    let Some(fields) = Fields::open(node, &RETRY, found) else {
        return RetryFields::default();
    };
    let backoff_coefficient = fields.get("backoff_coefficient").and_then(|node| {
        let value = match &node.kind {
            Kind::Number(number) => number.as_f64().filter(|n| (1.0..=1_000.0).contains(n)),
            _ => None,
        };
        if value.is_none() {
            let message = "`backoff_coefficient` must be a number from 1 to 1000";
            found.push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message));
        }
        value
    });
    let maximum_attempts = match fields.get("maximum_attempts") {
        Some(node) if node.as_str() == Some("unlimited") => Some(Attempts::Unlimited),
        Some(node) => {
            let value = whole(&fields, "maximum_attempts", MAX_ATTEMPTS, found);
            if value.is_none()
                && let Some(finding) = found.last_mut()
                && finding.span == node.span
            {
                *finding = finding.clone().help("write `unlimited` for no limit");
            }
            // A stand-in for what cannot be read: nothing follows from it.
            Some(Attempts::AtMost(value.unwrap_or(1)))
        }
        None => None,
    };
    let initial_interval = fields.duration("initial_interval", found);
    let maximum_interval = fields.duration("maximum_interval", found);
    if let (Some(initial), Some(maximum)) = (initial_interval, maximum_interval)
        && maximum < initial
    {
        let place = fields.key_place("maximum_interval").unwrap_or_default();
        let message = "`maximum_interval` is shorter than `initial_interval`";
        found.push(Diagnostic::error(code::CONTRADICTION, place, message));
    }
    RetryFields {
        initial_interval,
        backoff_coefficient,
        maximum_interval,
        maximum_attempts,
        non_retryable: fields
            .get("non_retryable")
            .map(|node| error_types(node, "`non_retryable`", found)),
    }
}
