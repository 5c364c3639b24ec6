//! Activities under every condition: each default and edge of SEMANTICS §3 that is decided here, in a test of its own.
//!
//! | §3 | test |
//! |---|---|
//! | retry defaults (T), their exact values | `definition::tests::activities`, [`super::attempts`], `retry::tests` |
//! | start-to-close and heartbeat are retried, the other two are not (T) | [`start_to_close_and_heartbeat_are_retried_and_the_other_two_are_not`] |
//! | a missed heartbeat, and what is one | [`a_missed_heartbeat_is_retried`] |
//! | schedule-to-start is not retried (T); *failed* if the task was taken out | [`a_task_that_nobody_took_in_time_is_taken_back`] |
//! | schedule-to-start expires only for tasks that have not been delivered | [`a_task_that_cannot_be_taken_back_was_delivered`] |
//! | schedule-to-close spans the attempts and is not retried (T) | [`schedule_to_close_spans_the_attempts`], [`an_attempt_ends_at_schedule_to_close`] |
//! | … of an undo | [`an_undo_past_schedule_to_close_waits_for_an_operator`] |
//! | … of what only goes forward | [`what_only_goes_forward_is_not_cut`] |
//! | an absolute deadline travels in the task | [`the_task_says_when_it_is_late`] |
//! | a task that was delivered has been started in time | [`a_delivered_task_is_not_taken_back`] |
//! | a backlog is not late | [`super::deadlines`], `engine::tests::activities` |
//! | details reach the next attempt | [`details_reach_the_next_attempt`] |
//! | nobody listened, so nobody was silent | [`silence_that_nobody_could_hear_is_none`] |
//! | a silent worker is lost long before its timeout | [`a_silent_worker_is_lost`] |
//! | cancellation types | [`try_cancel_waits_within_the_timeouts`], [`wait_cancelled_waits_for_the_worker`], [`abandon_waits_for_nobody`] |
//! | asynchronous completion | [`a_task_that_is_finished_later_is_not_lost`] |
//! | at most once | [`a_claim_is_granted_once`], [`a_claim_that_is_never_resolved_ends_unknown`] |

use std::sync::Arc;

use serde_json::{Value, json};

use super::dsl::*;
use crate::definition::plan::{Cancellation, Timeouts};
use crate::ids::TaskNo;
use crate::run::effect::{Direction, Effect};
use crate::run::event::StepOutcome;
use crate::run::input::{Beat, Horizon, Input, TaskOutcome};
use crate::run::{Event, Status, Step, Unstarted};
use crate::time::{Span, Timestamp};

const NONE: Timeouts = Timeouts {
    schedule_to_start: None,
    schedule_to_close: None,
    heartbeat: None,
};

fn seconds(seconds: u64) -> Option<Span> {
    Some(Span::from_secs(seconds))
}

fn heartbeat(silence: u64) -> Timeouts {
    Timeouts {
        heartbeat: seconds(silence),
        ..NONE
    }
}

fn to_close(limit: u64) -> Timeouts {
    Timeouts {
        schedule_to_close: seconds(limit),
        ..NONE
    }
}

fn to_start(limit: u64) -> Timeouts {
    Timeouts {
        schedule_to_start: seconds(limit),
        ..NONE
    }
}

impl Run {
    fn horizon(&self, delivered: bool) -> Horizon {
        let to = if delivered { self.now } else { Timestamp(0) };
        Horizon {
            log_read_to: self.now,
            delivered_to: [("main".into(), to)].into(),
            listening_since: Timestamp(0),
            heard: Default::default(),
        }
    }

    /// Wakes, with every task still in its queue.
    pub(super) fn wake_in_backlog(&mut self) -> Vec<Effect> {
        let horizon = self.horizon(false);
        self.take(Input::Wake(horizon))
    }

    fn beat(&mut self, what: &str, details: Option<Value>) -> bool {
        let task = self.task(what);
        let (began, at) = (self.now, self.now);
        let details = details.map(Into::into);
        let beat = Beat { began, at, details };
        self.apply(Input::Heartbeat { task, beat }).unwrap().is_some()
    }

