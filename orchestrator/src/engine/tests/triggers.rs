//! Triggers: each event counts once, whatever happens to those who read them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use knarr_core::definition;
use knarr_core::ids::RunId;
use knarr_core::run::Event;
use knarr_core::run::trigger::workflow_id;
use knarr_core::trigger::Trigger;
use knarr_core::trigger::source::Loss;
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};

use super::world::World;
use crate::bus::Headers;
use crate::store::memory::CommitFault;
use crate::store::{RunRow, Store};

/// What it is started with, and how many signals have come.
const COUNTER: &str = r#"
workflow: counter
version: 1
triggers:
  opened:
    stream: ORDERS
    subject: "orders.*.opened"
    filter: event.data.wanted
    id: "${ event.data.id }"
    input: { n: "${ event.data.n }", subject: "${ event.subject }", sequence: "${ event.sequence }" }
  paid: { stream: ORDERS, subject: "orders.*.paid", id: "${ event.data.id }", signal: paid }
steps:
  - first: { wait_for: { signal: paid, timeout: 1h } }
  - second: { wait_for: { signal: paid, timeout: 1h } }
output: { input: "${ input }", paid: ["${ steps.first }", "${ steps.second }"] }
"#;

/// Says what a definition says of its triggers, as its registration does.
async fn define(world: &World, text: &str) {
    world.register(text).await;
    let plan = definition::read(text, &|_| Err(String::new())).unwrap().plan;
    for spec in &plan.triggers {
        let body = json!({ "ask": "define", "trigger": **spec.json(), "version": plan.version });
        let name = format!("{}-{}", spec.name, plan.version);
        let answer = ask(world, (plan.workflow.as_str(), &spec.name), &name, body).await;
        assert_eq!(answer.stage, AnswerStage::Accepted, "{answer:?}");
    }
}

fn subject_of((workflow, name): (&str, &str)) -> String {
    subject::run_verb("default", workflow_id(workflow, name).as_str(), "trigger").unwrap()
}

async fn ask(world: &World, of: (&str, &str), request: &str, body: Value) -> Answer {
    let inbox_name = format!("_INBOX.{request}");
    let mut inbox = world.bus.subscribe(&inbox_name);
    let headers = [
        (names::VERB, "trigger default"),
        (names::REPLY_TO, inbox_name.as_str()),
        (names::REQUEST_ID, request),
    ];
    world.publish(&subject_of(of), &headers, body).await;
    world.answer(&mut inbox).await
}

fn store(world: &World, subject: &str, body: &Value) -> u64 {
    let body = Bytes::from(body.to_string());
    world.bus.store_event("ORDERS", subject, Headers::new(), body)
}

async fn row_of(world: &World, workflow: &str, name: &str) -> RunRow {
    let rows = world.store.list_triggers(&"default".into(), None, 100).await.unwrap();
    let id = workflow_id(workflow, name);
    rows.into_iter().find(|row| row.workflow_id == id).unwrap()
}

async fn trigger(world: &World, workflow: &str, name: &str) -> Trigger {
    let row = row_of(world, workflow, name).await;
    let stored = world.store.load_runs(&[row.run_id]).await.unwrap().remove(0);
    let state = super::super::fetch::rebuild(&stored).unwrap();
    state.trigger().unwrap().clone()
}

fn counters(world: &World) -> BTreeMap<String, Vec<RunRow>> {
    let mut counters: BTreeMap<String, Vec<RunRow>> = BTreeMap::new();
    for row in world.rows() {
        counters.entry(row.workflow_id.to_string()).or_default().push(row);
    }
    counters
}

async fn signals(world: &World, run: RunId) -> usize {
    let events = world.events(run).await;
    events
        .iter()
        .filter(|event| matches!(event, Event::SignalReceived(_)))
        .count()
}

