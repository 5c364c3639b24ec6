//! Values that several kinds of step have: conditions, expressions, whole numbers, one of a few words, error types.

use super::Found;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected, listed};
use crate::definition::model::Text;
use crate::definition::names::shortened;
use crate::definition::near::nearest;
use crate::definition::tree::{Kind, Node};
use crate::expression;

/// Longest type of an error.
const MAX_TYPE_BYTES: usize = 200;

/// A condition, with or without `${ }` around it.
pub(super) fn condition(fields: &Fields<'_>, key: &str, found: &mut Found) -> Option<Text> {
    let node = fields.get(key)?;
    let text = match &node.kind {
        Kind::String(text) => text.as_str(),
        Kind::Bool(true) => "true",
        Kind::Bool(false) => "false",
        _ => {
            expected(node, &format!("`{key}`"), "an expression", found);
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

/// A value that is computed: a text without `${ }` is an expression as a whole, as in conditions.
pub(super) fn computed(node: &Node, found: &mut Found) -> Node {
    let Some(text) = node.as_str().filter(|text| !text.contains("${")) else {
        return node.clone();
    };
    let whole = format!("${{ {text} }}");
    if !matches!(
        expression::split(&whole).as_deref(),
        Ok([expression::Part::Expression(_)])
    ) {
        let message = "the expression has a bracket or quote that nothing matches";
        found.push(Diagnostic::error(code::EXPRESSION, node.span.clone(), message));
    }
    Node {
        span: node.span.clone(),
        kind: Kind::String(whole),
    }
}

/// A [`computed`] value that must be written as a text.
pub(super) fn computed_text(node: &Node, what: &str, found: &mut Found) -> Option<Node> {
    if node.as_str().is_none() {
        expected(node, &format!("`{what}`"), "an expression", found);
        return None;
    }
    Some(computed(node, found))
}

/// A text that may hold expressions.
pub(super) fn template_text(fields: &Fields<'_>, key: &str, found: &mut Found) -> Option<Node> {
    let node = fields.get(key)?;
    fields.text(key, found)?;
    Some(node.clone())
}

pub(super) fn whole(fields: &Fields<'_>, key: &str, max: u32, found: &mut Found) -> Option<u32> {
    let node = fields.get(key)?;
    let Kind::Number(number) = &node.kind else {
        expected(node, &format!("`{key}`"), "a whole number", found);
        return None;
    };
    let value = number.as_u64().and_then(|n| u32::try_from(n).ok());
    let value = value.filter(|n| (1..=max).contains(n));
    if value.is_none() {
        let message = format!("`{key}` must be a whole number from 1 to {max}, not {number}");
        found.push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message));
    }
    value
}

/// One of a few words; `None` where there is none, or none of them.
pub(super) fn word<T: Copy>(fields: &Fields<'_>, key: &str, words: &[(&str, T)], found: &mut Found) -> Option<T> {
    let node = fields.get(key)?;
    let text = fields.text(key, found)?;
    let value = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if value.is_none() {
        found.push(no_such_word(node, key, words.iter().map(|(word, _)| *word)));
    }
    value
}

pub(super) fn no_such_word<'a>(node: &Node, key: &str, words: impl Iterator<Item = &'a str>) -> Diagnostic {
    let words: Vec<&str> = words.collect();
    let text = node.as_str().unwrap_or_default();
    let choice = listed(&words).replace(" and ", " or ");
    let message = format!("`{key}` is {choice}, not `{}`", shortened(text));
    Diagnostic::error(code::BAD_VALUE, node.span.clone(), message).suggest(nearest(text, words))
}

pub(super) fn error_types(node: &Node, what: &str, found: &mut Found) -> Vec<String> {
    let Kind::Array(items) = &node.kind else {
        expected(node, what, "a list of error types", found);
        return Vec::new();
    };
    let types = items.iter().filter_map(|item| error_type(item, found));
    types.collect()
}

pub(super) fn error_type(node: &Node, found: &mut Found) -> Option<String> {
    match node.as_str() {
        Some(text) if !text.is_empty() && text.len() <= MAX_TYPE_BYTES => Some(text.to_owned()),
        _ => {
            let wanted = format!("a string of 1 to {MAX_TYPE_BYTES} bytes");
            expected(node, "an error type", &wanted, found);
            None
        }
    }
}
