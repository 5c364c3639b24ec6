//! Histories of what runs have learned since `golden/v2`: heartbeats, claims, *later*, silence, timeouts beside start-to-close,
//! permits, limits that an operator raised, and schedules.
//!
//! `golden/v3` was recorded by playing the scripts below, once, by the version that first knew them; where the directory is
//! there nothing is written. A directory is never changed: what a later version decides otherwise on purpose gets a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use knarr_core::definition::{from_canonical, plan::Plan, read, read_schedule};
use knarr_core::ids::{MessageNo, QueueName, RequestId, RunId, TaskNo};
use knarr_core::limit::{Bound, LimitKind, LimitName};
use knarr_core::replay;
use knarr_core::run::input::{Beat, Horizon, Input, Operation, Start, TaskOutcome, WorkerError};
use knarr_core::run::limits::RunLimits;
use knarr_core::run::message::{Answer, Body, ChildClosed, Sender};
use knarr_core::run::{self, QueueLimits, State, Status, TaskLimit, Transition, schedule};
use knarr_core::schedule::Command;
use knarr_core::time::Timestamp;
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

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v3")
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
        let start = Start {
            run_id: RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0007)),
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
            continues: None,
        };
        let limits = RunLimits {
            events: Some(60_000),
            ..RunLimits::default()
        };
        let began = match workflow_id.starts_with('$') {
            true => run::start(&plan, start, Timestamp(T0)),
            false => run::start_within(limits, &plan, start, Timestamp(T0), &queues),
        };
        let (state, transition) = began.expect("a start");
        Self {
            plan,
            state,
            now: T0,
            queues,
            history: vec![transition],
        }
    }

    fn of(text: &str, input: Value, queues: QueueLimits) -> Self {
        let checked = read(text, &|_| Err("no files".to_owned())).unwrap_or_else(|findings| panic!("{findings:?}"));
        // As it is stored, so that its hash is that of the recorded one.
        let plan = from_canonical(&checked.canonical).expect("a definition");
        Self::new(plan, "w-1", input, queues)
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
    fn fail(&mut self) -> &mut Self {
        self.end(TaskOutcome::Failed(WorkerError {
            error_type: "declined".into(),
            message: "no funds".into(),
            retryable: true,
            not_done: false,
            retry_after: None,
        }))
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

type Script = fn() -> Player;

/// Name, script, and definition.
const SCRIPTS: [(&str, Script, Option<&str>); 5] = [
    ("job", job, Some(JOB)),
    ("delivered", delivered, Some(JOB)),
    ("limited", limited, Some(LIMITED)),
    ("starved", starved, Some(STARVED)),
    ("nightly", nightly, None),
];

fn told(transition: &Transition) -> Value {
    json!({ "seq": transition.seq, "at": transition.at, "events": transition.events })
}

#[test]
fn recorded_once() {
    if std::env::var_os("KNARR_WRITE").is_none() || golden().exists() {
        return;
    }
    std::fs::create_dir_all(golden()).expect("a folder");
    for (name, script, definition) in SCRIPTS {
        let lines: Vec<String> = script().history.iter().map(|it| told(it).to_string()).collect();
        std::fs::write(golden().join(format!("{name}.history.jsonl")), lines.join("\n") + "\n").expect("a file");
        if let Some(text) = definition {
            let checked = read(text, &|_| Err("no files".to_owned())).expect("a definition");
            let file = golden().join(format!("{}.definition.json", checked.plan.workflow));
            std::fs::write(file, checked.canonical).expect("a file");
        }
    }
}

fn stored(name: &str) -> Vec<Transition> {
    let text = std::fs::read_to_string(golden().join(format!("{name}.history.jsonl"))).expect("a golden file");
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
    for (name, script, definition) in SCRIPTS {
        let transitions = stored(name);
        // Today's run of the same script is in the same state as yesterday's history.
        let mut state = State::born(&transitions[0]).expect("a birth");
        for transition in &transitions[1..] {
            run::evolve(&mut state, transition);
        }
        let today = script();
        assert_eq!(today.history, transitions, "{name}");
        assert_eq!(today.state, state, "{name}");

        let plan = definition.map(|_| {
            let file = golden().join(format!("{}.definition.json", state.workflow()));
            from_canonical(&std::fs::read_to_string(file).expect("a definition")).expect("one that still reads")
        });
        let history = replay::History {
            transitions,
            status: None,
        };
        let report = replay::replay(&history, plan.as_ref()).expect("a whole history");
        assert!(report.is_good(), "{name}: {report:#?}");
        assert_eq!(report.folded_only, 0, "{name}: every input is told by its events");
    }
}

/// The kinds of events that are in no other directory.
#[test]
fn every_event_that_came_since_is_in_one_of_them() {
    let mut seen = BTreeSet::new();
    for (name, ..) in SCRIPTS {
        for transition in stored(name) {
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
        "schedule",
        "ask",
        "granted",
        "release",
        "limits",
    ] {
        assert!(seen.contains(kind), "{kind}: {seen:?}");
    }
}
