//! The one function that changes a [`State`].
//!
//! Total: an event that does not fit the state changes nothing, so that loading a run never fails on its history.
//! Decides nothing: what an event means never depends on the definition, the clock or the version of the orchestrator.

use std::sync::Arc;

use serde_json::Value;

use super::effect::Direction;
use super::event::{ActivityScheduled, Event, LateOutcome, Resolution, RunStarted, Transition};
use super::execution::{Execution, Known, OpenTask, Wait};
use super::failure::Failure;
use super::input::{AnswerRequest, Operation};
use super::ledger::{LedgerEntry, UndoState};
use super::state::{Closed, Heard, Phase, State, Step, Stop, StopVerb, Task, Waiter, Why};
use super::status::Status;
use crate::ids::{ActivityName, QueueName, StepPath, TaskNo};
use crate::time::{Span, Timestamp};

/// Brings the state from one transition to the next.
pub fn evolve(state: &mut State, transition: &Transition) {
    for event in &transition.events {
        apply_event(state, transition.seq, transition.at, event);
    }
    conclude(state, transition.seq, transition.at);
}

/// What every transition changes, whatever its events.
pub(super) fn conclude(state: &mut State, seq: u32, at: Timestamp) {
    state.seq = seq;
    state.at = at;
}

impl State {
    /// The state after a run's first transition; `None` if that is not the birth of a run.
    pub fn born(transition: &Transition) -> Option<Self> {
        let (Event::RunStarted(birth), rest) = transition.events.split_first()? else {
            return None;
        };
        let mut state = Self::new(birth, transition.seq, transition.at);
        for event in rest {
            apply_event(&mut state, transition.seq, transition.at, event);
        }
        conclude(&mut state, transition.seq, transition.at);
        Some(state)
    }

    pub(super) fn new(birth: &Arc<RunStarted>, seq: u32, at: Timestamp) -> Self {
        let mut state = Self {
            birth: Arc::clone(birth),
            started_at: at,
            seq,
            at,
            phase: Phase::Running,
            parked: None,
            steps: Default::default(),
            doing: Default::default(),
            undoing: Default::default(),
            ledger: Vec::new(),
            tasks: Vec::new(),
            vars: Default::default(),
            waiters: Vec::new(),
            requests: Default::default(),
            stops: Default::default(),
        };
        if let Some(answer) = &birth.answer {
            state.add_waiter(answer, seq);
        }
        state
    }
}

