//! A whole Knarr in one process: private servers and an orchestrator on them. What `dev` and `demo` have in common.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::error::{CliError, Exit};
use crate::cli::output;
use crate::config::{ProcessArgs, ServerConfig, default_http_listen};
use crate::dev::{self, Progress, Server, ServerOptions, Servers};
use crate::server::{self, RunningServer};

/// Where commands that run in the same directory look for the servers' addresses.
const RECORD: &str = "dev.json";
/// A server that keeps dying is not started for ever.
const RESTARTS: u32 = 10;
const READY_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Stack {
    servers: Servers,
    orchestrator: RunningServer,
    record: PathBuf,
}

/// Where a stack can be reached.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    pub nats_url: String,
    pub database_url: String,
    pub http_url: String,
}

impl Stack {
    /// Starts everything; returns when the orchestrator serves.
    pub async fn start(options: ServerOptions, process: ProcessArgs, progress: &Progress) -> Result<Self, CliError> {
        let servers = Servers::start(options, progress).await?;
        progress.step("Starting the orchestrator …");
        match Self::orchestrator(&servers, process).await {
            Ok(orchestrator) => {
                let record = servers.data_dir().join(RECORD);
                let stack = Self {
                    servers,
                    orchestrator,
                    record,
                };
                stack.write_record();
                Ok(stack)
            }
            Err(error) => {
                servers.stop().await;
                Err(error)
            }
        }
    }

    async fn orchestrator(servers: &Servers, mut process: ProcessArgs) -> Result<RunningServer, CliError> {
        if process.http_listen.is_none() && TcpListener::bind(default_http_listen()).is_err() {
            process.http_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        }
        let config = ServerConfig::private(process, servers.nats_url(), servers.postgres_url())?;
        let mut orchestrator = server::start(config, CancellationToken::new()).await?;
        if !orchestrator.ready(READY_LIMIT).await {
            tokio::select! {
                biased;
                ended = orchestrator.ended() => ended?,
                () = std::future::ready(()) => output::note("warning: the orchestrator is not ready yet; see its log"),
            }
        }
        Ok(orchestrator)
    }

    pub fn addresses(&self) -> Addresses {
        Addresses {
            nats_url: self.servers.nats_url().to_owned(),
            database_url: self.servers.postgres_url().to_owned(),
            http_url: format!("http://{}", self.orchestrator.http()),
        }
    }

    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    pub fn data_dir(&self) -> &Path {
        self.servers.data_dir()
    }

    /// Keeps it up until `shutdown`: a server that died is started again on its data. Ends early when that does not help,
    /// or when the orchestrator cannot go on.
    pub async fn keep(&mut self, shutdown: &CancellationToken) -> Result<(), CliError> {
        let mut restarts = 0;
        loop {
            let failed: Server = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                ended = self.orchestrator.ended() => return Ok(ended?),
                failed = self.servers.failed() => failed,
            };
            restarts += 1;
            if restarts > RESTARTS {
                return Err(CliError::new(
                    Exit::Environment,
                    &dev::code::ENDED,
                    format!(
                        "{} keeps dying; its log is in {}",
                        failed.name(),
                        self.data_dir().display()
                    ),
                ));
            }
            output::note(&format!("{} has died; starting it again", failed.name()));
            self.servers.restart(failed).await?;
        }
    }

    /// The orchestrator hands over first, then the servers stop.
    pub async fn stop(self) -> Result<(), CliError> {
        let _ = std::fs::remove_file(&self.record);
        let ended = self.orchestrator.stop().await;
        self.servers.stop().await;
        Ok(ended?)
    }

    fn write_record(&self) {
        // Without the database's address, which holds a password.
        let Addresses { nats_url, http_url, .. } = self.addresses();
        let record = serde_json::json!({ "pid": std::process::id(), "nats_url": nats_url, "http_url": http_url });
        if let Err(error) = std::fs::write(&self.record, format!("{record:#}\n")) {
            output::note(&format!(
                "warning: {} cannot be written: {error}",
                self.record.display()
            ));
        }
    }
}
