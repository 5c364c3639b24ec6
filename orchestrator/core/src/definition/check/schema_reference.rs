//! What expressions read of the input, an output or a loop's item, held against its JSON Schema.
//!
//! Looks only where the schema is plain (`properties`, `items`, a `$ref` within it); where it is composed nothing is said.

use serde_json::Value;

use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::near::nearest;
use crate::definition::tree::Place;
use crate::expression::Segment;

const COMPOSED: &[&str] = &[
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "patternProperties",
    "dependentSchemas",
];
/// What may stand beside a `$ref` without a meaning of its own.
const NOTES: &[&str] = &["$ref", "$comment", "title", "description", "default", "examples"];
/// References from one to the next; more are a circle.
const MAX_REFERENCES: usize = 16;

/// A schema, within the one whose definitions it may refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'s> {
    root: &'s Value,
    at: &'s Value,
}

impl<'s> Shape<'s> {
    pub(super) fn of(root: &'s Value) -> Self {
        Self { root, at: root }
    }

    fn at(self, at: &'s Value) -> Self {
        Self { at, ..self }
    }

    /// Itself or what it refers to; `None` where it is composed.
    fn plain(self) -> Option<Self> {
        let mut at = self.at;
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = at.get("$ref") else {
                return (!COMPOSED.iter().any(|key| at.get(key).is_some())).then(|| self.at(at));
            };
            if !at.as_object()?.keys().all(|key| NOTES.contains(&key.as_str())) {
                return None;
            }
            at = self.root.pointer(reference.as_str()?.strip_prefix('#')?)?;
        }
        None
    }

    /// What a path leads to.
    pub(super) fn follow(self, segments: &[Segment]) -> Option<Self> {
        let end = segments.iter().try_fold(self, |at, segment| match segment {
            Segment::Index(_) => at.items(),
            Segment::Key(key) => {
                let plain = at.plain()?;
                Some(plain.at(plain.at.get("properties")?.get(key.as_ref())?))
            }
        });
        end?.plain()
    }

    pub(super) fn items(self) -> Option<Self> {
        let plain = self.plain()?;
        Some(plain.at(plain.at.get("items")?))
    }

    /// The types that are allowed, as far as it says so itself.
    pub(super) fn types(self) -> Vec<&'s str> {
        match self.at.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// `what` names the schema, for messages. A property it does not have: an error where it forbids others, a warning where
    /// a name is near. One that values may leave out, read without a word on that: a notice.
    pub(super) fn check(self, what: &str, segments: &[Segment], guarded: bool, place: Place) -> Option<Diagnostic> {
        let mut at = self;
        let mut optional = None;
        for segment in segments {
            at = match segment {
                Segment::Index(_) => at.items()?,
                Segment::Key(key) => {
                    let plain = at.plain()?;
                    let properties = plain.at.get("properties")?.as_object()?;
                    let Some(property) = properties.get(key.as_ref()) else {
                        return unknown(what, plain.at, key, place);
                    };
                    let required = plain.at.get("required").and_then(Value::as_array);
                    if !required.is_some_and(|names| names.iter().any(|name| name == key.as_ref())) {
                        optional.get_or_insert(key);
                    }
                    plain.at(property)
                }
            };
        }
        let name = optional.filter(|_| !guarded)?;
        let message = format!("{what} does not require `{name}`; without it the run fails here");
        Some(Diagnostic::error(code::OPTIONAL_INPUT, place, message).severity(Severity::Notice))
    }
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
