//! `signals:`: what is done for every signal of a name, beside the main body.
//!
//! | what | then |
//! |---|---|
//! | a signal of the name comes, or waits when the run begins | the body begins, with the signal's body in scope; while an execution of the name is under way, others wait in the order of their coming |
//! | an execution has passed | the next begins |
//! | one has failed | the run fails, and everything else under way is halted |
//! | the main body has passed | the run completes when no execution is under way or waits |
//! | the run completes before its last step (`complete`) | likewise: what has come is done first |
//! | it continues as new | executions under way come to their end; what waits moves along |
//! | it is stopped, whatever for | executions are halted like everything else |
//!
//! Executions of a name are addressed like iterations, `$signals.paid[3]`, and are undone as what they are: steps dispatched
//! at some moment, before and after those of the main body, in the reverse order of all of them ([`super::compensation`]).
//!
//! While a pivot is under way nobody knows whether the run may fail: a step of a handler that would fail it waits for an operator
//! ([`super::pivot`]).
//!
//! **Bound:** what waits is bounded like all signals that nobody has taken; how many executions there may be by the run's limit of
//! events. The body of a signal is kept as long as an undo may read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decider::{Decider, End, Work};
use super::event::Event;
use super::failure::Failure;
use super::input::{Operation, Rejected};
use super::limits::{MAX_ERROR_MESSAGE_BYTES, truncated};
use super::open::Exit;
use super::path::{is_within, iteration, of_iteration};
use super::state::{State, Why};
use super::{blocked, pivot, stop};
use crate::definition::plan::{Handler, NodeId, Plan};
use crate::ids::StepPath;

/// The node around the handlers of signals, and the first segment of the paths of their steps. No step has such an id.
pub(crate) const SIGNALS: &str = "$signals";

/// What a run has done and has to do beside its main body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Handling {
    /// By the path of the handler.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) executions: BTreeMap<StepPath, Executions>,
    /// The main body has passed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) passed: bool,
}

/// Of one handler.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Executions {
    /// How many have begun; the next one has this number.
    pub(super) begun: u32,
    /// The last one is under way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) open: bool,
    /// What each has been sent, as long as it may be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bodies: BTreeMap<u32, Arc<Value>>,
}

/// Whether a place lies beside the main body.
pub(super) fn is_beside(path: &str) -> bool {
    path.starts_with('$')
}

/// Why a signal cannot be taken by a run of this definition.
pub fn refused(plan: &Plan, signal: &str, body: &Value) -> Result<(), Rejected> {
    let Some(schema) = plan.handler_of(signal).and_then(|(_, handler)| handler.schema.as_ref()) else {
        return Ok(());
    };
    let text = |error: String| truncated(&error, MAX_ERROR_MESSAGE_BYTES).to_owned();
    schema
        .validate(body)
        .map_err(|error| Rejected::SignalSchema(text(error)))
}

/// Has handlers take what waits for them.
pub(super) fn offer(d: &mut Decider<'_>) {
    let plan = d.plan;
    if plan.handlers.is_empty() || !takes(d.state) {
        return;
    }
    for (node, handler) in plan.signal_handlers() {
        let name = &plan.node(node).name;
        let path = path_of(name);
        let waiting = d.state.signals.buffer.iter().find(|signal| signal.name == *name);
        let Some(signal) = waiting.map(|signal| signal.number) else {
            continue;
        };
        if d.state.is_handling(&path) {
            continue;
        }
        // It waits in the run, which is about to be parked.
        if blocked::must_wait(d) {
            return;
        }
        begin(d, handler, path, signal);
    }
}

fn begin(d: &mut Decider<'_>, handler: &Handler, path: StepPath, signal: u32) {
    let index = d.state.handling.executions.get(&path).map_or(0, |of| of.begun);
    let execution = of_iteration(&path, index);
    d.emit(Event::HandlerStarted {
        step: path,
        index,
        signal,
    });
    d.push(Work::Enter {
        node: handler.body,
        path: execution,
    });
}

fn path_of(name: &str) -> StepPath {
    StepPath::from(format!("{SIGNALS}.{name}").as_str())
}

