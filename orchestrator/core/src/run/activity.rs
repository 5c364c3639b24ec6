//! `activity:` forwards: dispatched, and ended as completed, failed, unknown or cancelled.

use std::sync::Arc;

use serde_json::Value;

use super::compensation;
use super::decider::{Decider, End, Work};
use super::event::{ActivityScheduled, Event, StepOutcome, UndoCall};
use super::failure::Failure;
use super::scope::RunScope;
use super::tree;
use crate::definition::plan::{Activity, NodeId, NodeKind, OnFailure, Undo};
use crate::ids::{StepPath, TaskNo};

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, activity: &Activity) {
    let call = &activity.call;
    let input = match RunScope::new(d.state, &path).evaluate(call.input.as_ref()) {
        Ok(input) => input,
        Err(error) => return tree::fail(d, node, path, error),
    };
    let undo = match &activity.undo {
        Undo::Compensate(undo) => Some(UndoCall {
            activity: undo.activity.clone(),
            queue: undo.queue.clone(),
        }),
        Undo::ReadOnly | Undo::None { .. } => None,
    };
    d.emit(Event::ActivityScheduled(Box::new(ActivityScheduled {
        step: path,
        task: d.state.next_task(),
        activity: call.activity.clone(),
        queue: call.queue.clone(),
        input,
        start_to_close: call.start_to_close,
        max_attempts: call.retry.maximum_attempts,
        undo,
    })));
}

pub(super) fn completed(d: &mut Decider<'_>, step: StepPath, task: TaskNo, output: Arc<Value>) {
    let Some((node, activity)) = d.activity(&step) else {
        return;
    };
    d.emit(Event::TaskCompleted { task, output });
    if let Undo::Compensate(call) = &activity.undo {
        compensation::prepare(d, &step, call, None);
    }
    if d.state.is_running() {
        d.push(Work::Ended {
            node,
            path: step,
            end: End::Passed,
        });
    }
}

/// A step, of any kind, that ended without success; `error` names it.
pub(super) fn step_failed(d: &mut Decider<'_>, node: NodeId, step: StepPath, outcome: StepOutcome, error: Failure) {
    let plan = d.plan;
    d.emit(Event::StepFailed {
        step: step.clone(),
        outcome,
        error: error.clone(),
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
    if d.state.is_running() {
        d.push(Work::Ended { node, path: step, end });
    }
}
