//! A task that somebody owns.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Ends its task when it is told to, or when it is dropped.
#[derive(Debug)]
pub(super) struct TaskHandle {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TaskHandle {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            token.run_until_cancelled(work).await;
        });
        Self { stop, task }
    }

    /// For work that has something to bring to its end: it is told, and is waited for.
    pub(super) fn spawn_with<W: Future<Output = ()> + Send + 'static>(
        work: impl FnOnce(CancellationToken) -> W,
    ) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(stop.clone()));
        Self { stop, task }
    }

    /// Returns when the task has ended.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
