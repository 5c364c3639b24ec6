//! What events change in a [`State`], piece by piece; used by [`super::evolve`] alone.

use std::sync::Arc;

use serde_json::Value;

use super::effect::Direction;
use super::event::{ActivityScheduled, ChildEnded, LateOutcome, StepOutcome, UndoCall};
use super::execution::{Execution, Known, OpenTask, Wait};
use super::failure::Failure;
use super::input::AnswerRequest;
use super::ledger::{ChildToUndo, LedgerEntry, UndoState};
use super::limits::MAX_REFUSED_STARTS;
use super::mail::RefusedStart;
use super::message::{Answer, Body, Recipient, StartChild};
use super::open::{Child, Open};
use super::path::is_within;
use super::state::{Closed, Heard, Phase, State, Step, Stop, Task, Waiter, Why};
use super::status::Status;
use crate::definition::plan::{Cancellation, Timeouts};
use crate::ids::{ActivityName, MessageNo, QueueName, StepPath, TaskNo};
use crate::time::{Span, Timestamp};

/// An execution before its first task.
pub(super) fn unopened(
    call: (&ActivityName, &QueueName, &Arc<Value>),
    (start_to_close, timeouts): (Span, Timeouts),
    max_attempts: Option<u32>,
    at: Timestamp,
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
        limits: None,
        wait: Wait::Decision,
        timeouts,
        cancellation: Cancellation::default(),
        close_by: timeouts.schedule_to_close.map(|span| at.plus(span)),
        details: None,
    }
}

pub(super) fn offered(task: TaskNo, seq: u32, at: Timestamp, execution: &Execution) -> Wait {
    Wait::Task(OpenTask {
        task,
        seq,
        opened_at: at,
        offer: 0,
        known: Known::Offered,
        in_doubt: false,
        due: at.plus(execution.first_look()),
        start_by: execution.timeouts.schedule_to_start.map(|span| at.plus(span)),
        beat_by: None,
        silent_at: None,
        later: false,
        claimed: None,
        withdrawn_for: None,
    })
}

impl State {
    pub(super) fn schedule_do(&mut self, scheduled: &ActivityScheduled, seq: u32, at: Timestamp) {
        let call = (&scheduled.activity, &scheduled.queue, &scheduled.input);
        let timeouts = (scheduled.start_to_close, scheduled.timeouts);
        let mut execution = unopened(call, timeouts, scheduled.max_attempts, at);
        execution.cancellation = scheduled.cancellation;
        execution.limits.clone_from(&scheduled.limits);
        execution.unknown = scheduled.may_be_done;
        if scheduled.task != TaskNo::NONE {
            execution.wait = offered(scheduled.task, seq, at, &execution);
            self.add_task(scheduled.task, &scheduled.step, Direction::Do);
        }
        self.doing.insert(scheduled.step.clone(), execution);
        if let Some(undo) = &scheduled.undo {
            self.add_entry(&scheduled.step, Some(undo.clone()), None);
            if let Some(entry) = self.entry_mut(&scheduled.step) {
                entry.limits.clone_from(&scheduled.limits);
            }
        }
    }

    pub(super) fn add_entry(&mut self, step: &StepPath, undo: Option<UndoCall>, child: Option<ChildToUndo>) {
        // What an operator has had tried again is entered a second time, and a step has one entry: the one it had if it
        // may have been done before, which no later failure takes back.
        if self.steps.remove(step).is_some() {
            let is_over =
                |state: &UndoState| matches!(state, UndoState::Dormant | UndoState::Done | UndoState::Skipped);
            self.ledger
                .retain(|entry| entry.step != *step || !is_over(&entry.state));
            if self.entry(step).is_some() {
                return;
            }
        }
        self.ledger.push(LedgerEntry {
            step: step.clone(),
            undo,
            child,
            limits: None,
            input: Arc::default(),
            state: UndoState::Dormant,
            resumed: false,
            discarded: false,
        });
    }

