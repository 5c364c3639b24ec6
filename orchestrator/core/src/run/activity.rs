//! `activity:` forwards.
//!
//! | what | then |
//! |---|---|
//! | entered | its input is evaluated; dispatched, with its ledger entry, or [`super::permit`] has it wait |
//! | its task has ended | [`super::attempt`] says whether the step has |
//! | completed | its undo is prepared; a pivot makes the run go forward only |
//! | failed, unknown, cancelled | [`super::tree::step_failed`]: undone if it may have been done, and the container is told |

use std::sync::Arc;

use serde_json::Value;

use super::decider::Decider;
use super::effect::Direction;
use super::event::{ActivityScheduled, Event, UndoCall};
use super::{blocked, compensation, permit, tree};
use crate::definition::plan::{Activity, NodeId, Undo};
use crate::ids::{StepPath, TaskNo};

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, activity: &Activity) {
    let call = &activity.call;
    match d.scope(&path).evaluate(call.input.as_ref()) {
        Ok(input) => schedule(d, node, path, activity, input),
        Err(error) => tree::fail(d, node, path, error),
    }
}

pub(super) fn schedule(d: &mut Decider<'_>, node: NodeId, path: StepPath, activity: &Activity, input: Arc<Value>) {
    if let Some(error) = blocked::one_too_many(d.state) {
        return tree::fail(d, node, path, error);
    }
    let call = &activity.call;
    let undo = match &activity.undo {
        Undo::Compensate(undo) => Some(UndoCall {
            activity: undo.activity.clone(),
            queue: undo.queue.clone(),
        }),
        Undo::ReadOnly | Undo::None { .. } => None,
    };
    let limits = match permit::limits(d, &path, activity) {
        Ok(limits) => limits,
        Err(error) => return tree::fail(d, node, path, error),
    };
    let waits = permit::have_tasks_wait(d, limits.as_deref(), &call.queue);
    // What an operator has tried again may have been done by then.
    let may_be_done = d.state.may_say_of_doubt() && d.state.ended_unknown(&path);
    d.emit(Event::ActivityScheduled(Box::new(ActivityScheduled {
        step: path.clone(),
        task: permit::first_task(d.state, waits),
        activity: call.activity.clone(),
        queue: call.queue.clone(),
        input,
        start_to_close: call.start_to_close,
        timeouts: call.timeouts,
        cancellation: activity.cancellation,
        max_attempts: call.retry.maximum_attempts,
        undo,
        limits,
        may_be_done,
    })));
    if waits {
        permit::open(d, &path, Direction::Do);
    }
}

pub(super) fn completed(d: &mut Decider<'_>, step: StepPath, task: TaskNo, output: Arc<Value>) {
    let Some((node, activity)) = d.activity(&step) else {
        return;
    };
    d.emit(Event::TaskCompleted { task, output });
    if let Undo::Compensate(call) = &activity.undo {
        compensation::prepare(d, &step, call, None);
    }
    if activity.pivot && d.state.is_running() {
        d.emit(Event::PivotCompleted { step: step.clone() });
    }
    d.passed(node, step);
}
