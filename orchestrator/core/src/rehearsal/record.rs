//! What is seen of a run while it is played.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::report::Happening;
use crate::definition::duration;
use crate::ids::{StepPath, TaskNo};
use crate::run::effect::{Direction, Effect};
use crate::run::event::{Resolution, StepOutcome};
use crate::run::message::Body;
use crate::run::{Admission, End, Event, Failure, Transition, error_type};
use crate::time::{Span, Timestamp};

#[derive(Default)]
pub(super) struct Record {
    pub(super) steps: Vec<String>,
    pub(super) skipped: Vec<String>,
    pub(super) undos: Vec<String>,
    /// By `path` or `undo path`.
    pub(super) attempts: BTreeMap<String, u64>,
    pub(super) inputs: BTreeMap<String, Arc<Value>>,
    pub(super) emitted: Vec<(String, Arc<Value>)>,
    pub(super) happened: Vec<Happening>,
    tasks: BTreeMap<TaskNo, String>,
    start: Timestamp,
}

/// `payment`, `undo payment`
pub(super) fn task_name(direction: Direction, step: &StepPath) -> String {
    match direction {
        Direction::Do => step.to_string(),
        Direction::Undo => format!("undo {step}"),
    }
}

impl Record {
    pub(super) fn from(start: Timestamp) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    pub(super) fn say(&mut self, at: Timestamp, what: impl Into<String>) {
        self.happened.push(Happening {
            at_ms: at.since(self.start).as_millis(),
            what: what.into(),
        });
    }

    pub(super) fn transition(&mut self, transition: &Transition) {
        for event in &transition.events {
            if let Some(what) = self.event(transition.at, event) {
                self.say(transition.at, what);
            }
        }
    }

