//! Workers that are known to be there: their first word, their heartbeats, their silence, and what they take for good.
//!
//! | word | then |
//! |---|---|
//! | beat | recorded only where it decides something: a deadline that was provisional has come, its details are new and somebody is about to need them, or the worker counted as silent. One that comes in time is an argument of the wake-up, and no event: a run may have so many of them, and beats alone must not use them up |
//! | silence, longer than the worker had promised | the task is lost, once the log has been read that far and no result was in it |
//! | claim | granted to the first who asks, and to nobody else: the handler of a task that has one attempt runs at most once |
//! | *later* | the message is gone, and the task is not lost for that; start-to-close and `heartbeat` go on counting |
//!
//! None of it is an outcome, and a run that is parked as a whole takes none of it, but for this: where the worker of a task that has
//! permits is lost, and nothing was heard of how that ended, it is recorded as what it is, an unknown end; else they would be kept
//! from all others until an operator comes. Once the run goes on, the task runs into its timeouts, or its worker ends it after all.

use std::sync::Arc;

use serde_json::Value;

use super::decider::Decider;
use super::event::Event;
use super::execution::{Known, OpenTask};
use super::failure::Failure;
use super::input::{Beat, TaskOutcome, WorkerError};
use super::late;
use crate::ids::TaskNo;
use crate::time::Timestamp;

/// A worker says when it began.
pub(super) fn task_started(d: &mut Decider<'_>, task: TaskNo, began: Timestamp) {
    let decides = d.state.open_task(task).is_some_and(|view| view.execution.due() <= d.at);
    if decides {
        started(d, task, began);
    }
}

fn started(d: &mut Decider<'_>, task: TaskNo, began: Timestamp) {
    if let Some(open) = open(d, task)
        && open.known != Known::Started
    {
        let at = plausible(open, began, d.at);
        d.emit(Event::TaskStarted { task, at });
    }
}

pub(super) fn beat(d: &mut Decider<'_>, task: TaskNo, beat: Beat) {
    task_started(d, task, beat.began);
    let details = beat.details.filter(|details| is_news(d, task, details));
    if details.is_some() {
        started(d, task, beat.began);
    }
    let Some(open) = open(d, task) else { return };
    let at = plausible(open, beat.at, d.at);
    let overdue = open.beat_by.is_some_and(|by| by <= d.at);
    if overdue || open.silent_at.is_some() || details.is_some() {
        d.emit(Event::HeartbeatTaken { task, at, details });
    }
}

/// The details of the last beat of a task that is about to end without an answer.
pub(super) fn last_words(d: &mut Decider<'_>, task: TaskNo, beat: &Beat) {
    let details = beat.details.clone().filter(|details| is_news(d, task, details));
    let Some(open) = open(d, task).filter(|_| details.is_some()) else {
        return;
    };
    let at = plausible(open, beat.at, d.at);
    d.emit(Event::HeartbeatTaken { task, at, details });
}

pub(super) fn silent(d: &mut Decider<'_>, task: TaskNo) {
    if open(d, task).is_some_and(|open| open.silent_at.is_none() && !open.later && open.known != Known::Held) {
        d.emit(Event::WorkerSilent { task });
    } else {
        lost_while_parked(d, task, Failure::silent());
    }
}

/// The server has given up a task that has permits, or its worker is silent, and the run cannot take that in. Of one that is
/// finished from elsewhere nobody can say so.
pub(super) fn lost_while_parked(d: &mut Decider<'_>, task: TaskNo, error: Failure) {
    if d.state.is_closed() || d.state.parked.is_none() || d.state.has_heard_of(task) {
        return;
    }
    let view = d.state.open_task(task);
    let view = view.filter(|view| !view.open.later && view.open.known != Known::Held);
    if !view.is_some_and(|view| d.state.has_permits(view.step, view.direction)) {
        return;
    }
    let error = WorkerError {
        error_type: error.error_type,
        message: error.message,
        retryable: true,
        not_done: false,
        retry_after: None,
    };
    late::result(d, task, TaskOutcome::Unknown(error));
}

pub(super) fn claimed(d: &mut Decider<'_>, task: TaskNo, by: Arc<str>) {
    let wanted = !d.state.is_unwanted(task);
    if wanted && open(d, task).is_some_and(|open| open.claimed.is_none()) {
        d.emit(Event::TaskClaimed { task, by });
    }
}

pub(super) fn left(d: &mut Decider<'_>, task: TaskNo) {
    if open(d, task).is_some_and(|open| !open.later) {
        d.emit(Event::TaskLeft { task });
    }
}

fn open<'d>(d: &'d Decider<'_>, task: TaskNo) -> Option<&'d OpenTask> {
    if d.state.parked.is_some() || d.state.is_closed() {
        return None;
    }
    d.state.open_task(task).map(|view| view.open)
}

/// Workers' clocks are not ours.
fn plausible(open: &OpenTask, said: Timestamp, now: Timestamp) -> Timestamp {
    said.max(open.opened_at).min(now)
}

fn is_news(d: &Decider<'_>, task: TaskNo, details: &Arc<Value>) -> bool {
    let known = d.state.open_task(task).and_then(|view| view.execution.details.as_ref());
    known != Some(details)
}
