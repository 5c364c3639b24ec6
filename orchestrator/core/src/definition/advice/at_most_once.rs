//! Steps of a single attempt, which their author may take for steps that run at most once.
//!
//! Claims, with which a worker would take such a task for good before it begins, are not given out yet: until they are, a
//! task is delivered again when the worker that had it dies, whatever the policy says of attempts.

use crate::definition::code;
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::fields::listed;
use crate::definition::model::{Definition, Step, Undo};

pub(super) fn warn(definition: &Definition, found: &mut Vec<Diagnostic>) {
    // A number of attempts that could not be read passes for one.
    if found.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return;
    }
    let mut single: Vec<&Step> = Vec::new();
    definition.steps.visit(&mut |step| {
        let is_single = step.activity().is_some_and(|activity| {
            let settings = activity.call.settings.as_ref();
            // Reading twice does no harm.
            !matches!(activity.undo, Undo::ReadOnly)
                && settings.is_some_and(|settings| settings.retry.maximum_attempts == Some(1))
        });
        if is_single {
            single.push(step);
        }
    });
    let Some(first) = single.first() else { return };
    let names: Vec<&str> = single.iter().map(|step| step.id.text.as_str()).collect();
    let message = format!(
        "{} one attempt, whose task is still delivered again when its worker dies",
        match names.as_slice() {
            [one] => format!("`{one}` has"),
            many => format!("{} have", listed(many)),
        }
    );
    found.push(Diagnostic::error(code::NOT_AT_MOST_ONCE, first.id.place.clone(), message).severity(Severity::Warning));
}
