//! Cancel = stop and undo. Terminate = stop now, undo nothing.
//!
//! Both are idempotent, by verb and request id and by what they ask for: a run that is being undone, for whatever reason, is
//! not stopped twice. Closed runs refuse them, unless the request is one that was taken. A request that was taken as a
//! cancellation is none to terminate: who changes their mind may say so under the same id.
//!
//! | run | cancel | terminate |
//! |---|---|---|
//! | running, also parked | halted, then undone | closed |
//! | running, its pivot under way | waits for what becomes of the pivot ([`super::pivot`]) | closed |
//! | running, past its pivot | refused | closed |
//! | stopping | nothing, but that no other attempt follows it ([`super::again`]) | closed |
//! | closed | refused | refused |

use super::decider::Decider;
use super::event::Event;
use super::failure::{Failure, error_type};
use super::input::{Operation, Rejected};
use super::request::{Verb, was_taken};
use super::state::{State, Why};
use super::{again, held, pivot, stop, wait_for};

/// Also takes a run that is parked as a whole out of that: there is nothing left to go on with but undoing, or what comes of its
/// pivot.
pub(super) fn cancel(d: &mut Decider<'_>, operation: Operation) -> Result<(), Rejected> {
    if was_taken(d.state, Verb::Cancel, &operation) || refused(d.state)? {
        return Ok(());
    }
    again::waive(d, &operation);
    if d.state.is_running() {
        if d.state.past_pivot {
            return Err(Rejected::PastPivot);
        }
        let error = Failure::cancelled(operation.reason.as_deref().unwrap_or("the run was cancelled"));
        let was_parked = d.state.parked.is_some();
        if !pivot::defer(d, Why::Cancelled, &error, &operation) {
            d.emit(Event::CancelRequested { error, operation });
            stop::halt(d);
        }
        if was_parked && d.state.parked.is_none() {
            // What goes on, beside a pivot or in a `finally`, does so with what came while the run took nothing.
            wait_for::offer(d, 0);
            held::resume(d);
        }
        d.settle();
    }
    Ok(())
}

pub(super) fn terminate(d: &mut Decider<'_>, operation: Operation) -> Result<(), Rejected> {
    if was_taken(d.state, Verb::Terminate, &operation) || refused(d.state)? {
        return Ok(());
    }
    let reason = operation.reason.as_deref().unwrap_or("the run was terminated");
    let error = Failure::new(error_type::TERMINATED, reason);
    d.emit(Event::RunTerminated { error, operation });
    Ok(())
}

/// Never true: an error or leave to go on, in a form that reads well behind `||`.
pub(super) fn refused(state: &State) -> Result<bool, Rejected> {
    match state.closed() {
        Some(closed) => Err(Rejected::Closed(closed.status.as_str())),
        None => Ok(false),
    }
}
