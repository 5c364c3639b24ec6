//! Histories of what runs have learned since `golden/v2`: heartbeats, claims, *later*, silence, timeouts beside start-to-close,
//! permits, limits that an operator raised, and schedules (`golden/v3`); of the rarer ends of everything else, operators' decisions
//! above all (`golden/v4`); and of runs that are tried again, undos that hold up the others where their steps say so, and tasks that are
//! taken out of their queue since their run is cancelled (`golden/v5`); and handlers of signals and updates (`golden/v6`).
//!
//! The directories were recorded by playing the scripts below, once, by the version that first knew them; where a directory is
//! there nothing is written. A directory is never changed: what a later version decides otherwise on purpose gets a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use knarr_core::definition::{from_canonical, plan::Plan, read, read_schedule};
use knarr_core::ids::{MessageNo, QueueName, RequestId, RunId, TaskNo};
use knarr_core::limit::{Bound, LimitKind, LimitName};
use knarr_core::replay;
use knarr_core::run::input::{
    AnswerOn, AnswerRequest, Beat, Horizon, Input, Operation, ParkedAction, Start, TaskOutcome, Terms, WorkerError,
};
use knarr_core::run::limits::RunLimits;
use knarr_core::run::message::{Answer, Body, ChildClosed, Parent, Sender};
use knarr_core::run::migrate::Target;
use knarr_core::run::{self, QueueLimits, State, Status, TaskLimit, Transition, UpdateAnswer, UpdateStage, schedule};
use knarr_core::schedule::Command;
use knarr_core::time::{Span, Timestamp};
use serde_json::{Value, json};

const T0: i64 = 1_800_000_000_000_000;
const SECOND: i64 = 1_000_000;

const JOB: &str = r#"
workflow: job
version: 1
defaults: { queue: main, start_to_close: 1h, retry: { initial_interval: 1s, maximum_attempts: 3 } }
steps:
  - heard: { activity: hear, heartbeat: 5s, compensate: { activity: unhear, schedule_to_close: 1h } }
  - claimed: { activity: claim, retry: { maximum_attempts: 1 }, read_only: true }
  - late: { activity: late, schedule_to_start: 10s, read_only: true, on_failure: continue }
  - long: { activity: long, schedule_to_close: 30s, retry: { initial_interval: 1m }, read_only: true, on_failure: continue }
  - left: { activity: leave, cancellation: abandon, compensate: { activity: unleave } }
"#;

const LIMITED: &str = r#"
workflow: limited
version: 1
defaults: { queue: main, start_to_close: 1m, retry: { initial_interval: 1s, maximum_attempts: 3 } }
steps:
  - work:
      activity: work
      concurrency: { limit: 2, key: input.customer }
      rate: { limit: 10, per: 1s }
      priority: 1
      fairness_key: input.tenant
      compensate: { activity: unwork }
  - last: { activity: last, no_undo: it is read, retry: { maximum_attempts: 1 } }
"#;

const STARVED: &str = r#"
workflow: starved
version: 1
defaults: { queue: main, start_to_close: 1m, retry: { initial_interval: 1s, maximum_attempts: 3 } }
steps:
  - work: { activity: work, concurrency: { limit: 1 }, schedule_to_close: 30s, read_only: true, on_failure: continue }
"#;

const LOSERS: &str = r#"
workflow: losers
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { initial_interval: 1s, maximum_attempts: 2 } }
steps:
  - first: { activity: first, compensate: { activity: unfirst, input: "${ error.message }" } }
  - any:
      parallel:
        branches:
          l: { steps: [ { la: { activity: la, compensate: unla } } ] }
          r: { steps: [ { ra: { activity: ra, compensate: unra } } ] }
        join: any
  - last: { activity: last, read_only: true }
"#;

const FORWARD: &str = r#"
workflow: forward
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { initial_interval: 1s, maximum_attempts: 2 } }
steps:
  - pay: { activity: pay, pivot: true }
  - book: { activity: book, schedule_to_close: 30s, no_undo: it is booked }
  - ship: { activity: ship, no_undo: it is gone }
"#;

