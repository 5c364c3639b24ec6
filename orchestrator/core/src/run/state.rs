//! The state of one run, and what others may ask of it.
//!
//! **Invariants:** changed by [`super::evolve`] alone. Step instances are addressed by path, so that any number of them may
//! be open at once. Holds everything that effects are made of; the plan is needed for decisions only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admission::{Admission, Place};
use super::again::Attempt;
use super::effect::Direction;
use super::event::{Continues, RunStarted, StepOutcome};
use super::execution::{Execution, Known, OpenTask, Wait};
use super::failure::Failure;
use super::handler::Handling;
use super::input::{AnswerOn, Start};
use super::ledger::{LedgerEntry, UndoState};
use super::mail::Mail;
use super::migrate::Migrated;
use super::open::{Exit, Loop, Open};
use super::permit::Permit;
use super::request::Requests;
use super::signal::Signal;
use super::status::Status;
use super::update::Updates;
use crate::ids::{
    DefinitionHash, MessageNo, Namespace, QueueName, RequestId, RunId, StepPath, TaskNo, WorkflowId, WorkflowName,
};
use crate::schedule::Schedule;
use crate::time::Timestamp;
use crate::trigger::Trigger;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(super) birth: Arc<RunStarted>,
    pub(super) started_at: Timestamp,
    pub(super) seq: u32,
    pub(super) at: Timestamp,
    pub(super) phase: Phase,
    /// Why the whole run waits for an operator.
    pub(super) parked: Option<Arc<str>>,
    /// Steps that have ended.
    pub(super) steps: BTreeMap<StepPath, Step>,
    pub(super) doing: BTreeMap<StepPath, Execution>,
    pub(super) undoing: BTreeMap<StepPath, Execution>,
    /// In the order of dispatch.
    pub(super) ledger: Vec<LedgerEntry>,
    /// Every task ever given out; number n at index n − 1.
    pub(super) tasks: Vec<Task>,
    pub(super) vars: BTreeMap<Arc<str>, Arc<Value>>,
    pub(super) waiters: Vec<Waiter>,
    /// Requests that an earlier version took, which did not say what they asked for: signals, and what was done about what
    /// is parked. Not added to any more.
    pub(super) requests: BTreeSet<RequestId>,
    #[serde(default, alias = "stops", skip_serializing_if = "Requests::is_empty")]
    pub(super) taken: Requests,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub(super) signals: Signals,
    /// Beside the main body.
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub(super) handling: Handling,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub(super) updates: Updates,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub(super) mail: Mail,
    /// Granted to tasks of this run, by the message that asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) permits: BTreeMap<MessageNo, Permit>,
    /// What it waits for before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) admission: Option<Admission>,
    /// Asked for or had, among the open runs of its workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<Box<Place>>,
    /// The transition with which it began, where that is not its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) began_in: Option<u32>,
    /// Steps under way that are no activities, and have something to remember.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) open: BTreeMap<StepPath, Open>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) loops: BTreeMap<StepPath, Loop>,
    /// To be entered when the run is resumed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) blocked: BTreeSet<StepPath>,
    /// How the run ends once nothing is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exit: Option<(Exit, u32)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) past_pivot: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deferred: Option<Box<Deferred>>,
    /// How many there have been; a snapshot of the first version does not say.
    #[serde(default)]
    pub(super) events: u32,
    /// How many there may be, where an operator has raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event_limit: Option<u32>,
    /// Bytes of all events as they are stored; one that was loaded from a snapshot of an earlier version counts those since.
    #[serde(default)]
    pub(super) history_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) history_limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending_limit: Option<u32>,
    /// Transitions that emitted something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) emitted: Vec<u32>,
    /// Changes of the status between the start and the end: transition, and the status after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) turns: Vec<(u32, Status)>,
    /// How a run ended that was then told by its parent to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reopened: Option<Box<Closed>>,
    /// When the run as a whole was parked, now or the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parked_at: Option<Timestamp>,
    /// Of a run that is a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) schedule: Option<Box<Schedule>>,
    /// Of a run that is a trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trigger: Option<Box<Trigger>>,
    /// When it began, of an attempt that had a pause before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) began_at: Option<Timestamp>,
    /// Somebody has asked to cancel it while it was stopping: no other attempt follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) retry_waived: bool,
    /// The version it goes by, where that is not the one it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) migrated: Option<Box<Migrated>>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Signals {
    /// How many have come.
    pub(super) received: u32,
    /// In the order of their coming.
    pub(super) buffer: Vec<Signal>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Running,
    /// Nothing is dispatched forwards any more; what is in flight is waited for, then undone.
    Stopping(Stop),
    Closed(Closed),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stop {
    pub(super) why: Why,
    pub(super) error: Failure,
    /// The transition that asked for the cancellation of what is in flight.
    pub(super) seq: u32,
}

