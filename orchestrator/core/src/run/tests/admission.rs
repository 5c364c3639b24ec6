//! Runs that wait before they begin, what each policy does, and that a place is given back exactly once.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{Plan, RunConcurrency};
use crate::ids::{MessageNo, RunId};
use crate::limit::{Ask, Bound, LimitKind, OnConflict};
use crate::run::effect::Effect;
use crate::run::input::{AnswerOn, Input, Operation, ParkedAction, Start};
use crate::run::message::{Answer, Body, Refusal, Sender};
use crate::run::{self, Admission, Event, Status};
use crate::time::Timestamp;

fn limited(on_conflict: OnConflict) -> Plan {
    let mut plan = plan(vec![act("a")]);
    plan.concurrency = Some(Box::new(RunConcurrency {
        limit: 2,
        key: Some(template(&json!("${ input.customer }"))),
        on_conflict,
    }));
    plan
}

fn waiting(on_conflict: OnConflict) -> Run {
    Run::of(limited(on_conflict))
}

fn queued(plan: Plan) -> Run {
    let start = Start {
        queued: true,
        ..begin(json!({"customer": "c1"}))
    };
    Run::started(plan, start).unwrap()
}

/// What is pending, as `ask c1` or `release 1`.
fn said(run: &Run) -> Vec<String> {
    let pending = run.pending().into_iter();
    let words = pending.map(|(_, body)| match &*body {
        Body::Ask(ask) => format!("ask {}", ask.limit.key),
        Body::Release { ask, of: None, .. } => format!("release {}", ask.0),
        Body::Release { ask, .. } => format!("release {} of another", ask.0),
        Body::Cancel { .. } => "cancel".to_owned(),
        other => format!("{other:?}"),
    });
    words.collect()
}

fn ask(run: &Run) -> (MessageNo, Ask) {
    let mut pending = run.pending().into_iter();
    let asked = pending.find_map(|(number, body)| match &*body {
        Body::Ask(ask) => Some((number, (**ask).clone())),
        _ => None,
    });
    asked.expect("an ask")
}

fn granted(run: &Run) -> Input {
    let (number, ask) = ask(run);
    let answer = Answer::Granted {
        limit: ask.limit,
        at: None,
    };
    Input::MessageAnswered { number, answer }
}

fn refused(run: &Run) -> Input {
    Input::MessageAnswered {
        number: ask(run).0,
        answer: Answer::refused(Refusal::NoPlace, "2 are open"),
    }
}

fn answers(effects: &[Effect]) -> usize {
    let answers = effects.iter().filter(|effect| matches!(effect, Effect::Answer { .. }));
    answers.count()
}

#[test]
fn queue_waits_for_a_place_and_begins_when_it_is_granted() {
    let mut run = waiting(OnConflict::Queue);
    assert_eq!((run.status(), said(&run)), (Status::Waiting, vec!["ask c1".to_owned()]));
    let (_, asked) = ask(&run);
    assert_eq!(
        (asked.limit.kind, asked.bound),
        (LimitKind::Workflow, Bound::Concurrent(2))
    );
    assert_eq!((&*asked.limit.of, asked.priority), ("order", 3));
    assert_eq!(run.dispatched(), Vec::<String>::new());
    // A signal is kept for later, and nothing is dispatched for it.
    run.signal("hello", json!(1));
    let effects = run.take(granted(&run));
    assert_eq!(dispatches(&effects), ["do a"]);
    assert_eq!((run.status(), run.state.signals().len()), (Status::Running, 1));
    run.complete("do a");
    assert_eq!(
        (run.status(), said(&run)),
        (Status::Completed, vec!["release 1".to_owned()])
    );
    run.answered(Answer::Accepted);
    assert_eq!(run.state.wake_at(), None);
}

#[test]
fn reject_closes_as_failed_and_tells_who_waits_for_the_start() {
    let start = Start {
        answer: Some(answer("_INBOX.1", AnswerOn::Started)),
        ..begin(json!({"customer": "c1"}))
    };
    let mut run = Run::started(limited(OnConflict::Reject), start).unwrap();
    // Not before it is known what becomes of it.
    assert_eq!(answers(&run.sent), 0);
    let effects = run.take(refused(&run));
    assert_eq!((run.status(), answers(&effects)), (Status::Failed, 1));
    assert_eq!(&*run.state.failure().unwrap().error_type, "concurrency");
    assert_eq!(run.state.refused_for_room(), Some(OnConflict::Reject));
    assert_eq!((said(&run), run.dispatched()), (vec![], vec![]));
    // A new owner says it again.
    let seq = run.state.seq();
    assert_eq!(answers(&run::effects_still_wanted(&run.state, seq, seq)), 1);
    assert_eq!(answers(&run::effects_still_wanted(&run.state, 1, 1)), 0);
}

