//! `now`: the database's clock by offset, carried on by this machine's monotonic clock, never going back.
//!
//! A database that fails over to a host with another time, or a time server that is wrong for a moment, must not let every
//! deadline pass at once, nor keep any from passing. So a step is believed only when several readings in a row agree on it;
//! one forward is taken then, with a warning, and one backward by going at half the pace until the database has caught up.

use knarr_core::time::Timestamp;
use tokio::time::Instant;

/// Differences up to this are those of a network, and followed at once. In microseconds.
const JITTER_US: i64 = 500_000;
/// So many readings in a row have to agree on a step: about three seconds of renewals.
const READINGS: u32 = 6;

#[derive(Debug)]
pub(super) struct Clock {
    base: Timestamp,
    since: Instant,
    last: Timestamp,
    step: Option<Step>,
    /// What was last said and when, while that is ahead of the database.
    ahead: Option<(Timestamp, Instant)>,
}

/// A step that is not yet believed.
#[derive(Debug)]
struct Step {
    by_us: i64,
    readings: u32,
}

impl Clock {
    /// `database` was read at about `at`, by this machine's monotonic clock.
    pub(super) fn new(database: Timestamp, at: Instant) -> Self {
        Self {
            base: database,
            since: at,
            last: database,
            step: None,
            ahead: None,
        }
    }

    pub(super) fn now(&mut self) -> Timestamp {
        let now = Instant::now();
        let mut time = self.carried_on(now);
        if let Some((from, at)) = self.ahead {
            let slowed = Timestamp(from.0.saturating_add(micros(at, now) / 2));
            if time >= slowed {
                self.ahead = None;
            } else {
                time = slowed;
            }
        }
        self.last = self.last.max(time);
        self.last
    }

    /// Follows the database's clock, read at about `at`.
    pub(super) fn adjust(&mut self, database: Timestamp, at: Instant) {
        let off = database.0.saturating_sub(self.carried_on(at).0);
        if off.saturating_abs() <= JITTER_US {
            self.step = None;
        } else {
            let readings = match &self.step {
                Some(step) if step.by_us.saturating_sub(off).saturating_abs() <= JITTER_US => step.readings + 1,
                _ => 1,
            };
            if readings < READINGS {
                self.step = Some(Step { by_us: off, readings });
                return;
            }
            self.step = None;
            tracing::warn!(
                seconds = off / 1_000_000,
                "the database's clock has made a step; deadlines follow it"
            );
            if off < 0 {
                self.ahead = Some((self.now(), Instant::now()));
            }
        }
        self.base = database;
        self.since = at;
    }

    /// How long to sleep until `at`, at least.
    pub(super) fn until(&mut self, at: Timestamp) -> std::time::Duration {
        let left: std::time::Duration = at.since(self.now()).into();
        if self.ahead.is_some() { left * 2 } else { left }
    }

    fn carried_on(&self, at: Instant) -> Timestamp {
        Timestamp(self.base.0.saturating_add(micros(self.since, at)))
    }
}

fn micros(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const KEEP: Duration = Duration::from_millis(500);

    /// Time has passed and the database was read, off by so many microseconds.
    async fn keep(clock: &mut Clock, began: Instant, off_us: i64) {
        tokio::time::advance(KEEP).await;
        let now = Instant::now();
        clock.adjust(Timestamp(micros(began, now) + off_us), now);
    }

    #[tokio::test(start_paused = true)]
    async fn one_reading_that_is_far_off_changes_nothing() {
        let began = Instant::now();
        let mut clock = Clock::new(Timestamp(0), began);
        for off in [600 * SECOND, 0, -600 * SECOND, 0] {
            keep(&mut clock, began, off).await;
            assert_eq!(clock.now().0, micros(began, Instant::now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_is_followed_and_one_microsecond_more_is_a_step() {
        let began = Instant::now();
        let mut clock = Clock::new(Timestamp(0), began);
        keep(&mut clock, began, JITTER_US + 1).await;
        assert_eq!(clock.now().0, micros(began, Instant::now()));
        keep(&mut clock, began, JITTER_US).await;
        assert_eq!(clock.now().0, micros(began, Instant::now()) + JITTER_US);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_taken_when_readings_agree_and_undone_without_standing_still() {
        let began = Instant::now();
        let mut clock = Clock::new(Timestamp(0), began);
        for _ in 1..READINGS {
            keep(&mut clock, began, 600 * SECOND).await;
            assert_eq!(clock.now().0, micros(began, Instant::now()));
        }
        keep(&mut clock, began, 600 * SECOND).await;
        let ahead = clock.now();
        assert_eq!(ahead.0, micros(began, Instant::now()) + 600 * SECOND);

        for _ in 0..READINGS {
            keep(&mut clock, began, 0).await;
        }
        let corrected = clock.now();
        assert!(corrected > ahead);
        let deadline = corrected.plus(knarr_core::time::Span::from_secs(10));
        assert_eq!(clock.until(deadline), Duration::from_secs(20));
        for _ in 0..40 {
            keep(&mut clock, began, 0).await;
        }
        assert_eq!(clock.now(), deadline);
        // Twice the step later both are together again.
        for _ in 0..2_400 {
            keep(&mut clock, began, 0).await;
        }
        let now = clock.now();
        assert_eq!(now.0, micros(began, Instant::now()));
        assert_eq!(clock.until(Timestamp(now.0 + SECOND)), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn readings_that_disagree_are_counted_anew() {
        let began = Instant::now();
        let mut clock = Clock::new(Timestamp(0), began);
        for round in 0..i64::from(READINGS) * 2 {
            keep(&mut clock, began, (round + 2) * 600 * SECOND).await;
            assert_eq!(clock.now().0, micros(began, Instant::now()));
        }
    }
}
