//! One orchestrator process: store, bus, engine, API and HTTP put together, and taken down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use knarr_schemas::code::{self as wire, Code};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::api::command::{AnswerError, CommandError, Commander, ScheduleCommand, Stored, TriggerCommand};
use crate::api::service::{self, ServeError};
use crate::api::{OnScheduled, OnTriggered, Operations, Refusal};
use crate::bus::nats::{Credentials, NatsBus, NatsConfig};
use crate::bus::{Bus as _, BusError};
use crate::config::ServerConfig;
use crate::engine::{Engine, EngineConfig, EngineError};
use crate::store::postgres::{PostgresConfig, PostgresStore};
use crate::store::{Store as _, StoreError};
use crate::telemetry::health::{Check, readiness};
use crate::telemetry::{self, http, metrics};

/// Longest wait until what a definition says of its schedule is committed.
const SCHEDULED_WITHIN: Duration = Duration::from_secs(8);
const PING_LIMIT: Duration = Duration::from_secs(2);
/// For requests under way at the end; a client that has sent half of one does not keep the process.
const HTTP_GRACE: Duration = Duration::from_secs(2);

pub mod code {
    //! Codes of what can keep a server from starting (`KN0332`–`KN0337`). Causes that are known more closely have their own.
    use knarr_schemas::code::Code;

    pub const HTTP_LISTEN: Code = Code {
        id: "KN0332",
        title: "http_listen",
        cause: "The address for metrics and health cannot be listened on.",
        remedy: "Choose another with --http-listen; port 0 takes any.",
    };
    pub const STORE: Code = Code {
        id: "KN0333",
        title: "store_unavailable",
        cause: "PostgreSQL cannot be used.",
        remedy: "Check --database-url, that PostgreSQL runs there, and its log.",
    };
    pub const BUS: Code = Code {
        id: "KN0334",
        title: "bus_unavailable",
        cause: "NATS cannot be used.",
        remedy: "Check --nats-url, that nats-server runs there with JetStream enabled, and its log.",
    };
    pub const SERVE: Code = Code {
        id: "KN0335",
        title: "api_unavailable",
        cause: "The API cannot be served over NATS.",
        remedy: "Check the permissions of the server's NATS user.",
    };
    pub const METRICS: Code = Code {
        id: "KN0336",
        title: "metrics_unavailable",
        cause: "Metrics cannot be recorded.",
        remedy: "Report this: it is a mistake in Knarr.",
    };
    pub const ENGINE: Code = Code {
        id: "KN0337",
        title: "engine_ended",
        cause: "The engine ended without having been asked to.",
        remedy: "Report this with the log: it is a mistake in Knarr. What was committed is safe; a restart goes on from there.",
    };
    pub const ALL: &[&Code] = &[&HTTP_LISTEN, &STORE, &BUS, &SERVE, &METRICS, &ENGINE];
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("the API cannot be served: {0}")]
    Serve(#[from] ServeError),
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The engine does not return an error once it runs, so this is a panic.
    #[error("the engine ended unexpectedly: {0}")]
    Engine(String),
}

impl From<EngineError> for ServerError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => Self::Store(error),
            EngineError::Bus(error) => Self::Bus(error),
        }
    }
}

impl ServerError {
    /// The closest one that is known, as is its remedy.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Listen { .. } => &code::HTTP_LISTEN,
            Self::Store(error) => error.code().unwrap_or(&code::STORE),
            Self::Bus(error) => error.code().unwrap_or(&code::BUS),
            Self::Serve(_) => &code::SERVE,
            Self::Metrics(_) => &code::METRICS,
            Self::Engine(_) => &code::ENGINE,
        }
    }

    /// The cause alone, to be shown beside [`ServerError::code`].
    pub fn cause(&self) -> String {
        match self {
            Self::Store(error) => error.cause(),
            Self::Bus(error) => error.cause(),
            other => other.to_string(),
        }
    }
}

/// A server that runs. Dropping it stops it without handing over.
#[derive(Debug)]
pub struct RunningServer {
    http: SocketAddr,
    health: Arc<crate::engine::Health>,
    shutdown: CancellationToken,
    main: AbortOnDropHandle<Result<(), ServerError>>,
}

