//! `retry:` of a definition, what `defaults` say of limits and priorities, and what an undo says of the others.

use super::*;
use crate::definition::plan::{Activity, OnExhausted};

const STEPS: &str = "steps: [ { a: { wait: 1s } } ]\n";

fn policy(retry: &str) -> RetryPolicy {
    let checked = accept(&format!("workflow: w\nversion: 1\nretry: {retry}\n{STEPS}"));
    *checked.plan.retry.unwrap()
}

#[test]
fn runs_are_tried_again_as_activities_are_where_nothing_else_is_said() {
    assert_eq!(
        policy("{}"),
        RetryPolicy {
            initial_interval: Span::from_secs(1),
            backoff_coefficient: 2.0,
            maximum_interval: Span::from_secs(100),
            maximum_attempts: None,
            non_retryable: vec![],
        }
    );
    assert_eq!(
        policy(
            "{ initial_interval: 3s, backoff_coefficient: 1.5, maximum_interval: 1h, maximum_attempts: 4, non_retryable: [a, b] }"
        ),
        RetryPolicy {
            initial_interval: Span::from_secs(3),
            backoff_coefficient: 1.5,
            maximum_interval: Span::from_secs(3_600),
            maximum_attempts: Some(4),
            non_retryable: vec!["a".into(), "b".into()],
        }
    );
    assert_eq!(
        policy("{ maximum_attempts: unlimited }"),
        policy("{}"),
        "which is legal"
    );
    assert_eq!(
        policy("{ initial_interval: 2s }").maximum_interval,
        Span::from_secs(200)
    );
}

#[test]
fn without_it_no_run_is_tried_again_and_with_it_the_definition_is_another_one() {
    let none = accept(&format!("workflow: w\nversion: 1\n{STEPS}"));
    assert_eq!(none.plan.retry, None);
    let some = accept(&format!("workflow: w\nversion: 1\nretry: {{}}\n{STEPS}"));
    assert_ne!(some.hash, none.hash);
    // Those of activities are not those of runs.
    let of_steps = accept(&with_steps("  - a: { activity: x, read_only: true }\n"));
    assert_eq!(of_steps.plan.retry, None);
}

#[test]
fn what_is_wrong_with_it_has_its_place() {
    for (retry, code) in [
        ("3", code::SHAPE),
        ("{ attempts: 3 }", code::UNKNOWN_KEY),
        ("{ maximum_attempts: 0 }", code::BAD_VALUE),
        ("{ backoff_coefficient: 0.5 }", code::BAD_VALUE),
        ("{ initial_interval: soon }", code::BAD_DURATION),
        ("{ initial_interval: 1m, maximum_interval: 1s }", code::CONTRADICTION),
    ] {
        let found = findings(&format!("workflow: w\nversion: 1\nretry: {retry}\n{STEPS}"));
        let codes: Vec<&str> = found.iter().map(|finding| &finding[..6]).collect();
        assert_eq!(codes, [code.code], "{retry}: {found:?}");
    }
}

fn activities(text: &str) -> Vec<Activity> {
    let nodes = accept(text).plan.nodes.into_iter();
    nodes
        .filter_map(|node| match node.kind {
            NodeKind::Activity(activity) => Some(*activity),
            _ => None,
        })
        .collect()
}

fn limits(activity: &Activity) -> (Option<u32>, Option<u8>) {
    let limiting = activity.limiting.as_ref();
    let concurrency = limiting.and_then(|it| it.concurrency.as_ref());
    (concurrency.map(|it| it.to), limiting.and_then(|it| it.priority))
}

#[test]
fn what_a_step_does_not_say_of_its_limit_and_priority_it_takes_from_defaults() {
    let text = "workflow: w\nversion: 1\n\
        defaults: { queue: q, start_to_close: 5s, concurrency: { limit: 7, key: input.customer }, priority: 2 }\n\
        steps:\n\
        \x20 - a: { activity: x, read_only: true }\n\
        \x20 - b: { activity: y, read_only: true, concurrency: { limit: 3 }, priority: 4 }\n\
        \x20 - c: { activity: z, read_only: true, rate: { limit: 1 } }\n\
        \x20 - d: { wait: 1s }\n";
    let of = activities(text);
    let said: Vec<_> = of.iter().map(limits).collect();
    assert_eq!(said, [(Some(7), Some(2)), (Some(3), Some(4)), (Some(7), Some(2))]);
    let key = |activity: &Activity| {
        activity
            .limiting
            .as_ref()
            .unwrap()
            .concurrency
            .as_ref()
            .unwrap()
            .key
            .is_some()
    };
    assert_eq!(of.iter().map(key).collect::<Vec<_>>(), [true, false, true]);
    // The same as if each had said it.
    let spelled = text
        .replace(", concurrency: { limit: 7, key: input.customer }, priority: 2 }", " }")
        .replace(
            "activity: x,",
            "activity: x, concurrency: { limit: 7, key: input.customer }, priority: 2,",
        );
    let spelled = spelled.replace(
        "activity: z,",
        "activity: z, concurrency: { limit: 7, key: input.customer }, priority: 2,",
    );
    assert_eq!(accept(&spelled).hash, accept(text).hash);
    let none = with_steps("  - a: { activity: x, read_only: true }\n");
    assert!(
        activities(&none)[0].limiting.is_none(),
        "where nobody says anything there is none"
    );
}

#[test]
fn a_bad_default_is_told_once() {
    let with = |defaults: &str| {
        findings(&format!(
            "workflow: w\nversion: 1\ndefaults: {{ queue: q, start_to_close: 5s, {defaults} }}\nsteps:\n\
             \x20 - a: {{ activity: x, read_only: true }}\n  - b: {{ activity: y, read_only: true }}\n"
        ))
    };
    for defaults in [
        "priority: 6",
        "concurrency: { limit: 0 }",
        "concurrency: {}",
        "concurrency: { limit: 1, on_conflict: skip }",
        "compensate: { on_exhausted: stop }",
    ] {
        let found = with(defaults);
        assert_eq!(found.len(), 1, "{defaults}: {found:?}");
    }
}

#[test]
fn an_undo_says_what_it_means_for_the_others() {
    let of = |document: &str, defaults: &str, undo: &str| {
        let text = format!(
            "workflow: w\nversion: 1\n{document}defaults: {{ queue: q, start_to_close: 5s{defaults} }}\nsteps:\n\
             \x20 - a: {{ activity: x, compensate: {{ activity: y{undo} }} }}\n"
        );
        match activities(&text).pop().unwrap().undo {
            Undo::Compensate(call) => call.on_exhausted,
            other => panic!("{other:?}"),
        }
    };
    let halt = ", on_exhausted: halt";
    assert_eq!(of("", "", ""), None, "as the policy has it");
    assert_eq!(of("", "", halt), Some(OnExhausted::Halt));
    assert_eq!(
        of("", ", compensate: { on_exhausted: halt }", ""),
        Some(OnExhausted::Halt)
    );
    assert_eq!(
        of("", ", compensate: { on_exhausted: halt }", ", on_exhausted: continue"),
        None
    );
    let halting = "compensation: { on_exhausted: halt }\n";
    assert_eq!(of(halting, "", halt), None, "as the policy has it anyway");
    assert_eq!(of(halting, "", ", on_exhausted: continue"), Some(OnExhausted::Continue));
    let found = findings(&with_steps(
        "  - a: { activity: x, compensate: { activity: y, on_exhausted: stop } }\n",
    ));
    assert_eq!(found.len(), 1, "{found:?}");
}
