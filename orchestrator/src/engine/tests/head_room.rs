//! Starts do not take the room of results, nor that of another namespace.

use std::time::Duration;

use bytes::Bytes;
use knarr_core::ids::Namespace;
use knarr_schemas::subject;

use super::scripts::{by_log, honest};
use super::world::World;
use crate::bus::{Headers, PublishError};
use crate::store::{NamespaceRow, Store as _};

/// While the store is away starts fill the log up to their share; results by the log are taken all the same.
#[tokio::test(start_paused = true)]
async fn results_find_room_in_a_log_full_of_starts() {
    let mut world = World::new(100).await;
    world.bus.limit_log(200_000);
    let row = NamespaceRow {
        name: Namespace::new("quiet"),
        retention_class: 0,
        events: false,
    };
    world.store.create_namespace(&row).await.unwrap();
    let replica = world.replica("r0");
    for n in 0..5 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 5)
        .await;
    world.store.set_available(false);
    world.work(by_log(honest()));
    let start = |namespace: &str, n: u32| {
        let subject = subject::start(namespace, &format!("f-{n}"), "order").unwrap();
        world
            .bus
            .publish_to_log(&subject, Headers::new(), Bytes::from(vec![b'1'; 400]))
    };
    let mut refused = 0;
    for n in 0..2_000 {
        match start("default", n) {
            Ok(_) => {}
            Err(PublishError::NoStream) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refused > 500, "{refused} of 2000 were refused");
    // The five results have been stored, and somebody else's start is.
    start("quiet", 1).unwrap();
    let result = subject::run_verb("default", "o-1", "result").unwrap();
    world
        .bus
        .publish_to_log(&result, Headers::new(), Bytes::from(vec![b'1'; 30_000]))
        .unwrap();

    world.store.set_available(true);
    world
        .until("the log takes starts again", |world| {
            world.bus.report_idle();
            start("default", 9_999).is_ok()
        })
        .await;
    world
        .until("the five closed", |world| {
            let closed = world.rows();
            closed
                .iter()
                .filter(|row| row.workflow_id.as_str().starts_with("o-") && row.closed_at.is_some())
                .count()
                == 5
        })
        .await;
    replica.stop().await;
}
