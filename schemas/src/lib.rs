//! What goes over NATS: subjects, headers, tokens and bodies, for the orchestrator and for worker SDKs.
//!
//! This crate knows names and shapes, never behaviour: it has no NATS client, no clock and no state.
//! Every shape here has a JSON Schema under `json/` and golden files; both are checked for drift by its tests.
//! Beside them lies `definition.schema.json`, the language of definitions for editors, which the core's tests hold against
//! what it reads.

pub mod api;
pub mod body;
pub mod code;
pub mod header;
pub mod subject;
pub mod token;
