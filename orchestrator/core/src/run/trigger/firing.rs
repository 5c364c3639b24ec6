//! What is sent for an event, and what becomes of it.

use std::sync::Arc;

use serde_json::Value;

use super::super::decider::Decider;
use super::super::event::Event;
use super::super::keys::child_run_id;
use super::super::limits::truncated;
use super::super::message::{Answer, Body, OnParentClose, Recipient, Refusal, StartChild, TriggeredBy};
use super::super::outbox;
use super::{MAX_MESSAGE_BYTES, advance, emit, trigger};
use crate::ids::{MessageNo, StepPath};
use crate::time::{Span, Timestamp};
use crate::trigger::event::{Firing, Stage};
use crate::trigger::spec::{Conflict, Flaw};
use crate::trigger::state::Sent;
use crate::trigger::{Trigger, TriggerEvent};

/// A signal to no open run is offered for so long, at first after one pause, then after ever longer ones.
const PATIENCE: Span = Span::from_secs(15);
const FIRST_PAUSE: Span = Span::from_millis(250);
const LONGEST_PAUSE: Span = Span::from_secs(4);

/// Sends it, or has it wait for the one before it.
pub(super) fn fire(d: &mut Decider<'_>, firing: Firing, input: Arc<Value>) {
    let Some(trigger) = trigger(d) else { return };
    let no = trigger.fired.saturating_add(1);
    let same = |other: &Firing| other.id == firing.id;
    let busy =
        trigger.sent.values().any(|sent| same(&sent.firing)) || trigger.held.values().any(|held| same(&held.firing));
    match busy || d.state.parked.is_some() {
        false => send(d, no, firing, input),
        true => emit(d, TriggerEvent::Held { no, firing, input }),
    }
}

pub(super) fn send(d: &mut Decider<'_>, no: u64, firing: Firing, input: Arc<Value>) {
    let Some(trigger) = trigger(d) else { return };
    let stage = match (&trigger.spec.act.signal, trigger.spec.act.start) {
        (None, _) => Stage::Start,
        (Some(_), true) => Stage::StartToSignal,
        (Some(_), false) => Stage::Signal,
    };
    send_as(d, no, firing, input, stage, Before::default());
}

/// What was sent for a firing before.
#[derive(Default)]
struct Before {
    taken_in: Option<MessageNo>,
    signal: Option<MessageNo>,
}

fn send_as(d: &mut Decider<'_>, no: u64, firing: Firing, input: Arc<Value>, stage: Stage, before: Before) {
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
            taken_in: before.taken_in,
            signal: before.signal,
        },
    );
    outbox::send(d, Recipient { workflow_id, run }, body);
}

