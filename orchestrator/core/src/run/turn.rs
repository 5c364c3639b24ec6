//! Changes of a run's status, for those who listen: which there were is part of the state, what is said of each a function of
//! the transition that made it.
//!
//! A transition changes the status at most once, whatever it passes through: that is what was committed. The first one starts
//! the run, and may end it as well. The state keeps what is neither the start nor an end it knows anyway, so that a run
//! which goes straight to its end keeps nothing for this.
//!
//! **Invariant:** the last of the changes is the status ([`super::State::status`]).

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::Value;

use super::event::{Event, Transition};
use super::failure::Failure;
use super::state::{Closed, State};
use super::status::Status;
use crate::ids::RunId;
use crate::time::Timestamp;

/// A change of a run's status.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub seq: u32,
    pub at: Timestamp,
    /// It has just begun.
    pub started: bool,
    pub status: Status,
    /// Why it stops, waits for an operator, or did not complete.
    pub error: Option<Failure>,
    /// Of a run that has completed.
    pub output: Option<Arc<Value>>,
    /// The run that goes on in its place.
    pub successor: Option<RunId>,
}

/// The error type of a run that is parked as a whole.
const PARKED: &str = "parked";

impl State {
    /// Whether a transition in this span has changed the status: then [`turns`] of it are to be told.
    pub fn turned_in(&self, span: &RangeInclusive<u32>) -> bool {
        let closed = self.closed().into_iter().chain(self.reopened.as_deref());
        span.contains(&1)
            || closed.into_iter().any(|closed| span.contains(&closed.seq))
            || self.began_in.is_some_and(|began| span.contains(&began))
            || self.turns.iter().rev().any(|(seq, _)| span.contains(seq))
    }

    /// The status that the run has, as far as it is told before its end.
    pub(super) fn last_turn(&self) -> Status {
        self.turns.last().map_or(Status::Running, |(_, status)| *status)
    }
}

/// How a committed transition changed the run's status, in order; `state` is the one after it, or a later one.
pub fn turns(state: &State, transition: &Transition) -> Vec<Turn> {
    let (seq, at) = (transition.seq, transition.at);
    let turn = |status| Turn {
        seq,
        at,
        started: false,
        status,
        error: None,
        output: None,
        successor: None,
    };
    let mut turns = Vec::new();
    // One that waits is told to have started when it begins.
    let between: Vec<Status> = state
        .turns
        .iter()
        .filter(|(changed, _)| *changed == seq)
        .map(|(_, status)| *status)
        .collect();
    let pauses = seq == 1 && state.attempt_made().is_some();
    let waits = pauses
        || between
            .iter()
            .any(|status| matches!(status, Status::Queued | Status::Waiting));
    let begins = state.began_in == Some(seq);
    if seq == 1 && !waits || begins {
        turns.push(Turn {
            started: true,
            ..turn(Status::Running)
        });
    }
    let between = between
        .into_iter()
        .filter(|status| !begins || *status != Status::Running);
    turns.extend(between.map(|status| Turn {
        error: why(status, &transition.events),
        ..turn(status)
    }));
    let ends = state.reopened.as_deref().into_iter().chain(state.closed());
    turns.extend(ends.filter(|closed| closed.seq == seq).map(|closed| Turn {
        error: closed.error.clone(),
        output: output(closed),
        successor: closed.successor,
        ..turn(closed.status)
    }));
    turns
}

/// That of a run which continues as new is the input of another.
fn output(closed: &Closed) -> Option<Arc<Value>> {
    (closed.status == Status::Completed).then(|| Arc::clone(&closed.output))
}

/// What the events say of it; a run that goes on where it was has no reason to.
fn why(status: Status, events: &[Event]) -> Option<Failure> {
    events.iter().rev().find_map(|event| match (status, event) {
        (
            Status::Compensating,
            Event::RunFailed { error }
            | Event::RunTimedOut { error }
            | Event::CancelRequested { error, .. }
            | Event::RunReopened { error },
        )
        | (Status::Parked, Event::StepParked { error, .. } | Event::UndoParked { error, .. }) => Some(error.clone()),
        (Status::Parked, Event::RunParked { reason }) => Some(Failure::new(PARKED, reason)),
        _ => None,
    })
}

/// What every transition ends with. A snapshot of an earlier version does not know of changes: the first transition after it
/// tells the status once more, if it is another than that of a run which goes straight on.
pub(super) fn note(state: &mut State) {
    let status = state.status();
    if !state.is_closed() && status != state.last_turn() {
        state.turns.push((state.seq, status));
    }
}
