//! Those who wait for a run: stored in it, answered when it starts or closes, or at once if it has.

use super::decider::Decider;
use super::event::Event;
use super::input::{AnswerRequest, Rejected};
use super::limits::MAX_WAITERS;

/// A closed run answers every time it is asked, since who asks again has not heard the answer.
pub(super) fn wait(d: &mut Decider<'_>, request: AnswerRequest) -> Result<(), Rejected> {
    let waits = |waiter: &super::state::Waiter| waiter.to == request.to && waiter.on == request.on;
    if !d.state.is_closed() {
        if d.state.waiters.iter().any(waits) {
            return Ok(());
        }
        if d.state.waiters.len() >= MAX_WAITERS {
            return Err(Rejected::TooManyWaiters);
        }
    }
    d.emit(Event::Awaited(request));
    Ok(())
}
