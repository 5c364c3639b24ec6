//! A run, driven by hand and held against the invariants that need no scenario after every transition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::def::Def;
use super::plan::plan;
use crate::definition::plan::Plan;
use crate::ids::{MessageNo, RunId, StepPath, TaskNo};
use crate::run::effect::{Direction, Dispatch, Effect};
use crate::run::failure::Failure;
use crate::run::input::{
    AnswerOn, AnswerRequest, Horizon, Input, Operation, ParkedAction, Rejected, Start, TaskOutcome, Terms, WorkerError,
};
use crate::run::limits::{Limit, RunLimits};
use crate::run::message::{Answer, Body, ChildClosed, Sender};
use crate::run::{self, Event, State, Status, Transition};
use crate::time::{Span, Timestamp};

pub(crate) const RUN: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));

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
        begins_at: None,
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
        let withdraws = false;
        Self::under(Terms { limits, withdraws }, plan, start)
    }

    pub(crate) fn under(terms: Terms, plan: Plan, start: Start) -> Result<Self, Rejected> {
        Self::began(terms, plan, start, Timestamp(1_000_000_000))
    }

    /// The run that goes on in the place of this one, a second after it has closed.
    pub(crate) fn successor(mut self) -> Self {
        self.later(1);
        let start = self.state.successor().expect("another run goes on");
        Self::began(Terms::default(), self.plan, start, self.now).unwrap()
    }

    fn began(terms: Terms, plan: Plan, start: Start, now: Timestamp) -> Result<Self, Rejected> {
        let (state, transition) = run::start_within(terms, &plan, start, now, &crate::run::permit::UNLIMITED)?;
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
            let waits = self.state.waits_for_others(&self.plan) || self.state.status() == Status::Parked;
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
            heard: Default::default(),
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
