//! Runs and their children, over a log that loses, repeats and reorders what they say to each other; workers, operators,
//! callers and clocks. The shell here is what [`crate::run::message`] asks of one, and no more.

use std::sync::Arc;

use serde_json::{Value, json};

use super::case::Op;
use super::limiters::Limiters;
use super::watched::{Played, Watched, full_wake};
use crate::definition::plan::Plan;
use crate::ids::{MessageNo, RunId, StepPath, TaskNo, WorkflowId};
use crate::limit::Grant;
use crate::run::effect::Effect;
use crate::run::input::{
    AnswerOn, AnswerRequest, Beat, Horizon, Input, Operation, ParkedAction, Start, TaskOutcome, WorkerError,
};
use crate::run::limits::RunLimits;
use crate::run::message::{Answer, Body, ChildClosed, Recipient, Refusal, Sender, StartChild, child_start};
use crate::run::migrate::Target;
use crate::run::{Status, UndoState, UpdateAnswer, UpdateStage};
use crate::time::{Span, Timestamp};

/// What is on its way.
#[derive(Debug, Clone)]
enum Parcel {
    Message(Sender, MessageNo, Recipient, Arc<Body>),
    Answer(Sender, MessageNo, Answer),
    /// A task is to be taken out of its queue.
    Withdrawal(RunId, TaskNo),
}

/// How gentle fate is with the runs of a case.
#[derive(Debug, Clone, Copy)]
struct Temper {
    /// Of so many outcomes one is not a success.
    fails_in: u32,
    loses: bool,
    operators: bool,
    /// Small ones, that a run of a few steps reaches.
    limits: RunLimits,
}

#[derive(Debug)]
pub(super) struct World<'p> {
    plans: &'p [Played],
    pub(super) runs: Vec<Watched<'p>>,
    log: Vec<Parcel>,
    limiters: Limiters,
    now: Timestamp,
    /// New runs are refused, as where the definition is not known yet.
    refusing: bool,
    temper: Temper,
    last: Option<(usize, Input)>,
    strangers: u32,
    pub(super) inputs: u64,
}

const BEGINNING: Timestamp = Timestamp(1_000_000_000);

impl<'p> World<'p> {
    pub(super) fn new(plans: &'p [Played], temper: u32) -> Self {
        Self {
            plans,
            runs: Vec::new(),
            log: Vec::new(),
            limiters: Limiters::new(plans),
            now: BEGINNING,
            refusing: false,
            temper: Temper {
                fails_in: [1_000, 12, 5, 2][temper as usize % 4],
                loses: temper & 4 > 0,
                operators: temper & 8 > 0,
                limits: limits(temper / 16),
            },
            last: None,
            strangers: 0,
            inputs: 0,
        }
    }

    /// Starts a run of the first definition, like somebody outside.
    pub(super) fn begin(&mut self, which: u32) {
        let number = u128::from(u32::try_from(self.runs.len()).unwrap()) << 32 | u128::from(which);
        let start = Start {
            run_id: RunId(uuid::Uuid::from_u128(
                0x0190_0000_0000_7000_8000_0000_0000_0000 | number,
            )),
            namespace: "default".into(),
            workflow_id: format!("root-{}", self.runs.len()).as_str().into(),
            input: Arc::new(input(which)),
            request_id: None,
            search_attributes: [].into(),
            answer: (which & 1 > 0).then(|| AnswerRequest {
                to: "inbox".into(),
                on: AnswerOn::Closed,
            }),
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            continues: None,
        };
        self.open(&self.plans[0], start);
    }

    fn open(&mut self, played: &'p Played, start: Start) -> bool {
        self.inputs += 1;
        let queues = &self.limiters.queues;
        let Ok((run, effects)) = Watched::start((played, self.plans), start, self.temper.limits, queues, self.now)
        else {
            return false;
        };
        self.runs.push(run);
        self.publish(self.runs.len() - 1, effects);
        true
    }