impl RunningServer {
    /// Where metrics and health are.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Waits until this replica holds its session, at most `limit`; whether it does.
    pub async fn ready(&self, limit: Duration) -> bool {
        let ready = async {
            while !self.health.ready() && !self.main.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, ready).await.is_ok() && self.health.ready()
    }

    /// Resolves when the server has ended: after the token it was started with was cancelled, or because it cannot go on.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        match (&mut self.main).await {
            Ok(result) => result,
            Err(error) => Err(ServerError::Engine(error.to_string())),
        }
    }

    /// Hands over and ends.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.shutdown.cancel();
        self.ended().await
    }
}

/// Runs until `shutdown`.
pub async fn run(config: ServerConfig, shutdown: CancellationToken) -> Result<(), ServerError> {
    start(config, shutdown).await?.ended().await
}

/// Returns as soon as everything that could be wrong with the configuration has been found right.
pub async fn start(config: ServerConfig, shutdown: CancellationToken) -> Result<RunningServer, ServerError> {
    let listener = listen(config.http_listen).await?;
    let http = listener.local_addr().map_err(|source| ServerError::Listen {
        address: config.http_listen,
        source,
    })?;
    let recorder = metrics::install()?;
    let store = Arc::new(PostgresStore::connect(PostgresConfig::new(&config.database_url)).await?);
    let bus = Arc::new(NatsBus::connect(nats_config(&config)).await?);
    // The engine does both again; done here, what is wrong is known before anything is said to be up.
    let cluster = store.prepare(config.partitions).await?;
    bus.prepare(cluster.id, cluster.partitions).await?;
    let mut engine_config = EngineConfig {
        partitions: config.partitions,
        run_limits: config.limits.runs,
        max_body_bytes: config.limits.body_bytes,
        ..EngineConfig::new(&config.replica_name)
    };
    config.bounds.apply(&mut engine_config);
    let mut engine = Engine::new(engine_config, Arc::clone(&store), Arc::clone(&bus));
    engine.spans = telemetry::span::installed();
    let health = Arc::clone(&engine.health);

    let asked = (Arc::clone(&health), Arc::clone(&bus));
    let readiness = readiness(move || {
        let (health, bus) = asked.clone();
        async move {
            // The engine asks twice a second; a question of its own would say how another connection is.
            let store = match health.store() {
                true => Check::ready("store"),
                false => Check::not_ready("store", "PostgreSQL did not answer the engine last time"),
            };
            let session = match health.serving() {
                true => Check::ready("session"),
                false => Check::not_ready("session", "this replica holds no session"),
            };
            vec![store, Check::of("bus", bus.ping(PING_LIMIT).await), session]
        }
    });
    let router = http::router(recorder.clone(), readiness);
    let http_server = serve_http(listener, router, shutdown.clone());
    let upkeep = AbortOnDropHandle::new(tokio::spawn(metrics::upkeep(recorder)));

    let queues = Arc::clone(&bus);
    let operations = Operations::new(
        Arc::new(store.for_people()),
        Arc::new(move |namespace, settings| {
            let bus = Arc::clone(&queues);
            Box::pin(async move { bus.ensure_queues(&namespace, &settings).await })
        }),
        schedules(&bus),
        triggers(&bus),
    );
    let api = service::serve(bus.client(), Arc::new(operations)).await?;
    let stop = shutdown.clone();
    let main = tokio::spawn(async move {
        let running = engine.run(stop.clone()).await;
        // An engine that cannot go on takes the rest with it.
        stop.cancel();
        api.stop().await;
        if http_server.await.is_err() {
            tracing::error!("the HTTP server panicked");
        }
        drop(upkeep);
        running.map_err(ServerError::from)
    });
    Ok(RunningServer {
        http,
        health,
        shutdown,
        main: AbortOnDropHandle::new(main),
    })
}

/// How the schedule of a definition hears what that says: by the log, like everybody.
fn schedules(bus: &Arc<NatsBus>) -> OnScheduled {
    let bus = Arc::clone(bus);
    Arc::new(move |namespace, name, request| {
        let commander = Commander::new(bus.client(), namespace.as_str(), SCHEDULED_WITHIN);
        Box::pin(async move {
            let command = ScheduleCommand {
                name,
                request,
                request_id: crate::cli::start::new_request_id(),
                by: None,
                reason: Some("its definition says so".to_owned()),
            };
            heard("schedule", commander.schedule(command).await).await
        })
    })
}

