//! Changes of the status: each is told once, and the same whenever it is asked for.

use serde_json::json;

use super::dsl::*;
use crate::run::input::{Input, ParkedAction};
use crate::run::message::{Body, Sender};
use crate::run::{Failure, Status, Turn, turns};

/// Transition, status or `started`, and what is said of why.
fn told(run: &Run) -> Vec<(u32, String, Option<String>)> {
    let of = |turn: Turn| {
        let kind = if turn.started { "started" } else { turn.status.as_str() };
        (
            turn.seq,
            kind.to_owned(),
            turn.error.map(|error| error.error_type.to_string()),
        )
    };
    // From the state as it is at the end, whatever it was then.
    let all = run.history.iter().flat_map(|transition| turns(&run.state, transition));
    all.map(of).collect()
}

fn kinds(run: &Run) -> Vec<String> {
    told(run).into_iter().map(|(_, kind, _)| kind).collect()
}

fn park(run: &mut Run, what: &str) {
    for _ in 0..2 {
        run.fail(what);
        run.wake_next();
    }
    run.fail(what);
}

#[test]
fn a_run_that_goes_straight_to_its_end_keeps_nothing_of_it() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.complete("do b");
    assert_eq!(kinds(&run), ["started", "completed"]);
    let last = turns(&run.state, run.history.last().unwrap());
    assert_eq!(last[0].output.as_ref(), run.state.output());
    assert!(run.state.turns.is_empty() && run.state.turned_in(&(1..=1)) && !run.state.turned_in(&(2..=2)));
    assert!(!serde_json::to_string(&run.state).unwrap().contains("turns"));
}

#[test]
fn a_run_may_start_and_end_in_one_transition() {
    let run = run(vec![set("s", &[("n", json!(1))])]);
    assert_eq!(kinds(&run), ["started", "completed"]);
    let mut failing = super::dsl::run(vec![act("a")]);
    failing.fail("do a");
    let told = told(&failing);
    assert_eq!(
        told[1],
        (2, "failed".to_owned(), Some("Refused".to_owned())),
        "it never compensates"
    );
    assert_eq!(told.len(), 2);
}

#[test]
fn what_is_parked_and_goes_on_is_told_with_its_reason() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.take(Input::Park { reason: "bad".into() });
    run.operate("", ParkedAction::Retry);
    run.fail("do b");
    park(&mut run, "undo a");
    run.operate("a", ParkedAction::Retry);
    run.complete("undo a");
    let expected = [
        ("started", None),
        ("parked", Some("parked")),
        ("running", None),
        ("compensating", Some("Refused")),
        ("parked", Some("Refused")),
        ("compensating", None),
        ("compensated", Some("Refused")),
    ];
    let told: Vec<_> = told(&run).into_iter().map(|(_, kind, error)| (kind, error)).collect();
    let expected = expected.map(|(kind, error): (&str, Option<&str>)| (kind.to_owned(), error.map(str::to_owned)));
    assert_eq!(told, expected);
}

#[test]
fn a_child_that_is_undone_after_its_end_has_two_ends() {
    let mut start = begin(json!({"customer": "c1"}));
    let parent = Sender {
        run: crate::ids::RunId(uuid::Uuid::from_u128(9)),
        namespace: "default".into(),
        workflow_id: "parent".into(),
    };
    start.parent = Some(Box::new(crate::run::message::Parent {
        run: parent.run,
        namespace: parent.namespace.clone(),
        workflow_id: parent.workflow_id.clone(),
        step: "kid".into(),
        message: crate::ids::MessageNo(1),
        child: start.run_id,
        detached: false,
        scheduled: None,
    }));
    let mut run = Run::started(plan(vec![act("a")]), start).unwrap();
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
    run.take(Input::Message {
        from: parent,
        number: crate::ids::MessageNo(2),
        body: Body::Undo {
            error: Failure::new("why", "it failed"),
        },
    });
    run.complete("undo a");
    assert_eq!(kinds(&run), ["started", "completed", "compensating", "compensated"]);
    assert_eq!(told(&run)[2].2.as_deref(), Some("why"));
    let first = &turns(&run.state, &run.history[1])[0];
    assert!(first.output.is_some() && first.error.is_none());
}

#[test]
fn who_continues_as_new_names_the_run_that_goes_on() {
    let run = run(vec![continue_as_new("again", None)]);
    assert_eq!(kinds(&run), ["started", "continued_as_new"]);
    let last = turns(&run.state, run.history.last().unwrap()).pop().unwrap();
    assert_eq!(last.successor, run.state.successor().map(|start| start.run_id));
    assert_eq!(last.output, None, "its input is no output");
}
