//! `pivot: true`: the step after which a run only goes forward.
//!
//! | what | before it, or while it is under way | once it has completed |
//! |---|---|---|
//! | the pivot ends unknown | asked again without limit, until it is known | – |
//! | the pivot ends unknown, and asking again would tell nothing | parked for an operator, also in what was halted; *under way* until it is known | – |
//! | the pivot surely was not done | fails like any step | – |
//! | the run is cancelled or past its timeout | if the pivot may have been done: deferred until that is known | cancel is refused, the timeout is void |
//! | a later step fails and could be tried again | its policy decides | tried again without limit |
//! | a step of a handler would fail the run, while the pivot is under way | parked for an operator, likewise: whether the run may fail is not known | – |
//! | a later step fails for good | it fails | parked for an operator, unless a `try` within reach catches it or the step may fail (`on_failure: continue`) |
//!
//! Deferred: the pivot's worker is asked to cancel, and a task that nobody has is taken out of its queue, or not offered again
//! where its stream refused it. When the pivot turns out not to have been done, the run stops as it was asked to; when it has
//! completed, the request is void.

use super::decider::Decider;
use super::event::{Event, StepOutcome};
use super::execution::{Execution, Known};
use super::failure::Failure;
use super::input::Operation;
use super::open::Open;
use super::retry::Regardless;
use super::state::{State, Step, Why};
use super::{handler, stop, try_catch, withdrawal};
use crate::definition::plan::{Activity, NodeId, NodeKind, OnFailure, Plan};
use crate::ids::StepPath;

/// Whether it is a pivot that may have been done, and is not with a worker.
pub(super) fn is_undecided(plan: &Plan, step: &StepPath, execution: &Execution) -> bool {
    execution.may_be_done() && is_pivot(plan, step)
}

fn is_pivot(plan: &Plan, step: &StepPath) -> bool {
    super::tree::find(plan, step.as_str()).is_some_and(|node| is_pivot_at(plan, node))
}

pub(super) fn is_pivot_at(plan: &Plan, node: NodeId) -> bool {
    match &plan.node(node).kind {
        NodeKind::Activity(activity) => activity.pivot,
        _ => false,
    }
}

/// Whether it is a pivot that ended unknown the last time, and of which nobody has said more since: it waits for an operator, or
/// to be entered once more.
pub(super) fn is_left_unknown(plan: &Plan, state: &State, step: &StepPath) -> bool {
    state.ended_unknown(step) && is_pivot(plan, step)
}

/// Whether an activity is tried again whatever its policy says.
pub(super) fn regardless(d: &Decider<'_>, node: NodeId, activity: &Activity, step: &StepPath) -> Regardless {
    if activity.pivot && d.state.doing.get(step).is_some_and(Execution::may_be_done) {
        return Regardless::OfEverything;
    }
    let forward_only = d.state.past_pivot
        && activity.on_failure == OnFailure::Fail
        && !d.state.is_halted(step)
        && !is_caught(d.plan, node, None);
    if forward_only {
        Regardless::OfNumber
    } else {
        Regardless::No
    }
}

/// Whether a forward step is tried again at all: not in a region that was halted, nor for a stop that waits for it.
pub(super) fn may_go_on(d: &Decider<'_>, step: &StepPath, regardless: Regardless) -> bool {
    let waited_for = d
        .state
        .deferred
        .as_ref()
        .is_some_and(|deferred| deferred.pivot == *step);
    regardless == Regardless::OfEverything || !waited_for && !d.state.is_halted(step)
}

/// Whether a step that failed for good has to wait for an operator.
pub(super) fn must_not_fail(d: &Decider<'_>, node: NodeId, step: &StepPath, error: &Failure) -> bool {
    // Beside a pivot that is under way it is not known yet.
    let may_not_fail = d.state.past_pivot || handler::is_beside(step.as_str()) && under_way(d).is_some();
    if !may_not_fail || d.state.is_halted(step) {
        return false;
    }
    let may_fail = match &d.plan.node(node).kind {
        NodeKind::Activity(activity) => activity.on_failure == OnFailure::Continue,
        _ => false,
    };
    !may_fail && !is_caught(d.plan, node, Some(error))
}

/// Whether a `try` catches it before it reaches a scope, which would undo, or the run. Without an error: any.
fn is_caught(plan: &Plan, mut node: NodeId, error: Option<&Failure>) -> bool {
    while let Some(parent) = plan.node(node).parent {
        match &plan.node(parent).kind {
            NodeKind::Try(block) if block.body == node => {
                let fits = |catch| error.is_none_or(|error| try_catch::fits(catch, error));
                if block.catches.iter().any(fits) {
                    return true;
                }
            }
            NodeKind::Scope(_) => return false,
            _ => {}
        }
        node = parent;
    }
    false
}

/// The pivot that may have been done, or may be being done, if there is one. What its stream refused is nowhere. What waits for
/// an operator may have been done all the same.
fn under_way<'d>(d: &'d Decider<'_>) -> Option<&'d StepPath> {
    let is_out = |execution: &Execution| execution.open_task().is_some_and(|open| open.known != Known::Held);
    let may_be = |execution: &Execution| is_out(execution) || execution.may_be_done();
    let doing = d.state.doing.iter();
    let doing = doing.filter(|(step, execution)| may_be(execution) && is_pivot(d.plan, step));
    let parked = d.state.open.iter();
    let parked = parked.filter(|(_, open)| matches!(open, Open::Parked { .. }));
    let at_rest = parked.map(|(step, _)| step).chain(&d.state.blocked);
    let at_rest = at_rest.filter(|step| is_left_unknown(d.plan, d.state, step));
    doing.map(|(step, _)| step).chain(at_rest).next()
}

/// Defers a stop because of a pivot; whether it did. One that is deferred already stays as it is.
pub(super) fn defer(d: &mut Decider<'_>, why: Why, error: &Failure, operation: &Operation) -> bool {
    if d.state.deferred.is_some() {
        return true;
    }
    let Some(pivot) = under_way(d).cloned() else {
        return false;
    };
    d.emit(Event::StopDeferred {
        why,
        pivot,
        error: error.clone(),
        operation: operation.clone(),
    });
    if let Some(step) = d.state.deferred.as_ref().map(|deferred| deferred.pivot.clone()) {
        withdrawal::of_halted(d, |_, view| *view.step == step);
    }
    true
}

impl State {
    /// Whether what was done last of a step may have been done.
    pub(super) fn ended_unknown(&self, step: &StepPath) -> bool {
        let unknown = StepOutcome::Unknown;
        matches!(self.steps.get(step), Some(Step::Failed { outcome, .. }) if *outcome == unknown)
    }
}

/// Stops the run now if the pivot it had to wait for has ended without having been done.
pub(super) fn resolve(d: &mut Decider<'_>) {
    let Some(deferred) = &d.state.deferred else {
        return;
    };
    let is_open = d.state.doing.contains_key(&deferred.pivot) || d.state.ended_unknown(&deferred.pivot);
    if !d.state.is_running() || d.state.past_pivot || is_open {
        return;
    }
    let error = deferred.error.clone();
    match deferred.why {
        Why::TimedOut => d.emit(Event::RunTimedOut { error }),
        Why::Failed => d.emit(Event::RunFailed { error }),
        Why::Cancelled => d.emit(Event::CancelRequested {
            error,
            operation: Operation::default(),
        }),
    }
    stop::halt(d);
}
