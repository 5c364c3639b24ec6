//! What a run is doing, or how it ended.

use serde::{Deserialize, Serialize};

/// The statuses of SEMANTICS §2.13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, and waits until the open run of its workflow id has closed.
    Queued,
    /// Waits for a place among the open runs of its workflow (`concurrency`).
    Waiting,
    Running,
    /// Stopping or undoing.
    Compensating,
    Paused,
    /// Something waits for an operator: an undo, or the whole run. Other undos may still be going on.
    Parked,
    Completed,
    /// Failed with nothing to undo.
    Failed,
    /// Failed, and everything there was to undo has been undone.
    Compensated,
    /// An operator skipped an undo, whatever the run had been stopped for.
    CompensationFailed,
    /// Cancelled, after undoing.
    Cancelled,
    /// Past the run's timeout, after undoing.
    TimedOut,
    /// Stopped at once; nothing was undone.
    Terminated,
    ContinuedAsNew,
    /// There was no room for it (`on_conflict: skip`), so it never began.
    Skipped,
}

impl Status {
    pub const ALL: [Self; 15] = [
        Self::Queued,
        Self::Waiting,
        Self::Running,
        Self::Compensating,
        Self::Paused,
        Self::Parked,
        Self::Completed,
        Self::Failed,
        Self::Compensated,
        Self::CompensationFailed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Terminated,
        Self::ContinuedAsNew,
        Self::Skipped,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Paused => "paused",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Compensated => "compensated",
            Self::CompensationFailed => "compensation_failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Terminated => "terminated",
            Self::ContinuedAsNew => "continued_as_new",
            Self::Skipped => "skipped",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// A closed run has given its workflow id back.
    pub const fn is_closed(self) -> bool {
        !matches!(
            self,
            Self::Queued | Self::Waiting | Self::Running | Self::Compensating | Self::Paused | Self::Parked
        )
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_name_for_people_programs_and_storage() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(Status::parse("Running"), None);
    }
}
