//! `wait_for:`: takes a signal, or gives up waiting.
//!
//! | what | then |
//! |---|---|
//! | entered, a buffered signal of the name matches | the first one is taken; its body is the step's output |
//! | entered, none does | waits |
//! | a signal comes | the first waiting step (by path) that it matches takes it; else it stays buffered |
//! | the timeout is due, and the log has been read that far | `fail`; `continue`: passed without output; `steps`: that body is entered, its last output is the step's |
//! | halted | the step ends as cancelled |
//!
//! A signal for which `match` cannot be evaluated does not match: the sender's mistake is not the run's.

use super::decider::{Decider, End, Work};
use super::event::Event;
use super::failure::{Failure, error_type};
use super::open::Open;
use super::scope::RunScope;
use super::signal::Signal;
use super::state::State;
use super::tree;
use crate::definition::plan::{NodeId, NodeKind, OnTimeout, Plan, WaitFor};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, wait: &WaitFor) {
    if take(d, node, &path, wait, 0) {
        return;
    }
    d.emit(Event::SignalAwaited {
        step: path,
        signal: wait.signal.clone(),
        due: wait.timeout.map(|timeout| d.at.plus(timeout)),
    });
}

/// Offers the signals from that number on to the steps that wait.
pub(super) fn offer(d: &mut Decider<'_>, from: u32) {
    let plan = d.plan;
    let is_waiting = |open: &Open| matches!(open, Open::Signal { .. });
    let waiting = d.state.open.iter().filter(|(_, open)| is_waiting(open));
    let waiting: Vec<_> = waiting.map(|(path, _)| path.clone()).collect();
    for path in waiting {
        if let Some(node) = tree::find(plan, path.as_str())
            && let NodeKind::WaitFor(wait) = &plan.node(node).kind
        {
            take(d, node, &path, wait, from);
        }
    }
}

/// The first buffered signal, of that number or later, that a step would take.
fn fitting<'s>(plan: &Plan, state: &'s State, path: &StepPath, wait: &WaitFor, from: u32) -> Option<&'s Signal> {
    let fits = |signal: &&Signal| {
        signal.number >= from
            && signal.name == wait.signal
            && wait.matches.as_ref().is_none_or(|matches| {
                let scope = RunScope::new(plan, state, path).with_signal(&signal.body);
                matches.is_true(&scope).unwrap_or(false)
            })
    };
    state.signals.buffer.iter().find(fits)
}

/// Whether a step waits for a signal that is there.
#[cfg(any(test, feature = "simulation"))]
pub(super) fn is_overlooked(plan: &Plan, state: &State, path: &StepPath) -> bool {
    let node = tree::find(plan, path.as_str()).map(|node| &plan.node(node).kind);
    matches!(node, Some(NodeKind::WaitFor(wait)) if fitting(plan, state, path, wait, 0).is_some())
}

/// Whether a buffered signal, of that number or later, was taken.
fn take(d: &mut Decider<'_>, node: NodeId, path: &StepPath, wait: &WaitFor, from: u32) -> bool {
    let Some(signal) = fitting(d.plan, d.state, path, wait, from).map(|signal| signal.number) else {
        return false;
    };
    d.emit(Event::SignalTaken {
        step: path.clone(),
        signal,
    });
    d.passed(node, path.clone());
    true
}

pub(super) fn timed_out(d: &mut Decider<'_>, path: StepPath) {
    let plan = d.plan;
    let Some(node) = tree::find(plan, path.as_str()) else {
        return d.park_for_lack_of("wait", &path);
    };
    let NodeKind::WaitFor(wait) = &plan.node(node).kind else {
        return d.park_for_lack_of("wait", &path);
    };
    d.emit(Event::SignalTimedOut { step: path.clone() });
    match wait.on_timeout {
        OnTimeout::Fail => {
            let message = format!("the signal `{}` did not come in time", wait.signal);
            tree::fail(d, node, path, Failure::new(error_type::TIMEOUT, &message));
        }
        OnTimeout::Continue => {
            d.emit(Event::StepPassed { step: path.clone() });
            d.passed(node, path);
        }
        OnTimeout::Steps(body) => {
            let path = tree::child_path(&path, &plan.node(body).name);
            d.push(Work::Enter { node: body, path });
        }
    }
}

/// The body for a signal that did not come has ended.
pub(super) fn body_ended(
    d: &mut Decider<'_>,
    node: NodeId,
    path: StepPath,
    body: NodeId,
    body_path: &StepPath,
    end: End,
) {
    if end == End::Passed {
        let output = tree::last_output(d, body, body_path);
        return d.completed(node, path, output);
    }
    d.push(Work::Ended { node, path, end });
}
