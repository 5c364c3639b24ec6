//! Results that come when their task is closed.

use serde_json::json;

use super::dsl::*;
use crate::ids::TaskNo;
use crate::run::effect::Effect;
use crate::run::input::{Input, ParkedAction, TaskOutcome, WorkerError};
use crate::run::{Event, Status};

fn late(run: &mut Run, task: TaskNo, outcome: TaskOutcome) -> Vec<Effect> {
    run.take(Input::TaskEnded { task, outcome })
}

/// A step that timed out, then surely was not done, as its worker asserts.
fn wrongly_failed(rest: Vec<Def>) -> (Run, TaskNo) {
    let mut steps = vec![
        act("a")
            .attempts(Some(2))
            .on_failure(crate::definition::plan::OnFailure::Continue),
    ];
    steps.extend(rest);
    let mut run = run(steps);
    let first = run.task("do a");
    run.time_out("do a");
    run.wake_next();
    run.end(
        "do a",
        TaskOutcome::Failed(WorkerError {
            not_done: true,
            ..error("Refused")
        }),
    );
    (run, first)
}

#[test]
fn a_late_result_is_recorded_once_and_changes_nothing_else() {
    let mut run = run(vec![act("a").attempts(Some(2)), act("b")]);
    let first = run.task("do a");
    run.time_out("do a");
    run.wake_next();
    assert_eq!(late(&mut run, first, failed("X")), []);
    assert!(matches!(run.last_events(), [Event::LateResult(_)]));
    run.ignores(Input::TaskEnded {
        task: first,
        outcome: unknown(),
    });
    assert_eq!(run.dispatched().last().unwrap(), "do a#2");
    run.complete("do a");
    assert_eq!(run.dispatched().last().unwrap(), "do b");
}

#[test]
fn a_late_success_of_a_step_that_was_not_going_to_be_undone_is_undone() {
    let (mut run, first) = wrongly_failed(vec![act("b")]);
    late(&mut run, first, done(json!({"id": "late"})));
    assert_eq!(run.undone(), Vec::<String>::new(), "the run goes on");
    run.fail("do b");
    assert_eq!(run.undone(), ["undo a"]);
    assert_eq!(
        *run.last_dispatch().input,
        json!({"id": "late"}),
        "with the output that came late"
    );
}

