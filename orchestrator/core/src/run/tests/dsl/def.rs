//! Definitions in a few words.

use serde_json::{Value, json};

use crate::definition::plan::{Cancellation, Join, Losers, OnFailure, ParentClose, Timeouts};
use crate::time::Span;

#[derive(Debug, Clone)]
pub(crate) struct Def {
    pub(crate) name: String,
    pub(crate) condition: Option<String>,
    pub(crate) kind: DefKind,
}

#[derive(Debug, Clone)]
pub(crate) enum DefKind {
    Activity {
        input: Option<Value>,
        undo: UndoDef,
        attempts: Option<u32>,
        undo_attempts: Option<u32>,
        non_retryable: Vec<String>,
        on_failure: OnFailure,
        compensate_on_failure: bool,
        start_to_close: Span,
        timeouts: Timeouts,
        undo_timeouts: Timeouts,
        cancellation: Cancellation,
        pivot: bool,
        limits: LimitsDef,
    },
    Set(Vec<(String, Value)>),
    Sequence(Vec<Def>),
    Parallel {
        branches: Vec<(String, Vec<Def>)>,
        join: Join,
        losers: Losers,
    },
    ForEach {
        list: Value,
        at_once: Option<u32>,
        collect: Option<Value>,
        steps: Vec<Def>,
    },
    Switch(Vec<(Option<String>, Vec<Def>)>),
    While {
        when: String,
        max: u32,
        steps: Vec<Def>,
    },
    Try {
        steps: Vec<Def>,
        catches: Vec<(Vec<String>, Vec<Def>)>,
        finally: Option<Vec<Def>>,
    },
    Scope {
        steps: Vec<Def>,
        otherwise: Option<Vec<Def>>,
    },
    Wait(Span),
    WaitUntil(Value),
    WaitFor {
        signal: String,
        matches: Option<String>,
        timeout: Option<Span>,
        on_timeout: OnTimeoutDef,
    },
    Workflow {
        id: Option<Value>,
        input: Option<Value>,
        parent_close: ParentClose,
        detached: bool,
    },
    Emit {
        subject: Value,
        body: Option<Value>,
    },
    Fail(String),
    Complete(Value),
    ContinueAsNew(Option<Value>),
}