/// A stop that waits for what becomes of the pivot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Deferred {
    pub(super) why: Why,
    pub(super) pivot: StepPath,
    pub(super) error: Failure,
    pub(super) seq: u32,
}

/// Why a run was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    Failed,
    Cancelled,
    TimedOut,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Closed {
    pub(super) status: Status,
    pub(super) at: Timestamp,
    pub(super) seq: u32,
    #[serde(default)]
    pub(super) output: Arc<Value>,
    pub(super) error: Option<Failure>,
    /// The run that goes on in its place; of one that continues as new, with its input in place of an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) successor: Option<RunId>,
    /// Which attempt that is, of one that is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<Attempt>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Skipped,
    /// A step without an output of its own.
    Passed,
    Completed {
        #[serde(default)]
        output: Arc<Value>,
    },
    Failed {
        outcome: StepOutcome,
        error: Failure,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) step: StepPath,
    pub(super) direction: Direction,
    pub(super) heard: Heard,
    /// Its worker may go on with it, though nobody waits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) abandoned: bool,
}

/// What workers have said of a task so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Heard {
    Nothing,
    /// Some outcome that was no success.
    Other,
    Success,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub(super) to: Arc<str>,
    pub(super) on: AnswerOn,
    pub(super) seq: u32,
}

/// What a run that has closed leaves behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome<'a> {
    Output(&'a Arc<Value>),
    Failure(&'a Failure),
}

impl Outcome<'_> {
    /// The output as it is, or the failure as an object of `step`, `error_type` and `message`.
    pub fn to_json(&self) -> String {
        match self {
            Self::Output(output) => output.to_string(),
            Self::Failure(failure) => {
                // A struct of texts always serialises.
                serde_json::to_string(failure).unwrap_or_default()
            }
        }
    }
}

/// An open task, for people and for the shell's liveness checks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenTaskView<'a> {
    pub step: &'a StepPath,
    pub direction: Direction,
    pub open: &'a OpenTask,
    pub execution: &'a Execution,
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Waiting<'a> {
    Timer {
        due: Timestamp,
    },
    Signal {
        name: &'a Arc<str>,
        due: Option<Timestamp>,
    },
    Child {
        run: RunId,
        workflow_id: &'a WorkflowId,
        /// Its start was accepted.
        started: bool,
    },
    Operator {
        error: &'a Failure,
    },
}

impl State {
    pub fn run_id(&self) -> RunId {
        self.birth.run_id
    }

    pub fn namespace(&self) -> &Namespace {
        &self.birth.namespace
    }

    pub fn workflow_id(&self) -> &WorkflowId {
        &self.birth.workflow_id
    }

    pub fn workflow(&self) -> &WorkflowName {
        &self.birth.workflow
    }

    /// The one it goes by.
    pub fn version(&self) -> u32 {
        self.migrated.as_ref().map_or(self.birth.version, |to| to.version)
    }

