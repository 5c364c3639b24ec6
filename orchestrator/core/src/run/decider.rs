//! The working half of `apply`: decides, emits events, and sees their effect on the state at once.
//!
//! Containers are not called recursively: entering a step and the end of a step are entries of a work list, so that no
//! definition is too long for the stack.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::Direction;
use super::event::{Event, StepOutcome, Transition};
use super::failure::Failure;
use super::permit::QueueLimits;
use super::scope::RunScope;
use super::state::State;
use super::{
    admission, again, blocked, child, compensation, ending, event, evolve, handler, permit, pivot, tree, update,
    workflow,
};
use crate::definition::plan::{Activity, Call, NodeId, NodeKind, Plan, Undo};
use crate::ids::StepPath;
use crate::time::Timestamp;

/// So many values of the largest size may be decided on before anybody looks at what they come to.
const MEASURED_AT_ONCE: usize = 16;

pub(super) struct Decider<'a> {
    pub(super) plan: &'a Plan,
    pub(super) state: &'a mut State,
    /// Of the transition being made.
    pub(super) at: Timestamp,
    /// Of the run's namespace.
    pub(super) queues: &'a QueueLimits,
    pub(super) seq: u32,
    events: Vec<Event>,
    /// How many of them have been measured, and what they come to.
    measured: (usize, u64),
    work: VecDeque<Work>,
}

/// A step to enter, or one that has ended and whose container is to be told.
#[derive(Debug)]
pub(super) enum Work {
    Enter { node: NodeId, path: StepPath },
    Ended { node: NodeId, path: StepPath, end: End },
}

/// What a container is told of a child.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Completed, skipped, or not successful in a way that does not matter.
    #[default]
    Passed,
    Failed(Failure),
    /// Stopped from outside: the container, or one around it, goes on without it.
    Halted,
}

impl<'a> Decider<'a> {
    /// Time never goes back for a run.
    pub(super) fn new(plan: &'a Plan, state: &'a mut State, at: Timestamp, queues: &'a QueueLimits) -> Self {
        Self {
            plan,
            queues,
            at: at.max(state.at),
            seq: state.seq.saturating_add(1),
            events: Vec::with_capacity(4),
            measured: (0, 0),
            work: VecDeque::new(),
            state,
        }
    }

    /// Goes on with the birth of a run, which the state was made of.
    pub(super) fn of_birth(plan: &'a Plan, state: &'a mut State, birth: Event, queues: &'a QueueLimits) -> Self {
        let mut events = Vec::with_capacity(4);
        events.push(birth);
        Self {
            plan,
            queues,
            at: state.at,
            seq: state.seq,
            events,
            measured: (0, 0),
            work: VecDeque::new(),
            state,
        }
    }

    pub(super) fn emit(&mut self, event: Event) {
        evolve::apply_event(self.state, self.seq, self.at, &event);
        self.events.push(event);
    }

    pub(super) fn push(&mut self, work: Work) {
        self.work.push_back(work);
    }

    /// Of the transition being made.
    pub(super) fn events_so_far(&self) -> &[Event] {
        &self.events
    }

    /// Of the events so far, in bytes, except for the last few: a transition of few events is measured when it is written.
    pub(super) fn bytes_so_far(&mut self) -> u64 {
        let (count, _) = self.measured;
        if self.events.len() >= count + MEASURED_AT_ONCE {
            self.measured.1 += event::text_of(&self.events[count..]).len() as u64;
            self.measured.0 = self.events.len();
        }
        self.measured.1
    }

    /// What expressions at a place see.
    pub(super) fn scope<'s>(&'s self, at: &'s StepPath) -> RunScope<'s> {
        RunScope::new(self.plan, self.state, at)
    }

    /// Tells a step's container that it has ended well.
    pub(super) fn passed(&mut self, node: NodeId, path: StepPath) {
        let end = End::Passed;
        self.push(Work::Ended { node, path, end });
    }

    pub(super) fn completed(&mut self, node: NodeId, path: StepPath, output: Arc<Value>) {
        self.emit(Event::StepCompleted {
            step: path.clone(),
            output,
        });
        self.passed(node, path);
    }

    /// Ends a container that has something to remember and was halted.
    pub(super) fn halted(&mut self, node: NodeId, path: StepPath) {
        self.emit(Event::StepFailed {
            step: path.clone(),
            outcome: StepOutcome::Cancelled,
            error: Failure::not_needed().at(&path),
        });
        let end = End::Halted;
        self.push(Work::Ended { node, path, end });
    }

    /// Walks the tree until everything that can go on has gone on.
    pub(super) fn settle(&mut self) {
        loop {
            // Before a step may end the run.
            update::decide(self);
            pivot::resolve(self);
            while let Some(work) = self.work.pop_front() {
                if self.state.is_closed() {
                    self.work.clear();
                    break;
                }
                match work {
                    Work::Enter { node, path } => tree::enter(self, node, path),
                    Work::Ended { node, path, end } => tree::ended(self, node, &path, end),
                }
            }
            handler::offer(self);
            compensation::advance(self);
            blocked::go_on(self);
            if self.work.is_empty() && !handler::complete(self) {
                break;
            }
        }
        ending::leave(self);
    }

    /// `None` if nothing was decided.
    pub(super) fn finish(self) -> Option<Transition> {
        if self.events.is_empty() {
            return None;
        }
        Some(self.conclude())
    }

    pub(super) fn conclude(mut self) -> Transition {
        if self.state.closed().is_some_and(|closed| closed.seq == self.seq) {
            again::decide(&mut self);
            workflow::parent_closed(&mut self);
            child::tell_parent(&mut self);
        }
        admission::give_back(&mut self);
        permit::give_back(&mut self);
        let mut body = event::text_of(&self.events);
        if blocked::park_if_full(&mut self, body.len() as u64) {
            body = event::text_of(&self.events);
        }
        let transition = Transition::written(self.seq, self.at, self.events, body);
        evolve::conclude(self.state, &transition);
        transition
    }

    /// The activity at a path. A path that the plan does not have parks the run: it was given another definition than the
    /// one it was started with.
    pub(super) fn activity(&mut self, step: &StepPath) -> Option<(NodeId, &'a Activity)> {
        let found = tree::find(self.plan, step.as_str()).and_then(|node| match &self.plan.node(node).kind {
            NodeKind::Activity(activity) => Some((node, &**activity)),
            _ => None,
        });
        if found.is_none() {
            self.park_for_lack_of("activity", step);
        }
        found
    }

    /// What a do or an undo calls; parks the run like [`Self::activity`].
    pub(super) fn call(&mut self, step: &StepPath, direction: Direction) -> Option<&'a Call> {
        let (_, activity) = self.activity(step)?;
        match (direction, &activity.undo) {
            (Direction::Do, _) => Some(&activity.call),
            (Direction::Undo, Undo::Compensate(call)) => Some(call),
            (Direction::Undo, Undo::ReadOnly | Undo::None { .. }) => {
                self.park_for_lack_of("undo", step);
                None
            }
        }
    }

    pub(super) fn park_for_lack_of(&mut self, what: &str, step: &StepPath) {
        if self.state.parked.is_none() {
            self.emit(Event::RunParked {
                reason: Arc::from(format!("the definition has no {what} at `{step}`")),
            });
        }
    }
}