#[test]
fn reject_begins_where_there_is_room_and_says_so_then() {
    let start = Start {
        answer: Some(answer("_INBOX.1", AnswerOn::Started)),
        ..begin(json!({"customer": "c1"}))
    };
    let mut run = Run::started(limited(OnConflict::Reject), start).unwrap();
    let effects = run.take(granted(&run));
    assert_eq!((answers(&effects), dispatches(&effects)), (1, vec!["do a".to_owned()]));
}

/// One for which there was no room.
pub(super) fn skipped() -> Run {
    let mut run = waiting(OnConflict::Skip);
    run.take(refused(&run));
    run
}

#[test]
fn skip_closes_as_skipped_which_is_no_failure() {
    let run = skipped();
    assert_eq!(run.status(), Status::Skipped);
    assert!(Status::Skipped.is_closed());
    assert_eq!(run.state.refused_for_room(), Some(OnConflict::Skip));
    assert_eq!(said(&run), Vec::<String>::new());
}

#[test]
fn cancel_running_tells_the_oldest_to_cancel_once_and_begins_when_it_has_closed() {
    let mut run = waiting(OnConflict::CancelRunning);
    let oldest = Sender {
        run: RunId(uuid::Uuid::from_u128(77)),
        namespace: "default".into(),
        workflow_id: "order-0".into(),
    };
    let occupied = Input::MessageAnswered {
        number: ask(&run).0,
        answer: Answer::Occupied { by: oldest.clone() },
    };
    let effects = run.take(occupied.clone());
    let [Effect::Send { to, body, .. }] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!((to.run, &to.workflow_id), (Some(oldest.run), &oldest.workflow_id));
    assert!(
        matches!(&**body, Body::Cancel { operation } if operation.reason.as_ref().is_some_and(|it| it.contains("order-1")))
    );
    assert_eq!(said(&run), ["ask c1", "cancel"]);
    // Said again, because the ask was offered again.
    run.ignores(occupied);
    assert_eq!(run.status(), Status::Waiting);
    run.take(granted(&run));
    assert_eq!(
        (run.status(), run.dispatched()),
        (Status::Running, vec!["do a".to_owned()])
    );
}

#[test]
fn who_is_cancelled_terminated_or_timed_out_while_it_waits_closes_at_once_and_takes_its_ask_back() {
    let cancel: fn(&mut Run) = |run| {
        run.take(Input::Cancel(Operation::default()));
    };
    let terminate: fn(&mut Run) = |run| {
        run.take(Input::Terminate(Operation::default()));
    };
    let time_out: fn(&mut Run) = |run| {
        run.later(60);
        run.wake();
    };
    for (end, status) in [
        (cancel, Status::Cancelled),
        (terminate, Status::Terminated),
        (time_out, Status::TimedOut),
    ] {
        let mut run = Run::of(with_timeout(limited(OnConflict::Queue), 60));
        end(&mut run);
        assert_eq!((run.status(), said(&run)), (status, vec!["release 1".to_owned()]));
        assert_eq!(run.dispatched(), Vec::<String>::new());
        // A grant that was on its way may be of a copy of the ask that came behind what gave it back: that is said once more.
        let limit = run.state.birth.place.as_ref().unwrap().limit.clone();
        let grant = Input::MessageAnswered {
            number: MessageNo(1),
            answer: Answer::Granted {
                limit: limit.clone(),
                at: None,
            },
        };
        run.take(grant.clone());
        run.ignores(grant);
        run.answered(Answer::Accepted);
        assert_eq!(said(&run), ["release 1"]);
        run.answered(Answer::Accepted);
        assert_eq!(said(&run), Vec::<String>::new());
        // One that comes after that is given back as well.
        run.take(Input::MessageAnswered {
            number: MessageNo(1),
            answer: Answer::Granted { limit, at: None },
        });
        assert_eq!(said(&run), ["release 1"]);
    }
}

