//! Who had a workflow id last is not always who has the greatest run id, and who is in line stays in the order of coming.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use knarr_core::ids::RunId;
use knarr_core::run::message::Body;
use knarr_core::time::Timestamp;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::{code, header as names, subject};
use serde_json::json;
use uuid::Uuid;

use super::messages::{say, start_child};
use super::world::{Act, Replica, World, done};
use crate::store::{RunRow, Store as _};

const QUEUE: (&str, &str) = (names::ID_CONFLICT, "queue");
const FAILED_ONLY: (&str, &str) = (names::ID_REUSE, "allow_duplicate_failed_only");

/// Fails as often as its input says: `once`, and the same with a second attempt.
const ONCE: &str = r#"
workflow: once
version: 1
defaults: { queue: orders, start_to_close: 60s, retry: { maximum_attempts: 1 } }
steps:
  - work: { activity: work, read_only: true }
  - judge: { if: "${ run.attempt <= input.fails }", fail: { type: no } }
"#;

fn twice() -> String {
    ONCE.replace(
        "workflow: once\nversion: 1\n",
        "workflow: twice\nversion: 1\nretry: { initial_interval: 1s, maximum_attempts: 2 }\n",
    )
}

/// Work takes that long.
async fn world(seed: u64, takes_ms: u64) -> World {
    let world = World::new(seed).await;
    world.register(ONCE).await;
    world.register(&twice()).await;
    world.work(Arc::new(move |_| Act { takes_ms, ..done() }));
    world
}

async fn start(world: &World, workflow: &str, request: &str, fails: u32, header: (&str, &str)) {
    let to = subject::start("default", "x", workflow).unwrap();
    let headers = [(names::REQUEST_ID, request), header];
    world.publish(&to, &headers, json!({ "fails": fails })).await;
}

const WAITS: &str = "workflow: waits\nversion: 1\nsteps:\n  - sleep: { wait: 1h }\n";

const ORDINARY: (&str, &str) = (names::ID_CONFLICT, "fail");

fn of(world: &World, request: &str) -> Option<RunRow> {
    let mut rows = world.rows_of("x").into_iter();
    rows.find(|row| row.request_id.as_ref().is_some_and(|id| id.as_str() == request))
}

async fn is(world: &World, request: &str, status: &str) {
    let holds = |world: &World| of(world, request).is_some_and(|row| row.status == status);
    world.until(&format!("{request} is {status}"), holds).await;
}

/// A start that only follows one which has not completed; whether it was let in.
async fn may_follow(world: &World) -> bool {
    let mut answers = world.bus.subscribe("_INBOX.follows");
    let to = subject::start("default", "x", "once").unwrap();
    let headers = [FAILED_ONLY, (names::REPLY_TO, "_INBOX.follows")];
    world.publish(&to, &headers, json!({ "fails": 0 })).await;
    let answer = world.answer(&mut answers).await;
    if let Some(error) = answer.error {
        assert_eq!(error.code, code::ID_REUSE.id);
    }
    answer.stage == AnswerStage::Started
}

