//! What becomes of an occurrence, and of the run that it starts.

use std::sync::Arc;

use super::super::decider::Decider;
use super::super::event::{Event, MessageTaken};
use super::super::input::Operation;
use super::super::keys::child_run_id;
use super::super::message::{
    Answer, Body, ChildClosed, OnParentClose, Recipient, Refusal, ScheduledBy, Sender, StartChild,
};
use super::super::outbox;
use super::due::advance;
use super::{emit, name, occurrence_id, schedule};
use crate::ids::{MessageNo, RunId, StepPath};
use crate::schedule::Overlap;
use crate::schedule::state::{Became, Due, ScheduleEvent, Skip};

/// An occurrence is due: what becomes of it.
pub(super) fn occur(d: &mut Decider<'_>, due: Due) {
    let Some(schedule) = schedule(d) else { return };
    // Two backfills name the same time, or a backfill and the calendar: it is under way already.
    let running = schedule.running.values().map(|running| &running.due);
    if schedule.buffer.iter().chain(running).any(|other| other.is_same(&due)) {
        return;
    }
    let skip = |d: &mut Decider<'_>, why| emit(d, ScheduleEvent::Skipped { due, why });
    // What a pause holds back is in nobody's way.
    let waits = schedule.buffer.iter().any(|waiting| schedule.may_start(waiting));
    let free = schedule.running.is_empty() && !waits;
    if !schedule.has_room(due.overlap) {
        return skip(d, Skip::Full);
    }
    if free || due.overlap == Overlap::AllowAll {
        return start(d, due);
    }
    match due.overlap {
        Overlap::Skip => skip(d, Skip::Overlap),
        Overlap::BufferOne if !schedule.buffer.is_empty() => skip(d, Skip::Overlap),
        Overlap::BufferOne | Overlap::BufferAll | Overlap::AllowAll => emit(d, ScheduleEvent::Buffered { due }),
        Overlap::CancelOther | Overlap::TerminateOther => {
            let stops = |waiting: &&Due| matches!(waiting.overlap, Overlap::CancelOther | Overlap::TerminateOther);
            let replaced: Vec<Due> = schedule.buffer.iter().filter(stops).copied().collect();
            let running: Vec<RunId> = schedule.running.keys().copied().collect();
            for due in replaced {
                let why = Skip::Replaced;
                emit(d, ScheduleEvent::Skipped { due, why });
            }
            emit(d, ScheduleEvent::Buffered { due });
            for run in running {
                stop(d, run, due.overlap);
            }
        }
    }
}

pub(super) fn start(d: &mut Decider<'_>, due: Due) {
    let id = name(d);
    let Some(spec) = schedule(d).map(|schedule| schedule.spec.clone()) else {
        return;
    };
    let input = match spec.input(&id, due.nominal) {
        Ok(input) => input,
        Err(error) => {
            let text = error.to_string();
            let message = Arc::from(super::super::limits::truncated(&text, 1_024));
            let reason = Arc::from("expression_error");
            emit(d, ScheduleEvent::NotStarted { due, reason, message });
            return pause_on_failure(d, "the input of an occurrence could not be evaluated");
        }
    };
    let message = d.state.next_message();
    let run = child_run_id(d.state.run_id(), message, d.at);
    let workflow_id = occurrence_id(&id, due);
    emit(d, ScheduleEvent::Started { due, run, message });
    let to = Recipient {
        workflow_id,
        run: Some(run),
    };
    let body = StartChild {
        run_id: run,
        workflow: spec.action.workflow.clone(),
        version: spec.action.version,
        input,
        step: StepPath::new(""),
        parent_close: OnParentClose::Abandon,
        detached: false,
        priority: None,
        scheduled: Some(ScheduledBy {
            nominal_time: due.nominal,
            trigger: due.trigger,
        }),
        triggered: None,
    };
    outbox::send(d, to, Body::StartChild(body));
}

/// Tells an open run to stop, once, and one that is to cancel to terminate; one whose start is not accepted yet is told when it
/// is.
pub(super) fn stop(d: &mut Decider<'_>, run: RunId, how: Overlap) {
    let running = schedule(d).and_then(|schedule| schedule.running.get(&run)).cloned();
    let is_told = |stopping| stopping == Some(Overlap::TerminateOther) || how != Overlap::TerminateOther;
    let Some(running) = running.filter(|running| running.stopping.is_none() || !is_told(running.stopping)) else {
        return;
    };
    emit(d, ScheduleEvent::StopAsked { run, how });
    if running.started {
        send_stop(d, run, running.due, how);
    }
}

