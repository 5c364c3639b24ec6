//! Activities and what undoes them.

use std::sync::Arc;

use super::expressions::template;
use super::steps::unchecked;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model;
use crate::definition::plan::{Activity, Call, Limited, Limiting, UNDECLARED, Undo};
use crate::definition::tree::Node;
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
        limiting: limiting(&activity.limiting)?,
        cancellation: activity.cancellation.unwrap_or_default(),
    })
}

fn limiting(limiting: &model::Limiting) -> Result<Option<Box<Limiting>>, Diagnostic> {
    if !limiting.is_said() {
        return Ok(None);
    }
    let compiled = |key: Option<&Node>| key.map(template).transpose();
    let concurrency = limiting.concurrency.as_ref().map(|it| {
        let key = compiled(it.key.as_ref())?;
        Ok(Limited { to: it.to, key })
    });
    let rate = limiting.rate.as_ref().map(|it| {
        let key = compiled(it.key.as_ref())?;
        Ok(Limited { to: it.to, key })
    });
    Ok(Some(Box::new(Limiting {
        concurrency: concurrency.transpose()?,
        rate: rate.transpose()?,
        priority: limiting.priority,
        fairness_key: compiled(limiting.fairness_key.as_ref())?,
    })))
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
        on_exhausted: settings.on_exhausted,
    })
}
