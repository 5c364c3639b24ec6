//! Timeouts that wait at the gate, and whom they must not hold up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_schemas::subject;
use serde_json::json;

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

/// A takeover with hundreds of commits that one namespace's stream does not acknowledge: another's task waits to be published
/// for a while, and is not taken for delivered meanwhile, nor while it lies in its queue afterwards.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_not_published_yet_is_not_late() {
    let mut world = World::new(82).await;
    world.register_in("other", ORDER).await;
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    *world.weather.loses_subject.lock().unwrap() = Some("knarr.task.");
    for n in 0..500 {
        let start = subject::start("other", &format!("x-{n}"), "order").unwrap();
        world.publish(&start, &[], json!({ "order": n })).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.start("o-1", &[]).await;
    world.until("started", |world| world.rows().len() == 1).await;
    replica.kill();
    let owing = world.store.dump(|_| 0).commits.len();
    assert!(owing > 300, "{owing} commits");
    *world.weather.loses_subject.lock().unwrap() = Some("knarr.task.other.");
    world.weather.notices_after_ms.store(1_000, Ordering::SeqCst);
    let heir = world.replica("r1");
    world
        .within(Duration::from_secs(120), "published", |world| {
            world.bus.task_count("default") == 1
        })
        .await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let events = world.events(world.rows()[0].run_id).await;
    let found = |event: &Event| matches!(event, Event::TaskDelivered { .. } | Event::TaskTimedOut { .. });
    assert!(!events.iter().any(found), "{events:#?}");
    heir.stop().await;
}

/// A queue that is asked what it has delivered and does not answer holds up the timeouts of its own tasks alone.
#[tokio::test(start_paused = true)]
async fn a_queue_that_does_not_answer_holds_up_no_other() {
    let mut world = World::new(83).await;
    world.register_in("other", ORDER).await;
    *world.weather.mute.lock().unwrap() = Some("other");
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(4)).await;
    for n in 0..30 {
        let start = subject::start("other", &format!("x-{n}"), "order").unwrap();
        world.publish(&start, &[], json!({ "order": n })).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let task = world.bus.pull_tasks("default", "orders", 1).remove(0);
    world.bus.acknowledge(&task);
    let run = world.rows()[0].run_id;
    let timed_out = |event: &Event| matches!(event, Event::TaskTimedOut { .. });
    // Start-to-close, found to be delivered, and start-to-close again.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(world.events(run).await.iter().any(timed_out));
    replica.stop().await;
}
