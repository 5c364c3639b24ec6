//! Retry of a run: what is followed by another attempt, when that begins, and what it takes over.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{Plan, RunConcurrency};
use crate::ids::{MessageNo, RunId, StepPath};
use crate::limit::OnConflict;
use crate::run::effect::{Effect, effects_still_wanted};
use crate::run::input::{AnswerOn, Input, ParkedAction, Start, TaskOutcome};
use crate::run::message::{Answer, Body, Parent, Refusal, Sender};
use crate::run::{self, Admission, Event, State, Status, Turn};
use crate::time::{Span, Timestamp};

fn saga() -> Plan {
    plan(vec![act("a"), act("b")])
}

fn again(attempts: Option<u32>) -> Run {
    Run::of(with_retry(saga(), attempts))
}

/// `a` is done, `b` fails, and `a` is undone.
fn undone(run: &mut Run) {
    run.complete("do a");
    run.fail("do b");
    run.complete("undo a");
}

/// The pause before the attempt that follows.
fn pause(run: &Run) -> Span {
    let (_, attempt) = run.state.retried_by().expect("another attempt");
    attempt.begins_at.since(run.now)
}

fn about(pause: Span, seconds: u64) -> bool {
    (seconds * 900_000..=seconds * 1_100_000).contains(&pause.0)
}

fn told(run: &Run) -> Vec<(u32, bool, Status)> {
    let turns = run.history.iter().flat_map(|it| run::turns(&run.state, it));
    let told = turns.map(
        |Turn {
             seq, started, status, ..
         }| (seq, started, status),
    );
    told.collect()
}

#[test]
fn a_run_that_was_undone_is_followed_by_another_attempt() {
    let mut run = again(Some(3));
    undone(&mut run);
    assert_eq!(run.status(), Status::Compensated, "it keeps its own end");
    assert_eq!(&*run.state.failure().unwrap().error_type, "Refused");
    assert!(about(pause(&run), 10));
    let seq = run.state.seq();
    assert!(run.sent.contains(&Effect::Continue));
    assert!(
        effects_still_wanted(&run.state, seq, seq).contains(&Effect::Continue),
        "owed by a new owner"
    );
    let (input, hash, id) = (
        run.state.input().clone(),
        run.state.definition_hash().clone(),
        run.state.run_id(),
    );
    let (successor, _) = run.state.retried_by().unwrap();
    let next = run.successor();
    assert_eq!(next.state.run_id(), successor);
    assert!(successor > id);
    assert_eq!(
        (next.state.attempt(), next.state.attempt_made().unwrap().most),
        (2, Some(3))
    );
    assert_eq!(next.state.first_attempt(), id);
    assert_eq!(*next.state.input(), input);
    assert_eq!(*next.state.definition_hash(), hash);
    assert_eq!(next.state.workflow_id().as_str(), "order-1");
}

/// However short a pause the definition asks for, and however the pauses shrink.
#[test]
fn an_attempt_does_not_begin_before_a_second_has_passed() {
    let begins = |interval: Span, coefficient: f64| {
        let mut plan = with_retry(saga(), None);
        let policy = plan.retry.as_mut().unwrap();
        policy.initial_interval = interval;
        policy.maximum_interval = interval;
        policy.backoff_coefficient = coefficient;
        let mut run = Run::of(plan);
        run.fail("do a");
        pause(&run)
    };
    for interval in [Span(0), Span(1), Span::from_millis(500), Span::from_millis(909)] {
        assert_eq!(begins(interval, 1.0), Span::from_secs(1), "{interval:?}");
        assert_eq!(begins(interval, 0.0), Span::from_secs(1), "{interval:?}");
    }
    assert!(about(begins(Span::from_secs(2), 1.0), 2));
}

#[test]
fn failed_and_timed_out_runs_are_followed_as_well() {
    let mut failed = again(None);
    failed.fail("do a");
    assert_eq!(failed.status(), Status::Failed);
    assert_eq!(failed.successor().state.attempt(), 2);
    let mut late = Run::of(with_timeout(with_retry(plan(vec![wait_for("w", "go")]), None), 60));
    late.wake_next();
    assert_eq!(late.status(), Status::TimedOut);
    assert_eq!(late.successor().state.attempt(), 2);
}

