//! The kinds that hold other steps: which ways lead into their bodies, and where the ways meet again.

use super::facts::{DoubtId, Facts, Seen};
use super::output::why_none;
use super::schema_reference::Shape;
use super::walk::{At, Item, Walk};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::{Case, ForEach, OnTimeout, Parallel, Savepoint, Step, Steps, Try, WaitFor, While};
use crate::definition::plan::Join;

impl<'a> Walk<'a, '_> {
    pub(super) fn parallel(
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

    pub(super) fn for_each(&mut self, step: &'a Step, each: &'a ForEach, facts: &mut Facts<'a>, at: &At<'a>) {
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
            schema: schema.and_then(Shape::items),
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

    pub(super) fn switch(&mut self, step: &'a Step, cases: &'a [Case], facts: &mut Facts<'a>, at: &At<'a>) -> bool {
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
        let told = self.told_by_first(cases, ways.first(), why);
        let Some(mut after) = ways.into_iter().reduce(|one, other| one.or(other, doubt)) else {
            return false;
        };
        for (number, told) in told {
            if after.step(number) == Seen::Maybe(doubt) {
                after.set_step(number, Seen::Maybe(told));
            }
        }
        *facts = after;
        true
    }

    /// The steps of the first case, with the doubt that its condition settles; those of others ran only if no case before
    /// theirs was true.
    fn told_by_first(&mut self, cases: &'a [Case], way: Option<&Facts<'a>>, why: String) -> Vec<(usize, DoubtId)> {
        let (
            Some(Case {
                when: Some(when),
                steps,
                ..
            }),
            Some(way),
        ) = (cases.first(), way)
        else {
            return Vec::new();
        };
        let own = self.doubts.add(why, vec![&when.text]);
        let visible = self.visible(steps).into_iter();
        visible
            .filter_map(|number| match way.step(number) {
                Seen::Surely => Some((number, own)),
                Seen::Maybe(id) => Some((number, self.doubts.and(id, &when.text))),
                Seen::No => None,
            })
            .collect()
    }

    pub(super) fn repeat(&mut self, step: &'a Step, repeat: &'a While, facts: &mut Facts<'a>, at: &At<'a>) {
        self.pivot_in_loop(&repeat.steps);
        let first = self.doubt("has not run before the first iteration".to_owned());
        let inside = at.seeing("index");
        let mut before = facts.clone();
        before.doubt_vars(&repeat.steps, first);
        // The condition sees the iteration before, the steps only their own.
        let mut between = before.clone();
        between.doubt_steps(self.visible(&repeat.steps).into_iter(), first);
        self.condition(&repeat.when, &between, &inside);
        let (after, _) = self.body(&repeat.steps, &before, &inside.given(&repeat.when.text));
        let doubt = self.doubt(format!(
            "may not run (`{}` may pass without an iteration)",
            step.id.text
        ));
        let before = facts.clone();
        *facts = self.halfway(&repeat.steps, &before, &after, doubt);
    }

    pub(super) fn guard(&mut self, step: &'a Step, guard: &'a Try, facts: &mut Facts<'a>, at: &At<'a>) -> bool {
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

    pub(super) fn scope(&mut self, step: &'a Step, scope: &'a Savepoint, facts: &mut Facts<'a>, at: &At<'a>) -> bool {
        let before = facts.clone();
        let mut inside = at.clone();
        // Past a pivot a scope cannot be undone, so that no `try` around it catches.
        inside.caught = false;
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
        let (alternative, alternative_falls) = self.body(otherwise, &failed, &inside.seeing("error"));
        let own = self.doubt(format!("may not run (it is in `otherwise` of `{}`)", step.id.text));
        *facts = match (falls, alternative_falls) {
            (true, true) => after.or(alternative, doubt),
            (true, false) => after,
            (false, _) => alternative,
        };
        self.relabel(facts, otherwise, doubt, own);
        falls || alternative_falls
    }

    pub(super) fn wait_for(
        &mut self,
        step: &'a Step,
        wait: &'a WaitFor,
        number: usize,
        facts: &mut Facts<'a>,
        at: &At<'a>,
    ) -> bool {
        let id = &step.id.text;
        if let Some(condition) = &wait.matches {
            // That of the handler around is another one.
            let mut inside = at.seeing("signal");
            inside.items.retain(|item| item.name != "signal");
            self.condition(condition, facts, &inside);
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
            why_none(last).is_none() && number.is_some_and(|n| after.step(n) == Seen::Surely)
        })
    }
}
