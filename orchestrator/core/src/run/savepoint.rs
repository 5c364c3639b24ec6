//! `scope:`: a savepoint.
//!
//! | body | what its steps did | `otherwise` | then |
//! |---|---|---|---|
//! | passed | stays in the ledger | – | passed |
//! | failed | is undone, in the order in which a run undoes | there is one | it is entered, with `error`; the step ends as it does |
//! | failed | is undone | – | failed, with the body's error |
//! | halted | stays in the ledger: whoever halted the step sees to it | – | halted |
//!
//! Undoing is not cut by a cancellation; a scope that has been undone in a region that was halted meanwhile is halted.

use super::decider::{Decider, End, Work};
use super::event::{Event, StepOutcome};
use super::open::Open;
use super::tree;
use crate::definition::plan::{NodeId, NodeKind, Savepoint};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, path: StepPath, scope: &Savepoint) {
    d.push(Work::Enter { node: scope.body, path });
}

pub(super) fn body_ended(d: &mut Decider<'_>, node: NodeId, path: StepPath, scope: &Savepoint, body: NodeId, end: End) {
    if body == scope.body {
        return match end {
            End::Failed(error) => d.emit(Event::ScopeFailed { step: path, error }),
            End::Passed | End::Halted => d.push(Work::Ended { node, path, end }),
        };
    }
    match end {
        End::Passed => {
            d.emit(Event::StepPassed { step: path.clone() });
            d.passed(node, path);
        }
        End::Failed(error) => tree::step_failed(d, node, path, StepOutcome::Failed, error),
        End::Halted => d.halted(node, path),
    }
}

/// Everything the body did has been undone.
pub(super) fn undone(d: &mut Decider<'_>, path: StepPath) {
    let plan = d.plan;
    let node = tree::find(plan, path.as_str());
    let Some((node, Open::Scope { error, .. })) = node.zip(d.state.open.get(&path).cloned()) else {
        return;
    };
    let otherwise = match &plan.node(node).kind {
        NodeKind::Scope(scope) => scope.otherwise,
        _ => None,
    };
    match otherwise {
        _ if d.state.is_halted(&path) => d.halted(node, path),
        Some(otherwise) => {
            d.emit(Event::ScopeUndone { step: path.clone() });
            let path = tree::child_path(&path, &plan.node(otherwise).name);
            d.push(Work::Enter { node: otherwise, path });
        }
        None => tree::step_failed(d, node, path, StepOutcome::Failed, error),
    }
}
