//! Deadlines: what is due at a wake-up, in the order in which it became due.
//!
//! | what | due | fires only if |
//! |---|---|---|
//! | pause between attempts | its end | – ; what is limited asks for a permit then |
//! | pause before an attempt of the run | its end | – |
//! | held dispatch | the end of its pause | – |
//! | task, nobody known to have it | start-to-close, or `heartbeat`, after it was offered | never: once it is known how far its queue has delivered, both count from now, or it is looked at again later |
//! | the same task, past `schedule_to_start` or `schedule_to_close` | from its first offer, from the step's first task | its queue is known not to have delivered it: it is taken out ([`super::withdrawal`]) |
//! | task, delivered or begun | start-to-close after that; not while `wait_cancelled` waits, except for a pivot that may have been done | the log has been read that far |
//! | the same task, no heartbeat | after the last one, stored or not ([`Horizon::heard`]) | the log has been read that far, and beats have been listened to for as long |
//! | the same task, past `schedule_to_close` | from the step's first task | the log has been read that far |
//! | step between attempts, past `schedule_to_close` | from its first task | – |
//! | `wait` | its moment | – |
//! | timeout of a `wait_for` | from its beginning | the log has been read that far |
//! | timeout of the run | from its start | the log has been read that far |
//! | message without an answer | the end of its pause | – ; also in a run that is closed or parked |
//!
//! A deadline that must wait for its horizon stays due: `wake_at` lies in the past until then. Schedule-to-start and
//! schedule-to-close end a step for good; where a step only goes forward ([`super::pivot`]) they are void.

use super::decider::Decider;
use super::effect::Direction;
use super::event::{Event, StepOutcome};
use super::execution::{Execution, Known, OpenTask, Wait};
use super::failure::Failure;
use super::input::{Horizon, Operation};
use super::limits::{HELD_PAUSE_FIRST, UNDELIVERED_PAUSE_LONGEST};
use super::open::Open;
use super::state::Why;
use super::{admission, attempt, heartbeat, outbox, permit, pivot, retry, stop, timer, tree, wait_for, withdrawal};
use crate::definition::plan::Cancellation;
use crate::ids::{MessageNo, StepPath};
use crate::time::{Span, Timestamp};

/// Something that may be due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Execution(Direction, StepPath),
    Wait(StepPath),
    /// An attempt of the run.
    Beginning,
    Run,
    Message(MessageNo),
}

pub(super) fn wake(d: &mut Decider<'_>, horizon: &Horizon) {
    for (due, item) in due_items(d, horizon) {
        match item {
            Item::Message(number) => outbox::offer_again(d, number),
            // An earlier item may have parked the run.
            _ if d.state.parked.is_some() => {}
            Item::Beginning => admission::pause_is_over(d),
            Item::Run => run_timeout(d, due, horizon),
            Item::Wait(step) => wait_due(d, step, horizon),
            Item::Execution(direction, step) => execution_due(d, &step, direction, horizon),
        }
        d.settle();
    }
}

/// Messages whose answer has not come in time, by number.
pub(super) fn messages_due(d: &Decider<'_>) -> Vec<MessageNo> {
    let pending = d.state.mail.outbox.iter().filter(|(_, pending)| pending.due <= d.at);
    pending.map(|(number, _)| *number).collect()
}

/// What is stored of workers lies in the past while they are heard of in time, and there may be many of them: nothing is to be
/// looked at for that.
fn due_items(d: &Decider<'_>, horizon: &Horizon) -> Vec<(Timestamp, Item)> {
    let stands = d.state.is_closed() || d.state.parked.is_some();
    let (now, heard) = (d.at, &horizon.heard);
    let of = |direction| {
        let executions = d.state.executions(direction).iter().filter(move |(_, execution)| {
            let beat = execution.open_task().and_then(|open| heard.get(&open.task));
            !stands && execution.due_if(beat.map(|beat| beat.at.min(now))) <= now
        });
        executions.map(move |(step, execution)| (execution.due(), Item::Execution(direction, step.clone())))
    };
    let waits = d.state.open.iter().filter(move |_| !stands);
    let waits = waits.filter_map(|(step, open)| {
        let due = match open {
            Open::Timer { due } => *due,
            Open::Signal { due, .. } => (*due)?,
            _ => return None,
        };
        Some((due, Item::Wait(step.clone())))
    });
    let messages = d.state.mail.outbox.iter();
    let messages = messages.map(|(number, pending)| (pending.due, Item::Message(*number)));
    let run = d.state.timeout_at().filter(|_| d.state.can_time_out() && !stands);
    let beginning = d.state.begins_at().filter(|_| !stands);
    let mut items: Vec<_> = of(Direction::Do)
        .chain(of(Direction::Undo))
        .chain(waits)
        .chain(beginning.map(|at| (at, Item::Beginning)))
        .chain(run.map(|at| (at, Item::Run)))
        .chain(messages)
        .filter(|(due, _)| *due <= d.at)
        .collect();
    items.sort_unstable();
    items
}