    /// Of the definition it goes by.
    pub fn definition_hash(&self) -> &DefinitionHash {
        self.migrated
            .as_ref()
            .map_or(&self.birth.definition, |to| &to.definition)
    }

    /// Whether it goes by another version than the one it began with.
    pub fn has_migrated(&self) -> bool {
        self.migrated.is_some()
    }

    pub fn input(&self) -> &Arc<Value> {
        &self.birth.input
    }

    /// Of the start.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.birth.request_id.as_ref()
    }

    pub fn traceparent(&self) -> Option<&Arc<str>> {
        self.birth.traceparent.as_ref()
    }

    pub fn search_attributes(&self) -> &BTreeMap<String, Value> {
        &self.birth.search_attributes
    }

    /// The number of the last transition.
    pub fn seq(&self) -> u32 {
        self.seq
    }

    /// The time of the last transition.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The first time it closed; a child that is told to undo keeps it.
    pub fn closed_at(&self) -> Option<Timestamp> {
        let closed = self.reopened.as_deref().or(self.closed());
        closed.map(|closed| closed.at)
    }

    /// Whether no other run can have the workflow id: not once the run has closed, though it be undone later.
    pub fn holds_workflow_id(&self) -> bool {
        self.closed_at().is_none() && self.admission != Some(Admission::Id)
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    pub fn status(&self) -> Status {
        match &self.phase {
            Phase::Closed(closed) => closed.status,
            // Also while it is parked: the workflow id is another run's.
            Phase::Running if self.admission == Some(Admission::Id) => Status::Queued,
            _ if self.parked.is_some() || self.is_step_parked() || self.is_undo_parked() => Status::Parked,
            // An attempt before its pause has passed is one of a run that goes on.
            Phase::Running => match self.admission {
                None => Status::Running,
                Some(Admission::Pause) if self.attempt_made().is_some() => Status::Running,
                Some(Admission::Id) => Status::Queued,
                Some(Admission::Pause | Admission::Place) => Status::Waiting,
            },
            Phase::Stopping(_) => Status::Compensating,
        }
    }

    /// Why the run as a whole is parked, if it is.
    pub fn parked_reason(&self) -> Option<&Arc<str>> {
        self.parked.as_ref()
    }

    /// Of a closed run.
    pub fn outcome(&self) -> Option<Outcome<'_>> {
        self.closed().map(|closed| match &closed.error {
            None => Outcome::Output(&closed.output),
            Some(error) => Outcome::Failure(error),
        })
    }

    /// The output of a completed run.
    pub fn output(&self) -> Option<&Arc<Value>> {
        match self.outcome()? {
            Outcome::Output(output) => Some(output),
            Outcome::Failure(_) => None,
        }
    }

    /// The error the run was stopped for, from the moment it was.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.phase {
            Phase::Running => None,
            Phase::Stopping(stop) => Some(&stop.error),
            Phase::Closed(closed) => closed.error.as_ref(),
        }
    }

    pub fn ledger(&self) -> &[LedgerEntry] {
        &self.ledger
    }

    fn is_step_parked(&self) -> bool {
        self.open.values().any(|open| matches!(open, Open::Parked { .. }))
    }

    /// Forward steps that are no activities and wait for something, by path.
    pub fn waiting(&self) -> impl Iterator<Item = (&StepPath, Waiting<'_>)> {
        self.open.iter().filter_map(|(step, open)| {
            let waiting = match open {
                Open::Timer { due } => Waiting::Timer { due: *due },
                Open::Signal { name, due } => Waiting::Signal { name, due: *due },
                Open::Child(child) => Waiting::Child {
                    run: child.run,
                    workflow_id: &child.to.workflow_id,
                    started: child.started,
                },
                Open::Parked { error, .. } => Waiting::Operator { error },
                Open::Parallel(_) | Open::ForEach(_) | Open::Try { .. } | Open::Scope { .. } => return None,
            };
            Some((step, waiting))
        })
    }

    /// When its timeout is due, whatever became of that. It counts from when the run begins, which may be late after a pause.
    pub(crate) fn timeout_at(&self) -> Option<Timestamp> {
        let due = self.birth.timeout_at?;
        let late = self.birth.paused_until().zip(self.began_at);
        Some(late.map_or(due, |(until, began)| due.plus(began.since(until))))
    }

    /// Forward steps that wait for an operator, and why.
    pub fn parked_steps(&self) -> impl Iterator<Item = (&StepPath, &Failure)> {
        self.open.iter().filter_map(|(step, open)| match open {
            Open::Parked { error, .. } => Some((step, error)),
            _ => None,
        })
    }

    /// Undos that wait for an operator, whether they are due or the run goes on.
    pub fn parked_undos(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.ledger
            .iter()
            .filter(|entry| matches!(entry.state, UndoState::Parked { .. }))
    }

    /// Steps that have ended, by path.
    pub fn steps(&self) -> &BTreeMap<StepPath, Step> {
        &self.steps
    }

    pub fn vars(&self) -> &BTreeMap<Arc<str>, Arc<Value>> {
        &self.vars
    }

    /// Activities under way in one direction, whether with a task or before their next one.
    pub fn executions(&self, direction: Direction) -> &BTreeMap<StepPath, Execution> {
        match direction {
            Direction::Do => &self.doing,
            Direction::Undo => &self.undoing,
        }
    }

    /// Tasks without an outcome; none in a closed run.
    pub fn open_tasks(&self) -> impl Iterator<Item = OpenTaskView<'_>> {
        let open = !self.is_closed();
        self.tasks_in_flight().filter(move |_| open)
    }

    /// Whether the outcome of this task is still wanted.
    pub fn is_open(&self, task: TaskNo) -> bool {
        !self.is_closed() && self.open_task(task).is_some()
    }

    /// Whether a worker has said how this task ended; a run that was parked then takes that in later.
    pub fn has_heard_of(&self, task: TaskNo) -> bool {
        self.task(task).is_some_and(|task| task.heard != Heard::Nothing)
    }

    /// Who has claimed an open task.
    pub fn claimed_by(&self, task: TaskNo) -> Option<&Arc<str>> {
        self.open_task(task)?.open.claimed.as_ref()
    }

    /// Whether the worker of a task that nobody waits for is left alone.
    pub fn is_abandoned(&self, task: TaskNo) -> bool {
        self.task(task).is_some_and(|task| task.abandoned)
    }

    /// Whether workers are asked to stop this task: a forward one of a run that stops, or any that is no longer open.
    pub fn is_unwanted(&self, task: TaskNo) -> bool {
        if self.is_closed() {
            return true;
        }
        self.open_task(task).is_none_or(|view| {
            let is_pivot = self
                .deferred
                .as_ref()
                .is_some_and(|deferred| deferred.pivot == *view.step);
            view.direction == Direction::Do && (is_pivot || self.is_halted(view.step))
        })
    }

    /// Whether cancellations of tasks were asked for in these transitions.
    pub(super) fn halted_within(&self, span: &RangeInclusive<u32>) -> bool {
        let open = self.open.values().any(|open| {
            let stopped = match open {
                Open::Parallel(parallel) => parallel.stopped.as_ref(),
                Open::ForEach(each) => each.stopped.as_ref(),
                _ => None,
            };
            stopped.is_some_and(|stopped| span.contains(&stopped.seq))
        });
        let deferred = self
            .deferred
            .as_ref()
            .is_some_and(|deferred| span.contains(&deferred.seq));
        let run = match &self.phase {
            Phase::Running => self.exit.as_ref().is_some_and(|(_, seq)| span.contains(seq)),
            Phase::Stopping(stop) => span.contains(&stop.seq),
            Phase::Closed(_) => self.terminated_within(span),
        };
        open || deferred || run
    }

    pub(super) fn terminated_within(&self, span: &RangeInclusive<u32>) -> bool {
        let closed = self.closed();
        closed.is_some_and(|closed| closed.status == Status::Terminated && span.contains(&closed.seq))
    }

    /// Whether transitions in this span emitted something: then [`super::emissions`] of them is owed by a new owner.
    pub fn emitted_in(&self, span: RangeInclusive<u32>) -> bool {
        self.emitted.iter().any(|seq| span.contains(seq))
    }

    /// The earliest deadline, `None` if there is none. May lie in the past while a timeout waits for its horizon. A closed
    /// run has one while it has messages pending.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wake_after(Timestamp(i64::MIN))
    }

    /// The same if workers were heard of last at those times.
    pub fn wake_if(&self, heard: impl Fn(TaskNo) -> Option<Timestamp>) -> Option<Timestamp> {
        self.wake_after_if(Timestamp(i64::MIN), heard)
    }

    /// The earliest deadline later than `at`, whatever is due before.
    pub fn wake_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.wake_after_if(at, |_| None)
    }

    fn wake_after_if(&self, at: Timestamp, heard: impl Fn(TaskNo) -> Option<Timestamp>) -> Option<Timestamp> {
        let messages = self
            .mail
            .outbox
            .values()
            .map(|pending| pending.due)
            .filter(|due| *due > at)
            .min();
        if self.is_closed() || self.parked.is_some() {
            return messages;
        }
        let timeout = self.timeout_at().filter(|_| self.can_time_out());
        let waits = self.open.values().filter_map(|open| match open {
            Open::Timer { due } => Some(*due),
            Open::Signal { due, .. } => *due,
            _ => None,
        });
        let executions = self.doing.values().chain(self.undoing.values());
        let executions = executions.map(|execution| {
            let beating = execution.open_task().filter(|open| open.beat_by.is_some());
            let heard = beating.and_then(|open| heard(open.task));
            execution.due_if(heard)
        });
        let schedule = self.schedule.as_ref().and_then(|schedule| schedule.due());
        let trigger = self.trigger.as_ref().and_then(|trigger| trigger.due());
        let actor = schedule.into_iter().chain(trigger);
        let begins = self.begins_at();
        let deadlines = timeout
            .into_iter()
            .chain(executions)
            .chain(waits)
            .chain(actor)
            .chain(begins);
        let ahead = |due: &Timestamp| *due > at && *due < Timestamp::MAX;
        deadlines.filter(ahead).chain(messages).min()
    }

    /// Signals that no step has taken, in the order of their coming.
    pub fn signals(&self) -> &[Signal] {
        &self.signals.buffer
    }

    /// The start of the run that goes on in the place of this one, if it has closed as continued as new or is tried again.
    /// Nothing can reject it.
    pub fn successor(&self) -> Option<Start> {
        let closed = self.closed()?;
        let run_id = closed.successor?;
        Some(match &closed.attempt {
            Some(attempt) => self.attempted(run_id, attempt.clone()),
            None => self.succeeding(run_id, &closed.output),
        })
    }

    pub(super) fn successor_id(&self) -> Option<RunId> {
        self.closed()?.successor
    }

    /// The start of its next attempt.
    pub(super) fn attempted(&self, run_id: RunId, attempt: Attempt) -> Start {
        let mut start = self.succeeding(run_id, &self.birth.input);
        if let Some(continues) = &mut start.continues {
            continues.attempt = Some(attempt);
        }
        start
    }

    /// The start of a run that continues this one as new, were it to be now.
    pub(super) fn succeeding(&self, run_id: RunId, input: &Arc<Value>) -> Start {
        let waits = |waiter: &&Waiter| waiter.on == AnswerOn::Closed;
        Start {
            run_id,
            namespace: self.birth.namespace.clone(),
            workflow_id: self.birth.workflow_id.clone(),
            input: Arc::clone(input),
            request_id: None,
            search_attributes: self.birth.search_attributes.clone(),
            answer: None,
            traceparent: self.birth.traceparent.clone(),
            parent: self.birth.parent.clone(),
            priority: Some(self.priority()),
            queued: false,
            begins_at: None,
            continues: Some(Box::new(Continues {
                run: self.birth.run_id,
                signals: self.signals.buffer.clone(),
                updates: self.updates_put_off(),
                waiters: self
                    .waiters
                    .iter()
                    .filter(waits)
                    .map(|waiter| waiter.to.clone())
                    .collect(),
                requests: self.requests.clone(),
                taken: self.requests_to_hand_on(),
                place: self.place.clone(),
                attempt: None,
            })),
        }
    }

    /// The queues whose delivery horizon must be known to decide on what is due at `now`, each once.
    pub fn overdue_queues(&self, now: Timestamp) -> Vec<QueueName> {
        let mut queues = Vec::new();
        if self.parked.is_some() {
            return queues;
        }
        for view in self.open_tasks() {
            let undecided =
                view.open.known == Known::Offered && view.open.withdrawn_for.is_none() && view.execution.due() <= now;
            if undecided && !queues.contains(&view.execution.queue) {
                queues.push(view.execution.queue.clone());
            }
        }
        queues
    }

    pub(super) fn closed(&self) -> Option<&Closed> {
        match &self.phase {
            Phase::Closed(closed) => Some(closed),
            Phase::Running | Phase::Stopping(_) => None,
        }
    }

    /// The run's timeout does not cut what only goes forward, or waits to know whether it does.
    pub(super) fn can_time_out(&self) -> bool {
        let begun = self.admission != Some(Admission::Pause);
        self.is_running() && begun && !self.past_pivot && self.deferred.is_none()
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_))
    }

    pub(super) fn executions_mut(&mut self, direction: Direction) -> &mut BTreeMap<StepPath, Execution> {
        match direction {
            Direction::Do => &mut self.doing,
            Direction::Undo => &mut self.undoing,
        }
    }

    pub(super) fn task(&self, task: TaskNo) -> Option<&Task> {
        self.tasks.get(usize::try_from(task.0.checked_sub(1)?).ok()?)
    }

    pub(super) fn task_mut(&mut self, task: TaskNo) -> Option<&mut Task> {
        self.tasks.get_mut(usize::try_from(task.0.checked_sub(1)?).ok()?)
    }

    pub(super) fn next_message(&self) -> MessageNo {
        MessageNo(self.mail.sent.saturating_add(1))
    }

    pub(super) fn next_task(&self) -> TaskNo {
        TaskNo(u32::try_from(self.tasks.len()).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// The task if it has no outcome yet, also in a run that was terminated over it.
    pub(super) fn open_task(&self, task: TaskNo) -> Option<OpenTaskView<'_>> {
        let Task { step, direction, .. } = self.task(task)?;
        let execution = self.executions(*direction).get(step)?;
        let open = execution.open_task().filter(|open| open.task == task)?;
        Some(OpenTaskView {
            step,
            direction: *direction,
            open,
            execution,
        })
    }

    /// Tasks without an outcome, also those a terminated run left behind.
    pub(super) fn tasks_in_flight(&self) -> impl Iterator<Item = OpenTaskView<'_>> {
        let of = |direction| {
            self.executions(direction)
                .iter()
                .filter_map(move |(step, execution)| match &execution.wait {
                    Wait::Task(open) => Some(OpenTaskView {
                        step,
                        direction,
                        open,
                        execution,
                    }),
                    Wait::Until(_) | Wait::Permit(_) | Wait::Decision => None,
                })
        };
        of(Direction::Do).chain(of(Direction::Undo))
    }

    pub(super) fn entry(&self, step: &StepPath) -> Option<&LedgerEntry> {
        self.ledger.iter().rfind(|entry| entry.step == *step)
    }

    pub(super) fn entry_mut(&mut self, step: &StepPath) -> Option<&mut LedgerEntry> {
        self.ledger.iter_mut().rfind(|entry| entry.step == *step)
    }
}
