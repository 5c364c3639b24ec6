//! Schedules, with what comes, what is open and what has been.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListSchedules {
    /// Only those behind this one (of the previous page), by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most this many; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SchedulePage {
    /// By name.
    pub schedules: Vec<ScheduleSummary>,
    /// There are more, behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A schedule, as far as a list tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleSummary {
    pub name: String,
    pub workflow: String,
    /// `active`, `paused`, `ended` (nothing comes due any more), or `parked` while it waits for an operator.
    pub status: String,
    /// Its document, with every default.
    pub schedule: Value,
    /// Why it is paused, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// How many runs it may still start, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
    /// The version of the definition that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The nominal time of the next occurrence, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DateTime<Utc>>,
}

impl ScheduleSummary {
    /// How it stands, of one whose run is just said to be `running`.
    pub fn standing(&self) -> &str {
        match (&self.paused, self.status.as_str()) {
            (Some(_), "running") => "paused",
            (None, "running") if self.next.is_none() => "ended",
            (None, "running") => "active",
            (_, other) => other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowSchedule {
    pub name: String,
    /// Of the occurrences to come; 10 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// A schedule: what comes, what is open, what waits, and what became of the last occurrences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleDescription {
    pub summary: ScheduleSummary,
    /// It is kept as a run of its own; `run.history` tells its latest events.
    pub run_id: Uuid,
    pub created_at: DateTime<Utc>,
    pub upcoming: Vec<UpcomingOccurrence>,
    /// Runs that were started and have not ended.
    pub open: Vec<OpenOccurrence>,
    /// Nominal times that wait for an open run to end.
    pub waiting: Vec<DateTime<Utc>>,
    /// Ranges that are made up for.
    pub backfills: Vec<BackfillRange>,
    /// The latest last.
    pub past: Vec<PastOccurrence>,
    pub started: u64,
    /// By the overlap policy, or for want of room.
    pub skipped: u64,
    /// Past the catch-up window.
    pub missed: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpcomingOccurrence {
    pub nominal_time: DateTime<Utc>,
    /// The same, unless the schedule has jitter.
    pub fires_at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenOccurrence {
    pub nominal_time: DateTime<Utc>,
    /// The number of the trigger, where it was not due by the calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<u32>,
    pub workflow_id: String,
    pub run_id: Uuid,
    pub since: DateTime<Utc>,
    /// It is committed that the run has started.
    pub started: bool,
    /// It is told to stop for the sake of a later one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackfillRange {
    /// Done up to here.
    pub after: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub overlap: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastOccurrence {
    pub nominal_time: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<u32>,
    /// Where a run was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// The status of the run when it closed, or `skipped: …`, `already started`, `not started`, `lost`.
    pub became: String,
    /// Why it was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub at: DateTime<Utc>,
}
