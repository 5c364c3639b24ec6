//! What waits for an operator, and what operators do about it.
//!
//! *An undo* is parked when its attempts are exhausted or its input cannot be evaluated. It may be tried again, with the
//! same or other input, marked as done, or skipped.
//!
//! *A forward step* is parked when it may not fail any more ([`super::pivot`]) or would break a limit ([`super::blocked`]). It
//! may be tried again from its beginning, an activity with other input too, or ended: marked as done, with an output if it is to
//! have one (an activity is then undone like any other, should it come to that), or skipped.
//!
//! A success that comes late ends the matter without an operator: of a step, which then completes with that output, and of an
//! undo that no operator has had tried again, which is not parked at all where the success comes before its last attempt fails.
//!
//! *A run as a whole* is parked when the shell could not take or store one of its inputs, when it has as many events as it may, or when it is loaded with a
//! definition that lacks one of its steps. It takes no results into account (they are recorded, and its open tasks run
//! into their timeouts once it goes on) and no deadline of it is due. What its stream refuses meanwhile is offered again then, and of a
//! task whose worker is lost the permits are given back. It goes on after `Retry` at the root path; `Cancel`
//! makes it go on by undoing, `Terminate` closes it. One that is parked for its output alone may be marked as done: it completes
//! without one.

use std::sync::Arc;

use serde_json::Value;

use super::cancel::refused;
use super::decider::{Decider, Work};
use super::effect::Direction;
use super::event::{Event, Resolution};
use super::input::{Operation, ParkedAction, Rejected};
use super::ledger::{LedgerEntry, UndoState};
use super::open::Open;
use super::request::{Verb, was_taken};
use super::state::Step;
use super::{activity, admission, blocked, compensation, stop, tree};
use crate::definition::plan::{NodeId, NodeKind, Undo};
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
    direction: Option<Direction>,
    action: ParkedAction,
    operation: Operation,
) -> Result<(), Rejected> {
    if was_taken(d.state, Verb::of(&action), &operation) || refused(d.state)? {
        return Ok(());
    }
    if step.as_str().is_empty() {
        resume_run(d, &action, operation)?;
    } else if direction != Some(Direction::Undo) && matches!(d.state.open.get(&step), Some(Open::Parked { .. })) {
        act_on_step(d, step, action, operation)?;
    } else {
        let entry = d.state.entry(&step).filter(|_| direction != Some(Direction::Do));
        let (prepared, is_child) = match entry.map(|entry| (&entry.state, entry.child.is_some())) {
            Some((UndoState::Parked { prepared, .. }, is_child)) => (*prepared, is_child),
            _ => return Err(Rejected::NotParked(step.to_string())),
        };
        match action {
            ParkedAction::Retry if prepared || is_child => d.emit(Event::UndoResumed { step, operation }),
            ParkedAction::Retry => retry_unprepared(d, step, operation)?,
            ParkedAction::RetryWithInput(_) if is_child => {
                return Err(Rejected::NotForThis("a child undoes itself and takes no input for it"));
            }
            ParkedAction::RetryWithInput(input) => {
                check_value(&input, "input")?;
                d.emit(Event::UndoReady {
                    step: step.clone(),
                    input,
                });
                d.emit(Event::UndoResumed { step, operation });
            }
            ParkedAction::MarkDone => resolve(d, step, Resolution::Done, operation),
            ParkedAction::MarkDoneWithOutput(_) => return Err(Rejected::NotForThis("an undo has no output")),
            ParkedAction::Skip => resolve(d, step, Resolution::Skipped, operation),
        }
    }
    d.settle();
    Ok(())
}

fn check_value(value: &Value, what: &str) -> Result<(), Rejected> {
    json::check(value, &Limits::default()).map_err(|problem| Rejected::Expression(format!("the {what} is {problem}")))
}

fn resume_run(d: &mut Decider<'_>, action: &ParkedAction, operation: Operation) -> Result<(), Rejected> {
    if d.state.parked.is_none() {
        return Err(Rejected::RunNotParked);
    }
    let blocked: Vec<_> = d.state.blocked.iter().cloned().collect();
    let lacks_output = blocked.iter().any(|path| path.as_str().is_empty()) && blocked::is_entered(d);
    if lacks_output && *action == ParkedAction::MarkDone {
        return complete_without_output(d, operation);
    }
    if *action != ParkedAction::Retry {
        return Err(Rejected::NotForThis(
            "the run as a whole is parked: it can be retried, cancelled or terminated",
        ));
    }
    blocked::resumed(d, operation);
    let is_blocked = !blocked.is_empty();
    blocked::resume(d, blocked);
    // A schedule or a trigger has nothing to enter: it goes on from where it is.
    if !is_blocked && !d.state.is_actor() {
        admission::resumed(d);
    }
    Ok(())
}

