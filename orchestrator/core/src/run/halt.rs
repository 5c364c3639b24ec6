//! Halting a region: a branch that is not needed, a list one of whose items failed, or the whole run.
//!
//! | what is under way in the region | then |
//! |---|---|
//! | an activity whose task a worker may hold | asked to cancel, and waited for within its own timeouts; with `cancellation: wait_cancelled` until it answers or is lost |
//! | the same where no worker is known to have it | its task is taken out of its queue first ([`super::withdrawal`]): if nobody had it the step ends then, as cancelled. Not with `abandon` |
//! | the same with `cancellation: abandon` | ends at once, as unknown |
//! | an activity between attempts, waiting for a permit, or whose task its stream refused or has not been sent | ends at once; a pivot that may have been done goes on until that is known |
//! | `wait`, `wait_for`, a parked or blocked step | ends at once, as cancelled; a pivot that may have been done goes on waiting |
//! | a child | as its `parent_close` says: told to cancel or to terminate and waited for, or left alone |
//! | a scope or losers being undone | goes on to its end |
//! | `finally`, and everything in it | is not halted |
//!
//! Nothing is entered in a halted region ([`super::tree::enter`]), and whatever ends there ends as halted for its container.
//! Which regions are halted follows from the state: a run that stops or is to end, a `parallel` or `for_each` that has been
//! decided ([`State::is_halted`]). Handlers are halted by a run that stops, and not by one that is to end.

use super::decider::{Decider, Work};
use super::effect::Direction;
use super::event::{Event, StepOutcome};
use super::execution::{Execution, Known, Wait};
use super::failure::Failure;
use super::open::Open;
use super::path::{around, is_within};
use super::state::State;
use super::{attempt, handler, pivot, tree, withdrawal, workflow};
use crate::definition::plan::Cancellation;
use crate::ids::{StepPath, TaskNo};

pub(super) fn halt(d: &mut Decider<'_>, region: &StepPath) {
    withdrawal::of_halted(d, |state, view| {
        is_within(view.step.as_str(), region.as_str()) && state.is_halted(view.step)
    });
    let within = |path: &&StepPath| is_within(path.as_str(), region.as_str()) && d.state.is_halted(path);
    let at_rest: Vec<_> = d
        .state
        .doing
        .iter()
        .filter(|(step, _)| within(step))
        .filter(|(step, execution)| !pivot::is_undecided(d.plan, step, execution))
        .filter_map(|(step, execution)| Some((step.clone(), at_rest(execution)?)))
        .collect();
    let waiting: Vec<_> = d
        .state
        .open
        .keys()
        .chain(&d.state.blocked)
        .filter(within)
        .filter(|step| !pivot::is_left_unknown(d.plan, d.state, step))
        .cloned()
        .collect();
    for (step, (outcome, abandoned)) in at_rest {
        if let Some(task) = abandoned {
            d.emit(Event::TaskAbandoned { task });
        }
        attempt::give_up(d, step, Direction::Do, outcome);
    }
    for step in waiting {
        match d.state.open.get(&step) {
            Some(Open::Child(_)) => workflow::halt(d, step),
            Some(Open::Timer { .. } | Open::Signal { .. } | Open::Parked { .. }) | None => cancelled(d, step),
            Some(Open::Parallel(_) | Open::ForEach(_) | Open::Try { .. } | Open::Scope { .. }) => {}
        }
    }
}

/// Ends a step that no worker and no other run knows of.
pub(super) fn cancelled(d: &mut Decider<'_>, step: StepPath) {
    let Some(node) = tree::find(d.plan, step.as_str()) else {
        return d.park_for_lack_of("step", &step);
    };
    d.emit(Event::StepFailed {
        error: Failure::not_needed().at(&step),
        outcome: StepOutcome::Cancelled,
        step: step.clone(),
    });
    d.push(Work::Ended {
        node,
        path: step,
        end: super::decider::End::Halted,
    });
}

/// What a step ends as if it is stopped now, with the task that a worker is left alone with; `None` while a worker is to be
/// waited for.
fn at_rest(execution: &Execution) -> Option<(StepOutcome, Option<TaskNo>)> {
    match &execution.wait {
        Wait::Task(open) if open.known == Known::Held => Some((StepOutcome::Cancelled, None)),
        Wait::Task(open) if execution.cancellation == Cancellation::Abandon => {
            Some((StepOutcome::Unknown, Some(open.task)))
        }
        Wait::Task(_) => None,
        Wait::Permit(_) if execution.last_error.is_none() => Some((StepOutcome::Cancelled, None)),
        Wait::Until(_) | Wait::Permit(_) | Wait::Decision => Some((StepOutcome::Failed, None)),
    }
}

impl State {
    /// Whether a place lies in a region that was halted, and not in a `finally` that runs all the same.
    pub(super) fn is_halted(&self, path: &StepPath) -> bool {
        if !self.open.is_empty() {
            for around in around(path.as_str()) {
                match self.open.get(around) {
                    Some(Open::Try { finally: Some(_), .. }) => return false,
                    Some(Open::Parallel(parallel)) if parallel.stopped.is_some() => return true,
                    Some(Open::ForEach(each)) if each.stopped.is_some() => return true,
                    _ => {}
                }
            }
        }
        // What has come beside a run that is to end is done to its end.
        !self.is_running() || self.exit.is_some() && !handler::is_beside(path.as_str())
    }

    /// Nothing is under way forwards.
    pub(super) fn is_quiet(&self) -> bool {
        self.doing.is_empty() && self.open.is_empty() && self.blocked.is_empty()
    }
}
