//! Steps that wait for permits, and give them back whatever becomes of them.

use serde_json::json;

use super::dsl::*;
use crate::ids::MessageNo;
use crate::limit::{Bound, LimitKind};
use crate::run::effect::{Direction, Effect};
use crate::run::event::StepOutcome;
use crate::run::input::{Input, ParkedAction, TaskOutcome};
use crate::run::limits::RunLimits;
use crate::run::message::{Answer, Body};
use crate::run::{Status, Step};
use crate::time::Span;

fn limited(name: &str) -> Def {
    act(name).limits(LimitsDef {
        concurrency: Some((2, None)),
        ..LimitsDef::default()
    })
}

/// What is pending, as `ask do a` or `release 1`.
fn said(run: &Run) -> Vec<String> {
    let pending = run.pending().into_iter();
    let words = pending.map(|(_, body)| match &*body {
        Body::Ask(ask) => format!("ask {} {}", ask.direction.as_str(), ask.step),
        Body::Release { ask, .. } => format!("release {}", ask.0),
        other => format!("{other:?}"),
    });
    words.collect()
}

/// Grants the oldest ask.
fn grant(run: &mut Run) -> Vec<Effect> {
    let pending = run.pending().into_iter();
    let mut asks = pending.filter_map(|(number, body)| match &*body {
        Body::Ask(ask) => Some((number, ask.limit.clone())),
        _ => None,
    });
    let (number, limit) = asks.next().expect("an ask");
    run.take(Input::MessageAnswered {
        number,
        answer: Answer::Granted { limit, at: None },
    })
}

/// The limiter says that it has taken back what was given back.
fn settle(run: &mut Run) {
    let pending = run.pending().into_iter();
    let released = pending.filter(|(_, body)| matches!(&**body, Body::Release { .. }));
    for (number, _) in released.collect::<Vec<_>>() {
        run.take(Input::MessageAnswered {
            number,
            answer: Answer::Accepted,
        });
    }
}

#[test]
fn a_task_goes_out_when_it_is_granted_and_its_end_gives_the_permit_back() {
    let mut run = Run::of(plan(vec![limited("a"), act("b")]));
    assert_eq!(said(&run), ["ask do a"]);
    assert_eq!(run.state.open_tasks().count(), 0);
    let [.., Effect::Send { to, .. }] = run.sent.as_slice() else {
        panic!("it is asked for: {:?}", run.sent);
    };
    assert!(to.workflow_id.as_str().starts_with("limit-"));
    // Also before the task: what is dispatched next has its undo on record.
    assert_eq!(run.state.ledger().len(), 1);
    let effects = grant(&mut run);
    assert!(matches!(effects.as_slice(), [Effect::Dispatch(task)] if task.task.0 == 1 && task.attempt == 1));
    let effects = run.complete("do a");
    assert!(
        matches!(effects.as_slice(), [Effect::Dispatch(_), Effect::Send { .. }]),
        "{effects:?}"
    );
    assert_eq!(said(&run), ["release 1"]);
    run.complete("do b");
    // The end does not wait for that, and what is owed is offered until it is answered.
    assert_eq!(run.status(), Status::Completed);
    assert!(run.wake_next().is_some());
    settle(&mut run);
    assert_eq!((said(&run), run.state.wake_at()), (vec![], None));
}

/// Its task goes out with the transition that schedules it, and neither a message nor a word in its events is about limits.
#[test]
fn an_activity_without_limits_pays_nothing_for_them() {
    let mut run = super::dsl::run(vec![act("a"), act("b")]);
    assert_eq!(run.dispatched(), ["do a"]);
    let effects = run.complete("do a");
    assert!(matches!(effects.as_slice(), [Effect::Dispatch(_)]), "{effects:?}");
    run.fail("do b");
    assert_eq!(run.dispatched(), ["do a", "do b", "undo a"]);
    run.complete("undo a");
    let asks = |effect: &Effect| matches!(effect, Effect::Send { .. });
    assert!(!run.sent.iter().any(asks), "nobody is asked: {:?}", run.sent);
    let told = serde_json::to_string(&run.events()).unwrap();
    for word in ["limit", "permit", "priority", "fairness", "task_opened"] {
        assert!(!told.contains(word), "{word}: {told}");
    }
    let stored = serde_json::to_string(&run.state).unwrap();
    assert!(!stored.contains("permit") && !stored.contains("limits"), "{stored}");
}

