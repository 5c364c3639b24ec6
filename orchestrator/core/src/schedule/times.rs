//! The moments a schedule names: the union of its calendars and intervals, without what is excluded, within its bounds.
//!
//! A moment is a whole second, the *nominal time* of an occurrence. Where a zone skips local times, those of a calendar move to
//! the moment at which the clocks are put forward (`gap: shift`) or do not exist (`skip`). Where local times come twice, a
//! calendar means the first (`overlap: first`) or `both`; one that is meant for every hour means both unless it is told. Such a one
//! is never shifted: it goes by the clock, and would occur once too often (Vixie cron, cron(8): jobs at certain times are made up for,
//! those that run more often than that are scheduled normally; it tells them by a star, as here).

use super::calendar::Calendar;
use super::zone::Zone;
use crate::time::{Span, Timestamp};
use sha2::{Digest as _, Sha256};

/// What one question may cost, in steps of an interval: a schedule of which nothing is found for that is taken to name nothing
/// more. Whoever asks must not be held up by what somebody has written. Days that are excluded as a whole take one look each,
/// and a calendar with an exclusion has some 20,000 looks.
const MAX_WORK: u64 = 640_000;
/// The same of a walk over many moments.
const MAX_WALK: u64 = 4 * MAX_WORK;
/// Of a step in a calendar, or of finding the stretch of a zone.
const CALENDAR: u64 = 16;
/// Nothing is named later; the last year that calendars know.
const END: i64 = 4_102_444_800;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gap {
    #[default]
    Shift,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    First,
    Both,
}

/// One rule among those that are joined.
#[derive(Debug, Clone)]
pub enum Source {
    Calendar(Box<Calendar>),
    /// Every so many seconds since the epoch, so many later.
    Interval {
        every: i64,
        phase: i64,
    },
}

/// The moments of a schedule.
#[derive(Debug, Clone)]
pub struct Times {
    pub sources: Vec<Source>,
    pub exclude: Vec<Calendar>,
    pub zone: Zone,
    pub gap: Gap,
    /// `None` = by the calendar.
    pub fold: Option<Fold>,
    /// Inclusive.
    pub start_at: Option<Timestamp>,
    /// Inclusive.
    pub end_at: Option<Timestamp>,
    /// An occurrence fires up to so much after its nominal time.
    pub jitter: Span,
}

/// How far a walk over nominal times has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    pub count: usize,
    /// The last one of them, or where the walk began.
    pub last: Timestamp,
    /// `false` = there may be more of them.
    pub whole: bool,
}

/// What may still be spent.
#[derive(Debug)]
struct Work(u64);

impl Work {
    fn spend(&mut self, steps: u64) {
        self.0 = self.0.saturating_sub(steps);
    }

    fn is_over(&self) -> bool {
        self.0 == 0
    }
}

