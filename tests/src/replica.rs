//! Replicas: processes of `knarr server`.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::child::{self, ChildProcess};
use crate::{Stack, binaries, eventually};

/// For a process of a debug build on a machine with other work.
const READY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub struct ReplicaOptions {
    /// `<stage>:<n>`; see `engine/failpoint.rs`.
    pub failpoint: Option<String>,
    /// Instead of the stack's own.
    pub database_url: Option<String>,
    /// Instead of the stack's own.
    pub nats_url: Option<String>,
    /// Where its spans go; nowhere if not said.
    pub otlp_endpoint: Option<String>,
}

#[derive(Debug)]
pub struct Replica {
    pub name: String,
    child: ChildProcess,
    command: CommandLine,
    log: PathBuf,
}

impl Replica {
    /// Started and ready.
    pub async fn start(stack: &Stack, name: &str) -> Self {
        Self::start_with(stack, name, ReplicaOptions::default()).await
    }

    pub async fn start_with(stack: &Stack, name: &str, options: ReplicaOptions) -> Self {
        let mut replica = Self::spawn(stack, name, options);
        replica.ready().await;
        replica
    }

    /// Started; whether it becomes ready is the caller's to find out.
    pub fn spawn(stack: &Stack, name: &str, options: ReplicaOptions) -> Self {
        let log = stack.directory().join(format!("{name}.log"));
        child::create(&log);
        let command = CommandLine {
            name: name.to_owned(),
            nats_url: options.nats_url.unwrap_or_else(|| stack.nats_url().to_owned()),
            database_url: options.database_url.unwrap_or_else(|| stack.postgres_url().to_owned()),
            partitions: stack.partitions(),
            otlp_endpoint: options.otlp_endpoint,
        };
        Self {
            child: command.launch(options.failpoint.as_deref(), &log),
            name: name.to_owned(),
            command,
            log,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub fn kill9(&mut self) {
        self.child.kill9();
    }

    /// Begins again under the same name, without a crash point.
    pub fn respawn(&mut self) {
        self.child.kill9();
        // The address in the log is that of the process that writes last.
        child::create(&self.log);
        self.child = self.command.launch(None, &self.log);
    }

    /// Asks it to hand over, and waits for its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.child.signal(Signal::SIGTERM);
        self.child.ended(Duration::from_secs(20)).await
    }

    /// Until it has ended by itself.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        self.child.ended(limit).await
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.has_ended().is_some()
    }

    pub fn log(&self) -> String {
        self.child.log()
    }

    /// Lines of its log, as objects.
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    pub fn log_lines_with_code(&self, code: &str) -> Vec<serde_json::Value> {
        self.log_lines()
            .into_iter()
            .filter(|line| line["code"] == code)
            .collect()
    }

    pub async fn ready(&mut self) {
        let began = std::time::Instant::now();
        loop {
            if self.get("/health/ready").await.is_some_and(|(status, _)| status == 200) {
                return;
            }
            assert!(
                self.child.has_ended().is_none() && began.elapsed() < READY,
                "the replica {} is not ready:\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// The value of a metric, all its labels summed up; 0 if it has not been counted yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let Some((_, text)) = self.get("/metrics").await else {
            return 0.0;
        };
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub async fn wait_for_metric(&self, name: &str, at_least: f64, limit: Duration) {
        eventually(&format!("{name} ≥ {at_least} of {}", self.name), limit, || async {
            (self.metric(name).await >= at_least).then_some(())
        })
        .await;
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let address = self
            .log_lines()
            .iter()
            .rev()
            .find(|line| line["message"] == "serving")
            .and_then(|line| line["http"].as_str().map(str::to_owned))?;
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect(&address).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok()?;
            let text = String::from_utf8_lossy(&answer).into_owned();
            let status = text.split(' ').nth(1)?.parse().ok()?;
            Some((status, text))
        };
        tokio::time::timeout(Duration::from_secs(5), exchange).await.ok()?
    }
}

/// What a replica is started with, every time.
#[derive(Debug)]
struct CommandLine {
    name: String,
    nats_url: String,
    database_url: String,
    partitions: u16,
    otlp_endpoint: Option<String>,
}

impl CommandLine {
    fn launch(&self, failpoint: Option<&str>, log: &std::path::Path) -> ChildProcess {
        let mut command = Command::new(binaries::knarr());
        command
            .args([
                "server",
                "--nats-url",
                &self.nats_url,
                "--database-url",
                &self.database_url,
            ])
            .args([
                "--replica-name",
                &self.name,
                "--partitions",
                &self.partitions.to_string(),
            ])
            .args(["--http-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--log", "info,sqlx=warn,async_nats=warn"])
            .env_remove("KNARR_FAILPOINT")
            .env("RUST_BACKTRACE", "1");
        if let Some(failpoint) = failpoint {
            command.env("KNARR_FAILPOINT", failpoint);
        }
        if let Some(endpoint) = &self.otlp_endpoint {
            command
                .args(["--otlp-endpoint", endpoint])
                .env("OTEL_BSP_SCHEDULE_DELAY", "100");
        }
        ChildProcess::spawn(command, log)
    }
}