#[test]
fn no_other_end_is_followed() {
    let with = |children| Run::of(with_retry(plan(children), None));
    let mut completed = again(None);
    completed.complete("do a");
    completed.complete("do b");
    let mut cancelled = again(None);
    cancelled.complete("do a");
    cancelled.take(Input::Cancel(by("ann")));
    cancelled.end("do b", TaskOutcome::Cancelled);
    cancelled.complete("undo a");
    let mut terminated = again(None);
    terminated.take(Input::Terminate(by("ann")));
    let mut skipped = with(vec![act("a").undo_attempts(1), act("b")]);
    skipped.complete("do a");
    skipped.fail("do b");
    skipped.fail("undo a");
    assert_eq!(skipped.status(), Status::Parked, "what is parked is no end");
    assert_eq!(skipped.state.retried_by(), None);
    skipped.operate("a", ParkedAction::Skip);
    let continued = with(vec![continue_as_new("again", None)]);
    for (run, status) in [
        (completed, Status::Completed),
        (cancelled, Status::Cancelled),
        (terminated, Status::Terminated),
        (skipped, Status::CompensationFailed),
        (continued, Status::ContinuedAsNew),
    ] {
        assert_eq!(run.status(), status);
        assert_eq!(run.state.retried_by(), None, "{status}");
    }
}

#[test]
fn a_run_without_a_policy_is_not_followed() {
    let mut run = Run::of(saga());
    undone(&mut run);
    assert_eq!(run.state.successor(), None);
}

#[test]
fn an_error_that_is_excluded_is_not_tried_again() {
    let mut run = again(None);
    run.complete("do a");
    run.end("do b", failed("Broken"));
    run.complete("undo a");
    assert_eq!((run.status(), run.state.retried_by()), (Status::Compensated, None));
    // Whoever said it: a step that ends the run, or time.
    let mut by_step = Run::of(with_retry(plan(vec![fail("f", "Broken")]), None));
    assert_eq!((by_step.status(), by_step.state.retried_by()), (Status::Failed, None));
    by_step.later(1);
    let mut plan = with_timeout(with_retry(saga(), None), 5);
    plan.retry.as_mut().unwrap().non_retryable = vec!["timeout".into()];
    let mut late = Run::of(plan);
    late.later(6);
    late.wake();
    late.end("do a", TaskOutcome::Cancelled);
    assert_eq!((late.status(), late.state.retried_by()), (Status::TimedOut, None));
}

/// That of an activity is about its own attempts.
#[test]
fn an_activity_that_is_not_to_be_retried_keeps_no_run_from_being_tried_again() {
    let mut run = again(None);
    let error = crate::run::input::WorkerError {
        retryable: false,
        ..error("Sold out")
    };
    run.end("do a", TaskOutcome::Failed(error));
    assert!(run.state.retried_by().is_some());
}

#[test]
fn attempts_are_counted_and_each_pause_is_twice_the_one_before() {
    let mut run = again(Some(3));
    for (number, seconds) in [(1, 10), (2, 20)] {
        assert_eq!(run.state.attempt(), number);
        run.fail("do a");
        assert!(about(pause(&run), seconds), "{:?}", pause(&run));
        run = run.successor();
        run.wake_next();
    }
    assert_eq!(run.state.attempt(), 3);
    undone(&mut run);
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(run.state.successor(), None, "the attempts are used up");
}

#[test]
fn unlimited_attempts_have_no_last_one() {
    let mut run = again(None);
    for _ in 0..20 {
        run.fail("do a");
        run = run.successor();
        run.wake_next();
    }
    assert_eq!(run.state.attempt(), 21);
}

#[test]
fn an_attempt_dispatches_nothing_before_its_pause_has_passed_and_never_early() {
    let mut run = again(None);
    undone(&mut run);
    let mut next = run.successor();
    assert_eq!(
        (next.status(), next.state.admission()),
        (Status::Running, Some(Admission::Pause))
    );
    assert_eq!(next.sent, []);
    let due = next.state.begins_at().unwrap();
    assert_eq!(next.state.wake_at(), Some(due));
    next.now = Timestamp(due.0 - 1);
    assert_eq!(next.wake(), None, "a microsecond early");
    next.now = due;
    let effects = next.wake().unwrap();
    assert_eq!(dispatches(&effects), ["do a"]);
    assert_eq!((next.state.admission(), next.state.begins_at()), (None, None));
    // Its keys are its own.
    assert!(
        next.last_dispatch()
            .idempotency_key
            .starts_with(&next.state.run_id().to_string())
    );
}

