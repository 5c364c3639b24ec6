//! What a measurement of timers found.

use std::time::Duration;

use serde::Serialize;

use super::figures::round;
use super::footprint::Footprint;
use super::latency::Latency;
use super::page::{Page, short, thousands};
use super::sleepers::{Answers, Histories, Sleepers};
use crate::cli::globals::Look;
use crate::cli::output;

#[derive(Debug, Clone, Serialize)]
pub struct SleepersReport {
    pub scenario: &'static str,
    pub sleepers: u64,
    pub sleep_ms: u64,
    /// All were due at the same instant.
    pub together: bool,
    /// Others that slept on.
    pub pending: u64,
    /// Until the last start was acknowledged; `None` if one never was.
    pub started_in_s: Option<f64>,
    /// Until the last answer, or until it was waited for no longer.
    pub seconds: f64,
    /// From when each timer was due to when it fired.
    pub late_ms: Latency,
    /// From the first moment that was due to the end of the last run.
    pub done_within_ms: f64,
    /// Fired before they were due.
    pub early: u64,
    /// Runs that are not there, or did not complete.
    pub unended: u64,
    /// Ends of which the client heard nothing.
    pub unanswered: u64,
    /// Grown by the sleepers, not by those that are pending.
    #[serde(flatten)]
    pub footprint: Footprint,
    pub findings: Vec<String>,
}

impl SleepersReport {
    pub(super) fn new(
        sleepers: Sleepers,
        answers: &Answers,
        found: Histories,
        ended: Duration,
        footprint: Footprint,
    ) -> Self {
        Self {
            scenario: "sleepers",
            sleepers: sleepers.count,
            sleep_ms: u64::try_from(sleepers.sleep.as_millis()).unwrap_or(u64::MAX),
            together: sleepers.together,
            pending: sleepers.pending,
            started_in_s: (!answers.started_in.is_zero()).then(|| round(answers.started_in.as_secs_f64())),
            seconds: round(ended.as_secs_f64()),
            late_ms: Latency::of(&found.late_us),
            done_within_ms: round(found.done_within_us as f64 / 1_000.0),
            early: found.early,
            unended: sleepers.count.saturating_sub(found.completed),
            unanswered: sleepers.count.saturating_sub(answers.answered),
            footprint,
            findings: answers.samples.clone(),
        }
    }

    /// Whether every sleeper woke, and none too early.
    pub fn is_good(&self) -> bool {
        self.early + self.unended == 0
    }

    pub fn render(&self, look: &Look) -> String {
        let how = match self.together {
            true => "all due at the same instant",
            false => "each by itself",
        };
        let count = output::plural(self.sleepers, "sleeper");
        let ms = thousands(self.sleep_ms as f64, 0);
        let pending = thousands(self.pending as f64, 0);
        let what = format!("{count} of {ms} ms, {how}; {pending} more pending");
        let mut page = Page::new(look, self.scenario, &what);
        page.latency("late, ms", self.late_ms);
        let within = thousands(self.done_within_ms, 1);
        page.line("done within", &format!("{within} ms of the first moment due"));
        if let Some(seconds) = self.started_in_s {
            page.line("started in", &format!("{} s", short(seconds)));
        }
        page.footprint(&self.footprint, "sleepers");
        page.gap();
        if self.is_good() {
            page.good(&format!("all {count} woke, none of them early"));
        }
        page.wrong(&[
            (self.early, "woke before they were due"),
            (self.unended, "did not complete"),
        ]);
        page.notes(&[(self.unanswered, "ends of which the client heard nothing")]);
        page.findings(&self.findings)
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn report(early: u64, completed: u64) -> SleepersReport {
        let mut late_us = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        (1..=100).for_each(|n| late_us.record(n * 100).unwrap());
        let sleepers = Sleepers {
            count: 10_000,
            sleep: Duration::from_secs(5),
            pending: 1_000_000,
            together: false,
        };
        let answers = Answers {
            started_in: Duration::from_millis(1_250),
            answered: completed,
            samples: Vec::new(),
        };
        let found = Histories {
            runs: completed,
            completed,
            early,
            late_us,
            done_within_us: 812_345,
        };
        let footprint = Footprint::new(802_000_000, 812_000_000, Some((120_000, 150_000)));
        SleepersReport::new(sleepers, &answers, found, Duration::from_secs(7), footprint)
    }

    #[test]
    fn what_people_and_programs_read() {
        let good = report(0, 10_000);
        assert!(good.is_good());
        let look = Look {
            color: false,
            width: None,
            now: chrono::DateTime::UNIX_EPOCH,
        };
        insta::assert_snapshot!(good.render(&look));
        let bad = report(1, 9_999);
        assert!(!bad.is_good());
        let text = bad.render(&look);
        assert!(
            text.contains("✗ 1 woke before they were due") && text.contains("✗ 1 did not complete"),
            "{text}"
        );
        let json = serde_json::to_value(&good).unwrap();
        assert_eq!(json["late_ms"]["p50"], 5.003);
        assert_eq!(
            (json["early"].as_u64(), json["pending"].as_u64()),
            (Some(0), Some(1_000_000))
        );
    }
}
