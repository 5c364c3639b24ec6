//! Cancel, terminate, and what is done about parked undos and parked runs.

use serde_json::json;

use super::dsl::*;
use crate::ids::StepPath;
use crate::run::effect::{Direction, Effect};
use crate::run::input::{Horizon, Input, Operation, ParkedAction, Rejected, TaskOutcome, WorkerError};
use crate::run::{Event, ParkedItem, ParkedStep, ParkedWhat, Status, UndoState};

fn park(run: &mut Run, step: &str) {
    let undo = format!("undo {step}");
    for _ in 0..2 {
        run.fail(&undo);
        run.wake_next();
    }
    run.fail(&undo);
}

/// Two steps done, the third failed, the undo of `b` parked, that of `a` done.
fn parked() -> Run {
    let mut run = run(vec![act("a"), act("b"), act("c")]);
    run.complete("do a");
    run.complete("do b");
    run.fail("do c");
    park(&mut run, "b");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Parked);
    run
}

fn input(step: &str, action: ParkedAction, operation: Operation) -> Input {
    Input::Parked {
        direction: None,
        step: StepPath::new(step),
        action,
        operation,
    }
}

#[test]
fn a_parked_undo_is_retried_with_all_its_attempts_and_the_same_or_other_input() {
    for (action, expected) in [
        (ParkedAction::Retry, json!({"id": "b-1"})),
        (
            ParkedAction::RetryWithInput(json!({"id": "x"}).into()),
            json!({"id": "x"}),
        ),
    ] {
        let mut run = parked();
        run.operate("b", action);
        assert_eq!(run.status(), Status::Compensating);
        let dispatch = run.last_dispatch();
        assert_eq!((dispatch.attempt, dispatch.input.as_ref()), (1, &expected));
        assert_eq!(*dispatch.idempotency_key, *format!("{RUN}/b/undo"));
        park(&mut run, "b");
        assert_eq!(run.status(), Status::Parked, "and parked again");
        run.operate("b", ParkedAction::Retry);
        assert_eq!(*run.last_dispatch().input, expected);
        run.complete("undo b");
        assert_eq!(run.status(), Status::Compensated);
    }
}

#[test]
fn marked_done_counts_as_undone_and_skipped_does_not() {
    let mut run = parked();
    run.operate("b", ParkedAction::MarkDone);
    assert_eq!(run.status(), Status::Compensated);
    let mut run = parked();
    run.operate("b", ParkedAction::Skip);
    assert_eq!(run.status(), Status::CompensationFailed);
    assert_eq!(
        &*run.state.failure().unwrap().error_type,
        "Refused",
        "the original error is kept"
    );
    let Event::UndoResolved { operation, .. } = &run.last_events()[0] else {
        panic!("{:?}", run.last_events());
    };
    assert_eq!(operation, &by("ann"));
}

#[test]
fn only_what_is_parked_can_be_acted_upon() {
    let mut run = parked();
    for step in ["a", "c", "nothing"] {
        let refused = run.apply(input(step, ParkedAction::Skip, by("ann")));
        assert_eq!(refused, Err(Rejected::NotParked(step.to_owned())));
    }
    let refused = run.apply(input("", ParkedAction::Retry, by("ann")));
    assert_eq!(refused, Err(Rejected::RunNotParked));
    let output = ParkedAction::MarkDoneWithOutput(json!(1).into());
    let refused = run.apply(input("b", output, by("ann")));
    assert_eq!(refused, Err(Rejected::NotForThis("an undo has no output")));
    let forward = Input::Parked {
        step: StepPath::new("b"),
        direction: Some(Direction::Do),
        action: ParkedAction::Skip,
        operation: by("ann"),
    };
    assert_eq!(run.apply(forward), Err(Rejected::NotParked("b".to_owned())));
    run.operate("b", ParkedAction::Retry);
    assert!(run.apply(input("b", ParkedAction::Retry, by("ann"))).is_err());
    run.complete("undo b");
    let refused = run.apply(input("b", ParkedAction::Retry, by("ann")));
    assert_eq!(refused, Err(Rejected::Closed("compensated")));
}

