//! Triggers: what becomes of each event, whatever is repeated.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::definition;
use crate::ids::{MessageNo, RunId};
use crate::run::effect::Effect;
use crate::run::input::{Horizon, Input, Operation, ParkedAction, Rejected, Start};
use crate::run::message::{Answer, Body, Recipient, Refusal};
use crate::run::trigger::{definition as hash, plan, trigger_of, workflow_id};
use crate::run::{self, State, Transition, effects, evolve};
use crate::time::Timestamp;
use crate::trigger::source::{Gap, Item, Loss, SourceEvent};
use crate::trigger::spec::Flaw;
use crate::trigger::{Command, Place, Position, Read, Spec, Trigger};

mod answers;
mod bounds;
mod commands;
mod gathered;

const T0: i64 = 1_800_000_000_000_000;

fn second(n: i64) -> Timestamp {
    Timestamp(T0 + n * 1_000_000)
}

fn spec(trigger: &str) -> Spec {
    let text = format!(
        "workflow: order\nversion: 1\ntriggers: {{ t: {trigger} }}\nsteps: [ {{ note: {{ set: {{ x: 1 }} }} }} ]\n"
    );
    let read = definition::read(&text, &|_| Err(String::new()));
    read.unwrap_or_else(|findings| panic!("{findings:?}")).plan.triggers[0].clone()
}

fn place(stream: &str, sequence: u64) -> Place {
    Place {
        stream: Arc::from(stream),
        sequence,
        at: second(0),
    }
}

fn event(sequence: u64, data: Value) -> Item {
    Item::Event(Box::new(SourceEvent {
        place: Some(place("s1", sequence)),
        sequence,
        subject: Arc::from("orders.placed"),
        headers: vec![(Arc::from("Shop"), "north".to_owned())],
        at: second(0),
        data: Ok(data),
        bytes: 10,
    }))
}

/// A trigger, and what it has sent.
struct Actor {
    state: State,
    sent: Vec<(MessageNo, Recipient, Arc<Body>)>,
}

impl Actor {
    fn new(trigger: &str) -> Self {
        let command = Command::Define {
            version: 1,
            spec: Some(Box::new(spec(trigger))),
        };
        let start = Start {
            run_id: RunId(uuid::Uuid::from_u128(7)),
            namespace: "default".into(),
            workflow_id: workflow_id("order", "t"),
            input: Arc::new(serde_json::to_value(command).unwrap()),
            request_id: None,
            search_attributes: Default::default(),
            answer: None,
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            begins_at: None,
            continues: None,
        };
        let (state, transition) = run::start(&plan(), start, second(0)).unwrap();
        assert_eq!(*state.definition_hash(), hash());
        assert_eq!(trigger_of(state.workflow_id()), Some(("order", "t")));
        assert_eq!(State::born(&through_json(&transition)).unwrap(), state);
        Self {
            state,
            sent: Vec::new(),
        }
    }

    fn try_apply(&mut self, input: Input, at: Timestamp) -> Result<bool, Rejected> {
        let mut folded = self.state.clone();
        let Some(transition) = run::apply(&plan(), &mut self.state, input, at)? else {
            assert_eq!(folded, self.state);
            return Ok(false);
        };
        evolve(&mut folded, &through_json(&transition));
        assert_eq!(folded, self.state);
        for effect in effects(&self.state, &transition) {
            if let Effect::Send { number, to, body } = effect {
                self.sent.push((number, to, body));
            }
        }
        let bytes = serde_json::to_string(&self.state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&bytes).unwrap(), self.state);
        Ok(true)
    }

    fn read(&mut self, items: Vec<Item>, at: Timestamp) -> bool {
        let read = Read {
            opening: self.trigger().opening,
            items,
            skipped: 0,
        };
        self.try_apply(Input::Read(Box::new(read)), at).unwrap()
    }

    fn answer(&mut self, number: MessageNo, answer: Answer, at: Timestamp) -> bool {
        self.try_apply(Input::MessageAnswered { number, answer }, at).unwrap()
    }

    fn wake(&mut self, at: Timestamp) {
        self.try_apply(Input::Wake(Horizon::default()), at).unwrap();
    }

    fn ask(&mut self, command: Command, at: Timestamp) -> Result<bool, Rejected> {
        let (command, operation) = (Box::new(command), Operation::default());
        self.try_apply(Input::Trigger { command, operation }, at)
    }

    fn trigger(&self) -> &Trigger {
        self.state.trigger().unwrap()
    }

    fn sequence(&self) -> Option<u64> {
        self.trigger().place().map(|place| place.sequence)
    }
}

