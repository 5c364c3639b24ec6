//! `steps:`: children one after the other. Needs no state of its own: the child that ends says where it is.
//!
//! | child | then |
//! |---|---|
//! | passed | the next one is entered; behind the last one the sequence has passed |
//! | failed, halted | the sequence ends likewise |

use super::decider::{Decider, End, Work};
use super::tree::child_path;
use crate::definition::plan::NodeId;
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, children: &[NodeId]) {
    enter_child(d, node, path, children, 0);
}

pub(super) fn child_ended(
    d: &mut Decider<'_>,
    node: NodeId,
    path: StepPath,
    children: &[NodeId],
    child: NodeId,
    end: End,
) {
    match end {
        End::Passed => {
            let index = children.iter().position(|one| *one == child).unwrap_or(children.len());
            enter_child(d, node, path, children, index + 1);
        }
        End::Failed(_) | End::Halted => d.push(Work::Ended { node, path, end }),
    }
}

fn enter_child(d: &mut Decider<'_>, node: NodeId, path: StepPath, children: &[NodeId], index: usize) {
    match children.get(index) {
        Some(child) => {
            let path = child_path(&path, &d.plan.node(*child).name);
            d.push(Work::Enter { node: *child, path });
        }
        None => d.passed(node, path),
    }
}
