//! `emit:`, `complete:`, `continue_as_new:`, and the limits that pause.

use serde_json::json;

use super::dsl::*;
use crate::ids::StepPath;
use crate::run::effect::{Effect, effects_still_wanted};
use crate::run::input::{AnswerOn, Input, ParkedAction, TaskOutcome};
use crate::run::limits::{MAX_BUFFERED_SIGNALS, MAX_EVENTS, MAX_PENDING};
use crate::run::{self, Event, State, Status, emissions};
use crate::time::Timestamp;

#[test]
fn an_event_is_emitted_once_from_what_was_committed() {
    let mut run = run(vec![
        act("a"),
        emit("e1", json!("orders.${ input.customer }"), json!({"n": 1})),
        emit("e2", json!("orders.x"), json!(null)),
        act("z"),
    ]);
    let effects = run.complete("do a");
    let emitted: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Emit {
                seq, index, subject, ..
            } => Some((*seq, *index, &**subject)),
            _ => None,
        })
        .collect();
    assert_eq!(emitted, [(2, 0, "orders.c1"), (2, 1, "orders.x")]);
    assert!(run.state.emitted_in(1..=2) && !run.state.emitted_in(3..=9));
    assert_eq!(emissions(&run.history[1]).len(), 2);
    assert_eq!(emissions(&run.history[0]), []);
}

#[test]
fn what_may_not_be_published_fails_the_step() {
    for subject in [json!("knarr.in.1"), json!(3), json!("${ steps.none.id }")] {
        let run = run(vec![emit("e", subject, json!(1))]);
        assert_eq!(run.status(), Status::Failed);
    }
}

#[test]
fn complete_ends_the_run_and_halts_everything_else() {
    let branches = vec![
        ("x", vec![act("a"), complete("end", json!("${ steps.a.id }"))]),
        ("y", vec![attempt("t", vec![act("b")]).finally(vec![act("f")])]),
        ("z", vec![wait_for("w", "never")]),
    ];
    let mut run = run(vec![parallel("p", branches), act("never")]);
    let effects = run.complete("do p.x.a");
    assert!(matches!(effects[..], [Effect::CancelTask { .. }]));
    run.end("do p.y.t.b", TaskOutcome::Cancelled);
    run.complete("do p.y.t.finally.f");
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(*run.state.output().unwrap().as_ref(), json!("a-1"));
    assert_eq!(run.undone(), Vec::<String>::new());
}

#[test]
fn complete_runs_finally_on_its_way_out() {
    let mut run = run(vec![
        attempt("t", vec![complete("end", json!(1))]).finally(vec![act("f"), complete("again", json!(2))]),
    ]);
    assert_eq!(run.dispatched(), ["do t.finally.f"]);
    run.complete("do t.finally.f");
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(*run.state.output().unwrap().as_ref(), json!(1), "the first one counts");
}

#[test]
fn a_cancel_overtakes_an_exit_that_waits() {
    let branches = vec![("x", vec![act("a"), complete("end", json!(1))]), ("y", vec![act("b")])];
    let mut run = run(vec![parallel("p", branches)]);
    run.complete("do p.x.a");
    run.take(Input::Cancel(by("ann")));
    run.end("do p.y.b", TaskOutcome::Cancelled);
    run.complete("undo p.x.a");
    assert_eq!(run.status(), Status::Cancelled);
}

fn continuing() -> Run {
    let schema = json!({"type": "object"});
    let steps = vec![
        act("a"),
        wait_for("w", "next"),
        continue_as_new("again", Some(json!({"n": "${ steps.w }"}))),
    ];
    let mut start = begin(json!({}));
    start.answer = Some(answer("inbox", AnswerOn::Closed));
    let plan = with_search_attribute(
        with_schema(plan(steps), &schema),
        "n",
        &json!("${ input.n | default(0) }"),
    );
    Run::started(plan, start).unwrap()
}

