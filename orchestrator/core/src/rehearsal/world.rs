//! The world around a run: what comes to it, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::compare;
use super::record::{Record, task_name};
use super::report::{CaseReport, Deviation};
use super::workers;
use crate::definition::plan::Plan;
use crate::definition::test_file::{Case, External, ExternalKind, Outcome, code};
use crate::ids::{MessageNo, RunId, StepPath, TaskNo, WorkflowId};
use crate::run::effect::{Dispatch, Effect};
use crate::run::input::{Beat, Horizon, Input, Operation, ParkedAction, Start, TaskOutcome, Terms};
use crate::run::message::{Answer, Body, ChildClosed, Sender, StartChild};
use crate::run::{self, QueueLimits, State, Transition};
use crate::time::{Span, Timestamp};

/// Things that happen in one case.
const MAX_HAPPENINGS: usize = 20_000;
const RUN: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));

/// The history of a case, of the last attempt of its run; empty where the run was never started.
pub fn history(plan: &Plan, case: &Case) -> Vec<Transition> {
    World::begin(plan, case).map_or_else(
        |_| Vec::new(),
        |mut world| {
            world.run();
            world.history
        },
    )
}

/// Plays one case to the moment from which nothing happens any more.
pub fn play(plan: &Plan, case: &Case) -> CaseReport {
    match World::begin(plan, case) {
        Ok(mut world) => {
            world.run();
            let took = world.now.since(case.start);
            let mut deviations = world.problems;
            deviations.extend(compare::deviations(
                &case.expect,
                (plan, &world.state),
                &world.record,
                took,
            ));
            CaseReport {
                name: case.name.clone(),
                passed: deviations.is_empty(),
                status: Some(world.state.status()),
                took_ms: took.as_millis(),
                deviations,
                happened: world.record.happened,
            }
        }
        Err(rejection) => {
            let deviations: Vec<_> = compare::rejected(case, &rejection).into_iter().collect();
            CaseReport {
                name: case.name.clone(),
                passed: deviations.is_empty(),
                status: None,
                took_ms: 0,
                deviations,
                happened: Vec::new(),
            }
        }
    }
}

/// On its way to the run.
pub(super) enum Delivery<'c> {
    Outcome(TaskNo, TaskOutcome),
    /// Its queue gives a task back, unless a worker has it.
    Withdrawn(TaskNo),
    Answer(MessageNo, Answer),
    Child(Sender, ChildClosed),
    External(&'c External),
}

pub(super) struct World<'c> {
    plan: &'c Plan,
    pub(super) case: &'c Case,
    state: State,
    now: Timestamp,
    /// By the time of their coming, then by the order in which they were sent.
    pub(super) coming: BTreeMap<(Timestamp, u64), Delivery<'c>>,
    sent: u64,
    /// How often something was called, by name.
    calls: BTreeMap<String, usize>,
    pub(super) children: BTreeMap<RunId, StartChild>,
    /// As they were given out.
    dispatched: BTreeMap<TaskNo, Dispatch>,
    /// Tasks that lie in their queue for good.
    not_taken: BTreeSet<TaskNo>,
    record: Record,
    history: Vec<Transition>,
    problems: Vec<Deviation>,
}

/// As in a cluster of this version.
fn started(plan: &Plan, start: Start, at: Timestamp) -> Result<(State, Transition), String> {
    let terms = Terms {
        withdraws: true,
        ..Terms::default()
    };
    run::start_within(terms, plan, start, at, &QueueLimits::new()).map_err(|rejected| rejected.to_string())
}

impl<'c> World<'c> {
    fn begin(plan: &'c Plan, case: &'c Case) -> Result<Self, String> {
        let start = Start {
            run_id: RUN,
            namespace: "default".into(),
            workflow_id: workflow_id(plan, &case.input)?,
            input: Arc::clone(&case.input),
            request_id: None,
            search_attributes: BTreeMap::new(),
            answer: None,
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            begins_at: None,
            continues: None,
        };
        let (state, transition) = started(plan, start, case.start)?;
        let mut world = Self {
            plan,
            case,
            now: case.start,
            coming: BTreeMap::new(),
            sent: 0,
            calls: BTreeMap::new(),
            children: BTreeMap::new(),
            dispatched: BTreeMap::new(),
            not_taken: BTreeSet::new(),
            record: Record::from(case.start),
            history: Vec::new(),
            problems: Vec::new(),
            state,
        };
        for event in &case.events {
            world.send(event.at, Delivery::External(event));
        }
        world.took(&transition);
        Ok(world)
    }

