//! What is undone, with what, in which order, and what the run ends as.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{NodeKind, OnExhausted, Plan, Undo, UndoOrder};
use crate::run::effect::Direction;
use crate::run::input::{ParkedAction, TaskOutcome};
use crate::run::{Event, Status, UndoState};

#[test]
fn completed_and_unknown_steps_are_undone_in_reverse_order_of_dispatch() {
    let mut run = run(vec![act("a"), act("b"), act("c")]);
    run.complete("do a");
    run.complete("do b");
    run.time_out("do c");
    assert_eq!(run.status(), Status::Compensating);
    assert_eq!(run.undone(), ["undo c"], "one at a time");
    assert_eq!(*run.last_dispatch().input, json!({"id": null}), "no output to read");
    run.complete("undo c");
    run.complete("undo b");
    assert_eq!(*run.last_dispatch().input, json!({"id": "a-1"}));
    run.complete("undo a");
    assert_eq!(run.undone(), ["undo c", "undo b", "undo a"]);
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(
        &*run.state.failure().unwrap().error_type,
        "timeout",
        "the original error is kept"
    );
}

#[test]
fn what_is_undone_depends_on_the_kind_of_step_and_its_outcome() {
    // (the last step, its outcome, undone)
    let table = [
        (act("z"), failed("X"), false),
        (act("z"), unknown(), true),
        (act("z").compensate_on_failure(true), failed("X"), true),
        (act("z").undo(UndoDef::ReadOnly), unknown(), false),
        (act("z").undo(UndoDef::NoUndo), unknown(), false),
        (act("z"), TaskOutcome::Cancelled, false),
    ];
    for (def, outcome, undone) in table {
        let mut run = run(vec![def.clone()]);
        run.end("do z", outcome.clone());
        assert_eq!(run.undone().len(), usize::from(undone), "{def:?} {outcome:?}");
        if undone {
            run.complete("undo z");
        }
        let expected = if undone { Status::Compensated } else { Status::Failed };
        assert_eq!(run.status(), expected);
    }
}

#[test]
fn keys_name_run_step_and_direction() {
    let mut run = run(vec![act("a")]);
    assert_eq!(*run.last_dispatch().idempotency_key, *format!("{RUN}/a/do"));
    run.end("do a", unknown());
    assert_eq!(*run.last_dispatch().idempotency_key, *format!("{RUN}/a/undo"));
    assert_eq!(run.last_dispatch().direction, Direction::Undo);
}

#[test]
fn the_entry_is_in_the_event_of_the_dispatch_and_the_input_in_that_of_the_outcome() {
    let mut run = run(vec![act("a"), act("b")]);
    let Event::ActivityScheduled(scheduled) = &run.last_events()[1] else {
        panic!("{:?}", run.last_events());
    };
    assert_eq!(scheduled.undo.as_ref().unwrap().activity.as_str(), "undo-a");
    assert_eq!(run.state.ledger()[0].state, UndoState::Dormant);
    run.complete("do a");
    assert!(matches!(&run.last_events()[1], Event::UndoReady { input, .. } if **input == json!({"id": "a-1"})));
}

#[test]
fn an_undo_input_is_what_it_was_when_the_outcome_was_known() {
    let mut run = run(vec![
        set("one", &[("v", json!(1))]),
        act("a").undo_input(json!("${ vars.v }")),
        set("two", &[("v", json!(2))]),
        act("b"),
    ]);
    run.complete("do a");
    run.fail("do b");
    assert_eq!(*run.last_dispatch().input, json!(1));
}

#[test]
fn an_undo_that_reads_the_error_gets_it_before_any_undo_is_dispatched() {
    let mut run = run(vec![
        act("a").undo_input(json!({"why": "${ error.type } at ${ error.step }"})),
        act("b"),
        act("c"),
    ]);
    run.complete("do a");
    assert!(matches!(run.last_events()[1], Event::UndoNeeded { .. }));
    run.complete("do b");
    run.fail("do c");
    assert_eq!(*run.state.ledger()[0].input, json!({"why": "Refused at c"}));
    assert_eq!(run.undone(), ["undo b"]);
}

