//! Deadlines, with what may lie in the log before them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_schemas::header as names;
use serde_json::json;

use super::scripts::{forgotten, honest};
use super::world::World;
use crate::bus::header;

#[tokio::test(start_paused = true)]
async fn an_activity_nobody_answers_for_times_out_and_a_backlog_does_not() {
    let mut world = World::new(6).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    // Nobody pulls: the task is not late.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let run = world.rows()[0].run_id;
    assert!(
        !world
            .events(run)
            .await
            .iter()
            .any(|event| matches!(event, Event::TaskTimedOut { .. }))
    );
    // Pulled and forgotten.
    world.work(forgotten());
    world
        .within(Duration::from_secs(200), "closed", |world| world.closed() == 1)
        .await;
    let timeouts = world.events(run).await;
    assert_eq!(
        timeouts
            .iter()
            .filter(|event| matches!(event, Event::TaskTimedOut { .. }))
            .count(),
        3
    );
    replica.stop().await;
}

/// Deadlines of several runs of one partition that come due one after another, while the log is being asked about.
#[tokio::test(start_paused = true)]
async fn timeouts_that_come_due_in_a_row_all_fire() {
    let mut world = World::new(7).await;
    world.config.partitions = 3;
    world.weather.latency_ms.store(40, Ordering::SeqCst);
    let replica = world.replica("r0");
    world.work(forgotten());
    for n in 0..30 {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(37)).await;
    }
    world
        .within(Duration::from_secs(90), "closed", |world| world.closed() == 30)
        .await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_overdue_deadlines_does_not_overtake_results_in_the_log() {
    let mut world = World::new(8).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let task = world.bus.pull_tasks("default", "orders", 1).remove(0);
    // The deadline is known to run from the delivery on.
    tokio::time::sleep(Duration::from_secs(7)).await;
    replica.kill();
    let text = |name| header(&task.headers, name).unwrap().to_owned();
    world
        .publish(&text(names::REPLY), &[(names::TOKEN, &text(names::TOKEN))], json!(1))
        .await;
    world.bus.acknowledge(&task);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let replica = world.replica("r0");
    world.work(honest());
    world.until("closed", |world| world.closed() == 1).await;
    let run = world.rows()[0].run_id;
    assert!(
        !world
            .events(run)
            .await
            .iter()
            .any(|event| matches!(event, Event::TaskTimedOut { .. }))
    );
    assert_eq!(world.statuses()["o-1"], "completed");
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_overdue_deadline_fires_after_a_restart() {
    let mut world = World::new(9).await;
    let replica = world.replica("r0");
    for n in 0..6 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 6)
        .await;
    for task in world.bus.pull_tasks("default", "orders", 10) {
        world.bus.acknowledge(&task);
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    replica.kill();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let replica = world.replica("r0");
    world.work(honest());
    world
        .within(Duration::from_secs(30), "closed", |world| world.closed() == 6)
        .await;
    world.quiet().await;
    replica.stop().await;
}

/// Deadlines of partitions taken while the store is being asked for those of others are not forgotten.
#[tokio::test(start_paused = true)]
async fn overdue_deadlines_of_a_partition_taken_later_fire_soon() {
    let mut world = World::new(19).await;
    let first = world.replica("r0");
    let second = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for n in 0..12 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 12)
        .await;
    for task in world.bus.pull_tasks("default", "orders", 20) {
        world.bus.acknowledge(&task);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The store answers slowly: what is asked is still under way when the partitions of the dead one come.
    world.weather.latency_ms.store(400, Ordering::SeqCst);
    first.kill();
    world.work(honest());
    world
        .within(Duration::from_secs(40), "closed", |world| world.closed() == 12)
        .await;
    world.weather.latency_ms.store(0, Ordering::SeqCst);
    world.quiet().await;
    second.stop().await;
}

/// Inputs that change nothing are not committed, and must not fill a batch either.
#[tokio::test(start_paused = true)]
async fn overdue_runs_that_have_to_wait_do_not_stop_the_rest() {
    let mut world = World::new(24).await;
    world.config.batch_inputs = 4;
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
    tokio::time::sleep(Duration::from_secs(6)).await;
    replica.kill();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let replica = world.replica("r0");
    world.work(honest());
    // Within the grace: the overdue ten wait, and this one does not.
    world.start("o-10", &[]).await;
    world
        .within(Duration::from_secs(2), "closed", |world| world.closed() == 1)
        .await;
    world.until("closed", |world| world.closed() == 11).await;
    world.quiet().await;
    replica.stop().await;
}
