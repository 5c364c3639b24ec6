//! Calling a handler in a test, without Knarr and without NATS.
//!
//! ```
//! use std::time::Duration;
//!
//! use knarr_worker::testing::Task;
//! use knarr_worker::{ActivityError, Context};
//! use serde_json::json;
//!
//! async fn import(ctx: Context, pages: u32) -> Result<u32, ActivityError> {
//!     let from: u32 = ctx.last_details().unwrap_or(0);
//!     for page in from..pages {
//!         if ctx.cancelled().is_cancelled() {
//!             return Err(ActivityError::cancelled());
//!         }
//!         ctx.heartbeat_with(&(page + 1)).ok();
//!     }
//!     Ok(pages)
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let handled = Task::new("import").attempt(2).last_details(&3).call(import, 5).await;
//! assert_eq!(handled.output::<u32>(), Some(5));
//! assert_eq!(handled.heartbeats(), [json!(4), json!(5)]);
//!
//! let cancelled = Task::new("import").cancelled().call(import, 5).await;
//! assert_eq!(cancelled.outcome(), "cancelled");
//! # });
//! ```
//!
//! The input takes the way it takes in a worker, as JSON; an error by `?` and a panic end as they do there. What a worker
//! adds in time is not played: leases, beats of its own, repeats. Only start-to-close is, where a task has one.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::HeaderMap;
use chrono::{DateTime, SecondsFormat, Utc};
use knarr_schemas::header;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Progress, TaskInfo};
use crate::error::ActivityError;
use crate::handler;
use crate::outcome::Outcome;

/// A task as a handler sees it: the first attempt to do a step, until said otherwise.
#[derive(Debug, Clone)]
pub struct Task {
    headers: HeaderMap,
    workflow_id: String,
    delivery: u32,
    cancellation: CancellationToken,
    start_to_close: Option<Duration>,
}

impl Task {
    pub fn new(activity: &str) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::NAMESPACE, "default"),
            (header::WORKFLOW, "test"),
            (header::RUN_ID, "01900000-0000-7000-8000-000000000001"),
            (header::STEP, activity),
            (header::ACTIVITY, activity),
            (header::TASK, "1"),
            (header::TOKEN, "a-token-for-tests"),
            (header::ATTEMPT, "1"),
            (header::DIRECTION, "do"),
        ] {
            headers.insert(name, value);
        }
        let key = format!("01900000-0000-7000-8000-000000000001/{activity}/do");
        headers.insert(header::IDEMPOTENCY_KEY, key.as_str());
        Self {
            headers,
            workflow_id: "test-1".to_owned(),
            delivery: 1,
            cancellation: CancellationToken::new(),
            start_to_close: None,
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Counted from 1.
    #[must_use]
    pub fn attempt(self, attempt: u32) -> Self {
        self.with(header::ATTEMPT, &attempt.to_string())
    }

    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.with(header::MAX_ATTEMPTS, &attempts.to_string())
    }

    /// How often this attempt was delivered, this time included.
    #[must_use]
    pub fn delivery(mut self, delivery: u32) -> Self {
        self.delivery = delivery;
        self
    }

    /// The task undoes the step.
    #[must_use]
    pub fn undo(self) -> Self {
        self.with(header::DIRECTION, "undo")
    }

    #[must_use]
    pub fn workflow_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.workflow_id);
        self
    }

    #[must_use]
    pub fn step(self, path: &str) -> Self {
        self.with(header::STEP, path)
    }

    #[must_use]
    pub fn idempotency_key(self, key: &str) -> Self {
        self.with(header::IDEMPOTENCY_KEY, key)
    }

    #[must_use]
    pub fn deadline(self, at: DateTime<Utc>) -> Self {
        self.with(header::DEADLINE, &at.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    /// The handler is dropped after so long, as a worker does it.
    #[must_use]
    pub fn start_to_close(mut self, limit: Duration) -> Self {
        self.start_to_close = Some(limit);
        self.with(header::START_TO_CLOSE, &limit.as_millis().to_string())
    }

    /// What the attempts before said last.
    ///
    /// # Panics
    /// When the details are no JSON.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test's own data")]
    pub fn last_details(self, details: &impl Serialize) -> Self {
        let details = serde_json::to_string(details).expect("details are JSON");
        self.with(header::LAST_DETAILS, &details)
    }

    /// Before the handler is called.
    #[must_use]
    pub fn cancelled(self) -> Self {
        self.cancellation.cancel();
        self
    }

    /// What cancels the task when the test wants it.
    pub fn cancellation(&self) -> CancellationToken {
        self.cancellation.clone()
    }

    /// Calls the handler with the input.
    ///
    /// # Panics
    /// When the input is no JSON.
    #[expect(clippy::expect_used, reason = "a test's own data")]
    pub async fn call<F, I, O, Fut>(self, handler: F, input: impl Serialize) -> Handled
    where
        F: Fn(Context, I) -> Fut,
        Fut: Future<Output = Result<O, ActivityError>>,
        I: DeserializeOwned,
        O: Serialize,
    {
        let input = serde_json::to_vec(&input).expect("the input is JSON");
        let task = Arc::new(TaskInfo {
            token: Arc::from("a-token-for-tests"),
            headers: self.headers,
            workflow_id: OnceLock::from(self.workflow_id),
            delivery: self.delivery,
            cancelled: self.cancellation,
            beat_asked: AtomicBool::new(false),
            progress: Progress::recording(),
        });
        let outcome = handler::outcome(&handler, &task, &input);
        let outcome = match self.start_to_close {
            None => Some(outcome.await),
            Some(limit) => tokio::time::timeout(limit, outcome).await.ok(),
        };
        let beats = task.progress.recorded();
        Handled {
            outcome,
            beats: beats.len(),
            details: beats.iter().flatten().map(|json| parse(json)).collect(),
        }
    }
}

fn parse<T: DeserializeOwned + Default>(json: &[u8]) -> T {
    serde_json::from_slice(json).unwrap_or_default()
}

/// How a call ended, and what the handler said on the way.
pub struct Handled {
    /// `None` = it was dropped at start-to-close.
    outcome: Option<Outcome>,
    beats: usize,
    details: Vec<Value>,
}

impl Handled {
    /// `completed`, `failed`, `unknown`, `cancelled`, `retry_later`, `later`, or `timeout` for one that was dropped.
    pub fn outcome(&self) -> &'static str {
        match &self.outcome {
            None => "timeout",
            Some(Outcome::Completed(_) | Outcome::Stored(_)) => "completed",
            Some(Outcome::Error(error)) => error.kind.as_str(),
        }
    }

    /// Of a handler that completed; `None` also for one that is no `T`.
    pub fn output<T: DeserializeOwned>(&self) -> Option<T> {
        match &self.outcome {
            Some(Outcome::Completed(output)) => serde_json::from_slice(output).ok(),
            _ => None,
        }
    }

    /// Of a handler that did not complete.
    pub fn error(&self) -> Option<&ActivityError> {
        match &self.outcome {
            Some(Outcome::Error(error)) => Some(error),
            _ => None,
        }
    }

    /// Details of the heartbeats, in their order.
    pub fn heartbeats(&self) -> &[Value] {
        &self.details
    }

    /// How often the handler asked for a heartbeat, with details or without.
    pub fn beats(&self) -> usize {
        self.beats
    }
}

