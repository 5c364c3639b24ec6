//! Three outcomes, retries, and what sticks.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::OnFailure;
use crate::ids::TaskNo;
use crate::run::event::StepOutcome;
use crate::run::input::{Input, Rejected, TaskOutcome, WorkerError};
use crate::run::{Event, Status, Step};
use crate::time::Span;

/// What the only step, with two attempts, ended as.
fn ended_as(first: TaskOutcome, second: TaskOutcome) -> StepOutcome {
    let mut run = run(vec![act("a").attempts(Some(2))]);
    run.end("do a", first);
    run.wake_next();
    run.end("do a", second);
    match &run.state.steps()["a"] {
        Step::Failed { outcome, .. } => *outcome,
        other => panic!("{other:?}"),
    }
}

fn not_done() -> TaskOutcome {
    TaskOutcome::Failed(WorkerError {
        not_done: true,
        ..error("Refused")
    })
}

#[test]
fn unknown_sticks_until_a_worker_asserts_that_nothing_was_done() {
    let table = [
        (failed("A"), failed("B"), StepOutcome::Failed),
        (unknown(), failed("B"), StepOutcome::Unknown),
        (failed("A"), unknown(), StepOutcome::Unknown),
        (unknown(), not_done(), StepOutcome::Failed),
        (not_done(), unknown(), StepOutcome::Unknown),
        (unknown(), TaskOutcome::Cancelled, StepOutcome::Unknown),
        (failed("A"), TaskOutcome::Cancelled, StepOutcome::Cancelled),
    ];
    for (first, second, expected) in table {
        assert_eq!(
            ended_as(first.clone(), second.clone()),
            expected,
            "{first:?}, {second:?}"
        );
    }
}

#[test]
fn an_attempt_is_retried_under_the_same_key_with_a_new_task() {
    let mut run = run(vec![act("a").attempts(Some(3))]);
    let first = run.last_dispatch().clone();
    run.fail("do a");
    let wake = run.state.wake_at().unwrap();
    let pause = wake.since(run.now).0;
    assert!((900_000..=1_100_000).contains(&pause), "{pause}");
    run.ignores(Input::Wake(crate::run::input::Horizon::default()));
    run.wake_next();
    let second = run.last_dispatch().clone();
    assert_eq!(second.idempotency_key, first.idempotency_key);
    assert_eq!(
        (second.task, second.attempt, second.max_attempts),
        (TaskNo(2), 2, Some(3))
    );
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn retries_need_no_horizon() {
    let mut run = run(vec![act("a").attempts(None)]);
    run.fail("do a");
    run.later(2);
    run.take(Input::Wake(crate::run::input::Horizon::default()));
    assert_eq!(run.dispatched(), ["do a", "do a#2"]);
}

#[test]
fn attempts_end_where_policy_or_worker_say_so() {
    let mut stop_now = error("Refused");
    stop_now.retryable = false;
    let table = [
        (act("a").attempts(Some(5)).non_retryable("Declined"), failed("Declined")),
        (act("a").attempts(None), TaskOutcome::Failed(stop_now.clone())),
        (act("a").attempts(None), TaskOutcome::Unknown(stop_now)),
        (act("a").attempts(Some(1)), failed("Refused")),
    ];
    for (def, outcome) in table {
        let mut run = run(vec![def]);
        run.end("do a", outcome.clone());
        assert!(run.state.failure().is_some(), "{outcome:?}");
    }
}

#[test]
fn the_worker_may_name_the_pause() {
    let mut run = run(vec![act("a").attempts(None)]);
    let mut busy = error("Busy");
    busy.retry_after = Some(Span::from_secs(77));
    run.end("do a", TaskOutcome::Failed(busy));
    assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(77))));
}

