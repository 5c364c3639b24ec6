//! Requests and replies of the API (`knarr.api.<namespace>.<verb>`): what people and programs ask about runs and definitions.
//!
//! A refused request is answered with an [`crate::body::ErrorBody`] and the headers [`ERROR`] and [`ERROR_CODE`]. Lists and
//! histories come in pages: a reply that says `next` has more behind it.

mod activities;
mod definitions;
mod migration;
mod namespaces;
mod parked;
mod queries;
mod queues;
mod runs;
mod schedules;
mod triggers;

pub use activities::{ActivityAnswer, CompleteActivity, FailActivity, HeartbeatActivity, HeartbeatAnswer};
pub use definitions::{
    CheckReport, DefinitionDetail, DefinitionInfo, DefinitionKey, DefinitionPage, FindingBody, FindingSeverity,
    ListDefinitions, Place, RegisterDefinition, RegisteredDefinition, RegistrationOutcome, ScheduleOutlook,
    SetDefaultVersion, ShowDefinition,
};
pub use migration::{CheckMigration, MigrationEntry, MigrationPage};
pub use namespaces::{CreateNamespace, ListNamespaces, NamespaceInfo, NamespacePage, SetNamespace};
pub use parked::{ListParked, ParkedEntry, ParkedKey, ParkedKind, ParkedPage, ParkedPlace};
pub use queries::{QueryAnswer, QueryRun};
pub use queues::{LimitInfo, ListQueues, QueueInfo, QueuePage, RateBody, SetQueue};
pub use runs::{
    HistoryPage, HistoryTransition, LedgerEntry, LeftOut, LimitUsage, ListRuns, OpenTask, OpenUpdate, OperationState,
    RunDescription, RunName, RunPage, RunTurn, ShowHistory, ShowRun, StepState, WaitingSignal, WaitingStep,
};
pub use schedules::{
    BackfillRange, ListSchedules, OpenOccurrence, PastOccurrence, ScheduleDescription, SchedulePage, ScheduleSummary,
    ShowSchedule, UpcomingOccurrence,
};
pub use triggers::{
    ListTriggers, RefusedEvent, ShowTrigger, TriggerDescription, TriggerGap, TriggerName, TriggerPage, TriggerPlace,
    TriggerSummary,
};

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
    /// [`super::QueryRun`] → [`super::QueryAnswer`]
    pub const RUN_QUERY: &str = "run.query";
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

    pub const ALL: [&str; 22] = [
        DEFINITION_REGISTER,
        DEFINITION_LIST,
        DEFINITION_SHOW,
        DEFINITION_DEFAULT,
        RUN_LIST,
        RUN_SHOW,
        RUN_HISTORY,
        RUN_QUERY,
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
