//! Flags that every command has, and what follows from them: where NATS is, how output looks.

use std::io::{IsTerminal, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::address::without_secrets;
use crate::api::client::ApiClient;
use crate::api::command::Commander;
use crate::cli::duration;
use crate::cli::error::{CliError, Exit};
use crate::cli::stack::RECORD;
use crate::cli::{code, output};

const DEFAULT_NATS_URL: &str = "nats://127.0.0.1:4222";
/// Where `knarr dev` keeps its data unless told otherwise; also in its own flags.
pub const DEV_DIRECTORY: &str = ".knarr";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Address of NATS; several of a cluster are separated by commas [default: for commands that ask an orchestrator that of
    /// a `knarr dev` running in this directory; else, and for `server`, nats://127.0.0.1:4222]
    #[arg(
        long,
        env = "KNARR_NATS_URL",
        hide_env_values = true,
        global = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub nats_url: Option<String>,

    /// Whether that was said on the command line itself.
    #[arg(skip)]
    pub nats_is_named: bool,

    /// File with NATS credentials (`.creds`)
    #[arg(
        long,
        env = "KNARR_NATS_CREDS",
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub nats_creds: Option<std::path::PathBuf>,

    /// Namespace to work in
    #[arg(
        long,
        short = 'n',
        env = "KNARR_NAMESPACE",
        global = true,
        default_value = "default",
        value_name = "NAME",
        help_heading = "Global options"
    )]
    pub namespace: String,

    /// How to print: for people, or as JSON for programs
    #[arg(
        long,
        short = 'o',
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub output: OutputFormat,

    /// Longest wait for an answer, like `500ms`, `10s` or `5m` [default: 10s]
    #[arg(long, global = true, value_parser = duration::std, value_name = "DURATION", help_heading = "Global options")]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Table,
    Json,
}

/// What tables and timelines need to know of the world; fixed in tests.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub color: bool,
    /// `None` = do not wrap.
    pub width: Option<u16>,
    pub now: DateTime<Utc>,
}

impl Globals {
    pub fn json(&self) -> bool {
        self.output == OutputFormat::Json
    }

    pub fn look(&self) -> Look {
        Look {
            color: anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never,
            width: None,
            now: Utc::now(),
        }
    }

    /// The time for one answer.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    pub fn nats_url(&self) -> String {
        self.nats_url
            .clone()
            .or_else(running_here)
            .unwrap_or_else(|| DEFAULT_NATS_URL.to_owned())
    }

    /// The server named by the flag, for commands that would change what an environment variable points at, left there
    /// for others. Says so, if it passes one over.
    pub fn named_nats_url(&self) -> Option<String> {
        if self.nats_url.is_some() && !self.nats_is_named {
            output::note(
                "note: KNARR_NATS_URL is not looked at here; name a server that is to be used with --nats-url",
            );
            return None;
        }
        self.nats_url.clone()
    }

    /// Connects, or says within seconds that it cannot.
    pub async fn connect(&self) -> Result<Connection, CliError> {
        let url = self.nats_url();
        let servers: Vec<&str> = url.split(',').map(str::trim).collect();
        let last_error = Arc::new(Mutex::new(None));
        let mut options = match &self.nats_creds {
            None => async_nats::ConnectOptions::new(),
            Some(file) => async_nats::ConnectOptions::with_credentials_file(file)
                .await
                .map_err(|error| {
                    CliError::new(
                        Exit::Usage,
                        &code::FILE_UNREADABLE,
                        format!("the credentials in {} cannot be read: {error}", file.display()),
                    )
                })?,
        };
        let record = Arc::clone(&last_error);
        options = options
            .name("knarr command line")
            .connection_timeout(CONNECT_TIMEOUT)
            .event_callback(move |event| {
                let record = Arc::clone(&record);
                async move {
                    // A missing permission shows as a timeout and as this event alone.
                    if let async_nats::Event::ServerError(error) = event
                        && let Ok(mut record) = record.lock()
                    {
                        *record = Some(error.to_string());
                    }
                }
            });
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT + Duration::from_secs(1), options.connect(servers));
        let nats = match connecting.await {
            Ok(Ok(nats)) => nats,
            Ok(Err(error)) => {
                use async_nats::ConnectErrorKind as Kind;
                return Err(match error.kind() {
                    Kind::ServerParse => CliError::usage(format!(
                        "`{}` is not an address of NATS: {error}",
                        without_secrets(&url)
                    )),
                    Kind::Authentication | Kind::AuthorizationViolation => CliError::new(
                        Exit::Environment,
                        &code::NATS_REFUSED,
                        format!("NATS at {} refuses the connection: {error}", without_secrets(&url)),
                    ),
                    _ => unreachable_at(&url, &error.to_string()),
                });
            }
            Err(_) => return Err(unreachable_at(&url, "no answer")),
        };
        Ok(Connection { nats, last_error })
    }

    pub async fn api(&self) -> Result<Api, CliError> {
        let connection = self.connect().await?;
        let client = ApiClient::new(connection.nats.clone(), self.namespace.clone(), self.timeout());
        Ok(Api { client, connection })
    }
}

