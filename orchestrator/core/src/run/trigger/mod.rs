//! A trigger is an actor like a schedule: its place in the user's stream is part of its state, and changes in the transition
//! that sends what comes of the events up to there, by messages that are owed until they are answered.
//!
//! | input | then |
//! |---|---|
//! | read, the filter lets an event through | a start or a signal is sent; behind an earlier one of the same workflow id it waits |
//! | read, nothing but events that the filter holds back | nothing, until there are many or some time has passed |
//! | read, an event that cannot be read or an expression that fails | refused: to the dead letters |
//! | read, a gap | told, and read on behind it |
//! | answered, accepted | it counts; the next of its workflow id is sent |
//! | answered, a start that an open run has taken in | it counts, or its signal follows |
//! | answered, a signal to no open run any more, behind such a start | that is sent once more, and the signal again under its number |
//! | answered, a signal to no open run | offered again for a while, since its run may be about to start; then refused |
//! | answered, refused | refused: to the dead letters, with what it would have said |
//! | answered, a start that was refused, accepted | offered twice, it has started a run all the same: that is told to cancel |
//! | wake | what was not answered is offered again; what was gathered counts |
//! | define | made, changed; its place is kept, unless it reads another stream; what was gathered counts, if it gathers otherwise; deleted, and what waits is sent before |
//! | pause, resume, reset | – |
//!
//! **Invariants:** an event is decided once: by the transition that moves the place past it. Whether that was committed is
//! settled by the fence, as for every run. Of one workflow id one message is on its way, so that events keep their order.

mod command;
mod firing;
mod gather;
mod read;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use self::read::MAX_BYTES_AT_ONCE;

use self::command::ask;
use self::firing::{answered, send};
use self::gather::release;
use self::read::take;
use super::decider::Decider;
use super::event::{Event, RunStarted, Transition};
use super::input::{Input, Operation, Rejected, Start};
use super::state::State;
use super::{deadline, outbox, parked, schedule};
use crate::definition::plan::Plan;
use crate::ids::{DefinitionHash, WorkflowId, WorkflowName};
use crate::time::Timestamp;
use crate::trigger::command::{Command, Position};
use crate::trigger::spec::Begin;
use crate::trigger::{Spec, Trigger, TriggerEvent};

/// The name of the workflow that triggers are runs of; no definition can have it.
pub const WORKFLOW: &str = "$trigger";
/// The workflow id of a trigger begins with this; what begins so is nobody else's.
pub const PREFIX: &str = "$trigger/";
const MAX_MESSAGE_BYTES: usize = 1_024;

/// The workflow id of a trigger.
pub fn workflow_id(workflow: &str, name: &str) -> WorkflowId {
    WorkflowId::new(&format!("{PREFIX}{workflow}/{name}"))
}

/// The workflow and the name of a trigger, if this is the workflow id of one.
pub fn trigger_of(workflow_id: &WorkflowId) -> Option<(&str, &str)> {
    workflow_id.as_str().strip_prefix(PREFIX)?.split_once('/')
}

/// What triggers have in place of a definition.
pub fn plan() -> Plan {
    Plan {
        workflow: WorkflowName::new(WORKFLOW),
        hash: definition(),
        ..schedule::plan()
    }
}

/// In place of a definition's hash.
pub fn definition() -> DefinitionHash {
    DefinitionHash(Arc::from(WORKFLOW))
}

/// Makes a trigger, as the run that it is.
pub(super) fn begin(
    plan: &Plan,
    state: &mut State,
    birth: Arc<RunStarted>,
    (spec, version): (Spec, u32),
    operation: Operation,
) -> Transition {
    let mut d = Decider::of_birth(plan, state, Event::RunStarted(birth), &super::permit::UNLIMITED);
    let from = Some(first(&spec, d.at));
    emit(
        &mut d,
        TriggerEvent::Set {
            spec,
            version,
            from,
            operation,
        },
    );
    d.conclude()
}

/// What a start says of the trigger that it makes.
pub(super) fn of_start(start: &Start) -> Result<(Spec, u32), Rejected> {
    let command: Command =
        serde_json::from_value((*start.input).clone()).map_err(|error| Rejected::Trigger(error.to_string()))?;
    match command {
        Command::Define {
            version,
            spec: Some(spec),
        } => Ok((*spec, version)),
        _ => Err(Rejected::Trigger("a trigger begins with what it is to do".to_owned())),
    }
}

/// Of [`super::apply()`], for a run that is a trigger.
pub(super) fn apply(d: &mut Decider<'_>, input: Input) -> Result<(), Rejected> {
    match input {
        Input::Wake(_) => wake(d),
        Input::Read(read) => take(d, *read),
        Input::MessageAnswered { number, answer } => answered(d, number, &answer),
        Input::Trigger { command, operation } => return ask(d, *command, operation),
        Input::Park { reason } => parked::park_run(d, reason),
        Input::Parked {
            step,
            direction,
            action,
            operation,
        } => {
            parked::act(d, step, direction, action, operation)?;
            // What waits for an event that was settled meanwhile is sent now.
            advance(d);
        }
        // Nothing of this is said to a trigger.
        _ => {}
    }
    Ok(())
}

fn trigger<'d>(d: &'d Decider<'_>) -> Option<&'d Trigger> {
    d.state.trigger.as_deref()
}

fn emit(d: &mut Decider<'_>, event: TriggerEvent) {
    d.emit(Event::Trigger(Box::new(event)));
}

fn first(spec: &Spec, at: Timestamp) -> Position {
    match spec.begin {
        Begin::New => Position::Time(at),
        Begin::All => Position::All,
    }
}

fn wake(d: &mut Decider<'_>) {
    for number in deadline::messages_due(d) {
        outbox::offer_again(d, number);
    }
    advance(d);
}

/// Sends what waits and may be sent, in order.
fn advance(d: &mut Decider<'_>) {
    if d.state.is_closed() || d.state.parked.is_some() {
        return;
    }
    let at = d.at;
    release(d, |due| due <= at);
    let Some(trigger) = trigger(d).filter(|trigger| !trigger.held.is_empty()) else {
        return;
    };
    let mut busy: BTreeSet<&WorkflowId> = trigger.sent.values().map(|sent| &sent.firing.id).collect();
    let mut ready = Vec::new();
    for (no, held) in &trigger.held {
        if busy.insert(&held.firing.id) {
            ready.push((*no, held.firing.clone(), Arc::clone(&held.input)));
        }
    }
    for (no, firing, input) in ready {
        send(d, no, firing, input);
    }
}

impl State {
    /// Of a run that is a trigger.
    pub fn trigger(&self) -> Option<&Trigger> {
        self.trigger.as_deref()
    }

    /// Goes on for ever and keeps of its history what its snapshots lack: a schedule, or a trigger.
    pub fn is_actor(&self) -> bool {
        self.schedule.is_some() || self.trigger.is_some()
    }
}
