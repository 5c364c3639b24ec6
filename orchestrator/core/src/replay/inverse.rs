//! From the events of a transition back to the input that caused it: the first event tells the kind, the rest what it said.
//!
//! | first event | input |
//! |---|---|
//! | a task's outcome, a late result | that outcome; whether it could be retried is tried both ways |
//! | something that time brought about | a wake-up, with horizons that fit what was decided |
//! | a request, by its operation | that request |
//! | a message, or its answer | the message, made from what it led to |
//!
//! Empty: the input cannot be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{QueueName, StepPath, TaskNo};
use crate::limit::PRIORITY;
use crate::run::effect::Direction;
use crate::run::event::{LateOutcome, LateResult, MessageTaken, Resolution, RunStarted};
use crate::run::input::{Beat, Horizon, Input, Operation, ParkedAction, Start, TaskOutcome, Terms, WorkerError};
use crate::run::message::{Answer, Body, ChildClosed, Recipient, Sender};
use crate::run::{
    Admission, Event, Failure, Known, QueueLimits, State, Status, TaskLimit, Transition, Unstarted, Waiting,
};
use crate::time::{Span, Timestamp};

pub(super) fn start(birth: &RunStarted) -> Start {
    Start {
        run_id: birth.run_id,
        namespace: birth.namespace.clone(),
        workflow_id: birth.workflow_id.clone(),
        input: birth.input.clone(),
        request_id: birth.request_id.clone(),
        search_attributes: birth.search_attributes.clone(),
        answer: birth.answer.clone(),
        traceparent: birth.traceparent.clone(),
        parent: birth.parent.clone(),
        priority: Some(birth.priority.unwrap_or(PRIORITY)),
        queued: birth.queued,
        begins_at: birth.begins_at,
        continues: birth.continues.clone(),
    }
}

pub(super) fn terms(birth: &RunStarted) -> Terms {
    Terms {
        limits: birth.limits,
        withdraws: birth.withdraws,
    }
}

/// The queues that were limited then, as far as that made a difference: by then something has asked for their permits.
pub(super) fn queues(transition: &Transition) -> QueueLimits {
    let mut queues = QueueLimits::new();
    let mut limited = |queue: &QueueName, limit: TaskLimit| {
        let limits = queues.entry(queue.clone()).or_default();
        if limits.iter().all(|known| known.name != limit.name) {
            limits.push(limit);
        }
    };
    for event in &transition.events {
        if let Event::MessageSent(sent) = event
            && let Body::Ask(ask) = &*sent.body
            && ask.limit.kind.is_of_queue()
        {
            let limit = TaskLimit {
                name: ask.limit.clone(),
                bound: ask.bound,
            };
            limited(&QueueName::new(&ask.limit.of), limit);
        }
    }
    queues
}

