//! Tasks that nobody took in time, or whose step was halted: they are taken out of their queue, and what the queue says of that
//! decides.
//!
//! | the task | then |
//! |---|---|
//! | is in its queue, where it was never delivered | taken out: surely not done by this attempt; of a step that was halted it counts as cancelled |
//! | was delivered, or is not there | somebody has it, or its result is on its way: start-to-close counts from now, as for every task that was delivered; past schedule-to-close it is unknown as soon as the log has been read so far |
//! | was refused by its stream, and is not out at all | surely not done, unless an earlier offer is in doubt |
//! | is one of those that a terminated run has left | taken out if it is there, and nobody is told ([`super::effect`]) |
//!
//! How far a queue has delivered is known by time, and not to the second ([`super::input::Horizon`]); what its queue says of one
//! task is exact. Neither timeout is retried. A result that comes while the queue is being asked counts.
//!
//! A step that is halted asks for its task only in runs that were begun so ([`super::input::Terms`]): replicas of an earlier version
//! cannot read it.

use super::decider::Decider;
use super::effect::Direction;
use super::event::{Event, StepOutcome};
use super::execution::{Known, Unstarted};
use super::failure::Failure;
use super::limits::{WITHDRAWAL_PAUSE, WITHDRAWAL_PAUSE_LONGEST};
use super::state::{OpenTaskView, State};
use super::{attempt, pivot};
use crate::definition::plan::Cancellation;
use crate::ids::TaskNo;
use crate::time::Span;

/// Tasks of steps that were halted, of which nobody is known to have them. What this very transition has opened never goes out. A
/// step that may have been done is asked for on, if it is a pivot.
pub(super) fn of_halted(d: &mut Decider<'_>, are: impl Fn(&State, &OpenTaskView<'_>) -> bool) {
    if !d.state.birth.withdraws {
        return;
    }
    let in_queue = d.state.open_tasks().filter(|view| {
        view.direction == Direction::Do
            && view.open.known == Known::Offered
            && view.open.withdrawn_for.is_none()
            && !pivot::is_undecided(d.plan, view.step, view.execution)
            && are(d.state, view)
    });
    let in_queue: Vec<_> = in_queue
        .map(|view| {
            (
                view.open.task,
                view.open.seq,
                view.step.clone(),
                view.execution.cancellation,
            )
        })
        .collect();
    for (task, offered_in, step, cancellation) in in_queue {
        if offered_in == d.seq {
            attempt::give_up(d, step, Direction::Do, StepOutcome::Cancelled);
        } else if cancellation != Cancellation::Abandon {
            request(d, task, Unstarted::NotNeeded);
        }
    }
}

pub(super) fn request(d: &mut Decider<'_>, task: TaskNo, timeout: Unstarted) {
    ask(d, task, timeout, WITHDRAWAL_PAUSE);
}

/// No answer has come. Each time is an event, of which a run may have so many: the longer there is none, the less often.
pub(super) fn ask_again(d: &mut Decider<'_>, task: TaskNo) {
    let open = d.state.open_task(task).map(|view| view.open);
    let asked = open.and_then(|open| Some((open.withdrawn_for?, open.opened_at)));
    if let Some((timeout, opened_at)) = asked {
        let longer = Span(d.at.since(opened_at).0 / 8).min(WITHDRAWAL_PAUSE_LONGEST);
        ask(d, task, timeout, WITHDRAWAL_PAUSE.max(longer));
    }
}

fn ask(d: &mut Decider<'_>, task: TaskNo, timeout: Unstarted, pause: Span) {
    let until = d.at.plus(pause);
    d.emit(Event::WithdrawalRequested { task, timeout, until });
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
        let outcome = match timeout {
            Unstarted::NotNeeded => StepOutcome::Cancelled,
            Unstarted::ScheduleToStart | Unstarted::ScheduleToClose => StepOutcome::Failed,
        };
        let error = error(d, task, timeout);
        attempt::withdrawn(d, task, error, outcome);
    } else {
        d.emit(Event::TaskDelivered { task });
    }
    d.settle();
}

pub(super) fn of_held(d: &mut Decider<'_>, task: TaskNo, timeout: Unstarted) {
    let error = error(d, task, timeout);
    attempt::withdrawn(d, task, error, StepOutcome::Failed);
}

fn error(d: &Decider<'_>, task: TaskNo, timeout: Unstarted) -> Failure {
    let timeouts = d
        .state
        .open_task(task)
        .map(|view| view.execution.timeouts)
        .unwrap_or_default();
    match timeout {
        Unstarted::ScheduleToStart => Failure::schedule_to_start(timeouts.schedule_to_start.unwrap_or_default()),
        Unstarted::NotNeeded => Failure::not_needed(),
        Unstarted::ScheduleToClose => Failure::schedule_to_close(timeouts.schedule_to_close.unwrap_or_default()),
    }
}
