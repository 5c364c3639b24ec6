//! Requests and replies of the API (`knarr.api.<namespace>.<verb>`): what people and programs ask about runs and definitions.
//!
//! A refused request is answered with an [`crate::body::ErrorBody`] and the headers [`ERROR`] and [`ERROR_CODE`]. Lists and
//! histories come in pages: a reply that says `next` has more behind it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::body::{BeatAnswer, ErrorBody, FailureBody, RunSummary};

mod migration;
mod parked;

pub use migration::{CheckMigration, MigrationEntry, MigrationPage};
pub use parked::{ListParked, ParkedEntry, ParkedKey, ParkedKind, ParkedPage, ParkedPlace};

/// The name of the micro service, as `$SRV.INFO` shows it.
pub const SERVICE: &str = "knarr";
/// Header of a refusal: the cause.
pub const ERROR: &str = "Nats-Service-Error";
/// Header of a refusal: a number in the manner of HTTP; the code proper (`KN…`) is in the body.
pub const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Requests above this are refused.
pub const MAX_REQUEST_BYTES: usize = 512 * 1024;
/// Most runs, definitions or transitions in one reply.
pub const MAX_PAGE: u32 = 500;

/// What can be asked: the last tokens of the subject.
pub mod verb {
    /// [`super::RegisterDefinition`] → [`super::RegisteredDefinition`]
    pub const DEFINITION_REGISTER: &str = "definition.register";
    /// [`super::ListDefinitions`] → [`super::DefinitionPage`]
    pub const DEFINITION_LIST: &str = "definition.list";
    /// [`super::ShowDefinition`] → [`super::DefinitionDetail`]
    pub const DEFINITION_SHOW: &str = "definition.show";
    /// [`super::SetDefaultVersion`] → [`super::DefinitionInfo`]
    pub const DEFINITION_DEFAULT: &str = "definition.default";
    /// [`super::ListRuns`] → [`super::RunPage`]
    pub const RUN_LIST: &str = "run.list";
    /// [`super::ShowRun`] → [`super::RunDescription`]
    pub const RUN_SHOW: &str = "run.show";
    /// [`super::ShowHistory`] → [`super::HistoryPage`]
    pub const RUN_HISTORY: &str = "run.history";
    /// [`super::CompleteActivity`] → [`super::ActivityAnswer`]
    pub const ACTIVITY_COMPLETE: &str = "activity.complete";
    /// [`super::FailActivity`] → [`super::ActivityAnswer`]
    pub const ACTIVITY_FAIL: &str = "activity.fail";
    /// [`super::HeartbeatActivity`] → [`super::HeartbeatAnswer`]
    pub const ACTIVITY_HEARTBEAT: &str = "activity.heartbeat";
    /// [`super::ListParked`] → [`super::ParkedPage`]
    pub const PARKED_LIST: &str = "parked.list";
    /// [`super::ListSchedules`] → [`super::SchedulePage`]
    pub const SCHEDULE_LIST: &str = "schedule.list";
    /// [`super::ShowSchedule`] → [`super::ScheduleDescription`]
    pub const SCHEDULE_SHOW: &str = "schedule.show";
    /// [`super::ListTriggers`] → [`super::TriggerPage`]
    pub const TRIGGER_LIST: &str = "trigger.list";
    /// [`super::ShowTrigger`] → [`super::TriggerDescription`]
    pub const TRIGGER_SHOW: &str = "trigger.show";
    /// [`super::CheckMigration`] → [`super::MigrationPage`]
    pub const MIGRATION_CHECK: &str = "migration.check";
    /// [`super::CreateNamespace`] → [`super::NamespaceInfo`]; the namespace is the one in the subject.
    pub const NAMESPACE_CREATE: &str = "namespace.create";
    /// [`super::SetNamespace`] → [`super::NamespaceInfo`]; the namespace is the one in the subject.
    pub const NAMESPACE_SET: &str = "namespace.set";
    /// [`super::ListNamespaces`] → [`super::NamespacePage`]; whatever the namespace in the subject. It shows the names of
    /// all, so a client that is to know one namespace alone must not be allowed to publish to it.
    pub const NAMESPACE_LIST: &str = "namespace.list";

    /// [`super::SetQueue`] → [`super::QueueInfo`]
    pub const QUEUE_SET: &str = "queue.set";
    /// [`super::ListQueues`] → [`super::QueuePage`]
    pub const QUEUE_LIST: &str = "queue.list";