pub(super) fn inputs(before: &State, transition: &Transition) -> Vec<Input> {
    let events = &transition.events;
    let Some(first) = events.first() else {
        return Vec::new();
    };
    // A message that was decided on first is told behind what it led to.
    if let Some(Event::MessageTaken(taken)) = events.iter().find(|event| matches!(event, Event::MessageTaken(_))) {
        return message(before, taken, events).into_iter().collect();
    }
    let ended = |task: TaskNo, outcome: TaskOutcome| Input::TaskEnded { task, outcome };
    let of_undo = matches!(
        first,
        Event::UndoResumed { .. } | Event::UndoReady { .. } | Event::UndoResolved { .. }
    );
    let parked = |step: &StepPath, action, operation: &Operation| Input::Parked {
        direction: of_undo.then_some(Direction::Undo),
        step: step.clone(),
        action,
        operation: operation.clone(),
    };
    match first {
        Event::TaskCompleted { task, output } => vec![ended(*task, TaskOutcome::Completed { output: output.clone() })],
        Event::TaskFailed { task, error, not_done } => worker_errors(error, *not_done, transition)
            .into_iter()
            .map(|error| ended(*task, TaskOutcome::Failed(error)))
            .collect(),
        Event::TaskUnknown { task, error } => worker_errors(error, false, transition)
            .into_iter()
            .map(|error| ended(*task, TaskOutcome::Unknown(error)))
            .collect(),
        Event::TaskCancelled { task } => vec![ended(*task, TaskOutcome::Cancelled)],
        Event::TaskDeferred { task, until, .. } => {
            let asked = Some(until.since(transition.at));
            let later = |after| ended(*task, TaskOutcome::RetryLater { after });
            vec![later(asked), later(None)]
        }
        Event::LateResult(late) => vec![ended(late.task, late_outcome(late))],
        Event::TaskLost { task, .. } => {
            let mut inputs = vec![Input::TaskLost { task: *task }];
            inputs.extend(wakes(before, transition));
            inputs
        }
        Event::TaskStarted { task, at } => match events.get(1) {
            Some(heard @ Event::HeartbeatTaken { .. }) => beat(heard, *at).into_iter().collect(),
            _ => vec![Input::TaskStarted { task: *task, at: *at }],
        },
        Event::HeartbeatTaken { at, .. } => {
            let mut inputs: Vec<Input> = beat(first, *at).into_iter().collect();
            inputs.extend(wakes(before, transition));
            inputs
        }
        Event::WorkerSilent { task } => vec![Input::WorkerSilent { task: *task }],
        Event::TaskClaimed { task, by } => vec![Input::TaskClaimed {
            task: *task,
            by: by.clone(),
        }],
        Event::TaskLeft { task } => vec![Input::TaskLeft { task: *task }],
        Event::TaskWithdrawn { task, .. } => withdrawn(before, transition, *task, true),
        Event::TaskDelivered { task } => withdrawn(before, transition, *task, false),
        Event::DispatchHeld { task, in_doubt, .. } => vec![Input::DispatchHeld {
            task: *task,
            in_doubt: *in_doubt,
        }],
        Event::TaskOpened { .. }
        | Event::TaskOffered { .. }
        | Event::TaskTimedOut { .. }
        | Event::DeadlineDeferred { .. }
        | Event::WithdrawalRequested { .. }
        | Event::ScheduleToClosePassed { .. }
        | Event::TimeoutVoided { .. }
        | Event::SignalTimedOut { .. }
        | Event::RunTimedOut { .. }
        | Event::MessageOffered { .. }
        | Event::StepPassed { .. } => wakes(before, transition),
        Event::StopDeferred { operation, why, .. } => match why {
            crate::run::Why::TimedOut => wakes(before, transition),
            _ => vec![Input::Cancel(operation.clone())],
        },
        Event::CancelRequested { operation, .. } => vec![Input::Cancel(operation.clone())],
        Event::RunTerminated { operation, .. } => vec![Input::Terminate(operation.clone())],
        Event::SignalReceived(signal) => vec![Input::Signal {
            name: signal.name.clone(),
            body: signal.body.clone(),
            operation: signal.operation.clone(),
        }],
        Event::UpdateAccepted(taken) | Event::UpdatePutOff(taken) => vec![Input::Update {
            name: taken.name.clone(),
            body: taken.body.clone(),
            operation: taken.operation.clone(),
            answer: taken.answer.clone(),
        }],
        Event::UpdateAwaited { id, answer } => vec![Input::Update {
            // It is known by its id alone.
            name: Arc::from(""),
            body: Arc::default(),
            operation: Operation {
                request_id: Some(id.clone()),
                ..Operation::default()
            },
            answer: Some(answer.clone()),
        }],
        Event::Awaited(request) => vec![Input::Await(request.clone())],
        Event::MessageAnswered { number, answer } => vec![Input::MessageAnswered {
            number: *number,
            answer: answer.clone(),
        }],
        // What was granted is not needed any more.
        Event::MessageSent(sent) => match &*sent.body {
            Body::Release { limit, ask, .. } => vec![Input::MessageAnswered {
                number: *ask,
                answer: Answer::Granted {
                    limit: limit.clone(),
                    // Of one that was handed on: another grant than that.
                    at: before
                        .place()
                        .and_then(|place| place.granted_at)
                        .map(|at| Timestamp(at.0.saturating_add(1))),
                },
            }],
            // Whom a run that waits for its place may ask to go.
            Body::Cancel { .. } => occupied(before, &sent.to).into_iter().collect(),
            // Another attempt asks for its permit.
            _ => wakes(before, transition),
        },
        Event::RunAdmitted { to: Admission::Pause } => wakes(before, transition),
        Event::RunAdmitted { .. } => vec![Input::IdFree],
        Event::RetryWaived { operation } => vec![Input::Cancel(operation.clone())],
        Event::LimitsRaised { limits, operation } => vec![Input::RaiseLimits {
            limits: *limits,
            operation: operation.clone(),
        }],
        Event::RunParked { reason } => vec![Input::Park { reason: reason.clone() }],
        Event::RunResumed { operation, .. } => {
            vec![parked(&StepPath::new(""), ParkedAction::Retry, operation)]
        }
        Event::UndoResumed { step, operation } | Event::StepResumed { step, operation } => {
            let mut inputs = vec![parked(step, ParkedAction::Retry, operation)];
            let scheduled = events.iter().find_map(|event| match event {
                Event::ActivityScheduled(scheduled) if scheduled.step == *step => Some(scheduled.input.clone()),
                _ => None,
            });
            let edited = scheduled.map(|input| parked(step, ParkedAction::RetryWithInput(input), operation));
            inputs.extend(edited);
            inputs
        }
        Event::UndoReady { step, input } => match events.get(1) {
            Some(Event::UndoResumed { operation, .. }) => vec![
                parked(step, ParkedAction::RetryWithInput(input.clone()), operation),
                parked(step, ParkedAction::Retry, operation),
            ],
            _ => Vec::new(),
        },
        Event::UndoResolved { step, how, operation } => {
            let action = match how {
                Resolution::Done => ParkedAction::MarkDone,
                Resolution::Skipped => ParkedAction::Skip,
            };
            vec![parked(step, action, operation)]
        }
        Event::StepResolved {
            step,
            how,
            output,
            operation,
        } => {
            let action = match how {
                Resolution::Done if output.is_null() => ParkedAction::MarkDone,
                Resolution::Done => ParkedAction::MarkDoneWithOutput(output.clone()),
                Resolution::Skipped => ParkedAction::Skip,
            };
            vec![parked(step, action, operation)]
        }
        _ => Vec::new(),
    }
}

