//! What leaves a run: a pure function of committed events and the state after them; nothing else is stored for it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::Value;

use super::event::{Event, Transition};
use super::execution::Known;
use super::keys::idempotency_key;
use super::message::{Answer, Body, Recipient, Sender};
use super::state::{OpenTaskView, State};
use crate::definition::plan::Cancellation;
use crate::ids::{ActivityName, MessageNo, QueueName, RequestId, StepPath, TaskNo};
use crate::run::input::AnswerOn;
use crate::time::{Span, Timestamp};

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Dispatch(Dispatch),
    /// Take a task out of its queue, if it was never delivered, and say so ([`Input::Withdrawn`](super::input::Input::Withdrawn)) to
    /// a run that is open.
    Withdraw {
        queue: QueueName,
        task: TaskNo,
        /// When it was offered: what was published before is there, or was.
        since: Timestamp,
    },
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
    /// Answer somebody who waits for an update; the body is built from the state ([`State::update`]).
    AnswerUpdate {
        to: Arc<str>,
        id: RequestId,
    },
    /// A message to another run. Namespace, run and workflow id of the sender are the shell's to add.
    Send {
        number: MessageNo,
        to: Recipient,
        body: Arc<Body>,
    },
    /// The answer to a message of another run.
    AnswerMessage {
        to: Sender,
        number: MessageNo,
        answer: Answer,
    },
    /// An event to be published, once: run, `seq` and `index` are its identity.
    Emit {
        seq: u32,
        /// Within the transition.
        index: u32,
        step: StepPath,
        subject: Arc<str>,
        body: Arc<Value>,
    },
    /// The run continues as new, or is tried again: its successor is to be started, see [`State::successor`].
    Continue,
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
    /// How long the worker may be silent, if it is to beat.
    pub heartbeat: Option<Span>,
    /// What the heartbeats of earlier attempts said last.
    pub last_details: Option<Arc<Value>>,
    /// Once it is cancelled it may take as long as it needs.
    pub waits_cancelled: bool,
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
            Event::WithdrawalRequested { task, .. } => withdraw(state, *task, &mut effects),
            Event::RunFailed { .. }
            | Event::RunTimedOut { .. }
            | Event::CancelRequested { .. }
            | Event::StopDeferred { .. }
            | Event::ExitRequested { .. }
            | Event::ParallelStopped { .. }
            | Event::ForEachStopped { .. } => cancel_unwanted(state, &mut effects),
            Event::RunTerminated { .. } => {
                cancel_unwanted(state, &mut effects);
                withdraw_left(state, &mut effects);
                answers(state, transition.seq..=transition.seq, &mut effects);
            }
            Event::RunStarted(_) => {
                start_accepted(state, &mut effects);
                answers(state, transition.seq..=transition.seq, &mut effects);
            }
            Event::Awaited(_) | Event::RunAdmitted { .. } | Event::RunCompleted { .. } | Event::RunClosed { .. } => {
                answers(state, transition.seq..=transition.seq, &mut effects);
            }
            Event::MessageSent(sent) => send(state, sent.number, &mut effects),
            Event::MessageOffered { number, .. } => send(state, *number, &mut effects),
            Event::MessageTaken(taken) => effects.push(Effect::AnswerMessage {
                to: taken.from.clone(),
                number: taken.number,
                answer: taken.answer.clone(),
            }),
            Event::RunContinued { .. } | Event::RunRetried { .. } => effects.push(Effect::Continue),
            _ => {}
        }
    }
    if !state.updates.known.is_empty() {
        update_answers(state, &(transition.seq..=transition.seq), &mut effects);
    }
    effects.extend(emissions(transition));
    dedup(&mut effects);
    effects
}

/// What a committed transition emits, whatever the state is by now.
pub fn emissions(transition: &Transition) -> Vec<Effect> {
    let emitted = transition.events.iter().filter_map(|event| match event {
        Event::Emitted(emitted) => Some(emitted),
        _ => None,
    });
    let effects = emitted.zip(0..).map(|(emitted, index)| Effect::Emit {
        seq: transition.seq,
        index,
        step: emitted.step.clone(),
        subject: emitted.subject.clone(),
        body: emitted.body.clone(),
    });
    effects.collect()
}

/// What transitions `first_seq..=last_seq` sent out and is still wanted, from the state as it is now: dispatches of tasks
/// offered there and still open, withdrawals and cancellations asked for there, messages sent there and still pending, and answers to
/// those who asked or were due there. What transitions *emitted* is not kept: see [`State::emitted_in`] and [`emissions`].
pub fn effects_still_wanted(state: &State, first_seq: u32, last_seq: u32) -> Vec<Effect> {
    let span = first_seq..=last_seq;
    let mut effects = Vec::new();
    for view in state.open_tasks() {
        let held = view.open.known == Known::Held;
        // Also in a run that stops: what never went out would be waited for in vain. Its cancellation follows.
        if span.contains(&view.open.seq) && view.open.withdrawn_for.is_some() {
            withdraw(state, view.open.task, &mut effects);
        } else if span.contains(&view.open.seq) && !held {
            effects.push(Effect::Dispatch(of_view(state, &view)));
        }
    }
    if state.halted_within(&span) {
        cancel_unwanted(state, &mut effects);
    }
    if state.terminated_within(&span) {
        withdraw_left(state, &mut effects);
    }
    for (number, pending) in &state.mail.outbox {
        if span.contains(&pending.seq) {
            send(state, *number, &mut effects);
        }
    }
    if span.contains(&1) {
        start_accepted(state, &mut effects);
    }
    answers_to_messages(state, &span, &mut effects);
    if let Some(closed) = state.closed()
        && closed.successor.is_some()
        && span.contains(&closed.seq)
    {
        effects.push(Effect::Continue);
    }
    update_answers(state, &span, &mut effects);
    answers(state, span, &mut effects);
    effects
}

