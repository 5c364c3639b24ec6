//! Settings of the server: flags, over environment, over a TOML file, over defaults.
//!
//! A setting has one name, spelled `--http-listen`, `KNARR_HTTP_LISTEN` and `http_listen`. A file with a name it does not
//! know is refused, with the place: a typing error must not turn into a default.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use knarr_schemas::code::Code;
use serde::Deserialize;

use self::bounds::{BoundArgs, Bounds};
use self::limits::{LimitArgs, Limits};
use self::streams::{ByteSize, OF_PRIVATE_SERVERS, OF_SERVERS, StreamArgs};
use crate::bus::nats::{Storage, StreamSettings};
use crate::telemetry::{LogFormat, TelemetryOptions};

pub mod bounds;
pub mod limits;
pub mod streams;

pub const DEFAULT_NATS_URL: &str = "nats://127.0.0.1:4222";
pub const DEFAULT_HTTP_LISTEN: &str = "127.0.0.1:8822";
/// Of a new cluster; `knarr_core::ids` counts partitions in 16 bits, one of which is the ingress.
pub const DEFAULT_PARTITIONS: u16 = 64;
const DEFAULT_LOG: &str = "info,sqlx=warn,async_nats=warn";

pub mod code {
    //! Codes of what can be wrong with settings (`KN0321`–`KN0329`).
    use knarr_schemas::codes;

    codes! {
        UNREADABLE = "KN0321", "config_unreadable",
            "The configuration file cannot be read.",
            "Check the path given with --config or KNARR_CONFIG.";
        INVALID = "KN0322", "config_invalid",
            "The configuration file is not right.",
            "Correct the line named; `knarr server --help` names every setting.";
        NO_DATABASE = "KN0323", "no_database",
            "No PostgreSQL is named.",
            "Give its address with --database-url or KNARR_DATABASE_URL, or let `knarr dev` start a private one.";
        OUT_OF_RANGE = "KN0324", "config_out_of_range",
            "A setting is out of its range.",
            "Correct it; `knarr server --help` says what each setting takes.";
    }
}

/// What the command line and the environment say. The address of NATS is among the global options.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// TOML file with any of these settings, their names written like `http_listen`
    #[arg(long, env = "KNARR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address of PostgreSQL, like postgres://user:password@host/database
    #[arg(long, env = "KNARR_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    #[command(flatten)]
    pub process: ProcessArgs,
}

/// What every command that runs an orchestrator takes.
#[derive(Debug, Clone, Default, Args)]
pub struct ProcessArgs {
    /// Address for /metrics and /health [default: 127.0.0.1:8822]
    #[arg(long, env = "KNARR_HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,

    /// Name of this replica, the same across its restarts and different from the others' [default: the host's name]
    #[arg(long, env = "KNARR_REPLICA_NAME", value_name = "NAME")]
    pub replica_name: Option<String>,

    /// Partitions of a new cluster; an existing one keeps its own [default: 64]
    #[arg(long, env = "KNARR_PARTITIONS", value_name = "N")]
    pub partitions: Option<u16>,

    /// What to log, like `debug` or `knarr=debug,sqlx=warn`
    #[arg(long, env = "KNARR_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How to log [default: text]
    #[arg(long, env = "KNARR_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Collector to send traces to, like http://localhost:4318 (OTLP over HTTP) [default: OTEL_EXPORTER_OTLP_ENDPOINT, else
    /// none]
    #[arg(long, env = "KNARR_OTLP_ENDPOINT", value_name = "URL", hide_env_values = true)]
    pub otlp_endpoint: Option<String>,

    #[command(flatten)]
    pub streams: StreamArgs,

    #[command(flatten)]
    pub bounds: BoundArgs,

    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What the file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nats_url: Option<String>,
    nats_creds: Option<PathBuf>,
    database_url: Option<String>,
    http_listen: Option<SocketAddr>,
    replica_name: Option<String>,
    partitions: Option<u16>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    otlp_endpoint: Option<String>,
    nats_replicas: Option<u32>,
    nats_storage: Option<Storage>,
    log_max_bytes: Option<ByteSize>,
    task_max_bytes: Option<ByteSize>,
    bucket_max_bytes: Option<ByteSize>,
    dlq_max_bytes: Option<ByteSize>,
    events_max_bytes: Option<ByteSize>,
    run_max_events: Option<u64>,
    run_max_history_bytes: Option<ByteSize>,
    run_max_pending: Option<u64>,
    body_max_bytes: Option<ByteSize>,
    live_max_bytes: Option<ByteSize>,
    intake_max_bytes: Option<ByteSize>,
    direct_max_bytes: Option<ByteSize>,
    publish_max_bytes: Option<ByteSize>,
}

