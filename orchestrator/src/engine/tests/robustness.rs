//! What breaks beside the loop: work that panics, streams that take nothing for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use knarr_core::run::Event;
use knarr_schemas::body::Confirmation;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::line::Line;
use super::scripts::{forgotten, honest};
use super::world::{World, headers_of};
use crate::bus::header;
use crate::bus::memory::PulledTask;
use crate::store::memory::CommitFault;

/// Whatever panics, the loop hears of it and does the work again.
#[tokio::test(start_paused = true)]
async fn a_panic_beside_the_loop_costs_nothing_but_time() {
    for call in [
        "commit",
        "find_runs",
        "load_runs",
        "keep",
        "due",
        "publish",
        "recover",
        "owed",
    ] {
        let mut world = World::new(60).await;
        let replica = world.replica("r0");
        world.work(honest());
        world.start("o-1", &[]).await;
        world.until("one closed", |world| world.closed() == 1).await;
        *world.weather.panics.lock().unwrap() = Some(call);
        // Each has its cause: a look-up, deadlines asked for anew, a commit of unknown outcome, something owed.
        world.start("o-2", &[]).await;
        world.start("o-2", &[(names::ID_CONFLICT, "terminate_existing")]).await;
        match call {
            "recover" => world.store.fail_next_commit(CommitFault::LostBefore),
            "owed" => *world.weather.loses_subject.lock().unwrap() = Some("knarr.task."),
            _ => {}
        }
        world.start("o-3", &[]).await;
        if call == "load_runs" {
            world.until("two more", |world| world.rows().len() == 4).await;
            // Only a run that has left the memory is loaded.
            world.store.fail_next_commit(CommitFault::LostBefore);
            world.start("o-4", &[]).await;
        }
        let panicked = Arc::clone(&world.weather);
        world
            .until("it panicked", |_| panicked.panics.lock().unwrap().is_none())
            .await;
        *world.weather.loses_subject.lock().unwrap() = None;
        world
            .until("closed", |world| {
                world.closed() == world.rows().len() && world.closed() >= 4
            })
            .await;
        world.quiet().await;
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_horizon_is_asked_again() {
    let mut world = World::new(61).await;
    let replica = world.replica("r0");
    world.work(forgotten());
    *world.weather.panics.lock().unwrap() = Some("log_tail");
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    assert_eq!(*world.weather.panics.lock().unwrap(), None);
    world.quiet().await;
    replica.stop().await;
}

/// However many commits wait for a stream that takes nothing, one is offered at a time, and nothing of them is kept.
#[tokio::test(start_paused = true)]
async fn what_a_stream_does_not_take_is_offered_by_one_task() {
    let mut world = World::new(62).await;
    let replica = world.replica("r0");
    world.work(honest());
    *world.weather.loses_subject.lock().unwrap() = Some("knarr.run.");
    let subject = subject::unkeyed_start("default", "order").unwrap();
    for n in 0..200 {
        world.publish(&subject, &[], json!({ "order": n })).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let owing = world.store.dump(|_| 0).commits.len();
    assert!(owing > 100, "{owing} commits");
    // Each has been offered a few times by itself.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = replica.line.publications.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = replica.line.publications.load(Ordering::SeqCst) - before;
    assert!((20..=60).contains(&calls), "{calls} calls in a minute");
    *world.weather.loses_subject.lock().unwrap() = None;
    world.until("closed", |world| world.closed() == 200).await;
    world.quiet().await;
    replica.stop().await;
}

/// What was not acknowledged when its replica died is offered by the next.
#[tokio::test(start_paused = true)]
async fn what_waits_to_be_offered_survives_its_replica() {
    let mut world = World::new(63).await;
    let replica = world.replica("r0");
    world.work(honest());
    *world.weather.loses_subject.lock().unwrap() = Some("knarr.task.");
    for n in 0..5 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("started", |world| world.rows().len() == 5).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    replica.kill();
    let heir = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(5)).await;
    *world.weather.loses_subject.lock().unwrap() = None;
    world.until("closed", |world| world.closed() == 5).await;
    world.quiet().await;
    heir.stop().await;
}

const SLOW: &str = r#"
workflow: slow
version: 1
defaults: { queue: slow, retry: { maximum_attempts: 1 } }
steps:
  - long: { activity: long, start_to_close: 5m, no_undo: it is read }
"#;

/// A replica sees to the queues that definitions name, when it starts and when a stream turns out to have gone.
#[tokio::test(start_paused = true)]
async fn queues_are_made_as_their_definitions_ask() {
    let mut world = World::new(64).await;
    world.register(SLOW).await;
    world.bus.lose_task_stream("default");
    let replica = world.replica("r0");
    let leases = |world: &World| ["orders", "slow"].map(|queue| world.bus.ack_wait("default", queue));
    let right = ["orders", "slow"].map(|queue| Some(Duration::from_secs(if queue == "slow" { 300 } else { 30 })));
    world.until("made", |world| leases(world) == right).await;
    world.bus.lose_task_stream("default");
    world
        .publish(&subject::start("default", "s-1", "slow").unwrap(), &[], json!({}))
        .await;
    world.until("made again", |world| leases(world) == right).await;
    world
        .until("offered again", |world| world.bus.task_count("default") == 1)
        .await;
    replica.stop().await;
}

/// Results that arrive while a replica leaves, or that it has received and does not take any more, are sent on at once.
#[tokio::test(start_paused = true)]
async fn a_leaving_owner_sends_results_on() {
    let mut world = World::new(65).await;
    world.weather.latency_ms.store(40, Ordering::SeqCst);
    let replica = world.replica("r0");
    for n in 0..30 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 30)
        .await;
    let mut inbox = world.bus.subscribe("_INBOX.w");
    let hand_in = |task: &PulledTask| {
        let text = |name| header(&task.headers, name).unwrap().to_owned();
        let headers = headers_of(&[(names::TOKEN, &text(names::TOKEN)), (names::CONFIRM, "_INBOX.w")]);
        let direct = format!("{}.result", text(names::DIRECT));
        world.bus.send_direct(&direct, headers, Bytes::new(), None)
    };
    let tasks = world.bus.pull_tasks("default", "orders", 30);
    assert!(tasks.iter().take(10).all(hand_in));
    let stopping = tokio::spawn(replica.stop());
    let mut received = 10;
    for task in &tasks[10..] {
        received += usize::from(hand_in(task));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut confirmed, mut moved) = (0, 0);
    while confirmed + moved < received {
        let message = tokio::time::timeout(Duration::from_millis(500), inbox.recv()).await;
        let message = message.expect("a worker hears nothing").unwrap();
        let confirmation: Confirmation = serde_json::from_slice(&message.payload).unwrap();
        confirmed += confirmation.results.len();
        moved += confirmation.moved.len();
    }
    assert!(moved > 0, "{received} received, {confirmed} confirmed");
    stopping.await.unwrap();
}

/// The same where partitions are given to another replica.
#[tokio::test(start_paused = true)]
async fn partitions_that_are_given_back_send_results_on() {
    for seed in 66..72 {
        let mut world = World::new(seed).await;
        world.weather.latency_ms.store(20, Ordering::SeqCst);
        let first = world.replica("r0");
        let longest = Arc::new(AtomicU64::new(0));
        world.watch_hand_in(&longest);
        world.work(honest());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let second = world.replica("r1");
        for n in 0..60 {
            world.start(&format!("o-{n}"), &[]).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        world.until("closed", |world| world.closed() == 60).await;
        let longest = longest.load(Ordering::SeqCst);
        assert!(longest < 900, "a worker waited {longest} ms for a word");
        world.weather.latency_ms.store(0, Ordering::SeqCst);
        world.quiet().await;
        second.stop().await;
        first.stop().await;
    }
}

/// A snapshot is only a shorter way to what the events say.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_read_costs_nothing_but_time() {
    let mut world = World::new(73).await;
    world.config.live_runs = 1;
    world.config.snapshot_every = 2;
    world.weather.spoils_snapshots.store(true, Ordering::SeqCst);
    let replica = world.replica("r0");
    world.work(honest());
    for n in 0..10 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("closed", |world| world.closed() == 10).await;
    world.quiet().await;
    assert!(world.bus.dead_letters().is_empty());
    replica.stop().await;
}

/// A run whose events cannot be read is there all the same, and what is meant for it is set aside saying so.
#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_is_not_said_to_be_missing() {
    let mut world = World::new(74).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let task = world.bus.pull_tasks("default", "orders", 1).remove(0);
    replica.kill();
    world.weather.spoils_events.store(true, Ordering::SeqCst);
    let heir = world.replica("r0");
    let text = |name| header(&task.headers, name).unwrap().to_owned();
    world
        .publish(&text(names::REPLY), &[(names::TOKEN, &text(names::TOKEN))], json!(1))
        .await;
    world.verb("o-1", "cancel", &[]).await;
    world
        .until("set aside", |world| world.bus.dead_letters().len() == 2)
        .await;
    for letter in world.bus.dead_letters() {
        assert_eq!(header(&letter.headers, names::ERROR_CODE), Some("KN0239"));
    }
    heir.stop().await;
}