#[test]
fn a_run_that_continues_as_new_hands_over_what_waits() {
    let mut run = continuing();
    run.complete("do a");
    run.take(Input::Signal {
        name: "later".into(),
        body: json!(5).into(),
        operation: request("s-1"),
    });
    let effects = run.signal("next", json!(7));
    assert_eq!(
        effects,
        [Effect::Continue],
        "who waits for the end is answered by the successor"
    );
    assert_eq!(run.status(), Status::ContinuedAsNew);
    let seq = run.state.seq();
    assert_eq!(effects_still_wanted(&run.state, seq, seq), effects);
    let start = run.state.successor().unwrap();
    assert_eq!(Some(start.clone()), run.state.successor(), "it may be started twice");
    assert_eq!(start.run_id.0.get_version_num(), 7);
    let (again, _) = run::start(&run.plan, start.clone(), run.now).unwrap();
    assert_eq!(again.search_attributes()["n"], json!(7), "computed anew");
    let mut next = Run::started(
        with_schema(plan(vec![wait_for("l", "later")]), &json!({"type": "object"})),
        start,
    )
    .unwrap();
    assert_eq!(*next.state.input().as_ref(), json!({"n": 7}));
    assert_eq!(next.status(), Status::Completed, "the signal moved along");
    assert!(next.sent.contains(&Effect::Answer {
        to: "inbox".into(),
        on: AnswerOn::Closed
    }));
    next.ignores(Input::Signal {
        name: "later".into(),
        body: json!(5).into(),
        operation: request("s-1"),
    });
}

/// They came to the first run, and each of the others takes one.
#[test]
fn a_signal_that_was_handed_on_is_not_taken_again_by_the_run_after() {
    let signal = |id: u32| Input::Signal {
        name: "next".into(),
        body: json!(id).into(),
        operation: request(&format!("s-{id}")),
    };
    let mut run = Run::of(plan(vec![
        act("a"),
        wait_for("w", "next"),
        continue_as_new("again", None),
    ]));
    for id in 1..=3 {
        run.take(signal(id));
    }
    run.complete("do a");
    for id in 2..=3 {
        run = run.successor();
        run.ignores(signal(id));
        run.complete("do a");
        assert_eq!(run.status(), Status::ContinuedAsNew, "it has taken {id}");
    }
    let mut last = run.successor();
    last.ignores(signal(3));
    assert_eq!(last.state.signals(), []);
    last.complete("do a");
    assert_eq!(last.status(), Status::Running, "it waits for another");
}

/// A signal a generation, for many generations: what is remembered does not grow with them.
#[test]
fn a_chain_of_runs_remembers_the_requests_of_two() {
    let signal = |id: u32| Input::Signal {
        name: "next".into(),
        body: json!(id).into(),
        operation: request(&format!("s-{id}")),
    };
    let plan = || {
        plan(vec![
            wait_for("w", "next"),
            wait_for("v", "next"),
            continue_as_new("again", None),
        ])
    };
    let mut run = Run::of(plan());
    let mut longest = 0;
    for n in 0..50 {
        run.take(signal(2 * n));
        if n > 0 {
            run.ignores(signal(2 * n - 1));
            run.ignores(signal(2 * n - 2));
        }
        run.ignores(signal(2 * n));
        run.take(signal(2 * n + 1));
        assert_eq!(run.state.taken.len(), 2);
        let start = run.state.successor().unwrap();
        let carried = start.continues.as_ref().unwrap();
        assert_eq!((carried.taken.len(), carried.requests.len()), (2, 0));
        longest = longest.max(serde_json::to_string(&run.state).unwrap().len());
        run = Run::started(plan(), start).unwrap();
    }
    assert!(longest < 4_096, "{longest} bytes");
    run.take(signal(0));
}

/// Every id that is remembered has cost an event, and those are limited; what comes to a run that is parked for it waits,
/// and what waits is limited too.
#[test]
fn a_run_remembers_as_many_requests_as_its_limits_allow() {
    let signal = |id: usize| Input::Signal {
        name: "next".into(),
        body: json!(1).into(),
        operation: request(&id.to_string()),
    };
    let each = repeat("l", "true", 1_000_000, vec![wait_for("w", "next")]);
    let plan = plan(vec![each]);
    let (mut state, _) = run::start(&plan, begin(json!(null)), Timestamp(0)).unwrap();
    state.event_limit = Some(1_000);
    let take = |state: &mut State, id| run::apply(&plan, state, signal(id), Timestamp(0)).map(|_| ());
    let mut ids = 0..;
    let refused = loop {
        if let Err(refused) = take(&mut state, ids.next().unwrap()) {
            break refused;
        }
        assert!(state.taken.len() <= state.events as usize);
    };
    assert_eq!(refused, run::input::Rejected::SignalsFull);
    assert_eq!(state.status(), Status::Parked);
    let most = 1_000 + MAX_BUFFERED_SIGNALS;
    assert!(state.events as usize <= most + 4, "{} events", state.events);
    assert!(state.taken.len() > MAX_BUFFERED_SIGNALS && state.taken.len() <= most);
    assert_eq!(take(&mut state, 0), Ok(()), "the first is known to the last");
}