/// The attempts of the run that is open have greater ids than whoever waits for their end.
#[tokio::test(start_paused = true)]
async fn who_was_in_line_beside_attempts_had_the_id_after_them() {
    for (of_attempts, of_queued, follows) in [(1, 1, true), (2, 0, false)] {
        let mut world = world(1_200, 500).await;
        let replica = world.replica("r0");
        start(&world, "twice", "a", of_attempts, ORDINARY).await;
        is(&world, "a", "running").await;
        start(&world, "once", "q", of_queued, QUEUE).await;
        world.until("three have closed", |world| world.closed() == 3).await;
        world.quiet().await;
        let (rows, queued) = (world.rows_of("x"), of(&world, "q").unwrap());
        assert_eq!(rows[1], queued, "the second attempt has the greatest id");
        assert_eq!(rows[2].attempt, 2);
        assert_eq!(may_follow(&world).await, follows, "{} was last", queued.status);
        world.quiet().await;
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_left_the_line_never_had_the_id() {
    let mut world = world(1_201, 2_000).await;
    let replica = world.replica("r0");
    start(&world, "once", "a", 0, ORDINARY).await;
    is(&world, "a", "running").await;
    start(&world, "once", "q", 0, QUEUE).await;
    is(&world, "q", "queued").await;
    let queued = of(&world, "q").unwrap().run_id.to_string();
    world.verb("x", "cancel", &[(names::RUN_ID, &queued)]).await;
    is(&world, "a", "completed").await;
    is(&world, "q", "cancelled").await;
    world.quiet().await;
    assert!(!may_follow(&world).await, "the last one has completed");
    // And is found by its request all the same.
    let mut answers = world.bus.subscribe("_INBOX.again");
    start(&world, "once", "q", 0, (names::REPLY_TO, "_INBOX.again")).await;
    let answer = world.answer(&mut answers).await;
    assert_eq!(
        (answer.stage, answer.status.as_deref()),
        (AnswerStage::Existing, Some("cancelled"))
    );
    world.quiet().await;
    replica.stop().await;
}

/// What a parent starts has an id that the parent has fixed, and may come late.
#[tokio::test(start_paused = true)]
async fn a_child_that_comes_late_had_the_id_after_those_before_it() {
    let mut world = world(1_202, 100).await;
    let replica = world.replica("r0");
    start(&world, "once", "a", 0, ORDINARY).await;
    is(&world, "a", "completed").await;
    let run_id = RunId(Uuid::from_u128(
        (0x0100_0000_0000 << 80) | (0x7 << 76) | (0x8 << 60) | 7,
    ));
    let Body::StartChild(mut child) = start_child(run_id, "once") else {
        unreachable!()
    };
    child.input = Arc::new(json!({ "fails": 1 }));
    say(&world, "x", 1, None, &Body::StartChild(child)).await;
    world
        .until("it has failed", |world| {
            world.rows_of("x").iter().any(|row| row.status == "failed")
        })
        .await;
    world.quiet().await;
    assert_eq!(world.rows_of("x")[0].run_id, run_id, "its id is the smaller one");
    start(&world, "once", "a", 0, ORDINARY).await;
    world.quiet().await;
    assert_eq!(
        world.rows_of("x").len(),
        2,
        "who has started before is found by its request"
    );
    assert!(may_follow(&world).await, "the last one has failed");
    world.quiet().await;
    replica.stop().await;
}

/// Kills the replica once the run has closed and its next attempt is not there.
async fn dies_owing_an_attempt(world: &mut World, replica: &Replica, request: &str) -> RunRow {
    let owing = |world: &World| of(world, request).filter(|row| row.retried_by.is_some());
    world
        .until("another attempt is owed", |world| owing(world).is_some())
        .await;
    replica.kill();
    let row = owing(world).unwrap();
    assert!(
        world
            .rows_of("x")
            .iter()
            .all(|other| Some(other.run_id) != row.retried_by)
    );
    row
}

/// The heir hears of a start before it has read what its predecessor owed.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_owed_comes_before_any_start() {
    for in_line_is_left in [false, true] {
        let mut world = world(1_203, 500).await;
        world.weather.commit_ms.store(40, std::sync::atomic::Ordering::SeqCst);
        let replica = world.replica("r0");
        start(&world, "twice", "a", 1, ORDINARY).await;
        is(&world, "a", "running").await;
        start(&world, "twice", "q", 1, QUEUE).await;
        is(&world, "q", "queued").await;
        let owing = match in_line_is_left {
            true => {
                let queued = of(&world, "q").unwrap().run_id.to_string();
                world.verb("x", "cancel", &[(names::RUN_ID, &queued)]).await;
                is(&world, "q", "cancelled").await;
                "a"
            }
            false => "q",
        };
        let owing = dies_owing_an_attempt(&mut world, &replica, owing).await;
        *world.weather.withholds.lock().unwrap() = Some(owing.run_id);
        start(&world, "once", "s", 0, ORDINARY).await;
        let heir = world.replica("r1");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(of(&world, "s"), None, "it has taken an id that another attempt has");
        *world.weather.withholds.lock().unwrap() = None;
        world
            .until("all have closed", |world| {
                let rows = world.rows_of("x");
                rows.iter().all(|row| row.closed_at.is_some())
                    && rows.iter().any(|row| Some(row.run_id) == owing.retried_by)
            })
            .await;
        world.quiet().await;
        heir.stop().await;
    }
}

fn clock(world: &World) -> Timestamp {
    let now = world.store.now().now_or_never();
    now.expect("the memory store does not wait").unwrap()
}

/// The database's clock goes back between two replicas.
#[tokio::test(start_paused = true)]
async fn a_line_keeps_its_order_when_the_clock_leaps_back() {
    let mut world = world(1_204, 5_000).await;
    let mut replica = world.replica("r0");
    start(&world, "once", "a", 0, ORDINARY).await;
    is(&world, "a", "running").await;
    for n in 1..=3 {
        start(&world, "once", &format!("q{n}"), 0, QUEUE).await;
        is(&world, &format!("q{n}"), "queued").await;
        if n == 1 {
            replica.stop().await;
            let before = clock(&world);
            world.leap(-60_000);
            world.until("the clock is back", |world| clock(world) < before).await;
            replica = world.replica("r1");
        }
    }
    for n in 1..=3 {
        let now = format!("q{n}");
        world
            .until("the next one begins", |world| {
                world
                    .rows_of("x")
                    .iter()
                    .any(|row| row.status == "running" && row.request_id != of(world, "a").unwrap().request_id)
            })
            .await;
        assert_eq!(of(&world, &now).unwrap().status, "running", "{now} was overtaken");
        is(&world, &now, "completed").await;
    }
    world.quiet().await;
    replica.stop().await;
}

/// A closed run says once more what nobody has answered: that is no word about the run that is open.
#[tokio::test(start_paused = true)]
async fn a_closed_run_that_speaks_again_does_not_hide_the_open_one() {
    let mut world = world(1_205, 0).await;
    let child = RunId(Uuid::from_u128(
        (0x0100_0000_0000 << 80) | (0x7 << 76) | (0x8 << 60) | 7,
    ));
    let replica = world.replica("r0");
    let Body::StartChild(mut kid) = start_child(child, "once") else {
        unreachable!()
    };
    kid.input = Arc::new(json!({ "fails": 0 }));
    say(&world, "x", 1, None, &Body::StartChild(kid)).await;
    world
        .until("the child has completed", |world| world.closed() == 1)
        .await;
    world.register(WAITS).await;
    start(&world, "waits", "b", 0, ORDINARY).await;
    is(&world, "b", "running").await;
    // With the next look-up it is forgotten what was known of the id.
    let other = subject::start("default", "y", "waits").unwrap();
    world.publish(&other, &[], json!({})).await;
    world.until("it is there", |world| world.rows_of("y").len() == 1).await;
    // Its parent never answers.
    let due = |world: &World| world.rows_of("x")[0].wake_at;
    let first = due(&world);
    assert!(first.is_some());
    world
        .until("the child has spoken again", |world| due(world) != first)
        .await;
    let mut answers = world.bus.subscribe("_INBOX.signal");
    let signal = subject::signal("default", "x", "go").unwrap();
    world
        .publish(&signal, &[(names::REPLY_TO, "_INBOX.signal")], json!(1))
        .await;
    let answer = world.answer(&mut answers).await;
    assert_eq!((answer.stage, answer.error), (AnswerStage::Accepted, None));
    replica.stop().await;
}

/// The next attempt could not be made, so that others were let in: it waits until they have closed.
#[tokio::test(start_paused = true)]
async fn an_attempt_waits_for_who_has_its_id_by_then() {
    for in_line in [false, true] {
        let mut world = world(1_206, 30_000).await;
        world.weather.latency_ms.store(5, std::sync::atomic::Ordering::SeqCst);
        super::BIRTHS_PANIC.set(true);
        let replica = world.replica("r0");
        start(&world, "twice", "a", 1, ORDINARY).await;
        is(&world, "a", "running").await;
        if in_line {
            start(&world, "once", "b", 0, QUEUE).await;
            is(&world, "b", "queued").await;
        }
        is(&world, "a", "failed").await;
        if !in_line {
            start(&world, "once", "b", 0, ORDINARY).await;
        }
        is(&world, "b", "running").await;
        super::BIRTHS_PANIC.set(false);
        replica.kill();
        let heir = world.replica("r1");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(of(&world, "b").unwrap().status, "running");
        let reads = heir.line.reads.load(std::sync::atomic::Ordering::SeqCst);
        assert!(reads < 150, "it waits, and asks the store {reads} times meanwhile");
        is(&world, "b", "completed").await;
        world
            .until("the second attempt has completed", |world| {
                let mut rows = world.rows_of("x").into_iter();
                rows.any(|row| row.attempt == 2 && row.status == "completed")
            })
            .await;
        world.quiet().await;
        assert!(!may_follow(&world).await, "the attempt was last");
        heir.stop().await;
    }
}
