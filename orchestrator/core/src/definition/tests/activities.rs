//! How tasks are given out: the defaults of SEMANTICS §3 by their exact values, and what overrides them.
//!
//! | §3 | test |
//! |---|---|
//! | initial 1 s, coefficient 2.0, maximum 100 × initial, unlimited attempts (T) | [`retries_default_to_those_of_the_field`] |
//! | … of any initial interval | [`the_longest_pause_is_a_hundred_times_the_first_wherever_that_is_said`] |
//! | an undo: 10 attempts, up to 5 m apart | [`retries_default_to_those_of_the_field`] |
//! | no timeout but start-to-close without being asked for; 10 s where there are no `defaults` (with a notice) | [`timeouts_default_to_none_but_one`] |
//! | … and an error where there are | [`a_definition_without_timeouts_is_told_of_ten_seconds_and_one_with_defaults_is_refused`] |
//! | `schedule_to_close` alone is enough | [`schedule_to_close_stands_in_for_start_to_close`] |
//! | `try_cancel` | [`cancellation_defaults_to_asking`] |

use super::*;
use crate::definition::plan::{Activity, Cancellation, NodeKind, RetryPolicy, Timeouts, Undo};

/// The step `a` of a definition, and its undo.
fn activity(defaults: &str, fields: &str) -> Activity {
    let text = format!("workflow: w\nversion: 1\n{defaults}\nsteps:\n  - a: {{ activity: x, queue: q, {fields} }}\n");
    let checked = accept(&text);
    let again = accept(&checked.canonical);
    assert_eq!(again.canonical, checked.canonical, "{text}");
    assert_eq!(again.hash, checked.hash);
    let mut nodes = checked.plan.nodes.into_iter();
    nodes
        .find_map(|node| match node.kind {
            NodeKind::Activity(activity) => Some(*activity),
            _ => None,
        })
        .unwrap()
}

fn timeouts(start: Option<u64>, close: Option<u64>, heartbeat: Option<u64>) -> Timeouts {
    Timeouts {
        schedule_to_start: start.map(Span::from_secs),
        schedule_to_close: close.map(Span::from_secs),
        heartbeat: heartbeat.map(Span::from_secs),
    }
}

#[test]
fn retries_default_to_those_of_the_field() {
    let activity = activity("", "start_to_close: 5s, compensate: y");
    let policy = RetryPolicy {
        initial_interval: Span::from_secs(1),
        backoff_coefficient: 2.0,
        maximum_interval: Span::from_secs(100),
        maximum_attempts: None,
        non_retryable: vec![],
    };
    assert_eq!(activity.call.retry, policy);
    let Undo::Compensate(undo) = &activity.undo else {
        panic!("{activity:?}")
    };
    let policy = RetryPolicy {
        maximum_interval: Span::from_secs(300),
        maximum_attempts: Some(10),
        ..policy
    };
    assert_eq!(undo.retry, policy);
}

#[test]
fn the_longest_pause_is_a_hundred_times_the_first_wherever_that_is_said() {
    for (defaults, fields, first, longest) in [
        (
            "",
            "start_to_close: 5s, retry: { initial_interval: 5s }",
            5_000,
            500_000,
        ),
        ("", "start_to_close: 5s, retry: { initial_interval: 20ms }", 20, 2_000),
        (
            "defaults: { start_to_close: 5s, retry: { initial_interval: 3s } }",
            "read_only: true",
            3_000,
            300_000,
        ),
        (
            "",
            "start_to_close: 5s, retry: { initial_interval: 5s, maximum_interval: 7s }",
            5_000,
            7_000,
        ),
    ] {
        let retry = activity(defaults, fields).call.retry;
        assert_eq!(retry.initial_interval, Span::from_millis(first), "{fields}");
        assert_eq!(retry.maximum_interval, Span::from_millis(longest), "{fields}");
    }
    // That of an undo is five minutes, whatever the first.
    for (first, longest) in [("10ms", 300), ("5m", 300), ("6m", 360)] {
        let fields = format!("compensate: {{ activity: y, retry: {{ initial_interval: {first} }} }}");
        let Undo::Compensate(undo) = activity("", &fields).undo else {
            panic!("{fields}")
        };
        assert_eq!(undo.retry.maximum_interval, Span::from_secs(longest), "{first}");
    }
}

