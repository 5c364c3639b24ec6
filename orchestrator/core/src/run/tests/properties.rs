//! Random plans under random inputs. `Run` itself checks after every transition that folding the stored events gives the
//! state; what is checked here is what may happen at all, and that every run ends. `PROPTEST_CASES` sets how many.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::dsl::*;
use crate::definition::plan::{NodeKind, OnFailure, Plan};
use crate::ids::{StepPath, TaskNo};
use crate::run::effect::{Direction, Effect};
use crate::run::event::StepOutcome;
use crate::run::input::{AnswerOn, Horizon, Input, ParkedAction, Rejected, TaskOutcome, WorkerError};
use crate::run::{Event, Status, UndoState};
use crate::time::{Span, Timestamp};

#[derive(Debug, Clone)]
enum Op {
    /// About any task there ever was.
    Outcome(usize, Said),
    /// About one that is open.
    OpenOutcome(usize, Said),
    Started(usize, u64),
    Lost(usize),
    Held(usize),
    Wake {
        seconds: u64,
        log_behind: u64,
        delivered: bool,
    },
    WakeNext,
    Cancel(u8),
    Terminate,
    Await(bool),
    Park,
    Resume,
    Operate(usize, u8),
}

#[derive(Debug, Clone, Copy)]
enum Said {
    Completed,
    Failed,
    NotRetryable,
    NotDone,
    Unknown,
    Cancelled,
    RetryLater,
}

