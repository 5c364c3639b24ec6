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
fn skip_leaves_out_what_comes_due_while_a_run_is_open() {
    let mut nightly = Actor::new("every: 10s");
    nightly.wake(second(10));
    nightly.wake(second(20));
    assert_eq!(nightly.started(), [FIRST]);
    assert_eq!(nightly.became(), [Became::Skipped(Skip::Overlap)]);
    nightly.answer(0, Answer::Accepted, second(21));
    assert!(nightly.close(0, Status::Completed, second(25)));
    assert!(
        !nightly.close(0, Status::Completed, second(25)),
        "a repeat changes nothing"
    );
    nightly.wake(second(30));
    assert_eq!(nightly.started(), [FIRST, THIRD]);
}

#[test]
fn buffer_one_keeps_one_and_buffer_all_keeps_all() {
    for (policy, then) in [
        ("buffer_one", vec![FIRST, SECOND_ONE]),
        ("buffer_all", vec![FIRST, SECOND_ONE, THIRD]),
    ] {
        let mut nightly = Actor::new(&format!("every: 10s\noverlap: {policy}"));
        for n in 1..=3 {
            nightly.wake(second(10 * n));
        }
        assert_eq!(nightly.started(), [FIRST]);
        let mut at = 0;
        while at < nightly.started().len() {
            nightly.close(at, Status::Completed, second(35));
            at += 1;
        }
        assert_eq!(nightly.started(), then, "{policy}");
    }
}

#[test]
fn cancel_and_terminate_other_stop_what_is_open_and_start_the_latest() {
    for policy in ["cancel_other", "terminate_other"] {
        let mut nightly = Actor::new(&format!("every: 10s\noverlap: {policy}"));
        nightly.wake(second(10));
        nightly.wake(second(20));
        assert_eq!(nightly.stops().len(), 0, "not before its start is accepted");
        nightly.answer(0, Answer::Accepted, second(21));
        nightly.wake(second(30));
        let stops = nightly.stops();
        assert_eq!(stops.len(), 1, "told once");
        assert_eq!(matches!(stops[0], Body::Cancel { .. }), policy == "cancel_other");
        assert_eq!(nightly.became(), [Became::Skipped(Skip::Replaced)]);
        nightly.close(0, Status::Cancelled, second(31));
        assert_eq!(nightly.started(), [FIRST, THIRD]);
        // One that is not there any more cannot be waited for.
        nightly.answer(1, Answer::Accepted, second(32));
        nightly.wake(second(40));
        let (number, ..) = nightly.sent.last().unwrap().clone();
        let answer = Answer::refused(Refusal::NoRun, "gone");
        nightly.take(Input::MessageAnswered { number, answer }, second(41));
        assert_eq!(nightly.started().len(), 3);
        assert!(nightly.became().contains(&Became::Lost));
    }
}

#[test]
fn allow_all_starts_everything_up_to_a_limit() {
    let mut nightly = Actor::new("every: 1s\noverlap: allow_all");
    nightly.wake(second(2_001));
    assert_eq!(nightly.started().len(), 2_000);
    assert_eq!(nightly.became(), [Became::Skipped(Skip::Full)]);
    assert_eq!(nightly.schedule().decided_to, second(2_001));
}

#[test]
fn a_transition_starts_fewer_where_inputs_are_large() {
    let text = "x".repeat(64 << 10);
    let mut nightly = Actor::new(&format!("every: 1s\noverlap: allow_all\ninput: {{ text: {text} }}"));
    nightly.take(Input::Wake(Horizon::default()), second(100));
    let started = nightly.started().len();
    assert!((16..40).contains(&started), "{started}");
    // The rest is due at once.
    assert!(nightly.state.wake_at().is_some_and(|due| due <= second(100)));
    nightly.wake(second(100));
    assert_eq!(nightly.started().len(), 100);
}

#[test]
fn however_many_are_open_they_are_told_to_stop() {
    let mut nightly = Actor::new("every: 1s\noverlap: allow_all");
    nightly.wake(second(2_000));
    assert_eq!(nightly.schedule().running.len(), 2_000);
    let update = Command::Update(spec("every: 1s\noverlap: cancel_other"));
    nightly.ask(update, "u", second(2_000)).unwrap();
    nightly.wake(second(2_001));
    let schedule = nightly.schedule();
    assert_eq!((schedule.buffer.len(), schedule.counts.skipped), (1, 0));
    assert!(schedule.running.values().all(|running| running.stopping.is_some()));
}

