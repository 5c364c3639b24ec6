//! From the tree to the model: steps and what they do.

use super::code;
use super::diagnostic::Diagnostic;
use super::fields::{Fields, expected};
use super::keys::{COMPENSATE, KINDS, STEP};
use super::model::{Activity, Call, CallFields, Step, StepKind, Text, Undo};
use super::names::{identifier, name, shortened};
use super::near::nearest;
use super::plan::OnFailure;
use super::read::{Found, call_fields};
use super::tree::{Kind, Node};
use crate::expression;

/// Steps of one definition.
pub(super) const MAX_STEPS: usize = 1_000;

pub(super) fn steps(node: &Node, found: &mut Found) -> Vec<Step> {
    let Kind::Array(items) = &node.kind else {
        expected(node, "`steps`", "a list (`- <id>: { … }`)", found);
        return Vec::new();
    };
    if items.is_empty() {
        let message = "`steps` is empty";
        found.push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message).help("add a step"));
    }
    if items.len() > MAX_STEPS {
        let message = format!("the definition has {} steps; the limit is {MAX_STEPS}", items.len());
        found.push(Diagnostic::error(code::TOO_LARGE, node.span.clone(), message));
        return Vec::new();
    }
    let mut steps: Vec<Step> = Vec::with_capacity(items.len());
    let mut seen = std::collections::BTreeSet::new();
    for item in items {
        let Some(step) = step(item, found) else { continue };
        if seen.insert(step.id.text.clone()) {
            steps.push(step);
        } else {
            let message = format!("there is a step `{}` already", step.id.text);
            found.push(Diagnostic::error(code::DUPLICATE_STEP, step.id.place, message));
        }
    }
    steps
}

fn step(item: &Node, found: &mut Found) -> Option<Step> {
    let Kind::Object(entries) = &item.kind else {
        expected(item, "a step", "a mapping of one id (`- <id>: { … }`)", found);
        return None;
    };
    let Some(((key, body), rest)) = entries.split_first() else {
        let message = "a step is empty";
        found.push(Diagnostic::error(code::STEP_KIND, item.span.clone(), message));
        return None;
    };
    if let Some((extra, _)) = rest.first() {
        let message = format!("a step has one id, and `{}` stands beside `{}`", extra.text, key.text);
        let help = if matches!(body.kind, Kind::Null) {
            format!("indent what belongs to `{}` further than its id", key.text)
        } else {
            "begin every step with `- `".to_owned()
        };
        found.push(Diagnostic::error(code::SHAPE, extra.span.clone(), message).help(help));
    }
    let id = identifier(&key.text, &key.span, "step", found)?;
    if !rest.is_empty() {
        return Some(Step {
            id,
            condition: None,
            kind: StepKind::Broken,
        });
    }
    let Some(fields) = Fields::open(body, &STEP, found) else {
        return Some(Step {
            id,
            condition: None,
            kind: StepKind::Broken,
        });
    };
    let condition = condition(&fields, found);
    let kind = match (fields.get("activity"), fields.get("set")) {
        (Some(_), None) => {
            activity(&fields, found).map_or(StepKind::Broken, |activity| StepKind::Activity(Box::new(activity)))
        }
        (None, Some(node)) => {
            for key in STEP.known {
                if !matches!(*key, "set" | "if")
                    && let Some(place) = fields.key_place(key)
                {
                    let message = format!("`{key}` has no meaning beside `set`");
                    found.push(Diagnostic::error(code::CONTRADICTION, place, message).help("remove it"));
                }
            }
            StepKind::Set(assignments(node, "`set`", found))
        }
        (Some(_), Some(_)) => {
            let place = fields.key_place("set").unwrap_or_default();
            let message = "a step is either an activity or a `set`";
            found.push(Diagnostic::error(code::STEP_KIND, place, message));
            StepKind::Broken
        }
        (None, None) => {
            // A kind of step that is not supported, or misspelt, has its own finding.
            let explained = entries_of(body).any(|key| {
                STEP.later.contains(&key)
                    || nearest(key, STEP.known.iter().copied()).is_some_and(|k| KINDS.contains(&k))
            });
            if !explained {
                let message = format!("the step `{}` has neither `activity` nor `set`", id.text);
                found.push(Diagnostic::error(code::STEP_KIND, id.place.clone(), message));
            }
            StepKind::Broken
        }
    };
    Some(Step { id, condition, kind })
}

fn entries_of(node: &Node) -> impl Iterator<Item = &str> {
    let entries = match &node.kind {
        Kind::Object(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(key, _)| key.text.as_str())
}

/// The expression, with or without `${ }` around it.
fn condition(fields: &Fields<'_>, found: &mut Found) -> Option<Text> {
    let node = fields.get("if")?;
    let text = match &node.kind {
        Kind::String(text) => text.as_str(),
        Kind::Bool(true) => "true",
        Kind::Bool(false) => "false",
        _ => {
            expected(node, "`if`", "an expression", found);
            return None;
        }
    };
    let trimmed = text.trim();
    let inner = match expression::split(trimmed).as_deref() {
        Ok([expression::Part::Expression(range)]) => trimmed[range.clone()].to_owned(),
        _ => trimmed.to_owned(),
    };
    Some(Text {
        text: inner,
        place: node.span.clone(),
    })
}

fn activity(fields: &Fields<'_>, found: &mut Found) -> Option<Activity> {
    let call = call(fields, found);
    let on_failure = match fields.text("on_failure", found) {
        None | Some("fail") => OnFailure::Fail,
        Some("continue") => OnFailure::Continue,
        Some(other) => {
            let place = fields.get("on_failure").map(|n| n.span.clone()).unwrap_or_default();
            let message = format!("`on_failure` is `fail` or `continue`, not `{}`", shortened(other));
            found.push(Diagnostic::error(code::BAD_VALUE, place, message));
            OnFailure::Fail
        }
    };
    let compensate_on_failure = fields.flag("compensate_on_failure", found);
    let undo = undo(fields, found);
    if compensate_on_failure && !matches!(undo, Undo::Compensate(_)) {
        let place = fields.key_place("compensate_on_failure").unwrap_or_default();
        let message = "`compensate_on_failure` needs `compensate`";
        found.push(Diagnostic::error(code::CONTRADICTION, place, message).help("add `compensate`, or remove it"));
    }
    Some(Activity {
        call: call?,
        undo,
        on_failure,
        compensate_on_failure,
    })
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

/// Names and what they are set to, in the order written.
pub(super) fn assignments(node: &Node, what: &str, found: &mut Found) -> Vec<(Text, Node)> {
    let Kind::Object(entries) = &node.kind else {
        expected(node, what, "a mapping of names to values", found);
        return Vec::new();
    };
    let mut assignments: Vec<(Text, Node)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let kind = if what == "`set`" {
            "variable"
        } else {
            "search attribute"
        };
        let Some(name) = identifier(&key.text, &key.span, kind, found) else {
            continue;
        };
        if assignments.iter().any(|(earlier, _)| earlier.text == name.text) {
            let message = format!("the key `{}` appears twice", name.text);
            found.push(Diagnostic::error(code::DUPLICATE_KEY, name.place, message));
            continue;
        }
        assignments.push((name, value.clone()));
    }
    assignments
}
