//! Work beside the loop, which always reports: where it panics, what was prepared for that case is reported for it.
//!
//! **Invariant:** the loop never waits for a report that does not come. It knows one thing of each kind to be under way, and
//! what never ends would keep it from beginning the next.

use tokio::sync::mpsc;

use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::Store;

struct Report {
    done: mpsc::UnboundedSender<Done>,
    otherwise: Option<Done>,
}

impl Report {
    fn send(mut self, done: Done) {
        self.otherwise = Some(done);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("work beside the loop panicked; this is a mistake in Knarr, and the work is done again");
        }
        if let Some(done) = self.otherwise.take() {
            // The loop may have ended.
            let _ = self.done.send(done);
        }
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Spawns `work`; the loop is told what it returns, or `otherwise` if it does not.
    pub(super) fn beside(&self, otherwise: Done, work: impl Future<Output = Done> + Send + 'static) {
        let report = Report {
            done: self.done.clone(),
            otherwise: Some(otherwise),
        };
        self.tasks.spawn(async move {
            report.send(work.await);
        });
    }
}