pub(super) fn send_stop(d: &mut Decider<'_>, run: RunId, due: Due, how: Overlap) {
    let workflow_id = occurrence_id(&name(d), due);
    let operation = Operation {
        reason: Some(Arc::from("a later occurrence of its schedule is due")),
        ..Operation::default()
    };
    let body = match how {
        Overlap::TerminateOther => Body::Terminate { operation },
        _ => Body::Cancel { operation },
    };
    let run = Some(run);
    outbox::send(d, Recipient { workflow_id, run }, body);
}

/// Whoever waits is started when nothing is open.
pub(super) fn start_waiting(d: &mut Decider<'_>) {
    loop {
        let Some(schedule) = schedule(d) else { return };
        if !schedule.running.is_empty() || d.state.parked.is_some() {
            return;
        }
        let Some(due) = schedule.buffer.iter().find(|due| schedule.may_start(due)).copied() else {
            return;
        };
        if due.counted && schedule.remaining == Some(0) {
            let why = Skip::Limit;
            emit(d, ScheduleEvent::Skipped { due, why });
        } else {
            start(d, due);
        }
    }
}

pub(super) fn ended(d: &mut Decider<'_>, run: RunId, became: Became) {
    let failed = became.is_failure();
    let why = format!("its run {run} ended as {}", became.as_str());
    emit(d, ScheduleEvent::Ended { run, became });
    if failed {
        pause_on_failure(d, &why);
    }
    start_waiting(d);
    // A backfill may have waited for room.
    if schedule(d).is_some_and(|schedule| !schedule.backfills.is_empty()) {
        advance(d);
    }
}

pub(super) fn is_running(d: &Decider<'_>, run: RunId) -> bool {
    schedule(d).is_some_and(|schedule| schedule.running.contains_key(&run))
}

pub(super) fn pause_on_failure(d: &mut Decider<'_>, why: &str) {
    let asked = schedule(d).is_some_and(|schedule| schedule.spec.policy.pause_on_failure && schedule.paused.is_none());
    if asked {
        let (reason, operation) = (Arc::from(why), Operation::default());
        emit(d, ScheduleEvent::Paused { reason, operation });
    }
}

pub(super) fn receive(d: &mut Decider<'_>, from: Sender, number: MessageNo, body: Body) {
    if d.state.parked.is_some() {
        return;
    }
    let Body::ChildClosed(ChildClosed { child, status, .. }) = body else {
        return;
    };
    // What is not running has been heard of: the shell answers.
    if is_running(d, child) {
        let answer = Answer::Accepted;
        d.emit(Event::MessageTaken(Box::new(MessageTaken { from, number, answer })));
        ended(d, child, Became::Closed(status));
    }
}

pub(super) fn answered(d: &mut Decider<'_>, number: MessageNo, answer: &Answer) {
    let Some(pending) = d.state.mail.outbox.get(&number) else {
        // Offered twice, a start that was refused has started a run all the same: that is told to cancel.
        if *answer == Answer::Accepted {
            outbox::contradicted(d, number, Answer::Accepted);
        }
        return;
    };
    let (to, body) = (pending.to.clone(), Arc::clone(&pending.body));
    d.emit(Event::MessageAnswered {
        number,
        answer: answer.clone(),
    });
    match (&*body, answer, to.run) {
        (Body::StartChild(_), Answer::Accepted, Some(run)) => {
            let running = schedule(d).and_then(|schedule| schedule.running.get(&run));
            let stopping = running.and_then(|running| Some((running.due, running.stopping?)));
            if let Some((due, how)) = stopping {
                send_stop(d, run, due, how);
            }
        }
        (Body::StartChild(_), Answer::Refused { reason, message }, Some(run)) => {
            let became = match reason {
                Refusal::AlreadyStarted => Became::AlreadyStarted,
                reason => Became::NotStarted {
                    reason: Arc::from(reason.as_str()),
                    message: message.clone(),
                },
            };
            if is_running(d, run) {
                ended(d, run, became);
            }
        }
        (_, Answer::Refused { reason, .. }, Some(run)) if *reason == Refusal::NoRun && is_running(d, run) => {
            ended(d, run, Became::Lost);
        }
        _ => {}
    }
}
