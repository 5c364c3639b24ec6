//! What a handler knows about its task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::HeaderMap;
use chrono::{DateTime, Utc};
use knarr_schemas::header;
use tokio_util::sync::CancellationToken;

use crate::error::ActivityError;

/// One delivery of a task. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Context(pub(crate) Arc<TaskInfo>);

/// The parts of a task that outlive its message. Headers are looked up when asked for: most handlers read one or two.
#[derive(Debug)]
pub(crate) struct TaskInfo {
    pub(crate) token: Arc<str>,
    pub(crate) headers: HeaderMap,
    /// How often the task has been delivered, this time included.
    pub(crate) delivery: u32,
    pub(crate) cancelled: CancellationToken,
    pub(crate) beat_asked: AtomicBool,
}

impl TaskInfo {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    /// What ends an attempt whose handler was not called in this delivery. An earlier delivery may have done the work and
    /// died before it could say so, perhaps with a worker of another release; and about earlier attempts nothing is known
    /// here at all, so it never asserts that nothing was done.
    pub(crate) fn refused(&self, error_type: &'static str, reason: String) -> ActivityError {
        if self.delivery > 1 {
            ActivityError::unknown(error_type, reason)
        } else {
            ActivityError::failed(error_type, reason)
        }
    }
}

/// Whether a task does a step or undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Do,
    Undo,
}

impl Context {
    fn text(&self, name: &str) -> &str {
        self.0.header(name).unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.text(header::NAMESPACE)
    }

    /// The name of the definition the run follows.
    pub fn workflow(&self) -> &str {
        self.text(header::WORKFLOW)
    }

    /// The business key.
    pub fn workflow_id(&self) -> &str {
        self.text(header::WORKFLOW_ID)
    }

    pub fn run_id(&self) -> &str {
        self.text(header::RUN_ID)
    }

    /// The path of the step within the run.
    pub fn step(&self) -> &str {
        self.text(header::STEP)
    }

    pub fn activity(&self) -> &str {
        self.text(header::ACTIVITY)
    }

    /// Counted from 1.
    pub fn attempt(&self) -> u32 {
        self.text(header::ATTEMPT).parse().unwrap_or(1)
    }

    /// `None` = unlimited.
    pub fn max_attempts(&self) -> Option<u32> {
        self.text(header::MAX_ATTEMPTS).parse().ok()
    }

    /// How often this same attempt has been delivered to a worker, this time included: more than 1 after a worker died
    /// with it, or its acknowledgement was lost.
    pub fn delivery(&self) -> u32 {
        self.0.delivery
    }

    pub fn direction(&self) -> Direction {
        match self.text(header::DIRECTION) {
            "undo" => Direction::Undo,
            _ => Direction::Do,
        }
    }

    /// The same for every attempt and delivery of this step in this direction, and for nothing else: what a handler uses
    /// to do its work only once.
    pub fn idempotency_key(&self) -> &str {
        self.text(header::IDEMPOTENCY_KEY)
    }

    /// The moment after which nobody waits for the result, where there is an absolute one.
    pub fn deadline(&self) -> Option<DateTime<Utc>> {
        parse_time(self.0.header(header::DEADLINE)?)
    }

    /// W3C trace context of the run.
    pub fn traceparent(&self) -> Option<&str> {
        self.0.header(header::TRACEPARENT)
    }

    /// Cancelled when the run is, or when nobody waits for this task any more. A handler that stops for it, having done
    /// nothing, returns [`ActivityError::cancelled`](crate::ActivityError::cancelled).
    pub fn cancelled(&self) -> &CancellationToken {
        &self.0.cancelled
    }

    /// Asks for a heartbeat within 100 ms, so that a cancellation is learned of soon. Not needed to stay alive: while a
    /// handler runs, a beat is sent after one second and then every five, and the task's lease is kept.
    pub fn heartbeat(&self) {
        self.0.beat_asked.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}