#[test]
fn a_retry_without_an_input_evaluates_it_again_and_is_refused_if_that_fails() {
    let mut run = run(vec![act("a").undo_input(json!("${ steps.a.nothing }")), act("b")]);
    run.complete("do a");
    run.fail("do b");
    let refused = run.apply(input("a", ParkedAction::Retry, by("ann")));
    assert!(matches!(refused, Err(Rejected::Expression(_))), "{refused:?}");
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let refused = run.apply(input("a", ParkedAction::RetryWithInput(deep.into()), by("ann")));
    assert!(matches!(refused, Err(Rejected::Expression(_))), "{refused:?}");
    run.operate("a", ParkedAction::Skip);
    assert_eq!(run.status(), Status::CompensationFailed);
}

#[test]
fn a_repeated_operation_changes_nothing() {
    let mut run = parked();
    run.take(input("b", ParkedAction::Skip, request("r1")));
    run.ignores(input("b", ParkedAction::Skip, request("r1")));
    assert!(run.apply(input("b", ParkedAction::Skip, request("r2"))).is_err());
}

#[test]
fn cancel_asks_what_is_in_flight_to_stop_waits_for_it_and_undoes() {
    // (the step's outcome, undone)
    let table = [
        (done(json!({"id": "b-1"})), vec!["undo b", "undo a"]),
        (unknown(), vec!["undo b", "undo a"]),
        (TaskOutcome::RetryLater { after: None }, vec!["undo b", "undo a"]),
        (TaskOutcome::Cancelled, vec!["undo a"]),
        (failed("X"), vec!["undo a"]),
    ];
    for (outcome, undone) in table {
        let mut run = run(vec![act("a"), act("b").attempts(None), act("c")]);
        run.complete("do a");
        let task = run.task("do b");
        let effects = run.take(Input::Cancel(by("ann")));
        let cancel = Effect::CancelTask {
            queue: "main".into(),
            task,
        };
        assert_eq!(effects, [cancel]);
        assert_eq!(run.status(), Status::Compensating);
        assert!(run.state.is_unwanted(task));
        run.end("do b", outcome.clone());
        for what in &undone {
            run.complete(what);
        }
        assert_eq!(run.undone(), undone, "{outcome:?}");
        assert_eq!(run.status(), Status::Cancelled);
        assert!(!run.dispatched().contains(&"do c".to_owned()));
        assert_eq!(&*run.state.failure().unwrap().error_type, "cancelled");
    }
}

#[test]
fn what_is_not_with_a_worker_ends_at_once_when_cancelled() {
    // Between attempts after a failure: surely not done; after a timeout: unknown; polling: still running somewhere.
    let table = [
        (failed("X"), Status::Cancelled, 0),
        (unknown(), Status::Compensating, 1),
        (TaskOutcome::RetryLater { after: None }, Status::Compensating, 1),
    ];
    for (outcome, status, undone) in table {
        let mut run = run(vec![act("a").attempts(None)]);
        run.end("do a", outcome.clone());
        run.take(Input::Cancel(by("ann")));
        assert_eq!((run.status(), run.undone().len()), (status, undone), "{outcome:?}");
    }
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    run.take(Input::DispatchHeld { task, in_doubt: false });
    assert_eq!(run.take(Input::Cancel(by("ann"))), [], "nobody has a held task");
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn cancel_is_idempotent_and_changes_nothing_while_undoing() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.take(Input::Cancel(request("r1")));
    run.ignores(Input::Cancel(request("r1")));
    run.ignores(Input::Cancel(request("r2")));
    run.end("do b", TaskOutcome::Cancelled);
    run.complete("undo a");
    run.ignores(Input::Cancel(request("r1")));
    assert_eq!(
        run.apply(Input::Cancel(request("r3"))),
        Err(Rejected::Closed("cancelled"))
    );

    let mut run = super::dsl::run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.fail("do b");
    run.ignores(Input::Cancel(by("ann")));
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated, "what it was stopped for first");
}

