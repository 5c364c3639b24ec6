//! `updates:`: validated first, done beside the main body, and answered.

use std::sync::Arc;

use serde_json::{Value, json};

use super::dsl::*;
use crate::definition::plan::Plan;
use crate::definition::{self, diagnostic};
use crate::ids::RequestId;
use crate::run::effect::{Effect, effects_still_wanted};
use crate::run::input::{Input, ParkedAction, Rejected};
use crate::run::migrate;
use crate::run::{Event, Status, Update, UpdateAnswer, UpdateStage};

fn plan_of(said: &str) -> Plan {
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

const BASKET: &str = r#"
steps:
  - a: { activity: a, compensate: undo-a }
  - b: { activity: b, read_only: true }
updates:
  add:
    schema: { type: object, required: [n], properties: { n: { type: integer } } }
    validate: "'too many' if (vars.total | default(0)) + update.n > 9 else true"
    steps:
      - check: { activity: check, input: "${ update.n }", compensate: { activity: uncheck, input: "${ update.n }" } }
      - sum: { set: { total: "${ vars.total | default(0) + update.n }" } }
    output: { total: "${ vars.total }", check: "${ steps.check.id }", n: "${ update.n }" }
  ask: { validate: vars.total is defined, output: "${ vars.total | default(0) }" }
output: { total: "${ vars.total | default(0) }" }
"#;

fn input(name: &str, body: &Value, id: &str, to: Option<UpdateAnswer>) -> Input {
    Input::Update {
        name: name.into(),
        body: Arc::new(body.clone()),
        operation: request(id),
        answer: to,
    }
}

fn waits(id: &str, on: UpdateStage) -> UpdateAnswer {
    UpdateAnswer {
        to: format!("inbox.{id}").as_str().into(),
        on,
    }
}

/// Somebody waits for it to be done.
fn update(run: &mut Run, name: &str, body: &Value, id: &str) -> Result<Option<Vec<Effect>>, Rejected> {
    run.apply(input(name, body, id, Some(waits(id, UpdateStage::Completed))))
}

fn add(run: &mut Run, n: u32, id: &str) -> Vec<Effect> {
    update(run, "add", &json!({ "n": n }), id)
        .unwrap()
        .expect("it is taken")
}

/// Who is told of which update.
fn told(effects: &[Effect]) -> Vec<(String, String)> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::AnswerUpdate { to, id } => Some((to.to_string(), id.to_string())),
        _ => None,
    });
    answers.collect()
}

fn one(id: &str) -> Vec<(String, String)> {
    vec![(format!("inbox.{id}"), id.to_owned())]
}

fn stands<'r>(run: &'r Run, id: &str) -> Option<Update<'r>> {
    run.state.update(&RequestId::new(id))
}

fn output(run: &Run, id: &str) -> Value {
    match stands(run, id) {
        Some(Update::Completed(output)) => (**output).clone(),
        other => panic!("{id} is not done: {other:?}"),
    }
}

#[test]
fn an_update_is_done_and_answered_with_its_output() {
    let mut run = of(BASKET);
    let effects = add(&mut run, 2, "u-1");
    assert_eq!(
        told(&effects),
        [],
        "who waits for it to be done is not told that it is accepted"
    );
    assert_eq!(stands(&run, "u-1"), Some(Update::Accepted));
    assert_eq!(run.dispatched(), ["do a", "do $updates.add[0].check"]);
    let effects = run.complete("do $updates.add[0].check");
    assert_eq!(told(&effects), one("u-1"));
    assert_eq!(output(&run, "u-1"), json!({ "total": 2, "check": "check-1", "n": 2 }));
    let answered = update(&mut run, "ask", &json!(null), "u-2").unwrap().unwrap();
    assert_eq!(told(&answered), one("u-2"), "an answer may be all that there is to one");
    assert_eq!(output(&run, "u-2"), json!(2));
}