    fn run(&mut self) {
        for _ in 0..MAX_HAPPENINGS {
            let again = self.state.retried_by().and_then(|_| self.state.successor());
            if let Some(start) = again {
                self.begin_again(start);
                continue;
            }
            if self.state.is_closed() || self.problems.iter().any(|problem| problem.code == code::NO_MOCK.code) {
                return;
            }
            let next = self.coming.first_key_value().map(|((at, _), _)| *at);
            match (next, self.state.wake_at()) {
                (None, None) => return,
                // What a worker says in time is not late.
                (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                    self.now = self.now.max(at);
                    if let Some((_, delivery)) = self.coming.pop_first() {
                        self.deliver(delivery);
                    }
                }
                (_, Some(wake)) => {
                    self.now = self.now.max(wake);
                    if !self.wake() {
                        return;
                    }
                }
                (Some(_), None) => return,
            }
        }
        let what = format!("it has not ended after {MAX_HAPPENINGS} things that happened");
        self.problem(code::ENDLESS, what);
    }

    /// The run is tried again. What is on its way to the attempt before comes to nothing, but for what comes from outside.
    fn begin_again(&mut self, start: Start) {
        match started(self.plan, start, self.now) {
            Ok((state, transition)) => {
                self.state = state;
                self.history.clear();
                self.dispatched.clear();
                self.coming
                    .retain(|_, delivery| matches!(delivery, Delivery::External(_)));
                self.children.clear();
                self.not_taken.clear();
                self.record.again();
                self.took(&transition);
            }
            Err(rejected) => self.problem(code::NOT_AS_EXPECTED, format!("an attempt is refused: {rejected}")),
        }
    }

    pub(super) fn send(&mut self, after: Span, delivery: Delivery<'c>) {
        self.sent += 1;
        self.coming.insert((self.now.plus(after), self.sent), delivery);
    }

    pub(super) fn problem(&mut self, code: crate::definition::code::Code, what: impl Into<String>) {
        self.problems.push(Deviation::new(code, &self.case.place, what));
    }

    /// How often this was called before.
    pub(super) fn call(&mut self, name: String) -> usize {
        let calls = self.calls.entry(name).or_default();
        *calls += 1;
        *calls - 1
    }

    fn deliver(&mut self, delivery: Delivery<'c>) {
        match delivery {
            Delivery::Outcome(task, outcome) => self.apply(Input::TaskEnded { task, outcome }),
            Delivery::Withdrawn(task) => {
                let withdrawn = self.not_taken.contains(&task);
                self.apply(Input::Withdrawn { task, withdrawn });
            }
            Delivery::Answer(number, answer) => self.apply(Input::MessageAnswered { number, answer }),
            Delivery::Child(from, closed) => {
                let number = self.call(format!("messages of {}", from.run));
                self.apply(Input::Message {
                    from,
                    number: MessageNo(u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1)),
                    body: Body::ChildClosed(closed),
                });
            }
            Delivery::External(event) => {
                let number = self.call("from outside".to_owned());
                self.apply(external(&event.kind, number));
            }
        }
    }

    fn apply(&mut self, input: Input) {
        match run::apply(self.plan, &mut self.state, input, self.now) {
            Ok(Some(transition)) => self.took(&transition),
            Ok(None) => {}
            Err(rejected) => {
                let after = crate::definition::duration::format(self.now.since(self.case.start));
                self.problem(
                    code::NOT_AS_EXPECTED,
                    format!("what comes after {after} is refused: {rejected}"),
                );
            }
        }
    }

    /// Whether that changed anything. Workers took their tasks when they were given out.
    fn wake(&mut self) -> bool {
        let before = self.state.seq();
        let overdue: Vec<_> = self
            .state
            .open_tasks()
            .filter(|view| view.execution.due() <= self.now && !self.not_taken.contains(&view.open.task))
            .map(|view| (view.open.task, view.open.opened_at))
            .collect();
        for (task, began) in overdue {
            let answers = |delivery: &Delivery<'_>| matches!(delivery, Delivery::Outcome(of, _) if *of == task);
            // Who is going to answer is at work until then, and says so.
            if self.coming.values().any(answers) {
                let (at, details) = (self.now, None);
                let beat = Beat { began, at, details };
                self.apply(Input::Heartbeat { task, beat });
            } else {
                self.apply(Input::TaskStarted { task, at: began });
            }
        }
        let not_taken = self
            .state
            .open_tasks()
            .filter(|view| self.not_taken.contains(&view.open.task));
        self.apply(Input::Wake(Horizon {
            log_read_to: self.now,
            delivered_to: not_taken
                .map(|view| (view.execution.queue.clone(), Timestamp(i64::MIN)))
                .collect(),
            listening_since: Timestamp::default(),
            heard: Default::default(),
        }));
        self.state.seq() > before
    }

    fn took(&mut self, transition: &Transition) {
        self.history.push(transition.clone());
        self.record.transition(transition);
        for effect in run::effects(&self.state, transition) {
            self.record.effect(&effect);
            match effect {
                Effect::Dispatch(dispatch) => self.dispatched(&dispatch),
                Effect::CancelTask { task, .. } => self.asked_to_stop(task),
                Effect::Withdraw { task, .. } => self.send(Span::ZERO, Delivery::Withdrawn(task)),
                Effect::Send { number, to, body } => self.message(number, to, &body),
                Effect::Emit { .. }
                | Effect::Answer { .. }
                | Effect::AnswerUpdate { .. }
                | Effect::AnswerMessage { .. }
                | Effect::Continue => {}
            }
        }
    }

    fn dispatched(&mut self, dispatch: &Dispatch) {
        self.dispatched.insert(dispatch.task, dispatch.clone());
        let name = task_name(dispatch.direction, &dispatch.step);
        let call = self.call(name.clone());
        let Some(mock) = workers::mock(self.case, dispatch, call) else {
            // An undo that nobody says anything about goes well.
            if dispatch.direction == crate::run::effect::Direction::Undo {
                let outcome = TaskOutcome::Completed { output: Arc::default() };
                return self.send(Span::ZERO, Delivery::Outcome(dispatch.task, outcome));
            }
            let what = format!("`{name}` calls `{}`, for which there is no mock", dispatch.activity);
            return self.problem(code::NO_MOCK, what);
        };
        match workers::outcome(mock, dispatch) {
            Ok(Some(outcome)) => self.send(mock.after, Delivery::Outcome(dispatch.task, outcome)),
            Ok(None) if matches!(mock.outcome, Outcome::NotTaken) && !self.may_end_in_its_queue(dispatch.task) => {
                let what = format!("`{name}` is not taken, and nothing says how long it may wait");
                self.problem(code::NO_MOCK, what);
            }
            Ok(None) => {
                if matches!(mock.outcome, Outcome::NotTaken) {
                    self.not_taken.insert(dispatch.task);
                }
            }
            Err(problem) => self.problem(code::NO_MOCK, format!("`{name}`: {problem}")),
        }
    }

    /// Whether something says how long nobody may take it.
    fn may_end_in_its_queue(&self, task: TaskNo) -> bool {
        let mut open = self.state.open_tasks().filter(|view| view.open.task == task);
        open.any(|view| view.open.start_by.is_some() || view.execution.close_by.is_some())
    }

    fn asked_to_stop(&mut self, task: TaskNo) {
        let Some(view) = self.state.open_tasks().find(|view| view.open.task == task) else {
            return;
        };
        let name = task_name(view.direction, view.step);
        let dispatch = self.dispatched.get(&task);
        let calls = self.calls.get(&name).copied().unwrap_or(1);
        let stops = dispatch
            .and_then(|dispatch| workers::mock(self.case, dispatch, calls - 1))
            .is_some_and(|mock| mock.stops);
        if stops {
            self.coming
                .retain(|_, delivery| !matches!(delivery, Delivery::Outcome(other, _) if *other == task));
            self.send(Span::ZERO, Delivery::Outcome(task, TaskOutcome::Cancelled));
        }
    }
}

