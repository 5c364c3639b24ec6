//! `switch:`, `try:`, `scope:`, `fail:`, and all of them nested.

use serde_json::json;

use super::dsl::*;
use crate::run::Status;
use crate::run::input::{Input, TaskOutcome};

#[test]
fn the_first_case_that_is_true_is_taken() {
    for (v, expected) in [
        (1, "do choose.case_1.a"),
        (2, "do choose.case_2.b"),
        (3, "do choose.else.c"),
    ] {
        let cases = vec![
            (Some("vars.v == 1"), vec![act("a")]),
            (Some("vars.v < 3"), vec![act("b")]),
            (None, vec![act("c")]),
        ];
        let mut run = run(vec![set("s", &[("v", json!(v))]), switch("choose", cases), act("z")]);
        assert_eq!(run.dispatched(), [expected]);
        run.complete(expected);
        run.fail("do z");
        assert_eq!(run.undone().len(), 1);
    }
    let run = run(vec![switch("choose", vec![(Some("false"), vec![act("a")])])]);
    assert_eq!(run.status(), Status::Completed, "none is true");
    let run = super::dsl::run(vec![switch("choose", vec![(Some("steps.x.y > 1"), vec![])])]);
    assert_eq!(run.status(), Status::Failed);
}

#[test]
fn a_caught_error_is_in_scope_and_leaves_the_ledger_as_it_is() {
    let block = attempt("guard", vec![act("a"), act("b")])
        .catch(&["Other"], vec![act("o")])
        .catch(
            &["Refused"],
            vec![act("c").input(json!("${ error.type } at ${ error.step }"))],
        );
    let mut run = run(vec![block, act("z")]);
    run.complete("do guard.a");
    run.fail("do guard.b");
    assert_eq!(run.dispatched().last().unwrap(), "do guard.catch_2.c");
    assert_eq!(*run.last_dispatch().input, json!("Refused at guard.b"));
    run.complete("do guard.catch_2.c");
    assert_eq!(run.dispatched().last().unwrap(), "do z");
    run.fail("do z");
    run.complete("undo guard.catch_2.c");
    run.complete("undo guard.a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn what_no_catch_fits_fails_outward_and_an_error_in_a_catch_replaces_it() {
    let mut run = run(vec![attempt("guard", vec![act("a")]).catch(&["Other"], vec![act("o")])]);
    run.fail("do guard.a");
    assert_eq!(run.status(), Status::Failed);
    let mut run = super::dsl::run(vec![
        attempt("guard", vec![act("a")]).catch(&[], vec![fail("f", "Worse")]),
    ]);
    run.fail("do guard.a");
    let failure = run.state.failure().unwrap();
    assert_eq!(
        (&*failure.error_type, failure.step.as_ref().unwrap().as_str()),
        ("Worse", "guard.catch_1.f")
    );
}

#[test]
fn finally_runs_after_success_failure_and_a_caught_failure() {
    let guard = || {
        attempt("guard", vec![act("a")])
            .catch(&["Caught"], vec![])
            .finally(vec![act("f")])
    };
    for (outcome, ends) in [
        (done(json!({"id": 1})), Status::Completed),
        (failed("Caught"), Status::Completed),
        (failed("Refused"), Status::Compensated),
    ] {
        let mut run = run(vec![guard()]);
        run.end("do guard.a", outcome);
        assert_eq!(run.dispatched().last().unwrap(), "do guard.finally.f");
        run.complete("do guard.finally.f");
        if !run.state.is_closed() {
            run.complete("undo guard.finally.f");
        }
        assert_eq!(run.status(), ends);
    }
}

#[test]
fn finally_runs_when_the_run_is_cancelled_before_anything_is_undone_and_not_when_it_is_terminated() {
    let steps = || {
        let guard = attempt("guard", vec![act("a"), act("b")]).finally(vec![act("f").undo(UndoDef::NoUndo), act("g")]);
        vec![guard, act("z")]
    };
    let mut run = run(steps());
    run.complete("do guard.a");
    run.take(Input::Cancel(by("ann")));
    run.end("do guard.b", TaskOutcome::Cancelled);
    assert_eq!(run.dispatched().last().unwrap(), "do guard.finally.f");
    let task = run.task("do guard.finally.f");
    assert!(!run.state.is_unwanted(task));
    run.ignores(Input::Cancel(by("ann")));
    assert_eq!(run.undone(), Vec::<String>::new());
    run.complete("do guard.finally.f");
    run.complete("do guard.finally.g");
    run.complete("undo guard.finally.g");
    run.complete("undo guard.a");
    assert_eq!(run.status(), Status::Cancelled);

    let mut run = super::dsl::run(steps());
    run.complete("do guard.a");
    run.take(Input::Terminate(by("ann")));
    assert_eq!(run.dispatched().len(), 2);
}

#[test]
fn a_failing_finally_replaces_what_the_step_ends_with_except_a_halt() {
    let mut run = run(vec![
        attempt("guard", vec![act("a")]).finally(vec![fail("f", "Untidy")]),
    ]);
    run.complete("do guard.a");
    assert_eq!(&*run.state.failure().unwrap().error_type, "Untidy");
    let mut run = super::dsl::run(vec![
        attempt("guard", vec![act("a")]).finally(vec![fail("f", "Untidy")]),
    ]);
    run.take(Input::Cancel(by("ann")));
    run.complete("do guard.a");
    assert_eq!(&*run.state.failure().unwrap().error_type, "cancelled");
    run.complete("undo guard.a");
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn a_scope_that_fails_undoes_its_own_steps_and_takes_the_other_way() {
    let scope = scope(
        "s",
        vec![act("a"), act("b").undo_input(json!("${ error.message }")), act("c")],
    )
    .otherwise(vec![act("o").input(json!("${ error.type }"))]);
    let mut run = run(vec![act("first"), scope, act("z")]);
    run.complete("do first");
    run.complete("do s.a");
    run.complete("do s.b");
    run.end("do s.c", unknown());
    assert_eq!(run.status(), Status::Running);
    for (step, input) in [
        ("s.c", json!({"id": null})),
        ("s.b", json!("no")),
        ("s.a", json!({"id": "a-1"})),
    ] {
        assert_eq!(run.undone().last().unwrap(), &format!("undo {step}"));
        assert_eq!(*run.last_dispatch().input, input);
        run.complete(&format!("undo {step}"));
    }
    assert_eq!(run.dispatched().last().unwrap(), "do s.otherwise.o");
    assert_eq!(*run.last_dispatch().input, json!("Crash"));
    run.complete("do s.otherwise.o");
    run.fail("do z");
    run.complete("undo s.otherwise.o");
    run.complete("undo first");
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(run.undone().len(), 5, "nothing is undone twice");
}

#[test]
fn a_scope_without_another_way_fails_outward_when_it_is_undone() {
    let guard = attempt("guard", vec![scope("s", vec![act("a"), act("b")])]).catch(&[], vec![act("c")]);
    let mut run = run(vec![guard]);
    run.complete("do guard.s.a");
    run.fail("do guard.s.b");
    assert_eq!(run.undone(), ["undo guard.s.a"]);
    run.complete("undo guard.s.a");
    assert_eq!(run.dispatched().last().unwrap(), "do guard.catch_1.c");
}

#[test]
fn a_parked_undo_of_a_scope_holds_it_up_and_the_run_is_parked() {
    let mut run = run(vec![scope("s", vec![act("a"), act("b")]).otherwise(vec![act("o")])]);
    run.complete("do s.a");
    run.fail("do s.b");
    for _ in 0..2 {
        run.fail("undo s.a");
        run.wake_next();
    }
    run.fail("undo s.a");
    assert_eq!(run.status(), Status::Parked);
    run.operate("s.a", crate::run::input::ParkedAction::MarkDone);
    assert_eq!(run.status(), Status::Running);
    assert_eq!(run.dispatched().last().unwrap(), "do s.otherwise.o");
}

#[test]
fn a_cancel_while_a_scope_is_undone_lets_it_finish_and_undoes_the_rest() {
    let mut run = run(vec![
        act("first"),
        scope("s", vec![act("a"), act("b")]).otherwise(vec![act("o")]),
    ]);
    run.complete("do first");
    run.complete("do s.a");
    run.fail("do s.b");
    run.take(Input::Cancel(by("ann")));
    assert_eq!(run.undone(), ["undo s.a"]);
    run.complete("undo s.a");
    assert_eq!(run.undone(), ["undo s.a", "undo first"]);
    run.complete("undo first");
    assert_eq!(run.status(), Status::Cancelled);
    assert!(!run.dispatched().contains(&"do s.otherwise.o".to_owned()));
}

#[test]
fn fail_ends_the_run_with_a_typed_error() {
    let mut run = run(vec![act("a"), fail("f", "${ 'Type' }${ steps.a.id }"), act("b")]);
    run.complete("do a");
    assert_eq!(&*run.state.failure().unwrap().error_type, "Typea-1");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn steps_may_have_the_names_of_bodies() {
    let guard = attempt("guard", vec![act("finally"), act("catch_1")])
        .catch(&[], vec![act("x")])
        .finally(vec![act("y")]);
    let mut run = run(vec![
        parallel("p", vec![("guard", vec![guard])]),
        act("z").input(json!("${ steps.y.id }")),
    ]);
    run.complete("do p.guard.guard.finally");
    run.fail("do p.guard.guard.catch_1");
    run.complete("do p.guard.guard.catch_1.x");
    run.complete("do p.guard.guard.finally.y");
    assert_eq!(*run.last_dispatch().input, json!("y-1"));
    run.fail("do z");
    for step in ["finally.y", "catch_1.x", "finally"] {
        run.complete(&format!("undo p.guard.guard.{step}"));
    }
    assert_eq!(run.status(), Status::Compensated);
}

/// Ten levels of every container around one activity.
fn deep(level: u32, inner: Vec<Def>) -> Vec<Def> {
    if level == 0 {
        return inner;
    }
    let steps = deep(level - 1, inner);
    let name = format!("l{level}");
    let other = act(&format!("other{level}"));
    vec![match level % 5 {
        0 => parallel(&name, vec![("x", steps), ("y", vec![other])]),
        1 => for_each(&name, json!([1]), steps),
        2 => switch(&name, vec![(None, steps)]),
        3 => attempt(&name, steps).finally(vec![set(&format!("s{level}"), &[("v", json!(level))])]),
        _ => scope(&name, steps),
    }]
}

#[test]
fn ten_levels_of_containers_are_walked_forwards_and_back() {
    let mut run = run([deep(10, vec![act("a"), act("b")]), vec![act("z")]].concat());
    let mut left = true;
    while left {
        let next = run.state.open_tasks().next().map(|view| format!("do {}", view.step));
        left = next.as_ref().is_some_and(|what| what != "do z");
        if left {
            run.complete(&next.unwrap());
        }
    }
    run.fail("do z");
    while !run.state.is_closed() {
        let next = run.state.open_tasks().next().unwrap().step.clone();
        run.complete(&format!("undo {next}"));
    }
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(run.undone().len(), 4);
}
