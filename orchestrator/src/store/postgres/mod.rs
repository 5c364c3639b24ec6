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

use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Mutex;

use super::{
    Batch, Cluster, CommitError, CommitId, DeferredInput, DeferredName, DefinitionHeads, FORMAT_LEVEL, Found,
    InheritedCommit, NamespaceRow, OwnedPartition, Registered, RunFilter, RunRow, RunSize, Session, Share, Store,
    StoreError, StoredDefinition, StoredRun, StoredTransition,
};

mod commit;
mod cursors;
mod deferred;
mod definitions;
mod error;
mod format;
mod lease;
mod owed;
mod runs;
mod schema;
mod session;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod time;

/// How to reach PostgreSQL, and how much of it to use.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://user@host/database?…`
    pub url: String,
    /// For what the engine loads.
    pub engine_connections: u32,
    /// For lists, histories and other questions of people.
    pub reader_connections: u32,
    /// How long a session lives without a sign of life.
    pub lease: Duration,
    /// How long to wait for the session lock of an earlier process of the same replica name to fall.
    pub replica_lock_wait: Duration,
    /// A commit that takes longer has an unknown outcome.
    pub commit_timeout: Duration,
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
            reader_connections: 4,
            lease: Duration::from_millis(1_500),
            replica_lock_wait: Duration::from_secs(3),
            commit_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            reads_format: FORMAT_LEVEL,
        }
    }
}

/// Cheap to share behind an [`Arc`]; dropping it gives up the session lock.
#[derive(Debug)]
pub struct PostgresStore {
    config: PostgresConfig,
    options: PgConnectOptions,
    /// Taken out while a batch is under way, so that a cancelled commit closes its connection.
    commits: Mutex<Option<PgConnection>>,
    lease: Mutex<session::Lease>,
    engine: PgPool,
    readers: PgPool,
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
        let pool = |size: u32| {
            PgPoolOptions::new()
                .max_connections(size.max(1))
                .acquire_timeout(config.connect_timeout)
                // A round trip before every statement is spared where the connection has just been used.
                .test_before_acquire(false)
                .before_acquire(|connection, state| {
                    Box::pin(async move {
                        if state.idle_for > Duration::from_secs(1) {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
        };
        let store = Self {
            commits: Mutex::new(None),
            lease: Mutex::new(session::Lease::default()),
            engine: pool(config.engine_connections).connect_lazy_with(options.clone().options(HOT.iter().copied())),
            readers: pool(config.reader_connections).connect_lazy_with(options.clone()),
            options,
            config,
        };
        let mut connection = store.open(&[]).await?;
        schema::check_version(&mut connection).await?;
        // A courtesy: the server sees the end in any case.
        connection.close().await.ok();
        Ok(store)
    }

    async fn open(&self, settings: &[(&str, &str)]) -> Result<PgConnection, StoreError> {
        let options = self.options.clone().options(settings.iter().copied());
        match tokio::time::timeout(self.config.connect_timeout, PgConnection::connect_with(&options)).await {
            Ok(connected) => connected.map_err(error::to_store_error),
            Err(_) => Err(StoreError::Unavailable(
                "no connection within the time limit".to_owned(),
            )),
        }
    }

    /// Microseconds, as the statements take it.
    fn lease_us(&self) -> i64 {
        i64::try_from(self.config.lease.as_micros()).unwrap_or(i64::MAX / 4)
    }
}

impl Store for PostgresStore {
    async fn prepare(&self, partitions: u16) -> Result<Cluster, StoreError> {
        self.prepare_schema(partitions).await
    }

    async fn ensure_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        self.ensure_event_partitions(now).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.clock().await
    }

    async fn open_session(&self, replica: &str) -> Result<Session, StoreError> {
        self.begin_session(replica).await
    }

    async fn keep(&self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        self.keep_share(session, published).await
    }

    async fn release(&self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        self.release_partitions(session, partitions).await
    }

    async fn close_session(&self, session: &Session) -> Result<(), StoreError> {
        self.end_session(session).await
    }

    async fn recover(&self, session: &Session) -> Result<Session, StoreError> {
        self.recover_session(session).await
    }

    async fn cursors(&self, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
        self.owned_cursors(session).await
    }

    async fn all_cursors(&self) -> Result<Vec<OwnedPartition>, StoreError> {
        self.every_cursor().await
    }

    async fn commit(&self, session: &Session, batch: &Batch) -> Result<(), CommitError> {
        self.commit_batch(session, batch).await
    }

    async fn owed(&self, session: &Session, commits: &[CommitId]) -> Result<Vec<InheritedCommit>, StoreError> {
        self.owed_by(session, commits).await
    }

    async fn find_runs(&self, ids: &[(Namespace, WorkflowId, Option<RequestId>)]) -> Result<Found, StoreError> {
        self.find(ids).await
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, StoreError> {
        self.load(ids).await
    }

    async fn run_sizes(&self, ids: &[RunId]) -> Result<Vec<RunSize>, StoreError> {
        self.sizes(ids).await
    }

    async fn deferred_names(&self, partition: i16) -> Result<Vec<DeferredName>, StoreError> {
        self.names_of_deferred(partition).await
    }

    async fn deferred(&self, partition: i16, run: RunId, after: i64) -> Result<Vec<DeferredInput>, StoreError> {
        self.deferred_inputs(partition, run, after).await
    }

    async fn history(&self, run: RunId, after: i32, limit: u32) -> Result<Vec<StoredTransition>, StoreError> {
        self.transitions(run, after, limit).await
    }

    async fn due(
        &self,
        partitions: &[i16],
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<(RunId, Timestamp)>, StoreError> {
        self.due_runs(partitions, until, limit).await
    }

    async fn definition_heads(&self) -> Result<DefinitionHeads, StoreError> {
        self.heads().await
    }

    async fn register_definition(&self, definition: &StoredDefinition) -> Result<Registered, StoreError> {
        self.register(definition).await
    }

    async fn definition(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.definition_by_name(namespace, workflow, version).await
    }

    async fn definition_by_hash(&self, hash: &DefinitionHash) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.definition_with_hash(hash).await
    }

    async fn list_definitions(&self, namespace: &Namespace) -> Result<Vec<StoredDefinition>, StoreError> {
        self.definitions_of(namespace).await
    }

    async fn create_namespace(&self, namespace: &NamespaceRow) -> Result<bool, StoreError> {
        self.add_namespace(namespace).await
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        self.all_namespaces().await
    }

    async fn list_runs(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.list(namespace, filter).await
    }
}