fn occupied(before: &State, to: &Recipient) -> Option<Input> {
    let by = Sender {
        run: to.run?,
        namespace: before.namespace().clone(),
        workflow_id: to.workflow_id.clone(),
    };
    Some(Input::MessageAnswered {
        number: before.place()?.ask,
        answer: Answer::Occupied { by },
    })
}

/// The ways a worker may have said it: to be tried again, after a pause of its own or not, or never again.
fn worker_errors(error: &Failure, not_done: bool, transition: &Transition) -> Vec<WorkerError> {
    let of = |retryable, retry_after| WorkerError {
        error_type: error.error_type.clone(),
        message: error.message.clone(),
        retryable,
        not_done,
        retry_after,
    };
    let pause = transition.events.iter().find_map(|event| match event {
        Event::RetryScheduled { at, .. } => Some(at.since(transition.at)),
        _ => None,
    });
    vec![of(true, None), of(false, None), of(true, pause), of(false, pause)]
}

fn late_outcome(late: &LateResult) -> TaskOutcome {
    let error = || {
        let error = late.error.as_ref();
        WorkerError {
            error_type: error.map_or_else(|| Arc::from(""), |error| error.error_type.clone()),
            message: error.map_or_else(|| Arc::from(""), |error| error.message.clone()),
            retryable: true,
            not_done: false,
            retry_after: None,
        }
    };
    match late.outcome {
        LateOutcome::Completed => TaskOutcome::Completed {
            output: late.output.clone(),
        },
        LateOutcome::Failed => TaskOutcome::Failed(error()),
        LateOutcome::Unknown => TaskOutcome::Unknown(error()),
        LateOutcome::Cancelled => TaskOutcome::Cancelled,
        LateOutcome::RetryLater => TaskOutcome::RetryLater { after: None::<Span> },
    }
}

