//! Steps without any word on undoing them, where something can fail after them.
//!
//! A step is left behind when a failure undoes what was done around it: by a later step in its own list or in one around
//! it, by a step beside it in a `parallel`, by a later iteration of its loop, or when another branch wins and this one is
//! undone as a loser; and by whatever runs beside it, be it in a handler. What a `try` catches undoes nothing, and past a pivot nothing fails.

use crate::definition::check::Forward;
use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::model::{Definition, OnTimeout, Parallel, Step, StepKind, Steps, Try, Undo};
use crate::definition::plan::{Join, Losers, OnFailure};

pub(super) fn warn(definition: &Definition, forward: &Forward<'_>, found: &mut Vec<Diagnostic>) {
    let mut search = Search { forward, found };
    let beside = definition.handlers().find_map(|handler| inner(&handler.steps));
    search.steps(&definition.steps, beside.map(Breaker::Beside), false);
    for handler in definition.handlers() {
        let later = inner(&definition.steps).or(beside);
        search.steps(&handler.steps, later.map(Breaker::Beside), false);
    }
}

/// What can undo the steps before it.
#[derive(Clone, Copy)]
enum Breaker<'a> {
    Later(&'a str),
    Beside(&'a str),
    NextIteration(&'a str),
    /// A branch of this `parallel` wins.
    Winner(&'a str),
}

struct Search<'a, 'f> {
    forward: &'f Forward<'a>,
    found: &'f mut Vec<Diagnostic>,
}

impl<'a> Search<'a, '_> {
    /// `after`: what can break after the list. `caught`: a failure in the list itself undoes nothing.
    fn steps(&mut self, steps: &'a Steps, after: Option<Breaker<'a>>, caught: bool) {
        let mut later = after;
        for step in steps.list.iter().rev() {
            self.step(step, later);
            if !caught && let Some(breaker) = breaker(step) {
                later = Some(Breaker::Later(breaker));
            }
        }
    }

    fn step(&mut self, step: &'a Step, later: Option<Breaker<'a>>) {
        match &step.kind {
            StepKind::Activity(activity) => {
                let undeclared = matches!(activity.undo, Undo::Undeclared) && !activity.pivot;
                if let Some(breaker) = later.filter(|_| undeclared && !self.forward.is_sure(step)) {
                    self.say(step, breaker);
                }
            }
            StepKind::Parallel(parallel) => self.parallel(&step.id.text, parallel, later),
            StepKind::ForEach(each) => {
                let next = inner(&each.steps).map(Breaker::NextIteration);
                self.steps(&each.steps, next.or(later), false);
            }
            // One iteration too many fails it.
            StepKind::While(repeat) => self.steps(&repeat.steps, Some(Breaker::NextIteration(&step.id.text)), false),
            StepKind::Try(guard) => self.guard(guard, later),
            StepKind::Switch(_)
            | StepKind::Scope(_)
            | StepKind::WaitFor(_)
            | StepKind::Set(_)
            | StepKind::Wait(_)
            | StepKind::Workflow(_)
            | StepKind::Emit(_)
            | StepKind::Fail(_)
            | StepKind::Complete(_)
            | StepKind::ContinueAsNew(_)
            | StepKind::Broken => {
                for (_, body) in step.bodies() {
                    self.steps(body, later, false);
                }
            }
        }
    }

    fn parallel(&mut self, id: &'a str, parallel: &'a Parallel, later: Option<Breaker<'a>>) {
        let waits_for_all = match parallel.join {
            Join::All => true,
            Join::Any => parallel.branches.len() == 1,
            Join::AtLeast(count) => usize::try_from(count).is_ok_and(|count| count >= parallel.branches.len()),
        };
        for (at, branch) in parallel.branches.iter().enumerate() {
            let mut others = parallel.branches.iter().enumerate().filter(|(other, _)| *other != at);
            let beside = if waits_for_all {
                others.find_map(|(_, other)| inner(&other.steps)).map(Breaker::Beside)
            } else if parallel.losers == Losers::Undo {
                Some(Breaker::Winner(id))
            } else {
                None
            };
            self.steps(&branch.steps, beside.or(later), false);
        }
    }

    fn guard(&mut self, guard: &'a Try, later: Option<Breaker<'a>>) {
        let finally = guard.finally.as_ref().and_then(inner).map(Breaker::Later).or(later);
        let in_catch = guard.catches.iter().find_map(|catch| inner(&catch.steps));
        let after_body = in_catch.map(Breaker::Later).or(finally);
        self.steps(&guard.steps, after_body, catches_all(guard));
        for catch in &guard.catches {
            self.steps(&catch.steps, finally, false);
        }
        if let Some(steps) = &guard.finally {
            self.steps(steps, later, false);
        }
    }

    fn say(&mut self, step: &Step, breaker: Breaker<'_>) {
        let id = &step.id.text;
        let message = match breaker {
            Breaker::Later(other) => format!("what `{id}` did stays when a later step (`{other}`, say) fails"),
            Breaker::Beside(other) => format!("what `{id}` did stays when a step beside it (`{other}`, say) fails"),
            Breaker::NextIteration(other) => {
                format!("what `{id}` did stays when another iteration fails (at `{other}`, say)")
            }
            Breaker::Winner(other) => format!("what `{id}` did stays when another branch of `{other}` wins"),
        };
        self.found
            .push(Diagnostic::error(code::LEFT_BEHIND, step.id.place.clone(), message).severity(Severity::Warning));
    }
}

fn catches_all(guard: &Try) -> bool {
    guard.catches.iter().any(|catch| catch.types.is_empty())
}

/// The first step of a list that can fail it.
fn inner(steps: &Steps) -> Option<&str> {
    steps.list.iter().find_map(breaker)
}

/// The step, or one in it, that can fail the list it stands in.
fn breaker(step: &Step) -> Option<&str> {
    let id = step.id.text.as_str();
    match &step.kind {
        StepKind::Activity(activity) => (activity.on_failure == OnFailure::Fail).then_some(id),
        StepKind::Fail(_) | StepKind::While(_) => Some(id),
        StepKind::Workflow(child) => (!child.detached).then_some(id),
        StepKind::Parallel(parallel) => parallel.branches.iter().find_map(|branch| inner(&branch.steps)),
        StepKind::ForEach(each) => inner(&each.steps),
        StepKind::Switch(cases) => cases.iter().find_map(|case| inner(&case.steps)),
        StepKind::Try(guard) => {
            let body = inner(&guard.steps).filter(|_| !catches_all(guard));
            let caught = || guard.catches.iter().find_map(|catch| inner(&catch.steps));
            body.or_else(caught).or_else(|| guard.finally.as_ref().and_then(inner))
        }
        StepKind::Scope(scope) => match &scope.otherwise {
            Some(otherwise) => inner(otherwise),
            None => inner(&scope.steps),
        },
        StepKind::WaitFor(wait) => match &wait.on_timeout {
            OnTimeout::Fail => wait.timeout.map(|_| id),
            OnTimeout::Continue => None,
            OnTimeout::Steps(steps) => inner(steps),
        },
        StepKind::Set(_)
        | StepKind::Wait(_)
        | StepKind::Emit(_)
        | StepKind::Complete(_)
        | StepKind::ContinueAsNew(_)
        | StepKind::Broken => None,
    }
}
