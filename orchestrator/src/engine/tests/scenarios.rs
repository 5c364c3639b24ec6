//! One fault at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::scripts::{by_log, honest, out_of_stock, unknown_payment};
use super::world::{Act, World, done, failed};
use crate::store::memory::CommitFault;

#[tokio::test(start_paused = true)]
async fn an_order_ends_as_it_must() {
    for (script, status) in [
        (honest(), "completed"),
        (out_of_stock(), "compensated"),
        (unknown_payment(), "compensated"),
        (by_log(honest()), "completed"),
        (by_log(out_of_stock()), "compensated"),
    ] {
        let mut world = World::new(1).await;
        let replica = world.replica("r0");
        world.work(script);
        world.start("o-1", &[]).await;
        world.until("closed", |world| world.closed() == 1).await;
        world.quiet().await;
        assert_eq!(world.statuses()["o-1"], status);
        replica.stop().await;
    }
}

/// A commit is lost, before or after its effect, at every number it can have.
#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_changes_nothing_but_time() {
    for fault in [CommitFault::LostBefore, CommitFault::LostAfter, CommitFault::Refused] {
        for script in [honest(), out_of_stock()] {
            for lost in 1..14 {
                let mut world = World::new(lost).await;
                let replica = world.replica("r0");
                world.work(Arc::clone(&script));
                let line = Arc::clone(&replica.line);
                let store = world.store.clone();
                tokio::spawn(async move {
                    while line.commits.load(Ordering::SeqCst) < lost - 1 {
                        tokio::task::yield_now().await;
                        tokio::time::sleep(Duration::from_micros(100)).await;
                    }
                    store.fail_next_commit(fault);
                });
                for n in 0..3 {
                    world.start(&format!("o-{n}"), &[]).await;
                }
                // A batch of one input that is refused names its culprit, which is set aside.
                world
                    .until("closed, or set aside", |world| {
                        let parked = world.statuses().values().filter(|status| *status == "parked").count();
                        let unborn = 3 - world.rows().len().min(3);
                        let aside = parked + unborn.min(world.bus.dead_letters().len());
                        world.closed() + aside == 3 && aside <= usize::from(fault == CommitFault::Refused)
                    })
                    .await;
                world.quiet().await;
                replica.stop().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_is_recreated_or_rolled_back() {
    for recreated in [true, false] {
        let mut world = World::new(10).await;
        let replica = world.replica("r0");
        world.work(by_log(Arc::new(|_| Act {
            takes_ms: 300,
            ..done()
        })));
        let copy = world.bus.copy_log();
        for n in 0..4 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world.until("started", |world| world.rows().len() == 4).await;
        if recreated {
            world.bus.lose_log();
        } else {
            world.bus.restore_log(&copy);
        }
        world.start("o-4", &[]).await;
        world.until("closed", |world| world.closed() == 5).await;
        world.quiet().await;
        replica.stop().await;
    }
}

/// What was read and not yet applied when the log was lost is in memory, and takes effect.
#[tokio::test(start_paused = true)]
async fn what_was_read_of_a_lost_log_is_not_dropped() {
    let mut world = World::new(11).await;
    world.weather.latency_ms.store(50, Ordering::SeqCst);
    let replica = world.replica("r0");
    world.work(honest());
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..10 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.bus.lose_log();
    world.until("closed", |world| world.closed() == 10).await;
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_comes_back() {
    let mut world = World::new(12).await;
    let replica = world.replica("r0");
    world.work(honest());
    for n in 0..5 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    tokio::time::sleep(Duration::from_millis(3)).await;
    world.bus.set_connected(false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.bus.set_connected(true);
    world.until("closed", |world| world.closed() == 5).await;
    world.quiet().await;
    assert!(world.statuses().values().all(|status| status == "completed"));
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn little_memory_is_enough() {
    for (live_runs, batch_inputs, intake) in [(1, 1, 1), (1, 2, 4), (2, 3, 8), (3, 2_000, 8_192), (1, 2_000, 3)] {
        let mut world = World::new(14).await;
        world.config.live_runs = live_runs;
        world.config.batch_inputs = batch_inputs;
        world.config.intake = intake;
        world.config.snapshot_every = 2;
        world.weather.latency_ms.store(5, Ordering::SeqCst);
        let replica = world.replica("r0");
        world.work(Arc::new(|task| {
            let act = if task.workflow_id.ends_with('3') && task.activity == "reserve-inventory" {
                failed()
            } else {
                done()
            };
            Act {
                by_log: task.random.one_in(2),
                repeats: u32::from(task.random.one_in(4)),
                takes_ms: task.random.below(50),
                ..act
            }
        }));
        for n in 0..20 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world.until("closed", |world| world.closed() == 20).await;
        world.quiet().await;
        let letters = world.bus.dead_letters();
        assert!(letters.is_empty(), "{live_runs} {batch_inputs} {intake}: {letters:#?}");
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_order_is_undone() {
    let mut world = World::new(18).await;
    let replica = world.replica("r0");
    world.work(Arc::new(|task| Act {
        takes_ms: 2_000,
        outcome: (task.activity == "process-payment").then_some("cancelled"),
        effect: task.activity != "process-payment",
        ..done()
    }));
    world.start("o-1", &[]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.verb("o-1", "cancel", &[]).await;
    world.verb("o-1", "cancel", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    assert_eq!(world.statuses()["o-1"], "cancelled");
    world.verb("o-1", "cancel", &[]).await;
    world
        .until("refused", |world| world.bus.dead_letters().len() == 1)
        .await;
    replica.stop().await;
}
