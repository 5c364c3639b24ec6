//! What happens to a run: workers, children, operators, people with signals, clocks; willing or not.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::super::dsl::*;
use crate::ids::{MessageNo, RunId, StepPath, TaskNo};
use crate::limit::{LimitKind, LimitName};
use crate::run::input::{AnswerOn, Beat, Horizon, Input, Operation, ParkedAction, TaskOutcome, WorkerError};
use crate::run::message::{Answer, Body, ChildClosed, Refusal, Sender};
use crate::run::open::Open;
use crate::run::{Failure, Status, UndoState};
use crate::time::{Span, Timestamp};

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// About any task there ever was.
    Outcome(usize, Said),
    /// About one that is open.
    OpenOutcome(usize, Said),
    Started(usize, u64),
    Lost(usize),
    Held(usize),
    /// Its handler began, and was last heard of, so many seconds ago.
    Beat(usize, u64, Option<u8>),
    Silent(usize),
    Claim(usize, bool),
    Left(usize),
    Withdrawn(usize, bool),
    Wake {
        seconds: u64,
        log_behind: u64,
        delivered: bool,
    },
    WakeNext,
    Cancel(u8),
    Terminate,
    Await(bool),
    Park,
    Resume,
    Operate(usize, u8),
    Signal(i8, Option<u8>),
    /// The answer to a pending message, or to one that was answered.
    Answer(usize, bool),
    ChildClosed(usize, usize),
    /// The last message of a child once more.
    Repeat,
    OtherCancels,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Said {
    Completed,
    Failed,
    NotRetryable,
    NotDone,
    Unknown,
    Cancelled,
    RetryLater,
}

impl Said {
    fn outcome(self, task: TaskNo) -> TaskOutcome {
        match self {
            Self::Completed => done(json!({"id": task.0})),
            Self::Failed => failed("Refused"),
            Self::NotRetryable => TaskOutcome::Failed(WorkerError {
                retryable: false,
                ..error("Refused")
            }),
            Self::NotDone => TaskOutcome::Failed(WorkerError {
                not_done: true,
                ..error("Refused")
            }),
            Self::Unknown => unknown(),
            Self::Cancelled => TaskOutcome::Cancelled,
            Self::RetryLater => TaskOutcome::RetryLater { after: None },
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        8 => Just(Said::Completed),
        3 => Just(Said::Failed),
        1 => Just(Said::NotRetryable),
        1 => Just(Said::NotDone),
        2 => Just(Said::Unknown),
        1 => Just(Said::Cancelled),
        1 => Just(Said::RetryLater),
    ]
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..80)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => (any::<usize>(), said()).prop_map(|(pick, said)| Op::OpenOutcome(pick, said)),
        4 => (any::<usize>(), said()).prop_map(|(pick, said)| Op::Outcome(pick, said)),
        2 => (any::<usize>(), 0..30_u64).prop_map(|(pick, ago)| Op::Started(pick, ago)),
        1 => any::<usize>().prop_map(Op::Lost),
        2 => any::<usize>().prop_map(Op::Held),
        2 => (any::<usize>(), 0..30_u64, prop::option::of(0..3_u8)).prop_map(|(pick, ago, details)| Op::Beat(pick, ago, details)),
        1 => any::<usize>().prop_map(Op::Silent),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, again)| Op::Claim(pick, again)),
        1 => any::<usize>().prop_map(Op::Left),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(pick, withdrawn)| Op::Withdrawn(pick, withdrawn)),
        4 => (0..30_u64, 0..20_u64, any::<bool>()).prop_map(|(seconds, log_behind, delivered)| Op::Wake {
            seconds,
            log_behind,
            delivered
        }),
        6 => Just(Op::WakeNext),
        1 => (0..3_u8).prop_map(Op::Cancel),
        1 => prop_oneof![8 => Just(Op::Resume), 1 => Just(Op::Terminate), 1 => Just(Op::OtherCancels)],
        1 => any::<bool>().prop_map(Op::Await),
        1 => prop_oneof![2 => Just(Op::Resume), 1 => Just(Op::Park)],
        2 => (any::<usize>(), any::<u8>()).prop_map(|(pick, action)| Op::Operate(pick, action)),
        2 => (-1..3_i8, prop::option::of(0..3_u8)).prop_map(|(body, id)| Op::Signal(body, id)),
        4 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(pick, accepted)| Op::Answer(pick, accepted)),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(pick, status)| Op::ChildClosed(pick, status)),
        1 => Just(Op::Repeat),
    ]
}

pub(super) fn full_wake(now: Timestamp) -> Input {
    Input::Wake(Horizon {
        log_read_to: now,
        delivered_to: BTreeMap::from([("main".into(), now)]),
        listening_since: Timestamp::default(),
        heard: Default::default(),
    })
}

/// What children have said so far.
#[derive(Debug, Default)]
pub(super) struct World {
    numbers: BTreeMap<RunId, u32>,
    last: Option<Input>,
}

