//! The rarer ends of everything that there was, operators' decisions above all.

use std::sync::Arc;

use knarr_core::ids::{MessageNo, RunId};
use knarr_core::run;
use knarr_core::run::input::{AnswerOn, AnswerRequest, Input, ParkedAction, Start, TaskOutcome, Terms};
use knarr_core::run::limits::RunLimits;
use knarr_core::run::message::{Body, Parent, Sender};
use knarr_core::run::migrate::Target;
use knarr_core::run::{QueueLimits, Status};
use knarr_core::time::Span;
use serde_json::{Value, json};

use super::player::{Player, RUN, begin, by, plan, under};

pub(super) const LOSERS: &str = r#"
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

pub(super) const FORWARD: &str = r#"
workflow: forward
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { initial_interval: 1s, maximum_attempts: 2 } }
steps:
  - pay: { activity: pay, pivot: true }
  - book: { activity: book, schedule_to_close: 30s, no_undo: it is booked }
  - ship: { activity: ship, no_undo: it is gone }
"#;

pub(super) const TIMED: &str = r#"
workflow: timed
version: 1
timeout: 1m
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - hold: { activity: hold, compensate: { activity: unhold, retry: { maximum_attempts: 1 } } }
  - go: { wait_for: { signal: go, timeout: 1h } }
"#;

pub(super) const BLOCKED: &str = r#"
workflow: blocked
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - a: { activity: a, compensate: ua }
  - b: { activity: b, compensate: ub }
"#;

pub(super) const KID: &str = r#"
workflow: kid
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - hold: { activity: hold, compensate: unhold }
"#;

pub(super) const ADMITTED: &str = r#"
workflow: admitted
version: 1
concurrency: { key: input.customer, limit: 1, on_conflict: queue }
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - a: { activity: a, compensate: ua }
"#;

pub(super) const MOVED: &str = r#"
workflow: moved
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - a: { activity: a, compensate: ua }
  - b: { activity: b, compensate: ub }
"#;

pub(super) fn losers() -> Player {
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

pub(super) fn forward() -> Player {
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

pub(super) fn timed() -> Player {
    let mut run = Player::of(TIMED, Value::Null, QueueLimits::new());
    run.complete().wake(true).fail();
    run.decide("hold", ParkedAction::Retry).complete();
    assert_eq!(run.state.status(), Status::TimedOut);
    run
}

pub(super) fn blocked() -> Player {
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
pub(super) fn reopened() -> Player {
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
pub(super) fn admitted() -> Player {
    let start = Start {
        queued: true,
        ..begin("w-1", json!({ "customer": "c-1" }))
    };
    let mut run = Player::began(plan(ADMITTED), start, Terms::default(), QueueLimits::new());
    run.take(Input::IdFree).grant().complete().accept();
    assert_eq!(run.state.status(), Status::Completed);
    run
}

pub(super) fn moved() -> Player {
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
