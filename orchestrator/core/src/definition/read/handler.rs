//! `signals:`, what is done for each signal of a name.

use super::document::json_schema;
use super::steps::Reader;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected};
use crate::definition::keys::SIGNAL_HANDLER;
use crate::definition::model::Handler;
use crate::definition::names::token;
use crate::definition::tree::{Kind, Node};

impl Reader<'_> {
    /// Ids of steps are those of the definition: no handler has one that the main body has.
    pub(super) fn signals(&mut self, node: &Node) -> Vec<Handler> {
        let Kind::Object(entries) = &node.kind else {
            expected(node, "`signals`", "a mapping of names to handlers", self.found);
            return Vec::new();
        };
        let mut handlers: Vec<Handler> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Some(name) = token(&key.text, &key.span, "signal", self.found) else {
                continue;
            };
            if handlers.iter().any(|earlier| earlier.name.text == name.text) {
                let message = format!("the key `{}` appears twice", name.text);
                self.found
                    .push(Diagnostic::error(code::DUPLICATE_KEY, name.place, message));
                continue;
            }
            let Some(fields) = Fields::open(value, &SIGNAL_HANDLER, self.found) else {
                continue;
            };
            let schema = fields.get("schema");
            handlers.push(Handler {
                schema: schema.and_then(|node| json_schema(node, self.files, self.found)),
                steps: self.main_body(&fields, "a handler", &key.span),
                name,
            });
        }
        handlers
    }
}
