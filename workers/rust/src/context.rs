//! What a handler knows about its task.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use knarr_schemas::{header, subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
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
    /// Decoded when it is asked for.
    pub(crate) workflow_id: OnceLock<String>,
    /// How often the task has been delivered, this time included.
    pub(crate) delivery: u32,
    pub(crate) cancelled: CancellationToken,
    pub(crate) beat_asked: AtomicBool,
    pub(crate) progress: Progress,
}

/// How far the handler says that it is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// The last details, as JSON.
    details: Option<Bytes>,
    /// No beat has carried them yet.
    unsent: bool,
    /// Everything that was said, where a test wants to know.
    recorded: Option<Vec<Option<Bytes>>>,
}

impl Progress {
    pub(crate) fn recording() -> Self {
        let said = Said {
            recorded: Some(Vec::new()),
            ..Said::default()
        };
        Self { said: Mutex::new(said) }
    }

    /// A poisoned lock is as good as any: nothing in here can panic halfway.
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, details: Option<Bytes>) {
        let mut said = self.said();
        if let Some(recorded) = &mut said.recorded {
            recorded.push(details.clone());
        }
        if details.is_some() {
            (said.details, said.unsent) = (details, true);
        }
    }

    pub(crate) fn is_unsent(&self) -> bool {
        self.said().unsent
    }

    /// What the next beat carries: what was said before as well, for a beat may be lost, and a replica that takes over has heard
    /// none.
    pub(crate) fn to_send(&self) -> Option<Bytes> {
        let mut said = self.said();
        said.unsent = false;
        said.details.clone()
    }

    pub(crate) fn recorded(&self) -> Vec<Option<Bytes>> {
        self.said().recorded.clone().unwrap_or_default()
    }
}

/// Largest details of a heartbeat, as JSON, in bytes.
const MAX_DETAILS_BYTES: usize = 2 * 1024;

impl TaskInfo {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    /// As whoever started the run said it. On the wire it is percent-encoded, for a header holds ASCII alone.
    pub(crate) fn workflow_id(&self) -> &str {
        self.workflow_id.get_or_init(|| {
            let sent = self.header(header::WORKFLOW_ID).unwrap_or_default();
            subject::decode_token(sent).map_or_else(|_| sent.to_owned(), Cow::into_owned)
        })
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
        self.0.workflow_id()
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

    /// How long the worker may be silent, where the activity has a `heartbeat`. The worker beats by itself as often as that
    /// needs.
    pub fn heartbeat_timeout(&self) -> Option<Duration> {
        millis(self.0.header(header::HEARTBEAT)?)
    }

    /// How long this attempt may take; then the handler is dropped.
    pub fn start_to_close(&self) -> Option<Duration> {
        millis(self.0.header(header::START_TO_CLOSE)?)
    }

    /// What the attempts before said last by [`heartbeat_with`](Self::heartbeat_with); `None` if they said nothing, or
    /// something else than a `T`.
    pub fn last_details<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.0.header(header::LAST_DETAILS)?).ok()
    }

    /// The name and proof of this task, by which a [`LaterTask`](crate::LaterTask) finishes it. Whoever has it can.
    pub fn token(&self) -> &str {
        &self.0.token
    }

    /// To be returned by a handler that has begun something whose end somebody else will learn of: the task is let go of,
    /// and whoever keeps its [`token`](Self::token) says later how it ended, by a [`LaterTask`](crate::LaterTask), the
    /// command `knarr activity`, or the API. Start-to-close and `heartbeat` go on meanwhile.
    pub fn complete_later(&self) -> ActivityError {
        ActivityError::later()
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
        self.0.progress.say(None);
        self.0.beat_asked.store(true, Ordering::Relaxed);
    }

    /// Says how far the work is. What was said last goes out with the next beat, within a second; it is what
    /// [`last_details`](Self::last_details) gives the next attempt, should there be one.
    ///
    /// # Errors
    /// When the details are no JSON, or more than 2 KiB of it: they travel in a header.
    pub fn heartbeat_with(&self, details: &impl Serialize) -> Result<(), DetailsError> {
        let details = serde_json::to_vec(details)?;
        if details.len() > MAX_DETAILS_BYTES {
            return Err(DetailsError::TooLarge(details.len()));
        }
        self.0.progress.say(Some(Bytes::from(details)));
        Ok(())
    }
}

/// Details that cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum DetailsError {
    #[error("the details of a heartbeat are no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0} bytes of details are more than 2048")]
    TooLarge(usize),
}

pub(crate) fn millis(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_beat_carries_the_last_details() {
        let progress = Progress::default();
        assert_eq!((progress.is_unsent(), progress.to_send()), (false, None));
        let details = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        progress.say(details("1"));
        progress.say(details("2"));
        // A beat without any takes nothing back.
        progress.say(None);
        assert!(progress.is_unsent());
        for _ in 0..2 {
            assert_eq!(progress.to_send(), details("2"));
            assert!(!progress.is_unsent(), "it need not be hurried again");
        }
    }
}
