//! Plans and runs in a few words, for tests. Every transition is checked against the invariants that need no scenario.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::definition::plan::{
    self, Activity, Call, Cancellation, InputSchema, Join, Losers, Node, NodeId, NodeKind, OnFailure, ParentClose,
    Plan, RetryPolicy, Timeouts, Undo,
};
use crate::expression::{Expression, Template};
use crate::ids::{DefinitionHash, MessageNo, RunId, StepPath, TaskNo};
use crate::limit::Rate;
use crate::run::effect::{Direction, Dispatch, Effect};
use crate::run::failure::Failure;
use crate::run::input::{
    AnswerOn, AnswerRequest, Horizon, Input, Operation, ParkedAction, Rejected, Start, TaskOutcome, WorkerError,
};
use crate::run::limits::{Limit, RunLimits};
use crate::run::message::{Answer, Body, ChildClosed, Sender};
use crate::run::{self, Event, State, Status, Transition};
use crate::time::{Span, Timestamp};

pub(crate) const RUN: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));

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

pub(crate) fn template(value: &Value) -> Template {
    Template::compile(value).unwrap()
}

fn retry(maximum_attempts: Option<u32>, non_retryable: &[String]) -> RetryPolicy {
    RetryPolicy {
        initial_interval: Span::from_secs(1),
        backoff_coefficient: 2.0,
        maximum_interval: Span::from_secs(100),
        maximum_attempts,
        non_retryable: non_retryable.iter().map(|name| Arc::from(name.as_str())).collect(),
    }
}

/// A body of a step; the main one has no name.
fn body(nodes: &mut Vec<Node>, step: NodeId, name: &str, steps: &[Def]) -> NodeId {
    add(nodes, Some(step), &seq(name, steps.to_vec()))
}

fn expression(text: &str) -> Expression {
    Expression::compile(text).unwrap()
}

