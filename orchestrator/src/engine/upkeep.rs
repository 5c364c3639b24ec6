//! What has to be done at the start and now and then, beside the loop: seeing to the task queues, letting the log forget
//! what is committed, and making partitions of `events` ahead of their days. Every replica does it; doing it twice is
//! harmless.

use std::sync::Arc;
use std::time::Duration;

use knarr_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::queues;
use crate::bus::Bus;
use crate::store::Store;

const PURGE_EVERY: Duration = Duration::from_secs(5);
/// In rounds of purging.
const PARTITIONS_EVERY: u32 = 720;

pub(super) async fn run<S: Store, B: Bus>(store: Arc<S>, bus: Arc<B>, stop: CancellationToken) {
    let mut round: u32 = 0;
    let mut ensured = false;
    loop {
        if !ensured {
            match queues::ensure_all(&*store, &*bus).await {
                Ok(()) => ensured = true,
                Err(error) => tracing::warn!(%error, "the task queues cannot be made yet"),
            }
        }
        if round.is_multiple_of(PARTITIONS_EVERY)
            && let Err(error) = make_partitions(&*store).await
        {
            tracing::warn!(%error, "partitions of events cannot be made ahead; commits go on without them");
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PURGE_EVERY) => {}
        }
        match store.all_cursors().await {
            Ok(cursors) => {
                let cursors: Vec<_> = cursors
                    .into_iter()
                    .map(|owned| (owned.partition, owned.cursor))
                    .collect();
                if let Err(error) = bus.purge_log(&cursors).await {
                    tracing::debug!(%error, "the log is not purged this time");
                }
            }
            Err(error) => tracing::debug!(%error, "the cursors cannot be read; the log is not purged this time"),
        }
    }
}

async fn make_partitions<S: Store>(store: &S) -> Result<(), crate::store::StoreError> {
    let now: Timestamp = store.now().await?;
    store.ensure_partitions(now).await
}
