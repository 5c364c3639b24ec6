//! What is kept: runs, their events, sessions, partitions, definitions. PostgreSQL is the truth; the memory store is the
//! reference model it is held against.
//!
//! **Invariant:** a replica changes runs, events and cursors only through [`Store::commit`], and only while its session's
//! epoch and batch number are the ones the store holds and every partition the batch touches is the session's.

use std::future::Future;
use std::sync::Arc;

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

pub use self::batch::*;
pub use self::definitions::*;
pub use self::error::{CommitError, StoreError};
pub use self::format::FORMAT_LEVEL;
pub use self::limits::*;
pub use self::questions::*;
pub use self::runs::*;

mod batch;
pub mod code;
#[cfg(test)]
mod conformance;
mod definitions;
#[cfg(test)]
mod differential;
mod error;
pub mod format;
mod limits;
pub mod memory;
pub mod postgres;
mod questions;
mod runs;

/// One life of one replica. A commit compares `epoch` and `batch_no` and sets the next batch number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub id: Uuid,
    pub epoch: i64,
    /// The number of the last batch this session is known to have committed.
    pub batch_no: i64,
}

/// What a cluster was initialised with; fixed for its life.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub id: Uuid,
    /// Keyed partitions are `0..partitions`; the partition numbered `partitions` is the ingress of un-keyed starts.
    pub partitions: u16,
    /// Key of the task tokens' HMAC.
    pub secret: [u8; 32],
    /// What is written is of this format: every replica that has a session can read it.
    pub format_level: i32,
}

/// How far a partition's log has been taken, and how to recognise that the log is still the same one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Stream sequence of the last message taken; 0 = none yet.
    pub sequence: u64,
    /// Its time, as the stream recorded it (microseconds since the epoch).
    pub at: Timestamp,
    /// The stream's creation time as JetStream reports it; empty = none yet.
    pub stream: String,
}

/// An owned partition, as its new owner finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPartition {
    pub partition: i16,
    pub cursor: Cursor,
    /// Inputs of it wait in the store for their runs.
    pub deferred: bool,
    /// It has limiters, or starts are queued in it.
    pub permits: bool,
}

/// The answer of one round of keeping one's lease and one's share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Partitions that became this session's in this round.
    pub gained: Vec<OwnedPartition>,
    /// How many this session owns above its fair share; release that many when they are drained.
    pub surplus: usize,
    /// Sessions whose lease is alive, this one included.
    pub live_sessions: usize,
    /// The cluster's format level, as it is now.
    pub format_level: i32,
    /// When it is not the one known, definitions, namespaces and limits of queues are to be read again.
    pub definitions_epoch: i64,
    /// While neither it nor the epoch changes, nothing has: no session has committed, begun or been taken over.
    pub commits: i64,
    /// Namespaces whose changes of status are published, in their order.
    pub telling: Vec<Namespace>,
    /// The store's clock at the end of this round.
    pub now: Timestamp,
    /// Rows of `commits` taken over from a dead session in this round: their effects are to be published again.
    pub inherited: Vec<CommitId>,
}

/// How many of the partitions (the ingress included) a session may own while `live` sessions share them.
pub fn fair_share(partitions: usize, live: usize) -> usize {
    partitions.div_ceil(live.max(1))
}

