//! The end of a run's forward part: completed, or stopped to be undone.
//!
//! A run that stops dispatches nothing forwards, except in a `finally`. Tasks that workers may hold are asked to cancel (an
//! effect of the event that stops the run) and waited for, within their own timeouts; what is not with a worker ends at once
//! ([`super::halt`]). A task still in its queue counts as one that a worker may hold until it has been taken out of there.
//!
//! | what | then |
//! |---|---|
//! | the root has passed | completed, once what was discarded has been undone, and handlers ([`super::handler`]) have nothing left to do |
//! | the root has failed | everything but handlers has ended by then, and these are halted: undone |
//! | a handler has failed | the whole run is halted; undone when it has ended |
//! | cancelled, or past its timeout | the whole run is halted; undone when it has ended |

use std::sync::Arc;

use serde_json::Value;

use super::decider::Decider;
use super::event::Event;
use super::failure::Failure;
use super::open::Exit;
use super::{blocked, compensation, halt, handler, parked};
use crate::ids::StepPath;

/// The root has ended. An output that cannot be evaluated is a failure of the run like any other; one that is too large is none:
/// the run waits for an operator, who may have it evaluated again.
pub(super) fn complete(d: &mut Decider<'_>) {
    if handler::complete_later(d) {
        return;
    }
    let root = StepPath::new("");
    let output = d.scope(&root).evaluate(d.plan.output.as_ref());
    match output {
        Ok(output) => complete_with(d, output),
        Err(error) if blocked::is_limit(&error) => {
            d.emit(Event::StepBlocked { step: root });
            parked::park_run(d, format!("the output of the run: {}", error.message).into());
        }
        Err(error) => fail(d, error),
    }
}

pub(super) fn complete_with(d: &mut Decider<'_>, output: Arc<Value>) {
    d.emit(
        if compensation::is_undoing(d.state) || handler::has_more_to_do(d.plan, d.state) {
            Event::ExitRequested {
                exit: Exit::Completed { output },
                step: None,
            }
        } else {
            Event::RunCompleted { output }
        },
    );
}

pub(super) fn fail(d: &mut Decider<'_>, error: Failure) {
    d.emit(Event::RunFailed { error });
    // Handlers may be under way; of one of them the main body is.
    if !d.plan.handlers.is_empty() {
        halt(d);
    }
}

/// Halts the whole run.
pub(super) fn halt(d: &mut Decider<'_>) {
    halt::halt(d, &StepPath::new(""));
}
