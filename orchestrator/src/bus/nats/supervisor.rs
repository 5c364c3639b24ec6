//! What has to happen when the connection comes back, or a stream or a consumer is seen to be missing: streams and consumers are
//! asserted again, and the open partitions are told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::bus::Incoming;

/// After an attempt that failed, at first; doubled up to [`SUSPICION_PAUSE`].
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// On suspicion alone the streams are asserted at most so often: whoever publishes to a stream that is not Knarr's to
/// make raises one with every message.
const SUSPICION_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut link = shared.link.clone();
    let mut epoch = link.borrow_and_update().epoch;
    let mut not_before = Instant::now();
    let mut retry: Option<Duration> = None;
    loop {
        let suspicion = async {
            match retry {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    tokio::time::sleep_until(not_before).await;
                    shared.streams.suspected.notified().await;
                }
            }
        };
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            () = suspicion => {}
        }
        let now = *link.borrow_and_update();
        if !now.up {
            continue;
        }
        if now.epoch != epoch {
            epoch = now.epoch;
            tracing::info!("connected to NATS again");
            for into in shared.inlets() {
                // A full channel must not keep the streams from being asserted.
                tokio::spawn(async move {
                    let _ = into.send(Incoming::Reconnected).await;
                });
            }
            shared.advisories.look_again();
        }
        not_before = Instant::now() + SUSPICION_PAUSE;
        retry = match shared.streams.assert_again().await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, "the streams could not be asserted");
                Some(retry.map_or(RETRY_DELAY, |delay| SUSPICION_PAUSE.min(2 * delay)))
            }
        };
    }
}