impl File {
    fn bounds(&self) -> BoundArgs {
        BoundArgs {
            live_max_bytes: self.live_max_bytes,
            intake_max_bytes: self.intake_max_bytes,
            direct_max_bytes: self.direct_max_bytes,
            publish_max_bytes: self.publish_max_bytes,
        }
    }

    fn limits(&self) -> LimitArgs {
        LimitArgs {
            run_max_events: self.run_max_events,
            run_max_history_bytes: self.run_max_history_bytes,
            run_max_pending: self.run_max_pending,
            body_max_bytes: self.body_max_bytes,
        }
    }

    fn streams(&self) -> StreamArgs {
        StreamArgs {
            nats_replicas: self.nats_replicas,
            nats_storage: self.nats_storage,
            log_max_bytes: self.log_max_bytes,
            task_max_bytes: self.task_max_bytes,
            bucket_max_bytes: self.bucket_max_bytes,
            dlq_max_bytes: self.dlq_max_bytes,
            events_max_bytes: self.events_max_bytes,
        }
    }
}

/// Everything the server needs to know.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub nats_url: String,
    pub nats_creds: Option<PathBuf>,
    pub database_url: String,
    pub http_listen: SocketAddr,
    pub replica_name: String,
    pub partitions: u16,
    pub log: String,
    pub log_format: LogFormat,
    pub otlp_endpoint: Option<String>,
    pub streams: StreamSettings,
    pub bounds: Bounds,
    pub limits: Limits,
}

/// Without the passwords in addresses.
impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("http_listen", &self.http_listen)
            .field("replica_name", &self.replica_name)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The reason names the line.
    #[error("the configuration file {} is not right: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("no PostgreSQL is named")]
    NoDatabase,
    #[error("{setting} is {value}: {wanted}")]
    OutOfRange {
        setting: &'static str,
        value: String,
        wanted: &'static str,
    },
}

impl ConfigError {
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Unreadable { .. } => &code::UNREADABLE,
            Self::Invalid { .. } => &code::INVALID,
            Self::NoDatabase => &code::NO_DATABASE,
            Self::OutOfRange { .. } => &code::OUT_OF_RANGE,
        }
    }
}

impl ServerConfig {
    /// `nats_url` and `nats_creds` are the global options as given, without their defaults.
    pub fn resolve(
        args: ServerArgs,
        nats_url: Option<String>,
        nats_creds: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let process = args.process;
        let streams = process.streams.or(file.streams()).settings(OF_SERVERS)?;
        let bounds = process.bounds.or(file.bounds()).bounds()?;
        let limits = process.limits.or(file.limits()).settings()?;
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let config = Self {
            nats_url: given(nats_url)
                .or(file.nats_url)
                .unwrap_or_else(|| DEFAULT_NATS_URL.to_owned()),
            nats_creds: nats_creds.or(file.nats_creds),
            database_url: given(args.database_url)
                .or(file.database_url)
                .ok_or(ConfigError::NoDatabase)?,
            http_listen: process
                .http_listen
                .or(file.http_listen)
                .unwrap_or_else(default_http_listen),
            replica_name: given(process.replica_name)
                .or(file.replica_name)
                .unwrap_or_else(host_name),
            partitions: process.partitions.or(file.partitions).unwrap_or(DEFAULT_PARTITIONS),
            log: given(process.log)
                .or(file.log)
                .unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            log_format: process.log_format.or(file.log_format).unwrap_or_default(),
            // The one that is not Knarr's own: it is there for every program of the machine.
            otlp_endpoint: given(process.otlp_endpoint)
                .or(file.otlp_endpoint)
                .or_else(|| given(std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok())),
            streams,
            bounds,
            limits,
        };
        config.check()
    }

