//! What a measurement of triggers found.

use std::time::Duration;

use knarr_schemas::api::TriggerDescription;
use serde::Serialize;

use super::figures::round;
use super::footprint::Footprint;
use super::latency::Latency;
use super::page::{Page, short, thousands};
use super::tally::Found;
use super::triggers::Events;
use crate::cli::globals::Look;
use crate::cli::output;

#[derive(Debug, Clone, Serialize)]
pub struct TriggersReport {
    pub scenario: &'static str,
    pub events: u64,
    /// Open loop: events a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Until the last event was stored, before anybody read them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_in_s: Option<f64>,
    /// From the registration of the trigger, or with a rate from the first event, to the end of the last run.
    pub seconds: f64,
    /// Events that have started a run.
    pub events_per_s: f64,
    /// With a rate: from when an event was due to when its run began, without those of the warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
    /// All that were started.
    pub runs: u64,
    /// Events that started none.
    pub lost: u64,
    /// Runs beyond one for each event.
    pub doubled: u64,
    /// Runs that did not complete.
    pub unended: u64,
    /// Events that the trigger could make nothing of, and times that it found some missing, as it says itself.
    pub refused: u64,
    pub gaps: u64,
    #[serde(flatten)]
    pub footprint: Footprint,
    pub findings: Vec<String>,
}

impl TriggersReport {
    pub(super) fn new(
        how: Events,
        events: u64,
        published: Option<Duration>,
        found: Found,
        trigger: &TriggerDescription,
        footprint: Footprint,
    ) -> Self {
        let seconds = found.took_us as f64 / 1e6;
        let per_s = match seconds > 0.0 {
            true => round((events - found.lost) as f64 / seconds),
            false => 0.0,
        };
        let mut findings = found.samples;
        let trouble = trigger.summary.trouble.iter();
        findings.extend(trouble.map(|trouble| format!("the trigger cannot read: {trouble}")));
        findings.extend(
            trigger
                .past
                .iter()
                .map(|refused| format!("event {} was refused: {}", refused.sequence, refused.message)),
        );
        Self {
            scenario: "triggers",
            events,
            rate: match how {
                Events::Rate(rate) => Some(rate),
                Events::Stored(_) => None,
            },
            published_in_s: published.map(|took| round(took.as_secs_f64())),
            seconds: round(seconds),
            events_per_s: per_s,
            latency_ms: matches!(how, Events::Rate(_)).then(|| Latency::of(&found.late_us)),
            runs: found.runs,
            lost: found.lost,
            doubled: found.doubled,
            unended: found.runs.saturating_sub(found.completed),
            refused: trigger.refused,
            gaps: trigger.gaps,
            footprint,
            findings,
        }
    }

    /// Whether every event has started one run, and there were any.
    pub fn is_good(&self) -> bool {
        self.lost + self.doubled + self.unended + self.refused + self.gaps == 0 && self.events > 0
    }

    pub fn render(&self, look: &Look) -> String {
        let events = output::plural(self.events, "event");
        let how = match self.rate {
            Some(rate) => format!("{} a second", thousands(rate, 0)),
            None => "stored beforehand".to_owned(),
        };
        let mut page = Page::new(look, self.scenario, &format!("{events}, {how}"));
        let per_s = output::bold(look, &thousands(self.events_per_s, 1));
        let seconds = short(self.seconds);
        page.line(
            "throughput",
            &format!("{per_s} events/s   {seconds} s to the end of the last run"),
        );
        if let Some(latency) = self.latency_ms {
            page.latency("latency, ms", latency);
        }
        if let Some(seconds) = self.published_in_s {
            page.line("published in", &format!("{} s", short(seconds)));
        }
        page.footprint(&self.footprint, "events");
        page.gap();
        if self.is_good() {
            page.good(&format!("each of {events} started one run, and all completed"));
        }
        page.wrong(&[
            (self.lost, "events started no run"),
            (self.doubled, "runs beyond one for each event"),
            (self.unended, "runs did not complete"),
            (self.refused, "events were refused"),
            (self.gaps, "times the trigger found events missing"),
        ]);
        page.findings(&self.findings)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use hdrhistogram::Histogram;
    use serde_json::json;

    use super::*;

    fn report(how: Events, lost: u64, doubled: u64, refused: u64) -> TriggersReport {
        let mut late_us = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        (1..=100).for_each(|n| late_us.record(n * 100).unwrap());
        let found = Found {
            runs: 10_000 - lost + doubled,
            completed: 10_000 - lost + doubled,
            lost,
            doubled,
            late_us,
            took_us: 8_000_000,
            samples: match lost {
                0 => Vec::new(),
                _ => vec!["event 7 started 0 runs".to_owned()],
            },
        };
        let at = "2026-11-26T02:00:00Z";
        let past = match refused {
            0 => json!([]),
            _ => json!([{ "at": at, "sequence": 8, "message": "the id is taken" }]),
        };
        let trigger = json!({
            "summary": {
                "workflow": "w", "name": "events", "status": "running", "trigger": {}, "version": 1,
                "trouble": (refused > 0).then_some("no stream"),
            },
            "run_id": uuid::Uuid::nil(), "created_at": at, "moved_at": at, "sent": 0, "waiting": 0, "gathering": 0,
            "taken": 10_000, "skipped": 0, "started": 10_000, "signalled": 0, "refused": refused, "gaps": 0, "lost": [],
            "past": past,
        });
        let trigger = serde_json::from_value(trigger).unwrap();
        let published = matches!(how, Events::Stored(_)).then(|| Duration::from_millis(1_250));
        let footprint = Footprint::new(30_000_000, 42_000_000, Some((120_000, 150_000)));
        TriggersReport::new(how, 10_000, published, found, &trigger, footprint)
    }

    fn look() -> Look {
        Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_people_and_programs_read() {
        let stored = report(Events::Stored(10_000), 0, 0, 0);
        let rated = report(Events::Rate(1_250.0), 0, 0, 0);
        assert!(stored.is_good() && rated.is_good());
        insta::assert_snapshot!(format!("{}\n{}", stored.render(&look()), rated.render(&look())));
        let json = serde_json::to_value(&stored).unwrap();
        assert_eq!(
            (&json["events_per_s"], &json["lost"], &json["doubled"]),
            (&json!(1_250.0), &json!(0), &json!(0))
        );
        assert!(json.get("latency_ms").is_none() && json.get("rate").is_none());
        let json = serde_json::to_value(&rated).unwrap();
        assert_eq!(
            (&json["latency_ms"]["p50"], &json["rate"]),
            (&json!(5.003), &json!(1_250.0))
        );
        assert!(json.get("published_in_s").is_none());
    }

    #[test]
    fn any_wrong_is_not_good() {
        let stored = Events::Stored(10_000);
        for bad in [
            report(stored, 1, 0, 0),
            report(stored, 0, 1, 0),
            report(stored, 0, 0, 1),
            TriggersReport {
                unended: 1,
                ..report(stored, 0, 0, 0)
            },
            TriggersReport {
                gaps: 1,
                ..report(stored, 0, 0, 0)
            },
        ] {
            assert!(!bad.is_good() && bad.render(&look()).contains("✗ 1 "), "{bad:?}");
        }
        let text = report(stored, 1, 2, 1).render(&look());
        for line in [
            "✗ 1 events started no run",
            "✗ 2 runs beyond one",
            "event 7 started 0 runs",
            "event 8 was refused: the id is taken",
            "the trigger cannot read: no stream",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
