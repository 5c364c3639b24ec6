//! Expressions and what they refer to: syntax, names in scope, steps that have not run or may have no output.

use super::code;
use super::diagnostic::Diagnostic;
use super::fields::listed;
use super::input_reference;
use super::model::{Definition, Step, StepKind, Text, Undo};
use super::near::nearest;
use super::tree::{Kind, Node, Place};
use crate::expression::{self, Expression, ExpressionError, Part, Reference, Segment};

/// What `run` has.
const RUN_FIELDS: &[&str] = &["id", "workflow_id", "attempt", "started_at"];
/// What `error` has: the reason the run is being undone.
const ERROR_FIELDS: &[&str] = &["step", "type", "message"];

/// Where in the definition an expression stands, and so what it can see.
#[derive(Clone, Copy)]
struct At<'a> {
    roots: &'static [&'static str],
    /// Steps with a smaller index have been passed.
    passed: usize,
    /// The step whose undo this is.
    undo_of: Option<usize>,
    /// The step the expression belongs to runs only under this condition.
    condition: Option<&'a str>,
    /// Of a `set` step: how many of its assignments are made.
    assigned: usize,
}

const STEP_ROOTS: &[&str] = &["input", "steps", "vars", "run"];
const UNDO_ROOTS: &[&str] = &["input", "steps", "vars", "run", "error"];

pub(super) fn expressions(definition: &Definition, text: &str, found: &mut Vec<Diagnostic>) {
    let mut check = Check {
        definition,
        text,
        found,
    };
    let start = At {
        roots: &["input"],
        passed: 0,
        undo_of: None,
        condition: None,
        assigned: 0,
    };
    if let Some(id) = &definition.id {
        check.template(id, start);
    }
    for (_, value) in &definition.search_attributes {
        check.template(
            value,
            At {
                roots: &["input", "run"],
                ..start
            },
        );
    }
    for (index, step) in definition.steps.list.iter().enumerate() {
        check.step(index, step);
    }
    if let Some(output) = &definition.output {
        check.template(
            output,
            At {
                roots: STEP_ROOTS,
                passed: definition.steps.list.len(),
                ..start
            },
        );
    }
}

struct Check<'a> {
    definition: &'a Definition,
    text: &'a str,
    found: &'a mut Vec<Diagnostic>,
}

impl<'a> Check<'a> {
    fn step(&mut self, index: usize, step: &'a Step) {
        let before = At {
            roots: STEP_ROOTS,
            passed: index,
            undo_of: None,
            condition: None,
            assigned: 0,
        };
        if let Some(condition) = &step.condition {
            self.expression(&condition.text, &condition.place, 0, before);
        }
        let at = At {
            condition: step.condition.as_ref().map(|c| c.text.as_str()),
            ..before
        };
        match &step.kind {
            StepKind::Activity(activity) => {
                if let Some(input) = &activity.call.input {
                    self.template(input, at);
                }
                if let Undo::Compensate(undo) = &activity.undo
                    && let Some(input) = &undo.input
                {
                    let at = At {
                        roots: UNDO_ROOTS,
                        undo_of: Some(index),
                        ..at
                    };
                    self.template(input, at);
                }
            }
            StepKind::Set(entries) => {
                for (assigned, (_, value)) in entries.iter().enumerate() {
                    self.template(value, At { assigned, ..at });
                }
            }
            _ => {}
        }
    }

    /// Every string in a structure.
    fn template(&mut self, node: &Node, at: At<'a>) {
        let mut strings = Vec::new();
        node.visit(&mut |node| match &node.kind {
            Kind::String(text) => strings.push((text.as_str(), &node.span)),
            Kind::Object(entries) => {
                for (position, (key, _)) in entries.iter().enumerate() {
                    if entries[..position].iter().any(|(earlier, _)| earlier.text == key.text) {
                        let message = format!("the key `{}` appears twice", key.text);
                        self.found
                            .push(Diagnostic::error(code::DUPLICATE_KEY, key.span.clone(), message));
                    }
                    if key.text.contains("${") {
                        let message = "keys are not evaluated";
                        let finding = Diagnostic::error(code::EXPRESSION, key.span.clone(), message);
                        self.found
                            .push(finding.help("build the object in an expression: `${ {name: value} }`"));
                    }
                }
            }
            _ => {}
        });
        for (text, place) in strings {
            match expression::split(text) {
                Ok(parts) => {
                    for part in parts {
                        if let Part::Expression(range) = part {
                            self.expression(&text[range.clone()], place, range.start, at);
                        }
                    }
                }
                Err(error) => {
                    let place = self.place_of(text, place, 0, error.range.as_ref());
                    self.found
                        .push(Diagnostic::error(code::EXPRESSION, place, error.message));
                }
            }
        }
    }

