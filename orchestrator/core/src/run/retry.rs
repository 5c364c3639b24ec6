//! When an attempt that did not succeed is made again: a pure function of policy, error and attempt.

use crate::definition::plan::RetryPolicy;
use crate::ids::{RunId, StepPath};
use crate::run::effect::Direction;
use crate::time::Span;

/// What an attempt ended with, as far as retrying is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    /// The worker's error type; `None` for timeouts and lost tasks, which no list of types excludes.
    pub(super) worker_type: Option<&'a str>,
    pub(super) retryable: bool,
    pub(super) retry_after: Option<Span>,
    /// What an attempt that is made all the same has no regard for.
    pub(super) regardless: Regardless,
}

/// Why there is another attempt though the policy may say otherwise; see [`super::pivot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Regardless {
    No,
    /// Of the number of attempts.
    OfNumber,
    /// Of the error, too: it has to become known what the attempt did.
    OfEverything,
}

impl Ended<'_> {
    /// An end that no worker spoke about.
    pub(super) const SILENT: Self = Self {
        worker_type: None,
        retryable: true,
        retry_after: None,
        regardless: Regardless::No,
    };

    /// The same, and no other attempt can change it.
    pub(super) const FINAL: Self = Self {
        retryable: false,
        ..Self::SILENT
    };
}

/// Which attempt of what; the source of the jitter, so that a decision can be repeated and runs still spread out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) run: RunId,
    pub(super) step: &'a StepPath,
    pub(super) direction: Direction,
    pub(super) attempt: u32,
}

/// The pause before the next attempt, or `None` if there is none.
pub(super) fn pause(policy: &RetryPolicy, seed: Seed<'_>, ended: Ended<'_>) -> Option<Span> {
    let attempts_remain =
        ended.regardless != Regardless::No || policy.maximum_attempts.is_none_or(|maximum| seed.attempt < maximum);
    let excluded = ended
        .worker_type
        .is_some_and(|name| policy.non_retryable.iter().any(|excluded| &**excluded == name));
    let is_final = ended.regardless != Regardless::OfEverything && (!ended.retryable || excluded);
    if !attempts_remain || is_final {
        return None;
    }
    Some(ended.retry_after.unwrap_or_else(|| interval(policy, seed)))
}