/// What a run that cannot be read still owes stays owed, holds up nobody, and goes out once it can be read.
#[tokio::test(start_paused = true)]
async fn what_an_unreadable_run_owes_stays_owed() {
    let mut world = World::new(76).await;
    let replica = world.replica("r0");
    *world.weather.loses_subject.lock().unwrap() = Some("knarr.task.");
    for id in ["o-1", "o-2"] {
        world.start(id, &[]).await;
    }
    world.until("started", |world| world.rows().len() == 2).await;
    replica.kill();
    let run = world.rows_of("o-1")[0].run_id;
    *world.weather.spoils_run.lock().unwrap() = Some(run);
    *world.weather.loses_subject.lock().unwrap() = None;
    world.work(honest());
    let heir = world.replica("r0");
    world.until("the other closed", |world| world.closed() == 1).await;
    let loads = heir.line.loads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let owing = world.store.dump(|_| 0).commits;
    assert!(
        owing.len() == 1 && owing[0].owed.spans.iter().any(|span| span.run_id == run),
        "{owing:?}"
    );
    let loads = heir.line.loads.load(Ordering::SeqCst) - loads;
    assert!(loads < 60, "{loads} loads in ten minutes");
    // Others start and end meanwhile.
    world.start("o-3", &[]).await;
    world
        .within(Duration::from_secs(5), "another closed", |world| world.closed() == 2)
        .await;
    *world.weather.spoils_run.lock().unwrap() = None;
    world
        .within(Duration::from_secs(70), "all closed", |world| world.closed() == 3)
        .await;
    world.quiet().await;
    let events = world.events(run).await;
    let timed_out = |event: &&Event| matches!(event, Event::TaskTimedOut { .. });
    assert_eq!(events.iter().filter(timed_out).count(), 0, "{events:?}");
    heir.stop().await;
}

