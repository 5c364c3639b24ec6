//! Start-to-close, the run's timeout, held dispatches, and what each waits for.

use std::collections::BTreeMap;

use serde_json::json;

use super::dsl::*;
use crate::run::input::{Horizon, Input, TaskOutcome, Terms, WorkerError};
use crate::run::{Event, Known, Status};
use crate::time::{Span, Timestamp};

const SECOND: Span = Span::from_secs(1);

fn horizon(log_read_to: Timestamp, delivered_to: Option<Timestamp>) -> Input {
    Input::Wake(Horizon {
        log_read_to,
        delivered_to: delivered_to
            .map(|at| ("main".into(), at))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        listening_since: Timestamp::default(),
        heard: Default::default(),
    })
}

#[test]
fn a_task_that_nobody_has_taken_is_not_late() {
    let mut run = run(vec![act("a").attempts(Some(1))]);
    let opened = run.now;
    for _ in 0..3 {
        run.now = run.state.wake_at().unwrap();
        assert_eq!(run.state.overdue_queues(run.now), ["main".into()]);
        // It stays due until it is known how far the queue has delivered.
        run.ignores(horizon(run.now, None));
        run.take(horizon(run.now, Some(Timestamp(opened.0 - 1))));
        assert!(matches!(run.last_events(), [Event::DeadlineDeferred { .. }]));
        assert!(run.state.wake_at().unwrap() > run.now);
    }
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn looks_at_an_undelivered_task_become_rarer_up_to_a_minute() {
    let mut run = run(vec![act("a")]);
    let mut pauses = vec![];
    for _ in 0..6 {
        run.now = run.state.wake_at().unwrap();
        run.take(horizon(run.now, Some(Timestamp(0))));
        pauses.push(run.state.wake_at().unwrap().since(run.now).as_millis() / 1_000);
    }
    assert_eq!(pauses, [10, 20, 40, 60, 60, 60]);
}

/// A run may have 50,000 events, and a queue may be without workers for a night.
#[test]
fn a_backlog_does_not_fill_a_run_with_looks() {
    for (items, days) in [(300, 1), (1, 60)] {
        let list: Vec<usize> = (0..items).collect();
        let mut run = run(vec![for_each("each", json!(list), vec![act("a")])]);
        let end = run.now.plus(Span::from_secs(days * 24 * 3_600));
        while run.now < end {
            run.now = run.state.wake_at().expect("it is not parked");
            run.take(horizon(run.now, Some(Timestamp(0))));
        }
        assert_eq!(run.status(), Status::Running);
        let events = run.events().len();
        assert!(events < 10_000, "{events} events of {items} in {days} days");
    }
}

#[test]
fn start_to_close_counts_from_when_the_task_is_known_to_be_delivered() {
    let mut run = run(vec![act("a")]);
    let opened = run.now;
    run.later(25);
    assert_eq!(run.take(horizon(run.now, Some(opened))), []);
    assert!(matches!(run.last_events(), [Event::TaskDelivered { .. }]));
    assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(10))));
    assert!(run.state.overdue_queues(run.now).is_empty());
    run.now = run.state.wake_at().unwrap();
    run.take(horizon(run.now, None));
    assert!(matches!(run.last_events()[0], Event::TaskTimedOut { .. }));
}

#[test]
fn a_timeout_fires_only_when_the_log_has_been_read_that_far() {
    let mut run = run(vec![act("a")]);
    run.later(10);
    run.wake();
    run.later(100);
    let due = run.state.wake_at().unwrap();
    run.ignores(horizon(Timestamp(due.0 - 1), Some(run.now)));
    assert_eq!(run.state.wake_at(), Some(due), "it stays due");
    run.take(horizon(due, None));
    assert!(matches!(run.last_events()[0], Event::TaskTimedOut { .. }));
}

