//! Runs that speak to each other, wait and go on: children, signals, events, successors.

use std::sync::Arc;
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

const KEEPER: &str = r#"
workflow: keeper
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - kid: { workflow: { name: loop, id: "'kid'", input: { left: 1 } } }
output: "done"
"#;

/// The message names the run that was started; it is for whoever has gone on in its place.
#[tokio::test(start_paused = true)]
async fn a_cancellation_reaches_the_successor_of_a_child_also_after_a_restart() {
    for restarts in [false, true] {
        let mut world = World::new(127).await;
        world.register(LOOP).await;
        world.register(KEEPER).await;
        world.work(honest());
        let mut replica = world.replica("r0");
        start(&world, "keeper", "k", json!({})).await;
        world.until("the child waits", |world| world.rows().len() == 2).await;
        let to = subject::signal("default", "kid", "go").unwrap();
        world.publish(&to, &[], json!(1)).await;
        world.until("it goes on", |world| world.rows().len() == 3).await;
        if restarts {
            replica.stop().await;
            replica = world.replica("r0");
        }
        world.verb("k", "cancel", &[]).await;
        world.until("all have ended", |world| world.closed() == 3).await;
        let ended: Vec<_> = world.rows_of("kid").into_iter().map(|row| row.status).collect();
        assert_eq!(ended, ["continued_as_new", "cancelled"]);
        assert_eq!(world.statuses()["k"], "cancelled");
        world.quiet().await;
        replica.stop().await;
    }
}
