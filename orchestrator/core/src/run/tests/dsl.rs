//! Plans and runs in a few words, for tests. Every transition is checked against the invariants that need no scenario.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::definition::plan::{
    Activity, Call, InputSchema, Node, NodeId, NodeKind, OnFailure, Plan, RetryPolicy, Undo,
};
use crate::expression::{Expression, Template};
use crate::ids::{DefinitionHash, RunId, StepPath, TaskNo};
use crate::run::effect::{Direction, Dispatch, Effect};
use crate::run::input::{
    AnswerOn, AnswerRequest, Horizon, Input, Operation, ParkedAction, Rejected, Start, TaskOutcome, WorkerError,
};
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
    },
    Set(Vec<(String, Value)>),
    Sequence(Vec<Def>),
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
        },
    }
}

pub(crate) fn set(name: &str, assignments: &[(&str, Value)]) -> Def {
    let assignments = assignments
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    Def {
        name: name.to_owned(),
        condition: None,
        kind: DefKind::Set(assignments),
    }
}

pub(crate) fn seq(name: &str, children: Vec<Def>) -> Def {
    Def {
        name: name.to_owned(),
        condition: None,
        kind: DefKind::Sequence(children),
    }
}

macro_rules! with {
    ($($method:ident($value:ident: $type:ty) => $field:ident = $expr:expr;)*) => {
        impl Def {
            $(pub(crate) fn $method(mut self, $value: $type) -> Self {
                if let DefKind::Activity { $field, .. } = &mut self.kind {
                    *$field = $expr;
                }
                self
            })*
        }
    };
}

with! {
    input(value: Value) => input = Some(value);
    undo(value: UndoDef) => undo = value;
    undo_input(value: Value) => undo = UndoDef::Input(Some(value));
    attempts(value: Option<u32>) => attempts = value;
    undo_attempts(value: u32) => undo_attempts = Some(value);
    non_retryable(value: &str) => non_retryable = vec![value.to_owned()];
    on_failure(value: OnFailure) => on_failure = value;
    compensate_on_failure(value: bool) => compensate_on_failure = value;
    start_to_close(value: Span) => start_to_close = value;
}

impl Def {
    pub(crate) fn when(mut self, condition: &str) -> Self {
        self.condition = Some(condition.to_owned());
        self
    }
}

fn template(value: &Value) -> Template {
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
        DefKind::Activity {
            input,
            undo,
            attempts,
            undo_attempts,
            non_retryable,
            on_failure,
            compensate_on_failure,
            start_to_close,
        } => {
            let call = |activity: String, input: &Option<Value>, attempts| Call {
                activity: activity.as_str().into(),
                queue: "main".into(),
                input: input.as_ref().map(template),
                start_to_close: *start_to_close,
                retry: retry(attempts, non_retryable),
            };
            NodeKind::Activity(Box::new(Activity {
                call: call(format!("do-{}", def.name), input, *attempts),
                undo: match undo {
                    UndoDef::Input(input) => {
                        Undo::Compensate(call(format!("undo-{}", def.name), input, *undo_attempts))
                    }
                    UndoDef::ReadOnly => Undo::ReadOnly,
                    UndoDef::NoUndo => Undo::None {
                        reason: Arc::from("it cannot be"),
                    },
                },
                on_failure: *on_failure,
                compensate_on_failure: *compensate_on_failure,
                pivot: false,
            }))
        }
    };
    nodes[id.0].kind = kind;
    id
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
    }
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
        let now = Timestamp(1_000_000_000);
        let (state, transition) = run::start(&plan, start, now)?;
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
        if self.state.is_closed() {
            assert_eq!(
                self.state.wake_at().is_some(),
                self.state.mail.outbox.first_key_value().is_some()
            );
            assert_eq!(self.state.open_tasks().count(), 0);
        } else {
            let stuck = self.state.wake_at().is_none() && self.state.status() != Status::Parked;
            assert!(
                !stuck,
                "an open run waits for a deadline or an operator: {:?}",
                self.state
            );
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

    pub(crate) fn operate(&mut self, step: &str, action: ParkedAction) -> Vec<Effect> {
        self.take(Input::Parked {
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
    let body = serde_json::to_string(&transition.events).unwrap();
    Transition {
        events: serde_json::from_str(&body).unwrap(),
        ..transition.clone()
    }
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
