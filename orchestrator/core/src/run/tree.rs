//! Walking the plan: from a path to its node, into a step, and from the end of a step to its container.
//!
//! | what ends | container | then |
//! |---|---|---|
//! | anything, in a region that is halted | any | it is told *halted*, whatever became of the step |
//! | *passed*, *failed*, *halted* | any | its own file says |
//! | *passed* | none: the root | the run completes |
//! | *failed* | the root | the run fails |
//! | *halted* | the root | what it was halted for goes on: undoing, or the exit |
//!
//! A step that would be entered in a halted region is not: it ends as halted, without a trace. One that would be entered
//! when the run is at a limit, or parked as a whole, is *blocked*: it is entered when the run goes on.

use std::sync::Arc;

use super::decider::{Decider, End, Work};
use super::event::{Event, StepOutcome};
use super::failure::Failure;
use super::path::{self, name_of};
use super::{
    activity, blocked, compensation, emission, ending, for_each, handler, parallel, pivot, savepoint, sequence, set,
    stop, switch, timer, try_catch, wait_for, while_loop, workflow,
};
use crate::definition::plan::{NodeId, NodeKind, OnFailure, OnTimeout, Plan, Undo};
use crate::ids::StepPath;

/// The root sequence has the empty path; its children's paths are their names. A main body has the path of its step.
pub(super) fn child_path(parent: &StepPath, name: &Arc<str>) -> StepPath {
    if name.is_empty() {
        parent.clone()
    } else if parent.as_str().is_empty() {
        StepPath::from(name.clone())
    } else {
        StepPath::from(format!("{parent}.{name}").as_str())
    }
}

fn parent_path(plan: &Plan, node: NodeId, path: &StepPath) -> StepPath {
    let text = path.as_str();
    if plan.node(node).name.is_empty() {
        return path::iteration(text).map_or_else(|| path.clone(), |(of, _)| StepPath::new(of));
    }
    StepPath::new(text.rsplit_once('.').map_or("", |(parent, _)| parent))
}

/// The node a path leads to: that of the step, where its main body has the same path; the main body of a loop for an
/// iteration.
pub(super) fn find(plan: &Plan, path: &str) -> Option<NodeId> {
    if path.is_empty() {
        return Some(plan.root);
    }
    // An iteration's number says which instance it is, not which node.
    let walk = |next: fn(&Plan, NodeId, &str) -> Option<NodeId>| {
        let mut segments = path.split('.');
        segments.try_fold(plan.root, |node, segment| next(plan, node, name_of(segment)))
    };
    // A step of the main body may have the name of another body.
    let node = walk(child_named).or_else(|| walk(body_named))?;
    if path.ends_with(']') {
        return main_body(plan, node);
    }
    Some(node)
}

fn main_body(plan: &Plan, node: NodeId) -> Option<NodeId> {
    match &plan.node(node).kind {
        NodeKind::ForEach(each) => Some(each.body),
        NodeKind::While(repeat) => Some(repeat.body),
        NodeKind::Try(block) => Some(block.body),
        NodeKind::Scope(scope) => Some(scope.body),
        NodeKind::Handler(handler) => Some(handler.body),
        _ => None,
    }
}

/// The body of that name in a step, else the step of that name in its main body.
fn body_named(plan: &Plan, node: NodeId, name: &str) -> Option<NodeId> {
    let mut bodies = bodies(&plan.node(node).kind).into_iter();
    let named = bodies.find(|id| *plan.node(*id).name == *name);
    named.or_else(|| child_named(plan, node, name))
}

/// The step of that name in a body or in the main body of a step, else the step's body of that name.
pub(super) fn child_named(plan: &Plan, node: NodeId, name: &str) -> Option<NodeId> {
    let named = |id: &NodeId| *plan.node(*id).name == *name;
    if let NodeKind::Sequence { children } | NodeKind::Handlers { children } = &plan.node(node).kind {
        let child = children.iter().copied().find(|id| named(id));
        return child.or_else(|| handler::child_named(plan, node, name));
    }
    let in_main = || match &plan.node(main_body(plan, node)?).kind {
        NodeKind::Sequence { children } => children.iter().copied().find(named),
        _ => None,
    };
    in_main().or_else(|| match &plan.node(node).kind {
        // They have no other bodies.
        NodeKind::ForEach(_) | NodeKind::While(_) | NodeKind::Handler(_) => None,
        kind => bodies(kind).into_iter().find(named),
    })
}

