//! What one commit makes durable, and what it still owes the outside.

use knarr_core::ids::RunId;
use uuid::Uuid;

use super::{Cursor, Forgotten, PermitWrite, RunWrite, Snapshot, StoredTransition};

/// An appended row of `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub retention_class: i16,
    pub run_id: RunId,
    pub transition: StoredTransition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorWrite {
    pub partition: i16,
    pub cursor: Cursor,
}

/// An input of the log that waits in the store until its run has been loaded; the cursor has passed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredInput {
    pub partition: i16,
    /// Counts up within the partition; by it they are taken.
    pub no: i64,
    /// The run that was waited for.
    pub run_id: RunId,
    /// Its place in the log.
    pub cursor: Cursor,
    pub subject: String,
    /// JSON: an array of pairs of name and value.
    pub headers: String,
    pub body: Vec<u8>,
}

/// A deferred input as its partition's new owner needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredName {
    pub no: i64,
    pub run_id: RunId,
    pub subject: String,
}

/// Names one row of `deferred`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeferredId {
    pub partition: i16,
    pub no: i64,
}

/// What a batch still owes the outside until its publications are acknowledged: stored as one row of `commits`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owed {
    /// Transitions whose effects are to be published.
    pub spans: Vec<OwedSpan>,
    /// JSON array of messages that no run's events contain: dead letters and forwarded un-keyed starts.
    pub messages: Option<String>,
}

impl Owed {
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.messages.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwedSpan {
    pub run_id: RunId,
    pub first_seq: i32,
    pub last_seq: i32,
}

/// Names one row of `commits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId {
    pub session: Uuid,
    pub batch_no: i64,
}

/// Everything one commit makes durable, in one statement.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Those of every run the batch touches, each once. If one of them is not the session's, the batch is fenced.
    pub partitions: Vec<i16>,
    pub appends: Vec<Append>,
    pub runs: Vec<RunWrite>,
    pub cursors: Vec<CursorWrite>,
    pub snapshots: Vec<Snapshot>,
    pub owed: Owed,
    /// Earlier commits whose publications are all acknowledged: their rows go.
    pub published: Vec<CommitId>,
    pub deferred: Vec<DeferredInput>,
    /// Deferred inputs of earlier batches that this one applies: their rows go, and must be there.
    pub settled: Vec<DeferredId>,
    pub forgotten: Vec<Forgotten>,
    pub permits: Vec<PermitWrite>,
}

impl Batch {
    /// Whether it has to do with deferred inputs, which is rare.
    pub fn defers(&self) -> bool {
        !self.deferred.is_empty() || !self.settled.is_empty()
    }
}

/// A commit that is to be published by somebody else than its session was then, or once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InheritedCommit {
    pub id: CommitId,
    pub owed: Owed,
}