fn add(nodes: &mut Vec<Node>, parent: Option<NodeId>, def: &Def) -> NodeId {
    let id = NodeId(nodes.len());
    nodes.push(Node {
        parent,
        name: Arc::from(def.name.as_str()),
        condition: def.condition.as_deref().map(|text| Expression::compile(text).unwrap()),
        kind: NodeKind::Sequence { children: vec![] },
    });
    let kind = match &def.kind {
        DefKind::Sequence(children) => NodeKind::Sequence {
            children: children.iter().map(|child| add(nodes, Some(id), child)).collect(),
        },
        DefKind::Set(assignments) => NodeKind::Set(
            assignments
                .iter()
                .map(|(name, value)| (Arc::from(name.as_str()), template(value)))
                .collect(),
        ),
        DefKind::Parallel { branches, join, losers } => {
            let branches = branches.iter().map(|(name, steps)| body(nodes, id, name, steps));
            NodeKind::Parallel(plan::Parallel {
                branches: branches.collect(),
                join: *join,
                losers: *losers,
            })
        }
        DefKind::ForEach {
            list,
            at_once,
            collect,
            steps,
        } => NodeKind::ForEach(Box::new(plan::ForEach {
            list: template(list),
            item: Arc::from("item"),
            max_concurrency: *at_once,
            body: body(nodes, id, "", steps),
            collect: collect.as_ref().map(template),
        })),
        DefKind::Switch(cases) => {
            let cases = cases.iter().enumerate().map(|(index, (when, steps))| plan::Case {
                when: when.as_deref().map(expression),
                body: match when {
                    Some(_) => body(nodes, id, &format!("case_{}", index + 1), steps),
                    None => body(nodes, id, "else", steps),
                },
            });
            NodeKind::Switch(cases.collect())
        }
        DefKind::While { when, max, steps } => NodeKind::While(Box::new(plan::While {
            when: expression(when),
            max_iterations: *max,
            body: body(nodes, id, "", steps),
        })),
        DefKind::Try {
            steps,
            catches,
            finally,
        } => {
            let main = body(nodes, id, "", steps);
            let catches = catches.iter().enumerate().map(|(index, (types, steps))| plan::Catch {
                types: types.iter().map(|name| Arc::from(name.as_str())).collect(),
                body: body(nodes, id, &format!("catch_{}", index + 1), steps),
            });
            let catches = catches.collect();
            NodeKind::Try(plan::Try {
                body: main,
                catches,
                finally: finally.as_ref().map(|steps| body(nodes, id, "finally", steps)),
            })
        }
        DefKind::Scope { steps, otherwise } => NodeKind::Scope(plan::Savepoint {
            body: body(nodes, id, "", steps),
            otherwise: otherwise.as_ref().map(|steps| body(nodes, id, "otherwise", steps)),
        }),
        DefKind::Wait(span) => NodeKind::Wait(plan::Wait::For(*span)),
        DefKind::WaitUntil(until) => NodeKind::Wait(plan::Wait::Until(template(until))),
        DefKind::WaitFor {
            signal,
            matches,
            timeout,
            on_timeout,
        } => NodeKind::WaitFor(Box::new(plan::WaitFor {
            signal: Arc::from(signal.as_str()),
            matches: matches.as_deref().map(expression),
            timeout: *timeout,
            on_timeout: match on_timeout {
                OnTimeoutDef::Fail => plan::OnTimeout::Fail,
                OnTimeoutDef::Continue => plan::OnTimeout::Continue,
                OnTimeoutDef::Steps(steps) => plan::OnTimeout::Steps(body(nodes, id, "on_timeout", steps)),
            },
        })),
        DefKind::Workflow {
            id,
            input,
            parent_close,
            detached,
        } => NodeKind::Workflow(Box::new(plan::ChildWorkflow {
            workflow: "shipping".into(),
            version: None,
            id: id.as_ref().map(template),
            input: input.as_ref().map(template),
            parent_close: *parent_close,
            detached: *detached,
        })),
        DefKind::Emit { subject, body } => NodeKind::Emit(Box::new(plan::Emit {
            subject: template(subject),
            body: body.as_ref().map(template),
        })),
        DefKind::Fail(error_type) => NodeKind::Fail(Box::new(plan::Fail {
            error_type: template(&json!(error_type)),
            message: None,
        })),
        DefKind::Complete(output) => NodeKind::Complete(Some(template(output))),
        DefKind::ContinueAsNew(input) => NodeKind::ContinueAsNew(input.as_ref().map(template)),
        DefKind::Activity {
            input,
            undo,
            attempts,
            undo_attempts,
            non_retryable,
            on_failure,
            compensate_on_failure,
            start_to_close,
            timeouts,
            undo_timeouts,
            cancellation,
            pivot,
            limits,
        } => {
            let call = |activity: String, input: &Option<Value>, attempts, timeouts: &Timeouts| Call {
                activity: activity.as_str().into(),
                queue: "main".into(),
                input: input.as_ref().map(template),
                start_to_close: *start_to_close,
                timeouts: *timeouts,
                retry: retry(attempts, non_retryable),
            };
            NodeKind::Activity(Box::new(Activity {
                call: call(format!("do-{}", def.name), input, *attempts, timeouts),
                undo: match undo {
                    UndoDef::Input(input) => {
                        Undo::Compensate(call(format!("undo-{}", def.name), input, *undo_attempts, undo_timeouts))
                    }
                    UndoDef::ReadOnly => Undo::ReadOnly,
                    UndoDef::NoUndo => Undo::None {
                        reason: Arc::from("it cannot be"),
                    },
                },
                on_failure: *on_failure,
                compensate_on_failure: *compensate_on_failure,
                pivot: *pivot,
                limiting: limiting(limits),
                cancellation: *cancellation,
            }))
        }
    };
    nodes[id.0].kind = kind;
    id
}

fn limiting(limits: &LimitsDef) -> Option<Box<plan::Limiting>> {
    let key = |key: Option<&str>| key.map(|key| template(&json!(key)));
    let limiting = plan::Limiting {
        concurrency: limits.concurrency.map(|(to, of)| plan::Limited { to, key: key(of) }),
        rate: limits.rate.map(|limit| plan::Limited {
            to: Rate {
                limit,
                per: Span::from_secs(1),
            },
            key: None,
        }),
        priority: limits.priority,
        fairness_key: key(limits.fairness_key),
    };
    let said = limits.concurrency.is_some() || limits.rate.is_some() || limits.priority.is_some();
    said.then(|| Box::new(limiting))
}

pub(crate) fn plan(children: Vec<Def>) -> Plan {
    let mut nodes = Vec::new();
    let root = add(&mut nodes, None, &seq("", children));
    Plan {
        workflow: "order".into(),
        version: 1,
        hash: DefinitionHash(Arc::from("abc")),
        nodes,
        root,
        id: None,
        input_schema: None,
        output: None,
        search_attributes: BTreeMap::new(),
        timeout: None,
        compensation: Default::default(),
        schedule: None,
        concurrency: None,
        priority: None,
        triggers: Vec::new(),
    }
}