    fn publish(&mut self, index: usize, effects: Vec<Effect>) {
        if effects.iter().any(|effect| matches!(effect, Effect::Dispatch(_))) {
            self.limiters.check(self.runs.iter().map(|run| &run.state));
        }
        for effect in effects {
            match effect {
                Effect::Send { number, to, body } => {
                    let sender = self.runs[index].sender();
                    self.log.push(Parcel::Message(sender, number, to, body));
                }
                Effect::AnswerMessage { to, number, answer } => self.log.push(Parcel::Answer(to, number, answer)),
                Effect::Continue => self.succeed(index),
                Effect::Withdraw { task, .. } => {
                    let run = self.runs[index].run_id();
                    self.log.push(Parcel::Withdrawal(run, task));
                }
                Effect::Dispatch(_)
                | Effect::CancelTask { .. }
                | Effect::Answer { .. }
                | Effect::AnswerUpdate { .. }
                | Effect::Emit { .. } => {}
            }
        }
    }

    fn succeed(&mut self, index: usize) {
        let run = &self.runs[index];
        let start = run.state.successor().expect("a run that goes on has a successor");
        if self.find(start.run_id).is_none() {
            let taken = self.open(run.played, start);
            assert!(taken, "nothing can reject a successor");
        }
    }

    fn find(&self, run: RunId) -> Option<usize> {
        self.runs.iter().position(|it| it.run_id() == run)
    }