/// The bodies of a step, in the order written.
pub(super) fn bodies(kind: &NodeKind) -> Vec<NodeId> {
    match kind {
        NodeKind::Parallel(parallel) => parallel.branches.clone(),
        NodeKind::ForEach(each) => vec![each.body],
        NodeKind::Switch(cases) => cases.iter().map(|case| case.body).collect(),
        NodeKind::While(repeat) => vec![repeat.body],
        NodeKind::Try(block) => {
            let catches = block.catches.iter().map(|catch| catch.body);
            std::iter::once(block.body)
                .chain(catches)
                .chain(block.finally)
                .collect()
        }
        NodeKind::Scope(scope) => std::iter::once(scope.body).chain(scope.otherwise).collect(),
        NodeKind::Handlers { children } => children.clone(),
        NodeKind::Handler(handler) => vec![handler.body],
        NodeKind::WaitFor(wait) => match wait.on_timeout {
            OnTimeout::Steps(body) => vec![body],
            OnTimeout::Fail | OnTimeout::Continue => vec![],
        },
        NodeKind::Sequence { .. }
        | NodeKind::Activity(_)
        | NodeKind::Set(_)
        | NodeKind::Wait(_)
        | NodeKind::Workflow(_)
        | NodeKind::Emit(_)
        | NodeKind::Fail(_)
        | NodeKind::Complete(_)
        | NodeKind::ContinueAsNew(_) => vec![],
    }
}

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath) {
    let plan = d.plan;
    let this = plan.node(node);
    // An operator who has it tried again asks what became of it.
    if d.state.is_halted(&path) && !pivot::is_left_unknown(plan, d.state, &path) {
        let end = End::Halted;
        return d.push(Work::Ended { node, path, end });
    }
    if blocked::must_wait(d) {
        return d.emit(Event::StepBlocked { step: path });
    }
    if let Some(condition) = &this.condition {
        match condition.is_true(&d.scope(&path)) {
            Ok(true) => {}
            Ok(false) => {
                d.emit(Event::StepSkipped { step: path.clone() });
                return d.passed(node, path);
            }
            Err(error) => return fail(d, node, path, Failure::expression(&error)),
        }
    }
    match &this.kind {
        NodeKind::Sequence { children } => sequence::enter(d, node, path, children),
        NodeKind::Activity(activity) => activity::enter(d, node, path, activity),
        NodeKind::Set(assignments) => set::enter(d, node, path, assignments),
        NodeKind::Parallel(parallel) => parallel::enter(d, node, path, parallel),
        NodeKind::ForEach(each) => for_each::enter(d, node, path, each),
        NodeKind::Switch(cases) => switch::enter(d, node, path, cases),
        NodeKind::While(repeat) => while_loop::enter(d, node, path, repeat),
        NodeKind::Try(block) => try_catch::enter(d, path, block),
        NodeKind::Scope(scope) => savepoint::enter(d, path, scope),
        NodeKind::Wait(wait) => timer::enter(d, node, path, wait),
        NodeKind::WaitFor(wait) => wait_for::enter(d, node, path, wait),
        NodeKind::Workflow(child) => workflow::enter(d, node, path, child),
        NodeKind::Emit(emit) => emission::enter(d, node, path, emit),
        NodeKind::Fail(error) => ending::fail(d, node, path, error),
        NodeKind::Complete(output) => ending::complete(d, node, path, output.as_ref()),
        NodeKind::ContinueAsNew(input) => ending::continue_as_new(d, node, path, input.as_ref()),
        // Their bodies are.
        NodeKind::Handlers { .. } | NodeKind::Handler(_) => {}
    }
}

