//! Why there was no measurement. Findings of a measurement that took place are in its report.

use knarr_schemas::code::Code;

use super::wire::WireError;
use crate::cli::error::{CliError, Exit};
use crate::dev::DevError;

macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $cause:literal, $remedy:literal;)*) => {
        $(
            #[doc = $cause]
            pub(crate) const $name: Code = Code { id: $id, title: $title, cause: $cause, remedy: $remedy };
        )*
        /// Every code of the benchmark, in the order of the ids.
        pub const CODES: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    CLIENT_CANNOT = "KN0381", "bench_address",
        "The benchmark's client cannot use the address of NATS.",
        "Give an address without TLS, or none: then private servers are started.";
    NATS_LOST = "KN0382", "bench_nats",
        "NATS failed the benchmark.",
        "See that the server is there and lets this user publish to knarr.run.> and knarr.bench.>, and for triggers to knarr-bench.> and JetStream's API, then measure again.";
    PROCESS_ENDED = "KN0383", "bench_process_ended",
        "A process of the measurement ended before it was to.",
        "Read what it said; `knarr server` can be tried alone against the same servers.";
    NOT_READY = "KN0384", "bench_not_ready",
        "A part of the measurement was not ready in time.",
        "See whether the machine is overloaded, and where servers were named, that an orchestrator is connected to them.";
    DATABASE = "KN0385", "bench_database",
        "PostgreSQL could not be asked for what the measurement has cost.",
        "See that --database-url names the database that the orchestrator uses.";
    NOT_REGISTERED = "KN0386", "bench_not_registered",
        "The scenario's definition was not taken.",
        "Where the namespace has another definition of that name, choose another with --namespace.";
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Servers(#[from] DevError),
    #[error(transparent)]
    Client(#[from] WireError),
    #[error("NATS: {0}")]
    Nats(String),
    #[error("{what} ended ({status}) before it was to; it said:\n{tail}")]
    Ended {
        what: &'static str,
        status: String,
        tail: String,
    },
    #[error("{what} does not start: {source}")]
    Spawn { what: &'static str, source: std::io::Error },
    #[error("{what} was not ready within {seconds} s: {last}")]
    NotReady {
        what: &'static str,
        seconds: u64,
        last: String,
    },
    #[error("when runs began and ended is read from the database, and none is named")]
    NoDatabase,
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the definition of the scenario was not taken: {0}")]
    NotRegistered(String),
    #[error("interrupted")]
    Interrupted,
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        let message = error.to_string();
        let code = match error {
            BenchError::Servers(error) => {
                return Self::new(Exit::Environment, error.code(), message);
            }
            BenchError::Interrupted => return Self::silent(Exit::Environment),
            BenchError::Client(WireError::Address(_)) => &CLIENT_CANNOT,
            BenchError::Client(_) | BenchError::Nats(_) => &NATS_LOST,
            BenchError::Ended { .. } | BenchError::Spawn { .. } => &PROCESS_ENDED,
            BenchError::NotReady { .. } => &NOT_READY,
            BenchError::Database(_) | BenchError::NoDatabase => &DATABASE,
            BenchError::NotRegistered(_) => &NOT_REGISTERED,
        };
        Self::new(Exit::Environment, code, message)
    }
}
