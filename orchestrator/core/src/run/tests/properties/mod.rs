//! Random plans of every kind of step under random inputs. `Run` itself checks after every transition that folding the
//! stored events gives the state, and that a snapshot does; what is checked here is what may happen at all ([`crate::simulation::told`]), that
//! a new owner sends what is owed, and that every run ends when workers, children and operators are willing.
//!
//! `PROPTEST_CASES` sets how many cases there are; `KNARR_PROPERTY_SECONDS` has seeded cases run for so long, which is for
//! nights (`cargo test -p knarr-core --release -- --ignored properties`).

mod family;
mod inputs;
mod plans;

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use self::inputs::World;
use self::plans::{Case, case};
use super::dsl::*;
use crate::run::effect::{Effect, effects, effects_still_wanted};
use crate::run::input::{Input, Rejected, Terms};
use crate::run::{Status, UndoState};
use crate::simulation::told::Told;
use crate::time::Timestamp;

/// `wake_at` is exactly the moment from which a wake-up with every horizon known does something.
fn check_wake_at(run: &Run) {
    let wake = |at: Timestamp| {
        let mut copy = run.state.clone();
        crate::run::apply(&run.plan, &mut copy, inputs::full_wake(at), at)
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

/// What a new owner would send for the last transition, and for all of them, covers what is owed.
fn check_effects(run: &Run, sent: &[Effect]) {
    let seq = run.state.seq();
    let again = effects_still_wanted(&run.state, seq, seq);
    let ever = effects_still_wanted(&run.state, 1, seq);
    for effect in sent {
        let owed = match effect {
            Effect::Emit { .. } => continue,
            // Asked for again, as long as the task is open, by whatever halts anything.
            Effect::CancelTask { .. } => &ever,
            _ => &again,
        };
        assert!(owed.contains(effect), "{effect:?} would be lost");
    }
    assert_eq!(effects(&run.state, run.history.last().unwrap()), sent);
    let all = effects_still_wanted(&run.state, 1, seq);
    let dispatched = all
        .iter()
        .filter(|effect| matches!(effect, Effect::Dispatch(_)))
        .count();
    let open = run.state.open_tasks();
    let open = open.filter(|view| view.open.known != crate::run::Known::Held && view.open.withdrawn_for.is_none());
    assert_eq!(dispatched, open.count());
    let pending = all
        .iter()
        .filter(|effect| matches!(effect, Effect::Send { .. }))
        .count();
    assert_eq!(pending, run.pending().len());
    for effect in sent {
        if let Effect::Dispatch(dispatch) = effect {
            assert!(run.state.is_open(dispatch.task), "what is dispatched is open");
            let mut ledger = run.state.ledger().iter();
            let entry = ledger.rfind(|entry| entry.step == dispatch.step);
            if dispatch.direction == crate::run::effect::Direction::Undo {
                let entry = entry.expect("an undo has an entry");
                assert_eq!((&entry.input, &entry.state), (&dispatch.input, &UndoState::Running));
            }
        }
    }
}

/// The run after everything, ended, with what was refused on the way.
fn drive(case: Case) -> (Run, Vec<Rejected>) {
    drive_and(case, |_, _| {})
}

/// The same, with a word in before each of the things that happen, by their number.
fn drive_and(case: Case, mut before: impl FnMut(usize, &mut Run)) -> (Run, Vec<Rejected>) {
    let Case {
        steps,
        timeout,
        policy,
        ops,
    } = case;
    let (order, on_exhausted) = policy;
    let plan = with_compensation(plan(steps), order, on_exhausted);
    let plan = match timeout {
        Some(seconds) => with_timeout(plan, seconds),
        None => plan,
    };
    // Runs of an earlier version go on as they were begun.
    let terms = Terms {
        withdraws: ops.len().is_multiple_of(2) || timeout.is_some(),
        ..Terms::default()
    };
    let mut run = Run::under(terms, plan, begin(json!({"customer": "c1"}))).unwrap();
    let mut world = World::default();
    let mut rejected = vec![];
    check_effects(&run, &run.sent.clone());
    check_wake_at(&run);
    for (number, op) in ops.iter().enumerate() {
        before(number, &mut run);
        let Some(input) = world.input(&mut run, op) else {
            continue;
        };
        let closed = run.state.is_closed().then(|| run.status());
        match run.apply(input.clone()) {
            Ok(Some(effects)) => {
                check_effects(&run, &effects);
                check_wake_at(&run);
            }
            Ok(None) => {}
            Err(reason) => rejected.push(reason),
        }
        if let Input::Message { from, number, .. } = &input {
            // A parked run is asked again, and the shell asks the successor of one that has continued.
            let later = run.state.parked_reason().is_some() || run.status() == Status::ContinuedAsNew;
            assert!(later || run.state.answer_to(from.run, *number).is_some());
        }
        if let Some(closed) = closed {
            assert_eq!(run.status(), closed, "what is closed stays as it is");
        }
    }
    let mut past = vec![];
    for _ in 0..3_000 {
        if run.state.is_closed() && run.pending().is_empty() {
            if std::env::var_os("KNARR_PROPERTY_SHOW").is_some() {
                for transition in &run.history {
                    println!(
                        "{} {}",
                        transition.seq,
                        serde_json::to_string(&transition.events).unwrap()
                    );
                }
            }
            let mut told = Told::new(&run.plan);
            run.history.iter().for_each(|transition| told.take(transition));
            told.end(run.status());
            return (run, rejected);
        }
        let next = world.willing(&mut run).expect("an open run has a next thing to happen");
        let seen = run.state.seq();
        past.push(format!("{next:?}"));
        let effects = run.apply(next).unwrap();
        assert!(run.state.seq() > seen, "no progress: {past:#?} {:?}", run.state);
        check_effects(&run, &effects.unwrap());
    }
    panic!("the run does not end: {:?}", run.state);
}

proptest! {
    #[test]
    fn every_run_ends_and_has_undone_exactly_what_it_had_to(case in case()) {
        drive(case);
    }
}

proptest! {
    /// From its events alone, by the definition it went by: nothing is told to be decided otherwise.
    #[test]
    fn every_history_is_decided_again(case in case()) {
        let (run, _) = drive(case);
        let history = crate::replay::History {
            transitions: run.history.clone(),
            status: Some(run.status()),
        };
        let report = crate::replay::replay(&history, Some(&run.plan)).unwrap();
        prop_assert!(report.is_good(), "{report:#?}");
    }
}

/// The steps of the root that have left a trace, told by their names in the events alone.
fn traces(run: &Run) -> BTreeSet<String> {
    fn look(value: &serde_json::Value, into: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    match field.as_str().filter(|_| name == "step" || name == "pivot") {
                        Some(step) => {
                            into.insert(step.split(['.', '[']).next().unwrap().to_owned());
                        }
                        None => look(field, into),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| look(item, into)),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    for event in run.events() {
        look(&serde_json::to_value(event).unwrap(), &mut names);
    }
    names
}

/// Another version that keeps the first steps and goes on otherwise.
fn moved(case: Case, when: usize, keep: usize) -> bool {
    let names: Vec<_> = case.steps.iter().map(|step| step.name.clone()).collect();
    let mut steps: Vec<_> = case.steps.iter().take(keep).cloned().collect();
    steps.push(act("a999"));
    let (order, on_exhausted) = case.policy;
    let mut accepted = false;
    drive_and(case, |number, run| {
        if number != when || run.state.is_closed() {
            return;
        }
        let traces = traces(run);
        let reached = names.iter().rposition(|name| traces.contains(name));
        let next = || {
            let mut next = with_compensation(plan(steps.clone()), order, on_exhausted);
            next.version = 2;
            next.hash = crate::ids::DefinitionHash("other".into());
            next
        };
        let input = Input::Migrate {
            to: crate::run::migrate::Target(std::sync::Arc::new(next())),
            operation: by("ann"),
        };
        accepted = run.apply(input).is_ok();
        let expected = reached.is_none_or(|reached| reached < keep);
        assert_eq!(accepted, expected, "{traces:?} of {names:?}, {keep} kept");
        if accepted {
            run.plan = next();
        }
    });
    accepted
}

proptest! {
    #[test]
    fn a_run_that_has_moved_ends_and_has_undone_exactly_what_it_had_to(
        case in case(), when in 0..30_usize, keep in 0..6_usize,
    ) {
        moved(case, when, keep);
    }
}

/// Guards the property above against becoming blind.
#[test]
fn random_runs_move_and_are_refused_to() {
    let mut runner = TestRunner::deterministic();
    let mut accepted = 0;
    for number in 0..200 {
        let case = case().new_tree(&mut runner).unwrap().current();
        accepted += usize::from(moved(case, number % 20, number % 5));
    }
    assert!((20..180).contains(&accepted), "{accepted} of 200");
}

/// Guards the first property against becoming blind: what its cases never reach, it says nothing about.
#[test]
fn random_runs_reach_every_event_and_every_final_status() {
    let mut runner = TestRunner::deterministic();
    let mut events = BTreeSet::new();
    let mut statuses = BTreeSet::new();
    for _ in 0..2_000 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let (run, _) = drive(case);
        statuses.insert(run.status());
        for event in run.events() {
            let name = serde_json::to_value(event).unwrap();
            events.insert(name.as_object().unwrap().keys().next().unwrap().clone());
        }
    }
    // `run_reopened` needs a parent, and `step_blocked` is rare: other tests have them.
    let missing: Vec<_> = EVENTS.iter().filter(|name| !events.contains(**name)).collect();
    assert_eq!(missing, Vec::<&&str>::new());
    let known: BTreeSet<_> = EVENTS
        .iter()
        .chain(&["step_blocked", "run_reopened", "run_migrated"])
        .copied()
        .collect();
    assert!(events.iter().all(|name| known.contains(name.as_str())), "{events:?}");
    // Nothing limits how many of these runs are open: other tests have that.
    let closed = Status::ALL
        .into_iter()
        .filter(|status| status.is_closed() && *status != Status::Skipped);
    let closed: BTreeSet<_> = closed.collect();
    let unreached: Vec<_> = closed.difference(&statuses).collect();
    assert_eq!(unreached, Vec::<&Status>::new());
}

#[rustfmt::skip]
const EVENTS: &[&str] = &[
    "activity_scheduled", "awaited", "bodies_discarded", "branch_ended", "cancel_requested", "child_ended",
    "child_stopped", "child_undo_sent", "deadline_deferred", "dispatch_held", "emitted", "error_caught",
    "exit_requested", "finally_started", "for_each_started", "for_each_stopped", "heartbeat_taken", "iteration_ended",
    "iteration_started", "late_result", "message_answered", "message_offered", "message_sent", "message_taken",
    "parallel_started", "parallel_stopped", "pivot_completed", "retry_scheduled", "run_closed", "run_completed",
    "run_continued", "run_failed", "run_parked", "run_resumed", "run_started", "run_terminated", "run_timed_out",
    "scope_failed", "scope_undone", "signal_awaited", "signal_received", "signal_taken", "signal_timed_out",
    "step_completed", "step_failed", "step_parked", "step_passed", "step_resolved", "step_resumed",
    "schedule_to_close_passed", "step_skipped", "stop_deferred", "task_abandoned", "task_cancelled", "task_claimed", "task_completed", "task_deferred", "task_delivered",
    "task_failed", "task_left", "task_lost", "task_withdrawn", "timeout_voided", "withdrawal_requested", "worker_silent", "task_offered", "task_opened", "task_started", "task_timed_out", "task_unknown",
    "timer_set", "undo_needed", "undo_parked", "undo_ready", "undo_resolved", "undo_resumed", "undo_scheduled",
    "vars_set",
];

#[test]
#[ignore = "for as long as KNARR_PROPERTY_SECONDS says"]
fn properties_for_a_long_time() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("KNARR_PROPERTY_SECONDS").unwrap_or(60);
    let first = number("KNARR_PROPERTY_SEED").unwrap_or(0);
    let mut seed = first;
    let began = std::time::Instant::now();
    while began.elapsed().as_secs() < seconds {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let mut tree = case().new_tree(&mut runner).unwrap();
        let fails = |case| std::panic::catch_unwind(|| drive(case)).is_err();
        if fails(tree.current()) {
            std::panic::set_hook(Box::new(|_| {}));
            let mut smallest = tree.current();
            for _ in 0..2_000 {
                let fails = fails(tree.current());
                if fails {
                    smallest = tree.current();
                }
                if !(if fails { tree.simplify() } else { tree.complicate() }) {
                    break;
                }
            }
            let _ = std::panic::take_hook();
            println!("KNARR_PROPERTY_SEED={seed}\n{smallest:?}\nthe history:");
            drive(smallest);
        }
        seed += 1;
    }
    println!("{} cases in {seconds} s", seed - first);
}
