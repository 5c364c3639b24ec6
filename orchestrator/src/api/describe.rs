//! One run for people: its state as core folds it, and beside it what the state has no use for but a person has: attempts
//! and activities of steps that have ended, in the order in which they were reached.

use std::collections::{BTreeMap, VecDeque};

use knarr_core::ids::{StepPath, TaskNo};
use knarr_core::run::effect::Direction;
use knarr_core::run::event::StepOutcome;
use knarr_core::run::limits::{Limit, Usage};
use knarr_core::run::message::Body;
use knarr_core::run::{
    Admission, Event, Execution, Failure, Known, LedgerEntry as CoreLedgerEntry, OpenStage,
    OpenUpdate as CoreOpenUpdate, Signal, State, Step, Transition, UndoState, Wait, Waiting, evolve,
};
use knarr_core::time::Timestamp;
use knarr_schemas::api::{
    LedgerEntry, LimitUsage, OpenTask, OpenUpdate, OperationState, RunDescription, RunTurn, StepState, WaitingSignal,
    WaitingStep,
};
use knarr_schemas::body::{FailureBody, RunAttempt};
use serde_json::Value;

use crate::api::operations;
use crate::api::runs::summary;
use crate::store::{PlaceAsked, RunRow, StoredTransition};

/// The last ones that are told.
const MAX_OPERATIONS: usize = 100;

/// Why a stored history makes no run.
#[derive(Debug, thiserror::Error)]
pub(super) enum DescribeError {
    #[error("transition {seq} is not readable: {error}")]
    Json { seq: i32, error: serde_json::Error },
    #[error("it does not begin with the birth of a run")]
    NotBorn,
    #[error("it is empty")]
    Empty,
}

/// Takes a run's transitions in order.
#[derive(Debug, Default)]
pub(super) struct Describer {
    state: Option<State>,
    /// In the order in which they were reached.
    order: Vec<StepPath>,
    steps: BTreeMap<StepPath, Facts>,
    undos: BTreeMap<StepPath, Facts>,
    tasks: BTreeMap<TaskNo, (StepPath, Direction)>,
    operations: VecDeque<OperationState>,
    /// Bytes of the largest transition.
    largest: u64,
    past_pivot: bool,
}

#[derive(Debug, Default)]
struct Facts {
    activity: Option<String>,
    attempts: u32,
    last_failure: Option<Failure>,
}

impl Describer {
    pub(super) fn add(&mut self, stored: &StoredTransition) -> Result<(), DescribeError> {
        let seq = u32::try_from(stored.seq).unwrap_or_default();
        let transition = Transition::read(seq, stored.at, stored.body.clone())
            .map_err(|error| DescribeError::Json { seq: stored.seq, error })?;
        for event in &transition.events {
            self.learn(event);
            if let Some(operation) = operations::of(event, stored.at) {
                if self.operations.len() == MAX_OPERATIONS {
                    self.operations.pop_front();
                }
                self.operations.push_back(operation);
            }
        }
        self.largest = self.largest.max(stored.body.len() as u64);
        match &mut self.state {
            Some(state) => evolve(state, &transition),
            None => self.state = Some(State::born(&transition).ok_or(DescribeError::NotBorn)?),
        }
        Ok(())
    }

    /// What was asked for by or for a run that waits for its place.
    pub(super) fn place(&self) -> Option<PlaceAsked> {
        let state = self.state.as_ref()?;
        let place = state.place().filter(|_| state.admission() == Some(Admission::Place))?;
        Some(PlaceAsked {
            limit: place.limit.clone(),
            run: place.asked_by,
            number: place.ask,
        })
    }

