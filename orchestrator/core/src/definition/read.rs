//! From the tree to the model: the shape of the language, key by key.
//!
//! Goes on after every finding; what cannot be read is left out.

use super::code;
use super::diagnostic::Diagnostic;
use super::fields::{Fields, Keys, expected};
use super::model::{
    Activity, Attempts, Call, CallFields, Defaults, Definition, InputSchema, RetryFields, Step, StepKind, Text, Undo,
};
use super::near::nearest;
use super::plan::OnFailure;
use super::tree::{Kind, Node, Place};
use super::{schema, yaml};
use crate::expression;

/// Steps of one definition.
pub(super) const MAX_STEPS: usize = 1_000;
/// Longest name of a workflow, an activity, a queue; a subject holds several.
const MAX_NAME_BYTES: usize = 100;
/// Longest step id and variable; paths are made of them.
const MAX_ID_BYTES: usize = 64;
const MAX_ATTEMPTS: u32 = 1_000_000;

const DOCUMENT: Keys = Keys {
    of: "a definition",
    known: &[
        "workflow",
        "version",
        "description",
        "id",
        "input_schema",
        "defaults",
        "steps",
        "output",
        "search_attributes",
        "timeout",
        "expr_version",
    ],
    later: &[
        "triggers",
        "schedule",
        "signals",
        "updates",
        "queries",
        "retry",
        "concurrency",
        "priority",
        "compensation",
    ],
};

const DEFAULTS: Keys = Keys {
    of: "`defaults`",
    known: &["queue", "start_to_close", "retry", "compensate"],
    later: &[
        "heartbeat",
        "schedule_to_start",
        "schedule_to_close",
        "priority",
        "concurrency",
    ],
};

const DEFAULT_UNDO: Keys = Keys {
    of: "`defaults.compensate`",
    known: &["queue", "start_to_close", "retry"],
    later: &["heartbeat", "schedule_to_start", "schedule_to_close", "on_exhausted"],
};

const STEP: Keys = Keys {
    of: "a step",
    known: &[
        "activity",
        "set",
        "if",
        "input",
        "queue",
        "retry",
        "start_to_close",
        "compensate",
        "no_undo",
        "read_only",
        "on_failure",
        "compensate_on_failure",
    ],
    later: &[
        "parallel",
        "for_each",
        "switch",
        "while",
        "try",
        "scope",
        "wait",
        "wait_for",
        "on_timeout",
        "workflow",
        "emit",
        "fail",
        "complete",
        "continue_as_new",
        "pivot",
        "schedule_to_start",
        "schedule_to_close",
        "heartbeat",
        "priority",
        "concurrency",
        "max_concurrent",
        "rate",
        "cancellation",
    ],
};

/// The keys of which a step has exactly one.
const KINDS: &[&str] = &["activity", "set"];

const COMPENSATE: Keys = Keys {
    of: "`compensate`",
    known: &["activity", "input", "queue", "retry", "start_to_close"],
    later: &["heartbeat", "schedule_to_start", "schedule_to_close", "on_exhausted"],
};

const RETRY: Keys = Keys {
    of: "`retry`",
    known: &[
        "initial_interval",
        "backoff_coefficient",
        "maximum_interval",
        "maximum_attempts",
        "non_retryable",
    ],
    later: &[],
};

type Found = Vec<Diagnostic>;
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