#[test]
fn who_says_nothing_of_priority_and_fairness_asks_with_three_and_under_the_key_of_the_limit() {
    for (key, fairness_key) in [(None, ""), (Some("${ input.customer }"), "7")] {
        let limits = LimitsDef {
            concurrency: Some((1, key)),
            ..LimitsDef::default()
        };
        let run = Run::started(plan(vec![act("a").limits(limits)]), begin(json!({"customer": 7}))).unwrap();
        let Body::Ask(ask) = &*run.pending()[0].1.clone() else {
            panic!()
        };
        assert_eq!((ask.priority, &*ask.fairness_key), (3, fairness_key));
    }
}

#[test]
fn who_waits_for_the_next_attempt_has_no_permit() {
    let mut run = Run::of(plan(vec![limited("a").attempts(None)]));
    grant(&mut run);
    run.fail("do a");
    assert_eq!(said(&run), ["release 1"]);
    settle(&mut run);
    run.wake_next();
    assert_eq!(said(&run), ["ask do a"]);
    grant(&mut run);
    run.time_out("do a");
    assert_eq!(said(&run), ["release 3"]);
    settle(&mut run);
    run.wake_next();
    grant(&mut run);
    // It is running somewhere, and is asked about under the permit that it has.
    run.end(
        "do a",
        TaskOutcome::RetryLater {
            after: Some(Span::from_secs(5)),
        },
    );
    assert_eq!(said(&run), Vec::<String>::new());
    let effects = run.wake_next().unwrap();
    assert!(matches!(effects.as_slice(), [Effect::Dispatch(task)] if task.attempt == 3));
    run.complete("do a");
    assert_eq!(said(&run), ["release 5"]);
}

#[test]
fn an_undo_asks_for_the_same_permit() {
    let mut run = Run::of(plan(vec![limited("a"), act("b")]));
    grant(&mut run);
    run.complete("do a");
    settle(&mut run);
    run.fail("do b");
    assert_eq!(said(&run), ["ask undo a"]);
    let pending = run.pending();
    let Body::Ask(ask) = &*pending[0].1 else { panic!() };
    assert_eq!(
        (ask.direction, ask.limit.kind, &*ask.limit.of),
        (Direction::Undo, LimitKind::Activity, "do-a")
    );
    grant(&mut run);
    run.complete("undo a");
    assert_eq!(
        (run.status(), said(&run)),
        (Status::Compensated, vec!["release 3".to_owned()])
    );
}

#[test]
fn what_is_halted_takes_its_ask_back_and_a_late_grant_is_given_back_once() {
    let mut run = Run::of(plan(vec![
        act("a"),
        parallel("p", vec![("x", vec![limited("l")]), ("y", vec![act("b")])]),
    ]));
    run.complete("do a");
    assert_eq!(said(&run), ["ask do p.x.l"]);
    let limit = match &*run.pending()[0].1 {
        Body::Ask(ask) => ask.limit.clone(),
        other => panic!("{other:?}"),
    };
    run.fail("do p.y.b");
    assert!(matches!(
        run.state.steps()["p.x.l"],
        Step::Failed {
            outcome: StepOutcome::Cancelled,
            ..
        }
    ));
    assert_eq!(said(&run), ["release 1"]);
    let granted = || Input::MessageAnswered {
        number: MessageNo(1),
        answer: Answer::Granted {
            limit: limit.clone(),
            at: None,
        },
    };
    // It is on its way already: nobody can tell whether the release comes behind it.
    run.take(granted());
    run.ignores(granted());
    assert_eq!(said(&run), ["release 1"]);
    settle(&mut run);
    assert_eq!(said(&run), ["release 1"]);
    settle(&mut run);
    assert_eq!(said(&run), Vec::<String>::new());
    // An old copy of the ask came after that.
    run.take(granted());
    assert_eq!(said(&run), ["release 1"]);
    run.take(granted());
    run.ignores(granted());
}

