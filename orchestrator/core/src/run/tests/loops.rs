//! `for_each:` and `while:`.

use serde_json::json;

use super::dsl::*;
use crate::run::input::{Input, TaskOutcome};
use crate::run::limits::MAX_ITERATIONS_AT_ONCE;
use crate::run::{Event, Status};

fn lines() -> Def {
    let steps = vec![
        act("reserve").input(json!({"line": "${ item.sku }", "n": "${ index }"})),
        act("pack").input(json!("${ steps.reserve.id }-${ item.sku }")),
    ];
    for_each("lines", json!([{"sku": "p"}, {"sku": "q"}, {"sku": "r"}]), steps)
        .collect(json!("${ steps.pack.id }${ index }"))
}

#[test]
fn every_item_has_its_own_steps_and_the_output_is_in_the_order_of_the_items() {
    let mut run = run(vec![lines(), act("z").input(json!("${ steps.lines }"))]);
    assert_eq!(run.dispatched().len(), 3);
    assert_eq!(*run.last_dispatch().input, json!({"line": "r", "n": 2}));
    for index in [2, 0, 1] {
        run.complete(&format!("do lines[{index}].reserve"));
        let sku = ["p", "q", "r"][index];
        assert_eq!(*run.last_dispatch().input, json!(format!("reserve-1-{sku}")));
    }
    for index in [1, 2, 0] {
        run.complete(&format!("do lines[{index}].pack"));
    }
    assert_eq!(*run.last_dispatch().input, json!(["pack-10", "pack-11", "pack-12"]));
}