    pub(super) fn finish(self, row: &RunRow) -> Result<RunDescription, DescribeError> {
        let state = self.state.as_ref().ok_or(DescribeError::Empty)?;
        // The transitions may be newer than the row.
        let mut run = summary(row);
        run.status = state.status().as_str().to_owned();
        run.closed_at = state.closed_at().map(Timestamp::to_utc);
        run.attempt = state.attempt_made().map(|attempt| RunAttempt {
            number: attempt.number,
            most: attempt.most,
            first: Some(attempt.first.0),
            begins_at: attempt.begins_at.to_utc(),
        });
        run.retried_by = state.retried_by().map(|(run, _)| run.0);
        Ok(RunDescription {
            run,
            definition: state.definition_hash().0.to_string(),
            seq: state.seq(),
            request_id: state.request_id().map(ToString::to_string),
            search_attributes: state
                .search_attributes()
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            input: given(state.input()),
            output: state.output().and_then(|output| given(output)),
            failure: state.failure().map(failure_body),
            parked: state.parked_reason().map(ToString::to_string),
            turn: turn(state),
            wake_at: state.wake_at().map(Timestamp::to_utc),
            steps: self.order.iter().map(|path| self.step(state, path)).collect(),
            ledger: state.ledger().iter().map(|entry| self.entry(entry)).collect(),
            tasks: tasks(state),
            waiting: waiting(state),
            signals: signals(state),
            updates: state.open_updates().into_iter().map(update).collect(),
            operations: self.operations.into(),
            limits: limits(state, self.largest),
            past_pivot: self.past_pivot,
            shortened: false,
            left_out: None,
        })
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::ActivityScheduled(scheduled) => {
                self.reach(&scheduled.step);
                let facts = self.facts(&scheduled.step, Direction::Do);
                facts.activity = Some(scheduled.activity.to_string());
                // What waits for a permit is opened later.
                facts.attempts += u32::from(scheduled.task != TaskNo::NONE);
                self.tasks
                    .insert(scheduled.task, (scheduled.step.clone(), Direction::Do));
            }
            Event::StepSkipped { step }
            | Event::VarsSet { step, .. }
            | Event::StepPassed { step }
            | Event::StepCompleted { step, .. }
            | Event::StepFailed { step, .. }
            | Event::StepParked { step, .. }
            | Event::ParallelStarted { step }
            | Event::ForEachStarted { step, .. }
            | Event::TimerSet { step, .. }
            | Event::IterationStarted { step, .. }
            | Event::SignalAwaited { step, .. }
            // A signal that came before its step is taken at once.
            | Event::SignalTaken { step, .. } => self.reach(step),
            Event::PivotCompleted { .. } => self.past_pivot = true,
            Event::Emitted(emitted) => self.reach(&emitted.step),
            Event::MessageSent(sent) => {
                if let Body::StartChild(child) = &*sent.body {
                    self.reach(&child.step);
                }
            }
            Event::TaskOpened {
                task, step, direction, ..
            } => {
                self.facts(step, *direction).attempts += 1;
                self.tasks.insert(*task, (step.clone(), *direction));
            }
            Event::UndoScheduled { step, task, .. } => {
                self.facts(step, Direction::Undo).attempts += u32::from(*task != TaskNo::NONE);
                self.tasks.insert(*task, (step.clone(), Direction::Undo));
            }
            Event::TaskFailed { task, error, .. }
            | Event::TaskUnknown { task, error }
            | Event::TaskTimedOut { task, error }
            | Event::TaskWithdrawn { task, error }
            | Event::TaskLost { task, error } => {
                if let Some((step, direction)) = self.tasks.get(task).cloned() {
                    self.facts(&step, direction).last_failure = Some(error.clone());
                }
            }
            _ => {}
        }
    }

    fn reach(&mut self, step: &StepPath) {
        // The run as a whole is no step of it.
        if !step.as_str().is_empty() && !self.steps.contains_key(step) {
            self.order.push(step.clone());
            self.steps.insert(step.clone(), Facts::default());
        }
    }

    fn facts(&mut self, step: &StepPath, direction: Direction) -> &mut Facts {
        match direction {
            Direction::Do => self.steps.entry(step.clone()).or_default(),
            Direction::Undo => self.undos.entry(step.clone()).or_default(),
        }
    }

    fn step(&self, state: &State, path: &StepPath) -> StepState {
        let facts = self.steps.get(path);
        let waiting = state
            .waiting()
            .find(|(step, _)| *step == path)
            .map(|(_, waiting)| waiting);
        let last = || facts.and_then(|facts| facts.last_failure.as_ref());
        let (status, output, failure) = match state.steps().get(path) {
            Some(Step::Skipped) => ("skipped", None, None),
            Some(Step::Passed) => ("completed", None, None),
            Some(Step::Completed { output }) => ("completed", Some(output), None),
            Some(Step::Failed { outcome, error }) => (outcome_name(*outcome), None, Some(error)),
            None => match waiting {
                Some(Waiting::Operator { error }) => ("parked", None, Some(error)),
                Some(_) => ("waiting", None, None),
                None if !state.is_closed() => ("running", None, last()),
                // A terminated run leaves its steps as they were.
                None => ("abandoned", None, last()),
            },
        };
        StepState {
            path: path.to_string(),
            status: status.to_owned(),
            activity: facts.and_then(|facts| facts.activity.clone()),
            attempts: facts.map_or(0, |facts| facts.attempts),
            output: output
                .filter(|output| !output.is_null())
                .map(|output| (**output).clone()),
            failure: failure.map(failure_body),
        }
    }

    fn entry(&self, entry: &CoreLedgerEntry) -> LedgerEntry {
        let facts = self.undos.get(&entry.step);
        let last = || facts.and_then(|facts| facts.last_failure.as_ref());
        let (status, failure) = match &entry.state {
            UndoState::Dormant => ("dormant", None),
            UndoState::Needed | UndoState::Ready => ("armed", None),
            UndoState::Running => ("undoing", last()),
            UndoState::Parked { error, .. } => ("parked", Some(error)),
            UndoState::Done => ("undone", None),
            UndoState::Skipped => ("skipped", last()),
        };
        LedgerEntry {
            step: entry.step.to_string(),
            activity: entry.undo.as_ref().map(|undo| undo.activity.to_string()),
            child: entry.child.as_ref().map(|child| child.workflow_id.to_string()),
            status: status.to_owned(),
            attempts: facts.map_or(0, |facts| facts.attempts),
            failure: failure.map(failure_body),
        }
    }
}

