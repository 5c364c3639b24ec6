//! The point of no return: what may not come after it, beside it or around it; and variables that steps side by side set.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::walk::{At, Walk};
use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::model::{Activity, Parallel, Step, StepKind, Steps, Undo};
use crate::definition::plan::Join;

impl<'a> Walk<'a, '_> {
    pub(super) fn around_pivot(
        &mut self,
        step: &'a Step,
        activity: &'a Activity,
        number: usize,
        facts: &mut Facts<'a>,
    ) {
        if let Some((pivot, surely)) = facts.pivot {
            let pivot = self.index.id(pivot);
            let id = &step.id.text;
            let comes = if surely { "comes" } else { "may come" };
            if activity.pivot {
                let message = format!("the pivot `{id}` {comes} after the pivot `{pivot}`");
                self.pivot_finding(code::SECOND_PIVOT, step, message);
            } else if matches!(activity.undo, Undo::Compensate(_)) {
                let message = format!("`{id}` {comes} after the pivot `{pivot}`, and then its undo never runs");
                self.pivot_finding(code::AFTER_PIVOT, step, message);
            }
        }
        if activity.pivot {
            facts.pivot = Some((number, true));
        }
    }

    fn pivot_finding(&mut self, code: code::Code, step: &Step, message: String) {
        self.found.push(Diagnostic::error(code, step.id.place.clone(), message));
    }

    /// A branch runs while another passes its pivot, so its steps may come after it.
    pub(super) fn pivots_beside(&mut self, parallel: &'a Parallel) {
        let mut branches = parallel.branches.iter().enumerate();
        let first_pivot = branches.find_map(|(at, branch)| Some((at, first(&branch.steps, |a| a.pivot)?)));
        let Some((at, pivot)) = first_pivot else {
            return;
        };
        let pivot_id = &pivot.id.text;
        if parallel.join != Join::All && parallel.branches.len() > 1 {
            let message = format!("the pivot `{pivot_id}` stands in a branch that may be cancelled as a loser");
            self.pivot_finding(code::LOSING_PIVOT, pivot, message);
        }
        for (_, branch) in parallel.branches.iter().enumerate().filter(|(other, _)| *other != at) {
            for step in all(&branch.steps, |a| matches!(a.undo, Undo::Compensate(_)) && !a.pivot) {
                let message = format!(
                    "`{}` runs beside the pivot `{pivot_id}`, and after it its undo never runs",
                    step.id.text
                );
                self.pivot_finding(code::AFTER_PIVOT, step, message);
            }
            if let Some(step) = first(&branch.steps, |a| a.pivot) {
                let message = format!("the pivot `{}` runs beside the pivot `{pivot_id}`", step.id.text);
                self.pivot_finding(code::SECOND_PIVOT, step, message);
            }
        }
    }

    /// Every iteration but the first comes after the pivot of the one before.
    pub(super) fn pivot_in_loop(&mut self, steps: &'a Steps) {
        self.pivot_in(steps, "a loop, and may be passed more than once");
    }

    pub(super) fn pivot_in(&mut self, steps: &'a Steps, what: &str) {
        if let Some(pivot) = first(steps, |activity| activity.pivot) {
            let message = format!("the pivot `{}` stands in {what}", pivot.id.text);
            self.pivot_finding(code::SECOND_PIVOT, pivot, message);
        }
    }

    pub(super) fn fails_after_pivot(&mut self, step: &'a Step, facts: &Facts<'a>, at: &At<'a>) {
        let Some((pivot, true)) = facts.pivot.filter(|_| !at.caught) else {
            return;
        };
        let message = format!(
            "`{}` fails the run after the pivot `{}`; it cannot go back and will be parked",
            step.id.text,
            self.index.id(pivot)
        );
        self.found.push(
            Diagnostic::error(code::FAILS_AFTER_PIVOT, step.id.place.clone(), message).severity(Severity::Warning),
        );
    }

    pub(super) fn racing_iterations(&mut self, steps: &'a Steps) {
        for (name, place) in set_in(steps) {
            let message = format!("`vars.{name}` is set by iterations that run side by side; the last one wins");
            self.found
                .push(Diagnostic::error(code::RACING, place, message).severity(Severity::Warning));
        }
    }

    pub(super) fn racing_branches(&mut self, parallel: &'a Parallel) {
        let mut setters: BTreeMap<&str, &str> = BTreeMap::new();
        for branch in &parallel.branches {
            let names = set_in(&branch.steps);
            for (name, place) in &names {
                if let Some(other) = setters.get(name) {
                    let message = format!("`vars.{name}` is set in the branch `{other}` as well; the last one wins");
                    self.found
                        .push(Diagnostic::error(code::RACING, place.clone(), message).severity(Severity::Warning));
                }
            }
            for (name, _) in names {
                setters.entry(name).or_insert(&branch.name.text);
            }
        }
    }
}

fn first(steps: &Steps, wanted: impl Fn(&Activity) -> bool) -> Option<&Step> {
    all(steps, wanted).into_iter().next()
}

fn all(steps: &Steps, wanted: impl Fn(&Activity) -> bool) -> Vec<&Step> {
    let mut found = Vec::new();
    steps.visit(&mut |step| {
        if step.activity().is_some_and(&wanted) {
            found.push(step);
        }
    });
    found
}

/// The variables that are set in a body, each once, with the place of its name.
fn set_in(steps: &Steps) -> BTreeMap<&str, std::ops::Range<usize>> {
    let mut names = BTreeMap::new();
    steps.visit(&mut |step| {
        if let StepKind::Set(entries) = &step.kind {
            for (name, _) in entries {
                names.entry(name.text.as_str()).or_insert_with(|| name.place.clone());
            }
        }
    });
    names
}
