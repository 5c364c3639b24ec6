//! What people and programs can ask: operations over the store ([`operations`]), served over NATS ([`service`]), and the
//! caller's side of it ([`client`], [`command`]).
//!
//! **Invariant:** nothing here changes a run. Starts, signals and operators' commands go through the log, so that their
//! order is theirs; the API reads, and registers definitions and namespaces.

pub mod client;
pub mod command;