pub(crate) fn with_compensation(mut plan: Plan, order: plan::UndoOrder, on_exhausted: plan::OnExhausted) -> Plan {
    plan.compensation = plan::CompensationPolicy { order, on_exhausted };
    plan
}

pub(crate) fn with_output(mut plan: Plan, output: Value) -> Plan {
    plan.output = Some(template(&output));
    plan
}

pub(crate) fn with_timeout(mut plan: Plan, seconds: u64) -> Plan {
    plan.timeout = Some(Span::from_secs(seconds));
    plan
}

pub(crate) fn with_schema(mut plan: Plan, schema: &Value) -> Plan {
    plan.input_schema = Some(InputSchema(Arc::new(jsonschema::validator_for(schema).unwrap())));
    plan
}

pub(crate) fn with_search_attribute(mut plan: Plan, name: &str, value: &Value) -> Plan {
    plan.search_attributes.insert(name.to_owned(), template(value));
    plan
}

pub(crate) fn begin(input: Value) -> Start {
    Start {
        run_id: RUN,
        namespace: "default".into(),
        workflow_id: "order-1".into(),
        input: Arc::new(input),
        request_id: None,
        search_attributes: BTreeMap::new(),
        answer: None,
        traceparent: None,
        parent: None,
        priority: None,
        queued: false,
        continues: None,
    }
}

/// A run under test, its history and everything it has sent.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) history: Vec<Transition>,
    pub(crate) sent: Vec<Effect>,
    /// What a replica that reads events from storage has made of them.
    loaded: State,
}

pub(crate) fn run(children: Vec<Def>) -> Run {
    Run::of(plan(children))
}

impl Run {
    pub(crate) fn of(plan: Plan) -> Self {
        Self::started(plan, begin(json!({"customer": "c1"}))).unwrap()
    }

    pub(crate) fn started(plan: Plan, start: Start) -> Result<Self, Rejected> {
        Self::within(RunLimits::default(), plan, start)
    }

    pub(crate) fn within(limits: RunLimits, plan: Plan, start: Start) -> Result<Self, Rejected> {
        let now = Timestamp(1_000_000_000);
        let (state, transition) = run::start_within(limits, &plan, start, now, &crate::run::permit::UNLIMITED)?;
        let loaded = State::born(&stored(&transition)).unwrap();
        let mut run = Self {
            plan,
            now,
            sent: run::effects(&state, &transition),
            history: vec![transition],
            state,
            loaded,
        };
        run.check();
        Ok(run)
    }

    /// A run that was stored before.
    pub(crate) fn loaded(plan: Plan, state: State) -> Self {
        Self {
            plan,
            now: state.at(),
            loaded: state.clone(),
            state,
            history: vec![],
            sent: vec![],
        }
    }

    /// The effects of the input; `None` if it changed nothing.
    pub(crate) fn apply(&mut self, input: Input) -> Result<Option<Vec<Effect>>, Rejected> {
        let before = self.state.clone();
        let applied = run::apply(&self.plan, &mut self.state, input, self.now);
        let Ok(Some(transition)) = &applied else {
            assert_eq!(self.state, before, "what is not a transition changes nothing");
            return applied.map(|_| None);
        };
        assert_eq!(transition.seq, before.seq() + 1);
        assert!(transition.at >= before.at());
        assert!(!transition.events.is_empty());
        run::evolve(&mut self.loaded, &stored(transition));
        let effects = run::effects(&self.state, transition);
        self.sent.extend(effects.iter().cloned());
        self.history.push(transition.clone());
        self.check();
        Ok(Some(effects))
    }

