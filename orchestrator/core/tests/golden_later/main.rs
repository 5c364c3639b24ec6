//! Histories of what runs have learned since `golden/v2`, a directory and a module of scripts for each version that learned something.
//!
//! The directories were recorded by playing the scripts, once, by the version that first knew them; where a directory is
//! there nothing is written. A directory is never changed: what a later version decides otherwise on purpose gets a new one.

mod player;
mod v3;
mod v4;
mod v5;
mod v6;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use knarr_core::definition::{from_canonical, read};
use knarr_core::run::{State, Transition};
use knarr_core::{replay, run};
use serde_json::{Value, json};

use player::Player;

fn golden(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(directory)
}

type Script = fn() -> Player;

/// Directory, name, script, and definition.
const SCRIPTS: [(&str, &str, Script, Option<&str>); 19] = [
    ("v3", "job", v3::job, Some(v3::JOB)),
    ("v3", "delivered", v3::delivered, Some(v3::JOB)),
    ("v3", "limited", v3::limited, Some(v3::LIMITED)),
    ("v3", "starved", v3::starved, Some(v3::STARVED)),
    ("v3", "nightly", v3::nightly, None),
    ("v4", "losers", v4::losers, Some(v4::LOSERS)),
    ("v4", "forward", v4::forward, Some(v4::FORWARD)),
    ("v4", "timed", v4::timed, Some(v4::TIMED)),
    ("v4", "blocked", v4::blocked, Some(v4::BLOCKED)),
    ("v4", "reopened", v4::reopened, Some(v4::KID)),
    ("v4", "admitted", v4::admitted, Some(v4::ADMITTED)),
    ("v4", "moved", v4::moved, Some(v4::MOVED)),
    ("v5", "again", v5::again, Some(v5::AGAIN)),
    ("v5", "attempt", v5::attempt, Some(v5::AGAIN)),
    ("v5", "waived", v5::waived, Some(v5::AGAIN)),
    ("v5", "halts", v5::halts, Some(v5::HALTS)),
    ("v5", "recalled", v5::recalled, Some(v5::RECALLED)),
    ("v6", "handled", v6::handled, Some(v6::BASKET)),
    ("v6", "unhandled", v6::unhandled, Some(v6::BASKET)),
];

fn told(transition: &Transition) -> Value {
    json!({ "seq": transition.seq, "at": transition.at, "events": transition.events })
}

#[test]
fn recorded_once() {
    if std::env::var_os("KNARR_WRITE").is_none() {
        return;
    }
    let missing: BTreeSet<_> = SCRIPTS
        .iter()
        .map(|script| script.0)
        .filter(|it| !golden(it).exists())
        .collect();
    for (directory, name, script, definition) in SCRIPTS {
        if !missing.contains(directory) {
            continue;
        }
        let folder = golden(directory);
        std::fs::create_dir_all(&folder).expect("a folder");
        let lines: Vec<String> = script().history.iter().map(|it| told(it).to_string()).collect();
        std::fs::write(folder.join(format!("{name}.history.jsonl")), lines.join("\n") + "\n").expect("a file");
        if let Some(text) = definition {
            let checked = read(text, &|_| Err("no files".to_owned())).expect("a definition");
            let file = folder.join(format!("{}.definition.json", checked.plan.workflow));
            std::fs::write(file, checked.canonical).expect("a file");
        }
    }
}

fn stored(directory: &str, name: &str) -> Vec<Transition> {
    let text = std::fs::read_to_string(golden(directory).join(format!("{name}.history.jsonl"))).expect("a golden file");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let again = |name: &str| line[name].clone();
        let transition = Transition::new(
            serde_json::from_value(again("seq")).expect("a number"),
            serde_json::from_value(again("at")).expect("a time"),
            serde_json::from_value(again("events")).expect("events that are still read"),
        );
        assert_eq!(told(&transition), line, "{name}: what is read is all there is");
        transition
    };
    text.lines().map(line).collect()
}

#[test]
fn what_was_recorded_then_folds_and_is_decided_again() {
    for (directory, name, script, definition) in SCRIPTS {
        let transitions = stored(directory, name);
        // Today's run of the same script is in the same state as yesterday's history.
        let mut state = State::born(&transitions[0]).expect("a birth");
        for transition in &transitions[1..] {
            run::evolve(&mut state, transition);
        }
        let today = script();
        assert_eq!(today.history, transitions, "{name}");
        assert_eq!(today.state, state, "{name}");

        let plan = definition.map(|_| {
            let file = golden(directory).join(format!("{}.definition.json", state.workflow()));
            from_canonical(&std::fs::read_to_string(file).expect("a definition")).expect("one that still reads")
        });
        // That a run moved, and what another version decided from there on, is folded.
        let is_move = |event: &run::Event| matches!(event, run::Event::RunMigrated { .. });
        let before = transitions.iter().take_while(|it| !it.events.iter().any(is_move));
        let moved = u32::try_from(transitions.len() - before.count()).expect("a short history");
        let history = replay::History {
            transitions,
            status: None,
        };
        let report = replay::replay(&history, plan.as_ref()).expect("a whole history");
        assert!(report.is_good(), "{name}: {report:#?}");
        assert_eq!(
            report.folded_only, moved,
            "{name}: every other input is told by its events"
        );
    }
}

/// The kinds of events that are in no other directory.
#[test]
fn every_event_that_came_since_is_in_one_of_them() {
    let mut seen = BTreeSet::new();
    for (directory, name, ..) in SCRIPTS {
        for transition in stored(directory, name) {
            for event in &transition.events {
                let value = serde_json::to_value(event).expect("JSON");
                seen.extend(value.as_object().and_then(|event| event.keys().next().cloned()));
                let text = value.to_string();
                seen.extend(
                    ["ask", "granted", "release", "limits"]
                        .into_iter()
                        .filter(|word| text.contains(&format!("\"{word}\"")))
                        .map(str::to_owned),
                );
            }
        }
    }
    for kind in [
        "heartbeat_taken",
        "worker_silent",
        "task_claimed",
        "task_left",
        "withdrawal_requested",
        "task_withdrawn",
        "schedule_to_close_passed",
        "task_abandoned",
        "limits_raised",
        "run_retried",
        "retry_waived",
        "schedule",
        "ask",
        "granted",
        "release",
        "limits",
        "awaited",
        "bodies_discarded",
        "deadline_deferred",
        "dispatch_held",
        "late_result",
        "run_admitted",
        "run_migrated",
        "run_parked",
        "run_reopened",
        "run_resumed",
        "run_terminated",
        "run_timed_out",
        "step_blocked",
        "step_parked",
        "step_resolved",
        "step_resumed",
        "task_deferred",
        "task_offered",
        "timeout_voided",
        "undo_needed",
        "undo_resumed",
        "handler_started",
        "handler_ended",
        "main_body_passed",
        "update_accepted",
        "update_put_off",
        "update_admitted",
        "update_refused",
        "update_awaited",
    ] {
        assert!(seen.contains(kind), "{kind}: {seen:?}");
    }
}
