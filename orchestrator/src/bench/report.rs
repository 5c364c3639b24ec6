//! What a measurement found: for people as a table, for programs as JSON.

use serde::Serialize;

use super::figures::Figures;
use super::latency::Latency;
use super::load::{Load, Seen};
use super::page::{Page, short, thousands};
use super::record::Verdict;
use super::scenario::Scenario;
use crate::cli::globals::Look;
use crate::cli::output;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub scenario: &'static str,
    /// Closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// Open loop: starts a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    pub seconds: f64,
    /// That ended within the time.
    pub sagas: u64,
    pub sagas_per_s: f64,
    pub steps_per_s: f64,
    /// From the start's publication (open loop: from when it was due) to the answer that the saga is closed.
    pub latency_ms: Latency,
    pub cpu_s_per_1000: super::processes::PerProcess<f64>,
    pub cores: super::processes::PerProcess<f64>,
    pub disk_mb_per_1000: super::figures::Disk,
    pub rows_per_saga: Option<super::figures::Rows>,
    pub messages_per_saga: super::figures::Messages,
    pub commits_per_s: Option<f64>,
    pub transitions_per_commit: Option<f64>,
    /// All sagas from here on, warm-up included.
    pub started: u64,
    /// Acknowledged starts whose answer never came.
    pub lost: u64,
    /// Sagas with another end than the expected one.
    pub wrong_ends: u64,
    /// By the worker's records: executions of steps and undos beyond those that had to be.
    pub step_runs_over_expected: u64,
    /// Of sagas that ended as expected.
    pub step_runs_missing: u64,
    /// Sagas whose steps or undos ran in another order than they had to.
    pub out_of_order: u64,
    /// Starts that JetStream refused.
    pub refused: u64,
    /// Starts of which nothing was heard.
    pub unacknowledged: u64,
    /// Some of the above in words.
    pub findings: Vec<String>,
}

impl Report {
    pub(crate) fn new(scenario: Scenario, load: Load, figures: &Figures, seen: Seen, verdict: Verdict) -> Self {
        let latency_ms = Latency::of(&seen.latency_us);
        let (in_flight, rate) = match load {
            Load::InFlight(count) => (Some(count), None),
            Load::Rate(rate) => (None, Some(rate)),
        };
        Self {
            scenario: scenario.name(),
            in_flight,
            rate,
            seconds: figures.seconds,
            sagas: figures.sagas,
            sagas_per_s: figures.sagas_per_s,
            steps_per_s: figures.steps_per_s,
            latency_ms,
            cpu_s_per_1000: figures.cpu_s_per_1000,
            cores: figures.cores,
            disk_mb_per_1000: figures.disk_mb_per_1000,
            rows_per_saga: figures.rows_per_saga,
            messages_per_saga: figures.messages_per_saga,
            commits_per_s: figures.commits_per_s,
            transitions_per_commit: figures.transitions_per_commit,
            started: seen.started,
            lost: seen.lost,
            wrong_ends: seen.wrong_ends,
            step_runs_over_expected: verdict.over,
            step_runs_missing: verdict.missing,
            out_of_order: verdict.disordered,
            refused: seen.refused,
            unacknowledged: seen.unacknowledged,
            findings: seen.samples.into_iter().chain(verdict.samples).collect(),
        }
    }

    /// Whether every saga that was started ended as it had to, and there were any.
    pub fn is_good(&self) -> bool {
        let wrong =
            self.lost + self.wrong_ends + self.step_runs_over_expected + self.step_runs_missing + self.out_of_order;
        wrong == 0 && self.sagas > 0
    }

    pub fn render(&self, look: &Look) -> String {
        let load = match (self.in_flight, self.rate) {
            (Some(count), _) => format!("{} in flight", thousands(f64::from(count), 0)),
            (_, Some(rate)) => format!("{} starts/s", thousands(rate, 0)),
            _ => String::new(),
        };
        let seconds = thousands(self.seconds, 1);
        let mut page = Page::new(look, self.scenario, &format!("{load}, {seconds} s"));
        page.line(
            "throughput",
            &listed(&[
                ("sagas/s", output::bold(look, &thousands(self.sagas_per_s, 1))),
                ("steps/s", thousands(self.steps_per_s, 1)),
                ("sagas", thousands(self.sagas as f64, 0)),
            ]),
        );
        page.latency("latency, ms", self.latency_ms);
        if let (Some(commits), Some(transitions)) = (self.commits_per_s, self.transitions_per_commit) {
            page.line(
                "commits",
                &listed(&[("/s", thousands(commits, 1)), ("transitions each", short(transitions))]),
            );
        }
        if let Some(rows) = self.rows_per_saga {
            page.line(
                "rows a saga",
                &listed(&[
                    ("inserted", short(rows.inserted)),
                    ("updated", short(rows.updated)),
                    ("deleted", short(rows.deleted)),
                ]),
            );
        }
        let messages = self.messages_per_saga;
        page.line(
            "stored a saga",
            &listed(&[
                ("messages in the log", short(messages.log)),
                ("tasks", short(messages.tasks)),
            ]),
        );
        self.render_costs(look, &mut page);
        self.render_verdict(&mut page);
        page.findings(&self.findings)
    }

