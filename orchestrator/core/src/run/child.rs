//! A run as a child; the parent's side is in [`super::workflow`].
//!
//! A run that has a parent tells it of its end, each time it closes. One that has completed can be told to undo:
//! it stops for the parent's error, runs its own ledger backwards, and closes again.
//!
//! | child | told to undo | then |
//! |---|---|---|
//! | completed | accepted | undoes, and tells the parent |
//! | undoing, for whatever reason | accepted | tells the parent when it closes |
//! | failed, compensated, cancelled, timed out | accepted | tells the parent again: it has undone itself |
//! | running | refused | – |
//! | terminated | refused | – |
//! | completed, past its pivot | refused | – |

use super::decider::Decider;
use super::event::Event;
use super::failure::Failure;
use super::message::{Answer, Body, ChildClosed, Recipient, Refusal};
use super::outbox;
use super::state::State;
use super::status::Status;

/// Why this run cannot be told to undo, if it cannot.
pub(super) fn undo_refused(state: &State) -> Option<Answer> {
    if state.successor_id().is_some() {
        return Some(Answer::refused(Refusal::Closed, "the child goes on in another run"));
    }
    let (reason, message) = match state.status() {
        Status::Terminated => (Refusal::Closed, "the child was terminated"),
        Status::Queued | Status::Waiting | Status::Running | Status::Paused => {
            (Refusal::Open, "the child has not closed")
        }
        Status::Parked if !state.is_stopping() => (Refusal::Open, "the child has not closed"),
        Status::Completed if state.past_pivot => (Refusal::PastPivot, "the child has completed its pivot"),
        _ => return None,
    };
    Some(Answer::refused(reason, message))
}

pub(super) fn undo(d: &mut Decider<'_>, error: Failure) {
    match d.state.status() {
        Status::Completed => d.emit(Event::RunReopened { error }),
        status if status.is_closed() => tell_parent(d),
        _ => {}
    }
}

/// The parent hears of the end, in the transition that closes the run.
pub(super) fn tell_parent(d: &mut Decider<'_>) {
    let Some((parent, closed)) = d.state.birth.parent.clone().zip(d.state.closed().cloned()) else {
        return;
    };
    // The end of a run that another goes on for is the end of that.
    if parent.detached || closed.successor.is_some() {
        return;
    }
    let to = Recipient {
        workflow_id: parent.workflow_id,
        run: Some(parent.run),
    };
    let body = ChildClosed {
        child: parent.child,
        step: parent.step,
        status: closed.status,
        output: closed.output,
        error: closed.error,
    };
    outbox::send(d, to, Body::ChildClosed(body));
}