const TIMED: &str = r#"
workflow: timed
version: 1
timeout: 1m
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - hold: { activity: hold, compensate: { activity: unhold, retry: { maximum_attempts: 1 } } }
  - go: { wait_for: { signal: go, timeout: 1h } }
"#;

const BLOCKED: &str = r#"
workflow: blocked
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - a: { activity: a, compensate: ua }
  - b: { activity: b, compensate: ub }
"#;

const KID: &str = r#"
workflow: kid
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - hold: { activity: hold, compensate: unhold }
"#;

const ADMITTED: &str = r#"
workflow: admitted
version: 1
concurrency: { key: input.customer, limit: 1, on_conflict: queue }
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - a: { activity: a, compensate: ua }
"#;

const MOVED: &str = r#"
workflow: moved
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - a: { activity: a, compensate: ua }
  - b: { activity: b, compensate: ub }
"#;

const BASKET: &str = r#"
workflow: basket
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - hold: { activity: hold, compensate: unhold }
  - last: { activity: last, read_only: true }
signals:
  add:
    schema: { type: object, required: [sku] }
    steps:
      - reserve: { activity: reserve, input: "${ signal.sku }", compensate: { activity: release, input: "${ signal.sku }" } }
      - count: { set: { items: "${ vars.items | default(0) + 1 }" } }
updates:
  discount:
    schema: { type: integer }
    validate: "'too much' if update > 50 else true"
    steps: [ { check: { activity: check, read_only: true } } ]
    output: "${ [update, steps.check.id] }"
output: "${ vars.items | default(0) }"
"#;

const AGAIN: &str = r#"
workflow: again
version: 1
timeout: 1h
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 1 } }
retry: { initial_interval: 2s, maximum_attempts: 3, non_retryable: [refused] }
steps:
  - hold: { activity: hold, compensate: unhold }
  - book: { activity: book, read_only: true }
output: "${ run.attempt }"
"#;

const HALTS: &str = r#"
workflow: halts
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 1 } }
steps:
  - a: { activity: a, compensate: ua }
  - b: { activity: b, compensate: { activity: ub, retry: { maximum_attempts: 1 }, on_exhausted: halt } }
  - c: { activity: c, read_only: true }
"#;

const RECALLED: &str = r#"
workflow: recalled
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { initial_interval: 1s, maximum_attempts: 2 } }
steps:
  - first: { activity: first, compensate: unfirst }
  - both:
      parallel:
        branches:
          l: { steps: [ { la: { activity: la, compensate: unla } } ] }
          r: { steps: [ { ra: { activity: ra, compensate: unra, cancellation: wait_cancelled, heartbeat: 5s } } ] }
"#;

fn golden(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(directory)
}

const RUN: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0007));