fn through_json(transition: &Transition) -> Transition {
    Transition::read(transition.seq, transition.at, transition.body().to_owned()).unwrap()
}

fn refused(reason: Refusal) -> Answer {
    Answer::refused(reason, "so it is")
}

#[test]
fn the_place_moves_with_what_comes_of_the_events_before_it() {
    let mut actor = Actor::new(
        "{ stream: S, filter: event.data.n > 1, id: '${ event.data.n }', input: '${ event.headers.Shop }' }",
    );
    let due = actor.read((1..=3).map(|n| event(n, json!({ "n": n }))).collect(), second(1));
    assert!(due);
    assert_eq!(actor.sequence(), Some(3));
    let ids: Vec<_> = actor.sent.iter().map(|(_, to, _)| to.workflow_id.to_string()).collect();
    assert_eq!(ids, ["2", "3"]);
    let Body::StartChild(start) = &*actor.sent[0].2 else {
        panic!()
    };
    assert_eq!((&*start.input, start.detached), (&json!("north"), true));
    assert_eq!((actor.trigger().counts.taken, actor.trigger().counts.skipped), (2, 1));
    // What is read a second time has been decided.
    assert!(!actor.read((1..=3).map(|n| event(n, json!({ "n": n }))).collect(), second(2)));
    // What an earlier opening has read says nothing any more.
    let stale = Read {
        opening: 0,
        items: vec![event(4, json!({ "n": 4 }))],
        skipped: 0,
    };
    assert!(!actor.try_apply(Input::Read(Box::new(stale)), second(2)).unwrap());
    let numbers: Vec<MessageNo> = actor.sent.iter().map(|(number, ..)| *number).collect();
    for number in numbers {
        assert!(actor.answer(number, Answer::Accepted, second(3)));
        assert!(!actor.answer(number, Answer::Accepted, second(3)));
    }
    assert_eq!(actor.trigger().counts.started, 2);
    assert!(actor.trigger().sent.is_empty());
}

#[test]
fn events_that_match_nothing_are_recorded_by_the_thousand_or_after_a_while() {
    let mut actor = Actor::new(
        "{ stream: S, filter: event.data.n > 1000000, id: x }"
            .replace("id: x", "id: event.data.n")
            .as_str(),
    );
    assert!(
        actor.read(vec![event(1, json!({ "n": 1 }))], second(1)),
        "the first place is recorded"
    );
    assert!(!actor.read((2..=900).map(|n| event(n, json!({ "n": n }))).collect(), second(2)));
    assert_eq!(actor.sequence(), Some(1));
    assert!(actor.read((901..=1_900).map(|n| event(n, json!({ "n": n }))).collect(), second(3)));
    assert_eq!(actor.sequence(), Some(1_900));
    assert!(!actor.read(vec![event(1_901, json!({ "n": 1 }))], second(4)));
    assert!(actor.read(vec![event(1_902, json!({ "n": 1 }))], second(14)));
    assert_eq!(actor.sequence(), Some(1_902));
}

#[test]
fn of_one_workflow_id_one_message_is_on_its_way() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data.id }', signal: paid }");
    let ids = ["a", "a", "b", "a"];
    let events = (1..).zip(ids).map(|(n, id)| event(n, json!({ "id": id, "n": n })));
    actor.read(events.collect(), second(1));
    assert_eq!((actor.sent.len(), actor.trigger().held.len()), (2, 2));
    for next in [2, 3] {
        let (number, ..) = actor
            .sent
            .iter()
            .rfind(|(_, to, _)| to.workflow_id.as_str() == "a")
            .unwrap();
        actor.answer(*number, Answer::Accepted, second(2));
        assert_eq!(actor.sent.len(), next + 1);
    }
    let order: Vec<Value> = actor
        .sent
        .iter()
        .filter(|(_, to, _)| to.workflow_id.as_str() == "a")
        .map(|(_, _, body)| match &**body {
            Body::Signal { body, .. } => body["n"].clone(),
            _ => panic!(),
        })
        .collect();
    assert_eq!(order, [json!(1), json!(2), json!(4)]);
}