#[test]
fn every_way_to_the_end_gives_the_place_back_once() {
    let complete: fn(&mut Run) = |run| drop(run.complete("do a"));
    let fail: fn(&mut Run) = |run| drop(run.end("do a", failed("Fatal")));
    let cancel: fn(&mut Run) = |run| {
        run.take(Input::Cancel(Operation::default()));
        run.complete("do a");
        run.complete("undo a");
    };
    let terminate: fn(&mut Run) = |run| drop(run.take(Input::Terminate(Operation::default())));
    for end in [complete, fail, cancel, terminate] {
        let mut run = waiting(OnConflict::Queue);
        run.take(granted(&run));
        end(&mut run);
        while !run.state.is_closed() {
            run.wake_next();
            if run.state.open_tasks().next().is_some() {
                run.end("do a", failed("Fatal"));
            }
        }
        assert_eq!(said(&run), ["release 1"], "{:?}", run.status());
        // It is not held any more, and a repeat of the grant is given back by nobody twice.
        assert_eq!(run.state.place(), None);
    }
}

#[test]
fn a_successor_keeps_the_place_and_gives_it_back_in_the_name_of_who_asked() {
    let again = |input| {
        let mut plan = plan(vec![continue_as_new("again", Some(input))]);
        plan.concurrency = limited(OnConflict::Queue).concurrency;
        plan
    };
    let mut first = Run::of(again(json!({"customer": "c1", "n": 2})));
    first.take(granted(&first));
    assert_eq!((first.status(), said(&first)), (Status::ContinuedAsNew, vec![]));
    // The grant is said again, and is not this run's to give back any more.
    let limit = first.state.birth.place.as_ref().unwrap().limit.clone();
    first.ignores(Input::MessageAnswered {
        number: MessageNo(1),
        answer: Answer::Granted { limit, at: None },
    });

    let mut plan = limited(OnConflict::Queue);
    plan.hash = first.plan.hash.clone();
    let mut second = Run::started(plan, first.state.successor().unwrap()).unwrap();
    assert_eq!((second.status(), said(&second)), (Status::Running, vec![]));
    second.complete("do a");
    assert_eq!(said(&second), ["release 1 of another"]);

    // Another key is another limit: the place is given back, and another one asked for.
    let mut first = Run::of(again(json!({"customer": "c2"})));
    first.take(granted(&first));
    let second = Run::started(limited(OnConflict::Queue), first.state.successor().unwrap()).unwrap();
    assert_eq!(said(&second), ["release 1 of another", "ask c2"]);
    assert_eq!(second.status(), Status::Waiting);
}

/// The last of a chain has given the place back, and then an old copy of the first one's ask has arrived: nobody but who asked can
/// tell that from the grant that it began with, said again.
#[test]
fn who_has_handed_its_place_on_gives_back_one_that_is_granted_to_it_once_more() {
    for next in ["c1", "c2"] {
        let mut plan = plan(vec![continue_as_new("again", Some(json!({ "customer": next })))]);
        plan.concurrency = limited(OnConflict::Queue).concurrency;
        let mut first = Run::of(plan);
        let (number, Ask { limit, .. }) = ask(&first);
        let grant = |second| Input::MessageAnswered {
            number,
            answer: Answer::Granted {
                limit: limit.clone(),
                at: Some(Timestamp(second)),
            },
        };
        first.take(grant(1));
        assert_eq!((first.status(), said(&first)), (Status::ContinuedAsNew, vec![]));
        let successor = first.state.successor().unwrap();
        let place = successor.continues.as_ref().unwrap().place.as_ref();
        assert_eq!(place.unwrap().granted_at, Some(Timestamp(1)));
        first.ignores(grant(1));
        // Of a limiter that does not say when.
        first.ignores(Input::MessageAnswered {
            number,
            answer: Answer::Granted {
                limit: limit.clone(),
                at: None,
            },
        });
        first.take(grant(2));
        assert_eq!(said(&first), ["release 1"]);
        first.answered(Answer::Accepted);
        assert_eq!((said(&first), first.state.wake_at()), (vec![], None));
        first.take(grant(3));
        assert_eq!(said(&first), ["release 1"]);
    }
}

