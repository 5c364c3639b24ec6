//! `vars`: set before they are read?

use super::facts::{Facts, Seen};
use super::walk::{At, Walk};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::StepKind;
use crate::definition::tree::Place;

impl<'a> Walk<'a, '_> {
    pub(super) fn variable(&mut self, name: &str, guarded: bool, place: Place, facts: &Facts<'a>, at: &At<'a>) {
        let finding = match facts.var(name).map(|var| (var.seen, var.by)) {
            Some((Seen::Surely, _)) => return,
            Some((Seen::Maybe(doubt), by)) if !guarded && !self.told(doubt, at) => {
                let message = format!("`vars.{name}` is set only if `{by}` runs");
                Diagnostic::error(code::SKIPPED_STEP, place, message)
            }
            Some((Seen::Maybe(_), _)) => return,
            Some((Seen::No, _)) | None => match self.first_setter(name) {
                Some(_) if guarded => return,
                Some(by) => {
                    let message = format!("`vars.{name}` is not set before `{by}`");
                    Diagnostic::error(code::LATER_STEP, place, message)
                }
                None => {
                    let message = format!("no step sets `vars.{name}`");
                    let variables = self.variables();
                    let near = self.nearest(name, variables);
                    Diagnostic::error(code::UNKNOWN_NAME, place, message).suggest(near)
                }
            },
        };
        self.found.push(finding);
    }

    fn first_setter(&self, name: &str) -> Option<&'a str> {
        self.index.steps().find_map(|step| match &step.kind {
            StepKind::Set(entries) if entries.iter().any(|(entry, _)| entry.text == name) => {
                Some(step.id.text.as_str())
            }
            _ => None,
        })
    }

    fn variables(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        for step in self.index.steps() {
            if let StepKind::Set(entries) = &step.kind {
                names.extend(entries.iter().map(|(name, _)| name.text.as_str()));
            }
        }
        names
    }
}