    pub const ALL: [&str; 21] = [
        DEFINITION_REGISTER,
        DEFINITION_LIST,
        DEFINITION_SHOW,
        DEFINITION_DEFAULT,
        RUN_LIST,
        RUN_SHOW,
        RUN_HISTORY,
        ACTIVITY_COMPLETE,
        ACTIVITY_FAIL,
        ACTIVITY_HEARTBEAT,
        PARKED_LIST,
        SCHEDULE_LIST,
        SCHEDULE_SHOW,
        TRIGGER_LIST,
        TRIGGER_SHOW,
        MIGRATION_CHECK,
        NAMESPACE_CREATE,
        NAMESPACE_SET,
        NAMESPACE_LIST,
        QUEUE_SET,
        QUEUE_LIST,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterDefinition {
    /// The definition as it was written, YAML or JSON.
    pub source: String,
    /// Its name where it was read, for findings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The contents of the files it refers to, by the name it uses for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// The answer to a registration. Findings of severity `error` mean that nothing was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegisteredDefinition {
    pub outcome: RegistrationOutcome,
    /// Absent when the definition could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionInfo>,
    /// Task queues its activities use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingBody>,
    /// Why a definition without findings was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationOutcome {
    Registered,
    /// The same name, version and content was there.
    Unchanged,
    Refused,
}

/// One finding about a definition's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FindingBody {
    /// `KN01xx`.
    pub code: String,
    pub severity: FindingSeverity,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Where, unless it is about the whole text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingSeverity {
    Error,
    Warning,
    Notice,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Byte offset from the start of the text.
    pub offset: u32,
    /// In bytes.
    pub length: u32,
}

/// What `knarr check -o json` says about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    pub file: String,
    /// It can be registered.
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// SHA-256 of the canonical JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    pub findings: Vec<FindingBody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DefinitionInfo {
    pub workflow: String,
    pub version: u32,
    /// SHA-256 of the canonical JSON.
    pub hash: String,
    pub registered_at: DateTime<Utc>,
    /// An operator has set it: starts that name no version take it, though there be a higher one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
}

/// Every version of every definition, by name and version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListDefinitions {
    /// Only versions of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Go on behind this one: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<DefinitionKey>,
    /// At most this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct DefinitionKey {
    pub workflow: String,
    pub version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DefinitionPage {
    pub definitions: Vec<DefinitionInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DefinitionKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowDefinition {
    pub workflow: String,
    /// The newest if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Sets the version that starts take which name none. The answer is what they take from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetDefaultVersion {
    pub workflow: String,
    /// The highest, also of those that will be registered, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Who, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DefinitionDetail {
    pub definition: DefinitionInfo,
    /// The text as it was registered.
    pub source: String,
    /// With the contents of its file, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
}

/// Runs of the namespace, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRuns {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only runs started before this one: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Uuid>,
    /// At most this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunPage {
    pub runs: Vec<RunSummary>,
    /// Give it as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Uuid>,
}

/// Names a run: by run id, or the newest one under a workflow id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunName {
    RunId(Uuid),
    /// The open run, else the one that closed last.
    WorkflowId(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowRun {
    pub run: RunName,
}

/// A run and the state it is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunDescription {
    pub run: RunSummary,
    /// SHA-256 of the definition it is bound to.
    pub definition: String,
    /// The last transition.
    pub seq: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub search_attributes: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Of a completed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why the run is being undone, or did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
    /// Why the run as a whole waits for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
    /// What it waits for before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<RunTurn>,
    /// The earliest deadline, or somewhat earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<DateTime<Utc>>,
    /// Those that have been reached, in the order in which they were.
    pub steps: Vec<StepState>,
    /// What has to be undone if the run fails, in the order of the steps.
    pub ledger: Vec<LedgerEntry>,
    /// Attempts that have not ended, and those waiting for their time.
    pub tasks: Vec<OpenTask>,
    /// Steps that wait for something else than a worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingStep>,
    /// What operators have done about it, oldest first; the last hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationState>,
    /// How much it has of what is limited: `events`, `history_bytes` and `pending`, which an operator can raise, and `payload`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitUsage>,
    /// Input and outputs were left out, because the reply would have been larger than NATS takes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shortened: bool,
}

/// What a run waits for before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunTurn {
    /// The limit on open runs of its workflow; absent where it waits for its workflow id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Runs that are open under the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// How many wait there, this one among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// Starts that are queued for the same workflow id and come before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
}

