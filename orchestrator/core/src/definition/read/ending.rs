//! `emit`, and the kinds that end a run: `fail`, `complete` and `continue_as_new`.

use super::steps::Reader;
use super::value::template_text;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::Fields;
use crate::definition::keys::{EMIT, FAIL};
use crate::definition::model::{Emit, Fail};
use crate::definition::names::shortened;
use crate::definition::tree::{Kind, Node, Place};

/// `null` and nothing at all are the same.
pub(super) fn value(node: &Node) -> Option<Node> {
    (!matches!(node.kind, Kind::Null)).then(|| node.clone())
}

impl Reader<'_> {
    pub(super) fn emit(&mut self, node: &Node, place: &Place) -> Option<Emit> {
        let fields = Fields::open(node, &EMIT, self.found)?;
        if fields.get("subject").is_none() {
            self.missing(&fields, "`emit`", "subject", place);
        }
        let subject = template_text(&fields, "subject", self.found)?;
        self.check_subject(&subject);
        Some(Emit {
            subject,
            body: fields.get("body").cloned(),
        })
    }

    /// As far as it is written out; what expressions make of the rest is looked at when it is published.
    fn check_subject(&mut self, node: &Node) {
        let text = node.as_str().unwrap_or_default();
        let literal = text.split("${").next().unwrap_or_default();
        let reserved = text.starts_with("knarr.") || text == "knarr" || literal.starts_with('$');
        let wildcard = |token: &str| matches!(token, "*" | ">");
        let why = if text.is_empty() {
            "is empty"
        } else if reserved {
            "is Knarr's own or the server's"
        } else if literal.split('.').any(wildcard) {
            "has a wildcard"
        } else if literal.contains(char::is_whitespace) {
            "has a space"
        } else if text.starts_with('.') || text.ends_with('.') || literal.contains("..") {
            "has an empty part"
        } else {
            return;
        };
        let message = format!("nothing can be published to `{}`: it {why}", shortened(text));
        let finding = Diagnostic::error(code::BAD_VALUE, node.span.clone(), message);
        self.found
            .push(finding.help("use a subject of your own, like `orders.shipped`"));
    }

    pub(super) fn fail(&mut self, node: &Node, place: &Place) -> Option<Fail> {
        let fields = Fields::open(node, &FAIL, self.found)?;
        if fields.get("type").is_none() {
            self.missing(&fields, "`fail`", "type", place);
        }
        let message = template_text(&fields, "message", self.found);
        let error_type = template_text(&fields, "type", self.found)?;
        if error_type.as_str().is_some_and(str::is_empty) {
            let message = "`type` is empty";
            let finding = Diagnostic::error(code::BAD_VALUE, error_type.span.clone(), message);
            self.found.push(finding.help("name the error, like `card_declined`"));
        }
        Some(Fail { error_type, message })
    }
}
