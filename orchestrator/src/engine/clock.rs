//! `now`: the database's clock by offset, carried on by this machine's monotonic clock, never going back.

use knarr_core::time::Timestamp;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Clock {
    base: Timestamp,
    since: Instant,
    last: Timestamp,
}

impl Clock {
    /// `database` was read at about `at`, by this machine's monotonic clock.
    pub(super) fn new(database: Timestamp, at: Instant) -> Self {
        Self {
            base: database,
            since: at,
            last: database,
        }
    }

    pub(super) fn now(&mut self) -> Timestamp {
        let elapsed = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.last = self.last.max(Timestamp(self.base.0.saturating_add(elapsed)));
        self.last
    }

    /// Follows the database's clock; where it is behind, time stands still until it has caught up.
    pub(super) fn adjust(&mut self, database: Timestamp, at: Instant) {
        self.base = database;
        self.since = at;
    }

    /// How long to sleep until `at`.
    pub(super) fn until(&mut self, at: Timestamp) -> std::time::Duration {
        at.since(self.now()).into()
    }
}
