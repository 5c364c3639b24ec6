//! Activities, and what undoes them.

use super::document::json_schema;
use super::limiting::limiting;
use super::retry::call_fields;
use super::value::word;
use super::{Files, Found};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::Fields;
use crate::definition::keys::COMPENSATE;
use crate::definition::model::{Activity, Call, CallFields, Undo};
use crate::definition::names::name;
use crate::definition::plan::{Cancellation, OnFailure};
use crate::definition::tree::Kind;

pub(super) fn activity(fields: &Fields<'_>, files: Files<'_>, found: &mut Found) -> Option<Activity> {
    let call = call(fields, found);
    let output_schema = fields
        .get("output_schema")
        .and_then(|node| json_schema(node, files, found));
    let words = [("fail", OnFailure::Fail), ("continue", OnFailure::Continue)];
    let on_failure = word(fields, "on_failure", &words, found).unwrap_or(OnFailure::Fail);
    let cancellation = cancellation(fields, found);
    let compensate_on_failure = fields.flag("compensate_on_failure", found);
    let undo = undo(fields, found);
    if compensate_on_failure && !matches!(undo, Undo::Compensate(_)) {
        let place = fields.key_place("compensate_on_failure").unwrap_or_default();
        let message = "`compensate_on_failure` needs `compensate`";
        found.push(Diagnostic::error(code::CONTRADICTION, place, message).help("add `compensate`, or remove it"));
    }
    let pivot = fields.flag("pivot", found);
    if pivot {
        not_beside_pivot(fields, on_failure, cancellation, found);
    }
    Some(Activity {
        call: call?,
        output_schema,
        undo,
        on_failure,
        compensate_on_failure,
        pivot,
        limiting: limiting(fields, found),
        cancellation,
    })
}

pub(super) fn cancellation(fields: &Fields<'_>, found: &mut Found) -> Option<Cancellation> {
    let words = [
        ("try_cancel", Cancellation::TryCancel),
        ("wait_cancelled", Cancellation::WaitCancelled),
        ("abandon", Cancellation::Abandon),
    ];
    word(fields, "cancellation", &words, found)
}

fn not_beside_pivot(fields: &Fields<'_>, on_failure: OnFailure, cancellation: Option<Cancellation>, found: &mut Found) {
    let mut contradicts = |key: &str, help: &str| {
        let place = fields.key_place(key).unwrap_or_default();
        let message = format!("`{key}` contradicts `pivot`");
        found.push(Diagnostic::error(code::CONTRADICTION, place, message).help(help));
    };
    if fields
        .get("read_only")
        .is_some_and(|node| matches!(node.kind, Kind::Bool(true)))
    {
        contradicts(
            "read_only",
            "a step that changes nothing is no point of no return; keep one of them",
        );
    }
    if cancellation == Some(Cancellation::Abandon) {
        contradicts(
            "cancellation",
            "whether the point of no return has been passed has to become known; wait for it",
        );
    }
    if on_failure == OnFailure::Continue {
        contradicts(
            "on_failure",
            "a run that passes over its point of no return has none; keep one of them",
        );
    }
}

fn call(fields: &Fields<'_>, found: &mut Found) -> Option<Call> {
    let activity = fields.get("activity").and_then(|node| name(node, "activity", found));
    let call_fields = call_fields(fields, found);
    Some(Call {
        activity: activity?,
        input: fields.get("input").cloned(),
        fields: call_fields,
        settings: None,
    })
}

fn undo(fields: &Fields<'_>, found: &mut Found) -> Undo {
    let said: Vec<&str> = ["compensate", "no_undo", "read_only"]
        .into_iter()
        .filter(|key| {
            fields
                .get(key)
                .is_some_and(|node| !matches!(node.kind, Kind::Bool(false)))
        })
        .collect();
    if let [first, second, ..] = said.as_slice() {
        let place = fields.key_place(second).unwrap_or_default();
        let message = format!("`{second}` contradicts `{first}`");
        found.push(Diagnostic::error(code::CONTRADICTION, place, message));
    }
    if let Some(node) = fields.get("compensate") {
        let call = match &node.kind {
            Kind::String(_) => name(node, "activity", found).map(|activity| Call {
                activity,
                input: None,
                fields: CallFields::default(),
                settings: None,
            }),
            _ => Fields::open(node, &COMPENSATE, found).and_then(|undo| {
                if undo.get("activity").is_none() {
                    let message = "`compensate` names no `activity`";
                    let place = fields.key_place("compensate").unwrap_or_default();
                    found.push(Diagnostic::error(code::MISSING_KEY, place, message));
                }
                call(&undo, found)
            }),
        };
        // A broken one has its findings; the step is not one that has nothing.
        return call.map_or(Undo::ReadOnly, |call| Undo::Compensate(Box::new(call)));
    }
    if let Some(node) = fields.get("no_undo") {
        let reason = fields.text("no_undo", found).unwrap_or_default();
        if node.as_str().is_some_and(|reason| reason.trim().is_empty()) {
            let message = "`no_undo` gives no reason";
            found.push(
                Diagnostic::error(code::BAD_VALUE, node.span.clone(), message).help("say why it cannot be undone"),
            );
        }
        return Undo::None {
            reason: reason.to_owned(),
        };
    }
    if fields.flag("read_only", found) {
        return Undo::ReadOnly;
    }
    Undo::Undeclared
}
