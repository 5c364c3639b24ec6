//! Runs that speak to each other, wait and go on: children, signals, events, successors.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::{Act, World, done, failed};
use crate::bus::header;
use crate::store::memory::CommitFault;

const PARENT: &str = r#"
workflow: parent
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - tell: { emit: { subject: begun, body: { order: "${ input.order }" } } }
  - kid: { workflow: { name: order, id: "kid-${ input.order }", input: "${ input }" } }
  - last: { activity: last, no_undo: it is read }
output: "${ steps.kid }"
"#;

const LOOP: &str = r#"
workflow: loop
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - wait: { wait_for: { signal: go, timeout: 1h } }
  - work: { activity: work, no_undo: it is read }
  - more:
      if: "${ input.left > 0 }"
      continue_as_new: { left: "${ input.left - 1 }" }
output: "done"
"#;

const QUICK: &str = r#"
workflow: quick
version: 1
steps:
  - more:
      if: "${ input.left > 0 }"
      continue_as_new: { left: "${ input.left - 1 }" }
output: "done"
"#;

const KEEPER: &str = r#"
workflow: keeper
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - kid: { workflow: { name: loop, id: "'kid'", input: "${ input }" } }
  - last: { activity: last, no_undo: it is read }
output: "${ steps.kid }"
"#;

async fn start(world: &World, workflow: &str, id: &str, input: serde_json::Value) {
    let to = subject::start("default", id, workflow).unwrap();
    world.publish(&to, &[], input).await;
}

/// Whatever happens to the replica, a family ends together: completed, or undone in the child as well.
#[tokio::test(start_paused = true)]
async fn a_child_completes_for_its_parent_and_is_undone_with_it() {
    for (seed, undone) in [(120, false), (121, true)] {
        for dies_at in [0, 52, 72, 92, 112, 142, 172] {
            let mut world = World::new(seed).await;
            world.register(PARENT).await;
            world.work(Arc::new(move |task| match task.activity {
                "last" if undone => failed(),
                _ => done(),
            }));
            let replica = world.replica_dying_at("r0", dies_at);
            start(&world, "parent", "p-1", json!({ "order": 1 })).await;
            world
                .until("it is done, or dead", |world| {
                    world.statuses().len() == 2 && (world.closed() == 2 || replica.has_ended())
                })
                .await;
            let heir = world.replica("r1");
            let ends = if undone {
                ["compensated", "compensated"]
            } else {
                ["completed", "completed"]
            };
            world
                .until("both have ended", |world| {
                    let statuses = world.statuses();
                    ["p-1", "kid-1"].map(|id| statuses.get(id).map(String::as_str)) == ends.map(Some)
                })
                .await;
            world
                .until("settled", |world| world.rows().iter().all(|row| row.wake_at.is_none()))
                .await;
            world.quiet().await;
            // It was emitted, under one id however often.
            let events = world.bus.events();
            assert!(!events.is_empty());
            for event in &events {
                assert_eq!(event.subject, "knarr.event.default.parent.p-1.begun");
                assert_eq!(
                    header(&event.headers, names::CE_ID),
                    header(&events[0].headers, names::CE_ID)
                );
                assert_eq!(event.payload, events[0].payload);
            }
            heir.stop().await;
        }
    }
}

/// A run continues as new under its id, keeps what was signalled, and is never two.
#[tokio::test(start_paused = true)]
async fn a_run_continues_as_new_and_loses_no_signal() {
    for (fault, dies_at) in [
        (None, 0),
        (Some(CommitFault::LostBefore), 0),
        (Some(CommitFault::LostAfter), 0),
        (None, 57),
        (None, 72),
        (None, 87),
        (None, 102),
        (None, 132),
    ] {
        let mut world = World::new(122).await;
        world.register(LOOP).await;
        world.work(honest());
        let mut replica = world.replica_dying_at("r0", dies_at);
        start(&world, "loop", "l-1", json!({ "left": 3 })).await;
        let go = subject::signal("default", "l-1", "go").unwrap();
        for n in 0..4 {
            if let Some(fault) = fault {
                world.store.fail_next_commit(fault);
            }
            world.publish(&go, &[], json!(n)).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            if replica.has_ended() {
                replica = world.replica("r0");
            }
        }
        if replica.has_ended() {
            replica = world.replica("r0");
        }
        world
            .until("the last has completed", |world| {
                world.rows_of("l-1").iter().any(|row| row.status == "completed")
            })
            .await;
        world.quiet().await;
        let rows = world.rows_of("l-1");
        let statuses: Vec<&str> = rows.iter().map(|row| row.status.as_str()).collect();
        assert_eq!(
            statuses,
            ["continued_as_new", "continued_as_new", "continued_as_new", "completed"],
            "{fault:?} {dies_at}"
        );
        let mut taken = 0;
        for row in &rows {
            let events = world.events(row.run_id).await;
            taken += events
                .iter()
                .filter(|event| matches!(event, Event::TaskCompleted { .. }))
                .count();
        }
        assert_eq!((taken, world.bus.dead_letters().len()), (4, 0));
        replica.stop().await;
    }
}