/// What a definition without `defaults` is told, and one with them refused for.
#[test]
fn a_definition_without_timeouts_is_told_of_ten_seconds_and_one_with_defaults_is_refused() {
    let text = |defaults: &str, fields: &str| {
        format!(
            "workflow: w\nversion: 1\n{defaults}\nsteps:\n  - a: {{ activity: x, queue: q, read_only: true{fields} }}\n"
        )
    };
    assert_eq!(
        findings(&text("", "")),
        ["KN0142 10 s is assumed as `start_to_close` of `a` | a"]
    );
    assert_eq!(accept(&text("", "")).findings[0].severity, Severity::Notice);
    assert_eq!(
        findings(&text("defaults: { queue: q }", "")),
        ["KN0141 the step `a` has no `start_to_close` | a"]
    );
    for said in [", start_to_close: 3s", ", schedule_to_close: 3s"] {
        for defaults in ["", "defaults: { queue: q }"] {
            assert_eq!(findings(&text(defaults, said)), [""; 0], "{said} {defaults}");
        }
    }
}

#[test]
fn timeouts_default_to_none_but_one() {
    let bare = activity("", "read_only: true");
    assert_eq!(bare.call.start_to_close, Span::from_secs(10));
    assert_eq!(bare.call.timeouts, Timeouts::default());
    let defaults = "defaults: { start_to_close: 40s, schedule_to_start: 1m, schedule_to_close: 2h, heartbeat: 15s }";
    let of_defaults = activity(defaults, "compensate: y");
    assert_eq!(of_defaults.call.start_to_close, Span::from_secs(40));
    assert_eq!(of_defaults.call.timeouts, timeouts(Some(60), Some(7_200), Some(15)));
    let Undo::Compensate(undo) = &of_defaults.undo else {
        panic!("{of_defaults:?}")
    };
    assert_eq!(undo.start_to_close, Span::from_secs(40), "it is its step's");
    assert_eq!(undo.timeouts, Timeouts::default(), "nothing else is");
    let own = activity(defaults, "read_only: true, heartbeat: 20s");
    assert_eq!(own.call.timeouts, timeouts(Some(60), Some(7_200), Some(20)));
}

#[test]
fn an_undo_has_timeouts_of_its_own() {
    let defaults = "defaults: { start_to_close: 40s, compensate: { heartbeat: 7s } }";
    let activity = activity(defaults, "compensate: { activity: y, schedule_to_close: 9m }");
    let Undo::Compensate(undo) = &activity.undo else {
        panic!("{activity:?}")
    };
    assert_eq!(undo.timeouts, timeouts(None, Some(540), Some(7)));
}

#[test]
fn schedule_to_close_stands_in_for_start_to_close() {
    let activity = activity("defaults: { queue: q }", "read_only: true, schedule_to_close: 3m");
    assert_eq!(activity.call.start_to_close, Span::from_secs(180));
    assert_eq!(activity.call.timeouts, timeouts(None, Some(180), None));
}

/// What a step says is held to what it says; what stands under `defaults` gives way.
#[test]
fn defaults_are_fitted_to_the_step() {
    let defaults = "defaults: { start_to_close: 10m, schedule_to_start: 10m, heartbeat: 30s }";
    let fitted = activity(defaults, "read_only: true, schedule_to_close: 20s");
    assert_eq!(fitted.call.start_to_close, Span::from_secs(20));
    assert_eq!(fitted.call.timeouts, timeouts(None, Some(20), None));
}

#[test]
fn cancellation_defaults_to_asking() {
    let of = |defaults: &str, fields: &str| activity(defaults, fields).cancellation;
    assert_eq!(of("", "read_only: true"), Cancellation::TryCancel);
    let defaults = "defaults: { start_to_close: 5s, cancellation: abandon }";
    assert_eq!(of(defaults, "read_only: true"), Cancellation::Abandon);
    assert_eq!(of(defaults, "cancellation: try_cancel"), Cancellation::TryCancel);
    assert_eq!(
        of(defaults, "pivot: true"),
        Cancellation::TryCancel,
        "it has to become known"
    );
    let waits = "read_only: true, cancellation: wait_cancelled, heartbeat: 3s";
    assert_eq!(of("", waits), Cancellation::WaitCancelled);
}