/// An id says which request this is, not what it asks for.
#[test]
fn a_request_id_of_a_cancellation_terminates_all_the_same() {
    let mut run = parked();
    run.ignores(Input::Cancel(request("r1")));
    let mut cancelled = super::dsl::run(vec![act("a"), act("b")]);
    cancelled.complete("do a");
    cancelled.take(Input::Cancel(request("r1")));
    for run in [&mut run, &mut cancelled] {
        run.take(Input::Terminate(request("r1")));
        assert_eq!(run.status(), Status::Terminated);
        run.ignores(Input::Terminate(request("r1")));
        assert!(run.apply(Input::Terminate(request("r2"))).is_err());
    }
}

/// The same of everything else that may be asked under one id.
#[test]
fn a_request_id_is_remembered_with_what_it_asked_for() {
    let signal = || Input::Signal {
        name: "x".into(),
        body: json!(1).into(),
        operation: request("r1"),
    };
    let mut run = parked();
    run.take(signal());
    run.take(input("b", ParkedAction::Retry, request("r1")));
    park(&mut run, "b");
    run.ignores(input("b", ParkedAction::Retry, request("r1")));
    let other = ParkedAction::RetryWithInput(json!(1).into());
    run.ignores(input("b", other, request("r1")));
    run.ignores(signal());
    assert_eq!(run.status(), Status::Parked);
    run.take(input("b", ParkedAction::MarkDone, request("r1")));
    assert_eq!(run.status(), Status::Compensated);
    run.ignores(input("b", ParkedAction::MarkDone, request("r1")));
    run.ignores(input("b", ParkedAction::Retry, request("r1")));
    run.ignores(signal());
    assert!(run.apply(input("b", ParkedAction::Skip, request("r1"))).is_err());
}

#[test]
fn terminate_stops_at_once_and_undoes_nothing() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    let task = run.task("do b");
    let effects = run.take(Input::Terminate(request("r1")));
    assert_eq!(effects.len(), 1);
    assert!(matches!(&effects[0], Effect::CancelTask { task: asked, .. } if *asked == task));
    assert_eq!(run.status(), Status::Terminated);
    assert_eq!(run.undone(), Vec::<String>::new());
    run.ignores(Input::Terminate(request("r1")));
    assert_eq!(
        run.apply(Input::Terminate(by("ann"))),
        Err(Rejected::Closed("terminated"))
    );

    let mut run = parked();
    run.take(Input::Terminate(by("ann")));
    assert_eq!(run.status(), Status::Terminated);
    assert_eq!(
        &*run.state.failure().unwrap().error_type,
        "Refused",
        "the original error is kept"
    );
}

#[test]
fn terminate_during_an_undo_leaves_the_rest_and_records_what_comes() {
    let mut run = run(vec![act("a"), act("b"), act("c")]);
    run.complete("do a");
    run.complete("do b");
    run.fail("do c");
    let task = run.task("undo b");
    run.take(Input::Terminate(request("r1")));
    assert_eq!(run.status(), Status::Terminated);
    run.ignores(Input::Terminate(request("r1")));
    let refused = run.apply(Input::Cancel(request("r2")));
    assert_eq!(refused, Err(Rejected::Closed("terminated")));
    let outcome = done(json!(1));
    run.take(Input::TaskEnded { task, outcome });
    assert!(matches!(run.last_events(), [Event::LateResult(_)]));
    assert_eq!(run.undone(), ["undo b"]);
    assert_eq!(&*run.state.failure().unwrap().error_type, "Refused");
}