#[test]
fn retry_later_consumes_no_attempt() {
    let mut run = run(vec![act("a").attempts(Some(1))]);
    for round in 1..=5_u32 {
        run.end(
            "do a",
            TaskOutcome::RetryLater {
                after: Some(Span::from_secs(3)),
            },
        );
        assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(3))));
        run.wake_next();
        assert_eq!(run.last_dispatch().attempt, 1);
        assert_eq!(run.last_dispatch().task, TaskNo(round + 1));
    }
    run.end("do a", TaskOutcome::RetryLater { after: None });
    let pause = run.state.wake_at().unwrap().since(run.now);
    assert!(
        pause >= Span::from_millis(900) && pause <= Span::from_millis(1_100),
        "the policy's interval"
    );
    run.wake_next();
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_lost_task_is_unknown_and_retried() {
    let mut run = run(vec![act("a").attempts(Some(2))]);
    let task = run.task("do a");
    run.take(Input::TaskLost { task });
    run.ignores(Input::TaskLost { task });
    run.wake_next();
    run.fail("do a");
    assert!(matches!(
        &run.state.steps()["a"],
        Step::Failed {
            outcome: StepOutcome::Unknown,
            ..
        }
    ));
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn a_repeated_result_changes_nothing_whatever_it_says() {
    let mut run = run(vec![act("a").attempts(Some(2)), act("b")]);
    let task = run.task("do a");
    run.complete("do a");
    for outcome in [
        done(json!(1)),
        failed("X"),
        unknown(),
        TaskOutcome::Cancelled,
        TaskOutcome::RetryLater { after: None },
    ] {
        run.ignores(Input::TaskEnded { task, outcome });
    }
    let mut run = super::dsl::run(vec![act("a").attempts(Some(2))]);
    let task = run.task("do a");
    run.fail("do a");
    for outcome in [failed("X"), unknown(), TaskOutcome::Cancelled] {
        run.ignores(Input::TaskEnded { task, outcome });
    }
}

#[test]
fn a_task_that_was_never_given_out_is_rejected() {
    let mut run = run(vec![act("a")]);
    for number in [0, 2, u32::MAX] {
        let task = TaskNo(number);
        for input in [
            Input::TaskEnded {
                task,
                outcome: unknown(),
            },
            Input::TaskLost { task },
            Input::DispatchHeld { task, in_doubt: false },
            Input::TaskStarted { task, at: run.now },
        ] {
            assert_eq!(run.apply(input), Err(Rejected::UnknownTask(number)));
        }
    }
}

#[test]
fn on_failure_continue_ends_the_step_without_output_and_the_run_goes_on() {
    for (outcome, undone) in [(failed("X"), vec![]), (unknown(), vec!["undo a"])] {
        let mut run = run(vec![
            act("a").on_failure(OnFailure::Continue),
            act("b").input(json!("${ steps.a.id | default('none') }")),
        ]);
        run.end("do a", outcome);
        assert_eq!(*run.last_dispatch().input, json!("none"));
        run.fail("do b");
        if !undone.is_empty() {
            run.complete("undo a");
        }
        assert_eq!(run.undone(), undone, "an unknown step stays in the ledger");
        assert!(run.state.is_closed());
    }
}

#[test]
fn long_error_texts_are_cut() {
    let mut run = run(vec![act("a")]);
    run.end(
        "do a",
        TaskOutcome::Failed(WorkerError {
            error_type: "é".repeat(1_000).into(),
            message: "é".repeat(10_000).into(),
            ..error("")
        }),
    );
    let failure = run.state.failure().unwrap();
    assert_eq!((failure.error_type.len(), failure.message.len()), (256, 4_096));
}

#[test]
fn time_never_goes_back_for_a_run() {
    let mut run = run(vec![act("a"), act("b")]);
    run.later(100);
    run.complete("do a");
    let was = run.state.at();
    run.now = crate::time::Timestamp(5);
    run.complete("do b");
    assert_eq!(run.state.at(), was);
    assert_eq!(run.state.closed_at(), Some(was));
    assert!(matches!(run.last_events().last(), Some(Event::RunCompleted { .. })));
}