    /// `offset`: of the expression within its string, to tell repeats apart.
    fn expression(&mut self, source: &str, place: &Place, offset: usize, at: At<'a>) {
        match Expression::compile(source) {
            Err(error) => self.bad_expression(source, place, offset, error),
            Ok(expression) => {
                let references = expression.references();
                for reference in references {
                    let guarded = reference.guarded || references.iter().any(|other| guards(other, reference));
                    let place = self.place_of(source, place, offset, Some(&reference.range));
                    self.reference(reference, guarded, place, at);
                }
            }
        }
    }

    fn bad_expression(&mut self, source: &str, place: &Place, offset: usize, error: ExpressionError) {
        let place = self.place_of(source, place, offset, error.range.as_ref());
        let unknown = error.message.starts_with("there is no ");
        let code = if unknown { code::UNKNOWN_NAME } else { code::EXPRESSION };
        let mut finding = Diagnostic::error(code, place, error.message);
        if unknown {
            finding = finding.suggest(error.suggestion);
        }
        self.found.push(finding);
    }

    fn reference(&mut self, reference: &Reference, guarded: bool, place: Place, at: At<'a>) {
        let path = &reference.path;
        let root = path.root.as_ref();
        if !at.roots.contains(&root) {
            let message = format!("there is no `{root}` here");
            let near = nearest(root, at.roots.iter().copied());
            let step = self.definition.steps.list.iter().any(|step| step.id.text == root);
            let mut finding = Diagnostic::error(code::UNKNOWN_NAME, place, message)
                .help(format!("the names here are {}", listed(at.roots)))
                .suggest(near);
            if step {
                finding = finding.help(format!("did you mean `steps.{root}`?"));
            } else if matches!(root, "null" | "nil" | "None" | "NULL") {
                finding = finding.help("did you mean `none`?");
            }
            self.found.push(finding);
            return;
        }
        let first = match path.segments.first() {
            Some(Segment::Key(key)) => Some(key.as_ref()),
            _ => None,
        };
        match (root, first) {
            ("steps", Some(id)) => self.step_reference(id, guarded, place, at),
            ("steps", None) => {
                let message = "`steps` alone is not a value";
                let finding = Diagnostic::error(code::UNKNOWN_STEP, place, message);
                self.found.push(finding.help("name the step: `steps.<id>`"));
            }
            ("input", Some(_)) => {
                if let Some(input) = &self.definition.input_schema {
                    let guarded = guarded || at.condition.is_some_and(|condition| asks_for(condition, reference));
                    let finding = input_reference::check(&input.schema, reference, guarded, place);
                    self.found.extend(finding);
                }
            }
            ("vars", Some(name)) => self.variable(name, guarded, place, at),
            ("run", Some(field)) => self.field(root, field, RUN_FIELDS, place),
            ("error", Some(field)) => self.field(root, field, ERROR_FIELDS, place),
            _ => {}
        }
    }

    fn field(&mut self, root: &str, field: &str, fields: &[&str], place: Place) {
        if !fields.contains(&field) {
            let message = format!("`{root}` has no `{field}`");
            self.found.push(
                Diagnostic::error(code::UNKNOWN_NAME, place, message)
                    .help(format!("it has {}", listed(fields)))
                    .suggest(nearest(field, fields.iter().copied())),
            );
        }
    }

    fn step_reference(&mut self, id: &str, guarded: bool, place: Place, at: At<'a>) {
        let steps = &self.definition.steps.list;
        let Some((index, step)) = steps.iter().enumerate().find(|(_, step)| step.id.text == id) else {
            let message = format!("there is no step `{id}`");
            let near = nearest(id, steps.iter().map(|step| step.id.text.as_str()));
            self.found
                .push(Diagnostic::error(code::UNKNOWN_STEP, place, message).suggest(near));
            return;
        };
        let finding = if matches!(step.kind, StepKind::Set(_)) {
            let message = format!("the step `{id}` sets variables and has no output");
            Diagnostic::error(code::NO_OUTPUT, place, message)
        } else if at.undo_of == Some(index) {
            if guarded {
                return;
            }
            let message =
                format!("the undo of `{id}` reads its own step's output, which is missing when the outcome is unknown");
            Diagnostic::error(code::OWN_OUTPUT, place, message)
        } else if index >= at.passed {
            let message = if index == at.passed {
                format!("the step `{id}` has no output before it has run")
            } else {
                format!("the step `{id}` runs later")
            };
            Diagnostic::error(code::LATER_STEP, place, message)
        } else if !guarded && step.may_lack_output() && !self.under_same_condition(step, at) {
            let why = if step.condition.is_some() {
                "may be skipped (`if`)"
            } else {
                "may have failed (`on_failure: continue`)"
            };
            let message = format!("the step `{id}` {why} and then has no output");
            Diagnostic::error(code::SKIPPED_STEP, place, message)
        } else {
            return;
        };
        self.found.push(finding);
    }