#[test]
fn what_is_refused_leaves_no_trace() {
    type Is = fn(&Rejected) -> bool;
    let mut run = of(BASKET);
    let before = run.state.clone();
    let refusals: [(&str, Value, Is); 5] = [
        (
            "sub",
            json!({}),
            |it| matches!(it, Rejected::UnknownUpdate(name) if name == "sub"),
        ),
        ("add", json!({}), |it| matches!(it, Rejected::UpdateSchema(_))),
        (
            "add",
            json!({ "n": 10 }),
            |it| matches!(it, Rejected::UpdateRefused(why) if why == "too many"),
        ),
        (
            "ask",
            json!(null),
            |it| matches!(it, Rejected::UpdateRefused(why) if why == "`vars.total is defined` is false"),
        ),
        ("paid", json!(1), |it| matches!(it, Rejected::UnknownUpdate(_))),
    ];
    for (name, body, is) in &refusals {
        let refused = update(&mut run, name, body, "u-1").unwrap_err();
        assert!(is(&refused), "{name} {body}: {refused}");
    }
    assert_eq!(run.state, before);
    // The id is free.
    add(&mut run, 1, "u-1");
    let nameless = Input::Update {
        name: "add".into(),
        body: json!({ "n": 1 }).into(),
        operation: by("ann"),
        answer: None,
    };
    assert_eq!(run.apply(nameless), Err(Rejected::UpdateId));
}

#[test]
fn those_of_a_name_are_done_one_after_the_other_and_each_is_validated_as_the_run_stands() {
    let mut run = of(BASKET);
    add(&mut run, 5, "u-1");
    add(&mut run, 4, "u-2");
    assert_eq!(run.dispatched(), ["do a", "do $updates.add[0].check"]);
    run.complete("do $updates.add[0].check");
    let refused = update(&mut run, "add", &json!({ "n": 5 }), "u-3").unwrap_err();
    assert_eq!(refused, Rejected::UpdateRefused("too many".to_owned()));
    run.complete("do $updates.add[1].check");
    assert_eq!(output(&run, "u-2")["total"], 9);
}

#[test]
fn a_repeat_does_nothing_and_is_told_what_became_of_the_first() {
    let mut run = of(BASKET);
    add(&mut run, 2, "u-1");
    assert_eq!(
        update(&mut run, "add", &json!({ "n": 2 }), "u-1"),
        Ok(None),
        "the same one waits"
    );
    run.ignores(input("add", &json!({ "n": 2 }), "u-1", None));
    let other = |on| UpdateAnswer { to: "other".into(), on };
    run.ignores(input("add", &json!(null), "u-1", Some(other(UpdateStage::Accepted))));
    let decided = |run: &Run, on| run.state.is_update_decided(&RequestId::new("u-1"), on);
    assert!(
        decided(&run, UpdateStage::Accepted),
        "the shell tells, and nothing changes"
    );
    assert!(!decided(&run, UpdateStage::Completed));
    let effects = run.take(input("add", &json!(null), "u-1", Some(other(UpdateStage::Completed))));
    assert_eq!(told(&effects), []);
    let effects = run.complete("do $updates.add[0].check");
    assert_eq!(told(&effects).len(), 2);
    // Also afterwards, and when the run has closed.
    for closed in [false, true] {
        if closed {
            run.complete("do a");
            run.complete("do b");
        }
        assert_eq!(run.state.is_closed(), closed);
        assert_eq!(update(&mut run, "add", &json!({ "n": 2 }), "u-1"), Ok(None));
        assert!(decided(&run, UpdateStage::Completed));
    }
    assert_eq!(
        update(&mut run, "add", &json!({ "n": 2 }), "u-2"),
        Err(Rejected::Closed("completed"))
    );
    assert_eq!(run.state.vars()["total"].as_ref(), &json!(2));
}

#[test]
fn who_waits_for_the_acceptance_is_told_of_it_and_of_nothing_else() {
    let mut run = of(BASKET);
    let waiter = waits("u-1", UpdateStage::Accepted);
    let effects = run.take(input("add", &json!({ "n": 1 }), "u-1", Some(waiter)));
    assert_eq!(told(&effects), one("u-1"));
    assert_eq!(told(&run.complete("do $updates.add[0].check")), []);
    let seq = run.state.seq();
    assert_eq!(
        told(&effects_still_wanted(&run.state, 1, seq)),
        one("u-1"),
        "as often as the owner changes"
    );
}

#[test]
fn a_run_completes_when_what_was_accepted_is_done() {
    let mut run = of(BASKET);
    run.complete("do a");
    add(&mut run, 1, "u-1");
    add(&mut run, 2, "u-2");
    run.complete("do b");
    assert_eq!(run.status(), Status::Running);
    run.complete("do $updates.add[0].check");
    assert_eq!(run.status(), Status::Running);
    let effects = run.complete("do $updates.add[1].check");
    assert_eq!(told(&effects), one("u-2"));
    assert_eq!(**run.state.output().unwrap(), json!({ "total": 3 }));
}

