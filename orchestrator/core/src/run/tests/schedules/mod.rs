//! Schedules: what becomes of each occurrence, by policy, and what operators may ask.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use crate::definition::read_schedule;
use crate::ids::{MessageNo, RequestId, RunId};
use crate::run::effect::Effect;
use crate::run::input::{Horizon, Input, Operation, ParkedAction, Rejected, Start};
use crate::run::message::{Answer, Body, ChildClosed, Refusal, Sender};
use crate::run::schedule::{definition, plan, workflow_id};
use crate::run::{self, State, Status, Transition, effects, evolve};
use crate::schedule::command::Command;
use crate::schedule::state::{Became, Schedule, Skip};
use crate::schedule::{Overlap, Spec};
use crate::time::{Span, Timestamp};

mod commands;
mod lateness;
mod overlap;
mod parked;

const T0: i64 = 1_800_000_000_000_000;
const SECOND: i64 = 1_000_000;

fn second(n: i64) -> Timestamp {
    Timestamp(T0 + n * SECOND)
}

fn spec(document: &str) -> Box<Spec> {
    Box::new(read_schedule(&format!("workflow: report\n{document}\n")).unwrap().1)
}

/// A schedule, and what it has sent.
struct Actor {
    state: State,
    sent: Vec<(MessageNo, crate::run::message::Recipient, Arc<Body>)>,
}

impl Actor {
    fn new(document: &str) -> Self {
        let start = Start {
            run_id: RunId(uuid::Uuid::from_u128(7)),
            namespace: "default".into(),
            workflow_id: workflow_id("nightly"),
            input: Arc::new(serde_json::to_value(Command::Create(spec(document))).unwrap()),
            request_id: Some(RequestId::new("create")),
            search_attributes: Default::default(),
            answer: None,
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            begins_at: None,
            continues: None,
        };
        let (state, transition) = run::start(&plan(), start, second(0)).unwrap();
        assert_eq!(*state.definition_hash(), definition());
        let mut actor = Self {
            state,
            sent: Vec::new(),
        };
        assert_eq!(State::born(&through_json(&transition)).unwrap(), actor.state);
        actor.note(&transition);
        actor
    }

    fn note(&mut self, transition: &Transition) {
        for effect in effects(&self.state, transition) {
            if let Effect::Send { number, to, body } = effect {
                self.sent.push((number, to, body));
            }
        }
        let bytes = serde_json::to_string(&self.state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&bytes).unwrap(), self.state);
    }

    fn try_apply(&mut self, input: Input, at: Timestamp) -> Result<bool, Rejected> {
        let mut folded = self.state.clone();
        let result = run::apply(&plan(), &mut self.state, input, at);
        let Some(transition) = result? else {
            assert_eq!(folded, self.state);
            return Ok(false);
        };
        evolve(&mut folded, &through_json(&transition));
        assert_eq!(folded, self.state);
        self.note(&transition);
        Ok(true)
    }

    #[track_caller]
    fn take(&mut self, input: Input, at: Timestamp) -> bool {
        self.try_apply(input, at).unwrap()
    }

    fn wake(&mut self, at: Timestamp) {
        // What is left over is due at once.
        for _ in 0..200 {
            self.take(Input::Wake(Horizon::default()), at);
            if self.state.wake_at().is_none_or(|due| due > at) {
                return;
            }
        }
    }

    fn ask(&mut self, command: Command, request: &str, at: Timestamp) -> Result<bool, Rejected> {
        let operation = Operation {
            request_id: Some(RequestId::new(request)),
            ..Operation::default()
        };
        let command = Box::new(command);
        self.try_apply(Input::Schedule { command, operation }, at)
    }

    fn schedule(&self) -> &Schedule {
        self.state.schedule().unwrap()
    }

    /// Workflow ids of what was started, in order.
    fn started(&self) -> Vec<String> {
        let starts = self
            .sent
            .iter()
            .filter(|(_, _, body)| matches!(**body, Body::StartChild(_)));
        starts.map(|(_, to, _)| to.workflow_id.to_string()).collect()
    }

    fn run(&self, n: usize) -> (MessageNo, RunId) {
        let mut starts = self
            .sent
            .iter()
            .filter(|(_, _, body)| matches!(**body, Body::StartChild(_)));
        let (number, to, _) = starts.nth(n).unwrap();
        (*number, to.run.unwrap())
    }

    fn answer(&mut self, n: usize, answer: Answer, at: Timestamp) {
        let (number, _) = self.run(n);
        self.take(Input::MessageAnswered { number, answer }, at);
    }

    fn close(&mut self, n: usize, status: Status, at: Timestamp) -> bool {
        let (_, child) = self.run(n);
        let from = Sender {
            run: child,
            namespace: "default".into(),
            workflow_id: "x".into(),
        };
        let body = Body::ChildClosed(ChildClosed {
            child,
            step: "".into(),
            status,
            output: Arc::default(),
            error: None,
        });
        let number = MessageNo(1);
        let taken = self.take(Input::Message { from, number, body }, at);
        assert_eq!(self.state.answer_to(child, number), Some(Answer::Accepted));
        taken
    }

    fn stops(&self) -> Vec<&Body> {
        let stops = self.sent.iter().map(|(_, _, body)| &**body);
        stops
            .filter(|body| matches!(body, Body::Cancel { .. } | Body::Terminate { .. }))
            .collect()
    }

    fn became(&self) -> Vec<Became> {
        self.schedule().past.iter().map(|past| past.became.clone()).collect()
    }
}

