//! Tasks of steps that are halted while nobody is known to have them.
//!
//! | the queue says | cancellation | the step |
//! |---|---|---|
//! | nobody has had it | try_cancel, wait_cancelled | cancelled at once, and surely not done |
//! | delivered, or not there | try_cancel | as ever: the worker's word, or its timeouts |
//! | delivered, or not there | wait_cancelled | the worker's word, or its loss |
//! | not asked | abandon | unknown at once |

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{Cancellation, Join, Losers, Timeouts};
use crate::ids::TaskNo;
use crate::run::effect::Effect;
use crate::run::event::StepOutcome;
use crate::run::execution::{Known, Unstarted};
use crate::run::input::{Input, TaskOutcome, Terms};
use crate::run::{Event, Status};
use crate::time::Span;

/// One whose tasks are taken out of their queues.
fn begun(plan: crate::definition::plan::Plan) -> Run {
    let terms = Terms {
        withdraws: true,
        ..Terms::default()
    };
    Run::under(terms, plan, begin(json!({"customer": "c1"}))).unwrap()
}

fn run(steps: Vec<Def>) -> Run {
    begun(plan(steps))
}

fn asked(effects: &[Effect]) -> Vec<TaskNo> {
    let asked = effects.iter().filter_map(|effect| match effect {
        Effect::Withdraw { task, .. } => Some(*task),
        _ => None,
    });
    asked.collect()
}

fn cancel(run: &mut Run) -> Vec<TaskNo> {
    asked(&run.take(Input::Cancel(by("ann"))))
}

#[test]
fn a_cancelled_run_takes_its_task_out_of_the_queue_and_is_undone_at_once() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    let task = run.task("do b");
    assert_eq!(cancel(&mut run), [task]);
    assert!(run.undone().is_empty(), "its queue is being asked");
    let open = run.state.open_tasks().next().unwrap().open.clone();
    assert_eq!(open.withdrawn_for, Some(Unstarted::NotNeeded));
    // Whoever takes over asks, and so does the run itself, and nothing is dispatched again.
    let ever = crate::run::effects_still_wanted(&run.state, 1, run.state.seq());
    assert_eq!((asked(&ever), dispatches(&ever).len()), (vec![task], 0));
    assert_eq!(asked(&run.wake_next().unwrap()), [task]);
    run.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(run.outcome("b"), StepOutcome::Cancelled);
    assert_eq!(run.undone(), ["undo a"], "`b` was surely not done");
    run.complete("undo a");
    assert_eq!(run.status(), Status::Cancelled);
    run.ignores(Input::Withdrawn { task, withdrawn: true });
}

#[test]
fn a_task_that_was_delivered_is_waited_for_as_ever() {
    let delivered = |cancellation| {
        let mut run = run(vec![act("a").timeouts(heartbeat(5)).cancellation(cancellation)]);
        let task = run.task("do a");
        assert_eq!(cancel(&mut run), [task]);
        run.take(Input::Withdrawn { task, withdrawn: false });
        assert_eq!(run.state.open_tasks().next().unwrap().open.known, Known::Delivered);
        (run, task)
    };
    for cancellation in [Cancellation::TryCancel, Cancellation::WaitCancelled] {
        let (mut run, task) = delivered(cancellation);
        run.take(Input::TaskEnded {
            task,
            outcome: TaskOutcome::Cancelled,
        });
        assert_eq!(run.status(), Status::Cancelled, "{cancellation:?}");
        let (mut run, _) = delivered(cancellation);
        run.complete("do a");
        assert_eq!(run.undone(), ["undo a"], "{cancellation:?}");
        // Nobody answers.
        let (mut run, _) = delivered(cancellation);
        run.wake_next();
        assert_eq!(run.outcome("a"), StepOutcome::Unknown, "{cancellation:?}");
        assert_eq!(run.undone(), ["undo a"]);
    }
}

fn heartbeat(seconds: u64) -> Timeouts {
    Timeouts {
        heartbeat: Some(Span::from_secs(seconds)),
        ..Timeouts::default()
    }
}

#[test]
fn whoever_is_left_alone_is_not_asked() {
    let mut run = run(vec![act("a").cancellation(Cancellation::Abandon)]);
    assert_eq!(cancel(&mut run), []);
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
}

#[test]
fn a_task_that_a_worker_is_known_to_have_is_left_where_it_is() {
    let mut run = run(vec![act("a")]);
    let task = run.task("do a");
    run.take(Input::TaskClaimed { task, by: "one".into() });
    assert_eq!(cancel(&mut run), []);
}

#[test]
fn a_queue_that_never_answers_uses_up_few_events() {
    let mut run = run(vec![act("a")]);
    cancel(&mut run);
    let (began, mut times) = (run.now, 0);
    while run.now.since(began) < Span::from_secs(86_400) {
        assert_eq!(asked(&run.wake_next().unwrap()).len(), 1);
        times += 1;
    }
    assert!((100..200).contains(&times), "{times} in a day");
}