    pub(super) fn outcome(&self, step: &str) -> StepOutcome {
        match &self.state.steps()[step] {
            Step::Failed { outcome, .. } => *outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn message(&self) -> &str {
        &self.state.failure().unwrap().message
    }
}

#[test]
fn a_missed_heartbeat_is_retried() {
    let mut run = run(vec![act("a").attempts(Some(2)).timeouts(heartbeat(3))]);
    assert_eq!(run.last_dispatch().heartbeat, seconds(3));
    // The first look comes when the first heartbeat should have: nobody may have taken the task.
    assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(3))));
    run.later(3);
    run.wake_in_backlog();
    assert!(matches!(run.last_events(), [Event::DeadlineDeferred { .. }]));
    // One that goes on beating is as good as ever, up to start-to-close.
    run.later(3);
    assert!(run.beat("do a", None));
    assert!(matches!(run.last_events(), [Event::TaskStarted { .. }]));
    for _ in 0..2 {
        run.later(3);
        assert!(run.beat("do a", None), "it decides");
        assert!(!run.beat("do a", None), "nothing new");
    }
    run.later(3);
    run.wake();
    assert!(matches!(run.last_events()[0], Event::TaskTimedOut { .. }));
    run.wake_next();
    assert_eq!(run.dispatched(), ["do a", "do a#2"]);
    run.time_out("do a");
    assert_eq!(run.message(), "no heartbeat for 3000 ms");
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
    assert_eq!(run.undone(), ["undo a"]);
}

/// The four timeouts of a step that may be tried for ever: which of them are tried again, and what the others leave known.
#[test]
fn start_to_close_and_heartbeat_are_retried_and_the_other_two_are_not() {
    let of = |timeouts: Timeouts| run(vec![act("a").attempts(None).timeouts(timeouts)]);
    let mut to_end = of(NONE);
    to_end.time_out("do a");
    to_end.wake_next();
    assert_eq!(to_end.dispatched(), ["do a", "do a#2"], "start_to_close");

    let mut beating = of(heartbeat(3));
    beating.beat("do a", None);
    beating.time_out("do a");
    beating.wake_next();
    assert_eq!(beating.dispatched(), ["do a", "do a#2"], "heartbeat");

    let mut waiting = of(to_start(3));
    let task = waiting.task("do a");
    waiting.later(3);
    waiting.wake_in_backlog();
    waiting.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(
        (waiting.dispatched(), waiting.outcome("a"), waiting.status()),
        (vec!["do a".to_owned()], StepOutcome::Failed, Status::Failed),
        "schedule_to_start"
    );

    let mut late = of(to_close(3));
    late.later(3);
    late.wake();
    assert_eq!(
        (late.dispatched(), late.outcome("a")),
        (vec!["do a".to_owned(), "undo a".to_owned()], StepOutcome::Unknown),
        "schedule_to_close"
    );
}

#[test]
fn start_to_close_stands_beside_heartbeats() {
    let mut run = run(vec![act("a").timeouts(heartbeat(3))]);
    run.later(3);
    assert!(run.beat("do a", None));
    for _ in 0..3 {
        run.later(3);
        run.beat("do a", None);
    }
    run.later(1);
    run.wake();
    assert_eq!(run.message(), "no outcome within 10000 ms of being taken");
}

