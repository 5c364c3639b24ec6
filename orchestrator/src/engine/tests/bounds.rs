//! What a replica keeps in memory is bounded in bytes, whatever is sent to it and however fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use knarr_schemas::body::AnswerStage;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::{Act, World, done};

const MIB: usize = 1 << 20;
/// As large as a body may be, nearly.
const LARGE: usize = 900 << 10;

/// Starts and results as large as they may be, many at once, through bounds of a few megabytes: nothing is lost, and what is
/// kept stays within them.
#[tokio::test(start_paused = true)]
async fn a_flood_of_large_starts_and_results_stays_within_the_bounds() {
    let mut world = World::new(110).await;
    world.config.intake_bytes = 16 * MIB;
    world.config.direct_bytes = 8 * MIB;
    world.config.live_bytes = 8 * MIB;
    world.config.publish_bytes = 8 * MIB;
    world.config.batch_bytes = 4 * MIB;
    world.weather.latency_ms.store(5, Ordering::SeqCst);
    let replica = world.replica("r0");
    let output = "o".repeat(LARGE);
    world.work(Arc::new(move |_| Act {
        output: Some(json!(output)),
        ..done()
    }));
    let input = "i".repeat(LARGE);
    super::most_kept();
    for n in 0..16 {
        let subject = subject::start("default", &format!("o-{n}"), "order").unwrap();
        world.publish(&subject, &[], json!({ "large": input })).await;
    }
    world.until("closed", |world| world.closed() == 16).await;
    world.quiet().await;
    let most = super::most_kept();
    let one = 3 * MIB;
    assert!(most.intake.log > one && most.intake.log <= 16 * MIB, "{most:?}");
    assert!(most.intake.direct > MIB && most.intake.direct <= 8 * MIB, "{most:?}");
    // Of the batch that commits and the one that is built, each with an input more than it may have.
    let pinned = 2 * (2 * 4 * MIB + 2 * one);
    assert!(most.live_bytes > one && most.live_bytes <= 8 * MIB + pinned, "{most:?}");
    assert!(
        most.publishing_bytes > MIB && most.publishing_bytes <= 8 * MIB + 4 * MIB + one,
        "{most:?}"
    );
    assert!(world.bus.dead_letters().is_empty());
    replica.stop().await;
}

/// What the direct inlet has no room for is dropped; its worker hands in again, then by the log, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_result_that_was_dropped_is_handed_in_again() {
    let mut world = World::new(111).await;
    // Room for one at a time in each partition's share.
    world.config.direct_bytes = 4;
    world.weather.latency_ms.store(5, Ordering::SeqCst);
    let replica = world.replica("r0");
    let longest = Arc::new(AtomicU64::new(0));
    world.watch_hand_in(&longest);
    world.work(honest());
    for n in 0..60 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("closed", |world| world.closed() == 60).await;
    assert!(longest.load(Ordering::SeqCst) >= 1_000, "nothing was dropped");
    assert!(world.statuses().values().all(|status| status == "completed"));
    world.quiet().await;
    replica.stop().await;
}

/// Publications that are put off are read from the store; who waits for the end of a run hears of it all the same.
#[tokio::test(start_paused = true)]
async fn publications_that_are_put_off_go_out() {
    let mut world = World::new(112).await;
    world.config.publish_bytes = 1;
    world.config.batch_inputs = 2;
    world.weather.latency_ms.store(20, Ordering::SeqCst);
    let replica = world.replica("r0");
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    world.work(honest());
    super::most_kept();
    for n in 0..30 {
        let headers = [(names::REPLY_TO, "_INBOX.caller"), (names::REPLY_ON, "closed")];
        world.start(&format!("o-{n}"), &headers).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 30 {
        let answer = world.answer(&mut inbox).await;
        assert_eq!(answer.stage, AnswerStage::Closed);
        answered.insert(answer.workflow_id);
    }
    assert_eq!(world.closed(), 30);
    world.quiet().await;
    let most = super::most_kept();
    assert!(most.publishing_bytes < 20_000, "{most:?}");
    replica.stop().await;
}

/// Runs leave the memory by what they weigh, as they do by their number.
#[tokio::test(start_paused = true)]
async fn runs_leave_the_memory_by_their_weight() {
    for (live_bytes, stay) in [(usize::MAX, 10), (0, 0)] {
        let mut world = World::new(113).await;
        world.config.live_bytes = live_bytes;
        let replica = world.replica("r0");
        for n in 0..10 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world
            .until("dispatched", |world| world.bus.task_count("default") == 10)
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(super::live(), stay);
        let most = super::most_kept();
        assert!(most.live_bytes > 10 * 2_048, "{most:?}");
        world.work(honest());
        world.until("closed", |world| world.closed() == 10).await;
        world.quiet().await;
        assert_eq!(super::live(), 0);
        replica.stop().await;
    }
}

const SLEEP: &str = r#"
workflow: sleep
version: 1
steps:
  - sleep: { wait: 10s }
"#;

/// Whatever has come due meanwhile, so much of it is taken into memory at once and no more; all of it wakes, whether its runs
/// are found by a new owner or had to leave the memory of the old one.
#[tokio::test(start_paused = true)]
async fn deadlines_are_taken_page_by_page() {
    for dies in [true, false] {
        let mut world = World::new(114).await;
        world.config.deadline_page = 3;
        world.config.live_runs = 2;
        world.config.batch_inputs = 4;
        world.register(SLEEP).await;
        let mut replica = world.replica("r0");
        for n in 0..100 {
            let subject = subject::start("default", &format!("s-{n}"), "sleep").unwrap();
            world.publish(&subject, &[], json!({})).await;
        }
        world.until("started", |world| world.rows().len() == 100).await;
        if dies {
            replica.kill();
            tokio::time::sleep(Duration::from_secs(20)).await;
            super::most_kept();
            replica = world.replica("r1");
        }
        world
            .within(Duration::from_secs(60), "awake", |world| world.closed() == 100)
            .await;
        let most = super::most_kept();
        // Four pages, and the one that was under way.
        assert!(most.asleep >= 3 && most.asleep <= 15, "{most:?}");
        world.quiet().await;
        replica.stop().await;
    }
}
