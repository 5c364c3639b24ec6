//! Starting, going through the steps, completing.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::OnFailure;
use crate::run::effect::Effect;
use crate::run::input::{AnswerOn, Rejected};
use crate::run::{Event, Outcome, Status, Step};

#[test]
fn steps_are_dispatched_one_after_the_other_and_the_run_completes_with_its_output() {
    let plan = plan(vec![
        act("order"),
        act("pay").input(json!({"order": "${ steps.order.id }", "who": "${ input.customer }"})),
    ]);
    let mut run = Run::of(with_output(plan, json!({"order": "${ steps.order.id }"})));
    assert_eq!(run.dispatched(), ["do order"]);
    let effects = run.complete("do order");
    assert_eq!(dispatches(&effects), ["do pay"]);
    assert_eq!(*run.last_dispatch().input, json!({"order": "order-1", "who": "c1"}));
    run.complete("do pay");
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(run.state.outcome().unwrap().to_json(), r#"{"order":"order-1"}"#);
    assert_eq!(run.state.closed_at(), Some(run.now));
    assert_eq!(run.history.len(), 3, "one transition a result");
}

#[test]
fn a_run_without_steps_completes_at_its_start() {
    let run = run(vec![]);
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(*run.state.output().unwrap().as_ref(), json!(null));
}

#[test]
fn nested_sequences_are_walked_and_paths_name_them() {
    let mut run = run(vec![
        seq(
            "outer",
            vec![seq("inner", vec![act("a")]), act("b").input(json!("${ steps.a.id }"))],
        ),
        act("c").input(json!("${ steps.b.id }")),
    ]);
    run.complete("do outer.inner.a");
    assert_eq!(*run.last_dispatch().input, json!("a-1"));
    run.complete("do outer.b");
    assert_eq!(*run.last_dispatch().input, json!("b-1"));
    run.fail("do c");
    run.complete("undo outer.b");
    run.complete("undo outer.inner.a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_false_condition_skips_a_step_and_leaves_it_without_output() {
    let mut run = run(vec![
        act("a").when("input.customer == 'nobody'"),
        seq("inner", vec![act("x")]).when("false"),
        act("b").input(json!("${ steps.a.id | default('none') }")),
    ]);
    assert_eq!(run.dispatched(), ["do b"], "{:?}", run.state.failure());
    assert_eq!(*run.last_dispatch().input, json!("none"));
    assert_eq!(run.state.steps()["a"], Step::Skipped);
    run.complete("do b");
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(run.state.ledger().len(), 1, "a skipped step has nothing to undo");
}

#[test]
fn set_assigns_in_order_and_later_lines_and_steps_see_it() {
    let mut run = run(vec![
        set("one", &[("a", json!(1)), ("b", json!("${ vars.a + 1 }"))]),
        set("two", &[("a", json!("${ vars.b + 1 }"))]),
        act("x").input(json!(["${ vars.a }", "${ vars.b }"])),
    ]);
    assert_eq!(run.dispatched(), ["do x"], "{:?}", run.state.failure());
    assert_eq!(*run.last_dispatch().input, json!([3, 2]));
    run.complete("do x");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn ten_thousand_steps_that_end_at_once_need_no_stack() {
    let steps = (0..10_000).map(|n| set(&format!("s{n}"), &[("a", json!(n))])).collect();
    let plan = plan(steps);
    let (state, _) = crate::run::start(&plan, begin(json!(null)), crate::time::Timestamp(0)).unwrap();
    assert_eq!(state.status(), Status::Completed);
}

#[test]
fn an_expression_that_fails_fails_the_step_before_anything_is_dispatched() {
    let bad = "${ steps.a.nothing }";
    let cases = [
        act("b").input(json!(bad)),
        set("b", &[("v", json!(bad))]),
        act("b").when("steps.a.nothing > 1"),
    ];
    for case in cases {
        let mut run = run(vec![act("a"), case]);
        run.complete("do a");
        assert_eq!(dispatches(&run.sent), ["do a", "undo a"]);
        let failure = run.state.failure().unwrap();
        assert_eq!(&*failure.error_type, "expression_error");
        assert_eq!(failure.step.as_ref().unwrap().as_str(), "b");
        run.complete("undo a");
        assert_eq!(run.status(), Status::Compensated);
    }
}

#[test]
fn an_expression_that_fails_in_a_step_that_may_fail_lets_the_run_go_on() {
    let mut run = run(vec![
        act("a")
            .input(json!("${ steps.none.id }"))
            .on_failure(OnFailure::Continue),
        act("b"),
    ]);
    assert_eq!(run.dispatched(), ["do b"]);
    run.complete("do b");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn an_output_that_cannot_be_evaluated_fails_the_run_and_undoes_it() {
    let mut run = Run::of(with_output(plan(vec![act("a")]), json!("${ steps.a.nothing }")));
    run.complete("do a");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
    let Some(Outcome::Failure(failure)) = run.state.outcome() else {
        panic!("no failure");
    };
    assert_eq!(failure.step, None);
}

#[test]
fn the_run_is_in_scope() {
    let run = run(vec![act("a").input(json!("${ run.workflow_id }/${ run.id }"))]);
    assert_eq!(*run.last_dispatch().input, json!(format!("order-1/{RUN}")));
}

#[test]
fn an_input_against_the_schema_is_rejected_with_its_place() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let refused = Run::started(with_schema(plan(vec![]), &schema), begin(json!({"n": "x"})));
    let Err(Rejected::InputSchema(text)) = refused.map(|_| ()) else {
        panic!("not rejected");
    };
    assert!(text.contains("/n"), "{text}");
    let refused = Run::started(with_schema(plan(vec![]), &schema), begin(json!({})));
    assert!(matches!(refused.map(|_| ()), Err(Rejected::InputSchema(_))));
    assert!(Run::started(with_schema(plan(vec![]), &schema), begin(json!({"n": 1}))).is_ok());
}

#[test]
fn search_attributes_are_computed_from_the_input_and_overridden_by_the_start() {
    let plan = || {
        let plan = with_search_attribute(plan(vec![]), "customer", &json!("${ input.customer }"));
        with_search_attribute(plan, "total", &json!("${ input.total | default(none) }"))
    };
    let run = Run::of(plan());
    assert_eq!(run.state.search_attributes().len(), 1, "null is no value");
    assert_eq!(run.state.search_attributes()["customer"], json!("c1"));
    let mut start = begin(json!({}));
    start.search_attributes.insert("customer".to_owned(), json!("c2"));
    let run = Run::started(plan(), start).unwrap();
    assert_eq!(run.state.search_attributes()["customer"], json!("c2"));
    assert!(matches!(
        Run::started(plan(), begin(json!({}))).map(|_| ()),
        Err(Rejected::Expression(_))
    ));
    let mut start = begin(json!({"customer": "c"}));
    start.search_attributes.insert("bad".to_owned(), json!("a\0"));
    assert!(matches!(
        Run::started(plan(), start).map(|_| ()),
        Err(Rejected::SearchAttribute { .. })
    ));
}

#[test]
fn who_waits_for_the_start_is_answered_in_its_transition_and_who_waits_for_the_end_at_the_end() {
    let mut start = begin(json!(null));
    start.answer = Some(answer("inbox.1", AnswerOn::Started));
    let run = Run::started(plan(vec![act("a")]), start.clone()).unwrap();
    let to = |on| Effect::Answer {
        to: "inbox.1".into(),
        on,
    };
    assert!(run.sent.contains(&to(AnswerOn::Started)));

    start.answer = Some(answer("inbox.1", AnswerOn::Closed));
    let mut run = Run::started(plan(vec![act("a")]), start.clone()).unwrap();
    assert_eq!(run.sent.len(), 1);
    assert!(run.complete("do a").contains(&to(AnswerOn::Closed)));

    let run = Run::started(plan(vec![]), start).unwrap();
    assert_eq!(
        run.sent,
        [to(AnswerOn::Closed)],
        "once, though it started and closed at once"
    );
    assert!(matches!(
        run.last_events(),
        [Event::RunStarted(_), Event::RunCompleted { .. }]
    ));
}
