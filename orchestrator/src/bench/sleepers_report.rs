//! What a measurement of timers found.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::figures::round;
use super::report::{Latency, short, thousands, verdict};
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
    pub database_mb: f64,
    /// What the sleepers, not those that are pending, added to it.
    pub database_grew_mb: f64,
    /// Of the orchestrators, where they run on this machine: now, and at most.
    pub memory_mb: Option<f64>,
    pub memory_peak_mb: Option<f64>,
    pub findings: Vec<String>,
}

impl SleepersReport {
    pub(super) fn new(
        sleepers: Sleepers,
        answers: &Answers,
        found: Histories,
        (ended, database, before): (Duration, i64, i64),
        memory: Option<(u64, u64)>,
    ) -> Self {
        let mb = |bytes: i64| round(bytes as f64 / 1e6);
        let memory_mb = |kb: u64| round(kb as f64 * 1_024.0 / 1e6);
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
            database_mb: mb(database),
            database_grew_mb: mb(database - before),
            memory_mb: memory.map(|(now, _)| memory_mb(now)),
            memory_peak_mb: memory.map(|(_, peak)| memory_mb(peak)),
            findings: answers.samples.clone(),
        }
    }

    /// Whether every sleeper woke, and none too early.
    pub fn is_good(&self) -> bool {
        self.early + self.unended == 0
    }

    pub fn render(&self, look: &Look) -> String {
        let mut out = String::new();
        let how = if self.together {
            "all due at the same instant"
        } else {
            "each by itself"
        };
        let count = output::plural(self.sleepers, "sleeper");
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "{}  {count} of {} ms, {how}; {} more pending\n",
            output::bold(look, self.scenario),
            thousands(self.sleep_ms as f64, 0),
            thousands(self.pending as f64, 0),
        );
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "  {}{text}", output::dim(look, &format!("{name:<15}")));
        };
        let Latency { p50, p90, p99, max } = self.late_ms;
        let late = [("p50", p50), ("p90", p90), ("p99", p99), ("max", max)];
        let late: Vec<_> = late
            .iter()
            .map(|(name, ms)| format!("{} {}", output::dim(look, name), short(*ms)))
            .collect();
        line("late, ms", late.join("   "));
        line(
            "done within",
            format!("{} ms of the first moment due", thousands(self.done_within_ms, 1)),
        );
        if let Some(seconds) = self.started_in_s {
            line("started in", format!("{} s", short(seconds)));
        }
        line(
            "database",
            format!(
                "{} MB, {} of them by the sleepers",
                short(self.database_mb),
                short(self.database_grew_mb)
            ),
        );
        if let (Some(now), Some(peak)) = (self.memory_mb, self.memory_peak_mb) {
            line("orchestrator", format!("{} MB, {} at most", short(now), short(peak)));
        }
        out.push('\n');
        if self.is_good() {
            let all = format!("all {count} woke, none of them early");
            let _ = writeln!(out, "  {}", verdict(look, true, &all));
        }
        for (wrong, what) in [
            (self.early, "woke before they were due"),
            (self.unended, "did not complete"),
        ] {
            if wrong > 0 {
                let _ = writeln!(out, "  {}", verdict(look, false, &format!("{wrong} {what}")));
            }
        }
        if self.unanswered > 0 {
            let _ = writeln!(out, "  {} ends of which the client heard nothing", self.unanswered);
        }
        for finding in &self.findings {
            let _ = writeln!(out, "    {}", output::dim(look, &output::cut(finding, 400)));
        }
        out
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
        let times = (Duration::from_secs(7), 812_000_000, 802_000_000);
        SleepersReport::new(sleepers, &answers, found, times, Some((120_000, 150_000)))
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
