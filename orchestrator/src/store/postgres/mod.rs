//! The store on PostgreSQL 15 or newer.
//!
//! One connection commits, one keeps the lease and holds the replica's session lock, and two small pools read: the
//! engine's, and that of people, so that a heavy list holds up neither loads nor commits.
//!
//! **Invariant:** a batch is one statement ([`commit`]); the row of `sessions` it compares and sets is the first lock it
//! takes, so whoever has moved the epoch afterwards knows that no older batch can still land. Locks are taken in one order
//! everywhere: sessions by id, then partitions, then the rest.
//!
//! Session locks and prepared statements need real sessions: a pooler in transaction mode in between does not work.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Mutex;
use uuid::Uuid;

use self::pool::Pool;

use super::{
    Batch, ClosedRun, Cluster, CommitError, CommitId, DefaultVersion, DeferredInput, DeferredName, DefinitionFilter,
    DefinitionHeads, DefinitionRow, Due, DuePage, FORMAT_LEVEL, Found, InheritedCommit, LimitLine, LimitUse,
    NamespaceRow, OwnedPartition, PermitRow, PlaceAsked, QueueRow, Registered, RunFilter, RunRow, RunSize, Session,
    Share, Store, StoreError, StoredDefinition, StoredRun, StoredTransition,
};
use crate::address::without_secrets;

mod birth;
mod commit;
mod cursors;
mod deferred;
mod definitions;
mod error;
mod format;
mod lease;
mod lists;
mod owed;
mod permits;
mod pool;
mod queues;
mod runs;
mod schema;
mod session;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod time;

/// How to reach PostgreSQL, and how much of it to use.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user@host/database?…`
    pub url: String,
    /// For what the engine loads.
    pub engine_connections: u32,
    /// For lists, histories and other questions of people.
    pub people_connections: u32,
    /// How long a session lives without a sign of life.
    pub lease: Duration,
    /// A session whose lease has ended is taken over once its row has been seen unchanged for so long. Longer than the time
    /// between two renewals, and as much below the lease, so that nobody who is dead gains by it.
    pub silence: Duration,
    /// A renewal that takes longer is given up with its connection. Below the lease, so that the next one is in time.
    pub renewal_timeout: Duration,
    /// How long to wait for the session lock of an earlier process of the same replica name to fall.
    pub replica_lock_wait: Duration,
    /// A commit that takes longer has an unknown outcome.
    pub commit_timeout: Duration,
    /// Any other question of the engine that takes longer is given up with its connection: the server at its other end may
    /// have gone without a word.
    pub answer_timeout: Duration,
    /// A question of people that takes longer is ended by the server.
    pub people_timeout: Duration,
    /// For a new connection, and for a free one of a pool.
    pub connect_timeout: Duration,
    /// The newest storage format that is read.
    pub reads_format: i32,
}

impl PostgresConfig {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            engine_connections: 4,
            people_connections: 4,
            lease: Duration::from_millis(1_500),
            silence: Duration::from_secs(1),
            renewal_timeout: Duration::from_secs(1),
            replica_lock_wait: Duration::from_secs(3),
            commit_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(5),
            people_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(5),
            reads_format: FORMAT_LEVEL,
        }
    }

    /// Microseconds, as the statements take it.
    fn lease_us(&self) -> i64 {
        i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX / 4)
    }
}

/// Without the password in the address.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("url", &without_secrets(&self.url))
            .finish_non_exhaustive()
    }
}

/// The engine's handle, cheap to clone; dropping the last one gives up the session lock. [`PostgresStore::for_people`]
/// makes the one for everybody else.
#[derive(Clone)]
pub struct PostgresStore {
    config: Arc<PostgresConfig>,
    options: PgConnectOptions,
    /// Taken out while a batch is under way, so that a cancelled commit closes its connection.
    commits: Arc<Mutex<Option<PgConnection>>>,
    lease: Arc<Mutex<session::Lease>>,
    /// The cluster's format level when it was last heard of; it never falls.
    level: Arc<AtomicI32>,
    /// Of those whom the handle is for.
    reads: Pool,
    /// How long their answers may take.
    patience: Duration,
    people: Pool,
}

/// Without the password that the options of connections contain.
impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Plans that are made once and do not turn into scans while the tables are still small and unknown to the planner; and
/// a backend that notices within seconds that nobody is at the other end of its connection.
const HOT: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];
const EVERY: &[(&str, &str)] = &[
    ("jit", "off"),
    ("timezone", "UTC"),
    // A fence that was waited for must be seen as it is then.
    ("default_transaction_isolation", "read committed"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "5"),
];

