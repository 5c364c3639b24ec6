//! `concurrency` and `priority` of a definition, and what is said of them where they are wrong.

use super::*;
use crate::limit::OnConflict;

fn definition(said: &str) -> String {
    let steps = with_steps("  - a: { activity: x, read_only: true }\n");
    steps.replace("steps:\n", &format!("{said}\nsteps:\n"))
}

#[test]
fn they_are_read_and_kept_in_the_canonical_form() {
    let plan = accept(&definition(
        "concurrency: { key: input.customer, limit: 2, on_conflict: cancel_running }\npriority: 1",
    ))
    .plan;
    let concurrency = plan.concurrency.unwrap();
    assert_eq!(
        (concurrency.limit, concurrency.on_conflict),
        (2, OnConflict::CancelRunning)
    );
    assert!(concurrency.key.is_some());
    assert_eq!(plan.priority, Some(1));

    let checked = accept(&definition("concurrency: { limit: 1 }"));
    let concurrency = checked.plan.concurrency.unwrap();
    assert_eq!(
        (concurrency.on_conflict, concurrency.key.is_none()),
        (OnConflict::Queue, true)
    );
    let said = accept(&definition("concurrency: { limit: 1, on_conflict: queue }"));
    assert_eq!(said.hash, checked.hash, "the default said is the default");
    for (word, conflict) in [("reject", OnConflict::Reject), ("skip", OnConflict::Skip)] {
        let plan = accept(&definition(&format!(
            "concurrency: {{ limit: 1, on_conflict: {word} }}"
        )))
        .plan;
        assert_eq!(plan.concurrency.unwrap().on_conflict, conflict);
    }
}

/// Limits of the only step, as they are compiled.
fn limiting(said: &str) -> Option<Box<crate::definition::plan::Limiting>> {
    let steps = format!("  - a: {{ activity: x, read_only: true, {said} }}\n");
    let nodes = accept(&with_steps(&steps)).plan.nodes.into_iter();
    let mut limits = nodes.filter_map(|node| match node.kind {
        crate::definition::plan::NodeKind::Activity(activity) => Some(activity.limiting),
        _ => None,
    });
    limits.next().unwrap()
}

#[test]
fn limits_of_activities_are_per_second_for_all_and_by_no_priority_unless_they_say_so() {
    assert!(limiting("input: 1").is_none(), "nothing is said");
    let rate = limiting("rate: { limit: 20 }").unwrap();
    assert!(rate.concurrency.is_none() && rate.priority.is_none() && rate.fairness_key.is_none());
    let rate = rate.rate.unwrap();
    assert_eq!((rate.to.limit, rate.to.per), (20, Span::from_secs(1)));
    assert!(rate.key.is_none());
    let all = "concurrency: { limit: 3, key: input.c }, rate: { limit: 4, per: 2m, key: input.c }, priority: 2, \
               fairness_key: input.t";
    let all = limiting(all).unwrap();
    let (concurrency, rate) = (all.concurrency.unwrap(), all.rate.unwrap());
    assert_eq!((concurrency.to, concurrency.key.is_some()), (3, true));
    assert_eq!((rate.to.limit, rate.to.per), (4, Span::from_secs(120)));
    assert!(rate.key.is_some() && all.fairness_key.is_some());
    assert_eq!(all.priority, Some(2));
    let hash = |said: &str| {
        accept(&with_steps(&format!(
            "  - a: {{ activity: x, read_only: true, {said} }}\n"
        )))
        .hash
    };
    assert_eq!(hash("rate: { limit: 20 }"), hash("rate: { limit: 20, per: 1s }"));
}

#[test]
fn limits_and_priorities_are_taken_at_their_bounds_and_not_one_past_them() {
    for said in [
        "concurrency: { limit: 1 }",
        "concurrency: { limit: 1000000 }",
        "rate: { limit: 1 }",
        "rate: { limit: 1000000 }",
        "priority: 1",
        "priority: 5",
    ] {
        assert!(limiting(said).is_some(), "{said}");
    }
    for said in [
        "concurrency: { limit: 0 }",
        "concurrency: { limit: 1000001 }",
        "rate: { limit: 0 }",
        "rate: { limit: 1000001, per: 1h }",
        "priority: 0",
        "priority: 6",
    ] {
        let steps = format!("  - a: {{ activity: x, read_only: true, {said} }}\n");
        let found = findings(&with_steps(&steps));
        assert!(
            matches!(&found[..], [one] if one.starts_with("KN0111")),
            "{said}: {found:?}"
        );
    }
}

#[test]
fn what_is_wrong_is_marked_and_the_near_word_named() {
    for (said, found) in [
        (
            "concurrency: { limit: 0 }",
            "KN0111 `limit` must be a whole number from 1 to 1000000, not 0 | 0",
        ),
        (
            "concurrency: { key: input.c }",
            "KN0106 `concurrency` has no `limit` | concurrency",
        ),
        (
            "concurrency: { limit: 1, on_conflict: cancel_runing }",
            "KN0111 `on_conflict` is `queue`, `reject`, `cancel_running` or `skip`, not `cancel_runing` | cancel_runing",
        ),
        (
            "concurrency: { limit: 1, key: 7 }",
            "KN0103 `key` must be an expression, not a number | 7",
        ),
        (
            "concurrency: { limit: 1, key: customer }",
            "KN0121 there is no `customer` here | customer",
        ),
        (
            "concurrency: { limit: 1, key: steps.a.x }",
            "KN0121 there is no `steps` here | steps.a.x",
        ),
        (
            "priority: 6",
            "KN0111 `priority` must be a whole number from 1 to 5, not 6 | 6",
        ),
        (
            "priority: high",
            "KN0103 `priority` must be a whole number, not a string | high",
        ),
        (
            "concurrency: { limit: 1, keys: input.c }",
            "KN0104 `concurrency` has no key `keys` | keys",
        ),
    ] {
        assert_eq!(findings(&definition(said)), [found], "{said}");
    }
    let Err(found) = read(
        &definition("concurrency: { limit: 1, on_conflict: cancel_runing }"),
        &files,
    ) else {
        panic!("it is refused");
    };
    assert!(format!("{:?}", found[0]).contains("cancel_running"));
}