    fn check(&mut self) {
        assert_eq!(self.loaded, self.state, "fold(evolve, events) == state");
        let snapshot = serde_json::to_string(&self.state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&snapshot).unwrap(), self.state);
        self.check_permits();
        assert!(
            self.state.is_closed() || self.state.last_turn() == self.state.status(),
            "every change of the status is kept: {:?}",
            self.state.turns
        );
        if self.history.first().is_some_and(|first| first.seq == 1) {
            let stored = |transition: &Transition| serde_json::to_string(&transition.events).unwrap().len() as u64;
            let bytes: u64 = self.history.iter().map(stored).sum();
            assert_eq!(self.state.usage(Limit::HistoryBytes).used, bytes);
        }
        if self.state.is_closed() {
            assert_eq!(
                self.state.wake_at().is_some(),
                self.state.mail.outbox.first_key_value().is_some()
            );
            assert_eq!(self.state.open_tasks().count(), 0);
        } else {
            let waits = self.state.waits_for_others() || self.state.status() == Status::Parked;
            let stuck = self.state.wake_at().is_none() && !waits;
            assert!(
                !stuck,
                "an open run waits for a deadline, an operator, a signal or another run: {:?}",
                self.state
            );
        }
    }

    /// What is limited is out with every permit that it needs; what is not out, and waits for none, has none.
    fn check_permits(&self) {
        let granted: std::collections::BTreeSet<_> =
            self.state.permits.values().map(|it| (it.direction, &it.step)).collect();
        for view in self.state.open_tasks() {
            let limits = view.execution.limits.as_deref().map_or(0, |limits| limits.of.len());
            let held = self.state.permits.values();
            let held = held
                .filter(|it| (it.direction, &it.step) == (view.direction, view.step))
                .count();
            let heard = self.state.tasks[view.open.task.0 as usize - 1].heard;
            if heard == crate::run::state::Heard::Nothing {
                assert_eq!(held, limits, "{} is out with {held} permits", view.step);
            } else {
                assert_eq!(held, 0);
            }
        }
        for (direction, step) in granted {
            let execution = &self.state.executions(direction)[step];
            let waits = matches!(execution.wait, crate::run::Wait::Task(_) | crate::run::Wait::Permit(_));
            assert!(waits || execution.deferred, "{step} keeps a permit it does not need");
            assert!(!self.state.is_closed());
        }
    }

    /// The same as [`Self::apply`], for inputs that must be taken.
    pub(crate) fn take(&mut self, input: Input) -> Vec<Effect> {
        self.apply(input).unwrap().expect("the input changes something")
    }

    pub(crate) fn ignores(&mut self, input: Input) {
        assert_eq!(self.apply(input), Ok(None));
    }

    pub(crate) fn later(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now.plus(Span::from_secs(seconds));
        self
    }

    /// The open task of a step, `do pay` or `undo pay`.
    pub(crate) fn task(&self, what: &str) -> TaskNo {
        let open = self
            .state
            .open_tasks()
            .find(|view| name(view.direction, view.step) == what);
        open.unwrap_or_else(|| panic!("{what} has no open task: {:?}", self.state))
            .open
            .task
    }

    pub(crate) fn end(&mut self, what: &str, outcome: TaskOutcome) -> Vec<Effect> {
        let task = self.task(what);
        self.take(Input::TaskEnded { task, outcome })
    }

    /// Completes with `{"id": "<step>-1"}`.
    pub(crate) fn complete(&mut self, what: &str) -> Vec<Effect> {
        let step = what.rsplit([' ', '.']).next().unwrap();
        self.end(what, done(json!({"id": format!("{step}-1")})))
    }

    pub(crate) fn fail(&mut self, what: &str) -> Vec<Effect> {
        self.end(what, failed("Refused"))
    }

    /// Wakes with every horizon at `now`.
    pub(crate) fn wake(&mut self) -> Option<Vec<Effect>> {
        let horizon = Horizon {
            log_read_to: self.now,
            delivered_to: BTreeMap::from([("main".into(), self.now)]),
            listening_since: Timestamp::default(),
        };
        self.apply(Input::Wake(horizon)).unwrap()
    }

    /// Moves time to the next deadline and wakes.
    pub(crate) fn wake_next(&mut self) -> Option<Vec<Effect>> {
        self.now = self.now.max(self.state.wake_at().expect("a deadline"));
        self.wake()
    }

    /// The worker takes the task and never answers.
    pub(crate) fn time_out(&mut self, what: &str) {
        let task = self.task(what);
        while self.state.is_open(task) {
            self.wake_next();
        }
    }

    pub(crate) fn signal(&mut self, name: &str, body: Value) -> Vec<Effect> {
        self.take(Input::Signal {
            name: name.into(),
            body: body.into(),
            operation: Operation::default(),
        })
    }

    /// Messages that are pending, oldest first.
    pub(crate) fn pending(&self) -> Vec<(MessageNo, Arc<Body>)> {
        let outbox = self.state.mail.outbox.iter();
        outbox
            .map(|(number, pending)| (*number, Arc::clone(&pending.body)))
            .collect()
    }

    /// Answers the oldest pending message.
    pub(crate) fn answered(&mut self, answer: Answer) -> Vec<Effect> {
        let number = self.pending().first().expect("a pending message").0;
        self.take(Input::MessageAnswered { number, answer })
    }

    /// The child of a step closes; every one of its messages has its own number.
    pub(crate) fn child_closed(&mut self, step: &str, status: Status) -> Vec<Effect> {
        let child = self.events().iter().rev().find_map(|event| match event {
            Event::MessageSent(sent) => match &*sent.body {
                Body::StartChild(start) if start.step.as_str() == step => Some(start.run_id),
                _ => None,
            },
            _ => None,
        });
        let child = child.expect("a child of that step");
        let failure = || Failure::new("ChildBroke", "no");
        self.take(Input::Message {
            from: Sender {
                run: child,
                namespace: "default".into(),
                workflow_id: format!("order-1/{step}").as_str().into(),
            },
            number: MessageNo(u32::try_from(self.history.len()).unwrap()),
            body: Body::ChildClosed(ChildClosed {
                child,
                step: step.into(),
                status,
                output: json!({"from": step}).into(),
                error: (status != Status::Completed).then(failure),
            }),
        })
    }

    pub(crate) fn operate(&mut self, step: &str, action: ParkedAction) -> Vec<Effect> {
        self.take(Input::Parked {
            direction: None,
            step: StepPath::new(step),
            action,
            operation: by("ann"),
        })
    }

    /// Everything dispatched so far: `do pay`, `undo pay`, with `#2` for later attempts.
    pub(crate) fn dispatched(&self) -> Vec<String> {
        dispatches(&self.sent)
    }

    pub(crate) fn undone(&self) -> Vec<String> {
        let all = self.dispatched();
        all.into_iter().filter(|what| what.starts_with("undo ")).collect()
    }

    pub(crate) fn last_dispatch(&self) -> &Dispatch {
        let dispatch = self.sent.iter().rev().find_map(|effect| match effect {
            Effect::Dispatch(dispatch) => Some(dispatch),
            _ => None,
        });
        dispatch.expect("something was dispatched")
    }

    pub(crate) fn events(&self) -> Vec<&Event> {
        self.history.iter().flat_map(|transition| &transition.events).collect()
    }

    pub(crate) fn last_events(&self) -> &[Event] {
        &self.history.last().unwrap().events
    }

    pub(crate) fn status(&self) -> Status {
        self.state.status()
    }
}