/// Runs may continue in the very millisecond in which they have begun: the last one is the newest of its id all the same, and
/// who speaks to the id later does not wait for a successor that was there long ago.
#[tokio::test(start_paused = true)]
async fn an_id_whose_runs_have_continued_at_once_can_be_used_again() {
    let mut world = World::new(126).await;
    world.register(QUICK).await;
    let replica = world.replica("r0");
    let ids: Vec<String> = (0..8).map(|n| format!("q-{n}")).collect();
    for ended in 1..=2 {
        for id in &ids {
            start(&world, "quick", id, json!({ "left": 3 })).await;
        }
        world
            .until("all have completed", |world| {
                ids.iter().all(|id| {
                    let rows = world.rows_of(id);
                    rows.iter().filter(|row| row.status == "completed").count() == ended
                })
            })
            .await;
    }
    world.quiet().await;
    assert_eq!(world.closed(), 2 * 4 * ids.len());
    replica.stop().await;
}

/// Nobody speaks to the id any more, and whoever owned it dies before the successor is stored: the commit that owes it is still
/// there for the heir.
#[tokio::test(start_paused = true)]
async fn a_successor_is_owed_until_it_is_stored() {
    let mut world = World::new(128).await;
    world.register(QUICK).await;
    // What fails at once and for ever would let no time pass.
    world.weather.latency_ms.store(5, Ordering::SeqCst);
    *world.weather.refuses.lock().unwrap() = Some("\"continues\":".to_owned());
    let replica = world.replica("r0");
    start(&world, "quick", "q-1", json!({ "left": 1 })).await;
    world
        .until("it has continued", |world| {
            world.rows_of("q-1").iter().any(|row| row.status == "continued_as_new")
        })
        .await;
    // Its leases are renewed meanwhile, and what is published is struck off.
    tokio::time::sleep(Duration::from_secs(3)).await;
    replica.kill();
    *world.weather.refuses.lock().unwrap() = None;
    let heir = world.replica("r1");
    world
        .until("the successor has completed", |world| {
            world.rows_of("q-1").iter().any(|row| row.status == "completed")
        })
        .await;
    world.quiet().await;
    assert_eq!(world.rows_of("q-1").len(), 2);
    heir.stop().await;
}

/// A successor that core panics over, or the store refuses, keeps nobody from using the id; it is owed all the same.
#[tokio::test(start_paused = true)]
async fn a_successor_that_cannot_be_started_holds_up_nobody() {
    for refused in [false, true] {
        let mut world = World::new(134).await;
        world.register(QUICK).await;
        world.weather.latency_ms.store(5, Ordering::SeqCst);
        match refused {
            true => *world.weather.refuses.lock().unwrap() = Some("\"continues\":".to_owned()),
            false => super::BIRTHS_PANIC.set(true),
        }
        let replica = world.replica("r0");
        start(&world, "quick", "q-1", json!({ "left": 1 })).await;
        world
            .until("it has continued", |world| {
                world.rows_of("q-1").iter().any(|row| row.status == "continued_as_new")
            })
            .await;
        start(&world, "quick", "q-1", json!({ "left": 0 })).await;
        start(&world, "quick", "q-2", json!({ "left": 0 })).await;
        world
            .until("the others have completed", |world| {
                let rows = world.rows();
                rows.iter().filter(|row| row.status == "completed").count() == 2
            })
            .await;
        assert_eq!(world.bus.dead_letters().len(), 0);
        super::BIRTHS_PANIC.set(false);
        *world.weather.refuses.lock().unwrap() = None;
        replica.kill();
        let heir = world.replica("r1");
        world
            .until("the successor has completed", |world| {
                let rows = world.rows_of("q-1");
                rows.iter().filter(|row| row.status == "completed").count() == 2
            })
            .await;
        world.quiet().await;
        heir.stop().await;
    }
}

