//! The document around the steps.

use serde_json::{Map, Value, json};

use super::activity::retry;
use super::steps::{assignments, steps};
use crate::definition::duration;
use crate::definition::model::{Definition, Handler};
use crate::definition::plan::{CompensationPolicy, OnExhausted, UndoOrder};
use crate::expression;
use crate::limit::OnConflict;

pub(crate) fn json(definition: &Definition) -> Value {
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
    if let Some(policy) = &definition.retry {
        put("retry", retry(policy));
    }
    if definition.compensation != CompensationPolicy::default() {
        put("compensation", compensation(definition.compensation));
    }
    if let Some(schedule) = &definition.schedule {
        let mut said = (**schedule.json()).clone();
        // It starts the definition that it stands in.
        if let Some(said) = said.as_object_mut() {
            said.remove("workflow");
        }
        put("schedule", said);
    }
    if let Some(concurrency) = &definition.concurrency {
        let mut said = json!({ "limit": concurrency.limit });
        if let Some(key) = &concurrency.key {
            said["key"] = key.to_json();
        }
        if concurrency.on_conflict != OnConflict::default() {
            said["on_conflict"] = json!(concurrency.on_conflict);
        }
        put("concurrency", said);
    }
    if let Some(priority) = definition.priority {
        put("priority", json!(priority));
    }
    if !definition.triggers.is_empty() {
        let triggers = definition.triggers.iter();
        let triggers = triggers.map(|spec| (spec.name.to_string(), spec.within_definition()));
        put("triggers", Value::Object(triggers.collect()));
    }
    put("steps", steps(&definition.steps));
    if let Some(output) = &definition.output {
        put("output", output.to_json());
    }
    if !definition.signals.is_empty() {
        put("signals", handlers(&definition.signals));
    }
    if !definition.updates.is_empty() {
        put("updates", handlers(&definition.updates));
    }
    if !definition.queries.is_empty() {
        put("queries", assignments(&definition.queries));
    }
    Value::Object(root)
}

fn handlers(handlers: &[Handler]) -> Value {
    let each = handlers.iter().map(|handler| {
        let mut fields = Map::new();
        if let Some(schema) = &handler.schema {
            fields.insert("schema".to_owned(), schema.schema.clone());
        }
        if let Some(validate) = &handler.validate {
            fields.insert("validate".to_owned(), json!(validate.text));
        }
        if !handler.steps.list.is_empty() {
            fields.insert("steps".to_owned(), steps(&handler.steps));
        }
        if let Some(output) = &handler.output {
            fields.insert("output".to_owned(), output.to_json());
        }
        (handler.name.text.clone(), Value::Object(fields))
    });
    Value::Object(each.collect())
}

fn compensation(policy: CompensationPolicy) -> Value {
    json!({
        "order": match policy.order {
            UndoOrder::Dependencies => "dependencies",
            UndoOrder::Sequential => "sequential",
        },
        "on_exhausted": match policy.on_exhausted {
            OnExhausted::Continue => "continue",
            OnExhausted::Halt => "halt",
        },
    })
}
