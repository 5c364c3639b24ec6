//! How the log's clock stands against the store's.
//!
//! A message says by the log's clock when it came; what follows from it is due by the store's. The two are hosts' clocks and may be
//! apart by seconds, and a delay that is counted from the one and looked at by the other would be over early by as much. Whatever the
//! log's clock said was not before now when it was heard of: the greatest lead of what was said lately is the nearest to the
//! truth, and never beyond it. So a message has come, by the store's clock, when this says, or earlier.
//!
//! Where the log's clock is put back, what was seen before misleads for two [`WINDOW`]s of traffic.

use knarr_core::time::{Span, Timestamp};

/// What was seen is forgotten after one to two of these.
const WINDOW: Span = Span::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct LogClock {
    /// The store's clock, as it was said last.
    now: Timestamp,
    /// Microseconds that the log's clock is ahead, at least: in this window, and in the one before.
    ahead: Option<i64>,
    before: Option<i64>,
    since: Timestamp,
}

impl LogClock {
    pub(super) fn pass(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The log's clock has said `at`, now or before.
    pub(super) fn see(&mut self, at: Timestamp, now: Timestamp) {
        self.pass(now);
        if now.since(self.since) >= WINDOW {
            self.before = self.ahead.take();
            self.since = now;
        }
        let ahead = at.0.saturating_sub(now.0);
        self.ahead = Some(self.ahead.map_or(ahead, |known| known.max(ahead)));
    }

    /// A moment of the log's clock by the store's, or a later one, but none to come.
    pub(super) fn of_store(&self, at: Timestamp) -> Timestamp {
        match self.ahead.max(self.before) {
            Some(ahead) => Timestamp(at.0.saturating_sub(ahead)).min(self.now),
            None => self.now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * SECOND)
    }

    /// The log's clock is so far ahead, and a message is heard of a second after it came.
    #[test]
    fn a_moment_of_the_log_is_never_taken_for_an_earlier_one() {
        for ahead in [-500, -5, 0, 5, 500] {
            let mut clock = LogClock::default();
            let log = |seconds: i64| at(seconds + ahead);
            // Nothing is known yet: it may have come just now.
            clock.pass(at(1_000));
            assert_eq!(clock.of_store(log(900)), at(1_000));
            // One that has waited says little, and the clock itself all.
            clock.see(log(900), at(1_000));
            assert_eq!(clock.of_store(log(900)), at(1_000));
            clock.see(log(1_000), at(1_001));
            assert_eq!(clock.of_store(log(900)), at(901));
            clock.see(log(1_001), at(1_001));
            assert_eq!(clock.of_store(log(900)), at(900));
            // What says less takes nothing away, until that is long ago.
            for second in 1_002..1_061 {
                clock.see(log(second - 7), at(second));
                assert_eq!(clock.of_store(log(second)), at(second));
            }
            for second in 1_061..1_200 {
                clock.see(log(second - 7), at(second));
            }
            assert_eq!(clock.of_store(log(1_100)), at(1_107));
            // Nothing comes from what is to be.
            assert_eq!(clock.of_store(log(1_300)), at(1_199));
        }
    }
}
