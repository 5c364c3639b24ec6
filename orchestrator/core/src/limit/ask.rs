//! What a run asks a limiter for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::{LimitName, is_empty};
use crate::ids::StepPath;
use crate::run::effect::Direction;
use crate::time::Span;

/// One task's wish to be given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub limit: LimitName,
    /// How much there is of it, as whoever asks knows.
    pub bound: Bound,
    pub step: StepPath,
    #[serde(default, skip_serializing_if = "is_default")]
    pub direction: Direction,
    /// From [`MOST_IMPORTANT`] to 5.
    #[serde(default = "ordinary", skip_serializing_if = "is_ordinary")]
    pub priority: u8,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub fairness_key: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// So many permits at a time.
    Concurrent(u32),
    /// A permit counts when it is granted; how long it is kept is of no matter.
    Rate(Rate),
}

/// So many in each stretch of time, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    pub limit: u32,
    /// Microseconds.
    pub per: Span,
}

pub const MOST_IMPORTANT: u8 = 1;
/// Of whoever says nothing; the greatest is 5.
pub const PRIORITY: u8 = 3;

impl Ask {
    /// Undos come before everything else.
    pub(super) fn rank(&self) -> u8 {
        match self.direction {
            Direction::Undo => 0,
            Direction::Do => self.priority.max(MOST_IMPORTANT),
        }
    }
}

fn ordinary() -> u8 {
    PRIORITY
}

// serde hands fields over by reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_ordinary(priority: &u8) -> bool {
    *priority == PRIORITY
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
