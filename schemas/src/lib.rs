//! What goes over NATS: subjects, headers, tokens and bodies, for the orchestrator and for worker SDKs.
//!
//! This crate knows names and shapes, never behaviour: it has no NATS client, no clock and no state.
//! Every shape here has a JSON Schema under `json/` and golden files; both are checked for drift by its tests.
//! Beside them lie `definition.schema.json`, the language of definitions, and `test.schema.json`, that of their test files, for
//! editors; the core's tests hold both against what it reads.

pub mod api;
pub mod body;
pub mod code;
pub mod header;
pub mod subject;
pub mod token;
