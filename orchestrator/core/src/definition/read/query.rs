//! `queries:`, and expressions that are asked ad hoc.

use super::Found;
use super::value::computed;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::expected;
use crate::definition::model::Text;
use crate::definition::names::token;
use crate::definition::tree::{Kind, Node};
use crate::expression::{self, Part};

/// By name, in the order written; a text alone is an expression, with or without `${ }`.
pub(super) fn queries(node: &Node, found: &mut Found) -> Vec<(Text, Node)> {
    let Kind::Object(entries) = &node.kind else {
        expected(node, "`queries`", "a mapping of names to expressions", found);
        return Vec::new();
    };
    let mut queries: Vec<(Text, Node)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let Some(name) = token(&key.text, &key.span, "query", found) else {
            continue;
        };
        if queries.iter().any(|(earlier, _)| earlier.text == name.text) {
            let message = format!("the key `{}` appears twice", name.text);
            found.push(Diagnostic::error(code::DUPLICATE_KEY, name.place, message));
            continue;
        }
        queries.push((name, computed(value, found)));
    }
    queries
}

/// One expression, with or without `${ }` around it.
pub(crate) fn asked(text: &str) -> Node {
    let trimmed = text.trim();
    let whole = match expression::split(trimmed).as_deref() {
        Ok([Part::Expression(_)]) => trimmed.to_owned(),
        _ => format!("${{ {trimmed} }}"),
    };
    Node {
        span: 0..text.len(),
        kind: Kind::String(whole),
    }
}
