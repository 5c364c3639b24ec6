//! A store as a test handles it, and everything it holds.

use super::*;

pub(crate) const PARTITIONS: u16 = 4;

/// Everything a store holds that is not time; sessions go by the number a test gives them.
#[derive(Debug, PartialEq)]
pub(crate) struct Dump {
    pub(crate) sessions: Vec<SessionDump>,
    pub(crate) partitions: Vec<PartitionDump>,
    pub(crate) commits: Vec<CommitDump>,
    pub(crate) runs: Vec<RunRow>,
    pub(crate) events: Vec<Append>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) deferred: Vec<DeferredInput>,
    pub(crate) permits: Vec<PermitRow>,
    pub(crate) definitions: Vec<StoredDefinition>,
    pub(crate) definitions_epoch: i64,
    pub(crate) namespaces: Vec<(String, i16)>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct SessionDump {
    pub(crate) session: usize,
    pub(crate) replica: String,
    pub(crate) epoch: i64,
    pub(crate) batch_no: i64,
    pub(crate) claimed_by: Option<usize>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct PartitionDump {
    pub(crate) partition: i16,
    pub(crate) owner: Option<usize>,
    pub(crate) cursor: Cursor,
}

#[derive(Debug, PartialEq)]
pub(crate) struct CommitDump {
    pub(crate) session: usize,
    pub(crate) batch_no: i64,
    pub(crate) holder: usize,
    pub(crate) owed: Owed,
}

impl Dump {
    /// Orders what goes by names that are only known to the test, and `jsonb` as it is equal, not as it is written.
    pub(crate) fn normalised(mut self) -> Self {
        self.sessions.sort_by_key(|row| row.session);
        self.commits.sort_by_key(|row| (row.session, row.batch_no));
        for row in &mut self.runs {
            normalise(row);
        }
        self
    }
}

pub(crate) fn normalise(row: &mut RunRow) {
    if let Some(attributes) = &mut row.search_attributes {
        let value: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(attributes).unwrap();
        *attributes = serde_json::to_string(&value).unwrap();
    }
}

/// One kind of store, as a test handles it.
pub(crate) trait Rig: Sized {
    type Kind: Store;

    /// A prepared store.
    async fn start() -> Self;
    fn store(&self) -> &Self::Kind;
    /// The same store as another process sees it.
    async fn another(&self) -> Self::Kind;
    /// Another process whose binary reads storage formats up to this one.
    async fn reading(&self, format: i32) -> Self::Kind;
    /// That process dies.
    async fn kill(&self, process: Self::Kind);
    /// The session was not renewed in time.
    async fn lapse(&self, session: Uuid);
    async fn dump(&self, name: impl Fn(Uuid) -> usize) -> Dump;
}

pub(crate) struct MemoryRig(pub(crate) MemoryStore);

impl Rig for MemoryRig {
    type Kind = MemoryStore;

    async fn start() -> Self {
        let store = MemoryStore::new();
        store.prepare(PARTITIONS).await.unwrap();
        Self(store)
    }

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    async fn another(&self) -> MemoryStore {
        self.0.another_process()
    }

    async fn reading(&self, format: i32) -> MemoryStore {
        self.0.another_process().reading(format)
    }

    async fn kill(&self, process: MemoryStore) {
        process.kill_process();
    }

    async fn lapse(&self, session: Uuid) {
        self.0.lapse(session);
    }

    async fn dump(&self, name: impl Fn(Uuid) -> usize) -> Dump {
        self.0.dump(name)
    }
}

pub(crate) struct PostgresRig {
    pub(crate) url: String,
    store: PostgresStore,
}

impl Rig for PostgresRig {
    type Kind = PostgresStore;

    async fn start() -> Self {
        let url = testing::database().await;
        let store = testing::connect(&url).await;
        store.prepare(PARTITIONS).await.unwrap();
        Self { url, store }
    }

    fn store(&self) -> &PostgresStore {
        &self.store
    }

    async fn another(&self) -> PostgresStore {
        testing::connect(&self.url).await
    }

    async fn reading(&self, format: i32) -> PostgresStore {
        testing::reading(&self.url, format).await
    }

    async fn kill(&self, process: PostgresStore) {
        testing::kill(&self.url, process).await;
    }

    async fn lapse(&self, session: Uuid) {
        testing::lapse(&self.url, session).await;
    }

    async fn dump(&self, name: impl Fn(Uuid) -> usize) -> Dump {
        testing::dump(&self.url, name).await
    }
}