#[test]
fn each_attempt_sees_its_number() {
    let output = json!({"attempt": "${ run.attempt }"});
    let steps = vec![act("a"), act("b").when("run.attempt == 2")];
    let mut run = Run::of(with_output(with_retry(plan(steps), None), output));
    run.fail("do a");
    let mut next = run.successor();
    next.wake_next();
    next.complete("do a");
    next.complete("do b");
    assert_eq!(**next.state.output().unwrap(), json!({"attempt": 2}));
}

#[test]
fn continue_as_new_begins_with_the_first_attempt() {
    let steps = vec![act("a"), continue_as_new("again", None)];
    let mut run = Run::of(with_retry(plan(steps), None));
    run.fail("do a");
    let mut next = run.successor();
    next.wake_next();
    next.complete("do a");
    let other = next.successor();
    assert_eq!((other.state.attempt(), other.state.begins_at()), (1, None));
    assert_eq!(other.state.first_attempt(), other.state.run_id());
    assert_eq!(other.dispatched(), ["do a"], "and at once");
}

#[test]
fn cancel_and_terminate_end_an_attempt_that_waits() {
    for (input, status) in [
        (Input::Cancel(by("ann")), Status::Cancelled),
        (Input::Terminate(by("ann")), Status::Terminated),
    ] {
        let mut run = again(None);
        undone(&mut run);
        let mut next = run.successor();
        next.take(input);
        assert_eq!((next.status(), next.state.successor()), (status, None));
        assert_eq!((next.state.wake_at(), next.state.ledger().len()), (None, 0));
        next.later(1_000);
        assert_eq!(next.wake(), None);
    }
}

#[test]
fn a_run_that_somebody_asked_to_cancel_while_it_undid_is_not_followed() {
    let mut run = again(None);
    run.complete("do a");
    run.fail("do b");
    run.take(Input::Cancel(request("c-1")));
    assert!(matches!(run.last_events(), [Event::RetryWaived { .. }]));
    run.ignores(Input::Cancel(request("c-1")));
    run.ignores(Input::Cancel(by("somebody else")));
    run.complete("undo a");
    assert_eq!((run.status(), run.state.retried_by()), (Status::Compensated, None));
}

#[test]
fn a_cancellation_that_comes_while_a_timeout_waits_for_the_pivot_counts() {
    let mut run = Run::of(with_timeout(
        with_retry(plan(vec![act("a"), act("p").pivot(true)]), None),
        5,
    ));
    run.complete("do a");
    run.later(6);
    run.wake();
    assert!(matches!(run.last_events(), [Event::StopDeferred { .. }]));
    run.take(Input::Cancel(by("ann")));
    run.fail("do p");
    run.complete("undo a");
    assert_eq!((run.status(), run.state.retried_by()), (Status::TimedOut, None));
}

#[test]
fn a_run_that_a_run_without_retry_undoes_takes_a_second_cancellation_for_nothing() {
    let mut run = Run::of(saga());
    run.complete("do a");
    run.fail("do b");
    run.ignores(Input::Cancel(by("ann")));
}

#[test]
fn the_timeout_of_an_attempt_counts_from_when_it_begins() {
    let mut run = Run::of(with_timeout(with_retry(plan(vec![wait_for("w", "go")]), None), 60));
    run.wake_next();
    let mut next = run.successor();
    let due = next.state.begins_at().unwrap();
    assert_eq!(next.state.timeout_at(), Some(due.plus(Span::from_secs(60))));
    assert_eq!(next.state.wake_at(), Some(due), "while it waits there is none");
    // Nobody was there to let it begin.
    next.now = due.plus(Span::from_secs(500));
    next.wake();
    assert_eq!((next.status(), next.state.admission()), (Status::Running, None));
    assert_eq!(next.state.wake_at(), Some(next.now.plus(Span::from_secs(60))));
    next.wake_next();
    assert_eq!(next.status(), Status::TimedOut);
}

