//! What a script plays: one run in virtual time, input by input, and its history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use knarr_core::definition::plan::Plan;
use knarr_core::definition::{from_canonical, read};
use knarr_core::ids::{MessageNo, QueueName, RequestId, RunId, TaskNo};
use knarr_core::run;
use knarr_core::run::input::{Beat, Horizon, Input, Operation, ParkedAction, Start, TaskOutcome, Terms, WorkerError};
use knarr_core::run::limits::RunLimits;
use knarr_core::run::message::{Answer, Body};
use knarr_core::run::{QueueLimits, State, Transition};
use knarr_core::time::Timestamp;
use serde_json::{Value, json};

pub(super) const T0: i64 = 1_800_000_000_000_000;

pub(super) const SECOND: i64 = 1_000_000;

pub(super) const RUN: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0007));

pub(super) fn begin(workflow_id: &str, input: Value) -> Start {
    Start {
        run_id: RUN,
        namespace: "default".into(),
        workflow_id: workflow_id.into(),
        input: Arc::new(input),
        request_id: Some(RequestId::new("r-1")),
        search_attributes: BTreeMap::new(),
        answer: None,
        traceparent: None,
        parent: None,
        priority: None,
        queued: false,
        begins_at: None,
        continues: None,
    }
}

/// As they were before tasks of halted steps were taken out of their queues.
pub(super) fn under(limits: RunLimits) -> Terms {
    let withdraws = false;
    Terms { limits, withdraws }
}

/// As it is stored, so that its hash is that of the recorded one.
pub(super) fn plan(text: &str) -> Plan {
    let checked = read(text, &|_| Err("no files".to_owned())).unwrap_or_else(|findings| panic!("{findings:?}"));
    from_canonical(&checked.canonical).expect("a definition")
}

/// A run that a script plays.
pub(super) struct Player {
    pub(super) plan: Plan,
    pub(super) state: State,
    pub(super) now: i64,
    pub(super) queues: QueueLimits,
    pub(super) history: Vec<Transition>,
}

impl Player {
    pub(super) fn new(plan: Plan, workflow_id: &str, input: Value, queues: QueueLimits) -> Self {
        let limits = RunLimits {
            events: Some(60_000),
            ..RunLimits::default()
        };
        Self::began(plan, begin(workflow_id, input), under(limits), queues)
    }

    pub(super) fn began(plan: Plan, start: Start, terms: Terms, queues: QueueLimits) -> Self {
        Self::began_at(T0, plan, start, terms, queues)
    }

    pub(super) fn began_at(now: i64, plan: Plan, start: Start, terms: Terms, queues: QueueLimits) -> Self {
        let began = match start.workflow_id.as_str().starts_with('$') {
            true => run::start(&plan, start, Timestamp(now)),
            false => run::start_within(terms, &plan, start, Timestamp(now), &queues),
        };
        let (state, transition) = began.expect("a start");
        Self {
            plan,
            state,
            now,
            queues,
            history: vec![transition],
        }
    }

    pub(super) fn of(text: &str, input: Value, queues: QueueLimits) -> Self {
        Self::new(plan(text), "w-1", input, queues)
    }

    /// So many seconds later.
    pub(super) fn after(&mut self, seconds: i64) -> &mut Self {
        self.now += seconds * SECOND;
        self
    }

    #[track_caller]
    pub(super) fn take(&mut self, input: Input) -> &mut Self {
        let decided = run::apply_within(&self.plan, &mut self.state, input, Timestamp(self.now), &self.queues);
        self.history
            .push(decided.expect("it is taken").expect("it changes something"));
        self
    }

    /// At the next deadline, with everything read; the tasks are in their queue still, or out.
    #[track_caller]
    pub(super) fn wake(&mut self, delivered: bool) -> &mut Self {
        self.now = self.state.wake_at().expect("a deadline").0.max(self.now);
        let to = if delivered { self.now } else { 0 };
        let horizon = Horizon {
            log_read_to: Timestamp(self.now),
            delivered_to: [(QueueName::new("main"), Timestamp(to))].into(),
            listening_since: Timestamp(0),
            heard: Default::default(),
        };
        self.take(Input::Wake(horizon))
    }