#[test]
fn details_reach_the_next_attempt() {
    let mut run = run(vec![act("a").attempts(Some(3)).timeouts(heartbeat(60))]);
    assert!(run.beat("do a", Some(json!({"page": 1}))));
    assert!(!run.beat("do a", Some(json!({"page": 1}))), "they are known");
    assert!(run.beat("do a", Some(json!({"page": 2}))));
    run.fail("do a");
    run.wake_next();
    assert_eq!(run.last_dispatch().last_details.as_deref(), Some(&json!({"page": 2})));
    // An attempt that says nothing leaves them to the one after it.
    run.end("do a", unknown());
    run.wake_next();
    assert_eq!(run.last_dispatch().last_details.as_deref(), Some(&json!({"page": 2})));
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn silence_that_nobody_could_hear_is_none() {
    let mut run = run(vec![act("a").timeouts(heartbeat(3))]);
    run.later(3);
    run.beat("do a", None);
    run.later(5);
    let since = Timestamp(run.now.0 - 1_000_000);
    let horizon = Horizon {
        listening_since: since,
        ..run.horizon(true)
    };
    run.take(Input::Wake(horizon));
    assert!(matches!(run.last_events(), [Event::HeartbeatTaken { .. }]));
    assert_eq!(run.state.wake_at(), Some(since.plus(Span::from_secs(3))));
    run.wake_next();
    assert!(matches!(run.last_events()[0], Event::TaskTimedOut { .. }));
}

/// 500 tasks that beat for twenty minutes would have used up the 50,000 events of their run; what they said last is kept where an
/// attempt ends without an answer.
#[test]
fn beats_that_come_in_time_are_no_events() {
    let names: Vec<String> = (0..500).map(|n| format!("b{n}")).collect();
    let long = || act("a").timeouts(heartbeat(10)).start_to_close(Span::from_secs(7_200));
    let branches = names.iter().map(|name| (name.as_str(), vec![long()])).collect();
    let mut run = run(vec![parallel("all", branches)]);
    let tasks: Vec<_> = run.state.open_tasks().map(|view| view.open.task).collect();
    for task in &tasks {
        let (task, by) = (*task, "one".into());
        run.take(Input::TaskClaimed { task, by });
    }
    let before = run.events().len();
    let beats = |at: Timestamp, details: u64| {
        let of = |task: &TaskNo| {
            let details = Some(Arc::new(json!(details)));
            (*task, Beat { began: at, at, details })
        };
        tasks.iter().map(of).collect()
    };
    let mut last = run.now;
    for n in 0..240 {
        run.later(5);
        last = run.now;
        let heard = Horizon {
            heard: beats(last, n),
            ..run.horizon(true)
        };
        run.ignores(Input::Wake(heard));
        let next = run.state.wake_if(|_| Some(last));
        assert_eq!(next, Some(last.plus(Span::from_secs(10))));
    }
    assert_eq!(run.events().len(), before, "events of 20 minutes");
    assert!(
        run.state.wake_at().unwrap() < run.now,
        "whoever takes over looks at once"
    );
    run.later(10);
    let heard = Horizon {
        heard: beats(last, 239),
        ..run.horizon(true)
    };
    run.take(Input::Wake(heard));
    let ended = run
        .last_events()
        .iter()
        .filter(|event| matches!(event, Event::TaskTimedOut { .. }));
    assert_eq!(ended.count(), 500);
    let kept = run
        .state
        .executions(Direction::Do)
        .values()
        .map(|it| it.details.as_deref().cloned());
    assert!(kept.into_iter().all(|details| details == Some(json!(239))));
}

#[test]
fn a_silent_worker_is_lost() {
    let mut run = run(vec![act("a").attempts(Some(2)).start_to_close(Span::from_secs(3_600))]);
    let task = run.task("do a");
    run.later(20);
    run.take(Input::WorkerSilent { task });
    run.ignores(Input::WorkerSilent { task });
    // A result in the log comes first.
    let behind = Horizon {
        log_read_to: Timestamp(run.now.0 - 1),
        ..run.horizon(true)
    };
    run.ignores(Input::Wake(behind));
    run.wake();
    assert!(matches!(run.last_events()[0], Event::TaskLost { .. }));
    run.wake_next();
    assert_eq!(run.dispatched(), ["do a", "do a#2"]);
}

#[test]
fn a_silent_worker_that_speaks_again_is_there() {
    let mut run = run(vec![act("a").start_to_close(Span::from_secs(3_600))]);
    let task = run.task("do a");
    run.take(Input::WorkerSilent { task });
    assert!(run.beat("do a", None));
    assert_eq!(run.state.open_tasks().next().unwrap().open.silent_at, None);
    run.wake();
    assert!(run.state.is_open(task));
}

#[test]
fn a_task_that_nobody_took_in_time_is_taken_back() {
    let mut run = run(vec![act("a").attempts(None).timeouts(to_start(5))]);
    let task = run.task("do a");
    assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(5))));
    run.later(5);
    assert_eq!(run.state.overdue_queues(run.now), ["main".into()]);
    let effects = run.wake_in_backlog();
    assert!(matches!(&effects[..], [Effect::Withdraw { task: asked, .. }] if *asked == task));
    let timeout = Unstarted::ScheduleToStart;
    assert_eq!(run.state.open_tasks().next().unwrap().open.withdrawn_for, Some(timeout));
    assert!(run.state.overdue_queues(run.now).is_empty(), "it is known by now");
    // Whoever takes over asks again, and so does the run itself.
    let seq = run.state.seq();
    let again = crate::run::effects_still_wanted(&run.state, seq, seq);
    assert_eq!(again, effects);
    run.later(30);
    assert_eq!(run.wake_in_backlog(), effects);
    run.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(run.message(), "no worker took the task within 5000 ms");
    assert_eq!(run.outcome("a"), StepOutcome::Failed);
    assert!(run.undone().is_empty());
}

