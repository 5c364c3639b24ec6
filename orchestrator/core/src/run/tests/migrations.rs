//! Moving a run to another version of its definition: what it has passed has to be the same there, and nothing else.

use std::sync::Arc;

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{Cancellation, Join, OnExhausted, Plan, Timeouts, UndoOrder};
use crate::ids::DefinitionHash;
use crate::run::input::{Input, ParkedAction, Rejected};
use crate::run::migrate::Target;
use crate::run::{Event, Status};
use crate::time::Span;

fn of_version(mut plan: Plan, version: u32) -> Plan {
    plan.version = version;
    plan.hash = DefinitionHash(format!("v{version}").into());
    plan
}

fn to(steps: Vec<Def>) -> Input {
    migrate(of_version(plan(steps), 2), "ann")
}

fn migrate(plan: Plan, who: &str) -> Input {
    Input::Migrate {
        to: Target(Arc::new(plan)),
        operation: by(who),
    }
}

/// `a` is done, `b` under way, `c` to come.
fn under_way() -> Run {
    let mut run = run(vec![act("a"), act("b"), act("c")]);
    run.complete("do a");
    run
}

/// Moves the run, or says why not.
fn moved(run: &mut Run, steps: Vec<Def>) -> Result<(), String> {
    let next = run.state.version() + 1;
    match run.apply(migrate(of_version(plan(steps.clone()), next), "ann")) {
        Ok(Some(effects)) => {
            assert_eq!(effects, [], "nothing is sent again");
            run.plan = of_version(plan(steps), next);
            Ok(())
        }
        Ok(None) => panic!("it was there already"),
        Err(Rejected::CannotMigrate(why)) => Err(why),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_reached_may_be_anything() {
    for (rest, next) in [
        (vec![act("d"), act("c")], "do d"),
        (vec![act("c").input(json!(7))], "do c"),
        (vec![scope("s", vec![act("c")])], "do s.c"),
        (vec![], ""),
    ] {
        let mut run = under_way();
        let steps = [vec![act("a"), act("b")], rest].concat();
        moved(&mut run, steps).unwrap();
        assert_eq!((run.state.version(), &*run.state.definition_hash().0), (2, "v2"));
        assert_eq!(run.status(), Status::Running);
        run.complete("do b");
        if next.is_empty() {
            assert_eq!(run.status(), Status::Completed);
        } else {
            assert_eq!(run.dispatched().last().unwrap(), next);
            run.fail(next);
            run.complete("undo b");
            run.complete("undo a");
            assert_eq!(run.status(), Status::Compensated);
        }
    }
}

fn beating() -> Timeouts {
    Timeouts {
        heartbeat: Some(Span::from_secs(3)),
        ..Timeouts::default()
    }
}

fn limited(key: Option<&'static str>) -> LimitsDef {
    LimitsDef {
        concurrency: Some((2, key)),
        ..LimitsDef::default()
    }
}

#[test]
fn the_limits_of_a_step_under_way_are_those_of_every_version() {
    let mut it = run(vec![act("a").limits(limited(Some("${ input.customer }")))]);
    let why = moved(&mut it, vec![act("a").limits(limited(None))]);
    assert_eq!(why.unwrap_err(), "`a` has another limit in the other version");
    moved(
        &mut it,
        vec![act("a").limits(limited(Some("${ input.customer }"))), act("b")],
    )
    .unwrap();
}

#[test]
fn what_was_passed_or_is_under_way_has_to_be_the_same() {
    let table: Vec<(Vec<Def>, &str)> = vec![
        (
            vec![act("a").input(json!(7)), act("b")],
            "`a` has another input in the other version",
        ),
        (
            vec![act("a").undo_input(json!(7)), act("b")],
            "`a` has another undo in the other version",
        ),
        (
            vec![act("a").undo(UndoDef::ReadOnly), act("b")],
            "`a` has another undo in the other version",
        ),
        (
            vec![act("a").when("true"), act("b")],
            "`a` has another condition in the other version",
        ),
        (
            vec![act("a").pivot(true), act("b")],
            "`a` has another `pivot` in the other version",
        ),
        (
            vec![set("a", &[]), act("b")],
            "`a` has another kind in the other version",
        ),
        (
            vec![act("a"), act("b").attempts(Some(9))],
            "`b` has another retry policy in the other version",
        ),
        (
            vec![act("a"), act("b").start_to_close(Span::from_secs(99))],
            "`b` has another timeout in the other version",
        ),
        (
            vec![act("a"), act("b").timeouts(beating())],
            "`b` has another timeout in the other version",
        ),
        (
            vec![act("a").undo_timeouts(beating()), act("b")],
            "`a` has another undo in the other version",
        ),
        (
            vec![act("a"), act("b").cancellation(Cancellation::Abandon)],
            "`b` has another `cancellation` in the other version",
        ),
        (
            vec![act("a"), act("b").limits(limited(None))],
            "`b` has another limit in the other version",
        ),
        (vec![act("a")], "`b` is not in the other version"),
        (
            vec![act("a"), act("new"), act("b")],
            "`b` is not where it was: `new` is there in the other version",
        ),
        (
            vec![act("b"), act("a")],
            "`a` is not where it was: `b` is there in the other version",
        ),
    ];
    for (steps, why) in table {
        let mut run = under_way();
        let history = run.history.len();
        assert_eq!(moved(&mut run, steps), Err(why.to_owned()));
        assert_eq!((run.history.len(), run.state.version()), (history, 1));
    }
}

#[test]
fn bodies_may_change_as_far_as_they_were_not_entered() {
    let choice =
        |when: &str, taken: Vec<Def>, other: Vec<Def>| vec![switch("s", vec![(Some(when), taken), (None, other)])];
    let start = || run(choice("true", vec![act("a"), act("b")], vec![act("c")]));
    let mut it = start();
    moved(
        &mut it,
        choice("true", vec![act("a"), act("x")], vec![act("y"), act("z")]),
    )
    .unwrap();
    let mut it = start();
    let why = moved(&mut it, choice("1 == 1", vec![act("a")], vec![act("c")]));
    assert_eq!(why.unwrap_err(), "`s` has another list of cases in the other version");
    let why = moved(&mut it, choice("true", vec![act("z"), act("a")], vec![act("c")]));
    assert!(why.unwrap_err().starts_with("`s.case_1.a` is not where it was"));

    let both = |left: Vec<Def>, right: Vec<Def>| vec![parallel("p", vec![("l", left), ("r", right)])];
    let mut it = run(both(vec![act("a"), act("b")], vec![act("c"), act("d")]));
    it.complete("do p.l.a");
    moved(&mut it, both(vec![act("a"), act("b")], vec![act("c"), act("new")])).unwrap();
    it.complete("do p.r.c");
    assert_eq!(it.dispatched().last().unwrap(), "do p.r.new");
    let why = moved(&mut it, vec![parallel("p", vec![("l", vec![act("a"), act("b")])])]);
    assert_eq!(
        why.unwrap_err(),
        "`p` has another list of branches in the other version"
    );
    let other = parallel(
        "p",
        vec![("l", vec![act("a"), act("b")]), ("q", vec![act("c"), act("new")])],
    );
    let why = moved(&mut it, vec![other]);
    assert_eq!(
        why.unwrap_err(),
        "`p` has another list of branches in the other version"
    );
    let any = parallel(
        "p",
        vec![("l", vec![act("a"), act("b")]), ("r", vec![act("c"), act("new")])],
    )
    .join(Join::Any);
    assert_eq!(
        moved(&mut it, vec![any]).unwrap_err(),
        "`p` has another `join` in the other version"
    );
}

#[test]
fn the_body_of_a_loop_may_change_in_its_first_iteration_alone() {
    let steps = |second: Def| vec![repeat("w", "index < 2", 5, vec![act("a"), second])];
    let mut it = run(steps(act("b")));
    moved(&mut it, steps(act("x"))).unwrap();
    let mut it = run(steps(act("b")));
    it.complete("do w[0].a");
    it.complete("do w[0].b");
    let why = moved(&mut it, steps(act("x")));
    assert_eq!(
        why.unwrap_err(),
        "`w.b` is not where it was: `x` is there in the other version"
    );
    let longer = vec![repeat("w", "index < 2", 5, vec![act("a"), act("b"), act("c")])];
    assert_eq!(
        moved(&mut it, longer).unwrap_err(),
        "`w.c` is put into a body that has been passed"
    );
    moved(&mut it, [steps(act("b")), vec![act("after")]].concat()).unwrap();

    let each = |steps: Vec<Def>| vec![for_each("e", json!(["x", "y"]), steps)];
    let mut it = run(each(vec![act("a"), act("b")]));
    let why = moved(&mut it, each(vec![act("a"), act("x")]));
    assert_eq!(
        why.unwrap_err(),
        "`e.b` is not where it was: `x` is there in the other version"
    );
}

#[test]
fn a_run_that_is_undone_keeps_its_policy_and_its_undos() {
    let mut it = under_way();
    it.fail("do b");
    let steps = vec![act("a"), act("b"), act("new")];
    let other = with_compensation(plan(steps.clone()), UndoOrder::Sequential, OnExhausted::Continue);
    let refused = it.apply(migrate(of_version(other, 2), "ann"));
    assert_eq!(
        refused,
        Err(Rejected::CannotMigrate(
            "it is being undone, and the compensation policy is another one".to_owned()
        ))
    );
    moved(&mut it, steps).unwrap();
    it.complete("undo a");
    assert_eq!(it.status(), Status::Compensated);
    assert_eq!(it.apply(to(vec![])), Err(Rejected::Closed("compensated")));
}

#[test]
fn a_request_counts_once_and_the_version_it_has_is_no_change() {
    let mut it = under_way();
    let next = |version| Input::Migrate {
        to: Target(Arc::new(of_version(plan(vec![act("a"), act("b")]), version))),
        operation: request("m-1"),
    };
    it.take(next(2));
    let Event::RunMigrated {
        version: 2, operation, ..
    } = &it.last_events()[0]
    else {
        panic!("{:?}", it.last_events())
    };
    assert_eq!(operation, &request("m-1"));
    it.plan = of_version(plan(vec![act("a"), act("b")]), 2);
    it.ignores(next(2));
    it.ignores(next(3));
    it.ignores(migrate(of_version(plan(vec![act("a"), act("b")]), 2), "bob"));
    // And back again.
    it.take(migrate(of_version(plan(vec![act("a"), act("b"), act("c")]), 1), "bob"));
    assert_eq!(it.state.version(), 1);
}

#[test]
fn another_workflow_and_an_input_that_does_not_fit_are_refused() {
    let mut other = plan(vec![act("a"), act("b"), act("c")]);
    other.workflow = "other".into();
    let refused = under_way().apply(migrate(of_version(other, 2), "ann"));
    assert_eq!(
        refused,
        Err(Rejected::CannotMigrate("`other` is another workflow".to_owned()))
    );
    let strict = with_schema(
        plan(vec![act("a"), act("b"), act("c")]),
        &json!({"required": ["nothing"], "type": "object"}),
    );
    let refused = under_way().apply(migrate(of_version(strict, 2), "ann"));
    assert!(
        matches!(&refused, Err(Rejected::CannotMigrate(why)) if why.contains("schema")),
        "{refused:?}"
    );
}

/// A run that was bound to the wrong thing has a way out.
#[test]
fn a_run_that_is_parked_as_a_whole_can_move_and_goes_on_then() {
    let mut it = under_way();
    it.take(Input::Park {
        reason: "broken".into(),
    });
    moved(&mut it, vec![act("a"), act("b"), act("new")]).unwrap();
    assert_eq!(it.status(), Status::Parked);
    it.operate("", ParkedAction::Retry);
    it.complete("do b");
    assert_eq!(it.dispatched().last().unwrap(), "do new");
}

#[test]
fn the_successor_of_a_run_that_moved_goes_by_the_new_version() {
    let mut it = run(vec![act("a"), act("b")]);
    let next = vec![act("a"), continue_as_new("again", None)];
    moved(&mut it, next).unwrap();
    it.complete("do a");
    assert_eq!(it.status(), Status::ContinuedAsNew);
}

/// Nobody could start its successor, and whoever speaks to the id waits for that.
#[test]
fn a_run_that_is_about_to_continue_as_new_moves_where_its_successor_can_be_started() {
    let steps = || {
        vec![parallel(
            "p",
            vec![
                ("l", vec![act("a")]),
                ("r", vec![continue_as_new("again", Some(json!({"amount": 1})))]),
            ],
        )]
    };
    let requiring = |name: &str| {
        let schema = json!({"type": "object", "required": [name]});
        migrate(of_version(with_schema(plan(steps()), &schema), 2), "ann")
    };
    let mut it = run(steps());
    assert_eq!(it.status(), Status::Running, "a worker may have the task");
    // The run itself was started with it.
    let refused = it.apply(requiring("customer"));
    assert!(
        matches!(&refused, Err(Rejected::CannotMigrate(why)) if why.contains("continue as new")),
        "{refused:?}"
    );
    let refused = it.apply(requiring("amount"));
    assert!(matches!(refused, Err(Rejected::CannotMigrate(_))), "{refused:?}");
    it.take(migrate(of_version(plan(steps()), 2), "ann"));
    it.plan = of_version(plan(steps()), 2);
    it.complete("do p.l.a");
    assert_eq!(it.status(), Status::ContinuedAsNew);
}