fn begin(workflow_id: &str, input: Value) -> Start {
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
fn under(limits: RunLimits) -> Terms {
    let withdraws = false;
    Terms { limits, withdraws }
}

/// As it is stored, so that its hash is that of the recorded one.
fn plan(text: &str) -> Plan {
    let checked = read(text, &|_| Err("no files".to_owned())).unwrap_or_else(|findings| panic!("{findings:?}"));
    from_canonical(&checked.canonical).expect("a definition")
}

/// A run that a script plays.
struct Player {
    plan: Plan,
    state: State,
    now: i64,
    queues: QueueLimits,
    history: Vec<Transition>,
}

impl Player {
    fn new(plan: Plan, workflow_id: &str, input: Value, queues: QueueLimits) -> Self {
        let limits = RunLimits {
            events: Some(60_000),
            ..RunLimits::default()
        };
        Self::began(plan, begin(workflow_id, input), under(limits), queues)
    }

    fn began(plan: Plan, start: Start, terms: Terms, queues: QueueLimits) -> Self {
        Self::began_at(T0, plan, start, terms, queues)
    }

    fn began_at(now: i64, plan: Plan, start: Start, terms: Terms, queues: QueueLimits) -> Self {
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

    fn of(text: &str, input: Value, queues: QueueLimits) -> Self {
        Self::new(plan(text), "w-1", input, queues)
    }

    /// So many seconds later.
    fn after(&mut self, seconds: i64) -> &mut Self {
        self.now += seconds * SECOND;
        self
    }

    #[track_caller]
    fn take(&mut self, input: Input) -> &mut Self {
        let decided = run::apply_within(&self.plan, &mut self.state, input, Timestamp(self.now), &self.queues);
        self.history
            .push(decided.expect("it is taken").expect("it changes something"));
        self
    }

    /// At the next deadline, with everything read; the tasks are in their queue still, or out.
    #[track_caller]
    fn wake(&mut self, delivered: bool) -> &mut Self {
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

    fn task(&self) -> TaskNo {
        self.state.open_tasks().next().expect("a task").open.task
    }

    fn beat(&mut self, details: Option<Value>) -> &mut Self {
        let beat = Beat {
            began: Timestamp(self.now),
            at: Timestamp(self.now),
            details: details.map(Arc::new),
        };
        let task = self.task();
        self.take(Input::Heartbeat { task, beat })
    }

    #[track_caller]
    fn end(&mut self, outcome: TaskOutcome) -> &mut Self {
        let task = self.task();
        self.take(Input::TaskEnded { task, outcome })
    }

    #[track_caller]
    fn complete(&mut self) -> &mut Self {
        self.end(TaskOutcome::Completed {
            output: Arc::new(json!({ "id": 7 })),
        })
    }

    #[track_caller]
    fn complete_step(&mut self, step: &str) -> &mut Self {
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
    fn fail(&mut self) -> &mut Self {
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
    fn give_up(&mut self) -> &mut Self {
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
    fn decide(&mut self, step: &str, action: ParkedAction) -> &mut Self {
        let operation = by(&format!("o-{}", self.history.len()));
        self.take(Input::Parked {
            step: step.into(),
            direction: None,
            action,
            operation,
        })
    }

    fn pending(&self, wanted: impl Fn(&Body) -> Option<Answer>) -> Vec<(MessageNo, Answer)> {
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
    fn grant(&mut self) -> &mut Self {
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
    fn accept(&mut self) -> &mut Self {
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

fn by(request: &str) -> Operation {
    Operation {
        request_id: Some(RequestId::new(request)),
        by: Some("ann".into()),
        ..Operation::default()
    }
}

fn job() -> Player {
    let mut run = Player::of(JOB, json!({ "order": 1 }), QueueLimits::new());
    // Details that a failure makes news of; silence, and a beat after all; then it is lost.
    run.after(1).beat(Some(json!({ "page": 1 }))).fail();
    run.wake(true).after(1).beat(Some(json!({ "page": 2 })));
    let task = run.task();
    run.after(1).take(Input::WorkerSilent { task });
    run.after(1).beat(None);
    run.after(1).take(Input::WorkerSilent { task });
    run.wake(true).wake(true).complete();
    // At most once, finished by somebody else.
    let task = run.task();
    run.take(Input::TaskClaimed { task, by: "me".into() });
    run.take(Input::TaskLeft { task }).after(100).complete();
    // Nobody takes it.
    run.wake(false);
    let task = run.task();
    run.take(Input::Withdrawn { task, withdrawn: true });
    // It has no time for another attempt.
    run.after(5).fail().wake(true);
    let operation = by("stop");
    run.take(Input::Cancel(operation)).complete().complete();
    assert_eq!(run.state.status(), Status::Cancelled);
    run
}

/// Whose task is not taken back any more: a worker has it, and says so.
fn delivered() -> Player {
    let mut run = Player::of(JOB, json!({ "order": 2 }), QueueLimits::new());
    run.complete();
    let task = run.task();
    run.take(Input::TaskClaimed { task, by: "me".into() }).complete();
    run.wake(false);
    let task = run.task();
    run.take(Input::Withdrawn { task, withdrawn: false })
        .complete()
        .complete()
        .complete();
    assert_eq!(run.state.status(), Status::Completed);
    run
}

fn limited() -> Player {
    let queues: QueueLimits = [(
        QueueName::new("main"),
        vec![TaskLimit {
            name: LimitName {
                kind: LimitKind::Queue,
                of: "main".into(),
                key: Arc::default(),
            },
            bound: Bound::Concurrent(10),
        }],
    )]
    .into();
    let mut run = Player::of(LIMITED, json!({ "customer": "c-1", "tenant": "t-1" }), queues);
    run.after(1).grant().fail().accept();
    run.wake(true).grant();
    let limits = RunLimits {
        events: Some(70_000),
        pending: Some(5_000),
        ..RunLimits::default()
    };
    let operation = by("more");
    run.take(Input::RaiseLimits { limits, operation });
    run.complete().accept().grant().fail().accept();
    run.grant().complete().accept();
    assert_eq!(run.state.status(), Status::Compensated);
    run
}

/// Nobody has a permit to spare for as long as it may wait.
fn starved() -> Player {
    let mut run = Player::of(STARVED, Value::Null, QueueLimits::new());
    run.wake(true);
    while run.state.status() != Status::Completed {
        run.wake(true);
    }
    run.accept();
    run
}

fn nightly() -> Player {
    let text = "workflow: report\nevery: 10s\noverlap: buffer_one\n";
    let spec = Box::new(read_schedule(text).unwrap_or_else(|findings| panic!("{findings:?}")).1);
    let command = serde_json::to_value(Command::Create(spec)).expect("JSON");
    let id = schedule::workflow_id("nightly");
    let mut run = Player::new(schedule::plan(), id.as_str(), command, QueueLimits::new());
    run.wake(true).accept();
    let started = run.history.iter().flat_map(|transition| &transition.events);
    let child = started
        .filter_map(|event| match event {
            run::Event::MessageSent(sent) => sent.to.run,
            _ => None,
        })
        .next()
        .expect("an occurrence");
    run.wake(true).wake(true);
    let closed = ChildClosed {
        child,
        step: "".into(),
        status: Status::Failed,
        output: Arc::default(),
        error: None,
    };
    run.take(Input::Message {
        from: Sender {
            run: child,
            namespace: "default".into(),
            workflow_id: "nightly-1".into(),
        },
        number: MessageNo(1),
        body: Body::ChildClosed(closed),
    });
    for (request, command) in [
        ("p", Command::Pause),
        ("t", Command::Trigger { overlap: None }),
        ("r", Command::Resume),
        (
            "b",
            Command::Backfill {
                from: Timestamp(T0 - 60 * SECOND),
                until: Timestamp(T0 - 40 * SECOND),
                overlap: None,
            },
        ),
    ] {
        let command = Box::new(command);
        let operation = by(request);
        run.after(1).take(Input::Schedule { command, operation });
    }
    run
}

fn losers() -> Player {
    let mut run = Player::of(LOSERS, Value::Null, QueueLimits::new());
    run.complete();
    let task = run.task();
    run.end(TaskOutcome::RetryLater {
        after: Some(Span::from_secs(5)),
    });
    // The other branch wins, and what the first may have done is undone.
    run.complete().complete();
    let outcome = TaskOutcome::Completed {
        output: Arc::new(json!({ "id": 8 })),
    };
    run.after(1).take(Input::TaskEnded { task, outcome });
    run.fail().wake(true).fail().complete().complete();
    assert_eq!(run.state.status(), Status::Compensated);
    run
}

fn forward() -> Player {
    let mut run = Player::of(FORWARD, Value::Null, QueueLimits::new());
    let task = run.task();
    run.take(Input::DispatchHeld { task, in_doubt: false });
    // Offered again, and looked at in its queue.
    run.wake(false).wake(false).complete();
    let reason = "broken".into();
    run.take(Input::Park { reason }).decide("", ParkedAction::Retry);
    // Past the pivot no timeout ends a step: delivered, late, tried again, void.
    run.wake(true).wake(true).wake(true).wake(true);
    run.give_up().decide("book", ParkedAction::Retry).give_up();
    let output = Arc::new(json!({ "id": 9 }));
    run.decide("book", ParkedAction::MarkDoneWithOutput(output));
    run.take(Input::Await(AnswerRequest {
        to: "_INBOX.a".into(),
        on: AnswerOn::Closed,
    }));
    run.take(Input::Terminate(by("end")));
    assert_eq!(run.state.status(), Status::Terminated);
    run
}

fn timed() -> Player {
    let mut run = Player::of(TIMED, Value::Null, QueueLimits::new());
    run.complete().wake(true).fail();
    run.decide("hold", ParkedAction::Retry).complete();
    assert_eq!(run.state.status(), Status::TimedOut);
    run
}

fn blocked() -> Player {
    let limits = |events| RunLimits {
        events: Some(events),
        ..RunLimits::default()
    };
    let mut run = Player::began(
        plan(BLOCKED),
        begin("w-1", Value::Null),
        under(limits(4)),
        QueueLimits::new(),
    );
    run.complete();
    assert_eq!(run.state.status(), Status::Parked);
    let (limits, operation) = (limits(100), by("more"));
    run.take(Input::RaiseLimits { limits, operation }).complete();
    assert_eq!(run.state.status(), Status::Completed);
    run
}

/// It has completed, and its parent asks it to undo.
fn reopened() -> Player {
    let of_parent = RunId(uuid::Uuid::from_u128(9));
    let parent = Parent {
        run: of_parent,
        namespace: "default".into(),
        workflow_id: "p-1".into(),
        step: "kid".into(),
        message: MessageNo(1),
        child: RUN,
        detached: false,
        scheduled: None,
    };
    let start = Start {
        parent: Some(Box::new(parent)),
        ..begin("w-1", Value::Null)
    };
    let mut run = Player::began(plan(KID), start, Terms::default(), QueueLimits::new());
    run.complete();
    let error = run::Failure {
        step: None,
        error_type: "declined".into(),
        message: "no funds".into(),
    };
    run.after(1).take(Input::Message {
        from: Sender {
            run: of_parent,
            namespace: "default".into(),
            workflow_id: "p-1".into(),
        },
        number: MessageNo(2),
        body: Body::Undo { error },
    });
    run.complete();
    assert_eq!(run.state.status(), Status::Compensated);
    run
}

/// It waits for its workflow id, then for its place.
fn admitted() -> Player {
    let start = Start {
        queued: true,
        ..begin("w-1", json!({ "customer": "c-1" }))
    };
    let mut run = Player::began(plan(ADMITTED), start, Terms::default(), QueueLimits::new());
    run.take(Input::IdFree).grant().complete().accept();
    assert_eq!(run.state.status(), Status::Completed);
    run
}

fn moved() -> Player {
    let next = MOVED.replace("version: 1", "version: 2") + "  - c: { activity: c, compensate: uc }\n";
    let mut run = Player::of(MOVED, Value::Null, QueueLimits::new());
    run.complete();
    let to = Target(Arc::new(plan(&next)));
    let operation = by("move");
    run.take(Input::Migrate { to, operation });
    run.plan = plan(&next);
    run.complete().complete();
    assert_eq!(run.state.status(), Status::Completed);
    run
}

/// What has come to a basket, and was decided about.
fn basket() -> Player {
    let mut run = Player::of(BASKET, json!({}), QueueLimits::default());
    for sku in ["a", "b"] {
        run.after(1).take(Input::Signal {
            name: "add".into(),
            body: json!({ "sku": sku }).into(),
            operation: by(sku),
        });
    }
    run.complete_step("$signals.add[0].reserve");
    let update = |n: u32, id: &str, to: &str, on: UpdateStage| Input::Update {
        name: "discount".into(),
        body: json!(n).into(),
        operation: by(id),
        answer: Some(UpdateAnswer { to: to.into(), on }),
    };
    run.take(update(10, "u-1", "inbox.1", UpdateStage::Accepted));
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.take(update(20, "u-2", "inbox.2", UpdateStage::Completed));
    run.take(update(60, "u-3", "inbox.3", UpdateStage::Completed));
    run.take(update(20, "u-2", "inbox.4", UpdateStage::Accepted));
    run.decide("", ParkedAction::Retry);
    run.complete_step("hold").complete_step("last");
    run.complete_step("$updates.discount[0].check");
    run
}

/// The run completes when its handlers have nothing left to do.
fn handled() -> Player {
    let mut run = basket();
    run.complete_step("$signals.add[1].reserve");
    run.complete_step("$updates.discount[1].check");
    assert_eq!(run.state.status(), Status::Completed);
    run
}

/// A handler fails for good, and everything is undone.
fn unhandled() -> Player {
    let mut run = basket();
    run.complete_step("$signals.add[1].reserve");
    run.give_up();
    run.complete().complete().complete();
    assert_eq!(run.state.status(), Status::Compensated);
    run
}

/// It fails, undoes itself, and another attempt follows.
fn again() -> Player {
    let mut run = Player::of(AGAIN, json!({ "n": 1 }), QueueLimits::new());
    run.complete().give_up().after(1).complete();
    assert_eq!(run.state.status(), Status::Compensated);
    assert!(run.state.retried_by().is_some());
    run
}

/// The attempt that follows.
fn attempt() -> Player {
    let before = again();
    let start = before.state.successor().expect("another attempt");
    let mut run = Player::began_at(before.now, plan(AGAIN), start, Terms::default(), QueueLimits::new());
    run.wake(false).complete().complete();
    assert_eq!((run.state.status(), run.state.attempt()), (Status::Completed, 2));
    run
}

/// Somebody has asked it to cancel while it undid itself.
fn waived() -> Player {
    let mut run = Player::of(AGAIN, json!({ "n": 1 }), QueueLimits::new());
    run.complete().give_up();
    run.take(Input::Cancel(by("stop"))).complete();
    assert_eq!(
        (run.state.status(), run.state.retried_by()),
        (Status::Compensated, None)
    );
    run
}

fn halts() -> Player {
    let mut run = Player::of(HALTS, Value::Null, QueueLimits::new());
    run.complete().complete().give_up().give_up();
    assert_eq!(
        (run.state.status(), run.state.open_tasks().count()),
        (Status::Parked, 0)
    );
    run.decide("b", ParkedAction::MarkDone).complete();
    assert_eq!(run.state.status(), Status::Compensated);
    run
}

/// Both branches lie in their queue when the run is cancelled: one task is taken out of it, the other was delivered.
fn recalled() -> Player {
    let terms = Terms {
        withdraws: true,
        ..Terms::default()
    };
    let mut run = Player::began(plan(RECALLED), begin("w-1", Value::Null), terms, QueueLimits::new());
    run.complete().after(1).take(Input::Cancel(by("stop")));
    let task = run.task();
    run.take(Input::Withdrawn { task, withdrawn: true });
    let task = run.task();
    run.take(Input::Withdrawn { task, withdrawn: false });
    run.take(Input::TaskEnded {
        task,
        outcome: TaskOutcome::Cancelled,
    });
    run.complete();
    assert_eq!(run.state.status(), Status::Cancelled);
    run
}

type Script = fn() -> Player;

/// Directory, name, script, and definition.
const SCRIPTS: [(&str, &str, Script, Option<&str>); 19] = [
    ("v3", "job", job, Some(JOB)),
    ("v3", "delivered", delivered, Some(JOB)),
    ("v3", "limited", limited, Some(LIMITED)),
    ("v3", "starved", starved, Some(STARVED)),
    ("v3", "nightly", nightly, None),
    ("v4", "losers", losers, Some(LOSERS)),
    ("v4", "forward", forward, Some(FORWARD)),
    ("v4", "timed", timed, Some(TIMED)),
    ("v4", "blocked", blocked, Some(BLOCKED)),
    ("v4", "reopened", reopened, Some(KID)),
    ("v4", "admitted", admitted, Some(ADMITTED)),
    ("v4", "moved", moved, Some(MOVED)),
    ("v5", "again", again, Some(AGAIN)),
    ("v5", "attempt", attempt, Some(AGAIN)),
    ("v5", "waived", waived, Some(AGAIN)),
    ("v5", "halts", halts, Some(HALTS)),
    ("v5", "recalled", recalled, Some(RECALLED)),
    ("v6", "handled", handled, Some(BASKET)),
    ("v6", "unhandled", unhandled, Some(BASKET)),
];

fn told(transition: &Transition) -> Value {
    json!({ "seq": transition.seq, "at": transition.at, "events": transition.events })
}

#[test]
fn recorded_once() {
    if std::env::var_os("KNARR_WRITE").is_none() {
        return;
    }
    let missing: BTreeSet<_> = SCRIPTS
        .iter()
        .map(|script| script.0)
        .filter(|it| !golden(it).exists())
        .collect();
    for (directory, name, script, definition) in SCRIPTS {
        if !missing.contains(directory) {
            continue;
        }
        let folder = golden(directory);
        std::fs::create_dir_all(&folder).expect("a folder");
        let lines: Vec<String> = script().history.iter().map(|it| told(it).to_string()).collect();
        std::fs::write(folder.join(format!("{name}.history.jsonl")), lines.join("\n") + "\n").expect("a file");
        if let Some(text) = definition {
            let checked = read(text, &|_| Err("no files".to_owned())).expect("a definition");
            let file = folder.join(format!("{}.definition.json", checked.plan.workflow));
            std::fs::write(file, checked.canonical).expect("a file");
        }
    }
}

fn stored(directory: &str, name: &str) -> Vec<Transition> {
    let text = std::fs::read_to_string(golden(directory).join(format!("{name}.history.jsonl"))).expect("a golden file");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let again = |name: &str| line[name].clone();
        let transition = Transition::new(
            serde_json::from_value(again("seq")).expect("a number"),
            serde_json::from_value(again("at")).expect("a time"),
            serde_json::from_value(again("events")).expect("events that are still read"),
        );
        assert_eq!(told(&transition), line, "{name}: what is read is all there is");
        transition
    };
    text.lines().map(line).collect()
}

#[test]
fn what_was_recorded_then_folds_and_is_decided_again() {
    for (directory, name, script, definition) in SCRIPTS {
        let transitions = stored(directory, name);
        // Today's run of the same script is in the same state as yesterday's history.
        let mut state = State::born(&transitions[0]).expect("a birth");
        for transition in &transitions[1..] {
            run::evolve(&mut state, transition);
        }
        let today = script();
        assert_eq!(today.history, transitions, "{name}");
        assert_eq!(today.state, state, "{name}");

        let plan = definition.map(|_| {
            let file = golden(directory).join(format!("{}.definition.json", state.workflow()));
            from_canonical(&std::fs::read_to_string(file).expect("a definition")).expect("one that still reads")
        });
        // That a run moved, and what another version decided from there on, is folded.
        let is_move = |event: &run::Event| matches!(event, run::Event::RunMigrated { .. });
        let before = transitions.iter().take_while(|it| !it.events.iter().any(is_move));
        let moved = u32::try_from(transitions.len() - before.count()).expect("a short history");
        let history = replay::History {
            transitions,
            status: None,
        };
        let report = replay::replay(&history, plan.as_ref()).expect("a whole history");
        assert!(report.is_good(), "{name}: {report:#?}");
        assert_eq!(
            report.folded_only, moved,
            "{name}: every other input is told by its events"
        );
    }
}

/// The kinds of events that are in no other directory.
#[test]
fn every_event_that_came_since_is_in_one_of_them() {
    let mut seen = BTreeSet::new();
    for (directory, name, ..) in SCRIPTS {
        for transition in stored(directory, name) {
            for event in &transition.events {
                let value = serde_json::to_value(event).expect("JSON");
                seen.extend(value.as_object().and_then(|event| event.keys().next().cloned()));
                let text = value.to_string();
                seen.extend(
                    ["ask", "granted", "release", "limits"]
                        .into_iter()
                        .filter(|word| text.contains(&format!("\"{word}\"")))
                        .map(str::to_owned),
                );
            }
        }
    }
    for kind in [
        "heartbeat_taken",
        "worker_silent",
        "task_claimed",
        "task_left",
        "withdrawal_requested",
        "task_withdrawn",
        "schedule_to_close_passed",
        "task_abandoned",
        "limits_raised",
        "run_retried",
        "retry_waived",
        "schedule",
        "ask",
        "granted",
        "release",
        "limits",
        "awaited",
        "bodies_discarded",
        "deadline_deferred",
        "dispatch_held",
        "late_result",
        "run_admitted",
        "run_migrated",
        "run_parked",
        "run_reopened",
        "run_resumed",
        "run_terminated",
        "run_timed_out",
        "step_blocked",
        "step_parked",
        "step_resolved",
        "step_resumed",
        "task_deferred",
        "task_offered",
        "timeout_voided",
        "undo_needed",
        "undo_resumed",
        "handler_started",
        "handler_ended",
        "main_body_passed",
        "update_accepted",
        "update_put_off",
        "update_admitted",
        "update_refused",
        "update_awaited",
    ] {
        assert!(seen.contains(kind), "{kind}: {seen:?}");
    }
}