    pub(super) fn end_step(&mut self, step: &StepPath, end: Step) {
        self.open.remove(step);
        self.steps.insert(step.clone(), end);
    }

    /// What these bodies did is undone whatever becomes of the run.
    pub(super) fn discard(&mut self, bodies: &[StepPath]) {
        let within = |step: &StepPath| bodies.iter().any(|body| is_within(step.as_str(), body.as_str()));
        for entry in self.ledger.iter_mut().filter(|entry| within(&entry.step)) {
            entry.discarded = true;
        }
    }

    pub(super) fn child_sent(&mut self, message: MessageNo, to: &Recipient, start: &StartChild) {
        let child = Child {
            run: start.run_id,
            message,
            to: to.clone(),
            parent_close: start.parent_close,
            detached: start.detached,
            started: false,
            stopping: false,
        };
        self.open.insert(start.step.clone(), Open::Child(child));
        if !start.detached {
            let child = ChildToUndo {
                workflow: start.workflow.clone(),
                workflow_id: to.workflow_id.clone(),
                run: start.run_id,
                undo: None,
            };
            self.add_entry(&start.step, None, Some(child));
        }
    }

    /// What is said of a message that is not pending may count for another one.
    pub(super) fn message_answered(&mut self, number: MessageNo, answer: &Answer) {
        let Some(pending) = self.mail.outbox.remove(&number) else {
            if let Some(refused) = self.mail.refused.get_mut(&number) {
                refused.started = *answer == Answer::Accepted;
            } else if let Answer::Granted { .. } = answer {
                self.mail.granted_again.insert(number);
            }
            return;
        };
        let start = match &*pending.body {
            Body::StartChild(start) => start,
            Body::Ask(ask) if ask.is_of_run() => return self.place_decided(answer),
            Body::Ask(ask) => return self.permit_granted(number, ask),
            _ => return,
        };
        if self.is_actor() {
            if let Answer::Refused { .. } = answer {
                let (to, started) = (pending.to, false);
                self.mail.refused.insert(number, RefusedStart { to, started });
                if self.mail.refused.len() > MAX_REFUSED_STARTS {
                    self.mail.refused.pop_first();
                }
            } else if let Some(schedule) = &mut self.schedule
                && *answer == Answer::Accepted
            {
                schedule.accepted(start.run_id);
            }
            return;
        }
        match answer {
            Answer::Granted { .. } | Answer::Occupied { .. } => {}
            Answer::Accepted => {
                if let Some(Open::Child(child)) = self.open.get_mut(&start.step)
                    && child.message == number
                {
                    child.started = true;
                }
            }
            Answer::Refused { .. } => {
                let (to, started) = (pending.to, false);
                self.mail.refused.insert(number, RefusedStart { to, started });
            }
        }
    }

    pub(super) fn child_ended(&mut self, ended: &ChildEnded) {
        let end = match &ended.error {
            None => Step::Completed {
                output: ended.output.clone(),
            },
            Some(error) => Step::Failed {
                outcome: if ended.status == Status::Cancelled {
                    StepOutcome::Cancelled
                } else {
                    StepOutcome::Failed
                },
                error: error.clone(),
            },
        };
        self.end_step(&ended.step, end);
        if let Some(entry) = self.entry_mut(&ended.step) {
            if let Some(child) = &mut entry.child {
                child.run = ended.run;
            }
            // One for which there was no room has done nothing: there is nothing to undo.
            if ended.error.is_none() && ended.status != Status::Skipped {
                entry.state = UndoState::Ready;
            }
        }
    }

    pub(super) fn add_task(&mut self, task: TaskNo, step: &StepPath, direction: Direction) {
        debug_assert_eq!(task, self.next_task(), "tasks are numbered without gaps");
        self.tasks.push(Task {
            step: step.clone(),
            direction,
            heard: Heard::Nothing,
            abandoned: false,
        });
    }

