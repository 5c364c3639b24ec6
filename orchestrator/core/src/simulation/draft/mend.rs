//! Takes out of what is drawn whatever the reader finds fault with.

use super::{Body, Draft, Kind, Options, Undo};
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::{self, Checked, code};

impl Draft {
    /// Reads and checks it, without the steps that have a finding: what is left is what a person would have registered.
    /// `None` where that does not come to an end.
    pub fn checked(mut self) -> Option<(Self, Checked)> {
        for _ in 0..60 {
            let text = self.text();
            let found = match definition::read(&text, &|path| Err(format!("there is no {path}"))) {
                Ok(checked) => return Some((self, checked)),
                Err(found) => found,
            };
            let errors = found.iter().filter(|finding| finding.severity == Severity::Error);
            for finding in errors {
                self.mend(&text, finding)?;
            }
        }
        None
    }

    fn mend(&mut self, text: &str, finding: &Diagnostic) -> Option<()> {
        if finding.code == code::TIMEOUT_CUTS_PIVOT {
            self.timeout_secs = None;
            return Some(());
        }
        let id = step_at(text, finding.span.start)?;
        mend_in(&mut self.steps, id, finding.code.code);
        for handler in &mut self.handlers {
            mend_in(&mut handler.steps, id, finding.code.code);
        }
        Some(())
    }
}

/// The id of the step that a place lies in.
fn step_at(text: &str, place: usize) -> Option<&str> {
    // The finding may lie on the id itself.
    let end = text[place..].find('\n').map_or(text.len(), |line| place + line);
    text[..end].lines().rev().find_map(|line| {
        let id = line.trim().strip_prefix('"')?.strip_suffix("\": {")?;
        let (kind, number) = id.split_at_checked(1)?;
        let is_id = kind.bytes().all(|byte| byte.is_ascii_lowercase()) && !number.is_empty();
        (is_id && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(id)
    })
}

const OF_OPTIONS: [&str; 3] = [
    code::TIMEOUT_IDLE.code,
    code::ENDLESS_CANCELLATION.code,
    code::BAD_VALUE.code,
];

fn mend_in(body: &mut Body, id: &str, finding: &str) {
    let alone = body.len() == 1;
    let mut removed = None;
    for (index, step) in body.iter_mut().enumerate() {
        if step.id != id {
            step.kind
                .bodies_mut()
                .into_iter()
                .for_each(|body| mend_in(body, id, finding));
            continue;
        }
        match &mut step.kind {
            Kind::Activity(activity) if finding == code::AFTER_PIVOT.code && activity.undo != Undo::NoUndo => {
                activity.undo = Undo::NoUndo;
                activity.compensate_on_failure = false;
            }
            Kind::Activity(activity) if OF_OPTIONS.contains(&finding) && activity.options != Options::default() => {
                activity.options = Options::default();
            }
            Kind::Activity(activity) if activity.pivot => activity.pivot = false,
            // Without its condition a run would continue for ever.
            kind if step.condition.is_some() && *kind != Kind::ContinueAsNew => step.condition = None,
            kind if alone => *kind = Kind::Set("1"),
            _ => removed = Some(index),
        }
    }
    if let Some(index) = removed {
        body.remove(index);
    }
}
