//! Knarr: a durable saga orchestrator over NATS and PostgreSQL. One binary; this library is its inside.
//!
//! Read `ARCHITECTURE.md` first.

mod address;
pub mod api;
pub mod bench;
pub mod bus;
pub mod cli;
pub mod config;
pub mod dev;
pub mod engine;
mod queues;
pub mod server;
pub mod store;
pub mod telemetry;
