//! What Knarr tells of itself: logs on stderr, metrics and health over HTTP, traces by OTLP when asked for.
//!
//! **Invariants:** every metric is named, described and given its unit in [`metric`]; no label carries an id; stdout is
//! never written to.

pub mod code;
pub mod health;
pub mod http;
pub mod log;
pub mod metric;
pub mod metrics;
pub mod span;
pub mod trace;

pub use log::{LogFormat, TelemetryError, TelemetryGuard, TelemetryOptions, init};