    /// The reading step runs only when the other one has: the same condition over what cannot change in between.
    fn under_same_condition(&self, step: &Step, at: At<'a>) -> bool {
        // A step that may fail and be passed over can be without output under any condition.
        let only_skipped = step
            .activity()
            .is_none_or(|activity| activity.on_failure == super::plan::OnFailure::Fail);
        let same = match (&step.condition, at.condition) {
            (Some(Text { text, .. }), Some(condition)) => text == condition,
            _ => false,
        };
        only_skipped
            && same
            && at.condition.is_some_and(|condition| {
                Expression::compile(condition).is_ok_and(|expression| {
                    let fixed = |r: &Reference| matches!(r.path.root.as_ref(), "input" | "steps");
                    expression.references().iter().all(fixed)
                })
            })
    }

    fn variable(&mut self, name: &str, guarded: bool, place: Place, at: At<'a>) {
        let mut names = Vec::new();
        let mut later = None;
        let mut conditional = None;
        for (index, step) in self.definition.steps.list.iter().enumerate() {
            let StepKind::Set(entries) = &step.kind else { continue };
            for (position, (entry, _)) in entries.iter().enumerate() {
                names.push(entry.text.as_str());
                if entry.text != name {
                    continue;
                }
                if index > at.passed || (index == at.passed && position >= at.assigned) {
                    later.get_or_insert(step);
                } else if step.condition.is_some() && index != at.passed && !self.under_same_condition(step, at) {
                    conditional.get_or_insert(step);
                } else {
                    return;
                }
            }
        }
        let finding = match (conditional, later) {
            (Some(step), _) if !guarded => {
                let message = format!("`vars.{name}` is set only if `{}` runs", step.id.text);
                Diagnostic::error(code::SKIPPED_STEP, place, message)
            }
            (None, Some(step)) if !guarded => {
                let message = format!("`vars.{name}` is not set before `{}`", step.id.text);
                Diagnostic::error(code::LATER_STEP, place, message)
            }
            (None, None) => {
                let message = format!("no step sets `vars.{name}`");
                Diagnostic::error(code::UNKNOWN_NAME, place, message).suggest(nearest(name, names))
            }
            _ => return,
        };
        self.found.push(finding);
    }

    /// Where a part of an expression stands in the document: within its string if that is written there as it is.
    fn place_of(&self, source: &str, place: &Place, offset: usize, range: Option<&Place>) -> Place {
        let Some(written) = self.text.get(place.clone()) else {
            return place.clone();
        };
        // An earlier repeat in the same string ends before the offset, give or take the quote.
        let from = offset.min(written.len());
        let found = written
            .get(from..)
            .and_then(|rest| rest.find(source))
            .map(|at| from + at)
            .or_else(|| written.find(source));
        match (found, range) {
            (Some(at), Some(range)) if range.end <= source.len() => {
                let start = place.start + at + range.start;
                start..(place.start + at + range.end.max(range.start))
            }
            (Some(at), _) => place.start + at..place.start + at + source.len(),
            (None, _) => place.clone(),
        }
    }
}

/// The condition a step runs under asks whether what the step reads is there.
fn asks_for(condition: &str, reference: &Reference) -> bool {
    Expression::compile(condition).is_ok_and(|condition| {
        condition
            .references()
            .iter()
            .any(|other| other.path == reference.path || guards(other, reference))
    })
}

/// `other` asks whether a part of `reference`'s way is there (`steps.x is defined`).
fn guards(other: &Reference, reference: &Reference) -> bool {
    other.guarded
        && other.path.root == reference.path.root
        && reference.path.segments.starts_with(&other.path.segments)
        && !(other.path.segments.is_empty() && other.path.root.as_ref() == "steps")
}