#[test]
fn a_signal_to_nobody_is_offered_again_under_its_number_and_then_refused() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }', signal: paid }");
    actor.read(vec![event(1, json!("a"))], second(1));
    let (first, ..) = actor.sent[0];
    let mut at = second(1);
    for _ in 0..50 {
        if !actor.answer(first, refused(Refusal::NoRun), at) || actor.trigger().sent.is_empty() {
            break;
        }
        at = actor.state.wake_at().unwrap();
        actor.wake(at);
    }
    assert!(actor.sent.len() > 3);
    assert!(actor.sent.iter().all(|(number, ..)| *number == first));
    assert_eq!(actor.trigger().counts.refused, 1);
    assert_eq!(actor.trigger().past[0].flaw, Flaw::Refused);
    assert!(at.since(second(1)).as_millis() >= 15_000);
    // An answer that contradicts it changes nothing.
    assert!(!actor.answer(first, Answer::Accepted, at));
}

/// It was offered twice, and the second offer found the id free.
#[test]
fn a_run_that_a_refused_start_has_begun_all_the_same_is_cancelled() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }' }");
    actor.read(vec![event(1, json!("a"))], second(1));
    let (start, to, _) = actor.sent[0].clone();
    actor.answer(start, refused(Refusal::IdTaken), second(2));
    assert_eq!((actor.trigger().counts.refused, actor.sent.len()), (1, 1));
    assert!(!actor.answer(start, refused(Refusal::IdTaken), second(3)));
    assert!(actor.answer(start, Answer::Accepted, second(4)));
    let (cancel, whom, body) = actor.sent[1].clone();
    assert!(matches!(&*body, Body::Cancel { .. }), "{body:?}");
    assert_eq!((whom, to.run.is_some()), (to, true));
    assert!(!actor.answer(start, Answer::Accepted, second(5)));
    assert_eq!((actor.trigger().counts.refused, actor.trigger().counts.started), (1, 0));
    actor.answer(cancel, Answer::Accepted, second(6));
    assert_eq!((actor.sent.len(), actor.state.wake_at()), (2, None));
    // It is told what has become of the last of them: a trigger goes on for ever.
    for n in 2..=1_000 {
        actor.read(vec![event(n, json!("a"))], second(7));
        let (start, ..) = *actor.sent.last().unwrap();
        actor.answer(start, refused(Refusal::IdTaken), second(7));
    }
    let (last, ..) = *actor.sent.last().unwrap();
    assert!(!actor.answer(actor.sent[2].0, Answer::Accepted, second(8)));
    assert!(actor.answer(last, Answer::Accepted, second(8)));
    let size = serde_json::to_string(&actor.state).unwrap().len();
    assert!(size < 200_000, "{size}");
}

#[test]
fn with_a_start_the_signal_follows_it() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }', signal: paid, start: true }");
    actor.read(vec![event(1, json!("a"))], second(1));
    let (start, _, body) = actor.sent[0].clone();
    let Body::StartChild(said) = &*body else { panic!() };
    assert_eq!(
        said.triggered.as_ref().unwrap().conflict,
        crate::trigger::spec::Conflict::UseExisting
    );
    actor.answer(start, Answer::Accepted, second(1));
    let (signal, _, body) = actor.sent[1].clone();
    assert!(matches!(&*body, Body::Signal { .. }));
    actor.answer(signal, Answer::Accepted, second(1));
    assert_eq!(actor.trigger().counts.signalled, 1);
    assert!(actor.trigger().sent.is_empty());
}

#[test]
fn what_means_nothing_is_refused_and_passed() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data.id }' }");
    let long = "x".repeat(201);
    let bad = [
        json!({}),
        json!({ "id": "" }),
        json!({ "id": [] }),
        json!({ "id": "$schedule/x" }),
        json!({ "id": long }),
    ];
    let mut items: Vec<Item> = (1..).zip(bad).map(|(n, data)| event(n, data)).collect();
    let Item::Event(mut unreadable) = event(6, json!(1)) else {
        panic!()
    };
    unreadable.data = Err(Arc::from("expected ident at line 1, column 2"));
    items.push(Item::Event(unreadable));
    items.push(event(7, json!({ "id": "x".repeat(200) })));
    actor.read(items, second(1));
    assert_eq!(actor.sequence(), Some(7));
    assert_eq!((actor.trigger().counts.refused, actor.sent.len()), (6, 1));
    let flaws: Vec<Flaw> = actor.trigger().past.iter().map(|past| past.flaw).collect();
    assert_eq!(flaws[4..], [Flaw::Expression, Flaw::Unreadable]);
    let told = actor.trigger().past.last().map(|past| past.message.to_string());
    assert_eq!(
        told.as_deref(),
        Some("the event cannot be read as JSON: expected ident at line 1, column 2")
    );
}

