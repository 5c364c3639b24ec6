//! Idempotency keys.
//!
//! **Invariant:** a key is a function of run, step path and direction alone, the same for every attempt and delivery. The
//! ledger does not store it beside the step because of that: this format may never change for a stored run.

use std::fmt::Write;
use std::sync::Arc;

use super::effect::Direction;
use crate::ids::{RunId, StepPath};

/// `<run>/<step path>/<do|undo>`
pub fn idempotency_key(run: RunId, step: &StepPath, direction: Direction) -> Arc<str> {
    let mut key = String::with_capacity(36 + 1 + step.as_str().len() + 5);
    // Writing to a string cannot fail.
    let _ = write!(key, "{run}/{step}/{}", direction.as_str());
    key.into()
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
}