#[test]
fn a_parked_run_records_results_without_taking_them_and_goes_on_where_it_was() {
    let mut run = run(vec![act("a").attempts(Some(2)), act("b")]);
    let task = run.task("do a");
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.ignores(Input::Park {
        reason: "broken".into(),
    });
    assert_eq!((run.status(), run.state.wake_at()), (Status::Parked, None));
    let completed = Input::TaskEnded {
        task,
        outcome: done(json!(1)),
    };
    assert_eq!(run.take(completed.clone()), []);
    run.ignores(completed);
    run.later(100);
    assert!(run.wake().is_none());
    assert!(run.apply(input("", ParkedAction::Skip, by("ann"))).is_err());
    run.operate("", ParkedAction::Retry);
    assert_eq!(run.status(), Status::Running);
    run.time_out("do a");
    run.wake_next();
    assert_eq!(run.last_dispatch().attempt, 2);
    run.complete("do a");
    run.complete("do b");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_success_recorded_while_parked_is_undone_whatever_the_attempts_say() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.take(Input::TaskEnded {
        task,
        outcome: done(json!(1)),
    });
    run.operate("", ParkedAction::Retry);
    run.fail("do a");
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn a_parked_run_can_be_cancelled_and_terminated() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.take(Input::Cancel(by("ann")));
    assert_eq!(run.status(), Status::Compensating);
    run.time_out("do b");
    run.complete("undo b");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Cancelled);

    let mut run = super::dsl::run(vec![act("a")]);
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.take(Input::Terminate(by("ann")));
    assert_eq!(run.status(), Status::Terminated);
}

#[test]
fn a_run_loaded_with_a_definition_that_lacks_its_step_is_parked_and_goes_on_with_the_right_one() {
    for outcome in [done(json!(1)), failed("X"), TaskOutcome::RetryLater { after: None }] {
        let mut run = run(vec![act("a").attempts(Some(2))]);
        let right = std::mem::replace(&mut run.plan, plan(vec![act("other")]));
        run.end("do a", outcome);
        assert_eq!(run.status(), Status::Parked);
        assert!(run.state.parked_reason().unwrap().contains("`a`"));
        assert_eq!(run.apply(Input::Wake(Horizon::default())), Ok(None));
        run.plan = right;
        run.operate("", ParkedAction::Retry);
        run.time_out("do a");
        run.wake_next();
        run.complete("do a");
        assert_eq!(run.status(), Status::Completed);
    }
}

#[test]
fn an_undo_that_the_definition_lacks_parks_the_run() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    let right = std::mem::replace(&mut run.plan, plan(vec![act("a").undo(UndoDef::ReadOnly), act("b")]));
    run.fail("do b");
    assert!(run.state.parked_reason().unwrap().contains("`a`"));
    run.plan = right;
    run.operate("", ParkedAction::Retry);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn closed_runs_take_no_parking_and_no_wakes() {
    let mut run = run(vec![]);
    run.ignores(Input::Park {
        reason: "broken".into(),
    });
    run.later(1_000);
    assert!(run.wake().is_none());
}

#[test]
fn an_entry_parked_early_can_be_put_right_while_the_run_goes_on() {
    let mut run = run(vec![act("a").undo_input(json!("${ steps.a.nothing }")), act("b")]);
    run.complete("do a");
    run.operate("a", ParkedAction::RetryWithInput(json!(7).into()));
    assert_eq!(run.state.ledger()[0].state, UndoState::Ready);
    assert_eq!(run.undone(), Vec::<String>::new());
    run.fail("do b");
    assert_eq!(*run.last_dispatch().input, json!(7));
}

/// `pay` is done and a pivot; `ship` cannot go on.
fn parked_ahead(ship: Def) -> Run {
    let mut run = run(vec![
        act("pay").pivot(true).undo(UndoDef::NoUndo),
        ship,
        act("mail").undo(UndoDef::NoUndo).input(json!("${ steps.ship.id }")),
    ]);
    run.complete("do pay");
    run
}

fn for_good(error_type: &str) -> WorkerError {
    WorkerError {
        retryable: false,
        ..error(error_type)
    }
}