fn pick_task(run: &Run, pick: usize) -> Option<TaskNo> {
    let count = run.state.next_task().0 - 1;
    (count > 0).then(|| TaskNo(u32::try_from(pick % count as usize).unwrap() + 1))
}

fn pick_open(run: &Run, pick: usize) -> Option<TaskNo> {
    let open: Vec<_> = run.state.open_tasks().map(|view| view.open.task).collect();
    (!open.is_empty()).then(|| open[pick % open.len()])
}

fn parked(run: &Run) -> Vec<StepPath> {
    let undos = run.state.parked_undos().map(|entry| entry.step.clone());
    let steps = run.state.parked_steps().map(|(step, _)| step.clone());
    undos.chain(steps).collect()
}

/// Children that were ever started, with the steps they belong to.
fn children(run: &Run) -> Vec<(RunId, StepPath)> {
    let sent = run.events().into_iter().filter_map(|event| match event {
        crate::run::Event::MessageSent(sent) => match &*sent.body {
            Body::StartChild(start) if !start.detached => Some((start.run_id, start.step.clone())),
            _ => None,
        },
        _ => None,
    });
    sent.collect()
}

impl World {
    pub(super) fn input(&mut self, run: &mut Run, op: &Op) -> Option<Input> {
        Some(match op {
            Op::Outcome(pick, said) => {
                let task = pick_task(run, *pick)?;
                let outcome = said.outcome(task);
                Input::TaskEnded { task, outcome }
            }
            Op::OpenOutcome(pick, said) => {
                let task = pick_open(run, *pick)?;
                let outcome = said.outcome(task);
                Input::TaskEnded { task, outcome }
            }
            Op::Started(pick, ago) => {
                run.later(*ago);
                Input::TaskStarted {
                    task: pick_open(run, *pick).or(pick_task(run, *pick))?,
                    at: Timestamp(run.now.0 - i64::try_from(Span::from_secs(*ago / 2).0).unwrap()),
                }
            }
            Op::Lost(pick) => Input::TaskLost {
                task: pick_task(run, *pick)?,
            },
            Op::Beat(pick, ago, details) => {
                let before = |seconds| Timestamp(run.now.0 - i64::try_from(Span::from_secs(seconds).0).unwrap());
                Input::Heartbeat {
                    task: pick_open(run, *pick).or(pick_task(run, *pick))?,
                    beat: Beat {
                        began: before(*ago),
                        at: before(*ago / 3),
                        details: details.map(|details| json!(details).into()),
                    },
                }
            }
            Op::Silent(pick) => Input::WorkerSilent {
                task: pick_open(run, *pick).or(pick_task(run, *pick))?,
            },
            Op::Claim(pick, again) => Input::TaskClaimed {
                task: pick_open(run, *pick).or(pick_task(run, *pick))?,
                by: if *again { "one".into() } else { "other".into() },
            },
            Op::Left(pick) => Input::TaskLeft {
                task: pick_open(run, *pick).or(pick_task(run, *pick))?,
            },
            Op::Withdrawn(pick, withdrawn) => Input::Withdrawn {
                task: pick_open(run, *pick).or(pick_task(run, *pick))?,
                withdrawn: *withdrawn,
            },
            Op::Held(pick) => Input::DispatchHeld {
                task: pick_task(run, *pick)?,
                in_doubt: pick.is_multiple_of(2),
            },
            Op::Wake {
                seconds,
                log_behind,
                delivered,
            } => {
                run.later(*seconds);
                Input::Wake(Horizon {
                    log_read_to: Timestamp(run.now.0 - i64::try_from(Span::from_secs(*log_behind).0).unwrap()),
                    delivered_to: BTreeMap::from([("main".into(), if *delivered { run.now } else { Timestamp(0) })]),
                    listening_since: Timestamp(run.now.0 - i64::try_from(Span::from_secs(*log_behind).0).unwrap()),
                    heard: Default::default(),
                })
            }
            Op::WakeNext => {
                run.now = run.now.max(run.state.wake_at()?);
                full_wake(run.now)
            }
            Op::Cancel(id) => Input::Cancel(request(&format!("cancel-{id}"))),
            Op::Terminate => Input::Terminate(by("ann")),
            Op::Await(closed) => Input::Await(answer(
                "inbox",
                if *closed { AnswerOn::Closed } else { AnswerOn::Started },
            )),
            Op::Park => Input::Park {
                reason: "broken".into(),
            },
            Op::Resume => Input::Parked {
                direction: None,
                step: StepPath::new(""),
                action: ParkedAction::Retry,
                operation: by("ann"),
            },
            Op::Operate(pick, action) => {
                let parked = parked(run);
                Input::Parked {
                    direction: None,
                    step: parked.get(pick % parked.len().max(1))?.clone(),
                    action: match action % 4 {
                        0 => ParkedAction::Retry,
                        1 => ParkedAction::RetryWithInput(json!("edited").into()),
                        2 => ParkedAction::MarkDone,
                        _ => ParkedAction::Skip,
                    },
                    operation: by("ann"),
                }
            }
            Op::Signal(body, id) => Input::Signal {
                name: "go".into(),
                body: json!(body).into(),
                operation: Operation {
                    request_id: id.map(|id| format!("signal-{id}").as_str().into()),
                    ..Operation::default()
                },
            },
            Op::Answer(pick, accepted) => {
                let sent = run.state.mail.sent;
                let pending = run.pending();
                let number = match pending.get(pick % (pending.len() + 1)) {
                    Some((number, _)) => *number,
                    None if sent > 0 => MessageNo(u32::try_from(pick % sent as usize).unwrap() + 1),
                    None => return None,
                };
                let refusal = [Refusal::NoRun, Refusal::IdTaken, Refusal::Closed, Refusal::PastPivot][pick % 4];
                let body = pending.into_iter().find(|(pending, _)| *pending == number);
                let granted = match body.as_ref().map(|(_, body)| &**body) {
                    Some(Body::Ask(ask)) => Some(ask.limit.clone()),
                    // An old copy of what was taken back is granted.
                    None if !run.state.mail.refused.contains_key(&number) && pick % 2 == 0 => Some(limit()),
                    _ => None,
                };
                Input::MessageAnswered {
                    number,
                    answer: if let Some(limit) = granted.filter(|_| *accepted) {
                        let at = [None, Some(1), Some(2)][pick % 3].map(crate::time::Timestamp);
                        Answer::Granted { limit, at }
                    } else if *accepted {
                        Answer::Accepted
                    } else {
                        Answer::refused(refusal, "no")
                    },
                }
            }
            Op::ChildClosed(pick, status) => {
                let children = children(run);
                let (child, step) = children.get(pick % children.len().max(1))?.clone();
                let statuses = [
                    Status::Completed,
                    Status::Completed,
                    Status::Compensated,
                    Status::Cancelled,
                    Status::Terminated,
                    Status::CompensationFailed,
                ];
                self.child_closed(child, step, statuses[status % statuses.len()])
            }
            Op::Repeat => self.last.clone()?,
            Op::OtherCancels => Input::Message {
                from: other(),
                number: MessageNo(1),
                body: Body::Cancel { operation: by("other") },
            },
        })
    }

