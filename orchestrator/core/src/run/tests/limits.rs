//! Limits that pause and never kill: at the limit and one past it, raised, and never in the way of an undo.

use serde_json::{Value, json};

use super::dsl::*;
use crate::definition::plan::Plan;
use crate::run::input::{Input, ParkedAction, Rejected, TaskOutcome, WorkerError};
use crate::run::limits::{Limit, RunLimits};
use crate::run::{Event, Status, Step, error_type};

fn within(limits: RunLimits, plan: Plan) -> Run {
    Run::within(limits, plan, begin(json!({"customer": "c1"}))).unwrap()
}

fn events(events: u32) -> RunLimits {
    RunLimits {
        events: Some(events),
        ..RunLimits::default()
    }
}

fn history(bytes: u64) -> RunLimits {
    RunLimits {
        history_bytes: Some(bytes),
        ..RunLimits::default()
    }
}

fn pending(pending: u32) -> RunLimits {
    RunLimits {
        pending: Some(pending),
        ..RunLimits::default()
    }
}

fn raise(limits: RunLimits, request_id: &str) -> Input {
    Input::RaiseLimits {
        limits,
        operation: request(request_id),
    }
}

fn two() -> Plan {
    plan(vec![act("a"), act("b"), act("c")])
}

/// What a run of [`two`] has used when its first activity has been done.
fn used(limit: Limit) -> u64 {
    let mut run = within(RunLimits::default(), two());
    run.complete("do a");
    run.state.usage(limit).used
}

#[test]
fn a_history_is_parked_at_its_limit_and_not_before() {
    let bytes = used(Limit::HistoryBytes);
    for (limit, parked) in [(bytes + 1, false), (bytes, true), (bytes - 1, true)] {
        let mut run = Run::within(history(limit), two(), begin(json!({"customer": "c1"}))).unwrap();
        // The birth says what the limit is, which makes it longer.
        let longer = json!({"limits": history(limit)}).to_string().len() as u64 - 1;
        let limit = limit + longer;
        run.take(raise(history(limit), "r"));
        let raising = run.history.last().unwrap().body().len() as u64;
        run.take(raise(history(limit + raising), "s"));
        let again = run.history.last().unwrap().body().len() as u64;
        run.take(raise(history(limit + raising + 2 * again), "t"));
        assert_eq!(run.history.last().unwrap().body().len() as u64, again);
        run.complete("do a");
        assert_eq!(run.status() == Status::Parked, parked, "{limit}");
        if parked {
            let reason = run.state.parked_reason().unwrap();
            assert!(reason.starts_with("the history of the run has "), "{reason}");
            assert_eq!(run.dispatched(), ["do a", "do b"]);
        }
    }
}

#[test]
fn events_are_counted_to_the_limit_and_one_past_it() {
    let used = u32::try_from(used(Limit::Events)).unwrap();
    for (limit, parked) in [(used + 1, false), (used, true)] {
        let mut run = within(events(limit), two());
        run.complete("do a");
        assert_eq!(run.status() == Status::Parked, parked, "{limit}");
    }
}

#[test]
fn a_limit_that_is_raised_lets_the_run_go_on_where_it_was() {
    let mut run = within(events(5), two());
    run.complete("do a");
    assert_eq!(run.status(), Status::Parked);
    assert_eq!(run.state.usage(Limit::Events).limit, 5);
    // Not what holds it up.
    run.take(raise(history(u64::from(u32::MAX) / 2), "h"));
    assert_eq!(run.status(), Status::Parked);
    run.take(raise(events(50), "r-1"));
    assert_eq!(run.status(), Status::Running);
    run.ignores(raise(events(60), "r-1"));
    run.ignores(raise(events(50), "r-2"));
    assert_eq!(run.state.usage(Limit::Events).limit, 50);
    // What was under way when it was parked has a task.
    run.complete("do b");
    run.complete("do c");
    assert_eq!(run.status(), Status::Completed);
    assert!(matches!(run.apply(raise(events(70), "r-3")), Err(Rejected::Closed(_))));
}