    fn apply(&mut self, index: usize, input: Input) -> bool {
        self.inputs += 1;
        self.last = Some((index, input.clone()));
        let effects = self.runs[index].apply(input, &self.limiters.queues, self.now);
        let changed = effects.is_some();
        self.publish(index, effects.unwrap_or_default());
        changed
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Answer(to, number, answer) => {
                if let Some(index) = self.find(to.run) {
                    self.apply(index, Input::MessageAnswered { number, answer });
                }
            }
            Parcel::Withdrawal(run, task) => {
                if let Some(index) = self.find(run) {
                    // Its queue has it still, or not, whatever a worker says of it later.
                    let withdrawn = (run.0.as_u128() as u32 ^ task.0).is_multiple_of(2);
                    self.apply(index, Input::Withdrawn { task, withdrawn });
                }
            }
            Parcel::Message(from, number, to, body) => self.receive(from, number, &to, &body),
        }
    }

    fn receive(&mut self, from: Sender, number: MessageNo, to: &Recipient, body: &Arc<Body>) {
        if let Body::Ask(_) | Body::Release { .. } = **body {
            let granted = self.limiters.receive(&from, number, body, self.now);
            self.granted(granted);
            if let Body::Release { .. } = **body {
                self.log.push(Parcel::Answer(from, number, Answer::Accepted));
            }
            return;
        }
        let answer = match (self.receiver(&from, number, to), &**body) {
            (Some(index), body) => {
                let input = Input::Message {
                    from: from.clone(),
                    number,
                    body: body.clone(),
                };
                if self.apply(index, input) {
                    return;
                }
                self.runs[index].state.answer_to(from.run, number)
            }
            (None, Body::StartChild(start)) => self.start_child(&from, number, &to.workflow_id, start),
            (None, _) => Some(Answer::refused(Refusal::NoRun, "there is no such run")),
        };
        if let Some(answer) = answer {
            self.log.push(Parcel::Answer(from, number, answer));
        }
    }

    fn granted(&mut self, granted: Vec<Grant>) {
        for grant in granted {
            let answer = Answer::Granted {
                limit: grant.limit,
                at: grant.at,
            };
            self.log.push(Parcel::Answer(grant.to, grant.number, answer));
        }
    }

    fn wake_limiters(&mut self) {
        let granted = self.limiters.wake(self.now);
        self.granted(granted);
    }

    /// The run that a message is for, or who has gone on in its place.
    fn receiver(&self, from: &Sender, number: MessageNo, to: &Recipient) -> Option<usize> {
        let mut index = match to.run {
            Some(run) => self.find(run)?,
            None => self
                .runs
                .iter()
                .rposition(|it| *it.state.workflow_id() == to.workflow_id)?,
        };
        loop {
            let state = &self.runs[index].state;
            if state.status() != Status::ContinuedAsNew || state.answer_to(from.run, number).is_some() {
                return Some(index);
            }
            index = self.find(state.successor()?.run_id)?;
        }
    }

    fn start_child(
        &mut self,
        from: &Sender,
        number: MessageNo,
        workflow_id: &WorkflowId,
        start: &StartChild,
    ) -> Option<Answer> {
        let plan = |played: &&Played| played.plan.workflow == start.workflow;
        let Some(played) = self.plans.iter().find(plan).filter(|_| !self.refusing) else {
            return Some(Answer::refused(Refusal::UnknownWorkflow, "there is none"));
        };
        let taken = |it: &Watched<'_>| it.state.workflow_id() == workflow_id && it.state.holds_workflow_id();
        if self.runs.iter().any(taken) {
            return Some(Answer::refused(Refusal::IdTaken, "it is open"));
        }
        let start = child_start(from, number, workflow_id, start);
        let started = self.open(played, start);
        (!started).then(|| Answer::refused(Refusal::NotStarted, "no"))
    }

    /// Something happens.
    pub(super) fn step(&mut self, op: Op) {
        let Op([what, who, which, how]) = op;
        self.now = self.now.plus(Span::from_millis(u64::from(how % 50)));
        let index = self.whom(who);
        match what % 64 {
            0..=17 => self.parcel(which, how),
            18..=34 => {
                let count = self.runs[index].state.open_tasks().count();
                if count > 0 {
                    let task = self.runs[index].state.open_tasks().nth(which as usize % count);
                    let task = task.unwrap().open.task;
                    self.ended(index, task, how);
                }
            }
            35..=38 => {
                if let Some(task) = self.any_task(index, which) {
                    self.ended(index, task, how);
                }
            }
            39..=42 => self.about_task(index, what, which, how),
            43..=45 => self.wake_partly(index, which, how),
            46..=51 => {
                self.wake_limiters();
                if let Some(at) = self.runs[index].state.wake_at() {
                    self.now = self.now.max(at);
                    self.apply(index, full_wake(self.now));
                }
            }
            52 => self.signal(index, which, how),
            53 if how.is_multiple_of(2) => self.signal(index, which, how),
            53 => self.update(index, which, how),
            54..=58 if self.temper.operators => self.operator(index, what, which, how),
            59 => self.stranger(index, which, how),
            60 => {
                self.limiters.reload();
                let effects = self.runs[index].restart(which.is_multiple_of(2));
                self.publish(index, effects);
            }
            61 => self.repeat(),
            62 => match how % 4 {
                0 => self.refusing = which.is_multiple_of(2),
                1 if self.runs.len() < 20 => self.begin(which),
                2 if self.temper.operators => {
                    let most = (!which.is_multiple_of(3)).then_some(1 + which % 4);
                    let queue = if which.is_multiple_of(2) { "main" } else { "other" };
                    let granted = self.limiters.limit_queue(queue, most, self.now);
                    self.granted(granted);
                }
                _ => {}
            },
            // The clock leaps ahead; an input may still have an earlier time, of another replica's clock.
            63 => match how % 4 {
                0 => self.now = self.now.plus(Span::from_secs(u64::from(which) * 3_600)),
                _ => {
                    let now = self.now;
                    self.now = Timestamp(now.0 - i64::from(which % 1_000) * 100_000);
                    self.apply(index, full_wake(now));
                    self.now = now;
                }
            },
            _ => {}
        }
    }

    /// More often one that is open.
    fn whom(&self, who: u32) -> usize {
        let count = self.runs.len();
        let first = who as usize % count;
        if who.is_multiple_of(4) {
            return first;
        }
        let mut around = (0..count).map(|more| (first + more) % count);
        around
            .find(|index| !self.runs[*index].state.is_closed())
            .unwrap_or(first)
    }

    /// Out of order, once or several times, or never.
    fn parcel(&mut self, which: u32, how: u32) {
        if self.log.is_empty() {
            return;
        }
        let at = if self.temper.loses {
            which as usize % self.log.len()
        } else {
            0
        };
        let parcel = match how % 4 {
            0 if self.temper.loses => self.log[at].clone(),
            _ => self.log.remove(at),
        };
        // A grant is owed by the commit of its limiter until the log has it; what was asked for twice has nobody who asks again.
        let is_grant = matches!(parcel, Parcel::Answer(_, _, Answer::Granted { .. }));
        if how % 8 != 1 || !self.temper.loses || is_grant {
            self.deliver(parcel);
        }
    }

    fn open_task(&self, index: usize) -> Option<TaskNo> {
        self.runs[index].state.open_tasks().map(|view| view.open.task).next()
    }

    /// Any there ever was.
    fn any_task(&self, index: usize, which: u32) -> Option<TaskNo> {
        let state = &self.runs[index].state;
        let most = state.tasks_given();
        (most > 0).then(|| TaskNo(which % most + 1))
    }

    fn ended(&mut self, index: usize, task: TaskNo, how: u32) {
        let error = |error_type: &str| WorkerError {
            error_type: error_type.into(),
            message: "no".into(),
            retryable: true,
            not_done: false,
            retry_after: None,
        };
        let refused = if how & 1 > 0 { "Refused" } else { "Other" };
        let outcome = if how % self.temper.fails_in == self.temper.fails_in - 1 {
            match (how / self.temper.fails_in) % 9 {
                0..=2 => TaskOutcome::Failed(error(refused)),
                3 => TaskOutcome::Failed(WorkerError {
                    retryable: false,
                    ..error(refused)
                }),
                4 => TaskOutcome::Failed(WorkerError {
                    not_done: true,
                    ..error(refused)
                }),
                5 => TaskOutcome::Unknown(error("Crash")),
                6 => TaskOutcome::Cancelled,
                7 => TaskOutcome::RetryLater { after: None },
                _ => TaskOutcome::Failed(WorkerError {
                    retry_after: Some(Span::from_secs(u64::from(how % 100))),
                    ..error(refused)
                }),
            }
        } else {
            done(task)
        };
        self.apply(index, Input::TaskEnded { task, outcome });
    }

    fn about_task(&mut self, index: usize, what: u32, which: u32, how: u32) {
        let open = self.runs[index].state.open_tasks();
        let open = open.map(|view| view.open.task).nth(which as usize % 4);
        let Some(task) = open.or_else(|| self.any_task(index, which)) else {
            return;
        };
        let input = match what % 4 {
            0 if how.is_multiple_of(2) => Input::TaskLost { task },
            0 | 1 => Input::DispatchHeld {
                task,
                in_doubt: how.is_multiple_of(2),
            },
            _ => {
                self.now = self.now.plus(Span::from_secs(u64::from(how % 8)));
                let earlier = |secs: u32| Timestamp(self.now.0 - i64::from(secs) * 1_000_000);
                match how / 8 % 8 {
                    0 => Input::WorkerSilent { task },
                    1 => Input::TaskLeft { task },
                    2 => Input::TaskClaimed {
                        task,
                        by: ["one", "another"][which as usize % 2].into(),
                    },
                    3..=5 => Input::Heartbeat {
                        task,
                        beat: Beat {
                            began: earlier(which % 10),
                            at: earlier(which % 4),
                            details: (!which.is_multiple_of(3)).then(|| Arc::new(json!(which % 5))),
                        },
                    },
                    _ => Input::TaskStarted {
                        task,
                        at: earlier(which % 10),
                    },
                }
            }
        };
        self.apply(index, input);
    }

    fn wake_partly(&mut self, index: usize, which: u32, how: u32) {
        self.now = self.now.plus(Span::from_secs(u64::from(which % 30)));
        let behind = Timestamp(self.now.0 - i64::from(how % 20) * 1_000_000);
        let delivered = ["main", "other"].into_iter().take(how as usize % 3);
        let horizon = Horizon {
            log_read_to: behind,
            delivered_to: delivered.map(|queue| (queue.into(), behind)).collect(),
            listening_since: behind,
        };
        self.apply(index, Input::Wake(horizon));
    }

    fn signal(&mut self, index: usize, which: u32, how: u32) {
        let operation = Operation {
            request_id: (how.is_multiple_of(2)).then(|| format!("signal-{}", which % 8).as_str().into()),
            ..Operation::default()
        };
        let input = Input::Signal {
            name: if how.is_multiple_of(7) {
                "stop".into()
            } else {
                "go".into()
            },
            body: Arc::new(json!(i64::from(which % 4) - 1)),
            operation,
        };
        self.apply(index, input);
    }

    fn update(&mut self, index: usize, which: u32, how: u32) {
        let on = match how % 3 {
            0 => None,
            1 => Some(UpdateStage::Accepted),
            _ => Some(UpdateStage::Completed),
        };
        let input = Input::Update {
            name: "change".into(),
            body: Arc::new(json!(i64::from(which % 4) - 1)),
            operation: Operation {
                request_id: Some(format!("update-{}", which % 6).as_str().into()),
                ..Operation::default()
            },
            answer: on.map(|on| UpdateAnswer {
                to: format!("inbox-{}", how % 5).as_str().into(),
                on,
            }),
        };
        self.apply(index, input);
    }

    fn operator(&mut self, index: usize, what: u32, which: u32, how: u32) {
        let request = |verb: &str| Operation {
            request_id: (how.is_multiple_of(2)).then(|| format!("{verb}-{}", which % 4).as_str().into()),
            by: Some("ann".into()),
            reason: None,
        };
        let input = match what % 64 {
            54 if how.is_multiple_of(3) => Input::Cancel(request("cancel")),
            54 => Input::Await(AnswerRequest {
                to: "inbox".into(),
                on: if which.is_multiple_of(2) {
                    AnswerOn::Started
                } else {
                    AnswerOn::Closed
                },
            }),
            56 if how.is_multiple_of(3) => Input::RaiseLimits {
                limits: RunLimits {
                    events: Some(30 + which % 300),
                    history_bytes: None,
                    pending: Some(1 + which % 8),
                },
                operation: request("raise"),
            },
            55 if how.is_multiple_of(5) => Input::Terminate(request("terminate")),
            55 if how % 5 == 1 => Input::Park {
                reason: "broken".into(),
            },
            55 => resume(),
            57 if how.is_multiple_of(2) => {
                let (state, plans) = (&self.runs[index].state, self.plans);
                let mut others = plans.iter().filter(|played| {
                    played.plan.workflow == *state.workflow() && played.plan.hash != *state.definition_hash()
                });
                let Some(other) = others.next_back() else { return };
                Input::Migrate {
                    to: Target(Arc::clone(&other.plan)),
                    operation: request("migrate"),
                }
            }
            _ => {
                let Some(step) = self.parked(index, which) else {
                    return;
                };
                let action = match how % 6 {
                    0 | 1 => ParkedAction::Retry,
                    2 => ParkedAction::RetryWithInput(json!("edited").into()),
                    3 => ParkedAction::MarkDone,
                    4 => ParkedAction::MarkDoneWithOutput(json!({ "id": "by hand" }).into()),
                    _ => ParkedAction::Skip,
                };
                Input::Parked {
                    direction: None,
                    step,
                    action,
                    operation: request("decide"),
                }
            }
        };
        self.apply(index, input);
    }

    fn parked(&self, index: usize, which: u32) -> Option<StepPath> {
        let state = &self.runs[index].state;
        let undos = state.parked_undos().map(|entry| &entry.step);
        let parked: Vec<_> = undos.chain(state.parked_steps().map(|(step, _)| step)).collect();
        let at = which as usize % parked.len().max(1);
        parked.get(at).map(|step| (*step).clone())
    }

    /// A run that nobody knows says something.
    fn stranger(&mut self, index: usize, which: u32, how: u32) {
        if !how.is_multiple_of(3) {
            self.strangers += 1;
        }
        let from = Sender {
            run: RunId(uuid::Uuid::from_u128(77)),
            namespace: "default".into(),
            workflow_id: "other".into(),
        };
        let body = match which % 12 {
            0 if self.temper.operators => Body::Cancel {
                operation: Operation::default(),
            },
            1 | 2 => Body::ChildClosed(ChildClosed {
                child: from.run,
                step: "k1".into(),
                status: Status::Completed,
                output: Arc::default(),
                error: None,
            }),
            _ => Body::Signal {
                name: "go".into(),
                body: Arc::new(json!(which % 3)),
                sent_at: None,
            },
        };
        let number = MessageNo(self.strangers.max(1));
        self.apply(index, Input::Message { from, number, body });
    }

    /// The last input once more: what carries its own identity changes nothing, at the latest the second time.
    fn repeat(&mut self) {
        let Some((index, input)) = self.last.clone() else {
            return;
        };
        self.apply(index, input.clone());
        let named = match &input {
            Input::TaskEnded { .. } | Input::Message { .. } | Input::MessageAnswered { .. } | Input::Update { .. } => {
                true
            }
            Input::Signal { operation, .. }
            | Input::Parked { operation, .. }
            | Input::RaiseLimits { operation, .. }
            | Input::Migrate { operation, .. }
            | Input::Cancel(operation)
            | Input::Terminate(operation) => operation.request_id.is_some(),
            _ => false,
        };
        if named {
            let again = format!("{input:?}");
            assert!(!self.apply(index, input), "a repeat changed something: {again}");
        }
    }

    /// Nothing is lost any more and everybody is willing: it comes to rest, and everything has ended.
    pub(super) fn finish(&mut self) {
        self.refusing = false;
        for _ in 0..3_000 {
            let before = self.transitions();
            self.wake_limiters();
            for _ in 0..self.log.len() {
                let parcel = self.log.remove(0);
                self.deliver(parcel);
            }
            for index in 0..self.runs.len() {
                while let Some(task) = self.open_task(index) {
                    let outcome = done(task);
                    self.apply(index, Input::TaskEnded { task, outcome });
                    if self.runs[index].state.is_open(task) {
                        break;
                    }
                }
            }
            let is_at_rest = before == self.transitions() && self.log.is_empty();
            if is_at_rest && !self.nudge() {
                self.check_end();
                return;
            }
        }
        panic!(
            "it does not come to rest: {:?}",
            self.runs.iter().map(|run| &run.state).collect::<Vec<_>>()
        );
    }

    /// What only time and people bring.
    fn nudge(&mut self) -> bool {
        let mut changed = false;
        for index in 0..self.runs.len() {
            let state = &self.runs[index].state;
            if state.is_closed() && state.wake_at().is_none() {
                continue;
            }
            let input = if state.is_closed() {
                self.now = self.now.max(state.wake_at().unwrap_or_default());
                full_wake(self.now)
            } else if state.parked_reason().is_some() {
                resume()
            } else if let Some(step) = self.parked(index, 0) {
                Input::Parked {
                    direction: None,
                    step,
                    action: ParkedAction::MarkDone,
                    operation: Operation::default(),
                }
            } else if let Some(at) = state.wake_at() {
                self.now = self.now.max(at);
                full_wake(self.now)
            } else if let Some(name) = state.awaited().into_iter().next() {
                Input::Signal {
                    name,
                    body: json!(1).into(),
                    operation: Operation::default(),
                }
            } else {
                continue;
            };
            changed |= self.apply(index, input);
        }
        // An old copy of an ask may wait there for its pace, though its run has closed.
        if !changed && let Some(at) = self.limiters.wake_at() {
            self.now = self.now.max(at);
            self.wake_limiters();
            changed = true;
        }
        changed
    }

    pub(super) fn transitions(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.state.seq())).sum()
    }

    fn check_end(&self) {
        self.limiters.check_end();
        for run in &self.runs {
            let state = &run.state;
            assert!(state.is_closed(), "{} is {}: {state:?}", run.run_id(), state.status());
            assert_eq!(state.unanswered().count(), 0, "{} is owed an answer", run.run_id());
            run.end();
            for entry in state.ledger() {
                let Some(child) = &entry.child else { continue };
                let undone = entry.state == UndoState::Done && !run.decided.contains(&entry.step);
                if let Some(index) = self.find(child.run).filter(|_| undone) {
                    let status = self.runs[index].state.status();
                    assert!(
                        status != Status::Completed && status.is_closed(),
                        "{} was to be undone and is {status}",
                        entry.step
                    );
                }
            }
        }
    }
}

