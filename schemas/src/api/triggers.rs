//! Triggers, and where they stand in their sources.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTriggers {
    /// Only those behind this one (of the previous page).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TriggerName>,
    /// At most this many; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A trigger has the name that its definition gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerName {
    pub workflow: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerPage {
    /// By workflow and name.
    pub triggers: Vec<TriggerSummary>,
    /// There are more, behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TriggerName>,
}

/// A trigger, as far as a list tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerSummary {
    pub workflow: String,
    pub name: String,
    /// `active`, `paused`, `stuck` (it cannot read its stream), or `parked` while it waits for an operator.
    pub status: String,
    /// Its document, with every default.
    pub trigger: Value,
    /// The version of the definition that last spoke of it.
    pub version: u32,
    /// Why it is paused, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Why it cannot read its stream, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl TriggerSummary {
    /// How it stands, of one whose run is just said to be `running`.
    pub fn standing(&self) -> &str {
        match (&self.paused, &self.trouble, self.status.as_str()) {
            (Some(_), _, "running") => "paused",
            (None, Some(_), "running") => "stuck",
            (None, None, "running") => "active",
            (.., other) => other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowTrigger {
    pub workflow: String,
    pub name: String,
}

/// A trigger: how far it has read, what is on its way, and what nothing came of lately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerDescription {
    pub summary: TriggerSummary,
    /// It is kept as a run of its own; `run.history` tells its latest events.
    pub run_id: Uuid,
    pub created_at: DateTime<Utc>,
    /// The last message that is decided; none before the stream has been read, or where no stream keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<TriggerPlace>,
    /// When that was last recorded.
    pub moved_at: DateTime<Utc>,
    /// Starts and signals that are sent and not answered yet.
    pub sent: u32,
    /// Those that wait for an earlier one of their workflow id, or for a run to signal.
    pub waiting: u32,
    /// Workflow ids for which events are gathered.
    pub gathering: u32,
    /// Events that the filter let through, and those that it held back.
    pub taken: u64,
    pub skipped: u64,
    pub started: u64,
    pub signalled: u64,
    /// In the dead letters.
    pub refused: u64,
    /// Times that messages were found to be lost before they were read.
    pub gaps: u64,
    /// The latest last.
    pub lost: Vec<TriggerGap>,
    /// The latest last.
    pub past: Vec<RefusedEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerPlace {
    pub sequence: u64,
    pub at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerGap {
    pub at: DateTime<Utc>,
    /// `recreated`, `purged` or `stepped_back`.
    pub why: String,
    /// The last sequence that was read.
    pub after: u64,
    /// The sequence behind which it went on.
    pub resumes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedEvent {
    pub at: DateTime<Utc>,
    pub sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    pub message: String,
}