/// What has made it impossible may have gone: it is tried again where a partition is served anew, by the same replica too.
#[tokio::test(start_paused = true)]
async fn a_successor_that_was_given_up_is_tried_again_when_its_partition_is_taken_anew() {
    for given_away in [false, true] {
        let mut world = World::new(140).await;
        world.register(QUICK).await;
        super::BIRTHS_PANIC.set(true);
        let replica = world.replica("r0");
        for n in 0..9 {
            start(&world, "quick", &format!("q-{n}"), json!({ "left": 1 })).await;
        }
        world.until("all have continued", |world| world.closed() == 9).await;
        // Long enough for all of them to be given up.
        tokio::time::sleep(Duration::from_secs(2)).await;
        super::BIRTHS_PANIC.set(false);
        let completed = |world: &World| {
            let rows = world.rows();
            rows.iter().filter(|row| row.status == "completed").count()
        };
        if given_away {
            let other = world.replica("r1");
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(completed(&world), 0);
            other.stop().await;
            world.until("some have gone on", |world| completed(world) >= 3).await;
        }
        world.store.fail_next_commit(CommitFault::LostBefore);
        start(&world, "quick", "q-9", json!({ "left": 0 })).await;
        world.until("all have gone on", |world| completed(world) == 10).await;
        world.quiet().await;
        replica.stop().await;
    }
}

/// A parent knows its child by the run that it started; what it asks of it is asked of the run that goes on in its place.
#[tokio::test(start_paused = true)]
async fn a_child_that_has_continued_as_new_is_cancelled_with_its_parent() {
    // A replica that has seen nothing of it before, and one that has.
    for anew in [false, true] {
        let mut world = World::new(127).await;
        world.register(LOOP).await;
        world.register(KEEPER).await;
        world.work(honest());
        let mut replica = world.replica("r0");
        start(&world, "keeper", "k-1", json!({ "left": 5 })).await;
        let go = subject::signal("default", "kid", "go").unwrap();
        for runs in 1..=3 {
            world
                .until("it waits", |world| {
                    let rows = world.rows_of("kid");
                    rows.len() == runs && rows.iter().filter(|row| row.status == "running").count() == 1
                })
                .await;
            if runs < 3 {
                world.publish(&go, &[], json!(runs)).await;
            }
        }
        if anew {
            replica.stop().await;
            replica = world.replica("r0");
        }
        world.verb("k-1", "cancel", &[]).await;
        world
            .until("both are cancelled", |world| {
                let of = |id: &str| world.rows_of(id).pop().map(|row| row.status);
                ["k-1", "kid"]
                    .into_iter()
                    .all(|id| of(id).as_deref() == Some("cancelled"))
            })
            .await;
        world
            .until("settled", |world| world.rows().iter().all(|row| row.wake_at.is_none()))
            .await;
        world.quiet().await;
        replica.stop().await;
    }
}

/// A child whose id another run has is refused, and the parent's step fails with that.
#[tokio::test(start_paused = true)]
async fn a_child_whose_id_is_taken_fails_its_step() {
    let mut world = World::new(123).await;
    world.register(PARENT).await;
    world.work(Arc::new(|_| Act {
        takes_ms: 5_000,
        ..done()
    }));
    let replica = world.replica("r0");
    world.start("kid-7", &[]).await;
    world.until("it is there", |world| world.rows().len() == 1).await;
    start(&world, "parent", "p-1", json!({ "order": 7 })).await;
    world
        .until("the parent has failed", |world| {
            world.statuses().get("p-1").map(String::as_str) == Some("failed")
        })
        .await;
    world.until("closed", |world| world.closed() == 2).await;
    world.quiet().await;
    assert_eq!(world.statuses()["kid-7"], "completed");
    replica.stop().await;
}

/// Its successor cannot be made of it: whoever speaks to the id is told so, and the others of the partition go on.
#[tokio::test(start_paused = true)]
async fn a_run_that_continues_and_cannot_be_read_holds_up_nobody() {
    let mut tried = 0;
    for dies_at in 10..200 {
        let mut world = World::new(124).await;
        world.register(LOOP).await;
        world.work(honest());
        let replica = world.replica_dying_at("r0", dies_at);
        start(&world, "loop", "l-1", json!({ "left": 3 })).await;
        let go = subject::signal("default", "l-1", "go").unwrap();
        world.publish(&go, &[], json!(1)).await;
        world
            .until("it continues, or nobody goes on", |world| {
                replica.has_ended() || world.rows_of("l-1").len() == 2
            })
            .await;
        let rows = world.rows_of("l-1");
        let in_between = replica.has_ended() && rows.len() == 1 && rows[0].status == "continued_as_new";
        if !in_between {
            replica.kill();
            continue;
        }
        tried += 1;
        *world.weather.spoils_run.lock().unwrap() = Some(rows[0].run_id);
        let heir = world.replica("r1");
        let mut inbox = world.bus.subscribe("_INBOX.test");
        world.publish(&go, &[(names::REPLY_TO, "_INBOX.test")], json!(2)).await;
        let answer = world.answer(&mut inbox).await;
        assert_eq!(answer.error.unwrap().code, "KN0212");
        for n in 0..12 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world.until("the others end", |world| world.closed() == 13).await;
        *world.weather.spoils_run.lock().unwrap() = None;
        heir.stop().await;
        if tried == 3 {
            break;
        }
    }
    assert!(tried > 0, "it never died in between");
}
