//! What is legal and unwise: sagas that leave something behind or never get to compensate.

use super::code;
use super::diagnostic::{Diagnostic, Severity};
use super::fields::listed;
use super::model::{Definition, Undo};
use super::plan::OnFailure;

pub(super) fn give(definition: &Definition, found: &mut Vec<Diagnostic>) {
    left_behind(definition, found);
    never_compensates(definition, found);
}

/// A step without any word on undoing it, before a step that can fail the run.
fn left_behind(definition: &Definition, found: &mut Vec<Diagnostic>) {
    for (at, step) in definition.steps.list.iter().enumerate() {
        let Some(activity) = step.activity() else { continue };
        if !matches!(activity.undo, Undo::Undeclared) {
            continue;
        }
        let breaker = definition.steps.list[at + 1..]
            .iter()
            .find(|later| later.activity().is_some_and(|a| a.on_failure == OnFailure::Fail));
        if let Some(breaker) = breaker {
            let message = format!(
                "what `{}` did stays when a later step (`{}`, say) fails",
                step.id.text, breaker.id.text
            );
            found
                .push(Diagnostic::error(code::LEFT_BEHIND, step.id.place.clone(), message).severity(Severity::Warning));
        }
    }
}

/// A step that retries for ever never fails, so nothing is ever undone.
fn never_compensates(definition: &Definition, found: &mut Vec<Diagnostic>) {
    let mut compensable = false;
    let mut place = None;
    let mut endless = Vec::new();
    definition.steps.visit(&mut |step| {
        let Some(activity) = step.activity() else { return };
        compensable |= matches!(activity.undo, Undo::Compensate(_));
        let unlimited = activity
            .call
            .settings
            .as_ref()
            .is_some_and(|settings| settings.retry.maximum_attempts.is_none());
        if compensable && unlimited {
            place.get_or_insert_with(|| step.id.place.clone());
            endless.push(step.id.text.as_str());
        }
    });
    if let Some(place) = place {
        let message = format!(
            "{} without limit: the saga may never get to compensate",
            match endless.as_slice() {
                [one] => format!("`{one}` is retried"),
                many => format!("{} are retried", listed(many)),
            }
        );
        found.push(Diagnostic::error(code::NEVER_COMPENSATES, place, message).severity(Severity::Warning));
    }
}
