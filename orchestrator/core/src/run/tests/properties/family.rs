//! A parent and its children as real runs, over a log that loses, repeats and reorders what they say to each other. The
//! shell here is what [`crate::run::message`] asks of one, and no more.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::super::dsl::*;
use super::inputs::full_wake;
use crate::definition::plan::{Join, ParentClose, Plan};
use crate::ids::{MessageNo, RunId, WorkflowId};
use crate::run::effect::{Effect, effects};
use crate::run::input::{Input, ParkedAction};
use crate::run::message::{Answer, Body, Recipient, Refusal, Sender, child_start};
use crate::run::{self, State, Status, UndoState};
use crate::time::{Span, Timestamp};

/// What is on its way.
#[derive(Debug, Clone)]
enum Parcel {
    Message(Sender, MessageNo, Recipient, Body),
    Answer(Sender, MessageNo, Answer),
}

struct Family {
    parent: Plan,
    child: Plan,
    runs: BTreeMap<RunId, State>,
    log: Vec<Parcel>,
    now: Timestamp,
    /// New runs are refused, as where the definition is not known yet.
    refusing: bool,
    /// Somebody outside has decided about an undo, or closed a run, or a child may be past its pivot.
    operated: bool,
}

fn parent_plan(shape: u8, policy: ParentClose) -> Plan {
    let child = |name: &str| workflow(name).parent_close(policy);
    let steps = match shape % 5 {
        0 => vec![child("k1"), act("a").undo(UndoDef::NoUndo), child("k2")],
        1 => vec![parallel(
            "p",
            vec![("x", vec![child("k1"), act("a")]), ("y", vec![child("k2")])],
        )],
        2 => vec![
            parallel("p", vec![("x", vec![child("k1")]), ("y", vec![act("a")])]).join(Join::Any),
            act("b"),
        ],
        3 => vec![scope("s", vec![child("k1"), act("a")]).otherwise(vec![child("k2")])],
        _ => vec![for_each("e", json!([1, 2, 3]), vec![child("k1"), act("a")])],
    };
    plan(steps)
}

impl Family {
    fn new(shape: u8, policy: ParentClose, pivot: bool) -> Self {
        let mut family = Self {
            parent: parent_plan(shape, policy),
            child: plan(vec![act("x"), act("y").pivot(pivot)]),
            runs: BTreeMap::new(),
            log: vec![],
            now: Timestamp(1_000_000_000),
            refusing: false,
            operated: pivot,
        };
        let (state, transition) = run::start(&family.parent, begin(json!({})), family.now).unwrap();
        family.publish(&state, effects(&state, &transition));
        family.runs.insert(RUN, state);
        family
    }

    fn publish(&mut self, state: &State, effects: Vec<Effect>) {
        let sender = Sender {
            run: state.run_id(),
            namespace: state.namespace().clone(),
            workflow_id: state.workflow_id().clone(),
        };
        for effect in effects {
            self.log.push(match effect {
                Effect::Send { number, to, body } => Parcel::Message(sender.clone(), number, to, (*body).clone()),
                Effect::AnswerMessage { to, number, answer } => Parcel::Answer(to, number, answer),
                _ => continue,
            });
        }
    }

