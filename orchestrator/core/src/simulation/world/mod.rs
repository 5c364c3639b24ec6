//! Runs, their children and the actors beside them, over a log that loses, repeats and reorders what they say to each other;
//! workers, operators, callers and clocks. The shell here is what [`crate::run::message`] asks of one, and no more.

mod actors;
mod end;
mod inputs;
mod mail;
mod people;
mod starts;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::inputs::{input, limits};
use self::mail::Parcel;
use super::actor::{Actor, Item};
use super::case::{Op, Parts};
use super::limiters::Limiters;
use super::watched::{Played, Watched, full_wake};
use crate::ids::{MessageNo, RunId, WorkflowId};
use crate::run::effect::Effect;
use crate::run::input::{AnswerOn, AnswerRequest, Input, Start, Terms};
use crate::run::message::Sender;
use crate::time::{Span, Timestamp};

/// How gentle fate is with the runs of a case.
#[derive(Debug, Clone, Copy)]
struct Temper {
    /// Of so many outcomes one is not a success.
    fails_in: u32,
    loses: bool,
    operators: bool,
    /// With small limits, that a run of a few steps reaches.
    terms: Terms,
}

#[derive(Debug)]
pub(super) struct World<'p> {
    plans: &'p [Played],
    pub(super) runs: Vec<Watched<'p>>,
    pub(super) actors: Vec<Actor>,
    log: Vec<Parcel>,
    limiters: Limiters,
    /// Runs that are queued for a workflow id, in the order of their coming.
    line: BTreeMap<WorkflowId, Vec<RunId>>,
    /// What triggers read.
    stream: Vec<Item>,
    /// What became of what actors have said: runs that began, and signals that were taken.
    opened: BTreeMap<(RunId, MessageNo), u32>,
    taken: BTreeMap<(RunId, MessageNo), u32>,
    now: Timestamp,
    /// New runs are refused, as where the definition is not known yet.
    refusing: bool,
    temper: Temper,
    parts: Parts,
    last: Option<(usize, Input)>,
    strangers: u32,
    asked: u32,
    pub(super) inputs: u64,
}

const BEGINNING: Timestamp = Timestamp(1_000_000_000);

impl<'p> World<'p> {
    pub(super) fn new(plans: &'p [Played], temper: u32, parts: Parts) -> Self {
        Self {
            plans,
            runs: Vec::new(),
            actors: Vec::new(),
            log: Vec::new(),
            limiters: Limiters::new(plans),
            line: BTreeMap::new(),
            stream: Vec::new(),
            opened: BTreeMap::new(),
            taken: BTreeMap::new(),
            now: BEGINNING,
            refusing: false,
            temper: Temper {
                fails_in: [1_000, 12, 5, 2][temper as usize % 4],
                loses: temper & 4 > 0,
                operators: temper & 8 > 0,
                terms: Terms {
                    limits: limits(temper / 16),
                    withdraws: !(temper / 64).is_multiple_of(4),
                },
            },
            parts,
            last: None,
            strangers: 0,
            asked: 0,
            inputs: 0,
        }
    }

    /// Starts a run of the first definition, like somebody outside.
    pub(super) fn begin(&mut self, which: u32) {
        let id = WorkflowId::new(&format!("root-{}", self.runs.len()));
        let start = self.outside(id, which);
        self.open(&self.plans[0], start);
    }

    fn outside(&self, workflow_id: WorkflowId, which: u32) -> Start {
        let number = u128::from(u32::try_from(self.runs.len()).unwrap()) << 32 | u128::from(which);
        Start {
            run_id: RunId(uuid::Uuid::from_u128(
                0x0190_0000_0000_7000_8000_0000_0000_0000 | number,
            )),
            namespace: "default".into(),
            workflow_id,
            input: Arc::new(input(which)),
            request_id: None,
            search_attributes: [].into(),
            answer: (which & 1 > 0).then(|| AnswerRequest {
                to: "inbox".into(),
                on: AnswerOn::Closed,
            }),
            traceparent: None,
            parent: None,
            priority: (which % 16 == 7).then_some(1),
            queued: false,
            begins_at: (which % 16 == 11).then(|| self.now.plus(Span::from_secs(u64::from(which % 0x1000)))),
            continues: None,
        }
    }

    fn open(&mut self, played: &'p Played, start: Start) -> bool {
        self.inputs += 1;
        let others = self.holder(&start.workflow_id).is_some();
        assert!(start.queued || !others, "a second run of {}", start.workflow_id);
        let queues = &self.limiters.queues;
        let Ok((run, effects)) = Watched::start((played, self.plans), start, self.temper.terms, queues, self.now)
        else {
            return false;
        };
        self.runs.push(run);
        self.publish(self.runs.len() - 1, effects);
        true
    }

    fn publish(&mut self, index: usize, effects: Vec<Effect>) {
        self.limiters.check_places(self.runs.iter().map(|run| &run.state));
        if effects.iter().any(|effect| matches!(effect, Effect::Dispatch(_))) {
            self.limiters.check(self.runs.iter().map(|run| &run.state));
        }
        let goes_on = effects.contains(&Effect::Continue);
        let (sender, run) = (self.runs[index].sender(), self.runs[index].run_id());
        for effect in effects {
            match effect {
                Effect::Withdraw { task, .. } => self.log.push(Parcel::Withdrawal(run, task)),
                effect => self.send(&sender, effect),
            }
        }
        if goes_on {
            self.succeed(index);
        }
    }

    fn send(&mut self, sender: &Sender, effect: Effect) {
        match effect {
            Effect::Send { number, to, body } => self.log.push(Parcel::Message(sender.clone(), number, to, body)),
            Effect::AnswerMessage { to, number, answer } => self.log.push(Parcel::Answer(to, number, answer)),
            Effect::Continue
            | Effect::Withdraw { .. }
            | Effect::Dispatch(_)
            | Effect::CancelTask { .. }
            | Effect::Answer { .. }
            | Effect::AnswerUpdate { .. }
            | Effect::Emit { .. } => {}
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

    fn wake_limiters(&mut self) {
        let told = self.limiters.wake(self.now);
        self.told(told);
    }

    /// Something happens.
    pub(super) fn step(&mut self, op: Op) {
        let Op([what, who, which, how]) = op;
        self.now = self.now.plus(Span::from_millis(u64::from(how % 50)));
        match what % 96 {
            0..64 => self.befalls_a_run(op),
            64..70 if self.parts.schedules() => self.ask_a_schedule(which, how),
            70..74 if self.parts.triggers() => self.ask_a_trigger(which, how),
            74..80 if self.parts.triggers() => self.store_and_read(which, how),
            80..88 if self.parts.schedules() || self.parts.triggers() => self.befalls_an_actor(what, which, how),
            88..92 if self.parts.starts() => self.start_again(self.whom(who), which, how),
            92 if self.parts.starts() => self.call_all(),
            93..96 if self.parts.queues() => self.limit_a_queue(which, how),
            _ => {}
        }
    }

    fn befalls_a_run(&mut self, Op([what, who, which, how]): Op) {
        let index = self.whom(who);
        match what {
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
                2 if self.temper.operators => self.limit_a_queue(which, how / 4),
                2 => {}
                _ => self.runs[index].asked(),
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

    pub(super) fn transitions(&self) -> u64 {
        let runs = self.runs.iter().map(|run| u64::from(run.state.seq()));
        let actors = self.actors.iter().map(|actor| u64::from(actor.state.seq()));
        runs.chain(actors).sum()
    }
}
