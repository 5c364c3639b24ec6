//! Runs as they are stored: their row, their transitions, their snapshots.

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

/// One transition of one run: the events of one applied input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTransition {
    /// Counts from 1 without gaps within a run.
    pub seq: i32,
    pub at: Timestamp,
    /// UTF-8 JSON: an array of events.
    pub body: String,
}

/// The row of `runs`, as it is to stand after the batch; at most one write a run and batch.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    pub run_id: RunId,
    pub retention_class: i16,
    pub namespace: Namespace,
    pub workflow_id: WorkflowId,
    pub workflow: WorkflowName,
    pub version: i32,
    pub definition: DefinitionHash,
    pub partition: i16,
    /// One of the names in SEMANTICS §2.13.
    pub status: String,
    pub started_at: Timestamp,
    /// `None` = open; an open run holds its workflow id, unless it is queued for it.
    pub closed_at: Option<Timestamp>,
    /// The earliest deadline, `None` = none. May be earlier than the truth, never later.
    pub wake_at: Option<Timestamp>,
    pub request_id: Option<RequestId>,
    /// A JSON object, or `None`.
    pub search_attributes: Option<String>,
    /// The output (JSON) of a completed run, or the failure (JSON) of any other closed one.
    pub outcome: Option<String>,
    /// Counted from 1: each attempt of a run that is tried again is a run of its own.
    pub attempt: i32,
    /// Of an attempt that is not the first: not before.
    pub begins_at: Option<Timestamp>,
    /// The next attempt, of a run that has closed without success and is tried again.
    pub retried_by: Option<RunId>,
    /// Its [`RunRow::tenure`], where its run id says it wrongly.
    pub tenure: Option<Uuid>,
}

impl RunRow {
    /// Who has had a workflow id later than another one has the greater tenure. It is as the run id says, unless a run got the id
    /// behind one whose run id is greater: from the line, or because its parent has fixed its run id.
    pub fn tenure(&self) -> Uuid {
        self.tenure.unwrap_or(self.run_id.0)
    }

    /// What `tenure` says of one that has closed in line for its workflow id: before those of all that had it.
    pub fn no_tenure(&self) -> Uuid {
        Uuid::from_u128(self.run_id.0.as_u128() & ((1 << 80) - 1))
    }

    /// It waits until the open run of its workflow id has closed.
    pub fn is_queued(&self) -> bool {
        self.closed_at.is_none() && self.status == "queued"
    }

    /// No other run can have the workflow id.
    pub fn has_id(&self) -> bool {
        self.closed_at.is_none() && !self.is_queued()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum RunWrite {
    Insert(RunRow),
    /// Writes only what can change: status, closed_at, wake_at, search_attributes, outcome, retried_by, tenure.
    Update(RunRow),
    /// The same, and version and definition: the run has moved to another one.
    Migrate(RunRow),
}

impl RunWrite {
    pub fn row(&self) -> &RunRow {
        match self {
            Self::Insert(row) | Self::Update(row) | Self::Migrate(row) => row,
        }
    }

    pub fn as_insert(&self) -> Option<&RunRow> {
        match self {
            Self::Insert(row) => Some(row),
            Self::Update(_) | Self::Migrate(_) => None,
        }
    }

    pub fn as_update(&self) -> Option<&RunRow> {
        match self {
            Self::Update(row) | Self::Migrate(row) => Some(row),
            Self::Insert(_) => None,
        }
    }

    /// The row of a run that has moved.
    pub fn as_migration(&self) -> Option<&RunRow> {
        match self {
            Self::Migrate(row) => Some(row),
            Self::Insert(_) | Self::Update(_) => None,
        }
    }
}

/// The statuses of open runs (SEMANTICS §2.13); a store refuses others.
pub const OPEN_STATUSES: [&str; 6] = ["queued", "waiting", "running", "compensating", "paused", "parked"];

/// The statuses of runs that may be tried again.
pub const RETRIED_STATUSES: [&str; 3] = ["failed", "compensated", "timed_out"];

/// The statuses of a run that has closed and that its parent has undone later; its workflow id is free.
pub const UNDONE_LATER_STATUSES: [&str; 2] = ["compensating", "parked"];

/// The statuses of closed runs; a store refuses others.
pub const CLOSED_STATUSES: [&str; 9] = [
    "completed",
    "failed",
    "compensated",
    "compensation_failed",
    "cancelled",
    "timed_out",
    "terminated",
    "continued_as_new",
    "skipped",
];

/// The state of a run after `seq`, so that loading it does not fold every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub run_id: RunId,
    pub seq: i32,
    /// UTF-8 JSON of the core's state.
    pub body: String,
}

/// Transitions of a schedule that a snapshot in the same batch has taken in, and nobody needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    pub retention_class: i16,
    pub run_id: RunId,
    /// This one and all before it.
    pub up_to: i32,
}

/// How much there is of a run to be loaded: its snapshot, and the transitions after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSize {
    pub run_id: RunId,
    pub partition: i16,
    pub bytes: u64,
}

/// A run as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    pub row: RunRow,
    pub snapshot: Option<Snapshot>,
    /// Those after the snapshot, in order.
    pub transitions: Vec<StoredTransition>,
}
