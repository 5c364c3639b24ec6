//! Starts that are to begin later: they are runs at once, and wait.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{Plan, RunConcurrency};
use crate::limit::OnConflict;
use crate::run::input::{Input, ParkedAction, Start};
use crate::run::message::{Answer, Body};
use crate::run::{self, Admission, Event, Status};
use crate::time::{Span, Timestamp};

/// When a run under test is started.
const START: Timestamp = Timestamp(1_000_000_000);

fn second(n: u64) -> Timestamp {
    START.plus(Span::from_secs(n))
}

/// By a minute, with a timeout of ten seconds.
fn delayed(mut plan: Plan, queued: bool) -> Run {
    plan.timeout = Some(Span::from_secs(10));
    let start = Start {
        queued,
        begins_at: Some(second(60)),
        ..begin(json!({"customer": "c1"}))
    };
    Run::started(plan, start).unwrap()
}

#[test]
fn it_waits_and_begins_on_time_with_all_of_its_time() {
    let mut run = delayed(plan(vec![act("a")]), false);
    assert_eq!((run.status(), run.state.wake_at()), (Status::Waiting, Some(second(60))));
    assert_eq!(run.state.begins_at(), Some(second(60)));
    run.signal("hello", json!(1));
    run.later(59).wake();
    assert_eq!(run.dispatched(), [""; 0]);
    run.later(3).wake();
    assert_eq!(
        (run.dispatched(), run.status()),
        (vec!["do a".to_owned()], Status::Running)
    );
    assert_eq!(run.state.signals().len(), 1);
    // It has begun two seconds late.
    assert_eq!(run.state.wake_at(), Some(second(72)));
    assert_eq!(run.state.begins_at(), None);
}

#[test]
fn it_is_told_to_have_started_when_it_begins() {
    let mut run = delayed(plan(vec![act("a")]), false);
    run.wake_next();
    let turns = run.history.iter().flat_map(|it| run::turns(&run.state, it));
    let told: Vec<_> = turns.map(|turn| (turn.seq, turn.started, turn.status)).collect();
    assert_eq!(told, [(1, false, Status::Waiting), (2, true, Status::Running)]);
}

#[test]
fn a_moment_that_has_passed_delays_nothing() {
    let start = Start {
        begins_at: Some(START),
        ..begin(json!(null))
    };
    let run = Run::started(plan(vec![act("a")]), start).unwrap();
    assert_eq!(
        (run.dispatched(), run.state.paused_until()),
        (vec!["do a".to_owned()], None)
    );
}

#[test]
fn one_that_is_cancelled_before_has_done_nothing() {
    let mut run = delayed(plan(vec![act("a")]), false);
    run.take(Input::Cancel(by("ann")));
    assert_eq!((run.status(), run.dispatched().len()), (Status::Cancelled, 0));
    assert_eq!(run.state.wake_at(), None);
}

/// Its workflow id first, then its time, then its place.
#[test]
fn one_that_is_queued_waits_for_both() {
    let mut limited = plan(vec![act("a")]);
    limited.concurrency = Some(Box::new(RunConcurrency {
        limit: 1,
        key: None,
        on_conflict: OnConflict::Queue,
    }));
    let mut run = delayed(limited, true);
    assert_eq!(
        (run.status(), run.state.admission()),
        (Status::Queued, Some(Admission::Id))
    );
    run.later(30).take(Input::IdFree);
    assert_eq!(
        (run.status(), run.state.admission()),
        (Status::Waiting, Some(Admission::Pause))
    );
    assert!(run.pending().is_empty() && run.dispatched().is_empty());
    run.wake_next();
    assert_eq!((run.now, run.state.admission()), (second(60), Some(Admission::Place)));
    let (number, ask) = run.pending().remove(0);
    let Body::Ask(ask) = &*ask else {
        panic!("{ask:?}");
    };
    let answer = Answer::Granted {
        limit: ask.limit.clone(),
        at: None,
    };
    run.take(Input::MessageAnswered { number, answer });
    assert_eq!(run.dispatched(), ["do a"]);

    // It gets its id when its time has come already.
    let mut run = delayed(plan(vec![act("a")]), true);
    run.later(65).take(Input::IdFree);
    assert_eq!(
        (run.status(), run.dispatched()),
        (Status::Running, vec!["do a".to_owned()])
    );
}

/// The delay is that of the start: attempts and successors have none.
#[test]
fn who_goes_on_in_its_place_is_not_delayed_again() {
    let mut run = delayed(plan(vec![continue_as_new("again", None)]), false);
    run.wake_next();
    assert_eq!(run.status(), Status::ContinuedAsNew);
    let next = run.successor();
    assert_eq!(
        (next.status(), next.state.paused_until()),
        (Status::ContinuedAsNew, None)
    );
    assert!(matches!(next.history[0].events[0], Event::RunStarted(_)));
}

#[test]
fn one_that_is_parked_over_its_time_begins_once_it_is_resumed() {
    for resumed_at in [30, 90] {
        let mut run = delayed(plan(vec![act("a")]), false);
        run.take(Input::Park { reason: "why".into() });
        assert_eq!((run.status(), run.state.wake_at()), (Status::Parked, None));
        run.later(resumed_at).operate("", ParkedAction::Retry);
        if resumed_at < 60 {
            assert_eq!((run.status(), run.dispatched().len()), (Status::Waiting, 0));
        }
        if run.dispatched().is_empty() {
            run.wake_next();
        }
        assert_eq!(run.dispatched(), ["do a"], "resumed after {resumed_at} s");
    }
}