impl Said {
    fn outcome(self, task: TaskNo) -> TaskOutcome {
        match self {
            Self::Completed => done(json!({"id": task.0})),
            Self::Failed => failed("Refused"),
            Self::NotRetryable => TaskOutcome::Failed(WorkerError {
                retryable: false,
                ..error("Refused")
            }),
            Self::NotDone => TaskOutcome::Failed(WorkerError {
                not_done: true,
                ..error("Refused")
            }),
            Self::Unknown => unknown(),
            Self::Cancelled => TaskOutcome::Cancelled,
            Self::RetryLater => TaskOutcome::RetryLater { after: None },
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => Just(Said::Completed),
        3 => Just(Said::Failed),
        1 => Just(Said::NotRetryable),
        1 => Just(Said::NotDone),
        2 => Just(Said::Unknown),
        1 => Just(Said::Cancelled),
        1 => Just(Said::RetryLater),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (any::<usize>(), said()).prop_map(|(pick, said)| Op::OpenOutcome(pick, said)),
        4 => (any::<usize>(), said()).prop_map(|(pick, said)| Op::Outcome(pick, said)),
        1 => (any::<usize>(), 0..30_u64).prop_map(|(pick, ago)| Op::Started(pick, ago)),
        1 => any::<usize>().prop_map(Op::Lost),
        2 => any::<usize>().prop_map(Op::Held),
        4 => (0..30_u64, 0..20_u64, any::<bool>()).prop_map(|(seconds, log_behind, delivered)| Op::Wake {
            seconds,
            log_behind,
            delivered
        }),
        5 => Just(Op::WakeNext),
        1 => (0..3_u8).prop_map(Op::Cancel),
        1 => prop_oneof![5 => Just(Op::Resume), 1 => Just(Op::Terminate)],
        1 => any::<bool>().prop_map(Op::Await),
        1 => prop_oneof![2 => Just(Op::Resume), 1 => Just(Op::Park)],
        2 => (any::<usize>(), any::<u8>()).prop_map(|(pick, action)| Op::Operate(pick, action)),
    ]
}

fn activity(name: String) -> impl Strategy<Value = Def> {
    let undo = prop_oneof![
        6 => Just(None),
        1 => Just(Some(UndoDef::ReadOnly)),
        1 => Just(Some(UndoDef::NoUndo)),
        1 => Just(Some(UndoDef::Input(None))),
        1 => Just(Some(UndoDef::Input(Some(json!("${ error.message }"))))),
        1 => Just(Some(UndoDef::Input(Some(json!("${ steps.missing.id }"))))),
    ];
    let condition = prop_oneof![6 => Just(None), 1 => Just(Some("false")), 1 => Just(Some("vars.v is defined"))];
    (
        undo,
        condition,
        prop_oneof![Just(Some(1)), Just(Some(2)), Just(None)],
        any::<[bool; 2]>(),
        1..20_u64,
    )
        .prop_map(move |(undo, condition, attempts, [may_fail, on_failure], seconds)| {
            let mut def = act(&name)
                .attempts(attempts)
                .undo_attempts(2)
                .start_to_close(Span::from_secs(seconds))
                .compensate_on_failure(on_failure);
            if may_fail {
                def = def.on_failure(OnFailure::Continue);
            }
            if let Some(undo) = undo {
                def = def.undo(undo);
            }
            match condition {
                Some(condition) => def.when(condition),
                None => def,
            }
        })
}

fn steps() -> impl Strategy<Value = Vec<Def>> {
    let names: Vec<_> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
    let activities: Vec<_> = names.into_iter().map(activity).collect();
    (activities, 0..6_usize, any::<[bool; 3]>()).prop_map(|(mut steps, length, [nest, assign, bad])| {
        steps.truncate(length);
        if assign {
            let value = if bad {
                json!("${ steps.missing.id }")
            } else {
                json!("${ input }")
            };
            steps.insert(length / 2, set("vars", &[("v", value)]));
        }
        if nest && steps.len() > 2 {
            let inner = steps.drain(1..3).collect();
            steps.insert(1, seq("inner", inner));
        }
        steps
    })
}

fn pick_task(run: &Run, pick: usize) -> Option<TaskNo> {
    let count = run.state.next_task().0 - 1;
    (count > 0).then(|| TaskNo(u32::try_from(pick % count as usize).unwrap() + 1))
}

fn pick_open(run: &Run, pick: usize) -> Option<TaskNo> {
    let open: Vec<_> = run.state.open_tasks().map(|view| view.open.task).collect();
    (!open.is_empty()).then(|| open[pick % open.len()])
}

fn pick_parked(run: &Run, pick: usize) -> Option<StepPath> {
    let parked: Vec<_> = run.state.parked_undos().map(|entry| entry.step.clone()).collect();
    (!parked.is_empty()).then(|| parked[pick % parked.len()].clone())
}

fn input(run: &mut Run, op: &Op) -> Option<Input> {
    Some(match op {
        Op::Outcome(pick, said) => {
            let task = pick_task(run, *pick)?;
            Input::TaskEnded {
                task,
                outcome: said.outcome(task),
            }
        }
        Op::OpenOutcome(pick, said) => {
            let task = pick_open(run, *pick)?;
            Input::TaskEnded {
                task,
                outcome: said.outcome(task),
            }
        }
        Op::Started(pick, ago) => Input::TaskStarted {
            task: pick_task(run, *pick)?,
            at: Timestamp(run.now.0 - i64::try_from(Span::from_secs(*ago).0).unwrap()),
        },
        Op::Lost(pick) => Input::TaskLost {
            task: pick_task(run, *pick)?,
        },
        Op::Held(pick) => Input::DispatchHeld {
            task: pick_task(run, *pick)?,
            in_doubt: pick.is_multiple_of(2),
        },
        Op::Wake {
            seconds,
            log_behind,
            delivered,
        } => {
            run.later(*seconds);
            Input::Wake(Horizon {
                log_read_to: Timestamp(run.now.0 - i64::try_from(Span::from_secs(*log_behind).0).unwrap()),
                delivered_to: BTreeMap::from([("main".into(), if *delivered { run.now } else { Timestamp(0) })]),
            })
        }
        Op::WakeNext => {
            run.now = run.now.max(run.state.wake_at()?);
            full_wake(run.now)
        }
        Op::Cancel(id) => Input::Cancel(request(&format!("cancel-{id}"))),
        Op::Terminate => Input::Terminate(by("ann")),
        Op::Await(closed) => Input::Await(answer(
            "inbox",
            if *closed { AnswerOn::Closed } else { AnswerOn::Started },
        )),
        Op::Park => Input::Park {
            reason: "broken".into(),
        },
        Op::Resume => Input::Parked {
            step: StepPath::new(""),
            action: ParkedAction::Retry,
            operation: by("ann"),
        },
        Op::Operate(pick, action) => Input::Parked {
            step: pick_parked(run, *pick)?,
            action: match action % 4 {
                0 => ParkedAction::Retry,
                1 => ParkedAction::RetryWithInput(json!("edited").into()),
                2 => ParkedAction::MarkDone,
                _ => ParkedAction::Skip,
            },
            operation: by("ann"),
        },
    })
}

fn full_wake(now: Timestamp) -> Input {
    Input::Wake(Horizon {
        log_read_to: now,
        delivered_to: BTreeMap::from([("main".into(), now)]),
    })
}

/// `wake_at` is exactly the moment from which a wake-up with every horizon known does something.
fn check_wake_at(run: &Run) {
    let wake = |at: Timestamp| {
        let mut copy = run.state.clone();
        crate::run::apply(&run.plan, &mut copy, full_wake(at), at)
            .unwrap()
            .is_some()
    };
    match run.state.wake_at() {
        Some(at) if at > run.state.at() => {
            assert!(!wake(Timestamp(at.0 - 1)), "nothing is due before {at:?}");
            assert!(wake(at), "something is due at {at:?}");
        }
        Some(at) => assert!(wake(run.now.max(at))),
        None => assert!(!wake(Timestamp(i64::MAX / 2))),
    }
}

/// Drives the run to its end as willing workers and operators would.
fn finish(run: &mut Run) {
    for _ in 0..500 {
        if run.state.is_closed() {
            return;
        }
        let next = if run.state.parked_reason().is_some() {
            input(run, &Op::Resume)
        } else if let Some(task) = pick_open(run, 0) {
            Some(Input::TaskEnded {
                task,
                outcome: done(json!({"id": task.0})),
            })
        } else if let Some(step) = pick_parked(run, 0).filter(|_| run.state.wake_at().is_none()) {
            Some(Input::Parked {
                step,
                action: ParkedAction::MarkDone,
                operation: by("ann"),
            })
        } else {
            input(run, &Op::WakeNext)
        };
        let seen = run.state.seq();
        run.apply(next.expect("an open run has a next thing to happen"))
            .unwrap();
        assert!(run.state.seq() > seen, "no progress: {:?}", run.state);
    }
    panic!("the run does not end: {:?}", run.state);
}

/// What the history alone says of a run, told without the code under test.
#[derive(Default)]
struct Told {
    /// Compensable steps in the order of their dispatch.
    dispatched: Vec<StepPath>,
    to_undo: BTreeSet<StepPath>,
    prepared: BTreeSet<StepPath>,
    tasks: BTreeMap<TaskNo, (StepPath, Direction)>,
    ended: BTreeMap<StepPath, bool>,
    undo_order: Vec<StepPath>,
    settled: BTreeSet<StepPath>,
    stopped: bool,
    /// Something happened that may change the plain reverse order.
    out_of_order: bool,
}

fn compensates_on_failure(plan: &Plan, step: &StepPath) -> bool {
    let name = step.as_str().rsplit('.').next().unwrap();
    plan.nodes.iter().any(|node| match &node.kind {
        NodeKind::Activity(activity) => *node.name == *name && activity.compensate_on_failure,
        _ => false,
    })
}

fn tell(run: &Run) -> Told {
    let mut told = Told::default();
    for event in run.events() {
        match event {
            Event::ActivityScheduled(scheduled) => {
                assert!(!told.stopped, "a forward dispatch after the run was stopped");
                told.tasks
                    .insert(scheduled.task, (scheduled.step.clone(), Direction::Do));
                if scheduled.undo.is_some() {
                    told.dispatched.push(scheduled.step.clone());
                }
            }
            Event::TaskOpened {
                task, step, direction, ..
            } => {
                assert!(!told.stopped || *direction == Direction::Undo);
                told.tasks.insert(*task, (step.clone(), *direction));
            }
            Event::UndoScheduled { step, task, .. } => {
                assert!(told.stopped, "an undo in a run that goes on");
                assert!(told.prepared.contains(step), "input before dispatch");
                assert!(told.to_undo.contains(step), "{step} was not to be undone");
                assert!(!told.settled.contains(step), "{step} was undone already");
                told.tasks.insert(*task, (step.clone(), Direction::Undo));
                if !told.undo_order.contains(step) {
                    told.undo_order.push(step.clone());
                }
            }
            Event::TaskCompleted { task, .. } => match &told.tasks[task] {
                (step, Direction::Do) => {
                    told.ended.insert(step.clone(), true);
                    told.to_undo.insert(step.clone());
                }
                (step, Direction::Undo) => {
                    told.settled.insert(step.clone());
                }
            },
            Event::StepFailed { step, outcome, .. } => {
                told.ended.insert(step.clone(), false);
                if *outcome == StepOutcome::Unknown || compensates_on_failure(&run.plan, step) {
                    told.to_undo.insert(step.clone());
                }
            }
            Event::LateResult(late) if late.output.is_object() && !late.after_close => {
                told.out_of_order = true;
                if let (step, Direction::Do) = &told.tasks[&late.task]
                    && told.ended.get(step) == Some(&false)
                {
                    told.to_undo.insert(step.clone());
                }
            }
            Event::UndoReady { step, .. } => {
                told.prepared.insert(step.clone());
            }
            Event::UndoResumed { .. } => told.out_of_order = true,
            Event::UndoResolved { step, .. } => {
                told.settled.insert(step.clone());
            }
            Event::RunFailed { .. } | Event::RunTimedOut { .. } | Event::CancelRequested { .. } => told.stopped = true,
            _ => {}
        }
    }
    told.to_undo.retain(|step| told.dispatched.contains(step));
    told
}

fn check_end(run: &Run) {
    let told = tell(run);
    match run.status() {
        Status::Completed => assert!(told.undo_order.is_empty() && !told.stopped),
        Status::Terminated => {}
        status => {
            assert!(told.stopped);
            assert_eq!(
                told.settled, told.to_undo,
                "undone is exactly what had to be, in a run that ended {status}"
            );
            assert_eq!(
                status == Status::Failed,
                told.settled.is_empty() && status != Status::Cancelled && status != Status::TimedOut
            );
            if !told.out_of_order {
                let place = |step: &StepPath| told.dispatched.iter().position(|one| one == step);
                assert!(
                    told.undo_order.windows(2).all(|pair| place(&pair[0]) > place(&pair[1])),
                    "reverse order: {:?} of {:?}",
                    told.undo_order,
                    told.dispatched
                );
            }
        }
    }
}

fn check_effects(run: &Run, effects: &[Effect]) {
    for effect in effects {
        let Effect::Dispatch(dispatch) = effect else {
            continue;
        };
        assert!(run.state.is_open(dispatch.task), "what is dispatched is open");
        let entry = run.state.ledger().iter().find(|entry| entry.step == dispatch.step);
        if dispatch.direction == Direction::Undo {
            let entry = entry.expect("an undo has an entry");
            assert_eq!(entry.input, dispatch.input);
            assert_eq!(entry.state, UndoState::Running);
        } else if dispatch.attempt == 1 && dispatch.offer == 0 {
            let compensable = run.plan.nodes.iter().any(|node| match &node.kind {
                NodeKind::Activity(activity) => {
                    activity.call.activity == dispatch.activity
                        && matches!(activity.undo, crate::definition::plan::Undo::Compensate(_))
                }
                _ => false,
            });
            assert_eq!(entry.is_some(), compensable, "ledger entry before forward dispatch");
        }
    }
    let undos = run.state.executions(Direction::Undo).len();
    assert!(undos <= 1, "a sequence undoes one step at a time");
}

/// A plan, its timeout in seconds, and what happens to its run.
type Case = (Vec<Def>, Option<u64>, Vec<Op>);

fn case() -> impl Strategy<Value = Case> {
    (
        steps(),
        prop_oneof![3 => Just(None), 1 => (1..200_u64).prop_map(Some)],
        prop::collection::vec(op(), 0..60),
    )
}

/// The run after everything, ended, with what was refused on the way.
fn drive((steps, timeout, ops): Case) -> (Run, Vec<Rejected>) {
    let plan = plan(steps);
    let mut rejected = vec![];
    let mut run = Run::of(match timeout {
        Some(seconds) => with_timeout(plan, seconds),
        None => plan,
    });
    check_effects(&run, &run.sent.clone());
    check_wake_at(&run);
    for op in &ops {
        let Some(input) = input(&mut run, op) else {
            continue;
        };
        let closed = run.state.is_closed().then(|| run.status());
        match run.apply(input) {
            Ok(Some(effects)) => {
                check_effects(&run, &effects);
                check_wake_at(&run);
            }
            Ok(None) => {}
            Err(reason) => rejected.push(reason),
        }
        if let Some(closed) = closed {
            assert_eq!(run.status(), closed, "what is closed stays as it is");
        }
    }
    finish(&mut run);
    check_end(&run);
    (run, rejected)
}

proptest! {
    #[test]
    fn every_run_ends_and_has_undone_exactly_what_it_had_to(case in case()) {
        drive(case);
    }
}

/// Guards the property above against becoming blind: what its cases never reach, it says nothing about.
#[test]
fn random_runs_reach_every_event_and_every_final_status() {
    let mut runner = TestRunner::deterministic();
    let mut events = BTreeSet::new();
    let mut statuses = BTreeSet::new();
    for _ in 0..1_500 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let (run, _) = drive(case);
        statuses.insert(run.status());
        for event in run.events() {
            let name = serde_json::to_value(event).unwrap();
            events.insert(name.as_object().unwrap().keys().next().unwrap().clone());
        }
    }
    let kinds_of_event = 35;
    assert_eq!(events.len(), kinds_of_event, "{events:?}");
    let closed: BTreeSet<_> = Status::ALL.into_iter().filter(|status| status.is_closed()).collect();
    let unreached: Vec<_> = closed.difference(&statuses).collect();
    assert_eq!(unreached, [&Status::ContinuedAsNew], "not built yet");
}