#[test]
fn a_step_that_is_marked_done_has_the_output_it_is_given() {
    for (action, input, status) in [
        (
            ParkedAction::MarkDoneWithOutput(json!({"id": 7}).into()),
            Some(json!(7)),
            Status::Running,
        ),
        // What reads it cannot go on without.
        (ParkedAction::MarkDone, None, Status::Parked),
    ] {
        let mut run = parked_ahead(act("ship").undo(UndoDef::NoUndo));
        run.end("do ship", TaskOutcome::Failed(for_good("Broken")));
        run.operate("ship", action);
        assert_eq!(run.status(), status);
        assert_eq!(input.is_some(), run.dispatched().contains(&"do mail".to_owned()));
        if let Some(input) = input {
            assert_eq!(*run.last_dispatch().input, input);
        }
    }
}

#[test]
fn an_output_that_is_too_deep_is_refused() {
    let mut run = parked_ahead(act("ship").undo(UndoDef::NoUndo));
    run.end("do ship", TaskOutcome::Failed(for_good("Broken")));
    let deep = (0..100).fold(json!(1), |deep, _| json!([deep]));
    let refused = run.apply(input("ship", ParkedAction::MarkDoneWithOutput(deep.into()), by("ann")));
    assert!(matches!(refused, Err(Rejected::Expression(_))), "{refused:?}");
    assert_eq!(run.status(), Status::Parked);
}

#[test]
fn a_success_that_comes_late_completes_the_step_that_waits_for_an_operator() {
    for ship in [act("ship").undo(UndoDef::NoUndo), act("ship")] {
        let mut run = parked_ahead(ship);
        let task = run.task("do ship");
        run.end("do ship", TaskOutcome::Unknown(for_good("Crash")));
        assert_eq!(run.status(), Status::Parked);
        let late = Input::TaskEnded {
            task,
            outcome: done(json!({"id": "late"})),
        };
        run.take(late.clone());
        assert_eq!(run.status(), Status::Running);
        assert_eq!(
            *run.last_dispatch().input,
            json!("late"),
            "what comes next reads its output"
        );
        run.ignores(late);
        assert!(run.apply(input("ship", ParkedAction::Retry, by("ann"))).is_err());
        if let Some(entry) = run.state.ledger().first() {
            assert_eq!(
                (&entry.state, &*entry.input),
                (&UndoState::Ready, &json!({"id": "late"}))
            );
        }
        run.complete("do mail");
        assert_eq!(run.status(), Status::Completed);
        assert_eq!(run.undone(), Vec::<String>::new());
    }
}

#[test]
fn a_success_that_comes_late_to_a_run_that_is_parked_as_a_whole_counts_when_it_goes_on() {
    let mut run = parked_ahead(act("ship").undo(UndoDef::NoUndo));
    let task = run.task("do ship");
    run.end("do ship", TaskOutcome::Unknown(for_good("Crash")));
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.take(Input::TaskEnded {
        task,
        outcome: done(json!({"id": "late"})),
    });
    assert_eq!(run.status(), Status::Parked);
    assert!(!run.dispatched().contains(&"do mail".to_owned()));
    run.operate("", ParkedAction::Retry);
    assert_eq!(*run.last_dispatch().input, json!("late"));
}