/// The same for a trigger.
fn triggers(bus: &Arc<NatsBus>) -> OnTriggered {
    let bus = Arc::clone(bus);
    Arc::new(move |namespace, name, request| {
        let commander = Commander::new(bus.client(), namespace.as_str(), SCHEDULED_WITHIN);
        Box::pin(async move {
            let what = format!("trigger `{}`", name.name);
            let command = TriggerCommand {
                name,
                request,
                request_id: crate::cli::start::new_request_id(),
                by: None,
                reason: Some("its definition says so".to_owned()),
            };
            heard(&what, commander.trigger(command).await).await.map(drop)
        })
    })
}

/// What who was told something of a definition says to it.
async fn heard(what: &str, stored: Result<Stored, CommandError>) -> Result<Option<serde_json::Value>, Refusal> {
    let doubt = |problem: String| {
        let message = format!("the definition is registered, but what its {what} is told is not known: {problem}");
        Refusal::new(503, &wire::UNAVAILABLE, message)
    };
    let mut stored = stored.map_err(|error| doubt(error.to_string()))?;
    let answer: Result<_, AnswerError> = stored.answer(Some(SCHEDULED_WITHIN)).await;
    let answer = answer.map_err(|error| doubt(error.to_string()))?;
    match answer.error {
        None => Ok(answer.output),
        Some(mut body) => {
            body.message = format!("the definition is registered, but its {what} is not: {}", body.message);
            Err(Refusal { status: 409, body })
        }
    }
}

fn nats_config(config: &ServerConfig) -> NatsConfig {
    NatsConfig {
        url: config.nats_url.clone(),
        credentials: config.nats_creds.clone().map_or(Credentials::None, Credentials::File),
        name: format!("knarr {}", config.replica_name),
        streams: config.streams.clone(),
        ..NatsConfig::default()
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Listen { address, source })
}

fn serve_http(listener: TcpListener, router: Router, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(HTTP_GRACE).await;
        };
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "the HTTP server ended");
            },
            () = overdue => tracing::debug!("connections to the HTTP server were left open"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn half_a_request_does_not_keep_the_process() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let server = serve_http(listener, router, shutdown.clone());
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        // A whole one first, so that the connection is known to be served.
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT")
            .await
            .unwrap();
        assert!(client.read(&mut [0; 64]).await.unwrap() > 0);
        shutdown.cancel();
        tokio::time::timeout(10 * HTTP_GRACE, server).await.unwrap().unwrap();
    }

    #[test]
    fn an_error_has_one_code_and_its_remedy() {
        let known = ServerError::Bus(BusError::Misconfigured("KN0304: JetStream is switched off".to_owned()));
        assert_eq!(
            (known.code().id, known.cause().as_str()),
            ("KN0304", "JetStream is switched off")
        );
        let known = ServerError::Bus(BusError::Unavailable("KN0301: no NATS: connection refused".to_owned()));
        assert_eq!(
            (known.code().id, known.cause().as_str()),
            ("KN0301", "no NATS: connection refused")
        );
        let known = ServerError::Store(StoreError::Rejected("KN0310: PostgreSQL 15 is needed".to_owned()));
        assert_eq!(
            (known.code().id, known.cause().as_str()),
            ("KN0310", "PostgreSQL 15 is needed")
        );
        let known = ServerError::Store(StoreError::TooOld { level: 2, reads: 1 });
        assert_eq!(known.code().id, "KN0311");
        let other = ServerError::Store(StoreError::Unavailable("no answer: timed out".to_owned()));
        assert_eq!(
            (other.code().id, other.cause().as_str()),
            ("KN0333", "the store is not available: no answer: timed out")
        );
    }

    #[test]
    fn an_engine_that_ended_is_not_taken_for_metrics_that_failed() {
        let ended = ServerError::Engine("a panic".to_owned());
        assert_eq!(ended.code().id, "KN0337");
        let ids: Vec<_> = code::ALL.iter().map(|code| code.id).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    }
}