pub(super) fn apply_event(state: &mut State, seq: u32, at: Timestamp, event: &Event) {
    match event {
        // Only ever the first event, which `born` takes.
        Event::RunStarted(_) => {}
        Event::StepSkipped { step } => {
            state.steps.insert(step.clone(), Step::Skipped);
        }
        Event::VarsSet { step, vars } => {
            state
                .vars
                .extend(vars.iter().map(|(name, value)| (name.clone(), value.clone())));
            state.steps.insert(step.clone(), Step::Passed);
        }
        Event::ActivityScheduled(scheduled) => state.schedule_do(scheduled, seq, at),
        Event::TaskOpened {
            task,
            step,
            direction,
            attempt,
        } => {
            if let Some(execution) = state.executions_mut(*direction).get_mut(step) {
                execution.attempt = *attempt;
                execution.wait = offered(*task, seq, at, execution);
                state.add_task(*task, step, *direction);
            }
        }
        Event::DispatchHeld { task, until, in_doubt } => state.with_open_task(*task, |open| {
            open.known = Known::Held;
            open.in_doubt |= in_doubt;
            open.due = *until;
        }),
        Event::TaskOffered { task, offer } => {
            let start_to_close = state.open_task(*task).map(|view| view.execution.start_to_close);
            state.with_open_task(*task, |open| {
                open.seq = seq;
                open.offer = *offer;
                open.known = Known::Offered;
                open.opened_at = at;
                open.due = at.plus(start_to_close.unwrap_or_default());
            });
        }
        Event::TaskStarted { task, at: began } => state.found(*task, Known::Started, *began),
        Event::TaskDelivered { task } => state.found(*task, Known::Delivered, at),
        Event::DeadlineDeferred { task, until } => state.with_open_task(*task, |open| open.due = *until),
        Event::TaskCompleted { task, output } => {
            if let Some((step, direction)) = state.close_task(*task, Heard::Success) {
                state.executions_mut(direction).remove(&step);
                match direction {
                    Direction::Do => {
                        state.steps.insert(step, Step::Completed { output: output.clone() });
                    }
                    Direction::Undo => state.set_entry(&step, UndoState::Done),
                }
            }
        }
        Event::TaskFailed { task, error, not_done } => {
            state.end_attempt(*task, Heard::Other, error, |execution| {
                execution.unknown &= !not_done;
                execution.deferred = false;
            });
        }
        Event::TaskUnknown { task, error } => {
            state.end_attempt(*task, Heard::Other, error, |execution| execution.unknown = true);
        }
        Event::TaskTimedOut { task, error } | Event::TaskLost { task, error } => {
            state.end_attempt(*task, Heard::Nothing, error, |execution| execution.unknown = true);
        }
        Event::TaskCancelled { task } => {
            let error = Failure::cancelled("the worker stopped the task");
            state.end_attempt(*task, Heard::Other, &error, |execution| execution.deferred = false);
        }
        Event::TaskDeferred { task, until } => {
            if let Some((step, direction)) = state.close_task(*task, Heard::Other)
                && let Some(execution) = state.executions_mut(direction).get_mut(&step)
            {
                execution.deferred = true;
                execution.wait = Wait::Until(*until);
            }
        }
        Event::RetryScheduled {
            step,
            direction,
            attempt,
            at,
        } => {
            if let Some(execution) = state.executions_mut(*direction).get_mut(step) {
                execution.attempt = *attempt;
                execution.deferred = false;
                execution.wait = Wait::Until(*at);
            }
        }
        Event::StepFailed { step, outcome, error } => {
            state.doing.remove(step);
            let failed = Step::Failed {
                outcome: *outcome,
                error: error.clone(),
            };
            state.steps.insert(step.clone(), failed);
        }
        Event::UndoReady { step, input } => {
            if let Some(entry) = state.entry_mut(step) {
                entry.input = input.clone();
                entry.state = UndoState::Ready;
            }
        }
        Event::UndoNeeded { step } => state.set_entry(step, UndoState::Needed),
        Event::UndoScheduled {
            step,
            task,
            start_to_close,
            max_attempts,
        } => {
            if let Some(entry) = state.entry_mut(step) {
                entry.state = UndoState::Running;
                let call = (&entry.undo.activity, &entry.undo.queue, &entry.input);
                let mut execution = unopened(call, *start_to_close, *max_attempts);
                execution.wait = offered(*task, seq, at, &execution);
                state.undoing.insert(step.clone(), execution);
                state.add_task(*task, step, Direction::Undo);
            }
        }
        Event::UndoParked { step, error } => {
            state.undoing.remove(step);
            if let Some(entry) = state.entry_mut(step) {
                let prepared = matches!(entry.state, UndoState::Ready | UndoState::Running);
                let error = error.clone();
                entry.state = UndoState::Parked { error, prepared };
            }
        }
        Event::UndoResumed { step, operation } => {
            state.remember(operation);
            if let Some(entry) = state.entry_mut(step) {
                entry.state = UndoState::Ready;
                entry.resumed = true;
            }
        }
        Event::UndoResolved { step, how, operation } => {
            state.remember(operation);
            state.undoing.remove(step);
            let resolved = match how {
                Resolution::Done => UndoState::Done,
                Resolution::Skipped => UndoState::Skipped,
            };
            state.set_entry(step, resolved);
        }
        Event::RunFailed { error } => state.stop(Why::Failed, error, seq),
        Event::RunTimedOut { error } => state.stop(Why::TimedOut, error, seq),
        Event::CancelRequested { error, operation } => {
            state.remember_stop(StopVerb::Cancel, operation);
            state.parked = None;
            state.stop(Why::Cancelled, error, seq);
        }
        Event::RunParked { reason } => state.parked = Some(reason.clone()),
        Event::RunResumed { operation } => {
            state.remember(operation);
            state.parked = None;
        }
        Event::Awaited(request) => state.add_waiter(request, seq),
        Event::LateResult(late) => state.hear_late(late.task, late.outcome),
        Event::RunCompleted { output } => {
            state.phase = Phase::Closed(Closed {
                status: Status::Completed,
                at,
                seq,
                output: output.clone(),
                error: None,
            });
        }
        Event::RunClosed { status } => {
            let error = state.failure().cloned();
            state.close(*status, error, seq, at);
        }
        Event::RunTerminated { error, operation } => {
            state.remember_stop(StopVerb::Terminate, operation);
            state.parked = None;
            let error = state.failure().unwrap_or(error).clone();
            state.close(Status::Terminated, Some(error), seq, at);
        }
    }
}

/// An execution before its first task.
fn unopened(
    call: (&ActivityName, &QueueName, &Arc<Value>),
    start_to_close: Span,
    max_attempts: Option<u32>,
) -> Execution {
    let (activity, queue, input) = call;
    Execution {
        activity: activity.clone(),
        queue: queue.clone(),
        input: input.clone(),
        start_to_close,
        max_attempts,
        attempt: 1,
        unknown: false,
        deferred: false,
        succeeded_late: false,
        last_error: None,
        wait: Wait::Decision,
    }
}

