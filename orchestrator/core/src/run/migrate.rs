//! Moving an open run to another version of its definition.
//!
//! A run may move when everything it has passed or has under way is the same in the other version, so that nothing it has
//! decided, and nothing that would undo it, is decided differently there. What it has not reached may be anything.
//!
//! | place | has to be the same |
//! |---|---|
//! | a step that was entered | its kind and every setting of it, its undo included |
//! | a list of steps that was entered | its steps up to the last one that was entered, in their order: nothing is put in, taken out or moved before that |
//! | a container that was entered | its condition, list, branches, cases, catches; their bodies as far as they were entered |
//! | a loop that has begun a second iteration, a handler that has begun a second time | its whole body |
//! | the main body, once it has passed | all of it |
//! | a signal that waits in the run | what has a handler for it in the other version has one in this |
//! | the compensation policy | once there is something to undo now |
//! | the workflow's name | always; and the run's input has to match the other version's schema, as has what it is about to continue as new with |
//!
//! A step counts as entered when any instance of it has left a trace in the state, whatever became of it. What was computed
//! when the run began (its timeout, its search attributes) stays.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::apply;
use super::cancel::refused;
use super::compensation;
use super::decider::Decider;
use super::event::Event;
use super::input::{Operation, Rejected};
use super::open::Exit;
use super::path::{around, iteration};
use super::request::{Verb, was_taken};
use super::state::State;
use super::{handler, tree};
use crate::definition::plan::{
    Activity, Call, Limited, Limiting, NodeId, NodeKind, OnTimeout, Parallel, Plan, Undo, Wait,
};
use crate::expression::{Expression, Template};
use crate::ids::{DefinitionHash, StepPath};

/// The version to move to.
#[derive(Clone)]
pub struct Target(pub Arc<Plan>);

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} ({})", self.0.workflow, self.0.version, self.0.hash.0)
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

/// Another version that a run has moved to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Migrated {
    pub(super) version: u32,
    pub(super) definition: DefinitionHash,
}

/// Why a run cannot move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The first place that is another one; the root's path where it is the run.
    pub step: StepPath,
    pub reason: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.step.as_str().is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "`{}` {}", self.step, self.reason)
        }
    }
}

pub(super) fn migrate(d: &mut Decider<'_>, to: &Plan, operation: Operation) -> Result<(), Rejected> {
    if was_taken(d.state, Verb::Migrate, &operation) || refused(d.state)? || to.hash == *d.state.definition_hash() {
        return Ok(());
    }
    check(d.plan, to, d.state).map_err(|obstacle| Rejected::CannotMigrate(obstacle.to_string()))?;
    d.emit(Event::RunMigrated {
        version: to.version,
        definition: to.hash.clone(),
        operation,
    });
    Ok(())
}

/// Whether an open run may move from one version to another.
///
/// # Errors
/// The first thing it has passed, in the order of the definition, that is another one there.
pub fn check(from: &Plan, to: &Plan, state: &State) -> Result<(), Obstacle> {
    let of_run = |reason: String| Obstacle {
        step: StepPath::new(""),
        reason,
    };
    if from.workflow != to.workflow {
        return Err(of_run(format!("`{}` is another workflow", to.workflow)));
    }
    if let Some(schema) = &to.input_schema
        && !schema.0.is_valid(state.input())
    {
        return Err(of_run(
            "its input does not match the schema of the other version".to_owned(),
        ));
    }
    // Its successor goes by the other version, and has to be one that can be started.
    if let Some((Exit::ContinuedAsNew { input }, _)) = &state.exit
        && let Err(rejected) = apply::birth(to, state.succeeding(state.run_id(), input), state.at)
    {
        return Err(of_run(format!(
            "it is about to continue as new, which the other version refuses: {rejected}"
        )));
    }
    let undoing = state.is_stopping() || compensation::is_undoing(state);
    if undoing && from.compensation != to.compensation {
        return Err(of_run(
            "it is being undone, and the compensation policy is another one".to_owned(),
        ));
    }
    let comparison = Comparison {
        from,
        to,
        entered: entered(from, state)?,
        repeated: repeated(from, state),
    };
    if let Some(reason) = handler::obstacle(from, to, state) {
        return Err(of_run(reason));
    }
    // One whose main body has passed, and only waits for its handlers, would not come to more steps at its end.
    comparison.compare(from.root, to.root, &StepPath::new(""), state.handling.passed)?;
    comparison.handlers()
}