#[test]
fn an_input_that_the_successor_would_refuse_fails_the_step() {
    let plan = with_schema(
        plan(vec![act("a"), continue_as_new("again", Some(json!([])))]),
        &json!({"type": "object"}),
    );
    let mut run = Run::of(plan);
    run.complete("do a");
    assert_eq!(&*run.state.failure().unwrap().error_type, "continue_as_new");
    assert_eq!(run.undone(), ["undo a"]);
    let run = super::dsl::run(vec![continue_as_new("again", None)]);
    assert_eq!(
        *run.state.successor().unwrap().input,
        json!({"customer": "c1"}),
        "its own input again"
    );
}

fn resume() -> Input {
    Input::Parked {
        direction: None,
        step: StepPath::new(""),
        action: ParkedAction::Retry,
        operation: by("ann"),
    }
}

#[test]
fn a_run_that_has_its_limit_of_events_is_parked_and_goes_on_when_it_is_resumed() {
    let spin = repeat(
        "w",
        "vars.stop is undefined",
        1_000_000,
        vec![set("s", &[("n", json!("${ index }"))])],
    );
    let plan = plan(vec![act("a"), spin]);
    let now = Timestamp(0);
    let (mut state, birth) = run::start(&plan, begin(json!(null)), now).unwrap();
    let mut loaded = State::born(&birth).unwrap();
    let task = crate::ids::TaskNo(1);
    let outcome = done(json!({"id": 1}));
    let transition = run::apply(&plan, &mut state, Input::TaskEnded { task, outcome }, now)
        .unwrap()
        .unwrap();
    run::evolve(&mut loaded, &transition);
    assert_eq!(state.status(), Status::Parked);
    let counted = birth.events.len() + transition.events.len();
    let full = MAX_EVENTS as usize + 2..=MAX_EVENTS as usize + 3;
    assert!(
        full.contains(&counted),
        "and what is blocked, and that it is parked: {counted}"
    );
    let transition = run::apply(&plan, &mut state, resume(), now).unwrap().unwrap();
    run::evolve(&mut loaded, &transition);
    assert!(full.contains(&transition.events.len()));
    assert_eq!(state.status(), Status::Parked, "and again");
    run::apply(&plan, &mut loaded, Input::Cancel(by("ann")), now).unwrap();
    assert_eq!(loaded.status(), Status::Compensating, "a cancel gets through");
    assert_eq!(loaded.open_tasks().count(), 1);
}

#[test]
fn an_activity_too_many_is_parked_and_can_be_tried_again() {
    let branches = ["x", "y", "z"].map(|name| (name, vec![act(&format!("a{name}"))]));
    let list: Vec<_> = (0..MAX_PENDING / 3 + 1).collect();
    let plan = plan(vec![for_each(
        "each",
        json!(list),
        vec![parallel("p", branches.into())],
    )]);
    let now = Timestamp(0);
    let (mut state, _) = run::start(&plan, begin(json!(null)), now).unwrap();
    assert_eq!(state.open_tasks().count(), MAX_PENDING);
    assert_eq!(state.status(), Status::Parked);
    let parked: Vec<_> = state
        .parked_steps()
        .map(|(step, error)| (step.clone(), error.clone()))
        .collect();
    assert_eq!(parked.len(), 1);
    assert_eq!(&*parked[0].1.error_type, "limit");
    let retry = Input::Parked {
        direction: None,
        step: parked[0].0.clone(),
        action: ParkedAction::Retry,
        operation: by("ann"),
    };
    let ended = Input::TaskEnded {
        task: crate::ids::TaskNo(1),
        outcome: done(json!(1)),
    };
    run::apply(&plan, &mut state, ended, now).unwrap();
    run::apply(&plan, &mut state, retry, now).unwrap();
    assert_eq!(
        (state.status(), state.open_tasks().count()),
        (Status::Running, MAX_PENDING)
    );
}

#[test]
fn a_value_that_is_too_large_parks_its_step_until_it_gets_another() {
    let large = "x".repeat(255 * 1024);
    let lines: Vec<_> = (0..9).map(|_| json!("${ input.customer }")).collect();
    let mut start = begin(json!({"customer": large}));
    start.request_id = None;
    let mut run = Run::started(plan(vec![act("a").input(json!(lines)), act("z")]), start).unwrap();
    assert_eq!(run.status(), Status::Parked);
    let (step, error) = run.state.parked_steps().next().unwrap();
    assert_eq!((step.as_str(), &*error.error_type), ("a", "limit"));
    run.operate("a", ParkedAction::RetryWithInput(json!("small").into()));
    assert_eq!(*run.last_dispatch().input, json!("small"));
    run.complete("do a");
    run.fail("do z");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
    assert!(
        run.events()
            .iter()
            .any(|event| matches!(event, Event::StepParked { .. }))
    );
}
