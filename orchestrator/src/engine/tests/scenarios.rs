//! One fault at a time.

use std::sync::Arc;

use super::world::{World, done, failed};

#[tokio::test(start_paused = true)]
async fn an_order_succeeds() {
    let mut world = World::new(1).await;
    let replica = world.replica("r0");
    world.work(Arc::new(|_| done()));
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    assert_eq!(world.statuses()["o-1"], "completed");
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_fails_is_undone() {
    let mut world = World::new(1).await;
    let replica = world.replica("r0");
    world.work(Arc::new(|task| match task.activity {
        "reserve-inventory" => failed(),
        _ => done(),
    }));
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    assert_eq!(world.statuses()["o-1"], "compensated");
    replica.stop().await;
}
