//! End to end, chaos and crash tests of the real binary over real servers: the harness they share.
//!
//! A [`Stack`] is a private PostgreSQL and nats-server; [`Replica`]s are processes of the binary `knarr server`;
//! [`WorkerProcess`]es keep a record of all they did that survives their own SIGKILL; [`audit`] compares what PostgreSQL
//! holds with those records and with what was asked for.
//!
//! Not here: unit tests of the parts, and throughput.

#![expect(
    clippy::unwrap_used,
    reason = "this is test code: a failure is to stop it, where it happens"
)]

pub mod audit;
pub mod binaries;
pub mod child;
pub mod cli;
pub mod collector;
pub mod duplicator;
pub mod eventually;
pub mod families;
pub mod jetstream;
pub mod load;
pub mod plain;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod record;
pub mod replica;
pub mod saga;
pub mod stack;
pub mod valve;
pub mod worker;

pub use audit::{Audit, audit};
pub use eventually::eventually;
pub use load::Load;
pub use proxy::Proxy;
pub use random::Random;
pub use replica::{Replica, ReplicaOptions};
pub use saga::{Fault, Starter};
pub use stack::Stack;
pub use valve::Valve;
pub use worker::WorkerProcess;
