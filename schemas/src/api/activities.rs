//! Activities that are finished, failed or heard of from elsewhere than their worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::body::BeatAnswer;

/// A task has been done, wherever: one whose worker let go of it (`Knarr-Outcome: later`), or any other that is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteActivity {
    /// The task's `Knarr-Token`.
    pub token: String,
    #[serde(default)]
    pub output: Value,
}

/// A task has ended otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailActivity {
    pub token: String,
    /// `failed` (surely not done), `unknown` (it may be), `cancelled` (stopped as it was asked to; surely not done), or
    /// `retry_later` (ask again, with a new task).
    #[serde(default = "failed")]
    pub outcome: String,
    #[serde(default)]
    pub error_type: String,
    #[serde(default)]
    pub message: String,
    /// Whether another attempt may end better.
    #[serde(default = "yes")]
    pub retryable: bool,
    /// Asserts that no attempt has had an effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_done: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

fn failed() -> String {
    "failed".to_owned()
}

fn yes() -> bool {
    true
}

/// The work of a task goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatActivity {
    pub token: String,
    /// How far it is: what the next attempt is told, should there be one. Up to 2 KiB of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActivityAnswer {
    /// `committed`; `stored`: in the log, and taken as soon as the partition has an owner; `late`: the task had ended, and what was
    /// handed in is recorded as a late result; or `gone`: nobody waits for this task any more, and nothing came of it.
    pub stage: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatAnswer {
    pub answer: BeatAnswer,
}
