//! Messages between runs, and signals.

use serde_json::json;

use super::dsl::*;
use crate::ids::{MessageNo, RunId};
use crate::run::effect::{Effect, effects_still_wanted};
use crate::run::input::{AnswerOn, Input, Rejected};
use crate::run::limits::{MAX_BUFFERED_SIGNALS, MAX_SIGNAL_NAME_BYTES};
use crate::run::message::{Answer, Body, ChildClosed, Recipient, Refusal, Sender, StartChild, child_start};
use crate::run::{Event, Failure, Status};

const OTHER: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0099));

fn other() -> Sender {
    Sender {
        run: OTHER,
        namespace: "default".into(),
        workflow_id: "parent-1".into(),
    }
}

fn message(number: u32, body: Body) -> Input {
    Input::Message {
        from: other(),
        number: MessageNo(number),
        body,
    }
}

fn accepted(number: u32) -> Effect {
    Effect::AnswerMessage {
        to: other(),
        number: MessageNo(number),
        answer: Answer::Accepted,
    }
}

fn signal(name: &str, request_id: &str) -> Input {
    Input::Signal {
        name: name.into(),
        body: json!({"for": name}).into(),
        operation: request(request_id),
    }
}

/// As the first message of the other run started it.
fn child(steps: Vec<Def>) -> Run {
    let body = StartChild {
        run_id: RUN,
        workflow: "order".into(),
        version: None,
        input: json!({"customer": "c1"}).into(),
        step: "ship".into(),
        parent_close: Default::default(),
        detached: false,
        scheduled: None,
        priority: None,
        triggered: None,
    };
    let start = child_start(&other(), MessageNo(1), &"order-1".into(), &body);
    Run::started(plan(steps), start).unwrap()
}

fn why() -> Failure {
    serde_json::from_value(json!({"error_type": "Refused", "message": "no"})).unwrap()
}