fn external(kind: &ExternalKind, number: usize) -> Input {
    let because = |reason: &Option<String>| Operation {
        reason: reason.as_deref().map(Arc::from),
        ..Operation::default()
    };
    let parked = |step: &str, action| Input::Parked {
        direction: None,
        step: StepPath::new(step),
        action,
        operation: Operation::default(),
    };
    match kind {
        ExternalKind::Signal { name, body } => Input::Signal {
            name: Arc::from(name.as_str()),
            body: Arc::clone(body),
            operation: Operation::default(),
        },
        ExternalKind::Update { name, body } => Input::Update {
            name: Arc::from(name.as_str()),
            body: Arc::clone(body),
            operation: Operation {
                request_id: Some(format!("update-{number}").as_str().into()),
                ..Operation::default()
            },
            answer: None,
        },
        ExternalKind::Cancel { reason } => Input::Cancel(because(reason)),
        ExternalKind::Terminate { reason } => Input::Terminate(because(reason)),
        ExternalKind::Retry { step, input: None } => parked(step, ParkedAction::Retry),
        ExternalKind::Retry {
            step,
            input: Some(input),
        } => parked(step, ParkedAction::RetryWithInput(Arc::clone(input))),
        ExternalKind::Skip { step } => parked(step, ParkedAction::Skip),
        ExternalKind::MarkDone { step } => parked(step, ParkedAction::MarkDone),
    }
}

/// As an un-keyed start would get it.
fn workflow_id(plan: &Plan, input: &Arc<Value>) -> Result<WorkflowId, String> {
    let Some(id) = &plan.id else {
        return Ok("test".into());
    };
    let value = workers::result(id, input, Value::Null).map_err(|error| format!("`id`: {error}"))?;
    match &*value {
        Value::String(id) if !id.is_empty() => Ok(WorkflowId::new(id)),
        Value::Number(number) => Ok(WorkflowId::new(&number.to_string())),
        _ => Err("`id` is neither a text nor a number".to_owned()),
    }
}
