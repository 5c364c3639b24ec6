//! `for_each:`: a body for each item of a list, up to `max_concurrency` at a time, begun in the order of the items.
//!
//! | what | then |
//! |---|---|
//! | entered | the list is evaluated, once, and stored |
//! | an iteration passed | what it contributes (`collect`) is evaluated and stored; the next one begins |
//! | an iteration failed, or its `collect` | no more begin, the others are halted; when they have ended, the step fails with that error |
//! | all passed | the step completes with the list of contributions |
//! | the step itself is halted | no more begin; when those under way have ended, the step is halted |
//!
//! Without `max_concurrency` as many are begun as [`MAX_ITERATIONS_AT_ONCE`] allows, so that a long list is no limit.

use std::sync::Arc;

use serde_json::Value;

use super::decider::{Decider, End, Work};
use super::event::{Event, StepOutcome};
use super::failure::{Failure, error_type};
use super::limits::MAX_ITERATIONS_AT_ONCE;
use super::open::{ForEach as State, Open};
use super::{blocked, halt, path, tree};
use crate::definition::plan::{ForEach, NodeId};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, each: &ForEach) {
    let items = match d.scope(&path).evaluate(Some(&each.list)) {
        Ok(items) if items.is_array() => items,
        Ok(_) => {
            let error = Failure::new(error_type::EXPRESSION, "`in` did not give a list");
            return tree::fail(d, node, path, error);
        }
        Err(error) => return tree::fail(d, node, path, error),
    };
    d.emit(Event::ForEachStarted {
        step: path.clone(),
        items,
    });
    go_on(d, node, path, each);
}

pub(super) fn iteration_ended(
    d: &mut Decider<'_>,
    node: NodeId,
    path: StepPath,
    each: &ForEach,
    iteration: &StepPath,
    end: End,
) {
    let Some((_, index)) = path::iteration(iteration.as_str()) else {
        return;
    };
    let (output, end) = match end {
        End::Passed => match d.scope(iteration).evaluate(each.collect.as_ref()) {
            Ok(output) => (output, End::Passed),
            Err(error) => (Arc::default(), End::Failed(error.at(&path))),
        },
        other => (Arc::default(), other),
    };
    let failed = match &end {
        End::Failed(error) => Some(error.clone()),
        End::Passed | End::Halted => None,
    };
    d.emit(Event::IterationEnded {
        step: path.clone(),
        index,
        output,
        end,
    });
    if let Some(error) = failed
        && state(d, &path).is_some_and(|state| state.stopped.is_none())
    {
        d.emit(Event::ForEachStopped {
            step: path.clone(),
            error,
        });
        halt::halt(d, &path);
    }
    go_on(d, node, path, each);
}

/// Begins what may begin, or ends the step.
fn go_on(d: &mut Decider<'_>, node: NodeId, path: StepPath, each: &ForEach) {
    let halted = d.state.is_halted(&path);
    let all = d
        .state
        .loops
        .get(&path)
        .and_then(|of| of.items.as_array().map(Vec::len));
    let Some((state, all)) = state(d, &path).zip(all.and_then(|all| u32::try_from(all).ok())) else {
        return;
    };
    let under_way = state.begun - state.ended;
    if halted || state.stopped.is_some() {
        let error = state.stopped.clone().and_then(|stopped| stopped.error);
        return match error {
            _ if under_way > 0 => {}
            Some(error) if !halted => tree::step_failed(d, node, path, StepOutcome::Failed, error),
            _ => d.halted(node, path),
        };
    }
    if state.ended == all {
        let outputs = (0..all).map(|index| state.outputs.get(&index).map_or(Value::Null, |one| Value::clone(one)));
        return match blocked::bounded(Value::Array(outputs.collect())) {
            Ok(output) => d.completed(node, path, output),
            Err(error) => tree::fail(d, node, path, error),
        };
    }
    let at_once = each
        .max_concurrency
        .unwrap_or(u32::MAX)
        .clamp(1, MAX_ITERATIONS_AT_ONCE);
    let begin = state.begun..all.min(state.begun + at_once.saturating_sub(under_way));
    for index in begin {
        d.emit(Event::IterationStarted {
            step: path.clone(),
            index,
        });
        d.push(Work::Enter {
            node: each.body,
            path: path::of_iteration(&path, index),
        });
    }
}

fn state<'d>(d: &'d Decider<'_>, path: &StepPath) -> Option<&'d State> {
    match d.state.open.get(path) {
        Some(Open::ForEach(state)) => Some(state),
        _ => None,
    }
}