#[test]
fn one_that_fails_fails_the_run_and_what_they_did_is_undone_in_reverse_order() {
    let mut run = of(BASKET);
    add(&mut run, 1, "u-1");
    run.complete("do $updates.add[0].check");
    run.complete("do a");
    add(&mut run, 2, "u-2");
    add(&mut run, 3, "u-3");
    let effects = run.fail("do $updates.add[1].check");
    assert_eq!(told(&effects), one("u-2"));
    let Some(Update::Failed(error)) = stands(&run, "u-2") else {
        panic!("{:?}", run.state)
    };
    assert_eq!(&*error.error_type, "Refused");
    let refused = update(&mut run, "add", &json!({ "n": 1 }), "u-4").unwrap_err();
    assert_eq!(refused, Rejected::UpdateRefused("the run is being undone".to_owned()));
    run.complete("do b");
    assert_eq!(run.undone(), ["undo $updates.add[0].check"]);
    assert_eq!(*run.last_dispatch().input, json!(1));
    run.complete("undo $updates.add[0].check");
    let effects = run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(
        told(&effects),
        one("u-3"),
        "what was never begun has failed with the run"
    );
    assert!(matches!(stands(&run, "u-3"), Some(Update::Failed(_))));
    assert!(
        matches!(stands(&run, "u-1"), Some(Update::Completed(_))),
        "it was done, and has been told"
    );
}

#[test]
fn one_that_is_cut_off_hears_of_the_end_of_the_run() {
    let mut run = of(BASKET);
    add(&mut run, 1, "u-1");
    let effects = run.take(Input::Terminate(by("ann")));
    assert_eq!(told(&effects), one("u-1"));
    let Some(Update::Failed(error)) = stands(&run, "u-1") else {
        panic!("{:?}", run.state)
    };
    assert_eq!(&*error.error_type, "terminated");
}