#[test]
fn a_gap_is_told_and_read_on_behind() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }' }");
    actor.read(vec![event(5, json!("a"))], second(1));
    let gap = Gap {
        why: Loss::Recreated,
        after: place("s1", 5),
        resumes: place("s2", 0),
    };
    let Item::Event(mut again) = event(1, json!("b")) else {
        panic!()
    };
    again.place = Some(place("s2", 1));
    actor.read(vec![Item::Trouble(Arc::from("gone"))], second(2));
    assert_eq!(actor.trigger().trouble.as_deref(), Some("gone"));
    assert!(
        !actor.read(vec![Item::Trouble(Arc::from("gone"))], second(3)),
        "it is told once"
    );
    actor.read(vec![Item::Gap(gap), Item::Event(again)], second(4));
    assert_eq!(actor.trigger().place(), Some(&place("s2", 1)));
    assert_eq!((actor.trigger().counts.gaps, actor.sent.len()), (1, 2));
    assert_eq!(actor.trigger().trouble, None);
}

#[test]
fn a_new_version_keeps_the_place_unless_it_reads_another_stream() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }' }");
    actor.read(vec![event(5, json!("a"))], second(1));
    let mut define = |version: u32, trigger: &str| {
        let spec = Some(Box::new(spec(trigger)));
        actor.ask(Command::Define { version, spec }, second(2)).unwrap();
        (actor.trigger().version, actor.trigger().opening, actor.sequence())
    };
    assert_eq!(
        define(2, "{ stream: S, id: '${ event.data }', filter: event.data }"),
        (2, 1, Some(5))
    );
    assert_eq!(
        define(3, "{ stream: S, subject: o.a, id: '${ event.data }' }"),
        (3, 2, Some(5))
    );
    assert_eq!(define(2, "{ stream: T, id: '${ event.data }' }"), (3, 2, Some(5)));
    assert_eq!(define(4, "{ stream: T, id: '${ event.data }' }"), (4, 3, None));
    actor
        .ask(Command::Define { version: 5, spec: None }, second(3))
        .unwrap();
    assert!(actor.state.is_closed());
    assert_eq!(
        actor.ask(Command::Reset { to: Position::All }, second(4)),
        Err(Rejected::Closed("completed"))
    );
}

#[test]
fn what_is_gathered_counts_when_it_is_due_full_or_the_trigger_goes() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data.id }', batch: { max: 3, wait: 10s } }");
    let of = |n: u64, id: &str| event(n, json!({ "id": id, "n": n }));
    actor.read((1..=4).map(|n| of(n, "a")).chain([of(5, "b")]).collect(), second(1));
    let inputs = |actor: &Actor| -> Vec<usize> {
        let starts = actor.sent.iter().map(|(_, _, body)| match &**body {
            Body::StartChild(start) => start.input.as_array().unwrap().len(),
            _ => panic!(),
        });
        starts.collect()
    };
    assert_eq!(inputs(&actor), [3]);
    assert_eq!(actor.state.wake_at(), Some(second(11)));
    actor
        .ask(Command::Define { version: 2, spec: None }, second(2))
        .unwrap();
    assert_eq!(inputs(&actor), [3, 1, 1]);

    let mut actor = Actor::new("{ stream: S, id: '${ event.data.id }', debounce: { quiet: 2s, max_wait: 5s } }");
    for n in 1..=4 {
        actor.read(vec![of(n, "a")], second(i64::try_from(n).unwrap()));
    }
    // By the quiet after the last it would be 6, and so it is by the longest wait after the first.
    assert_eq!(actor.state.wake_at(), Some(second(6)));
    actor.wake(second(6));
    let Body::StartChild(start) = &*actor.sent[0].2 else {
        panic!()
    };
    assert_eq!(*start.input, json!({ "id": "a", "n": 4 }));
    assert_eq!(actor.sent.len(), 1);
}

