//! A definition as it is drawn, before it is text.
//!
//! The first letter of a step's id says what it is, for whoever reads its path: `a` an activity, `p` a parallel, `e` a
//! `for_each` side by side, `o` one at a time, `w` a `while`, `t` a `try`, `s` a scope, `k` a child, `i` a wait, `f` a
//! `wait_for`. [`super::told`] relies on it.

use serde_json::{Map, Value, json};

use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::{self, Checked, code};

#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub name: &'static str,
    pub version: u32,
    pub steps: Vec<Step>,
    /// Of the signal `stop`, for which no step waits.
    pub handler: Option<Body>,
    /// Of the update `change`.
    pub update: Option<Body>,
    pub timeout_secs: Option<u32>,
    pub sequential: bool,
    pub halts: bool,
    pub search_attribute: bool,
    pub output: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub id: String,
    pub condition: Option<&'static str>,
    pub kind: Kind,
}

pub type Body = Vec<Step>;

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Activity(Activity),
    /// What `vars.v` is given.
    Set(&'static str),
    Parallel {
        branches: Vec<Body>,
        join: Join,
        keep: bool,
    },
    ForEach {
        list: &'static str,
        item: String,
        at_once: Option<u32>,
        collect: bool,
        steps: Body,
    },
    Switch {
        cases: Vec<(&'static str, Body)>,
        otherwise: Option<Body>,
    },
    While {
        when: &'static str,
        max: u32,
        steps: Body,
    },
    Try {
        steps: Body,
        catches: Vec<(Option<&'static str>, Body)>,
        finally: Option<Body>,
    },
    Scope {
        steps: Body,
        otherwise: Option<Body>,
    },
    Wait(Wait),
    WaitFor {
        timeout_secs: Option<u32>,
        matches: bool,
        on_timeout: OnTimeout,
    },
    Child {
        name: &'static str,
        policy: Option<&'static str>,
        detached: bool,
        id: Option<&'static str>,
    },
    Emit(&'static str),
    Fail(&'static str),
    Complete,
    ContinueAsNew,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    pub input: Option<String>,
    pub undo: Undo,
    pub on_failure_continues: bool,
    pub compensate_on_failure: bool,
    pub pivot: bool,
    pub attempts: Option<Attempts>,
    pub start_to_close_secs: u32,
    pub queue: Option<&'static str>,
    pub non_retryable: bool,
    pub options: Options,
}

/// What most activities do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub schedule_to_start_secs: Option<u32>,
    pub schedule_to_close_secs: Option<u32>,
    pub heartbeat_secs: Option<u32>,
    pub cancellation: Option<&'static str>,
    /// So many at a time, or so many for each key.
    pub concurrency: Option<(u32, bool)>,
    pub rate: Option<(u32, bool)>,
    pub priority: Option<u32>,
    pub fair: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attempts {
    AtMost(u32),
    Unlimited,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Undo {
    Undeclared,
    ReadOnly,
    NoUndo,
    /// By that expression, or no input at all.
    Compensate(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Join {
    All,
    Any,
    AtLeast(u32),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wait {
    Secs(u32),
    Until(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
pub enum OnTimeout {
    Fail,
    Continue,
    Steps(Body),
}

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
        if let Some(handler) = &self.handler {
            document["signals"] = json!({ "stop": { "schema": { "minimum": 0 }, "steps": body(handler)["steps"] } });
        }
        if let Some(update) = &self.update {
            document["updates"] = json!({ "change": {
                "schema": { "minimum": 0 },
                "validate": "update < 2 or vars.v is defined",
                "steps": body(update)["steps"],
                "output": "${ [update, vars.v | default(none)] }",
            } });
        }
        if let Some(timeout) = self.timeout_secs {
            document["timeout"] = json!(format!("{timeout}s"));
        }
        if self.search_attribute {
            document["search_attributes"] = json!({ "kind": "${ input.n | default(0) }" });
        }
        if self.output {
            document["output"] = json!({ "of": self.name, "v": "${ vars.v | default(none) }" });
        }
        document
    }

    /// Reads and checks it, without the steps that have a finding: what is left is what a person would have registered.
    /// `None` where that does not come to an end.
    pub fn checked(mut self) -> Option<(Self, Checked)> {
        for _ in 0..60 {
            let text = self.text();
            let found = match definition::read(&text, &|path| Err(format!("there is no {path}"))) {
                Ok(checked) => return Some((self, checked)),
                Err(found) => found,
            };
            let errors = found.iter().filter(|finding| finding.severity == Severity::Error);
            for finding in errors {
                self.mend(&text, finding)?;
            }
        }
        None
    }

    fn mend(&mut self, text: &str, finding: &Diagnostic) -> Option<()> {
        if finding.code == code::TIMEOUT_CUTS_PIVOT {
            self.timeout_secs = None;
            return Some(());
        }
        let id = step_at(text, finding.span.start)?;
        mend_in(&mut self.steps, id, finding.code.code);
        for handler in [&mut self.handler, &mut self.update].into_iter().flatten() {
            mend_in(handler, id, finding.code.code);
        }
        Some(())
    }

    /// Drafts that have a little less of it.
    pub fn smaller(&self) -> Vec<Self> {
        let mut drafts: Vec<Self> = smaller_bodies(&self.steps)
            .into_iter()
            .map(|steps| Self { steps, ..self.clone() })
            .collect();
        if let Some(handler) = &self.handler {
            let smaller = smaller_bodies(handler).into_iter().map(Some).chain([None]);
            drafts.extend(smaller.map(|handler| Self {
                handler,
                ..self.clone()
            }));
        }
        if let Some(update) = &self.update {
            let smaller = smaller_bodies(update).into_iter().map(Some).chain([None]);
            drafts.extend(smaller.map(|update| Self { update, ..self.clone() }));
        }
        let plain = Self {
            timeout_secs: None,
            sequential: false,
            halts: false,
            search_attribute: false,
            output: false,
            ..self.clone()
        };
        if plain != *self {
            drafts.push(plain);
        }
        drafts
    }
}

/// The id of the step that a place lies in.
fn step_at(text: &str, place: usize) -> Option<&str> {
    // The finding may lie on the id itself.
    let end = text[place..].find('\n').map_or(text.len(), |line| place + line);
    text[..end].lines().rev().find_map(|line| {
        let id = line.trim().strip_prefix('"')?.strip_suffix("\": {")?;
        let (kind, number) = id.split_at_checked(1)?;
        let is_id = kind.bytes().all(|byte| byte.is_ascii_lowercase()) && !number.is_empty();
        (is_id && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(id)
    })
}

const OF_OPTIONS: [&str; 3] = [
    code::TIMEOUT_IDLE.code,
    code::ENDLESS_CANCELLATION.code,
    code::BAD_VALUE.code,
];

fn mend_in(body: &mut Body, id: &str, finding: &str) {
    let alone = body.len() == 1;
    let mut removed = None;
    for (index, step) in body.iter_mut().enumerate() {
        if step.id != id {
            step.kind
                .bodies_mut()
                .into_iter()
                .for_each(|body| mend_in(body, id, finding));
            continue;
        }
        match &mut step.kind {
            Kind::Activity(activity) if finding == code::AFTER_PIVOT.code && activity.undo != Undo::NoUndo => {
                activity.undo = Undo::NoUndo;
                activity.compensate_on_failure = false;
            }
            Kind::Activity(activity) if OF_OPTIONS.contains(&finding) && activity.options != Options::default() => {
                activity.options = Options::default();
            }
            Kind::Activity(activity) if activity.pivot => activity.pivot = false,
            // Without its condition a run would continue for ever.
            kind if step.condition.is_some() && *kind != Kind::ContinueAsNew => step.condition = None,
            kind if alone => *kind = Kind::Set("1"),
            _ => removed = Some(index),
        }
    }
    if let Some(index) = removed {
        body.remove(index);
    }
}

/// Bodies with one step less, or with what is in a step in its place.
fn smaller_bodies(body: &Body) -> Vec<Body> {
    let mut bodies = Vec::new();
    let half = body.len() / 2;
    if half > 1 {
        bodies.push(body[..half].to_vec());
        bodies.push(body[half..].to_vec());
    }
    for (index, step) in body.iter().enumerate() {
        let with = |steps: Vec<Step>| [&body[..index], &steps, &body[index + 1..]].concat();
        if body.len() > 1 {
            bodies.push(with(vec![]));
        }
        let mut inner = step.clone();
        bodies.extend(inner.kind.bodies_mut().into_iter().map(|inner| with(inner.clone())));
        if step.condition.is_some() && step.kind != Kind::ContinueAsNew {
            bodies.push(with(vec![Step {
                condition: None,
                ..step.clone()
            }]));
        }
        if let Kind::Activity(activity) = &step.kind {
            for kind in activity.smaller() {
                bodies.push(with(vec![Step { kind, ..step.clone() }]));
            }
        }
        for at in 0..inner.kind.bodies_mut().len() {
            for smaller in smaller_bodies(inner.kind.bodies_mut()[at]) {
                let mut step = step.clone();
                *step.kind.bodies_mut()[at] = smaller;
                bodies.push(with(vec![step]));
            }
        }
    }
    bodies
}

impl Activity {
    fn smaller(&self) -> Vec<Kind> {
        let plain = [
            Self {
                input: None,
                ..self.clone()
            },
            Self {
                on_failure_continues: false,
                ..self.clone()
            },
            Self {
                compensate_on_failure: false,
                ..self.clone()
            },
            Self {
                pivot: false,
                ..self.clone()
            },
            Self {
                options: Options::default(),
                ..self.clone()
            },
            Self {
                attempts: None,
                queue: None,
                non_retryable: false,
                ..self.clone()
            },
        ];
        plain.into_iter().filter(|it| it != self).map(Kind::Activity).collect()
    }
}

impl Kind {
    pub fn bodies_mut(&mut self) -> Vec<&mut Body> {
        match self {
            Self::Parallel { branches, .. } => branches.iter_mut().collect(),
            Self::ForEach { steps, .. } | Self::While { steps, .. } => vec![steps],
            Self::Switch { cases, otherwise } => cases
                .iter_mut()
                .map(|(_, body)| body)
                .chain(otherwise.as_mut())
                .collect(),
            Self::Try {
                steps,
                catches,
                finally,
            } => {
                let catches = catches.iter_mut().map(|(_, body)| body);
                std::iter::once(steps).chain(catches).chain(finally.as_mut()).collect()
            }
            Self::Scope { steps, otherwise } => std::iter::once(steps).chain(otherwise.as_mut()).collect(),
            Self::WaitFor {
                on_timeout: OnTimeout::Steps(steps),
                ..
            } => vec![steps],
            _ => vec![],
        }
    }
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