/// In a backlog of one age nobody can tell by time which tasks have been delivered; the queue can, of each.
#[test]
fn a_task_that_cannot_be_taken_back_was_delivered() {
    let asked = |timeouts: Timeouts, seconds: u64| {
        let mut run = super::dsl::run(vec![act("a").attempts(Some(1)).timeouts(timeouts)]);
        let task = run.task("do a");
        run.later(seconds);
        run.wake_in_backlog();
        (run, task)
    };
    let (mut run, task) = asked(to_start(5), 5);
    run.take(Input::Withdrawn { task, withdrawn: false });
    assert!(matches!(run.last_events(), [Event::TaskDelivered { .. }]));
    assert_eq!(
        run.state.wake_at(),
        Some(run.now.plus(Span::from_secs(10))),
        "start-to-close"
    );
    run.ignores(Input::Withdrawn { task, withdrawn: true });
    run.later(9);
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
    let (mut run, task) = asked(to_start(5), 5);
    run.take(Input::Withdrawn { task, withdrawn: false });
    run.wake_next();
    assert_eq!(run.message(), "no outcome within 10000 ms of being taken");
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
    // Past schedule-to-close it is late all the same; a result that the log has comes first.
    let (mut run, task) = asked(to_close(7), 7);
    run.take(Input::Withdrawn { task, withdrawn: false });
    let behind = Horizon {
        log_read_to: Timestamp(0),
        ..run.horizon(true)
    };
    run.ignores(Input::Wake(behind));
    run.wake();
    assert_eq!(run.message(), "not done within 7000 ms of being scheduled");
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
}

#[test]
fn a_task_that_is_claimed_while_it_is_taken_back_is_its_workers() {
    let mut run = run(vec![act("a").attempts(Some(1)).timeouts(to_start(5))]);
    let task = run.task("do a");
    run.later(5);
    run.wake_in_backlog();
    run.take(Input::TaskClaimed { task, by: "one".into() });
    run.ignores(Input::Withdrawn { task, withdrawn: false });
    run.later(9);
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_result_that_comes_while_a_task_is_taken_back_counts() {
    let mut run = run(vec![act("a").timeouts(to_start(5))]);
    let task = run.task("do a");
    run.later(5);
    run.wake_in_backlog();
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
    run.ignores(Input::Withdrawn { task, withdrawn: false });
}

#[test]
fn a_delivered_task_is_not_taken_back() {
    let mut run = run(vec![act("a").timeouts(to_start(5))]);
    run.later(5);
    assert_eq!(run.wake(), Some(vec![]));
    assert!(matches!(run.last_events(), [Event::TaskDelivered { .. }]));
    // Nor one whose worker has beaten.
    let mut run = super::dsl::run(vec![act("a").timeouts(to_start(5))]);
    run.later(5);
    assert!(run.beat("do a", None));
    assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(10))));
}

#[test]
fn a_task_that_its_stream_refused_is_not_out() {
    for (in_doubt, outcome) in [(false, StepOutcome::Failed), (true, StepOutcome::Unknown)] {
        let mut run = run(vec![act("a").timeouts(to_start(1))]);
        let task = run.task("do a");
        run.take(Input::DispatchHeld { task, in_doubt });
        run.later(1);
        run.wake();
        assert_eq!(run.outcome("a"), outcome, "in doubt: {in_doubt}");
        assert_eq!(run.message(), "no worker took the task within 1000 ms");
    }
}

#[test]
fn schedule_to_close_spans_the_attempts() {
    let mut run = run(vec![act("a").attempts(None).timeouts(to_close(10))]);
    let began = run.now;
    run.fail("do a");
    run.wake_next();
    run.fail("do a");
    run.wake_next();
    run.fail("do a");
    // 1 s, 2 s, and the next pause of 4 s: still within 10 s. The one after it is not.
    run.wake_next();
    assert_eq!(run.dispatched().len(), 4);
    assert!(run.now.since(began) < Span::from_secs(10));
    run.fail("do a");
    assert_eq!(run.outcome("a"), StepOutcome::Failed, "it was never unknown");
    assert_eq!(run.message(), "no", "the last error says more than the timeout");
}

