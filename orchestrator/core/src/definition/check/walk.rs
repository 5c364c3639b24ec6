//! The walk over the steps, in the order a run takes them.

use std::rc::Rc;

use super::facts::{DoubtId, Doubts, Facts, Seen};
use super::index::Index;
use super::schema_reference::Shape;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::{Definition, Step, StepKind, Steps};
use crate::definition::near::nearest;
use crate::expression::{Expression, Reference};

pub(super) struct Walk<'a, 'f> {
    pub(super) definition: &'a Definition,
    pub(super) text: &'f str,
    pub(super) found: &'f mut Vec<Diagnostic>,
    pub(super) index: Index<'a>,
    pub(super) doubts: Doubts<'a>,
    /// Steps that surely come after a pivot, by number.
    pub(super) forward_only: Vec<bool>,
    /// How many more wrong names are worth a search for the right one: each looks at every name there is.
    pub(super) suggestions_left: usize,
}

/// Where an expression stands, and so what it can see beside the [`Facts`].
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    pub(super) roots: Vec<&'a str>,
    /// Conditions that are true here, the outermost first.
    pub(super) given: Vec<Given<'a>>,
    /// Of the loops around, the outermost first.
    pub(super) items: Vec<Item<'a>>,
    /// `None` = around the steps.
    pub(super) step: Option<usize>,
    /// In the input of the step's undo.
    pub(super) undo: bool,
    /// An error is caught before it reaches the run.
    pub(super) caught: bool,
}

/// A condition, compiled once for all that is read under it.
#[derive(Debug, Clone)]
pub(super) struct Given<'a> {
    pub(super) text: &'a str,
    /// `None` = it has a finding of its own.
    expression: Option<Rc<Expression>>,
}

impl Given<'_> {
    pub(super) fn references(&self) -> &[Reference] {
        self.expression
            .as_ref()
            .map_or(&[], |expression| expression.references())
    }

    /// It reads nothing that could change between two steps under it.
    pub(super) fn is_fixed(&self) -> bool {
        let fixed = |r: &Reference| matches!(r.path.root.as_ref(), "input" | "steps");
        self.expression.is_some() && self.references().iter().all(fixed)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub(super) name: &'a str,
    pub(super) schema: Option<Shape<'a>>,
}

impl<'a> At<'a> {
    pub(super) fn with_roots(roots: &[&'a str]) -> Self {
        Self {
            roots: roots.to_vec(),
            given: Vec::new(),
            items: Vec::new(),
            step: None,
            undo: false,
            caught: false,
        }
    }

    /// With one more name.
    pub(super) fn seeing(&self, root: &'a str) -> Self {
        let mut at = self.clone();
        if !at.roots.contains(&root) {
            at.roots.push(root);
        }
        at
    }

    pub(super) fn given(&self, condition: &'a str) -> Self {
        let mut at = self.clone();
        at.given.push(Given {
            text: condition,
            expression: Expression::compile(condition).ok().map(Rc::new),
        });
        at
    }
}

impl<'a> Walk<'a, '_> {
    /// Whether the run comes out at the end; the facts are those there, or where it ends.
    pub(super) fn sequence(&mut self, steps: &'a Steps, facts: &mut Facts<'a>, at: &At<'a>) -> bool {
        let mut end: Option<&'a Step> = None;
        let mut said = false;
        for step in &steps.list {
            if let Some(end) = end
                && !said
            {
                let message = format!(
                    "`{}` is never reached: no way leads past `{}`",
                    step.id.text, end.id.text
                );
                self.found
                    .push(Diagnostic::error(code::UNREACHABLE, step.id.place.clone(), message));
                said = true;
            }
            if !self.step(step, facts, at) {
                end.get_or_insert(step);
            }
        }
        end.is_none()
    }

    /// A body that is entered from these facts.
    pub(super) fn body(&mut self, steps: &'a Steps, facts: &Facts<'a>, at: &At<'a>) -> (Facts<'a>, bool) {
        let mut facts = facts.clone();
        let falls = self.sequence(steps, &mut facts, at);
        (facts, falls)
    }

    fn step(&mut self, step: &'a Step, facts: &mut Facts<'a>, at: &At<'a>) -> bool {
        let Some(number) = self.index.number(&step.id.text) else {
            return true;
        };
        self.forward_only[number] = facts.pivot.is_some_and(|(_, surely)| surely);
        let mut at = at.clone();
        at.step = Some(number);
        let Some(condition) = &step.condition else {
            return self.kind(step, number, facts, &at);
        };
        self.condition(condition, facts, &at);
        let before = facts.clone();
        let mut after = facts.clone();
        if self.kind(step, number, &mut after, &at.given(&condition.text)) {
            let conditions = vec![condition.text.as_str()];
            let why = "may be skipped (`if`)".to_owned();
            let own = self.doubts.add(why, conditions.clone());
            let inner = self
                .doubts
                .add(format!("may be skipped (`if` of `{}`)", step.id.text), conditions);
            *facts = after.only_if(&before, &condition.text, inner, &mut self.doubts);
            if facts.step(number) == Seen::Maybe(inner) {
                facts.set_step(number, Seen::Maybe(own));
            }
        }
        true
    }

    /// The nearest right name to a wrong one.
    pub(super) fn nearest<'n>(&mut self, name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        self.suggestions_left = self.suggestions_left.checked_sub(1)?;
        nearest(name, candidates)
    }

    pub(super) fn doubt(&mut self, why: String) -> DoubtId {
        self.doubts.add(why, Vec::new())
    }

    /// The steps of a body that can be seen from outside, once they have run: not those inside a loop over a list.
    pub(super) fn visible(&self, steps: &Steps) -> Vec<usize> {
        let mut numbers = Vec::new();
        for step in &steps.list {
            numbers.extend(self.index.number(&step.id.text));
            if !matches!(step.kind, StepKind::ForEach(_)) {
                for (_, body) in step.bodies() {
                    numbers.extend(self.visible(body));
                }
            }
        }
        numbers
    }

    /// What a body may have left when it stopped somewhere.
    pub(super) fn halfway(&self, steps: &'a Steps, before: &Facts<'a>, after: &Facts<'a>, doubt: DoubtId) -> Facts<'a> {
        let mut facts = before.clone().or(after.clone(), doubt);
        facts.doubt_steps(self.visible(steps).into_iter(), doubt);
        facts.doubt_vars(steps, doubt);
        facts
    }
}
