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
