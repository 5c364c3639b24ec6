//! `signals:` and `updates:`: what is done for every signal or update of a name, beside the main body.
//!
//! | what | then |
//! |---|---|
//! | a signal of the name comes, or waits when the run begins; an update has been accepted ([`super::update`]) | the body begins, with the signal's body in scope; while an execution of the name is under way, others wait in the order of their coming |
//! | an execution has passed | the next begins |
//! | one has failed | the run fails, and everything else under way is halted |
//! | the answer of an update cannot be evaluated, or is too large | who waits is told; the run goes on, for the steps have passed |
//! | the main body has passed | the run completes when no execution is under way or waits |
//! | the run completes before its last step (`complete`) | likewise: what has come is done first |
//! | it continues as new | executions under way come to their end, and accepted updates are done; signals that wait move along |
//! | either, and everything has been handled | what the step says of output or input is evaluated anew, so that it knows of what was done ([`super::ending`]) |
//! | it is stopped, whatever for | executions are halted like everything else |
//!
//! Executions of a name are addressed like iterations, `$signals.paid[3]`, and are undone as what they are: steps dispatched
//! at some moment, before and after those of the main body, in the reverse order of all of them ([`super::compensation`]).
//!
//! While a pivot is under way nobody knows whether the run may fail: a step of a handler that would fail it waits for an operator
//! ([`super::pivot`]).
//!
//! **Bound:** what waits is bounded like all signals that nobody has taken; how many executions there may be by the run's limit of
//! events. What an execution was sent is kept as long as an undo may read it.

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
use crate::definition::plan::{Handler, InputSchema, NodeId, NodeKind, Plan};
use crate::ids::{RequestId, StepPath};

/// The nodes around the handlers of signals and of updates, and the first segments of the paths of their steps. No step has
/// such an id.
pub(crate) const SIGNALS: &str = "$signals";
pub(crate) const UPDATES: &str = "$updates";

/// What a run has done and has to do beside its main body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Handling {
    /// By the path of the handler.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) executions: BTreeMap<StepPath, Executions>,
    /// The main body has passed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) passed: bool,
    /// The step that ends the run, if what it says is to be said anew when everything has been handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ends_at: Option<StepPath>,
}

/// Of one handler.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Executions {
    /// How many have begun; the next one has this number.
    pub(super) begun: u32,
    /// The last one is under way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) open: bool,
    /// The update that it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) update: Option<RequestId>,
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
    let schema = plan.handler_of(signal).and_then(|(_, handler)| handler.schema.as_ref());
    fits(schema, body).map_err(Rejected::SignalSchema)
}

pub(super) fn fits(schema: Option<&InputSchema>, body: &Value) -> Result<(), String> {
    let text = |error: String| truncated(&error, MAX_ERROR_MESSAGE_BYTES).to_owned();
    schema.map_or(Ok(()), |schema| schema.validate(body).map_err(text))
}

/// Has handlers take what waits for them.
pub(super) fn offer(d: &mut Decider<'_>) {
    let plan = d.plan;
    if plan.handlers.is_empty() || !begins(d.state) {
        return;
    }
    let signals_too = takes(d.state);
    for (node, handler) in plan.signal_handlers().filter(|_| signals_too) {
        let name = &plan.node(node).name;
        let waiting = d.state.signals.buffer.iter().find(|signal| signal.name == *name);
        let Some(signal) = waiting.map(|signal| signal.number) else {
            continue;
        };
        if !begin(d, handler, path_of(SIGNALS, name), (signal, 0)) {
            return;
        }
    }
    for (node, handler) in plan.update_handlers() {
        let name = &plan.node(node).name;
        let waiting = d.state.updates.waiting.iter().find(|update| update.name == *name);
        let Some(update) = waiting.map(|update| update.number) else {
            continue;
        };
        if !begin(d, handler, path_of(UPDATES, name), (0, update)) {
            return;
        }
    }
}

/// `false`: nothing more begins for now.
fn begin(d: &mut Decider<'_>, handler: &Handler, path: StepPath, (signal, update): (u32, u32)) -> bool {
    if d.state.is_handling(&path) {
        return true;
    }
    // It waits in the run, which is about to be parked.
    if blocked::must_wait(d) {
        return false;
    }
    let index = d.state.handling.executions.get(&path).map_or(0, |of| of.begun);
    let execution = of_iteration(&path, index);
    d.emit(Event::HandlerStarted {
        step: path,
        index,
        signal,
        update,
    });
    d.push(Work::Enter {
        node: handler.body,
        path: execution,
    });
    true
}

fn path_of(group: &str, name: &str) -> StepPath {
    StepPath::from(format!("{group}.{name}").as_str())
}

/// Whether executions begin at all.
fn begins(state: &State) -> bool {
    state.is_running() && state.admission.is_none() && state.parked.is_none()
}

/// Whether what comes is taken now, and not by the run that goes on in its place.
pub(super) fn takes(state: &State) -> bool {
    begins(state) && !is_to_continue(state)
}

fn is_to_continue(state: &State) -> bool {
    matches!(state.exit, Some((Exit::ContinuedAsNew { .. }, _)))
}