/// Everything has been done, and what the run was to say of it is too large.
fn complete_without_output(d: &mut Decider<'_>, operation: Operation) -> Result<(), Rejected> {
    d.emit(Event::StepResolved {
        step: StepPath::new(""),
        how: Resolution::Done,
        output: Arc::default(),
        operation,
    });
    blocked::resumed(d, Operation::default());
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
                return Err(Rejected::NotForThis("only an activity can be given other input"));
            };
            if d.state.parked.is_some() {
                // Its task would go out at once, and what becomes of it would not be taken.
                return Err(Rejected::NotForThis(
                    "the run as a whole is parked too and takes no results: retry the run first",
                ));
            }
            check_value(&input, "input")?;
            d.emit(Event::StepResumed {
                step: step.clone(),
                operation,
            });
            activity::schedule(d, node, step, activity, input);
        }
        ParkedAction::MarkDone => mark_done(d, node, step, Arc::default(), operation),
        ParkedAction::MarkDoneWithOutput(output) => {
            check_value(&output, "output")?;
            mark_done(d, node, step, output, operation);
        }
        ParkedAction::Skip => {
            d.emit(Event::StepResolved {
                step: step.clone(),
                how: Resolution::Skipped,
                output: Arc::default(),
                operation,
            });
            d.passed(node, step);
        }
    }
    Ok(())
}

fn mark_done(d: &mut Decider<'_>, node: NodeId, step: StepPath, output: Arc<Value>, operation: Operation) {
    d.emit(Event::StepResolved {
        step: step.clone(),
        how: Resolution::Done,
        output,
        operation,
    });
    was_done(d, node, step);
}

/// A parked step has been done, by whomever: an activity is undone like what a worker did in time, and a pivot leaves no way
/// back.
fn was_done(d: &mut Decider<'_>, node: NodeId, step: StepPath) {
    let plan = d.plan;
    if let NodeKind::Activity(activity) = &plan.node(node).kind {
        let entry = d.state.entry(&step).filter(|entry| !entry.resumed);
        if let Undo::Compensate(call) = &activity.undo
            && let Some(was) = entry.map(|entry| entry.state.clone())
        {
            match was {
                UndoState::Dormant => compensation::prepare(d, &step, call, None),
                // It was prepared without the output, which is known now.
                UndoState::Ready | UndoState::Parked { prepared: false, .. } => {
                    if let Some(Step::Completed { .. }) = d.state.steps.get(&step)
                        && let Ok(input) = compensation::evaluate(d, &step, call, None)
                    {
                        d.emit(Event::UndoReady {
                            step: step.clone(),
                            input,
                        });
                    }
                }
                _ => {}
            }
        }
        if activity.pivot && d.state.is_running() && !d.state.past_pivot {
            d.emit(Event::PivotCompleted { step: step.clone() });
        }
    }
    d.passed(node, step);
}

/// A worker has said, late, that the parked step was done: that is what the operator was asked about. Whether it was parked.
pub(super) fn succeeded_late(d: &mut Decider<'_>, step: &StepPath, output: &Arc<Value>) -> bool {
    if !matches!(d.state.open.get(step), Some(Open::Parked { .. })) {
        return false;
    }
    // Looked for before anything is said: without it the run waits for the right definition.
    let Some(node) = tree::find(d.plan, step.as_str()) else {
        d.park_for_lack_of("step", step);
        return true;
    };
    d.emit(Event::StepCompleted {
        step: step.clone(),
        output: Arc::clone(output),
    });
    was_done(d, node, step.clone());
    true
}

/// The same of an undo, unless an operator has had it tried again: then the success may be that of another input.
pub(super) fn undone_late(d: &mut Decider<'_>, step: &StepPath) {
    let parked = |entry: &LedgerEntry| matches!(entry.state, UndoState::Parked { .. }) && !entry.resumed;
    if d.state.entry(step).is_some_and(parked) {
        undone(d, step.clone());
    }
}

/// An undo whose success has come late.
pub(super) fn undone(d: &mut Decider<'_>, step: StepPath) {
    resolve(d, step, Resolution::Done, Operation::default());
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