/// The transition that reaches the limit has opened a task, and its stream refuses that.
#[test]
fn a_task_that_never_went_out_of_a_parked_run_is_offered_again_when_it_goes_on() {
    let mut run = within(events(5), two());
    run.complete("do a");
    assert_eq!(run.status(), Status::Parked);
    let task = run.task("do b");
    run.take(Input::DispatchHeld { task, in_doubt: false });
    run.ignores(Input::DispatchHeld { task, in_doubt: false });
    assert_eq!((run.status(), run.state.wake_at()), (Status::Parked, None));
    let seq = run.state.seq();
    let ever = crate::run::effects_still_wanted(&run.state, 1, seq);
    assert_eq!(dispatches(&ever).len(), 0, "by nobody else before");
    run.take(raise(events(50), "r"));
    run.later(60);
    assert_eq!(dispatches(&run.wake().unwrap()), ["do b"]);
    run.complete("do b");
    run.complete("do c");
    assert_eq!(run.status(), Status::Completed);

    // Cancelled instead: it was surely not done.
    let mut run = within(events(5), two());
    run.complete("do a");
    let task = run.task("do b");
    run.take(Input::DispatchHeld { task, in_doubt: false });
    run.take(Input::Cancel(by("ann")));
    assert_eq!(run.undone(), ["undo a"]);
}

/// Halted by then, it is not offered when the run goes on.
#[test]
fn a_halted_task_that_never_went_out_of_a_parked_run_ends_when_it_goes_on() {
    let two = vec![("x", vec![act("a")]), ("y", vec![act("b")])];
    let mut run = run(vec![act("z"), parallel("p", two)]);
    run.complete("do z");
    let task = run.task("do p.y.b");
    run.fail("do p.x.a");
    run.take(Input::Park {
        reason: "a test".into(),
    });
    run.take(Input::DispatchHeld { task, in_doubt: false });
    assert_eq!(run.undone(), Vec::<String>::new());
    run.operate("", ParkedAction::Retry);
    run.later(60);
    run.wake();
    assert_eq!(run.undone(), ["undo z"], "{:?}", run.dispatched());
}

#[test]
fn a_limit_is_raised_to_what_can_be_held_and_never_lowered() {
    let mut run = within(RunLimits::default(), two());
    for limit in Limit::ALL {
        let to = |most: u64| {
            let mut limits = RunLimits::default();
            limits.set(limit, most);
            limits
        };
        let now = RunLimits::DEFAULT.get(limit).unwrap();
        let most = RunLimits::MOST.get(limit).unwrap();
        assert_eq!(run.state.usage(limit).limit, now);
        for bad in [to(now - 1), to(most + 1), RunLimits::default()] {
            let refused = run.apply(raise(bad, "r")).unwrap_err();
            assert!(matches!(refused, Rejected::Limit(_)), "{refused}");
        }
        run.ignores(raise(to(now), limit.as_str()));
        run.take(raise(to(most), limit.as_str()));
        assert_eq!(run.state.usage(limit).limit, most);
        assert!(run.apply(raise(to(most - 1), "down")).is_err());
    }
}

#[test]
fn a_warning_begins_at_a_fifth() {
    let run = within(events(25), two());
    let usage = run.state.usage(Limit::Events);
    assert_eq!((usage.used, usage.is_warned_of()), (2, false));
    assert!(within(events(10), two()).state.usage(Limit::Events).is_warned_of());
    assert!(!within(events(11), two()).state.usage(Limit::Events).is_warned_of());
}