/// Every place in the tree of which an instance has left a trace, and what is around them.
fn entered(plan: &Plan, state: &State) -> Result<BTreeSet<usize>, Obstacle> {
    let ledger = state.ledger.iter().map(|entry| &entry.step);
    let deferred = state.deferred.iter().map(|deferred| &deferred.pivot);
    let paths = (state.steps.keys())
        .chain(state.doing.keys())
        .chain(state.undoing.keys())
        .chain(state.open.keys())
        .chain(state.loops.keys())
        .chain(&state.blocked)
        .chain(ledger)
        .chain(deferred)
        .chain(state.handling.executions.keys());
    let mut entered = BTreeSet::from([plan.root.0]);
    for path in paths {
        for place in std::iter::once(path.as_str()).chain(around(path.as_str())) {
            let Some(node) = tree::find(plan, place) else {
                return Err(Obstacle {
                    step: path.clone(),
                    reason: "is not in the definition that the run is bound to".to_owned(),
                });
            };
            let mut at = Some(node);
            while let Some(node) = at {
                if !entered.insert(node.0) {
                    break;
                }
                at = plan.node(node).parent;
            }
        }
    }
    Ok(entered)
}

/// Loops that have begun more than one iteration: all of their body has been passed, or is about to be.
fn repeated(plan: &Plan, state: &State) -> BTreeSet<usize> {
    let loops = state.loops.iter().filter(|(_, of)| of.last > 0);
    let of_loops = loops.filter_map(|(path, _)| tree::find(plan, path.as_str()));
    // Of an earlier version's loop that kept no count.
    let instances = state.steps.keys().chain(state.ledger.iter().map(|entry| &entry.step));
    let later = instances.flat_map(|path| around(path.as_str()).filter_map(iteration));
    let of_instances = later
        .filter(|(_, index)| *index > 0)
        .filter_map(|(of, _)| tree::find(plan, of));
    let handlers = state.handling.executions.iter().filter(|(_, of)| of.begun > 1);
    let of_handlers = handlers.filter_map(|(path, _)| tree::find(plan, path.as_str()));
    of_loops
        .chain(of_instances)
        .chain(of_handlers)
        .map(|node| node.0)
        .collect()
}

struct Comparison<'a> {
    from: &'a Plan,
    to: &'a Plan,
    /// By index.
    entered: BTreeSet<usize>,
    repeated: BTreeSet<usize>,
}

/// What is told of a place that is not the same.
type Found = Result<(), Obstacle>;

impl Comparison<'_> {
    /// What has been entered beside the main body.
    fn handlers(&self) -> Found {
        let (from, to) = (self.from, self.to);
        let of_signals = from.signal_handlers().map(|(id, _)| (id, handler::SIGNALS));
        let of_updates = from.update_handlers().map(|(id, _)| (id, handler::UPDATES));
        for (old, group) in of_signals
            .chain(of_updates)
            .filter(|(id, _)| self.entered.contains(&id.0))
        {
            let name = &from.node(old).name;
            let path = StepPath::from(format!("{group}.{name}").as_str());
            let found = match group {
                handler::SIGNALS => to.handler_of(name),
                _ => to.update_of(name),
            };
            let Some((new, _)) = found else {
                let reason = "is not in the other version".to_owned();
                return Err(Obstacle { step: path, reason });
            };
            self.compare(old, new, &path, false)?;
        }
        Ok(())
    }

    /// `whole`: also what has not been entered.
    fn compare(&self, old: NodeId, new: NodeId, path: &StepPath, whole: bool) -> Found {
        if !whole && !self.entered.contains(&old.0) {
            return Ok(());
        }
        let (was, is) = (self.from.node(old), self.to.node(new));
        let differs = |what: &str| {
            Err(Obstacle {
                step: path.clone(),
                reason: format!("has another {what} in the other version"),
            })
        };
        if !same_expression(was.condition.as_ref(), is.condition.as_ref()) {
            return differs("condition");
        }
        if let Some(what) = own_difference(&was.kind, &is.kind) {
            return differs(what);
        }
        if let (NodeKind::Sequence { children: before }, NodeKind::Sequence { children: after }) = (&was.kind, &is.kind)
        {
            return self.sequence(before, after, path, whole);
        }
        let whole = whole || self.repeated.contains(&old.0);
        let (before, after) = (tree::bodies(&was.kind), tree::bodies(&is.kind));
        // As many: that is a setting. Branches have names of their own.
        for (old, new) in before.into_iter().zip(after) {
            let name = &self.from.node(old).name;
            if *name != self.to.node(new).name {
                return differs("list of branches");
            }
            let path = tree::child_path(path, name);
            self.compare(old, new, &path, whole)?;
        }
        Ok(())
    }

    fn sequence(&self, before: &[NodeId], after: &[NodeId], path: &StepPath, whole: bool) -> Found {
        let last = before.iter().rposition(|child| self.entered.contains(&child.0));
        let reached = if whole {
            before.len()
        } else {
            last.map_or(0, |last| last + 1)
        };
        for (index, old) in before[..reached].iter().enumerate() {
            let name = &self.from.node(*old).name;
            let child = tree::child_path(path, name);
            let there = after.get(index).filter(|new| self.to.node(**new).name == *name);
            let Some(new) = there else {
                let other = after.get(index).map(|new| &self.to.node(*new).name);
                let reason = match other {
                    Some(other) => format!("is not where it was: `{other}` is there in the other version"),
                    None => "is not in the other version".to_owned(),
                };
                return Err(Obstacle { step: child, reason });
            };
            // What stands before a step that was entered has been passed, also where it left no trace.
            self.compare(*old, *new, &child, whole || !self.entered.contains(&old.0))?;
        }
        if whole && after.len() > reached {
            let new = self.to.node(after[reached]);
            return Err(Obstacle {
                step: tree::child_path(path, &new.name),
                reason: "is put into a body that has been passed".to_owned(),
            });
        }
        Ok(())
    }
}