/// A name that becomes part of a subject.
fn name(node: &Node, what: &str, found: &mut Found) -> Option<Text> {
    let Some(text) = node.as_str() else {
        expected(node, &format!("`{what}`"), "a name", found);
        return None;
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.chars().all(fits) {
        let article = if what.starts_with('a') { "an" } else { "a" };
        let message = format!("`{}` cannot be the name of {article} {what}", shortened(text));
        let help = format!("use letters, digits, `_` and `-`, up to {MAX_NAME_BYTES}");
        found.push(Diagnostic::error(code::BAD_NAME, node.span.clone(), message).help(help));
        return None;
    }
    Some(Text {
        text: text.to_owned(),
        place: node.span.clone(),
    })
}

/// A name that expressions use: a step's id, a variable.
fn identifier(text: &str, place: &Place, what: &str, found: &mut Found) -> Option<Text> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !starts || text.len() > MAX_ID_BYTES || !text.chars().all(fits) {
        let message = format!("`{}` cannot be the name of a {what}", shortened(text));
        let help = format!("use letters, digits and `_`, up to {MAX_ID_BYTES}, not beginning with a digit");
        found.push(Diagnostic::error(code::BAD_NAME, place.clone(), message).help(help));
        return None;
    }
    Some(Text {
        text: text.to_owned(),
        place: place.clone(),
    })
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let start: String = text.chars().take(60).collect();
    format!("{start}…")
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

fn call_fields(fields: &Fields<'_>, found: &mut Found) -> CallFields {
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

fn steps(node: &Node, found: &mut Found) -> Vec<Step> {
    let Kind::Array(items) = &node.kind else {
        expected(node, "`steps`", "a list (`- <id>: { … }`)", found);
        return Vec::new();
    };
    if items.is_empty() {
        let message = "`steps` is empty";
        found.push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message).help("add a step"));
    }
    if items.len() > MAX_STEPS {
        let message = format!("the definition has {} steps; the limit is {MAX_STEPS}", items.len());
        found.push(Diagnostic::error(code::TOO_LARGE, node.span.clone(), message));
        return Vec::new();
    }
    let mut steps: Vec<Step> = Vec::with_capacity(items.len());
    let mut seen = std::collections::BTreeSet::new();
    for item in items {
        let Some(step) = step(item, found) else { continue };
        if seen.insert(step.id.text.clone()) {
            steps.push(step);
        } else {
            let message = format!("there is a step `{}` already", step.id.text);
            found.push(Diagnostic::error(code::DUPLICATE_STEP, step.id.place, message));
        }
    }
    steps
}

fn step(item: &Node, found: &mut Found) -> Option<Step> {
    let Kind::Object(entries) = &item.kind else {
        expected(item, "a step", "a mapping of one id (`- <id>: { … }`)", found);
        return None;
    };
    let Some(((key, body), rest)) = entries.split_first() else {
        let message = "a step is empty";
        found.push(Diagnostic::error(code::STEP_KIND, item.span.clone(), message));
        return None;
    };
    if let Some((extra, _)) = rest.first() {
        let message = format!("a step has one id, and `{}` stands beside `{}`", extra.text, key.text);
        let help = if matches!(body.kind, Kind::Null) {
            format!("indent what belongs to `{}` further than its id", key.text)
        } else {
            "begin every step with `- `".to_owned()
        };
        found.push(Diagnostic::error(code::SHAPE, extra.span.clone(), message).help(help));
    }
    let id = identifier(&key.text, &key.span, "step", found)?;
    if !rest.is_empty() {
        return Some(Step {
            id,
            condition: None,
            kind: StepKind::Broken,
        });
    }
    let Some(fields) = Fields::open(body, &STEP, found) else {
        return Some(Step {
            id,
            condition: None,
            kind: StepKind::Broken,
        });
    };
    let condition = condition(&fields, found);
    let kind = match (fields.get("activity"), fields.get("set")) {
        (Some(_), None) => {
            activity(&fields, found).map_or(StepKind::Broken, |activity| StepKind::Activity(Box::new(activity)))
        }
        (None, Some(node)) => {
            for key in STEP.known {
                if !matches!(*key, "set" | "if")
                    && let Some(place) = fields.key_place(key)
                {
                    let message = format!("`{key}` has no meaning beside `set`");
                    found.push(Diagnostic::error(code::CONTRADICTION, place, message).help("remove it"));
                }
            }
            StepKind::Set(assignments(node, "`set`", found))
        }
        (Some(_), Some(_)) => {
            let place = fields.key_place("set").unwrap_or_default();
            let message = "a step is either an activity or a `set`";
            found.push(Diagnostic::error(code::STEP_KIND, place, message));
            StepKind::Broken
        }
        (None, None) => {
            // A kind of step that is not supported, or misspelt, has its own finding.
            let explained = entries_of(body).any(|key| {
                STEP.later.contains(&key)
                    || nearest(key, STEP.known.iter().copied()).is_some_and(|k| KINDS.contains(&k))
            });
            if !explained {
                let message = format!("the step `{}` has neither `activity` nor `set`", id.text);
                found.push(Diagnostic::error(code::STEP_KIND, id.place.clone(), message));
            }
            StepKind::Broken
        }
    };
    Some(Step { id, condition, kind })
}

