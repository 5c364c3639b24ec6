//! A pivot that may have been done, and waits for an operator: nobody goes back until it is known.

use serde_json::json;

use super::dsl::*;
use crate::run::event::StepOutcome;
use crate::run::input::{Input, ParkedAction, TaskOutcome, Terms, WorkerError};
use crate::run::limits::RunLimits;
use crate::run::{Event, Status};

fn pay() -> Def {
    act("pay").pivot(true).undo(UndoDef::NoUndo)
}

fn ship() -> Def {
    act("ship").undo(UndoDef::NoUndo)
}

fn begun_within(limits: RunLimits, steps: Vec<Def>) -> Run {
    let withdraws = true;
    let mut run = Run::under(Terms { limits, withdraws }, plan(steps), begin(json!({}))).unwrap();
    run.complete("do a");
    run
}

fn begun(steps: Vec<Def>) -> Run {
    begun_within(RunLimits::default(), steps)
}

fn at_pivot() -> Run {
    begun(vec![act("a"), pay(), ship()])
}

/// With a sibling.
fn beside(sibling: Vec<Def>) -> Run {
    let branches = vec![("x", vec![pay()]), ("y", sibling)];
    begun(vec![act("a"), parallel("p", branches), ship()])
}

/// The worker has done it, and has said more of that than a run may hold.
fn too_large() -> TaskOutcome {
    TaskOutcome::Unknown(WorkerError {
        retryable: false,
        ..error(crate::run::error_type::LIMIT)
    })
}

fn final_error() -> TaskOutcome {
    TaskOutcome::Failed(WorkerError {
        retryable: false,
        ..error("Broken")
    })
}

fn not_done() -> TaskOutcome {
    TaskOutcome::Failed(WorkerError {
        not_done: true,
        ..error("Refused")
    })
}

fn waits(run: &Run) {
    assert_eq!((run.status(), run.undone()), (Status::Parked, vec![]));
}

#[test]
fn a_run_that_is_cancelled_waits_for_what_an_operator_says_of_its_pivot() {
    for cancelled_first in [true, false] {
        let cancelled = || {
            let mut run = at_pivot();
            if cancelled_first {
                run.take(Input::Cancel(by("ann")));
            }
            run.end("do pay", too_large());
            if !cancelled_first {
                run.take(Input::Cancel(by("ann")));
            }
            waits(&run);
            run
        };
        let mut run = cancelled();
        run.operate("pay", ParkedAction::MarkDone);
        run.complete("do ship");
        assert_eq!((run.status(), run.undone()), (Status::Completed, vec![]));

        let mut run = cancelled();
        run.operate("pay", ParkedAction::Skip);
        run.complete("undo a");
        assert_eq!(run.status(), Status::Cancelled);

        let mut run = cancelled();
        run.operate("pay", ParkedAction::Retry);
        run.end("do pay", final_error());
        run.wake_next();
        assert_eq!((run.status(), run.undone()), (Status::Running, vec![]));
        run.end("do pay", not_done());
        run.complete("undo a");
        assert_eq!(run.status(), Status::Cancelled);

        let mut run = cancelled();
        run.take(Input::Terminate(by("ann")));
        assert_eq!(run.status(), Status::Terminated);
    }
}

#[test]
fn so_does_a_run_that_is_past_its_timeout() {
    let timed = with_timeout(plan(vec![act("a"), pay(), ship()]), 60);
    let mut run = Run::of(timed);
    run.complete("do a");
    run.end("do pay", too_large());
    run.later(61);
    run.wake();
    waits(&run);
    run.operate("pay", ParkedAction::Skip);
    run.complete("undo a");
    assert_eq!(run.status(), Status::TimedOut);
}

