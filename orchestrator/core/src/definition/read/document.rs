//! The document around the steps.

use super::activity::cancellation;
use super::retry::{call_fields, of_run, on_exhausted};
use super::steps::Reader;
use super::value::{computed_text, whole, word};
use super::{Files, Found, limiting};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::Fields;
use crate::definition::keys::{COMPENSATION, DEFAULT_UNDO, DEFAULTS, DOCUMENT};
use crate::definition::model::{Defaults, Definition, Handled, JsonSchema, Text};
use crate::definition::names::{assignments, name};
use crate::definition::plan::{CompensationPolicy, UndoOrder};
use crate::definition::tree::Node;
use crate::definition::{schema, yaml};
use crate::expression;

/// `None` only where there is nothing to go on with.
pub(crate) fn definition(root: &Node, files: Files<'_>, found: &mut Found) -> Option<Definition> {
    let fields = Fields::open(root, &DOCUMENT, found)?;
    let start = root.span.start..root.span.start;
    for key in ["workflow", "version", "steps"] {
        if fields.get(key).is_none() {
            let message = format!("the definition has no `{key}`");
            found.push(Diagnostic::error(code::MISSING_KEY, start.clone(), message));
        }
    }
    expr_version(&fields, found);
    let workflow = fields.get("workflow").and_then(|node| name(node, "workflow", found));
    let named = workflow.as_ref().map_or("", |workflow| workflow.text.as_str());
    let schedule = fields
        .get("schedule")
        .and_then(|node| super::schedule::of_definition(node, named, found));
    let triggers = fields
        .get("triggers")
        .map(|node| super::trigger::of_definition(node, named, fields.get("id"), found))
        .unwrap_or_default();
    let mut reader = Reader::new(files, found);
    let steps = fields.get("steps").map(|node| reader.steps(node));
    let signals = fields.get("signals").map(|node| reader.handlers(Handled::Signal, node));
    let updates = fields.get("updates").map(|node| reader.handlers(Handled::Update, node));
    Some(Definition {
        workflow: workflow.unwrap_or(Text {
            text: String::new(),
            place: start,
        }),
        version: whole(&fields, "version", i32::MAX.unsigned_abs(), found).unwrap_or(1),
        description: fields.text("description", found).map(str::to_owned),
        id: fields.get("id").and_then(|node| computed_text(node, "id", found)),
        input_schema: fields
            .get("input_schema")
            .and_then(|node| json_schema(node, files, found)),
        defaults: fields.get("defaults").map(|node| defaults(node, found)),
        compensation: fields
            .get("compensation")
            .map(|node| compensation(node, found))
            .unwrap_or_default(),
        steps: steps.unwrap_or_default(),
        output: fields.get("output").cloned(),
        search_attributes: fields
            .get("search_attributes")
            .map(|node| assignments(node, "`search_attributes`", "search attribute", found))
            .unwrap_or_default(),
        timeout: fields.duration("timeout", found),
        retry: fields.get("retry").map(|node| of_run(node, found)),
        schedule,
        concurrency: limiting::of_runs(&fields, found),
        priority: limiting::priority(&fields, found),
        triggers,
        queries: fields
            .get("queries")
            .map(|node| super::query::queries(node, found))
            .unwrap_or_default(),
        signals: signals.unwrap_or_default(),
        updates: updates.unwrap_or_default(),
    })
}

fn expr_version(fields: &Fields<'_>, found: &mut Found) {
    let Some(node) = fields.get("expr_version") else {
        return;
    };
    let version = whole(fields, "expr_version", u32::MAX, found);
    if let Some(version) = version.filter(|v| *v > expression::VERSION) {
        let message = format!(
            "the expression language has version {version}; this is {}",
            expression::VERSION
        );
        found.push(Diagnostic::error(code::TOO_NEW, node.span.clone(), message));
    }
}

/// Inline, or the path of a file.
pub(super) fn json_schema(node: &Node, files: Files<'_>, found: &mut Found) -> Option<JsonSchema> {
    let schema = match node.as_str() {
        Some(path) => {
            let text = files(path)
                .map_err(|reason| {
                    let message = format!("`{path}` cannot be read: {reason}");
                    found.push(Diagnostic::error(code::SCHEMA_FILE, node.span.clone(), message));
                })
                .ok()?;
            let tree = yaml::parse(&text).map_err(|problem| {
                let line = text
                    .get(..problem.span.start)
                    .map_or(1, |t| t.matches('\n').count() + 1);
                let message = format!("`{path}`, line {line}: {}", problem.message);
                found.push(Diagnostic::error(code::SCHEMA, node.span.clone(), message));
            });
            tree.ok()?.to_json()
        }
        None => node.to_json(),
    };
    if let Err(problem) = schema::compile(&schema) {
        found.push(Diagnostic::error(code::SCHEMA, node.span.clone(), problem));
    }
    Some(JsonSchema {
        schema,
        place: node.span.clone(),
    })
}

fn defaults(node: &Node, found: &mut Found) -> Defaults {
    let Some(fields) = Fields::open(node, &DEFAULTS, found) else {
        return Defaults::default();
    };
    let undo = fields
        .get("compensate")
        .and_then(|node| Fields::open(node, &DEFAULT_UNDO, found))
        .map(|fields| call_fields(&fields, found));
    Defaults {
        call: call_fields(&fields, found),
        undo: undo.unwrap_or_default(),
        cancellation: cancellation(&fields, found),
        concurrency: limiting::concurrency(&fields, found),
        priority: limiting::priority(&fields, found),
    }
}

fn compensation(node: &Node, found: &mut Found) -> CompensationPolicy {
    let Some(fields) = Fields::open(node, &COMPENSATION, found) else {
        return CompensationPolicy::default();
    };
    let orders = [
        ("sequential", UndoOrder::Sequential),
        ("dependencies", UndoOrder::Dependencies),
    ];
    CompensationPolicy {
        order: word(&fields, "order", &orders, found).unwrap_or_default(),
        on_exhausted: on_exhausted(&fields, found).unwrap_or_default(),
    }
}