/// `initial × coefficient^(attempt − 1)`, at most the maximum, ±10 %.
pub(super) fn interval(policy: &RetryPolicy, seed: Seed<'_>) -> Span {
    let exponent = i32::try_from(seed.attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = policy.initial_interval.0 as f64 * policy.backoff_coefficient.powi(exponent);
    // `min` also takes the other side of a NaN (0 × infinity).
    let bounded = grown.min(policy.maximum_interval.0 as f64).max(0.0);
    let share = jitter(seed) as f64 / u32::MAX as f64;
    // A float that does not fit saturates.
    Span((bounded * (0.9 + 0.2 * share)) as u64)
}

/// FNV-1a with a final mix: even, stable for ever, and no secret.
fn jitter(seed: Seed<'_>) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let bytes = seed
        .run
        .0
        .as_bytes()
        .iter()
        .chain(seed.step.as_str().as_bytes())
        .copied()
        .chain([seed.direction as u8])
        .chain(seed.attempt.to_le_bytes());
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            initial_interval: Span::from_secs(1),
            backoff_coefficient: 2.0,
            maximum_interval: Span::from_secs(100),
            maximum_attempts: None,
            non_retryable: vec![],
        }
    }

    fn seed(step: &StepPath, attempt: u32) -> Seed<'_> {
        Seed {
            run: RunId(uuid::Uuid::from_u128(42)),
            step,
            direction: Direction::Do,
            attempt,
        }
    }

    #[test]
    fn intervals_grow_up_to_the_maximum_within_ten_percent() {
        let step = StepPath::new("pay");
        for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (7, 64), (8, 100), (5_000, 100), (u32::MAX, 100)] {
            let got = interval(&policy(), seed(&step, attempt)).0;
            let plain = seconds * 1_000_000;
            assert!(
                (plain * 9 / 10..=plain * 11 / 10).contains(&got),
                "attempt {attempt}: {got}"
            );
        }
    }

    /// Of many runs that fail at once as many come back early as late, and none further off than a tenth.
    #[test]
    fn the_jitter_reaches_a_tenth_either_way() {
        let step = StepPath::new("pay");
        let shares = (0..4_000_u128).map(|n| {
            let seed = Seed {
                run: RunId(uuid::Uuid::from_u128(n)),
                ..seed(&step, 1)
            };
            interval(&policy(), seed).0
        });
        let shares: Vec<u64> = shares.collect();
        let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        assert!((900_000..901_000).contains(&least), "{least}");
        assert!((1_099_000..=1_100_000).contains(&most), "{most}");
        let mean = shares.iter().sum::<u64>() / 4_000;
        assert!((997_000..1_003_000).contains(&mean), "{mean}");
    }

    #[test]
    fn strange_policies_give_a_pause_and_no_panic() {
        let step = StepPath::new("pay");
        for coefficient in [0.0, 1.0, f64::INFINITY, f64::NAN, -3.0] {
            let strange = RetryPolicy {
                initial_interval: Span::ZERO,
                backoff_coefficient: coefficient,
                maximum_interval: Span(u64::MAX),
                ..policy()
            };
            interval(&strange, seed(&step, 3));
        }
    }

    #[test]
    fn jitter_is_deterministic_and_differs_between_steps_attempts_and_directions() {
        let (pay, ship) = (StepPath::new("pay"), StepPath::new("ship"));
        let undo = Seed {
            direction: Direction::Undo,
            ..seed(&pay, 1)
        };
        let all = [seed(&pay, 1), seed(&pay, 2), seed(&ship, 1), undo].map(jitter);
        assert_eq!(all, [seed(&pay, 1), seed(&pay, 2), seed(&ship, 1), undo].map(jitter));
        let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn whether_there_is_another_attempt() {
        let step = StepPath::new("pay");
        let limited = RetryPolicy {
            maximum_attempts: Some(3),
            non_retryable: vec![Arc::from("Declined")],
            ..policy()
        };
        let worker = |name, retryable| Ended {
            worker_type: Some(name),
            retryable,
            ..Ended::SILENT
        };
        // (attempt that ended, how, another one)
        let table = [
            (1, worker("Busy", true), true),
            (2, Ended::SILENT, true),
            (3, Ended::SILENT, false),
            (3, worker("Busy", true), false),
            (1, worker("Busy", false), false),
            (1, worker("Declined", true), false),
        ];
        for (attempt, ended, expected) in table {
            let got = pause(&limited, seed(&step, attempt), ended);
            assert_eq!(got.is_some(), expected, "{attempt} {ended:?}");
        }
    }

    #[test]
    fn forward_only_has_no_last_attempt_and_a_pivot_that_may_have_been_done_no_final_error() {
        let step = StepPath::new("pay");
        let limited = RetryPolicy {
            maximum_attempts: Some(1),
            ..policy()
        };
        for (regardless, retryable, expected) in [
            (Regardless::No, true, false),
            (Regardless::OfNumber, true, true),
            (Regardless::OfNumber, false, false),
            (Regardless::OfEverything, false, true),
        ] {
            let ended = Ended {
                retryable,
                regardless,
                ..Ended::SILENT
            };
            assert_eq!(
                pause(&limited, seed(&step, 9), ended).is_some(),
                expected,
                "{regardless:?}"
            );
        }
    }

    #[test]
    fn the_workers_own_pause_is_taken_as_it_is() {
        let step = StepPath::new("pay");
        let ended = Ended {
            retry_after: Some(Span::from_secs(7)),
            ..Ended::SILENT
        };
        assert_eq!(pause(&policy(), seed(&step, 1), ended), Some(Span::from_secs(7)));
    }
}
