//! `parallel:`: branches side by side.
//!
//! | branch | what is known then | then |
//! |---|---|---|
//! | ended | `join` is fulfilled | the others are halted; when they have ended, what the losers did is undone (`losers: undo`), and the step completes |
//! | ended | `join` cannot be fulfilled any more | the others are halted; when they have ended, the step fails with the first error |
//! | ended | neither | the others go on |
//! | ended, the step itself is halted | – | when all have ended, the step is halted |
//!
//! A loser is every branch that has not passed: one that was halted, and one that had failed before. Output:
//! `{winner, branches}` with the last output of each branch that passed.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::decider::{Decider, End, Work};
use super::event::{Event, StepOutcome};
use super::failure::Failure;
use super::open::{Open, Parallel as State};
use super::{blocked, compensation, halt, tree};
use crate::definition::plan::{Join, Losers, NodeId, NodeKind, Parallel};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, parallel: &Parallel) {
    d.emit(Event::ParallelStarted { step: path.clone() });
    if parallel.branches.is_empty() {
        return complete(d, node, path, parallel);
    }
    for branch in &parallel.branches {
        let path = tree::child_path(&path, &d.plan.node(*branch).name);
        d.push(Work::Enter { node: *branch, path });
    }
}

pub(super) fn branch_ended(
    d: &mut Decider<'_>,
    node: NodeId,
    path: StepPath,
    parallel: &Parallel,
    branch: NodeId,
    end: End,
) {
    let Some(before) = state(d, &path) else {
        return;
    };
    let decided = before.stopped.is_some();
    let branch = d.plan.node(branch).name.clone();
    d.emit(Event::BranchEnded {
        step: path.clone(),
        branch,
        end,
    });
    let Some(now) = state(d, &path) else {
        return;
    };
    let all_ended = now.ended.len() >= parallel.branches.len();
    if !decided && !d.state.is_halted(&path) {
        let Some(error) = decision(parallel, now) else {
            return;
        };
        if !all_ended {
            d.emit(Event::ParallelStopped {
                step: path.clone(),
                error,
            });
            return halt::halt(d, &path);
        }
        return conclude(d, node, path, parallel, error);
    }
    if all_ended {
        let error = now.stopped.clone().and_then(|stopped| stopped.error);
        conclude(d, node, path, parallel, error);
    }
}

/// `None` while both ends are possible; else the error, or none for success.
fn decision(parallel: &Parallel, state: &State) -> Option<Option<Failure>> {
    let all = parallel.branches.len();
    let needed = match parallel.join {
        Join::All => all,
        Join::Any => all.min(1),
        Join::AtLeast(number) => all.min(number as usize),
    };
    let passed = state.ended.values().filter(|end| **end == End::Passed).count();
    let failed = state.ended.len() - passed;
    if passed >= needed {
        return Some(None);
    }
    if all - failed >= needed {
        return None;
    }
    Some(Some(state.error.clone().unwrap_or_else(Failure::not_needed)))
}

/// Every branch has ended.
fn conclude(d: &mut Decider<'_>, node: NodeId, path: StepPath, parallel: &Parallel, error: Option<Failure>) {
    if d.state.is_halted(&path) {
        return d.halted(node, path);
    }
    if let Some(error) = error {
        return tree::step_failed(d, node, path, StepOutcome::Failed, error);
    }
    let losers: Vec<_> = match (state(d, &path), parallel.losers) {
        (Some(state), Losers::Undo) => {
            let lost = state.ended.iter().filter(|(_, end)| **end != End::Passed);
            lost.map(|(branch, _)| tree::child_path(&path, branch)).collect()
        }
        _ => vec![],
    };
    if compensation::is_anything_in(d.state, &losers) {
        return d.emit(Event::BodiesDiscarded {
            step: path,
            bodies: losers,
        });
    }
    complete(d, node, path, parallel);
}

/// What the losers did has been undone.
pub(super) fn undone(d: &mut Decider<'_>, path: StepPath) {
    let plan = d.plan;
    let Some(node) = tree::find(plan, path.as_str()) else {
        return;
    };
    if let NodeKind::Parallel(parallel) = &plan.node(node).kind {
        complete(d, node, path, parallel);
    }
}

fn complete(d: &mut Decider<'_>, node: NodeId, path: StepPath, parallel: &Parallel) {
    if d.state.is_halted(&path) {
        return d.halted(node, path);
    }
    let Some(state) = state(d, &path) else {
        return;
    };
    let mut outputs = Map::new();
    for branch in &parallel.branches {
        let name = &d.plan.node(*branch).name;
        if state.ended.get(name) == Some(&End::Passed) {
            let output = tree::last_output(d, *branch, &tree::child_path(&path, name));
            outputs.insert(name.to_string(), Value::clone(&output));
        }
    }
    let output = json!({"winner": state.winner.as_deref(), "branches": outputs});
    match blocked::bounded(output) {
        Ok(output) => d.completed(node, path, output),
        Err(error) => tree::fail(d, node, path, error),
    }
}

fn state<'d>(d: &'d Decider<'_>, path: &StepPath) -> Option<&'d State> {
    match d.state.open.get(path) {
        Some(Open::Parallel(state)) => Some(state),
        _ => None,
    }
}

impl State {
    /// Of a branch, as the event says.
    pub(super) fn branch_ended(&mut self, branch: &Arc<str>, end: &End) {
        match end {
            End::Passed if self.winner.is_none() => self.winner = Some(branch.clone()),
            End::Failed(error) if self.error.is_none() => self.error = Some(error.clone()),
            End::Passed | End::Failed(_) | End::Halted => {}
        }
        self.ended.insert(branch.clone(), end.clone());
    }
}
