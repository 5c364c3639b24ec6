//! Why something did not succeed, in the words that people and programs get to see.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::input::WorkerError;
use super::limits::{MAX_ERROR_MESSAGE_BYTES, MAX_ERROR_TYPE_BYTES, truncated};
use crate::expression::ExpressionError;
use crate::ids::StepPath;
use crate::time::Span;

/// Error types that Knarr itself gives; every other one is a worker's.
pub mod error_type {
    /// A timeout of the activity, or of the run, has passed.
    pub const TIMEOUT: &str = "timeout";
    /// The server gave up delivering a task.
    pub const LOST: &str = "lost";
    /// A step was stopped before it had an outcome of its own, or the run was cancelled.
    pub const CANCELLED: &str = "cancelled";
    pub const TERMINATED: &str = "terminated";
    pub const EXPRESSION: &str = "expression_error";
    /// A limit that pauses: what met it waits for an operator.
    pub const LIMIT: &str = "limit";
    pub const MAX_ITERATIONS: &str = "max_iterations";
    pub const CHILD_NOT_STARTED: &str = "child_not_started";
    /// A child that did not complete and did not say why.
    pub const CHILD_FAILED: &str = "child_failed";
    pub const CHILD_NOT_UNDONE: &str = "child_not_undone";
    /// As many runs are open as `concurrency` allows, and the start was not to wait.
    pub const CONCURRENCY: &str = "concurrency";
    /// By its `validate`, its schema, or because there is none of the name.
    pub const UPDATE_REFUSED: &str = "update_refused";
    /// The successor would refuse its input.
    pub const CONTINUE_AS_NEW: &str = "continue_as_new";
}

/// An error; its texts are bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    pub error_type: Arc<str>,
    pub message: Arc<str>,
}

impl Failure {
    pub(super) fn new(error_type: &str, message: &str) -> Self {
        Self {
            step: None,
            error_type: Arc::from(truncated(error_type, MAX_ERROR_TYPE_BYTES)),
            message: Arc::from(truncated(message, MAX_ERROR_MESSAGE_BYTES)),
        }
    }

    pub(super) fn of_worker(error: &WorkerError) -> Self {
        let bounded = |text: &Arc<str>, limit| {
            if text.len() <= limit {
                text.clone()
            } else {
                Arc::from(truncated(text, limit))
            }
        };
        Self {
            step: None,
            error_type: bounded(&error.error_type, MAX_ERROR_TYPE_BYTES),
            message: bounded(&error.message, MAX_ERROR_MESSAGE_BYTES),
        }
    }

    pub(super) fn expression(error: &ExpressionError) -> Self {
        let kind = if error.is_about_size() {
            error_type::LIMIT
        } else {
            error_type::EXPRESSION
        };
        Self::new(kind, &error.to_string())
    }

    pub(super) fn start_to_close(limit: Span) -> Self {
        Self::new(
            error_type::TIMEOUT,
            &format!("no outcome within {} ms of being taken", limit.as_millis()),
        )
    }

    pub(super) fn heartbeat(limit: Span) -> Self {
        Self::new(
            error_type::TIMEOUT,
            &format!("no heartbeat for {} ms", limit.as_millis()),
        )
    }

    pub(super) fn schedule_to_start(limit: Span) -> Self {
        Self::new(
            error_type::TIMEOUT,
            &format!("no worker took the task within {} ms", limit.as_millis()),
        )
    }

    pub(super) fn schedule_to_close(limit: Span) -> Self {
        Self::new(
            error_type::TIMEOUT,
            &format!("not done within {} ms of being scheduled", limit.as_millis()),
        )
    }

    pub(super) fn run_timeout(limit: Span) -> Self {
        Self::new(
            error_type::TIMEOUT,
            &format!("the run did not end within {} ms", limit.as_millis()),
        )
    }

    pub(super) fn lost() -> Self {
        Self::new(
            error_type::LOST,
            "the task was delivered several times and never answered",
        )
    }

    pub(super) fn silent() -> Self {
        Self::new(
            error_type::LOST,
            "the worker that had the task was not heard of any more",
        )
    }

    pub(super) fn abandoned() -> Self {
        Self::cancelled("the run goes on without the step; what its worker does is not known")
    }

    pub(super) fn cancelled(message: &str) -> Self {
        Self::new(error_type::CANCELLED, message)
    }

    /// Of a step that was stopped because the run, or the step around it, goes on without it.
    pub(super) fn not_needed() -> Self {
        Self::cancelled("the step was not needed any more")
    }

    #[must_use]
    pub(super) fn at(mut self, step: &StepPath) -> Self {
        self.step = Some(step.clone());
        self
    }
}