/// The same for a task that a stream has refused, where the run cannot be read to record that.
#[tokio::test(start_paused = true)]
async fn a_task_that_cannot_be_recorded_as_held_stays_owed() {
    let mut world = World::new(77).await;
    // It leaves the memory as soon as it is committed.
    world.config.live_runs = 0;
    let replica = world.replica("r0");
    world.weather.spoils_events.store(true, Ordering::SeqCst);
    world.bus.set_full("KNARR_TASKS_default", true);
    world.start("o-1", &[]).await;
    world.until("started", |world| world.rows().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.store.dump(|_| 0).commits.len(), 1);
    world.weather.spoils_events.store(false, Ordering::SeqCst);
    world.bus.set_full("KNARR_TASKS_default", false);
    world.work(honest());
    world
        .within(Duration::from_secs(130), "closed", |world| world.closed() == 1)
        .await;
    world.quiet().await;
    replica.stop().await;
}

/// Whoever serves a partition and is told that it is theirs has known it already: nothing of it is taken once more.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_told_of_again_is_not_opened_again() {
    let mut world = World::new(78).await;
    let replica = world.replica("r0");
    world.work(honest());
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    let opened = replica.line.opened.load(Ordering::SeqCst);
    world.weather.repeats_gained.store(true, Ordering::SeqCst);
    for n in 2..6 {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    world.until("all closed", |world| world.closed() == 5).await;
    assert_eq!(replica.line.opened.load(Ordering::SeqCst), opened);
    world.quiet().await;
    replica.stop().await;
}

/// A store that answers everything and commits nothing is asked now and then, and not as fast as it answers.
#[tokio::test(start_paused = true)]
async fn a_store_that_can_commit_nothing_is_not_pressed() {
    let mut world = World::new(79).await;
    // Without it no time would pass between two attempts.
    world.weather.latency_ms.store(2, Ordering::SeqCst);
    let replica = world.replica("r0");
    world.work(honest());
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.weather.disk_is_full.store(true, Ordering::SeqCst);
    let before = replica.line.commits.load(Ordering::SeqCst);
    world.start("o-2", &[]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let commits = replica.line.commits.load(Ordering::SeqCst) - before;
    assert!((10..60).contains(&commits), "{commits} in twenty seconds");
    world.weather.disk_is_full.store(false, Ordering::SeqCst);
    world
        .within(Duration::from_secs(5), "closed", |world| world.closed() == 2)
        .await;
    world.quiet().await;
    replica.stop().await;
}

/// Of a cluster where nothing happens PostgreSQL hears that its replicas live, and every half minute which deadlines are near.
#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_nothing_changes() {
    let mut world = World::new(90).await;
    world.work(honest());
    let replicas = [world.replica("r0"), world.replica("r1")];
    for n in 0..10 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("closed", |world| world.closed() == 10).await;
    world.quiet().await;
    // What was committed last has been followed.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let count = |of: fn(&Line) -> &AtomicU64| {
        let counts = replicas.iter().map(|replica| of(&replica.line).load(Ordering::SeqCst));
        counts.sum::<u64>()
    };
    let before = (
        count(|line| &line.reads),
        count(|line| &line.dues),
        count(|line| &line.commits),
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (reads, dues, commits) = (
        count(|line| &line.reads),
        count(|line| &line.dues),
        count(|line| &line.commits),
    );
    assert_eq!(commits, before.2);
    let dues = dues - before.1;
    assert!((36..=44).contains(&dues), "{dues} in ten minutes of two replicas");
    assert_eq!(reads - before.0, dues, "nothing else");

    // And what happens then is followed again, by whoever did not do it as well.
    world.start("later", &[]).await;
    world.until("closed", |world| world.closed() == 11).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    for replica in &replicas {
        assert!(replica.line.reads.load(Ordering::SeqCst) > 0);
    }
    assert!(count(|line| &line.reads) - reads >= 4);
    for replica in replicas {
        replica.stop().await;
    }
}
