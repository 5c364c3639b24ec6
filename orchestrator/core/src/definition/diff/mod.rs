//! What a new version of a definition changes, step by step, and in what starts its runs.
//!
//! Compared are the canonical forms, so that what was written in other words, or left to its default, is no difference.
//! Steps are recognised by their id, which is unique in a definition; a step with a new id is a new step. The version itself is
//! told and is no change.
//!
//! What this module does not do: say what a change means for runs that are open. They keep the definition they began with.

mod model;
mod parts;
mod steps;
mod words;

pub use model::{Change, Diff, Field, Version};

use serde_json::Value;

use super::BadCanonical;
use parts::parts;
use steps::{Placed, placed};

#[cfg(test)]
mod tests;

/// The field that every undo has.
const UNDO: &str = "compensate.activity";

/// Compares two canonical forms.
pub fn diff(before: &str, after: &str) -> Result<Diff, BadCanonical> {
    let parse = |text| serde_json::from_str::<Value>(text).map_err(|error| BadCanonical(error.to_string()));
    let (before, after) = (parse(before)?, parse(after)?);
    let mut changes = document(&before, &after);
    changes.extend(around(&before, &after));
    let (old, new) = (placed(&before), placed(&after));
    for step in &new {
        match old.iter().find(|other| other.id == step.id) {
            None => changes.push(Change::Added {
                step: step.path.clone(),
                what: step.what(),
            }),
            Some(other) => changes.extend(compare(other, step, &old, &new)),
        }
    }
    let gone = old.iter().filter(|step| !new.iter().any(|other| other.id == step.id));
    changes.extend(gone.map(|step| Change::Removed {
        step: step.path.clone(),
        what: step.what(),
    }));
    Ok(Diff {
        before: version(&before),
        after: version(&after),
        changes,
    })
}

fn version(definition: &Value) -> Version {
    Version {
        workflow: definition["workflow"].as_str().unwrap_or_default().to_owned(),
        version: definition["version"].as_u64().unwrap_or_default(),
    }
}

fn document(before: &Value, after: &Value) -> Vec<Change> {
    let told =
        |key: &str| !matches!(key, "workflow" | "version" | "steps" | "expr_version") && !parts::KEYS.contains(&key);
    let fields = steps::fields_of(before, told);
    let others = steps::fields_of(after, told);
    let changed = differences(&fields, &others);
    changed.into_iter().map(|field| Change::Document { field }).collect()
}

/// Schedule, concurrency and triggers.
fn around(before: &Value, after: &Value) -> Vec<Change> {
    let (old, new) = (parts(before), parts(after));
    let mut changes = Vec::new();
    for part in &new {
        match old.iter().find(|other| other.name == part.name) {
            None => changes.push(Change::PartAdded {
                part: part.name.clone(),
                what: part.what(),
                said: part.said(),
            }),
            Some(other) => changes.extend(other.differences(part).into_iter().map(|field| Change::PartChanged {
                part: part.name.clone(),
                field,
            })),
        }
    }
    let gone = old
        .iter()
        .filter(|part| !new.iter().any(|other| other.name == part.name));
    changes.extend(gone.map(|part| Change::PartRemoved {
        part: part.name.clone(),
        what: part.what(),
        said: part.said(),
    }));
    changes
}

fn compare(before: &Placed<'_>, after: &Placed<'_>, old: &[Placed<'_>], new: &[Placed<'_>]) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.body != after.body || steps::is_moved(after, old, new) {
        changes.push(Change::Moved {
            step: after.path.clone(),
            from: before.path.clone(),
            behind: after.behind.map(str::to_owned),
        });
    }
    let (mut was, mut is) = (before.fields(), after.fields());
    let has_undo = |fields: &[(String, Value)]| fields.iter().any(|(name, _)| name == UNDO);
    if has_undo(&was) != has_undo(&is) {
        // That there is one says it all.
        was.retain(|(name, _)| name == UNDO || !name.starts_with("compensate."));
        is.retain(|(name, _)| name == UNDO || !name.starts_with("compensate."));
    }
    let fields = differences(&was, &is);
    changes.extend(fields.into_iter().map(|field| Change::Changed {
        step: after.path.clone(),
        field,
    }));
    changes
}

/// In the order of the first, then what only the second has.
fn differences(before: &[(String, Value)], after: &[(String, Value)]) -> Vec<Field> {
    let find = |list: &[(String, Value)], name: &str| {
        let mut list = list.iter();
        list.find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let mut fields = Vec::new();
    for (name, value) in before {
        let now = find(after, name);
        if now.as_ref() != Some(value) {
            fields.push(Field {
                name: name.clone(),
                before: Some(value.clone()),
                after: now,
            });
        }
    }
    for (name, value) in after {
        if find(before, name).is_none() {
            fields.push(Field {
                name: name.clone(),
                before: None,
                after: Some(value.clone()),
            });
        }
    }
    fields
}
