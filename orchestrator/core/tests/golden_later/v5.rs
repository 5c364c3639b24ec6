//! Runs that are tried again, undos that hold up the others where their steps say so, and tasks that are taken out of their queue
//! since their run is cancelled.

use knarr_core::run::input::{Input, ParkedAction, TaskOutcome, Terms};
use knarr_core::run::{QueueLimits, Status};
use serde_json::{Value, json};

use super::player::{Player, begin, by, plan};

pub(super) const AGAIN: &str = r#"
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

pub(super) const HALTS: &str = r#"
workflow: halts
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 1 } }
steps:
  - a: { activity: a, compensate: ua }
  - b: { activity: b, compensate: { activity: ub, retry: { maximum_attempts: 1 }, on_exhausted: halt } }
  - c: { activity: c, read_only: true }
"#;

pub(super) const RECALLED: &str = r#"
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

/// It fails, undoes itself, and another attempt follows.
pub(super) fn again() -> Player {
    let mut run = Player::of(AGAIN, json!({ "n": 1 }), QueueLimits::new());
    run.complete().give_up().after(1).complete();
    assert_eq!(run.state.status(), Status::Compensated);
    assert!(run.state.retried_by().is_some());
    run
}

/// The attempt that follows.
pub(super) fn attempt() -> Player {
    let before = again();
    let start = before.state.successor().expect("another attempt");
    let mut run = Player::began_at(before.now, plan(AGAIN), start, Terms::default(), QueueLimits::new());
    run.wake(false).complete().complete();
    assert_eq!((run.state.status(), run.state.attempt()), (Status::Completed, 2));
    run
}

/// Somebody has asked it to cancel while it undid itself.
pub(super) fn waived() -> Player {
    let mut run = Player::of(AGAIN, json!({ "n": 1 }), QueueLimits::new());
    run.complete().give_up();
    run.take(Input::Cancel(by("stop"))).complete();
    assert_eq!(
        (run.state.status(), run.state.retried_by()),
        (Status::Compensated, None)
    );
    run
}

pub(super) fn halts() -> Player {
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
pub(super) fn recalled() -> Player {
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
