//! Activities with everything that gives out their tasks.

use serde_json::{Map, Value, json};

use crate::definition::duration;
use crate::definition::model::{Activity, Call, Limited, Limiting, Undo};
use crate::definition::plan::{Cancellation, OnFailure, RetryPolicy};
use crate::definition::tree::Node;

pub(super) fn activity(activity: &Activity, body: &mut Map<String, Value>) {
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
    let cancellation = activity.cancellation.unwrap_or_default();
    if cancellation != Cancellation::TryCancel {
        body.insert("cancellation".to_owned(), json!(cancellation));
    }
    if activity.pivot {
        body.insert("pivot".to_owned(), json!(true));
    }
    if let Some(output) = &activity.output_schema {
        body.insert("output_schema".to_owned(), output.schema.clone());
    }
    if activity.compensate_on_failure {
        body.insert("compensate_on_failure".to_owned(), json!(true));
    }
    limiting(&activity.limiting, body);
}

fn limiting(limiting: &Limiting, body: &mut Map<String, Value>) {
    let keyed = |mut limit: Value, key: Option<&Node>| {
        if let Some(key) = key {
            limit["key"] = key.to_json();
        }
        limit
    };
    if let Some(Limited { to, key }) = &limiting.concurrency {
        let limit = json!({ "limit": to });
        body.insert("concurrency".to_owned(), keyed(limit, key.as_ref()));
    }
    if let Some(Limited { to, key }) = &limiting.rate {
        let limit = json!({ "limit": to.limit, "per": duration::format(to.per) });
        body.insert("rate".to_owned(), keyed(limit, key.as_ref()));
    }
    if let Some(priority) = limiting.priority {
        body.insert("priority".to_owned(), json!(priority));
    }
    if let Some(key) = &limiting.fairness_key {
        body.insert("fairness_key".to_owned(), key.to_json());
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
        let timeouts = [
            ("schedule_to_start", settings.timeouts.schedule_to_start),
            ("schedule_to_close", settings.timeouts.schedule_to_close),
            ("heartbeat", settings.timeouts.heartbeat),
        ];
        for (name, timeout) in timeouts {
            if let Some(timeout) = timeout {
                body.insert(name.to_owned(), json!(duration::format(timeout)));
            }
        }
        body.insert("retry".to_owned(), retry(&settings.retry));
        if let Some(on_exhausted) = settings.on_exhausted {
            body.insert("on_exhausted".to_owned(), json!(on_exhausted.as_str()));
        }
    }
}

pub(super) fn retry(policy: &RetryPolicy) -> Value {
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
