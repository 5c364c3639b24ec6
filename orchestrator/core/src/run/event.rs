//! What has happened to a run: every decision and every evaluated expression, in the order they were made.
//!
//! Stored as JSON, one array per transition, and read by people in `psql`: short stable names, defaults left out.
//! **Invariant:** names and meanings only ever grow; a field is never given another meaning. `null` and a missing value
//! are the same thing: a value that may be absent is never told from `null` by its field.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admission::{Admission, Place, PlaceWanted};
use super::again::Attempt;
use super::decider::End;
use super::effect::Direction;
use super::execution::Unstarted;
use super::failure::Failure;
use super::input::{AnswerRequest, Operation};
use super::limits::RunLimits;
use super::message::{Answer, Body, Parent, Recipient, Sender};
use super::open::Exit;
use super::permit::TaskLimits;
use super::request::Requests;
use super::signal::Signal;
use super::state::Why;
use super::status::Status;
use super::update::{PutOff, UpdateAnswer};
use crate::definition::plan::{Cancellation, Timeouts};
use crate::ids::{
    ActivityName, DefinitionHash, MessageNo, Namespace, QueueName, RequestId, RunId, StepPath, TaskNo, WorkflowId,
    WorkflowName,
};
use crate::schedule::state::ScheduleEvent;
use crate::time::{Span, Timestamp};
use crate::trigger::TriggerEvent;

/// One applied input.
#[derive(Debug, Clone)]
pub struct Transition {
    /// Counts from 1 without gaps within a run.
    pub seq: u32,
    /// Never earlier than the transition before.
    pub at: Timestamp,
    pub events: Vec<Event>,
    /// The events as they are stored; their size is part of the state.
    body: String,
}

/// By what was decided, however it is written.
impl PartialEq for Transition {
    fn eq(&self, other: &Self) -> bool {
        (self.seq, self.at, &self.events) == (other.seq, other.at, &other.events)
    }
}

impl Transition {
    pub fn new(seq: u32, at: Timestamp, events: Vec<Event>) -> Self {
        let body = text_of(&events);
        Self { seq, at, events, body }
    }

    /// As it was stored.
    pub fn read(seq: u32, at: Timestamp, body: String) -> serde_json::Result<Self> {
        let events = serde_json::from_str(&body)?;
        Ok(Self { seq, at, events, body })
    }

    pub(super) fn written(seq: u32, at: Timestamp, events: Vec<Event>, body: String) -> Self {
        Self { seq, at, events, body }
    }

    /// The events as JSON.
    pub fn body(&self) -> &str {
        &self.body
    }

    pub fn into_body(self) -> String {
        self.body
    }
}

