//! Which steps have an output, and what is in it.

use super::walk::Walk;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::listed;
use crate::definition::model::{Parallel, Step, StepKind};
use crate::definition::near::nearest;
use crate::definition::plan::Join;
use crate::definition::tree::Place;
use crate::expression::{Reference, Segment};

const PARALLEL_FIELDS: &[&str] = &["winner", "branches"];

/// Why a step never has an output, and what to read instead.
pub(super) fn why_none(step: &Step) -> Option<(&'static str, &'static str)> {
    const INNER: &str = "read a step in it, or set a variable there";
    Some(match &step.kind {
        StepKind::Set(_) => ("sets variables and", "read `vars` instead"),
        StepKind::Switch(_) => ("takes one of its cases and", INNER),
        StepKind::While(_) => ("repeats its steps and", INNER),
        StepKind::Try(_) | StepKind::Scope(_) => ("guards its steps and", INNER),
        StepKind::Wait(_) => ("only waits and", "read another step"),
        StepKind::Emit(_) => ("publishes and", "read what it publishes instead"),
        StepKind::Fail(_) | StepKind::Complete(_) | StepKind::ContinueAsNew(_) => {
            ("ends the run and", "read another step")
        }
        StepKind::Workflow(child) if child.detached => (
            "is not waited for (`detached`) and",
            "let the child tell by a signal, or do not detach it",
        ),
        StepKind::Activity(_)
        | StepKind::Parallel(_)
        | StepKind::ForEach(_)
        | StepKind::WaitFor(_)
        | StepKind::Workflow(_)
        | StepKind::Broken => return None,
    })
}

impl<'a> Walk<'a, '_> {
    /// What is read of the output `{ winner, branches: { a: …, b: … } }`.
    pub(super) fn parallel_output(
        &mut self,
        step: &'a Step,
        parallel: &'a Parallel,
        reference: &Reference,
        guarded: bool,
        place: Place,
    ) {
        let id = &step.id.text;
        let key = |at: usize| match reference.path.segments.get(at) {
            Some(Segment::Key(key)) => Some(key.as_ref()),
            _ => None,
        };
        let Some(field) = key(1) else { return };
        if !PARALLEL_FIELDS.contains(&field) {
            let message = format!("the output of `{id}` has no `{field}`");
            let near = nearest(field, PARALLEL_FIELDS.iter().copied());
            self.found.push(
                Diagnostic::error(code::UNKNOWN_NAME, place, message)
                    .help(format!("it has {}", listed(PARALLEL_FIELDS)))
                    .suggest(near),
            );
            return;
        }
        let Some(branch) = key(2).filter(|_| field == "branches") else {
            return;
        };
        let names = || parallel.branches.iter().map(|branch| branch.name.text.as_str());
        if !names().any(|name| name == branch) {
            let message = format!("`{id}` has no branch `{branch}`");
            self.found
                .push(Diagnostic::error(code::UNKNOWN_NAME, place, message).suggest(nearest(branch, names())));
        } else if parallel.join != Join::All && !guarded {
            let message = format!(
                "the branch `{branch}` may have been cancelled (`{id}` does not wait for all) and then has no output"
            );
            self.found.push(Diagnostic::error(code::SKIPPED_STEP, place, message));
        }
    }
}
