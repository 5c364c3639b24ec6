//! The state of one run, and what others may ask of it.
//!
//! **Invariants:** changed by [`super::evolve`] alone. Step instances are addressed by path, so that any number of them may
//! be open at once. Holds everything that effects are made of; the plan is needed for decisions only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::Direction;
use super::event::{RunStarted, StepOutcome};
use super::execution::{Execution, Known, OpenTask, Wait};
use super::failure::Failure;
use super::input::AnswerOn;
use super::ledger::{LedgerEntry, UndoState};
use super::status::Status;
use crate::ids::{DefinitionHash, Namespace, QueueName, RequestId, RunId, StepPath, TaskNo, WorkflowId, WorkflowName};
use crate::time::Timestamp;

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
    /// Of operators' actions that were taken: a repeat changes nothing.
    pub(super) requests: BTreeSet<RequestId>,
    /// The same of what stopped the run; by verb, since one id may be used for both.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) stops: BTreeMap<StopVerb, BTreeSet<RequestId>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StopVerb {
    Cancel,
    Terminate,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
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

    pub fn version(&self) -> u32 {
        self.birth.version
    }

    pub fn definition_hash(&self) -> &DefinitionHash {
        &self.birth.definition
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

    pub fn closed_at(&self) -> Option<Timestamp> {
        self.closed().map(|closed| closed.at)
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    pub fn status(&self) -> Status {
        match &self.phase {
            Phase::Closed(closed) => closed.status,
            _ if self.parked.is_some() => Status::Parked,
            Phase::Running => Status::Running,
            Phase::Stopping(_) if self.parked_undos().next().is_some() => Status::Parked,
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

    /// Undos that wait for an operator.
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

    /// Whether workers are asked to stop this task: a forward one of a run that stops, or any that is no longer open.
    pub fn is_unwanted(&self, task: TaskNo) -> bool {
        match &self.phase {
            Phase::Running => self.open_task(task).is_none(),
            Phase::Stopping(_) => self.open_task(task).is_none_or(|view| view.direction == Direction::Do),
            Phase::Closed(_) => true,
        }
    }

    /// The earliest deadline, `None` if there is none. May lie in the past while a timeout waits for its horizon.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wake_after(Timestamp(i64::MIN))
    }

    /// The earliest deadline later than `at`, whatever is due before.
    pub fn wake_after(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_closed() || self.parked.is_some() {
            return None;
        }
        let timeout = self.birth.timeout_at.filter(|_| matches!(self.phase, Phase::Running));
        let executions = self.doing.values().chain(self.undoing.values()).map(Execution::due);
        let deadlines = timeout.into_iter().chain(executions);
        deadlines.filter(|due| *due > at).min()
    }

    /// The queues whose delivery horizon must be known to decide on what is due at `now`, each once.
    pub fn overdue_queues(&self, now: Timestamp) -> Vec<QueueName> {
        let mut queues = Vec::new();
        if self.parked.is_some() {
            return queues;
        }
        for view in self.open_tasks() {
            let undecided = view.open.known == Known::Offered && view.open.due <= now;
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
                    Wait::Until(_) | Wait::Decision => None,
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
