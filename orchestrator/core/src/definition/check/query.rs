//! `queries:`: read at any time, open or closed, so that every step may have run and none has to.
//!
//! A name that is wrong is a finding. That something is not there yet is none: the query says what to answer then
//! (`| default(…)`), or whoever asks is told what is missing.

use super::facts::{Doubts, Facts, Seen};
use super::index::Index;
use super::walk::{At, Walk};
use crate::definition::code::{self, Code};
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::{Definition, StepKind};
use crate::definition::tree::Node;

/// What a query sees.
const ROOTS: &[&str] = &["input", "steps", "vars", "run", "status", "error"];
/// What is said elsewhere of what may be missing.
const OF_MISSING: [Code; 2] = [code::SKIPPED_STEP, code::OPTIONAL_INPUT];

impl<'a> Walk<'a, '_> {
    pub(super) fn queries(&mut self) {
        let definition = self.definition;
        for (_, value) in &definition.queries {
            self.query(value);
        }
    }

    fn query(&mut self, value: &'a Node) {
        let definition = self.definition;
        let mut facts = Facts::none(self.index.len());
        for number in self.visible(&definition.steps) {
            facts.set_step(number, Seen::Surely);
        }
        let handlers = definition.handlers().map(|handler| &handler.steps);
        for steps in std::iter::once(&definition.steps).chain(handlers) {
            steps.visit(&mut |step| {
                if let StepKind::Set(entries) = &step.kind {
                    entries
                        .iter()
                        .for_each(|(name, _)| facts.set_var(&name.text, &step.id.text));
                }
            });
        }
        let before = self.found.len();
        self.template(value, &facts, &At::with_roots(ROOTS));
        let said = self.found.split_off(before);
        let said = said.into_iter().filter(|finding| !OF_MISSING.contains(&finding.code));
        self.found.extend(said);
    }
}

/// An expression that is asked of a run of this definition.
pub(crate) fn of_asked(definition: &Definition, value: &Node, text: &str, found: &mut Vec<Diagnostic>) {
    let index = Index::of(definition);
    let mut walk = Walk {
        definition,
        text,
        found,
        forward_only: vec![false; index.len()],
        index,
        doubts: Doubts::default(),
        suggestions_left: 1,
    };
    walk.query(value);
}
