//! Retry of a run: attempts follow each other under one workflow id, across takeovers, and whoever waits hears of the last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::{Admission, Event};
use knarr_core::time::Timestamp;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::{World, done, failed};
use crate::store::RunRow;
use crate::store::memory::CommitFault;

/// Undoes itself twice, and completes.
const AGAIN: &str = r#"
workflow: again
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
retry: { initial_interval: 5s, maximum_attempts: 3 }
steps:
  - work: { activity: work, compensate: unwork }
  - early: { if: "${ run.attempt < 3 }", fail: { type: too_early } }
output: "${ run.attempt }"
"#;

const PARENT: &str = r#"
workflow: parent
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - kid: { workflow: { name: again, id: "'kid'" } }
output: "${ steps.kid }"
"#;

async fn start(world: &World, workflow: &str, id: &str, headers: &[(&str, &str)]) {
    let to = subject::start("default", id, workflow).unwrap();
    world.publish(&to, headers, json!({})).await;
}

fn statuses(world: &World, id: &str) -> Vec<String> {
    world.rows_of(id).into_iter().map(|row| row.status).collect()
}

/// The attempt of that number, once it is there and its pause has not passed.
async fn waits(world: &mut World, id: &str, attempt: i32) -> RunRow {
    let there = |world: &World| world.rows_of(id).into_iter().find(|row| row.attempt == attempt);
    world
        .until("the attempt is there", |world| there(world).is_some())
        .await;
    there(world).unwrap()
}

/// When an attempt has begun, and when it was to begin.
async fn began(world: &World, row: &RunRow) -> (Timestamp, Timestamp) {
    let state = world.state(row.run_id).await;
    let events = world.events(row.run_id).await;
    let begins = events
        .iter()
        .any(|event| matches!(event, Event::RunAdmitted { to: Admission::Pause }));
    assert!(begins, "{events:?}");
    (state.at(), row.begins_at.unwrap())
}

#[tokio::test(start_paused = true)]
async fn attempts_follow_each_other_whenever_a_replica_dies() {
    for (fault, dies_at) in [
        (None, 0),
        (Some(CommitFault::LostBefore), 0),
        (Some(CommitFault::LostAfter), 0),
        (None, 60),
        (None, 75),
        (None, 90),
        (None, 105),
        (None, 130),
        (None, 160),
    ] {
        let mut world = World::new(150).await;
        world.register(AGAIN).await;
        world.work(honest());
        let replica = world.replica_dying_at("r0", dies_at);
        start(&world, "again", "a-1", &[]).await;
        if let Some(fault) = fault {
            world.store.fail_next_commit(fault);
        }
        let over = |world: &World| statuses(world, "a-1").last().map(String::as_str) == Some("completed");
        world
            .until("it is done, or dead", |world| over(world) || replica.has_ended())
            .await;
        let heir = world.replica("r1");
        world.until("the last attempt has completed", over).await;
        world.quiet().await;
        let rows = world.rows_of("a-1");
        assert_eq!(
            statuses(&world, "a-1"),
            ["compensated", "compensated", "completed"],
            "{fault:?} {dies_at}"
        );
        let numbers: Vec<i32> = rows.iter().map(|row| row.attempt).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let next: Vec<_> = rows.iter().map(|row| row.retried_by).collect();
        assert_eq!(next, [Some(rows[1].run_id), Some(rows[2].run_id), None]);
        for row in &rows[1..] {
            let (at, due) = began(&world, row).await;
            assert!(at >= due, "an attempt began early");
        }
        assert_eq!(world.bus.dead_letters().len(), 0);
        heir.stop().await;
    }
}

/// A replica that has just dropped everything in memory does not give partitions on before it has begun the successors of their
/// runs: whoever gets them would not hear of those.
#[tokio::test(start_paused = true)]
async fn attempts_follow_each_other_where_partitions_move_on_after_a_failure() {
    for commits in 1..=24 {
        let mut world = World::new(160).await;
        world.register(AGAIN).await;
        world.work(honest());
        let replica = world.replica("r0");
        for n in 0..4 {
            start(&world, "again", &format!("a-{n}"), &[]).await;
        }
        let line = Arc::clone(&replica.line);
        world
            .until("so many commits", |_| line.commits.load(Ordering::SeqCst) >= commits)
            .await;
        let heir = world.replica("r1");
        let keeps = line.keeps.load(Ordering::SeqCst);
        world
            .until("both keep their leases", |_| line.keeps.load(Ordering::SeqCst) > keeps)
            .await;
        world.store.fail_next_commit(CommitFault::LostBefore);
        let over = |world: &World, id: &str| statuses(world, id).last().map(String::as_str) == Some("completed");
        world
            .within(Duration::from_secs(120), "the last attempts have completed", |world| {
                (0..4).all(|n| over(world, &format!("a-{n}")))
            })
            .await;
        world.quiet().await;
        replica.stop().await;
        heir.stop().await;
    }
}

