//! The end of one attempt, forwards or as an undo: the table of outcomes, and whether there is another attempt.
//!
//! | outcome | sticky *unknown* | then |
//! |---|---|---|
//! | completed | – | the step is completed, the undo done |
//! | no attempt is left, and one before it was answered *completed* late | set | the step is unknown, the undo done |
//! | failed | kept; lifted by *not done* | retry, else the step failed (or is unknown), the undo is parked |
//! | unknown, timeout, lost | set | retry under the same key, else the step is unknown, the undo parked |
//! | cancelled | kept | like failed |
//! | schedule-to-start, schedule-to-close before a worker had the task | kept | no retry |
//! | failed, cancelled, of a task of which another copy may be somewhere | set, unless it says *not done* | like unknown |
//! | halted before a worker had the task | kept | no retry; the step is cancelled |
//! | schedule-to-close after that | set | no retry |
//! | unknown, because the answer is too large | set | no retry: the step, also a pivot, or the undo is parked |
//! | retry later | kept | asked again as the same attempt; what was halted takes it as unknown, because it still runs somewhere |
//!
//! What was halted makes no further forward attempts; a pivot that may have been done makes them for ever
//! ([`super::pivot`]).

use std::sync::Arc;

use super::decider::Decider;
use super::effect::Direction;
use super::event::{Event, StepOutcome};
use super::execution::OpenTask;
use super::failure::{Failure, error_type};
use super::input::{TaskOutcome, WorkerError};
use super::retry::{self, Ended, Regardless, Seed};
use super::state::State;
use super::{activity, blocked, compensation, late, parked, pivot, tree};
use crate::definition::plan::Call;
use crate::ids::{StepPath, TaskNo};
use crate::time::Span;

/// A worker's word on an open task.
pub(super) fn ended(d: &mut Decider<'_>, task: TaskNo, outcome: TaskOutcome) {
    let Some(view) = d.state.open_task(task) else {
        return;
    };
    let (step, direction) = (view.step.clone(), view.direction);
    let has_copy = may_have_a_copy(view.open);
    // Asked first: an outcome that nothing can follow from is recorded and leaves the task open.
    let Some(call) = d.call(&step, direction) else {
        return late::result(d, task, outcome);
    };
    let outcome = match direction {
        Direction::Do if has_copy => of_one_copy(outcome),
        _ => outcome,
    };
    match outcome {
        TaskOutcome::Completed { output } => match direction {
            Direction::Do => activity::completed(d, step, task, output),
            Direction::Undo => d.emit(Event::TaskCompleted { task, output }),
        },
        TaskOutcome::Failed(error) => {
            d.emit(Event::TaskFailed {
                task,
                error: Failure::of_worker(&error),
                not_done: error.not_done,
            });
            let ended = Ended {
                worker_type: Some(&error.error_type),
                retryable: error.retryable,
                retry_after: error.retry_after,
                ..Ended::SILENT
            };
            retry_or_give_up(d, (step, direction), call, ended, StepOutcome::Failed);
        }
        TaskOutcome::Unknown(error) => {
            d.emit(Event::TaskUnknown {
                task,
                error: Failure::of_worker(&error),
            });
            // Of an answer that is too large another attempt would give the same, also where it is a pivot's.
            if !error.retryable && *error.error_type == *error_type::LIMIT {
                give_up(d, step, direction, StepOutcome::Unknown);
                return d.settle();
            }
            let ended = Ended {
                worker_type: Some(&error.error_type),
                retryable: error.retryable,
                retry_after: error.retry_after,
                ..Ended::SILENT
            };
            retry_or_give_up(d, (step, direction), call, ended, StepOutcome::Unknown);
        }
        TaskOutcome::Cancelled => {
            d.emit(Event::TaskCancelled { task });
            retry_or_give_up(d, (step, direction), call, Ended::SILENT, StepOutcome::Cancelled);
        }
        TaskOutcome::RetryLater { after } => ask_again(d, (step, direction), call, task, after),
    }
    d.settle();
}

/// Whether a task that was offered again may be with another worker as well.
fn may_have_a_copy(open: &OpenTask) -> bool {
    open.in_doubt && open.offer > 0
}

/// What a worker knows to be undone by itself may have been done by whoever has the other copy.
fn of_one_copy(outcome: TaskOutcome) -> TaskOutcome {
    match outcome {
        TaskOutcome::Failed(error) if !error.not_done => TaskOutcome::Unknown(error),
        TaskOutcome::Cancelled => TaskOutcome::Unknown(WorkerError {
            error_type: Arc::from(error_type::CANCELLED),
            message: Arc::from("the worker stopped the task"),
            retryable: true,
            not_done: false,
            retry_after: None,
        }),
        outcome => outcome,
    }
}

/// Nobody will answer an open task any more, as far as anybody can tell.
pub(super) fn lost(d: &mut Decider<'_>, task: TaskNo, error: Failure) {
    silent(
        d,
        task,
        Event::TaskLost { task, error },
        Ended::SILENT,
        StepOutcome::Unknown,
    );
}

/// An open task is past its start-to-close, or its worker was silent for too long.
pub(super) fn timed_out(d: &mut Decider<'_>, task: TaskNo, error: Failure) {
    silent(
        d,
        task,
        Event::TaskTimedOut { task, error },
        Ended::SILENT,
        StepOutcome::Unknown,
    );
}