    pub(super) fn with_open_task(&mut self, task: TaskNo, change: impl FnOnce(&mut OpenTask)) {
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

    /// Start-to-close and the silence of its worker count from `began`; nobody takes it out of its queue any more.
    pub(super) fn found(&mut self, task: TaskNo, known: Known, began: Timestamp) {
        let Some((start_to_close, heartbeat)) = self.limits_of(task) else {
            return;
        };
        self.with_open_task(task, |open| {
            open.known = known;
            open.due = began.plus(start_to_close);
            open.beat_by = heartbeat.map(|silence| began.plus(silence));
            open.withdrawn_for = None;
        });
    }

    /// Start-to-close and heartbeat timeout of an open task.
    fn limits_of(&self, task: TaskNo) -> Option<(Span, Option<Span>)> {
        let execution = self.open_task(task)?.execution;
        Some((execution.start_to_close, execution.timeouts.heartbeat))
    }

    /// Its worker was heard of.
    pub(super) fn beaten(&mut self, task: TaskNo, at: Timestamp, details: Option<&Arc<Value>>) {
        let Some((_, heartbeat)) = self.limits_of(task) else {
            return;
        };
        self.with_execution_of(task, |execution| {
            if let Some(details) = details {
                execution.details = Some(Arc::clone(details));
            }
        });
        self.with_open_task(task, |open| {
            open.beat_by = heartbeat.map(|silence| at.plus(silence));
            open.silent_at = None;
        });
    }

    pub(super) fn with_execution_of(&mut self, task: TaskNo, change: impl FnOnce(&mut Execution)) {
        let Some((step, direction)) = self.task(task).map(|task| (task.step.clone(), task.direction)) else {
            return;
        };
        if let Some(execution) = self.executions_mut(direction).get_mut(&step)
            && execution.open_task_mut(task).is_some()
        {
            change(execution);
        }
    }

    /// Notes what a worker said and names the activity, if the task was still open.
    pub(super) fn close_task(&mut self, task: TaskNo, heard: Heard) -> Option<(StepPath, Direction)> {
        self.open_task(task)?;
        let task = self.task_mut(task)?;
        if heard != Heard::Nothing {
            task.heard = heard;
        }
        Some((task.step.clone(), task.direction))
    }

    pub(super) fn end_attempt(
        &mut self,
        task: TaskNo,
        heard: Heard,
        error: &Failure,
        change: impl FnOnce(&mut Execution),
    ) {
        if let Some((step, direction)) = self.close_task(task, heard)
            && let Some(execution) = self.executions_mut(direction).get_mut(&step)
        {
            execution.last_error = Some(error.clone());
            execution.wait = Wait::Decision;
            change(execution);
        }
    }

    pub(super) fn task_deferred(&mut self, task: TaskNo, until: Timestamp, in_doubt: bool) {
        if let Some((step, direction)) = self.close_task(task, Heard::Other)
            && let Some(execution) = self.executions_mut(direction).get_mut(&step)
        {
            execution.deferred = true;
            execution.unknown |= in_doubt;
            execution.wait = Wait::Until(until);
        }
    }

    pub(super) fn hear_late(&mut self, task: TaskNo, outcome: LateOutcome) {
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

    pub(super) fn set_entry(&mut self, step: &StepPath, to: UndoState) {
        if let Some(entry) = self.entry_mut(step) {
            entry.state = to;
        }
    }

    pub(super) fn stop(&mut self, why: Why, error: &Failure, seq: u32) {
        if self.is_running() {
            let error = error.clone();
            self.phase = Phase::Stopping(Stop { why, error, seq });
            self.exit = None;
            self.deferred = None;
        }
    }

    pub(super) fn close(&mut self, status: Status, error: Option<Failure>, seq: u32, at: Timestamp) {
        self.phase = Phase::Closed(Closed {
            status,
            at,
            seq,
            output: Arc::default(),
            error,
            successor: None,
            attempt: None,
        });
    }

    pub(super) fn add_waiter(&mut self, request: &AnswerRequest, seq: u32) {
        self.waiters.push(Waiter {
            to: request.to.clone(),
            on: request.on,
            seq,
        });
    }
}