/// Whoever inherits and is stopped before it has done what it inherited leaves runs and what is owed to them together.
#[tokio::test(start_paused = true)]
async fn attempts_follow_each_other_whoever_is_stopped_in_between() {
    for dies_at in (60..160).step_by(5) {
        let mut world = World::new(161).await;
        world.register(AGAIN).await;
        world.work(honest());
        let replica = world.replica_dying_at("r0", dies_at);
        for n in 0..4 {
            start(&world, "again", &format!("a-{n}"), &[]).await;
        }
        let over = |world: &World, id: &str| statuses(world, id).last().map(String::as_str) == Some("completed");
        let all_over = |world: &World| (0..4).all(|n| over(world, &format!("a-{n}")));
        world
            .until("it is done, or dead", |world| all_over(world) || replica.has_ended())
            .await;
        let heir = world.replica("r1");
        let line = Arc::clone(&heir.line);
        world
            .until("it has inherited", |_| line.opened.load(Ordering::SeqCst) > 0)
            .await;
        let others = [world.replica("r2"), world.replica("r3")];
        heir.stop().await;
        world
            .within(Duration::from_secs(120), "the last attempts have completed", all_over)
            .await;
        world.quiet().await;
        for other in others {
            other.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_survives_a_takeover_and_begins_on_time() {
    let mut world = World::new(151).await;
    world.register(AGAIN).await;
    world.work(honest());
    let replica = world.replica("r0");
    start(&world, "again", "a-1", &[]).await;
    let waiting = waits(&mut world, "a-1", 2).await;
    assert_eq!(waiting.status, "running");
    assert_eq!(waiting.wake_at, waiting.begins_at);
    replica.kill();
    let heir = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        world.state(waiting.run_id).await.admission(),
        Some(Admission::Pause),
        "not early"
    );
    world
        .until("the last has completed", |world| {
            statuses(world, "a-1").last().map(String::as_str) == Some("completed")
        })
        .await;
    world.quiet().await;
    let (_, due) = began(&world, &waiting).await;
    let first = world.store.dump(|_| 0).events;
    let begun = first
        .iter()
        .find(|append| append.run_id == waiting.run_id && append.transition.seq == 2);
    let late = begun.unwrap().transition.at.since(due);
    assert!(late.as_millis() < 1_000, "{late:?}");
    heir.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_is_answered_by_the_last_attempt() {
    let mut world = World::new(152).await;
    world.register(AGAIN).await;
    world.work(honest());
    let replica = world.replica("r0");
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    let waits_for = [
        (names::REPLY_TO, "_INBOX.caller"),
        (names::REPLY_ON, "closed"),
        (names::REQUEST_ID, "q-1"),
    ];
    start(&world, "again", "a-1", &waits_for).await;
    waits(&mut world, "a-1", 2).await;
    // The same start again, while the run that it has started is closed and tried again; from the same place, and another.
    start(&world, "again", "a-1", &waits_for).await;
    let mut other = world.bus.subscribe("_INBOX.other");
    let elsewhere = [(names::REPLY_TO, "_INBOX.other"), waits_for[1], waits_for[2]];
    start(&world, "again", "a-1", &elsewhere).await;
    let answer = world.answer(&mut other).await;
    assert_eq!((answer.stage, answer.output), (AnswerStage::Closed, Some(json!(3))));
    let answer = world.answer(&mut inbox).await;
    assert_eq!((answer.stage, answer.output), (AnswerStage::Closed, Some(json!(3))));
    world.quiet().await;
    assert!(
        inbox.try_recv().is_err(),
        "whoever waits twice at one place is told once"
    );
    // And once all is over, also when another run has had the id since.
    for more in [false, true] {
        if more {
            start(&world, "again", "a-1", &[]).await;
            world.until("closed", |world| world.closed() == 6).await;
        }
        start(&world, "again", "a-1", &waits_for).await;
        let answer = world.answer(&mut inbox).await;
        assert_eq!((answer.stage, answer.output), (AnswerStage::Closed, Some(json!(3))));
    }
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_is_cancelled_and_none_follows() {
    for (verb, ends) in [("cancel", "cancelled"), ("terminate", "terminated")] {
        let mut world = World::new(153).await;
        world.register(AGAIN).await;
        world.work(honest());
        let replica = world.replica("r0");
        start(&world, "again", "a-1", &[]).await;
        waits(&mut world, "a-1", 2).await;
        world.verb("a-1", verb, &[]).await;
        world
            .until("it has ended", |world| {
                statuses(world, "a-1").last().map(String::as_str) == Some(ends)
            })
            .await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.quiet().await;
        assert_eq!(statuses(&world, "a-1"), ["compensated", ends]);
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_workflow_id_stays_taken_while_an_attempt_waits() {
    let mut world = World::new(154).await;
    world.register(AGAIN).await;
    world.work(honest());
    let replica = world.replica("r0");
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    start(&world, "again", "a-1", &[]).await;
    waits(&mut world, "a-1", 2).await;
    let reply = (names::REPLY_TO, "_INBOX.caller");
    start(&world, "again", "a-1", &[reply]).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Refused);
    start(&world, "again", "a-1", &[(names::ID_CONFLICT, "queue")]).await;
    world.until("both are through", |world| world.closed() == 6).await;
    world.quiet().await;
    let rows = world.rows_of("a-1");
    let last = rows.iter().filter(|row| row.status == "completed");
    assert_eq!(last.count(), 2);
    // Who was queued has begun when the last attempt had closed.
    let queued = rows
        .iter()
        .filter(|row| row.attempt == 1)
        .max_by_key(|row| row.run_id)
        .unwrap();
    let (state, ended) = (
        world.state(queued.run_id).await,
        rows.iter().filter_map(|row| row.closed_at).min(),
    );
    assert!(state.at() > ended.unwrap());
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_waits_for_the_last_attempt_of_its_child_and_cancels_the_present_one() {
    for cancels in [false, true] {
        let mut world = World::new(155).await;
        world.register(AGAIN).await;
        world.register(PARENT).await;
        world.work(honest());
        let replica = world.replica("r0");
        start(&world, "parent", "p-1", &[]).await;
        waits(&mut world, "kid", 2).await;
        if cancels {
            world.verb("p-1", "cancel", &[]).await;
        }
        world
            .until("the parent has ended", |world| {
                world.rows_of("p-1").iter().all(|row| row.closed_at.is_some())
            })
            .await;
        world.quiet().await;
        let (parent, kid) = match cancels {
            false => (
                ["completed"].as_slice(),
                ["compensated", "compensated", "completed"].as_slice(),
            ),
            true => (["cancelled"].as_slice(), ["compensated", "cancelled"].as_slice()),
        };
        assert_eq!(statuses(&world, "p-1"), parent);
        assert_eq!(statuses(&world, "kid"), kid);
        replica.stop().await;
    }
}

/// Nobody speaks to the id, and whoever owned it dies before the next attempt is stored.
#[tokio::test(start_paused = true)]
async fn an_attempt_is_owed_until_it_is_stored() {
    let mut world = World::new(156).await;
    world.register(AGAIN).await;
    world.work(Arc::new(|task| match task.activity {
        "work" if task.workflow_id == "a-0" => failed(),
        _ => done(),
    }));
    world.weather.latency_ms.store(5, std::sync::atomic::Ordering::SeqCst);
    *world.weather.refuses.lock().unwrap() = Some("\"continues\":".to_owned());
    let replica = world.replica("r0");
    start(&world, "again", "a-1", &[]).await;
    world
        .until("the first has ended", |world| statuses(world, "a-1") == ["compensated"])
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    replica.kill();
    *world.weather.refuses.lock().unwrap() = None;
    let heir = world.replica("r1");
    world
        .until("the last has completed", |world| {
            statuses(world, "a-1").last().map(String::as_str) == Some("completed")
        })
        .await;
    world.quiet().await;
    assert_eq!(world.rows_of("a-1").len(), 3);
    heir.stop().await;
}

/// Who speaks to the id while the next attempt is owed, and nobody has heard of that yet, comes after it.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_owed_comes_before_whoever_speaks_to_the_id() {
    let mut world = World::new(157).await;
    world.register(AGAIN).await;
    world.work(honest());
    world.weather.latency_ms.store(5, std::sync::atomic::Ordering::SeqCst);
    *world.weather.refuses.lock().unwrap() = Some("\"continues\":".to_owned());
    let replica = world.replica("r0");
    start(&world, "again", "a-1", &[]).await;
    world
        .until("the first has ended", |world| statuses(world, "a-1") == ["compensated"])
        .await;
    replica.kill();
    *world.weather.refuses.lock().unwrap() = None;
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    start(&world, "again", "a-1", &[(names::REPLY_TO, "_INBOX.caller")]).await;
    world.verb("a-1", "cancel", &[]).await;
    let heir = world.replica("r1");
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Refused);
    world
        .until("the second is cancelled", |world| {
            statuses(world, "a-1") == ["compensated", "cancelled"]
        })
        .await;
    world.quiet().await;
    heir.stop().await;
}
