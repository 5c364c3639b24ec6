//! Ending well: handlers finish, results are confirmed, and what cannot be waited for is given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::flight::{Flight, NAK, State};

/// Beyond the grace: results that are handed in are worth waiting for a little longer.
const CONFIRM_GRACE: Duration = Duration::from_secs(5);

/// Aborts what still runs when a worker is dropped instead of drained; for its tasks that is a crash.
pub(crate) struct AbortOnDrop(pub(crate) Arc<Flight>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        for entry in self.0.entries().values() {
            if let State::Running { abort, .. } = &entry.state {
                abort.abort();
            }
        }
    }
}

/// Waits for handlers up to `grace`, stops those that are left and gives their tasks back, then waits for confirmations.
pub(crate) async fn drain(flight: &Arc<Flight>, grace: Duration) {
    let end = Instant::now() + grace;
    if !until(flight, end, || flight.running() == 0).await {
        stop_handlers(flight).await;
    }
    let end = end.max(Instant::now() + CONFIRM_GRACE);
    if !until(flight, end, || flight.entries().is_empty()).await {
        let left = flight.entries().len();
        tracing::warn!(left, "results are not confirmed; their tasks will be delivered again");
    }
    // Acknowledgements are only enqueued until here.
    if tokio::time::timeout(CONFIRM_GRACE, flight.client.flush())
        .await
        .is_err()
    {
        tracing::debug!("the last acknowledgements may not have been sent");
    }
}

/// Whether `done` came true before `end`.
async fn until(flight: &Flight, end: Instant, done: impl Fn() -> bool) -> bool {
    loop {
        let changed = flight.changed.notified();
        tokio::pin!(changed);
        // Registered before looking, so that no change is missed.
        changed.as_mut().enable();
        if done() {
            return true;
        }
        if tokio::time::timeout_at(end, changed).await.is_err() {
            return done();
        }
    }
}

async fn stop_handlers(flight: &Flight) {
    let mut given_back = Vec::new();
    flight.entries().retain(|_, entry| match &entry.state {
        State::Running { abort, .. } => {
            abort.abort();
            entry.task.cancelled.cancel();
            given_back.push(entry.ack.clone());
            false
        }
        // Whatever is granted from here on is given to nobody, and ends unknown.
        State::Claiming { .. } => {
            flight.slot_free();
            given_back.push(entry.ack.clone());
            false
        }
        State::HandedIn { .. } => true,
    });
    tracing::warn!(
        stopped = given_back.len(),
        "handlers were stopped at the end of the grace; their tasks are given back"
    );
    let telling = async {
        for ack in given_back {
            flight.tell(ack, NAK).await;
        }
    };
    if tokio::time::timeout(CONFIRM_GRACE, telling).await.is_err() {
        tracing::debug!("not every task could be given back; the rest is delivered again when its lease ends");
    }
}
