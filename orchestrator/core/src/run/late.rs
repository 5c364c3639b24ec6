//! Results of tasks that are closed: refused for the state, recorded in the history, once.
//!
//! A *success* that comes late is knowledge about the world, whoever was asked first: one of a step that was not going to
//! be undone makes the run undo it, also when it is being undone already; one of a step that ended unknown gives the undo
//! the output it lacked, unless that undo has begun. One of a step, or of an undo, that waits for an operator ends that wait
//! ([`super::parked`]). So a success is recorded even where another outcome of the same task
//! was heard before (two deliveries, two workers). After the end of the run nothing is reopened; the event says so.

use std::sync::Arc;

use serde_json::Value;

use super::decider::Decider;
use super::effect::Direction;
use super::event::{Event, LateOutcome, LateResult};
use super::failure::Failure;
use super::input::TaskOutcome;
use super::ledger::UndoState;
use super::state::{Heard, Step};
use super::{compensation, parked};
use crate::ids::{StepPath, TaskNo};

pub(super) fn result(d: &mut Decider<'_>, task: TaskNo, outcome: TaskOutcome) {
    let Some((heard, step, direction)) = d
        .state
        .task(task)
        .map(|task| (task.heard, task.step.clone(), task.direction))
    else {
        return;
    };
    // The run is parked, and its worker is not done: what that ends with is still to come, and its permit is in use.
    if matches!(outcome, TaskOutcome::RetryLater { .. }) && d.state.is_open(task) {
        return;
    }
    let success = matches!(outcome, TaskOutcome::Completed { .. });
    let is_news = match heard {
        Heard::Nothing => true,
        Heard::Other => success,
        Heard::Success => false,
    };
    if !is_news {
        return;
    }
    let (outcome, output, error) = match outcome {
        TaskOutcome::Completed { output } => (LateOutcome::Completed, output, None),
        TaskOutcome::Failed(error) => (LateOutcome::Failed, Arc::default(), Some(error)),
        TaskOutcome::Unknown(error) => (LateOutcome::Unknown, Arc::default(), Some(error)),
        TaskOutcome::Cancelled => (LateOutcome::Cancelled, Arc::default(), None),
        TaskOutcome::RetryLater { .. } => (LateOutcome::RetryLater, Arc::default(), None),
    };
    let after_close = d.state.is_closed();
    d.emit(Event::LateResult(Box::new(LateResult {
        task,
        outcome,
        output: output.clone(),
        error: error.as_ref().map(Failure::of_worker),
        after_close,
    })));
    if success && !after_close {
        match direction {
            Direction::Do => reconsider(d, &step, &output),
            Direction::Undo => parked::undone_late(d, &step),
        }
        d.settle();
    }
}

fn reconsider(d: &mut Decider<'_>, step: &StepPath, output: &Arc<Value>) {
    if parked::succeeded_late(d, step, output) {
        return;
    }
    // A step still under way remembers the success in its execution; one that completed has its undo prepared.
    if d.state.doing.contains_key(step) || !matches!(d.state.steps.get(step), Some(Step::Failed { .. })) {
        return;
    }
    let Some(was) = d
        .state
        .entry(step)
        .filter(|entry| !entry.resumed)
        .map(|entry| entry.state.clone())
    else {
        return;
    };
    match was {
        UndoState::Dormant => {
            if let Some(call) = d.call(step, Direction::Undo) {
                compensation::prepare(d, step, call, Some(output));
            }
        }
        UndoState::Ready | UndoState::Parked { prepared: false, .. } => {
            if let Some(call) = d.call(step, Direction::Undo)
                && let Ok(input) = compensation::evaluate(d, step, call, Some(output))
            {
                d.emit(Event::UndoReady {
                    step: step.clone(),
                    input,
                });
            }
        }
        // Evaluated when the run stops, or beyond changing.
        UndoState::Needed | UndoState::Parked { prepared: true, .. } | UndoState::Running => {}
        UndoState::Done | UndoState::Skipped => {}
    }
}