    fn render_costs(&self, look: &Look, page: &mut Page<'_>) {
        let head = format!("  {:<15}{:>9}{:>9}", "", "CPU s *", "cores");
        page.push(&format!("\n{}\n", output::dim(look, &head)));
        let mut sum = (0.0, 0.0);
        for ((name, cpu), (_, cores)) in self.cpu_s_per_1000.named().into_iter().zip(self.cores.named()) {
            let (Some(cpu), Some(cores)) = (cpu, cores) else {
                continue;
            };
            sum = (sum.0 + cpu, sum.1 + cores);
            page.line(name, &format!("{cpu:>9.3}{cores:>9.2}"));
        }
        page.line("all", &format!("{:>9.3}{:>9.2}", sum.0, sum.1));
        page.gap();
        let disk = self.disk_mb_per_1000;
        let parts = [
            ("database", disk.database),
            ("WAL", disk.wal),
            ("JetStream", Some(disk.jetstream)),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter_map(|(name, mb)| mb.map(|mb| format!("{} {}", short(mb), output::dim(look, name))))
            .collect();
        let scale = output::dim(look, "* per 1,000 sagas");
        page.line("disk, MB *", &format!("{}   {scale}", parts.join("   ")));
        page.gap();
    }

    fn render_verdict(&self, page: &mut Page<'_>) {
        let started = output::plural(self.started, "saga");
        if self.is_good() {
            page.good(&format!(
                "all {started} ended as they had to, each step and undo ran once and in order"
            ));
        } else if self.sagas == 0 {
            page.bad(&format!("none of {started} ended within the time"));
        }
        page.wrong(&[
            (self.lost, "acknowledged and never answered"),
            (self.wrong_ends, "ended otherwise than they had to"),
            (
                self.step_runs_over_expected,
                "executions of steps beyond those that had to be",
            ),
            (self.step_runs_missing, "steps that had to run and did not"),
            (self.out_of_order, "ran in another order than they had to"),
        ]);
        page.notes(&[
            (self.refused, "starts refused by JetStream"),
            (self.unacknowledged, "starts of which nothing was heard"),
        ]);
    }
}

/// Values with their units, beside each other.
fn listed(values: &[(&str, String)]) -> String {
    let values: Vec<_> = values.iter().map(|(unit, value)| format!("{value} {unit}")).collect();
    values.join("   ")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::figures::{Disk, Messages, Rows};
    use super::super::processes::PerProcess;
    use super::*;

    fn report() -> Report {
        Report {
            scenario: "order",
            in_flight: Some(256),
            rate: None,
            seconds: 20.004,
            sagas: 64_290,
            sagas_per_s: 3_213.857,
            steps_per_s: 12_855.43,
            latency_ms: Latency {
                p50: 77.3,
                p90: 91.05,
                p99: 130.4,
                max: 1_204.2,
            },
            cpu_s_per_1000: PerProcess {
                orchestrator: Some(0.141),
                postgres: Some(0.12),
                nats: Some(0.203),
                worker: Some(0.11),
                client: Some(0.012),
            },
            cores: PerProcess {
                orchestrator: Some(0.453),
                postgres: Some(0.386),
                nats: Some(0.652),
                worker: Some(0.354),
                client: Some(0.039),
            },
            disk_mb_per_1000: Disk {
                database: Some(3.21),
                wal: Some(5.07),
                jetstream: 0.02,
            },
            rows_per_saga: Some(Rows {
                inserted: 6.1,
                updated: 1.2,
                deleted: 0.0,
            }),
            messages_per_saga: Messages { log: 1.0, tasks: 4.0 },
            commits_per_s: Some(312.4),
            transitions_per_commit: Some(51.4),
            started: 73_112,
            lost: 0,
            wrong_ends: 0,
            step_runs_over_expected: 0,
            step_runs_missing: 0,
            out_of_order: 0,
            refused: 0,
            unacknowledged: 0,
            findings: Vec::new(),
        }
    }

    fn look() -> Look {
        Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_good_report() {
        insta::assert_snapshot!(report().render(&look()));
    }

    #[test]
    fn a_report_of_much_that_went_wrong() {
        let report = Report {
            scenario: "order_failing",
            in_flight: None,
            rate: Some(2_000.0),
            lost: 2,
            wrong_ends: 1,
            step_runs_over_expected: 3,
            step_runs_missing: 4,
            out_of_order: 5,
            refused: 6,
            unacknowledged: 7,
            rows_per_saga: None,
            commits_per_s: None,
            disk_mb_per_1000: Disk {
                jetstream: -0.5,
                ..Disk::default()
            },
            cpu_s_per_1000: PerProcess {
                worker: Some(0.1),
                ..PerProcess::default()
            },
            cores: PerProcess {
                worker: Some(0.3),
                ..PerProcess::default()
            },
            findings: vec!["saga 3 ran create-order 2 times".to_owned()],
            ..report()
        };
        insta::assert_snapshot!(report.render(&look()));
    }

    #[test]
    fn any_wrong_is_not_good() {
        assert!(report().is_good());
        let wrongs: [fn(&mut Report); 6] = [
            |report| report.lost = 1,
            |report| report.wrong_ends = 1,
            |report| report.step_runs_over_expected = 1,
            |report| report.step_runs_missing = 1,
            |report| report.out_of_order = 1,
            |report| report.sagas = 0,
        ];
        for wrong in wrongs {
            let mut report = report();
            wrong(&mut report);
            assert!(!report.is_good());
        }
    }

    #[test]
    fn programs_find_what_they_were_promised() {
        let json = serde_json::to_value(report()).unwrap();
        for path in [
            "/sagas_per_s",
            "/steps_per_s",
            "/latency_ms/p50",
            "/latency_ms/p90",
            "/latency_ms/p99",
            "/latency_ms/max",
            "/cpu_s_per_1000/orchestrator",
            "/cpu_s_per_1000/postgres",
            "/cpu_s_per_1000/nats",
            "/cpu_s_per_1000/worker",
            "/cpu_s_per_1000/client",
            "/disk_mb_per_1000/database",
            "/disk_mb_per_1000/wal",
            "/lost",
            "/wrong_ends",
            "/step_runs_over_expected",
        ] {
            assert!(json.pointer(path).is_some_and(serde_json::Value::is_number), "{path}");
        }
    }
}
