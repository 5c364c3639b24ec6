//! Opening and closing the bus's readers of partitions, each partition's steps in the order in which they were asked for.
//!
//! **Invariant:** an opening that has been superseded never takes effect after its successor, however long it was retried.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::bus::inlet::Inlet;
use crate::store::Cursor;

/// What is to be done with a partition's reader.
pub(super) struct Opening {
    pub(super) partition: i16,
    pub(super) cursor: Cursor,
    pub(super) reader: u64,
    pub(super) into: Inlet,
}

#[derive(Debug, Default)]
pub(super) struct Readers {
    last: HashMap<i16, Step>,
}

#[derive(Debug)]
struct Step {
    opens: bool,
    /// Ends its retries.
    superseded: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Readers {
    pub(super) fn open<B: Bus>(&mut self, bus: &Arc<B>, tasks: &TaskTracker, opening: Opening) {
        let bus = Arc::clone(bus);
        let Opening {
            partition,
            cursor,
            reader,
            into,
        } = opening;
        let (before, superseded, ended) = self.step(partition, true);
        tasks.spawn(async move {
            wait_for(before).await;
            while !superseded.is_cancelled() && !into.is_closed() {
                let Err(error) = bus
                    .open_partition(partition, cursor.clone(), reader, into.clone())
                    .await
                else {
                    break;
                };
                tracing::warn!(%error, partition, "the log of a partition cannot be opened yet");
                let pause = tokio::time::sleep(Duration::from_millis(250));
                superseded.run_until_cancelled(pause).await;
            }
            let _ = ended.send(());
        });
    }

    /// Resolves when nothing of the partition is handed over any more.
    pub(super) fn close<B: Bus>(
        &mut self,
        bus: &Arc<B>,
        tasks: &TaskTracker,
        partition: i16,
    ) -> impl Future<Output = ()> + Send + use<B> {
        let bus = Arc::clone(bus);
        let (before, _, ended) = self.step(partition, false);
        let closing = tasks.spawn(async move {
            wait_for(before).await;
            bus.close_partition(partition).await;
            let _ = ended.send(());
        });
        async move {
            let _ = closing.await;
        }
    }

    /// The partitions that are open, or are to be.
    pub(super) fn opened(&self) -> Vec<i16> {
        let open = self.last.iter().filter(|(_, step)| step.opens);
        open.map(|(partition, _)| *partition).collect()
    }

    fn step(
        &mut self,
        partition: i16,
        opens: bool,
    ) -> (Option<oneshot::Receiver<()>>, CancellationToken, oneshot::Sender<()>) {
        let (sender, ended) = oneshot::channel();
        let superseded = CancellationToken::new();
        let step = Step {
            opens,
            superseded: superseded.clone(),
            ended,
        };
        let before = self.last.insert(partition, step).map(|before| {
            before.superseded.cancel();
            before.ended
        });
        (before, superseded, sender)
    }
}

/// A step that was dropped with its runtime has ended as well.
async fn wait_for(before: Option<oneshot::Receiver<()>>) {
    if let Some(before) = before {
        let _ = before.await;
    }
}