/// Its ask has the number that the ask of its predecessor had, whose place it has still to give back.
#[test]
fn a_late_grant_is_given_back_beside_the_place_of_a_predecessor() {
    let again = |customer: &str| {
        let mut plan = plan(vec![continue_as_new("again", Some(json!({"customer": customer})))]);
        plan.concurrency = limited(OnConflict::Queue).concurrency;
        plan
    };
    let mut first = Run::of(again("c2"));
    first.take(granted(&first));
    let mut second = Run::started(again("c3"), first.state.successor().unwrap()).unwrap();
    second.take(granted(&second));
    let third = second.state.successor().unwrap();
    let mut third = Run::started(limited(OnConflict::Queue), third).unwrap();
    assert_eq!(said(&third), ["release 2 of another", "ask c3"]);
    let (number, asked) = ask(&third);
    third.take(Input::Cancel(Operation::default()));
    assert_eq!(said(&third), ["release 2 of another", "release 2"]);
    let released = third.pending()[1].0;
    third.take(Input::MessageAnswered {
        number: released,
        answer: Answer::Accepted,
    });
    let limit = asked.limit;
    let answer = Answer::Granted { limit, at: None };
    third.take(Input::MessageAnswered { number, answer });
    assert_eq!(said(&third), ["release 2 of another", "release 2"]);
}

#[test]
fn who_is_queued_begins_when_its_id_is_free_and_then_asks_for_its_place() {
    let mut run = queued(plan(vec![act("a")]));
    assert_eq!((run.status(), said(&run)), (Status::Queued, vec![]));
    assert!(!run.state.holds_workflow_id());
    run.take(Input::IdFree);
    assert_eq!(
        (run.status(), run.dispatched()),
        (Status::Running, vec!["do a".to_owned()])
    );
    assert!(run.state.holds_workflow_id());
    run.ignores(Input::IdFree);

    let mut run = queued(limited(OnConflict::Queue));
    assert_eq!((run.status(), said(&run)), (Status::Queued, vec![]));
    run.take(Input::IdFree);
    assert_eq!((run.status(), said(&run)), (Status::Waiting, vec!["ask c1".to_owned()]));
    run.take(granted(&run));
    assert_eq!(run.dispatched(), ["do a"]);

    let mut run = queued(plan(vec![act("a")]));
    run.take(Input::Cancel(Operation::default()));
    assert_eq!((run.status(), run.dispatched()), (Status::Cancelled, vec![]));
    assert!(!run.state.holds_workflow_id());
}

#[test]
fn what_is_parked_while_it_waits_begins_once_it_is_resumed() {
    let park = || Input::Park { reason: "why".into() };
    let resume = |run: &mut Run| run.operate("", ParkedAction::Retry);
    let mut run = waiting(OnConflict::Queue);
    run.take(park());
    let grant = granted(&run);
    // It is said again when it is asked again.
    run.ignores(grant.clone());
    resume(&mut run);
    assert_eq!(run.status(), Status::Waiting);
    run.take(grant);
    assert_eq!(run.dispatched(), ["do a"]);

    let mut run = queued(plan(vec![act("a")]));
    run.take(park());
    // Another run has its id, whatever it waits for.
    assert_eq!(run.status(), Status::Queued);
    run.take(Input::IdFree);
    assert_eq!((run.status(), run.dispatched()), (Status::Parked, vec![]));
    resume(&mut run);
    assert_eq!(
        (run.status(), run.dispatched()),
        (Status::Running, vec!["do a".to_owned()])
    );
}

/// Signals have brought it there, and its id is free by then.
#[test]
fn what_a_limit_has_parked_while_it_waits_begins_once_that_is_raised() {
    let limits = |events| crate::run::limits::RunLimits {
        events: Some(events),
        ..Default::default()
    };
    for (definition, begun) in [(plan(vec![act("a")]), true), (limited(OnConflict::Queue), false)] {
        let start = Start {
            queued: true,
            ..begin(json!({"customer": "c1"}))
        };
        let mut run = Run::within(limits(3), definition, start).unwrap();
        while run.status() == Status::Queued && run.state.parked_reason().is_none() {
            run.signal("more", json!(1));
        }
        run.take(Input::IdFree);
        assert_eq!((run.status(), run.dispatched()), (Status::Parked, vec![]));
        run.take(Input::RaiseLimits {
            limits: limits(50),
            operation: request("r-1"),
        });
        if !begun {
            assert_eq!((run.status(), said(&run)), (Status::Waiting, vec!["ask c1".to_owned()]));
            run.take(granted(&run));
        }
        assert_eq!(
            (run.status(), run.dispatched()),
            (Status::Running, vec!["do a".to_owned()])
        );
    }
}

