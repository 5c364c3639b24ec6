//! The form that is hashed and stored: JSON in a fixed order of keys, every default filled in, files inlined.
//!
//! It is itself a definition, with `expr_version` added. Data (inputs, schemas, assignments) keep the order they were
//! written in: the order of assignments has a meaning.

use serde_json::{Map, Value, json};

use super::duration;
use super::model::{Activity, Call, Definition, StepKind, Text, Undo};
use super::plan::{OnFailure, RetryPolicy};
use super::tree::Node;
use crate::expression;

pub(super) fn json(definition: &Definition) -> Value {
    let mut root = Map::new();
    let mut put = |key: &str, value: Value| {
        root.insert(key.to_owned(), value);
    };
    put("workflow", json!(definition.workflow.text));
    put("version", json!(definition.version));
    put("expr_version", json!(expression::VERSION));
    if let Some(description) = &definition.description {
        put("description", json!(description));
    }
    if let Some(id) = &definition.id {
        put("id", id.to_json());
    }
    if let Some(schema) = &definition.input_schema {
        put("input_schema", schema.schema.clone());
    }
    if !definition.search_attributes.is_empty() {
        put("search_attributes", assignments(&definition.search_attributes));
    }
    if let Some(timeout) = definition.timeout {
        put("timeout", json!(duration::format(timeout)));
    }
    let steps = definition.steps.iter().map(|step| {
        let mut body = Map::new();
        if let Some(condition) = &step.condition {
            body.insert("if".to_owned(), json!(condition.text));
        }
        match &step.kind {
            StepKind::Activity(step) => activity(step, &mut body),
            StepKind::Set(entries) => {
                body.insert("set".to_owned(), assignments(entries));
            }
            StepKind::Broken => {}
        }
        json!({ step.id.text.as_str(): body })
    });
    put("steps", steps.collect());
    if let Some(output) = &definition.output {
        put("output", output.to_json());
    }
    Value::Object(root)
}

fn activity(activity: &Activity, body: &mut Map<String, Value>) {
    call(&activity.call, body);
    match &activity.undo {
        Undo::Compensate(undo) => {
            let mut undo_body = Map::new();
            call(undo, &mut undo_body);
            body.insert("compensate".to_owned(), Value::Object(undo_body));
        }
        Undo::ReadOnly => {
            body.insert("read_only".to_owned(), json!(true));
        }
        Undo::None { reason } => {
            body.insert("no_undo".to_owned(), json!(reason));
        }
        Undo::Undeclared => {}
    }
    if activity.on_failure == OnFailure::Continue {
        body.insert("on_failure".to_owned(), json!("continue"));
    }
    if activity.compensate_on_failure {
        body.insert("compensate_on_failure".to_owned(), json!(true));
    }
}

fn call(call: &Call, body: &mut Map<String, Value>) {
    body.insert("activity".to_owned(), json!(call.activity.text));
    if let Some(input) = &call.input {
        body.insert("input".to_owned(), input.to_json());
    }
    if let Some(settings) = &call.settings {
        body.insert("queue".to_owned(), json!(settings.queue.as_str()));
        let timeout = duration::format(settings.start_to_close);
        body.insert("start_to_close".to_owned(), json!(timeout));
        body.insert("retry".to_owned(), retry(&settings.retry));
    }
}

fn retry(policy: &RetryPolicy) -> Value {
    let attempts = policy.maximum_attempts.map_or(json!("unlimited"), |n| json!(n));
    let mut retry = json!({
        "initial_interval": duration::format(policy.initial_interval),
        "backoff_coefficient": policy.backoff_coefficient,
        "maximum_interval": duration::format(policy.maximum_interval),
        "maximum_attempts": attempts,
    });
    if !policy.non_retryable.is_empty() {
        retry["non_retryable"] = policy.non_retryable.iter().map(|t| json!(t.as_ref())).collect();
    }
    retry
}

fn assignments(entries: &[(Text, Node)]) -> Value {
    Value::Object(
        entries
            .iter()
            .map(|(name, value)| (name.text.clone(), value.to_json()))
            .collect(),
    )
}
