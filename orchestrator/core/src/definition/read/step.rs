//! One step: its id, its condition, and which kind it is.

use super::activity::activity;
use super::steps::Reader;
use super::value::condition;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected, listed};
use crate::definition::keys::{BESIDE_ACTIVITY, BESIDE_WAIT_FOR, KINDS, STEP};
use crate::definition::model::{Step, StepKind};
use crate::definition::names::{assignments, identifier};
use crate::definition::near::nearest;
use crate::definition::tree::{Kind, Node, Place};

impl Reader<'_> {
    pub(super) fn step(&mut self, item: &Node) -> Option<Step> {
        let Kind::Object(entries) = &item.kind else {
            expected(item, "a step", "a mapping of one id (`- <id>: { … }`)", self.found);
            return None;
        };
        let Some(((key, body), rest)) = entries.split_first() else {
            let message = "a step is empty";
            self.found
                .push(Diagnostic::error(code::STEP_KIND, item.span.clone(), message));
            return None;
        };
        if let Some((extra, _)) = rest.first() {
            let message = format!("a step has one id, and `{}` stands beside `{}`", extra.text, key.text);
            let help = if matches!(body.kind, Kind::Null) {
                format!("indent what belongs to `{}` further than its id", key.text)
            } else {
                "begin every step with `- `".to_owned()
            };
            self.found
                .push(Diagnostic::error(code::SHAPE, extra.span.clone(), message).help(help));
        }
        let id = identifier(&key.text, &key.span, "step", self.found)?;
        let new = self.is_new(&id.text, &id.place);
        let fields = if rest.is_empty() {
            Fields::open(body, &STEP, self.found)
        } else {
            None
        };
        let Some(fields) = fields else {
            let step = Step {
                id,
                condition: None,
                kind: StepKind::Broken,
            };
            return new.then_some(step);
        };
        let condition = condition(&fields, "if", self.found);
        let kind = self.kind(&id.text, &id.place, body, &fields);
        new.then_some(Step { id, condition, kind })
    }

    fn kind(&mut self, id: &str, place: &Place, body: &Node, fields: &Fields<'_>) -> StepKind {
        let mut kinds = KINDS.iter().copied().filter(|kind| fields.get(kind).is_some());
        let Some(kind) = kinds.next() else {
            // A kind of step that is misspelt has its own finding.
            let explained = keys_of(body).any(|key| {
                !STEP.known.contains(&key)
                    && nearest(key, STEP.known.iter().copied()).is_some_and(|k| KINDS.contains(&k))
            });
            let is_activity = |key: &str| nearest(key, STEP.known.iter().copied()) == Some("activity");
            if keys_of(body).any(is_activity) {
                // What is wrong with the rest of it is told at once.
                activity(fields, self.files, self.found);
            }
            if !explained {
                let message = format!("the step `{id}` does not say what it does");
                let help = format!("give it one of {}", listed(KINDS));
                self.found
                    .push(Diagnostic::error(code::STEP_KIND, place.clone(), message).help(help));
            }
            return StepKind::Broken;
        };
        if let Some(other) = kinds.next() {
            let place = fields.key_place(other).unwrap_or_default();
            let message = format!("a step is either `{kind}` or `{other}`");
            self.found.push(Diagnostic::error(code::STEP_KIND, place, message));
            return StepKind::Broken;
        }
        self.nothing_beside(kind, fields);
        let place = fields.key_place(kind).unwrap_or_default();
        let Some(node) = fields.get(kind) else {
            return StepKind::Broken;
        };
        let read = match kind {
            "activity" => activity(fields, self.files, self.found).map(|a| StepKind::Activity(Box::new(a))),
            "set" => Some(StepKind::Set(assignments(node, "`set`", "variable", self.found))),
            "parallel" => self.parallel(node, &place).map(StepKind::Parallel),
            "for_each" => self.for_each(node, &place).map(|f| StepKind::ForEach(Box::new(f))),
            "switch" => self.switch(node).map(StepKind::Switch),
            "while" => self.repeat(node, &place).map(|w| StepKind::While(Box::new(w))),
            "try" => self.guard(node, &place).map(StepKind::Try),
            "scope" => self.scope(node, &place).map(StepKind::Scope),
            "wait" => self.wait(node, &place).map(StepKind::Wait),
            "wait_for" => self
                .wait_for(node, fields, &place)
                .map(|w| StepKind::WaitFor(Box::new(w))),
            "workflow" => self.child(node, &place).map(|w| StepKind::Workflow(Box::new(w))),
            "emit" => self.emit(node, &place).map(StepKind::Emit),
            "fail" => self.fail(node, &place).map(StepKind::Fail),
            "complete" => Some(StepKind::Complete(super::ending::value(node))),
            _ => Some(StepKind::ContinueAsNew(super::ending::value(node))),
        };
        read.unwrap_or(StepKind::Broken)
    }

    fn nothing_beside(&mut self, kind: &str, fields: &Fields<'_>) {
        let beside: &[&str] = match kind {
            "activity" => BESIDE_ACTIVITY,
            "wait_for" => BESIDE_WAIT_FOR,
            _ => &[],
        };
        for key in STEP.known {
            if *key != kind
                && *key != "if"
                && !beside.contains(key)
                && let Some(place) = fields.key_place(key)
            {
                let message = format!("`{key}` has no meaning beside `{kind}`");
                let help = match *key {
                    "input" if kind == "workflow" => "write it under `workflow`",
                    _ => "remove it",
                };
                self.found
                    .push(Diagnostic::error(code::CONTRADICTION, place, message).help(help));
            }
        }
    }
}

fn keys_of(node: &Node) -> impl Iterator<Item = &str> {
    let entries = match &node.kind {
        Kind::Object(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(key, _)| key.text.as_str())
}
