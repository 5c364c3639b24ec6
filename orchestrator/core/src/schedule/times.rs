//! The moments a schedule names: the union of its calendars and intervals, without what is excluded, within its bounds.
//!
//! A moment is a whole second, the *nominal time* of an occurrence. Where a zone skips local times, those of a calendar move to
//! the moment at which the clocks are put forward (`gap: shift`) or do not exist (`skip`). Where local times come twice, a
//! calendar means the first (`overlap: first`) or `both`; one that is meant for every hour means both unless it is told.

use super::calendar::Calendar;
use super::zone::Zone;
use crate::time::{Span, Timestamp};
use sha2::{Digest as _, Sha256};

/// Looks at what is excluded, one after the other, before a schedule is taken to name nothing more. Days that are excluded as
/// a whole take one look each.
const MAX_LOOKS: usize = 20_000;
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

impl Times {
    /// The first nominal time after this moment, if there is one.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = after.0.div_euclid(1_000_000).saturating_add(1).max(0);
        if let Some(start) = self.start_at {
            from = from.max(start.0.saturating_add(999_999).div_euclid(1_000_000));
        }
        let end = self
            .end_at
            .map_or(END, |end| end.0.div_euclid(1_000_000).min(END - 1) + 1);
        for _ in 0..MAX_LOOKS {
            if from >= end {
                return None;
            }
            let named = self.sources.iter().filter_map(|source| self.next_of(source, from));
            let next = named.min().filter(|next| *next < end)?;
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

    fn next_of(&self, source: &Source, from: i64) -> Option<i64> {
        match source {
            Source::Interval { every, phase } => {
                let since = from.saturating_sub(*phase);
                let periods = since.div_euclid(*every) + i64::from(since.rem_euclid(*every) > 0);
                Some(periods.saturating_mul(*every).saturating_add(*phase))
            }
            Source::Calendar(calendar) => self.next_of_calendar(calendar, from),
        }
    }

    /// Stretch by stretch: within one, local and universal time go side by side.
    fn next_of_calendar(&self, calendar: &Calendar, from: i64) -> Option<i64> {
        let both = match self.fold {
            Some(fold) => fold == Fold::Both,
            None => calendar.is_hourly(),
        };
        let mut at = from;
        while at < END {
            let stretch = self.zone.stretch(at);
            let (start, offset, before) = (stretch.start, stretch.offset, stretch.offset_before);
            if self.gap == Gap::Shift && before < offset && at <= start {
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