proptest! {
    /// However it is cut, repeated and answered, each event is sent once, in order for each workflow id, and nothing that is kept
    /// grows without bound.
    #[test]
    fn each_event_is_sent_once(steps in prop::collection::vec((0u64..12, 0u8..4, 0usize..8), 1..60), gathers in 0u8..3) {
        let gather = match gathers {
            0 => "",
            1 => ", batch: { max: 4, wait: 3s }",
            _ => ", debounce: 1s",
        };
        let mut actor = Actor::new(&format!("{{ stream: S, id: '${{ event.data.id }}', signal: s{gather} }}"));
        let mut stored = 0;
        let mut now = 1;
        let data = |n: u64| json!({ "id": format!("w{}", n % 3), "n": n });
        for (back, kind, pick) in steps {
            now += 1;
            match kind {
                0 | 1 => {
                    let from = stored + 1 - back.min(stored);
                    stored += back % 5;
                    let items = (from..=stored).map(|n| event(n, data(n))).collect();
                    actor.read(items, second(now));
                }
                2 => {
                    let open: Vec<MessageNo> = actor.trigger().sent.values().map(|sent| sent.message).collect();
                    if let Some(number) = open.get(pick % open.len().max(1)) {
                        actor.answer(*number, Answer::Accepted, second(now));
                    }
                }
                _ => actor.wake(second(now)),
            }
        }
        // Everything is answered at last.
        for _ in 0..200 {
            now += 10;
            actor.wake(second(now));
            let open: Vec<MessageNo> = actor.trigger().sent.values().map(|sent| sent.message).collect();
            for number in open {
                actor.answer(number, Answer::Accepted, second(now));
            }
        }
        let trigger = actor.trigger();
        prop_assert!(trigger.sent.is_empty() && trigger.held.is_empty() && trigger.gathered.is_empty());
        let mut seen = std::collections::BTreeMap::new();
        for (number, _, body) in &actor.sent {
            seen.entry(*number).or_insert_with(|| Arc::clone(body));
        }
        let mut counted: Vec<u64> = Vec::new();
        let mut last = [0; 3];
        for body in seen.values() {
            let Body::Signal { body, .. } = &**body else { panic!() };
            let of = |value: &Value| value["n"].as_u64().unwrap();
            let numbers: Vec<u64> = match &**body {
                Value::Array(list) => list.iter().map(of).collect(),
                one => vec![of(one)],
            };
            for n in numbers {
                let last = &mut last[usize::try_from(n % 3).unwrap()];
                prop_assert!(n > *last, "{} after {}", n, last);
                *last = n;
                counted.push(n);
            }
        }
        counted.sort_unstable();
        if gathers < 2 {
            prop_assert_eq!(counted, (1..=stored).collect::<Vec<_>>());
        }
        prop_assert_eq!(trigger.counts.taken, stored);
    }
}

#[test]
fn one_that_is_parked_reads_nothing_and_goes_on_where_it_is_told() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }' }");
    actor.read(vec![event(1, json!("a"))], second(1));
    let reason = Arc::from("an input broke it");
    assert!(actor.try_apply(Input::Park { reason }, second(2)).unwrap());
    assert!(!actor.read(vec![event(2, json!("b"))], second(3)));
    // What was sent before is answered meanwhile.
    let (number, ..) = actor.sent[0];
    assert!(actor.answer(number, Answer::Accepted, second(3)));
    assert!(
        actor
            .ask(
                Command::Reset {
                    to: Position::Sequence(3)
                },
                second(4)
            )
            .unwrap()
    );
    assert!(actor.ask(Command::Resume, second(5)).unwrap());
    assert!(actor.read(vec![event(3, json!("c"))], second(6)));
    assert_eq!((actor.sequence(), actor.sent.len()), (Some(3), 2));
}

/// Found by simulation: whoever had a parked trigger tried again had it end like a run without steps.
#[test]
fn a_parked_trigger_that_is_retried_goes_on_with_what_waits() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data.n }' }");
    let same = |sequence| event(sequence, json!({ "n": 1 }));
    actor.read(vec![same(1), same(2)], second(1));
    assert_eq!(actor.sent.len(), 1);
    let reason = "broken".into();
    actor.try_apply(Input::Park { reason }, second(2)).unwrap();
    let number = actor.sent[0].0;
    actor.answer(number, Answer::Accepted, second(3));
    assert_eq!(actor.sent.len(), 1, "parked, it sends nothing");
    let retried = Input::Parked {
        step: "".into(),
        direction: None,
        action: ParkedAction::Retry,
        operation: Operation::default(),
    };
    assert!(actor.try_apply(retried, second(4)).unwrap());
    assert!(!actor.state.is_closed(), "it is there still");
    assert_eq!((actor.sent.len(), actor.trigger().held.len()), (2, 0));
}
