//! `signals:` and `updates:`, what is done for each signal or update of a name.

use super::document::json_schema;
use super::steps::Reader;
use super::value::condition;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected};
use crate::definition::keys::{SIGNAL_HANDLER, UPDATE_HANDLER};
use crate::definition::model::{Handled, Handler, Steps};
use crate::definition::names::token;
use crate::definition::tree::{Kind, Node};

impl Reader<'_> {
    /// Ids of steps are those of the definition: no handler has one that the main body has.
    pub(super) fn handlers(&mut self, of: Handled, node: &Node) -> Vec<Handler> {
        let (key, keys) = match of {
            Handled::Signal => ("`signals`", &SIGNAL_HANDLER),
            Handled::Update => ("`updates`", &UPDATE_HANDLER),
        };
        let Kind::Object(entries) = &node.kind else {
            expected(node, key, "a mapping of names to handlers", self.found);
            return Vec::new();
        };
        let mut handlers: Vec<Handler> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Some(name) = token(&key.text, &key.span, of.root(), self.found) else {
                continue;
            };
            if handlers.iter().any(|earlier| earlier.name.text == name.text) {
                let message = format!("the key `{}` appears twice", name.text);
                self.found
                    .push(Diagnostic::error(code::DUPLICATE_KEY, name.place, message));
                continue;
            }
            let Some(fields) = Fields::open(value, keys, self.found) else {
                continue;
            };
            let steps = match (of, fields.get("steps")) {
                // Its answer may be all that there is to an update.
                (Handled::Update, None) => Steps::default(),
                _ => self.main_body(&fields, "a handler", &key.span),
            };
            handlers.push(Handler {
                of,
                schema: fields
                    .get("schema")
                    .and_then(|node| json_schema(node, self.files, self.found)),
                validate: condition(&fields, "validate", self.found),
                steps,
                output: fields.get("output").cloned(),
                name,
            });
        }
        handlers
    }
}
