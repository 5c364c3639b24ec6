//! What each kind of step reads, and what is known after it.

use serde_json::Value;

use super::facts::{DoubtId, Facts, Seen};
use super::walk::{At, Item, Walk};
use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::model::{
    Activity, Case, ForEach, OnTimeout, Parallel, Savepoint, Step, StepKind, Steps, Try, Undo, Wait, WaitFor, While,
};
use crate::definition::plan::{Join, OnFailure};
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

    fn parallel(
        &mut self,
        step: &'a Step,
        parallel: &'a Parallel,
        number: usize,
        facts: &mut Facts<'a>,
        at: &At<'a>,
    ) -> bool {
        self.pivots_beside(parallel);
        self.racing_branches(parallel);
        let before = facts.clone();
        let branches = parallel.branches.len();
        let needed = match parallel.join {
            Join::All => branches,
            Join::Any => 1,
            Join::AtLeast(count) => usize::try_from(count).unwrap_or(branches),
        };
        let doubt = self.doubt(format!(
            "may have been cancelled (`{}` does not wait for all)",
            step.id.text
        ));
        let mut fall = 0;
        for branch in &parallel.branches {
            let (mut after, falls) = self.body(&branch.steps, &before, at);
            fall += usize::from(falls);
            if needed < branches {
                after = after.or(before.clone(), doubt);
            }
            if falls {
                facts.and(&after);
            }
        }
        facts.set_step(number, Seen::Surely);
        branches == 0 || fall >= needed
    }

    fn for_each(&mut self, step: &'a Step, each: &'a ForEach, facts: &mut Facts<'a>, at: &At<'a>) {
        self.template(&each.list, facts, at);
        let schema = self.must_be(&each.list, &["array"], "`in`", at);
        let name = each.item.text.as_str();
        if at.items.iter().any(|item| item.name == name) {
            let message = format!("`{name}` is the item of a loop around this one already");
            self.found
                .push(Diagnostic::error(code::SHADOWED, each.item.place.clone(), message));
        }
        let mut inside = at.seeing(name).seeing("index");
        inside.items.push(Item {
            name,
            schema: schema.and_then(|schema| schema.get("items")),
        });
        self.pivot_in_loop(&each.steps);
        if each.max_concurrency != Some(1) {
            self.racing_iterations(&each.steps);
        }
        let before = facts.clone();
        let (mut after, _) = self.body(&each.steps, &before, &inside);
        if let Some(collect) = &each.collect {
            self.template(collect, &after, &inside);
        }
        after.hide_steps(self.visible(&each.steps).into_iter());
        let doubt = self.doubt(format!("may not run (the list of `{}` may be empty)", step.id.text));
        *facts = before.or(after, doubt);
    }

    fn switch(&mut self, step: &'a Step, cases: &'a [Case], facts: &mut Facts<'a>, at: &At<'a>) -> bool {
        let before = facts.clone();
        let mut ways = Vec::new();
        for case in cases {
            let inside = match &case.when {
                Some(when) => {
                    self.condition(when, &before, at);
                    at.given(&when.text)
                }
                None => at.clone(),
            };
            let (after, falls) = self.body(&case.steps, &before, &inside);
            ways.extend(falls.then_some(after));
        }
        if cases.iter().all(|case| case.when.is_some()) {
            ways.push(before);
        }
        let why = format!("may not run (it is in a case of `{}`)", step.id.text);
        let doubt = self.doubt(why.clone());
        let Some(mut after) = ways.into_iter().reduce(|one, other| one.or(other, doubt)) else {
            return false;
        };
        // The first case alone is told by its own condition.
        if let Some(Case {
            when: Some(when),
            steps,
            ..
        }) = cases.first()
        {
            let told = self.doubts.add(why, vec![&when.text]);
            self.relabel(&mut after, steps, doubt, told);
        }
        *facts = after;
        true
    }

    fn repeat(&mut self, step: &'a Step, repeat: &'a While, facts: &mut Facts<'a>, at: &At<'a>) {
        self.pivot_in_loop(&repeat.steps);
        let first = self.doubt("has not run in the first iteration".to_owned());
        let mut before = facts.clone();
        before.doubt_steps(self.visible(&repeat.steps).into_iter(), first);
        before.doubt_vars(&repeat.steps, first);
        self.condition(&repeat.when, &before, at);
        let (after, _) = self.body(&repeat.steps, &before, &at.given(&repeat.when.text));
        let doubt = self.doubt(format!(
            "may not run (`{}` may pass without an iteration)",
            step.id.text
        ));
        let before = facts.clone();
        *facts = self.halfway(&repeat.steps, &before, &after, doubt);
    }

    fn guard(&mut self, step: &'a Step, guard: &'a Try, facts: &mut Facts<'a>, at: &At<'a>) -> bool {
        let id = &step.id.text;
        let before = facts.clone();
        let mut inside = at.clone();
        inside.caught |= !guard.catches.is_empty();
        let (after, falls) = self.body(&guard.steps, &before, &inside);
        let doubt = self.doubt(format!("may not have run (an error in `{id}` may come before it)"));
        let failed = self.halfway(&guard.steps, &before, &after, doubt);
        let mut after = falls.then_some(after);
        let mut anyhow = failed.clone();
        let mut doubts = Vec::new();
        for catch in &guard.catches {
            let (caught, falls) = self.body(&catch.steps, &failed, &at.seeing("error"));
            let own = self.doubt(format!("may not run (it is in a `catch` of `{id}`)"));
            anyhow = self.halfway(&catch.steps, &anyhow, &caught, own);
            if falls {
                doubts.push((&catch.steps, own));
                after = Some(match after {
                    Some(other) => other.or(caught, doubt),
                    None => caught,
                });
            }
        }
        let mut goes_on = after.is_some();
        *facts = after.unwrap_or_else(|| anyhow.clone());
        for (steps, own) in doubts {
            self.relabel(facts, steps, doubt, own);
        }
        if let Some(finally) = &guard.finally {
            let (after, falls) = self.body(finally, &anyhow, at);
            facts.and(&after);
            goes_on &= falls;
        }
        goes_on
    }

    fn scope(&mut self, step: &'a Step, scope: &'a Savepoint, facts: &mut Facts<'a>, at: &At<'a>) -> bool {
        let before = facts.clone();
        let mut inside = at.clone();
        inside.caught |= scope.otherwise.is_some();
        let (after, falls) = self.body(&scope.steps, &before, &inside);
        let Some(otherwise) = &scope.otherwise else {
            *facts = after;
            return falls;
        };
        let doubt = self.doubt(format!(
            "may not have run, or was undone when `{}` failed",
            step.id.text
        ));
        let failed = self.halfway(&scope.steps, &before, &after, doubt);
        let (alternative, alternative_falls) = self.body(otherwise, &failed, &at.seeing("error"));
        let own = self.doubt(format!("may not run (it is in `otherwise` of `{}`)", step.id.text));
        *facts = match (falls, alternative_falls) {
            (true, true) => after.or(alternative, doubt),
            (true, false) => after,
            (false, _) => alternative,
        };
        self.relabel(facts, otherwise, doubt, own);
        falls || alternative_falls
    }

    fn wait_for(
        &mut self,
        step: &'a Step,
        wait: &'a WaitFor,
        number: usize,
        facts: &mut Facts<'a>,
        at: &At<'a>,
    ) -> bool {
        let id = &step.id.text;
        if let Some(condition) = &wait.matches {
            self.condition(condition, facts, &at.seeing("signal"));
        }
        if wait.timeout.is_none() {
            self.endless(step, facts);
        }
        let mut seen = Seen::Surely;
        match &wait.on_timeout {
            OnTimeout::Fail => {}
            OnTimeout::Continue => {
                seen = Seen::Maybe(self.doubt("may have timed out (`on_timeout: continue`)".to_owned()));
            }
            OnTimeout::Steps(steps) => {
                let before = facts.clone();
                let (after, falls) = self.body(steps, &before, at);
                if falls {
                    if !self.gives_output(steps, &after) {
                        let why = "may have timed out, and the last step of `on_timeout` may have no output";
                        seen = Seen::Maybe(self.doubt(why.to_owned()));
                    }
                    let doubt = self.doubt(format!("may not run (`{id}` may not time out)"));
                    *facts = before.or(after, doubt);
                }
            }
        }
        facts.set_step(number, seen);
        true
    }

    /// Gives the steps of one of several ways the reason that is theirs.
    fn relabel(&self, facts: &mut Facts<'a>, steps: &Steps, from: DoubtId, to: DoubtId) {
        for number in self.visible(steps) {
            if facts.step(number) == Seen::Maybe(from) {
                facts.set_step(number, Seen::Maybe(to));
            }
        }
    }

    fn gives_output(&self, steps: &Steps, after: &Facts<'a>) -> bool {
        let last = steps.list.last();
        last.is_some_and(|last| {
            let number = self.index.number(&last.id.text);
            super::output::why_none(last).is_none() && number.is_some_and(|n| after.step(n) == Seen::Surely)
        })
    }

    /// Waits for a signal without a limit, while something is held that has an undo.
    fn endless(&mut self, step: &'a Step, facts: &Facts<'a>) {
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
    fn must_be(&mut self, node: &'a Node, types: &[&str], what: &str, at: &At<'a>) -> Option<&'a Value> {
        let (path, place) = self.only_path(node)?;
        let schema = self.schema_of(&path, at)?;
        let said = super::schema_reference::types(schema);
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
