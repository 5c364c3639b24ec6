//! Replicas that die, leave, and share partitions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_schemas::body::AnswerStage;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::{honest, out_of_stock};
use super::world::{Act, World, done};
use crate::store::memory::CommitFault;

/// A replica dies at each of its calls in turn, and another takes over (or it comes back under its own name).
#[tokio::test(start_paused = true)]
async fn a_replica_that_dies_anywhere_is_taken_over() {
    for successor in ["r0", "r1"] {
        for script in [honest(), out_of_stock()] {
            let mut crossing = 1;
            loop {
                let mut world = World::new(crossing).await;
                world.weather.latency_ms.store(2, Ordering::SeqCst);
                let mut inbox = world.bus.subscribe("_INBOX.caller");
                let first = world.replica_dying_at("r0", crossing);
                world.work(Arc::clone(&script));
                world
                    .start(
                        "o-1",
                        &[(names::REPLY_TO, "_INBOX.caller"), (names::REPLY_ON, "closed")],
                    )
                    .await;
                world.start("o-2", &[]).await;
                let unkeyed = subject::unkeyed_start("default", "order").unwrap();
                world.publish(&unkeyed, &[], json!({ "order": "o-3" })).await;
                // It may still die after the last run has closed, with something owed.
                let done = |world: &World| world.closed() == 3 && world.is_quiet();
                world
                    .until("done or dead", |world| done(world) || first.has_ended())
                    .await;
                let died = first.has_ended();
                let second = world.replica(successor).checked(died);
                world.until("closed", |world| world.closed() == 3).await;
                world.quiet().await;
                let answer = world.answer(&mut inbox).await;
                assert_eq!(answer.stage, AnswerStage::Closed, "crossing {crossing}");
                assert_eq!(world.rows().len(), 3, "crossing {crossing}");
                if let Some(second) = second {
                    second.stop().await;
                }
                if !died {
                    first.kill();
                    break;
                }
                crossing += 1;
            }
            assert!(crossing > 20);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_are_shared_and_handed_over_under_load() {
    for seed in 1..6 {
        let mut world = World::new(seed).await;
        world.weather.latency_ms.store(20, Ordering::SeqCst);
        let first = world.replica("r0");
        world.work(Arc::new(|task| Act {
            takes_ms: task.random.below(400),
            ..done()
        }));
        let mut second = None;
        for n in 0..60 {
            world.start(&format!("o-{n}"), &[]).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            if n == 20 {
                second = Some(world.replica("r1"));
            }
        }
        world.until("closed", |world| world.closed() == 60).await;
        world.quiet().await;
        first.stop().await;
        world.start("o-60", &[]).await;
        world.until("closed", |world| world.closed() == 61).await;
        world.quiet().await;
        second.unwrap().stop().await;
    }
}

/// A replica that is never without a commit under way gives partitions back all the same.
#[tokio::test(start_paused = true)]
async fn a_replica_that_always_commits_gives_partitions_back() {
    let mut world = World::new(130).await;
    world.weather.commit_ms.store(100, Ordering::SeqCst);
    let first = world.replica("r0");
    world.work(honest());
    let mut second = None;
    let starts = 1_000;
    for n in 0..starts {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        if n == 100 {
            second = Some(world.replica("r1"));
        }
    }
    let second = second.unwrap();
    assert!(second.line.commits.load(Ordering::SeqCst) > 0, "it has nothing to do");
    world.until("closed", |world| world.closed() == starts).await;
    world.quiet().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_task_survives_the_handover_of_its_partition() {
    let mut world = World::new(13).await;
    world.weather.latency_ms.store(30, Ordering::SeqCst);
    let first = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stream = subject::task_stream("default").unwrap();
    world.bus.set_full(&stream, true);
    world.work(honest());
    let second = world.replica("r1");
    for n in 0..100 {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.bus.set_full(&stream, false);
    world.until("closed", |world| world.closed() == 100).await;
    world.quiet().await;
    first.stop().await;
    second.stop().await;
}

/// A reader that could not be opened and was superseded must not come back and replace its successor.
#[tokio::test(start_paused = true)]
async fn readers_that_opened_late_do_not_make_a_partition_deaf() {
    for seed in 1..12 {
        let mut world = World::new(seed).await;
        world.weather.fail_read.store(2, Ordering::SeqCst);
        world.weather.latency_ms.store(10, Ordering::SeqCst);
        let replica = world.replica("r0");
        world.work(honest());
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(30 + seed * 40)).await;
            world.store.fail_next_commit(CommitFault::LostBefore);
            world.start(&format!("o-{}", world.random.next()), &[]).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.weather.fail_read.store(0, Ordering::SeqCst);
        for n in 0..12 {
            world.start(&format!("p-{n}"), &[]).await;
        }
        world
            .within(Duration::from_secs(60), "closed", |world| world.closed() == 16)
            .await;
        world.quiet().await;
        replica.stop().await;
    }
}

/// Renewals and the end do not wait for a pause in what comes in.
#[tokio::test(start_paused = true)]
async fn a_replica_under_constant_load_renews_its_lease_and_can_be_stopped() {
    let mut world = World::new(20).await;
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.weather.latency_ms.store(1, Ordering::SeqCst);
    let line = Arc::clone(&replica.line);
    let before = line.keeps.load(Ordering::SeqCst);
    let bus = world.bus.clone();
    let flood = tokio::spawn(async move {
        loop {
            // Beats of nobody: refused in memory, without a commit.
            for partition in 0..3 {
                bus.send_direct(
                    &format!("knarr.direct.default.{partition}.beat"),
                    Vec::new(),
                    Default::default(),
                    None,
                );
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_micros(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept = line.keeps.load(Ordering::SeqCst) - before;
    assert!(kept >= 4, "{kept} renewals in three seconds");
    replica.stop().await;
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_store_is_gone_can_be_stopped() {
    let mut world = World::new(21).await;
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.store.set_available(false);
    world.start("o-1", &[]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_replica_owes_nothing() {
    let mut world = World::new(22).await;
    world.weather.latency_ms.store(10, Ordering::SeqCst);
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..20 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("started", |world| !world.rows().is_empty()).await;
    replica.stop().await;
    let dump = world.store.dump(|_| 0);
    assert!(dump.commits.is_empty(), "{:?}", dump.commits);
    assert!(dump.partitions.iter().all(|row| row.owner.is_none()));
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_does_not_spin() {
    let mut world = World::new(23).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let before = super::turns();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let turns = super::turns() - before;
    assert!(turns < 2_000, "{turns} turns in 100 s");
    replica.stop().await;
}
