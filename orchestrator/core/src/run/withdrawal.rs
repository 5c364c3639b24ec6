//! Tasks that nobody took in time: they are taken out of their queue, and what the queue says of that decides.
//!
//! | the task | then |
//! |---|---|
//! | is in its queue, where it was never delivered | taken out: surely not done by this attempt |
//! | is not there, or was delivered | may have been done: unknown |
//! | was refused by its stream, and is not out at all | surely not done, unless an earlier offer is in doubt |
//!
//! Neither timeout is retried. A result that comes while the queue is being asked counts.

use super::attempt;
use super::decider::Decider;
use super::event::Event;
use super::execution::Unstarted;
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
    let Some(timeout) = d.state.open_task(task).and_then(|view| view.open.withdrawn_for) else {
        return;
    };
    let error = error(d, task, timeout);
    if withdrawn {
        attempt::withdrawn(d, task, error);
    } else {
        attempt::expired(d, task, error);
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