fn beat(heard: &Event, began: Timestamp) -> Option<Input> {
    let Event::HeartbeatTaken { task, at, details } = heard else {
        return None;
    };
    let beat = Beat {
        began,
        at: *at,
        details: details.clone(),
    };
    Some(Input::Heartbeat { task: *task, beat })
}

/// What a queue said of a task that was to be taken out of it; of every other one it was a wake-up.
fn withdrawn(before: &State, transition: &Transition, task: TaskNo, withdrawn: bool) -> Vec<Input> {
    let mut views = before.open_tasks();
    let asked = views.any(|view| view.open.task == task && view.open.withdrawn_for.is_some());
    if asked {
        vec![Input::Withdrawn { task, withdrawn }]
    } else {
        wakes(before, transition)
    }
}

/// A heartbeat that was too long ago was not heard for lack of a listener, if it was counted anew.
fn listening_since(transition: &Transition) -> Timestamp {
    let heard = transition.events.iter().find_map(|event| match event {
        Event::HeartbeatTaken { at, .. } => Some(*at),
        _ => None,
    });
    heard.unwrap_or_default()
}

/// A wake-up knows how far the log was read, and of some queues how far they had delivered: as far as the last task that was
/// found delivered, for those behind it were not.
fn wakes(before: &State, transition: &Transition) -> Vec<Input> {
    let mut delivered_to: BTreeMap<QueueName, Timestamp> = BTreeMap::new();
    for event in &transition.events {
        let (task, delivered) = match event {
            Event::TaskDelivered { task } => (task, true),
            // Of a step that was halted nothing was asked of its queue before.
            Event::WithdrawalRequested {
                timeout: Unstarted::NotNeeded,
                ..
            } => continue,
            Event::DeadlineDeferred { task, .. } | Event::WithdrawalRequested { task, .. } => (task, false),
            // In its queue, and not to be taken out of it.
            Event::TimeoutVoided { step } => {
                let mut views = before.open_tasks();
                let offered = views.find(|view| view.step == step && view.open.known == Known::Offered);
                if let Some(view) = offered {
                    delivered_to.entry(view.execution.queue.clone()).or_insert(Timestamp(0));
                }
                continue;
            }
            _ => continue,
        };
        if let Some(view) = before.open_tasks().find(|view| view.open.task == *task) {
            let to = delivered_to.entry(view.execution.queue.clone()).or_insert(Timestamp(0));
            if delivered {
                *to = view.open.opened_at.max(*to);
            }
        }
    }
    let wake = |log_read_to, heard: &BTreeMap<TaskNo, Beat>| {
        Input::Wake(Horizon {
            log_read_to,
            delivered_to: delivered_to.clone(),
            listening_since: listening_since(transition),
            heard: heard.clone(),
        })
    };
    // Nothing is stored of beats that came in time.
    let unheard = BTreeMap::new();
    let heard = heard(before, transition);
    let mut read_to = vec![transition.at];
    read_to.extend(fired(before, &transition.events));
    read_to.push(Timestamp(0));
    read_to.dedup();
    let plainly = read_to.iter().map(|to| wake(*to, &unheard));
    let beside = read_to.iter().filter(|_| !heard.is_empty()).map(|to| wake(*to, &heard));
    plainly.chain(beside).collect()
}

