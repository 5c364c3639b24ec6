//! What becomes of a start that an open run has taken in, and of the signal behind it.

use super::*;

const WITH_START: &str = "{ stream: S, id: '${ event.data }', signal: paid, start: true }";

fn is_start(body: &Body) -> bool {
    matches!(body, Body::StartChild(_))
}

fn is_signal(body: &Body) -> bool {
    matches!(body, Body::Signal { .. })
}

fn cancels(actor: &Actor) -> usize {
    let all = actor.sent.iter();
    all.filter(|(_, _, body)| matches!(**body, Body::Cancel { .. })).count()
}

/// The start of the first event, which an open run has taken in, and the signal that follows it.
fn taken_in(actor: &mut Actor) -> (MessageNo, MessageNo) {
    actor.read(vec![event(1, json!("a"))], second(1));
    let start = actor.sent[0].0;
    actor.answer(start, refused(Refusal::IdTaken), second(1));
    let (signal, _, body) = actor.sent.last().unwrap().clone();
    assert!(is_signal(&body), "{body:?}");
    (start, signal)
}

#[test]
fn a_start_that_an_open_run_has_taken_in_counts_and_begins_no_other() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }', id_conflict: use_existing }");
    actor.read(vec![event(1, json!("a")), event(2, json!("a"))], second(1));
    let start = actor.sent[0].0;
    actor.answer(start, refused(Refusal::IdTaken), second(1));
    let counts = actor.trigger().counts;
    assert_eq!((counts.started, counts.refused), (1, 0));
    assert_eq!(actor.sent.len(), 2, "the next one is on its way");
    // A copy of it was late, and has found nobody.
    assert!(actor.answer(start, Answer::Accepted, second(40)));
    assert_eq!(cancels(&actor), 1);
    assert_eq!(actor.sent[2].1, actor.sent[0].1, "the run that it has begun");
    assert!(!actor.answer(start, Answer::Accepted, second(41)));
    // A replica of an earlier version answers like this to both.
    let next = actor.sent[1].0;
    actor.answer(next, Answer::Accepted, second(42));
    assert!(!actor.answer(next, Answer::Accepted, second(43)));
    assert_eq!((actor.trigger().counts.started, cancels(&actor)), (2, 1));
}

#[test]
fn a_run_that_closes_before_the_signal_comes_is_followed_by_another() {
    let mut actor = Actor::new(WITH_START);
    let (start, signal) = taken_in(&mut actor);
    assert!(actor.answer(signal, refused(Refusal::Closed), second(2)));
    let (again, _, body) = actor.sent[2].clone();
    assert!(is_start(&body) && again != start, "{body:?}");
    assert_eq!(actor.trigger().counts.refused, 0);
    // Offered meanwhile, the signal finds nobody still.
    assert!(!actor.answer(signal, refused(Refusal::NoRun), second(3)));
    assert!(actor.answer(again, Answer::Accepted, second(4)));
    let (last, _, body) = actor.sent[3].clone();
    assert_eq!((last, is_signal(&body)), (signal, true), "under its number");
    assert!(actor.answer(signal, Answer::Accepted, second(5)));
    let trigger = actor.trigger();
    assert_eq!((trigger.counts.signalled, trigger.sent.len()), (1, 0));
    assert_eq!((actor.state.wake_at(), cancels(&actor)), (None, 0));
}

/// A copy of the signal was late, and somebody has opened a run for it.
#[test]
fn a_signal_that_is_taken_while_its_start_is_out_again_counts_once() {
    let mut actor = Actor::new(WITH_START);
    let (_, signal) = taken_in(&mut actor);
    actor.answer(signal, refused(Refusal::NoRun), second(2));
    let again = actor.sent[2].0;
    assert!(actor.answer(signal, Answer::Accepted, second(3)));
    let trigger = actor.trigger();
    assert_eq!((trigger.counts.signalled, trigger.sent.len()), (1, 0));
    assert_eq!(actor.state.wake_at(), None, "the start is not offered any more");
    // It has come all the same, behind the signal.
    assert!(actor.answer(again, Answer::Accepted, second(4)));
    assert_eq!(cancels(&actor), 1);
}

/// Its run is to have the signal, which is behind that start in the log.
#[test]
fn a_run_that_a_late_start_has_begun_before_the_signal_is_kept() {
    let mut actor = Actor::new(WITH_START);
    let (start, signal) = taken_in(&mut actor);
    actor.answer(start, Answer::Accepted, second(2));
    assert_eq!(cancels(&actor), 0);
    assert!(actor.answer(signal, Answer::Accepted, second(3)));
    assert!(!actor.answer(start, Answer::Accepted, second(4)));
    assert_eq!((actor.trigger().counts.signalled, cancels(&actor)), (1, 0));

    // Behind the signal it begins one too many.
    let mut actor = Actor::new(WITH_START);
    let (start, signal) = taken_in(&mut actor);
    actor.answer(signal, Answer::Accepted, second(2));
    actor.answer(start, Answer::Accepted, second(3));
    assert_eq!(cancels(&actor), 1);
}

#[test]
fn a_start_is_not_sent_for_ever() {
    // The run that it has begun has ended without the signal.
    let mut actor = Actor::new(WITH_START);
    actor.read(vec![event(1, json!("a"))], second(1));
    actor.answer(actor.sent[0].0, Answer::Accepted, second(1));
    actor.answer(actor.sent[1].0, refused(Refusal::Closed), second(2));
    assert_eq!(actor.sent.iter().filter(|(_, _, body)| is_start(body)).count(), 1);

    // Others take it in, and close, again and again.
    let mut actor = Actor::new(WITH_START);
    let (_, signal) = taken_in(&mut actor);
    for n in 2..60 {
        if !actor.answer(signal, refused(Refusal::Closed), second(n)) || actor.trigger().sent.is_empty() {
            break;
        }
        let (start, _, body) = actor.sent.last().unwrap().clone();
        assert!(is_start(&body), "{n}: {body:?}");
        actor.answer(start, refused(Refusal::IdTaken), second(n));
        assert_eq!(actor.sent.last().unwrap().0, signal);
    }
    let counts = actor.trigger().counts;
    assert_eq!((counts.refused, counts.signalled), (1, 0));
    assert!((10..40).contains(&actor.sent.len()), "{}", actor.sent.len());

    // Nor behind a start that is refused.
    let mut actor = Actor::new(WITH_START);
    let (_, signal) = taken_in(&mut actor);
    actor.answer(signal, refused(Refusal::Closed), second(2));
    let again = actor.sent[2].0;
    actor.answer(again, refused(Refusal::UnknownWorkflow), second(3));
    assert_eq!((actor.trigger().counts.refused, actor.trigger().sent.len()), (1, 0));
    assert_eq!(actor.state.wake_at(), None, "the signal is not offered any more");
}
