//! The pivot: before it a run goes back, after it only forward.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{Cancellation, OnFailure, Timeouts};
use crate::run::Status;
use crate::run::effect::Effect;
use crate::run::input::{Input, ParkedAction, Rejected, TaskOutcome, WorkerError};
use crate::time::Span;

fn steps() -> Vec<Def> {
    let pivot = act("pay").pivot(true).attempts(Some(2));
    vec![act("a"), pivot, act("ship").undo(UndoDef::NoUndo).attempts(Some(1))]
}

fn at_pivot() -> Run {
    let mut run = run(steps());
    run.complete("do a");
    run
}

fn past_pivot() -> Run {
    let mut run = at_pivot();
    run.complete("do pay");
    run
}

fn final_error() -> TaskOutcome {
    TaskOutcome::Failed(WorkerError {
        retryable: false,
        ..error("Broken")
    })
}

#[test]
fn a_pivot_that_fails_is_like_any_step() {
    let mut run = at_pivot();
    run.fail("do pay");
    run.wake_next();
    run.fail("do pay");
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn a_pivot_that_is_unknown_is_asked_again_until_it_is_known() {
    let mut run = at_pivot();
    for _ in 0..5 {
        run.end("do pay", unknown());
        run.wake_next();
        run.end("do pay", final_error());
        run.wake_next();
    }
    assert_eq!(run.dispatched().last().unwrap(), "do pay#11");
    let not_done = TaskOutcome::Failed(WorkerError {
        not_done: true,
        ..error("Refused")
    });
    run.end("do pay", not_done);
    assert_eq!(run.undone(), ["undo a"], "surely not done");
}

/// It would be offered again until a worker comes.
#[test]
fn a_pivot_that_its_stream_refuses_keeps_no_run_from_stopping() {
    for held_first in [true, false] {
        let mut run = at_pivot();
        let held = Input::DispatchHeld {
            task: run.task("do pay"),
            in_doubt: false,
        };
        let cancel = Input::Cancel(by("ann"));
        let inputs = if held_first { [held, cancel] } else { [cancel, held] };
        for input in inputs {
            run.take(input);
        }
        assert_eq!(run.undone(), ["undo a"], "surely not done");
    }
    // What may have been done all the same is asked for until that is known.
    let mut run = at_pivot();
    let task = run.task("do pay");
    run.take(Input::DispatchHeld { task, in_doubt: true });
    run.take(Input::Cancel(by("ann")));
    assert_eq!(run.status(), Status::Running);
    run.wake_next();
    run.complete("do pay");
    assert_eq!(run.undone(), Vec::<String>::new());
}

#[test]
fn past_the_pivot_steps_are_tried_again_without_limit_and_nothing_cuts_them() {
    let mut run = Run::of(with_timeout(plan(steps()), 60));
    run.complete("do a");
    assert!(run.last_dispatch().deadline.is_some());
    run.complete("do pay");
    assert_eq!(run.last_dispatch().deadline, None);
    for attempt in 2..8 {
        run.fail("do ship");
        run.wake_next();
        assert_eq!(run.last_dispatch().attempt, attempt);
    }
    run.later(1_000);
    run.wake();
    assert_eq!(run.status(), Status::Running);
    assert_eq!(run.apply(Input::Cancel(by("ann"))), Err(Rejected::PastPivot));
    run.complete("do ship");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn what_cannot_go_on_past_the_pivot_is_parked() {
    for (action, status) in [
        (ParkedAction::Retry, Status::Running),
        (ParkedAction::RetryWithInput(json!(1).into()), Status::Running),
        (ParkedAction::MarkDone, Status::Completed),
        (ParkedAction::Skip, Status::Completed),
    ] {
        let mut run = past_pivot();
        run.end("do ship", final_error());
        assert_eq!(run.status(), Status::Parked);
        run.operate("ship", action);
        assert_eq!(run.status(), status);
        if status == Status::Running {
            assert_eq!(&*run.last_dispatch().idempotency_key, format!("{RUN}/ship/do"));
            run.complete("do ship");
        }
        assert_eq!(run.status(), Status::Completed);
        assert_eq!(run.undone(), Vec::<String>::new());
    }
}

#[test]
fn a_step_that_may_fail_or_is_caught_is_no_reason_to_stand_still() {
    let mut all = steps();
    all[2] = act("ship").on_failure(OnFailure::Continue);
    all.push(attempt("t", vec![act("mail")]).catch(&["Refused"], vec![act("call").undo(UndoDef::NoUndo)]));
    let mut run = run(all);
    run.complete("do a");
    run.complete("do pay");
    run.fail("do ship");
    run.fail("do t.mail");
    assert_eq!(run.dispatched().last().unwrap(), "do t.catch_1.call");
    run.complete("do t.catch_1.call");
    assert_eq!(run.status(), Status::Completed);
    let mut all = steps();
    all[2] = attempt("t", vec![fail("f", "Other")]).catch(&["Refused"], vec![]);
    let mut run = super::dsl::run(all);
    run.complete("do a");
    run.complete("do pay");
    assert_eq!(run.status(), Status::Parked, "no catch fits");
}

#[test]
fn a_cancel_while_the_pivot_is_under_way_waits_for_what_becomes_of_it() {
    let mut run = at_pivot();
    let effects = run.take(Input::Cancel(request("c-1")));
    assert!(matches!(effects[..], [Effect::CancelTask { .. }]));
    let task = run.task("do pay");
    assert!(run.state.is_unwanted(task));
    run.ignores(Input::Cancel(request("c-1")));
    run.end("do pay", TaskOutcome::Cancelled);
    assert_eq!(run.undone(), ["undo a"], "no second attempt");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Cancelled);

    let mut run = at_pivot();
    run.take(Input::Cancel(by("ann")));
    run.end("do pay", unknown());
    assert_eq!(run.undone(), Vec::<String>::new());
    run.wake_next();
    run.complete("do pay");
    run.complete("do ship");
    assert_eq!(run.status(), Status::Completed, "too late to cancel");
}

/// Its schedule-to-close is void by then, so that its start-to-close is all there is against a worker that has died.
#[test]
fn a_pivot_that_may_have_been_done_and_waits_for_its_worker_s_word_is_asked_again_all_the_same() {
    let timeouts = Timeouts {
        schedule_to_close: Some(Span::from_secs(15)),
        ..Timeouts::default()
    };
    let pay = act("pay").pivot(true).timeouts(timeouts);
    let pay = pay.cancellation(Cancellation::WaitCancelled);
    let mut run = run(vec![parallel(
        "p",
        vec![("x", vec![pay]), ("y", vec![act("b").attempts(Some(1))])],
    )]);
    run.end("do p.x.pay", unknown());
    run.wake_next();
    run.fail("do p.y.b");
    for _ in 0..4 {
        run.wake_next();
    }
    let third = run.dispatched().into_iter().find(|name| name == "do p.x.pay#3");
    assert!(third.is_some(), "{:?}", run.dispatched());
}

#[test]
fn a_timeout_while_the_pivot_is_under_way_waits_too() {
    let mut run = Run::of(with_timeout(plan(steps()), 5));
    run.complete("do a");
    run.later(6);
    run.wake();
    assert_eq!(run.status(), Status::Running);
    run.fail("do pay");
    run.complete("undo a");
    assert_eq!(run.status(), Status::TimedOut);
}

#[test]
fn a_pivot_between_attempts_that_was_surely_not_done_does_not_hold_up_a_cancel() {
    let mut run = at_pivot();
    run.fail("do pay");
    run.take(Input::Cancel(by("ann")));
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn a_container_that_cannot_go_on_is_entered_again_and_its_steps_have_one_entry_each() {
    let branches = vec![
        ("x", vec![act("pay").pivot(true)]),
        ("y", vec![act("b"), fail("f", "Refused")]),
    ];
    let mut run = run(vec![parallel("p", branches)]);
    run.complete("do p.y.b");
    run.complete("do p.x.pay");
    assert_eq!(
        run.status(),
        Status::Parked,
        "the pivot was done though its sibling had failed"
    );
    run.operate("p", ParkedAction::Retry);
    run.complete("do p.x.pay");
    run.complete("do p.y.b");
    let entries = run.state.ledger().iter().map(|entry| entry.step.as_str());
    assert_eq!(entries.collect::<Vec<_>>(), ["p.x.pay", "p.y.b"]);
    run.operate("p.y.f", ParkedAction::Skip);
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_parked_step_that_may_have_been_done_is_undone_with_its_losing_branch_whatever_became_of_it() {
    let unknown_for_good = || {
        TaskOutcome::Unknown(WorkerError {
            retryable: false,
            ..error("Crash")
        })
    };
    for retried in [false, true] {
        let branches = vec![("x", vec![act("a")]), ("y", vec![act("b")])];
        let any = parallel("p", branches).join(crate::definition::plan::Join::Any);
        let mut run = run(vec![act("pay").pivot(true).undo(UndoDef::NoUndo), any]);
        run.complete("do pay");
        run.end("do p.x.a", unknown_for_good());
        assert_eq!(run.status(), Status::Parked);
        if retried {
            run.operate("p.x.a", ParkedAction::Retry);
            run.end("do p.x.a", final_error());
        }
        run.complete("do p.y.b");
        assert_eq!(run.undone(), ["undo p.x.a"]);
        run.complete("undo p.x.a");
        assert_eq!(run.status(), Status::Completed);
        assert_eq!(run.state.ledger().len(), 2);
    }
}

#[test]
fn a_run_past_its_pivot_can_be_terminated() {
    let mut run = past_pivot();
    run.take(Input::Terminate(by("ann")));
    assert_eq!(run.status(), Status::Terminated);
}