#[test]
fn signals_are_buffered_while_an_attempt_waits_and_carried_from_the_one_before() {
    let mut run = Run::of(with_retry(
        plan(vec![act("a"), wait_for("w", "go"), wait_for("v", "stop")]),
        None,
    ));
    run.signal("go", json!(1));
    run.fail("do a");
    let mut next = run.successor();
    next.signal("stop", json!(2));
    assert_eq!(next.state.signals().len(), 2);
    assert_eq!(next.dispatched(), [""; 0]);
    next.wake_next();
    next.complete("do a");
    assert_eq!(next.status(), Status::Completed);
}

#[test]
fn a_parked_attempt_does_not_begin_before_it_is_resumed() {
    let mut run = again(None);
    undone(&mut run);
    let mut next = run.successor();
    next.take(Input::Park {
        reason: "broken".into(),
    });
    assert_eq!((next.status(), next.state.wake_at()), (Status::Parked, None));
    next.later(1_000);
    assert_eq!(next.wake(), None);
    next.operate("", ParkedAction::Retry);
    assert_eq!(next.dispatched(), [""; 0]);
    next.wake_next();
    assert_eq!(next.dispatched(), ["do a"]);
}

#[test]
fn who_waits_for_the_end_hears_of_the_last_one_alone() {
    let mut start = begin(json!({}));
    start.answer = Some(answer("inbox", AnswerOn::Closed));
    let mut run = Run::started(with_retry(saga(), Some(2)), start).unwrap();
    run.fail("do a");
    assert!(!run.sent.iter().any(|effect| matches!(effect, Effect::Answer { .. })));
    let mut next = run.successor();
    next.wake_next();
    let effects = next.fail("do a");
    assert_eq!(
        effects,
        [Effect::Answer {
            to: "inbox".into(),
            on: AnswerOn::Closed
        }]
    );
}

fn child(plan: Plan) -> Run {
    let parent = Parent {
        run: RunId(uuid::Uuid::from_u128(99)),
        namespace: "default".into(),
        workflow_id: "parent-1".into(),
        step: StepPath::new("ship"),
        message: MessageNo(1),
        child: RUN,
        detached: false,
        scheduled: None,
    };
    let start = Start {
        parent: Some(Box::new(parent)),
        ..begin(json!({}))
    };
    Run::started(plan, start).unwrap()
}

fn of_parent(number: u32, body: Body) -> Input {
    Input::Message {
        from: Sender {
            run: RunId(uuid::Uuid::from_u128(99)),
            namespace: "default".into(),
            workflow_id: "parent-1".into(),
        },
        number: MessageNo(number),
        body,
    }
}

#[test]
fn a_parent_hears_of_the_last_attempt_of_its_child() {
    let mut run = child(with_retry(saga(), Some(2)));
    run.fail("do a");
    assert_eq!(run.pending(), [], "nothing is said of the first");
    let parent = RunId(uuid::Uuid::from_u128(99));
    assert_eq!(
        run.state.answer_to(parent, MessageNo(7)),
        None,
        "what is for the child is for the next attempt"
    );
    let mut next = run.successor();
    next.wake_next();
    next.fail("do a");
    let (_, said) = next.pending().pop().unwrap();
    let Body::ChildClosed(closed) = &*said else {
        panic!("{said:?}")
    };
    assert_eq!((closed.child, closed.status), (RUN, Status::Failed));
}

#[test]
fn a_parent_that_cancels_reaches_the_attempt_that_waits() {
    let mut run = child(with_retry(saga(), None));
    run.fail("do a");
    let operation = Default::default();
    let mut next = run.successor();
    let effects = next.take(of_parent(2, Body::Cancel { operation }));
    assert_eq!(next.status(), Status::Cancelled);
    let accepted = effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::AnswerMessage {
                number: MessageNo(2),
                answer: Answer::Accepted,
                ..
            }
        )
    });
    assert!(accepted, "{effects:?}");
}

#[test]
fn a_child_that_its_parent_undoes_is_not_tried_again() {
    let mut run = child(with_retry(plan(vec![act("a")]), None));
    run.complete("do a");
    let error = crate::run::Failure::cancelled("the parent failed");
    run.take(of_parent(2, Body::Undo { error }));
    run.complete("undo a");
    assert_eq!((run.status(), run.state.retried_by()), (Status::Compensated, None));
}

fn limited(on_conflict: OnConflict) -> Plan {
    let mut plan = with_retry(saga(), None);
    plan.concurrency = Some(Box::new(RunConcurrency {
        limit: 1,
        key: None,
        on_conflict,
    }));
    plan
}

