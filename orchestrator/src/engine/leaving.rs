//! The end: nothing more is taken, what was taken is committed and published, the session is given up.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::run_loop::{Done, Loop};
use crate::bus::Bus;
use crate::store::{Batch, Store};

/// For the last commits; what is not committed by then comes again to whoever takes over.
const STOP_WITHIN: Duration = Duration::from_secs(5);

impl<S: Store, B: Bus> Loop<S, B> {
    /// Begins the end: nothing more is taken, what was taken is committed.
    pub(super) fn stop(&mut self) {
        tracing::info!("stopping: handing over");
        self.stopping = true;
        self.stop_by = Some(Instant::now() + STOP_WITHIN);
        for partition in self.readers.opened() {
            drop(self.readers.close(&self.bus, &self.tasks, partition));
        }
    }

    /// Waits for publications, a while, and ends the session.
    pub(super) async fn leave(mut self, mut reports: mpsc::UnboundedReceiver<Done>) {
        self.tasks.close();
        let publishing = self.tasks.wait();
        if tokio::time::timeout(Duration::from_secs(3), publishing).await.is_err() {
            // The commit's row stays: whoever takes over publishes again.
            self.publisher.stop.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
        while let Ok(report) = reports.try_recv() {
            if let Done::Published(Some(published)) = report {
                self.publication_ended(published);
            }
        }
        let ending = async {
            if !self.published.is_empty() && self.committing.is_none() && !self.recovering {
                let batch = Batch {
                    published: std::mem::take(&mut self.published),
                    ..Batch::default()
                };
                // If it fails they are published once more.
                let _ = self.store.commit(&self.session, &batch).await;
            }
            self.store.close_session(&self.session).await
        };
        match tokio::time::timeout(Duration::from_secs(3), ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the session could not be ended; its lease will"),
            Err(_) => tracing::warn!("the session could not be ended in time; its lease will"),
        }
    }
}