/// Whether what comes is taken now, and not by the run that goes on in its place.
fn takes(state: &State) -> bool {
    let goes_on = matches!(state.exit, Some((Exit::ContinuedAsNew { .. }, _)));
    state.is_running() && state.admission.is_none() && state.parked.is_none() && !goes_on
}

pub(super) fn execution_ended(d: &mut Decider<'_>, path: StepPath, execution: &StepPath, end: End) {
    let Some((_, index)) = iteration(execution.as_str()) else {
        return;
    };
    let failed = match &end {
        End::Failed(error) => Some(error.clone()),
        End::Passed | End::Halted => None,
    };
    d.emit(Event::HandlerEnded { step: path, index, end });
    if let Some(error) = failed {
        return fail(d, error);
    }
    if d.state.handling.passed && d.state.is_running() && d.state.exit.is_none() && !has_more_to_do(d.plan, d.state) {
        stop::complete(d);
    }
}

fn fail(d: &mut Decider<'_>, error: Failure) {
    if !pivot::defer(d, Why::Failed, &error, &Operation::default()) {
        stop::fail(d, error);
    }
}

/// Whether an execution is under way, or a signal waits for one.
pub(super) fn has_more_to_do(plan: &Plan, state: &State) -> bool {
    let mut executions = state.handling.executions.values();
    executions.any(|of| of.open)
        || !plan.handlers.is_empty() && {
            let mut waiting = state.signals.buffer.iter();
            takes(state) && waiting.any(|signal| plan.handler_of(&signal.name).is_some())
        }
}

/// Waits with the end of the run for the executions under way; whether it has to.
pub(super) fn complete_later(d: &mut Decider<'_>) -> bool {
    if !has_more_to_do(d.plan, d.state) {
        return false;
    }
    if !d.state.handling.passed {
        d.emit(Event::MainBodyPassed {});
    }
    true
}

/// What of another version concerns the signals that wait: one that was left for a step would not be noticed by a handler.
pub(super) fn obstacle_of_signals(from: &Plan, to: &Plan, state: &State) -> Option<String> {
    let mut waiting = state.signals.buffer.iter();
    let noticed = |name: &str| from.handler_of(name).is_some() || to.handler_of(name).is_none();
    let unnoticed = waiting.find(|signal| !noticed(&signal.name))?;
    Some(format!(
        "the signal `{}` waits in it, and the other version has a handler for those that come",
        unnoticed.name
    ))
}

impl State {
    fn is_handling(&self, handler: &StepPath) -> bool {
        self.handling.executions.get(handler).is_some_and(|of| of.open)
    }

    /// What the execution around a place was sent.
    pub(super) fn handled_at(&self, place: &StepPath) -> Option<&Arc<Value>> {
        let place = place.as_str();
        let end = place.find(']').filter(|_| is_beside(place))?;
        let (handler, index) = iteration(&place[..=end])?;
        self.handling.executions.get(handler)?.bodies.get(&index)
    }

    pub(super) fn handler_started(&mut self, handler: &StepPath, index: u32, signal: u32) {
        let buffer = &mut self.signals.buffer;
        let Some(at) = buffer.iter().position(|one| one.number == signal) else {
            return;
        };
        let body = buffer.remove(at).body;
        let of = self.handling.executions.entry(handler.clone()).or_default();
        of.begun = index.saturating_add(1);
        of.open = true;
        of.bodies.insert(index, body);
    }

    pub(super) fn handler_ended(&mut self, handler: &StepPath, index: u32) {
        let execution = of_iteration(handler, index);
        let mut ledger = self.ledger.iter();
        let is_undone = ledger.any(|entry| is_within(entry.step.as_str(), execution.as_str()));
        if let Some(of) = self.handling.executions.get_mut(handler) {
            of.open = false;
            if !is_undone {
                of.bodies.remove(&index);
            }
        }
    }
}

/// The node of a handler, by the name that a path has for it.
pub(super) fn child_named(plan: &Plan, node: NodeId, name: &str) -> Option<NodeId> {
    let mut groups = plan.handlers.iter().copied();
    let group = groups.find(|group| *plan.node(*group).name == *name);
    group.filter(|_| node == plan.root && is_beside(name))
}
