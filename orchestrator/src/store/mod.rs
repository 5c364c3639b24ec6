//! What is kept: runs, their events, sessions, partitions, definitions. PostgreSQL is the truth; the memory store is the
//! reference model it is held against.
//!
//! **Invariant:** a replica changes runs, events and cursors only through [`Store::commit`], and only while its session's
//! epoch and batch number are the ones the store holds and every partition the batch touches is the session's.

use std::future::Future;
use std::sync::Arc;

use knarr_core::ids::{DefinitionHash, Namespace, QueueName, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::limit::LimitName;
use knarr_core::time::{Span, Timestamp};
use knarr_schemas::code::{Code, split_id};
use uuid::Uuid;

pub use self::format::FORMAT_LEVEL;

pub mod code;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod differential;
pub mod format;
pub mod memory;
pub mod postgres;

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

/// One transition of one run: the events of one applied input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTransition {
    /// Counts from 1 without gaps within a run.
    pub seq: i32,
    pub at: Timestamp,
    /// UTF-8 JSON: an array of events.
    pub body: String,
}

/// An appended row of `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub retention_class: i16,
    pub run_id: RunId,
    pub transition: StoredTransition,
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
}

impl RunRow {
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
    /// Writes only what can change: status, closed_at, wake_at, search_attributes, outcome.
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

/// A row of a limiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitRow {
    pub id: PermitId,
    /// UTF-8 JSON.
    pub body: String,
}

/// Names one row of `permits`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId {
    pub partition: i16,
    pub namespace: Namespace,
    /// The limiter's address.
    pub limiter: String,
    /// Within the limiter.
    pub no: i64,
}

/// A row of a limiter as it is to stand after the batch; `None` = it is not there. At most one write a row and batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitWrite {
    pub id: PermitId,
    pub body: Option<String>,
}

/// What an operator allows a queue; neither = nothing is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    pub namespace: Namespace,
    pub queue: QueueName,
    pub max_concurrent: Option<i32>,
    pub rate: Option<QueueRate>,
    /// How long a worker may be silent about a task; `None` = as its definitions have it.
    pub ack_wait: Option<Span>,
}

impl QueueRow {
    /// A row that says nothing is none.
    pub(crate) fn says_nothing(&self) -> bool {
        self.max_concurrent.is_none() && self.rate.is_none() && self.ack_wait.is_none()
    }
}

/// So many in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRate {
    pub limit: i32,
    pub per: Span,
}

/// How much of a limit is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    pub limit: LimitName,
    pub held: i64,
    pub waiting: i64,
    /// Since when the first of those waits.
    pub since: Option<Timestamp>,
}

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

/// How a commit can fail.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The session's epoch or batch number is not the one the store holds, or a partition of the batch is not the
    /// session's: nothing was written.
    #[error("the session has been fenced off")]
    Fenced,
    /// The store refuses the data (SQLSTATE classes 22, 23, 54): nothing was written; bisect to the culprit.
    #[error("the store refuses the batch: {0}")]
    BadData(String),
    /// The connection failed: whether the batch was written is not known until the session is recovered.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(String),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    #[error("the session has been fenced off")]
    Fenced,
    /// What the cluster writes cannot be read by this binary; not retryable.
    #[error("KN0311: the database is at format {level}, this knarr reads up to {reads}; use a newer one")]
    TooOld { level: i32, reads: i32 },
    /// The answer would take longer than the store works on a question of people.
    #[error("the answer takes the store too long")]
    TooSlow,
    /// Another process of that name is alive; not retryable.
    #[error("KN0312: a replica named `{replica}` is running; give this one another name")]
    NameTaken { replica: String },
    /// A rule of the store is broken; not retryable.
    #[error("{0}")]
    Rejected(String),
}

impl StoreError {
    /// The code that the text begins with, so that a plain line of a log has it too.
    pub fn code(&self) -> Option<&'static Code> {
        let text = self.to_string();
        let (id, _) = split_id(&text)?;
        code::ALL.iter().copied().find(|code| code.id == id)
    }

    /// What is known beyond the code.
    pub fn cause(&self) -> String {
        let text = self.to_string();
        match split_id(&text) {
            Some((_, cause)) => cause.to_owned(),
            None => text,
        }
    }
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

/// How much there is of a run to be loaded: its snapshot, and the transitions after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSize {
    pub run_id: RunId,
    pub partition: i16,
    pub bytes: u64,
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

/// A commit that is to be published by somebody else than its session was then, or once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InheritedCommit {
    pub id: CommitId,
    pub owed: Owed,
}

/// A run as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    pub row: RunRow,
    pub snapshot: Option<Snapshot>,
    /// Those after the snapshot, in order.
    pub transitions: Vec<StoredTransition>,
}

/// The longest outcome, in bytes, that a look-up of workflow ids brings along: a batch asks about many, and most of what is
/// found is looked at for its status alone.
pub const FOUND_OUTCOME_BYTES: usize = 4 * 1024;

/// A run found under a workflow id: the open one, the newest closed one, or one made by the request asked for.
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

/// The version of a definition that a start takes which names none: the newest, or the one an operator has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionHead {
    pub namespace: Namespace,
    pub workflow: WorkflowName,
    pub version: i32,
    pub hash: DefinitionHash,
}

/// What operators have said of a definition's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultVersion {
    pub version: i32,
    pub at: Timestamp,
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// The head of every definition, and the epoch they were read at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinitionHeads {
    pub definitions_epoch: i64,
    pub heads: Vec<DefinitionHead>,
}

/// A stored definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDefinition {
    pub namespace: Namespace,
    pub workflow: WorkflowName,
    pub version: i32,
    pub hash: DefinitionHash,
    /// The canonical JSON that is hashed, files inlined.
    pub body: String,
    /// The text as it was registered (YAML or JSON).
    pub source: String,
    pub registered_at: Timestamp,
}

/// A definition without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionRow {
    pub workflow: WorkflowName,
    pub version: i32,
    pub hash: DefinitionHash,
    pub registered_at: Timestamp,
    /// An operator has set it for starts that name no version.
    pub default: bool,
}

/// Which definitions a list shows; by name and version, by keyset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinitionFilter {
    pub workflow: Option<WorkflowName>,
    /// Only those behind this one (of the previous page).
    pub after: Option<(WorkflowName, i32)>,
    /// At most this many; the store caps it at [`LIST_LIMIT`].
    pub limit: u32,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    New,
    /// The same name, version and content was there.
    Unchanged,
    /// The same name and version has other content.
    Conflict {
        hash: DefinitionHash,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRow {
    pub name: Namespace,
    pub retention_class: i16,
    /// Whether changes of the status of its runs are published.
    pub events: bool,
}

/// What a namespace does about changes of status where nobody has said. Two messages for each saga of four steps cost a ninth of
/// the throughput (`knarr bench order --events on|off`), which whoever does not listen should not pay.
pub const EVENTS_BY_DEFAULT: bool = false;

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

    /// For each workflow id its open run if there is one, its newest closed run, and any run with the request id given.
    fn find_runs(
        &self,
        ids: &[(Namespace, WorkflowId, Option<RequestId>)],
    ) -> impl Future<Output = Result<Found, StoreError>> + Send;

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