/// Tells the container of a step that it has ended; the end of the root is the end of the run's forward part.
pub(super) fn ended(d: &mut Decider<'_>, node: NodeId, path: &StepPath, end: End) {
    let plan = d.plan;
    let end = if d.state.is_halted(path) { End::Halted } else { end };
    let Some(parent) = plan.node(node).parent else {
        return match end {
            End::Passed => stop::complete(d),
            End::Failed(failure) => stop::fail(d, failure),
            End::Halted => {}
        };
    };
    let at = parent_path(plan, node, path);
    match &plan.node(parent).kind {
        NodeKind::Sequence { children } => sequence::child_ended(d, parent, at, children, node, end),
        NodeKind::Parallel(parallel) => parallel::branch_ended(d, parent, at, parallel, node, end),
        NodeKind::ForEach(each) => for_each::iteration_ended(d, parent, at, each, path, end),
        NodeKind::While(repeat) => while_loop::iteration_ended(d, parent, at, repeat, path, end),
        NodeKind::Try(block) => try_catch::body_ended(d, parent, at, block, node, end),
        NodeKind::Scope(scope) => savepoint::body_ended(d, parent, at, scope, node, end),
        NodeKind::WaitFor(_) => wait_for::body_ended(d, parent, at, node, path, end),
        NodeKind::Handler(_) => handler::execution_ended(d, parent, at, path, end),
        NodeKind::Switch(_) => {
            d.push(Work::Ended {
                node: parent,
                path: at,
                end,
            });
        }
        NodeKind::Activity(_)
        | NodeKind::Set(_)
        | NodeKind::Wait(_)
        | NodeKind::Workflow(_)
        | NodeKind::Emit(_)
        | NodeKind::Fail(_)
        | NodeKind::Complete(_)
        | NodeKind::ContinueAsNew(_)
        | NodeKind::Handlers { .. } => {}
    }
}

/// A step that surely did nothing this time: its condition or its input could not be evaluated, say.
pub(super) fn fail(d: &mut Decider<'_>, node: NodeId, path: StepPath, error: Failure) {
    let at_limit = blocked::is_limit(&error);
    let error = error.at(&path);
    let outcome = match pivot::is_left_unknown(d.plan, d.state, &path) {
        true => StepOutcome::Unknown,
        false => StepOutcome::Failed,
    };
    failed(d, node, path, outcome, (error, at_limit));
}

/// A step, of any kind, that ended without success; `error` names the step where it began, and its type may be anybody's word.
pub(super) fn step_failed(d: &mut Decider<'_>, node: NodeId, step: StepPath, outcome: StepOutcome, error: Failure) {
    failed(d, node, step, outcome, (error, false));
}

/// What may not fail any more, or has met a limit of Knarr's, waits for an operator instead; so does a pivot of which it is not
/// known whether it was done.
pub(super) fn failed(
    d: &mut Decider<'_>,
    node: NodeId,
    step: StepPath,
    outcome: StepOutcome,
    (error, at_limit): (Failure, bool),
) {
    let plan = d.plan;
    let is_parked = outcome == StepOutcome::Unknown && pivot::is_pivot_at(plan, node)
        || pivot::must_not_fail(d, node, &step, &error)
        || at_limit && !d.state.is_halted(&step);
    let (at, because) = (step.clone(), error.clone());
    d.emit(if is_parked {
        Event::StepParked {
            step: at,
            outcome,
            error: because,
        }
    } else {
        Event::StepFailed {
            step: at,
            outcome,
            error: because,
        }
    });
    let mut end = End::Failed(error);
    if let NodeKind::Activity(activity) = &plan.node(node).kind {
        let undone = outcome == StepOutcome::Unknown || activity.compensate_on_failure;
        // A step that was never dispatched has no entry, and nothing to undo.
        if undone
            && let Undo::Compensate(call) = &activity.undo
            && d.state.entry(&step).is_some()
        {
            compensation::prepare(d, &step, call, None);
        }
        if activity.on_failure == OnFailure::Continue {
            end = End::Passed;
        }
    }
    if !is_parked {
        d.push(Work::Ended { node, path: step, end });
    }
}

/// The last output of a body: that of the last step in it, in the order written, that has one. Looks into the bodies of
/// steps that have no output of their own, except loops.
pub(super) fn last_output(d: &Decider<'_>, body: NodeId, path: &StepPath) -> Arc<serde_json::Value> {
    // Depth first from the end: what is pushed last is looked at first.
    let mut left = vec![(body, path.clone())];
    while let Some((node, path)) = left.pop() {
        if let Some(super::state::Step::Completed { output }) = d.state.steps.get(&path)
            && !matches!(d.plan.node(node).kind, NodeKind::Sequence { .. })
        {
            return Arc::clone(output);
        }
        let within = match &d.plan.node(node).kind {
            NodeKind::Sequence { children } => children.clone(),
            // `finally` tidies up; what it says is not the step's.
            NodeKind::Try(block) => {
                let catches = block.catches.iter().map(|catch| catch.body);
                std::iter::once(block.body).chain(catches).collect()
            }
            NodeKind::Switch(_) | NodeKind::Scope(_) => bodies(&d.plan.node(node).kind),
            _ => vec![],
        };
        left.extend(
            within
                .into_iter()
                .map(|id| (id, child_path(&path, &d.plan.node(id).name))),
        );
    }
    Arc::default()
}
