//! What is drawn, as the text of a definition.

use serde_json::{Map, Value, json};

use super::{Activity, Attempts, Body, Draft, Handled, Handler, Join, Kind, OnTimeout, Options, Step, Undo, Wait};

impl Draft {
    pub fn text(&self) -> String {
        // Spread over lines, so that a finding's place tells its step.
        serde_json::to_string_pretty(&self.json()).unwrap()
    }

    fn json(&self) -> Value {
        let mut document = json!({
            "workflow": self.name,
            "version": self.version,
            "id": "${ input.id }",
            "defaults": {
                "queue": "main",
                "start_to_close": "5s",
                "retry": { "maximum_attempts": 2, "initial_interval": "1s" },
                "compensate": { "retry": { "maximum_attempts": 3, "maximum_interval": "20s" } },
            },
            "compensation": {
                "order": if self.sequential { "sequential" } else { "dependencies" },
                "on_exhausted": if self.halts { "halt" } else { "continue" },
            },
            "steps": body(&self.steps)["steps"],
        });
        for handler in &self.handlers {
            let of = match handler.of {
                Handled::Signal => "signals",
                Handled::Update => "updates",
            };
            document[of][handler.name] = handler_fields(handler);
        }
        if self.queries {
            document["queries"] = self.asked();
        }
        if let Some(timeout) = self.timeout_secs {
            document["timeout"] = json!(format!("{timeout}s"));
        }
        if let Some(attempts) = self.attempts {
            document["retry"] = json!({
                "initial_interval": "3s",
                "maximum_attempts": attempts,
                "non_retryable": ["Refused"],
            });
        }
        if self.search_attribute {
            document["search_attributes"] = json!({ "kind": "${ input.n | default(0) }" });
        }
        if let Some(places) = self.places {
            document["concurrency"] = json!({ "limit": places.limit, "on_conflict": places.on_conflict });
            if places.keyed {
                document["concurrency"]["key"] = json!("${ input.n }");
            }
        }
        if let Some(priority) = self.priority {
            document["priority"] = json!(priority);
        }
        if self.output {
            document["output"] = json!({ "of": self.name, "v": "${ vars.v | default(none) }" });
        }
        document
    }
}

impl Draft {
    fn asked(&self) -> Value {
        let mut asked = json!({
            "how": { "status": "${ status }", "v": "${ vars.v | default(none) }", "why": "${ error.type | default('') }" },
            "rare": "${ input.rare.id }",
        });
        let is_activity = |step: &&Step| matches!(step.kind, Kind::Activity(_));
        if let Some(step) = self.steps.iter().find(is_activity) {
            asked["first"] = json!(format!("${{ steps.{}.id }}", step.id));
        }
        asked
    }
}

fn handler_fields(handler: &Handler) -> Value {
    let mut fields = json!({});
    if handler.schema {
        fields["schema"] = json!({ "minimum": 0 });
    }
    if !handler.steps.is_empty() {
        fields["steps"] = body(&handler.steps)["steps"].take();
    }
    for (key, said) in [("validate", handler.validate), ("output", handler.output)] {
        if let Some(said) = said {
            fields[key] = json!(said);
        }
    }
    fields
}

fn body(steps: &Body) -> Value {
    let steps: Vec<Value> = steps.iter().map(step).collect();
    json!({ "steps": steps })
}

fn step(step: &Step) -> Value {
    let mut fields = Map::new();
    if let Some(condition) = step.condition {
        fields.insert("if".to_owned(), json!(condition));
    }
    match &step.kind {
        Kind::Activity(activity) => fields.extend(activity_fields(&step.id, activity)),
        Kind::Set(value) => {
            fields.insert("set".to_owned(), json!({ "v": value }));
        }
        kind => fields.extend(kind_fields(kind)),
    }
    json!({ &step.id: fields })
}

fn activity_fields(id: &str, activity: &Activity) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("activity", json!(format!("do-{id}")));
    if let Some(input) = &activity.input {
        put("input", json!({ "of": id, "is": input }));
    }
    match &activity.undo {
        Undo::Undeclared => {}
        Undo::ReadOnly => drop(put("read_only", json!(true))),
        Undo::NoUndo => drop(put("no_undo", json!("it cannot be"))),
        Undo::Compensate(None) => drop(put("compensate", json!(format!("undo-{id}")))),
        Undo::Compensate(Some(input)) => {
            put(
                "compensate",
                json!({ "activity": format!("undo-{id}"), "input": input }),
            );
        }
    }
    if activity.on_failure_continues {
        put("on_failure", json!("continue"));
    }
    if activity.compensate_on_failure {
        put("compensate_on_failure", json!(true));
    }
    if activity.pivot {
        put("pivot", json!(true));
    }
    let mut retry = Map::new();
    match activity.attempts {
        None => {}
        Some(Attempts::AtMost(n)) => drop(retry.insert("maximum_attempts".to_owned(), json!(n))),
        Some(Attempts::Unlimited) => drop(retry.insert("maximum_attempts".to_owned(), json!("unlimited"))),
    }
    if activity.non_retryable {
        retry.insert("non_retryable".to_owned(), json!(["Refused"]));
    }
    if !retry.is_empty() {
        put("retry", Value::Object(retry));
    }
    put("start_to_close", json!(format!("{}s", activity.start_to_close_secs)));
    if let Some(queue) = activity.queue {
        put("queue", json!(queue));
    }
    fields.extend(option_fields(&activity.options));
    fields
}

