//! Walking the plan: from a path to its node, into a step, and from the end of a step to its container.

use std::sync::Arc;

use super::decider::{Decider, End, Work};
use super::event::Event;
use super::failure::Failure;
use super::scope::RunScope;
use super::{activity, sequence, set, stop};
use crate::definition::plan::{NodeId, NodeKind, Plan};
use crate::ids::StepPath;

/// The root sequence has the empty path; its children's paths are their names.
pub(super) fn child_path(parent: &StepPath, name: &Arc<str>) -> StepPath {
    if parent.as_str().is_empty() {
        StepPath::from(name.clone())
    } else {
        StepPath::from(format!("{parent}.{name}").as_str())
    }
}

fn parent_path(path: &StepPath) -> StepPath {
    StepPath::new(path.as_str().rsplit_once('.').map_or("", |(parent, _)| parent))
}

/// The node a path leads to.
pub(super) fn find(plan: &Plan, path: &StepPath) -> Option<NodeId> {
    if path.as_str().is_empty() {
        return Some(plan.root);
    }
    path.as_str().split('.').try_fold(plan.root, |node, segment| {
        // An iteration's number says which instance it is, not which node.
        let name = segment.split_once('[').map_or(segment, |(name, _)| name);
        children(plan, node)
            .iter()
            .copied()
            .find(|child| &*plan.node(*child).name == name)
    })
}

fn children(plan: &Plan, node: NodeId) -> &[NodeId] {
    match &plan.node(node).kind {
        NodeKind::Sequence { children } => children,
        _ => &[],
    }
}

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath) {
    let plan = d.plan;
    let this = plan.node(node);
    if let Some(condition) = &this.condition {
        match condition.is_true(&RunScope::new(d.state, &path)) {
            Ok(true) => {}
            Ok(false) => {
                d.emit(Event::StepSkipped { step: path.clone() });
                d.push(Work::Ended {
                    node,
                    path,
                    end: End::Passed,
                });
                return;
            }
            Err(error) => return fail(d, node, path, Failure::expression(&error)),
        }
    }
    match &this.kind {
        NodeKind::Sequence { children } => sequence::enter(d, node, path, children),
        NodeKind::Activity(activity) => activity::enter(d, node, path, activity),
        NodeKind::Set(assignments) => set::enter(d, node, path, assignments),
        _ => d.park_for_lack_of("behaviour", &path),
    }
}

/// Tells the container of a step that it has ended; the end of the root is the end of the run's forward part.
pub(super) fn ended(d: &mut Decider<'_>, node: NodeId, path: &StepPath, end: End) {
    let plan = d.plan;
    let Some(parent) = plan.node(node).parent else {
        return match end {
            End::Passed => stop::complete(d),
            End::Failed(failure) => stop::fail(d, failure),
        };
    };
    if let NodeKind::Sequence { children } = &plan.node(parent).kind {
        sequence::child_ended(d, parent, parent_path(path), children, node, end);
    }
}

/// A step that surely did nothing: its condition or its input could not be evaluated, say.
pub(super) fn fail(d: &mut Decider<'_>, node: NodeId, path: StepPath, error: Failure) {
    let error = error.at(&path);
    activity::step_failed(d, node, path, super::event::StepOutcome::Failed, error);
}
