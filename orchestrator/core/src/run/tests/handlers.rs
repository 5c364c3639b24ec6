//! `signals:`: what is done beside the main body.

use serde_json::{Value, json};

use super::dsl::*;
use crate::definition::{self, diagnostic};
use crate::run::input::{Input, ParkedAction, Rejected};
use crate::run::limits::RunLimits;
use crate::run::migrate::{self, Target};
use crate::run::{Event, State, Status};

fn plan_of(said: &str) -> crate::definition::plan::Plan {
    let text = format!(
        "workflow: w\nversion: 1\ndefaults: {{ queue: main, start_to_close: 5s, retry: {{ maximum_attempts: 1 }} }}\n{said}"
    );
    match definition::read(&text, &|_| Err(String::new())) {
        Ok(checked) => checked.plan,
        Err(found) => panic!("{}", diagnostic::render("test", &text, &found)),
    }
}

fn of(said: &str) -> Run {
    Run::of(plan_of(said))
}

/// Two steps that are undone, and two handlers.
const BESIDE: &str = r#"
steps:
  - a: { activity: a, compensate: undo-a }
  - b: { activity: b, compensate: undo-b }
signals:
  paid:
    schema: { type: object, required: [n] }
    steps:
      - pay: { activity: pay, input: "${ signal.n }", compensate: { activity: unpay, input: "${ signal.n }" } }
      - sum: { set: { total: "${ vars.total | default(0) + signal.n }" } }
  note: { steps: [ { tell: { activity: tell, no_undo: it is told } } ] }
output: { total: "${ vars.total | default(0) }" }
"#;

fn undo_inputs(run: &Run) -> Vec<(String, Value)> {
    let undos = run.sent.iter().filter_map(|effect| match effect {
        crate::run::effect::Effect::Dispatch(dispatch) if dispatch.direction == crate::run::effect::Direction::Undo => {
            Some((dispatch.step.to_string(), Value::clone(&dispatch.input)))
        }
        _ => None,
    });
    undos.collect()
}

#[test]
fn signals_of_a_name_are_taken_one_after_the_other_and_those_of_others_beside_them() {
    let mut run = of(BESIDE);
    run.signal("paid", json!({ "n": 1 }));
    run.signal("note", json!(null));
    run.signal("paid", json!({ "n": 2 }));
    assert_eq!(
        run.dispatched(),
        ["do a", "do $signals.paid[0].pay", "do $signals.note[0].tell"]
    );
    run.complete("do $signals.paid[0].pay");
    assert_eq!(run.last_dispatch().step.as_str(), "$signals.paid[1].pay");
    assert_eq!(*run.last_dispatch().input, json!(2), "each has its own body");
    run.complete("do a");
    run.complete("do $signals.paid[1].pay");
    assert_eq!(run.state.vars()["total"].as_ref(), &json!(3));
}

#[test]
fn a_run_completes_when_nothing_is_left_to_do_beside_it_and_its_output_knows_of_it() {
    let mut run = of(BESIDE);
    run.signal("paid", json!({ "n": 1 }));
    run.complete("do a");
    run.complete("do b");
    assert_eq!(run.last_events().last(), Some(&Event::MainBodyPassed {}));
    run.signal("paid", json!({ "n": 5 }));
    run.complete("do $signals.paid[0].pay");
    assert_eq!(run.status(), Status::Running, "what has come meanwhile is done as well");
    run.complete("do $signals.paid[1].pay");
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(**run.state.output().unwrap(), json!({ "total": 6 }));
}

#[test]
fn what_they_did_is_undone_in_the_reverse_order_of_everything_each_with_its_own_data() {
    let mut run = of(BESIDE);
    run.signal("paid", json!({ "n": 1 }));
    run.complete("do $signals.paid[0].pay");
    run.complete("do a");
    run.signal("paid", json!({ "n": 2 }));
    run.complete("do $signals.paid[1].pay");
    run.fail("do b");
    for what in ["undo $signals.paid[1].pay", "undo $signals.paid[0].pay", "undo a"] {
        assert_eq!(run.undone().last().map(String::as_str), Some(what));
        run.complete(what);
    }
    assert_eq!(run.status(), Status::Compensated);
    let inputs: Vec<_> = undo_inputs(&run).into_iter().map(|(_, input)| input).collect();
    assert_eq!(inputs[..2], [json!(2), json!(1)]);
}