#[test]
fn the_buffer_is_bounded() {
    let mut nightly = Actor::new("every: 1s\noverlap: buffer_all");
    nightly.wake(second(1_010));
    let schedule = nightly.schedule();
    assert_eq!((schedule.running.len(), schedule.buffer.len()), (1, 1_000));
    assert_eq!(schedule.counts.skipped, 9);
    assert_eq!(schedule.past.last().unwrap().became, Became::Skipped(Skip::Full));
}

#[test]
fn what_is_older_than_the_catch_up_window_is_missed_and_counted() {
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all\ncatch_up_window: 30s");
    nightly.wake(second(105));
    assert_eq!(nightly.schedule().counts.missed, 7, "10 to 70 are older than 30 s");
    assert_eq!(nightly.started().len(), 3, "80, 90 and 100");
    // At the window itself it is made up for.
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all\ncatch_up_window: 30s");
    nightly.wake(second(40));
    assert_eq!((nightly.schedule().counts.missed, nightly.started().len()), (0, 4));
    // A year of seconds is passed in one go.
    let mut nightly = Actor::new("every: 1s\ncatch_up_window: 10s");
    nightly.wake(second(365 * 86_400));
    assert_eq!(nightly.schedule().counts.missed, 10_000);
    assert_eq!(nightly.schedule().decided_to, second(365 * 86_400));
    assert_eq!(nightly.started().len(), 1);
}

/// Without a word about it: a year, to the microsecond.
#[test]
fn what_is_a_year_late_is_made_up_for_and_a_microsecond_more_is_not() {
    const YEAR_US: i64 = 365 * 86_400 * SECOND;
    for (more, missed) in [(0, 0), (1, 1)] {
        let mut nightly = Actor::new("every: 30d\noverlap: allow_all");
        let first = nightly.schedule().next.unwrap().at;
        nightly.wake(Timestamp(first.0 + YEAR_US + more));
        let counts = nightly.schedule().counts;
        assert_eq!((counts.missed, counts.started), (missed, 13 - missed));
    }
}

#[test]
fn what_waits_for_its_jitter_is_not_late() {
    let mut nightly = Actor::new("every: 1h\njitter: 30m\noverlap: allow_all\ncatch_up_window: 10s");
    let mut late = 0;
    for _ in 0..24 {
        let next = nightly.schedule().next.unwrap();
        late += usize::from(next.at.since(next.nominal) > Span::from_secs(10));
        nightly.wake(next.at);
    }
    let counts = nightly.schedule().counts;
    assert!(late > 0);
    assert_eq!((counts.missed, counts.started), (0, 24));
}

#[test]
fn how_late_an_occurrence_is_counts_from_when_it_is_to_fire() {
    let document = "every: 1h\njitter: 59m\noverlap: allow_all\ncatch_up_window: 30m";
    let times = Arc::clone(&spec(document).times);
    let nominal = times.between(second(0), second(24 * 3_600));
    let fires: Vec<Timestamp> = nominal.map(|nominal| times.fires_at("nightly", nominal)).collect();
    assert_eq!(fires.len(), 24);
    let window = Span::from_secs(30 * 60);
    for at in &fires[..20] {
        for now in [at.plus(window), Timestamp(at.plus(window).0 + 1)] {
            let mut nightly = Actor::new(document);
            nightly.wake(now);
            let missed = fires.iter().filter(|at| now.since(**at) > window).count();
            let due = fires.iter().filter(|at| **at <= now).count();
            let counts = nightly.schedule().counts;
            let started = due - missed;
            assert_eq!((counts.missed, counts.started), (missed as u64, started as u64));
        }
    }
}

#[test]
fn a_pause_is_not_made_up_for() {
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all");
    assert!(nightly.ask(Command::Pause, "p", second(1)).unwrap());
    assert!(!nightly.ask(Command::Pause, "p", second(2)).unwrap(), "a repeat");
    assert_eq!(nightly.state.wake_at(), None);
    nightly.wake(second(35));
    assert!(nightly.ask(Command::Resume, "r", second(35)).unwrap());
    assert_eq!(nightly.started().len(), 0);
    assert_eq!(nightly.state.wake_at(), Some(second(40)));
    // An old request is no new one.
    assert!(!nightly.ask(Command::Pause, "p", second(36)).unwrap());
    assert_eq!(nightly.schedule().paused, None);
}