    /// For the private servers of `knarr dev`; what it logs besides errors would bury its banner.
    pub fn private(
        process: ProcessArgs,
        nats_url: &str,
        nats_creds: Option<PathBuf>,
        database_url: &str,
    ) -> Result<Self, ConfigError> {
        let process = ProcessArgs {
            replica_name: process.replica_name.or_else(|| Some("dev".to_owned())),
            log: process.log.or_else(|| Some("warn,knarr=warn".to_owned())),
            ..process
        };
        let streams = process.streams.settings(OF_PRIVATE_SERVERS)?;
        let args = ServerArgs {
            config: None,
            database_url: Some(database_url.to_owned()),
            process,
        };
        let config = Self::resolve(args, Some(nats_url.to_owned()), nats_creds)?;
        Ok(Self { streams, ..config })
    }

    fn check(self) -> Result<Self, ConfigError> {
        if !(1..=32_766).contains(&self.partitions) {
            return Err(ConfigError::OutOfRange {
                setting: "partitions",
                value: self.partitions.to_string(),
                wanted: "1 to 32,766 are possible, and 64 are right for nearly everybody",
            });
        }
        if self.replica_name.len() > 200 || self.replica_name.chars().any(char::is_control) {
            return Err(ConfigError::OutOfRange {
                setting: "replica_name",
                value: self.replica_name.escape_debug().take(60).collect(),
                wanted: "up to 200 bytes without control characters are possible",
            });
        }
        Ok(self)
    }

    pub fn telemetry(&self) -> TelemetryOptions {
        TelemetryOptions {
            filter: self.log.clone(),
            format: self.log_format,
            otlp_endpoint: self.otlp_endpoint.clone(),
            replica: self.replica_name.clone(),
        }
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Invalid {
        path: path.to_owned(),
        reason: reason(&text, &error),
    })
}

/// Where and what, without the line itself: it may be that of `database_url`, with a password in it.
fn reason(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim_end();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message.to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[start..].chars().count() + 1;
    let key = text[start..].lines().next().and_then(|line| line.split_once('='));
    match key.map(|(key, _)| key.trim()) {
        Some(key) if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
            format!("line {line}, column {column} (`{key}`): {message}")
        }
        _ => format!("line {line}, column {column}: {message}"),
    }
}

pub fn default_http_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8822))
}

