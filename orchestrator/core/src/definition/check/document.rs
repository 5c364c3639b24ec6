//! The expressions around the steps, and the way through all of them.

use super::facts::{Doubts, Facts};
use super::index::Index;
use super::reference::STEP_ROOTS;
use super::walk::{At, Walk};
use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::model::{Definition, Step};

/// Wrong names of steps and variables that get a suggestion.
const MAX_SUGGESTIONS: usize = 50;

/// Which steps come after a pivot, whatever way a run takes.
pub(crate) struct Forward<'a> {
    index: Index<'a>,
    forward_only: Vec<bool>,
}

impl Forward<'_> {
    pub(crate) fn is_sure(&self, step: &Step) -> bool {
        let number = self.index.number(&step.id.text);
        number.is_some_and(|number| self.forward_only[number])
    }
}

pub(crate) fn check<'a>(definition: &'a Definition, text: &str, found: &mut Vec<Diagnostic>) -> Forward<'a> {
    let index = Index::of(definition);
    let mut facts = Facts::none(index.len());
    let mut walk = Walk {
        definition,
        text,
        found,
        forward_only: vec![false; index.len()],
        index,
        doubts: Doubts::default(),
        suggestions_left: MAX_SUGGESTIONS,
    };
    if let Some(id) = &definition.id {
        walk.template(id, &facts, &At::with_roots(&["input"]));
    }
    for (_, value) in &definition.search_attributes {
        walk.template(value, &facts, &At::with_roots(&["input", "run"]));
    }
    if let Some(key) = definition.concurrency.as_ref().and_then(|it| it.key.as_ref()) {
        walk.template(key, &facts, &At::with_roots(&["input", "run"]));
    }
    let at = At::with_roots(STEP_ROOTS);
    walk.may_be_set_beside(&mut facts);
    let falls = walk.sequence(&definition.steps, &mut facts, &at);
    if let Some(output) = &definition.output {
        walk.template(output, &facts, &at);
        if !falls && !definition.steps.list.is_empty() {
            let message = "the output is never evaluated: every way through the steps ends the run before";
            walk.found
                .push(Diagnostic::error(code::UNREACHABLE, output.span.clone(), message));
        }
    }
    walk.handlers();
    walk.queries();
    walk.timeout_around_pivot();
    Forward {
        forward_only: walk.forward_only,
        index: walk.index,
    }
}

impl Walk<'_, '_> {
    fn timeout_around_pivot(&mut self) {
        let mut steps = self.index.steps();
        let pivot = steps.find(|step| step.activity().is_some_and(|activity| activity.pivot));
        if let (Some(_), Some(pivot)) = (self.definition.timeout, pivot) {
            let id = &pivot.id;
            let message = format!(
                "the run's `timeout` can end while the pivot `{}` is under way and not known to be done",
                id.text
            );
            let finding = Diagnostic::error(code::TIMEOUT_CUTS_PIVOT, id.place.clone(), message);
            self.found.push(finding.severity(Severity::Warning));
        }
    }
}
