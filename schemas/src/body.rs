//! Bodies that Knarr itself writes or reads. Inputs and results are the user's own JSON and have no shape here.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What went wrong, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// Stable, `KN` and four digits.
    pub code: String,
    /// One sentence: the cause.
    pub message: String,
    /// One sentence: what to do.
    pub remedy: String,
}

/// The answer to a start that asked for one (`Knarr-Reply-On`), or to an operator's verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    pub workflow_id: String,
    /// Absent when no run was started or found; of one that was refused for want of room it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// `started`, `existing`, `closed`, `accepted`, `completed` or `refused`.
    pub stage: AnswerStage,
    /// The run's status, when a run is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The run's output, once completed; in the answer to an update the update's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why the run, or the update, did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
    /// Why the request was refused, or why the output of a completed run is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerStage {
    /// A run was started and is committed; its status may be `waiting` or `queued`.
    Started,
    /// A run was there already (same request, or `use_existing`).
    Existing,
    /// The run has come to its end.
    Closed,
    /// An operator's verb, a signal or an update has been recorded.
    Accepted,
    /// An update is done: `output` is its own, or `failure` says why there is none.
    Completed,
    Refused,
}

/// The error a run ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureBody {
    /// The step that failed, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The error's type, as the worker named it, or one of Knarr's (`timeout`, `expression_error` …).
    pub error_type: String,
    pub message: String,
}

/// A change of a run's status, on `knarr.event.<namespace>.<workflow>.<workflow id>.<kind>` with the type `knarr.run.<kind>`; the
/// kind is `started`, or the status. A run that waits before it begins is `queued` or `waiting` first, and `started` when it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunEvent {
    pub run_id: Uuid,
    /// As it is, not encoded.
    pub workflow_id: String,
    pub workflow: String,
    pub version: u32,
    /// What the run is from here on.
    pub status: String,
    /// The transition that changed it: of two events of one run, the one with the higher number is the later one.
    pub seq: u32,
    /// Why it stops, waits for an operator, or did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<FailureBody>,
    /// Of a run that has completed, up to 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The size of the output, where it is left out for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// The run that goes on in the place of one that has continued as new, or the next attempt of one that is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continued_by: Option<Uuid>,
    /// Which attempt of a run that is tried again; absent = the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// Confirmations of results, published to the subject that `Knarr-Confirm` names (else to the reply subject); one message for all results of a commit from that worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmation {
    pub results: Vec<ConfirmedResult>,
    /// Tokens of results that were not taken because their runs are about to have another owner: hand them in by the log,
    /// at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmedResult {
    /// The task's token, as it was handed in.
    pub token: String,
    /// Absent when the result was taken (or was a repeat of one); the worker may acknowledge its task in every case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ErrorBody>,
}

/// What an operator lets a run have more of; each is the new limit, and what is absent stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RaiseLimits {
    /// Of the run's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// Of all events as they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_bytes: Option<u64>,
    /// Activities and children under way at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
}

/// The run that a message comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SendingRun {
    pub run: Uuid,
    pub namespace: String,
    pub workflow_id: String,
}

/// A message between runs, from Knarr to Knarr: nobody else can make its token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunMessage {
    pub from: SendingRun,
    /// Counts from 1 within the sending run: a repeat has the same number.
    pub number: u32,
    /// Absent = the newest run of the workflow id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_run: Option<Uuid>,
    /// What it says: `start_child`, `child_closed`, `cancel`, `terminate`, `undo` or `signal`, with its particulars.
    pub message: Value,
}

/// What the receiver of a message between runs says to it, from Knarr to Knarr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunMessageAnswer {
    /// The run that sent the message.
    pub to_run: Uuid,
    /// The message's.
    pub number: u32,
    /// `accepted`, or `refused` with a reason.
    pub answer: Value,
}

/// The answer to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BeatAnswer {
    Ok,
    /// The task should be cancelled.
    Cancel,
    /// Nobody waits for this task any more.
    Gone,
}

/// The answer to a claim of a task that may run at most once, after the commit that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClaimAnswer {
    /// The task is the claimant's, and nobody else's.
    Granted,
    /// It is somebody else's.
    Taken,
    /// It is nobody's, and should not be begun: hand it in as cancelled.
    Cancel,
    /// Nobody waits for this task any more.
    Gone,
}

/// Tasks of a queue that are no longer wanted; pushed to all its workers, each of which picks out its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelTasks {
    /// The tasks' tokens.
    pub tokens: Vec<String>,
}

/// One line of `knarr list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    pub namespace: String,
    pub workflow_id: String,
    pub run_id: Uuid,
    pub workflow: String,
    pub version: u32,
    pub status: String,
    pub started_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<DateTime<Utc>>,
    /// It does not begin before, of a start that was to begin later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_at: Option<DateTime<Utc>>,
    /// Which attempt of a run that is tried again; absent = the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<RunAttempt>,
    /// The next attempt, of a run that has closed without success and is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_by: Option<Uuid>,
}

/// An attempt of a run that is not the first. It exists from the end of the one before, and begins after a pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunAttempt {
    /// Counted from 1.
    pub number: u32,
    /// How many there may be, where that is known and limited; lists do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// The first of them, which the start was for; lists do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Uuid>,
    /// It does not begin before.
    pub begins_at: DateTime<Utc>,
}

/// The body of `knarr.run.<ns>.$schedule/<name>.schedule` (the id encoded like any other): what is asked of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    pub ask: ScheduleVerb,
    /// Of `create`, `update` and `define`: the schedule's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Value>,
    /// Of `define`: the version of the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Of `backfill`, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Of `backfill`, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Of `trigger` and `backfill`, in place of the schedule's own: `skip`, `buffer_one`, `buffer_all`, `cancel_other`,
    /// `terminate_other` or `allow_all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleVerb {
    /// Refused where the schedule exists and says something else.
    Create,
    /// Refused where there is none.
    Update,
    /// What a definition says of the schedule named after it; without a document it is deleted, if a definition made it.
    Define,
    Pause,
    /// What came due meanwhile is not made up for.
    Resume,
    /// One occurrence now.
    Trigger,
    /// Those of a range that has passed.
    Backfill,
    Delete,
}

/// The body of `knarr.run.<ns>.$trigger/<workflow>/<name>.trigger` (the id encoded like any other): what is asked of a trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerRequest {
    pub ask: TriggerVerb,
    /// Of `define`: the trigger's document; without one it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Value>,
    /// Of `define`: the version of the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Of `reset`: where it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<TriggerPosition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerVerb {
    /// What a definition says of it.
    Define,
    /// Nothing is read; the place in the stream is kept.
    Pause,
    Resume,
    /// Goes on elsewhere in its stream; what is read a second time counts a second time.
    Reset,
}

/// A place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerPosition {
    /// With what is stored from now on.
    New,
    /// With the first message there is.
    All,
    /// With what was stored then or later.
    Time(DateTime<Utc>),
    /// With that sequence.
    Sequence(u64),
}