fn same_expression(one: Option<&Expression>, other: Option<&Expression>) -> bool {
    one.map(Expression::source) == other.map(Expression::source)
}

fn same(one: Option<&Template>, other: Option<&Template>) -> bool {
    // A text and an expression may be written alike.
    let told = |template: &Template| (template.constant().cloned(), template.source());
    one.map(told) == other.map(told)
}

/// What is another one of a place without what is in it.
fn own_difference(was: &NodeKind, is: &NodeKind) -> Option<&'static str> {
    let unless = |same: bool, what: &'static str| (!same).then_some(what);
    match (was, is) {
        (NodeKind::Sequence { .. }, NodeKind::Sequence { .. }) => None,
        (NodeKind::Activity(was), NodeKind::Activity(is)) => activity_difference(was, is),
        (NodeKind::Set(was), NodeKind::Set(is)) => {
            let same = was.len() == is.len()
                && was
                    .iter()
                    .zip(is)
                    .all(|((name, value), (other, it))| name == other && same(Some(value), Some(it)));
            unless(same, "assignment")
        }
        (NodeKind::Parallel(was), NodeKind::Parallel(is)) => parallel_difference(was, is),
        (NodeKind::ForEach(was), NodeKind::ForEach(is)) => unless(same(Some(&was.list), Some(&is.list)), "list")
            .or(unless(was.item == is.item, "name of its item"))
            .or(unless(was.max_concurrency == is.max_concurrency, "concurrency"))
            .or(unless(same(was.collect.as_ref(), is.collect.as_ref()), "`collect`")),
        (NodeKind::Switch(was), NodeKind::Switch(is)) => {
            let same = was.len() == is.len()
                && was
                    .iter()
                    .zip(is)
                    .all(|(was, is)| same_expression(was.when.as_ref(), is.when.as_ref()));
            unless(same, "list of cases")
        }
        (NodeKind::While(was), NodeKind::While(is)) => unless(was.when.source() == is.when.source(), "condition")
            .or(unless(was.max_iterations == is.max_iterations, "number of iterations")),
        (NodeKind::Try(was), NodeKind::Try(is)) => {
            let types = |catches: &[crate::definition::plan::Catch]| -> Vec<Vec<Arc<str>>> {
                catches.iter().map(|catch| catch.types.clone()).collect()
            };
            unless(types(&was.catches) == types(&is.catches), "list of catches")
                .or(unless(was.finally.is_some() == is.finally.is_some(), "`finally`"))
        }
        (NodeKind::Scope(was), NodeKind::Scope(is)) => {
            unless(was.otherwise.is_some() == is.otherwise.is_some(), "`otherwise`")
        }
        (NodeKind::Wait(was), NodeKind::Wait(is)) => {
            let same = match (was, is) {
                (Wait::For(was), Wait::For(is)) => was == is,
                (Wait::Until(was), Wait::Until(is)) => same(Some(was), Some(is)),
                _ => false,
            };
            unless(same, "time")
        }
        (NodeKind::WaitFor(was), NodeKind::WaitFor(is)) => {
            let same_end = match (was.on_timeout, is.on_timeout) {
                (OnTimeout::Steps(_), OnTimeout::Steps(_)) => true,
                (was, is) => was == is,
            };
            unless(was.signal == is.signal, "signal")
                .or(unless(
                    same_expression(was.matches.as_ref(), is.matches.as_ref()),
                    "`match`",
                ))
                .or(unless(was.timeout == is.timeout, "timeout"))
                .or(unless(same_end, "`on_timeout`"))
        }
        (NodeKind::Workflow(was), NodeKind::Workflow(is)) => {
            unless((&was.workflow, was.version) == (&is.workflow, is.version), "workflow")
                .or(unless(same(was.id.as_ref(), is.id.as_ref()), "id"))
                .or(unless(same(was.input.as_ref(), is.input.as_ref()), "input"))
                .or(unless(
                    (was.parent_close, was.detached) == (is.parent_close, is.detached),
                    "bond to its child",
                ))
        }
        (NodeKind::Emit(was), NodeKind::Emit(is)) => unless(same(Some(&was.subject), Some(&is.subject)), "subject")
            .or(unless(same(was.body.as_ref(), is.body.as_ref()), "body")),
        (NodeKind::Fail(was), NodeKind::Fail(is)) => unless(
            same(Some(&was.error_type), Some(&is.error_type)) && same(was.message.as_ref(), is.message.as_ref()),
            "error",
        ),
        // What it takes is for those that come.
        (NodeKind::Handler(was), NodeKind::Handler(is)) => {
            unless(same(was.output.as_ref(), is.output.as_ref()), "output")
        }
        (NodeKind::Complete(was), NodeKind::Complete(is)) => unless(same(was.as_ref(), is.as_ref()), "output"),
        (NodeKind::ContinueAsNew(was), NodeKind::ContinueAsNew(is)) => unless(same(was.as_ref(), is.as_ref()), "input"),
        _ => Some("kind"),
    }
}

