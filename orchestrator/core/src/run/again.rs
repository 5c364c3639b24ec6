//! Retry of a run (`retry:` of a definition): one that has ended without success is followed by another attempt.
//!
//! | the run ends | followed |
//! |---|---|
//! | `failed`, `compensated`, `timed_out` | while attempts remain, unless the type of its error is excluded |
//! | the same, and somebody has asked to cancel it while it was undoing | no |
//! | the same before it had begun: there was no place for it, or its time was over in line for one or for its workflow id | no: there was no attempt |
//! | the same, undone because its parent failed | no: it had completed |
//! | otherwise | no |
//!
//! An attempt is a run of its own: a successor, as of *continue as new* ([`super::message`]), with the input and the version of
//! the run it follows. It has the workflow id, the place, those who wait for the end, the parent and the signals from the
//! moment the other has closed, and begins when its pause has passed ([`super::admission`]). Everything that an attempt did it has
//! undone before the next one is made, and keys contain the run, so that an attempt repeats nothing of another.
//!
//! The model is Temporal's retry policy of workflow executions: the same fields and defaults, `maximum_attempts` counts the
//! first, and the error that an activity must not be retried for does not keep its run from being retried. A pause is a second
//! at least.

use serde::{Deserialize, Serialize};

use super::apply;
use super::decider::Decider;
use super::effect::Direction;
use super::event::{Event, RunStarted};
use super::input::Operation;
use super::keys::successor_run_id;
use super::retry::{Ended, Seed, pause};
use super::state::{State, Why};
use super::status::Status;
use crate::ids::{RunId, StepPath};
use crate::time::{Span, Timestamp};

/// Between two attempts, whatever the policy says: one that fails at once, and is tried without limit, would follow upon itself as fast
/// as batches are committed.
const SHORTEST_PAUSE: Span = Span::from_secs(1);

/// Which attempt a run is, in its birth; absent = the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1, which is the first run.
    pub number: u32,
    /// How many there may be; `None` = any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// The first one.
    pub first: RunId,
    /// Not before.
    pub begins_at: Timestamp,
}

impl RunStarted {
    /// Of one that is not the first.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        self.continues.as_ref()?.attempt.as_ref()
    }

    /// The end of the pause before it, of an attempt that is not the first, or of a start that was to begin later.
    pub(crate) fn paused_until(&self) -> Option<Timestamp> {
        self.attempt().map(|attempt| attempt.begins_at).or(self.begins_at)
    }
}

/// The last thing that a run decides: whether it is followed. It has closed in this transition.
pub(super) fn decide(d: &mut Decider<'_>) {
    let Some(attempt) = next(d) else { return };
    let successor = successor_run_id(d.state.run_id(), d.at);
    // One that its definition would refuse, for the run has moved to another version, is none.
    let start = d.state.attempted(successor, attempt.clone());
    if apply::birth(d.plan, start, d.at).is_ok() {
        d.emit(Event::RunRetried { successor, attempt });
    }
}

fn next(d: &Decider<'_>) -> Option<Attempt> {
    let policy = d.plan.retry.as_deref()?;
    let (state, closed) = (&*d.state, d.state.closed()?);
    let unsuccessful = matches!(closed.status, Status::Failed | Status::Compensated | Status::TimedOut);
    if !unsuccessful || state.retry_waived || state.reopened.is_some() || state.admission.is_some() {
        return None;
    }
    let root = StepPath::new("");
    let seed = Seed {
        run: state.run_id(),
        step: &root,
        direction: Direction::Do,
        attempt: state.attempt(),
    };
    let ended = Ended {
        worker_type: closed.error.as_ref().map(|error| &*error.error_type),
        ..Ended::SILENT
    };
    Some(Attempt {
        number: state.attempt().saturating_add(1),
        most: policy.maximum_attempts,
        first: state.first_attempt(),
        begins_at: d.at.plus(pause(policy, seed, ended)?.max(SHORTEST_PAUSE)),
    })
}

/// A run that is stopping for another reason was asked to cancel: it is not tried again.
pub(super) fn waive(d: &mut Decider<'_>, operation: &Operation) {
    let stops = match (&d.state.deferred, d.state.is_stopping()) {
        (Some(deferred), _) => deferred.why != Why::Cancelled,
        (None, stopping) => stopping,
    };
    if d.plan.retry.is_some() && stops && !d.state.retry_waived && !d.state.past_pivot {
        let operation = operation.clone();
        d.emit(Event::RetryWaived { operation });
    }
}

impl State {
    /// Counted from 1; each begins anew.
    pub fn attempt(&self) -> u32 {
        self.attempt_made().map_or(1, |attempt| attempt.number)
    }

    /// What is known of an attempt that is not the first.
    pub fn attempt_made(&self) -> Option<&Attempt> {
        self.birth.attempt()
    }

    /// The first of the attempts that this run is one of.
    pub fn first_attempt(&self) -> RunId {
        self.attempt_made().map_or(self.run_id(), |attempt| attempt.first)
    }

    /// The attempt that follows this one, and when it begins.
    pub fn retried_by(&self) -> Option<(RunId, &Attempt)> {
        let closed = self.closed()?;
        closed.successor.zip(closed.attempt.as_ref())
    }
}