fn done(task: TaskNo) -> TaskOutcome {
    TaskOutcome::Completed {
        output: Arc::new(json!({ "id": task.0 })),
    }
}

fn resume() -> Input {
    Input::Parked {
        direction: None,
        step: StepPath::new(""),
        action: ParkedAction::Retry,
        operation: Operation::default(),
    }
}

/// One in four cases has some.
fn limits(which: u32) -> RunLimits {
    match which % 4 {
        1 => RunLimits {
            events: Some(10 + which * 3),
            history_bytes: None,
            pending: Some(1 + which % 3),
        },
        2 => RunLimits {
            history_bytes: Some(1_500 + u64::from(which) * 100),
            ..RunLimits::default()
        },
        _ => RunLimits::default(),
    }
}

/// What a run is started with. Every name is sometimes missing, and `rare` next to always.
fn input(which: u32) -> Value {
    let mut input = json!({
        "id": "x",
        "n": which % 5,
        "left": (which / 5) % 3,
        "flag": which & 8 > 0,
        "items": (0..(which / 16) % 5).collect::<Vec<_>>(),
    });
    if which & 256 > 0 {
        input["rare"] = json!({ "id": "r", "items": [1, "two"] });
    }
    if which & 0x600 == 0x600 {
        let missing = ["n", "left", "flag", "items"][(which / 64) as usize % 4];
        input.as_object_mut().unwrap().remove(missing);
    }
    input
}

pub(super) fn played(plans: Vec<Plan>) -> Vec<Played> {
    plans.into_iter().map(Played::new).collect()
}