impl fmt::Debug for Handled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handled")
            .field("outcome", &self.outcome)
            .field("heartbeats", &self.details)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::context::Direction;

    #[tokio::test(start_paused = true)]
    async fn a_handler_is_called_as_a_worker_calls_it() {
        let task = Task::new("pay").attempt(3).max_attempts(5).undo().workflow_id("o-7");
        let handled = task
            .call(
                async |ctx: Context, amount: u64| {
                    assert_eq!((ctx.attempt(), ctx.max_attempts(), ctx.delivery()), (3, Some(5), 1));
                    assert_eq!((ctx.direction(), ctx.workflow_id()), (Direction::Undo, "o-7"));
                    ctx.heartbeat();
                    Ok(amount + 1)
                },
                41,
            )
            .await;
        assert_eq!((handled.outcome(), handled.output::<u64>()), ("completed", Some(42)));
        assert_eq!((handled.beats(), handled.heartbeats()), (1, [].as_slice()));
    }

    /// As a worker hands it out, whatever it is.
    #[tokio::test]
    async fn a_workflow_id_is_what_the_test_says() {
        for id in ["order:4711", "100%", "für/Zoë", "%3A", &"x".repeat(300)] {
            let handled = Task::new("pay")
                .workflow_id(id)
                .call(async |ctx: Context, (): ()| Ok(ctx.workflow_id().to_owned()), ())
                .await;
            assert_eq!(handled.output::<String>().as_deref(), Some(id));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_end_is_told_apart() {
        let of = async |text: &str| {
            let handler = async |ctx: Context, text: String| match text.as_str() {
                "failed" => Err(ActivityError::failed("declined", "no")),
                "panic" => panic!("oops"),
                "later" => Err(ctx.complete_later()),
                "slow" => {
                    ctx.heartbeat_with(&json!({"at": 1})).unwrap();
                    std::future::pending::<Result<(), ActivityError>>().await
                }
                _ => {
                    ctx.cancelled().cancelled().await;
                    Err(ActivityError::cancelled())
                }
            };
            let task = Task::new("pay").start_to_close(Duration::from_secs(5));
            let cancellation = task.cancellation();
            tokio::join!(task.call(handler, text), async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                cancellation.cancel();
            })
            .0
        };
        for (text, outcome) in [
            ("failed", "failed"),
            ("panic", "unknown"),
            ("later", "later"),
            ("slow", "timeout"),
            ("wait", "cancelled"),
        ] {
            let handled = of(text).await;
            assert_eq!(handled.outcome(), outcome, "{text}");
            assert_eq!(handled.heartbeats().len(), usize::from(text == "slow"));
        }
        let handled = Task::new("pay")
            .call(async |_: Context, n: u32| Ok(n), "no number")
            .await;
        assert_eq!(handled.error().unwrap().error_type(), "bad_input");
    }

    #[tokio::test]
    async fn details_have_a_limit() {
        let handler = async |ctx: Context, length: usize| Ok(ctx.heartbeat_with(&"x".repeat(length)).is_ok());
        for (length, fits) in [(2_046, true), (2_047, false)] {
            let handled = Task::new("pay").call(handler, length).await;
            assert_eq!(handled.output(), Some(fits), "{length}");
        }
    }
}
