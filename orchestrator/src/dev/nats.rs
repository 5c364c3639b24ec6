//! A private nats-server: its configuration, its start, and when it counts as started.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::DevError;
use super::process::{ServerProcess, read_pid, stop_leftover, tail};
use super::watchdog::Watchdog;

const SIGNAL: Signal = Signal::SIGTERM;
/// A large store takes its time to be read.
const READY_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct Nats {
    pub(crate) program: PathBuf,
    pub(crate) files: NatsFiles,
    pub(crate) port: u16,
}

#[derive(Debug, Clone)]
pub(crate) struct NatsFiles {
    home: PathBuf,
    pub(crate) log: PathBuf,
}

impl NatsFiles {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            home: data_dir.join("nats"),
            log: data_dir.join("nats.log"),
        }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// What JetStream stores.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.home.join("jetstream")
    }

    fn config(&self) -> PathBuf {
        self.home.join("nats.conf")
    }

    fn pid_file(&self) -> PathBuf {
        self.home.join("nats.pid")
    }

    pub(crate) async fn stop_leftover(&self) -> bool {
        match read_pid(&self.pid_file()) {
            Some(pid) => stop_leftover(pid, &self.config(), SIGNAL).await,
            None => false,
        }
    }
}

impl Nats {
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn launch(&self, watchdog: Arc<Watchdog>) -> Result<ServerProcess, DevError> {
        let config = self.files.config();
        fs::create_dir_all(&self.files.home)
            .and_then(|()| fs::write(&config, self.configuration()))
            .map_err(|error| DevError::path(&config, error))?;
        let process = ServerProcess::spawn(
            &self.program,
            &[OsStr::new("--config"), config.as_os_str()],
            &self.files.home,
            &self.files.log,
            None,
            SIGNAL,
            watchdog,
        )?;
        let deadline = tokio::time::Instant::now() + READY_DEADLINE;
        loop {
            let last = match self.greeting().await {
                Ok(info) if info.contains("\"jetstream\":true") => return Ok(process),
                Ok(_) => "JetStream is not there yet".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Some(status) = process.exit_status() {
                return Err(DevError::Ended {
                    server: "nats-server",
                    status: status.to_string(),
                    log: self.files.log.clone(),
                    tail: tail(&self.files.log),
                });
            }
            if tokio::time::Instant::now() > deadline {
                process.stop().await;
                return Err(DevError::NotReady {
                    server: "nats-server",
                    seconds: READY_DEADLINE.as_secs(),
                    last,
                    log: self.files.log.clone(),
                    tail: tail(&self.files.log),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn configuration(&self) -> String {
        // The server reads JSON's quoting.
        let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
        format!(
            "# Written at every start by knarr.\n\
             server_name: knarr-dev\n\
             listen: \"127.0.0.1:{port}\"\n\
             pid_file: {pid_file}\n\
             jetstream {{\n    store_dir: {store_dir}\n}}\n",
            port = self.port,
            pid_file = quoted(self.files.pid_file()),
            store_dir = quoted(self.files.store_dir()),
        )
    }

    /// The line with which a server greets whoever connects.
    async fn greeting(&self) -> std::io::Result<String> {
        let mut line = String::new();
        let read = async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            BufReader::new(stream).read_line(&mut line).await
        };
        match tokio::time::timeout(Duration::from_secs(2), read).await {
            Ok(read) => read?,
            Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
        };
        Ok(line)
    }
}