    pub(super) fn task(&self) -> TaskNo {
        self.state.open_tasks().next().expect("a task").open.task
    }

    pub(super) fn beat(&mut self, details: Option<Value>) -> &mut Self {
        let beat = Beat {
            began: Timestamp(self.now),
            at: Timestamp(self.now),
            details: details.map(Arc::new),
        };
        let task = self.task();
        self.take(Input::Heartbeat { task, beat })
    }

    #[track_caller]
    pub(super) fn end(&mut self, outcome: TaskOutcome) -> &mut Self {
        let task = self.task();
        self.take(Input::TaskEnded { task, outcome })
    }

    #[track_caller]
    pub(super) fn complete(&mut self) -> &mut Self {
        self.end(TaskOutcome::Completed {
            output: Arc::new(json!({ "id": 7 })),
        })
    }

    #[track_caller]
    pub(super) fn complete_step(&mut self, step: &str) -> &mut Self {
        let mut open = self.state.open_tasks();
        let task = open.find(|view| view.step.as_str() == step).expect("a task").open.task;
        drop(open);
        self.take(Input::TaskEnded {
            task,
            outcome: TaskOutcome::Completed {
                output: Arc::new(json!({ "id": 7 })),
            },
        })
    }

    #[track_caller]
    pub(super) fn fail(&mut self) -> &mut Self {
        self.end(TaskOutcome::Failed(WorkerError {
            error_type: "declined".into(),
            message: "no funds".into(),
            retryable: true,
            not_done: false,
            retry_after: None,
        }))
    }

    /// It is no use to try again.
    #[track_caller]
    pub(super) fn give_up(&mut self) -> &mut Self {
        self.end(TaskOutcome::Failed(WorkerError {
            error_type: "broken".into(),
            message: "for good".into(),
            retryable: false,
            not_done: false,
            retry_after: None,
        }))
    }

    /// An operator decides; every decision is a request of its own.
    #[track_caller]
    pub(super) fn decide(&mut self, step: &str, action: ParkedAction) -> &mut Self {
        let operation = by(&format!("o-{}", self.history.len()));
        self.take(Input::Parked {
            step: step.into(),
            direction: None,
            action,
            operation,
        })
    }

    pub(super) fn pending(&self, wanted: impl Fn(&Body) -> Option<Answer>) -> Vec<(MessageNo, Answer)> {
        let sent = self.history.iter().flat_map(|transition| &transition.events);
        let sent = sent.filter_map(|event| match event {
            run::Event::MessageSent(sent) => Some((sent.number, wanted(&sent.body)?)),
            _ => None,
        });
        let answered: BTreeSet<_> = self
            .history
            .iter()
            .flat_map(|transition| &transition.events)
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|event| match event {
                run::Event::MessageAnswered { number, .. } => Some(*number),
                _ => None,
            })
            .collect();
        sent.filter(|(number, _)| !answered.contains(number)).collect()
    }

    /// Every ask that is pending is granted, until there is none.
    pub(super) fn grant(&mut self) -> &mut Self {
        loop {
            let asks = self.pending(|body| match body {
                Body::Ask(ask) => Some(Answer::Granted {
                    limit: ask.limit.clone(),
                    at: None,
                }),
                _ => None,
            });
            let Some((number, answer)) = asks.into_iter().next() else {
                return self;
            };
            self.take(Input::MessageAnswered { number, answer });
        }
    }

    /// What was given back or started has been taken.
    pub(super) fn accept(&mut self) -> &mut Self {
        let sent = self.pending(|body| match body {
            Body::Release { .. } | Body::StartChild(_) => Some(Answer::Accepted),
            _ => None,
        });
        for (number, answer) in sent {
            self.take(Input::MessageAnswered { number, answer });
        }
        self
    }
}

pub(super) fn by(request: &str) -> Operation {
    Operation {
        request_id: Some(RequestId::new(request)),
        by: Some("ann".into()),
        ..Operation::default()
    }
}