fn outcome_name(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Failed => "failed",
        StepOutcome::Unknown => "unknown",
        StepOutcome::Cancelled => "cancelled",
    }
}

/// What can be raised, and the largest thing that was said at once beside what a body may have.
fn limits(state: &State, largest: u64) -> Vec<LimitUsage> {
    let of = |name: &str, usage: Usage| LimitUsage {
        limit: name.to_owned(),
        used: usage.used,
        most: usage.limit,
        warning: usage.is_warned_of(),
    };
    let payload = Usage {
        used: largest,
        limit: knarr_core::json::Limits::default().bytes as u64,
    };
    let raisable = Limit::ALL.map(|limit| of(limit.as_str(), state.usage(limit)));
    raisable.into_iter().chain([of("payload", payload)]).collect()
}

/// As far as the run itself knows.
fn turn(state: &State) -> Option<RunTurn> {
    let limit = match state.admission()? {
        // It is told with the attempt.
        Admission::Pause => return None,
        Admission::Id => None,
        Admission::Place => Some(state.place()?.limit.to_string()),
    };
    Some(RunTurn {
        limit,
        open: None,
        waiting: None,
        ahead: None,
    })
}

fn waiting(state: &State) -> Vec<WaitingStep> {
    if state.is_closed() {
        return Vec::new();
    }
    let of = |(step, waiting): (&StepPath, Waiting<'_>)| {
        let (kind, name, due, failure) = match waiting {
            Waiting::Timer { due } => ("timer", None, Some(due), None),
            Waiting::Signal { name, due } => ("signal", Some(name.to_string()), due, None),
            Waiting::Child { workflow_id, .. } => ("child", Some(workflow_id.to_string()), None, None),
            Waiting::Operator { error } => ("operator", None, None, Some(failure_body(error))),
        };
        WaitingStep {
            step: step.to_string(),
            kind: kind.to_owned(),
            name,
            due: due.map(Timestamp::to_utc),
            failure,
        }
    };
    state.waiting().map(of).collect()
}

fn signals(state: &State) -> Vec<WaitingSignal> {
    if state.is_closed() {
        return Vec::new();
    }
    let of = |signal: &Signal| WaitingSignal {
        name: signal.name.to_string(),
        body: given(&signal.body),
    };
    state.signals().iter().map(of).collect()
}

fn update(update: CoreOpenUpdate<'_>) -> OpenUpdate {
    let (status, step) = match &update.stage {
        OpenStage::UnderWay(step) => ("running", Some(step.to_string())),
        OpenStage::Accepted => ("accepted", None),
        OpenStage::PutOff => ("put_off", None),
    };
    OpenUpdate {
        id: update.id.to_string(),
        name: update.name.to_string(),
        input: update.body.and_then(|body| given(body)),
        status: status.to_owned(),
        step,
        waiters: u64::try_from(update.waiters).unwrap_or(u64::MAX),
    }
}

fn given(value: &Value) -> Option<Value> {
    (!value.is_null()).then(|| value.clone())
}

fn tasks(state: &State) -> Vec<OpenTask> {
    if state.is_closed() {
        return Vec::new();
    }
    let of = |direction| {
        state
            .executions(direction)
            .iter()
            .map(move |(step, execution)| task(state, step, direction, execution))
    };
    of(Direction::Do).chain(of(Direction::Undo)).collect()
}

fn task(state: &State, step: &StepPath, direction: Direction, execution: &Execution) -> OpenTask {
    let (number, status, since, due) = match &execution.wait {
        Wait::Task(open) => {
            let cut = open.start_by.into_iter().chain(execution.close_by).min();
            let (status, due) = match open.known {
                _ if open.withdrawn_for.is_some() => ("withdrawn", None),
                // Nobody has taken it: it is not late, and what is due is only a look.
                Known::Offered => ("dispatched", cut),
                Known::Held => ("held", Some(execution.due())),
                Known::Delivered => ("delivered", Some(execution.due())),
                Known::Started if open.later => ("later", Some(execution.due())),
                Known::Started => ("started", Some(execution.due())),
            };
            (Some(open.task), status, Some(open.opened_at), due)
        }
        Wait::Until(at) => (None, "waiting", None, Some(*at)),
        Wait::Permit(_) => (None, "limited", None, None),
        Wait::Decision => (None, "waiting", None, None),
    };
    OpenTask {
        task: number.map(|task| task.0),
        step: step.to_string(),
        activity: execution.activity.to_string(),
        queue: execution.queue.to_string(),
        direction: direction.as_str().to_owned(),
        attempt: execution.attempt,
        max_attempts: execution.max_attempts,
        status: status.to_owned(),
        limit: state.limit_of(execution).map(ToString::to_string),
        since: since.map(Timestamp::to_utc),
        due: due.map(Timestamp::to_utc),
        last_failure: execution.last_error.as_ref().map(failure_body),
        details: execution.details.as_ref().map(|details| Value::clone(details)),
    }
}

pub(super) fn failure_body(failure: &Failure) -> FailureBody {
    FailureBody {
        step: failure.step.as_ref().map(ToString::to_string),
        error_type: failure.error_type.to_string(),
        message: failure.message.to_string(),
    }
}
