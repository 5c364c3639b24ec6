//! What a limit is called, and where its limiter lives.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::WorkflowId;

/// Names one limiter within a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitName {
    pub kind: LimitKind,
    /// The activity, queue or workflow.
    pub of: Arc<str>,
    /// Empty = one limit for all.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub key: Arc<str>,
}

/// Stable names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// `concurrency` of an activity: tasks that are out.
    Activity,
    /// `rate` of an activity: tasks that are given out.
    ActivityRate,
    /// `concurrency` of a definition: runs of the workflow that are open, whatever their version.
    Workflow,
    /// What an operator allows a queue, of all activities together.
    Queue,
    QueueRate,
}

impl LimitName {
    /// Where messages to the limiter go. Messages to limiters are no messages to runs, so that a run of this very id is no harm.
    pub fn address(&self) -> WorkflowId {
        let mut hash = Sha256::new();
        for part in [self.kind.as_str(), &self.of, &self.key] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut text = "limit-".to_owned();
        for byte in &digest[..16] {
            // Writing to a string cannot fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        }
        WorkflowId::new(&text)
    }
}

impl LimitKind {
    /// An operator's word counts for these, not that of whoever asks.
    pub fn is_of_queue(self) -> bool {
        matches!(self, Self::Queue | Self::QueueRate)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::ActivityRate => "activity_rate",
            Self::Workflow => "workflow",
            Self::Queue => "queue",
            Self::QueueRate => "queue_rate",
        }
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, of) = match self.kind {
            LimitKind::Activity => ("concurrency", "activity"),
            LimitKind::ActivityRate => ("rate", "activity"),
            LimitKind::Workflow => ("concurrency", "workflow"),
            LimitKind::Queue => ("concurrency", "queue"),
            LimitKind::QueueRate => ("rate", "queue"),
        };
        write!(f, "the {what} of the {of} `{}`", self.of)?;
        if self.key.is_empty() {
            return Ok(());
        }
        write!(f, " for `{}`", self.key)
    }
}

pub(super) fn is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_and_differ_by_every_part() {
        let name = |kind, of: &str, key: &str| LimitName {
            kind,
            of: of.into(),
            key: key.into(),
        };
        let all = [
            name(LimitKind::Activity, "charge", ""),
            name(LimitKind::ActivityRate, "charge", ""),
            name(LimitKind::Activity, "charge", "a"),
            name(LimitKind::Activity, "chargea", ""),
            name(LimitKind::Queue, "charge", ""),
        ];
        let addresses: std::collections::BTreeSet<_> = all.iter().map(LimitName::address).collect();
        assert_eq!(addresses.len(), all.len());
        // Where permits are stored by it, it can never change.
        assert_eq!(all[2].address().as_str(), "limit-f170b598aa5694b6b261f29aa3017ccb");
        assert_eq!(all[2].to_string(), "the concurrency of the activity `charge` for `a`");
    }
}