#[test]
fn a_beat_is_recorded_only_where_it_decides() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    let opened = run.now;
    let began = opened.plus(Span::from_secs(7));
    run.later(8);
    run.ignores(Input::TaskStarted { task, at: began });
    run.later(4);
    run.take(Input::TaskStarted { task, at: began });
    assert_eq!(run.state.wake_at(), Some(began.plus(Span::from_secs(10))));
    run.ignores(Input::TaskStarted { task, at: began });
    run.now = run.state.wake_at().unwrap();
    run.take(horizon(run.now, None));
    assert!(matches!(run.last_events()[0], Event::TaskTimedOut { .. }));
    run.ignores(Input::TaskStarted { task, at: began });
}

#[test]
fn a_workers_clock_cannot_move_a_deadline_out_of_reach() {
    for (claimed, counted_from) in [(i64::MAX, 20), (i64::MIN, 0)] {
        let mut run = run(vec![act("a")]);
        let (task, opened) = (run.task("do a"), run.now);
        run.later(20);
        run.take(Input::TaskStarted {
            task,
            at: Timestamp(claimed),
        });
        let due = opened.plus(Span::from_secs(counted_from + 10));
        assert_eq!(run.state.wake_at(), Some(due));
    }
}

#[test]
fn a_held_task_is_offered_again_and_its_time_does_not_run() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    for (offer, pause_ms) in [(1, 250), (2, 500), (3, 1_000)] {
        run.take(Input::DispatchHeld { task, in_doubt: false });
        run.ignores(Input::DispatchHeld { task, in_doubt: false });
        assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_millis(pause_ms))));
        assert!(run.state.overdue_queues(Timestamp::MAX).is_empty());
        run.now = run.state.wake_at().unwrap();
        run.take(Input::Wake(Horizon::default()));
        let dispatch = run.last_dispatch();
        assert_eq!((dispatch.task, dispatch.offer, dispatch.attempt), (task, offer, 1));
        assert_eq!(run.state.wake_at(), Some(run.now.plus(Span::from_secs(10))));
    }
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_result_for_a_held_task_counts() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    run.take(Input::DispatchHeld { task, in_doubt: false });
    run.complete("do a");
    assert_eq!(run.status(), Status::Completed);
    run.ignores(Input::DispatchHeld { task, in_doubt: false });
}

/// A full stream says nothing of an earlier try that was not acknowledged.
#[test]
fn a_task_that_was_refused_in_doubt_may_have_been_done() {
    // (refused before the run is cancelled; each time in doubt; undone)
    let table = [
        (true, vec![false], false),
        (true, vec![true], true),
        (true, vec![true, false], true),
        (true, vec![false, true], true),
        (false, vec![false], false),
        (false, vec![true], true),
    ];
    for (before, doubts, undone) in table {
        let mut run = run(vec![act("a")]);
        let task = run.task("do a");
        if !before {
            run.take(Input::Cancel(by("ann")));
        }
        for (index, in_doubt) in doubts.iter().copied().enumerate() {
            if index > 0 {
                run.now = run.state.wake_at().unwrap();
                run.take(Input::Wake(Horizon::default()));
            }
            run.take(Input::DispatchHeld { task, in_doubt });
        }
        if before {
            run.take(Input::Cancel(by("ann")));
        }
        let dispatched = !run.undone().is_empty();
        assert_eq!(dispatched, undone, "{before} {doubts:?}");
    }
}

