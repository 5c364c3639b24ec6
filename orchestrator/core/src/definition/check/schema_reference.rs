//! What expressions read of the input, an output or a loop's item, held against its JSON Schema.
//!
//! Looks only where the schema is plain (`properties`, `items`); where it is composed nothing is said.

use serde_json::Value;

use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::near::nearest;
use crate::definition::tree::Place;
use crate::expression::Segment;

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

fn is_composed(schema: &Value) -> bool {
    COMPOSED.iter().any(|key| schema.get(key).is_some())
}

/// The schema of what a path leads to.
pub(super) fn follow<'s>(schema: &'s Value, segments: &[Segment]) -> Option<&'s Value> {
    let end = segments.iter().try_fold(schema, |at, segment| {
        if is_composed(at) {
            return None;
        }
        match segment {
            Segment::Index(_) => at.get("items"),
            Segment::Key(key) => at.get("properties")?.get(key.as_ref()),
        }
    })?;
    (!is_composed(end)).then_some(end)
}

/// The types a schema allows, as far as it says so itself.
pub(super) fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// `what` names the schema, for messages. A property the schema does not have: an error where it forbids others, a
/// warning where a name is near. One that values may leave out, read without a word on that: a notice.
pub(super) fn check(
    what: &str,
    schema: &Value,
    segments: &[Segment],
    guarded: bool,
    place: Place,
) -> Option<Diagnostic> {
    let mut at = schema;
    let mut optional = None;
    for segment in segments {
        if is_composed(at) {
            return None;
        }
        at = match segment {
            Segment::Index(_) => at.get("items")?,
            Segment::Key(key) => {
                let properties = at.get("properties")?.as_object()?;
                let Some(property) = properties.get(key.as_ref()) else {
                    return unknown(what, at, key, place);
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
    let message = format!("{what} does not require `{name}`; without it the run fails here");
    Some(Diagnostic::error(code::OPTIONAL_INPUT, place, message).severity(Severity::Notice))
}

fn unknown(what: &str, schema: &Value, key: &str, place: Place) -> Option<Diagnostic> {
    let properties = schema.get("properties")?.as_object()?;
    let near = nearest(key, properties.keys().map(String::as_str));
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    if !closed && near.is_none() {
        return None;
    }
    let message = format!("{what} has no property `{key}` there");
    let finding = Diagnostic::error(code::NOT_IN_SCHEMA, place, message).suggest(near);
    Some(if closed {
        finding
    } else {
        finding.severity(Severity::Warning)
    })
}