#[test]
fn the_list_is_evaluated_once_and_kept_in_the_history() {
    let mut run = run(vec![
        set("v", &[("list", json!([1, 2]))]),
        for_each(
            "each",
            json!("${ vars.list }"),
            vec![set("w", &[("list", json!([]))]), act("a")],
        ),
    ]);
    assert_eq!(run.dispatched(), ["do each[0].a", "do each[1].a"]);
    assert!(run.last_events().iter().any(|event| matches!(
        event,
        Event::ForEachStarted { items, .. } if **items == json!([1, 2])
    )));
    run.complete("do each[0].a");
    run.complete("do each[1].a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn at_most_so_many_are_under_way() {
    let mut run = run(vec![for_each("each", json!([1, 2, 3, 4]), vec![act("a")]).at_once(2)]);
    assert_eq!(run.dispatched(), ["do each[0].a", "do each[1].a"]);
    run.complete("do each[1].a");
    assert_eq!(run.dispatched().last().unwrap(), "do each[2].a");
    run.complete("do each[2].a");
    run.complete("do each[0].a");
    assert_eq!(run.dispatched().len(), 4);
    run.complete("do each[3].a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_long_list_is_begun_in_parts() {
    let list = json!((0..MAX_ITERATIONS_AT_ONCE + 1).collect::<Vec<_>>());
    let plan = plan(vec![for_each("each", list, vec![act("a")])]);
    let (mut state, _) = crate::run::start(&plan, begin(json!(null)), crate::time::Timestamp(0)).unwrap();
    assert_eq!(state.open_tasks().count(), MAX_ITERATIONS_AT_ONCE as usize);
    let ended = Input::TaskEnded {
        task: crate::ids::TaskNo(1),
        outcome: done(json!(1)),
    };
    crate::run::apply(&plan, &mut state, ended, crate::time::Timestamp(1)).unwrap();
    assert_eq!(state.open_tasks().count(), MAX_ITERATIONS_AT_ONCE as usize);
}

#[test]
fn a_failed_iteration_halts_the_others_and_every_one_is_undone_with_its_own_data() {
    let steps = vec![
        act("reserve").undo_input(json!({"line": "${ item }", "id": "${ steps.reserve.id | default(none) }"})),
        act("pack"),
    ];
    let mut run = run(vec![for_each("lines", json!(["p", "q", "r"]), steps)]);
    for index in [0, 1] {
        let id = json!({"id": index});
        run.end(&format!("do lines[{index}].reserve"), done(id));
    }
    run.fail("do lines[1].pack");
    run.end("do lines[0].pack", TaskOutcome::Cancelled);
    run.end("do lines[2].reserve", unknown());
    let undone: Vec<_> = run.undone();
    assert_eq!(
        undone,
        [
            "undo lines[2].reserve",
            "undo lines[1].reserve",
            "undo lines[0].reserve"
        ],
        "side by side"
    );
    let entries = run.state.ledger().iter().map(|entry| (*entry.input).clone());
    let inputs: Vec<_> = entries.filter(|input| !input.is_null()).collect();
    assert_eq!(
        inputs,
        [
            json!({"line": "p", "id": 0}),
            json!({"line": "q", "id": 1}),
            json!({"line": "r", "id": null})
        ]
    );
}

#[test]
fn iterations_one_at_a_time_are_undone_in_reverse() {
    let each = for_each("each", json!([1, 2]), vec![act("a"), act("b")]).at_once(1);
    let mut run = run(vec![each, act("z")]);
    for step in ["[0].a", "[0].b", "[1].a", "[1].b"] {
        run.complete(&format!("do each{step}"));
    }
    run.fail("do z");
    for step in ["[1].b", "[1].a", "[0].b", "[0].a"] {
        assert_eq!(run.undone().last().unwrap(), &format!("undo each{step}"));
        run.complete(&format!("undo each{step}"));
    }
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn loops_may_be_nested_and_see_their_own_items() {
    let inner = for_each(
        "inner",
        json!("${ item.list }"),
        vec![act("a").input(json!("${ item }/${ index }"))],
    );
    let mut run = run(vec![for_each(
        "outer",
        json!([{"list": [5]}, {"list": [6, 7]}]),
        vec![inner],
    )]);
    assert_eq!(
        run.dispatched(),
        [
            "do outer[0].inner[0].a",
            "do outer[1].inner[0].a",
            "do outer[1].inner[1].a"
        ]
    );
    assert_eq!(*run.last_dispatch().input, json!("7/1"));
    for what in run.dispatched() {
        run.complete(&what);
    }
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn an_empty_list_gives_an_empty_list_and_what_is_none_fails() {
    let mut run = run(vec![
        for_each("each", json!([]), vec![act("a")]),
        act("z").input(json!("${ steps.each }")),
    ]);
    assert_eq!(*run.last_dispatch().input, json!([]));
    run.complete("do z");
    let run = super::dsl::run(vec![for_each("each", json!("${ input }"), vec![act("a")])]);
    assert_eq!(run.status(), Status::Failed);
    let collected = for_each("each", json!([1]), vec![]).collect(json!("${ steps.none.id }"));
    let run = super::dsl::run(vec![collected]);
    assert_eq!(&*run.state.failure().unwrap().error_type, "expression_error");
}

#[test]
fn while_repeats_as_long_as_its_condition_holds_and_reads_the_last_iteration() {
    let poll = repeat(
        "poll",
        "index == 0 or not steps.ask.ready",
        10,
        vec![act("ask").input(json!("${ index }"))],
    );
    let mut run = run(vec![poll, act("z").input(json!("${ steps.ask.ready }"))]);
    run.end("do poll[0].ask", done(json!({"ready": false})));
    assert_eq!(*run.last_dispatch().input, json!(1));
    run.end("do poll[1].ask", done(json!({"ready": 42})));
    assert_eq!(run.dispatched().last().unwrap(), "do z");
    assert_eq!(*run.last_dispatch().input, json!(42));
    run.fail("do z");
    run.complete("undo poll[1].ask");
    run.complete("undo poll[0].ask");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn one_iteration_too_many_fails_the_step() {
    let run = run(vec![repeat(
        "w",
        "true",
        3,
        vec![set("s", &[("n", json!("${ index }"))])],
    )]);
    assert_eq!(run.status(), Status::Failed);
    assert_eq!(&*run.state.failure().unwrap().error_type, "max_iterations");
    assert_eq!(*run.state.vars()["n"], json!(2));
    let run = super::dsl::run(vec![repeat("w", "index < 3", 3, vec![])]);
    assert_eq!(run.status(), Status::Completed);
}