/// The release was there, then an old copy of the ask, and the grant overtakes the answer to the release.
#[test]
fn a_grant_that_overtakes_the_answer_to_a_release_is_given_back_all_the_same() {
    let mut run = Run::of(plan(vec![limited("a")]));
    let Body::Ask(ask) = &*run.pending()[0].1.clone() else {
        panic!()
    };
    run.take(Input::Cancel(by("ann")));
    let released = run.pending()[0].0;
    run.take(Input::MessageAnswered {
        number: MessageNo(1),
        answer: Answer::Granted {
            limit: ask.limit.clone(),
            at: None,
        },
    });
    let effects = run.take(Input::MessageAnswered {
        number: released,
        answer: Answer::Accepted,
    });
    assert!(
        matches!(effects.as_slice(), [Effect::Send { number, .. }] if *number != released),
        "{effects:?}"
    );
    assert_eq!(said(&run), ["release 1"]);
    settle(&mut run);
    assert_eq!((said(&run), run.state.wake_at()), (vec![], None));
}

#[test]
fn a_run_that_is_terminated_gives_back_what_it_has_and_what_it_asked_for() {
    let mut run = Run::of(plan(vec![parallel(
        "p",
        vec![("x", vec![limited("k")]), ("y", vec![limited("l")])],
    )]));
    grant(&mut run);
    run.take(Input::Terminate(by("ann")));
    let mut said = said(&run);
    said.sort();
    assert_eq!(said, ["release 1", "release 2"]);
    settle(&mut run);
    assert_eq!(run.state.wake_at(), None);
}

/// *Retry later* says that it is running somewhere, whether the run can take that in or not.
#[test]
fn a_parked_run_keeps_the_permit_of_a_task_that_is_still_running() {
    let mut run = Run::of(plan(vec![limited("a").attempts(None)]));
    grant(&mut run);
    run.take(Input::Park {
        reason: "a test".into(),
    });
    let task = run.state.open_tasks().next().unwrap().open.task;
    run.ignores(Input::TaskEnded {
        task,
        outcome: TaskOutcome::RetryLater {
            after: Some(Span::from_secs(5)),
        },
    });
    assert_eq!(said(&run), Vec::<String>::new());
    run.operate("", ParkedAction::Retry);
    // What it ends with counts then.
    run.complete("do a");
    assert_eq!(
        (run.status(), said(&run)),
        (Status::Completed, vec!["release 1".to_owned()])
    );
}

/// Else every other task of the limit would wait for an operator.
#[test]
fn a_parked_run_gives_back_the_permit_of_a_task_whose_worker_is_lost() {
    type Lost = fn(crate::ids::TaskNo) -> Input;
    let lost: Lost = |task| Input::TaskLost { task };
    let silent: Lost = |task| Input::WorkerSilent { task };
    for is_lost in [lost, silent] {
        let mut run = Run::of(plan(vec![limited("a").attempts(Some(2))]));
        grant(&mut run);
        run.take(Input::Park {
            reason: "a test".into(),
        });
        let task = run.task("do a");
        run.take(is_lost(task));
        assert_eq!(said(&run), ["release 1"]);
        run.ignores(is_lost(task));
        settle(&mut run);
        assert_eq!((run.status(), run.state.wake_at()), (Status::Parked, None));
        run.operate("", ParkedAction::Retry);
        assert!(
            run.state.is_open(task),
            "its timeouts end it, or the worker does after all"
        );
        run.time_out("do a");
        run.wake_next();
        grant(&mut run);
        run.complete("do a");
        assert_eq!(run.status(), Status::Completed);

        // It was not lost.
        let mut run = Run::of(plan(vec![limited("a")]));
        grant(&mut run);
        run.take(Input::Park {
            reason: "a test".into(),
        });
        let task = run.task("do a");
        run.take(is_lost(task));
        run.operate("", ParkedAction::Retry);
        run.complete("do a");
        assert_eq!(run.status(), Status::Completed);
    }
}

