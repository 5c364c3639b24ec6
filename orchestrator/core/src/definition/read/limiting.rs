//! `concurrency`, `rate`, `priority` and `fairness_key`: what tasks wait for beside a worker, and runs before they begin.

use super::Found;
use super::value::{computed_text, whole, word};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::Fields;
use crate::definition::keys::{CONCURRENCY, RATE, RUN_CONCURRENCY};
use crate::definition::model::{Limited, Limiting, RunConcurrency};
use crate::limit::{OnConflict, Rate};
use crate::time::Span;

const MAX_LIMIT: u32 = 1_000_000;
const LOWEST_PRIORITY: u32 = 5;

pub(super) fn limiting(fields: &Fields<'_>, found: &mut Found) -> Limiting {
    Limiting {
        concurrency: concurrency(fields, found),
        rate: rate(fields, found),
        priority: priority(fields, found),
        fairness_key: fields
            .get("fairness_key")
            .and_then(|node| computed_text(node, "fairness_key", found)),
    }
}

pub(super) fn priority(fields: &Fields<'_>, found: &mut Found) -> Option<u8> {
    whole(fields, "priority", LOWEST_PRIORITY, found).and_then(|priority| u8::try_from(priority).ok())
}

/// Of a definition.
pub(super) fn of_runs(fields: &Fields<'_>, found: &mut Found) -> Option<RunConcurrency> {
    let conflicts = [
        ("queue", OnConflict::Queue),
        ("reject", OnConflict::Reject),
        ("cancel_running", OnConflict::CancelRunning),
        ("skip", OnConflict::Skip),
    ];
    let fields = Fields::open(fields.get("concurrency")?, &RUN_CONCURRENCY, found)
        .map(|inner| (inner, "concurrency", fields))?;
    let limit = limit(&fields, found);
    let key = fields.0.get("key").and_then(|node| computed_text(node, "key", found));
    let on_conflict = word(&fields.0, "on_conflict", &conflicts, found).unwrap_or_default();
    Some(RunConcurrency {
        limit: limit?,
        key,
        on_conflict,
    })
}

pub(super) fn concurrency(fields: &Fields<'_>, found: &mut Found) -> Option<Limited<u32>> {
    let fields =
        Fields::open(fields.get("concurrency")?, &CONCURRENCY, found).map(|inner| (inner, "concurrency", fields))?;
    let to = limit(&fields, found)?;
    let key = fields.0.get("key").and_then(|node| computed_text(node, "key", found));
    Some(Limited { to, key })
}

fn rate(fields: &Fields<'_>, found: &mut Found) -> Option<Limited<Rate>> {
    let fields = Fields::open(fields.get("rate")?, &RATE, found).map(|inner| (inner, "rate", fields))?;
    let limit = limit(&fields, found)?;
    let per = fields.0.duration("per", found).unwrap_or(Span::from_secs(1));
    if per.0 < u64::from(limit) {
        let place = fields
            .0
            .key_place("per")
            .or(fields.0.key_place("limit"))
            .unwrap_or_default();
        let message = "a rate is one in a microsecond at most";
        found.push(Diagnostic::error(code::BAD_VALUE, place, message).help("lower `limit`, or give it a longer `per`"));
    }
    let key = fields.0.get("key").and_then(|node| computed_text(node, "key", found));
    Some(Limited {
        to: Rate { limit, per },
        key,
    })
}

/// The `limit` of a mapping, by its name and what it stands in.
fn limit((inner, of, around): &(Fields<'_>, &str, &Fields<'_>), found: &mut Found) -> Option<u32> {
    if inner.get("limit").is_none() {
        let message = format!("`{of}` has no `limit`");
        let place = around.key_place(of).unwrap_or_default();
        found.push(Diagnostic::error(code::MISSING_KEY, place, message));
    }
    whole(inner, "limit", MAX_LIMIT, found)
}
