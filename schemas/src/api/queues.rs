//! Queues and limits: what they may, and what waits for them.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Says what a queue may, over all workers and replicas, instead of what was said before: what is left out is unlimited, and
/// the lease that of its definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetQueue {
    pub queue: String,
    /// Tasks that are out at a time, of all activities together; 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateBody>,
    /// How long a worker may be silent about a task before the server gives it to another: a second to 30 days. Without it,
    /// 30 s or the largest `start_to_close` of the queue's activities, whichever is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_wait_ms: Option<u64>,
}

/// So many tasks in a stretch of time, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateBody {
    /// 1 to 1,000,000, and one in a microsecond at most.
    pub limit: u32,
    /// From 1.
    pub per_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueInfo {
    pub queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateBody>,
    /// How long a worker may be silent about a task before the server gives it to another: a second to 30 days. Without it,
    /// 30 s or the largest `start_to_close` of the queue's activities, whichever is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_wait_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQueues {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueuePage {
    /// Those of which an operator has said something, by name.
    pub queues: Vec<QueueInfo>,
    /// Of queues, activities and workflows, those with most waiting first; at most 1,000.
    pub limits: Vec<LimitInfo>,
}

/// A limit that somebody has a permit of or waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitInfo {
    /// `queue`, `queue_rate`, `activity`, `activity_rate` or `workflow`.
    pub kind: String,
    /// The queue, activity or workflow.
    pub of: String,
    /// Where each value of a key has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Tasks that are out under it, or runs that are open.
    pub held: u64,
    pub waiting: u64,
    /// Since when the first of those waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
}