/// It undoes nothing and waits for nobody; what it has left in queues is done by nobody either.
#[test]
fn a_terminated_run_takes_its_tasks_out_of_their_queues() {
    let branches = vec![
        ("x", vec![act("a")]),
        ("y", vec![act("b")]),
        ("z", vec![act("c").cancellation(Cancellation::Abandon)]),
    ];
    let mut run = run(vec![parallel("split", branches)]);
    let (task, claimed) = (run.task("do split.x.a"), run.task("do split.y.b"));
    run.take(Input::TaskClaimed {
        task: claimed,
        by: "one".into(),
    });
    let effects = run.take(Input::Terminate(by("ann")));
    assert_eq!(asked(&effects), [task], "nobody is known to have it");
    let seq = run.state.seq();
    let owed = crate::run::effects_still_wanted(&run.state, seq, seq);
    assert_eq!(asked(&owed), [task], "whoever takes over asks");
    let before = crate::run::effects_still_wanted(&run.state, 1, seq - 1);
    assert_eq!((asked(&before), dispatches(&before).len()), (vec![], 0));
    for withdrawn in [true, false] {
        run.ignores(Input::Withdrawn { task, withdrawn });
    }
    // While its queue is being asked already, and of an undo.
    let mut run = self::run(vec![act("a")]);
    let task = cancel(&mut run)[0];
    assert_eq!(asked(&run.take(Input::Terminate(by("ann")))), [task]);
    let mut run = self::run(vec![act("a"), act("b")]);
    run.complete("do a");
    run.fail("do b");
    let task = run.task("undo a");
    assert_eq!(asked(&run.take(Input::Terminate(by("ann")))), [task]);
    // What its stream refused is in no queue, unless an earlier try is in doubt.
    for in_doubt in [false, true] {
        let mut run = self::run(vec![act("a")]);
        let task = run.task("do a");
        run.take(Input::DispatchHeld { task, in_doubt });
        assert_eq!(!asked(&run.take(Input::Terminate(by("ann")))).is_empty(), in_doubt);
    }
    let mut earlier = Run::of(plan(vec![act("a")]));
    assert_eq!(asked(&earlier.take(Input::Terminate(by("ann")))), []);
}

/// Its result comes while the queue is asked, or it is claimed then.
#[test]
fn a_worker_that_is_quicker_is_heard() {
    let mut run = run(vec![act("a")]);
    let task = cancel(&mut run)[0];
    run.complete("do a");
    run.ignores(Input::Withdrawn { task, withdrawn: false });
    assert_eq!(run.undone(), ["undo a"]);
}

/// A replica that was stalled has published it once more.
#[test]
fn a_late_success_of_a_task_that_was_taken_out_is_undone() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    let task = cancel(&mut run)[0];
    run.take(Input::Withdrawn { task, withdrawn: true });
    run.take(Input::TaskEnded {
        task,
        outcome: done(json!({"id": "b-1"})),
    });
    run.complete("undo a");
    assert_eq!(run.undone(), ["undo a", "undo b"]);
}

#[test]
fn an_earlier_attempt_that_is_unknown_stays_so() {
    let mut run = run(vec![act("a").attempts(Some(3))]);
    run.end("do a", unknown());
    run.wake_next();
    let task = cancel(&mut run)[0];
    run.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(run.outcome("a"), StepOutcome::Unknown);
    assert_eq!(run.undone(), ["undo a"]);
}

#[test]
fn siblings_of_a_step_that_failed_and_losers_are_taken_out_as_well() {
    let two = || parallel("split", vec![("x", vec![act("a")]), ("y", vec![act("b")])]);
    let mut run = run(vec![two()]);
    let task = asked(&run.fail("do split.x.a"))[0];
    run.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(run.status(), Status::Failed, "there is nothing to undo");

    let mut run = self::run(vec![two().join(Join::Any).losers(Losers::Undo), act("z")]);
    let task = asked(&run.complete("do split.x.a"))[0];
    run.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(run.dispatched().last().unwrap(), "do z");
}

#[test]
fn a_run_past_its_timeout_does_not_wait_for_its_queue() {
    let mut run = begun(with_timeout(
        plan(vec![act("a").start_to_close(Span::from_secs(3_600))]),
        60,
    ));
    run.later(60);
    let effects = run.wake_in_backlog();
    run.take(Input::Withdrawn {
        task: asked(&effects)[0],
        withdrawn: true,
    });
    assert_eq!(run.status(), Status::TimedOut);
}

#[test]
fn a_pivot_that_nobody_has_is_taken_out_and_one_that_may_have_been_done_is_not() {
    let mut run = run(vec![act("a"), act("p").pivot(true)]);
    run.complete("do a");
    let task = cancel(&mut run)[0];
    run.take(Input::Withdrawn { task, withdrawn: true });
    assert_eq!(run.undone(), ["undo a"]);

    let mut run = self::run(vec![act("a"), act("p").pivot(true)]);
    run.complete("do a");
    run.end("do p", unknown());
    run.wake_next();
    assert_eq!(cancel(&mut run), []);
    assert_eq!(run.status(), Status::Running);
}

/// The second branch fails before anything of the first has gone out.
#[test]
fn what_is_opened_and_halted_at_once_never_goes_out() {
    let split = parallel("split", vec![("x", vec![act("a")]), ("y", vec![fail("no", "Refused")])]);
    let run = run(vec![split]);
    assert_eq!(run.status(), Status::Failed);
    assert!(run.sent.iter().all(|effect| !matches!(effect, Effect::Dispatch(_))));
}

/// Whoever takes over may not be able to read it.
#[test]
fn a_run_of_an_earlier_version_does_not_ask() {
    let mut run = Run::under(Terms::default(), plan(vec![act("a")]), begin(json!({}))).unwrap();
    assert_eq!(cancel(&mut run), []);
    for _ in 0..100 {
        run.now = run.state.wake_at().unwrap().max(run.now);
        run.wake_in_backlog();
    }
    assert_eq!(run.status(), Status::Compensating);
    assert!(matches!(run.last_events(), [Event::DeadlineDeferred { .. }]));
}