fn name(direction: Direction, step: &StepPath) -> String {
    format!("{} {step}", direction.as_str())
}

pub(crate) fn dispatches(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Dispatch(dispatch) => {
                let name = name(dispatch.direction, &dispatch.step);
                Some(if dispatch.attempt > 1 {
                    format!("{name}#{}", dispatch.attempt)
                } else {
                    name
                })
            }
            _ => None,
        })
        .collect()
}

/// As it comes back from storage.
fn stored(transition: &Transition) -> Transition {
    Transition::read(transition.seq, transition.at, transition.body().to_owned()).unwrap()
}

pub(crate) fn done(output: Value) -> TaskOutcome {
    TaskOutcome::Completed {
        output: Arc::new(output),
    }
}

pub(crate) fn error(error_type: &str) -> WorkerError {
    WorkerError {
        error_type: Arc::from(error_type),
        message: Arc::from("no"),
        retryable: true,
        not_done: false,
        retry_after: None,
    }
}

pub(crate) fn failed(error_type: &str) -> TaskOutcome {
    TaskOutcome::Failed(error(error_type))
}

pub(crate) fn unknown() -> TaskOutcome {
    TaskOutcome::Unknown(error("Crash"))
}

pub(crate) fn by(who: &str) -> Operation {
    Operation {
        by: Some(Arc::from(who)),
        ..Operation::default()
    }
}

pub(crate) fn request(id: &str) -> Operation {
    Operation {
        request_id: Some(id.into()),
        ..Operation::default()
    }
}

pub(crate) fn answer(to: &str, on: AnswerOn) -> AnswerRequest {
    AnswerRequest { to: Arc::from(to), on }
}
