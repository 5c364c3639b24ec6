//! Runs that cannot be loaded at once do not stop their partition.

use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::RunId;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::header as names;
use serde_json::json;

use super::scripts::{by_log, honest};
use super::world::{Act, Replica, World, done};

/// What makes a run large for these tests.
const HUGE: u64 = 20_000;

/// A replica that keeps one run in memory, and `o-1` in its second step with a large output in its first: not in memory,
/// and what is to be loaded of it is withheld.
async fn withheld(world: &mut World) -> (Replica, RunId) {
    world.config.partitions = 1;
    world.config.live_runs = 1;
    world.config.huge_run_bytes = HUGE;
    world.work(by_log(Arc::new(|task| Act {
        output: (task.workflow_id == "o-1" && task.activity == "create-order").then(|| json!("x".repeat(30_000))),
        takes_ms: if task.workflow_id == "o-1" && task.activity == "process-payment" {
            2_000
        } else {
            0
        },
        ..done()
    })));
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world.until("in its second step", |world| size_of(world) > HUGE).await;
    let run = world.rows_of("o-1")[0].run_id;
    *world.weather.withholds.lock().unwrap() = Some(run);
    // Others push it out.
    for n in 10..13 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("the others closed", |world| world.closed() == 3).await;
    (replica, run)
}

fn size_of(world: &World) -> u64 {
    let dump = world.store.dump(|_| 0);
    dump.events.iter().map(|event| event.transition.body.len() as u64).sum()
}

fn deferred(world: &World) -> usize {
    world.store.dump(|_| 0).deferred.len()
}

#[tokio::test(start_paused = true)]
async fn a_huge_run_holds_up_nobody() {
    for slow in [false, true] {
        let mut world = World::new(90).await;
        let (replica, _) = withheld(&mut world).await;
        if slow {
            // It is not too large, and its look-up does not return.
            replica.stop().await;
            world.config.huge_run_bytes = u64::MAX;
            let _again = world.replica("r0");
            world.until("deferred", |world| deferred(world) == 1).await;
            // Nothing that has to be looked up gets through before the look-up returns.
            *world.weather.withholds.lock().unwrap() = None;
            world.until("closed", |world| world.closed() == 4).await;
            world.quiet().await;
            continue;
        }
        // The result of its payment comes, and its partition goes on behind it.
        world.until("deferred", |world| deferred(world) == 1).await;
        for n in 20..25 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world
            .within(Duration::from_secs(5), "the others closed", |world| world.closed() == 8)
            .await;
        assert_eq!(world.statuses()["o-1"], "running");
        *world.weather.withholds.lock().unwrap() = None;
        world.until("closed", |world| world.closed() == 9).await;
        world.quiet().await;
        assert_eq!(world.statuses()["o-1"], "completed");
        replica.stop().await;
    }
}

/// What waits behind a deferred input keeps its order: the start behind the terminate finds the id free.
#[tokio::test(start_paused = true)]
async fn what_comes_later_for_the_same_id_queues_behind() {
    let mut world = World::new(91).await;
    let (replica, first) = withheld(&mut world).await;
    let mut inbox = world.bus.subscribe("_INBOX.test");
    let reply = (names::REPLY_TO, "_INBOX.test");
    world.until("deferred", |world| deferred(world) == 1).await;
    world.verb("o-1", "terminate", &[reply]).await;
    world.start("o-1", &[reply]).await;
    world.start("o-1", &[reply]).await;
    world.until("all deferred", |world| deferred(world) == 4).await;
    *world.weather.withholds.lock().unwrap() = None;
    let stages = [
        world.answer(&mut inbox).await.stage,
        world.answer(&mut inbox).await.stage,
        world.answer(&mut inbox).await.stage,
    ];
    assert_eq!(
        stages,
        [AnswerStage::Accepted, AnswerStage::Started, AnswerStage::Refused]
    );
    world.until("closed", |world| world.closed() == 5).await;
    world.quiet().await;
    let rows = world.rows_of("o-1");
    assert_eq!((rows.len(), rows[0].run_id), (2, first));
    assert_eq!((&*rows[0].status, &*rows[1].status), ("terminated", "completed"));
    replica.stop().await;
}

/// Killed while inputs wait, by every way of dying: the next owner applies them first, once.
#[tokio::test(start_paused = true)]
async fn deferred_inputs_survive_their_replica() {
    for graceful in [false, true] {
        let mut world = World::new(92).await;
        let (replica, _) = withheld(&mut world).await;
        world.until("deferred", |world| deferred(world) == 1).await;
        if graceful {
            replica.stop().await;
        } else {
            replica.kill();
        }
        let heir = world.replica("r1");
        world.verb("o-1", "terminate", &[]).await;
        world.until("deferred behind it", |world| deferred(world) == 2).await;
        *world.weather.withholds.lock().unwrap() = None;
        world.until("closed", |world| world.closed() == 4).await;
        world.quiet().await;
        assert_eq!(world.statuses()["o-1"], "terminated");
        // The payment was taken before the end: its outcome stands in the history.
        let run = world.rows_of("o-1")[0].run_id;
        let events = world.events(run).await;
        let completed = events
            .iter()
            .filter(|event| matches!(event, knarr_core::run::Event::TaskCompleted { .. }))
            .count();
        assert_eq!(completed, 2);
        heir.stop().await;
    }
}

/// A timeout does not overtake a result that waits.
#[tokio::test(start_paused = true)]
async fn a_timeout_waits_for_what_was_deferred() {
    let mut world = World::new(93).await;
    let (replica, _) = withheld(&mut world).await;
    world.until("deferred", |world| deferred(world) == 1).await;
    // Beyond every timeout of the payment.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.statuses()["o-1"], "running");
    replica.kill();
    let heir = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(60)).await;
    *world.weather.withholds.lock().unwrap() = None;
    world.until("closed", |world| world.closed() == 4).await;
    world.quiet().await;
    assert_eq!(world.statuses()["o-1"], "completed");
    heir.stop().await;
}

/// An input that breaks core is set aside also when it was deferred.
#[tokio::test(start_paused = true)]
async fn a_deferred_input_that_breaks_core_is_set_aside() {
    let mut world = World::new(94).await;
    world.config.live_runs = 1;
    world.config.huge_run_bytes = 1;
    world.work(by_log(Arc::new(|task| {
        let panics = task.workflow_id == "o-1" && task.activity == "process-payment";
        Act {
            outcome: panics.then_some("failed"),
            error_type: panics.then_some("panic"),
            takes_ms: 500,
            ..done()
        }
    })));
    let replica = world.replica("r0");
    for n in 0..6 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("five closed, one parked", |world| {
            world.closed() == 5 && world.statuses()["o-1"] == "parked"
        })
        .await;
    world.quiet().await;
    assert_eq!(world.bus.dead_letters().len(), 1);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_run_may_be_huge() {
    let mut world = World::new(95).await;
    world.config.live_runs = 1;
    world.config.huge_run_bytes = 1;
    world.config.batch_inputs = 3;
    world.work(by_log(honest()));
    let replica = world.replica("r0");
    for n in 0..30 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("closed", |world| world.closed() == 30).await;
    world.quiet().await;
    replica.stop().await;
}
