//! What was learned since `golden/v2`: heartbeats, claims, *later*, silence, timeouts beside start-to-close, permits, limits that an
//! operator raised, and schedules.

use std::sync::Arc;

use knarr_core::definition::read_schedule;
use knarr_core::ids::{MessageNo, QueueName};
use knarr_core::limit::{Bound, LimitKind, LimitName};
use knarr_core::run;
use knarr_core::run::input::Input;
use knarr_core::run::limits::RunLimits;
use knarr_core::run::message::{Body, ChildClosed, Sender};
use knarr_core::run::{QueueLimits, Status, TaskLimit, schedule};
use knarr_core::schedule::Command;
use knarr_core::time::Timestamp;
use serde_json::{Value, json};

use super::player::{Player, SECOND, T0, by};

pub(super) const JOB: &str = r#"
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

pub(super) const LIMITED: &str = r#"
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

pub(super) const STARVED: &str = r#"
workflow: starved
version: 1
defaults: { queue: main, start_to_close: 1m, retry: { initial_interval: 1s, maximum_attempts: 3 } }
steps:
  - work: { activity: work, concurrency: { limit: 1 }, schedule_to_close: 30s, read_only: true, on_failure: continue }
"#;

pub(super) fn job() -> Player {
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
pub(super) fn delivered() -> Player {
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

pub(super) fn limited() -> Player {
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
pub(super) fn starved() -> Player {
    let mut run = Player::of(STARVED, Value::Null, QueueLimits::new());
    run.wake(true);
    while run.state.status() != Status::Completed {
        run.wake(true);
    }
    run.accept();
    run
}

pub(super) fn nightly() -> Player {
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
