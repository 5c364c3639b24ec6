use std::collections::{BTreeMap, BTreeSet};

use super::case::{FATES, Fate};
use super::*;
use crate::run::Status;

/// Every kind of event that a history may have.
#[rustfmt::skip]
const EVENTS: &[&str] = &[
    "activity_scheduled", "awaited", "bodies_discarded", "branch_ended", "cancel_requested", "child_ended",
    "child_stopped", "child_undo_sent", "deadline_deferred", "dispatch_held", "emitted", "error_caught",
    "exit_requested", "finally_started", "for_each_started", "for_each_stopped", "handler_ended", "handler_started", "heartbeat_taken", "iteration_ended",
    "iteration_started", "late_result", "limits_raised", "main_body_passed", "message_answered", "message_offered", "message_sent", "message_taken",
    "parallel_started", "parallel_stopped", "pivot_completed", "retry_scheduled", "retry_waived", "run_admitted", "run_closed", "run_completed",
    "run_continued", "run_retried", "run_failed", "run_migrated", "run_parked", "run_reopened", "run_resumed", "run_started", "run_terminated",
    "run_timed_out", "schedule", "schedule_to_close_passed", "scope_failed", "scope_undone", "signal_awaited", "signal_received", "signal_taken",
    "signal_timed_out", "step_blocked", "step_completed", "step_failed", "step_parked", "step_passed", "step_resolved",
    "step_resumed", "step_skipped", "stop_deferred", "task_abandoned", "task_cancelled", "task_claimed", "task_completed",
    "task_deferred", "task_delivered", "task_failed", "task_left", "task_lost", "task_offered", "task_opened",
    "task_started", "task_timed_out", "task_unknown", "task_withdrawn", "timeout_voided", "timer_set", "trigger", "undo_needed", "undo_parked", "undo_ready", "undo_resolved",
    "undo_resumed", "undo_scheduled", "update_accepted", "update_admitted", "update_awaited", "update_put_off", "update_refused", "vars_set", "withdrawal_requested", "worker_silent",
];

/// What happens to actors, likewise.
#[rustfmt::skip]
const OF_ACTORS: &[&str] = &[
    "schedule/backfill_begun", "schedule/backfill_passed", "schedule/buffered", "schedule/ended", "schedule/not_started",
    "schedule/passed", "schedule/paused", "schedule/resumed", "schedule/set", "schedule/skipped", "schedule/started",
    "schedule/stop_asked", "schedule/triggered", "trigger/done", "trigger/gathered", "trigger/held", "trigger/passed",
    "trigger/paused", "trigger/postponed", "trigger/refused", "trigger/released", "trigger/resumed", "trigger/sent", "trigger/set",
];

/// A bounded part of what the example `simulate` does without bound. It goes on until it has reached everything that there
/// is to reach: about the rest it would say nothing.
#[test]
fn runs_of_random_definitions_keep_their_promises_and_reach_everything() {
    let mut events = BTreeSet::new();
    let mut statuses = BTreeSet::new();
    for seed in 0..200 {
        let family = Family::of_seed(seed);
        for number in 0..FATES {
            let fate = Fate::of_seed(seed, number);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| family.run(&fate)));
            let ended = ended.unwrap_or_else(|panic| {
                eprintln!("seed {seed}, fate {number}");
                std::panic::resume_unwind(panic)
            });
            for (status, history) in ended.runs {
                statuses.insert(status);
                for body in history {
                    let transition: Vec<BTreeMap<String, serde_json::Value>> = serde_json::from_str(&body).unwrap();
                    for (name, told) in transition.into_iter().flatten() {
                        // Of actors, what has happened to them.
                        if let ("schedule" | "trigger", Some(told)) = (&*name, told.as_object()) {
                            events.extend(told.keys().map(|inner| format!("{name}/{inner}")));
                        }
                        events.insert(name);
                    }
                }
            }
        }
        if seed >= 20 && unreached(&events, &statuses).is_empty() {
            return;
        }
    }
    panic!("never reached: {:?}", unreached(&events, &statuses));
}

fn unreached(events: &BTreeSet<String>, statuses: &BTreeSet<Status>) -> Vec<String> {
    let events = EVENTS.iter().chain(OF_ACTORS).filter(|name| !events.contains(**name));
    let closed = Status::ALL.into_iter().filter(|status| status.is_closed());
    let closed = closed.filter(|status| !statuses.contains(status));
    events
        .map(ToString::to_string)
        .chain(closed.map(|status| status.to_string()))
        .collect()
}

#[test]
fn a_seed_and_what_is_kept_of_it_replay() {
    let (family, fate) = (Family::of_seed(3), Fate::of_seed(3, 5));
    let ended = family.run(&fate);
    assert!(ended.transitions > 0);
    assert_eq!(Family::of_seed(3).run(&fate), ended);
    let kept = serde_json::to_string(&family.case(&fate)).unwrap();
    let case: Case = serde_json::from_str(&kept).unwrap();
    assert_eq!(case.run(), ended);
}

/// Most of what is drawn is a definition, of every kind of step, and some of it is as deep as the language allows.
#[test]
fn what_is_drawn_has_every_kind_of_step_at_every_depth() {
    let mut kinds = BTreeSet::new();
    let mut deepest = 0;
    let (mut drawn, mut checked) = (0, 0);
    for seed in 0..150 {
        drawn += draw::family(&mut Words::of_seed(seed)).len();
        let family = Family::of_seed(seed);
        checked += family.drafts.len();
        for draft in family.drafts {
            visit(draft.steps, 0, &mut |kind, depth| {
                kinds.insert(kind);
                deepest = deepest.max(depth);
            });
        }
    }
    assert!(checked * 100 >= drawn * 97, "{checked} of {drawn}");
    assert_eq!(deepest, 10);
    let all: BTreeSet<char> = "apeocwtsifkmxyzv".chars().collect();
    assert_eq!(kinds, all);
}

fn visit(steps: draft::Body, depth: u32, each: &mut dyn FnMut(char, u32)) {
    for mut step in steps {
        each(step.id.chars().next().unwrap(), depth);
        for body in step.kind.bodies_mut() {
            visit(std::mem::take(body), depth + 1, each);
        }
    }
}

/// As small as a failure allows: of a case that fails for its one child, next to nothing else is left.
#[test]
fn what_fails_is_made_small() {
    let has_child = |family: &Family, _: &Fate| {
        family
            .texts
            .first()
            .is_some_and(|text| text.contains("\"workflow\": {"))
    };
    let seed = (0..100)
        .find(|seed| has_child(&Family::of_seed(*seed), &Fate::of_seed(*seed, 0)))
        .unwrap();
    let (family, fate) = (Family::of_seed(seed), Fate::of_seed(seed, 0));
    let (small, fate) = shrink::shrink(&family, &fate, || true, &has_child);
    assert_eq!(
        (small.drafts.len(), small.drafts[0].steps.len(), fate.ops.len()),
        (1, 1, 0)
    );
}
