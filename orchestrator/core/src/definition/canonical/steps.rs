//! Steps of every kind.

use serde_json::{Map, Value, json};

use super::activity::activity;
use crate::definition::duration;
use crate::definition::model::{
    Case, Catch, ChildWorkflow, ForEach, OnTimeout, Parallel, Savepoint, Step, StepKind, Steps, Text, Try, Wait,
    WaitFor, While,
};
use crate::definition::plan::{Join, Losers, ParentClose};
use crate::definition::tree::Node;

pub(super) fn steps(steps: &Steps) -> Value {
    steps.list.iter().map(step).collect()
}

fn step(step: &Step) -> Value {
    let mut body = Map::new();
    if let Some(condition) = &step.condition {
        body.insert("if".to_owned(), json!(condition.text));
    }
    if let StepKind::Activity(step) = &step.kind {
        activity(step, &mut body);
    }
    let mut put = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    match &step.kind {
        StepKind::Set(entries) => put("set", assignments(entries)),
        StepKind::Parallel(step) => put("parallel", parallel(step)),
        StepKind::ForEach(step) => put("for_each", for_each(step)),
        StepKind::Switch(cases) => put("switch", cases.iter().map(case).collect()),
        StepKind::While(step) => put("while", repeat(step)),
        StepKind::Try(step) => put("try", guard(step)),
        StepKind::Scope(step) => put("scope", scope(step)),
        StepKind::Wait(Wait::For(span)) => put("wait", json!(duration::format(*span))),
        StepKind::Wait(Wait::Until(until)) => put("wait", json!({ "until": until.to_json() })),
        StepKind::WaitFor(step) => {
            put("wait_for", wait_for(step));
            if step.timeout.is_some() {
                put("on_timeout", on_timeout(&step.on_timeout));
            }
        }
        StepKind::Workflow(step) => put("workflow", child(step)),
        StepKind::Emit(step) => {
            let fields = [("subject", Some(&step.subject)), ("body", step.body.as_ref())];
            put("emit", templates(fields));
        }
        StepKind::Fail(step) => {
            let fields = [("type", Some(&step.error_type)), ("message", step.message.as_ref())];
            put("fail", templates(fields));
        }
        StepKind::Complete(output) => put("complete", output.as_ref().map_or(Value::Null, Node::to_json)),
        StepKind::ContinueAsNew(input) => put("continue_as_new", input.as_ref().map_or(Value::Null, Node::to_json)),
        StepKind::Activity(_) | StepKind::Broken => {}
    }
    json!({ step.id.text.as_str(): body })
}

fn body(of: &Steps) -> Value {
    json!({ "steps": steps(of) })
}

fn parallel(parallel: &Parallel) -> Value {
    let branches: Map<String, Value> = parallel
        .branches
        .iter()
        .map(|branch| (branch.name.text.clone(), body(&branch.steps)))
        .collect();
    let join = match parallel.join {
        Join::All => json!("all"),
        Join::Any => json!("any"),
        Join::AtLeast(count) => json!({ "at_least": count }),
    };
    let mut fields = json!({ "branches": branches, "join": join });
    // Where all have to succeed there are none.
    if parallel.join != Join::All {
        fields["losers"] = match parallel.losers {
            Losers::Undo => json!("undo"),
            Losers::Keep => json!("keep"),
        };
    }
    fields
}

fn for_each(each: &ForEach) -> Value {
    let mut fields = json!({ "in": each.list.to_json(), "as": each.item.text });
    if let Some(limit) = each.max_concurrency {
        fields["max_concurrency"] = json!(limit);
    }
    fields["steps"] = steps(&each.steps);
    if let Some(collect) = &each.collect {
        fields["collect"] = collect.to_json();
    }
    fields
}

fn case(case: &Case) -> Value {
    match &case.when {
        Some(when) => json!({ "when": when.text, "steps": steps(&case.steps) }),
        None => json!({ "else": body(&case.steps) }),
    }
}

fn repeat(repeat: &While) -> Value {
    json!({
        "when": repeat.when.text,
        "max_iterations": repeat.max_iterations,
        "steps": steps(&repeat.steps),
    })
}

fn guard(guard: &Try) -> Value {
    let mut fields = json!({ "steps": steps(&guard.steps) });
    if !guard.catches.is_empty() {
        fields["catch"] = guard.catches.iter().map(catch).collect();
    }
    if let Some(finally) = &guard.finally {
        fields["finally"] = body(finally);
    }
    fields
}

fn catch(catch: &Catch) -> Value {
    if catch.types.is_empty() {
        return body(&catch.steps);
    }
    json!({ "type": catch.types, "steps": steps(&catch.steps) })
}

fn scope(scope: &Savepoint) -> Value {
    let mut fields = body(&scope.steps);
    if let Some(otherwise) = &scope.otherwise {
        fields["otherwise"] = body(otherwise);
    }
    fields
}

fn wait_for(wait: &WaitFor) -> Value {
    let mut fields = json!({ "signal": wait.signal.text });
    if let Some(condition) = &wait.matches {
        fields["match"] = json!(condition.text);
    }
    if let Some(timeout) = wait.timeout {
        fields["timeout"] = json!(duration::format(timeout));
    }
    fields
}

fn on_timeout(on_timeout: &OnTimeout) -> Value {
    match on_timeout {
        OnTimeout::Fail => json!("fail"),
        OnTimeout::Continue => json!("continue"),
        OnTimeout::Steps(steps) => body(steps),
    }
}

fn child(child: &ChildWorkflow) -> Value {
    let mut fields = json!({ "name": child.name.text });
    if let Some(version) = child.version {
        fields["version"] = json!(version);
    }
    if let Some(id) = &child.id {
        fields["id"] = id.to_json();
    }
    if let Some(input) = &child.input {
        fields["input"] = input.to_json();
    }
    fields["parent_close"] = match child.parent_close {
        ParentClose::RequestCancel => json!("request_cancel"),
        ParentClose::Terminate => json!("terminate"),
        ParentClose::Abandon => json!("abandon"),
    };
    fields["detached"] = json!(child.detached);
    fields
}

fn templates(fields: [(&str, Option<&Node>); 2]) -> Value {
    let present = fields
        .into_iter()
        .filter_map(|(key, node)| Some((key.to_owned(), node?.to_json())));
    Value::Object(present.collect())
}

pub(super) fn assignments(entries: &[(Text, Node)]) -> Value {
    Value::Object(
        entries
            .iter()
            .map(|(name, value)| (name.text.clone(), value.to_json()))
            .collect(),
    )
}
