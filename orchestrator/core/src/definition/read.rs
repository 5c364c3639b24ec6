//! From the tree to the model: the shape of the language, key by key.
//!
//! Goes on after every finding; what cannot be read is left out.

use super::code;
use super::diagnostic::Diagnostic;
use super::fields::{Fields, expected};
use super::keys::{DEFAULT_UNDO, DEFAULTS, DOCUMENT, RETRY};
use super::model::{Attempts, CallFields, Defaults, Definition, InputSchema, RetryFields, Text};
use super::names::name;
use super::steps::{assignments, steps};
use super::tree::{Kind, Node};
use super::{schema, yaml};
use crate::expression;

const MAX_ATTEMPTS: u32 = 1_000_000;

pub(super) type Found = Vec<Diagnostic>;
type Files<'f> = &'f dyn Fn(&str) -> Result<String, String>;

/// `None` only where there is nothing to go on with.
pub(super) fn definition(root: &Node, files: Files<'_>, found: &mut Found) -> Option<Definition> {
    let fields = Fields::open(root, &DOCUMENT, found)?;
    let start = root.span.start..root.span.start;
    let mut missing = |key: &str| {
        let message = format!("the definition has no `{key}`");
        found.push(Diagnostic::error(code::MISSING_KEY, start.clone(), message));
    };
    for key in ["workflow", "version", "steps"] {
        if fields.get(key).is_none() {
            missing(key);
        }
    }
    expr_version(&fields, found);
    let workflow = fields.get("workflow").and_then(|node| name(node, "workflow", found));
    Some(Definition {
        workflow: workflow.unwrap_or(Text {
            text: String::new(),
            place: start,
        }),
        version: whole(&fields, "version", i32::MAX.unsigned_abs(), found).unwrap_or(1),
        description: fields.text("description", found).map(str::to_owned),
        id: fields.get("id").and_then(|node| id_expression(node, found)),
        input_schema: fields
            .get("input_schema")
            .and_then(|node| input_schema(node, files, found)),
        defaults: fields.get("defaults").map(|node| defaults(node, found)),
        steps: fields.get("steps").map(|node| steps(node, found)).unwrap_or_default(),
        output: fields.get("output").cloned(),
        search_attributes: fields
            .get("search_attributes")
            .map(|node| assignments(node, "`search_attributes`", found))
            .unwrap_or_default(),
        timeout: fields.duration("timeout", found),
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

fn whole(fields: &Fields<'_>, key: &str, max: u32, found: &mut Found) -> Option<u32> {
    let node = fields.get(key)?;
    let Kind::Number(number) = &node.kind else {
        expected(node, &format!("`{key}`"), "a whole number", found);
        return None;
    };
    let value = number.as_u64().and_then(|n| u32::try_from(n).ok());
    let value = value.filter(|n| (1..=max).contains(n));
    if value.is_none() {
        let message = format!("`{key}` must be a whole number from 1 to {max}, not {number}");
        found.push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message));
    }
    value
}

/// Without `${ }` the whole text is the expression, as in conditions.
fn id_expression(node: &Node, found: &mut Found) -> Option<Node> {
    let Some(text) = node.as_str() else {
        expected(node, "`id`", "an expression", found);
        return None;
    };
    if text.contains("${") {
        return Some(node.clone());
    }
    Some(Node {
        span: node.span.clone(),
        kind: Kind::String(format!("${{ {text} }}")),
    })
}

fn input_schema(node: &Node, files: Files<'_>, found: &mut Found) -> Option<InputSchema> {
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
    Some(InputSchema {
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
    }
}

pub(super) fn call_fields(fields: &Fields<'_>, found: &mut Found) -> CallFields {
    CallFields {
        queue: fields.get("queue").map(|node| {
            // A stand-in for what cannot be read: nothing follows from it.
            name(node, "queue", found).unwrap_or(Text {
                text: "unreadable".to_owned(),
                place: node.span.clone(),
            })
        }),
        start_to_close: fields.duration("start_to_close", found),
        retry: fields.get("retry").map(|node| retry(node, found)).unwrap_or_default(),
    }
}

fn retry(node: &Node, found: &mut Found) -> RetryFields {
    let Some(fields) = Fields::open(node, &RETRY, found) else {
        return RetryFields::default();
    };
    let backoff_coefficient = fields.get("backoff_coefficient").and_then(|node| {
        let value = match &node.kind {
            Kind::Number(number) => number.as_f64().filter(|n| (1.0..=1_000.0).contains(n)),
            _ => None,
        };
        if value.is_none() {
            let message = "`backoff_coefficient` must be a number from 1 to 1000";
            found.push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message));
        }
        value
    });
    let maximum_attempts = match fields.get("maximum_attempts") {
        Some(node) if node.as_str() == Some("unlimited") => Some(Attempts::Unlimited),
        Some(node) => {
            let value = whole(&fields, "maximum_attempts", MAX_ATTEMPTS, found);
            if value.is_none()
                && let Some(finding) = found.last_mut()
                && finding.span == node.span
            {
                *finding = finding.clone().help("write `unlimited` for no limit");
            }
            // A stand-in for what cannot be read: nothing follows from it.
            Some(Attempts::AtMost(value.unwrap_or(1)))
        }
        None => None,
    };
    let initial_interval = fields.duration("initial_interval", found);
    let maximum_interval = fields.duration("maximum_interval", found);
    if let (Some(initial), Some(maximum)) = (initial_interval, maximum_interval)
        && maximum < initial
    {
        let place = fields.key_place("maximum_interval").unwrap_or_default();
        let message = "`maximum_interval` is shorter than `initial_interval`";
        found.push(Diagnostic::error(code::CONTRADICTION, place, message));
    }
    RetryFields {
        initial_interval,
        backoff_coefficient,
        maximum_interval,
        maximum_attempts,
        non_retryable: fields.get("non_retryable").map(|node| error_types(node, found)),
    }
}

fn error_types(node: &Node, found: &mut Found) -> Vec<String> {
    let Kind::Array(items) = &node.kind else {
        expected(node, "`non_retryable`", "a list of error types", found);
        return Vec::new();
    };
    let mut types = Vec::new();
    for item in items {
        match item.as_str() {
            Some(text) if !text.is_empty() && text.len() <= 200 => types.push(text.to_owned()),
            _ => expected(item, "an error type", "a string of 1 to 200 bytes", found),
        }
    }
    types
}
