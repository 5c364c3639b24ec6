//! Task queues are as the store says, whichever replica was told.

use std::time::Duration;

use knarr_core::ids::{Namespace, QueueName};
use knarr_core::time::Span;

use super::world::World;
use crate::store::{QueueRow, Store as _};

/// The replica that answered whoever said it may have died before it could tell the bus, or another may have said last what it
/// knew from before.
#[tokio::test(start_paused = true)]
async fn a_lease_that_was_said_elsewhere_is_asserted() {
    let mut world = World::new(101).await;
    let replica = world.replica("r0");
    world
        .until("made", |world| world.bus.ack_wait("default", "orders").is_some())
        .await;
    for seconds in [600, 40] {
        let row = QueueRow {
            namespace: Namespace::new("default"),
            queue: QueueName::new("orders"),
            max_concurrent: None,
            rate: None,
            ack_wait: Some(Span::from_secs(seconds)),
        };
        world.store.set_queue(&row).await.unwrap();
        let lease = Some(Duration::from_secs(seconds));
        world
            .within(Duration::from_secs(30), "asserted", |world| {
                world.bus.ack_wait("default", "orders") == lease
            })
            .await;
    }
    world.quiet().await;
    replica.stop().await;
}
