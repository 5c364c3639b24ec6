//! What can happen to a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::Direction;
use super::event::Continues;
use super::limits::RunLimits;
use super::message::{Answer, Body, Parent, Sender};
use super::migrate::Target;
use super::update::UpdateAnswer;
use crate::ids::{MessageNo, Namespace, QueueName, RequestId, RunId, StepPath, TaskNo, WorkflowId};
use crate::schedule::Command;
use crate::time::{Span, Timestamp};
use crate::trigger;

/// The birth of a run. The shell has resolved the definition and minted the id; core validates the input and takes the
/// first steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    pub run_id: RunId,
    pub namespace: Namespace,
    pub workflow_id: WorkflowId,
    pub input: Arc<Value>,
    pub request_id: Option<RequestId>,
    /// Given with the start, over those the definition computes.
    pub search_attributes: BTreeMap<String, Value>,
    pub answer: Option<AnswerRequest>,
    pub traceparent: Option<Arc<str>>,
    /// Of a child, see [`super::message::child_start`].
    pub parent: Option<Box<Parent>>,
    /// Given with the start, or of the parent; `None` = what the definition says.
    pub priority: Option<u8>,
    /// It waits until the open run of its workflow id has closed.
    pub queued: bool,
    /// It begins then, and not before.
    pub begins_at: Option<Timestamp>,
    /// Of a successor, see [`super::State::successor`].
    pub continues: Option<Box<Continues>>,
}

/// What a run is begun under, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    pub limits: RunLimits,
    /// A step that is halted has its task taken out of the queue.
    pub withdraws: bool,
}

/// Somebody waits for the run to start or to close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRequest {
    pub to: Arc<str>,
    pub on: AnswerOn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerOn {
    Started,
    Closed,
}

/// One input to one existing run.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A worker handed in the outcome of a task; its token has been verified.
    TaskEnded {
        task: TaskNo,
        outcome: TaskOutcome,
    },
    /// A worker has begun with a task (its first beat); start-to-close counts from `at`.
    TaskStarted {
        task: TaskNo,
        at: Timestamp,
    },
    /// A worker's last beat, where somebody may need to know.
    Heartbeat {
        task: TaskNo,
        beat: Beat,
    },
    /// A worker that beats was not heard of as long as it had promised.
    WorkerSilent {
        task: TaskNo,
    },
    /// A worker wants a task for itself; `by` is its own, and the same when it asks again.
    TaskClaimed {
        task: TaskNo,
        by: Arc<str>,
    },
    /// A worker lets go of a task's message, and finishes the task later.
    TaskLeft {
        task: TaskNo,
    },
    /// Whether a task was taken out of its queue without having been delivered.
    Withdrawn {
        task: TaskNo,
        withdrawn: bool,
    },
    /// The server gave up delivering a task (its workers keep dying): the attempt ends unknown.
    TaskLost {
        task: TaskNo,
    },
    /// The task stream refused a task: it waits in the run and is offered again later.
    DispatchHeld {
        task: TaskNo,
        /// An earlier try was not acknowledged: the task may be in its queue all the same.
        in_doubt: bool,
    },
    /// A deadline of the run may be due.
    Wake(Horizon),
    Cancel(Operation),
    Terminate(Operation),
    /// A message of another run, see [`super::message`].
    Message {
        from: Sender,
        number: MessageNo,
        body: Body,
    },
    /// The receiver's answer to a message of this run.
    MessageAnswered {
        number: MessageNo,
        answer: Answer,
    },
    /// From outside; a repeat of its request id changes nothing.
    Signal {
        name: Arc<str>,
        body: Arc<Value>,
        operation: Operation,
    },
    /// Its request id is the update's: a repeat is told what becomes of it, and changes nothing else.
    Update {
        name: Arc<str>,
        body: Arc<Value>,
        operation: Operation,
        answer: Option<UpdateAnswer>,
    },
    /// No other run has the workflow id of a run that was queued.
    IdFree,
    /// Somebody else waits for this run (a repeated start, `use_existing`).
    Await(AnswerRequest),
    /// An operator decides about what is parked.
    Parked {
        /// The root's path stands for the run as a whole.
        step: StepPath,
        /// The step or its undo, where both may be parked; without it what is parked of them, the step first.
        direction: Option<Direction>,
        action: ParkedAction,
        operation: Operation,
    },
    /// Of a run that is a schedule; a repeat of its request id changes nothing.
    Schedule {
        command: Box<Command>,
        operation: Operation,
    },
    /// Of a run that is a trigger; a repeat of its request id changes nothing.
    Trigger {
        command: Box<trigger::Command>,
        operation: Operation,
    },
    /// Of a run that is a trigger: what its source has come to.
    Read(Box<trigger::Read>),
    /// An operator lets the run have more of something.
    RaiseLimits {
        limits: RunLimits,
        operation: Operation,
    },
    /// An operator has the run go on with another version of its definition. It is given as the plan of the inputs that
    /// follow.
    Migrate {
        to: Target,
        operation: Operation,
    },
    /// The shell could not take or store an input of this run; it is parked for an operator instead of being retried for ever.
    Park {
        reason: Arc<str>,
    },
}

