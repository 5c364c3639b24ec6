//! Replicas of two versions in one cluster.

use std::time::Duration;

use super::scripts::honest;
use super::world::World;
use crate::engine::EngineError;
use crate::store::{FORMAT_LEVEL, StoreError};

/// While an older replica runs the newer one writes what it can read, and beyond that once it has gone for good.
#[tokio::test(start_paused = true)]
async fn the_level_rises_when_the_last_old_replica_has_gone() {
    let mut world = World::new(80).await;
    world.work(honest());
    let old = world.replica("r0");
    world.reads_format = FORMAT_LEVEL + 1;
    let new = world.replica("r1");
    for n in 0..6 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("closed", |world| world.closed() == 6).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.format_level().await, FORMAT_LEVEL);
    old.stop().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.format_level().await, FORMAT_LEVEL + 1);

    world.reads_format = FORMAT_LEVEL;
    let refused = world.replica("r0").running.await.unwrap();
    assert!(
        matches!(
            refused,
            Err(EngineError::Store(StoreError::TooOld { level, reads: FORMAT_LEVEL })) if level > FORMAT_LEVEL
        ),
        "{refused:?}"
    );
    for n in 6..12 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("closed", |world| world.closed() == 12).await;
    world.quiet().await;
    new.stop().await;
}

/// A replica that was thought dead while the level rose ends, rather than ask for a session for ever.
#[tokio::test(start_paused = true)]
async fn an_old_replica_that_comes_back_too_late_ends() {
    let mut world = World::new(81).await;
    let old = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.reads_format = FORMAT_LEVEL + 1;
    let new = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Longer than the lease in which nothing of the old one arrives.
    old.line.stall(Duration::from_secs(4));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.format_level().await, FORMAT_LEVEL + 1);
    let ended = tokio::time::timeout(Duration::from_secs(30), old.running).await;
    let ended = ended.expect("the old replica goes on").unwrap();
    assert!(
        matches!(ended, Err(EngineError::Store(StoreError::TooOld { .. }))),
        "{ended:?}"
    );
    new.stop().await;
}