fn through_json(transition: &Transition) -> Transition {
    Transition::read(transition.seq, transition.at, transition.body().to_owned()).unwrap()
}

/// `T0` is 2027-01-15T08:00:00Z.
const FIRST: &str = "nightly-20270115T080010Z";
const SECOND_ONE: &str = "nightly-20270115T080020Z";
const THIRD: &str = "nightly-20270115T080030Z";

#[test]
fn an_occurrence_starts_a_run_that_knows_its_nominal_time() {
    let mut nightly =
        Actor::new("every: 10s\nversion: 3\ninput: { at: '${ schedule.nominal_time }', of: '${ schedule.id }' }");
    assert_eq!(nightly.state.wake_at(), Some(second(10)));
    assert!(!nightly.take(Input::Wake(Horizon::default()), second(9)));
    nightly.wake(second(10));
    assert_eq!(nightly.started(), [FIRST]);
    let Body::StartChild(start) = &*nightly.sent[0].2 else {
        panic!()
    };
    assert_eq!(*start.input, json!({ "at": "2027-01-15T08:00:10Z", "of": "nightly" }));
    assert_eq!((start.workflow.as_str(), start.version), ("report", Some(3)));
    let from = Sender {
        run: nightly.state.run_id(),
        namespace: "default".into(),
        workflow_id: workflow_id("nightly"),
    };
    let child = run::message::child_start(&from, MessageNo(1), &FIRST.into(), start);
    assert_eq!(
        child.request_id,
        Some(RequestId::new(
            "$schedule/00000000-0000-0000-0000-000000000007/20270115T080010Z"
        ))
    );
    let (child, _) = run::start(&super::dsl::plan(vec![]), child, second(10)).unwrap();
    assert_eq!(child.scheduled_at(), Some(second(10)));
    // Never twice, whatever wakes it.
    nightly.wake(second(10));
    assert_eq!(nightly.started().len(), 1);
    assert_eq!(nightly.state.wake_at(), Some(second(20)));
}

#[test]
fn a_failure_pauses_where_that_is_asked_for() {
    for (status, pauses) in [
        (Status::Failed, true),
        (Status::Compensated, true),
        (Status::TimedOut, true),
        (Status::CompensationFailed, true),
        (Status::Cancelled, false),
        (Status::Terminated, false),
        (Status::Completed, false),
    ] {
        let mut nightly = Actor::new("every: 10s\npause_on_failure: true\noverlap: buffer_one");
        nightly.wake(second(20));
        nightly.close(0, status, second(25));
        assert_eq!(nightly.schedule().paused.is_some(), pauses, "{status}");
        assert_eq!(nightly.started().len(), if pauses { 1 } else { 2 }, "{status}");
        if pauses {
            nightly.ask(Command::Resume, "r", second(26)).unwrap();
            assert_eq!(nightly.started().len(), 2, "who waited is started");
        }
    }
    let mut nightly = Actor::new("every: 10s\npause_on_failure: true");
    nightly.wake(second(10));
    nightly.answer(0, Answer::refused(Refusal::UnknownWorkflow, "none"), second(11));
    assert!(nightly.schedule().paused.is_some());
    assert_eq!(nightly.schedule().counts.failed, 1);
    assert_eq!(nightly.schedule().counts.started, 0, "nothing has been started");
    // One that has been started before is no failure.
    let mut nightly = Actor::new("every: 10s\npause_on_failure: true");
    nightly.wake(second(10));
    nightly.answer(0, Answer::refused(Refusal::AlreadyStarted, "it was"), second(11));
    assert_eq!(
        (nightly.schedule().paused.clone(), nightly.became()),
        (None, vec![Became::AlreadyStarted])
    );
    // Nor does an input that cannot be evaluated stop anything else.
    let mut nightly = Actor::new("every: 10s\npause_on_failure: true\ninput: '${ schedule.id.nothing.here }'");
    nightly.wake(second(10));
    assert!(nightly.schedule().paused.is_some());
    assert!(matches!(nightly.became()[0], Became::NotStarted { .. }));
}

