//! What a run asks a limiter for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::{LimitKind, LimitName, is_empty};
use crate::ids::StepPath;
use crate::run::effect::Direction;
use crate::time::Span;

/// One task's wish to be given out, or a run's to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub limit: LimitName,
    /// How much there is of it, as whoever asks knows.
    pub bound: Bound,
    /// The root, of a run.
    pub step: StepPath,
    #[serde(default, skip_serializing_if = "is_default")]
    pub direction: Direction,
    /// From [`MOST_IMPORTANT`] to 5.
    #[serde(default = "ordinary", skip_serializing_if = "is_ordinary")]
    pub priority: u8,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub fairness_key: Arc<str>,
    /// Where there is no room; those of tasks wait.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_conflict: OnConflict,
}

/// What becomes of an ask when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It waits for its turn.
    #[default]
    Queue,
    /// It is refused.
    Reject,
    /// It waits, and the oldest that nobody waits for in this way yet is asked to go.
    CancelRunning,
    /// It is refused, and that is no failure.
    Skip,
}

impl OnConflict {
    /// Whether it is decided at once.
    pub fn is_decided_at_once(self) -> bool {
        matches!(self, Self::Reject | Self::Skip)
    }
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
    /// Whether it is a run that asks, before it begins.
    pub fn is_of_run(&self) -> bool {
        self.limit.kind == LimitKind::Workflow
    }

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
