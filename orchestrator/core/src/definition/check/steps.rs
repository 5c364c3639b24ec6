//! What each kind of step reads, and what is known after it.

use super::facts::{Facts, Seen};
use super::schema_reference::Shape;
use super::walk::{At, Walk};
use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::model::{Activity, Step, StepKind, Undo, Wait};
use crate::definition::plan::OnFailure;
use crate::definition::tree::Node;

impl<'a> Walk<'a, '_> {
    /// Whether the run goes on after the step.
    pub(super) fn kind(&mut self, step: &'a Step, number: usize, facts: &mut Facts<'a>, at: &At<'a>) -> bool {
        match &step.kind {
            StepKind::Activity(activity) => {
                self.activity(step, activity, number, facts, at);
                true
            }
            StepKind::Set(entries) => {
                for (name, value) in entries {
                    self.template(value, facts, at);
                    facts.set_var(&name.text, &step.id.text);
                }
                facts.set_step(number, Seen::Surely);
                true
            }
            StepKind::Parallel(parallel) => self.parallel(step, parallel, number, facts, at),
            StepKind::ForEach(each) => {
                self.for_each(step, each, facts, at);
                facts.set_step(number, Seen::Surely);
                true
            }
            StepKind::Switch(cases) => self.switch(step, cases, facts, at),
            StepKind::While(repeat) => {
                self.repeat(step, repeat, facts, at);
                true
            }
            StepKind::Try(guard) => self.guard(step, guard, facts, at),
            StepKind::Scope(scope) => self.scope(step, scope, facts, at),
            StepKind::Wait(wait) => {
                if let Wait::Until(until) = wait {
                    self.template(until, facts, at);
                    self.must_be(until, &["string", "number"], "`until`", at);
                }
                true
            }
            StepKind::WaitFor(wait) => self.wait_for(step, wait, number, facts, at),
            StepKind::Workflow(child) => {
                for value in [&child.id, &child.input].into_iter().flatten() {
                    self.template(value, facts, at);
                }
                if let Some(id) = &child.id {
                    self.must_be(id, &["string", "number"], "`id`", at);
                }
                facts.set_step(number, Seen::Surely);
                true
            }
            StepKind::Emit(emit) => {
                self.template(&emit.subject, facts, at);
                if let Some(body) = &emit.body {
                    self.template(body, facts, at);
                }
                true
            }
            StepKind::Fail(fail) => {
                self.template(&fail.error_type, facts, at);
                if let Some(message) = &fail.message {
                    self.template(message, facts, at);
                }
                self.fails_after_pivot(step, facts, at);
                false
            }
            StepKind::Complete(value) | StepKind::ContinueAsNew(value) => {
                if let Some(value) = value {
                    self.template(value, facts, at);
                }
                false
            }
            StepKind::Broken => {
                facts.set_step(number, Seen::Surely);
                true
            }
        }
    }

    fn activity(&mut self, step: &'a Step, activity: &'a Activity, number: usize, facts: &mut Facts<'a>, at: &At<'a>) {
        if let Some(input) = &activity.call.input {
            self.template(input, facts, at);
        }
        for key in activity.limiting.keys() {
            self.template(key, facts, at);
            self.must_be(key, &["string", "number", "boolean"], "the key of a limit", at);
        }
        if let Undo::Compensate(undo) = &activity.undo {
            if let Some(input) = &undo.input {
                let mut at = at.seeing("error");
                at.undo = true;
                self.template(input, facts, &at);
            }
            facts.holds.get_or_insert(number);
        }
        self.around_pivot(step, activity, number, facts);
        let seen = match activity.on_failure {
            OnFailure::Fail => Seen::Surely,
            OnFailure::Continue => Seen::Maybe(self.doubt("may have failed (`on_failure: continue`)".to_owned())),
        };
        facts.set_step(number, seen);
    }

    /// Waits for a signal without a limit, while something is held that has an undo.
    pub(super) fn endless(&mut self, step: &'a Step, facts: &Facts<'a>) {
        let Some(held) = facts.holds.filter(|_| facts.pivot.is_none()) else {
            return;
        };
        let message = format!(
            "`{}` may wait for ever, while what `{}` did is held",
            step.id.text,
            self.index.id(held)
        );
        self.found
            .push(Diagnostic::error(code::ENDLESS_WAIT, step.id.place.clone(), message).severity(Severity::Notice));
    }

    /// A finding where the value is one path into a schema that says another type; the schema, if it is known.
    pub(super) fn must_be(&mut self, node: &'a Node, types: &[&str], what: &str, at: &At<'a>) -> Option<Shape<'a>> {
        let (path, place) = self.only_path(node)?;
        let schema = self.schema_of(&path, at)?;
        let said = schema.types();
        let fits = |one: &&str| types.contains(one) || *one == "integer" && types.contains(&"number");
        if !said.is_empty() && !said.iter().any(fits) {
            let message = format!(
                "{what} must be {}, and by its schema `{path}` is {}",
                in_words(types),
                in_words(&said)
            );
            self.found.push(Diagnostic::error(code::WRONG_TYPE, place, message));
        }
        Some(schema)
    }
}

/// Types of JSON Schema, for people.
fn in_words(types: &[&str]) -> String {
    let words = types.iter().map(|one| match *one {
        "array" => "a list",
        "object" => "an object",
        "string" => "a text",
        "number" => "a number",
        "integer" => "a whole number",
        "boolean" => "true or false",
        _ => "null",
    });
    words.collect::<Vec<_>>().join(" or ")
}
