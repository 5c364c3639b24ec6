//! What earlier versions have stored still loads, and means the same. `stored/v1` was written before runs knew anything but
//! sequences, activities and `set`; a directory is never changed, a new format gets a new one.

use serde_json::{Value, json};

use super::dsl::*;
use crate::run::input::{Input, ParkedAction};
use crate::run::{self, State, Status, Transition};

const V1: [(&str, &str, &str, Status); 4] = [
    (
        "order_completed",
        include_str!("stored/v1/order_completed.history.jsonl"),
        include_str!("stored/v1/order_completed.snapshot.json"),
        Status::Completed,
    ),
    (
        "order_under_way",
        include_str!("stored/v1/order_under_way.history.jsonl"),
        include_str!("stored/v1/order_under_way.snapshot.json"),
        Status::Running,
    ),
    (
        "order_undoing",
        include_str!("stored/v1/order_undoing.history.jsonl"),
        include_str!("stored/v1/order_undoing.snapshot.json"),
        Status::Compensating,
    ),
    (
        "order_undone",
        include_str!("stored/v1/order_undone.history.jsonl"),
        include_str!("stored/v1/order_undone.snapshot.json"),
        Status::Compensated,
    ),
];

fn transitions(history: &str) -> Vec<Transition> {
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        Transition::new(
            serde_json::from_value(line["seq"].clone()).unwrap(),
            serde_json::from_value(line["at"].clone()).unwrap(),
            serde_json::from_value(line["events"].clone()).unwrap(),
        )
    };
    history.lines().map(read).collect()
}

fn folded(history: &str) -> State {
    let transitions = transitions(history);
    let mut state = State::born(&transitions[0]).unwrap();
    for transition in &transitions[1..] {
        run::evolve(&mut state, transition);
    }
    state
}

#[test]
fn histories_of_the_first_version_are_written_as_they_were() {
    for (name, history, _, _) in V1 {
        for (transition, line) in transitions(history).iter().zip(history.lines()) {
            let again = json!({"seq": transition.seq, "at": transition.at, "events": transition.events});
            // A birth named its request behind its input then; whoever reads goes by the names.
            let then: Value = serde_json::from_str(line).unwrap();
            assert_eq!(again, then, "{name}");
            assert_eq!(again.to_string().len(), line.len(), "{name}");
        }
    }
}

#[test]
fn histories_and_snapshots_of_the_first_version_load() {
    for (name, history, snapshot, status) in V1 {
        let state = folded(history);
        assert_eq!(state.status(), status, "{name}");
        let mut loaded: State = serde_json::from_str(snapshot).unwrap();
        // The first version neither counted in its snapshots nor kept changes of the status.
        (loaded.events, loaded.history_bytes) = (state.events, state.history_bytes);
        loaded.turns.clone_from(&state.turns);
        assert_eq!(loaded, state, "{name}");
    }
}

/// The definition of the stored runs.
fn order() -> crate::definition::plan::Plan {
    let steps = vec![
        act("create"),
        act("payment")
            .input(json!({"order": "${ steps.create.id }"}))
            .attempts(Some(2)),
        act("stock"),
        act("confirm").undo(UndoDef::NoUndo),
    ];
    with_timeout(with_output(plan(steps), json!({"order": "${ steps.create.id }"})), 600)
}

#[test]
fn runs_of_the_first_version_go_on() {
    for snapshot in [V1[1].2, V1[2].2] {
        let state: State = serde_json::from_str(snapshot).unwrap();
        let mut run = Run::loaded(order(), state);
        if run.status() == Status::Running {
            run.complete("do payment");
            run.fail("do stock");
        }
        while !run.state.is_closed() {
            if run.state.open_tasks().count() == 0 {
                run.wake_next();
            }
            let step = run.state.open_tasks().next().unwrap().step.clone();
            run.complete(&format!("undo {step}"));
        }
        assert_eq!(run.status(), Status::Compensated);
        assert!(run.apply(parked("create")).is_err());
    }
}

/// Earlier versions kept the ids of signals and of what was done about what is parked together.
#[test]
fn requests_that_an_earlier_version_took_still_count_and_not_for_more_than_they_did() {
    let signal = |id: &str| Input::Signal {
        name: "x".into(),
        body: json!(1).into(),
        operation: request(id),
    };
    let retry = |id: &str| Input::Parked {
        direction: None,
        step: "create".into(),
        action: ParkedAction::Retry,
        operation: request(id),
    };
    let mut snapshot: Value = serde_json::from_str(V1[1].2).unwrap();
    snapshot["requests"] = json!(["r-1"]);
    snapshot["stops"] = json!({"cancel": ["c-1"]});
    snapshot["birth"]["continues"] = json!({"run": snapshot["birth"]["run_id"], "requests": ["r-0"]});
    let again: State = serde_json::from_value(snapshot.clone()).unwrap();
    let again: State = serde_json::from_str(&serde_json::to_string(&again).unwrap()).unwrap();
    for state in [serde_json::from_value(snapshot).unwrap(), again] {
        let mut run = Run::loaded(order(), state);
        for id in ["r-0", "r-1"] {
            run.ignores(signal(id));
            run.ignores(retry(id));
        }
        run.ignores(Input::Cancel(request("c-1")));
        assert_eq!(run.status(), Status::Running);
        run.take(signal("c-1"));
        run.take(Input::Cancel(request("r-1")));
        assert_eq!(run.status(), Status::Compensating);
    }
}

fn parked(step: &str) -> Input {
    Input::Parked {
        direction: None,
        step: step.into(),
        action: ParkedAction::Retry,
        operation: by("ann"),
    }
}
