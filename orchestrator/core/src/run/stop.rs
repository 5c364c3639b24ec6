//! The end of a run's forward part: completed, or stopped to be undone.
//!
//! A run that stops dispatches nothing forwards. Tasks that workers may hold are asked to cancel (an effect of the event
//! that stops the run) and waited for, within their own timeouts; what is not with a worker ends at once. A task still in
//! its queue counts as one that a worker may hold: it is not late until it is delivered, and may then be refused or done.

use super::attempt;
use super::decider::Decider;
use super::effect::Direction;
use super::event::{Event, StepOutcome};
use super::execution::{Execution, Known, Wait};
use super::failure::Failure;
use super::scope::RunScope;
use crate::ids::StepPath;

/// The root has ended. An output that cannot be evaluated is a failure of the run like any other.
pub(super) fn complete(d: &mut Decider<'_>) {
    let root = StepPath::new("");
    let output = RunScope::new(d.state, &root).evaluate(d.plan.output.as_ref());
    match output {
        Ok(output) => d.emit(Event::RunCompleted { output }),
        Err(error) => fail(d, error),
    }
}

pub(super) fn fail(d: &mut Decider<'_>, error: Failure) {
    d.emit(Event::RunFailed { error });
    halt(d);
}

/// Ends what waits in the run itself: pauses between attempts, and tasks that their stream has refused.
pub(super) fn halt(d: &mut Decider<'_>) {
    let waiting: Vec<_> = d
        .state
        .doing
        .iter()
        .filter_map(|(step, execution)| Some((step.clone(), at_rest(execution)?)))
        .collect();
    for (step, outcome) in waiting {
        attempt::give_up(d, step, Direction::Do, outcome);
    }
}

/// What a step ends as if it is stopped now; `None` while a worker may hold its task.
pub(super) fn at_rest(execution: &Execution) -> Option<StepOutcome> {
    match &execution.wait {
        Wait::Task(open) if open.known == Known::Held => Some(StepOutcome::Cancelled),
        Wait::Task(_) => None,
        Wait::Until(_) | Wait::Decision => Some(StepOutcome::Failed),
    }
}