/// What an activity is limited to, and the keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct LimitsDef {
    pub(crate) concurrency: Option<(u32, Option<&'static str>)>,
    /// In a second.
    pub(crate) rate: Option<u32>,
    pub(crate) priority: Option<u8>,
    pub(crate) fairness_key: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub(crate) enum OnTimeoutDef {
    Fail,
    Continue,
    Steps(Vec<Def>),
}

#[derive(Debug, Clone)]
pub(crate) enum UndoDef {
    Input(Option<Value>),
    ReadOnly,
    NoUndo,
}

/// One attempt, undone with its own id or null, three attempts of the undo, ten seconds.
pub(crate) fn act(name: &str) -> Def {
    Def {
        name: name.to_owned(),
        condition: None,
        kind: DefKind::Activity {
            input: Some(json!({"of": name})),
            undo: UndoDef::Input(Some(json!({"id": format!("${{ steps.{name}.id | default(none) }}")}))),
            attempts: Some(1),
            undo_attempts: Some(3),
            non_retryable: vec![],
            on_failure: OnFailure::Fail,
            compensate_on_failure: false,
            start_to_close: Span::from_secs(10),
            timeouts: Timeouts::default(),
            undo_timeouts: Timeouts::default(),
            cancellation: Cancellation::default(),
            pivot: false,
            limits: LimitsDef::default(),
        },
    }
}

fn def(name: &str, kind: DefKind) -> Def {
    Def {
        name: name.to_owned(),
        condition: None,
        kind,
    }
}

/// All branches have to pass; losers are undone.
pub(crate) fn parallel(name: &str, branches: Vec<(&str, Vec<Def>)>) -> Def {
    let branches = branches.into_iter().map(|(name, steps)| (name.to_owned(), steps));
    let kind = DefKind::Parallel {
        branches: branches.collect(),
        join: Join::All,
        losers: Losers::Undo,
    };
    def(name, kind)
}

/// All at once, over a list, as `item`.
pub(crate) fn for_each(name: &str, list: Value, steps: Vec<Def>) -> Def {
    let kind = DefKind::ForEach {
        list,
        at_once: None,
        collect: None,
        steps,
    };
    def(name, kind)
}

/// `None` is `else`.
pub(crate) fn switch(name: &str, cases: Vec<(Option<&str>, Vec<Def>)>) -> Def {
    let cases = cases.into_iter().map(|(when, steps)| (when.map(str::to_owned), steps));
    def(name, DefKind::Switch(cases.collect()))
}

pub(crate) fn repeat(name: &str, when: &str, max: u32, steps: Vec<Def>) -> Def {
    let when = when.to_owned();
    def(name, DefKind::While { when, max, steps })
}

/// Without `catch` and `finally`, which [`Def::catch`] and [`Def::finally`] add.
pub(crate) fn attempt(name: &str, steps: Vec<Def>) -> Def {
    let kind = DefKind::Try {
        steps,
        catches: vec![],
        finally: None,
    };
    def(name, kind)
}

pub(crate) fn scope(name: &str, steps: Vec<Def>) -> Def {
    let otherwise = None;
    def(name, DefKind::Scope { steps, otherwise })
}

pub(crate) fn wait(name: &str, seconds: u64) -> Def {
    def(name, DefKind::Wait(Span::from_secs(seconds)))
}

pub(crate) fn wait_until(name: &str, until: Value) -> Def {
    def(name, DefKind::WaitUntil(until))
}

/// For ever, whatever the body.
pub(crate) fn wait_for(name: &str, signal: &str) -> Def {
    let kind = DefKind::WaitFor {
        signal: signal.to_owned(),
        matches: None,
        timeout: None,
        on_timeout: OnTimeoutDef::Fail,
    };
    def(name, kind)
}

pub(crate) fn workflow(name: &str) -> Def {
    let kind = DefKind::Workflow {
        id: None,
        input: None,
        parent_close: ParentClose::RequestCancel,
        detached: false,
    };
    def(name, kind)
}

pub(crate) fn emit(name: &str, subject: Value, body: Value) -> Def {
    let body = Some(body);
    def(name, DefKind::Emit { subject, body })
}

pub(crate) fn fail(name: &str, error_type: &str) -> Def {
    def(name, DefKind::Fail(error_type.to_owned()))
}

pub(crate) fn complete(name: &str, output: Value) -> Def {
    def(name, DefKind::Complete(output))
}

pub(crate) fn continue_as_new(name: &str, input: Option<Value>) -> Def {
    def(name, DefKind::ContinueAsNew(input))
}

pub(crate) fn set(name: &str, assignments: &[(&str, Value)]) -> Def {
    let assignments = assignments.iter();
    let assignments = assignments.map(|(name, value)| ((*name).to_owned(), value.clone()));
    def(name, DefKind::Set(assignments.collect()))
}

pub(crate) fn seq(name: &str, children: Vec<Def>) -> Def {
    def(name, DefKind::Sequence(children))
}

macro_rules! with {
    ($($method:ident($value:ident: $type:ty) => $kind:ident.$field:ident = $expr:expr;)*) => {
        impl Def {
            $(pub(crate) fn $method(mut self, $value: $type) -> Self {
                match &mut self.kind {
                    DefKind::$kind { $field, .. } => *$field = $expr,
                    other => panic!("{other:?} has no {}", stringify!($field)),
                }
                self
            })*
        }
    };
}

with! {
    input(value: Value) => Activity.input = Some(value);
    undo(value: UndoDef) => Activity.undo = value;
    undo_input(value: Value) => Activity.undo = UndoDef::Input(Some(value));
    attempts(value: Option<u32>) => Activity.attempts = value;
    undo_attempts(value: u32) => Activity.undo_attempts = Some(value);
    non_retryable(value: &str) => Activity.non_retryable = vec![value.to_owned()];
    on_failure(value: OnFailure) => Activity.on_failure = value;
    compensate_on_failure(value: bool) => Activity.compensate_on_failure = value;
    start_to_close(value: Span) => Activity.start_to_close = value;
    timeouts(value: Timeouts) => Activity.timeouts = value;
    undo_timeouts(value: Timeouts) => Activity.undo_timeouts = value;
    cancellation(value: Cancellation) => Activity.cancellation = value;
    pivot(value: bool) => Activity.pivot = value;
    limits(value: LimitsDef) => Activity.limits = value;
    join(value: Join) => Parallel.join = value;
    losers(value: Losers) => Parallel.losers = value;
    at_once(value: u32) => ForEach.at_once = Some(value);
    collect(value: Value) => ForEach.collect = Some(value);
    finally(value: Vec<Def>) => Try.finally = Some(value);
    otherwise(value: Vec<Def>) => Scope.otherwise = Some(value);
    matches(value: &str) => WaitFor.matches = Some(value.to_owned());
    timeout(value: u64) => WaitFor.timeout = Some(Span::from_secs(value));
    on_timeout(value: OnTimeoutDef) => WaitFor.on_timeout = value;
    id(value: Value) => Workflow.id = Some(value);
    child_input(value: Value) => Workflow.input = Some(value);
    parent_close(value: ParentClose) => Workflow.parent_close = value;
    detached(value: bool) => Workflow.detached = value;
}

impl Def {
    /// Of every type, where none is named.
    pub(crate) fn catch(mut self, types: &[&str], steps: Vec<Def>) -> Self {
        if let DefKind::Try { catches, .. } = &mut self.kind {
            catches.push((types.iter().map(|name| (*name).to_owned()).collect(), steps));
        }
        self
    }

    pub(crate) fn when(mut self, condition: &str) -> Self {
        self.condition = Some(condition.to_owned());
        self
    }
}
