//! Deadlines: what is due at a wake-up, in the order in which it became due.
//!
//! | what | due | fires only if |
//! |---|---|---|
//! | pause between attempts | its end | – ; what is limited asks for a permit then |
//! | held dispatch | the end of its pause | – |
//! | task, nobody known to have it | start-to-close after it was offered | never: once it is known how far its queue has delivered, start-to-close counts from now, or it is looked at again later |
//! | task, delivered or begun | start-to-close after that | the log has been read that far |
//! | `wait` | its moment | – |
//! | timeout of a `wait_for` | from its beginning | the log has been read that far |
//! | timeout of the run | from its start | the log has been read that far |
//! | message without an answer | the end of its pause | – ; also in a run that is closed or parked |
//!
//! A deadline that must wait for its horizon stays due: `wake_at` lies in the past until then.

use super::decider::Decider;
use super::effect::Direction;
use super::event::Event;
use super::execution::{Known, OpenTask, Wait};
use super::failure::Failure;
use super::input::{Horizon, Operation};
use super::limits::{HELD_PAUSE_FIRST, UNDELIVERED_PAUSE_LONGEST};
use super::open::Open;
use super::state::Why;
use super::{attempt, outbox, permit, pivot, stop, timer, tree, wait_for};
use crate::ids::{MessageNo, StepPath, TaskNo};
use crate::time::{Span, Timestamp};

/// Something that may be due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Execution(Direction, StepPath),
    Wait(StepPath),
    Run,
    Message(MessageNo),
}

pub(super) fn wake(d: &mut Decider<'_>, horizon: &Horizon) {
    for (due, item) in due_items(d) {
        match item {
            Item::Message(number) => outbox::offer_again(d, number),
            // An earlier item may have parked the run.
            _ if d.state.parked.is_some() => {}
            Item::Run => run_timeout(d, due, horizon),
            Item::Wait(step) => wait_due(d, step, horizon),
            Item::Execution(direction, step) => execution_due(d, &step, direction, horizon),
        }
        d.settle();
    }
}

fn due_items(d: &Decider<'_>) -> Vec<(Timestamp, Item)> {
    let stands = d.state.is_closed() || d.state.parked.is_some();
    let of = |direction| {
        let executions = d.state.executions(direction).iter().filter(move |_| !stands);
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
    let run = d.state.birth.timeout_at.filter(|_| d.state.can_time_out() && !stands);
    let mut items: Vec<_> = of(Direction::Do)
        .chain(of(Direction::Undo))
        .chain(waits)
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
    match &execution.wait {
        Wait::Until(_) => permit::open(d, step, direction),
        Wait::Task(open) => match open.known {
            Known::Held => d.emit(Event::TaskOffered {
                task: open.task,
                offer: open.offer.saturating_add(1),
            }),
            Known::Offered => {
                // Where nothing is known of the queue, it stays due until something is.
                if let Some(delivered_to) = horizon.delivered_to.get(&execution.queue) {
                    let event = find(open, *delivered_to, execution.start_to_close, d.at);
                    d.emit(event);
                }
            }
            Known::Delivered | Known::Started => {
                if horizon.log_read_to >= open.due {
                    attempt::timed_out(d, open.task);
                }
            }
        },
        // The end of time does not come.
        Wait::Permit(_) | Wait::Decision => {}
    }
}

/// What the queue's horizon says of a task that nobody is known to have.
fn find(open: &OpenTask, delivered_to: Timestamp, start_to_close: Span, now: Timestamp) -> Event {
    let task = open.task;
    if delivered_to >= open.opened_at {
        return Event::TaskDelivered { task };
    }
    // Looked at again after as long as it has waited, so that a long backlog costs few looks, but not too late.
    let shortest = start_to_close.max(HELD_PAUSE_FIRST);
    let longest = shortest.max(UNDELIVERED_PAUSE_LONGEST);
    let pause = now.since(open.opened_at).clamp(shortest, longest);
    Event::DeadlineDeferred {
        task,
        until: now.plus(pause),
    }
}

/// A beat. Recorded only where it decides something: the deadline that was provisional has come.
pub(super) fn task_started(d: &mut Decider<'_>, task: TaskNo, began: Timestamp) {
    if d.state.parked.is_some() || d.state.is_closed() {
        return;
    }
    let Some(open) = d.state.open_task(task).map(|view| view.open) else {
        return;
    };
    if open.known != Known::Started && open.due <= d.at {
        // Workers' clocks are not ours.
        let at = began.max(open.opened_at).min(d.at);
        d.emit(Event::TaskStarted { task, at });
    }
}
