//! Settings of what runs and bodies may have; those of runs hold for runs that start from then on.

use clap::Args;
use knarr_core::run::limits::{Limit, RunLimits};

use super::ConfigError;
use super::streams::ByteSize;

/// What the engine is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub runs: RunLimits,
    pub body_bytes: usize,
}

pub const DEFAULT_BODY_BYTES: u64 = 2 << 20;
const LEAST_BODY_BYTES: u64 = 1 << 10;
const MOST_BODY_BYTES: u64 = 2 << 20;

/// What the command line, the environment and the file say.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LimitArgs {
    /// Events that a run may have before it waits for an operator [default: 50000]
    #[arg(long, env = "KNARR_RUN_MAX_EVENTS", value_name = "N")]
    pub run_max_events: Option<u64>,

    /// Size that a run's history may have before it waits for an operator [default: 50MiB]
    #[arg(long, env = "KNARR_RUN_MAX_HISTORY_BYTES", value_name = "SIZE")]
    pub run_max_history_bytes: Option<ByteSize>,

    /// Activities and children that a run may have under way; one more waits for an operator [default: 2000]
    #[arg(long, env = "KNARR_RUN_MAX_PENDING", value_name = "N")]
    pub run_max_pending: Option<u64>,

    /// Size of an input, a signal or a result [default: 2MiB]
    #[arg(long, env = "KNARR_BODY_MAX_BYTES", value_name = "SIZE")]
    pub body_max_bytes: Option<ByteSize>,
}

impl LimitArgs {
    /// With what `other` says where this says nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            run_max_events: self.run_max_events.or(other.run_max_events),
            run_max_history_bytes: self.run_max_history_bytes.or(other.run_max_history_bytes),
            run_max_pending: self.run_max_pending.or(other.run_max_pending),
            body_max_bytes: self.body_max_bytes.or(other.body_max_bytes),
        }
    }

    pub(super) fn settings(&self) -> Result<Limits, ConfigError> {
        let mut runs = RunLimits::default();
        let history = self.run_max_history_bytes.map(|size| size.0);
        for (limit, setting, given, wanted) in [
            (
                Limit::Events,
                "run_max_events",
                self.run_max_events,
                "100 to 2,000,000 are possible",
            ),
            (
                Limit::HistoryBytes,
                "run_max_history_bytes",
                history,
                "64KiB to 2GiB are possible",
            ),
            (
                Limit::Pending,
                "run_max_pending",
                self.run_max_pending,
                "1 to 20,000 are possible",
            ),
        ] {
            let least = RunLimits::LEAST.get(limit).unwrap_or_default();
            let most = RunLimits::MOST.get(limit).unwrap_or(u64::MAX);
            match given {
                None => {}
                // What is as by default costs a run nothing.
                Some(given) if Some(given) == RunLimits::DEFAULT.get(limit) => {}
                Some(given) if (least..=most).contains(&given) => runs.set(limit, given),
                Some(given) => {
                    return Err(ConfigError::OutOfRange {
                        setting,
                        value: given.to_string(),
                        wanted,
                    });
                }
            }
        }
        let body = self.body_max_bytes.map_or(DEFAULT_BODY_BYTES, |size| size.0);
        if !(LEAST_BODY_BYTES..=MOST_BODY_BYTES).contains(&body) {
            return Err(ConfigError::OutOfRange {
                setting: "body_max_bytes",
                value: ByteSize(body).to_string(),
                wanted: "1KiB to 2MiB are possible",
            });
        }
        Ok(Limits {
            runs,
            body_bytes: usize::try_from(body).unwrap_or(usize::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_at_the_limit_and_one_past_it() {
        let given = LimitArgs::default();
        type Set = fn(LimitArgs, u64) -> LimitArgs;
        let table: [(Set, u64, u64); 4] = [
            (
                |args, n| LimitArgs {
                    run_max_events: Some(n),
                    ..args
                },
                100,
                2_000_000,
            ),
            (
                |args, n| LimitArgs {
                    run_max_history_bytes: Some(ByteSize(n)),
                    ..args
                },
                64 << 10,
                2 << 30,
            ),
            (
                |args, n| LimitArgs {
                    run_max_pending: Some(n),
                    ..args
                },
                1,
                20_000,
            ),
            (
                |args, n| LimitArgs {
                    body_max_bytes: Some(ByteSize(n)),
                    ..args
                },
                1 << 10,
                2 << 20,
            ),
        ];
        for (set, least, most) in table {
            for (n, allowed) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
                assert_eq!(set(given, n).settings().is_ok(), allowed, "{n}");
            }
        }
    }

    #[test]
    fn what_is_as_by_default_is_not_said() {
        let given = LimitArgs {
            run_max_events: Some(50_000),
            run_max_history_bytes: Some(ByteSize(50 << 20)),
            run_max_pending: Some(2_000),
            body_max_bytes: None,
        };
        assert_eq!(given.settings().unwrap(), LimitArgs::default().settings().unwrap());
        assert_eq!(given.settings().unwrap().runs, RunLimits::default());
    }
}
