//! `steps:` lists and the bodies around them.

use std::collections::BTreeSet;

use super::{Files, Found};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected};
use crate::definition::keys::BODY;
use crate::definition::model::Steps;
use crate::definition::tree::{Kind, Node, Place};

/// Steps of one definition, nested ones included.
pub(crate) const MAX_STEPS: usize = 1_000;
/// Bodies around a step, the top-level `steps:` not counted.
pub(crate) const MAX_NESTING: usize = 10;

/// What reading keeps in mind on its way down.
pub(super) struct Reader<'f> {
    pub(super) found: &'f mut Found,
    pub(super) files: Files<'f>,
    /// Of steps: unique in a definition, so that `steps.<id>` and paths are.
    ids: BTreeSet<String>,
    /// Lists around the place that is read.
    nesting: usize,
    count: usize,
}

impl<'f> Reader<'f> {
    pub(super) fn new(files: Files<'f>, found: &'f mut Found) -> Self {
        Self {
            found,
            files,
            ids: BTreeSet::new(),
            nesting: 0,
            count: 0,
        }
    }

    pub(super) fn steps(&mut self, node: &Node) -> Steps {
        let Kind::Array(items) = &node.kind else {
            expected(node, "`steps`", "a list (`- <id>: { … }`)", self.found);
            return Steps::default();
        };
        if items.is_empty() {
            let message = "`steps` is empty";
            let finding = Diagnostic::error(code::BAD_VALUE, node.span.clone(), message);
            self.found.push(finding.help("add a step"));
        }
        if self.nesting > MAX_NESTING {
            let message = format!("steps are nested deeper than {MAX_NESTING} levels");
            let finding = Diagnostic::error(code::TOO_LARGE, node.span.clone(), message);
            let help = "move the inner steps into a workflow of their own and call it with `workflow`";
            self.found.push(finding.help(help));
            return Steps::default();
        }
        let before = self.count;
        self.count += items.len();
        if self.count > MAX_STEPS {
            // Said once, where the limit is passed.
            if before <= MAX_STEPS {
                let message = format!("the definition has more than {MAX_STEPS} steps");
                let finding = Diagnostic::error(code::TOO_LARGE, node.span.clone(), message);
                self.found
                    .push(finding.help("move some of them into a workflow of their own and call it with `workflow`"));
            }
            return Steps::default();
        }
        self.nesting += 1;
        let list = items.iter().filter_map(|item| self.step(item)).collect();
        self.nesting -= 1;
        Steps { list }
    }

    /// Whether the id is new; a finding where it is not.
    pub(super) fn is_new(&mut self, id: &str, place: &Place) -> bool {
        let new = self.ids.insert(id.to_owned());
        if !new {
            let message = format!("there is a step `{id}` already");
            self.found
                .push(Diagnostic::error(code::DUPLICATE_STEP, place.clone(), message));
        }
        new
    }

    /// The `steps` among the keys of something that needs them.
    pub(super) fn main_body(&mut self, fields: &Fields<'_>, of: &str, place: &Place) -> Steps {
        match fields.get("steps") {
            Some(node) => self.steps(node),
            None => {
                self.missing(fields, of, "steps", place);
                Steps::default()
            }
        }
    }

    /// A mapping of nothing but `steps`.
    pub(super) fn body(&mut self, node: &Node, of: &str) -> Steps {
        if matches!(node.kind, Kind::Array(_)) {
            let message = format!("{of} must be a mapping, not a list");
            let finding = Diagnostic::error(code::SHAPE, node.span.clone(), message);
            self.found.push(finding.help("write `{ steps: [ … ] }`"));
            return Steps::default();
        }
        match Fields::open(node, &BODY, self.found) {
            Some(fields) => self.main_body(&fields, of, &node.span),
            None => Steps::default(),
        }
    }

    /// Says nothing where a key is only misspelt.
    pub(super) fn missing(&mut self, fields: &Fields<'_>, of: &str, key: &str, place: &Place) {
        if fields.misspelt(key) {
            return;
        }
        let message = format!("{of} has no `{key}`");
        self.found
            .push(Diagnostic::error(code::MISSING_KEY, place.clone(), message));
    }

    /// Steps of a main body, which adds no segment to paths, must not be named like the other bodies of the same step.
    pub(super) fn apart_from_bodies(&mut self, steps: &Steps, is_body: impl Fn(&str) -> bool, of: &str) {
        for step in steps.list.iter().filter(|step| is_body(&step.id.text)) {
            let message = format!(
                "`{}` is the name of a body of {of} and cannot be a step in it",
                step.id.text
            );
            self.found
                .push(Diagnostic::error(code::BAD_NAME, step.id.place.clone(), message).help("rename the step"));
        }
    }
}
