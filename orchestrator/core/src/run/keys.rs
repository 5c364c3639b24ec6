//! Idempotency keys, and the ids of runs that a run brings about.
//!
//! **Invariant:** a key is a function of run, step path and direction alone, the same for every attempt and delivery. The
//! ledger does not store it beside the step because of that: this format may never change for a stored run.

use std::fmt::Write;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::effect::Direction;
use crate::ids::{MessageNo, RunId, StepPath};
use crate::time::Timestamp;

/// `<run>/<step path>/<do|undo>`
pub fn idempotency_key(run: RunId, step: &StepPath, direction: Direction) -> Arc<str> {
    let mut key = String::with_capacity(36 + 1 + step.as_str().len() + 5);
    // Writing to a string cannot fail.
    let _ = write!(key, "{run}/{step}/{}", direction.as_str());
    key.into()
}

/// The id of the child that a message starts.
pub(super) fn child_run_id(parent: RunId, message: MessageNo, at: Timestamp) -> RunId {
    derived(parent, b"child", message.0, at)
}

/// The id of the run that continues a run as new; always greater than that run's, as run ids of a workflow id are in general in the
/// order in which the runs had it. A run may continue within the millisecond of its own id, or while its id is ahead of the clock.
pub(super) fn successor_run_id(run: RunId, at: Timestamp) -> RunId {
    let successor = derived(run, b"successor", 0, at);
    if successor > run {
        return successor;
    }
    behind(run, successor)
}

/// The next place in time behind a run that the format of an id can express, with the random half of the other.
pub fn behind(run: RunId, other: RunId) -> RunId {
    const COUNTER: u128 = 0xFFF;
    const RANDOM: u128 = (1 << 64) - 1;
    let bits = run.0.as_u128();
    // Milliseconds, and the counter behind the version.
    let place = (((bits >> 80) << 12) | ((bits >> 64) & COUNTER)) + 1;
    let time = ((place >> 12) << 80) | (0x7 << 76) | ((place & COUNTER) << 64);
    RunId(uuid::Uuid::from_u128(time | (other.0.as_u128() & RANDOM)))
}

/// A UUIDv7 of the time, with a hash where another one is random.
fn derived(run: RunId, purpose: &[u8], number: u32, at: Timestamp) -> RunId {
    let mut hash = Sha256::new();
    hash.update(run.0.as_bytes());
    hash.update(purpose);
    hash.update(number.to_be_bytes());
    let hash = hash.finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&hash[..10]);
    let millis = u64::try_from(at.0 / 1_000).unwrap_or(0);
    RunId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_documented_form_for_ever() {
        let run = RunId(uuid::Uuid::from_u128(7));
        let step = StepPath::new("payment");
        assert_eq!(
            &*idempotency_key(run, &step, Direction::Do),
            "00000000-0000-0000-0000-000000000007/payment/do"
        );
        assert_eq!(
            &*idempotency_key(run, &step, Direction::Undo),
            "00000000-0000-0000-0000-000000000007/payment/undo"
        );
    }

    #[test]
    fn ids_of_other_runs_are_uuid_v7_of_their_time_and_differ_by_what_they_derive_from() {
        let run = RunId(uuid::Uuid::from_u128(7));
        let at = Timestamp(1_700_000_000_123_456);
        let child = child_run_id(run, MessageNo(1), at);
        assert_eq!(child.to_string(), "018bcfe5-687b-7fb0-83a3-c0e7fec675bd");
        assert_eq!(child, child_run_id(run, MessageNo(1), at));
        assert_eq!(child.0.get_version_num(), 7);
        let others = [
            child_run_id(run, MessageNo(2), at),
            child_run_id(RunId(uuid::Uuid::from_u128(8)), MessageNo(1), at),
            successor_run_id(run, at),
        ];
        assert!(!others.contains(&child));
        child_run_id(run, MessageNo(1), Timestamp(i64::MIN));
    }

    /// A chain that goes on at once, and one whose clock has gone back.
    #[test]
    fn a_successor_has_a_greater_id_than_the_run_it_continues() {
        let at = Timestamp(1_700_000_000_123_456);
        let first = child_run_id(RunId(uuid::Uuid::from_u128(7)), MessageNo(1), at);
        for at in [at, Timestamp(0)] {
            let mut run = first;
            for _ in 0..10_000 {
                let successor = successor_run_id(run, at);
                assert!(successor > run, "{successor} continues {run}");
                assert_eq!(successor, successor_run_id(run, at));
                assert_eq!(successor.0.get_version_num(), 7);
                assert_eq!(successor.0.get_variant(), uuid::Variant::RFC4122);
                run = successor;
            }
        }
    }
}
