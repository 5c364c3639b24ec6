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
//! | answered, a signal to no open run | offered again for a while, since its run may be about to start; then refused |
//! | answered, refused | refused: to the dead letters, with what it would have said |
//! | answered, a start that was refused, accepted | offered twice, it has started a run all the same: that is told to cancel |
//! | wake | what was not answered is offered again; what was gathered counts |
//! | define | made, changed; its place is kept, unless it reads another stream; deleted, and what waits is sent before |
//! | pause, resume, reset | – |
//!
//! **Invariants:** an event is decided once: by the transition that moves the place past it. Whether that was committed is
//! settled by the fence, as for every run. Of one workflow id one message is on its way, so that events keep their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::deadline;
use super::decider::Decider;
use super::event::{Event, RunStarted, Transition};
use super::input::{Input, Operation, Rejected, Start};
use super::keys::child_run_id;
use super::limits::truncated;
use super::message::{Answer, Body, OnParentClose, Recipient, Refusal, StartChild, TriggeredBy};
use super::outbox;
use super::parked;
use super::schedule;
use super::state::State;
use crate::definition::plan::Plan;
use crate::ids::{DefinitionHash, MessageNo, StepPath, WorkflowId, WorkflowName};
use crate::time::{Span, Timestamp};
use crate::trigger::command::{Command, Position};
use crate::trigger::event::{Firing, Stage};
use crate::trigger::source::{Item, Place, SourceEvent};
use crate::trigger::spec::{Begin, Conflict, Flaw, Gather};
use crate::trigger::state::Sent;
use crate::trigger::{Read, Spec, Trigger, TriggerEvent};

