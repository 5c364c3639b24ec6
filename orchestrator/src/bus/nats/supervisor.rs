//! What has to happen when the connection comes back, or a stream is seen to be missing: streams and consumers are
//! asserted again, and the open partitions are told.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::bus::Incoming;

/// Between attempts, and at most so often on suspicion.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut link = shared.link.clone();
    let mut epoch = link.borrow_and_update().epoch;
    loop {
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            () = shared.streams.suspected.notified() => {}
        }
        let now = *link.borrow_and_update();
        if !now.up {
            continue;
        }
        if now.epoch != epoch {
            epoch = now.epoch;
            tracing::info!("connected to NATS again");
            for into in shared.senders() {
                // A full channel must not keep the streams from being asserted.
                tokio::spawn(async move {
                    let _ = into.send(Incoming::Reconnected).await;
                });
            }
            shared.advisories.look_again();
        }
        if let Err(error) = shared.streams.assert_again().await {
            tracing::warn!(%error, "the streams could not be asserted");
            shared.streams.suspected.notify_one();
        }
        tokio::time::sleep(PAUSE).await;
    }
}
