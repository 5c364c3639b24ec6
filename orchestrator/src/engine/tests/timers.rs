//! Timers: never early, hardly late, for next to nothing, and whatever the clocks do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_core::time::Timestamp;
use knarr_schemas::subject;
use serde_json::json;

use super::scripts::honest;
use super::world::{Act, World, done};
use crate::store::RunRow;

fn sleep(name: &str, wait: &str) -> String {
    format!("workflow: {name}\nversion: 1\nsteps:\n  - sleep: {{ wait: {wait} }}\n")
}

async fn start(world: &World, workflow: &str, id: &str) {
    let to = subject::start("default", id, workflow).unwrap();
    world.publish(&to, &[], json!({})).await;
    world.until("started", |world| world.statuses().contains_key(id)).await;
}

async fn due(world: &World, row: &RunRow) -> Timestamp {
    let events = world.events(row.run_id).await;
    let mut due = events.iter().filter_map(|event| match event {
        Event::TimerSet { due, .. } => Some(*due),
        _ => None,
    });
    due.next().unwrap()
}

/// SEMANTICS §4: exact to 100 ms, beside runs that keep the replica and its workers busy, with a store that takes its time.
#[tokio::test(start_paused = true)]
async fn timers_fire_within_a_tenth_of_a_second_under_load_and_never_early() {
    let mut world = World::new(1_200).await;
    world.weather.latency_ms.store(4, Ordering::SeqCst);
    world.register(&sleep("nap", "7s")).await;
    world.work(honest());
    let replica = world.replica("r0");
    for n in 0..150 {
        let to = subject::start("default", &format!("s-{n}"), "nap").unwrap();
        world.publish(&to, &[], json!({})).await;
        tokio::time::sleep(Duration::from_millis(13)).await;
    }
    // While they wake.
    for n in 0..150 {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    world.until("all have closed", |world| world.closed() == 300).await;
    for row in world.rows().iter().filter(|row| row.workflow.as_str() == "nap") {
        let late = row.closed_at.unwrap().0 - due(&world, row).await.0;
        assert!((0..=100_000).contains(&late), "{} was {late} µs late", row.workflow_id);
    }
    world.quiet().await;
    replica.stop().await;
}

/// What is far away is a row and its birth; it is neither written nor asked for again, whoever owns its partition.
#[tokio::test(start_paused = true)]
async fn a_wait_of_a_year_costs_one_row_and_nothing_while_it_lasts() {
    const HOUR_MS: i64 = 3_600_000;
    let mut world = World::new(1_201).await;
    world.register(&sleep("hibernate", "365d")).await;
    let replica = world.replica("r0");
    start(&world, "hibernate", "h-1").await;
    world.quiet().await;
    let held = |world: &World| {
        let dump = world.store.dump(|_| 0);
        let beside = dump.snapshots.len() + dump.deferred.len() + dump.permits.len() + dump.commits.len();
        (dump.runs, dump.events, beside)
    };
    let before = held(&world);
    assert_eq!((before.0.len(), before.1.len(), before.2), (1, 1, 0));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(held(&world), before);
    replica.stop().await;
    let heir = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(held(&world), before, "a new owner leaves it alone");
    // A day before it is due, and a day later.
    world.leap_together(364 * 24 * HOUR_MS);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(held(&world), before);
    world.leap_together(25 * HOUR_MS);
    world.until("it has closed", |world| world.closed() == 1).await;
    world.quiet().await;
    let row = world.rows().remove(0);
    let late = row.closed_at.unwrap().0 - due(&world, &row).await.0;
    assert!(late >= 0, "{late}");
    assert_eq!(held(&world).1.len(), 2, "one to set it and one to fire");
    heir.stop().await;
}

/// Readings that are far off for a moment, ahead or behind, and a clock that is put back for good.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_fires_no_timer_early_or_twice() {
    let mut world = World::new(1_202).await;
    world.register(&sleep("nap", "40s")).await;
    world.work(Arc::new(|_| Act { takes_ms: 50, ..done() }));
    let replica = world.replica("r0");
    start(&world, "nap", "n-1").await;
    let began = tokio::time::Instant::now();
    for ms in [600_000, -600_000, 86_400_000] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.leap(ms);
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.leap(-ms);
    }
    // As far as the database knows a quarter of the time has passed twice.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.leap(-10_000);
    world.until("it has closed", |world| world.closed() == 1).await;
    let took = began.elapsed().as_millis();
    // By the clock that was put back it is due ten seconds later; nobody waits for more than that.
    assert!((39_900..=50_500).contains(&took), "{took} ms");
    let row = world.rows().remove(0);
    assert!(row.closed_at.unwrap() >= due(&world, &row).await);
    let closed = world.events(row.run_id).await;
    let ends = closed
        .iter()
        .filter(|event| matches!(event, Event::RunCompleted { .. }));
    assert_eq!(ends.count(), 1);
    world.quiet().await;
    replica.stop().await;
}
