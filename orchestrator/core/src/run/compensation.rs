//! Undoing: which steps, with which input, in which order, and what the run ends as.
//!
//! A step is undone if it was completed or unknown (`compensate_on_failure` adds those that failed). The undo's input is
//! evaluated when that is known and stored in the ledger; one that reads the run's `error` is evaluated when the run
//! stops, before the first undo is dispatched, because there is no error before.
//!
//! **Order:** the reverse of the order of dispatch. In a sequence each undo waits for the one before it to be done or
//! parked. A parked undo holds up nothing (`on_exhausted: continue`): in a plain sequence every other entry counts as
//! independent of it and goes on in order, since leaving more undone helps nobody; what really depends on it fails, is
//! retried and is parked as well.
//!
//! **The end:** a run with a parked undo stays open. Else it is `compensation_failed` if an operator skipped an undo,
//! whatever the run was stopped for; `cancelled` or `timed_out`; `compensated` if something was
//! undone or a parent asked for it; `failed` if there was nothing to undo.

use std::sync::Arc;

use serde_json::Value;

use super::decider::Decider;
use super::effect::Direction;
use super::event::Event;
use super::failure::Failure;
use super::ledger::UndoState;
use super::scope::RunScope;
use super::state::{Phase, Why};
use super::status::Status;
use crate::definition::plan::Call;
use crate::expression::Template;
use crate::ids::StepPath;

/// Stores that a step will be undone if the run fails. `own_output` is the step's, where only a late result knows it.
pub(super) fn prepare(d: &mut Decider<'_>, step: &StepPath, call: &Call, own_output: Option<&Arc<Value>>) {
    if reads_error(call.input.as_ref()) && d.state.failure().is_none() {
        d.emit(Event::UndoNeeded { step: step.clone() });
        return;
    }
    match evaluate(d, step, call, own_output) {
        Ok(input) => d.emit(Event::UndoReady {
            step: step.clone(),
            input,
        }),
        Err(error) => park(d, step.clone(), error),
    }
}

pub(super) fn evaluate(
    d: &Decider<'_>,
    step: &StepPath,
    call: &Call,
    own_output: Option<&Arc<Value>>,
) -> Result<Arc<Value>, Failure> {
    RunScope::new(d.state, step)
        .with_own_output(own_output)
        .evaluate(call.input.as_ref())
        .map_err(|error| error.at(step))
}

pub(super) fn reads_error(template: Option<&Template>) -> bool {
    template.is_some_and(|template| {
        template
            .references()
            .iter()
            .any(|reference| &*reference.path.root == "error")
    })
}

pub(super) fn park(d: &mut Decider<'_>, step: StepPath, error: Failure) {
    d.emit(Event::UndoParked { step, error });
}

/// Goes on with undoing a run that stops: waits for what is in flight, dispatches what is next, or closes the run.
pub(super) fn advance(d: &mut Decider<'_>) {
    if !d.state.doing.is_empty() || d.state.parked.is_some() {
        return;
    }
    let needed = |d: &Decider<'_>| {
        let entry = d.state.ledger.iter().find(|entry| entry.state == UndoState::Needed);
        entry.map(|entry| entry.step.clone())
    };
    while let Some(step) = needed(d) {
        let Some(call) = d.call(&step, Direction::Undo) else {
            return;
        };
        prepare(d, &step, call, None);
    }
    if !d.state.undoing.is_empty() {
        return;
    }
    let ready = d.state.ledger.iter().rfind(|entry| entry.state == UndoState::Ready);
    if let Some(step) = ready.map(|entry| entry.step.clone()) {
        dispatch(d, step);
    } else if d.state.parked_undos().next().is_none() {
        close(d);
    }
}

fn dispatch(d: &mut Decider<'_>, step: StepPath) {
    let Some(call) = d.call(&step, Direction::Undo) else {
        return;
    };
    d.emit(Event::UndoScheduled {
        step,
        task: d.state.next_task(),
        start_to_close: call.start_to_close,
        max_attempts: call.retry.maximum_attempts,
    });
}

fn close(d: &mut Decider<'_>) {
    let Phase::Stopping(stop) = &d.state.phase else {
        return;
    };
    let any = |state: UndoState| d.state.ledger.iter().any(|entry| entry.state == state);
    let status = match stop.why {
        _ if any(UndoState::Skipped) => Status::CompensationFailed,
        Why::Cancelled => Status::Cancelled,
        Why::TimedOut => Status::TimedOut,
        Why::Failed if any(UndoState::Done) || d.state.reopened.is_some() => Status::Compensated,
        Why::Failed => Status::Failed,
    };
    d.emit(Event::RunClosed { status });
}
