//! What leaves a run: a pure function of committed events and the state after them; nothing else is stored for it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::Value;

use super::event::{Event, Transition};
use super::execution::Known;
use super::keys::idempotency_key;
use super::state::{OpenTaskView, Phase, State};
use super::status::Status;
use crate::ids::{ActivityName, QueueName, StepPath, TaskNo};
use crate::run::input::AnswerOn;
use crate::time::{Span, Timestamp};

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Dispatch(Dispatch),
    /// Tell workers of a queue that a task is no longer wanted.
    CancelTask {
        queue: QueueName,
        task: TaskNo,
    },
    /// Answer somebody who waits; the body is built from the state.
    Answer {
        to: Arc<str>,
        on: AnswerOn,
    },
}

/// A task to be published. Namespace, workflow, run and token are the shell's to add.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    pub task: TaskNo,
    pub step: StepPath,
    pub activity: ActivityName,
    pub queue: QueueName,
    pub direction: Direction,
    /// Counted from 1.
    pub attempt: u32,
    pub max_attempts: Option<u32>,
    /// `<run>/<step path>/<do|undo>`
    pub idempotency_key: Arc<str>,
    pub input: Arc<Value>,
    pub start_to_close: Span,
    /// Absolute, where one applies (the run's timeout, say).
    pub deadline: Option<Timestamp>,
    /// Counts offers of the same attempt after a full stream refused it; part of the message id.
    pub offer: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    #[default]
    Do,
    Undo,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// What the transition just applied sends out; `state` is the one right after it.
pub fn effects(state: &State, transition: &Transition) -> Vec<Effect> {
    let mut effects = Vec::new();
    for event in &transition.events {
        match event {
            Event::ActivityScheduled(scheduled) => dispatch(state, scheduled.task, &mut effects),
            Event::TaskOpened { task, .. } | Event::TaskOffered { task, .. } | Event::UndoScheduled { task, .. } => {
                dispatch(state, *task, &mut effects);
            }
            Event::RunFailed { .. } | Event::RunTimedOut { .. } | Event::CancelRequested { .. } => {
                cancel_unwanted(state, &mut effects);
            }
            Event::RunTerminated { .. } => {
                cancel_unwanted(state, &mut effects);
                answers(state, transition.seq..=transition.seq, &mut effects);
            }
            Event::RunStarted(_) | Event::Awaited(_) | Event::RunCompleted { .. } | Event::RunClosed { .. } => {
                answers(state, transition.seq..=transition.seq, &mut effects);
            }
            _ => {}
        }
    }
    dedup(&mut effects);
    effects
}

/// What transitions `first_seq..=last_seq` sent out and is still wanted, from the state as it is now: dispatches of tasks
/// offered there and still open, cancellations asked for there, and answers to those who asked or were due there.
pub fn effects_still_wanted(state: &State, first_seq: u32, last_seq: u32) -> Vec<Effect> {
    let span = first_seq..=last_seq;
    let mut effects = Vec::new();
    for view in state.open_tasks() {
        let held = view.open.known == Known::Held;
        // Also in a run that stops: what never went out would be waited for in vain. Its cancellation follows.
        if span.contains(&view.open.seq) && !held {
            effects.push(Effect::Dispatch(of_view(state, &view)));
        }
    }
    let asked = match &state.phase {
        Phase::Running => false,
        Phase::Stopping(stop) => span.contains(&stop.seq),
        Phase::Closed(closed) => closed.status == Status::Terminated && span.contains(&closed.seq),
    };
    if asked {
        cancel_unwanted(state, &mut effects);
    }
    answers(state, span, &mut effects);
    effects
}

fn dispatch(state: &State, task: TaskNo, effects: &mut Vec<Effect>) {
    // One that was opened and stopped in the same transition never goes out.
    if let Some(view) = state.open_task(task).filter(|_| !state.is_closed()) {
        effects.push(Effect::Dispatch(of_view(state, &view)));
    }
}

fn of_view(state: &State, view: &OpenTaskView<'_>) -> Dispatch {
    let OpenTaskView {
        step,
        direction,
        open,
        execution,
    } = *view;
    Dispatch {
        task: open.task,
        step: step.clone(),
        activity: execution.activity.clone(),
        queue: execution.queue.clone(),
        direction,
        attempt: execution.attempt,
        max_attempts: execution.max_attempts,
        idempotency_key: idempotency_key(state.run_id(), step, direction),
        input: execution.input.clone(),
        start_to_close: execution.start_to_close,
        // An undo is not cut by the run's timeout.
        deadline: state.birth.timeout_at.filter(|_| direction == Direction::Do),
        offer: open.offer,
    }
}

fn cancel_unwanted(state: &State, effects: &mut Vec<Effect>) {
    for view in state.tasks_in_flight() {
        let somewhere = view.open.known != Known::Held || view.open.in_doubt;
        if somewhere && state.is_unwanted(view.open.task) {
            effects.push(Effect::CancelTask {
                queue: view.execution.queue.clone(),
                task: view.open.task,
            });
        }
    }
}

/// Somebody who waits for the start is answered by the transition that asked, the run having started; somebody who waits
/// for the end by the later one of the two.
fn answers(state: &State, span: RangeInclusive<u32>, effects: &mut Vec<Effect>) {
    let closed_at = state.closed().map(|closed| closed.seq);
    for waiter in &state.waiters {
        let answered = match waiter.on {
            AnswerOn::Started => Some(waiter.seq),
            AnswerOn::Closed => closed_at.map(|closed| closed.max(waiter.seq)),
        };
        if answered.is_some_and(|seq| span.contains(&seq)) {
            effects.push(Effect::Answer {
                to: waiter.to.clone(),
                on: waiter.on,
            });
        }
    }
}

/// Two events of one transition may ask for the same answers or cancellations (a run that starts and closes at once).
fn dedup(effects: &mut Vec<Effect>) {
    let mut index = 0;
    while index < effects.len() {
        let repeated = effects[..index].contains(&effects[index]);
        if repeated {
            effects.remove(index);
        } else {
            index += 1;
        }
    }
}