#[test]
fn a_parked_run_keeps_no_permit_that_no_worker_has() {
    let mut run = Run::of(plan(vec![limited("a")]));
    run.take(Input::Park {
        reason: "a test".into(),
    });
    grant(&mut run);
    assert_eq!(said(&run), ["release 1"]);
    settle(&mut run);
    assert_eq!(run.state.wake_at(), None);
    run.take(Input::Parked {
        step: "".into(),
        direction: None,
        action: ParkedAction::Retry,
        operation: by("ann"),
    });
    run.wake();
    grant(&mut run);
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

/// Each time it is resumed at least one of its tasks goes out, however many permits it has to ask for first.
#[test]
fn a_run_that_a_limit_has_parked_gets_on_each_time_it_is_resumed() {
    let (events, history_bytes) = (Some(12), Some(2_500));
    for limits in [
        RunLimits {
            events,
            ..RunLimits::default()
        },
        RunLimits {
            history_bytes,
            ..RunLimits::default()
        },
    ] {
        let list = json!((0..16).collect::<Vec<_>>());
        let plan = plan(vec![for_each("each", list, vec![limited("a")]).at_once(16)]);
        let mut run = Run::within(limits, plan, begin(json!({}))).unwrap();
        for _ in 0..100 {
            while said(&run).iter().any(|what| what.starts_with("ask")) {
                grant(&mut run);
            }
            settle(&mut run);
            let tasks: Vec<_> = run.state.open_tasks().map(|view| view.open.task).collect();
            for task in tasks {
                let outcome = done(json!({}));
                run.apply(Input::TaskEnded { task, outcome }).unwrap();
            }
            settle(&mut run);
            if run.status() == Status::Parked {
                run.take(Input::Parked {
                    step: "".into(),
                    direction: None,
                    action: ParkedAction::Retry,
                    operation: by("ann"),
                });
            }
            // What has ended meanwhile is said again, and what was given back is asked for again.
            run.wake();
        }
        assert_eq!(run.status(), Status::Completed, "{limits:?}");
    }
}

#[test]
fn permits_are_asked_for_one_by_one_and_those_of_rates_last() {
    let limits = LimitsDef {
        concurrency: Some((3, Some("${ input.customer }"))),
        rate: Some(10),
        priority: Some(1),
        fairness_key: Some("${ input.tenant }"),
    };
    let plan = plan(vec![act("a").limits(limits)]);
    let mut run = Run::started(plan, begin(json!({"customer": 7, "tenant": "acme"}))).unwrap();
    let ask = |run: &Run| match &*run.pending().last().unwrap().1 {
        Body::Ask(ask) => ask.clone(),
        other => panic!("{other:?}"),
    };
    let first = ask(&run);
    assert_eq!(
        (first.limit.kind, &*first.limit.key, first.bound),
        (LimitKind::Activity, "7", Bound::Concurrent(3))
    );
    assert_eq!((first.priority, &*first.fairness_key), (1, "acme"));
    grant(&mut run);
    assert_eq!(run.state.open_tasks().count(), 0);
    let second = ask(&run);
    assert_eq!((second.limit.kind, &*second.limit.key), (LimitKind::ActivityRate, ""));
    grant(&mut run);
    run.complete("do a");
    let mut said = said(&run);
    said.sort();
    assert_eq!(said, ["release 1", "release 2"]);
}

#[test]
fn a_key_that_is_none_fails_the_step() {
    for (customer, problem) in [
        (json!({}), "neither a text nor a number"),
        (json!(""), "empty"),
        (json!("x".repeat(513)), "more than 512 bytes"),
    ] {
        let limits = LimitsDef {
            concurrency: Some((1, Some("${ input.customer }"))),
            ..LimitsDef::default()
        };
        let run = Run::started(
            plan(vec![act("a").limits(limits)]),
            begin(json!({ "customer": customer })),
        )
        .unwrap();
        assert_eq!(run.status(), Status::Failed);
        assert!(run.state.failure().unwrap().message.contains(problem));
    }
}
