//! `concurrency`, `rate`, `priority` and `fairness_key`: what tasks wait for beside a worker.

use super::Found;
use super::value::{computed_text, whole};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::Fields;
use crate::definition::keys::{CONCURRENCY, RATE};
use crate::definition::model::{Limited, Limiting};
use crate::limit::Rate;
use crate::time::Span;

const MAX_LIMIT: u32 = 1_000_000;
const LOWEST_PRIORITY: u32 = 5;

pub(super) fn limiting(fields: &Fields<'_>, found: &mut Found) -> Limiting {
    Limiting {
        concurrency: concurrency(fields, found),
        rate: rate(fields, found),
        priority: whole(fields, "priority", LOWEST_PRIORITY, found).and_then(|priority| u8::try_from(priority).ok()),
        fairness_key: fields
            .get("fairness_key")
            .and_then(|node| computed_text(node, "fairness_key", found)),
    }
}

fn concurrency(fields: &Fields<'_>, found: &mut Found) -> Option<Limited<u32>> {
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