/// Something that was decided from outside, with who and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationState {
    pub at: DateTime<Utc>,
    /// `cancel`, `terminate`, `limit`, `retry`, `done`, `skip` or `migrate`.
    pub action: String,
    /// `do` or `undo`, of a parked step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl RunDescription {
    /// Leaves out the user's data.
    pub fn shorten(&mut self) {
        self.input = None;
        self.output = None;
        self.search_attributes.clear();
        for step in &mut self.steps {
            step.output = None;
        }
        self.shortened = true;
    }
}

/// How much of something a run has, and how much it may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitUsage {
    /// `events`, `history_bytes`, `pending` (activities and children under way) or `payload` (the most that was said at once, in bytes).
    pub limit: String,
    pub used: u64,
    /// At this the run, or the one activity, waits for an operator.
    pub most: u64,
    /// A fifth of it is used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepState {
    pub path: String,
    /// `running`, `waiting`, `parked`, `completed`, `failed`, `unknown`, `cancelled`, `skipped`, or `abandoned` by a terminated run.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Attempts so far; 0 for steps that are not activities.
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Its last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerEntry {
    /// The step that would be undone.
    pub step: String,
    /// The activity that undoes it; absent where a child workflow undoes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// The workflow id of the child that undoes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// `dormant` (the step is under way or was surely not done), `armed`, `undoing`, `undone`, `parked` or `skipped`.
    pub status: String,
    /// Attempts of the undo so far.
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
}

/// A step that waits, and for what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingStep {
    pub step: String,
    /// `timer`, `signal`, `child` or `operator`.
    pub kind: String,
    /// The signal's name, or the child's workflow id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When a timer is due, or the wait for a signal ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// Why an operator is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenTask {
    /// The number of the task within its run; absent while the attempt waits for its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u32>,
    pub step: String,
    pub activity: String,
    pub queue: String,
    /// `do` or `undo`.
    pub direction: String,
    /// From 1.
    pub attempt: u32,
    /// Absent when unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// `dispatched`, `delivered`, `started`, `later` (its worker has let go of the message and finishes it from elsewhere),
    /// `held` (the task stream is full), `withdrawn` (taken back, as nobody took it), `limited` (it waits for its turn at a limit)
    /// or `waiting` (for its next attempt).
    pub status: String,
    /// What a limited one waits for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// When it came to be what `status` says, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// When a waiting one is tried again, or a running one times out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// How the attempt before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureBody>,
    /// How far the work was, by the last heartbeat that was stored: at a heartbeat's deadline, or when an attempt ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowHistory {
    pub run: RunName,
    /// Go on behind this transition: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// At most this many transitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage {
    pub run: RunSummary,
    pub transitions: Vec<HistoryTransition>,
    /// Give it as `after`, with the run id, for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// One input applied to the run, and the events it caused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryTransition {
    /// From 1, without gaps.
    pub seq: u32,
    pub at: DateTime<Utc>,
    /// As they are stored.
    pub events: Vec<Value>,
    /// The size of the events in bytes, where they were left out for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_bytes: Option<u64>,
}

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
    /// `committed`, or `stored`: in the log, and taken as soon as the partition has an owner.
    pub stage: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatAnswer {
    pub answer: BeatAnswer,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNamespace {
    /// Whether changes of the status of its runs are published; where it is not said, Knarr's own default holds. A namespace
    /// that exists is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<bool>,
}

/// What is not said is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetNamespace {
    /// Whether changes of the status of its runs are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceInfo {
    pub name: String,
    /// In the answer to a creation: it was not there before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub created: bool,
    /// Whether changes of the status of its runs are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListNamespaces {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamespacePage {
    pub namespaces: Vec<NamespaceInfo>,
}

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
    /// `running`, or `parked` while it waits for an operator.
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
    /// `running`, or `parked` while it waits for an operator.
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

/// Says what a queue may, over all workers and replicas, instead of what was said before: what is left out is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetQueue {
    pub queue: String,
    /// Tasks that are out at a time, of all activities together; 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateBody>,
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
