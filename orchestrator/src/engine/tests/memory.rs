//! What a replica keeps in memory, and for how long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_core::run::limits::MAX_WAITERS;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::{Act, World, done};
use crate::bus::header;
use crate::store::FOUND_OUTCOME_BYTES;

/// The deadlines of runs that have closed wake nobody.
#[tokio::test(start_paused = true)]
async fn a_run_that_has_closed_is_not_loaded_again() {
    let mut world = World::new(70).await;
    let replica = world.replica("r0");
    world.work(honest());
    for n in 0..100 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("closed", |world| world.closed() == 100).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(replica.line.loads.load(Ordering::SeqCst), 0);
    assert_eq!(super::live(), 0);
    world.quiet().await;
    replica.stop().await;
}

/// A closed run is loaded for a late result, and leaves with it, whether that is news or a repeat.
#[tokio::test(start_paused = true)]
async fn a_closed_run_leaves_with_its_late_result() {
    let mut world = World::new(71).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let task = world.bus.pull_tasks("default", "orders", 1).remove(0);
    world.verb("o-1", "terminate", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    let text = |name| header(&task.headers, name).unwrap().to_owned();
    let run = world.rows()[0].run_id;
    for _ in 0..2 {
        world
            .publish(&text(names::REPLY), &[(names::TOKEN, &text(names::TOKEN))], json!(1))
            .await;
        world.quiet().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(super::live(), 0);
    }
    let events = world.events(run).await;
    let late = |event: &&Event| matches!(event, Event::LateResult(_));
    assert_eq!(events.iter().filter(late).count(), 1);
    replica.stop().await;
}

/// A run that had to leave the memory is woken all the same.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_evicted_keeps_its_deadline() {
    let mut world = World::new(72).await;
    world.config.live_runs = 1;
    let replica = world.replica("r0");
    for n in 0..10 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 10)
        .await;
    for task in world.bus.pull_tasks("default", "orders", 10) {
        world.bus.acknowledge(&task);
    }
    world.work(honest());
    // Start-to-close after the delivery was found out, five seconds each.
    world
        .within(Duration::from_secs(12), "closed", |world| world.closed() == 10)
        .await;
    world.quiet().await;
    replica.stop().await;
}

/// As many may wait for a run as its end can answer without delay; who comes later is told so.
#[tokio::test(start_paused = true)]
async fn callers_that_wait_for_one_run_are_bounded() {
    let mut world = World::new(75).await;
    let replica = world.replica("r0");
    let mut inbox = world.bus.subscribe("_INBOX.caller.*");
    world.start("o-1", &[]).await;
    for n in 0..=MAX_WAITERS {
        let headers = [
            (names::ID_CONFLICT, "use_existing"),
            (names::REPLY_TO, &format!("_INBOX.caller.{n}")),
            (names::REPLY_ON, "closed"),
        ];
        world.start("o-1", &headers).await;
    }
    let refused = world.answer(&mut inbox).await;
    assert_eq!(refused.error.map(|error| error.code).as_deref(), Some("KN0246"));
    world.work(honest());
    for _ in 0..MAX_WAITERS {
        let answer = world.answer(&mut inbox).await;
        assert_eq!((answer.stage, answer.output.is_some()), (AnswerStage::Closed, true));
    }
    world.quiet().await;
    replica.stop().await;
}

/// A look-up of many ids leaves long outcomes where they are; a start that is repeated hears of its run's end all the same.
#[tokio::test(start_paused = true)]
async fn a_repeated_start_is_answered_with_a_long_outcome() {
    let mut world = World::new(76).await;
    let replica = world.replica("r0");
    let long = "x".repeat(2 * FOUND_OUTCOME_BYTES);
    let output = json!(long);
    world.work(Arc::new(move |_| Act {
        output: Some(output.clone()),
        ..done()
    }));
    let headers = [(names::REQUEST_ID, "once")];
    world.start("o-1", &headers).await;
    world.until("closed", |world| world.closed() == 1).await;
    replica.stop().await;
    // One that has nothing in memory.
    let replica = world.replica("r1");
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    for on in ["closed", "started"] {
        let headers = [
            (names::REQUEST_ID, "once"),
            (names::REPLY_TO, "_INBOX.caller"),
            (names::REPLY_ON, on),
        ];
        world.start("o-1", &headers).await;
        let answer = world.answer(&mut inbox).await;
        assert_eq!(answer.output, Some(json!({ "payment": long })), "{on}");
    }
    world.quiet().await;
    replica.stop().await;
}

/// What is forwarded lies with its commit: of however many that wait, few are read at a time.
#[tokio::test(start_paused = true)]
async fn messages_that_are_offered_again_are_read_a_few_at_a_time() {
    let mut world = World::new(133).await;
    world.config.batch_inputs = 4;
    *world.weather.loses_subject.lock().unwrap() = Some("knarr.run.");
    let replica = world.replica("r0");
    world.work(honest());
    let to = subject::unkeyed_start("default", "order").unwrap();
    let large = "x".repeat(30_000);
    for n in 0..200 {
        let input = json!({ "order": format!("o-{n}"), "large": large });
        world.publish(&to, &[], input).await;
    }
    world
        .until("all are owed", |world| world.store.dump(|_| 0).commits.len() >= 50)
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    *world.weather.loses_subject.lock().unwrap() = None;
    world.until("closed", |world| world.closed() == 200).await;
    world.quiet().await;
    let most = replica.line.most_owed.load(Ordering::SeqCst);
    assert!((1..2 << 20).contains(&most), "{most} bytes at once");
    replica.stop().await;
}