#[test]
fn limited_actions_end_it() {
    let mut nightly = Actor::new("every: 10s\nactions: 2\noverlap: allow_all");
    nightly.wake(second(60));
    assert_eq!(nightly.started().len(), 2);
    assert_eq!(
        (nightly.schedule().remaining, nightly.state.wake_at().is_none()),
        (Some(0), false)
    );
    // The messages are what it still wakes for.
    nightly.answer(0, Answer::Accepted, second(61));
    nightly.answer(1, Answer::Accepted, second(61));
    assert_eq!(nightly.state.wake_at(), None);
    nightly
        .ask(Command::Trigger { overlap: None }, "t", second(62))
        .unwrap();
    assert_eq!(nightly.started().len(), 3);
    nightly
        .ask(
            Command::Update(spec("every: 10s\nactions: 1\noverlap: allow_all")),
            "u",
            second(63),
        )
        .unwrap();
    nightly.wake(second(90));
    assert_eq!(nightly.started().len(), 4);
}

#[test]
fn a_start_without_an_answer_is_sent_again() {
    let mut nightly = Actor::new("cron: '0 0 1 1 *'");
    nightly.ask(Command::Trigger { overlap: None }, "t", second(1)).unwrap();
    nightly.wake(second(31));
    assert_eq!(nightly.sent.len(), 2);
    assert_eq!(nightly.sent[0], nightly.sent[1]);
    nightly.answer(0, Answer::Accepted, second(32));
    assert_eq!(nightly.sent.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens when: each nominal time is decided once, in order, and every start has a name of its own.
    #[test]
    fn every_nominal_time_is_decided_once(
        policy in 0_usize..6,
        steps in proptest::collection::vec((0_u8..5, 0_i64..40, 0_usize..8), 1..60),
    ) {
        let policy = Overlap::ALL[policy];
        let mut nightly = Actor::new(&format!("every: 10s\noverlap: {}", policy.as_str()));
        let mut now = 0;
        for (what, pause, which) in steps {
            now += pause;
            let at = second(now);
            let started = nightly.started().len();
            match what {
                0 | 1 => nightly.wake(at),
                2 if started > 0 => {
                    nightly.close(which % started, Status::Completed, at);
                }
                3 if started > 0 => nightly.answer(which % started, Answer::Accepted, at),
                _ => {
                    // A replica that takes over has nothing but what is stored.
                    let stored = serde_json::to_string(&nightly.state).unwrap();
                    nightly.state = serde_json::from_str(&stored).unwrap();
                }
            }
        }
        nightly.wake(second(now));
        let started = nightly.started();
        let mut names: Vec<_> = nightly
            .sent
            .iter()
            .filter(|(_, _, body)| matches!(**body, Body::StartChild(_)))
            .map(|(number, to, _)| (to.workflow_id.clone(), *number))
            .collect();
        names.dedup();
        names.sort();
        names.dedup();
        let numbers = names.len();
        names.dedup_by_key(|(id, _)| id.clone());
        prop_assert_eq!(names.len(), numbers, "one message a name: {:?}", started);
        let schedule = nightly.schedule();
        let decided = schedule.counts.started + schedule.counts.skipped + schedule.buffer.len() as u64;
        prop_assert_eq!(decided, u64::try_from(now / 10).unwrap());
        if policy != Overlap::AllowAll {
            prop_assert!(schedule.running.len() <= 1);
        }
    }
}

#[test]
fn a_start_that_was_refused_and_is_accepted_all_the_same_is_cancelled_once() {
    let mut actor = Actor::new("every: 10s");
    actor.wake(second(10));
    actor.answer(
        0,
        Answer::refused(Refusal::UnknownWorkflow, "there is none"),
        second(11),
    );
    assert_eq!(actor.schedule().counts.failed, 1);
    let (_, run) = actor.run(0);
    for _ in 0..2 {
        actor.answer(0, Answer::Accepted, second(12));
    }
    let cancelled = actor
        .sent
        .iter()
        .filter(|(_, to, body)| matches!(**body, Body::Cancel { .. }) && to.run == Some(run));
    assert_eq!(cancelled.count(), 1);
}