fn activity_difference(was: &Activity, is: &Activity) -> Option<&'static str> {
    let unless = |same: bool, what: &'static str| (!same).then_some(what);
    let undo = match (&was.undo, &is.undo) {
        (Undo::Compensate(was), Undo::Compensate(is)) => unless(call_difference(was, is).is_none(), "undo"),
        (Undo::ReadOnly, Undo::ReadOnly) | (Undo::None { .. }, Undo::None { .. }) => None,
        _ => Some("undo"),
    };
    call_difference(&was.call, &is.call)
        .or(undo)
        .or(unless(was.on_failure == is.on_failure, "`on_failure`"))
        .or(unless(
            was.compensate_on_failure == is.compensate_on_failure,
            "`compensate_on_failure`",
        ))
        .or(unless(was.pivot == is.pivot, "`pivot`"))
        .or(unless(was.cancellation == is.cancellation, "`cancellation`"))
        .or(unless(
            same_limits(was.limiting.as_deref(), is.limiting.as_deref()),
            "limit",
        ))
}

fn same_limits(one: Option<&Limiting>, other: Option<&Limiting>) -> bool {
    fn same_limited<T: PartialEq>(one: Option<&Limited<T>>, other: Option<&Limited<T>>) -> bool {
        match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => one.to == other.to && same(one.key.as_ref(), other.key.as_ref()),
            _ => false,
        }
    }
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            same_limited(one.concurrency.as_ref(), other.concurrency.as_ref())
                && same_limited(one.rate.as_ref(), other.rate.as_ref())
                && one.priority == other.priority
                && same(one.fairness_key.as_ref(), other.fairness_key.as_ref())
        }
        _ => false,
    }
}

fn call_difference(was: &Call, is: &Call) -> Option<&'static str> {
    let unless = |same: bool, what: &'static str| (!same).then_some(what);
    unless(was.activity == is.activity, "activity")
        .or(unless(was.queue == is.queue, "queue"))
        .or(unless(same(was.input.as_ref(), is.input.as_ref()), "input"))
        .or(unless(
            (was.start_to_close, was.timeouts) == (is.start_to_close, is.timeouts),
            "timeout",
        ))
        .or(unless(was.retry == is.retry, "retry policy"))
        .or(unless(was.on_exhausted == is.on_exhausted, "`on_exhausted`"))
}

fn parallel_difference(was: &Parallel, is: &Parallel) -> Option<&'static str> {
    let unless = |same: bool, what: &'static str| (!same).then_some(what);
    unless(was.join == is.join, "`join`")
        .or(unless(was.losers == is.losers, "`losers`"))
        .or(unless(was.branches.len() == is.branches.len(), "list of branches"))
}
