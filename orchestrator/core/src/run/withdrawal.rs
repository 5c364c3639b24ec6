//! Tasks that nobody took in time: they are taken out of their queue, and what the queue says of that decides.
//!
//! | the task | then |
//! |---|---|
//! | is in its queue, where it was never delivered | taken out: surely not done by this attempt |
//! | was delivered, or is not there | somebody has it, or its result is on its way: start-to-close counts from now, as for every task that was delivered; past schedule-to-close it is unknown as soon as the log has been read so far |
//! | was refused by its stream, and is not out at all | surely not done, unless an earlier offer is in doubt |
//!
//! How far a queue has delivered is known by time, and not to the second ([`super::input::Horizon`]); what its queue says of one
//! task is exact. Neither timeout is retried. A result that comes while the queue is being asked counts.

use super::attempt;
use super::decider::Decider;
use super::event::Event;
use super::execution::{Known, Unstarted};
use super::failure::Failure;
use super::limits::WITHDRAWAL_PAUSE;
use crate::ids::TaskNo;

pub(super) fn request(d: &mut Decider<'_>, task: TaskNo, timeout: Unstarted) {
    let until = d.at.plus(WITHDRAWAL_PAUSE);
    d.emit(Event::WithdrawalRequested { task, timeout, until });
}

/// No answer has come.
pub(super) fn ask_again(d: &mut Decider<'_>, task: TaskNo) {
    let asked = d.state.open_task(task).and_then(|view| view.open.withdrawn_for);
    if let Some(timeout) = asked {
        request(d, task, timeout);
    }
}

/// The queue's answer.
pub(super) fn answered(d: &mut Decider<'_>, task: TaskNo, withdrawn: bool) {
    if d.state.is_closed() || d.state.parked.is_some() {
        return;
    }
    let Some(open) = d.state.open_task(task).map(|view| view.open) else {
        return;
    };
    let (Some(timeout), is_held) = (open.withdrawn_for, open.known == Known::Held) else {
        return;
    };
    if withdrawn || is_held {
        let error = error(d, task, timeout);
        attempt::withdrawn(d, task, error);
    } else {
        d.emit(Event::TaskDelivered { task });
    }
    d.settle();
}

pub(super) fn of_held(d: &mut Decider<'_>, task: TaskNo, timeout: Unstarted) {
    let error = error(d, task, timeout);
    attempt::withdrawn(d, task, error);
}

fn error(d: &Decider<'_>, task: TaskNo, timeout: Unstarted) -> Failure {
    let timeouts = d
        .state
        .open_task(task)
        .map(|view| view.execution.timeouts)
        .unwrap_or_default();
    match timeout {
        Unstarted::ScheduleToStart => Failure::schedule_to_start(timeouts.schedule_to_start.unwrap_or_default()),
        Unstarted::ScheduleToClose => Failure::schedule_to_close(timeouts.schedule_to_close.unwrap_or_default()),
    }
}
