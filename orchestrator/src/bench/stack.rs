//! Everything a measurement needs: servers, orchestrators, a worker, the definition.
//!
//! - No server named: all of it is private, in a temporary directory.
//! - NATS and PostgreSQL named: orchestrators are started on them.
//! - NATS alone named: an orchestrator has to be there; only the worker is started.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use knarr_schemas::api::{
    CreateNamespace, NamespaceInfo, RegisterDefinition, RegisteredDefinition, RegistrationOutcome, SetNamespace, verb,
};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::BenchOptions;
use super::child::Child;
use super::disk;
use super::error::BenchError;
use super::figures::Mark;
use super::load::Live;
use super::metrics::engine_counts;
use super::processes::{Processes, find_nats, find_postgres, memory};
use super::record::{Question, Verdict};
use super::worker::{count_subject, report_subject};
use crate::api::client::{ApiClient, CallError};
use crate::dev::{Progress, Server, ServerOptions, Servers, Watchdog};

const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two questions whether something is ready.
const ASK_AGAIN: Duration = Duration::from_millis(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The worker judges every saga of the measurement.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Stack {
    servers: Option<Servers>,
    children: Vec<Child>,
    processes: Processes,
    metrics: Vec<SocketAddr>,
    pool: Option<PgPool>,
    nats: Client,
    nats_url: String,
    namespace: String,
    nonce: String,
    logs: Logs,
    watchdog: Arc<Watchdog>,
}

/// A directory for what the children say, gone with this.
#[derive(Debug)]
struct Logs(PathBuf);

impl Drop for Logs {
    fn drop(&mut self) {
        // What is left of it is in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Stack {
    pub(crate) async fn start(options: &BenchOptions, nonce: &str, progress: &Progress) -> Result<Self, BenchError> {
        let watchdog = Arc::new(Watchdog::start()?);
        let logs = Logs(std::env::temp_dir().join(format!("knarr-bench-{nonce}")));
        let spawn_failed = |source| BenchError::Spawn {
            what: "the measurement",
            source,
        };
        std::fs::create_dir_all(&logs.0).map_err(spawn_failed)?;
        watchdog.remove_at_end(&logs.0);
        let has_orchestrator = options.nats_url.is_some() && options.database_url.is_none();
        let servers = match (&options.nats_url, &options.database_url) {
            (Some(_), _) => None,
            (None, database_url) => {
                let servers = ServerOptions {
                    postgres: database_url.clone(),
                    ..ServerOptions::default()
                };
                Some(Servers::start(servers, progress).await?)
            }
        };
        let of_servers = |url: fn(&Servers) -> &str| servers.as_ref().map(|servers| url(servers).to_owned());
        let nats_url = options
            .nats_url
            .clone()
            .or_else(|| of_servers(Servers::nats_url))
            .unwrap_or_default();
        let database_url = options
            .database_url
            .clone()
            .or_else(|| of_servers(Servers::postgres_url));

        let mut children = Vec::new();
        let mut processes = Processes::default();
        let mut metrics = Vec::new();
        if let (Some(database_url), false) = (&database_url, has_orchestrator) {
            progress.step("Starting the orchestrator …");
            for replica in 1..=options.replicas.max(1) {
                let http = free_address().map_err(spawn_failed)?;
                let replica = format!("bench-{nonce}-{replica}");
                let log = logs.0.join(format!("{replica}.log"));
                let arguments = server_arguments(http, &replica);
                let environment = [("KNARR_NATS_URL", &*nats_url), ("KNARR_DATABASE_URL", database_url)];
                let child = Child::spawn("the orchestrator", arguments, &environment, &log, &watchdog)?;
                processes.orchestrator.push(child.pid());
                metrics.push(http);
                children.push(child);
            }
        }
        let pool = match &database_url {
            None => None,
            Some(url) => Some(PgPoolOptions::new().max_connections(1).connect(url).await?),
        };
        let worker = worker_arguments(options, nonce);
        let environment = [("KNARR_NATS_URL", &*nats_url)];
        let worker = Child::spawn(
            "the worker",
            worker,
            &environment,
            &logs.0.join("worker.log"),
            &watchdog,
        )?;
        processes.worker = worker.pid();
        children.push(worker);
        let nats = knarr_worker::connect(&nats_url)
            .await
            .map_err(|error| BenchError::Nats(error.to_string()))?;
        (processes.nats, processes.postgres) = match &servers {
            Some(servers) => (
                servers.pids(Server::Nats).await.first().copied(),
                servers.pids(Server::Postgres).await.first().copied(),
            ),
            None => (find_nats(&nats_url), None),
        };
        if let (None, Some(pool)) = (processes.postgres, &pool) {
            processes.postgres = find_postgres(pool).await;
        }
        let mut stack = Self {
            servers,
            children,
            processes,
            metrics,
            pool,
            nats,
            nats_url,
            namespace: options.namespace.clone(),
            nonce: nonce.to_owned(),
            logs,
            watchdog,
        };
        stack.register(options).await?;
        progress.step("Waiting for the worker …");
        stack.await_worker().await?;
        Ok(stack)
    }

    pub(crate) fn nats_url(&self) -> &str {
        &self.nats_url
    }

    pub(crate) fn nats(&self) -> Client {
        self.nats.clone()
    }

    /// The database's, where it is known.
    pub(crate) fn pool(&self) -> Result<PgPool, BenchError> {
        self.pool.clone().ok_or(BenchError::NoDatabase)
    }

    /// Resident memory of the orchestrators, in KiB: now, and at most.
    pub(crate) fn orchestrator_memory(&self) -> Option<(u64, u64)> {
        let of = self.processes.orchestrator.iter().map(|pid| memory(*pid));
        of.reduce(|all, one| Some((all?.0 + one?.0, all?.1 + one?.1)))?
    }

    /// An error if a process has ended.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        self.children.iter_mut().try_for_each(Child::check)
    }

    async fn register(&mut self, options: &BenchOptions) -> Result<(), BenchError> {
        self.register_text(options.scenario.definition()).await?;
        let Some(events) = options.events else { return Ok(()) };
        let api = ApiClient::new(self.nats.clone(), self.namespace.clone(), CALL_TIMEOUT);
        let request = SetNamespace { events: Some(events) };
        let set: Result<NamespaceInfo, _> = api.call(verb::NAMESPACE_SET, &request).await;
        set.map(drop)
            .map_err(|error| BenchError::Nats(format!("the events of the namespace cannot be switched: {error}")))
    }

    /// Registers one more, and waits for the orchestrator until it can.
    pub(crate) async fn register_text(&mut self, source: &str) -> Result<(), BenchError> {
        let api = ApiClient::new(self.nats.clone(), self.namespace.clone(), CALL_TIMEOUT);
        let deadline = Instant::now() + READY_DEADLINE;
        let request = RegisterDefinition {
            source: source.to_owned(),
            file_name: Some("bench.yaml".to_owned()),
            files: Default::default(),
        };
        loop {
            let called = async {
                if self.namespace != "default" {
                    let _: NamespaceInfo = api.call(verb::NAMESPACE_CREATE, &CreateNamespace::default()).await?;
                }
                api.call::<_, RegisteredDefinition>(verb::DEFINITION_REGISTER, &request)
                    .await
            };
            match called.await {
                Ok(registered) if registered.outcome != RegistrationOutcome::Refused => return Ok(()),
                Ok(registered) => {
                    let findings = registered.findings.into_iter().map(|finding| finding.message);
                    let reasons: Vec<_> = registered
                        .error
                        .map(|error| error.message)
                        .into_iter()
                        .chain(findings)
                        .collect();
                    return Err(BenchError::NotRegistered(reasons.join("; ")));
                }
                Err(CallError::Refused(body)) if Instant::now() > deadline => {
                    return Err(BenchError::NotRegistered(body.message));
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(BenchError::NotReady {
                        what: "the orchestrator",
                        seconds: READY_DEADLINE.as_secs(),
                        last: error.to_string(),
                    });
                }
                // It is still starting.
                Err(_) => {}
            }
            self.check()?;
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn await_worker(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + READY_DEADLINE;
        while let Err(error) = self.executions().await {
            self.check()?;
            if Instant::now() > deadline {
                return Err(BenchError::NotReady {
                    what: "the worker",
                    seconds: READY_DEADLINE.as_secs(),
                    last: error.to_string(),
                });
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    }

    async fn executions(&self) -> Result<u64, BenchError> {
        let nats = |error: String| BenchError::Nats(error);
        let asked = self.nats.request(count_subject(&self.nonce), "".into());
        let reply = asked
            .await
            .map_err(|error| nats(format!("the worker does not answer: {error}")))?;
        let text = std::str::from_utf8(&reply.payload).unwrap_or_default();
        text.parse().map_err(|_| nats(format!("the worker answers `{text}`")))
    }

    /// All counters, those that are free to read first: they make the figures that matter most.
    pub(crate) async fn mark(&self, live: &Live) -> Result<Mark, BenchError> {
        let at = Instant::now();
        let ended = live.ended.load(std::sync::atomic::Ordering::Relaxed);
        let cpu = self.processes.cpu();
        let steps = self.executions().await?;
        let steps = (Instant::now(), steps);
        let engine = engine_counts(&self.metrics).await;
        let counts = disk::counts(self.pool.as_ref(), &self.nats, &self.namespace).await?;
        Ok(Mark {
            at,
            ended,
            cpu,
            steps,
            engine,
            counts,
        })
    }

    pub(crate) async fn judge(&self, question: &Question) -> Result<Verdict, BenchError> {
        let failed = |error: &dyn std::fmt::Display| BenchError::Nats(format!("the worker's verdict: {error}"));
        let question = serde_json::to_vec(question).map_err(|error| failed(&error))?;
        let request = async_nats::client::Request::new()
            .payload(question.into())
            .timeout(Some(VERDICT_TIMEOUT));
        let reply = self.nats.send_request(report_subject(&self.nonce), request);
        let reply = reply.await.map_err(|error| failed(&error))?;
        serde_json::from_slice(&reply.payload).map_err(|error| failed(&error))
    }

    /// The worker first, so that it can hand in what it has.
    pub(crate) async fn stop(self) {
        if let Some(pool) = self.pool {
            pool.close().await;
        }
        for child in self.children.into_iter().rev() {
            child.stop().await;
        }
        if let Some(servers) = self.servers {
            servers.stop().await;
        }
        drop(self.logs);
        let watchdog = self.watchdog;
        // It removes directories, which may take a while.
        let _ = tokio::task::spawn_blocking(move || watchdog.end()).await;
    }
}

fn server_arguments(http: SocketAddr, replica: &str) -> Vec<OsString> {
    let http = http.to_string();
    ["server", "--http-listen", &http, "--replica-name", replica]
        .map(OsString::from)
        .into()
}

fn worker_arguments(options: &BenchOptions, nonce: &str) -> Vec<OsString> {
    let concurrency = options.concurrency.to_string();
    let scenario = options.scenario.name();
    let namespace = &options.namespace;
    [
        "bench-worker",
        scenario,
        nonce,
        "--concurrency",
        &concurrency,
        "--namespace",
        namespace,
    ]
    .map(OsString::from)
    .into()
}

/// One that is free now; the orchestrator that gets it says if it is not any more.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