/// It was blocked there, and had begun.
#[test]
fn what_was_parked_before_its_first_step_enters_it_once() {
    let limits = crate::run::limits::RunLimits {
        events: Some(1),
        ..Default::default()
    };
    let mut run = Run::within(limits, plan(vec![act("a")]), begin(json!({"customer": "c1"}))).unwrap();
    assert_eq!((run.status(), run.dispatched()), (Status::Parked, vec![]));
    run.operate("", ParkedAction::Retry);
    let entered = run.last_events().iter();
    let entered = entered.filter(|event| matches!(event, Event::ActivityScheduled(_) | Event::StepBlocked { .. }));
    assert_eq!(entered.count(), 1, "{:?}", run.last_events());
}

#[test]
fn it_is_told_to_have_started_when_it_begins() {
    let told = |run: &Run| {
        let turns = run
            .history
            .iter()
            .flat_map(|transition| run::turns(&run.state, transition));
        let words = turns.map(|turn| match turn.started {
            true => "started".to_owned(),
            false => turn.status.to_string(),
        });
        words.collect::<Vec<_>>()
    };
    let mut run = queued(limited(OnConflict::Queue));
    run.take(Input::IdFree);
    run.take(granted(&run));
    run.complete("do a");
    assert_eq!(told(&run), ["queued", "waiting", "started", "completed"]);
    let mut empty = plan(vec![]);
    empty.concurrency = limited(OnConflict::Queue).concurrency;
    let mut run = Run::of(empty);
    run.take(granted(&run));
    assert_eq!(told(&run), ["waiting", "started", "completed"]);
    let mut run = waiting(OnConflict::Skip);
    run.take(refused(&run));
    assert_eq!(told(&run), ["waiting", "skipped"]);
}

#[test]
fn priorities_are_the_starts_then_the_definitions_and_tasks_and_children_have_them() {
    let of = |given: Option<u8>, said: Option<u8>| {
        let mut plan = limited(OnConflict::Queue);
        plan.priority = said;
        let start = Start {
            priority: given,
            ..begin(json!({"customer": "c1"}))
        };
        Run::started(plan, start).unwrap()
    };
    assert_eq!(ask(&of(None, None)).1.priority, 3);
    assert_eq!(ask(&of(None, Some(4))).1.priority, 4);
    assert_eq!(ask(&of(Some(1), Some(4))).1.priority, 1);
    assert_eq!(ask(&of(Some(3), Some(4))).1.priority, 3);

    let limits = || LimitsDef {
        concurrency: Some((1, None)),
        ..LimitsDef::default()
    };
    let own = LimitsDef {
        priority: Some(5),
        ..limits()
    };
    let mut plan = plan(vec![act("a").limits(limits()), act("b").limits(own), workflow("kid")]);
    plan.priority = Some(2);
    let mut run = Run::of(plan);
    assert_eq!(ask(&run).1.priority, 2);
    run.take(granted(&run));
    run.complete("do a");
    assert_eq!(ask(&run).1.priority, 5);
    run.take(granted(&run));
    run.complete("do b");
    let inherited = run.pending().into_iter().find_map(|(_, body)| match &*body {
        Body::StartChild(start) => Some(start.priority),
        _ => None,
    });
    assert_eq!(inherited, Some(Some(2)));
}

#[test]
fn a_key_that_cannot_be_evaluated_refuses_the_start() {
    for input in [json!({"customer": ""}), json!({"customer": [1]}), json!({})] {
        let refused = Run::started(limited(OnConflict::Queue), begin(input)).map(|run| run.status());
        assert!(refused.unwrap_err().to_string().contains("`concurrency`"));
    }
}

/// Without it nothing is stored or sent that was not before.
#[test]
fn a_run_without_it_has_no_part_in_it() {
    let mut run = run(vec![act("a")]);
    run.complete("do a");
    assert!(run.history[0].body().starts_with(r#"[{"run_started":{"#));
    let text: String = run.history.iter().map(|transition| transition.body()).collect();
    for word in ["priority", "place", "queued", "admitted"] {
        assert!(!text.contains(word), "{text}");
    }
    assert!(!run.events().iter().any(|event| matches!(event, Event::MessageSent(_))));
    assert_eq!(run.state.admission(), None::<Admission>);
}
