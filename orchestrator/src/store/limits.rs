//! Limits as they are stored: the rows of limiters, and what operators allow queues.

use knarr_core::ids::{MessageNo, Namespace, QueueName, RunId};
use knarr_core::limit::LimitName;
use knarr_core::time::{Span, Timestamp};

/// A row of a limiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitRow {
    pub id: PermitId,
    /// UTF-8 JSON.
    pub body: String,
}

/// Names one row of `permits`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId {
    pub partition: i16,
    pub namespace: Namespace,
    /// The limiter's address.
    pub limiter: String,
    /// Within the limiter.
    pub no: i64,
}

/// A row of a limiter as it is to stand after the batch; `None` = it is not there. At most one write a row and batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitWrite {
    pub id: PermitId,
    pub body: Option<String>,
}

/// What an operator allows a queue; neither = nothing is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    pub namespace: Namespace,
    pub queue: QueueName,
    pub max_concurrent: Option<i32>,
    pub rate: Option<QueueRate>,
    /// How long a worker may be silent about a task; `None` = as its definitions have it.
    pub ack_wait: Option<Span>,
}

impl QueueRow {
    /// A row that says nothing is none.
    pub(crate) fn says_nothing(&self) -> bool {
        self.max_concurrent.is_none() && self.rate.is_none() && self.ack_wait.is_none()
    }
}

/// So many in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRate {
    pub limit: i32,
    pub per: Span,
}

/// How much of a limit is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    pub limit: LimitName,
    pub held: i64,
    pub waiting: i64,
    /// Since when the first of those waits.
    pub since: Option<Timestamp>,
}

/// Who has asked a limiter for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceAsked {
    pub limit: LimitName,
    pub run: RunId,
    pub number: MessageNo,
}

/// How an ask stands at its limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitLine {
    pub held: i64,
    pub waiting: i64,
    /// How many are served before it; `None` = it does not wait there.
    pub ahead: Option<i64>,
}