/// An open task is past a timeout that is not retried.
pub(super) fn expired(d: &mut Decider<'_>, task: TaskNo, error: Failure) {
    silent(
        d,
        task,
        Event::TaskTimedOut { task, error },
        Ended::FINAL,
        StepOutcome::Unknown,
    );
}

/// The same of one that no worker has had.
pub(super) fn withdrawn(d: &mut Decider<'_>, task: TaskNo, error: Failure, outcome: StepOutcome) {
    let event = Event::TaskWithdrawn { task, error };
    silent(d, task, event, Ended::FINAL, outcome);
}

fn silent(d: &mut Decider<'_>, task: TaskNo, event: Event, ended: Ended<'_>, otherwise: StepOutcome) {
    let Some(view) = d.state.open_task(task) else {
        return;
    };
    let (step, direction) = (view.step.clone(), view.direction);
    let Some(call) = d.call(&step, direction) else {
        return;
    };
    d.emit(event);
    retry_or_give_up(d, (step, direction), call, ended, otherwise);
}

fn ask_again(
    d: &mut Decider<'_>,
    (step, direction): (StepPath, Direction),
    call: &Call,
    task: TaskNo,
    after: Option<Span>,
) {
    let seed = seed(d, &step, direction);
    let pause = after
        .filter(|after| *after > Span::ZERO)
        .unwrap_or_else(|| retry::interval(&call.retry, seed));
    let until = d.at.plus(pause);
    let open = d.state.open_task(task).map(|view| view.open);
    let in_doubt = direction == Direction::Do && open.is_some_and(may_have_a_copy) && d.state.may_say_of_doubt();
    d.emit(Event::TaskDeferred { task, until, in_doubt });
    let regardless = regardless(d, &step, direction);
    if direction == Direction::Do && !pivot::may_go_on(d, &step, regardless) {
        give_up(d, step, direction, StepOutcome::Unknown);
    }
}

fn retry_or_give_up(
    d: &mut Decider<'_>,
    (step, direction): (StepPath, Direction),
    call: &Call,
    ended: Ended<'_>,
    otherwise: StepOutcome,
) {
    let ended = Ended {
        regardless: regardless(d, &step, direction),
        ..ended
    };
    let goes_on = direction == Direction::Undo || pivot::may_go_on(d, &step, ended.regardless);
    let seed = seed(d, &step, direction);
    let attempt = seed.attempt;
    let pause = retry::pause(&call.retry, seed, ended).filter(|_| goes_on);
    let pause =
        pause.filter(|pause| ended.regardless != Regardless::No || ends_before_close(d, &step, direction, *pause));
    match pause {
        Some(pause) => d.emit(Event::RetryScheduled {
            at: d.at.plus(pause),
            step,
            direction,
            attempt: attempt.saturating_add(1),
        }),
        None => give_up(d, step, direction, otherwise),
    }
}

/// Whether another attempt after this pause begins within schedule-to-close.
fn ends_before_close(d: &Decider<'_>, step: &StepPath, direction: Direction, pause: Span) -> bool {
    let execution = d.state.executions(direction).get(step);
    let close_by = execution.and_then(|execution| execution.close_by);
    close_by.is_none_or(|by| d.at.plus(pause) < by)
}

pub(super) fn regardless(d: &mut Decider<'_>, step: &StepPath, direction: Direction) -> Regardless {
    match direction {
        Direction::Undo => Regardless::No,
        Direction::Do => d.activity(step).map_or(Regardless::No, |(node, activity)| {
            pivot::regardless(d, node, activity, step)
        }),
    }
}

/// No further attempt: a forward step ends, as unknown if it may have been done; an undo is parked, unless it is known to be done.
pub(super) fn give_up(d: &mut Decider<'_>, step: StepPath, direction: Direction, otherwise: StepOutcome) {
    let Some(execution) = d.state.executions(direction).get(&step) else {
        return;
    };
    // A worker that was late has said so of an attempt before.
    let is_undone = execution.succeeded_late && d.state.entry(&step).is_some_and(|entry| !entry.resumed);
    let outcome = if execution.may_be_done() {
        StepOutcome::Unknown
    } else {
        otherwise
    };
    let error = execution
        .last_error
        .clone()
        .unwrap_or_else(|| Failure::cancelled("the step was stopped before a worker took it"))
        .at(&step);
    match direction {
        Direction::Do => {
            if let Some((node, _)) = d.activity(&step) {
                // A failure is a failure, whatever the worker calls it.
                let at_limit = otherwise == StepOutcome::Unknown && blocked::is_limit(&error);
                tree::failed(d, node, step, outcome, (error, at_limit));
            }
        }
        Direction::Undo if is_undone => parked::undone(d, step),
        Direction::Undo => compensation::park(d, step, error),
    }
}

impl State {
    /// Whether every replica that can come to own the run reads what events say of doubt since the level of the stored format
    /// that it was begun at.
    pub(super) fn may_say_of_doubt(&self) -> bool {
        self.birth.withdraws
    }
}

fn seed<'s>(d: &Decider<'_>, step: &'s StepPath, direction: Direction) -> Seed<'s> {
    let execution = d.state.executions(direction).get(step);
    Seed {
        run: d.state.run_id(),
        step,
        direction,
        attempt: execution.map_or(1, |execution| execution.attempt),
    }
}
