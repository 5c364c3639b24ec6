//! What operators did to a run, from its events: who, when and why.

use knarr_core::ids::StepPath;
use knarr_core::run::Event;
use knarr_core::run::effect::Direction;
use knarr_core::run::event::Resolution;
use knarr_core::run::input::Operation;
use knarr_core::time::Timestamp;
use knarr_schemas::api::OperationState;

/// `None`: nobody asked for it. What says neither who nor why is Knarr's own doing.
pub(super) fn of(event: &Event, at: Timestamp) -> Option<OperationState> {
    let (action, place, operation): (_, Option<(&StepPath, Direction)>, &Operation) = match event {
        Event::CancelRequested { operation, .. }
        | Event::StopDeferred { operation, .. }
        | Event::RetryWaived { operation } => ("cancel", None, operation),
        Event::LimitsRaised { operation, .. } => ("limit", None, operation),
        Event::RunMigrated { operation, .. } => ("migrate", None, operation),
        Event::RunTerminated { operation, .. } => ("terminate", None, operation),
        Event::RunResumed { operation, .. } => ("retry", None, operation),
        Event::StepResumed { step, operation } => ("retry", Some((step, Direction::Do)), operation),
        Event::UndoResumed { step, operation } => ("retry", Some((step, Direction::Undo)), operation),
        Event::StepResolved {
            step, how, operation, ..
        } => (resolved(*how), Some((step, Direction::Do)), operation),
        Event::UndoResolved { step, how, operation } => (resolved(*how), Some((step, Direction::Undo)), operation),
        _ => return None,
    };
    if *operation == Operation::default() {
        return None;
    }
    let place = place.filter(|(step, _)| !step.as_str().is_empty());
    Some(OperationState {
        at: at.to_utc(),
        action: action.to_owned(),
        direction: place.map(|(_, direction)| direction.as_str().to_owned()),
        step: place.map(|(step, _)| step.to_string()),
        by: operation.by.as_ref().map(ToString::to_string),
        reason: operation.reason.as_ref().map(ToString::to_string),
    })
}

fn resolved(how: Resolution) -> &'static str {
    match how {
        Resolution::Done => "done",
        Resolution::Skipped => "skip",
    }
}
