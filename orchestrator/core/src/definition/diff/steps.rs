//! The steps of a canonical form, each with its place, and its fields without the steps in it.

use serde_json::{Map, Value};

use crate::lines::{self, Sign};
use crate::run::{SIGNALS, UPDATES};

pub(super) struct Placed<'a> {
    pub(super) id: &'a str,
    pub(super) path: String,
    /// The path of the list it stands in; another one than the step's where a step has several.
    pub(super) body: String,
    /// The id of the step before it in its list.
    pub(super) behind: Option<&'a str>,
    step: &'a Value,
}

/// Every step, in the order of the text.
pub(super) fn placed(definition: &Value) -> Vec<Placed<'_>> {
    let mut all = Vec::new();
    list(&definition["steps"], "", &mut all);
    for (key, group) in [("signals", SIGNALS), ("updates", UPDATES)] {
        for (name, handler) in definition[key].as_object().into_iter().flatten() {
            list(&handler["steps"], &joined(group, name), &mut all);
        }
    }
    all
}

fn list<'a>(steps: &'a Value, body: &str, all: &mut Vec<Placed<'a>>) {
    let mut behind = None;
    for step in steps.as_array().into_iter().flatten() {
        let Some((id, step)) = step.as_object().and_then(|step| step.iter().next()) else {
            continue;
        };
        let path = joined(body, id);
        all.push(Placed {
            id,
            path: path.clone(),
            body: body.to_owned(),
            behind,
            step,
        });
        bodies(step, &path, all);
        behind = Some(id);
    }
}

fn joined(body: &str, id: &str) -> String {
    if body.is_empty() {
        id.to_owned()
    } else {
        format!("{body}.{id}")
    }
}

/// Looks for lists of steps wherever a kind of step has them; the names are those of paths.
fn bodies<'a>(value: &'a Value, path: &str, all: &mut Vec<Placed<'a>>) {
    let Some(step) = value.as_object() else {
        return;
    };
    for (kind, of) in step {
        match (kind.as_str(), of) {
            ("parallel", of) => {
                for (name, branch) in of["branches"].as_object().into_iter().flatten() {
                    list(&branch["steps"], &joined(path, name), all);
                }
            }
            ("switch", Value::Array(cases)) => {
                for (at, case) in cases.iter().enumerate() {
                    match case.get("else") {
                        Some(other) => list(&other["steps"], &joined(path, "else"), all),
                        None => list(&case["steps"], &joined(path, &format!("case_{}", at + 1)), all),
                    }
                }
            }
            ("for_each" | "while", of) => list(&of["steps"], path, all),
            ("try", of) => {
                list(&of["steps"], path, all);
                for (at, catch) in of["catch"].as_array().into_iter().flatten().enumerate() {
                    list(&catch["steps"], &joined(path, &format!("catch_{}", at + 1)), all);
                }
                list(&of["finally"]["steps"], &joined(path, "finally"), all);
            }
            ("scope", of) => {
                list(&of["steps"], path, all);
                list(&of["otherwise"]["steps"], &joined(path, "otherwise"), all);
            }
            ("on_timeout", of) => list(&of["steps"], &joined(path, "on_timeout"), all),
            _ => {}
        }
    }
}

impl Placed<'_> {
    /// What it is, in a word or two.
    pub(super) fn what(&self) -> String {
        let kinds = [
            "activity",
            "set",
            "parallel",
            "for_each",
            "switch",
            "while",
            "try",
            "scope",
            "wait",
            "wait_for",
            "workflow",
            "emit",
            "fail",
            "complete",
            "continue_as_new",
        ];
        let kind = kinds
            .into_iter()
            .find(|kind| self.step.get(kind).is_some())
            .unwrap_or("step");
        match &self.step[kind] {
            Value::String(name) => format!("{kind} {name}"),
            _ => kind.to_owned(),
        }
    }

    pub(super) fn fields(&self) -> Vec<(String, Value)> {
        fields(self.step)
    }
}

pub(super) fn fields(of: &Value) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    flatten("", of, &mut fields);
    fields
}

/// The fields under these keys.
pub(super) fn fields_of(definition: &Value, told: impl Fn(&str) -> bool) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    for (key, value) in definition.as_object().into_iter().flatten() {
        if told(key) {
            flatten(key, value, &mut fields);
        }
    }
    fields
}

/// Mappings are taken apart, but for schemas, which say little in pieces.
fn flatten(name: &str, value: &Value, fields: &mut Vec<(String, Value)>) {
    let whole = name.ends_with("_schema") || name == "schema";
    match value {
        Value::Object(entries) if !whole && !entries.is_empty() => {
            for (key, value) in entries {
                if key != "steps" || !has_steps(name) {
                    flatten(&joined(name, key), value, fields);
                }
            }
        }
        Value::Array(items) if matches!(name, "switch" | "try.catch") => {
            let items = items.iter().map(without_steps).collect();
            fields.push((name.to_owned(), Value::Array(items)));
        }
        value => fields.push((name.to_owned(), value.clone())),
    }
}

/// Whether `steps` are steps there. Elsewhere it is a name in data.
fn has_steps(name: &str) -> bool {
    name.starts_with("parallel.branches.")
        || matches!(
            name,
            "for_each" | "while" | "try" | "try.finally" | "scope" | "scope.otherwise" | "on_timeout"
        )
}

/// What a handler says beside its steps.
pub(super) fn around_steps(handler: &Value) -> Value {
    let mut said = handler.clone();
    if let Some(fields) = said.as_object_mut() {
        fields.shift_remove("steps");
    }
    said
}

/// Of a case, or a catch: its condition alone.
fn without_steps(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let kept = entries.iter().filter(|(key, _)| *key != "steps");
            Value::Object(
                kept.map(|(key, value)| (key.clone(), without_steps(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        value => value.clone(),
    }
}

/// Whether it stands elsewhere among those that both versions have in this list.
pub(super) fn is_moved(step: &Placed<'_>, old: &[Placed<'_>], new: &[Placed<'_>]) -> bool {
    let in_list = |all: &[Placed<'_>], others: &[Placed<'_>]| {
        let both = |it: &&Placed<'_>| {
            let mut others = others.iter();
            it.body == step.body && others.any(|other| other.id == it.id && other.body == step.body)
        };
        let ids: Vec<_> = all.iter().filter(both).map(|it| it.id.to_owned()).collect();
        ids.join("\n")
    };
    let (before, after) = (in_list(old, new), in_list(new, old));
    let moved = lines::diff(&before, &after);
    moved.iter().any(|line| line.sign == Sign::Plus && line.text == step.id)
}