pub(super) fn execution_ended(d: &mut Decider<'_>, node: NodeId, path: StepPath, execution: &StepPath, end: End) {
    let Some((_, index)) = iteration(execution.as_str()) else {
        return;
    };
    let output = match &d.plan.node(node).kind {
        NodeKind::Handler(handler) if end == End::Passed => d.scope(execution).evaluate(handler.output.as_ref()),
        _ => Ok(Arc::default()),
    };
    let (output, end, failed) = match (output, end) {
        // What its steps did stays: who waits is told that there is no answer.
        (Err(error), _) => (Arc::default(), End::Failed(error.at(&path)), None),
        (Ok(output), End::Failed(error)) => (output, End::Failed(error.clone()), Some(error)),
        (Ok(output), end) => (output, end, None),
    };
    d.emit(Event::HandlerEnded {
        step: path,
        index,
        output,
        end,
    });
    if let Some(error) = failed {
        fail(d, error);
    }
}

fn fail(d: &mut Decider<'_>, error: Failure) {
    if !pivot::defer(d, Why::Failed, &error, &Operation::default()) {
        stop::fail(d, error);
    }
}

/// Whether an execution is under way, or something waits for one or for a decision, also while a parked run cannot take it.
pub(super) fn has_more_to_do(plan: &Plan, state: &State) -> bool {
    let updates = &state.updates;
    if plan.handlers.is_empty() && updates.put_off.is_empty() {
        return false;
    }
    let mut executions = state.handling.executions.values();
    if executions.any(|of| of.open) || !updates.waiting.is_empty() {
        return true;
    }
    let mut signals = state.signals.buffer.iter();
    let waits = !updates.put_off.is_empty() || signals.any(|signal| plan.handler_of(&signal.name).is_some());
    waits && !is_to_continue(state)
}

/// The main body has passed, and handlers have nothing left to do: the run completes. Whether it was that far.
pub(super) fn complete(d: &mut Decider<'_>) -> bool {
    let waits = d.state.handling.passed && d.state.is_running() && d.state.parked.is_none() && d.state.exit.is_none();
    let completes = waits && !has_more_to_do(d.plan, d.state);
    if completes {
        stop::complete(d);
    }
    completes
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

/// What of another version concerns what waits: a signal that was left for a step would not be noticed by a handler, and an
/// update that was accepted has to be done.
pub(super) fn obstacle(from: &Plan, to: &Plan, state: &State) -> Option<String> {
    let noticed = |name: &str| from.handler_of(name).is_some() || to.handler_of(name).is_none();
    let mut signals = state.signals.buffer.iter();
    if let Some(signal) = signals.find(|signal| !noticed(&signal.name)) {
        return Some(format!(
            "the signal `{}` waits in it, and the other version has a handler for those that come",
            signal.name
        ));
    }
    let mut updates = state.updates.waiting.iter();
    let update = updates.find(|update| to.update_of(&update.name).is_none())?;
    Some(format!(
        "it has accepted an update `{}`, which the other version does not have",
        update.name
    ))
}

impl State {
    fn is_handling(&self, handler: &StepPath) -> bool {
        self.handling.executions.get(handler).is_some_and(|of| of.open)
    }

    /// What the execution around a place was sent, of that group.
    pub(super) fn handled_at(&self, place: &StepPath, group: &str) -> Option<&Arc<Value>> {
        let place = place.as_str();
        let end = place.find(']').filter(|_| is_within(place, group))?;
        let (handler, index) = iteration(&place[..=end])?;
        self.handling.executions.get(handler)?.bodies.get(&index)
    }

    /// Those under way: the update, its name, the place of its steps, and what it was sent.
    pub(super) fn executions_of_updates(
        &self,
    ) -> impl Iterator<Item = (&RequestId, Arc<str>, StepPath, Option<&Arc<Value>>)> {
        let executions = self.handling.executions.iter().filter(|(_, of)| of.open);
        executions.filter_map(|(handler, of)| {
            let index = of.begun.checked_sub(1)?;
            let (_, name) = handler.as_str().split_once('.')?;
            let body = of.bodies.get(&index);
            Some((of.update.as_ref()?, Arc::from(name), of_iteration(handler, index), body))
        })
    }

    pub(super) fn handler_started(&mut self, handler: &StepPath, index: u32, (signal, update): (u32, u32)) {
        let signals = &mut self.signals.buffer;
        let updates = &mut self.updates.waiting;
        let (body, id) = if let Some(at) = signals.iter().position(|one| one.number == signal) {
            (signals.remove(at).body, None)
        } else if let Some(at) = updates.iter().position(|one| one.number == update) {
            let update = updates.remove(at);
            (update.body, Some(update.id))
        } else {
            return;
        };
        let of = self.handling.executions.entry(handler.clone()).or_default();
        of.begun = index.saturating_add(1);
        of.open = true;
        of.update = id;
        of.bodies.insert(index, body);
    }

    pub(super) fn handler_ended(
        &mut self,
        handler: &StepPath,
        index: u32,
        (output, end): (&Arc<Value>, &End),
        seq: u32,
    ) {
        let execution = of_iteration(handler, index);
        let mut ledger = self.ledger.iter();
        let is_undone = ledger.any(|entry| is_within(entry.step.as_str(), execution.as_str()));
        let Some(of) = self.handling.executions.get_mut(handler) else {
            return;
        };
        of.open = false;
        if !is_undone {
            of.bodies.remove(&index);
        }
        if let Some(id) = of.update.take() {
            self.update_ended(&id, (output, end), seq);
        }
    }
}

/// The node of all handlers of a kind, by the name that a path has for it.
pub(super) fn child_named(plan: &Plan, node: NodeId, name: &str) -> Option<NodeId> {
    let mut groups = plan.handlers.iter().copied();
    let group = groups.find(|group| *plan.node(*group).name == *name);
    group.filter(|_| node == plan.root && is_beside(name))
}