#[test]
fn a_failure_in_a_handler_fails_the_run_and_halts_the_rest() {
    let mut run = of(BESIDE);
    run.signal("paid", json!({ "n": 1 }));
    run.signal("note", json!(null));
    run.fail("do $signals.paid[0].pay");
    let failure = run.state.failure().unwrap();
    assert_eq!(failure.step.as_ref().unwrap().as_str(), "$signals.paid[0].pay");
    assert_eq!(run.undone(), [""; 0], "what is under way is waited for");
    run.complete("do a");
    run.fail("do $signals.note[0].tell");
    assert_eq!(run.undone(), ["undo a"]);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_run_that_fails_or_is_cancelled_halts_its_handlers_before_anything_is_undone() {
    for cancelled in [true, false] {
        let mut run = of(BESIDE);
        run.complete("do a");
        run.signal("paid", json!({ "n": 1 }));
        run.signal("paid", json!({ "n": 2 }));
        if cancelled {
            run.take(Input::Cancel(by("ann")));
        }
        run.fail("do b");
        assert_eq!(run.undone(), [""; 0]);
        assert!(run.state.is_unwanted(run.task("do $signals.paid[0].pay")));
        run.complete("do $signals.paid[0].pay");
        assert_eq!(run.undone(), ["undo $signals.paid[0].pay"]);
        run.complete("undo $signals.paid[0].pay");
        run.complete("undo a");
        let status = if cancelled {
            Status::Cancelled
        } else {
            Status::Compensated
        };
        assert_eq!(run.status(), status);
        assert_eq!(run.state.signals().len(), 1, "no execution begins in a run that stops");
    }
}

#[test]
fn a_body_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut run = of(BESIDE);
    let refused = run.apply(Input::Signal {
        name: "paid".into(),
        body: json!({ "m": 1 }).into(),
        operation: request("r-1"),
    });
    assert!(
        matches!(&refused, Err(Rejected::SignalSchema(text)) if text.contains("\"n\"")),
        "{refused:?}"
    );
    // It may be sent again as it should have been.
    run.take(Input::Signal {
        name: "paid".into(),
        body: json!({ "n": 1 }).into(),
        operation: request("r-1"),
    });
    run.complete("do $signals.paid[0].pay");
}

const ENDINGS: &str = r#"
steps:
  - a: { activity: a, read_only: true }
  - stop: { if: input.customer == 'c1', complete: { total: "${ vars.total | default(0) }" } }
  - again: { continue_as_new: 1 }
signals:
  add: { steps: [ { look: { activity: look, read_only: true } }, { sum: { set: { total: "${ vars.total | default(0) + signal }" } } } ] }
"#;

#[test]
fn a_run_that_is_to_end_does_first_what_has_come() {
    let mut run = of(ENDINGS);
    run.signal("add", json!(1));
    run.complete("do a");
    assert!(
        !run.state.is_unwanted(run.task("do $signals.add[0].look")),
        "it is not halted"
    );
    run.signal("add", json!(2));
    run.complete("do $signals.add[0].look");
    run.complete("do $signals.add[1].look");
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(run.state.vars()["total"].as_ref(), &json!(3));
    assert_eq!(
        **run.state.output().unwrap(),
        json!({ "total": 3 }),
        "as the step says when they are done"
    );
}

#[test]
fn a_run_that_goes_on_as_another_ends_what_is_under_way_and_hands_over_what_waits() {
    let mut run = Run::started(plan_of(ENDINGS), begin(json!({ "customer": "c2" }))).unwrap();
    run.signal("add", json!(1));
    run.signal("add", json!(2));
    run.complete("do a");
    run.signal("add", json!(3));
    assert_eq!(run.status(), Status::Running);
    run.complete("do $signals.add[0].look");
    assert_eq!(run.status(), Status::ContinuedAsNew);
    let start = run.state.successor().unwrap();
    let mut next = Run::started(plan_of(ENDINGS), start).unwrap();
    assert_eq!(next.dispatched(), ["do a", "do $signals.add[0].look"]);
    next.complete("do $signals.add[0].look");
    next.complete("do $signals.add[1].look");
    assert_eq!(next.state.vars()["total"].as_ref(), &json!(5));
}

const PIVOT: &str = r#"
steps:
  - hold: { activity: hold, compensate: unhold }
  - pay: { activity: pay, pivot: true, compensate: refund }
  - ship: { activity: ship, no_undo: it is gone }