pub(crate) fn host_name() -> String {
    let name = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned());
    match name {
        Some(name) if !name.is_empty() => name,
        _ => "knarr".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, args: ServerArgs, nats_url: Option<&str>) -> Result<ServerConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knarr.toml");
        std::fs::write(&path, text).unwrap();
        let args = ServerArgs {
            config: Some(path),
            ..args
        };
        ServerConfig::resolve(args, nats_url.map(str::to_owned), None)
    }

    fn message(result: Result<ServerConfig, ConfigError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let file = "database_url = 'postgres://file'\nreplica_name = 'file'\npartitions = 8\n";
        let process = ProcessArgs {
            replica_name: Some("flag".to_owned()),
            ..ProcessArgs::default()
        };
        let args = ServerArgs {
            process,
            ..ServerArgs::default()
        };
        let config = with_file(file, args, Some("nats://flag")).unwrap();
        assert_eq!(config.nats_url, "nats://flag");
        assert_eq!(config.database_url, "postgres://file");
        assert_eq!((config.replica_name.as_str(), config.partitions), ("flag", 8));
        assert_eq!(config.http_listen.to_string(), DEFAULT_HTTP_LISTEN);
    }

    #[test]
    fn streams_are_set_by_flag_and_file() {
        use crate::bus::nats::Setting;

        let file = "database_url = 'x'\nnats_replicas = 3\nlog_max_bytes = '4GiB'\ntask_max_bytes = '2GiB'\n";
        let streams = StreamArgs {
            log_max_bytes: Some(ByteSize(8 << 30)),
            ..StreamArgs::default()
        };
        let process = ProcessArgs {
            streams,
            ..ProcessArgs::default()
        };
        let args = ServerArgs {
            process: process.clone(),
            ..ServerArgs::default()
        };
        let streams = with_file(file, args, None).unwrap().streams;
        assert_eq!(streams.replicas, Setting::Always(3));
        assert_eq!(streams.log_max_bytes, Setting::Always(8 << 30));
        assert_eq!(streams.task_max_bytes, Setting::Always(2 << 30));
        let private = ServerConfig::private(process, "nats://h", None, "postgres://h")
            .unwrap()
            .streams;
        assert_eq!(private.log_max_bytes, Setting::Always(8 << 30));
        assert_eq!(private.task_max_bytes, Setting::AtFirst(64 << 20));
        let wrong = message(with_file(
            "database_url = 'x'\nlog_max_bytes = '1GB'\n",
            ServerArgs::default(),
            None,
        ));
        assert!(wrong.contains("line 2") && wrong.contains("512MiB"), "{wrong}");
    }

    #[test]
    fn what_is_wrong_is_shown_with_its_place() {
        let unknown = message(with_file(
            "database_url = 'x'\nreplica = 'a'\n",
            ServerArgs::default(),
            None,
        ));
        assert!(
            unknown.contains("line 2") && unknown.contains("unknown field `replica`"),
            "{unknown}"
        );
        let wrong = message(with_file(
            "database_url = 'x'\nhttp_listen = 'here'\n",
            ServerArgs::default(),
            None,
        ));
        assert!(wrong.contains("line 2"), "{wrong}");
        let broken = message(with_file("database_url = \n", ServerArgs::default(), None));
        assert!(broken.contains("line 1"), "{broken}");
    }

    #[test]
    fn what_is_wrong_is_shown_without_passwords() {
        for (file, place) in [
            (
                "partitions = 8\ndatabase_url = postgres://u:secret@h/d\n",
                "line 2, column 16 (`database_url`)",
            ),
            ("database_url = 'postgres://u:secret@h/d\n", "line 1"),
            ("database_url = 'postgres://u:secret@h/d'x\n", "line 1"),
            ("database_url = ['postgres://u:secret@h/d']\n", "line 1"),
            ("postgres://u:secret@h/d\n", "line 1"),
        ] {
            let said = message(with_file(file, ServerArgs::default(), None));
            assert!(said.contains(place) && !said.contains("secret"), "{file}: {said}");
        }
    }

    #[test]
    fn limits_are_kept_at_the_limit_and_one_past_it() {
        let partitions = |n: u16| {
            with_file(
                &format!("database_url = 'x'\npartitions = {n}"),
                ServerArgs::default(),
                None,
            )
        };
        for (n, allowed) in [(0, false), (1, true), (32_766, true), (32_767, false)] {
            assert_eq!(partitions(n).is_ok(), allowed, "{n}");
        }
        let named = |n: usize| {
            with_file(
                &format!("database_url = 'x'\nreplica_name = '{}'", "r".repeat(n)),
                ServerArgs::default(),
                None,
            )
        };
        assert!(named(200).is_ok() && named(201).is_err());
    }

    #[test]
    fn a_setting_has_one_name() {
        use clap::Args as _;
        let command = ServerArgs::augment_args(clap::Command::new("server"));
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            assert_eq!(argument.get_long(), Some(&*name.replace('_', "-")));
            let variable = argument.get_env().and_then(|env| env.to_str());
            assert_eq!(variable, Some(&*format!("KNARR_{}", name.to_uppercase())));
            if name != "config" {
                // An unknown name would be refused as one.
                let said = with_file(&format!("{name} = []"), ServerArgs::default(), None);
                assert!(!message(said).contains("unknown field"), "{name}");
            }
        }
    }

    #[test]
    fn a_missing_database_or_file_has_its_code() {
        let error = ServerConfig::resolve(ServerArgs::default(), None, None).unwrap_err();
        assert_eq!(error.code().id, "KN0323");
        let args = ServerArgs {
            config: Some("/no/such/file".into()),
            ..ServerArgs::default()
        };
        assert_eq!(ServerConfig::resolve(args, None, None).unwrap_err().code().id, "KN0321");
    }

    #[test]
    fn passwords_are_not_shown() {
        let config = with_file("database_url = 'postgres://u:secret@h/d'", ServerArgs::default(), None).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
