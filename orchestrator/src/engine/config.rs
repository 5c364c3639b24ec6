//! The engine's limits and intervals, each with its unit and default.

use std::time::Duration;

use knarr_core::run::limits::RunLimits;
use knarr_core::time::Span;

#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Names this process among replicas, the same across its restarts.
    pub replica: String,
    /// Partitions of a new cluster; an existing one keeps its own. Default 64.
    pub partitions: u16,
    /// Inputs applied in one batch at most. Default 2,000.
    pub batch_inputs: usize,
    /// Bytes of events in one batch at most. Default 8 MiB.
    pub batch_bytes: usize,
    /// A run with more than this to be loaded is loaded by itself, and its inputs are deferred meanwhile. Default 4 MiB.
    pub huge_run_bytes: u64,
    /// What one look-up loads at most, in bytes; the rest is for the next. Default 16 MiB.
    pub look_up_bytes: u64,
    /// Inputs that wait longer than this for a look-up are deferred. Default 1 s.
    pub slow_look_up: Duration,
    /// Runs kept in memory while nothing happens to them. Default 50,000.
    pub live_runs: usize,
    /// And as far as they weigh so much, in bytes of an upper estimate; so do the last words of closed ones up to an eighth of it.
    /// Default 256 MiB.
    pub live_bytes: usize,
    /// Transitions between two snapshots of a run. Default 256.
    pub snapshot_every: u32,
    /// Messages on their way from the bus to the loop. Default 65,536.
    pub intake: usize,
    /// Messages of the log taken and not yet applied, in bytes of an upper estimate with what they are parsed into. A half is
    /// shared out to the partitions; see [`crate::bus::inlet`]. Default 128 MiB.
    pub intake_bytes: usize,
    /// The same for direct inlets: what does not fit is dropped, and its sender repeats it. Default 64 MiB.
    pub direct_bytes: usize,
    /// What committed batches let out and is not acknowledged yet, in bytes. What they owe beyond that is read from the store
    /// again when it is its turn. Default 64 MiB.
    pub publish_bytes: usize,
    /// Between two renewals of the lease. Default 500 ms.
    pub keep_every: Duration,
    /// Timeouts wait this long after NATS or a partition came back, so that workers can hand in first. Default 3 s.
    pub timeout_grace: Span,
    /// Deadlines nearer than this are kept in memory. Default 60 s.
    pub deadline_horizon: Span,
    /// Deadlines asked of the store at once; of four times as many runs that are not in memory one is kept there.
    /// Default 10,000.
    pub deadline_page: usize,
    /// Subjects that answers may go to begin with one of these. Default `_INBOX.`.
    pub answer_prefixes: Vec<String>,
    /// Of runs that start here; what is absent is as by default.
    pub run_limits: RunLimits,
    /// The largest input or result, in bytes, and never more than the bus takes. Default 2 MiB.
    pub max_body_bytes: usize,
}

impl EngineConfig {
    pub fn new(replica: impl Into<String>) -> Self {
        Self {
            replica: replica.into(),
            partitions: 64,
            batch_inputs: 2_000,
            batch_bytes: 8 << 20,
            huge_run_bytes: 4 << 20,
            look_up_bytes: 16 << 20,
            slow_look_up: Duration::from_secs(1),
            live_runs: 50_000,
            live_bytes: 256 << 20,
            snapshot_every: 256,
            intake: 65_536,
            intake_bytes: 128 << 20,
            direct_bytes: 64 << 20,
            publish_bytes: 64 << 20,
            keep_every: Duration::from_millis(500),
            timeout_grace: Span::from_secs(3),
            deadline_horizon: Span::from_secs(60),
            deadline_page: 10_000,
            answer_prefixes: vec!["_INBOX.".to_owned()],
            run_limits: RunLimits::default(),
            max_body_bytes: 2 << 20,
        }
    }
}