fn update_answers(state: &State, span: &RangeInclusive<u32>, effects: &mut Vec<Effect>) {
    let answers = state.update_answers(span).into_iter();
    effects.extend(answers.map(|(id, waiter)| Effect::AnswerUpdate { to: waiter.to, id }));
}

fn send(state: &State, number: MessageNo, effects: &mut Vec<Effect>) {
    if let Some(pending) = state.mail.outbox.get(&number) {
        effects.push(Effect::Send {
            number,
            to: pending.to.clone(),
            body: Arc::clone(&pending.body),
        });
    }
}

/// A child's birth answers the message that started it.
fn start_accepted(state: &State, effects: &mut Vec<Effect>) {
    if let Some(parent) = &state.birth.parent
        && state.started_by(parent.run, parent.message)
    {
        effects.push(Effect::AnswerMessage {
            to: Sender {
                run: parent.run,
                namespace: parent.namespace.clone(),
                workflow_id: parent.workflow_id.clone(),
            },
            number: parent.message,
            answer: Answer::Accepted,
        });
    }
}

fn answers_to_messages(state: &State, span: &RangeInclusive<u32>, effects: &mut Vec<Effect>) {
    for (run, of) in &state.mail.taken {
        for (number, taken) in of {
            if span.contains(&taken.seq) {
                effects.push(Effect::AnswerMessage {
                    to: Sender {
                        run: *run,
                        namespace: taken.namespace.clone(),
                        workflow_id: taken.workflow_id.clone(),
                    },
                    number: *number,
                    answer: taken.answer.clone(),
                });
            }
        }
    }
}

fn dispatch(state: &State, task: TaskNo, effects: &mut Vec<Effect>) {
    // One that was opened and stopped in the same transition never goes out.
    if let Some(view) = state.open_task(task).filter(|_| !state.is_closed()) {
        effects.push(Effect::Dispatch(of_view(state, &view)));
    }
}

fn withdraw(state: &State, task: TaskNo, effects: &mut Vec<Effect>) {
    if let Some(view) = state.open_task(task).filter(|_| !state.is_closed()) {
        effects.push(Effect::Withdraw {
            queue: view.execution.queue.clone(),
            task,
            since: view.open.opened_at,
        });
    }
}

/// What a run that was terminated has left in queues. It undoes nothing and asks no more: what the queues say is nobody's matter.
fn withdraw_left(state: &State, effects: &mut Vec<Effect>) {
    if !state.birth.withdraws {
        return;
    }
    let left = state.tasks_in_flight().filter(|view| {
        let may_be_there = match view.open.known {
            Known::Offered => true,
            Known::Held => view.open.in_doubt,
            Known::Delivered | Known::Started => false,
        };
        may_be_there && view.execution.cancellation != Cancellation::Abandon
    });
    effects.extend(left.map(|view| Effect::Withdraw {
        queue: view.execution.queue.clone(),
        task: view.open.task,
        since: view.open.opened_at,
    }));
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
        // Neither an undo, nor what only goes forward, nor a `finally` of a run that stops is cut by the run's timeout.
        deadline: state
            .timeout_at()
            .filter(|_| direction == Direction::Do && state.can_time_out())
            .into_iter()
            .chain(execution.close_by)
            .min(),
        heartbeat: execution.timeouts.heartbeat,
        last_details: execution.details.clone(),
        waits_cancelled: execution.cancellation == Cancellation::WaitCancelled,
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
    // The end of a run that continues as new, or is tried again, is the end of its successor.
    let continued = state.closed().filter(|closed| closed.successor.is_some());
    let closed_at = state.closed().map(|closed| closed.seq);
    // Who was answered when the run closed for the first time is not answered again when it was undone.
    let closed_first = state.reopened.as_ref().map(|closed| closed.seq);
    for waiter in &state.waiters {
        let answered = match waiter.on {
            AnswerOn::Started => state.start_decided_in().map(|decided| decided.max(waiter.seq)),
            AnswerOn::Closed if continued.is_some_and(|closed| closed.seq >= waiter.seq) => None,
            AnswerOn::Closed => closed_first
                .filter(|closed| *closed >= waiter.seq)
                .or(closed_at.map(|closed| closed.max(waiter.seq))),
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
/// Everything else is told apart by its number.
fn dedup(effects: &mut Vec<Effect>) {
    let (mut answered, mut cancelled) = (BTreeSet::new(), BTreeSet::new());
    effects.retain(|effect| match effect {
        Effect::Answer { to, on } => answered.insert((to.clone(), *on == AnswerOn::Closed)),
        Effect::CancelTask { task, .. } => cancelled.insert(*task),
        _ => true,
    });
}
