//! What is asked of the store about many runs, and how much of an answer there may be.

use knarr_core::ids::{RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

use super::RunRow;

/// The longest outcome, in bytes, that a look-up of workflow ids brings along: a batch asks about many, and most of what is
/// found is looked at for its status alone.
pub const FOUND_OUTCOME_BYTES: usize = 4 * 1024;

/// A run found under a workflow id: the open one, one that is queued, the closed one that had it last, or one made by the request asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRun {
    /// Without its outcome where that is longer than [`FOUND_OUTCOME_BYTES`]; [`Store::run_row`] has it.
    pub row: RunRow,
}

/// The answer of [`Store::find_runs`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// In no particular order, each run once.
    pub runs: Vec<FoundRun>,
    /// Grows with every registration and every limit of a queue; when it is not that of the cached [`DefinitionHeads`], fetch them anew.
    pub definitions_epoch: i64,
}

/// A run that had a workflow id, in the order of [`RunRow::tenure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedRun {
    pub run_id: RunId,
    pub tenure: Uuid,
    pub closed_at: Timestamp,
}

/// The most [`Store::closed_runs`] returns at once.
pub const CLOSED_LIMIT: usize = 64;

/// Which runs a list shows; newest first, by keyset. Schedules and triggers are not among them, unless by their
/// workflow or id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    pub workflow: Option<WorkflowName>,
    pub workflow_id: Option<WorkflowId>,
    pub status: Option<String>,
    /// Only runs started before this one (of the previous page).
    pub before: Option<RunId>,
    /// At most this many; the store caps it at 1,000.
    pub limit: u32,
}

/// The most runs or definitions that are listed at once.
pub const LIST_LIMIT: u32 = 1_000;

/// The most parked runs [`Store::count_parked`] counts.
pub const COUNT_LIMIT: u64 = 100_000;

/// Which deadlines are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuePage {
    /// Only those behind this one (the last of the page before).
    pub after: Option<(Timestamp, RunId)>,
    pub until: Timestamp,
    pub limit: u32,
}

impl DuePage {
    pub fn first(until: Timestamp, limit: u32) -> Self {
        Self {
            after: None,
            until,
            limit,
        }
    }
}

/// A page of deadlines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    pub runs: Vec<(RunId, Timestamp)>,
    /// There are no more. Where there are, the page may be shorter than was asked for, and is never empty.
    pub whole: bool,
}

/// The most transitions [`Store::history`] returns at once.
pub const HISTORY_LIMIT: u32 = 10_000;

/// The most deferred inputs [`Store::deferred`] returns at once.
pub const DEFERRED_LIMIT: usize = 32;