fn run_timeout(d: &mut Decider<'_>, due: Timestamp, horizon: &Horizon) {
    if d.state.can_time_out() && horizon.log_read_to >= due {
        let error = Failure::run_timeout(d.plan.timeout.unwrap_or_default());
        if pivot::defer(d, Why::TimedOut, &error, &Operation::default()) {
            return;
        }
        d.emit(Event::RunTimedOut { error });
        stop::halt(d);
    }
}

fn wait_due(d: &mut Decider<'_>, step: StepPath, horizon: &Horizon) {
    match d.state.open.get(&step) {
        Some(Open::Timer { due }) if *due <= d.at => match tree::find(d.plan, step.as_str()) {
            Some(node) => timer::fired(d, node, step),
            None => d.park_for_lack_of("wait", &step),
        },
        Some(Open::Signal { due: Some(due), .. }) if *due <= d.at && horizon.log_read_to >= *due => {
            wait_for::timed_out(d, step);
        }
        _ => {}
    }
}

fn execution_due(d: &mut Decider<'_>, step: &StepPath, direction: Direction, horizon: &Horizon) {
    // An earlier item may have changed or ended it, or closed the run.
    let Some(execution) = d.state.executions(direction).get(step) else {
        return;
    };
    if d.state.is_closed() || execution.due() > d.at {
        return;
    }
    let past_close = execution.close_by.is_some_and(|by| by <= d.at);
    match &execution.wait {
        Wait::Until(_) | Wait::Permit(_) if past_close => close_passed(d, step, direction),
        Wait::Until(_) => permit::open(d, step, direction),
        Wait::Task(open) if open.withdrawn_for.is_some() => {
            let task = open.task;
            withdrawal::ask_again(d, task);
        }
        Wait::Task(open) => match open.known {
            Known::Held => held_due(d, step, direction),
            Known::Offered => offered_due(d, step, direction, horizon),
            Known::Delivered | Known::Started => taken_due(d, step, direction, horizon),
        },
        // The end of time does not come.
        Wait::Permit(_) | Wait::Decision => {}
    }
}

/// The task is not out.
fn held_due(d: &mut Decider<'_>, step: &StepPath, direction: Direction) {
    let Some((execution, open)) = with_task(d, step, direction) else {
        return;
    };
    let (task, offer) = (open.task, open.offer.saturating_add(1));
    match execution.unstarted(open, d.at) {
        Some(_) if is_void(d, step, direction) => void(d, step),
        Some(timeout) => withdrawal::of_held(d, task, timeout),
        None => d.emit(Event::TaskOffered { task, offer }),
    }
}

/// Nobody is known to have the task.
fn offered_due(d: &mut Decider<'_>, step: &StepPath, direction: Direction, horizon: &Horizon) {
    let Some((execution, open)) = with_task(d, step, direction) else {
        return;
    };
    // Where nothing is known of the queue, it stays due until something is.
    let Some(delivered_to) = horizon.delivered_to.get(&execution.queue).copied() else {
        return;
    };
    let task = open.task;
    if delivered_to >= open.opened_at {
        d.emit(Event::TaskDelivered { task });
        return execution_due(d, step, direction, horizon);
    }
    let pending = d.state.doing.len() + d.state.undoing.len();
    let again = look_again(open, execution.first_look(), pending, d.at);
    match execution.unstarted(open, d.at) {
        Some(_) if is_void(d, step, direction) => void(d, step),
        Some(timeout) => withdrawal::request(d, task, timeout),
        None => d.emit(again),
    }
}