fn entries_of(node: &Node) -> impl Iterator<Item = &str> {
    let entries = match &node.kind {
        Kind::Object(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(key, _)| key.text.as_str())
}

/// The expression, with or without `${ }` around it.
fn condition(fields: &Fields<'_>, found: &mut Found) -> Option<Text> {
    let node = fields.get("if")?;
    let text = match &node.kind {
        Kind::String(text) => text.as_str(),
        Kind::Bool(true) => "true",
        Kind::Bool(false) => "false",
        _ => {
            expected(node, "`if`", "an expression", found);
            return None;
        }
    };
    let trimmed = text.trim();
    let inner = match expression::split(trimmed).as_deref() {
        Ok([expression::Part::Expression(range)]) => trimmed[range.clone()].to_owned(),
        _ => trimmed.to_owned(),
    };
    Some(Text {
        text: inner,
        place: node.span.clone(),
    })
}

fn activity(fields: &Fields<'_>, found: &mut Found) -> Option<Activity> {
    let call = call(fields, found);
    let on_failure = match fields.text("on_failure", found) {
        None | Some("fail") => OnFailure::Fail,
        Some("continue") => OnFailure::Continue,
        Some(other) => {
            let place = fields.get("on_failure").map(|n| n.span.clone()).unwrap_or_default();
            let message = format!("`on_failure` is `fail` or `continue`, not `{}`", shortened(other));
            found.push(Diagnostic::error(code::BAD_VALUE, place, message));
            OnFailure::Fail
        }
    };
    let compensate_on_failure = fields.flag("compensate_on_failure", found);
    let undo = undo(fields, found);
    if compensate_on_failure && !matches!(undo, Undo::Compensate(_)) {
        let place = fields.key_place("compensate_on_failure").unwrap_or_default();
        let message = "`compensate_on_failure` needs `compensate`";
        found.push(Diagnostic::error(code::CONTRADICTION, place, message).help("add `compensate`, or remove it"));
    }
    Some(Activity {
        call: call?,
        undo,
        on_failure,
        compensate_on_failure,
    })
}

fn call(fields: &Fields<'_>, found: &mut Found) -> Option<Call> {
    let activity = fields.get("activity").and_then(|node| name(node, "activity", found));
    let call_fields = call_fields(fields, found);
    Some(Call {
        activity: activity?,
        input: fields.get("input").cloned(),
        fields: call_fields,
        settings: None,
    })
}

fn undo(fields: &Fields<'_>, found: &mut Found) -> Undo {
    let said: Vec<&str> = ["compensate", "no_undo", "read_only"]
        .into_iter()
        .filter(|key| {
            fields
                .get(key)
                .is_some_and(|node| !matches!(node.kind, Kind::Bool(false)))
        })
        .collect();
    if let [first, second, ..] = said.as_slice() {
        let place = fields.key_place(second).unwrap_or_default();
        let message = format!("`{second}` contradicts `{first}`");
        found.push(Diagnostic::error(code::CONTRADICTION, place, message));
    }
    if let Some(node) = fields.get("compensate") {
        let call = match &node.kind {
            Kind::String(_) => name(node, "activity", found).map(|activity| Call {
                activity,
                input: None,
                fields: CallFields::default(),
                settings: None,
            }),
            _ => Fields::open(node, &COMPENSATE, found).and_then(|undo| {
                if undo.get("activity").is_none() {
                    let message = "`compensate` names no `activity`";
                    let place = fields.key_place("compensate").unwrap_or_default();
                    found.push(Diagnostic::error(code::MISSING_KEY, place, message));
                }
                call(&undo, found)
            }),
        };
        // A broken one has its findings; the step is not one that has nothing.
        return call.map_or(Undo::ReadOnly, |call| Undo::Compensate(Box::new(call)));
    }
    if let Some(node) = fields.get("no_undo") {
        let reason = fields.text("no_undo", found).unwrap_or_default();
        if node.as_str().is_some_and(|reason| reason.trim().is_empty()) {
            let message = "`no_undo` gives no reason";
            found.push(
                Diagnostic::error(code::BAD_VALUE, node.span.clone(), message).help("say why it cannot be undone"),
            );
        }
        return Undo::None {
            reason: reason.to_owned(),
        };
    }
    if fields.flag("read_only", found) {
        return Undo::ReadOnly;
    }
    Undo::Undeclared
}

/// Names and what they are set to, in the order written.
fn assignments(node: &Node, what: &str, found: &mut Found) -> Vec<(Text, Node)> {
    let Kind::Object(entries) = &node.kind else {
        expected(node, what, "a mapping of names to values", found);
        return Vec::new();
    };
    let mut assignments: Vec<(Text, Node)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let kind = if what == "`set`" {
            "variable"
        } else {
            "search attribute"
        };
        let Some(name) = identifier(&key.text, &key.span, kind, found) else {
            continue;
        };
        if assignments.iter().any(|(earlier, _)| earlier.text == name.text) {
            let message = format!("the key `{}` appears twice", name.text);
            found.push(Diagnostic::error(code::DUPLICATE_KEY, name.place, message));
            continue;
        }
        assignments.push((name, value.clone()));
    }
    assignments
}
