//! Activities and what undoes them.

use std::sync::Arc;

use super::expressions::template;
use super::steps::unchecked;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model;
use crate::definition::plan::{Activity, Call, UNDECLARED, Undo};
use crate::ids::ActivityName;

pub(super) fn activity(activity: &model::Activity, step: &model::Step) -> Result<Activity, Diagnostic> {
    let undo = match &activity.undo {
        model::Undo::Compensate(undo) => Undo::Compensate(call(undo, step)?),
        model::Undo::ReadOnly => Undo::ReadOnly,
        model::Undo::None { reason } => Undo::None {
            reason: Arc::from(reason.as_str()),
        },
        model::Undo::Undeclared => Undo::None {
            reason: Arc::from(UNDECLARED),
        },
    };
    Ok(Activity {
        call: call(&activity.call, step)?,
        undo,
        on_failure: activity.on_failure,
        compensate_on_failure: activity.compensate_on_failure,
        pivot: activity.pivot,
        cancellation: activity.cancellation.unwrap_or_default(),
    })
}

fn call(call: &model::Call, step: &model::Step) -> Result<Call, Diagnostic> {
    let settings = call.settings.clone().ok_or_else(|| unchecked(step))?;
    Ok(Call {
        activity: ActivityName::new(&call.activity.text),
        queue: settings.queue,
        input: call.input.as_ref().map(template).transpose()?,
        start_to_close: settings.start_to_close,
        timeouts: settings.timeouts,
        retry: settings.retry,
    })
}