fn unreachable_at(url: &str, cause: &str) -> CliError {
    CliError::new(
        Exit::Environment,
        &code::NATS_UNREACHABLE,
        format!("NATS cannot be reached at {}: {cause}", without_secrets(url)),
    )
}

#[derive(Debug)]
pub struct Connection {
    pub nats: async_nats::Client,
    last_error: Arc<Mutex<Option<String>>>,
}

impl Connection {
    pub fn commander(&self, globals: &Globals) -> Commander {
        Commander::new(self.nats.clone(), globals.namespace.clone(), globals.timeout())
    }

    /// As the server would.
    #[cfg(test)]
    pub fn complain(&self, complaint: &str) {
        *self.last_error.lock().unwrap() = Some(complaint.to_owned());
    }

    /// Adds what NATS itself complained of, which may explain the error: a missing permission shows as a timeout.
    pub fn explain(&self, error: impl Into<CliError>) -> CliError {
        let mut error = error.into();
        let complaint = self.last_error.lock().ok().and_then(|record| record.clone());
        if let (Some(complaint), Some(body), Exit::Environment) = (complaint, &mut error.body, error.exit) {
            body.message = format!("{} (NATS says: {complaint})", body.message);
        }
        error
    }
}

/// A connection that asks the API.
#[derive(Debug)]
pub struct Api {
    client: ApiClient,
    connection: Connection,
}

impl Api {
    pub async fn call<Q, R>(&self, verb: &str, request: &Q) -> Result<R, CliError>
    where
        Q: serde::Serialize + Sync,
        R: serde::de::DeserializeOwned,
    {
        self.client
            .call(verb, request)
            .await
            .map_err(|error| self.connection.explain(error))
    }
}

/// The NATS of a `knarr dev` or `knarr demo` that runs here.
pub fn running_here() -> Option<String> {
    let directory = std::env::var_os("KNARR_DATA_DIR").unwrap_or_else(|| DEV_DIRECTORY.into());
    let directory = Path::new(&directory);
    running_dev(directory).or_else(|| running_dev(&directory.join("demo")))
}

/// The NATS of a `knarr dev` that runs in this data directory: it holds the lock as long as it does, and has written down
/// what it is connected to, which need not be a server of its own.
fn running_dev(directory: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Record {
        pid: u32,
        nats_url: String,
    }
    let mut lock = std::fs::File::open(directory.join("lock")).ok()?;
    if !matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)) {
        return None;
    }
    let mut holder = String::new();
    lock.read_to_string(&mut holder).ok()?;
    let text = std::fs::read_to_string(directory.join(RECORD)).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    // One that was killed leaves its record behind, and the next one takes a while until it has its own.
    (holder.trim() == record.pid.to_string()).then_some(record.nats_url)
}

/// Whether somebody can be asked.
pub fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_dev_is_found_and_one_that_ended_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running_dev(dir.path()), None);
        std::fs::write(dir.path().join("lock"), "17\n").unwrap();
        let lock = std::fs::File::open(dir.path().join("lock")).unwrap();
        // The port of the last private server, to which a dev on another NATS does not go.
        std::fs::write(dir.path().join("state.json"), r#"{"nats_port":4321,"postgres_port":2}"#).unwrap();
        let record = r#"{"pid": 17, "nats_url": "nats://u:p@other:4222", "http_url": "http://h"}"#;
        std::fs::write(dir.path().join(RECORD), record).unwrap();
        assert_eq!(running_dev(dir.path()), None);
        lock.try_lock().unwrap();
        assert_eq!(running_dev(dir.path()).as_deref(), Some("nats://u:p@other:4222"));
        std::fs::write(dir.path().join(RECORD), record.replace("17", "16")).unwrap();
        assert_eq!(running_dev(dir.path()), None, "what one left behind that was killed");
        std::fs::write(dir.path().join(RECORD), "{").unwrap();
        assert_eq!(running_dev(dir.path()), None);
    }
}
