//! What expressions read of the input, held against its JSON Schema.
//!
//! Looks only where the schema is plain (`properties`, `items`); where it is composed nothing is said.

use serde_json::Value;

use super::code;
use super::diagnostic::{Diagnostic, Severity};
use super::near::nearest;
use super::tree::Place;
use crate::expression::{Reference, Segment};

const COMPOSED: &[&str] = &[
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "patternProperties",
    "dependentSchemas",
];

/// A property the schema does not have: an error where it forbids others, a warning where a name is near. One that inputs
/// may leave out, read without a word on that: a notice.
pub(super) fn check(schema: &Value, reference: &Reference, guarded: bool, place: Place) -> Option<Diagnostic> {
    let mut at = schema;
    let mut optional = None;
    for segment in &reference.path.segments {
        if COMPOSED.iter().any(|key| at.get(key).is_some()) {
            return None;
        }
        at = match segment {
            Segment::Index(_) => at.get("items")?,
            Segment::Key(key) => {
                let properties = at.get("properties")?.as_object()?;
                let Some(property) = properties.get(key.as_ref()) else {
                    return unknown(at, key, place);
                };
                let required = at.get("required").and_then(Value::as_array);
                if !required.is_some_and(|names| names.iter().any(|name| name == key.as_ref())) {
                    optional.get_or_insert(key);
                }
                property
            }
        };
    }
    let name = optional.filter(|_| !guarded)?;
    let message = format!("the input schema does not require `{name}`; without it the run fails here");
    Some(Diagnostic::error(code::OPTIONAL_INPUT, place, message).severity(Severity::Notice))
}

fn unknown(schema: &Value, key: &str, place: Place) -> Option<Diagnostic> {
    let properties = schema.get("properties")?.as_object()?;
    let near = nearest(key, properties.keys().map(String::as_str));
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    if !closed && near.is_none() {
        return None;
    }
    let message = format!("the input schema has no property `{key}` there");
    let finding = Diagnostic::error(code::NOT_IN_SCHEMA, place, message).suggest(near);
    Some(if closed {
        finding
    } else {
        finding.severity(Severity::Warning)
    })
}
