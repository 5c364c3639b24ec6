//! `try:`: a body, the errors it may end with, and what is done in any case.
//!
//! | body | `catch` | `finally` | then |
//! |---|---|---|---|
//! | passed | – | – | passed |
//! | failed | one fits | – | that body is entered, with `error`; the step ends as it does |
//! | failed | none fits | – | failed |
//! | halted | – | – | halted |
//! | any of these | | there is one | it is entered first, and the step ends as it would have; its own failure takes the place of a pass or a failure |
//!
//! Catching leaves the ledger as it is: what the body did is undone only if the run, or a scope around, fails. `finally` is
//! not halted by what halts the step: it runs when the run is cancelled, and its steps are dispatched and waited for
//! before anything is undone. A run that is terminated runs nothing.

use super::decider::{Decider, End, Work};
use super::event::Event;
use super::failure::Failure;
use super::open::Open;
use super::tree;
use crate::definition::plan::{Catch, NodeId, Try};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, path: StepPath, block: &Try) {
    d.push(Work::Enter { node: block.body, path });
}

pub(super) fn body_ended(d: &mut Decider<'_>, node: NodeId, path: StepPath, block: &Try, body: NodeId, end: End) {
    if block.finally == Some(body) {
        return finally_ended(d, node, path, end);
    }
    if body == block.body
        && let End::Failed(error) = &end
        && let Some(index) = block.catches.iter().position(|catch| fits(catch, error))
    {
        let body = block.catches[index].body;
        d.emit(Event::ErrorCaught {
            step: path.clone(),
            catch: u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1),
            error: error.clone(),
        });
        let path = tree::child_path(&path, &d.plan.node(body).name);
        return d.push(Work::Enter { node: body, path });
    }
    match block.finally {
        Some(finally) => {
            d.emit(Event::FinallyStarted {
                step: path.clone(),
                end,
            });
            let path = tree::child_path(&path, &d.plan.node(finally).name);
            d.push(Work::Enter { node: finally, path });
        }
        None => close(d, node, path, end),
    }
}

fn finally_ended(d: &mut Decider<'_>, node: NodeId, path: StepPath, end: End) {
    let Some(Open::Try {
        finally: Some(pending), ..
    }) = d.state.open.get(&path)
    else {
        return;
    };
    let end = match (pending.clone(), end) {
        (End::Halted, _) | (_, End::Halted) => End::Halted,
        (pending, End::Passed) => pending,
        (_, failed) => failed,
    };
    close(d, node, path, end);
}

/// Ends the step, with an event where it had something to remember.
fn close(d: &mut Decider<'_>, node: NodeId, path: StepPath, end: End) {
    if !d.state.open.contains_key(&path) {
        return d.push(Work::Ended { node, path, end });
    }
    match end {
        End::Passed => {
            d.emit(Event::StepPassed { step: path.clone() });
            d.passed(node, path);
        }
        End::Failed(error) => tree::step_failed(d, node, path, super::event::StepOutcome::Failed, error),
        End::Halted => d.halted(node, path),
    }
}

pub(super) fn fits(catch: &Catch, error: &Failure) -> bool {
    catch.types.is_empty() || catch.types.contains(&error.error_type)
}