    pub(super) fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Dispatch(dispatch) => {
                let name = task_name(dispatch.direction, &dispatch.step);
                self.attempts.insert(name.clone(), u64::from(dispatch.attempt));
                self.inputs.entry(name).or_insert_with(|| dispatch.input.clone());
            }
            Effect::Send { body, .. } => {
                if let Body::StartChild(start) = &**body {
                    let name = start.step.to_string();
                    self.inputs.entry(name).or_insert_with(|| start.input.clone());
                }
            }
            Effect::Emit { subject, body, .. } => self.emitted.push((subject.to_string(), body.clone())),
            _ => {}
        }
    }

    /// Another attempt of the run: what is told of one is told of the last. What was emitted is.
    pub(super) fn again(&mut self) {
        *self = Self {
            start: self.start,
            emitted: std::mem::take(&mut self.emitted),
            happened: std::mem::take(&mut self.happened),
            ..Self::default()
        };
    }

    fn name(&self, task: TaskNo) -> &str {
        self.tasks.get(&task).map_or("?", String::as_str)
    }

    fn event(&mut self, at: Timestamp, event: &Event) -> Option<String> {
        Some(match event {
            Event::RunStarted(birth) if birth.attempt().is_some() => return None,
            Event::RunStarted(_) => "the run starts".to_owned(),
            Event::RunAdmitted { to: Admission::Pause } => "the next attempt begins".to_owned(),
            Event::RunRetried { attempt, .. } => {
                let (number, pause) = (attempt.number, span(at, attempt.begins_at));
                format!("attempt {number} of the run begins in {pause}")
            }
            Event::RetryWaived { .. } => "the run is cancelled: no other attempt follows".to_owned(),
            Event::StepSkipped { step } => {
                self.skipped.push(step.to_string());
                format!("{step} is skipped")
            }
            Event::ActivityScheduled(scheduled) => {
                let name = scheduled.step.to_string();
                if !self.steps.contains(&name) {
                    self.steps.push(name.clone());
                }
                if scheduled.task != TaskNo::NONE {
                    self.tasks.insert(scheduled.task, name.clone());
                }
                format!("{name} begins ({})", scheduled.activity)
            }
            Event::TaskOpened {
                task,
                step,
                direction,
                attempt,
            } => {
                let name = task_name(*direction, step);
                let first = self.tasks.values().all(|known| *known != name);
                self.tasks.insert(*task, name.clone());
                // It has waited for a permit, which nobody else has here.
                if first {
                    return None;
                }
                format!("{name} again, attempt {attempt}")
            }
            Event::UndoScheduled { step, task, .. } => {
                let name = task_name(Direction::Undo, step);
                self.undo(step);
                if *task != TaskNo::NONE {
                    self.tasks.insert(*task, name.clone());
                }
                format!("{name} begins")
            }
            Event::ChildUndoSent { step, .. } => {
                self.undo(step);
                format!("undo {step} begins (by the child itself)")
            }
            Event::MessageSent(sent) => match &*sent.body {
                Body::StartChild(start) => {
                    self.steps.push(start.step.to_string());
                    format!("{} begins (child {})", start.step, start.workflow)
                }
                _ => return None,
            },
            Event::TaskCompleted { task, .. } => format!("{} completed", self.name(*task)),
            Event::TaskFailed { task, error, .. } => format!("{} failed: {}", self.name(*task), words(error)),
            Event::TaskUnknown { task, error } => format!("{} ended unknown: {}", self.name(*task), words(error)),
            Event::TaskTimedOut { task, .. } => format!("{} timed out", self.name(*task)),
            Event::TaskLost { task, .. } => format!("{} was lost", self.name(*task)),
            Event::TaskWithdrawn { task, error } if *error.error_type == *error_type::CANCELLED => {
                format!("{} is taken out of its queue", self.name(*task))
            }
            Event::TaskWithdrawn { task, .. } => format!("nobody took {} in time", self.name(*task)),
            Event::TaskAbandoned { task } => format!("{} is not waited for", self.name(*task)),
            Event::ScheduleToClosePassed { step, direction, .. } => {
                format!("{} is past its schedule-to-close", task_name(*direction, step))
            }
            Event::TaskCancelled { task } => format!("{} stopped as it was asked to", self.name(*task)),
            Event::TaskDeferred { task, until, .. } => {
                format!("{} asks to be asked again in {}", self.name(*task), span(at, *until))
            }
            Event::RetryScheduled {
                step,
                direction,
                at: then,
                ..
            } => format!("{} is tried again in {}", task_name(*direction, step), span(at, *then)),
            Event::StepFailed { step, outcome, error } => match outcome {
                StepOutcome::Failed => format!("{step} has failed: {}", words(error)),
                StepOutcome::Unknown => format!("{step} may have been done: {}", words(error)),
                StepOutcome::Cancelled => format!("{step} was stopped"),
            },
            Event::StepParked { step, error, .. } => format!("{step} waits for an operator: {}", words(error)),
            Event::UndoParked { step, error, .. } => format!("undo {step} waits for an operator: {}", words(error)),
            Event::UndoResolved { step, how, .. } => match how {
                Resolution::Done => format!("undo {step} is done"),
                Resolution::Skipped => format!("undo {step} is skipped"),
            },
            Event::ErrorCaught { step, catch, error } => {
                format!("{step} catches it (catch {catch}): {}", words(error))
            }
            Event::FinallyStarted { step, .. } => format!("{step} goes into `finally`"),
            Event::ScopeFailed { step, .. } => format!("{step} has failed and undoes what it did"),
            Event::ScopeUndone { step } => format!("{step} has undone what it did"),
            Event::BodiesDiscarded { step, .. } => format!("{step} undoes what is not needed"),
            Event::TimerSet { step, due } => format!("{step} waits for {}", span(at, *due)),
            Event::SignalAwaited { step, signal, .. } => format!("{step} waits for the signal {signal}"),
            Event::SignalReceived(signal) => format!("the signal {} comes", signal.name),
            Event::SignalTaken { step, .. } => format!("{step} takes the signal"),
            Event::HandlerStarted {
                step, index, update, ..
            } => {
                format!(
                    "{step}[{index}] takes the {}",
                    if *update > 0 { "update" } else { "signal" }
                )
            }
            Event::UpdateAccepted(taken) => format!("the update {} is accepted", taken.name),
            Event::UpdatePutOff(taken) => format!("the update {} waits to be decided about", taken.name),
            Event::UpdateAdmitted { id } => format!("the update {id} is accepted"),
            Event::UpdateRefused { id, error } => format!("the update {id} is refused: {}", error.message),
            Event::HandlerEnded { step, index, end, .. } => match end {
                End::Passed => format!("{step}[{index}] has ended"),
                End::Failed(error) => format!("{step}[{index}] has failed: {}", words(error)),
                End::Halted => format!("{step}[{index}] was stopped"),
            },
            Event::MainBodyPassed {} => "the steps have passed; handlers are at work".to_owned(),
            Event::SignalTimedOut { step } => format!("{step} has waited long enough"),
            Event::Emitted(emitted) => format!("{} emits {}", emitted.step, emitted.subject),
            Event::ChildEnded(ended) => format!("{} ends: the child is {}", ended.step, ended.status),
            Event::PivotCompleted { step } => format!("{step} was the pivot: from here only forward"),
            Event::VarsSet { step, .. } => format!("{step} sets variables"),
            Event::RunFailed { error } => format!("the run fails: {}", words(error)),
            Event::RunTimedOut { .. } => "the run is past its timeout".to_owned(),
            Event::CancelRequested { .. } => "the run is cancelled".to_owned(),
            Event::StopDeferred { pivot, .. } => format!("the run is to stop, once it is known what became of {pivot}"),
            Event::RunParked { reason } => format!("the run waits for an operator: {reason}"),
            Event::RunCompleted { .. } => "the run has completed".to_owned(),
            Event::RunClosed { status } => format!("the run is closed: {status}"),
            Event::RunTerminated { .. } => "the run is terminated".to_owned(),
            Event::Schedule(_) => "the schedule goes on".to_owned(),
            Event::Trigger(_) => "the trigger goes on".to_owned(),
            Event::RunContinued { .. } => "the run continues as a new one".to_owned(),
            _ => return None,
        })
    }

    fn undo(&mut self, step: &StepPath) {
        let name = step.to_string();
        if !self.undos.contains(&name) {
            self.undos.push(name);
        }
    }
}

fn words(error: &Failure) -> String {
    if *error.message == *error.error_type {
        return error.error_type.to_string();
    }
    format!("{}: {}", error.error_type, error.message)
}

/// To the millisecond.
fn span(from: Timestamp, to: Timestamp) -> String {
    duration::format(Span::from_millis(to.since(from).as_millis()))
}
