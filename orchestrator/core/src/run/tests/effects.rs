//! What a run sends, and what a new owner sends again.

use serde_json::json;

use super::dsl::*;
use crate::run::effect::{Effect, effects_still_wanted};
use crate::run::input::{AnswerOn, Input, Rejected};
use crate::run::limits::MAX_WAITERS;

fn answered(to: &str, on: AnswerOn) -> Effect {
    Effect::Answer { to: to.into(), on }
}

#[test]
fn a_new_owner_sends_again_what_was_opened_in_the_span_and_is_still_open() {
    let mut run = run(vec![act("a").attempts(Some(2)), act("b")]);
    let first = run.sent.clone();
    assert_eq!(effects_still_wanted(&run.state, 1, 1), first);
    run.fail("do a");
    assert_eq!(effects_still_wanted(&run.state, 1, 2), []);
    run.wake_next();
    let second = run.sent[1..].to_vec();
    assert_eq!(effects_still_wanted(&run.state, 3, 3), second);
    assert_eq!(effects_still_wanted(&run.state, 1, 9), second);
    assert_eq!(effects_still_wanted(&run.state, 1, 2), []);
}

#[test]
fn held_tasks_are_not_sent_until_they_are_offered() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    run.take(Input::DispatchHeld { task, in_doubt: false });
    assert_eq!(effects_still_wanted(&run.state, 1, 9), []);
    run.wake_next();
    assert_eq!(effects_still_wanted(&run.state, 3, 3), run.sent[1..]);
    assert_eq!(effects_still_wanted(&run.state, 1, 2), []);
}

#[test]
fn cancellations_are_sent_again_while_their_tasks_are_open_or_were_left_open() {
    let mut run = run(vec![act("a")]);
    let cancel = run.take(Input::Cancel(by("ann")));
    assert_eq!(effects_still_wanted(&run.state, 2, 2), cancel);
    assert_eq!(
        dispatches(&effects_still_wanted(&run.state, 1, 2)),
        ["do a"],
        "it may never have gone out"
    );
    assert!(effects_still_wanted(&run.state, 1, 2).contains(&cancel[0]));
    run.complete("do a");
    assert_eq!(effects_still_wanted(&run.state, 2, 2), []);

    let mut run = super::dsl::run(vec![act("a")]);
    let terminate = run.take(Input::Terminate(by("ann")));
    assert_eq!(effects_still_wanted(&run.state, 1, 2), terminate);
}

#[test]
fn as_many_may_wait_for_a_run_as_are_answered_at_once() {
    let mut run = run(vec![act("a")]);
    let inbox = |n: usize| Input::Await(answer(&format!("inbox.{n}"), AnswerOn::Closed));
    for n in 0..MAX_WAITERS {
        run.take(inbox(n));
    }
    run.ignores(inbox(0));
    assert_eq!(run.apply(inbox(MAX_WAITERS)), Err(Rejected::TooManyWaiters));
    assert_eq!(run.complete("do a").len(), MAX_WAITERS);
    assert_eq!(run.take(inbox(MAX_WAITERS)).len(), 1, "a closed run answers at once");
}

#[test]
fn answers_are_sent_again_by_the_span_that_owed_them() {
    let mut start = begin(json!(null));
    start.answer = Some(answer("one", AnswerOn::Started));
    let mut run = Run::started(plan(vec![act("a")]), start).unwrap();
    assert_eq!(run.take(Input::Await(answer("two", AnswerOn::Closed))), []);
    run.ignores(Input::Await(answer("two", AnswerOn::Closed)));
    assert_eq!(
        run.take(Input::Await(answer("three", AnswerOn::Started))),
        [answered("three", AnswerOn::Started)]
    );
    assert_eq!(run.complete("do a"), [answered("two", AnswerOn::Closed)]);
    assert_eq!(
        run.take(Input::Await(answer("four", AnswerOn::Closed))),
        [answered("four", AnswerOn::Closed)],
        "a closed run answers at once"
    );
    for (span, expected) in [
        ((1, 1), vec![answered("one", AnswerOn::Started)]),
        ((2, 2), vec![]),
        ((3, 3), vec![answered("three", AnswerOn::Started)]),
        ((4, 4), vec![answered("two", AnswerOn::Closed)]),
        ((5, 9), vec![answered("four", AnswerOn::Closed)]),
    ] {
        assert_eq!(effects_still_wanted(&run.state, span.0, span.1), expected, "{span:?}");
    }
}
