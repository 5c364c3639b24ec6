//! From two marks of the counters to figures a second and a thousand sagas.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::disk::Counts;
use super::metrics::EngineCounts;
use super::processes::PerProcess;

/// All counters at one moment; `None` where they cannot be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    pub(crate) ended: u64,
    pub(crate) cpu: PerProcess<Duration>,
    /// With its own moment: it has to be asked for.
    pub(crate) steps: (Instant, u64),
    pub(crate) engine: Option<EngineCounts>,
    pub(crate) counts: Counts,
}

/// What happened between two marks. Rounded for reading; counted per saga that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    pub seconds: f64,
    pub sagas: u64,
    pub sagas_per_s: f64,
    pub steps_per_s: f64,
    pub cpu_s_per_1000: PerProcess<f64>,
    pub cores: PerProcess<f64>,
    pub disk_mb_per_1000: Disk,
    pub rows_per_saga: Option<Rows>,
    pub messages_per_saga: Messages,
    pub commits_per_s: Option<f64>,
    pub transitions_per_commit: Option<f64>,
}

/// Growth, in 10⁶ bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Disk {
    /// Tables and indices.
    pub database: Option<f64>,
    /// Written to the write-ahead log, which PostgreSQL recycles.
    pub wal: Option<f64>,
    /// What is kept in streams; less than nothing if more was purged than stored.
    pub jetstream: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rows {
    pub inserted: f64,
    pub updated: f64,
    pub deleted: f64,
}

/// Stored by JetStream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Messages {
    pub log: f64,
    pub tasks: f64,
}

impl Figures {
    pub(crate) fn between(first: &Mark, last: &Mark) -> Self {
        let seconds = (last.at - first.at).as_secs_f64();
        let sagas = last.ended.saturating_sub(first.ended);
        let per_saga = |amount: f64| ratio(amount, sagas as f64);
        let mb_per_1000 = |bytes: i64| ratio(bytes as f64 / 1_000.0, sagas as f64);
        let cpu = last
            .cpu
            .zip(first.cpu, |last, first| last.saturating_sub(first).as_secs_f64());
        let database = last.counts.database.zip(first.counts.database);
        let (nats_last, nats_first) = (last.counts.nats, first.counts.nats);
        let engine = last.engine.zip(first.engine);
        let steps_seconds = (last.steps.0 - first.steps.0).as_secs_f64();
        Self {
            seconds: round(seconds),
            sagas,
            sagas_per_s: ratio(sagas as f64, seconds),
            steps_per_s: ratio(last.steps.1.saturating_sub(first.steps.1) as f64, steps_seconds),
            cpu_s_per_1000: cpu.map(|cpu| ratio(cpu * 1_000.0, sagas as f64)),
            cores: cpu.map(|cpu| ratio(cpu, seconds)),
            disk_mb_per_1000: Disk {
                database: database.map(|(last, first)| mb_per_1000(last.bytes - first.bytes)),
                wal: database.map(|(last, first)| mb_per_1000(last.wal_bytes - first.wal_bytes)),
                jetstream: mb_per_1000(nats_last.bytes.cast_signed() - nats_first.bytes.cast_signed()),
            },
            rows_per_saga: database.map(|(last, first)| Rows {
                inserted: per_saga((last.inserted - first.inserted) as f64),
                updated: per_saga((last.updated - first.updated) as f64),
                deleted: per_saga((last.deleted - first.deleted) as f64),
            }),
            messages_per_saga: Messages {
                log: per_saga(nats_last.log.saturating_sub(nats_first.log) as f64),
                tasks: per_saga(nats_last.tasks.saturating_sub(nats_first.tasks) as f64),
            },
            commits_per_s: engine.map(|(last, first)| ratio(last.commits - first.commits, seconds)),
            transitions_per_commit: engine
                .map(|(last, first)| ratio(last.transitions - first.transitions, last.commits - first.commits)),
        }
    }
}

/// Zero where there was nothing to divide by.
fn ratio(amount: f64, by: f64) -> f64 {
    if by > 0.0 { round(amount / by) } else { 0.0 }
}

/// To a thousandth.
pub(crate) fn round(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::disk::{DatabaseCounts, NatsCounts};
    use super::*;

    fn mark(at: Instant, times: u32) -> Mark {
        let many = i64::from(times);
        Mark {
            at,
            ended: 2_000 * u64::from(times),
            cpu: PerProcess {
                orchestrator: Some(Duration::from_secs(3) * times),
                postgres: None,
                nats: Some(Duration::from_millis(1) * times),
                worker: Some(Duration::ZERO),
                client: None,
            },
            steps: (at + Duration::from_millis(10), 8_000 * u64::from(times)),
            engine: Some(EngineCounts {
                commits: 500.0 * f64::from(times),
                transitions: 10_000.0 * f64::from(times),
            }),
            counts: Counts {
                database: Some(DatabaseCounts {
                    bytes: 6_000_000 * many,
                    wal_bytes: 9_000_000 * many,
                    inserted: 14_000 * many,
                    updated: 4_000 * many,
                    deleted: 0,
                }),
                nats: NatsCounts {
                    bytes: 1_000 * u64::from(7 - times),
                    log: 2_000 * u64::from(times),
                    tasks: 8_000 * u64::from(times),
                },
            },
        }
    }

    #[test]
    fn figures_are_per_second_and_per_saga() {
        let now = Instant::now();
        let figures = Figures::between(&mark(now, 1), &mark(now + Duration::from_secs(4), 3));
        let expected = Figures {
            seconds: 4.0,
            sagas: 4_000,
            sagas_per_s: 1_000.0,
            steps_per_s: 4_000.0,
            cpu_s_per_1000: PerProcess {
                orchestrator: Some(1.5),
                postgres: None,
                // Two milliseconds are too few for a thousandth of a second.
                nats: Some(0.001),
                worker: Some(0.0),
                client: None,
            },
            cores: PerProcess {
                orchestrator: Some(1.5),
                postgres: None,
                nats: Some(0.001),
                worker: Some(0.0),
                client: None,
            },
            disk_mb_per_1000: Disk {
                database: Some(3.0),
                wal: Some(4.5),
                jetstream: -0.001,
            },
            rows_per_saga: Some(Rows {
                inserted: 7.0,
                updated: 2.0,
                deleted: 0.0,
            }),
            messages_per_saga: Messages { log: 1.0, tasks: 4.0 },
            commits_per_s: Some(250.0),
            transitions_per_commit: Some(20.0),
        };
        assert_eq!(figures, expected);
    }

    #[test]
    fn nothing_that_ended_divides_by_nothing() {
        let now = Instant::now();
        let figures = Figures::between(&mark(now, 1), &mark(now + Duration::from_secs(1), 1));
        assert_eq!(
            (figures.sagas, figures.sagas_per_s, figures.messages_per_saga.log),
            (0, 0.0, 0.0)
        );
        assert_eq!(figures.transitions_per_commit, Some(0.0));
    }
}