/// A long run takes longer to arrive than any other answer, by so much at most.
const LOADS: u32 = 3;
/// Making partitions moves rows where it was late.
const ENSURE_LIMIT: Duration = Duration::from_secs(60);

impl PostgresStore {
    /// Connects, and refuses servers older than PostgreSQL 15.
    pub async fn connect(config: PostgresConfig) -> Result<Self, StoreError> {
        let options = config
            .url
            .parse::<PgConnectOptions>()
            .map_err(|error| StoreError::Rejected(format!("KN0313: the PostgreSQL URL cannot be read: {error}")))?
            .application_name("knarr")
            .options(EVERY.iter().copied())
            .disable_statement_logging();
        let for_engine = options.clone().options(HOT.iter().copied());
        let for_people = options
            .clone()
            .options([("statement_timeout", milliseconds(config.people_timeout))]);
        let store = Self {
            commits: Arc::default(),
            lease: Arc::default(),
            level: Arc::default(),
            reads: Pool::new(config.engine_connections, for_engine, config.connect_timeout),
            people: Pool::new(config.people_connections, for_people, config.connect_timeout),
            patience: config.answer_timeout,
            options,
            config: Arc::new(config),
        };
        let mut connection = store.open(&[]).await?;
        within(store.config.connect_timeout, schema::check_version(&mut connection)).await?;
        // A courtesy: the server sees the end in any case.
        connection.close().await.ok();
        Ok(store)
    }

    /// The same store for people: what is asked of it waits for their connections and never for the engine's.
    #[must_use]
    pub fn for_people(&self) -> Self {
        Self {
            reads: self.people.clone(),
            // The server ends the statement; this is for a server that is gone.
            patience: self.config.people_timeout + self.config.connect_timeout,
            ..self.clone()
        }
    }

    fn hear_of_level(&self, level: i32) {
        self.level.fetch_max(level, Ordering::Relaxed);
    }

    /// What is written is of this format; one that is behind the cluster's is read as well.
    fn level(&self) -> i32 {
        self.level.load(Ordering::Relaxed)
    }

    async fn open(&self, settings: &[(&str, &str)]) -> Result<PgConnection, StoreError> {
        let options = self.options.clone().options(settings.iter().copied());
        let connected = async {
            let connection = PgConnection::connect_with(&options).await;
            connection.map_err(error::to_store_error)
        };
        within(self.config.connect_timeout, connected).await
    }

    /// Bounds how long a connection that leads nowhere is waited for.
    async fn answered<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        within(self.patience, answer).await
    }
}

/// A setting in milliseconds, as the server reads it.
fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis().max(1))
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("no answer within the time limit".to_owned())))
}

impl Store for PostgresStore {
    async fn prepare(&self, partitions: u16) -> Result<Cluster, StoreError> {
        self.prepare_schema(partitions).await
    }

