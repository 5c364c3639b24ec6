//! The pace of a rate: the generic cell rate algorithm (ITU-T I.371), a bucket of tokens as one point in time.
//!
//! Every grant moves the point on by the interval between two; who comes while it is ahead of now waits until it is no
//! further ahead than the slack. The slack, a tenth of the stretch, lets what was late be caught up with, so that the rate
//! is reached though no timer is exact; after a pause it lets as much through at once: a tenth of the limit, and one. What is
//! later than the slack is lost: with a twentieth a replica that wakes 90 ms late would reach 30 of 50 a second.

use super::ask::Rate;
use crate::time::{Span, Timestamp};

/// So much the clock of a new owner may be behind that of the last one.
const SKEW: Span = Span::from_secs(1);

impl Rate {
    fn interval(self) -> Span {
        Span(self.per.0.div_ceil(u64::from(self.limit.max(1))).max(1))
    }

    fn slack(self) -> Span {
        Span(self.per.0 / 10)
    }

    /// The point as far ahead as this rate can have brought it: what is further comes from a slower one, or from a clock that
    /// has been put back since.
    pub(super) fn within_reach(self, point: Timestamp, now: Timestamp) -> Timestamp {
        point.min(now.plus(self.interval()).plus(self.slack()).plus(SKEW))
    }

    /// The point after one more grant, or from when there can be one.
    pub(super) fn take(self, point: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Timestamp> {
        let from = self.from(point);
        if from > now {
            return Err(from);
        }
        Ok(point.map_or(now, |point| point.max(now)).plus(self.interval()))
    }

    /// From when one more may be granted.
    pub(super) fn from(self, point: Option<Timestamp>) -> Timestamp {
        let slack = i64::try_from(self.slack().0).unwrap_or(i64::MAX);
        point.map_or(Timestamp(i64::MIN), |point| Timestamp(point.0.saturating_sub(slack)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(rate: Rate, late: i64, until: i64) -> Vec<i64> {
        let (mut point, mut now, mut at) = (None, 0, Vec::new());
        while now < until {
            match rate.take(point, Timestamp(now)) {
                Ok(next) => {
                    point = Some(next);
                    at.push(now);
                }
                Err(from) => now = from.0 + late,
            }
        }
        at
    }

    #[test]
    fn a_rate_is_reached_though_every_wake_up_is_late_and_never_passed_by_more_than_a_tenth() {
        for (limit, late) in [
            (1, 0),
            (3, 30_000),
            (10, 20_000),
            (50, 10_000),
            (50, 90_000),
            (1_000, 5_000),
            (100_000, 2_000),
        ] {
            let rate = Rate {
                limit,
                per: Span::from_secs(1),
            };
            let at = grants(rate, late, 10_000_000);
            let most = limit as usize * 11 / 10 + 1;
            let mut first = 0;
            for (last, to) in at.iter().enumerate() {
                while at[first] + 1_000_000 <= *to {
                    first += 1;
                }
                assert!(last - first < most, "{limit}: {} in a second", last - first + 1);
            }
            let reached = at.len() as f64 / 10.0 / f64::from(limit);
            assert!((0.99..=1.2).contains(&reached), "{limit}: {reached}");
        }
    }
}
