//! Back-pressure: a task that its stream refused waits in the run, durably, and is offered again under a new offer number.
//!
//! A refusal says that this try was not stored. Where an earlier one was not acknowledged, a worker may have the task: such
//! a step counts as one that may have been done, from then on and whatever becomes of further offers.

use super::decider::Decider;
use super::effect::Direction;
use super::event::{Event, StepOutcome};
use super::execution::Known;
use super::limits::{HELD_PAUSE_FIRST, HELD_PAUSE_LONGEST};
use super::retry::Regardless;
use super::{attempt, pivot};
use crate::ids::{StepPath, TaskNo};
use crate::time::Span;

pub(super) fn dispatch_held(d: &mut Decider<'_>, task: TaskNo, in_doubt: bool) {
    if d.state.is_closed() {
        return;
    }
    let Some(view) = d.state.open_task(task) else {
        return;
    };
    // A task that somebody has was not refused.
    if view.open.known != Known::Offered {
        return;
    }
    let (step, direction) = (view.step.clone(), view.direction);
    let until = d.at.plus(pause(view.open.offer));
    d.emit(Event::DispatchHeld { task, until, in_doubt });
    // A run that is parked as a whole sees to it when it goes on.
    if d.state.parked.is_some() {
        return;
    }
    if direction == Direction::Do {
        give_up_unneeded(d, step);
    }
    d.settle();
}

/// What a run that was parked could not decide about then.
pub(super) fn resume(d: &mut Decider<'_>) {
    let held = d.state.open_tasks();
    let held = held.filter(|view| view.open.known == Known::Held && view.direction == Direction::Do);
    for step in held.map(|view| view.step.clone()).collect::<Vec<_>>() {
        give_up_unneeded(d, step);
    }
}

/// Ends a step that was halted, and whose task is not out.
fn give_up_unneeded(d: &mut Decider<'_>, step: StepPath) {
    let execution = d.state.executions(Direction::Do).get(&step);
    let undecided = execution.is_some_and(|execution| pivot::is_undecided(d.plan, &step, execution));
    if !undecided && !pivot::may_go_on(d, &step, Regardless::No) {
        attempt::give_up(d, step, Direction::Do, StepOutcome::Cancelled);
    }
}

/// Doubles with each offer.
fn pause(offer: u32) -> Span {
    let doubled = HELD_PAUSE_FIRST.0.saturating_mul(1 << offer.min(16));
    Span(doubled).min(HELD_PAUSE_LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_quarter_of_a_second_to_five() {
        let pauses = [0, 1, 2, 3, 4, 5, u32::MAX].map(|offer| pause(offer).as_millis());
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    }
}