fn option_fields(options: &Options) -> Map<String, Value> {
    let secs = |secs: Option<u32>| secs.map(|secs| json!(format!("{secs}s")));
    let limited = |limit: Option<(u32, bool)>| {
        limit.map(|(limit, keyed)| match keyed {
            true => json!({ "limit": limit, "key": "${ input.n }" }),
            false => json!({ "limit": limit }),
        })
    };
    let all = [
        ("schedule_to_start", secs(options.schedule_to_start_secs)),
        ("schedule_to_close", secs(options.schedule_to_close_secs)),
        ("heartbeat", secs(options.heartbeat_secs)),
        ("cancellation", options.cancellation.map(|it| json!(it))),
        ("concurrency", limited(options.concurrency)),
        ("rate", limited(options.rate)),
        ("priority", options.priority.map(|it| json!(it))),
        ("fairness_key", options.fair.then(|| json!("${ input.id }"))),
    ];
    let said = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    said.collect()
}

const BRANCHES: [&str; 4] = ["left", "right", "third", "fourth"];

fn kind_fields(kind: &Kind) -> Map<String, Value> {
    let fields = match kind {
        Kind::Activity(_) | Kind::Set(_) => json!({}),
        Kind::Parallel { branches, join, keep } => {
            let branches: Map<_, _> = BRANCHES
                .iter()
                .zip(branches)
                .map(|(name, steps)| ((*name).to_owned(), body(steps)))
                .collect();
            let mut parallel = json!({ "branches": branches });
            match join {
                Join::All => {}
                Join::Any => parallel["join"] = json!("any"),
                Join::AtLeast(n) => parallel["join"] = json!({ "at_least": n }),
            }
            if *keep && *join != Join::All {
                parallel["losers"] = json!("keep");
            }
            json!({ "parallel": parallel })
        }
        Kind::ForEach {
            list,
            item,
            at_once,
            collect,
            steps,
        } => {
            let mut each = json!({ "in": list, "as": item });
            if let Some(at_once) = at_once {
                each["max_concurrency"] = json!(at_once);
            }
            each["steps"] = body(steps)["steps"].take();
            if *collect {
                each["collect"] = json!(format!("${{ [{item}, index] }}"));
            }
            json!({ "for_each": each })
        }
        Kind::Switch { cases, otherwise } => {
            let cases = cases
                .iter()
                .map(|(when, steps)| json!({ "when": when, "steps": body(steps)["steps"] }));
            let otherwise = otherwise.iter().map(|steps| json!({ "else": body(steps) }));
            json!({ "switch": cases.chain(otherwise).collect::<Vec<_>>() })
        }
        Kind::While { when, max, steps } => {
            json!({ "while": { "when": when, "max_iterations": max, "steps": body(steps)["steps"] } })
        }
        Kind::Try {
            steps,
            catches,
            finally,
        } => {
            let mut guard = json!({ "steps": body(steps)["steps"] });
            let catches: Vec<_> = catches
                .iter()
                .map(|(error_type, steps)| match error_type {
                    Some(name) => json!({ "type": [name], "steps": body(steps)["steps"] }),
                    None => body(steps),
                })
                .collect();
            if !catches.is_empty() {
                guard["catch"] = json!(catches);
            }
            if let Some(finally) = finally {
                guard["finally"] = body(finally);
            }
            json!({ "try": guard })
        }
        Kind::Scope { steps, otherwise } => {
            let mut scope = body(steps);
            if let Some(otherwise) = otherwise {
                scope["otherwise"] = body(otherwise);
            }
            json!({ "scope": scope })
        }
        Kind::Wait(Wait::Secs(secs)) => json!({ "wait": format!("{secs}s") }),
        Kind::Wait(Wait::Until(until)) => json!({ "wait": { "until": until } }),
        Kind::WaitFor {
            timeout_secs,
            matches,
            on_timeout,
        } => {
            let mut wait = json!({ "signal": "go" });
            if *matches {
                wait["match"] = json!("signal > 0");
            }
            if let Some(timeout) = timeout_secs {
                wait["timeout"] = json!(format!("{timeout}s"));
            }
            match on_timeout {
                OnTimeout::Fail => json!({ "wait_for": wait }),
                OnTimeout::Continue => json!({ "wait_for": wait, "on_timeout": "continue" }),
                OnTimeout::Steps(steps) => json!({ "wait_for": wait, "on_timeout": body(steps) }),
            }
        }
        Kind::Child {
            name,
            policy,
            detached,
            id,
        } => {
            let mut child = json!({ "name": name, "input": "${ input }" });
            if let Some(policy) = policy.filter(|_| !detached) {
                child["parent_close"] = json!(policy);
            }
            if *detached {
                child["detached"] = json!(true);
            }
            if let Some(id) = id {
                child["id"] = json!(id);
            }
            json!({ "workflow": child })
        }
        Kind::Emit(subject) => json!({ "emit": { "subject": subject, "body": { "n": "${ input.n }" } } }),
        Kind::Fail(error_type) => json!({ "fail": { "type": error_type } }),
        Kind::Complete => json!({ "complete": { "early": true } }),
        Kind::ContinueAsNew => {
            json!({ "continue_as_new": "${ input | merge({'left': input.left - 1}) }" })
        }
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
