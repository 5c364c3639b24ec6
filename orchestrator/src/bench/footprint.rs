//! What a measurement left in the database, and the memory it took.

use serde::Serialize;

use super::figures::round;

/// In 10⁶ bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Footprint {
    pub database_mb: f64,
    /// Since what is measured began.
    pub database_grew_mb: f64,
    /// Of the orchestrators, where they run on this machine: now, and at most.
    pub memory_mb: Option<f64>,
    pub memory_peak_mb: Option<f64>,
}

impl Footprint {
    /// The database in bytes; the memory, now and at most, in KiB.
    pub(super) fn new(before: i64, now: i64, memory: Option<(u64, u64)>) -> Self {
        let mb = |bytes: i64| round(bytes as f64 / 1e6);
        let memory_mb = |kib: u64| round(kib as f64 * 1_024.0 / 1e6);
        Self {
            database_mb: mb(now),
            database_grew_mb: mb(now - before),
            memory_mb: memory.map(|(now, _)| memory_mb(now)),
            memory_peak_mb: memory.map(|(_, peak)| memory_mb(peak)),
        }
    }
}
