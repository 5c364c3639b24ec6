//! Counts the runs that events have started: each has to have one.

use hdrhistogram::Histogram;

use super::sleepers::histogram;

const MAX_SAMPLES: usize = 5;

/// What the rows of the runs say.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) runs: u64,
    pub(super) completed: u64,
    /// Events without a run, and runs beyond one for an event, or for none.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// From when an event was due to when its run began.
    pub(super) late_us: Histogram<u64>,
    /// From the beginning of it all to the end of the last run, in microseconds.
    pub(super) took_us: u64,
    pub(super) samples: Vec<String>,
}

/// Counts the runs of each event.
pub(super) struct Tally {
    of: Vec<u32>,
    found: Found,
    last_end: i64,
}

impl Tally {
    pub(super) fn new(count: u64) -> Self {
        Self {
            of: vec![0; usize::try_from(count).unwrap_or(usize::MAX)],
            found: Found {
                runs: 0,
                completed: 0,
                lost: 0,
                doubled: 0,
                late_us: histogram(),
                took_us: 0,
                samples: Vec::new(),
            },
            last_end: i64::MIN,
        }
    }

    /// A run, by the number of its event; when it closed, if it did as it had to.
    pub(super) fn add(&mut self, number: Option<u64>, late: Option<i64>, completed: Option<i64>) {
        self.found.runs += 1;
        self.found.completed += u64::from(completed.is_some());
        self.last_end = self.last_end.max(completed.unwrap_or(i64::MIN));
        match number.and_then(|number| self.of.get_mut(usize::try_from(number).ok()?)) {
            Some(count) => *count += 1,
            None => self.found.doubled += 1,
        }
        if let Some(late) = late {
            // The clocks agree but for the time that an answer takes.
            self.found.late_us.saturating_record(u64::try_from(late).unwrap_or(0));
        }
    }

    pub(super) fn end(mut self, began: i64) -> Found {
        for (number, count) in self.of.iter().enumerate() {
            match count {
                1 => continue,
                0 => self.found.lost += 1,
                more => self.found.doubled += u64::from(*more) - 1,
            }
            if self.found.samples.len() < MAX_SAMPLES {
                self.found.samples.push(format!("event {number} started {count} runs"));
            }
        }
        self.found.took_us = u64::try_from(self.last_end.saturating_sub(began)).unwrap_or(0);
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_run_or_it_is_told() {
        let mut tally = Tally::new(4);
        for (number, late, completed) in [
            (Some(0), Some(2_000), Some(1_000)),
            (Some(2), Some(-5), Some(9_000)),
            (Some(2), None, Some(2_000)),
            (Some(3), Some(4_000), None),
            // Nobody's.
            (Some(4), None, Some(3_000)),
            (None, None, Some(3_000)),
        ] {
            tally.add(number, late, completed);
        }
        let found = tally.end(500);
        assert_eq!((found.runs, found.completed, found.lost, found.doubled), (6, 5, 1, 3));
        assert_eq!(found.took_us, 8_500);
        assert_eq!(found.late_us.len(), 3);
        assert_eq!(found.samples, ["event 1 started 0 runs", "event 2 started 2 runs"]);
        let good = Tally::new(0).end(500);
        assert_eq!((good.lost, good.doubled, good.took_us), (0, 0, 0));
    }
}
