//! `parallel:` – joins, losers, and what is undone side by side.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{Join, Losers, OnExhausted, UndoOrder};
use crate::run::effect::Effect;
use crate::run::input::{Input, TaskOutcome};
use crate::run::{Event, Status};

fn two() -> Def {
    parallel("split", vec![("x", vec![act("a"), act("b")]), ("y", vec![act("c")])])
}

#[test]
fn branches_run_side_by_side_and_all_have_to_pass() {
    let mut run = run(vec![two(), act("z").input(json!("${ steps.split }"))]);
    assert_eq!(run.dispatched(), ["do split.x.a", "do split.y.c"]);
    run.complete("do split.y.c");
    run.complete("do split.x.a");
    assert_eq!(run.dispatched().len(), 3);
    run.complete("do split.x.b");
    let output = json!({"winner": "y", "branches": {"x": {"id": "b-1"}, "y": {"id": "c-1"}}});
    assert_eq!(*run.last_dispatch().input, output);
    run.complete("do z");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn steps_of_one_branch_see_those_of_another_that_have_ended() {
    let mut run = run(vec![
        two(),
        act("z").input(json!(["${ steps.b.id }", "${ steps.c.id }"])),
    ]);
    run.complete("do split.x.a");
    run.complete("do split.y.c");
    run.complete("do split.x.b");
    assert_eq!(*run.last_dispatch().input, json!(["b-1", "c-1"]));
}

#[test]
fn a_failure_halts_the_siblings_and_waits_for_them_before_anything_is_undone() {
    let mut run = run(vec![act("s"), two()]);
    run.complete("do s");
    let effects = run.fail("do split.x.a");
    assert!(matches!(effects[..], [Effect::CancelTask { .. }]), "{effects:?}");
    assert_eq!(run.status(), Status::Running, "it has not failed before all is known");
    run.complete("do split.y.c");
    assert_eq!(run.undone(), ["undo split.y.c"]);
    run.complete("undo split.y.c");
    run.complete("undo s");
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(
        run.state.failure().unwrap().step.as_ref().unwrap().as_str(),
        "split.x.a"
    );
    assert_eq!(run.dispatched().len(), 5, "`b` was never dispatched");
}

#[test]
fn a_sibling_that_ends_unknown_is_undone_and_one_that_stopped_is_not() {
    for (outcome, undone) in [(unknown(), 1), (TaskOutcome::Cancelled, 0), (failed("X"), 0)] {
        let mut run = run(vec![two()]);
        run.fail("do split.x.a");
        run.end("do split.y.c", outcome);
        assert_eq!(run.undone().len(), undone);
    }
}

#[test]
fn any_takes_the_first_success_and_undoes_what_the_losers_did() {
    let mut run = run(vec![two().join(Join::Any), act("z").input(json!("${ steps.split }"))]);
    run.complete("do split.x.a");
    run.complete("do split.y.c");
    assert_eq!(run.undone(), Vec::<String>::new(), "`b` is waited for");
    run.end("do split.x.b", unknown());
    assert_eq!(run.undone(), ["undo split.x.b"]);
    run.complete("undo split.x.b");
    assert_eq!(run.status(), Status::Running);
    run.complete("undo split.x.a");
    assert_eq!(
        *run.last_dispatch().input,
        json!({"winner": "y", "branches": {"y": {"id": "c-1"}}})
    );
    run.fail("do z");
    assert_eq!(
        run.undone().last().unwrap(),
        "undo split.y.c",
        "the winner's is undone if the run fails"
    );
    run.complete("undo split.y.c");
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(run.undone().len(), 3);
}

#[test]
fn losers_that_are_kept_are_undone_only_if_the_run_fails() {
    let mut run = run(vec![two().join(Join::Any).losers(Losers::Keep), act("z")]);
    run.complete("do split.x.a");
    run.complete("do split.y.c");
    run.end("do split.x.b", TaskOutcome::Cancelled);
    assert_eq!(run.dispatched().last().unwrap(), "do z");
    run.fail("do z");
    assert_eq!(run.undone(), ["undo split.y.c", "undo split.x.a"]);
}

#[test]
fn any_fails_when_none_can_succeed_any_more() {
    let mut run = run(vec![two().join(Join::Any)]);
    run.complete("do split.x.a");
    run.fail("do split.y.c");
    assert_eq!(run.status(), Status::Running);
    run.fail("do split.x.b");
    assert_eq!(
        run.state.failure().unwrap().step.as_ref().unwrap().as_str(),
        "split.y.c"
    );
    assert_eq!(run.undone(), ["undo split.x.a"]);
}

#[test]
fn at_least_counts_successes_and_fails_as_soon_as_it_cannot_be_reached() {
    let three = || {
        let branches = ["a", "b", "c"].map(|name| (name, vec![act(&format!("s{name}"))]));
        parallel("split", branches.into()).join(Join::AtLeast(2))
    };
    let mut run = run(vec![three()]);
    run.fail("do split.a.sa");
    run.complete("do split.b.sb");
    run.complete("do split.c.sc");
    assert_eq!(run.status(), Status::Completed);
    let mut run = super::dsl::run(vec![three()]);
    run.fail("do split.a.sa");
    run.fail("do split.b.sb");
    assert!(
        run.last_events()
            .iter()
            .any(|event| matches!(event, Event::ParallelStopped { .. }))
    );
    run.end("do split.c.sc", TaskOutcome::Cancelled);
    assert_eq!(run.status(), Status::Failed);
}

#[test]
fn independent_branches_are_undone_side_by_side_and_each_in_reverse() {
    let mut run = run(vec![act("s"), two(), act("z")]);
    run.complete("do s");
    for step in ["split.x.a", "split.y.c", "split.x.b"] {
        run.complete(&format!("do {step}"));
    }
    run.fail("do z");
    assert_eq!(run.undone(), ["undo split.x.b", "undo split.y.c"]);
    run.complete("undo split.x.b");
    assert_eq!(run.undone().last().unwrap(), "undo split.x.a");
    run.complete("undo split.x.a");
    assert_eq!(run.undone().len(), 3, "`s` came before both branches");
    run.complete("undo split.y.c");
    assert_eq!(run.undone().last().unwrap(), "undo s");
}

#[test]
fn a_sequential_policy_forbids_undoing_side_by_side() {
    let plan = with_compensation(
        plan(vec![two(), act("z")]),
        UndoOrder::Sequential,
        OnExhausted::Continue,
    );
    let mut run = Run::of(plan);
    for step in ["split.x.a", "split.y.c", "split.x.b"] {
        run.complete(&format!("do {step}"));
    }
    run.fail("do z");
    for step in ["split.x.b", "split.y.c", "split.x.a"] {
        assert_eq!(run.undone().last().unwrap(), &format!("undo {step}"));
        run.complete(&format!("undo {step}"));
    }
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn an_exhausted_undo_halts_the_others_where_the_policy_says_so() {
    let plan = with_compensation(plan(vec![act("s"), two()]), UndoOrder::Dependencies, OnExhausted::Halt);
    let mut run = Run::of(plan);
    run.complete("do s");
    run.complete("do split.x.a");
    run.complete("do split.y.c");
    run.take(Input::Cancel(by("ann")));
    run.end("do split.x.b", TaskOutcome::Cancelled);
    for _ in 0..2 {
        run.fail("undo split.y.c");
        run.wake_next();
    }
    run.complete("undo split.x.a");
    run.fail("undo split.y.c");
    assert_eq!(run.status(), Status::Parked);
    assert!(!run.undone().contains(&"undo s".to_owned()));
    run.operate("split.y.c", crate::run::input::ParkedAction::Skip);
    assert_eq!(run.undone().last().unwrap(), "undo s");
}

#[test]
fn a_late_success_of_a_loser_is_undone_though_the_run_goes_on() {
    let mut run = run(vec![two().join(Join::Any), act("z")]);
    let task = run.task("do split.x.a");
    run.complete("do split.y.c");
    run.end("do split.x.a", TaskOutcome::Cancelled);
    assert_eq!(run.dispatched().last().unwrap(), "do z");
    let outcome = done(json!({"id": "late"}));
    let effects = run.take(Input::TaskEnded { task, outcome });
    assert_eq!(dispatches(&effects), ["undo split.x.a"]);
    run.complete("do z");
    assert_eq!(run.status(), Status::Running, "it completes when that is undone");
    run.complete("undo split.x.a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_parallel_without_branches_completes() {
    let run = run(vec![
        parallel("split", vec![]),
        parallel("other", vec![("a", vec![])]).join(Join::Any),
    ]);
    assert_eq!(run.status(), Status::Completed);
}
