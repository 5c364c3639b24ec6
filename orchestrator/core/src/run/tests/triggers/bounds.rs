//! What a trigger keeps and stores is bounded, and nobody who is not there holds up the others.

use super::*;

/// A stream of which each event goes to an id of its own, and nobody has one.
#[test]
fn signals_to_nobody_do_not_hold_up_the_others() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data.id }', signal: paid }");
    let ids = |range: std::ops::Range<u64>| {
        let items = range.map(|n| event(n, json!({ "id": format!("w{n}") })));
        items.collect::<Vec<_>>()
    };
    actor.read(ids(1..257), second(1));
    assert!(!actor.trigger().has_room());
    let numbers: Vec<MessageNo> = actor.sent.iter().map(|(number, ..)| *number).collect();
    for number in numbers {
        let answer = refused(Refusal::NoRun);
        let input = Input::MessageAnswered { number, answer };
        run::apply(&plan(), &mut actor.state, input, second(1)).unwrap();
    }
    assert!(actor.trigger().has_room(), "they wait for somebody");
    assert_eq!(actor.trigger().sent.len(), 256, "and none of them is given up");
    // Nor do those behind one of them.
    let same = (257..600).map(|n| event(n, json!({ "id": "w1" })));
    actor.read(same.collect(), second(2));
    assert!(actor.trigger().has_room());
    assert_eq!(actor.trigger().held.len(), 343);
    // Of these there is a bound as well.
    let mut last = 600;
    while actor.trigger().has_room() {
        assert!(last < 10_000);
        let opening = actor.trigger().opening;
        let items = (last..last + 128).map(|n| event(n, json!({ "id": "w1" }))).collect();
        let (skipped, at) = (0, second(3));
        let read = Read {
            opening,
            items,
            skipped,
        };
        run::apply(&plan(), &mut actor.state, Input::Read(Box::new(read)), at).unwrap();
        last += 128;
    }
    let trigger = actor.trigger();
    assert!((4_096..4_096 + 128).contains(&(trigger.sent.len() + trigger.held.len())));
}

#[test]
fn what_is_kept_of_an_event_counts_and_not_its_body_alone() {
    let text = "x".repeat(2_000);
    let input = format!("{{ stream: S, id: '${{ event.data }}', input: {{ text: {text} }} }}");
    let mut actor = Actor::new(&input);
    actor.read(vec![event(1, json!("a"))], second(1));
    assert!(actor.trigger().sent[&1].firing.bytes >= 2_000, "the input");

    let mut actor = Actor::new("{ stream: S, id: '${ event.data }' }");
    let Item::Event(mut headed) = event(1, json!("a")) else {
        panic!()
    };
    headed.headers.push((Arc::from("Note"), "x".repeat(2_000)));
    actor.read(vec![Item::Event(headed)], second(1));
    assert!(actor.trigger().sent[&1].firing.bytes >= 2_000, "the headers");
}

#[test]
fn one_read_stores_no_more_than_a_transition_may() {
    let text = "x".repeat(64 << 10);
    let mut actor = Actor::new(&format!(
        "{{ stream: S, id: '${{ event.data.n }}', input: {{ text: {text} }} }}"
    ));
    let items = |from: u64| (from..=100).map(|n| event(n, json!({ "n": n }))).collect::<Vec<_>>();
    actor.read(items(1), second(1));
    let sent = actor.sent.len();
    assert!((8..40).contains(&sent), "{sent}");
    // What is left is not decided, and is handed in again.
    assert_eq!(actor.sequence(), Some(sent as u64));
    while actor.sequence() < Some(100) {
        assert!(actor.read(items(1), second(2)));
    }
    let ids: Vec<_> = actor.sent.iter().map(|(_, to, _)| to.workflow_id.to_string()).collect();
    assert_eq!(ids, (1..=100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(actor.trigger().counts.taken, 100);
}

/// A subject that no stream keeps has no place that could be recorded.
#[test]
fn what_the_filter_holds_back_of_a_subject_is_not_recorded_each_time() {
    let mut actor = Actor::new("{ subject: o.a, filter: event.data.n > 100, id: '${ event.data.n }' }");
    let heard = |n: u64| {
        let Item::Event(mut heard) = event(n, json!({ "n": n })) else {
            panic!()
        };
        heard.place = None;
        Item::Event(heard)
    };
    for n in 1..=100 {
        assert!(!actor.read(vec![heard(n)], second(1)), "{n}");
    }
    assert!(actor.read(vec![heard(101)], second(1)));
}