/// `count` orders, every third of which is not wanted; each is opened, and paid twice.
fn orders(world: &World, from: u32, count: u32) {
    for n in from..from + count {
        let id = format!("order-{n}");
        let opened = json!({ "id": id, "n": n, "wanted": n % 3 != 0 });
        store(world, &format!("orders.{n}.opened"), &opened);
        if n % 3 != 0 {
            for part in 1..=2 {
                store(world, &format!("orders.{n}.paid"), &json!({ "id": id, "part": part }));
            }
        }
    }
}

/// Every wanted order has one run, which has taken its two signals in order.
async fn assert_each_once(world: &World, count: u32) {
    let counters = counters(world);
    let wanted = (0..count).filter(|n| n % 3 != 0);
    let ids: Vec<String> = wanted.map(|n| format!("order-{n}")).collect();
    assert_eq!(counters.len(), ids.len(), "seed {}", world.seed);
    for id in ids {
        let rows = &counters[&id];
        assert_eq!((rows.len(), rows[0].status.as_str()), (1, "completed"), "{id}");
        assert_eq!(signals(world, rows[0].run_id).await, 2, "{id}");
        let state = world.state(rows[0].run_id).await;
        let output = serde_json::to_value(state.output()).unwrap();
        let parts: Vec<&Value> = output["paid"]
            .as_array()
            .unwrap()
            .iter()
            .map(|paid| &paid["part"])
            .collect();
        assert_eq!(parts, [&json!(1), &json!(2)], "{id}: {output}");
    }
    assert_eq!(world.bus.dead_letters().len(), 0);
}