/// What is due first of a task that a worker has, or may have.
fn taken_due(d: &mut Decider<'_>, step: &StepPath, direction: Direction, horizon: &Horizon) {
    let Some((execution, open)) = with_task(d, step, direction) else {
        return;
    };
    let task = open.task;
    let (timeouts, start_to_close) = (execution.timeouts, execution.start_to_close);
    let heard = horizon.heard.get(&task);
    let beat_by = open
        .beat_by
        .max(execution.beat_after(open, heard.map(|beat| beat.at.min(d.at))));
    let dues = [
        (execution.close_by, Due::Close),
        (beat_by, Due::Beat),
        (open.silent_at, Due::Lost),
        (Some(open.due), Due::Start),
    ];
    let dues = dues.into_iter().filter_map(|(by, what)| Some((by?, what)));
    let Some((due, what)) = dues.min_by_key(|(by, _)| *by) else {
        return;
    };
    if due > d.at || horizon.log_read_to < due {
        return;
    }
    let void_or_word = match what {
        Due::Close => is_void(d, step, direction),
        Due::Start => waits_for_word(d, step, direction),
        Due::Beat | Due::Lost => false,
    };
    // How far it had come is for the next attempt.
    if let Some(beat) = heard.filter(|_| !void_or_word) {
        heartbeat::last_words(d, task, beat);
    }
    match what {
        Due::Close if void_or_word => void(d, step),
        Due::Close => {
            let limit = timeouts.schedule_to_close.unwrap_or_default();
            attempt::expired(d, task, Failure::schedule_to_close(limit));
        }
        Due::Beat => {
            let silence = timeouts.heartbeat.unwrap_or_default();
            if horizon.listening_since.plus(silence) > d.at {
                // Nobody was there to hear it.
                let at = horizon.listening_since;
                d.emit(Event::HeartbeatTaken {
                    task,
                    at,
                    details: None,
                });
            } else {
                attempt::timed_out(d, task, Failure::heartbeat(silence));
            }
        }
        Due::Lost => attempt::lost(d, task, Failure::silent()),
        Due::Start if void_or_word => d.emit(Event::DeadlineDeferred {
            task,
            until: d.at.plus(start_to_close.max(HELD_PAUSE_FIRST)),
        }),
        Due::Start => attempt::timed_out(d, task, Failure::start_to_close(start_to_close)),
    }
}

#[derive(Debug, Clone, Copy)]
enum Due {
    Close,
    Beat,
    Lost,
    Start,
}

fn with_task<'d>(d: &'d Decider<'_>, step: &StepPath, direction: Direction) -> Option<(&'d Execution, &'d OpenTask)> {
    let execution = d.state.executions(direction).get(step)?;
    Some((execution, execution.open_task()?))
}

/// Whether nothing but the worker's word, or its loss, ends the wait for a task that was asked to stop. A pivot that may have been
/// done is asked again until it is known, since for it schedule-to-close is void as well.
fn waits_for_word(d: &mut Decider<'_>, step: &StepPath, direction: Direction) -> bool {
    let waits = with_task(d, step, direction).is_some_and(|(execution, open)| {
        execution.cancellation == Cancellation::WaitCancelled && !open.later && d.state.is_unwanted(open.task)
    });
    waits && attempt::regardless(d, step, direction) != retry::Regardless::OfEverything
}

/// Whether a step cannot be ended by a timeout.
fn is_void(d: &mut Decider<'_>, step: &StepPath, direction: Direction) -> bool {
    attempt::regardless(d, step, direction) != retry::Regardless::No
}

fn void(d: &mut Decider<'_>, step: &StepPath) {
    d.emit(Event::TimeoutVoided { step: step.clone() });
}

/// Only a worker that asked for more time brings a pause past schedule-to-close.
fn close_passed(d: &mut Decider<'_>, step: &StepPath, direction: Direction) {
    if is_void(d, step, direction) {
        return void(d, step);
    }
    let limit = d
        .state
        .executions(direction)
        .get(step)
        .and_then(|execution| execution.timeouts.schedule_to_close);
    d.emit(Event::ScheduleToClosePassed {
        step: step.clone(),
        direction,
        error: Failure::schedule_to_close(limit.unwrap_or_default()),
    });
    attempt::give_up(d, step.clone(), direction, StepOutcome::Failed);
}

/// When a task that is known to be in its queue is looked at again: after as long as it has waited, so that a long backlog
/// costs few looks, but not too late. Each look is an event, of which a run may have so many: where it has many tasks, or they have
/// waited for long, they are looked at less often.
fn look_again(open: &OpenTask, first: Span, pending: usize, now: Timestamp) -> Event {
    let age = now.since(open.opened_at);
    let shortest = first.max(HELD_PAUSE_FIRST);
    let of_many = Span::from_secs(u64::try_from(pending).unwrap_or(u64::MAX).saturating_mul(4));
    let longest = UNDELIVERED_PAUSE_LONGEST.max(of_many).max(Span(age.0 / 4));
    let pause = age.clamp(shortest, longest.max(shortest));
    Event::DeadlineDeferred {
        task: open.task,
        until: now.plus(pause),
    }
}
