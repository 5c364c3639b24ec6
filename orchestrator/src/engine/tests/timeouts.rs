//! Timeouts that wait at the gate, and whom they must not hold up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_schemas::subject;

use super::world::{ORDER, World, done, failed};

/// An id of the partition, the n-th of its kind.
fn id_in(partition: u16, n: usize) -> String {
    let ids = (0..).map(|number| format!("o-{number}"));
    let mut of_partition = ids.filter(|id| subject::partition_of("default", id, 3) == partition);
    of_partition.nth(n).unwrap()
}

/// However many runs of a partition are overdue and wait for its log, the deadlines of others are found in the store.
#[tokio::test(start_paused = true)]
async fn overdue_runs_that_wait_do_not_hide_the_deadlines_behind_them() {
    for waiting in [19, 20, 21, 60] {
        let mut world = World::new(80).await;
        world.config.deadline_page = 20;
        world
            .register(
                &ORDER
                    .replace("version: 1", "version: 2")
                    .replace("100ms", "30s")
                    .replace("1s,", "30s,"),
            )
            .await;
        let replica = world.replica("r0");
        for n in 0..waiting {
            world.start(&id_in(0, n), &[]).await;
        }
        world
            .until("dispatched", |world| world.bus.task_count("default") == waiting)
            .await;
        for task in world.bus.pull_tasks("default", "orders", waiting) {
            world.bus.acknowledge(&task);
        }
        *world.weather.endless_log.lock().unwrap() = Some(0);
        let failing = id_in(1, 0);
        let fails = failing.clone();
        world.work(Arc::new(move |task| match (task.activity, task.attempt) {
            ("create-order", 1) if task.workflow_id == fails => failed(),
            _ => done(),
        }));
        world.start(&failing, &[]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        replica.kill();
        let heir = world.replica("r0");
        world
            .within(Duration::from_secs(35), "the second attempt", |world| {
                world.statuses()[&failing] == "completed"
            })
            .await;
        let loads = heir.line.loads.load(Ordering::SeqCst);
        assert!(loads <= 3 * waiting as u64 + 10, "{loads} loads of {waiting} runs");
        *world.weather.endless_log.lock().unwrap() = None;
        heir.stop().await;
    }
}

/// How long a task has lain in its queue is told by one clock, and means the same by another.
#[tokio::test(start_paused = true)]
async fn a_backlog_is_one_whatever_the_clocks_say() {
    for seconds in [-60, 0, 60] {
        let mut world = World::new(81).await;
        world.bus_ahead.store(seconds * 1_000_000, Ordering::SeqCst);
        let replica = world.replica("r0");
        for n in 0..20 {
            world.start(&format!("o-{n}"), &[]).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        for row in world.rows() {
            let events = world.events(row.run_id).await;
            let found = |event: &Event| matches!(event, Event::TaskDelivered { .. } | Event::TaskTimedOut { .. });
            assert!(!events.iter().any(found), "{seconds}: {events:#?}");
        }
        // Taken and forgotten by turns: those that were taken time out, whatever lies behind them.
        for task in world.bus.pull_tasks("default", "orders", 10) {
            world.bus.acknowledge(&task);
        }
        tokio::time::sleep(Duration::from_secs(150)).await;
        let mut timed_out = 0;
        for row in world.rows() {
            let events = world.events(row.run_id).await;
            timed_out += usize::from(events.iter().any(|event| matches!(event, Event::TaskTimedOut { .. })));
        }
        assert_eq!(timed_out, 10, "{seconds}");
        replica.stop().await;
    }
}
