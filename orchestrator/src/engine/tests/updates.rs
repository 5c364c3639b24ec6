//! Updates, over the engine: answered when they are accepted or done, done once whatever dies, and refused without a trace.

use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};

use super::scripts::honest;
use super::world::World;

const BASKET: &str = r#"
workflow: basket
version: 1
defaults: { queue: orders, start_to_close: 10s, retry: { maximum_attempts: 3 } }
steps:
  - open: { wait_for: { signal: order, timeout: 1h } }
updates:
  add:
    schema: { type: integer }
    validate: "'too many' if (vars.total | default(0)) + update > 9 else true"
    steps:
      - check: { activity: check, input: "${ update }", read_only: true }
      - sum: { set: { total: "${ vars.total | default(0) + update }" } }
    output: "${ vars.total }"
output: "${ vars.total | default(0) }"
"#;

async fn begun(seed: u64) -> World {
    let world = World::new(seed).await;
    world.register(BASKET).await;
    world
}

async fn start(world: &World) {
    let start = subject::start("default", "b-1", "basket").unwrap();
    world.publish(&start, &[], json!(null)).await;
}

/// Of every message, an inbox of its own.
async fn ask(world: &World, (name, id): (&str, &str), (on, to): (&str, &str), input: Value) {
    let verb = format!("update.{name} default");
    let mut headers = vec![(names::VERB, &*verb), (names::REQUEST_ID, id), (names::REPLY_ON, on)];
    if !to.is_empty() {
        headers.push((names::REPLY_TO, to));
    }
    let subject = subject::update("default", "b-1", name).unwrap();
    world.publish(&subject, &headers, input).await;
}

async fn answered(world: &World, update: (&str, &str), (on, to): (&str, &str), input: Value) -> Answer {
    let to = format!("_INBOX.{to}");
    let mut inbox = world.bus.subscribe(&to);
    ask(world, update, (on, &to), input).await;
    world.answer(&mut inbox).await
}

fn code(answer: &Answer) -> &str {
    answer.error.as_ref().map_or("", |error| &error.code)
}

#[tokio::test(start_paused = true)]
async fn it_is_done_once_and_answered_though_its_replica_dies() {
    let mut world = begun(221).await;
    let first = world.replica("r0");
    world.work(honest());
    start(&world).await;
    let accepted = answered(&world, ("add", "u-1"), ("accepted", "1"), json!(4)).await;
    assert!(
        matches!(accepted.stage, AnswerStage::Accepted | AnswerStage::Completed),
        "{accepted:?}"
    );
    first.kill();
    let second = world.replica("r1");
    // Who has not heard asks again.
    let done = answered(&world, ("add", "u-1"), ("completed", "2"), json!(4)).await;
    assert_eq!((done.stage, done.output), (AnswerStage::Completed, Some(json!(4))));
    let done = answered(&world, ("add", "u-2"), ("completed", "3"), json!(5)).await;
    assert_eq!((done.stage, done.output), (AnswerStage::Completed, Some(json!(9))));
    let order = subject::signal("default", "b-1", "order").unwrap();
    world.publish(&order, &[], json!(null)).await;
    world.until("closed", |world| world.closed() == 1).await;
    let done = answered(&world, ("add", "u-1"), ("completed", "4"), json!(4)).await;
    assert_eq!(
        (done.stage, done.output),
        (AnswerStage::Completed, Some(json!(4))),
        "also afterwards"
    );
    let late = answered(&world, ("add", "u-3"), ("completed", "5"), json!(1)).await;
    assert_eq!(code(&late), "KN0212");
    world.quiet().await;
    assert_eq!(world.rows_of("b-1")[0].outcome.as_deref(), Some("9"));
    second.stop().await;
}

const TRIED: &str = r#"
workflow: tried
version: 1
defaults: { queue: orders, start_to_close: 10s, retry: { maximum_attempts: 1 } }
retry: { initial_interval: 5s, maximum_attempts: 2 }
steps:
  - open: { wait_for: { signal: order, timeout: 10s } }
updates:
  add:
    steps: [ { held: { wait_for: { signal: go, timeout: 1h } } } ]
    output: "${ run.attempt }"
"#;

#[tokio::test(start_paused = true)]
async fn an_update_that_waits_goes_to_the_next_attempt_and_one_that_was_accepted_hears_of_the_end() {
    let mut world = World::new(223).await;
    world.register(TRIED).await;
    let first = world.replica("r0");
    let to = subject::start("default", "b-1", "tried").unwrap();
    world.publish(&to, &[], json!(null)).await;
    // Its handler waits as long as the attempt lasts.
    let accepted = answered(&world, ("add", "u-1"), ("accepted", "1"), json!(1)).await;
    assert_eq!(accepted.stage, AnswerStage::Accepted);
    let failed = answered(&world, ("add", "u-1"), ("completed", "2"), json!(1)).await;
    assert_eq!((failed.stage, failed.output), (AnswerStage::Completed, None));
    assert_eq!(failed.failure.expect("the attempt failed").error_type, "timeout");
    world
        .until("the next attempt", |world| world.rows_of("b-1").len() == 2)
        .await;
    let mut inbox = world.bus.subscribe("_INBOX.3");
    ask(&world, ("add", "u-2"), ("completed", "_INBOX.3"), json!(1)).await;
    // Who asks for the one before is told where it was.
    let before = answered(&world, ("add", "u-1"), ("completed", "4"), json!(1)).await;
    assert_eq!((before.stage, code(&before)), (AnswerStage::Refused, "KN0289"));
    first.kill();
    let second = world.replica("r1");
    for signal in ["go", "order"] {
        let to = subject::signal("default", "b-1", signal).unwrap();
        world.publish(&to, &[], json!(null)).await;
    }
    let done = world.answer(&mut inbox).await;
    assert_eq!((done.stage, done.output), (AnswerStage::Completed, Some(json!(2))));
    world.until("closed", |world| world.closed() == 2).await;
    world.quiet().await;
    assert_eq!(world.rows_of("b-1")[1].status, "completed");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_refused_leaves_no_trace_and_its_caller_hears_why() {
    let mut world = begun(222).await;
    let replica = world.replica("r0");
    world.work(honest());
    start(&world).await;
    world.until("a run", |world| !world.rows_of("b-1").is_empty()).await;
    for (n, name, input, refusal) in [
        ("1", "add", json!("four"), "KN0286"),
        ("2", "add", json!(10), "KN0287"),
        ("3", "sub", json!(1), "KN0285"),
    ] {
        let refused = answered(&world, (name, "u-1"), ("completed", n), input).await;
        assert_eq!(
            (refused.stage, code(&refused)),
            (AnswerStage::Refused, refusal),
            "{name}"
        );
    }
    let refused = answered(&world, ("add", "u-1"), ("closed", "4"), json!(1)).await;
    assert_eq!(refused.stage, AnswerStage::Refused);
    assert!(world.bus.dead_letters().is_empty());
    // Where nobody hears it, it is kept.
    ask(&world, ("add", "u-1"), ("completed", ""), json!(10)).await;
    let done = answered(&world, ("add", "u-1"), ("completed", "5"), json!(1)).await;
    assert_eq!(done.output, Some(json!(1)));
    world.quiet().await;
    let letters = world.bus.dead_letters();
    let codes: Vec<_> = letters
        .iter()
        .map(|letter| crate::bus::header(&letter.headers, names::ERROR_CODE).unwrap_or_default())
        .collect();
    assert_eq!(codes, ["KN0287"]);
    replica.stop().await;
}
