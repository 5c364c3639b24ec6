//! Private servers: a PostgreSQL and a NATS as children of this process, in a data directory of their own. Behind
//! `knarr dev`, `knarr demo`, `knarr bench` and every test that needs real servers.
//!
//! **Invariants:** one process at a time holds a data directory; no server outlives the process that started it, not
//! even one that was killed with `kill -9`; nothing listens anywhere but on 127.0.0.1; PostgreSQL never runs as root and
//! never without fsync unless a caller asks for that by name.
//!
//! Deliberately absent: containers, system services, anything that changes the machine outside the data directory and
//! the cache of downloaded servers.

mod account;
pub mod code;
mod error;
mod find;
#[cfg(test)]
pub(crate) mod for_tests;
mod install;
mod nats;
mod postgres;
mod process;
mod progress;
mod servers;
mod state;
mod watchdog;

pub use error::DevError;
pub use find::Search;
pub use process::{cpu_time, process_tree};
pub use progress::Progress;
pub use servers::{PortChoice, Server, ServerOptions, Servers};
pub(crate) use watchdog::Watchdog;