fn closed(run: &Run) -> &ChildClosed {
    let sent = run.sent.iter().rev().find_map(|effect| match effect {
        Effect::Send { body, to, .. } => Some((body, to)),
        _ => None,
    });
    let (body, to) = sent.expect("a message was sent");
    let parent = Recipient {
        workflow_id: "parent-1".into(),
        run: Some(OTHER),
    };
    assert_eq!(*to, parent);
    match &**body {
        Body::ChildClosed(closed) => closed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_child_answers_its_start_by_its_birth_and_a_repeat_from_its_state() {
    let run = child(vec![act("a")]);
    assert!(run.sent.contains(&accepted(1)));
    assert_eq!(run.state.answer_to(OTHER, MessageNo(1)), Some(Answer::Accepted));
    assert_eq!(run.state.answer_to(OTHER, MessageNo(2)), None);
    assert!(effects_still_wanted(&run.state, 1, 1).contains(&accepted(1)));
    assert!(!effects_still_wanted(&run.state, 2, 9).contains(&accepted(1)));
}

#[test]
fn a_child_tells_its_parent_how_it_ended() {
    let mut run = Run::of(plan(vec![]));
    assert_eq!(run.sent, [], "who has no parent tells nobody");
    run = child(vec![act("a")]);
    run.complete("do a");
    let told = closed(&run);
    assert_eq!(
        (told.child, told.step.as_str(), told.status),
        (RUN, "ship", Status::Completed)
    );
    let mut run = child(vec![act("a"), act("b")]);
    run.complete("do a");
    run.fail("do b");
    run.complete("undo a");
    let told = closed(&run);
    assert_eq!(told.status, Status::Compensated);
    assert_eq!(&*told.error.as_ref().unwrap().error_type, "Refused");
    let mut run = child(vec![act("a")]);
    run.take(Input::Terminate(by("ann")));
    assert_eq!(closed(&run).status, Status::Terminated);
}

#[test]
fn a_message_is_offered_again_until_it_is_answered_also_by_a_closed_run() {
    let mut run = child(vec![act("a")]);
    let sent = run.complete("do a");
    assert_eq!(effects_still_wanted(&run.state, 2, 2), sent);
    for (offer, seconds) in [30, 60, 120, 240, 300, 300].into_iter().enumerate() {
        assert_eq!(run.state.wake_at().unwrap().since(run.now).as_millis(), seconds * 1_000);
        run.ignores(Input::Wake(Default::default()));
        assert_eq!(run.wake_next().unwrap(), sent);
        let seq = 3 + u32::try_from(offer).unwrap();
        assert_eq!(effects_still_wanted(&run.state, seq, seq), sent);
        assert_eq!(effects_still_wanted(&run.state, seq - 1, seq - 1), []);
    }
    let answer = Input::MessageAnswered {
        number: MessageNo(1),
        answer: Answer::Accepted,
    };
    run.take(answer.clone());
    run.ignores(answer);
    assert_eq!(run.state.wake_at(), None);
    assert_eq!(effects_still_wanted(&run.state, 2, 99), []);
}

#[test]
fn a_message_is_taken_once_and_every_repeat_can_be_answered() {
    let mut run = run(vec![act("a")]);
    let signal = |number| {
        let (name, body) = ("go".into(), json!(number).into());
        message(
            number,
            Body::Signal {
                name,
                body,
                sent_at: None,
            },
        )
    };
    // The numbers of a sender count for all its receivers, and a lost log changes their order.
    for number in [7, 3] {
        assert_eq!(run.take(signal(number)), [accepted(number)]);
        run.ignores(signal(number));
        assert_eq!(run.state.answer_to(OTHER, MessageNo(number)), Some(Answer::Accepted));
    }
    assert_eq!(run.state.answer_to(RUN, MessageNo(7)), None, "another sender's");
    assert_eq!(effects_still_wanted(&run.state, 2, 2), [accepted(7)]);
    let bodies: Vec<_> = run
        .state
        .signals()
        .iter()
        .map(|signal| (*signal.body).clone())
        .collect();
    assert_eq!(bodies, [json!(7), json!(3)]);
}

#[test]
fn a_closed_run_refuses_every_time_without_a_trace() {
    let mut run = run(vec![]);
    let operation = by("ann");
    for body in [
        Body::Cancel {
            operation: operation.clone(),
        },
        Body::Terminate { operation },
        Body::Signal {
            name: "go".into(),
            body: json!(1).into(),
            sent_at: None,
        },
    ] {
        run.ignores(message(1, body));
        let answer = run.state.answer_to(OTHER, MessageNo(1));
        let Some(Answer::Refused { reason, .. }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(reason, Refusal::Closed);
    }
}

#[test]
fn another_run_can_cancel_and_terminate() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    let operation = by("order-0");
    let effects = run.take(message(
        1,
        Body::Cancel {
            operation: operation.clone(),
        },
    ));
    assert!(effects.contains(&accepted(1)));
    assert_eq!(run.status(), Status::Compensating);
    let effects = run.take(message(2, Body::Terminate { operation }));
    assert!(effects.contains(&accepted(2)));
    assert_eq!(run.status(), Status::Terminated);
}

#[test]
fn a_parked_run_takes_messages_later() {
    let mut run = run(vec![act("a")]);
    run.take(Input::Park {
        reason: "broken".into(),
    });
    let told = ChildClosed {
        child: OTHER,
        step: "a".into(),
        status: Status::Completed,
        output: Default::default(),
        error: None,
    };
    run.ignores(message(1, Body::ChildClosed(told.clone())));
    assert_eq!(run.state.answer_to(OTHER, MessageNo(1)), None, "to be offered again");
    run.take(message(
        2,
        Body::Signal {
            name: "go".into(),
            body: json!(1).into(),
            sent_at: None,
        },
    ));
    run.operate("", crate::run::input::ParkedAction::Retry);
    assert_eq!(run.take(message(1, Body::ChildClosed(told))), [accepted(1)]);
}

#[test]
fn a_completed_child_runs_its_ledger_backwards_when_its_parent_asks() {
    let mut run = child(vec![act("a"), act("b").undo_input(json!("${ error.type }"))]);
    run.take(Input::Await(answer("inbox", AnswerOn::Closed)));
    run.complete("do a");
    let effects = run.complete("do b");
    assert!(matches!(effects[0], Effect::Answer { .. }));
    assert_eq!(closed(&run).status, Status::Completed);
    let closed_at = run.state.closed_at();
    run.later(100);
    let effects = run.take(message(2, Body::Undo { error: why() }));
    assert_eq!(effects[0], accepted(2));
    assert_eq!(run.status(), Status::Compensating);
    assert!(!run.state.holds_workflow_id());
    assert_eq!(run.state.closed_at(), closed_at);
    run.ignores(message(2, Body::Undo { error: why() }));
    assert_eq!(*run.last_dispatch().input, json!("Refused"));
    run.complete("undo b");
    let effects = run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
    assert_eq!(closed(&run).status, Status::Compensated);
    assert!(
        !effects.iter().any(|effect| matches!(effect, Effect::Answer { .. })),
        "who waited for the end has been answered"
    );
    assert_eq!(run.state.closed_at(), closed_at);
}

#[test]
fn what_a_run_says_to_being_undone_depends_on_how_it_stands() {
    let undo = || message(5, Body::Undo { error: why() });
    let mut open = child(vec![act("a")]);
    open.take(undo());
    let answer = open.state.answer_to(OTHER, MessageNo(5));
    assert!(
        matches!(
            answer,
            Some(Answer::Refused {
                reason: Refusal::Open,
                ..
            })
        ),
        "{answer:?}"
    );

    let mut failed = child(vec![act("a")]);
    failed.fail("do a");
    let before = failed.sent.len();
    let effects = failed.take(undo());
    assert_eq!(effects[0], accepted(5));
    assert!(matches!(effects[1], Effect::Send { .. }), "it tells again");
    assert_eq!(failed.sent.len(), before + 2);

    let mut terminated = child(vec![act("a")]);
    terminated.take(Input::Terminate(by("ann")));
    terminated.take(undo());
    let answer = terminated.state.answer_to(OTHER, MessageNo(5));
    assert!(matches!(answer, Some(Answer::Refused { .. })));

    let mut nothing = child(vec![]);
    nothing.take(undo());
    assert_eq!(nothing.status(), Status::Compensated, "there was nothing to undo");
}

#[test]
fn signals_are_buffered_in_order_and_a_repeat_changes_nothing() {
    let mut run = run(vec![act("a")]);
    run.take(signal("x", "1"));
    run.take(signal("y", "2"));
    run.ignores(signal("x", "1"));
    let seen: Vec<_> = run.state.signals().iter().map(|one| (one.number, &*one.name)).collect();
    assert_eq!(seen, [(1, "x"), (2, "y")]);
    assert!(matches!(run.last_events(), [Event::SignalReceived(_)]));
    run.complete("do a");
    run.ignores(signal("x", "1"));
    assert_eq!(run.apply(signal("x", "3")), Err(Rejected::Closed("completed")));
}

#[test]
fn the_limits_of_signals_hold_at_the_limit_and_one_past_it() {
    let mut state = run(vec![act("a")]).state;
    let plan = plan(vec![act("a")]);
    let mut take = |name: &str, id: usize| {
        let input = signal(name, &id.to_string());
        crate::run::apply(&plan, &mut state, input, crate::time::Timestamp(0)).map(|_| ())
    };
    for name in ["", "a\0", &"n".repeat(MAX_SIGNAL_NAME_BYTES + 1)] {
        assert_eq!(take(name, 0), Err(Rejected::SignalName));
    }
    assert_eq!(take(&"n".repeat(MAX_SIGNAL_NAME_BYTES), 1), Ok(()));
    for id in 2..=MAX_BUFFERED_SIGNALS {
        assert_eq!(take("x", id), Ok(()));
    }
    assert_eq!(take("x", 0), Err(Rejected::SignalsFull));
    assert_eq!(take("x", 2), Ok(()), "a repeat is none too many");
}
