//! What people and programs ask of a schedule; sent and kept as it is written here.

use serde::{Deserialize, Serialize};

use super::spec::{Overlap, Spec};
use crate::time::Timestamp;

/// Occurrences that one backfill may have.
pub const MAX_BACKFILL: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Refused where the schedule exists and says something else.
    Create(Box<Spec>),
    /// Refused where there is none.
    Update(Box<Spec>),
    /// What a definition says of the schedule named after it: it is made, changed, or with no `spec` deleted, unless a newer
    /// version has spoken or it was made by hand.
    Define {
        version: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Box<Spec>>,
    },
    Pause,
    /// What came due meanwhile is not made up for.
    Resume,
    /// One occurrence now, also of a schedule that is paused.
    Trigger {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overlap: Option<Overlap>,
    },
    /// The occurrences of a range that has passed, both ends inclusive; those that have been started are not started again.
    Backfill {
        from: Timestamp,
        until: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overlap: Option<Overlap>,
    },
    /// What it has started goes on.
    Delete,
}

impl Command {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(_) => "update",
            Self::Define { .. } => "define",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Trigger { .. } => "trigger",
            Self::Backfill { .. } => "backfill",
            Self::Delete => "delete",
        }
    }

    /// What it says the schedule is to be.
    pub fn spec(&self) -> Option<&Spec> {
        match self {
            Self::Create(spec) | Self::Update(spec) => Some(spec),
            Self::Define { spec, .. } => spec.as_deref(),
            _ => None,
        }
    }
}