#[test]
fn a_late_success_is_undone_before_the_rest_of_a_branch_that_is_being_undone() {
    let branch = ("x", vec![act("a"), act("b")]);
    let mut run = run(vec![parallel("p", vec![branch]), act("z")]);
    run.complete("do p.x.a");
    run.complete("do p.x.b");
    let z = run.task("do z");
    run.fail("do z");
    assert_eq!(run.undone(), ["undo p.x.b"]);
    // It waits for what is being undone already, and nothing that was done before it goes first.
    late(&mut run, z, done(json!({"id": "late"})));
    run.complete("undo p.x.b");
    assert_eq!(run.undone(), ["undo p.x.b", "undo z"]);
    run.complete("undo z");
    run.complete("undo p.x.a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_late_success_joins_an_undo_that_is_going_on() {
    let (mut run, first) = wrongly_failed(vec![act("b"), act("c")]);
    run.complete("do b");
    run.fail("do c");
    assert_eq!(run.undone(), ["undo b"]);
    late(&mut run, first, done(json!({"id": "late"})));
    run.complete("undo b");
    assert_eq!(run.undone(), ["undo b", "undo a"]);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_late_success_waits_for_the_undo_that_is_going_on_though_its_step_came_later() {
    let (mut run, first) = {
        let may_fail = act("b").on_failure(crate::definition::plan::OnFailure::Continue);
        let mut run = run(vec![act("a"), may_fail, act("c")]);
        run.complete("do a");
        let task = run.task("do b");
        run.fail("do b");
        run.fail("do c");
        (run, task)
    };
    assert_eq!(run.undone(), ["undo a"]);
    late(&mut run, first, done(json!({"id": "late"})));
    assert_eq!(run.undone(), ["undo a"], "one at a time");
    run.complete("undo a");
    run.complete("undo b");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_late_success_wakes_an_undo_that_waits_for_an_operator() {
    let (mut run, first) = wrongly_failed(vec![act("b").undo_input(json!("${ steps.b.nothing }")), act("c")]);
    run.complete("do b");
    run.fail("do c");
    assert_eq!((run.status(), run.state.open_tasks().count()), (Status::Parked, 0));
    late(&mut run, first, done(json!({"id": "late"})));
    run.complete("undo a");
    run.operate("b", ParkedAction::MarkDone);
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_late_success_gives_the_undo_of_an_unknown_step_its_output_unless_it_has_begun() {
    let mut run = run(vec![act("a"), act("b"), act("c")]);
    let mut tasks = vec![];
    run.complete("do a");
    tasks.push(run.task("do b"));
    run.take(Input::Cancel(by("ann")));
    run.time_out("do b");
    assert_eq!(run.undone(), ["undo b"]);
    late(&mut run, tasks[0], done(json!({"id": "late"})));
    assert!(matches!(run.last_events(), [Event::LateResult(_)]), "it has begun");

    let mut run = super::dsl::run(vec![
        act("a").on_failure(crate::definition::plan::OnFailure::Continue),
        act("b"),
    ]);
    let first = run.task("do a");
    run.time_out("do a");
    late(&mut run, first, done(json!({"id": "late"})));
    run.fail("do b");
    assert_eq!(*run.last_dispatch().input, json!({"id": "late"}));
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn a_success_counts_even_where_another_worker_failed_the_same_task() {
    let mut run = run(vec![
        act("a").on_failure(crate::definition::plan::OnFailure::Continue),
        act("b"),
    ]);
    let task = run.task("do a");
    run.fail("do a");
    late(&mut run, task, done(json!({"id": "other"})));
    run.ignores(Input::TaskEnded {
        task,
        outcome: done(json!(2)),
    });
    run.fail("do b");
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn no_assertion_undoes_the_knowledge_of_a_success() {
    let mut run = run(vec![act("a").attempts(Some(2))]);
    let first = run.task("do a");
    run.time_out("do a");
    run.wake_next();
    late(&mut run, first, done(json!(1)));
    run.end(
        "do a",
        TaskOutcome::Failed(WorkerError {
            not_done: true,
            ..error("Refused")
        }),
    );
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn a_second_success_does_not_replace_the_output_that_counted() {
    let mut run = run(vec![act("a").attempts(Some(2)), act("b")]);
    let first = run.task("do a");
    run.time_out("do a");
    run.wake_next();
    run.complete("do a");
    late(&mut run, first, done(json!({"id": "late"})));
    run.fail("do b");
    assert_eq!(*run.last_dispatch().input, json!({"id": "a-1"}));
}

#[test]
fn a_late_success_after_the_end_is_recorded_as_such_and_reopens_nothing() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    let task = run.task("do b");
    run.take(Input::Terminate(by("ann")));
    let closed_at = run.state.closed_at();
    run.later(5);
    assert_eq!(late(&mut run, task, done(json!(1))), []);
    let [Event::LateResult(result)] = run.last_events() else {
        panic!("{:?}", run.last_events());
    };
    assert!(result.after_close);
    assert_eq!((run.status(), run.state.closed_at()), (Status::Terminated, closed_at));
}

#[test]
fn a_late_result_of_an_undo_is_recorded_only() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.fail("do b");
    let first = run.task("undo a");
    run.time_out("undo a");
    late(&mut run, first, done(json!(1)));
    assert_eq!(run.status(), Status::Compensating);
    run.wake_next();
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

/// That it was refunded already is what a worker says whose forerunner has done it.
#[test]
fn an_undo_that_is_known_to_be_done_waits_for_no_operator() {
    let mut run = run(vec![act("a").undo_attempts(2), act("b")]);
    run.complete("do a");
    run.fail("do b");
    let first = run.task("undo a");
    run.time_out("undo a");
    late(&mut run, first, done(json!(1)));
    run.wake_next();
    run.fail("undo a");
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(run.state.parked_undos().count(), 0);
}

/// With another input the success may be another one's.
#[test]
fn an_undo_that_an_operator_has_had_tried_again_is_theirs_to_close() {
    let mut run = run(vec![act("a").undo_attempts(2), act("b")]);
    run.complete("do a");
    run.fail("do b");
    run.fail("undo a");
    run.wake_next();
    let second = run.task("undo a");
    run.time_out("undo a");
    assert_eq!(run.status(), Status::Parked);
    run.operate("a", ParkedAction::RetryWithInput(json!("other").into()));
    late(&mut run, second, done(json!(1)));
    run.fail("undo a");
    run.wake_next();
    run.fail("undo a");
    assert_eq!(run.status(), Status::Parked);
}
