//! `for_each` and `while`.

use super::steps::Reader;
use super::value::{computed, condition, whole};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected, listed};
use crate::definition::keys::{FOR_EACH, WHILE};
use crate::definition::model::{ForEach, Text, While};
use crate::definition::names::identifier;
use crate::definition::tree::{Kind, Node, Place};
use crate::expression::{Expression, FUNCTIONS};

/// Of one loop; a list may be as long as its value may be large.
const MAX_ITERATIONS: u32 = 1_000_000;
const MAX_CONCURRENCY: u32 = 10_000;
/// Names of the language that an item cannot take.
const RESERVED: &[&str] = &["input", "steps", "vars", "run", "error", "signal", "index"];

/// Some words (`none`, `not`, `in`) mean something else in an expression.
fn is_a_path(name: &str) -> bool {
    Expression::compile(name).is_ok_and(|expression| {
        let [reference] = expression.references() else {
            return false;
        };
        reference.path.root.as_ref() == name
    })
}

impl Reader<'_> {
    pub(super) fn for_each(&mut self, node: &Node, place: &Place) -> Option<ForEach> {
        let fields = Fields::open(node, &FOR_EACH, self.found)?;
        let list = match fields.get("in") {
            Some(list) => {
                if !matches!(list.kind, Kind::String(_) | Kind::Array(_)) {
                    expected(list, "`in`", "an expression or a list", self.found);
                }
                computed(list, self.found)
            }
            None => {
                self.missing(&fields, "`for_each`", "in", place);
                Node {
                    span: place.clone(),
                    kind: Kind::Array(Vec::new()),
                }
            }
        };
        let item = self.item(&fields).unwrap_or(Text {
            text: "item".to_owned(),
            place: place.clone(),
        });
        Some(ForEach {
            list,
            item,
            max_concurrency: whole(&fields, "max_concurrency", MAX_CONCURRENCY, self.found),
            steps: self.main_body(&fields, "`for_each`", place),
            collect: fields.get("collect").map(|node| computed(node, self.found)),
        })
    }

    fn item(&mut self, fields: &Fields<'_>) -> Option<Text> {
        let node = fields.get("as")?;
        let name = identifier(fields.text("as", self.found)?, &node.span, "loop item", self.found)?;
        if RESERVED.contains(&name.text.as_str()) || FUNCTIONS.contains(&name.text.as_str()) || !is_a_path(&name.text) {
            let message = format!("`{}` is a name of the language and cannot name an item", name.text);
            let help = format!("use another name than {}, or a word of expressions", listed(RESERVED));
            self.found
                .push(Diagnostic::error(code::BAD_NAME, node.span.clone(), message).help(help));
        }
        Some(name)
    }

    pub(super) fn repeat(&mut self, node: &Node, place: &Place) -> Option<While> {
        let fields = Fields::open(node, &WHILE, self.found)?;
        if fields.get("when").is_none() {
            self.missing(&fields, "`while`", "when", place);
        }
        if fields.get("max_iterations").is_none() {
            let message = "`while` has no `max_iterations`, so nothing bounds it";
            self.found
                .push(Diagnostic::error(code::UNBOUNDED, place.clone(), message));
        }
        Some(While {
            when: condition(&fields, "when", self.found).unwrap_or(Text {
                text: "true".to_owned(),
                place: place.clone(),
            }),
            max_iterations: whole(&fields, "max_iterations", MAX_ITERATIONS, self.found).unwrap_or(1),
            steps: self.main_body(&fields, "`while`", place),
        })
    }
}