fn offered(task: TaskNo, seq: u32, at: Timestamp, execution: &Execution) -> Wait {
    Wait::Task(OpenTask {
        task,
        seq,
        opened_at: at,
        offer: 0,
        known: Known::Offered,
        in_doubt: false,
        due: at.plus(execution.start_to_close),
    })
}

impl State {
    fn schedule_do(&mut self, scheduled: &ActivityScheduled, seq: u32, at: Timestamp) {
        let call = (&scheduled.activity, &scheduled.queue, &scheduled.input);
        let mut execution = unopened(call, scheduled.start_to_close, scheduled.max_attempts);
        execution.wait = offered(scheduled.task, seq, at, &execution);
        self.doing.insert(scheduled.step.clone(), execution);
        self.add_task(scheduled.task, &scheduled.step, Direction::Do);
        if let Some(undo) = &scheduled.undo {
            self.ledger.push(LedgerEntry {
                step: scheduled.step.clone(),
                undo: undo.clone(),
                input: Arc::default(),
                state: UndoState::Dormant,
                resumed: false,
            });
        }
    }

    fn add_task(&mut self, task: TaskNo, step: &StepPath, direction: Direction) {
        debug_assert_eq!(task, self.next_task(), "tasks are numbered without gaps");
        self.tasks.push(Task {
            step: step.clone(),
            direction,
            heard: Heard::Nothing,
        });
    }

    fn with_open_task(&mut self, task: TaskNo, change: impl FnOnce(&mut OpenTask)) {
        let Some((step, direction)) = self.task(task).map(|task| (task.step.clone(), task.direction)) else {
            return;
        };
        if let Some(open) = self
            .executions_mut(direction)
            .get_mut(&step)
            .and_then(|execution| execution.open_task_mut(task))
        {
            change(open);
        }
    }

    /// Start-to-close counts from `began`.
    fn found(&mut self, task: TaskNo, known: Known, began: Timestamp) {
        let start_to_close = self.open_task(task).map(|view| view.execution.start_to_close);
        self.with_open_task(task, |open| {
            open.known = known;
            open.due = began.plus(start_to_close.unwrap_or_default());
        });
    }

    /// Notes what a worker said and names the activity, if the task was still open.
    fn close_task(&mut self, task: TaskNo, heard: Heard) -> Option<(StepPath, Direction)> {
        self.open_task(task)?;
        let task = self.task_mut(task)?;
        if heard != Heard::Nothing {
            task.heard = heard;
        }
        Some((task.step.clone(), task.direction))
    }

    fn end_attempt(&mut self, task: TaskNo, heard: Heard, error: &Failure, change: impl FnOnce(&mut Execution)) {
        if let Some((step, direction)) = self.close_task(task, heard)
            && let Some(execution) = self.executions_mut(direction).get_mut(&step)
        {
            execution.last_error = Some(error.clone());
            execution.wait = Wait::Decision;
            change(execution);
        }
    }

    fn hear_late(&mut self, task: TaskNo, outcome: LateOutcome) {
        let success = outcome == LateOutcome::Completed;
        let Some(closed) = self.task_mut(task) else {
            return;
        };
        closed.heard = if success { Heard::Success } else { Heard::Other };
        let (step, direction) = (closed.step.clone(), closed.direction);
        if success && let Some(execution) = self.executions_mut(direction).get_mut(&step) {
            execution.succeeded_late = true;
        }
    }

    fn set_entry(&mut self, step: &StepPath, to: UndoState) {
        if let Some(entry) = self.entry_mut(step) {
            entry.state = to;
        }
    }

    fn stop(&mut self, why: Why, error: &Failure, seq: u32) {
        if self.is_running() {
            let error = error.clone();
            self.phase = Phase::Stopping(Stop { why, error, seq });
        }
    }

    fn close(&mut self, status: Status, error: Option<Failure>, seq: u32, at: Timestamp) {
        self.phase = Phase::Closed(Closed {
            status,
            at,
            seq,
            output: Arc::default(),
            error,
        });
    }

    fn add_waiter(&mut self, request: &AnswerRequest, seq: u32) {
        self.waiters.push(Waiter {
            to: request.to.clone(),
            on: request.on,
            seq,
        });
    }

    fn remember(&mut self, operation: &Operation) {
        if let Some(request) = &operation.request_id {
            self.requests.insert(request.clone());
        }
    }

    fn remember_stop(&mut self, verb: StopVerb, operation: &Operation) {
        if let Some(request) = &operation.request_id {
            self.stops.entry(verb).or_default().insert(request.clone());
        }
    }
}