    fn child_closed(&mut self, child: RunId, step: StepPath, status: Status) -> Input {
        let number = self.numbers.entry(child).or_default();
        *number += 1;
        let input = Input::Message {
            from: Sender { run: child, ..other() },
            number: MessageNo(*number),
            body: Body::ChildClosed(ChildClosed {
                child,
                step,
                status,
                output: json!(1).into(),
                error: (status != Status::Completed).then(|| Failure::cancelled("no")),
            }),
        };
        self.last = Some(input.clone());
        input
    }

    /// What workers, children and operators who mean well do next.
    pub(super) fn willing(&mut self, run: &mut Run) -> Option<Input> {
        if run.state.parked_reason().is_some() && !run.state.is_closed() {
            return self.input(run, &Op::Resume);
        }
        if let Some((number, body)) = run.pending().first() {
            let answer = match &**body {
                Body::Ask(ask) => Answer::Granted {
                    limit: ask.limit.clone(),
                    at: None,
                },
                _ => Answer::Accepted,
            };
            return Some(Input::MessageAnswered {
                number: *number,
                answer,
            });
        }
        if let Some(task) = pick_open(run, 0) {
            let outcome = done(json!({"id": task.0}));
            return Some(Input::TaskEnded { task, outcome });
        }
        let open = run.state.open.iter();
        let child = open.filter_map(|(step, open)| match open {
            Open::Child(child) => Some((child.run, step.clone(), Status::Completed)),
            _ => None,
        });
        let ledger = run.state.ledger().iter();
        let undone = ledger
            .filter(|entry| entry.state == UndoState::Running)
            .filter_map(|entry| {
                let child = entry.child.as_ref()?;
                Some((child.run, entry.step.clone(), Status::Compensated))
            });
        if let Some((child, step, status)) = child.chain(undone).next() {
            return Some(self.child_closed(child, step, status));
        }
        if run.state.wake_at().is_some() {
            return self.input(run, &Op::WakeNext);
        }
        if run.state.open.values().any(|open| matches!(open, Open::Signal { .. })) {
            return self.input(run, &Op::Signal(1, None));
        }
        let step = parked(run).into_iter().next()?;
        Some(Input::Parked {
            direction: None,
            step,
            action: ParkedAction::MarkDone,
            operation: by("ann"),
        })
    }
}

fn limit() -> LimitName {
    LimitName {
        kind: LimitKind::Activity,
        of: "some".into(),
        key: "".into(),
    }
}

fn other() -> Sender {
    Sender {
        run: RunId(uuid::Uuid::from_u128(77)),
        namespace: "default".into(),
        workflow_id: "other".into(),
    }
}
