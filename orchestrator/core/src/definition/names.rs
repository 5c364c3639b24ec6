//! Names: those that become parts of subjects, and those that expressions use.

use super::code;
use super::diagnostic::Diagnostic;
use super::fields::expected;
use super::model::Text;
use super::tree::{Kind, Node, Place};

/// Longest name of a workflow, an activity, a queue; a subject holds several.
const MAX_NAME_BYTES: usize = 100;
/// Longest step id and variable; paths are made of them.
const MAX_ID_BYTES: usize = 64;

/// A name that becomes part of a subject.
pub(super) fn name(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Text> {
    let Some(text) = node.as_str() else {
        expected(node, &format!("`{what}`"), "a name", found);
        return None;
    };
    token(text, &node.span, what, found)
}

/// The same, of a key.
pub(super) fn token(text: &str, place: &Place, what: &str, found: &mut Vec<Diagnostic>) -> Option<Text> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.chars().all(fits) {
        let article = if what.starts_with(['a', 'u']) { "an" } else { "a" };
        let message = format!("`{}` cannot be the name of {article} {what}", shortened(text));
        let help = format!("use letters, digits, `_` and `-`, up to {MAX_NAME_BYTES}");
        found.push(Diagnostic::error(code::BAD_NAME, place.clone(), message).help(help));
        return None;
    }
    Some(Text {
        text: text.to_owned(),
        place: place.clone(),
    })
}

/// A name that expressions use: a step's id, a variable.
pub(super) fn identifier(text: &str, place: &Place, what: &str, found: &mut Vec<Diagnostic>) -> Option<Text> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !starts || text.len() > MAX_ID_BYTES || !text.chars().all(fits) {
        let message = format!("`{}` cannot be the name of a {what}", shortened(text));
        let help = format!("use letters, digits and `_`, up to {MAX_ID_BYTES}, not beginning with a digit");
        found.push(Diagnostic::error(code::BAD_NAME, place.clone(), message).help(help));
        return None;
    }
    Some(Text {
        text: text.to_owned(),
        place: place.clone(),
    })
}

/// Names and what they are set to, in the order written.
pub(super) fn assignments(node: &Node, what: &str, kind: &str, found: &mut Vec<Diagnostic>) -> Vec<(Text, Node)> {
    let Kind::Object(entries) = &node.kind else {
        expected(node, what, "a mapping of names to values", found);
        return Vec::new();
    };
    let mut assignments: Vec<(Text, Node)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
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

pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let start: String = text.chars().take(60).collect();
    format!("{start}…")
}
