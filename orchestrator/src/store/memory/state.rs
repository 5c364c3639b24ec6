//! What the model holds: the tables of PostgreSQL as maps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use knarr_core::ids::{Namespace, QueueName, RunId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

use super::CommitFault;
use crate::store::{
    Cluster, CommitId, Cursor, DefaultVersion, DeferredId, DeferredInput, NamespaceRow, Owed, PermitId, QueueRow,
    RunRow, Snapshot, StoredDefinition,
};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) now: Timestamp,
    pub(super) unavailable: bool,
    pub(super) faults: VecDeque<CommitFault>,
    pub(super) processes: u64,
    /// Who holds the session lock of a replica name.
    pub(super) locks: BTreeMap<String, u64>,
    pub(super) cluster: Option<Cluster>,
    pub(super) namespaces: BTreeMap<Namespace, NamespaceRow>,
    pub(super) definitions: BTreeMap<(Namespace, WorkflowName, i32), Arc<StoredDefinition>>,
    pub(super) default_versions: BTreeMap<(Namespace, WorkflowName), DefaultVersion>,
    pub(super) definitions_epoch: i64,
    pub(super) queues: BTreeMap<(Namespace, QueueName), QueueRow>,
    pub(super) sessions_opened: u64,
    pub(super) sessions: BTreeMap<Uuid, SessionRow>,
    pub(super) partitions: BTreeMap<i16, PartitionRow>,
    pub(super) commits: BTreeMap<CommitId, CommitRow>,
    pub(super) runs: BTreeMap<RunId, RunRow>,
    pub(super) events: BTreeMap<(i16, RunId, i32), (Timestamp, String)>,
    pub(super) snapshots: BTreeMap<RunId, Snapshot>,
    pub(super) deferred: BTreeMap<DeferredId, DeferredInput>,
    pub(super) permits: BTreeMap<PermitId, String>,
}

#[derive(Debug)]
pub(super) struct SessionRow {
    pub(super) replica: String,
    pub(super) epoch: i64,
    pub(super) batch_no: i64,
    pub(super) lease_until: Timestamp,
    pub(super) reads_format: i32,
    pub(super) claimed_by: Option<Uuid>,
    /// What the owner has been told; see the PostgreSQL store.
    pub(super) told_partitions: BTreeSet<i16>,
    pub(super) told_commits: BTreeSet<CommitId>,
}

#[derive(Debug, Default)]
pub(super) struct PartitionRow {
    pub(super) owner: Option<Uuid>,
    pub(super) cursor: Cursor,
}

#[derive(Debug)]
pub(super) struct CommitRow {
    pub(super) holder: Uuid,
    pub(super) owed: Owed,
}