#[test]
fn an_attempt_ends_at_schedule_to_close() {
    let mut run = run(vec![act("a").attempts(None).timeouts(to_close(7))]);
    run.later(7);
    run.wake();
    assert!(matches!(
        run.last_events()[..2],
        [Event::TaskDelivered { .. }, Event::TaskTimedOut { .. }]
    ));
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
    assert_eq!(run.message(), "not done within 7000 ms of being scheduled");
    // In its queue it is taken back instead.
    let mut run = super::dsl::run(vec![act("a").attempts(None).timeouts(to_close(7))]);
    let task = run.task("do a");
    run.later(7);
    run.wake_in_backlog();
    run.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(run.outcome("a"), StepOutcome::Failed);
}

#[test]
fn a_worker_that_asks_for_time_does_not_get_it_past_schedule_to_close() {
    let mut run = run(vec![act("a").attempts(None).timeouts(to_close(7))]);
    let after = seconds(3_600);
    run.end("do a", TaskOutcome::RetryLater { after });
    assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(7))));
    run.wake_next();
    assert_eq!(run.outcome("a"), StepOutcome::Unknown, "it may be running somewhere");
    assert_eq!(run.message(), "not done within 7000 ms of being scheduled");
}

#[test]
fn an_undo_past_schedule_to_close_waits_for_an_operator() {
    let mut run = run(vec![act("a").undo_attempts(100).undo_timeouts(to_close(60)), act("b")]);
    run.complete("do a");
    run.fail("do b");
    run.time_out("undo a");
    while run.status() != Status::Parked {
        run.wake_next();
    }
    run.operate("a", crate::run::input::ParkedAction::Retry);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn what_only_goes_forward_is_not_cut() {
    for timeouts in [to_close(5), to_start(5)] {
        let mut run = run(vec![
            act("p").pivot(true),
            act("a").attempts(Some(1)).timeouts(timeouts),
        ]);
        run.complete("do p");
        run.later(6);
        run.wake_in_backlog();
        assert!(matches!(run.last_events(), [Event::TimeoutVoided { .. }]));
        run.fail("do a");
        run.wake_next();
        run.complete("do a");
        assert_eq!(run.status(), Status::Completed);
    }
}

#[test]
fn a_pivot_past_schedule_to_close_that_may_have_been_done_goes_on() {
    let mut run = run(vec![act("p").pivot(true).timeouts(to_close(5))]);
    run.later(5);
    run.wake();
    assert_eq!(run.status(), Status::Running);
    run.wake_next();
    run.wake_next();
    run.complete("do p");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn the_task_says_when_it_is_late() {
    let close_by = |run: &Run| Some(run.now.plus(Span::from_secs(30)));
    let run = run(vec![act("a").timeouts(to_close(30))]);
    assert_eq!(run.last_dispatch().deadline, close_by(&run));
    let run = Run::of(with_timeout(plan(vec![act("a").timeouts(to_close(30))]), 60));
    assert_eq!(run.last_dispatch().deadline, close_by(&run));
    let run = Run::of(with_timeout(plan(vec![act("a").timeouts(to_close(60))]), 30));
    assert_eq!(run.last_dispatch().deadline, close_by(&run));
}

/// A branch under way, cancelled with its run.
fn cancelled(cancellation: Cancellation) -> (Run, Vec<Effect>) {
    let mut run = run(vec![act("a").timeouts(heartbeat(5)).cancellation(cancellation)]);
    run.later(5);
    run.beat("do a", None);
    let effects = run.take(Input::Cancel(by("ann")));
    (run, effects)
}

#[test]
fn try_cancel_waits_within_the_timeouts() {
    let (mut run, effects) = cancelled(Cancellation::default());
    assert!(matches!(effects[..], [Effect::CancelTask { .. }]));
    assert!(!run.last_dispatch().waits_cancelled);
    while run.undone().is_empty() {
        run.beat("do a", None);
        run.wake_next();
    }
    assert_eq!(
        run.outcome("a"),
        StepOutcome::Unknown,
        "start-to-close has ended the wait"
    );
}

#[test]
fn wait_cancelled_waits_for_the_worker() {
    let (mut run, effects) = cancelled(Cancellation::WaitCancelled);
    assert!(matches!(effects[..], [Effect::CancelTask { .. }]));
    assert!(run.last_dispatch().waits_cancelled);
    for _ in 0..20 {
        run.later(4);
        run.beat("do a", None);
        run.wake();
    }
    assert_eq!(run.status(), Status::Compensating, "however long it takes");
    run.end("do a", TaskOutcome::Cancelled);
    assert_eq!(run.status(), Status::Cancelled);
    // A worker that falls silent ends it.
    let (mut run, _) = cancelled(Cancellation::WaitCancelled);
    run.later(5);
    run.wake();
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn wait_cancelled_is_nothing_to_a_run_that_goes_on() {
    let mut run = run(vec![act("a").cancellation(Cancellation::WaitCancelled)]);
    run.time_out("do a");
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
}

#[test]
fn abandon_waits_for_nobody() {
    let (mut run, effects) = cancelled(Cancellation::Abandon);
    let asked = |effect: &Effect| matches!(effect, Effect::CancelTask { .. });
    assert!(!effects.iter().any(asked), "{effects:?}");
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
    assert_eq!(run.undone(), ["undo a"], "at once");
    let task = crate::ids::TaskNo(1);
    assert!(run.state.is_abandoned(task));
    // What it did after all gives the undo what it had to do without, if that is not too late.
    run.take(Input::TaskEnded {
        task,
        outcome: done(json!({"id": 1})),
    });
    run.complete("undo a");
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn an_abandoned_task_that_is_not_out_was_not_done() {
    let mut run = run(vec![act("a").cancellation(Cancellation::Abandon)]);
    let task = run.task("do a");
    run.take(Input::DispatchHeld { task, in_doubt: false });
    run.take(Input::Cancel(by("ann")));
    assert_eq!(run.outcome("a"), StepOutcome::Cancelled);
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn a_task_that_is_finished_later_is_not_lost() {
    let mut run = run(vec![
        act("a").start_to_close(Span::from_secs(7_200)).timeouts(heartbeat(600)),
    ]);
    let task = run.task("do a");
    run.take(Input::TaskLeft { task });
    run.ignores(Input::TaskLeft { task });
    run.ignores(Input::WorkerSilent { task });
    // Its timeouts go on, and so do its heartbeats.
    let start = run.now;
    assert_eq!(run.state.wake_at(), Some(start.plus(Span::from_secs(600))));
    run.later(600);
    assert!(run.beat("do a", Some(json!("half"))));
    run.later(500);
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
    let mut run = super::dsl::run(vec![act("a").start_to_close(Span::from_secs(7_200))]);
    let task = run.task("do a");
    run.take(Input::TaskLeft { task });
    run.later(7_200);
    run.wake();
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
}

#[test]
fn a_claim_is_granted_once() {
    let mut run = run(vec![act("a").attempts(Some(1))]);
    let task = run.task("do a");
    let claim = |by: &str| Input::TaskClaimed { task, by: by.into() };
    run.take(claim("one"));
    let holder = |run: &Run| run.state.open_tasks().next().unwrap().open.claimed.clone();
    assert_eq!(holder(&run).as_deref(), Some("one"));
    run.ignores(claim("one"));
    run.ignores(claim("two"));
    assert_eq!(holder(&run).as_deref(), Some("one"));
    run.complete("do a");
    run.ignores(claim("one"));
}

#[test]
fn a_claim_that_is_never_resolved_ends_unknown() {
    let mut run = run(vec![act("a").attempts(Some(1))]);
    let task = run.task("do a");
    run.later(8);
    run.take(Input::TaskClaimed { task, by: "one".into() });
    assert_eq!(
        run.state.wake_at(),
        Some(run.now.plus(Span::from_secs(10))),
        "start-to-close"
    );
    run.wake_next();
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
    assert_eq!(run.dispatched(), ["do a", "undo a"]);
}

#[test]
fn a_task_that_is_not_wanted_is_not_given_away() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    run.take(Input::Cancel(by("ann")));
    run.ignores(Input::TaskClaimed { task, by: "one".into() });
}

#[test]
fn a_run_that_is_parked_hears_nothing() {
    let mut run = run(vec![act("a").timeouts(to_start(1))]);
    let task = run.task("do a");
    run.later(1);
    run.wake_in_backlog();
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.later(1);
    let beat = Beat {
        began: run.now,
        at: run.now,
        details: Some(json!(1).into()),
    };
    run.ignores(Input::Heartbeat { task, beat });
    run.ignores(Input::WorkerSilent { task });
    run.ignores(Input::TaskClaimed { task, by: "one".into() });
    run.ignores(Input::TaskLeft { task });
    run.ignores(Input::Withdrawn { task, withdrawn: true });
}
