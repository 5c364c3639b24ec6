//! The example definitions, run to their end on the core: every expression in them gives a value.

use serde_json::{Value, json};

use super::dsl::*;
use crate::definition;
use crate::run::effect::Direction;
use crate::run::failure::error_type;
use crate::run::input::{Input, TaskOutcome, WorkerError};
use crate::run::message::{Answer, Body};
use crate::run::{Event, Status};

/// What every activity gives back: all that any of the examples reads.
fn output() -> Value {
    json!({
        "order_id": "o1", "total": 10, "payment_id": "p1", "ticket": "t1", "price": 100.5, "reservation": "r1", "amount": 5,
        "id": "id1", "partitions": ["a", "b"], "files": "f", "rows": 3, "allowed": true, "transfer": "tr1", "address": "here",
        "url": "u", "job": "j1", "state": "done",
    })
}

fn signal(name: &str) -> Value {
    match name {
        "approval" => json!({"email": "a@b", "granted": true, "by": "eva"}),
        "resolve" => json!({"incident": "i1", "who": "ann"}),
        _ => json!({"who": "ann", "reason": "too dear"}),
    }
}

/// Completes everything the run asks for, but for one forward task, which fails for good. Whether there was one of that
/// number.
fn drive(run: &mut Run, fails: Option<usize>) -> bool {
    let mut forward = 0;
    let mut failed = false;
    for _ in 0..200 {
        let task = run
            .state
            .open_tasks()
            .map(|view| (view.open.task, view.direction))
            .next();
        if let Some((task, direction)) = task {
            let fail_it = direction == Direction::Do && fails == Some(forward);
            forward += usize::from(direction == Direction::Do);
            failed |= fail_it;
            let error = WorkerError {
                retryable: false,
                ..error("broken")
            };
            let outcome = if fail_it {
                TaskOutcome::Failed(error)
            } else {
                done(output())
            };
            run.take(Input::TaskEnded { task, outcome });
            continue;
        }
        let child = run.pending().first().map(|(_, body)| (**body).clone());
        if let Some(child) = child {
            run.answered(Answer::Accepted);
            let ends = match child {
                Body::StartChild(start) if !start.detached => Some((start.step, Status::Completed)),
                Body::Undo { .. } => Some(("trip".into(), Status::Compensated)),
                _ => None,
            };
            if let Some((step, status)) = ends {
                run.child_closed(step.as_str(), status);
            }
            continue;
        }
        if run.state.is_closed() || run.status() == Status::Parked {
            return failed;
        }
        let awaited = run.events().iter().rev().find_map(|event| match event {
            Event::SignalAwaited { signal, .. } => Some(signal.to_string()),
            _ => None,
        });
        let pending_timer = matches!(run.last_events().last(), Some(Event::TimerSet { .. }));
        match awaited.filter(|_| !pending_timer) {
            Some(name) => drop(run.signal(&name, signal(&name))),
            None => drop(run.wake_next()),
        }
    }
    panic!("no end: {:?}", run.state);
}

fn inputs() -> Vec<(&'static str, Value)> {
    let day = "2030-01-01";
    let items = json!([{"sku": "a", "quantity": 1, "price": 2.5}]);
    vec![
        ("order", json!({"customer": "c", "items": items})),
        (
            "travel",
            json!({"trip": "t", "traveller": "ann", "from": "a", "to": "b", "depart": day, "return": day, "car": true}),
        ),
        ("subscription", json!({"customer": "c", "plan": "monthly", "period": 1})),
        ("onboarding", json!({"email": "a@b", "name": "ann", "team": "x"})),
        ("pipeline", json!({"day": day, "source": "s"})),
        ("refund", json!({"order": "o", "amount": 5, "reason": "broken"})),
        ("import", json!({"batch": "b", "rows": [{"key": "1"}, {"key": "2"}]})),
        (
            "conference",
            json!({"conference": "c", "speaker": "s", "city": "x", "home": "y", "first_day": day, "last_day": day}),
        ),
        ("transcode", json!({"video": "v", "profile": "small"})),
        ("incident", json!({"incident": "i1", "service": "s", "summary": "down"})),
    ]
}

fn started(name: &str, input: Value) -> Run {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../workers/examples/{name}.yaml"));
    let text = std::fs::read_to_string(path).unwrap();
    let checked = definition::read(&text, &|_| Err(String::new())).unwrap();
    Run::started(checked.plan, begin(input)).unwrap()
}

#[test]
fn every_example_runs_to_its_end() {
    for (name, input) in inputs() {
        let mut run = started(name, input);
        drive(&mut run, None);
        assert_eq!(run.status(), Status::Completed, "{name}: {:?}", run.last_events());
    }
}

/// Whichever task fails: what was done is undone, nothing is parked but what comes after a pivot, and nothing fails for its
/// expressions.
#[test]
fn every_example_is_undone_wherever_it_fails() {
    for (name, input) in inputs() {
        for task in 0.. {
            let mut run = started(name, input.clone());
            if !drive(&mut run, Some(task)) {
                break;
            }
            let past_pivot = name == "refund" && run.dispatched().iter().any(|what| what == "do book");
            assert_eq!(run.status() == Status::Parked, past_pivot && task == 4, "{name} {task}");
            for event in run.events() {
                if let Event::StepFailed { step, error, .. } = event {
                    assert_ne!(
                        *error.error_type,
                        *error_type::EXPRESSION,
                        "{name} {step}: {}",
                        error.message
                    );
                }
                assert!(!matches!(event, Event::UndoParked { .. }), "{name} {task}");
            }
        }
    }
}