async fn settled(world: &World, count: u32) {
    let wanted = (0..count).filter(|n| n % 3 != 0).count();
    world
        .until("every event has counted", |world| {
            let rows = world.rows();
            rows.len() >= wanted && rows.iter().all(|row| row.closed_at.is_some())
        })
        .await;
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn each_event_counts_once_whenever_a_replica_dies() {
    for (seed, dies_at) in (0..16).map(|n| (2_000 + n, 40 + 11 * n)) {
        let mut world = World::new(seed).await;
        world.bus.make_stream("ORDERS");
        let first = world.replica("r0");
        define(&world, COUNTER).await;
        first.stop().await;
        let replica = world.replica_dying_at("r1", dies_at);
        orders(&world, 0, 30);
        tokio::time::sleep(Duration::from_secs(2)).await;
        orders(&world, 30, 30);
        let heir = world.replica("r2");
        tokio::time::sleep(Duration::from_secs(4)).await;
        replica.kill();
        orders(&world, 60, 30);
        settled(&world, 90).await;
        assert_each_once(&world, 90).await;
        let opened = trigger(&world, "counter", "opened").await;
        let paid = trigger(&world, "counter", "paid").await;
        assert_eq!((opened.counts.started, opened.counts.taken), (60, 60), "seed {seed}");
        assert_eq!((paid.counts.signalled, paid.counts.taken), (120, 120), "seed {seed}");
        heir.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_outcome_is_unknown_counts_no_event_twice() {
    for fault in [CommitFault::LostBefore, CommitFault::LostAfter] {
        let mut world = World::new(2_100).await;
        world.bus.make_stream("ORDERS");
        let replica = world.replica("r0");
        define(&world, COUNTER).await;
        for n in 0..10 {
            world.store.fail_next_commit(fault);
            orders(&world, n * 6, 6);
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        settled(&world, 60).await;
        assert_each_once(&world, 60).await;
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_or_meant_goes_to_the_dead_letters_and_the_place_moves_on() {
    let mut world = World::new(2_200).await;
    world.bus.make_stream("ORDERS");
    let replica = world.replica("r0");
    define(&world, COUNTER).await;
    let raw = |body: &'static [u8]| {
        let headers = vec![("Shop".into(), "north".to_owned())];
        world
            .bus
            .store_event("ORDERS", "orders.1.opened", headers, Bytes::from_static(body))
    };
    let no_json = raw(b"{ no json");
    let no_filter = raw(br#"{ "id": "x" }"#);
    let no_id = raw(br#"{ "wanted": true, "n": 1 }"#);
    let bad_id = raw(br#"{ "wanted": true, "n": 1, "id": "$trigger/a/b" }"#);
    let zero = raw(br#"{ "wanted": true, "n": 1, "id": "a\u0000b" }"#);
    store(
        &world,
        "orders.2.opened",
        &json!({ "id": "order-2", "n": 2, "wanted": true }),
    );
    let twice = store(
        &world,
        "orders.2.opened",
        &json!({ "id": "order-2", "n": 3, "wanted": true }),
    );
    let nobody = store(&world, "orders.9.paid", &json!({ "id": "order-9", "part": 1 }));
    world
        .until("all is told", |world| world.bus.dead_letters().len() == 7)
        .await;
    world.quiet().await;
    let letters = world.bus.dead_letters();
    let told: BTreeMap<u64, (String, String)> = letters
        .iter()
        .map(|letter| {
            let header = |name: &str| crate::bus::header(&letter.headers, name).unwrap().to_owned();
            assert!(header(names::TRIGGER).starts_with("counter/"));
            assert_eq!(header(names::ORIGINAL_STREAM), "ORDERS");
            let body = String::from_utf8(letter.payload.to_vec()).unwrap();
            let code = header(names::ERROR_CODE);
            (header(names::ORIGINAL_SEQUENCE).parse().unwrap(), (code, body))
        })
        .collect();
    assert_eq!(told[&no_json], ("KN0271".to_owned(), "{ no json".to_owned()));
    assert_eq!(told[&no_filter].0, "KN0272");
    assert_eq!(told[&no_id].0, "KN0272");
    assert_eq!(told[&bad_id].0, "KN0272");
    assert_eq!(told[&zero].0, "KN0271");
    assert_eq!(told[&twice].0, "KN0273");
    let input = json!({ "n": 3, "subject": "orders.2.opened", "sequence": twice });
    assert_eq!(serde_json::from_str::<Value>(&told[&twice].1).unwrap(), input);
    assert_eq!(told[&nobody].0, "KN0273");
    let original = letters.iter().find(|letter| letter.payload == "{ no json").unwrap();
    assert_eq!(crate::bus::header(&original.headers, "Shop"), Some("north"));
    let opened = trigger(&world, "counter", "opened").await;
    assert_eq!((opened.counts.refused, opened.counts.started), (6, 1));
    assert_eq!(opened.place().unwrap().sequence, twice);
    assert_eq!(opened.past.len(), 6);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_comes_before_its_run_waits_for_it() {
    let mut world = World::new(2_300).await;
    world.bus.make_stream("ORDERS");
    let replica = world.replica("r0");
    define(&world, COUNTER).await;
    for part in 1..=2 {
        store(&world, "orders.1.paid", &json!({ "id": "order-1", "part": part }));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    store(
        &world,
        "orders.1.opened",
        &json!({ "id": "order-1", "n": 1, "wanted": true }),
    );
    settled(&world, 2).await;
    assert_each_once(&world, 2).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_missing_recreated_or_purged_is_told_and_read_on() {
    let mut world = World::new(2_400).await;
    let replica = world.replica("r0");
    define(&world, COUNTER).await;
    world
        .until("it is told", |world| {
            let dump = world.store.dump(|_| 0);
            let text = format!("{dump:?}");
            text.contains("there is no stream `ORDERS`")
        })
        .await;
    world.bus.make_stream("ORDERS");
    orders(&world, 0, 3);
    settled(&world, 3).await;
    let before = trigger(&world, "counter", "opened").await;
    assert_eq!((before.trouble.clone(), before.counts.started), (None, 2));
    // Another stream of that name, whose sequences begin again.
    world.bus.make_stream("ORDERS");
    orders(&world, 3, 3);
    settled(&world, 6).await;
    let after = trigger(&world, "counter", "opened").await;
    assert_eq!(after.counts.gaps, 1);
    assert_eq!(after.gaps[0].1.why, Loss::Recreated);
    assert_ne!(after.place().unwrap().stream, before.place().unwrap().stream);
    replica.stop().await;
    // What is dropped while nobody reads is lost, and told.
    orders(&world, 6, 3);
    let last = store(&world, "orders.0.other", &json!({}));
    world.bus.purge_stream("ORDERS", last);
    orders(&world, 9, 3);
    let replica = world.replica("r1");
    world
        .until("it goes on", |world| counters(world).contains_key("order-11"))
        .await;
    world.quiet().await;
    let purged = trigger(&world, "counter", "opened").await;
    assert_eq!(purged.gaps.last().unwrap().1.why, Loss::Purged);
    assert!(!counters(&world).contains_key("order-7"));
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn operators_pause_resume_and_reset_and_a_newer_version_keeps_the_place() {
    let mut world = World::new(2_500).await;
    world.bus.make_stream("ORDERS");
    let replica = world.replica("r0");
    let text = |version: u32, filter: &str| {
        format!(
            "workflow: once\nversion: {version}\ntriggers:\n  all: {{ stream: ORDERS, subject: 'o.>', {filter} }}\n\
             steps: [ {{ note: {{ set: {{ x: 1 }} }} }} ]\n"
        )
    };
    define(&world, &text(1, "")).await;
    let started = |world: &World| world.rows().len();
    for n in 0..3 {
        store(&world, "o.a", &json!({ "n": n }));
    }
    world.until("three are there", |world| started(world) == 3).await;
    let of = ("once", "all");
    let paused = ask(&world, of, "p", json!({ "ask": "pause" })).await;
    assert_eq!(paused.stage, AnswerStage::Accepted);
    for n in 3..6 {
        store(&world, "o.a", &json!({ "n": n }));
    }
    world.quiet().await;
    assert_eq!(started(&world), 3);
    // A repeat of a request changes nothing.
    for _ in 0..2 {
        ask(&world, of, "r", json!({ "ask": "resume" })).await;
    }
    world.until("six are there", |world| started(world) == 6).await;
    define(&world, &text(2, "filter: event.data.n != 7")).await;
    // An older version says nothing any more.
    define(&world, &text(1, "")).await;
    for n in 6..9 {
        store(&world, "o.a", &json!({ "n": n }));
    }
    world.until("eight are there", |world| started(world) == 8).await;
    ask(&world, of, "s", json!({ "ask": "reset", "to": { "sequence": 8 } })).await;
    world
        .until("the last counts again", |world| started(world) == 8 + 1)
        .await;
    ask(&world, of, "a", json!({ "ask": "reset", "to": "all" })).await;
    world.until("all count again", |world| started(world) == 9 + 8).await;
    ask(&world, of, "n", json!({ "ask": "reset", "to": "new" })).await;
    world.quiet().await;
    store(&world, "o.a", &json!({ "n": 9 }));
    world.until("what is new counts", |world| started(world) == 18).await;
    // Deleted, and asked again.
    ask(&world, of, "d", json!({ "ask": "define", "version": 3 })).await;
    let gone = ask(&world, of, "e", json!({ "ask": "pause" })).await;
    assert_eq!(gone.error.unwrap().code, "KN0274");
    replica.stop().await;
}

/// Each time anew: what was resumed may break over the next event as well.
#[tokio::test(start_paused = true)]
async fn a_trigger_that_an_event_breaks_is_parked_however_often() {
    let mut world = World::new(2_501).await;
    world.bus.make_stream("ORDERS");
    let replica = world.replica("r0");
    define(
        &world,
        "workflow: once\nversion: 1\ntriggers:\n  all: { stream: ORDERS, subject: 'o.>' }\n\
         steps: [ { note: { set: { x: 1 } } } ]\n",
    )
    .await;
    for round in 1..=3_usize {
        super::EVENTS_PANIC.set(true);
        store(&world, "o.a", &json!({ "n": round }));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while row_of(&world, "once", "all").await.status != "parked" {
            assert!(
                tokio::time::Instant::now() < deadline,
                "round {round}: it stands still in silence"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(world.rows().len(), round - 1);
        super::EVENTS_PANIC.set(false);
        ask(
            &world,
            ("once", "all"),
            &format!("r{round}"),
            json!({ "ask": "resume" }),
        )
        .await;
        world
            .until("the event counts", |world| world.rows().len() == round)
            .await;
    }
    world.quiet().await;
    replica.stop().await;
}

const GATHERING: &str = r#"
workflow: gather
version: 1
triggers:
  quiet: { stream: ORDERS, subject: "quiet.>", id: "${ event.data.id }", debounce: { quiet: 2s, max_wait: 5s } }
  list: { stream: ORDERS, subject: "list.>", id: "${ event.data.id }", batch: { max: 3, wait: 4s } }
steps: [ { note: { set: { x: 1 } } } ]
output: "${ input }"
"#;

#[tokio::test(start_paused = true)]
async fn events_are_gathered_over_a_takeover() {
    for dies in [false, true] {
        let mut world = World::new(2_600).await;
        world.bus.make_stream("ORDERS");
        let mut replica = world.replica("r0");
        define(&world, GATHERING).await;
        for n in 0..4 {
            store(&world, "quiet.a", &json!({ "id": "q", "n": n }));
            store(&world, "list.a", &json!({ "id": "l", "n": n }));
        }
        world
            .until("the first list counts", |world| counters(world).contains_key("l"))
            .await;
        if dies {
            replica.kill();
            replica = world.replica("r1");
        }
        world.until("all have counted", |world| world.rows().len() == 3).await;
        world.quiet().await;
        let mut outputs = Vec::new();
        for row in world.rows() {
            outputs.push((
                row.workflow_id.to_string(),
                serde_json::to_value(world.state(row.run_id).await.output()).unwrap(),
            ));
        }
        outputs.sort_by_key(|(id, output)| (id.clone(), std::cmp::Reverse(output.to_string().len())));
        let of = |n: u32| json!({ "id": "l", "n": n });
        assert_eq!(
            outputs,
            [
                ("l".to_owned(), json!([of(0), of(1), of(2)])),
                ("l".to_owned(), json!([of(3)])),
                ("q".to_owned(), json!({ "id": "q", "n": 3 })),
            ]
        );
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_no_stream_keeps_is_heard_while_somebody_listens() {
    let mut world = World::new(2_700).await;
    let replica = world.replica("r0");
    let text = "workflow: heard\nversion: 1\ntriggers: { any: { subject: 'bell.>' } }\n\
                steps: [ { note: { set: { x: 1 } } } ]\n";
    define(&world, text).await;
    world.quiet().await;
    for n in 0..5 {
        world.bus.say("bell.door", Bytes::from(json!({ "n": n }).to_string()));
    }
    world.until("all five count", |world| world.rows().len() == 5).await;
    world.quiet().await;
    let heard = trigger(&world, "heard", "any").await;
    assert_eq!((heard.counts.taken, heard.place()), (5, None));
    let refused = ask(&world, ("heard", "any"), "r", json!({ "ask": "reset", "to": "all" })).await;
    assert_eq!(refused.error.unwrap().code, "KN0275");
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_makes_a_trigger_while_an_older_replica_is_there() {
    let mut world = World::of_level(2_800, 2).await;
    let replica = world.replica("r0");
    let plan = definition::read(GATHERING, &|_| Err(String::new())).unwrap().plan;
    world
        .register("workflow: gather\nversion: 1\nsteps: [ { note: { wait: 1s } } ]\n")
        .await;
    let body = json!({ "ask": "define", "trigger": **plan.triggers[0].json(), "version": 1 });
    let refused = ask(&world, ("gather", "quiet"), "d", body).await;
    assert_eq!(refused.error.unwrap().code, "KN0258");
    // And nobody else has its workflow id.
    let to = subject::start("default", "$trigger/gather/quiet", "gather").unwrap();
    world.publish(&to, &[], json!({})).await;
    world
        .until("it is refused", |world| world.bus.dead_letters().len() == 2)
        .await;
    replica.stop().await;
}
