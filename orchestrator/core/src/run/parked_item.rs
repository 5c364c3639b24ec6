//! What waits for an operator, as a list shows it.

use std::sync::Arc;

use serde_json::Value;

use super::effect::Direction;
use super::failure::Failure;
use super::ledger::UndoState;
use super::open::Open;
use super::state::State;
use crate::ids::{ActivityName, StepPath, WorkflowId};
use crate::time::Timestamp;

/// One thing that an operator can decide about.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedItem<'a> {
    pub what: ParkedWhat<'a>,
    /// Not known of what earlier versions parked.
    pub since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ParkedWhat<'a> {
    /// The run as a whole, and why.
    Run {
        reason: &'a Arc<str>,
    },
    Step(ParkedStep<'a>),
}

/// A forward step, or the undo of one.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedStep<'a> {
    pub step: &'a StepPath,
    pub direction: Direction,
    /// `None`: the step is no activity, was never dispatched, or was parked by an earlier version.
    pub activity: Option<&'a ActivityName>,
    /// Of a step that is a child workflow.
    pub child: Option<&'a WorkflowId>,
    pub attempts: u32,
    /// As it was evaluated; `None` where it never was.
    pub input: Option<&'a Arc<Value>>,
    pub error: &'a Failure,
}

impl State {
    /// Everything that waits for an operator: the run as a whole first, then steps by path, then undos in the order of the
    /// steps' dispatch. Nothing in a closed run.
    pub fn parked_items(&self) -> Vec<ParkedItem<'_>> {
        if self.is_closed() {
            return Vec::new();
        }
        let run = self.parked.iter().map(|reason| ParkedItem {
            what: ParkedWhat::Run { reason },
            since: self.parked_at,
        });
        let steps = self.open.iter().filter_map(|(step, open)| match open {
            Open::Parked { error, since, call } => Some(ParkedItem {
                what: ParkedWhat::Step(ParkedStep {
                    step,
                    direction: Direction::Do,
                    activity: call.as_ref().map(|call| &call.activity),
                    child: self.child_of(step),
                    attempts: self.attempts(step, Direction::Do),
                    input: call.as_ref().map(|call| &call.input),
                    error,
                }),
                since: *since,
            }),
            _ => None,
        });
        let undos = self.ledger.iter().filter_map(|entry| match &entry.state {
            UndoState::Parked { error, prepared, since } => Some(ParkedItem {
                what: ParkedWhat::Step(ParkedStep {
                    step: &entry.step,
                    direction: Direction::Undo,
                    activity: entry.undo.as_ref().map(|undo| &undo.activity),
                    child: self.child_of(&entry.step),
                    attempts: self.attempts(&entry.step, Direction::Undo),
                    input: (*prepared && entry.undo.is_some()).then_some(&entry.input),
                    error,
                }),
                since: *since,
            }),
            _ => None,
        });
        run.chain(steps).chain(undos).collect()
    }

    fn child_of(&self, step: &StepPath) -> Option<&WorkflowId> {
        self.entry(step)?.child.as_ref().map(|child| &child.workflow_id)
    }

    /// Tasks that were given out for it.
    fn attempts(&self, step: &StepPath, direction: Direction) -> u32 {
        let tasks = self.tasks.iter();
        let of_step = tasks.filter(|task| task.direction == direction && task.step == *step);
        u32::try_from(of_step.count()).unwrap_or(u32::MAX)
    }
}