    async fn ensure_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        within(ENSURE_LIMIT, self.ensure_event_partitions(now)).await
    }

    async fn format_level(&self) -> Result<i32, StoreError> {
        self.answered(self.read_level()).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.answered(self.clock()).await
    }

    async fn open_session(&self, replica: &str) -> Result<Session, StoreError> {
        within(
            self.config.answer_timeout + self.config.replica_lock_wait,
            self.begin_session(replica),
        )
        .await
    }

    async fn keep(&self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        self.answered(self.keep_share(session, published)).await
    }

    async fn release(&self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        self.answered(self.release_partitions(session, partitions)).await
    }

    async fn close_session(&self, session: &Session) -> Result<(), StoreError> {
        self.answered(self.end_session(session)).await
    }

    async fn recover(&self, session: &Session) -> Result<Session, StoreError> {
        self.answered(self.recover_session(session)).await
    }

    async fn cursors(&self, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
        self.answered(self.owned_cursors(session)).await
    }

    async fn all_cursors(&self) -> Result<Vec<OwnedPartition>, StoreError> {
        self.answered(self.every_cursor()).await
    }

    async fn commit(&self, session: &Session, batch: &Batch) -> Result<(), CommitError> {
        self.commit_batch(session, batch).await
    }

    async fn owed(&self, session: &Session, commits: &[CommitId]) -> Result<Vec<InheritedCommit>, StoreError> {
        self.answered(self.owed_by(session, commits)).await
    }

    async fn find_runs(&self, ids: &[(Namespace, WorkflowId, Option<RequestId>)]) -> Result<Found, StoreError> {
        self.answered(self.find(ids)).await
    }

    async fn closed_runs(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        before: Option<Uuid>,
    ) -> Result<Vec<ClosedRun>, StoreError> {
        self.answered(self.closed_of_id(namespace, workflow_id, before)).await
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, StoreError> {
        within(self.patience * LOADS, self.load(ids)).await
    }

    async fn run_row(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        self.answered(self.row(run)).await
    }

    async fn run_sizes(&self, ids: &[RunId]) -> Result<Vec<RunSize>, StoreError> {
        self.answered(self.sizes(ids)).await
    }

    async fn deferred_names(&self, partition: i16) -> Result<Vec<DeferredName>, StoreError> {
        self.answered(self.names_of_deferred(partition)).await
    }

    async fn deferred(&self, partition: i16, run: RunId, after: i64) -> Result<Vec<DeferredInput>, StoreError> {
        self.answered(self.deferred_inputs(partition, run, after)).await
    }

    async fn permits(&self, partition: i16) -> Result<Vec<PermitRow>, StoreError> {
        // There may be as many as a large run has transitions.
        within(self.patience * LOADS, self.permits_of(partition)).await
    }

    async fn ids_queued_for(&self, partition: i16) -> Result<Vec<(Namespace, WorkflowId)>, StoreError> {
        within(self.patience * LOADS, Self::ids_queued_for(self, partition)).await
    }

    async fn set_queue(&self, row: &QueueRow) -> Result<(), StoreError> {
        self.answered(self.say_of_queue(row)).await
    }

    async fn queues(&self) -> Result<Vec<QueueRow>, StoreError> {
        self.answered(self.all_queues()).await
    }

    async fn limits_in_use(&self, namespace: &Namespace) -> Result<Vec<LimitUse>, StoreError> {
        self.answered(self.used_limits(namespace)).await
    }

    async fn line_of(&self, namespace: &Namespace, asked: &PlaceAsked) -> Result<LimitLine, StoreError> {
        self.answered(self.line(namespace, asked)).await
    }

    async fn history(&self, run: RunId, after: i32, limit: u32) -> Result<Vec<StoredTransition>, StoreError> {
        self.answered(self.transitions(run, after, limit)).await
    }

    async fn due(&self, partitions: &[i16], page: DuePage) -> Result<Due, StoreError> {
        self.answered(self.due_runs(partitions, page)).await
    }

    async fn definition_heads(&self) -> Result<DefinitionHeads, StoreError> {
        self.answered(self.heads()).await
    }

    async fn register_definition(&self, definition: &StoredDefinition) -> Result<Registered, StoreError> {
        self.answered(self.register(definition)).await
    }

    async fn set_default_version(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        default: Option<&DefaultVersion>,
    ) -> Result<bool, StoreError> {
        self.answered(self.set_default(namespace, workflow, default)).await
    }

    async fn definition(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.answered(self.definition_by_name(namespace, workflow, version))
            .await
    }

    async fn definition_by_hash(&self, hash: &DefinitionHash) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.answered(self.definition_with_hash(hash)).await
    }

    async fn list_definitions(
        &self,
        namespace: &Namespace,
        filter: &DefinitionFilter,
    ) -> Result<Vec<DefinitionRow>, StoreError> {
        self.answered(self.definitions_of(namespace, filter)).await
    }

    async fn definition_bodies(&self, hashes: &[DefinitionHash]) -> Result<Vec<(DefinitionHash, String)>, StoreError> {
        self.answered(self.bodies(hashes)).await
    }

    async fn create_namespace(&self, namespace: &NamespaceRow) -> Result<bool, StoreError> {
        self.answered(self.add_namespace(namespace)).await
    }

    async fn set_events(&self, namespace: &Namespace, events: bool) -> Result<bool, StoreError> {
        self.answered(self.switch_events(namespace, events)).await
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        self.answered(self.all_namespaces()).await
    }

    async fn count_parked(&self) -> Result<u64, StoreError> {
        self.answered(self.parked_count()).await
    }

    async fn list_runs(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.answered(self.list(namespace, filter)).await
    }

    async fn list_schedules(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        self.answered(self.schedules(namespace, after, limit)).await
    }

    async fn list_triggers(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        self.answered(self.all_triggers(namespace, after, limit)).await
    }

    async fn triggers(&self, partitions: &[i16]) -> Result<Vec<RunId>, StoreError> {
        self.answered(self.triggers_of(partitions)).await
    }
}
