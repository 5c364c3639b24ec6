//! `signals` of a definition, and what is said of them where they are wrong.

use super::*;
use crate::definition::diff::diff;
use crate::definition::graph::{Graph, mermaid, svg};

const HANDLED: &str = "  - pay: { activity: pay, compensate: refund }
  - lines: { for_each: { in: input.lines, steps: [ { reserve: { activity: reserve, read_only: true } } ] } }
signals:
  add:
    schema: { type: object, properties: { n: { type: integer } }, required: [n], additionalProperties: false }
    steps:
      - check: { activity: check, input: \"${ signal.n }\", read_only: true }
      - sum: { set: { total: \"${ vars.total | default(0) + signal.n + steps.check.n }\", paid: \"${ steps.pay is defined }\" } }
  note: { steps: [ { tell: { activity: tell, input: \"${ vars.total | default(0) }\", read_only: true } } ] }
output: \"${ vars.total | default(0) }\"
";

#[test]
fn they_are_read_and_kept_in_the_canonical_form() {
    let checked = accept(&with_steps(HANDLED));
    assert_eq!(checked.findings, []);
    let (_, add) = checked.plan.handler_of("add").unwrap();
    assert!(add.schema.is_some());
    assert!(checked.plan.handler_of("note").is_some() && checked.plan.handler_of("pay").is_none());
    let queues: Vec<_> = checked.plan.queues().iter().map(ToString::to_string).collect();
    assert_eq!(queues, ["q"]);
    assert!(
        !accept(&with_steps("  - a: { wait: 1s }\n"))
            .canonical
            .contains("signals")
    );
    assert!(
        accept(&with_steps("  - a: { wait: 1s }\nsignals: {}\n"))
            .plan
            .handlers
            .is_empty()
    );
}

fn handler(steps: &str) -> String {
    with_steps(&format!(
        "  - pay: {{ activity: pay, read_only: true }}\n  - note: {{ set: {{ noted: true }} }}\nsignals: {{ go: {{ steps: [ {steps} ] }}, other: {{ steps: [ {{ o: {{ activity: o, read_only: true }} }} ] }} }}\n"
    ))
}

#[test]
fn what_a_handler_may_read_is_checked() {
    for (steps, finding) in [
        (
            "{ a: { set: { v: \"${ steps.pay.x }\" } } }",
            "KN0124 the step `pay` may not have run when the signal comes and then has no output | steps.pay.x",
        ),
        (
            "{ a: { set: { v: \"${ vars.noted }\" } } }",
            "KN0124 `vars.noted` is set only if `note` runs | vars.noted",
        ),
        (
            "{ a: { set: { v: \"${ steps.o.x }\" } } }",
            "KN0133 the step `o` runs once for every signal `other`; outside there is only what its handler sets | steps.o.x",
        ),
        (
            "{ a: { set: { v: \"${ steps.b.x }\" } } }, { b: { activity: b, read_only: true } }",
            "KN0123 the step `b` runs later | steps.b.x",
        ),
        (
            "{ pay: { activity: p, read_only: true } }",
            "KN0107 there is a step `pay` already | pay",
        ),
        (
            "{ a: { activity: a, pivot: true } }",
            "KN0155 the pivot `a` stands in a handler, and may be passed more than once | a",
        ),
        (
            "{ a: { complete: 1 } }",
            "KN0146 `a` ends the run, and stands in the handler of `go` | a",
        ),
        (
            "{ a: { wait_for: { signal: other, timeout: 1h } } }",
            "KN0145 `a` waits for the signal `other`, which has a handler | other",
        ),
    ] {
        assert_eq!(findings(&handler(steps)), [finding], "{steps}");
    }
    for fine in [
        "{ a: { set: { v: \"${ steps.pay.x | default(none) }\" } } }",
        "{ a: { activity: a, read_only: true } }, { b: { set: { v: \"${ steps.a.x }${ signal }\" } } }",
        "{ a: { wait_for: { signal: more, match: signal.x, timeout: 1h }, on_timeout: continue } }",
        "{ a: { if: steps.pay is defined, set: { v: \"${ steps.pay.x }\" } } }",
    ] {
        assert_eq!(findings(&handler(fine)), [""; 0], "{fine}");
    }
}

#[test]
fn outside_there_is_only_what_they_set_and_that_may_be_missing() {
    let reading = |what: &str| {
        with_steps(&format!(
            "  - w: {{ wait: 1h }}\nsignals: {{ go: {{ steps: [ {{ a: {{ activity: a, read_only: true }} }}, {{ s: {{ set: {{ v: 1 }} }} }} ] }} }}\noutput: \"${{ {what} }}\"\n"
        ))
    };
    assert_eq!(
        findings(&reading("steps.a.x")),
        [
            "KN0133 the step `a` runs once for every signal `go`; outside there is only what its handler sets | steps.a.x"
        ]
    );
    assert_eq!(
        findings(&reading("vars.v")),
        ["KN0124 `vars.v` is set only if `s` runs | vars.v"]
    );
    assert_eq!(findings(&reading("vars.v | default(0)")), [""; 0]);
}

#[test]
fn queries_read_what_handlers_set_and_not_what_their_steps_say() {
    let asked = with_steps(&(HANDLED.to_owned() + "queries: { total: vars.total }\n"));
    assert_eq!(findings(&asked), [""; 0]);
    let canonical = accept(&with_steps(HANDLED)).canonical;
    assert!(read_query(&canonical, "vars.paid").is_ok());
    assert_eq!(
        read_query(&canonical, "steps.check.n").unwrap_err()[0].code.code,
        "KN0133"
    );
}

#[test]
fn what_has_a_schema_is_held_against_it() {
    let said = |what: &str| {
        with_steps(&format!(
            "  - w: {{ wait: 1h }}\nsignals: {{ go: {{ schema: {{ type: object, properties: {{ n: {{}} }}, additionalProperties: false }}, steps: [ {{ s: {{ set: {{ v: \"${{ signal.{what} | default(0) }}\" }} }} }} ] }} }}\n"
        ))
    };
    assert_eq!(findings(&said("n")), [""; 0]);
    assert_eq!(
        findings(&said("m")),
        ["KN0127 the schema of `signal` has no property `m` there | signal.m"]
    );
}

#[test]
fn what_may_be_undone_beside_a_pivot_or_left_behind_is_told() {
    let pivot = "  - pay: { activity: pay, pivot: true }\nsignals: { go: { steps: [ { a: { activity: a, compensate: undo-a } } ] } }\n";
    assert_eq!(
        findings(&with_steps(pivot)),
        ["KN0154 `a` may come after the pivot `pay`, and then its undo never runs | a"]
    );
    let left = "  - pay: { activity: pay }\nsignals: { go: { steps: [ { a: { activity: a } } ] } }\n";
    assert_eq!(
        findings(&with_steps(left)),
        [
            "KN0150 what `pay` did stays when a step beside it (`a`, say) fails | pay",
            "KN0150 what `a` did stays when a step beside it (`pay`, say) fails | a",
        ]
    );
}

#[test]
fn shapes_that_are_wrong_are_told() {
    for (said, finding) in [
        (
            "signals: []",
            "KN0103 `signals` must be a mapping of names to handlers, not a list",
        ),
        ("signals: { go: {} }", "KN0106 a handler has no `steps`"),
        (
            "signals: { go: { stps: [] } }",
            "KN0104 the handler of a signal has no key `stps`",
        ),
        ("signals: { go: { steps: [] } }", "KN0111 `steps` is empty"),
        (
            "signals: { a.b: { steps: [ { x: { wait: 1s } } ] } }",
            "KN0109 `a.b` cannot be the name of a signal",
        ),
        (
            "signals: { go: { schema: { type: nonsense }, steps: [ { x: { wait: 1s } } ] } }",
            "KN0131",
        ),
    ] {
        let found = findings(&(with_steps("  - w: { wait: 1s }\n") + said + "\n"));
        assert!(found.iter().any(|one| one.starts_with(finding)), "{said}: {found:?}");
    }
}

#[test]
fn a_new_version_tells_what_it_handles() {
    let before = accept(&with_steps(HANDLED)).canonical;
    let after = HANDLED
        .replace("activity: check", "activity: look")
        .replace("  note:", "  remark:")
        .replace("required: [n]", "required: []");
    let after = after
        .replace("signal.n +", "signal.n | default(0) +")
        .replace("input: \"${ signal.n }\"", "input: \"${ signal.n | default(0) }\"");
    let after = accept(&with_steps(&after)).canonical;
    let told: Vec<_> = diff(&before, &after)
        .unwrap()
        .changes
        .iter()
        .map(ToString::to_string)
        .collect();
    for line in [
        "the handler of remark is new: each is taken as it comes",
        "the handler of note is gone: each is taken as it comes",
        "$signals.add.check: activity from check to look",
        "$signals.remark.tell is moved, from $signals.note.tell, to the front",
    ] {
        assert!(told.contains(&line.to_owned()), "{line}: {told:#?}");
    }
    assert!(
        told.iter()
            .any(|line| line.starts_with("the handler of add: schema from")),
        "{told:#?}"
    );
}

#[test]
fn they_are_drawn_beside_the_steps() {
    let graph = Graph::of(&accept(&with_steps(HANDLED)).plan);
    let paths: Vec<_> = graph.handlers.iter().map(|step| step.path.as_str()).collect();
    assert_eq!(paths, ["$signals.add", "$signals.note"]);
    assert!(
        graph
            .edges
            .iter()
            .any(|edge| (edge.from.as_str(), edge.to.as_str()) == ("$signals.add.sum", "$signals.add"))
    );
    let chart = mermaid(&graph);
    assert!(chart.contains("for each signal add"), "{chart}");
    let picture = svg(&graph);
    assert!(picture.contains("for each signal note"), "{picture}");
}