    fn apply(&mut self, run: RunId, input: Input) {
        let mut state = self.runs.remove(&run).unwrap();
        let plan = if run == RUN { &self.parent } else { &self.child };
        if let Ok(Some(transition)) = run::apply(plan, &mut state, input, self.now) {
            let effects = effects(&state, &transition);
            self.publish(&state, effects);
        }
        self.runs.insert(run, state);
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Answer(to, number, answer) => self.apply(to.run, Input::MessageAnswered { number, answer }),
            Parcel::Message(from, number, to, body) => {
                let run = to.run.unwrap();
                let answer = if self.runs.contains_key(&run) {
                    let seq = self.runs[&run].seq();
                    let input = Input::Message {
                        from: from.clone(),
                        number,
                        body,
                    };
                    self.apply(run, input);
                    let state = &self.runs[&run];
                    if state.seq() > seq {
                        return;
                    }
                    state.answer_to(from.run, number)
                } else if let Body::StartChild(start) = &body {
                    self.start(&from, number, &to.workflow_id, start)
                } else {
                    Some(Answer::refused(Refusal::NoRun, "there is no such run"))
                };
                if let Some(answer) = answer {
                    self.log.push(Parcel::Answer(from, number, answer));
                }
            }
        }
    }

    fn start(
        &mut self,
        from: &Sender,
        number: MessageNo,
        workflow_id: &WorkflowId,
        start: &crate::run::message::StartChild,
    ) -> Option<Answer> {
        let taken = |state: &State| state.workflow_id() == workflow_id && state.holds_workflow_id();
        if self.refusing || self.runs.values().any(taken) {
            return Some(Answer::refused(Refusal::IdTaken, "it is open"));
        }
        let start = child_start(from, number, workflow_id, start);
        let (state, transition) = run::start(&self.child, start, self.now).unwrap();
        let effects = effects(&state, &transition);
        self.publish(&state, effects);
        self.runs.insert(state.run_id(), state);
        None
    }

    fn pick(&self, pick: usize) -> RunId {
        *self.runs.keys().nth(pick % self.runs.len()).unwrap()
    }

    fn step(&mut self, (what, pick, detail): (u8, usize, u8)) {
        self.now = self.now.plus(Span::from_millis(50));
        let run = self.pick(pick);
        let task = self.runs[&run].open_tasks().map(|view| view.open.task).next();
        match what {
            // Out of order, once or several times, or never.
            0..=9 if !self.log.is_empty() => {
                let index = pick % self.log.len();
                let parcel = match detail % 4 {
                    0 => self.log[index].clone(),
                    _ => self.log.remove(index),
                };
                if detail % 8 != 1 {
                    self.deliver(parcel);
                }
            }
            10..=15 => {
                if let Some(task) = task {
                    let outcome = match detail % 8 {
                        0 => failed("Refused"),
                        1 => unknown(),
                        _ => done(json!({"id": 1})),
                    };
                    self.apply(run, Input::TaskEnded { task, outcome });
                }
            }
            16 | 17 => {
                self.now = self.now.plus(Span::from_secs(u64::from(detail)));
                self.apply(run, full_wake(self.now));
            }
            18 | 20 if detail < 60 => self.apply(run, Input::Cancel(by("ann"))),
            19 if detail < 20 => {
                self.operated = true;
                self.apply(run, Input::Terminate(by("ann")));
            }
            21 => self.refusing = detail % 2 == 0,
            _ => {}
        }
    }

    /// Nothing is lost any more and everybody is willing.
    fn finish(&mut self) {
        self.refusing = false;
        for _ in 0..2_000 {
            if !self.log.is_empty() {
                let parcel = self.log.remove(0);
                self.deliver(parcel);
                continue;
            }
            let runs: Vec<_> = self.runs.keys().copied().collect();
            let before: u32 = self.runs.values().map(State::seq).sum();
            for run in runs {
                let state = &self.runs[&run];
                let task = state.open_tasks().map(|view| view.open.task).next();
                let parked = state.parked_undos().map(|entry| entry.step.clone()).next();
                if let Some(task) = task {
                    let outcome = done(json!({"id": 1}));
                    self.apply(run, Input::TaskEnded { task, outcome });
                } else if let Some(at) = state.wake_at() {
                    self.now = self.now.max(at);
                    self.apply(run, full_wake(self.now));
                } else if let Some(step) = parked {
                    self.operated = true;
                    let (action, operation) = (ParkedAction::MarkDone, by("ann"));
                    let input = Input::Parked {
                        direction: None,
                        step,
                        action,
                        operation,
                    };
                    self.apply(run, input);
                }
            }
            let after: u32 = self.runs.values().map(State::seq).sum();
            if after == before && self.log.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.runs);
    }

    fn check(&self, policy: ParentClose) {
        let parent = &self.runs[&RUN];
        for (run, state) in &self.runs {
            assert!(state.is_closed(), "{run} is {}: {state:?}", state.status());
            assert!(state.mail.outbox.is_empty(), "{run} is owed an answer");
            assert_eq!(state.wake_at(), None);
        }
        // Nothing is left done behind a parent that was undone, unless somebody outside said so.
        if self.operated || policy != ParentClose::RequestCancel {
            return;
        }
        let kept: BTreeSet<_> = self
            .runs
            .values()
            .filter(|state| state.run_id() != RUN && state.status() == Status::Completed)
            .map(State::run_id)
            .collect();
        let wanted: BTreeSet<_> = parent
            .ledger()
            .iter()
            .filter(|entry| matches!(entry.state, UndoState::Ready | UndoState::Needed))
            .filter_map(|entry| entry.child.as_ref().map(|child| child.run))
            .collect();
        let is_undone = parent.status() != Status::Completed;
        assert_eq!(kept, if is_undone { BTreeSet::new() } else { wanted }, "{parent:?}");
    }
}

fn policy() -> impl Strategy<Value = ParentClose> {
    prop_oneof![
        4 => Just(ParentClose::RequestCancel),
        1 => Just(ParentClose::Terminate),
        1 => Just(ParentClose::Abandon)
    ]
}

proptest! {
    #[test]
    fn families_come_to_rest_and_leave_nothing_done_behind_a_parent_that_was_undone(
        shape in any::<u8>(),
        policy in policy(),
        pivot in prop::bool::weighted(0.2),
        steps in prop::collection::vec((0..22_u8, any::<usize>(), any::<u8>()), 0..120),
    ) {
        let mut family = Family::new(shape, policy, pivot);
        for step in steps {
            family.step(step);
        }
        family.finish();
        family.check(policy);
    }
}
