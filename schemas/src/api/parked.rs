//! What waits for an operator, as it is listed.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::RunName;
use crate::body::FailureBody;

/// What is parked in the namespace: of the run that was started last first, each run's in an order of its own. All that is
/// given has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParked {
    /// Only of this run; then also undos whose input could not be evaluated while the run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The step's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ParkedKind>,
    /// Only what was parked at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Only what was parked before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<DateTime<Utc>>,
    /// Go on behind this one: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ParkedKey>,
    /// At most this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParkedKind {
    /// The run as a whole: nothing of it goes on.
    Run,
    /// A step that may not fail any more, or would break a limit.
    Step,
    /// The undo of a step.
    Undo,
}

/// A place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedKey {
    pub run_id: Uuid,
    /// Absent: everything of the run has been listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<ParkedPlace>,
}

/// Names what is parked within its run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ParkedPlace {
    pub kind: ParkedKind,
    /// The step's path; empty for the run as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
}

/// A page is also at its end when enough runs have been looked at: with `next`, it may hold less than was asked for, or
/// nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedPage {
    pub parked: Vec<ParkedEntry>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ParkedKey>,
}

/// One thing that an operator can decide about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedEntry {
    pub workflow_id: String,
    pub run_id: Uuid,
    pub workflow: String,
    pub version: u32,
    /// Of the run: not `parked` where it goes on.
    pub status: String,
    pub kind: ParkedKind,
    /// The step's path; empty for the run as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// What was called, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// The workflow id of a child, where the step is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Tasks that were given out for it.
    pub attempts: u32,
    pub failure: FailureBody,
    /// Absent where an earlier version parked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// As it was evaluated; absent where it never was, and where it is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The size of the input in bytes, where it was left out for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_bytes: Option<u64>,
}
