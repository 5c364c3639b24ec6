//! A document as a tree of values that know where they stand.

use std::ops::Range;

use serde_json::{Map, Number, Value};

/// In bytes of the document; empty at 0 for what was not read from one.
pub(super) type Place = Range<usize>;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) span: Place,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Node>),
    /// In the order written; keys may repeat.
    Object(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Place,
}

impl Node {
    /// For people.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::String(_) => "a string",
            Kind::Array(_) => "a list",
            Kind::Object(_) => "a mapping",
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn from_json(value: &Value) -> Self {
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(truth) => Kind::Bool(*truth),
            Value::Number(number) => Kind::Number(number.clone()),
            Value::String(text) => Kind::String(text.clone()),
            Value::Array(items) => Kind::Array(items.iter().map(Self::from_json).collect()),
            Value::Object(entries) => Kind::Object(
                entries
                    .iter()
                    .map(|(key, item)| {
                        let key = Key {
                            text: key.clone(),
                            span: 0..0,
                        };
                        (key, Self::from_json(item))
                    })
                    .collect(),
            ),
        };
        Self { span: 0..0, kind }
    }

    /// Of a key that repeats, the last counts; repeats are findings long before.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(truth) => Value::Bool(*truth),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::String(text) => Value::String(text.clone()),
            Kind::Array(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Object(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, item)| (key.text.clone(), item.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// `[]` has depth 1, a plain value 0.
    pub(super) fn depth(&self) -> usize {
        match &self.kind {
            Kind::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            Kind::Object(entries) => 1 + entries.iter().map(|(_, item)| item.depth()).max().unwrap_or_default(),
            _ => 0,
        }
    }

    /// This node and all below it.
    pub(super) fn visit<'a>(&'a self, each: &mut dyn FnMut(&'a Node)) {
        each(self);
        match &self.kind {
            Kind::Array(items) => items.iter().for_each(|item| item.visit(each)),
            Kind::Object(entries) => entries.iter().for_each(|(_, item)| item.visit(each)),
            _ => {}
        }
    }
}
