//! What was gathered when a new version of the definition came.

use super::*;

fn of(n: u64, id: &str) -> Item {
    event(n, json!({ "id": id, "n": n }))
}

fn trigger(gather: &str) -> String {
    format!("{{ stream: S, id: '${{ event.data.id }}'{gather} }}")
}

fn define(actor: &mut Actor, version: u32, gather: &str, at: Timestamp) {
    let spec = Some(Box::new(spec(&trigger(gather))));
    actor.ask(Command::Define { version, spec }, at).unwrap();
}

/// The numbers of the events that each start was given, and whether as a list.
fn inputs(actor: &Actor) -> Vec<Value> {
    let starts = actor.sent.iter().filter_map(|(_, _, body)| match &**body {
        Body::StartChild(start) => Some(&start.input),
        _ => None,
    });
    let numbers = |input: &Arc<Value>| match &**input {
        Value::Array(list) => list.iter().map(|one| one["n"].clone()).collect(),
        one => one["n"].clone(),
    };
    starts.map(numbers).collect()
}

/// Answers all that is on its way until nothing is.
fn settle(actor: &mut Actor, at: Timestamp) {
    while let Some(number) = actor.trigger().sent.values().map(|sent| sent.message).next() {
        actor.answer(number, Answer::Accepted, at);
    }
}

#[test]
fn a_new_version_loses_nothing_of_a_batch() {
    for comes_another in [false, true] {
        let mut actor = Actor::new(&trigger(", batch: { max: 9, wait: 10s }"));
        actor.read(vec![of(1, "a"), of(2, "a")], second(1));
        define(&mut actor, 2, ", debounce: { quiet: 2s, max_wait: 5s }", second(2));
        assert_eq!(inputs(&actor), [json!([1, 2])], "it counts as it was gathered");
        if comes_another {
            actor.read(vec![of(3, "a")], second(3));
        }
        settle(&mut actor, second(4));
        actor.wake(second(20));
        settle(&mut actor, second(20));
        let all = [json!([1, 2]), json!(3)];
        assert_eq!(inputs(&actor), all[..1 + usize::from(comes_another)]);
    }
}

#[test]
fn a_new_version_makes_no_list_of_what_is_debounced_and_keeps_its_order() {
    for comes_another in [false, true] {
        let mut actor = Actor::new(&trigger(", debounce: { quiet: 1h, max_wait: 2h }"));
        actor.read(vec![of(1, "a")], second(1));
        define(&mut actor, 2, "", second(2));
        if comes_another {
            actor.read(vec![of(2, "a")], second(3));
        }
        settle(&mut actor, second(4));
        actor.wake(second(8_000));
        settle(&mut actor, second(8_000));
        let all = [json!(1), json!(2)];
        assert_eq!(inputs(&actor), all[..1 + usize::from(comes_another)]);
    }
}

#[test]
fn a_new_version_that_gathers_likewise_waits_on() {
    let mut actor = Actor::new(&trigger(", batch: { max: 9, wait: 10s }"));
    actor.read(vec![of(1, "a")], second(1));
    define(
        &mut actor,
        2,
        ", filter: event.data.n, batch: { max: 9, wait: 10s }",
        second(2),
    );
    assert_eq!((actor.sent.len(), actor.state.wake_at()), (0, Some(second(11))));
}

#[test]
fn one_that_is_parked_sends_nothing_for_a_new_version() {
    let mut actor = Actor::new(&trigger(", debounce: 1h"));
    actor.read(vec![of(1, "a")], second(1));
    let reason = "broken".into();
    actor.try_apply(Input::Park { reason }, second(2)).unwrap();
    define(&mut actor, 2, "", second(3));
    assert_eq!(actor.sent.len(), 0);
    actor.ask(Command::Resume, second(4)).unwrap();
    assert_eq!(inputs(&actor), [json!(1)]);
}