/// The name of the workflow that triggers are runs of; no definition can have it.
pub const WORKFLOW: &str = "$trigger";
/// The workflow id of a trigger begins with this; what begins so is nobody else's.
pub const PREFIX: &str = "$trigger/";
/// So many events that matched nothing are not read again after a takeover, and for so long nothing is recorded of them.
const MAX_UNRECORDED: u64 = 1_000;
const UNRECORDED_FOR: Span = Span::from_secs(10);
/// A signal to no open run is offered for so long, at first after one pause, then after ever longer ones.
const PATIENCE: Span = Span::from_secs(15);
const FIRST_PAUSE: Span = Span::from_millis(250);
const LONGEST_PAUSE: Span = Span::from_secs(4);
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
pub(super) fn begin(plan: &Plan, state: &mut State, birth: Arc<RunStarted>, spec: Spec, version: u32) -> Transition {
    let mut d = Decider::of_birth(plan, state, Event::RunStarted(birth), &super::permit::UNLIMITED);
    let from = Some(first(&spec, d.at));
    emit(&mut d, TriggerEvent::Set { spec, version, from });
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

fn ask(d: &mut Decider<'_>, command: Command, operation: Operation) -> Result<(), Rejected> {
    let Some(trigger) = trigger(d).filter(|_| !d.state.is_closed()) else {
        return Err(Rejected::Closed("completed"));
    };
    if trigger.has_taken(&operation) {
        return Ok(());
    }
    match command {
        // An older version says nothing any more.
        Command::Define { version, .. } if version < trigger.version => {}
        Command::Define {
            version,
            spec: Some(spec),
        } => {
            if trigger.version != version || trigger.spec != *spec {
                let elsewhere = trigger.spec.source.stream != spec.source.stream;
                let from = elsewhere.then(|| first(&spec, d.at));
                let spec = *spec;
                emit(d, TriggerEvent::Set { spec, version, from });
            }
        }
        Command::Define { spec: None, .. } => delete(d),
        Command::Pause => {
            if trigger.paused.is_none() {
                let reason = operation
                    .reason
                    .clone()
                    .unwrap_or_else(|| Arc::from("an operator paused it"));
                emit(d, TriggerEvent::Paused { reason, operation });
            }
        }
        Command::Resume if d.state.parked.is_some() => {
            d.emit(Event::RunResumed {
                operation,
                event_limit: None,
                history_limit: None,
            });
            advance(d);
        }
        Command::Resume => {
            if trigger.paused.is_some() {
                emit(d, TriggerEvent::Resumed { operation });
            }
        }
        Command::Reset { to } => {
            if trigger.spec.source.stream.is_none() {
                return Err(Rejected::Trigger(
                    "the trigger listens to a subject that no stream keeps for it, so it has no place to be set"
                        .to_owned(),
                ));
            }
            let to = match to {
                Position::New => Position::Time(d.at),
                to => to,
            };
            emit(d, TriggerEvent::Reset { to, operation });
        }
    }
    Ok(())
}

/// What has been read counts, whatever comes of the trigger.
fn delete(d: &mut Decider<'_>) {
    release(d, |_| true);
    while let Some((no, held)) = trigger(d).and_then(|trigger| {
        let (no, held) = trigger.held.first_key_value()?;
        Some((*no, held.clone()))
    }) {
        send(d, no, held.firing, held.input);
    }
    let output = Arc::default();
    d.emit(Event::RunCompleted { output });
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

fn take(d: &mut Decider<'_>, read: Read) {
    let stands = d.state.is_closed() || d.state.parked.is_some();
    let Some(trigger) = trigger(d).filter(|trigger| !stands && trigger.is_active() && trigger.opening == read.opening)
    else {
        return;
    };
    let spec = trigger.spec.clone();
    let mut passing = Passing {
        skipped: read.skipped,
        ..Passing::default()
    };
    for item in read.items {
        match item {
            Item::Trouble(problem) => {
                passing.record(d, false);
                troubled(d, Some(problem));
            }
            Item::Gap(gap) => {
                passing.record(d, true);
                troubled(d, None);
                emit(d, TriggerEvent::Missed(gap));
            }
            Item::Reached(place) => {
                troubled(d, None);
                if !is_behind(d, Some(&place)) {
                    passing.to = Some(place);
                }
            }
            Item::Event(event) => {
                troubled(d, None);
                if !is_behind(d, event.place.as_ref()) {
                    one(d, &spec, *event, &mut passing);
                }
            }
        }
    }
    passing.record(d, false);
    advance(d);
}

fn is_behind(d: &Decider<'_>, place: Option<&Place>) -> bool {
    place.is_some_and(|place| trigger(d).is_none_or(|trigger| trigger.is_behind(place)))
}

fn troubled(d: &mut Decider<'_>, problem: Option<Arc<str>>) {
    if trigger(d).is_some_and(|trigger| trigger.trouble != problem) {
        emit(d, TriggerEvent::Troubled { problem });
    }
}

/// What has been read, and is not recorded yet.
#[derive(Default)]
struct Passing {
    to: Option<Place>,
    taken: u32,
    skipped: u64,
    /// Something comes of an event: the place has to move with it.
    decided: bool,
}

impl Passing {
    fn record(&mut self, d: &mut Decider<'_>, always: bool) {
        let Some(trigger) = trigger(d) else { return };
        let nothing = self.to.is_none() && self.taken == 0 && self.skipped == 0;
        let first = trigger.place().is_none();
        let long = d.at.since(trigger.moved_at) >= UNRECORDED_FOR;
        let due = self.decided || always || first || long || self.skipped >= MAX_UNRECORDED;
        if nothing || !due {
            return;
        }
        let (to, taken, skipped) = (self.to.take(), self.taken, self.skipped);
        emit(d, TriggerEvent::Passed { to, taken, skipped });
        *self = Self::default();
    }
}

fn one(d: &mut Decider<'_>, spec: &Spec, mut event: SourceEvent, passing: &mut Passing) {
    let sequence = event.sequence;
    let meant = spec.read(&mut event);
    if let Some(place) = event.place {
        passing.to = Some(place);
    }
    match meant {
        Ok(None) => passing.skipped += 1,
        Ok(Some(meant)) => {
            passing.taken = passing.taken.saturating_add(1);
            passing.decided = true;
            let firing = Firing {
                id: meant.id,
                sequence,
                events: 1,
                bytes: event.bytes,
                since: d.at,
                tries: 0,
            };
            match spec.gather {
                None => fire(d, firing, meant.input),
                Some(gather) => gathered(d, gather, firing, meant.input),
            }
        }
        Err((flaw, why)) => {
            passing.decided = true;
            let message = Arc::from(truncated(&why, MAX_MESSAGE_BYTES));
            emit(
                d,
                TriggerEvent::Refused {
                    no: None,
                    id: None,
                    sequence,
                    flaw,
                    message,
                    input: None,
                },
            );
        }
    }
}

fn gathered(d: &mut Decider<'_>, gather: Gather, firing: Firing, input: Arc<Value>) {
    let Some(trigger) = trigger(d) else { return };
    let of = trigger.gathered.get(&firing.id);
    let first_at = of.map_or(d.at, |of| of.first_at);
    let due = match gather {
        Gather::Debounce { quiet, max_wait } => d.at.plus(quiet).min(first_at.plus(max_wait)),
        Gather::Batch { wait, .. } => first_at.plus(wait),
    };
    let full = match gather {
        Gather::Batch { max, .. } => of.map_or(0, |of| of.events).saturating_add(1) >= max,
        Gather::Debounce { .. } => false,
    };
    let Firing {
        id, sequence, bytes, ..
    } = firing;
    emit(
        d,
        TriggerEvent::Gathered {
            id: id.clone(),
            input,
            sequence,
            bytes,
            due,
        },
    );
    if full {
        release_one(d, id);
    }
    while self::trigger(d).is_some_and(Trigger::gathers_too_much) {
        let first = self::trigger(d).and_then(|trigger| {
            let first = trigger.gathered.iter().min_by_key(|(_, of)| of.due);
            first.map(|(id, _)| id.clone())
        });
        match first {
            Some(id) => release_one(d, id),
            None => return,
        }
    }
}

/// What was gathered counts, the first that is due first.
fn release(d: &mut Decider<'_>, due: impl Fn(Timestamp) -> bool) {
    let Some(trigger) = trigger(d).filter(|trigger| !trigger.gathered.is_empty()) else {
        return;
    };
    let ready = trigger.gathered.iter().filter(|(_, of)| due(of.due));
    let mut ready: Vec<_> = ready.map(|(id, of)| (of.due, id.clone())).collect();
    ready.sort();
    for (_, id) in ready {
        release_one(d, id);
    }
}

fn release_one(d: &mut Decider<'_>, id: WorkflowId) {
    let Some(trigger) = trigger(d) else { return };
    let Some(of) = trigger.gathered.get(&id).cloned() else {
        return;
    };
    let input = match trigger.spec.gather {
        Some(Gather::Debounce { .. }) => of.inputs.last().cloned().unwrap_or_default(),
        // A list also where the definition has changed meanwhile: it was gathered as one.
        _ => Arc::new(Value::Array(of.inputs.iter().map(|input| (**input).clone()).collect())),
    };
    emit(d, TriggerEvent::Released { id: id.clone() });
    let firing = Firing {
        id,
        sequence: of.sequence,
        events: of.events,
        bytes: of.bytes,
        since: d.at,
        tries: 0,
    };
    fire(d, firing, input);
}

/// Sends it, or has it wait for the one before it.
fn fire(d: &mut Decider<'_>, firing: Firing, input: Arc<Value>) {
    let Some(trigger) = trigger(d) else { return };
    let no = trigger.fired.saturating_add(1);
    let same = |other: &Firing| other.id == firing.id;
    let busy =
        trigger.sent.values().any(|sent| same(&sent.firing)) || trigger.held.values().any(|held| same(&held.firing));
    match busy {
        false => send(d, no, firing, input),
        true => emit(d, TriggerEvent::Held { no, firing, input }),
    }
}

fn send(d: &mut Decider<'_>, no: u64, firing: Firing, input: Arc<Value>) {
    let Some(trigger) = trigger(d) else { return };
    let stage = match (&trigger.spec.act.signal, trigger.spec.act.start) {
        (None, _) => Stage::Start,
        (Some(_), true) => Stage::StartToSignal,
        (Some(_), false) => Stage::Signal,
    };
    send_as(d, no, firing, input, stage);
}

fn send_as(d: &mut Decider<'_>, no: u64, firing: Firing, input: Arc<Value>, stage: Stage) {
    let Some(trigger) = trigger(d) else { return };
    let spec = trigger.spec.clone();
    let message = d.state.next_message();
    let workflow_id = firing.id.clone();
    let (run, body) = match stage {
        Stage::Start | Stage::StartToSignal => {
            let run = child_run_id(d.state.run_id(), message, d.at);
            let conflict = match stage {
                Stage::StartToSignal => Conflict::UseExisting,
                _ => spec.act.conflict,
            };
            let start = StartChild {
                run_id: run,
                workflow: spec.workflow.clone(),
                version: None,
                input,
                step: StepPath::new(""),
                parent_close: OnParentClose::Abandon,
                detached: true,
                scheduled: None,
                priority: None,
                triggered: Some(TriggeredBy {
                    sequence: firing.sequence,
                    reuse: spec.act.reuse,
                    conflict,
                }),
            };
            (Some(run), Body::StartChild(start))
        }
        Stage::Signal => {
            let name = spec.act.signal.clone().unwrap_or_else(|| Arc::clone(&spec.name));
            (
                None,
                Body::Signal {
                    name,
                    body: input,
                    sent_at: Some(d.at),
                },
            )
        }
    };
    emit(
        d,
        TriggerEvent::Sent {
            no,
            firing,
            message,
            stage,
        },
    );
    outbox::send(d, Recipient { workflow_id, run }, body);
}

fn answered(d: &mut Decider<'_>, number: MessageNo, answer: &Answer) {
    let Some(pending) = d.state.mail.outbox.get(&number) else {
        if *answer == Answer::Accepted {
            outbox::contradicted(d, number, Answer::Accepted);
        }
        return;
    };
    let body = Arc::clone(&pending.body);
    let sent = trigger(d).and_then(|trigger| trigger.sent.iter().find(|(_, sent)| sent.message == number));
    let sent = sent.map(|(no, sent)| (*no, sent.clone()));
    if let (Some((no, sent)), Answer::Refused { reason, .. }) = (&sent, answer)
        && postponed(d, *no, sent, *reason)
    {
        return;
    }
    d.emit(Event::MessageAnswered {
        number,
        answer: answer.clone(),
    });
    let Some((no, sent)) = sent else { return };
    let input = match &*body {
        Body::StartChild(start) => Arc::clone(&start.input),
        Body::Signal { body, .. } => Arc::clone(body),
        _ => Arc::default(),
    };
    match answer {
        Answer::Refused { reason, message } => {
            let message = format!("{}: {message}", reason.as_str());
            emit(
                d,
                TriggerEvent::Refused {
                    no: Some(no),
                    id: Some(sent.firing.id),
                    sequence: sent.firing.sequence,
                    flaw: Flaw::Refused,
                    message: Arc::from(truncated(&message, MAX_MESSAGE_BYTES)),
                    input: Some(input),
                },
            );
        }
        _ if sent.stage == Stage::StartToSignal => send_as(d, no, sent.firing, input, Stage::Signal),
        _ => emit(d, TriggerEvent::Done { no, stage: sent.stage }),
    }
    advance(d);
}

/// A signal that found no open run is offered again for a while. A trigger that is deleted has no time any more.
fn postponed(d: &mut Decider<'_>, no: u64, sent: &Sent, reason: Refusal) -> bool {
    let nobody = sent.stage == Stage::Signal && matches!(reason, Refusal::NoRun | Refusal::Closed);
    let since = match sent.firing.tries {
        0 => d.at,
        _ => sent.firing.since,
    };
    if !nobody || d.state.is_closed() || d.at.since(since) >= PATIENCE {
        return false;
    }
    let pause = Span(FIRST_PAUSE.0 << sent.firing.tries.min(8)).min(LONGEST_PAUSE);
    let (message, due) = (sent.message, d.at.plus(pause));
    emit(
        d,
        TriggerEvent::Postponed {
            no,
            message,
            since,
            due,
        },
    );
    true
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