impl Times {
    /// The first nominal time after this moment, if there is one.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_within(after, &mut Work(MAX_WORK))
    }

    fn next_within(&self, after: Timestamp, work: &mut Work) -> Option<Timestamp> {
        let mut from = after.0.div_euclid(1_000_000).saturating_add(1).max(0);
        if let Some(start) = self.start_at {
            from = from.max(start.0.saturating_add(999_999).div_euclid(1_000_000));
        }
        let end = self
            .end_at
            .map_or(END, |end| end.0.div_euclid(1_000_000).min(END - 1) + 1);
        // What each source names next: who is ahead is not asked again.
        let mut ahead = vec![i64::MIN; self.sources.len()];
        while from < end {
            for (source, next) in self.sources.iter().zip(&mut ahead) {
                if *next < from {
                    *next = self.next_of(source, from, work).unwrap_or(i64::MAX);
                }
            }
            if work.is_over() {
                return None;
            }
            let next = ahead.iter().copied().min().filter(|next| *next < end)?;
            work.spend(self.look());
            match self.excluded_until(next) {
                None => return Some(Timestamp(next.saturating_mul(1_000_000))),
                Some(until) => from = until,
            }
        }
        None
    }

    /// Nominal times after `after` up to and including `until`, in order.
    pub fn between(&self, after: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        let mut last = after;
        std::iter::from_fn(move || {
            last = self.next_after(last).filter(|next| *next <= until)?;
            Some(last)
        })
    }

    /// Walks over those after `after` that are meant, up to so many, in bounded time.
    pub fn walk(&self, after: Timestamp, most: usize, meant: impl Fn(Timestamp) -> bool) -> Walk {
        let mut work = Work(MAX_WALK);
        let mut walk = Walk {
            count: 0,
            last: after,
            whole: false,
        };
        while walk.count < most {
            match self.next_within(walk.last, &mut work) {
                Some(nominal) if meant(nominal) => {
                    walk.count += 1;
                    walk.last = nominal;
                }
                other => {
                    walk.whole = other.is_some() || !work.is_over();
                    return walk;
                }
            }
        }
        walk
    }

    /// When an occurrence is due: its nominal time and a part of the jitter that follows from the schedule's name and that time,
    /// and never reaches the next nominal time.
    pub fn fires_at(&self, schedule: &str, nominal: Timestamp) -> Timestamp {
        if self.jitter == Span::ZERO {
            return nominal;
        }
        let room = self.next_after(nominal).map_or(self.jitter, |next| next.since(nominal));
        let width = self.jitter.min(room).0.max(1);
        let digest = Sha256::new()
            .chain_update(schedule.as_bytes())
            .chain_update(nominal.0.to_be_bytes())
            .finalize();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        nominal.plus(Span(u64::from_be_bytes(bytes) % width))
    }

    /// What a look at what is excluded costs.
    fn look(&self) -> u64 {
        match self.exclude.len() {
            0 => 0,
            n => CALENDAR + n as u64,
        }
    }

    fn next_of(&self, source: &Source, from: i64, work: &mut Work) -> Option<i64> {
        match source {
            Source::Interval { every, phase } => {
                work.spend(1);
                let since = from.saturating_sub(*phase);
                let periods = since.div_euclid(*every) + i64::from(since.rem_euclid(*every) > 0);
                Some(periods.saturating_mul(*every).saturating_add(*phase))
            }
            Source::Calendar(calendar) => self.next_of_calendar(calendar, from, work),
        }
    }

    /// Stretch by stretch: within one, local and universal time go side by side.
    fn next_of_calendar(&self, calendar: &Calendar, from: i64, work: &mut Work) -> Option<i64> {
        let both = match self.fold {
            Some(fold) => fold == Fold::Both,
            None => calendar.is_hourly(),
        };
        let mut at = from;
        while at < END {
            work.spend(CALENDAR);
            if work.is_over() {
                return None;
            }
            let stretch = self.zone.stretch(at);
            let (start, offset, before) = (stretch.start, stretch.offset, stretch.offset_before);
            let shifts = self.gap == Gap::Shift && !calendar.is_hourly();
            if shifts && before < offset && at <= start {
                let skipped = calendar.at_or_after(start + before);
                if skipped.is_some_and(|local| local < start + offset) {
                    return Some(start);
                }
            }
            let mut local = at + offset;
            if !both && before > offset {
                // These have been, an offset ago.
                local = local.max(start + before);
            }
            match calendar.at_or_after(local) {
                Some(next) if next - offset < stretch.end => return Some(next - offset),
                // What comes again in a later stretch is at most a day old.
                None if at > from.saturating_add(2 * 86_400) => return None,
                _ => at = stretch.end,
            }
        }
        None
    }

    /// Until when it is surely excluded, if it is.
    fn excluded_until(&self, at: i64) -> Option<i64> {
        if self.exclude.is_empty() {
            return None;
        }
        let stretch = self.zone.stretch(at);
        let local = at + stretch.offset;
        let until = self
            .exclude
            .iter()
            .filter_map(|calendar| calendar.covers(local))
            .max()?;
        Some((until - stretch.offset).min(stretch.end).max(at + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;

    /// 2026-11-26T00:00:00Z.
    const FROM: Timestamp = Timestamp(1_795_651_200_000_000);

    #[test]
    fn who_is_far_ahead_is_asked_once() {
        let far = ["'0 0 0 1 1 ? 2098'"; 50].join(", ");
        let document = format!("cron: [ {far} ]\nzone: Europe/Berlin\nevery: 1s\nexclude: {{ minute: 0-58 }}");
        let times = spec(&document).times;
        let mut work = Work(MAX_WORK);
        let next = times.next_within(FROM, &mut work).unwrap();
        assert_eq!(next.since(FROM), Span::from_secs(59 * 60));
        let spent = MAX_WORK - work.0;
        assert!(spent < 50 * 200 * CALENDAR + 60 * (1 + times.look()), "{spent}");
    }

    #[test]
    fn no_question_costs_more_than_so_much_whatever_is_written() {
        let year = Timestamp(FROM.0 + 36 * 86_400_000_000);
        let exclude = "exclude: [ { year: 2027, second: 0-29 }, { year: 2027, second: 30-59 } ]";
        let all = ["'* * * * * *'"; 100].join(", ");
        let times = spec(&format!("cron: [ {all} ]\n{exclude}")).times;
        let mut work = Work(MAX_WORK);
        assert!(times.next_within(FROM, &mut work).is_some());
        assert_eq!(MAX_WORK - work.0, 100 * CALENDAR + times.look());
        // A year of nothing but single seconds that are excluded.
        let mut work = Work(MAX_WORK);
        assert_eq!(times.next_within(year, &mut work), None);
        assert!(work.is_over());
        let times = spec(&format!("every: 1s\n{exclude}")).times;
        let walk = times.walk(Timestamp(year.0 - 40_000_000), 100, |_| true);
        let last = Timestamp(year.0 - 1_000_000);
        let (count, whole) = (39, false);
        assert_eq!(walk, Walk { count, last, whole });
    }

    #[test]
    fn a_walk_ends_with_what_is_meant_or_at_so_many() {
        let times = spec("every: 10s").times;
        let second = |n: i64| Timestamp(FROM.0 + n * 1_000_000);
        for (most, end, count, at, whole) in [(10, 35, 3, 30, true), (3, 35, 3, 30, false), (10, 5, 0, 0, true)] {
            let walk = times.walk(FROM, most, |nominal| nominal <= second(end));
            let last = second(at);
            assert_eq!(walk, Walk { count, last, whole });
        }
        let ended = spec("every: 10s\nend_at: '2026-11-26T00:00:20Z'").times;
        let (count, last, whole) = (2, second(20), true);
        assert_eq!(ended.walk(FROM, 10, |_| true), Walk { count, last, whole });
    }
}