signals:
  look: { steps: [ { see: { activity: see, read_only: true } } ] }
"#;

#[test]
fn beside_a_pivot_that_is_under_way_a_handler_that_fails_waits_for_an_operator() {
    for done in [true, false] {
        let mut run = of(PIVOT);
        run.complete("do hold");
        run.signal("look", json!(1));
        run.fail("do $signals.look[0].see");
        assert_eq!(run.status(), Status::Parked);
        if done {
            run.complete("do pay");
            run.operate("$signals.look[0].see", ParkedAction::Skip);
            run.complete("do ship");
            assert_eq!(run.status(), Status::Completed);
        } else {
            run.fail("do pay");
            run.complete("undo hold");
            assert_eq!(run.status(), Status::Compensated, "the run has stopped over it");
        }
    }
}

#[test]
fn so_it_does_beside_a_pivot_that_may_have_been_done_and_waits_itself() {
    let mut run = of(PIVOT);
    run.complete("do hold");
    let answer = crate::run::input::WorkerError {
        retryable: false,
        ..error(crate::run::error_type::LIMIT)
    };
    run.end("do pay", crate::run::input::TaskOutcome::Unknown(answer));
    run.signal("look", json!(1));
    run.fail("do $signals.look[0].see");
    assert_eq!(run.undone(), Vec::<String>::new());
    assert_eq!(run.state.parked_steps().count(), 2);
    run.operate("pay", ParkedAction::MarkDone);
    run.operate("$signals.look[0].see", ParkedAction::Skip);
    run.complete("do ship");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn before_a_pivot_it_fails_the_run_and_after_it_it_is_parked() {
    let mut run = of(PIVOT);
    run.signal("look", json!(1));
    run.fail("do $signals.look[0].see");
    run.complete("do hold");
    run.complete("undo hold");
    assert_eq!(run.status(), Status::Compensated);
    let mut run = of(PIVOT);
    run.complete("do hold");
    run.complete("do pay");
    run.signal("look", json!(1));
    run.end(
        "do $signals.look[0].see",
        crate::run::input::TaskOutcome::Failed(crate::run::input::WorkerError {
            retryable: false,
            ..error("Broken")
        }),
    );
    assert_eq!(run.status(), Status::Parked);
}

#[test]
fn a_run_that_is_parked_takes_them_when_it_goes_on() {
    let mut run = of(BESIDE);
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.signal("note", json!(null));
    assert!(matches!(run.last_events(), [Event::SignalReceived(_)]));
    run.operate("", ParkedAction::Retry);
    assert_eq!(run.last_dispatch().step.as_str(), "$signals.note[0].tell");
}

/// Its last step cannot be evaluated, and cannot be undone.
const STUCK: &str = r#"
steps:
  - pay: { activity: pay, pivot: true }
  - note: { set: { note: "${ input.no.such }" } }
signals:
  paid: { steps: [ { sum: { set: { total: "${ vars.total | default(0) + signal }" } } } ] }
output: "${ vars.total | default(0) }"
"#;

/// Somebody decides about its last step meanwhile.
#[test]
fn what_comes_to_a_parked_run_is_handled_before_it_completes() {
    let mut run = of(STUCK);
    run.complete("do pay");
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.signal("paid", json!(3));
    run.operate("note", ParkedAction::Skip);
    assert_eq!(run.status(), Status::Parked, "the signal is not lost");
    run.operate("", ParkedAction::Retry);
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(**run.state.output().unwrap(), json!(3));
}

#[test]
fn at_the_limit_of_events_signals_wait_and_nothing_is_lost() {
    let limits = RunLimits {
        events: Some(12),
        ..RunLimits::default()
    };
    let plan = plan_of(
        "steps: [ { a: { wait_for: { signal: end } } } ]\nsignals: { add: { steps: [ { sum: { set: { total: \"${ vars.total | default(0) + signal }\" } } } ] } }\n",
    );
    let mut run = Run::within(limits, plan, begin(json!(1))).unwrap();
    let mut sent = 0;
    while sent < 20 {
        sent += 1;
        run.signal("add", json!(1));
        if run.state.parked_reason().is_some() && sent % 3 == 0 {
            run.operate("", ParkedAction::Retry);
        }
    }
    while run.state.parked_reason().is_some() {
        run.operate("", ParkedAction::Retry);
    }
    assert_eq!(run.state.vars()["total"].as_ref(), &json!(20));
    run.signal("end", json!(null));
    while run.state.parked_reason().is_some() {
        run.operate("", ParkedAction::Retry);
    }
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn an_error_that_is_caught_in_a_handler_is_no_failure_and_its_scope_undoes_its_own() {
    let said = r#"
steps: [ { a: { activity: a, read_only: true } } ]
signals:
  go:
    steps:
      - guard:
          try:
            steps:
              - all:
                  scope: { steps: [ { one: { activity: one, compensate: undo-one } }, { two: { activity: two, no_undo: it stays } } ] }
            catch: [ { steps: [ { seen: { set: { seen: "${ error.type }" } } } ] } ]
"#;
    let mut run = of(said);
    run.signal("go", json!(1));
    run.complete("do $signals.go[0].guard.all.one");
    run.fail("do $signals.go[0].guard.all.two");
    run.complete("undo $signals.go[0].guard.all.one");
    assert_eq!(run.state.vars()["seen"].as_ref(), &json!("Refused"));
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn the_body_is_kept_for_undos_that_read_the_error_and_no_longer_than_it_may_be_read() {
    let said = r#"
steps: [ { a: { activity: a, read_only: true } } ]
signals:
  keep: { steps: [ { one: { activity: one, compensate: { activity: undo-one, input: "${ signal } ${ error.type }" } } } ] }
  drop: { steps: [ { two: { set: { two: "${ signal }" } } } ] }
"#;
    let mut run = of(said);
    run.signal("keep", json!("x"));
    run.signal("drop", json!("y"));
    run.complete("do $signals.keep[0].one");
    let kept = serde_json::to_value(&run.state).unwrap()["handling"]["executions"].clone();
    assert_eq!(kept["$signals.keep"]["bodies"], json!({ "0": "x" }));
    assert_eq!(kept["$signals.drop"], json!({ "begun": 1 }));
    run.fail("do a");
    assert_eq!(*run.last_dispatch().input, json!("x Refused"));
}

fn moved(state: &State, from: &str, to: &str) -> Result<(), String> {
    migrate::check(&plan_of(from), &plan_of(to), state).map_err(|obstacle| obstacle.to_string())
}

#[test]
fn a_run_moves_only_where_its_handlers_are_what_they_were() {
    let mut run = of(BESIDE);
    run.signal("paid", json!({ "n": 1 }));
    let other_note = BESIDE.replace("activity: tell", "activity: shout");
    assert_eq!(moved(&run.state, BESIDE, &other_note), Ok(()), "it has not begun");
    let other_pay = BESIDE.replace("activity: unpay", "activity: return");
    assert_eq!(
        moved(&run.state, BESIDE, &other_pay),
        Err("`$signals.paid.pay` has another undo in the other version".to_owned())
    );
    let none = BESIDE.replace("  paid:\n", "  other:\n");
    assert_eq!(
        moved(&run.state, BESIDE, &none),
        Err("`$signals.paid` is not in the other version".to_owned())
    );
    let later = BESIDE.replace(
        "      - sum:",
        "      - log: { activity: log, read_only: true }\n      - sum:",
    );
    assert_eq!(moved(&run.state, BESIDE, &later), Ok(()));
    run.signal("later", json!(1));
    let handled = format!(
        "{}  later: {{ steps: [ {{ log: {{ activity: log, read_only: true }} }} ] }}\n",
        BESIDE.replace("output:", "#")
    );
    assert_eq!(
        moved(&run.state, BESIDE, &handled),
        Err("the signal `later` waits in it, and the other version has a handler for those that come".to_owned())
    );
    let to = std::sync::Arc::new(plan_of(&later));
    run.take(Input::Migrate {
        to: Target(std::sync::Arc::clone(&to)),
        operation: by("ann"),
    });
}

#[test]
fn what_is_stored_of_handlers() {
    let mut run = of(BESIDE);
    run.signal("paid", json!({ "n": 1 }));
    run.complete("do a");
    run.complete("do b");
    run.complete("do $signals.paid[0].pay");
    let lines: Vec<_> = run
        .history
        .iter()
        .map(|it| format!("{} {}", it.seq, it.body()))
        .collect();
    insta::assert_snapshot!("handled", lines.join("\n"));
}
