//! `wait:` and `wait_for:`.

use serde_json::json;

use super::dsl::*;
use crate::run::input::{Horizon, Input, ParkedAction, TaskOutcome};
use crate::run::{Event, Status, Waiting};
use crate::time::{Span, Timestamp};

#[test]
fn a_timer_fires_when_it_is_due_whatever_is_known_of_the_log_and_never_early() {
    let mut run = run(vec![wait("w", 3_600), act("z")]);
    let due = run.now.plus(Span::from_secs(3_600));
    assert_eq!(run.state.wake_at(), Some(due));
    run.now = Timestamp(due.0 - 1);
    run.ignores(Input::Wake(Horizon::default()));
    run.now = due;
    run.take(Input::Wake(Horizon::default()));
    assert_eq!(run.dispatched(), ["do z"]);
    assert_eq!(run.events().len(), 4, "one event to set it and one to fire");
}

#[test]
fn a_moment_that_has_come_is_not_waited_for() {
    for until in [json!(0), json!("1970-01-01T00:16:40Z")] {
        let run = run(vec![wait_until("w", until), act("z")]);
        assert_eq!(run.dispatched(), ["do z"]);
    }
    let mut run = run(vec![wait_until("w", json!(1_001)), act("z")]);
    run.later(1);
    run.take(Input::Wake(Horizon::default()));
    assert_eq!(run.dispatched(), ["do z"]);
    let run = super::dsl::run(vec![wait_until("w", json!("soon"))]);
    assert_eq!(run.status(), Status::Failed);
}

#[test]
fn a_signal_that_comes_before_it_is_waited_for_is_taken_then() {
    let mut run = run(vec![
        act("a"),
        wait_for("w", "go"),
        act("z").input(json!("${ steps.w.n }")),
    ]);
    run.signal("other", json!(0));
    run.signal("go", json!({"n": 1}));
    run.signal("go", json!({"n": 2}));
    run.complete("do a");
    assert_eq!(*run.last_dispatch().input, json!(1), "the first one");
    let left: Vec<_> = run.state.signals().iter().map(|signal| signal.number).collect();
    assert_eq!(left, [1, 3]);
}

#[test]
fn what_does_not_match_stays_buffered() {
    let wait = wait_for("w", "go").matches("signal.n > vars.n");
    let mut run = run(vec![set("s", &[("n", json!(5))]), wait, wait_for("v", "go")]);
    run.signal("go", json!({"n": 3}));
    run.signal("go", json!("no number"));
    assert_eq!(run.state.signals().len(), 2);
    run.signal("go", json!({"n": 6}));
    assert_eq!(
        run.status(),
        Status::Completed,
        "the second step takes what the first left"
    );
    let left: Vec<_> = run.state.signals().iter().map(|signal| signal.number).collect();
    assert_eq!(left, [2]);
}