/// Nothing is sent out while no results are taken: the step would be done, time out, and be undone.
#[test]
fn a_step_is_given_other_input_once_its_run_goes_on() {
    let mut run = parked_ahead(act("ship").undo(UndoDef::NoUndo));
    run.end("do ship", TaskOutcome::Failed(for_good("Broken")));
    run.take(Input::Park {
        reason: "broken".into(),
    });
    let dispatched = run.dispatched();
    let edit = || ParkedAction::RetryWithInput(json!({"to": "b"}).into());
    let refused = run.apply(input("ship", edit(), by("ann")));
    assert!(matches!(refused, Err(Rejected::NotForThis(_))), "{refused:?}");
    // As it was it waits for the run.
    assert_eq!(run.dispatched(), dispatched);
    run.operate("", ParkedAction::Retry);
    run.operate("ship", edit());
    assert_eq!(*run.last_dispatch().input, json!({"to": "b"}));
    run.end("do ship", done(json!({"id": 1})));
    run.complete("do mail");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn an_undo_that_succeeds_late_is_done_unless_an_operator_has_had_it_tried_again() {
    for retried in [false, true] {
        let mut run = run(vec![act("a").undo_attempts(1), act("b")]);
        run.complete("do a");
        run.fail("do b");
        let task = run.task("undo a");
        run.time_out("undo a");
        assert_eq!(run.status(), Status::Parked);
        if retried {
            run.operate("a", ParkedAction::RetryWithInput(json!(2).into()));
            run.fail("undo a");
        }
        run.take(Input::TaskEnded {
            task,
            outcome: done(json!(null)),
        });
        let status = if retried { Status::Parked } else { Status::Compensated };
        assert_eq!(run.status(), status);
    }
}

#[test]
fn a_pivot_that_is_marked_done_leaves_no_way_back() {
    let mut run = run(vec![
        act("a"),
        act("pay").pivot(true).undo(UndoDef::NoUndo),
        act("b").undo(UndoDef::NoUndo),
    ]);
    run.complete("do a");
    // An answer that is too large is not asked for again, though it is a pivot's.
    run.end("do pay", TaskOutcome::Unknown(for_good(crate::run::error_type::LIMIT)));
    assert_eq!(run.status(), Status::Parked);
    run.operate("pay", ParkedAction::MarkDone);
    assert_eq!(run.apply(Input::Cancel(by("ann"))), Err(Rejected::PastPivot));
}

#[test]
fn what_waits_for_an_operator_is_told_with_all_there_is_to_know() {
    let run = parked();
    let entry = &run.state.ledger()[1];
    let UndoState::Parked { error, .. } = &entry.state else {
        panic!("{entry:?}")
    };
    let undo = ParkedItem {
        what: ParkedWhat::Step(ParkedStep {
            step: &StepPath::new("b"),
            direction: Direction::Undo,
            activity: Some(&"undo-b".into()),
            child: None,
            attempts: 3,
            input: Some(&json!({"id": "b-1"}).into()),
            error,
        }),
        since: Some(error_at(&run)),
    };
    assert_eq!(run.state.parked_items(), [undo]);

    let mut run = parked_ahead(act("ship").undo(UndoDef::NoUndo).input(json!({"n": 1})));
    run.later(7);
    run.end("do ship", TaskOutcome::Failed(for_good("Broken")));
    run.take(Input::Park {
        reason: "broken".into(),
    });
    let items = run.state.parked_items();
    assert!(matches!(&items[0].what, ParkedWhat::Run { reason } if ***reason == *"broken"));
    let ParkedWhat::Step(ship) = &items[1].what else {
        panic!("{items:?}")
    };
    assert_eq!((ship.direction, ship.attempts), (Direction::Do, 1));
    assert_eq!(ship.activity.unwrap().as_str(), "do-ship");
    assert_eq!(ship.input.unwrap().as_ref(), &json!({"n": 1}));
    assert_eq!(&*ship.error.error_type, "Broken");
    assert_eq!(items[1].since, Some(run.now));
    run.take(Input::Terminate(by("ann")));
    assert_eq!(run.state.parked_items(), []);
}

/// When the last undo was parked.
fn error_at(run: &Run) -> crate::time::Timestamp {
    let parked = |event: &Event| matches!(event, Event::UndoParked { .. });
    let mut history = run.history.iter().rev();
    history
        .find(|transition| transition.events.iter().any(parked))
        .unwrap()
        .at
}

#[test]
fn what_an_earlier_version_parked_is_read_without_what_it_did_not_know() {
    let mut run = parked();
    let text = serde_json::to_string(&run.state).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["ledger"][1]["state"]["parked"]
        .as_object_mut()
        .unwrap()
        .remove("since");
    let state: crate::run::State = serde_json::from_value(value).unwrap();
    assert_eq!(state.parked_items()[0].since, None);
    run = Run::loaded(run.plan, state);
    run.operate("b", ParkedAction::MarkDone);
    assert_eq!(run.status(), Status::Compensated);
}