pub(super) fn answered(d: &mut Decider<'_>, number: MessageNo, answer: &Answer) {
    let Some(pending) = d.state.mail.outbox.get(&number) else {
        if *answer == Answer::Accepted {
            begun_late(d, number);
        }
        return;
    };
    let body = Arc::clone(&pending.body);
    let is_of = |sent: &Sent| sent.message == number || sent.signal == Some(number);
    let sent = trigger(d).and_then(|trigger| trigger.sent.iter().find(|(_, sent)| is_of(sent)));
    let sent = sent.map(|(no, sent)| (*no, sent.clone()));
    let input = match &*body {
        Body::StartChild(start) => Arc::clone(&start.input),
        Body::Signal { body, .. } => Arc::clone(body),
        _ => Arc::default(),
    };
    let is_signal = matches!(*body, Body::Signal { .. });
    if let (Some((no, sent)), Answer::Refused { reason, .. }) = (&sent, answer)
        && is_signal
        && matches!(reason, Refusal::NoRun | Refusal::Closed)
    {
        // Offered while its start is on its way once more, it says nothing new.
        let is_early = sent.message != number;
        if is_early || start_again(d, *no, sent, &input) || postponed(d, *no, sent) {
            return;
        }
    }
    d.emit(Event::MessageAnswered {
        number,
        answer: answer.clone(),
    });
    let Some((no, sent)) = sent else { return };
    let taken_in = is_taken_in(&body, answer);
    if sent.stage == Stage::StartToSignal && !is_signal && (taken_in || *answer == Answer::Accepted) {
        return signal_follows(d, no, sent, input, taken_in.then_some(number));
    }
    // The other one of a start and a signal that are on their way together is needed no more.
    let both = [Some(sent.message), sent.signal];
    for other in both.into_iter().flatten().filter(|other| *other != number) {
        let answer = Answer::refused(Refusal::NoRun, "it is not needed any more");
        d.emit(Event::MessageAnswered { number: other, answer });
    }
    match answer {
        Answer::Refused { reason, message } if !taken_in => {
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
        _ => {
            let stage = if is_signal { Stage::Signal } else { sent.stage };
            emit(d, TriggerEvent::Done { no, stage });
        }
    }
    advance(d);
}

/// A run was open, and no other is to be begun by this start. A replica of an earlier version says that it is accepted.
fn is_taken_in(body: &Body, answer: &Answer) -> bool {
    let Body::StartChild(start) = body else { return false };
    let uses_existing = start
        .triggered
        .as_ref()
        .is_some_and(|by| by.conflict == Conflict::UseExisting);
    let is_taken = matches!(answer, Answer::Refused { reason, .. } if *reason == Refusal::IdTaken);
    uses_existing && is_taken
}

/// Under the number that it had, where it has been sent before: a copy of that may be late, and taken.
fn signal_follows(d: &mut Decider<'_>, no: u64, sent: Sent, input: Arc<Value>, taken_in: Option<MessageNo>) {
    let (firing, signal) = (sent.firing, None);
    let Some(message) = sent.signal else {
        return send_as(d, no, firing, input, Stage::Signal, Before { taken_in, signal });
    };
    let stage = Stage::Signal;
    emit(
        d,
        TriggerEvent::Sent {
            no,
            firing,
            message,
            stage,
            taken_in,
            signal,
        },
    );
    outbox::offer_now(d, message);
}

/// A start that was refused, or taken in by an open run, was offered twice, and has begun a run all the same. That is told to
/// cancel; unless the signal has no answer yet: it is behind that start in the log, and for that run.
fn begun_late(d: &mut Decider<'_>, number: MessageNo) {
    let awaits = |trigger: &Trigger| trigger.sent.values().any(|sent| sent.taken_in == Some(number));
    if !trigger(d).is_some_and(awaits) {
        return outbox::contradicted(d, number, Answer::Accepted);
    }
    if !has_begun(d, number) {
        let answer = Answer::Accepted;
        d.emit(Event::MessageAnswered { number, answer });
    }
}

fn has_begun(d: &Decider<'_>, start: MessageNo) -> bool {
    d.state.mail.refused.get(&start).is_some_and(|refused| refused.started)
}

/// The run that had taken its start in has closed before the signal came: another is started. Where the start has begun a run
/// of its own, that has ended without the signal.
fn start_again(d: &mut Decider<'_>, no: u64, sent: &Sent, input: &Arc<Value>) -> bool {
    let Some(start) = sent.taken_in.filter(|start| !has_begun(d, *start)) else {
        return false;
    };
    let since = nobody_since(d, sent);
    if d.at.since(since) >= PATIENCE {
        return false;
    }
    let firing = Firing {
        since,
        tries: sent.firing.tries.saturating_add(1),
        ..sent.firing.clone()
    };
    let before = Before {
        taken_in: Some(start),
        signal: Some(sent.message),
    };
    send_as(d, no, firing, Arc::clone(input), Stage::StartToSignal, before);
    true
}

/// When its signal first found no open run.
fn nobody_since(d: &Decider<'_>, sent: &Sent) -> Timestamp {
    match sent.firing.tries {
        0 => d.at,
        _ => sent.firing.since,
    }
}

/// A signal that found no open run is offered again for a while. A trigger that is deleted has no time any more.
fn postponed(d: &mut Decider<'_>, no: u64, sent: &Sent) -> bool {
    let since = nobody_since(d, sent);
    if d.state.is_closed() || d.at.since(since) >= PATIENCE {
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