#[test]
fn an_answer_that_cannot_be_made_fails_the_update_and_not_the_run() {
    let mut run =
        of("steps: [ { a: { activity: a, read_only: true } } ]\nupdates: { ask: { output: \"${ update.x.y }\" } }\n");
    let effects = update(&mut run, "ask", &json!(0), "u-1").unwrap().unwrap();
    assert_eq!(told(&effects), one("u-1"));
    assert!(matches!(stands(&run, "u-1"), Some(Update::Failed(_))));
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn what_comes_while_the_run_is_parked_is_decided_about_when_it_goes_on() {
    let mut run = of(BASKET);
    run.take(Input::Park {
        reason: "broken".into(),
    });
    add(&mut run, 5, "u-1");
    add(&mut run, 10, "u-2");
    assert_eq!((stands(&run, "u-1"), stands(&run, "u-2")), (None, None));
    let refused = update(&mut run, "add", &json!({}), "u-3").unwrap_err();
    assert!(
        matches!(refused, Rejected::UpdateSchema(_)),
        "what can be told at once is"
    );
    let effects = run.operate("", ParkedAction::Retry);
    assert_eq!(told(&effects), one("u-2"));
    let Some(Update::Refused(error)) = stands(&run, "u-2") else {
        panic!("{:?}", run.state)
    };
    assert_eq!(&*error.message, "too many");
    assert_eq!(stands(&run, "u-1"), Some(Update::Accepted));
    assert_eq!(told(&run.complete("do $updates.add[0].check")), one("u-1"));
}

/// Its last step cannot be evaluated, and cannot be undone.
const STUCK: &str = r#"
steps:
  - pay: { activity: pay, pivot: true }
  - note: { set: { note: "${ input.no.such }" } }
updates:
  add: { validate: update < 5, steps: [ { keep: { set: { kept: "${ update }" } } } ], output: "${ vars.kept }" }
output: "${ vars.kept | default(0) }"
"#;

/// Somebody decides about its last step meanwhile. What was put off may all be refused.
#[test]
fn what_comes_to_a_parked_run_is_decided_about_before_it_completes() {
    for (n, kept) in [(3, 3), (7, 0)] {
        let mut run = of(STUCK);
        run.complete("do pay");
        run.take(Input::Park {
            reason: "broken".into(),
        });
        assert_eq!(told(&update(&mut run, "add", &json!(n), "u-1").unwrap().unwrap()), []);
        assert_eq!(told(&run.operate("note", ParkedAction::Skip)), []);
        assert_eq!(run.status(), Status::Parked, "nobody has decided about it");
        assert_eq!(told(&run.operate("", ParkedAction::Retry)), one("u-1"));
        assert_eq!(run.status(), Status::Completed);
        assert_eq!(**run.state.output().unwrap(), json!(kept));
    }
}

#[test]
fn what_nobody_decided_about_is_refused_when_the_run_is_stopped() {
    let mut run = of(BASKET);
    run.take(Input::Park {
        reason: "broken".into(),
    });
    add(&mut run, 5, "u-1");
    let effects = run.take(Input::Terminate(by("ann")));
    assert_eq!(told(&effects), one("u-1"));
    assert!(matches!(stands(&run, "u-1"), Some(Update::Refused(_))));
}

const AGAIN: &str = r#"
steps:
  - a: { activity: a, read_only: true }
  - again: { continue_as_new: "${ vars.total | default(0) }" }
updates:
  add:
    validate: update < 5
    steps: [ { check: { activity: check, read_only: true } }, { sum: { set: { total: "${ vars.total | default(0) + update }" } } } ]
    output: "${ vars.total }"
"#;

#[test]
fn a_run_that_goes_on_as_another_does_what_it_accepted_and_hands_over_the_rest() {
    let mut run = of(AGAIN);
    for (n, id) in [(1, "u-1"), (2, "u-2")] {
        update(&mut run, "add", &json!(n), id).unwrap().unwrap();
    }
    run.complete("do a");
    assert_eq!(told(&update(&mut run, "add", &json!(3), "u-3").unwrap().unwrap()), []);
    update(&mut run, "add", &json!(7), "u-4").unwrap().unwrap();
    run.complete("do $updates.add[0].check");
    let effects = run.complete("do $updates.add[1].check");
    assert_eq!(run.status(), Status::ContinuedAsNew);
    assert_eq!(
        told(&effects),
        one("u-2"),
        "of those that move along the other run tells"
    );
    let start = run.state.successor().unwrap();
    let mut next = Run::started(plan_of(AGAIN), start).unwrap();
    assert_eq!(told(&next.sent), one("u-4"), "it is refused there");
    assert_eq!(next.dispatched(), ["do a", "do $updates.add[0].check"]);
    assert_eq!(told(&next.complete("do $updates.add[0].check")), one("u-3"));
    assert_eq!(output(&next, "u-3"), json!(3));
    assert_eq!(update(&mut next, "add", &json!(1), "u-1"), Err(Rejected::UpdateBefore));
    assert_eq!(update(&mut next, "add", &json!(3), "u-3"), Ok(None), "it is known");
}

/// It came to the first of them, and was done by the second.
#[test]
fn what_was_handed_on_is_not_done_again_by_the_run_after() {
    let mut run = of(AGAIN);
    update(&mut run, "add", &json!(1), "u-1").unwrap().unwrap();
    run.complete("do a");
    update(&mut run, "add", &json!(3), "u-3").unwrap().unwrap();
    update(&mut run, "add", &json!(7), "u-4").unwrap().unwrap();
    run.complete("do $updates.add[0].check");
    let mut second = run.successor();
    second.complete("do $updates.add[0].check");
    assert_eq!(output(&second, "u-3"), json!(3));
    second.complete("do a");
    let mut third = second.successor();
    for (n, id) in [(3, "u-3"), (7, "u-4")] {
        assert_eq!(
            update(&mut third, "add", &json!(n), id),
            Err(Rejected::UpdateBefore),
            "{id}"
        );
    }
    // What is remembered does not grow with the runs.
    third.complete("do a");
    assert!(third.state.successor().unwrap().continues.unwrap().taken.is_empty());
}

#[test]
fn what_is_done_at_the_last_moment_is_in_what_the_run_ends_with() {
    let mut run = of(AGAIN);
    update(&mut run, "add", &json!(1), "u-1").unwrap().unwrap();
    run.complete("do a");
    run.complete("do $updates.add[0].check");
    assert_eq!(
        *run.state.successor().unwrap().input,
        json!(1),
        "the total of what was accepted"
    );

    let complete = AGAIN.replace("again: { continue_as_new:", "end: { complete:");
    let mut run = of(&complete);
    update(&mut run, "add", &json!(2), "u-1").unwrap().unwrap();
    run.complete("do a");
    update(&mut run, "add", &json!(1), "u-2").unwrap().unwrap();
    run.complete("do $updates.add[0].check");
    run.complete("do $updates.add[1].check");
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(**run.state.output().unwrap(), json!(3));
}

/// What a loop has for it is gone when its last word is asked for.
#[test]
fn what_a_step_in_a_loop_ends_with_stands() {
    let looped = AGAIN.replace(
        "  - again: { continue_as_new: \"${ vars.total | default(0) }\" }",
        "  - each: { for_each: { in: \"${ [7] }\", as: n, steps: [ { again: { continue_as_new: \"${ n }\" } } ] } }",
    );
    let mut run = of(&looped);
    update(&mut run, "add", &json!(1), "u-1").unwrap().unwrap();
    run.complete("do a");
    run.complete("do $updates.add[0].check");
    assert_eq!(*run.state.successor().unwrap().input, json!(7));
}

/// It has passed as soon as it begins.
#[test]
fn what_was_put_off_is_decided_about_before_a_run_completes() {
    let mut run = of(AGAIN);
    update(&mut run, "add", &json!(1), "u-1").unwrap().unwrap();
    run.complete("do a");
    update(&mut run, "add", &json!(3), "u-2").unwrap().unwrap();
    update(&mut run, "add", &json!(7), "u-3").unwrap().unwrap();
    run.complete("do $updates.add[0].check");
    assert_eq!(run.status(), Status::ContinuedAsNew);
    let short = AGAIN.replace("a: { activity: a, read_only: true }", "a: { set: { begun: true } }");
    let short = short.replace("  - again: { continue_as_new: \"${ vars.total | default(0) }\" }\n", "");
    let mut next = Run::started(plan_of(&short), run.state.successor().unwrap()).unwrap();
    assert_eq!(told(&next.sent), one("u-3"), "it is refused");
    assert!(matches!(stands(&next, "u-3"), Some(Update::Refused(_))));
    assert_eq!(next.status(), Status::Running, "what was accepted is done first");
    assert_eq!(told(&next.complete("do $updates.add[0].check")), one("u-2"));
    assert_eq!(next.status(), Status::Completed);
    // Where nothing is accepted, it completes at once.
    let only = of(&short.replace("update < 5", "update < 0"));
    assert_eq!(only.status(), Status::Completed);
    let refusing = short.replace("update < 5", "update < 0");
    let refused = Run::started(plan_of(&refusing), run.state.successor().unwrap()).unwrap();
    assert_eq!(refused.status(), Status::Completed);
    assert_eq!(told(&refused.sent).len(), 2);
    assert!(matches!(stands(&refused, "u-2"), Some(Update::Refused(_))));
}

const TRIED: &str = r#"
retry: { initial_interval: 10s, maximum_attempts: 2 }
steps:
  - a: { activity: a, compensate: undo-a }
  - again: { continue_as_new: "${ input }" }
updates:
  add:
    validate: update < 5
    steps: [ { check: { activity: check, read_only: true } }, { sum: { set: { total: "${ vars.total | default(0) + update }" } } } ]
    output: "${ vars.total }"
"#;

/// One was done, one failed, one waits for its handler, and nobody has decided about two, for the run was to continue as new.
fn tried(said: &str) -> Run {
    let mut run = of(said);
    update(&mut run, "add", &json!(1), "u-1").unwrap().unwrap();
    run.complete("do $updates.add[0].check");
    for (n, id) in [(2, "u-2"), (3, "u-3")] {
        update(&mut run, "add", &json!(n), id).unwrap().unwrap();
    }
    run.complete("do a");
    for (n, id) in [(4, "u-4"), (7, "u-5")] {
        assert_eq!(told(&update(&mut run, "add", &json!(n), id).unwrap().unwrap()), []);
    }
    assert_eq!(told(&run.fail("do $updates.add[1].check")), one("u-2"));
    run
}

#[test]
fn what_an_attempt_accepted_fails_with_it_and_what_it_put_off_goes_to_the_next() {
    let mut run = tried(TRIED);
    let effects = run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(told(&effects), one("u-3"), "of the others the next attempt tells");
    for id in ["u-2", "u-3"] {
        let Some(Update::Failed(error)) = stands(&run, id) else {
            panic!("{id}: {:?}", run.state)
        };
        assert_eq!(&*error.error_type, "Refused");
    }
    assert_eq!((stands(&run, "u-4"), stands(&run, "u-5")), (None, None));
    assert_eq!(output(&run, "u-1"), json!(1));

    let mut next = run.successor();
    assert_eq!(told(&next.sent), [], "it has not begun");
    // One that comes meanwhile waits with them, and so does whoever repeats one.
    update(&mut next, "add", &json!(1), "u-6").unwrap().unwrap();
    assert_eq!(update(&mut next, "add", &json!(4), "u-4"), Ok(None));
    assert_eq!(update(&mut next, "add", &json!(2), "u-2"), Err(Rejected::UpdateBefore));
    next.now = next.state.begins_at().unwrap();
    let effects = next.wake().unwrap();
    assert_eq!(told(&effects), one("u-5"));
    assert!(matches!(stands(&next, "u-5"), Some(Update::Refused(_))));
    assert_eq!(told(&next.complete("do $updates.add[0].check")), one("u-4"));
    assert_eq!(output(&next, "u-4"), json!(4), "variables begin anew");
    assert_eq!(told(&next.complete("do $updates.add[1].check")), one("u-6"));
    next.complete("do a");
    assert_eq!(next.status(), Status::ContinuedAsNew);
}

#[test]
fn what_no_attempt_follows_to_decide_about_is_refused() {
    let all = ["u-3", "u-4", "u-5"].map(one).concat();
    let mut last = tried(&TRIED.replace("maximum_attempts: 2", "maximum_attempts: 1"));
    assert_eq!(told(&last.complete("undo a")), all);
    assert!(matches!(stands(&last, "u-4"), Some(Update::Refused(_))));
    // Somebody asked to cancel it meanwhile.
    let mut waived = tried(TRIED);
    waived.take(Input::Cancel(by("ann")));
    assert_eq!(told(&waived.complete("undo a")), all);
    // The attempt that waits is ended.
    for end in [Input::Cancel(by("ann")), Input::Terminate(by("ann"))] {
        let mut run = tried(TRIED);
        run.complete("undo a");
        let mut next = run.successor();
        assert_eq!(told(&next.take(end)), [one("u-4"), one("u-5")].concat());
        assert!(next.state.is_closed());
        assert!(matches!(stands(&next, "u-4"), Some(Update::Refused(_))));
    }
}

#[test]
fn those_that_are_accepted_go_along_to_another_version_that_has_them() {
    let mut run = of(BASKET);
    add(&mut run, 1, "u-1");
    add(&mut run, 2, "u-2");
    let moved = |to: &str| migrate::check(&plan_of(BASKET), &plan_of(to), &run.state).map_err(|it| it.to_string());
    let later = BASKET.replace(
        "      - sum:",
        "      - log: { activity: log, read_only: true }\n      - sum:",
    );
    assert_eq!(moved(&later), Ok(()));
    let other_answer = BASKET.replace("check: \"${ steps.check.id }\", ", "");
    assert_eq!(
        moved(&other_answer),
        Err("`$updates.add` has another output in the other version".to_owned())
    );
    let none = BASKET.replace("  add:\n", "  other:\n");
    assert_eq!(
        moved(&none),
        Err("it has accepted an update `add`, which the other version does not have".to_owned())
    );
}

#[test]
fn what_is_stored_of_updates() {
    let mut run = of(BASKET);
    add(&mut run, 1, "u-1");
    run.complete("do $updates.add[0].check");
    run.take(Input::Park {
        reason: "broken".into(),
    });
    add(&mut run, 9, "u-2");
    run.operate("", ParkedAction::Retry);
    add(&mut run, 2, "u-3");
    let waiter = waits("more", UpdateStage::Completed);
    run.take(input("add", &json!(null), "u-3", Some(waiter)));
    assert!(matches!(run.last_events(), [Event::UpdateAwaited { .. }]));
    let lines: Vec<_> = run
        .history
        .iter()
        .map(|it| format!("{} {}", it.seq, it.body()))
        .collect();
    insta::assert_snapshot!("updated", lines.join("\n"));
}

/// Only what surely means yes is one: a number or a list where a condition was meant lets nothing pass.
#[test]
fn what_neither_agrees_nor_says_why_not_refuses() {
    for (validate, passes) in [
        ("true", true),
        ("none", true),
        ("'no' if update > 1 else none", true),
        ("'no' if update > 1", false),
        ("''", true),
        ("false", false),
        ("'no'", false),
        ("0", false),
        ("1", false),
        ("[]", false),
        ("input", false),
    ] {
        let said = format!("steps: [ {{ a: {{ wait: 1h }} }} ]\nupdates: {{ go: {{ validate: \"{validate}\" }} }}\n");
        let taken = update(&mut of(&said), "go", &json!(1), "u-1");
        assert_eq!(taken.is_ok(), passes, "{validate}: {taken:?}");
    }
}