#[test]
fn an_input_that_cannot_be_evaluated_parks_the_entry_and_the_rest_goes_on() {
    let mut run = run(vec![
        act("a"),
        act("b").undo_input(json!("${ steps.b.nothing }")),
        act("c"),
    ]);
    run.complete("do a");
    run.complete("do b");
    assert_eq!(run.status(), Status::Running, "nobody has to act while the run goes on");
    run.fail("do c");
    assert_eq!(run.undone(), ["undo a"]);
    assert_eq!(run.status(), Status::Parked);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Parked);
    assert!(!run.state.is_closed());
    assert_eq!(run.state.wake_at(), None);
    run.operate("b", ParkedAction::RetryWithInput(json!("edited").into()));
    assert_eq!(*run.last_dispatch().input, json!("edited"));
    run.complete("undo b");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_parked_entry_does_not_keep_a_run_from_completing() {
    let mut run = run(vec![act("a").undo_input(json!("${ steps.a.nothing }"))]);
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn an_undo_is_retried_by_its_own_policy_and_then_parked_while_others_go_on() {
    let mut run = run(vec![act("a"), act("b"), act("c")]);
    run.complete("do a");
    run.complete("do b");
    run.fail("do c");
    for _ in 0..2 {
        run.fail("undo b");
        run.wake_next();
    }
    assert_eq!(run.undone(), ["undo b", "undo b#2", "undo b#3"]);
    run.time_out("undo b");
    assert_eq!(run.status(), Status::Parked);
    assert_eq!(run.undone().last().unwrap(), "undo a", "on_exhausted: continue");
    run.complete("undo a");
    assert!(!run.state.is_closed());
    assert!(matches!(
        &run.state.ledger()[1].state,
        UndoState::Parked { prepared: true, .. }
    ));
}

#[test]
fn a_failed_undo_never_counts_as_done_and_unknown_ones_are_retried() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.fail("do b");
    run.end("undo a", unknown());
    run.wake_next();
    run.end("undo a", TaskOutcome::RetryLater { after: None });
    run.wake_next();
    run.end("undo a", TaskOutcome::Cancelled);
    run.wake_next();
    assert_eq!(run.undone(), ["undo a", "undo a#2", "undo a#2", "undo a#3"]);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

/// What the undo of each of these says about the others.
fn saying(mut plan: Plan, entries: &[(&str, OnExhausted)]) -> Plan {
    for node in &mut plan.nodes {
        if let NodeKind::Activity(activity) = &mut node.kind
            && let Undo::Compensate(call) = &mut activity.undo
        {
            let said = entries.iter().find(|(step, _)| **step == *node.name);
            call.on_exhausted = said.map(|(_, said)| *said);
        }
    }
    plan
}

#[test]
fn an_undo_holds_up_the_others_where_its_own_step_says_so() {
    let (halt, go_on) = (OnExhausted::Halt, OnExhausted::Continue);
    type Row<'a> = (OnExhausted, &'a [(&'a str, OnExhausted)], &'a [&'a str]);
    // Policy, what entries say, undos once that of `c` is parked.
    let table: [Row<'_>; 6] = [
        (go_on, &[], &["undo c", "undo b"]),
        (go_on, &[("c", halt)], &["undo c"]),
        (go_on, &[("b", halt)], &["undo c", "undo b"]),
        (halt, &[], &["undo c"]),
        (halt, &[("c", go_on)], &["undo c", "undo b"]),
        (halt, &[("b", go_on)], &["undo c"]),
    ];
    for (policy, entries, undone) in table {
        let steps = vec![
            act("a"),
            act("b"),
            act("c").undo_attempts(1),
            act("d").undo(UndoDef::ReadOnly),
        ];
        let plan = with_compensation(plan(steps), UndoOrder::Dependencies, policy);
        let mut run = Run::of(saying(plan, entries));
        for step in ["do a", "do b", "do c"] {
            run.complete(step);
        }
        run.fail("do d");
        run.fail("undo c");
        assert_eq!(run.status(), Status::Parked);
        assert_eq!(run.undone(), undone, "{policy:?} {entries:?}");
        // Once an operator has decided, what was held up goes on.
        run.operate("c", ParkedAction::MarkDone);
        run.complete("undo b");
        run.complete("undo a");
        assert_eq!(run.status(), Status::Compensated);
    }
}
