//! What can go wrong with private servers. Each has a code with a remedy, because a newcomer meets these first.

use std::io;
use std::path::{Path, PathBuf};

use knarr_schemas::code::Code;

use super::code;

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

    /// What this is documented under.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Busy { .. } => &code::BUSY,
            Self::Path { .. } => &code::PATH,
            Self::State { .. } => &code::STATE,
            Self::Named { .. } => &code::NAMED,
            Self::NoPython { .. } => &code::NO_PYTHON,
            Self::Install { .. } => &code::INSTALL,
            Self::Spawn { .. } => &code::SPAWN,
            Self::Ended { .. } => &code::ENDED,
            Self::NotReady { .. } => &code::NOT_READY,
            Self::PortTaken { .. } => &code::PORT_TAKEN,
            Self::WrongMajor { .. } => &code::WRONG_MAJOR,
            Self::NoAccount => &code::NO_ACCOUNT,
            Self::InitDb { .. } => &code::INITDB,
            Self::Sql(_) => &code::SQL,
            Self::Unreachable { .. } => &code::UNREACHABLE,
            Self::NotOurs(_) => &code::NOT_OURS,
            Self::NoRandom => &code::NO_RANDOM,
        }
    }
}