/// The same command again, because its answer was lost, after somebody else has said otherwise.
#[test]
fn a_repeat_of_what_changed_nothing_changes_nothing_later() {
    let mut nightly = Actor::new("every: 10s");
    nightly.ask(Command::Resume, "r1", second(1)).unwrap();
    assert_eq!(nightly.state.wake_at(), Some(second(10)));
    nightly.ask(Command::Pause, "p1", second(2)).unwrap();
    assert!(!nightly.ask(Command::Resume, "r1", second(3)).unwrap());
    assert!(nightly.schedule().paused.is_some());

    nightly.ask(Command::Pause, "p2", second(4)).unwrap();
    nightly.ask(Command::Resume, "r2", second(5)).unwrap();
    assert!(!nightly.ask(Command::Pause, "p2", second(6)).unwrap());
    assert_eq!(nightly.schedule().paused, None);

    // One that had a parked schedule go on resumes no pause as well.
    nightly.ask(Command::Pause, "p3", second(7)).unwrap();
    let reason = "poison".into();
    nightly.take(Input::Park { reason }, second(7));
    nightly.ask(Command::Resume, "r3", second(8)).unwrap();
    assert!(!nightly.ask(Command::Resume, "r3", second(9)).unwrap());
    assert!(nightly.schedule().paused.is_some());
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
fn a_trigger_is_an_occurrence_of_its_own() {
    let mut nightly = Actor::new("every: 10s\npaused: true");
    nightly
        .ask(Command::Trigger { overlap: None }, "t1", second(3))
        .unwrap();
    nightly
        .ask(Command::Trigger { overlap: None }, "t1", second(3))
        .unwrap();
    assert_eq!(nightly.started(), ["nightly-20270115T080003Z-1"]);
    nightly
        .ask(Command::Trigger { overlap: None }, "t2", second(3))
        .unwrap();
    assert_eq!(nightly.became(), [Became::Skipped(Skip::Overlap)]);
    let overlap = Some(Overlap::AllowAll);
    nightly.ask(Command::Trigger { overlap }, "t3", second(3)).unwrap();
    assert_eq!(nightly.started().len(), 2);
}

/// One that waited and was named again was told as skipped, and was gone.
#[test]
fn what_two_backfills_name_is_started_once_and_not_lost() {
    for (overlap, times) in [(Overlap::BufferAll, 3), (Overlap::BufferOne, 2)] {
        let mut nightly = Actor::new("every: 10s\npaused: true");
        let backfill = |until| Command::Backfill {
            from: second(-30),
            until: second(until),
            overlap: Some(overlap),
        };
        nightly.ask(backfill(-20), "one", second(5)).unwrap();
        nightly.ask(backfill(-10), "another", second(5)).unwrap();
        let mut at = 0;
        while at < nightly.started().len() {
            nightly.close(at, Status::Completed, second(6));
            at += 1;
        }
        let expected = [
            "nightly-20270115T075930Z",
            "nightly-20270115T075940Z",
            "nightly-20270115T075950Z",
        ];
        assert_eq!(nightly.started(), expected[..times], "{overlap:?}");
    }
}

#[test]
fn a_backfill_takes_both_ends_and_one_after_the_other() {
    let mut nightly = Actor::new("every: 10s\npaused: true");
    let backfill = |from, until, overlap| Command::Backfill {
        from: second(from),
        until: second(until),
        overlap,
    };
    nightly.ask(backfill(-30, -10, None), "b", second(5)).unwrap();
    assert!(!nightly.ask(backfill(-30, -10, None), "b", second(5)).unwrap());
    nightly.wake(second(5));
    let mut at = 0;
    while at < nightly.started().len() {
        nightly.close(at, Status::Completed, second(6));
        at += 1;
    }
    assert_eq!(
        nightly.started(),
        [
            "nightly-20270115T075930Z",
            "nightly-20270115T075940Z",
            "nightly-20270115T075950Z"
        ]
    );
    assert_eq!(nightly.schedule().backfills, []);
    nightly
        .ask(backfill(-30, -10, Some(Overlap::AllowAll)), "all", second(7))
        .unwrap();
    assert_eq!(nightly.started().len(), 6);
    for (from, until, now) in [(0, 20, 10), (10, 0, 20), (-200_000, 0, 20)] {
        let refused = nightly.ask(backfill(from, until, None), "bad", second(now));
        assert!(matches!(refused, Err(Rejected::Schedule(_))), "{from} {until}");
    }
    // A long one waits for room in the buffer, and loses nothing.
    let mut nightly = Actor::new("every: 10s\npaused: true");
    nightly.ask(backfill(-11_990, 0, None), "long", second(5)).unwrap();
    nightly.ask(Command::Resume, "r", second(5)).unwrap();
    nightly.wake(second(5));
    assert_eq!(nightly.schedule().buffer.len(), 1_000);
    assert!(
        nightly.state.wake_at() > Some(second(5)),
        "it does not spin while there is no room"
    );
    let mut at = 0;
    while at < nightly.started().len() {
        nightly.close(at, Status::Completed, second(6));
        nightly.wake(second(6));
        at += 1;
    }
    assert_eq!(nightly.started().len(), 1_200);
    assert_eq!(nightly.schedule().counts.skipped, 0);
}

#[test]
fn an_update_counts_from_now_and_keeps_what_it_does_not_say() {
    let mut nightly = Actor::new("every: 10s");
    nightly.ask(Command::Pause, "p", second(1)).unwrap();
    assert!(
        !nightly
            .ask(Command::Update(spec("every: 10s")), "same", second(2))
            .unwrap()
    );
    assert!(nightly.ask(Command::Update(spec("every: 7s")), "u", second(2)).unwrap());
    assert!(nightly.schedule().paused.is_some(), "it stays paused");
    nightly
        .ask(Command::Update(spec("every: 7s\npaused: true")), "u2", second(3))
        .unwrap();
    nightly
        .ask(Command::Update(spec("every: 7s")), "u3", second(3))
        .unwrap();
    assert!(nightly.schedule().paused.is_none());
    let next = nightly.schedule().next.unwrap();
    assert!(next.nominal > second(3));
    assert_eq!(
        nightly.ask(Command::Create(spec("every: 9s")), "c", second(4)),
        Err(Rejected::ScheduleExists)
    );
    assert!(!nightly.ask(Command::Create(spec("every: 7s")), "c", second(4)).unwrap());
}

/// An outage is over, and the first that is read of the log is an update.
#[test]
fn an_update_loses_nothing_that_was_due() {
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all");
    let update = Command::Update(spec("every: 7s\noverlap: allow_all"));
    nightly.ask(update, "u", second(25)).unwrap();
    assert_eq!(nightly.started(), [FIRST, SECOND_ONE]);
    assert_eq!(nightly.schedule().decided_to, second(25));
    assert!(nightly.schedule().next.unwrap().nominal > second(25));

    // Its nominal time has come, and its jitter is to pass.
    let mut nightly = Actor::new("every: 1h\njitter: 30m");
    let next = nightly.schedule().next.unwrap();
    assert!(next.at > next.nominal);
    let update = Command::Update(spec("every: 1h\njitter: 30m\nnote: told apart"));
    nightly.ask(update, "u", next.nominal).unwrap();
    assert_eq!(nightly.schedule().counts.started, 1);

    // Of very much the first, and the rest is counted.
    let update = |document: &str| Command::Update(spec(document));
    let mut nightly = Actor::new("every: 1s");
    nightly.ask(update("every: 7s"), "u", second(500)).unwrap();
    let counts = nightly.schedule().counts;
    assert_eq!((counts.started, counts.skipped, counts.missed), (1, 99, 400));

    // What is paused stays so, and what is parked starts nothing.
    let mut nightly = Actor::new("every: 10s\npaused: true");
    nightly.ask(update("every: 7s\npaused: true"), "u", second(25)).unwrap();
    assert_eq!((nightly.started().len(), nightly.schedule().counts.missed), (0, 0));
    let mut nightly = Actor::new("every: 10s");
    let reason = "poison".into();
    nightly.take(Input::Park { reason }, second(1));
    nightly.ask(update("every: 7s"), "u", second(25)).unwrap();
    assert_eq!((nightly.started().len(), nightly.schedule().counts.missed), (0, 2));
}

#[test]
fn a_definition_speaks_for_what_it_made() {
    let define = |version, spec| Command::Define { version, spec };
    let mut by_hand = Actor::new("every: 10s");
    assert_eq!(
        by_hand.ask(define(1, Some(spec("every: 9s"))), "d", second(1)),
        Err(Rejected::ScheduleExists)
    );
    assert!(!by_hand.ask(define(1, None), "d2", second(1)).unwrap());
    let mut made = Actor::new("every: 10s");
    made.state.schedule.as_mut().unwrap().version = Some(2);
    assert!(!made.ask(define(1, Some(spec("every: 9s"))), "old", second(1)).unwrap());
    assert!(
        !made
            .ask(define(2, Some(spec("every: 10s"))), "same", second(1))
            .unwrap()
    );
    assert!(made.ask(define(3, Some(spec("every: 9s"))), "new", second(1)).unwrap());
    assert_eq!(made.schedule().version, Some(3));
    assert!(made.ask(define(4, None), "gone", second(2)).unwrap());
    assert!(made.state.is_closed());
}

#[test]
fn a_deleted_schedule_starts_nothing_and_owes_what_it_has_sent() {
    let mut nightly = Actor::new("every: 10s\noverlap: buffer_all");
    nightly.wake(second(20));
    nightly.ask(Command::Delete, "d", second(21)).unwrap();
    assert!(nightly.state.is_closed());
    assert!(
        nightly.state.wake_at().is_some(),
        "the start is offered until it is answered"
    );
    nightly.answer(0, Answer::Accepted, second(22));
    assert_eq!(nightly.state.wake_at(), None);
    assert!(!nightly.close(0, Status::Completed, second(23)));
    assert_eq!(nightly.started(), [FIRST]);
    assert_eq!(
        nightly.ask(Command::Pause, "p", second(24)),
        Err(Rejected::Closed("completed"))
    );
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

#[test]
fn a_parked_schedule_waits_for_an_operator() {
    let mut nightly = Actor::new("every: 10s");
    nightly.take(
        Input::Park {
            reason: "poison".into(),
        },
        second(1),
    );
    assert_eq!(
        (nightly.state.status(), nightly.state.wake_at()),
        (Status::Parked, None)
    );
    nightly.ask(Command::Resume, "r", second(25)).unwrap();
    assert_eq!(nightly.started().len(), 1);
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

/// Found by simulation, like the two that follow: whoever had a parked schedule tried again had it end like a run without steps.
#[test]
fn a_parked_schedule_that_is_retried_goes_on() {
    let mut actor = Actor::new("every: 10s\noverlap: buffer_all");
    actor.wake(second(10));
    actor.wake(second(20));
    let reason = "broken".into();
    actor.take(Input::Park { reason }, second(21));
    actor.answer(0, Answer::refused(Refusal::NotStarted, "no"), second(22));
    assert_eq!(actor.started().len(), 1, "parked, it starts nothing");
    let retried = Input::Parked {
        step: "".into(),
        direction: None,
        action: ParkedAction::Retry,
        operation: Operation::default(),
    };
    assert!(actor.take(retried, second(23)));
    assert!(!actor.state.is_closed(), "it is there still");
    assert_eq!(actor.started().len(), 2, "who waited is started");
}

#[test]
fn what_a_pause_holds_back_is_in_nobodys_way() {
    for overlap in [Overlap::Skip, Overlap::BufferOne, Overlap::CancelOther] {
        let mut actor = Actor::new("every: 10s\noverlap: buffer_all");
        actor.wake(second(10));
        actor.wake(second(20));
        actor.ask(Command::Pause, "p", second(21)).unwrap();
        actor.close(0, Status::Completed, second(22));
        assert_eq!((actor.started().len(), actor.schedule().buffer.len()), (1, 1));
        let overlap = Some(overlap);
        actor.ask(Command::Trigger { overlap }, "now", second(23)).unwrap();
        assert_eq!(
            (actor.started().len(), actor.schedule().buffer.len()),
            (2, 1),
            "{overlap:?}"
        );
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
