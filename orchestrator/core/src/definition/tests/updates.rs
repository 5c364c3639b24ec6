//! `updates` of a definition, and what is said of them where they are wrong.

use super::*;
use crate::definition::diff::diff;
use crate::definition::graph::{Graph, mermaid, svg};

const UPDATED: &str = "  - pay: { activity: pay, read_only: true }
updates:
  add:
    schema: { type: object, properties: { n: { type: integer } }, required: [n], additionalProperties: false }
    validate: update.n > 0
    steps:
      - check: { activity: check, input: \"${ update.n }\", read_only: true }
      - sum: { set: { total: \"${ vars.total | default(0) + update.n }\" } }
    output: { total: \"${ vars.total }\", check: \"${ steps.check.id }\", paid: \"${ steps.pay is defined }\" }
  ask: { output: \"${ vars.total | default(0) }\" }
";

#[test]
fn they_are_read_and_kept_in_the_canonical_form() {
    let checked = accept(&with_steps(UPDATED));
    assert_eq!(checked.findings, []);
    let (_, add) = checked.plan.update_of("add").unwrap();
    assert!(add.schema.is_some() && add.validate.is_some() && add.output.is_some());
    let (_, ask) = checked.plan.update_of("ask").unwrap();
    assert!(ask.schema.is_none() && ask.validate.is_none());
    assert!(checked.plan.handler_of("add").is_none() && checked.plan.update_of("pay").is_none());
    assert!(
        !accept(&with_steps("  - a: { wait: 1s }\n"))
            .canonical
            .contains("updates")
    );
}

fn handler(said: &str) -> String {
    with_steps(&format!(
        "  - pay: {{ activity: pay, read_only: true }}\nupdates: {{ go: {{ {said} }}, other: {{ steps: [ {{ o: {{ activity: o, read_only: true }} }} ] }} }}\n"
    ))
}

#[test]
fn what_may_be_read_is_checked() {
    for (said, finding) in [
        (
            "validate: steps.pay.x == 1",
            "KN0124 the step `pay` may not have run when the update comes and then has no output | steps.pay.x",
        ),
        (
            "validate: steps.b.x == 1, steps: [ { b: { activity: b, read_only: true } } ]",
            "KN0133 the step `b` runs once for every update `go`; outside there is only what its handler sets | steps.b.x",
        ),
        (
            "output: \"${ steps.o.x }\"",
            "KN0133 the step `o` runs once for every update `other`; outside there is only what its handler sets | steps.o.x",
        ),
        (
            "schema: { type: object, properties: { n: {} }, additionalProperties: false }, validate: update.m is defined",
            "KN0127 the schema of `update` has no property `m` there | update.m",
        ),
        (
            "steps: [ { a: { complete: 1 } } ]",
            "KN0146 `a` ends the run, and stands in the handler of `go` | a",
        ),
    ] {
        assert_eq!(findings(&handler(said)), [finding], "{said}");
    }
    for fine in [
        "validate: \"'no' if steps.pay is defined else true\"",
        "steps: [ { b: { activity: b, read_only: true } } ], output: \"${ steps.b.x }${ update }\"",
        "steps: [ { b: { wait_for: { signal: go, timeout: 1h }, on_timeout: continue } } ]",
    ] {
        assert_eq!(findings(&handler(fine)), [""; 0], "{fine}");
    }
    // What is updated is not there for the others.
    let outside = with_steps("  - a: { set: { v: \"${ update }\" } }\nupdates: { go: { output: 1 } }\n");
    assert!(
        findings(&outside).iter().any(|one| one.contains("`update`")),
        "{:?}",
        findings(&outside)
    );
}

#[test]
fn shapes_that_are_wrong_are_told() {
    for (said, finding) in [
        (
            "updates: []",
            "KN0103 `updates` must be a mapping of names to handlers, not a list",
        ),
        (
            "updates: { go: { stps: [] } }",
            "KN0104 the handler of an update has no key `stps`",
        ),
        ("updates: { go: { steps: [] } }", "KN0111 `steps` is empty"),
        ("updates: { a.b: {} }", "KN0109 `a.b` cannot be the name of an update"),
        (
            "signals: { go: { steps: [ { x: { wait: 1s } } ], output: 1 } }",
            "KN0104 the handler of a signal has no key `output`",
        ),
    ] {
        let found = findings(&(with_steps("  - w: { wait: 1s }\n") + said + "\n"));
        assert!(found.iter().any(|one| one.starts_with(finding)), "{said}: {found:?}");
    }
}

#[test]
fn a_new_version_tells_what_it_does_for_them() {
    let before = accept(&with_steps(UPDATED)).canonical;
    let after = UPDATED
        .replace("update.n > 0", "update.n > 1")
        .replace("  ask:", "  show:");
    let after = accept(&with_steps(&after)).canonical;
    let told: Vec<_> = diff(&before, &after)
        .unwrap()
        .changes
        .iter()
        .map(ToString::to_string)
        .collect();
    for line in [
        "the handler of show is new: each is taken as it comes",
        "the handler of ask is gone: each is taken as it comes",
    ] {
        assert!(told.contains(&line.to_owned()), "{line}: {told:#?}");
    }
    assert!(
        told.iter()
            .any(|line| line.starts_with("the handler of add: validate from")),
        "{told:#?}"
    );
}

#[test]
fn they_are_drawn_beside_the_steps() {
    let graph = Graph::of(&accept(&with_steps(UPDATED)).plan);
    let paths: Vec<_> = graph.handlers.iter().map(|step| step.path.as_str()).collect();
    assert_eq!(paths, ["$updates.add", "$updates.ask"]);
    for drawn in [mermaid(&graph), svg(&graph)] {
        assert!(
            drawn.contains("for each update add") && drawn.contains("for each update ask"),
            "{drawn}"
        );
    }
}
