//! What there is to say about a state, and about a transition.

use super::code;
use super::moves::{Move, find};
use super::report::Severity;
use crate::definition::code::Code;
use crate::definition::plan::{NodeKind, Plan, UNDECLARED, Undo};
use crate::definition::test_file::plain;
use crate::ids::StepPath;
use crate::run::event::StepOutcome;
use crate::run::{Event, Failure, State, Status, Step, UndoState, error_type};

/// One thing seen in one state; the same one may be seen in many.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) severity: Severity,
    pub(super) code: &'static str,
    /// Without the numbers of iterations.
    pub(super) step: Option<String>,
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

fn seen(severity: Severity, code: Code, step: Option<&StepPath>, message: String) -> Seen {
    Seen {
        severity,
        code: code.code,
        step: step.map(|step| plain(step.as_str())),
        message,
        remedy: code.remedy,
    }
}

/// Of what has just happened.
pub(super) fn of_events(events: &[Event]) -> Vec<Seen> {
    let is_missing = |error: &Failure| &*error.error_type == error_type::EXPRESSION;
    let mut all = Vec::new();
    for event in events {
        match event {
            Event::UndoParked { step, error, .. } if is_missing(error) => {
                let message = format!(
                    "the undo of `{}` reads what is not there: {}",
                    plain(step.as_str()),
                    what(error)
                );
                all.push(seen(Severity::Error, code::UNDO_MISSES_DATA, Some(step), message));
            }
            Event::StepFailed { step, error, .. } | Event::StepParked { step, error, .. }
                if is_missing(error) && error.step.as_ref() == Some(step) =>
            {
                let message = format!("`{}` reads what is not there: {}", plain(step.as_str()), what(error));
                all.push(seen(Severity::Warning, code::STEP_MISSES_DATA, Some(step), message));
            }
            Event::RunFailed { error } if is_missing(error) && error.step.is_none() => {
                let message = format!("the output reads what is not there: {}", what(error));
                all.push(seen(Severity::Warning, code::STEP_MISSES_DATA, None, message));
            }
            Event::RunParked { reason } => {
                let message = format!("the run waits for an operator: {reason}");
                all.push(seen(Severity::Error, code::PARKED, None, message));
            }
            _ => {}
        }
    }
    all
}

/// The path that leads to nothing, where the message names one.
fn what(error: &Failure) -> String {
    let mut parts = error.message.split('`');
    match (parts.next(), parts.next()) {
        (Some(""), Some(path)) if !path.contains("missing") => format!("`{path}`"),
        _ => "an output or a variable".to_owned(),
    }
}

/// Of a state, and what can happen in it.
pub(super) fn of_state(plan: &Plan, state: &State, moves: &[Move]) -> Vec<Seen> {
    if state.is_closed() {
        return of_closed(plan, state);
    }
    let mut all = Vec::new();
    if moves.iter().any(Move::is_by_itself) {
        return all;
    }
    let (undos, steps) = (state.parked_undos().count(), state.parked_steps().count());
    if undos + steps > 0 || state.parked_reason().is_some() {
        // An undo whose worker keeps failing is nobody's mistake, and counted among the ends.
        for (step, error) in state
            .parked_steps()
            .filter(|(_, error)| &*error.error_type != error_type::EXPRESSION)
        {
            let message = format!(
                "`{}` comes after the pivot and waits for an operator when it fails for good ({})",
                plain(step.as_str()),
                error.error_type
            );
            all.push(seen(Severity::Notice, code::PARKED, Some(step), message));
        }
        return all;
    }
    let holds = |state: &State| {
        let mut ledger = state.ledger().iter();
        ledger.any(|entry| matches!(entry.state, UndoState::Ready | UndoState::Needed))
    };
    match state.awaited().first() {
        Some(signal) if holds(state) => {
            let message =
                format!("the run may wait for ever for the signal `{signal}`, while it holds what would be undone");
            all.push(seen(Severity::Warning, code::WAITS_FOR_EVER, None, message));
        }
        Some(_) => {}
        None => {
            let message = format!("the run stands still ({})", state.status());
            all.push(seen(Severity::Error, code::STUCK, None, message));
        }
    }
    all
}

fn of_closed(plan: &Plan, state: &State) -> Vec<Seen> {
    let forward = matches!(state.status(), Status::Completed | Status::ContinuedAsNew);
    let mut all = Vec::new();
    for (step, ended) in state.steps() {
        let (Step::Completed { .. }
        | Step::Failed {
            outcome: StepOutcome::Unknown,
            ..
        }) = ended
        else {
            continue;
        };
        let maybe = matches!(ended, Step::Failed { .. });
        let Some(NodeKind::Activity(activity)) = find(plan, step.as_str()).map(|id| &plan.node(id).kind) else {
            continue;
        };
        let name = plain(step.as_str());
        let undone = state
            .ledger()
            .iter()
            .any(|entry| entry.step == *step && entry.state == UndoState::Done);
        match &activity.undo {
            _ if undone || forward && !maybe => {}
            Undo::ReadOnly => {}
            Undo::Compensate(_) if forward => {
                let message = format!("the run completes, though `{name}` may have been done and is not undone");
                all.push(seen(Severity::Error, code::MAYBE_DONE, Some(step), message));
            }
            Undo::None { .. } if forward => {}
            Undo::Compensate(_) => {
                let message = format!("`{name}` was done and is not undone");
                all.push(seen(Severity::Error, code::LEFT_UNDONE, Some(step), message));
            }
            Undo::None { reason } if &**reason == UNDECLARED => {
                let message = format!("what `{name}` did stays when the run is undone");
                all.push(seen(Severity::Error, code::LEFT_UNDONE, Some(step), message));
            }
            Undo::None { reason } => {
                let message = format!("what `{name}` did stays when the run is undone: {reason}");
                all.push(seen(Severity::Notice, code::STAYS_AS_DECLARED, Some(step), message));
            }
        }
    }
    all
}