/// Events are maps with text keys and numbers that came from JSON: serialising cannot fail.
pub(super) fn text_of(events: &[Event]) -> String {
    serde_json::to_string(events).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    RunStarted(Arc<RunStarted>),
    /// `if:` was false.
    StepSkipped {
        step: StepPath,
    },
    VarsSet {
        step: StepPath,
        vars: BTreeMap<Arc<str>, Arc<Value>>,
    },
    /// A step has ended well that has no output of its own.
    StepPassed {
        step: StepPath,
    },
    /// A step that is no activity has ended with this output; or a parked one has, by a success that came late.
    StepCompleted {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_null")]
        output: Arc<Value>,
    },
    ParallelStarted {
        step: StepPath,
    },
    BranchEnded {
        step: StepPath,
        branch: Arc<str>,
        #[serde(default, skip_serializing_if = "is_default")]
        end: End,
    },
    /// It is decided how the step ends; branches that are open are halted.
    ParallelStopped {
        step: StepPath,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
    /// The list is evaluated once.
    ForEachStarted {
        step: StepPath,
        items: Arc<Value>,
    },
    /// Of a `for_each` or a `while`; counted from 0.
    IterationStarted {
        step: StepPath,
        index: u32,
    },
    /// Of a `for_each`, with what it contributes to the step's output.
    IterationEnded {
        step: StepPath,
        index: u32,
        #[serde(default, skip_serializing_if = "is_null")]
        output: Arc<Value>,
        #[serde(default, skip_serializing_if = "is_default")]
        end: End,
    },
    /// An iteration has failed; those that are open are halted.
    ForEachStopped {
        step: StepPath,
        error: Failure,
    },
    /// `catch` counts from 1, as in the path of its body.
    ErrorCaught {
        step: StepPath,
        catch: u32,
        error: Failure,
    },
    /// What the step ends with when `finally` has ended.
    FinallyStarted {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_default")]
        end: End,
    },
    /// What the body of a scope did is undone now.
    ScopeFailed {
        step: StepPath,
        error: Failure,
    },
    /// Everything there was to undo has been; `otherwise` is next.
    ScopeUndone {
        step: StepPath,
    },
    /// What the losers of a `parallel` did is undone now.
    BodiesDiscarded {
        step: StepPath,
        bodies: Vec<StepPath>,
    },
    TimerSet {
        step: StepPath,
        due: Timestamp,
    },
    SignalAwaited {
        step: StepPath,
        signal: Arc<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due: Option<Timestamp>,
    },
    /// The step has ended with the body of that signal, by number.
    SignalTaken {
        step: StepPath,
        signal: u32,
    },
    SignalTimedOut {
        step: StepPath,
    },
    /// Published once.
    Emitted(Box<Emitted>),
    /// A child has closed.
    ChildEnded(Box<ChildEnded>),
    /// A child is told to stop, by the message beside this one or once its start was accepted.
    ChildStopped {
        step: StepPath,
    },
    /// A completed child is told to undo, by that message.
    ChildUndoSent {
        step: StepPath,
        message: MessageNo,
    },
    /// The pivot has completed: the run only goes forward.
    PivotCompleted {
        step: StepPath,
    },
    /// The run is to stop, unless the pivot, which is under way, turns out to have been done.
    StopDeferred {
        why: Why,
        pivot: StepPath,
        error: Failure,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// A forward step has ended without success and waits for an operator.
    StepParked {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_default")]
        outcome: StepOutcome,
        error: Failure,
    },
    /// An operator has the step tried again, from its beginning.
    StepResumed {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// An operator ended the step.
    StepResolved {
        step: StepPath,
        how: Resolution,
        /// As the operator gave it, of a step that was marked as done.
        #[serde(default, skip_serializing_if = "is_null")]
        output: Arc<Value>,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// The run is at a limit or parked: the step, or the body or iteration, is entered when the run is resumed.
    StepBlocked {
        step: StepPath,
    },
    /// A step ends the run, once everything else has ended.
    ExitRequested {
        exit: Exit,
        /// The step that says so, where handlers may yet change what it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
    },
    /// A forward activity and its first task; with it comes its ledger entry, where there is an undo.
    ActivityScheduled(Box<ActivityScheduled>),
    /// A further attempt of a do or an undo, under the same key, or the first one that waited for a permit.
    TaskOpened {
        task: TaskNo,
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_do")]
        direction: Direction,
        attempt: u32,
    },
    /// The task stream refused the task; it waits in the run.
    DispatchHeld {
        task: TaskNo,
        until: Timestamp,
        /// An earlier try was not acknowledged: a worker may have it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_doubt: bool,
    },
    /// A held task goes out again.
    TaskOffered {
        task: TaskNo,
        offer: u32,
    },
    /// A worker is known to have begun; start-to-close counts from `at`.
    TaskStarted {
        task: TaskNo,
        at: Timestamp,
    },
    /// The queue is known to have delivered the task, or past it; start-to-close counts from this transition.
    TaskDelivered {
        task: TaskNo,
    },
    /// Nobody has taken the task yet, so it is not late; looked at again then.
    DeadlineDeferred {
        task: TaskNo,
        until: Timestamp,
    },
    /// The last heartbeat, where something is decided by it; the next has to come within its timeout after `at`.
    HeartbeatTaken {
        task: TaskNo,
        at: Timestamp,
        /// Absent = none, or those that are known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<Arc<Value>>,
    },
    /// The task's worker was not heard of as long as it had promised: lost, unless the log says otherwise.
    WorkerSilent {
        task: TaskNo,
    },
    /// The task is a worker's for good, whatever becomes of its message; start-to-close counts from this transition.
    TaskClaimed {
        task: TaskNo,
        by: Arc<str>,
    },
    /// The task's worker has let go of its message and will say later how it ended; start-to-close counts from this
    /// transition, if it was not known before that the worker had begun.
    TaskLeft {
        task: TaskNo,
    },
    /// Nobody has taken the task in time, or it is not needed any more: it is to be taken out of its queue.
    WithdrawalRequested {
        task: TaskNo,
        /// Why: a timeout, most of the time.
        timeout: Unstarted,
        /// Asked again then.
        until: Timestamp,
    },
    /// The task is out of its queue, and no worker has had it: surely not done by this attempt.
    TaskWithdrawn {
        task: TaskNo,
        error: Failure,
    },
    /// Schedule-to-close has ended between two attempts.
    ScheduleToClosePassed {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_do")]
        direction: Direction,
        error: Failure,
    },
    /// The step only goes forward: the timeout does not end it.
    TimeoutVoided {
        step: StepPath,
    },
    /// The step is not waited for any more, and its worker is not asked to stop.
    TaskAbandoned {
        task: TaskNo,
    },
    TaskCompleted {
        task: TaskNo,
        #[serde(default, skip_serializing_if = "is_null")]
        output: Arc<Value>,
    },
    /// The worker said so: surely not done by this attempt.
    TaskFailed {
        task: TaskNo,
        error: Failure,
        /// The worker asserts that no attempt had any effect.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not_done: bool,
    },
    /// The worker could not say, or what it said is true of one copy of the task, and another one may be somewhere.
    TaskUnknown {
        task: TaskNo,
        error: Failure,
    },
    /// The worker stopped because it was asked to: surely not done by this attempt.
    TaskCancelled {
        task: TaskNo,
    },
    /// Still running somewhere: asked again then, as the same attempt.
    TaskDeferred {
        task: TaskNo,
        until: Timestamp,
        /// Another copy of the task may be somewhere, too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_doubt: bool,
    },
    TaskTimedOut {
        task: TaskNo,
        error: Failure,
    },
    TaskLost {
        task: TaskNo,
        error: Failure,
    },
    RetryScheduled {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_do")]
        direction: Direction,
        /// The attempt that will be made.
        attempt: u32,
        at: Timestamp,
    },
    /// A step ended without success. Whether the run goes on is the next event's matter.
    StepFailed {
        step: StepPath,
        outcome: StepOutcome,
        error: Failure,
    },
    /// The step will be undone if the run fails, with this input. A second one replaces the input.
    UndoReady {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_null")]
        input: Arc<Value>,
    },
    /// The step will be undone if the run fails; its input reads the run's `error` and is evaluated when there is one.
    UndoNeeded {
        step: StepPath,
    },
    /// The undo's first task, or the first one after an operator's retry.
    UndoScheduled {
        step: StepPath,
        /// 0 = it waits for a permit, and is opened by `task_opened`.
        task: TaskNo,
        start_to_close: Span,
        #[serde(default, skip_serializing_if = "is_default")]
        timeouts: Timeouts,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_attempts: Option<u32>,
    },
    /// The undo waits for an operator.
    UndoParked {
        step: StepPath,
        error: Failure,
    },
    /// An operator has the undo tried again, with the input of the event before or the one it had.
    UndoResumed {
        step: StepPath,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// An operator closed the matter, or a success that came late.
    UndoResolved {
        step: StepPath,
        how: Resolution,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// The run stops and undoes. The error is kept beside whatever becomes of the undo.
    RunFailed {
        error: Failure,
    },
    RunTimedOut {
        error: Failure,
    },
    CancelRequested {
        error: Failure,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// What the run has waited for before it begins: its workflow id is free, or it has a place.
    RunAdmitted {
        to: Admission,
    },
    /// The whole run waits for an operator.
    RunParked {
        reason: Arc<str>,
    },
    RunResumed {
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
        /// How many events the run may have from now on, where that is not as by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event_limit: Option<u32>,
        /// Likewise of the bytes of its history.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history_limit: Option<u64>,
    },
    /// An operator lets the run have more of something. Whether it goes on is the next event's matter.
    LimitsRaised {
        limits: RunLimits,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// From here on the run goes by another version of its definition.
    RunMigrated {
        version: u32,
        definition: DefinitionHash,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// Somebody else waits for the run.
    Awaited(AnswerRequest),
    /// A worker answered a task that was closed. Refused for the state; a success may still have to be undone, which the
    /// events behind this one say.
    LateResult(Box<LateResult>),
    /// Pending until it is answered.
    MessageSent(Box<MessageSent>),
    /// No answer has come: sent again.
    MessageOffered {
        number: MessageNo,
        due: Timestamp,
    },
    /// The receiver has answered; the message is pending no more.
    MessageAnswered {
        number: MessageNo,
        #[serde(default, skip_serializing_if = "is_default")]
        answer: Answer,
    },
    /// A message of another run was taken and answered. What it says is told by the events beside this one.
    MessageTaken(Box<MessageTaken>),
    /// Buffered until a step takes it; numbered in the order of these events.
    SignalReceived(Box<SignalReceived>),
    /// A handler takes a signal or an update, by number; `step` is the handler's path, and its executions are counted from 0.
    HandlerStarted {
        step: StepPath,
        index: u32,
        #[serde(default, skip_serializing_if = "is_default")]
        signal: u32,
        #[serde(default, skip_serializing_if = "is_default")]
        update: u32,
    },
    HandlerEnded {
        step: StepPath,
        index: u32,
        /// Of an update.
        #[serde(default, skip_serializing_if = "is_null")]
        output: Arc<Value>,
        #[serde(default, skip_serializing_if = "is_default")]
        end: End,
    },
    /// Its handler is to take it, in its turn; numbered in the order of these events and of `update_admitted`.
    UpdateAccepted(Box<UpdateTaken>),
    /// Decided about once the run goes on.
    UpdatePutOff(Box<UpdateTaken>),
    /// One that was put off is accepted, or is not.
    UpdateAdmitted {
        id: RequestId,
    },
    UpdateRefused {
        id: RequestId,
        error: Failure,
    },
    /// Somebody asks for what becomes of an update that was taken before.
    UpdateAwaited {
        id: RequestId,
        answer: UpdateAnswer,
    },
    /// The run completes once its handlers have nothing left to do.
    MainBodyPassed {},
    /// A completed child undoes itself because its parent failed.
    RunReopened {
        error: Failure,
    },
    RunCompleted {
        #[serde(default, skip_serializing_if = "is_null")]
        output: Arc<Value>,
    },
    /// The end of a run that was stopped and undone.
    RunClosed {
        status: Status,
    },
    RunTerminated {
        error: Failure,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// Of a run that is a schedule.
    Schedule(Box<ScheduleEvent>),
    /// Of a run that is a trigger.
    Trigger(Box<TriggerEvent>),
    /// The run has closed without success, and this attempt follows.
    RunRetried {
        successor: RunId,
        attempt: Attempt,
    },
    /// A run that is stopping was asked to cancel: no other attempt follows it.
    RetryWaived {
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// Closed as continued as new; the successor starts with this.
    RunContinued {
        successor: RunId,
        #[serde(default, skip_serializing_if = "is_null")]
        input: Arc<Value>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    pub run_id: RunId,
    pub namespace: Namespace,
    pub workflow_id: WorkflowId,
    pub workflow: WorkflowName,
    /// Up to here the run's row says the same, and a store need not keep it twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    pub version: u32,
    pub definition: DefinitionHash,
    #[serde(default, skip_serializing_if = "is_null")]
    pub input: Arc<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub search_attributes: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
    /// When the run is stopped and undone, if it is still running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Parent>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<Box<Continues>>,
    /// Where they are not as by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: RunLimits,
    /// From 1, the most important, to 5; absent = 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// What it has to have before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<PlaceWanted>>,
    /// It waits until the open run of its workflow id has closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub queued: bool,
    /// Not before: it was started to begin later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_at: Option<Timestamp>,
    /// A step that is halted has its task taken out of the queue. It was begun at a level of the stored format at which every
    /// replica can read that, and what else came with that level.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdraws: bool,
}

/// What a run that continues another one as new, or is its next attempt, takes over from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Continues {
    pub run: RunId,
    /// Signals that no step had taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Signal>,
    /// Updates that it had not decided about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<PutOff>,
    /// Those who wait for the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiters: Vec<Arc<str>>,
    /// Requests that the run before had taken under an earlier version, which did not say what they asked for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub requests: BTreeSet<RequestId>,
    /// Requests that the run before had taken: a repeat changes nothing.
    #[serde(default, skip_serializing_if = "Requests::is_empty")]
    pub taken: Requests,
    /// Its place among the open runs of the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
    /// Of an attempt that is not the first: it begins anew, and not at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageSent {
    pub number: MessageNo,
    pub to: Recipient,
    pub body: Arc<Body>,
    /// Sent again then.
    pub due: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageTaken {
    pub from: Sender,
    pub number: MessageNo,
    #[serde(default, skip_serializing_if = "is_default")]
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalReceived {
    pub name: Arc<str>,
    #[serde(default, skip_serializing_if = "is_null")]
    pub body: Arc<Value>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateTaken {
    pub name: Arc<str>,
    #[serde(default, skip_serializing_if = "is_null")]
    pub body: Arc<Value>,
    /// Its request id is the update's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub operation: Operation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<UpdateAnswer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActivityScheduled {
    pub step: StepPath,
    /// 0 = it waits for a permit, and is opened by `task_opened`.
    pub task: TaskNo,
    pub activity: ActivityName,
    pub queue: QueueName,
    #[serde(default, skip_serializing_if = "is_null")]
    pub input: Arc<Value>,
    pub start_to_close: Span,
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    #[serde(default, skip_serializing_if = "is_default")]
    pub cancellation: Cancellation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The ledger entry. Its key is [`super::keys::idempotency_key`] of run and step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Arc<TaskLimits>>,
    /// It ended unknown before an operator had it tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_be_done: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Emitted {
    pub step: StepPath,
    pub subject: Arc<str>,
    #[serde(default, skip_serializing_if = "is_null")]
    pub body: Arc<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildEnded {
    pub step: StepPath,
    /// The one that closed: where the child has continued as new, its last run.
    pub run: RunId,
    pub status: Status,
    #[serde(default, skip_serializing_if = "is_null")]
    pub output: Arc<Value>,
    /// How the step failed; `None` = it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Who undoes a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoCall {
    pub activity: ActivityName,
    pub queue: QueueName,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateResult {
    pub task: TaskNo,
    pub outcome: LateOutcome,
    #[serde(default, skip_serializing_if = "is_null")]
    pub output: Arc<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The run was closed: nothing is reopened, and a success stays as it is until a person looks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_close: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LateOutcome {
    Completed,
    Failed,
    Unknown,
    Cancelled,
    RetryLater,
}

/// How a step ended that did not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Surely not done.
    #[default]
    Failed,
    /// It may have been done, and is undone like a completed one.
    Unknown,
    /// Stopped before it was done.
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    Done,
    Skipped,
}

// serde hands fields over by reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_do(direction: &Direction) -> bool {
    *direction == Direction::Do
}

pub(super) fn is_null(value: &Arc<Value>) -> bool {
    value.is_null()
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