/// One copy is with a worker, and the other one's worker answers.
#[test]
fn what_one_worker_says_of_a_task_that_two_may_have_is_not_known_of_the_step() {
    let not_done = TaskOutcome::Failed(WorkerError {
        not_done: true,
        ..error("Refused")
    });
    let later = TaskOutcome::RetryLater { after: None };
    // (in doubt, offered again, answers, undone)
    let table = [
        (true, true, vec![TaskOutcome::Cancelled], true),
        (true, true, vec![failed("Refused")], true),
        (true, true, vec![not_done.clone()], false),
        (true, true, vec![later.clone(), failed("Refused")], true),
        (true, true, vec![later, not_done], false),
        // There is no other copy.
        (true, false, vec![TaskOutcome::Cancelled], false),
        (true, false, vec![failed("Refused")], false),
        (false, true, vec![TaskOutcome::Cancelled], false),
        (false, true, vec![failed("Refused")], false),
    ];
    for (in_doubt, again, answers, undone) in table {
        let terms = Terms {
            withdraws: true,
            ..Terms::default()
        };
        let mut run = Run::under(terms, plan(vec![act("a")]), begin(json!({}))).unwrap();
        let task = run.task("do a");
        run.take(Input::DispatchHeld { task, in_doubt });
        if again {
            run.now = run.state.wake_at().unwrap();
            run.take(Input::Wake(Horizon::default()));
            assert_eq!(run.last_dispatch().offer, 1);
        }
        for (index, answer) in answers.iter().enumerate() {
            if index > 0 {
                run.wake_next();
            }
            run.end("do a", answer.clone());
        }
        assert_eq!(!run.undone().is_empty(), undone, "{in_doubt} {again} {answers:?}");
    }
}

#[test]
fn a_refusal_that_comes_while_the_run_stops_ends_the_step() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    run.take(Input::Cancel(by("ann")));
    run.take(Input::DispatchHeld { task, in_doubt: false });
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn the_runs_timeout_stops_it_and_undoes_and_does_not_cut_the_undo() {
    let mut run = Run::of(with_timeout(plan(vec![act("a"), act("b").start_to_close(SECOND)]), 60));
    let deadline = run.now.plus(Span::from_secs(60));
    assert_eq!(run.last_dispatch().deadline, Some(deadline));
    run.complete("do a");
    run.later(61);
    run.ignores_timeout_before_its_horizon(deadline);
    run.wake();
    assert_eq!(run.status(), Status::Compensating);
    assert_eq!(run.state.failure().unwrap().error_type.as_ref(), "timeout");
    run.end("do b", TaskOutcome::Cancelled);
    assert_eq!(run.last_dispatch().deadline, None);
    run.later(1_000);
    run.complete("undo a");
    assert_eq!(run.status(), Status::TimedOut);
}

impl Run {
    fn ignores_timeout_before_its_horizon(&mut self, deadline: Timestamp) {
        let mut copy = self.state.clone();
        let wake = horizon(Timestamp(deadline.0 - 1), None);
        // The open task may be deferred; the run may not be stopped.
        crate::run::apply(&self.plan, &mut copy, wake, self.now).unwrap();
        assert_eq!(copy.status(), Status::Running);
    }
}

#[test]
fn what_was_due_first_happens_first() {
    // The only attempt timed out before the run did, and both are noticed at once.
    let mut run = Run::of(with_timeout(plan(vec![act("a")]), 15));
    run.wake_next();
    assert_eq!(run.state.open_tasks().next().unwrap().open.known, Known::Delivered);
    run.later(100);
    run.wake();
    run.complete("undo a");
    assert_eq!(
        run.status(),
        Status::TimedOut,
        "start-to-close was due at 20 s, the run at 15 s"
    );
    let mut run = Run::of(with_timeout(plan(vec![act("a").start_to_close(SECOND)]), 15));
    run.wake_next();
    run.later(100);
    run.wake();
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated, "start-to-close was due at 2 s");
}

#[test]
fn nothing_fires_early() {
    let mut run = Run::of(with_timeout(plan(vec![act("a").attempts(None)]), 60));
    run.fail("do a");
    let due = run.state.wake_at().unwrap();
    run.now = Timestamp(due.0 - 1);
    assert!(run.wake().is_none());
    run.now = due;
    assert!(run.wake().is_some());
}

#[test]
fn an_undo_times_out_like_a_do() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.end("do b", failed("X"));
    run.time_out("undo a");
    run.wake_next();
    assert_eq!(run.undone(), ["undo a", "undo a#2"]);
    run.end("undo a", done(json!(null)));
    assert_eq!(run.status(), Status::Compensated);
}
