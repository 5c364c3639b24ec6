//! What waits for an operator, and what operators do about it.
//!
//! *An undo* is parked when its attempts are exhausted or its input cannot be evaluated. It may be tried again, with the
//! same or other input, marked as done, or skipped.
//!
//! *A forward step* is parked when it may not fail any more ([`super::pivot`]) or would break a limit ([`super::blocked`]). It
//! may be tried again from its beginning, an activity with other input too, or ended: marked as done (an activity is then undone like
//! any other, should it come to that) or skipped, without an output.
//!
//! *A run as a whole* is parked when the shell could not take or store one of its inputs, when it has as many events as it may, or when it is loaded with a
//! definition that lacks one of its steps. It takes no results into account (they are recorded, and its open tasks run
//! into their timeouts once it goes on) and no deadline of it is due. It goes on after `Retry` at the root path; `Cancel`
//! makes it go on by undoing, `Terminate` closes it. One that is parked for its output alone may be marked as done: it completes
//! without one.

use std::sync::Arc;

use super::cancel::refused;
use super::decider::{Decider, Work};
use super::effect::Direction;
use super::event::{Event, Resolution};
use super::input::{Operation, ParkedAction, Rejected};
use super::ledger::UndoState;
use super::open::Open;
use super::request::{Verb, was_taken};
use super::{activity, blocked, compensation, stop, tree};
use crate::definition::plan::{NodeKind, Undo};
use crate::ids::StepPath;
use crate::json::{self, Limits};

pub(super) fn park_run(d: &mut Decider<'_>, reason: Arc<str>) {
    if !d.state.is_closed() && d.state.parked.is_none() {
        d.emit(Event::RunParked { reason });
    }
}

pub(super) fn act(
    d: &mut Decider<'_>,
    step: StepPath,
    action: ParkedAction,
    operation: Operation,
) -> Result<(), Rejected> {
    if was_taken(d.state, Verb::of(&action), &operation) || refused(d.state)? {
        return Ok(());
    }
    if step.as_str().is_empty() {
        resume_run(d, &action, operation)?;
    } else if matches!(d.state.open.get(&step), Some(Open::Parked { .. })) {
        act_on_step(d, step, action, operation)?;
    } else {
        let prepared = match d.state.entry(&step).map(|entry| &entry.state) {
            Some(UndoState::Parked { prepared, .. }) => *prepared,
            _ => return Err(Rejected::NotParked(step.to_string())),
        };
        match action {
            ParkedAction::Retry if prepared => d.emit(Event::UndoResumed { step, operation }),
            ParkedAction::Retry => retry_unprepared(d, step, operation)?,
            ParkedAction::RetryWithInput(input) => {
                json::check(&input, &Limits::default())
                    .map_err(|problem| Rejected::Expression(format!("the input is {problem}")))?;
                d.emit(Event::UndoReady {
                    step: step.clone(),
                    input,
                });
                d.emit(Event::UndoResumed { step, operation });
            }
            ParkedAction::MarkDone => resolve(d, step, Resolution::Done, operation),
            ParkedAction::Skip => resolve(d, step, Resolution::Skipped, operation),
        }
    }
    d.settle();
    Ok(())
}

fn resume_run(d: &mut Decider<'_>, action: &ParkedAction, operation: Operation) -> Result<(), Rejected> {
    let blocked: Vec<_> = d.state.blocked.iter().cloned().collect();
    let lacks_output = blocked.iter().any(|path| path.as_str().is_empty());
    if d.state.parked.is_some() && lacks_output && *action == ParkedAction::MarkDone {
        return complete_without_output(d, operation);
    }
    if d.state.parked.is_none() || *action != ParkedAction::Retry {
        return Err(Rejected::NotParked(String::new()));
    }
    d.emit(Event::RunResumed {
        operation,
        event_limit: d.state.event_limit_to_go_on(),
        history_limit: d.state.history_limit_to_go_on(),
    });
    blocked::resume(d, blocked);
    Ok(())
}

/// Everything has been done, and what the run was to say of it is too large.
fn complete_without_output(d: &mut Decider<'_>, operation: Operation) -> Result<(), Rejected> {
    d.emit(Event::StepResolved {
        step: StepPath::new(""),
        how: Resolution::Done,
        operation,
    });
    d.emit(Event::RunResumed {
        operation: Operation::default(),
        event_limit: d.state.event_limit_to_go_on(),
        history_limit: d.state.history_limit_to_go_on(),
    });
    stop::complete_with(d, Arc::default());
    Ok(())
}

fn act_on_step(
    d: &mut Decider<'_>,
    step: StepPath,
    action: ParkedAction,
    operation: Operation,
) -> Result<(), Rejected> {
    let plan = d.plan;
    let Some(node) = tree::find(plan, step.as_str()) else {
        d.park_for_lack_of("step", &step);
        return Ok(());
    };
    match action {
        ParkedAction::Retry => {
            d.emit(Event::StepResumed {
                step: step.clone(),
                operation,
            });
            d.push(Work::Enter { node, path: step });
        }
        ParkedAction::RetryWithInput(input) => {
            let NodeKind::Activity(activity) = &plan.node(node).kind else {
                return Err(Rejected::Expression(
                    "only an activity can be given other input".to_owned(),
                ));
            };
            json::check(&input, &Limits::default())
                .map_err(|problem| Rejected::Expression(format!("the input is {problem}")))?;
            d.emit(Event::StepResumed {
                step: step.clone(),
                operation,
            });
            activity::schedule(d, node, step, activity, input);
        }
        ParkedAction::MarkDone | ParkedAction::Skip => {
            let how = if action == ParkedAction::Skip {
                Resolution::Skipped
            } else {
                Resolution::Done
            };
            d.emit(Event::StepResolved {
                step: step.clone(),
                how,
                operation,
            });
            // What was done, by whomever, is undone like what a worker did.
            if how == Resolution::Done
                && let NodeKind::Activity(activity) = &plan.node(node).kind
                && let Undo::Compensate(call) = &activity.undo
                && d.state
                    .entry(&step)
                    .is_some_and(|entry| entry.state == UndoState::Dormant)
            {
                compensation::prepare(d, &step, call, None);
            }
            d.passed(node, step);
        }
    }
    Ok(())
}

/// The input could not be evaluated before; what it reads may be there now.
fn retry_unprepared(d: &mut Decider<'_>, step: StepPath, operation: Operation) -> Result<(), Rejected> {
    let Some(call) = d.call(&step, Direction::Undo) else {
        return Ok(());
    };
    if compensation::reads_error(call.input.as_ref()) && d.state.is_running() {
        d.emit(Event::UndoResumed {
            step: step.clone(),
            operation,
        });
        d.emit(Event::UndoNeeded { step });
        return Ok(());
    }
    let input = compensation::evaluate(d, &step, call, None)
        .map_err(|error| Rejected::Expression(error.message.to_string()))?;
    d.emit(Event::UndoReady {
        step: step.clone(),
        input,
    });
    d.emit(Event::UndoResumed { step, operation });
    Ok(())
}

fn resolve(d: &mut Decider<'_>, step: StepPath, how: Resolution, operation: Operation) {
    d.emit(Event::UndoResolved { step, how, operation });
}
