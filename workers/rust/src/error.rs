//! What a handler can say other than *done*.
//!
//! The difference that matters to a saga is between *failed* (surely not done: the step is not undone) and *unknown*
//! (it may be done: the step is undone). Only a handler that says so has failed; every other error, and a panic, is unknown.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The outcome of a handler that did not complete.
///
/// Any `std::error::Error` turns into *unknown* by `?`; for this the type itself is no `std::error::Error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityError {
    pub(crate) kind: ErrorKind,
    pub(crate) error_type: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) retryable: bool,
    pub(crate) not_done: bool,
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    Failed,
    Unknown,
    Cancelled,
    RetryLater,
    /// Somebody else says how it ended.
    Later,
}

impl ErrorKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
            Self::RetryLater => "retry_later",
            Self::Later => "later",
        }
    }
}

impl ActivityError {
    fn new(kind: ErrorKind, error_type: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            kind,
            error_type: error_type.into(),
            message: message.into(),
            retryable: true,
            not_done: false,
            retry_after: None,
        }
    }

    /// This attempt has surely had no effect. Retried by the definition's policy, unless [`non_retryable`](Self::non_retryable).
    pub fn failed(error_type: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, error_type, message)
    }

    /// This attempt may have had its effect: the reply of the service behind it was lost, say.
    pub fn unknown(error_type: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, error_type, message)
    }

    /// *Unknown*, from anything that can be printed: for error types that are no `std::error::Error`, such as anyhow's.
    pub fn from_display(error: impl fmt::Display) -> Self {
        Self::unknown("error", error.to_string())
    }

    /// The handler stopped because its [context](crate::Context::cancelled) was cancelled; it has surely had no effect.
    pub fn cancelled() -> Self {
        Self::new(
            ErrorKind::Cancelled,
            "cancelled",
            "stopped because the task was cancelled",
        )
    }

    /// The work goes on elsewhere: ask again after this time. Consumes no attempt.
    pub fn retry_later(after: Duration) -> Self {
        Self {
            retry_after: Some(after),
            ..Self::new(ErrorKind::RetryLater, "retry_later", "still running")
        }
    }

    pub(crate) fn later() -> Self {
        Self::new(ErrorKind::Later, "later", "finished from elsewhere")
    }

    /// Asserts that no attempt of this task, not just this one, has had an effect: lifts an earlier *unknown*.
    #[must_use]
    pub fn not_done(mut self) -> Self {
        self.not_done = true;
        self
    }

    /// Another attempt would end the same.
    #[must_use]
    pub fn non_retryable(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// The next attempt starts no earlier than this.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The type that `non_retryable` lists of a definition name.
    pub fn error_type(&self) -> &str {
        &self.error_type
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ActivityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.kind.as_str(), self.error_type, self.message)
    }
}

impl<E: std::error::Error> From<E> for ActivityError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::unknown("error", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_is_unknown_and_keeps_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot charge")]
        struct Outer(#[source] std::io::Error);
        let error = ActivityError::from(Outer(std::io::Error::other("connection lost")));
        assert_eq!(error.kind, ErrorKind::Unknown);
        assert_eq!(error.message(), "cannot charge: connection lost");
        assert!(error.retryable && !error.not_done);
    }
}