/// Where everything durable is. Futures are `Send`; every method is one or two round trips.
pub trait Store: Send + Sync + 'static {
    /// Creates or migrates the schema and initialises the cluster if nobody has. Fails with `TooOld` where the cluster's
    /// level is beyond what this binary can read.
    fn prepare(&self, partitions: u16) -> impl Future<Output = Result<Cluster, StoreError>> + Send;

    /// Creates the partitions of `events` for the days around `now`, ahead of need; call it every hour or so. Commits
    /// never depend on it: what finds no partition goes to a default one and is moved here.
    fn ensure_partitions(&self, now: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The cluster's format level. It never falls, so what may be written stays so.
    fn format_level(&self) -> impl Future<Output = Result<i32, StoreError>> + Send;

    /// The store's clock.
    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>> + Send;

    /// Begins a session. A dead predecessor of the same replica name (its session lock is free) is fenced and inherited
    /// from at the first [`Store::keep`], without waiting for its lease; `NameTaken` where it is alive. From here on the
    /// cluster's level does not rise above what this binary can read; `TooOld` if it has.
    fn open_session(&self, replica: &str) -> impl Future<Output = Result<Session, StoreError>> + Send;

    /// Renews the lease, takes over dead sessions (epoch first, then with a fresh snapshot their partitions and commits),
    /// claims free partitions up to the fair share, drops rows of `published` commits, and raises the cluster's format level
    /// as far as every session can read it. Fails with `Fenced` when this
    /// session's epoch has moved.
    fn keep(&self, session: &Session, published: &[CommitId])
    -> impl Future<Output = Result<Share, StoreError>> + Send;

    /// Gives drained partitions back.
    fn release(&self, session: &Session, partitions: &[i16]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends the session: partitions and lease are free at once. Its commits are left to be inherited.
    fn close_session(&self, session: &Session) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// After a commit of unknown outcome: bumps this session's own epoch (waiting behind a backend that still executes)
    /// and only then reads the batch number. `Fenced` if another session has taken over.
    fn recover(&self, session: &Session) -> impl Future<Output = Result<Session, StoreError>> + Send;

    /// The cursors of partitions this session owns, as they are committed.
    fn cursors(&self, session: &Session) -> impl Future<Output = Result<Vec<OwnedPartition>, StoreError>> + Send;

    /// The committed cursors of all partitions, whoever owns them: the log may be purged behind the smallest.
    fn all_cursors(&self) -> impl Future<Output = Result<Vec<OwnedPartition>, StoreError>> + Send;

    /// Makes a batch durable, or nothing of it. On success the session's batch number is `session.batch_no + 1`.
    fn commit(&self, session: &Session, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// What commits of which this session is the holder still owe; the others are absent from the answer.
    fn owed(
        &self,
        session: &Session,
        commits: &[CommitId],
    ) -> impl Future<Output = Result<Vec<InheritedCommit>, StoreError>> + Send;

    /// For each workflow id its open run if there is one, those that are queued for it, of the closed ones the one that had it last, and
    /// any run with the request id given.
    fn find_runs(
        &self,
        ids: &[(Namespace, WorkflowId, Option<RequestId>)],
    ) -> impl Future<Output = Result<Found, StoreError>> + Send;

    /// Closed runs of a workflow id, who had it last first, behind those that had it at `before` or later; at most
    /// [`CLOSED_LIMIT`].
    fn closed_runs(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        before: Option<Uuid>,
    ) -> impl Future<Output = Result<Vec<ClosedRun>, StoreError>> + Send;

    /// Runs that do not exist are absent from the answer. Beside a run's owner the transitions may be newer than the row;
    /// for the owner itself they agree.
    fn load_runs(&self, ids: &[RunId]) -> impl Future<Output = Result<Vec<StoredRun>, StoreError>> + Send;

    /// The row of a run, without its history.
    fn run_row(&self, run: RunId) -> impl Future<Output = Result<Option<RunRow>, StoreError>> + Send;

    /// How large runs are; those that do not exist are absent from the answer.
    fn run_sizes(&self, ids: &[RunId]) -> impl Future<Output = Result<Vec<RunSize>, StoreError>> + Send;

    /// What is deferred of a partition, in order, without the messages themselves.
    fn deferred_names(&self, partition: i16) -> impl Future<Output = Result<Vec<DeferredName>, StoreError>> + Send;

    /// Deferred inputs of one run with `no > after` in their order, at most [`DEFERRED_LIMIT`].
    fn deferred(
        &self,
        partition: i16,
        run: RunId,
        after: i64,
    ) -> impl Future<Output = Result<Vec<DeferredInput>, StoreError>> + Send;

    /// The rows of every limiter of a partition.
    fn permits(&self, partition: i16) -> impl Future<Output = Result<Vec<PermitRow>, StoreError>> + Send;

    /// Workflow ids of a partition that starts are queued for, each once.
    fn ids_queued_for(
        &self,
        partition: i16,
    ) -> impl Future<Output = Result<Vec<(Namespace, WorkflowId)>, StoreError>> + Send;

    /// Says what a queue may, instead of what was said before. The namespace has to be there.
    fn set_queue(&self, row: &QueueRow) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The queues of all namespaces of which something is said.
    fn queues(&self) -> impl Future<Output = Result<Vec<QueueRow>, StoreError>> + Send;

    /// The limits of a namespace that somebody has a permit of or waits for, at most [`LIST_LIMIT`], those with most waiting
    /// first.
    fn limits_in_use(&self, namespace: &Namespace) -> impl Future<Output = Result<Vec<LimitUse>, StoreError>> + Send;

    /// The line at one limiter, as an ask that waits in it sees it.
    fn line_of(
        &self,
        namespace: &Namespace,
        asked: &PlaceAsked,
    ) -> impl Future<Output = Result<LimitLine, StoreError>> + Send;

    /// A run's transitions with `seq > after`, in order, at most `limit` (capped at [`HISTORY_LIMIT`]), whatever snapshots there are.
    fn history(
        &self,
        run: RunId,
        after: i32,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<StoredTransition>, StoreError>> + Send;

    /// A page of the runs of these partitions, also closed ones with messages pending, whose `wake_at` is at or before
    /// `page.until`: earliest first, then by id. What it costs depends on the page alone.
    fn due(&self, partitions: &[i16], page: DuePage) -> impl Future<Output = Result<Due, StoreError>> + Send;

    /// The version of every definition, in every namespace, that a start takes which names none.
    fn definition_heads(&self) -> impl Future<Output = Result<DefinitionHeads, StoreError>> + Send;

    fn register_definition(
        &self,
        definition: &StoredDefinition,
    ) -> impl Future<Output = Result<Registered, StoreError>> + Send;

    /// Sets the version that starts take which name none; `None` = the newest again. `false` if it is not registered.
    fn set_default_version(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        default: Option<&DefaultVersion>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// By version, or the newest.
    fn definition(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> impl Future<Output = Result<Option<Arc<StoredDefinition>>, StoreError>> + Send;

    fn definition_by_hash(
        &self,
        hash: &DefinitionHash,
    ) -> impl Future<Output = Result<Option<Arc<StoredDefinition>>, StoreError>> + Send;

    fn list_definitions(
        &self,
        namespace: &Namespace,
        filter: &DefinitionFilter,
    ) -> impl Future<Output = Result<Vec<DefinitionRow>, StoreError>> + Send;

    /// The bodies of these definitions; those that are not there are absent.
    fn definition_bodies(
        &self,
        hashes: &[DefinitionHash],
    ) -> impl Future<Output = Result<Vec<(DefinitionHash, String)>, StoreError>> + Send;

    /// `false` if it exists already.
    fn create_namespace(&self, namespace: &NamespaceRow) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Switches the events of a namespace on or off; every replica hears of it when it next keeps its lease. `false` if there
    /// is no such namespace.
    fn set_events(&self, namespace: &Namespace, events: bool) -> impl Future<Output = Result<bool, StoreError>> + Send;

    fn namespaces(&self) -> impl Future<Output = Result<Vec<NamespaceRow>, StoreError>> + Send;

    /// Runs whose status is `parked`, in all namespaces, up to [`COUNT_LIMIT`].
    fn count_parked(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    fn list_runs(
        &self,
        namespace: &Namespace,
        filter: &RunFilter,
    ) -> impl Future<Output = Result<Vec<RunRow>, StoreError>> + Send;

    /// The schedules of a namespace that are not deleted, by workflow id, those behind `after`; at most `limit` (capped at
    /// [`LIST_LIMIT`]).
    fn list_schedules(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<RunRow>, StoreError>> + Send;

    /// The triggers of a namespace that are not deleted, as [`Store::list_schedules`].
    fn list_triggers(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<RunRow>, StoreError>> + Send;

    /// The triggers of these partitions that are not deleted.
    fn triggers(&self, partitions: &[i16]) -> impl Future<Output = Result<Vec<RunId>, StoreError>> + Send;
}
