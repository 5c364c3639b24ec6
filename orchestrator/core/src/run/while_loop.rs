//! `while:`: a body for as long as a condition holds. The number of the iteration is in its path.
//!
//! | what | then |
//! |---|---|
//! | entered, or an iteration passed | the condition is evaluated, with `index` as the number of the coming iteration and the steps of the last one in scope |
//! | it holds | the next iteration begins; one more than `max_iterations` fails the step |
//! | it does not | the step has passed |
//! | an iteration failed or was halted | the step ends likewise |

use super::decider::{Decider, End, Work};
use super::event::Event;
use super::failure::{Failure, error_type};
use super::{path, tree};
use crate::definition::plan::{NodeId, While};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, repeat: &While) {
    go_on(d, node, path, repeat, 0);
}

pub(super) fn iteration_ended(
    d: &mut Decider<'_>,
    node: NodeId,
    path: StepPath,
    repeat: &While,
    iteration: &StepPath,
    end: End,
) {
    match (end, path::iteration(iteration.as_str())) {
        (End::Passed, Some((_, index))) => go_on(d, node, path, repeat, index.saturating_add(1)),
        (end, _) => d.push(Work::Ended { node, path, end }),
    }
}

fn go_on(d: &mut Decider<'_>, node: NodeId, path: StepPath, repeat: &While, index: u32) {
    match repeat.when.is_true(&d.scope(&path).with_index(index)) {
        Ok(true) if index >= repeat.max_iterations => {
            let message = format!("the condition still holds after {index} iterations");
            tree::fail(d, node, path, Failure::new(error_type::MAX_ITERATIONS, &message));
        }
        Ok(true) => {
            d.emit(Event::IterationStarted {
                step: path.clone(),
                index,
            });
            d.push(Work::Enter {
                node: repeat.body,
                path: path::of_iteration(&path, index),
            });
        }
        Ok(false) => {
            d.emit(Event::StepPassed { step: path.clone() });
            d.passed(node, path);
        }
        Err(error) => tree::fail(d, node, path, Failure::expression(&error)),
    }
}