#[test]
fn one_signal_is_taken_by_one_step() {
    let mut run = run(vec![parallel(
        "p",
        vec![("x", vec![wait_for("w1", "go")]), ("y", vec![wait_for("w2", "go")])],
    )]);
    run.signal("go", json!(1));
    assert_eq!(run.status(), Status::Running);
    run.signal("go", json!(2));
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_timeout_waits_for_the_log_and_then_does_what_it_says() {
    let steps = OnTimeoutDef::Steps(vec![act("e"), set("s", &[])]);
    for (policy, dispatched, fails) in [
        (OnTimeoutDef::Fail, None, true),
        (OnTimeoutDef::Continue, Some("do z"), false),
        (steps, Some("do w.on_timeout.e"), false),
    ] {
        let wait = wait_for("w", "go").timeout(60).on_timeout(policy);
        let z = act("z").input(json!("${ steps.w.id | default('none') }"));
        let mut run = run(vec![wait, z]);
        run.later(61);
        run.ignores(Input::Wake(Horizon::default()));
        run.wake();
        assert_eq!(run.state.is_closed(), fails);
        assert_eq!(run.dispatched().first().map(String::as_str), dispatched);
        if dispatched == Some("do w.on_timeout.e") {
            run.complete("do w.on_timeout.e");
            assert_eq!(
                *run.last_dispatch().input,
                json!("e-1"),
                "its last output is the step's"
            );
        }
        if fails {
            assert_eq!(&*run.state.failure().unwrap().error_type, "timeout");
        } else {
            run.complete("do z");
            assert_eq!(run.status(), Status::Completed);
        }
    }
}

#[test]
fn waiting_steps_end_at_once_when_the_run_is_cancelled() {
    let branches = vec![("x", vec![wait("w", 1_000)]), ("y", vec![wait_for("v", "go")])];
    let mut run = run(vec![act("a"), parallel("p", branches)]);
    run.complete("do a");
    run.take(Input::Cancel(by("ann")));
    assert_eq!(run.undone(), ["undo a"]);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn what_is_waited_for_can_be_seen() {
    let branches = vec![
        ("w", vec![wait("i", 60)]),
        ("x", vec![wait_for("f", "go").timeout(9)]),
        ("y", vec![workflow("k")]),
        ("z", vec![scope("s", vec![act("a")])]),
    ];
    let run = run(vec![parallel("p", branches)]);
    let seen = run.state.waiting().map(|(step, waiting)| match waiting {
        Waiting::Timer { due } => (step.as_str(), format!("until {}", due.since(run.now).as_millis())),
        Waiting::Signal { name, due } => (step.as_str(), format!("for {name} {}", due.is_some())),
        Waiting::Child {
            workflow_id, started, ..
        } => (step.as_str(), format!("for {workflow_id} {started}")),
        Waiting::Operator { error } => (step.as_str(), error.message.to_string()),
    });
    let seen: Vec<_> = seen.collect();
    assert_eq!(
        seen,
        [
            ("p.w.i", "until 60000".to_owned()),
            ("p.x.f", "for go true".to_owned()),
            ("p.y.k", "for order-1/p.y.k false".to_owned()),
        ]
    );
}

#[test]
fn a_signal_for_a_parked_run_is_taken_when_it_goes_on() {
    let mut run = run(vec![wait_for("w", "go"), act("z")]);
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.signal("go", json!(1));
    assert!(matches!(run.last_events(), [Event::SignalReceived(_)]));
    run.operate("", ParkedAction::Retry);
    assert_eq!(run.dispatched(), ["do z"]);
}

/// It was buffered while the run was parked, and nobody looks at it again.
#[test]
fn a_stop_that_waits_for_the_pivot_has_a_parked_run_look_at_what_has_come() {
    let branches = vec![
        ("a", vec![act("pay").pivot(true).undo(UndoDef::NoUndo)]),
        ("b", vec![wait_for("w", "go")]),
    ];
    let mut run = run(vec![parallel("p", branches)]);
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.signal("go", json!(1));
    run.take(Input::Cancel(by("ann")));
    run.complete("do p.a.pay");
    assert_eq!(run.status(), Status::Completed);
}

/// The same for what goes on though the run is cancelled.
#[test]
fn a_cancellation_has_the_finally_of_a_parked_run_look_at_what_has_come() {
    for parked_in in ["the finally", "the main body"] {
        let guard = attempt("guard", vec![act("a")]).finally(vec![wait_for("w", "go")]);
        let mut run = run(vec![guard]);
        if parked_in == "the finally" {
            run.complete("do guard.a");
        }
        run.take(Input::Park {
            reason: "broken".into(),
        });
        run.signal("go", json!(1));
        run.take(Input::Cancel(by("ann")));
        if parked_in == "the main body" {
            run.end("do guard.a", TaskOutcome::Cancelled);
        } else {
            run.complete("undo guard.a");
        }
        assert_eq!(run.status(), Status::Cancelled, "parked in {parked_in}");
    }
}