#[test]
fn activities_that_had_no_room_begin_when_there_is_more() {
    let branches = ["x", "y", "z", "v"].map(|name| (name, vec![act(&format!("a{name}"))]));
    let mut run = within(pending(2), plan(vec![parallel("p", branches.into())]));
    assert_eq!(run.dispatched(), ["do p.x.ax", "do p.y.ay"]);
    assert_eq!((run.status(), run.state.parked_steps().count()), (Status::Parked, 2));
    run.take(raise(pending(3), "r"));
    assert_eq!(run.dispatched().len(), 3);
    assert_eq!((run.status(), run.state.parked_steps().count()), (Status::Parked, 1));
    run.take(raise(pending(9), "s"));
    assert_eq!((run.status(), run.dispatched().len()), (Status::Running, 4));
    for step in ["do p.x.ax", "do p.y.ay", "do p.z.az", "do p.v.av"] {
        run.complete(step);
    }
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn children_count_like_activities() {
    let branches = ["x", "y"].map(|name| (name, vec![workflow(&format!("c{name}"))]));
    let mut run = within(pending(1), plan(vec![parallel("p", branches.into())]));
    assert_eq!((run.pending().len(), run.state.parked_steps().count()), (1, 1));
    assert_eq!(run.status(), Status::Parked);
    run.take(raise(pending(2), "r"));
    assert_eq!((run.pending().len(), run.state.parked_steps().count()), (2, 0));
    assert_eq!(run.status(), Status::Running);
}

#[test]
fn no_limit_keeps_an_undo_from_being_done() {
    let steps: Vec<_> = (0..30).map(|n| act(&format!("s{n}"))).collect();
    let limits = RunLimits {
        events: Some(120),
        history_bytes: Some(9_000),
        pending: Some(1),
    };
    let mut run = within(limits, plan(steps));
    let mut done = 0;
    while run.status() != Status::Parked {
        run.complete(&format!("do s{done}"));
        done += 1;
    }
    assert!(done > 10, "{done}");
    run.take(Input::Cancel(by("ann")));
    // It was parked with a task, which comes back late or not at all.
    run.time_out(&format!("do s{done}"));
    for attempt in 0..2 {
        for n in (0..=done).rev() {
            let undo = format!("undo s{n}");
            if attempt == 0 && n == done {
                // Long retries have events, too.
                run.fail(&undo);
                run.wake_next();
                run.fail(&undo);
                run.wake_next();
            }
            if attempt == 0 {
                run.complete(&undo);
            }
            assert_ne!(run.status(), Status::Parked, "{n}");
        }
    }
    assert_eq!(run.status(), Status::Cancelled);
    let used = run.state.usage(Limit::HistoryBytes).used;
    assert!(used > 9_000, "{used}");
}

/// However little there was room for, and however much there is to undo.
#[test]
fn an_undo_may_have_many_times_the_limit() {
    let steps: Vec<_> = (0..30).map(|n| act(&format!("s{n}"))).collect();
    let mut run = within(events(1_000), plan(steps));
    for n in 0..29 {
        run.complete(&format!("do s{n}"));
    }
    // As after an operator's mistake: what it has is many times its limit.
    let small = serde_json::to_value(&run.state).unwrap();
    let mut small = small.as_object().unwrap().clone();
    small.insert("event_limit".to_owned(), json!(5));
    let state = serde_json::from_value(Value::Object(small)).unwrap();
    let mut run = Run::loaded(run.plan, state);
    run.fail("do s29");
    for n in (0..29).rev() {
        run.complete(&format!("undo s{n}"));
    }
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn steps_of_a_finally_wait_where_a_run_that_stops_is_far_over_its_limit() {
    let tidy = repeat("w", "true", 1_000, vec![set("s", &[("n", json!("${ index }"))])]);
    let body = attempt("t", vec![act("a")]).finally(vec![tidy]);
    let mut run = within(events(20), plan(vec![act("z"), body]));
    run.complete("do z");
    run.take(Input::Cancel(by("ann")));
    run.end("do t.a", TaskOutcome::Cancelled);
    assert_eq!(run.status(), Status::Parked);
    let most = u32::try_from(run.state.usage(Limit::Events).used).unwrap();
    assert!(most < 60, "{most}");
    run.take(raise(events(10_000), "r"));
    run.complete("undo z");
    assert_eq!(run.status(), Status::Cancelled);
}

/// A `finally` runs on a cancellation, also where a limit holds it up by then.
#[test]
fn a_finally_that_a_limit_holds_up_runs_once_the_run_is_cancelled() {
    let went_out = |run: &Run, what: &str| run.dispatched().iter().any(|it| it == what);
    let mut held_up = 0;
    for limit in 4..30 {
        let body = attempt("t", vec![act("a")]).finally(vec![act("f").undo(UndoDef::NoUndo)]);
        let mut run = within(events(limit), plan(vec![act("z"), body]));
        if !went_out(&run, "do z") {
            continue;
        }
        run.complete("do z");
        if !went_out(&run, "do t.a") || run.status() == Status::Parked {
            continue;
        }
        run.fail("do t.a");
        if run.status() != Status::Parked || went_out(&run, "do t.finally.f") {
            continue;
        }
        run.take(Input::Cancel(by("ann")));
        if run.status() == Status::Parked {
            // Even as much again is too little.
            continue;
        }
        held_up += 1;
        run.complete("do t.finally.f");
        run.complete("undo z");
        assert_eq!(run.status(), Status::Cancelled, "with a limit of {limit}");
    }
    assert!(held_up > 0);
}

/// A loop without an activity decides everything in one transition.
#[test]
fn large_values_in_one_transition_are_bounded() {
    let large = json!({"text": "x".repeat(100_000)});
    let spin = repeat("w", "true", 10_000, vec![set("s", &[("n", json!("${ input.text }"))])]);
    let run = Run::within(history(1 << 20), plan(vec![spin]), begin(large)).unwrap();
    assert_eq!(run.status(), Status::Parked);
    let used = run.state.usage(Limit::HistoryBytes).used;
    assert!(used < 3 << 20, "{used}");
}

fn too_large() -> WorkerError {
    WorkerError {
        retryable: false,
        ..error(error_type::LIMIT)
    }
}

#[test]
fn a_result_that_is_too_large_parks_its_activity_and_is_not_undone_for_it() {
    let mut run = run(vec![act("a"), act("b").attempts(Some(5)), act("c")]);
    run.complete("do a");
    run.end("do b", TaskOutcome::Unknown(too_large()));
    assert_eq!((run.status(), run.undone().len()), (Status::Parked, 0));
    // Asked again under the same key, it says less.
    run.operate("b", ParkedAction::Retry);
    run.complete("do b");
    run.fail("do c");
    run.complete("undo b");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);

    // What a run that stops has done is undone, whatever it said.
    let mut run = super::dsl::run(vec![act("a")]);
    run.take(Input::Cancel(by("ann")));
    run.end("do a", TaskOutcome::Unknown(too_large()));
    run.end("undo a", TaskOutcome::Unknown(too_large()));
    assert_eq!(run.status(), Status::Parked, "an undo whose answer is too large");
    run.operate("a", ParkedAction::MarkDone);
    assert_eq!(run.status(), Status::Cancelled);
}

/// The word is anybody's; only what Knarr itself has measured waits for an operator.
#[test]
fn an_error_that_is_called_limit_is_a_failure_like_any() {
    let limit = || failed(error_type::LIMIT);
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.end("do b", limit());
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);

    let branch = vec![act("b"), fail("f", error_type::LIMIT)];
    let mut run = super::dsl::run(vec![act("a"), parallel("p", vec![("x", branch)])]);
    run.complete("do a");
    run.complete("do p.x.b");
    run.complete("undo p.x.b");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);

    let guard = attempt("t", vec![act("a")]).catch(&[error_type::LIMIT], vec![act("c")]);
    let mut run = super::dsl::run(vec![guard]);
    run.end("do t.a", limit());
    assert_eq!(run.dispatched().last().unwrap(), "do t.catch_1.c");

    // Unknown before, a failure then.
    let mut run = super::dsl::run(vec![act("a").attempts(Some(2))]);
    run.time_out("do a");
    run.wake_next();
    run.end("do a", limit());
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn an_output_that_is_too_large_parks_the_run_and_undoes_nothing() {
    let parts: Vec<_> = (0..9).map(|_| json!("${ input.customer }")).collect();
    let plan = || with_output(plan(vec![act("a")]), json!(parts));
    let large = || begin(json!({"customer": "x".repeat(255 * 1024)}));
    let parked = || {
        let mut run = Run::started(plan(), large()).unwrap();
        run.complete("do a");
        assert_eq!(run.status(), Status::Parked);
        let reason = run.state.parked_reason().unwrap().to_string();
        assert!(reason.starts_with("the output of the run: "), "{reason}");
        run
    };
    let mut run = parked();
    run.operate("", ParkedAction::Retry);
    assert_eq!(run.status(), Status::Parked, "it is no smaller now");
    let done = |id: &str| Input::Parked {
        direction: None,
        step: crate::ids::StepPath::new(""),
        action: ParkedAction::MarkDone,
        operation: request(id),
    };
    run.take(done("r"));
    assert_eq!(
        (run.status(), run.state.output().is_some_and(|output| output.is_null())),
        (Status::Completed, true)
    );
    run.ignores(done("r"));

    let mut run = parked();
    run.take(Input::Cancel(by("ann")));
    run.complete("undo a");
    assert_eq!(run.status(), Status::Cancelled);
    assert!(matches!(
        run.state.steps().get(&crate::ids::StepPath::new("a")),
        Some(Step::Completed { .. })
    ));

    // An error of another kind is a failure, as it was.
    let wrong = with_output(super::dsl::plan(vec![act("a")]), json!("${ steps.a.nothing }"));
    let mut run = Run::of(wrong);
    run.complete("do a");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
    assert!(
        !run.events()
            .iter()
            .any(|event| matches!(event, Event::RunParked { .. }))
    );
}