#[test]
fn an_attempt_has_the_place_of_the_one_before_also_while_it_waits() {
    let mut run = Run::of(limited(OnConflict::Queue));
    let (number, limit) = (run.pending()[0].0, run.state.place().unwrap().limit.clone());
    run.take(Input::MessageAnswered {
        number,
        answer: Answer::Granted { limit, at: None },
    });
    undone(&mut run);
    assert_eq!(run.pending(), [], "it is not given back");
    let mut next = run.successor();
    assert!(next.state.place().is_some());
    next.wake_next();
    assert_eq!(next.dispatched(), ["do a"], "and not asked for again");
    assert_eq!(told(&next), [(2, true, Status::Running)]);
    next.take(Input::Terminate(by("ann")));
    assert_eq!(next.pending().len(), 1, "the last one gives it back");
}

#[test]
fn a_run_that_found_no_place_was_no_attempt() {
    let mut run = Run::of(limited(OnConflict::Reject));
    let number = run.pending()[0].0;
    let answer = Answer::refused(Refusal::NoPlace, "1 is open");
    run.take(Input::MessageAnswered { number, answer });
    assert_eq!((run.status(), run.state.successor()), (Status::Failed, None));
}

/// Another run has the workflow id, or the place: an attempt that had it beside that would be a second one.
#[test]
fn a_run_whose_time_is_over_before_it_has_begun_was_no_attempt() {
    let timely = |mut plan: Plan| {
        plan.timeout = Some(Span::from_secs(60));
        plan
    };
    let ended = |mut run: Run| {
        while !run.state.is_closed() {
            run.wake_next();
        }
        assert_eq!((run.status(), run.state.successor()), (Status::TimedOut, None));
        run
    };
    let run = ended(Run::of(timely(limited(OnConflict::Queue))));
    let released = run
        .pending()
        .into_iter()
        .any(|(_, body)| matches!(&*body, Body::Release { .. }));
    assert!(released, "its ask is taken back");
    let queued = Start {
        queued: true,
        ..begin(json!(null))
    };
    ended(Run::started(timely(with_retry(saga(), None)), queued).unwrap());
}

#[test]
fn an_attempt_is_told_to_have_started_when_it_begins() {
    let mut run = again(Some(2));
    undone(&mut run);
    let closed = run::turns(&run.state, run.history.last().unwrap()).pop().unwrap();
    assert_eq!(closed.successor, run.state.retried_by().map(|(run, _)| run));
    let mut next = run.successor();
    assert_eq!(told(&next), []);
    next.wake_next();
    assert_eq!(told(&next), [(2, true, Status::Running)]);
    assert!(next.state.turned_in(&(2..=2)));
    next.fail("do a");
    assert_eq!(told(&next), [(2, true, Status::Running), (3, false, Status::Failed)]);
}

#[test]
fn a_late_result_does_not_reach_the_attempt_that_follows() {
    let mut run = again(None);
    let task = run.task("do a");
    run.fail("do a");
    let before: State = run.state.clone();
    run.apply(Input::TaskEnded {
        task,
        outcome: done(json!(1)),
    })
    .unwrap();
    assert_eq!(run.state.successor(), before.successor());
}

#[test]
fn what_comes_after_the_pivot_goes_forward_and_so_never_comes_to_another_attempt() {
    let mut run = Run::of(with_retry(
        plan(vec![act("p").pivot(true), act("z").undo(UndoDef::NoUndo)]),
        None,
    ));
    run.complete("do p");
    run.end(
        "do z",
        TaskOutcome::Failed(crate::run::input::WorkerError {
            retryable: false,
            ..error("Sold out")
        }),
    );
    assert_eq!(run.status(), Status::Parked);
    run.operate("z", ParkedAction::Retry);
    run.complete("do z");
    assert_eq!((run.status(), run.state.successor()), (Status::Completed, None));
}

#[test]
fn an_attempt_that_another_version_would_refuse_is_none() {
    let mut run = again(None);
    run.complete("do a");
    // As if the run had moved to a version whose search attributes cannot be computed from its input.
    run.plan = with_search_attribute(
        std::mem::replace(&mut run.plan, saga()),
        "n",
        &json!("${ input.none.such }"),
    );
    run.fail("do b");
    run.complete("undo a");
    assert_eq!((run.status(), run.state.successor()), (Status::Compensated, None));
}
