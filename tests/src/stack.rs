//! A private PostgreSQL and nats-server, and what tests ask of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use knarr::api::client::ApiClient;
use knarr::dev::{Progress, Server, ServerOptions, Servers};
use knarr_schemas::api::{CreateNamespace, NamespaceInfo, RegisterDefinition, RegisteredDefinition, verb};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::record::{self, Execution};
use crate::{Replica, Starter, eventually};

/// Stacks alive at once in one test binary: each is several busy processes.
static STACKS: Semaphore = Semaphore::const_new(AT_ONCE as usize);
const AT_ONCE: u32 = 2;

pub const ORDER: &str = include_str!("../definitions/order.yaml");

#[derive(Debug)]
pub struct Stack {
    servers: Arc<Servers>,
    client: Client,
    pool: PgPool,
    directory: tempfile::TempDir,
    partitions: u16,
    _permit: SemaphorePermit<'static>,
}

impl Stack {
    pub async fn start() -> Self {
        Self::start_with(8).await
    }

    pub async fn start_with(partitions: u16) -> Self {
        Self::with_permit(partitions, STACKS.acquire().await.unwrap()).await
    }

    /// With no other stack beside it, for tests that look at times.
    pub async fn alone(partitions: u16) -> Self {
        Self::with_permit(partitions, STACKS.acquire_many(AT_ONCE).await.unwrap()).await
    }

    async fn with_permit(partitions: u16, permit: SemaphorePermit<'static>) -> Self {
        let servers = Servers::start(ServerOptions::default(), &Progress::Silent)
            .await
            .unwrap();
        let client = knarr_worker::connect(servers.nats_url()).await.unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy(servers.postgres_url())
            .unwrap();
        Self {
            servers: Arc::new(servers),
            client,
            pool,
            directory: tempfile::tempdir().unwrap(),
            partitions,
            _permit: permit,
        }
    }

    pub fn nats_url(&self) -> &str {
        self.servers.nats_url()
    }

    pub fn postgres_url(&self) -> &str {
        self.servers.postgres_url()
    }

    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Records and logs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    pub fn nats(&self) -> &Client {
        &self.client
    }

    pub fn starter(&self) -> Starter {
        Starter::new(&self.client, "default")
    }

    pub fn executions(&self) -> Vec<Execution> {
        record::read_all(self.directory.path())
    }

    /// A replica that serves the order saga.
    pub async fn first_replica(&self, name: &str) -> Replica {
        let replica = Replica::start(self, name).await;
        self.register("default", ORDER).await;
        replica
    }

    pub async fn register(&self, namespace: &str, source: &str) -> RegisteredDefinition {
        let request = RegisterDefinition {
            source: source.to_owned(),
            file_name: None,
            files: std::collections::BTreeMap::new(),
        };
        let answer: RegisteredDefinition = self
            .api(namespace)
            .call(verb::DEFINITION_REGISTER, &request)
            .await
            .unwrap();
        assert!(answer.definition.is_some(), "{answer:?}");
        answer
    }

    pub async fn create_namespace(&self, namespace: &str) {
        let request = CreateNamespace::default();
        let _: NamespaceInfo = self
            .api(namespace)
            .call(verb::NAMESPACE_CREATE, &request)
            .await
            .unwrap();
    }

    pub fn api(&self, namespace: &str) -> ApiClient {
        ApiClient::new(self.client.clone(), namespace, Duration::from_secs(10))
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// One number; asked again while PostgreSQL is away.
    pub async fn number(&self, query: &'static str) -> i64 {
        let ask = || async { sqlx::query_scalar::<_, i64>(query).fetch_one(&self.pool).await.ok() };
        eventually(query, Duration::from_secs(30), ask).await.0
    }

    pub async fn closed_runs(&self) -> i64 {
        self.number("select count(*) from runs where closed_at is not null")
            .await
    }

    pub async fn transitions(&self) -> i64 {
        self.number("select count(*) from events").await
    }

    /// Until so many runs are closed and none is open.
    pub async fn all_closed(&self, runs: usize, limit: Duration) -> Duration {
        let ask = || async {
            let open = self.number("select count(*) from runs where closed_at is null").await;
            let closed = self.closed_runs().await;
            (open == 0 && closed >= i64::try_from(runs).unwrap()).then_some(())
        };
        let began = std::time::Instant::now();
        loop {
            if ask().await.is_some() {
                return began.elapsed();
            }
            if began.elapsed() > limit {
                panic!("{}", self.open_runs(runs).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is stuck, for the message of a failed test.
    async fn open_runs(&self, wanted: usize) -> String {
        let stuck: Vec<String> =
            sqlx::query_scalar("select workflow_id from runs where closed_at is null order by run_id limit 3")
                .fetch_all(&self.pool)
                .await
                .unwrap_or_default();
        let total = self.number("select count(*) from runs").await;
        let mut text = format!("{total} runs of {wanted} are there; open are:");
        for id in stuck {
            text.push_str(&self.timeline(&id).await);
        }
        text
    }

    /// All that is known of the runs of a workflow id, for the message of a failed test.
    pub async fn timeline(&self, id: &str) -> String {
        let events: Vec<(String, String)> = sqlx::query_as(
            "select e.at::time::text || ' #' || e.seq, left(e.body, 300) from runs r join events e using (run_id)
             where r.workflow_id = $1 order by r.run_id, e.seq",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .unwrap_or_default();
        let runs: Vec<(String, i16, Option<String>, String)> = sqlx::query_as(
            "select status, partition, wake_at::time::text, clock_timestamp()::time::text from runs where workflow_id = $1",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .unwrap_or_default();
        let mut text = format!("\n{id}: (status, partition, wakes, now) {runs:?}");
        for (at, body) in events {
            text.push_str(&format!("\n    {at} {body}"));
        }
        for execution in self.executions().iter().filter(|execution| execution.workflow_id == id) {
            let Execution {
                at,
                key,
                attempt,
                delivery,
                ..
            } = execution;
            let seconds = (at / 1_000) % 86_400_000;
            let (hours, rest) = (seconds / 3_600_000, seconds % 3_600_000);
            let at = format!(
                "{hours:02}:{:02}:{:02}.{:03}",
                rest / 60_000,
                rest / 1_000 % 60,
                rest % 1_000
            );
            text.push_str(&format!(
                "\n    {at} executed {key} attempt {attempt} delivery {delivery}"
            ));
        }
        text
    }

    pub async fn kill9(&self, server: Server) {
        self.servers.kill9(server).await.unwrap();
    }

    /// Returns when it is ready.
    pub async fn restart(&self, server: Server) {
        self.servers.restart(server).await.unwrap();
    }

    pub async fn halt(&self, server: Server) {
        self.servers.halt(server).await.unwrap();
    }

    pub async fn stop(self) {
        self.pool.close().await;
        self.servers.stop().await;
    }
}