/// What a worker says of itself while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// When its handler began.
    pub began: Timestamp,
    /// When it was last heard of.
    pub at: Timestamp,
    /// How far the work is, in the worker's own terms.
    pub details: Option<Arc<Value>>,
}

/// How far the outside world is known to have been read, so that a timeout cannot overtake a result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Horizon {
    /// The partition's log has been read up to here; a timeout due later does not fire yet. User timers and retries are exempt.
    pub log_read_to: Timestamp,
    /// For each queue asked about: tasks published up to here have been delivered to a worker. A queue that is not named
    /// was not asked about: what is due of its tasks stays due until it is.
    pub delivered_to: BTreeMap<QueueName, Timestamp>,
    /// Beats have been heard since then without a break.
    pub listening_since: Timestamp,
    /// The last beats of workers that are known to be at work: no event as long as they come in time.
    pub heard: BTreeMap<TaskNo, Beat>,
}

/// Who asked for something, and why; recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Operation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkedAction {
    Retry,
    RetryWithInput(Arc<Value>),
    MarkDone,
    /// Of a forward step: what later steps read as its output.
    MarkDoneWithOutput(Arc<Value>),
    Skip,
}

/// What a worker says of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskOutcome {
    Completed {
        output: Arc<Value>,
    },
    /// The worker said so: surely not done by this attempt.
    Failed(WorkerError),
    /// The worker cannot say (an unhandled exception, a lost connection to its own dependency).
    Unknown(WorkerError),
    /// The worker stopped because it was asked to: surely not done.
    Cancelled,
    /// Still running somewhere: ask again; consumes no attempt.
    RetryLater {
        after: Option<Span>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerError {
    pub error_type: Arc<str>,
    pub message: Arc<str>,
    pub retryable: bool,
    /// Asserts that no attempt had any effect: lifts a sticky *unknown*.
    pub not_done: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
}

/// Why an input was not taken. Never a panic; the code is stable and becomes `KN…` with a remedy at the edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the input does not match the definition's schema: {0}")]
    InputSchema(String),
    #[error("the search attribute `{name}` {problem}")]
    SearchAttribute { name: String, problem: String },
    #[error("the run is closed ({0})")]
    Closed(&'static str),
    #[error("nothing is parked at `{0}`")]
    NotParked(String),
    #[error("the run as a whole is not parked")]
    RunNotParked,
    #[error("{0}")]
    NotForThis(&'static str),
    #[error(
        "a signal needs a name of 1 to {} bytes without NUL",
        super::limits::MAX_SIGNAL_NAME_BYTES
    )]
    SignalName,
    #[error("the signal does not match the schema of its handler: {0}")]
    SignalSchema(String),
    #[error("an update needs an id")]
    UpdateId,
    #[error("the definition has no update `{0}`")]
    UnknownUpdate(String),
    #[error("the update does not match its schema: {0}")]
    UpdateSchema(String),
    #[error("the update is refused: {0}")]
    UpdateRefused(String),
    #[error("the run that this one continues has taken the update, and has closed")]
    UpdateBefore,
    #[error("{} updates wait already", super::limits::MAX_BUFFERED_SIGNALS)]
    UpdatesFull,
    #[error("{} signals wait to be taken already", super::limits::MAX_BUFFERED_SIGNALS)]
    SignalsFull,
    #[error("{} wait for the run already", super::limits::MAX_WAITERS)]
    TooManyWaiters,
    #[error("the run has completed its pivot and only goes forward")]
    PastPivot,
    #[error("the schedule exists, and says something else")]
    ScheduleExists,
    #[error("{0}")]
    Schedule(String),
    #[error("{0}")]
    Trigger(String),
    #[error("{0}")]
    Limit(String),
    #[error("the run cannot move to that version: {0}")]
    CannotMigrate(String),
    #[error("the task {0} was never given out by this run")]
    UnknownTask(u32),
    #[error("{0}")]
    Expression(String),
}
