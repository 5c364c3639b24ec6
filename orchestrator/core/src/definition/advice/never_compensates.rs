//! Steps that retry for ever never fail, so nothing is ever undone.

use crate::definition::check::Forward;
use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::fields::listed;
use crate::definition::model::{Definition, Step, StepKind, Steps, Undo};

pub(super) fn warn(definition: &Definition, forward: &Forward<'_>, found: &mut Vec<Diagnostic>) {
    let mut endless = Vec::new();
    // What handlers do may come before anything, and after it.
    let beside = definition.handlers().any(|handler| holds(&handler.steps));
    let any = search(&definition.steps, beside, forward, &mut endless);
    for handler in definition.handlers() {
        search(&handler.steps, any, forward, &mut endless);
    }
    let Some(first) = endless.first() else { return };
    let names: Vec<&str> = endless.iter().map(|step| step.id.text.as_str()).collect();
    let message = format!(
        "{} without limit: the saga may never get to compensate",
        match names.as_slice() {
            [one] => format!("`{one}` is retried"),
            many => format!("{} are retried", listed(many)),
        }
    );
    found.push(Diagnostic::error(code::NEVER_COMPENSATES, first.id.place.clone(), message).severity(Severity::Warning));
}

/// `compensable`: something may have been done that has an undo. Whether it is now is returned.
fn search<'a>(steps: &'a Steps, compensable: bool, forward: &Forward<'_>, endless: &mut Vec<&'a Step>) -> bool {
    let mut compensable = compensable;
    for step in &steps.list {
        // What runs side by side or again may come in any order.
        let any_order = matches!(
            step.kind,
            StepKind::Parallel(_) | StepKind::ForEach(_) | StepKind::While(_)
        );
        compensable |= is_compensable(step) || any_order && holds_compensable(step);
        let unlimited = step.activity().is_some_and(|activity| {
            let settings = activity.call.settings.as_ref();
            // A pivot is retried until its outcome is known, whatever its policy says.
            !activity.pivot
                && settings.is_some_and(|settings| {
                    settings.retry.maximum_attempts.is_none() && settings.timeouts.schedule_to_close.is_none()
                })
        });
        if compensable && unlimited && !forward.is_sure(step) {
            endless.push(step);
        }
        let before = compensable;
        for (_, body) in step.bodies() {
            compensable |= search(body, before, forward, endless);
        }
    }
    compensable
}

fn is_compensable(step: &Step) -> bool {
    step.activity()
        .is_some_and(|activity| matches!(activity.undo, Undo::Compensate(_)))
}

fn holds_compensable(step: &Step) -> bool {
    step.bodies().into_iter().any(|(_, body)| holds(body))
}

fn holds(steps: &Steps) -> bool {
    let mut holds = false;
    steps.visit(&mut |step| holds |= is_compensable(step));
    holds
}