#[test]
fn it_is_not_halted_with_what_is_around_it() {
    for failed_first in [true, false] {
        let halted = || {
            let mut run = beside(vec![act("b")]);
            if failed_first {
                run.fail("do p.y.b");
            }
            run.end("do p.x.pay", too_large());
            if !failed_first {
                run.fail("do p.y.b");
            }
            waits(&run);
            run
        };
        let mut run = halted();
        run.operate("p.x.pay", ParkedAction::Skip);
        run.complete("undo a");
        assert_eq!(run.status(), Status::Compensated);

        let mut run = halted();
        run.operate("p.x.pay", ParkedAction::MarkDone);
        assert_eq!(run.state.parked_steps().next().unwrap().0.as_str(), "p");
        run.operate("p", ParkedAction::Skip);
        run.complete("do ship");
        assert_eq!((run.status(), run.undone()), (Status::Completed, vec![]));

        for action in [ParkedAction::Retry, ParkedAction::RetryWithInput(json!(1).into())] {
            let mut run = halted();
            run.operate("p.x.pay", action);
            run.end("do p.x.pay", final_error());
            run.wake_next();
            run.end("do p.x.pay", too_large());
            waits(&run);
        }
        // A worker that is late says what the operator was asked.
        let mut run = halted();
        let task = run
            .history
            .iter()
            .flat_map(|it| &it.events)
            .find_map(|event| match event {
                Event::ActivityScheduled(scheduled) if scheduled.step.as_str() == "p.x.pay" => Some(scheduled.task),
                _ => None,
            });
        let outcome = done(json!(1));
        let task = task.unwrap();
        run.take(Input::TaskEnded { task, outcome });
        assert_eq!(run.undone(), Vec::<String>::new());
        assert!(run.state.is_past_pivot());
    }
}

#[test]
fn what_an_operator_has_tried_again_may_have_been_done_before() {
    for action in [ParkedAction::Retry, ParkedAction::RetryWithInput(json!(1).into())] {
        let mut run = at_pivot();
        run.end("do pay", too_large());
        run.operate("pay", action);
        for _ in 0..3 {
            run.end("do pay", final_error());
            assert_eq!((run.status(), run.undone()), (Status::Running, vec![]));
            run.wake_next();
        }
        run.complete("do pay");
        run.complete("do ship");
        assert_eq!((run.status(), run.undone()), (Status::Completed, vec![]));
    }
}

/// Replicas of an earlier version would read over it.
#[test]
fn that_is_said_in_runs_alone_that_none_of_an_earlier_version_can_own() {
    for withdraws in [true, false] {
        let terms = Terms {
            withdraws,
            ..Terms::default()
        };
        let mut run = Run::under(terms, plan(vec![pay()]), begin(json!({}))).unwrap();
        run.end("do pay", too_large());
        run.operate("pay", ParkedAction::Retry);
        let said = run.history.last().unwrap().body().contains("may_be_done");
        assert_eq!(said, withdraws);
    }
}

/// A second try that never comes to a task says nothing of the first one.
#[test]
fn there_may_be_no_room_for_another_try() {
    let limits = RunLimits {
        pending: Some(1),
        ..RunLimits::default()
    };
    let branches = vec![
        ("x", vec![pay()]),
        ("y", vec![wait_for("w", "go"), act("b").undo(UndoDef::NoUndo)]),
    ];
    let mut run = begun_within(limits, vec![act("a"), parallel("p", branches), ship()]);
    run.end("do p.x.pay", too_large());
    run.signal("go", json!(1));
    run.operate("p.x.pay", ParkedAction::Retry);
    waits(&run);
    run.take(Input::Cancel(by("ann")));
    waits(&run);
    run.complete("do p.y.b");
    run.operate("p.x.pay", ParkedAction::Retry);
    run.end("do p.x.pay", final_error());
    assert_eq!((run.status(), run.undone()), (Status::Running, vec![]));
}

#[test]
fn it_may_be_tried_again_in_a_run_that_is_parked() {
    let mut run = at_pivot();
    run.end("do pay", too_large());
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.operate("pay", ParkedAction::Retry);
    run.take(Input::Cancel(by("ann")));
    assert_eq!((run.status(), run.undone()), (Status::Running, vec![]));
    assert_eq!(run.last_dispatch().step.as_str(), "pay");
    run.end("do pay", final_error());
    assert_eq!((run.status(), run.undone()), (Status::Running, vec![]));
}

#[test]
fn any_step_that_is_tried_again_in_vain_stays_unknown() {
    // One that is no pivot, and is tried again in vain: undone as before.
    let mut run = begun(vec![act("a").attempts(Some(1)), act("b")]);
    run.end("do b", too_large());
    run.operate("b", ParkedAction::Retry);
    run.end("do b", final_error());
    let outcome = run.events().into_iter().rev().find_map(|event| match event {
        Event::StepFailed { step, outcome, .. } if step.as_str() == "b" => Some(*outcome),
        _ => None,
    });
    assert_eq!(outcome, Some(StepOutcome::Unknown));
    run.complete("undo b");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}
