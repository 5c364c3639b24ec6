//! One path that an expression reads.

use super::facts::{DoubtId, Facts, Seen};
use super::index::Standing;
use super::output::why_none;
use super::schema_reference::Shape;
use super::walk::{At, Given, Walk};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::listed;
use crate::definition::model::StepKind;
use crate::definition::near::nearest;
use crate::definition::tree::Place;
use crate::expression::{Path, Reference, Segment};

pub(super) const STEP_ROOTS: &[&str] = &["input", "steps", "vars", "run"];
/// What `run` has.
const RUN_FIELDS: &[&str] = &["id", "workflow_id", "attempt", "started_at", "scheduled_at"];
/// What `error` has: what went wrong, and where.
const ERROR_FIELDS: &[&str] = &["step", "type", "message"];

impl<'a> Walk<'a, '_> {
    pub(super) fn reference(
        &mut self,
        reference: &Reference,
        guarded: bool,
        place: Place,
        facts: &Facts<'a>,
        at: &At<'a>,
    ) {
        let path = &reference.path;
        let root = path.root.as_ref();
        if !at.roots.contains(&root) {
            return self.unknown_root(root, place, at);
        }
        let first = match path.segments.first() {
            Some(Segment::Key(key)) => Some(key.as_ref()),
            _ => None,
        };
        match (root, first) {
            ("steps", Some(id)) => self.step_reference(id, reference, guarded, place, facts, at),
            ("steps", None) => {
                let message = "`steps` alone is not a value";
                let finding = Diagnostic::error(code::UNKNOWN_STEP, place, message);
                self.found.push(finding.help("name the step: `steps.<id>`"));
            }
            ("input", Some(_)) => {
                if let Some(input) = &self.definition.input_schema {
                    self.against_schema(
                        "the input schema",
                        Shape::of(&input.schema),
                        &path.segments,
                        reference,
                        guarded,
                        place,
                        at,
                    );
                }
            }
            ("vars", Some(name)) => self.variable(name, guarded, place, facts, at),
            ("run", Some(field)) => self.field(root, field, RUN_FIELDS, place),
            ("error", Some(field)) => self.field(root, field, ERROR_FIELDS, place),
            _ => {
                let item = at.items.iter().rev().find(|item| item.name == root);
                if let Some(schema) = item.and_then(|item| item.schema) {
                    let what = format!("the schema of `{root}`");
                    self.against_schema(&what, schema, &path.segments, reference, guarded, place, at);
                }
            }
        }
    }

    fn unknown_root(&mut self, root: &str, place: Place, at: &At<'a>) {
        let message = format!("there is no `{root}` here");
        let near = nearest(root, at.roots.iter().copied());
        let mut finding = Diagnostic::error(code::UNKNOWN_NAME, place, message)
            .help(format!("the names here are {}", listed(&at.roots)))
            .suggest(near);
        if self.index.number(root).is_some() {
            finding = finding.help(format!("did you mean `steps.{root}`?"));
        } else if matches!(root, "null" | "nil" | "None" | "NULL") {
            finding = finding.help("did you mean `none`?");
        } else if root == "error" {
            finding = finding.help("`error` is there in a `catch`, in `otherwise` and in the input of an undo");
        } else if root == "signal" {
            finding = finding
                .help("`signal` is there in handlers and in `match`; the output of a `wait_for` is the signal's body");
        } else if matches!(root, "item" | "index") {
            finding = finding
                .help("an item is there inside a `for_each`, by the name `as` gives; `index` inside a `while` as well");
        }
        self.found.push(finding);
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

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one reference, passed on from its two readers"
    )]
    fn against_schema(
        &mut self,
        what: &str,
        schema: Shape<'_>,
        segments: &[Segment],
        reference: &Reference,
        guarded: bool,
        place: Place,
        at: &At<'a>,
    ) {
        let guarded = guarded || at.given.iter().any(|condition| asks_for(condition, reference));
        let finding = schema.check(what, segments, guarded, place);
        self.found.extend(finding);
    }

    fn step_reference(
        &mut self,
        id: &str,
        reference: &Reference,
        guarded: bool,
        place: Place,
        facts: &Facts<'a>,
        at: &At<'a>,
    ) {
        let Some(number) = self.index.number(id) else {
            let message = format!("there is no step `{id}`");
            let ids: Vec<&str> = self.index.steps().map(|step| step.id.text.as_str()).collect();
            let near = self.nearest(id, ids);
            let mut finding = Diagnostic::error(code::UNKNOWN_STEP, place, message).suggest(near);
            if let Some(parallel) = self.index.parallel_of(id) {
                finding = finding.help(format!("`{id}` is a branch: read `steps.{parallel}.branches.{id}`"));
            }
            self.found.push(finding);
            return;
        };
        let step = self.index.step(number);
        if let Some((why, help)) = why_none(step) {
            let message = format!("the step `{id}` {why} has no output");
            self.found
                .push(Diagnostic::error(code::NO_OUTPUT, place, message).help(help));
            return;
        }
        let guarded = guarded || at.given.iter().any(|condition| asks_whether(condition, reference));
        if at.undo && at.step == Some(number) {
            if !guarded {
                let message = format!(
                    "the undo of `{id}` reads its own step's output, which is missing when the outcome is unknown"
                );
                self.found.push(Diagnostic::error(code::OWN_OUTPUT, place, message));
                return;
            }
        } else {
            match facts.step(number) {
                Seen::No => return self.unseen(number, place, at),
                Seen::Maybe(doubt) if !guarded && !self.told(doubt, at) => {
                    let message = format!("the step `{id}` {} and then has no output", self.doubts.get(doubt).why);
                    self.found.push(Diagnostic::error(code::SKIPPED_STEP, place, message));
                    return;
                }
                Seen::Maybe(_) | Seen::Surely => {}
            }
        }
        match &step.kind {
            StepKind::Parallel(parallel) => self.parallel_output(step, parallel, reference, guarded, place),
            StepKind::Activity(activity) => {
                if let Some(output) = &activity.output_schema {
                    let what = format!("the output schema of `{id}`");
                    let segments = &reference.path.segments[1..];
                    self.against_schema(
                        &what,
                        Shape::of(&output.schema),
                        segments,
                        reference,
                        guarded,
                        place,
                        at,
                    );
                }
            }
            _ => {}
        }
    }

    /// A step that has not run on any way to here.
    fn unseen(&mut self, number: usize, place: Place, at: &At<'a>) {
        let id = self.index.id(number);
        if let Some(handler) = self.in_other_handler(number, at) {
            let message = format!(
                "the step `{id}` runs once for every {} `{}`; outside there is only what its handler sets",
                handler.of.root(),
                handler.name.text
            );
            let finding = Diagnostic::error(code::IN_LOOP, place, message);
            self.found
                .push(finding.help("let the handler `set` a variable, and read `vars`"));
            return;
        }
        let standing = match at.step {
            Some(reader) => self.index.standing(number, reader),
            None => self.index.ended(number),
        };
        let later = |message: String| Diagnostic::error(code::LATER_STEP, place.clone(), message);
        let finding = match standing {
            Standing::Same => later(format!("the step `{id}` has no output before it has run")),
            Standing::Around => later(format!("the step `{id}` has no output while the steps in it run")),
            Standing::Later => later(format!("the step `{id}` runs later")),
            Standing::Never => later(format!("the step `{id}` runs on no way that leads here")),
            Standing::Instead { of } => later(format!(
                "the step `{id}` runs instead of this one: both are in `{}`, which takes one of them",
                self.index.id(of)
            )),
            Standing::Beside { parallel } => {
                let message = format!(
                    "the step `{id}` runs beside this one, in another branch of `{}`",
                    self.index.id(parallel)
                );
                Diagnostic::error(code::BESIDE, place, message)
            }
            Standing::InLoop { each } => {
                let each = self.index.id(each);
                let message =
                    format!("the step `{id}` runs once for every item of `{each}`; outside there is only the list");
                let help = format!("give `{each}` a `collect: steps.{id}` and read `steps.{each}`");
                Diagnostic::error(code::IN_LOOP, place, message).help(help)
            }
        };
        self.found.push(finding);
    }

    /// The reader runs only when what is doubtful is there: under the same conditions, over what cannot change in between.
    pub(super) fn told(&self, doubt: DoubtId, at: &At<'a>) -> bool {
        let conditions = &self.doubts.get(doubt).conditions;
        let holds = |condition: &&str| {
            at.given
                .iter()
                .any(|given| given.text == *condition && given.is_fixed())
        };
        !conditions.is_empty() && conditions.iter().all(holds)
    }

    /// The schema of what a path leads to, where there is one.
    pub(super) fn schema_of(&self, path: &Path, at: &At<'a>) -> Option<Shape<'a>> {
        match (path.root.as_ref(), path.segments.split_first()) {
            ("input", _) => {
                let input = self.definition.input_schema.as_ref()?;
                Shape::of(&input.schema).follow(&path.segments)
            }
            ("steps", Some((Segment::Key(id), rest))) => {
                let activity = self.index.step(self.index.number(id)?).activity()?;
                Shape::of(&activity.output_schema.as_ref()?.schema).follow(rest)
            }
            (root, _) => {
                let item = at.items.iter().rev().find(|item| item.name == root)?;
                item.schema?.follow(&path.segments)
            }
        }
    }
}

/// The condition a step runs under reads what the step reads, or asks whether it is there.
fn asks_for(condition: &Given<'_>, reference: &Reference) -> bool {
    let mut others = condition.references().iter();
    others.any(|other| other.path == reference.path || other.guards(reference))
}

/// As [`asks_for`], by a guard alone.
fn asks_whether(condition: &Given<'_>, reference: &Reference) -> bool {
    condition.references().iter().any(|other| other.guards(reference))
}
