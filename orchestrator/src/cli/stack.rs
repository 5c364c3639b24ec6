//! A whole Knarr in one process: private servers and an orchestrator on them. What `dev` and `demo` have in common.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::address::without_secrets;
use crate::cli::error::{CliError, Exit};
use crate::cli::output;
use crate::config::{ProcessArgs, ServerConfig, default_http_listen};
use crate::dev::{self, DevError, Progress, Server, ServerOptions, Servers};
use crate::server::{self, RunningServer};

/// In the data directory: where commands that run in the same directory look for the addresses.
pub const RECORD: &str = "dev.json";
/// A server that keeps dying is not started for ever: so many restarts are made within so long.
const RESTARTS: usize = 10;
const RESTARTS_WITHIN: Duration = Duration::from_secs(600);
/// Before one more, where a server ended as it was started.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const READY_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Stack {
    servers: Servers,
    orchestrator: RunningServer,
    record: PathBuf,
}

/// Where a stack can be reached, to be shown: with the password of a private PostgreSQL, which is of use to nobody else,
/// and without those of servers that are not its own.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    pub nats_url: String,
    pub database_url: String,
    pub http_url: String,
}

impl Stack {
    /// Starts everything; returns when the orchestrator serves. The credentials are for a NATS that is not private.
    pub async fn start(
        options: ServerOptions,
        nats_creds: Option<PathBuf>,
        process: ProcessArgs,
        progress: &Progress,
    ) -> Result<Self, CliError> {
        let servers = Servers::start(options, progress).await?;
        progress.step("Starting the orchestrator …");
        match Self::orchestrator(&servers, nats_creds, process).await {
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

    async fn orchestrator(
        servers: &Servers,
        nats_creds: Option<PathBuf>,
        mut process: ProcessArgs,
    ) -> Result<RunningServer, CliError> {
        if process.http_listen.is_none() && TcpListener::bind(default_http_listen()).is_err() {
            process.http_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        }
        let config = ServerConfig::private(process, servers.nats_url(), nats_creds, servers.postgres_url())?;
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
        let private = |private: bool, url: &str| match private {
            true => url.to_owned(),
            false => without_secrets(url),
        };
        let servers = &self.servers;
        Addresses {
            nats_url: private(servers.nats_store_dir().is_some(), servers.nats_url()),
            database_url: private(servers.postgres_home().is_some(), servers.postgres_url()),
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
        let mut restarts = Restarts::default();
        loop {
            let failed: Server = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                ended = self.orchestrator.ended() => return Ok(ended?),
                failed = self.servers.failed() => failed,
            };
            if !restarts.allow(Instant::now()) {
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
            let servers = &self.servers;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                started = again(&mut restarts, || servers.restart(failed)) => started?,
            }
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
        // Without the database's address, which commands do not need.
        let record = serde_json::json!({
            "pid": std::process::id(),
            "nats_url": self.servers.nats_url(),
            "http_url": format!("http://{}", self.orchestrator.http()),
        });
        if let Err(error) = write_private(&self.record, &format!("{record:#}\n")) {
            output::note(&format!(
                "warning: {} cannot be written: {error}",
                self.record.display()
            ));
        }
    }
}

/// Starts a server again, as often as that is allowed. What it has left behind may take a while to go: PostgreSQL does not
/// start beside a backend of its last life, and one that is at work notices late that its parent has died.
async fn again<F, S>(restarts: &mut Restarts, mut start: F) -> Result<(), CliError>
where
    F: FnMut() -> S,
    S: Future<Output = Result<(), DevError>>,
{
    loop {
        match start().await {
            Err(DevError::Ended { .. }) if restarts.allow(Instant::now()) => tokio::time::sleep(RESTART_PAUSE).await,
            started => return Ok(started?),
        }
    }
}

/// When servers were started again, of late.
#[derive(Debug, Default)]
struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// Whether one more is worth trying. One that dies once a week may do so for years.
    fn allow(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|at| now - *at >= RESTARTS_WITHIN) {
            self.0.pop_front();
        }
        let allowed = self.0.len() < RESTARTS;
        if allowed {
            self.0.push_back(now);
        }
        allowed
    }
}

/// Read by this user alone: the address of a NATS that is not private may hold a password.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    // Permissions are those of the moment a file is made.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn servers_are_started_again_as_long_as_they_do_not_die_too_often() {
        let began = Instant::now();
        let mut seldom = Restarts::default();
        assert!((0..100).all(|n| seldom.allow(began + n * RESTARTS_WITHIN / 10)));
        let mut often = Restarts::default();
        let allowed = |often: &mut Restarts, at| (0..20).filter(|_| often.allow(at)).count();
        assert_eq!(allowed(&mut often, began), RESTARTS);
        assert_eq!(
            allowed(&mut often, began + RESTARTS_WITHIN - Duration::from_nanos(1)),
            0
        );
        assert_eq!(allowed(&mut often, began + RESTARTS_WITHIN), RESTARTS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_ends_as_it_is_started_is_tried_again_but_not_for_ever() {
        let ended = || DevError::Ended {
            server: "PostgreSQL",
            status: "exit status: 1".to_owned(),
            log: PathBuf::new(),
            tail: "a block of shared memory is still in use".to_owned(),
        };
        let mut tries = 0;
        let started = again(&mut Restarts::default(), || {
            tries += 1;
            std::future::ready(if tries < 4 { Err(ended()) } else { Ok(()) })
        })
        .await;
        assert_eq!((started, tries), (Ok(()), 4));
        let mut tries = 0;
        let never = again(&mut Restarts::default(), || {
            tries += 1;
            std::future::ready(Err(ended()))
        })
        .await;
        let error = never.unwrap_err().body.unwrap();
        assert_eq!((error.code.as_str(), tries), (dev::code::ENDED.id, RESTARTS + 1));
        let mut tries = 0;
        let other = again(&mut Restarts::default(), || {
            tries += 1;
            std::future::ready(Err(DevError::NoRandom))
        })
        .await;
        assert!(other.is_err());
        assert_eq!(tries, 1);
    }

    #[test]
    fn the_record_is_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECORD);
        // As an earlier version left it, and as one that was killed did.
        fs::write(&path, "old").unwrap();
        fs::write(path.with_extension("new"), "half").unwrap();
        write_private(&path, "{}").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