/// The last beats of workers: of those whose deadline passed without a word, and what was kept of those that ended.
fn heard(before: &State, transition: &Transition) -> BTreeMap<TaskNo, Beat> {
    let at = transition.at;
    let in_time = before
        .open_tasks()
        .filter(|view| view.open.beat_by.is_some_and(|by| by <= at));
    let in_time = in_time.map(|view| {
        let (began, details) = (view.open.opened_at, None);
        (view.open.task, Beat { began, at, details })
    });
    let mut heard: BTreeMap<TaskNo, Beat> = in_time.collect();
    for event in &transition.events {
        match event {
            Event::HeartbeatTaken { task, at, details } if details.is_some() => {
                let (began, at, details) = (*at, *at, details.clone());
                heard.insert(*task, Beat { began, at, details });
            }
            Event::TaskTimedOut { task, error } if *error.message == *silence(before, *task) => {
                if let Some(beat) = heard.get_mut(task).filter(|beat| beat.details.is_none()) {
                    beat.at = Timestamp(i64::MIN / 2);
                }
            }
            _ => {}
        }
    }
    heard
}

/// What is said of a worker that was silent for too long.
fn silence(before: &State, task: TaskNo) -> String {
    let mut views = before.open_tasks();
    let heartbeat = views
        .find(|view| view.open.task == task)
        .and_then(|view| view.execution.timeouts.heartbeat);
    format!("no heartbeat for {} ms", heartbeat.unwrap_or_default().as_millis())
}

/// When the last of the deadlines that fired was due. The log had been read that far; what was due later, and did not fire, had to
/// wait for it.
fn fired(before: &State, events: &[Event]) -> Option<Timestamp> {
    let of_task = |task: &TaskNo| {
        let mut views = before.open_tasks();
        let view = views.find(|view| view.open.task == *task)?;
        let dues = [view.open.beat_by, view.open.silent_at, view.execution.close_by];
        Some(dues.into_iter().flatten().fold(view.open.due, Timestamp::min))
    };
    let of_signal = |step: &StepPath| {
        before.waiting().find_map(|(waits, waiting)| match waiting {
            Waiting::Signal { due, .. } if waits == step => due,
            _ => None,
        })
    };
    let dues = events.iter().filter_map(|event| match event {
        Event::TaskTimedOut { task, .. } | Event::TaskLost { task, .. } | Event::HeartbeatTaken { task, .. } => {
            of_task(task)
        }
        Event::SignalTimedOut { step } => of_signal(step),
        Event::RunTimedOut { .. } | Event::StopDeferred { .. } => before.timeout_at(),
        _ => None,
    });
    dues.max()
}

fn message(before: &State, taken: &MessageTaken, events: &[Event]) -> Option<Input> {
    let body = events.iter().find_map(|event| match event {
        Event::ChildEnded(ended) => Some(Body::ChildClosed(ChildClosed {
            child: before.open_child_at(&ended.step)?,
            step: ended.step.clone(),
            status: ended.status,
            output: ended.output.clone(),
            error: ended.error.clone(),
        })),
        Event::UndoResolved { step, how, .. } => Some(Body::ChildClosed(ChildClosed {
            child: taken.from.run,
            step: step.clone(),
            status: match how {
                Resolution::Done => Status::Compensated,
                Resolution::Skipped => Status::CompensationFailed,
            },
            output: Arc::default(),
            error: None,
        })),
        Event::UndoParked { step, .. } => Some(Body::ChildClosed(ChildClosed {
            child: taken.from.run,
            step: step.clone(),
            status: Status::Terminated,
            output: Arc::default(),
            error: None,
        })),
        Event::RunReopened { error } => Some(Body::Undo { error: error.clone() }),
        Event::CancelRequested { operation, .. }
        | Event::StopDeferred { operation, .. }
        | Event::RetryWaived { operation } => Some(Body::Cancel {
            operation: operation.clone(),
        }),
        Event::RunTerminated { operation, .. } => Some(Body::Terminate {
            operation: operation.clone(),
        }),
        Event::SignalReceived(signal) => Some(Body::Signal {
            name: signal.name.clone(),
            body: signal.body.clone(),
            // Only the shell looks at it.
            sent_at: None,
        }),
        _ => None,
    })?;
    Some(Input::Message {
        from: taken.from.clone(),
        number: taken.number,
        body,
    })
}
