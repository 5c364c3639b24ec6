//! Every kind of step: read, canonical, compiled; and what is wrong with the shape of each.

use proptest::prelude::*;

use super::*;
use crate::definition::plan::{
    Join, Losers, Node, NodeId, OnExhausted, OnTimeout, ParentClose, UndoOrder, Wait, WaitFor,
};
use crate::definition::read::{MAX_NESTING, MAX_STEPS};

/// Everything there is, in one definition.
pub(super) const EVERYTHING: &str = r#"
workflow: everything
version: 1
defaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 3 } }
compensation: { order: sequential, on_exhausted: halt }
steps:
  - split:
      parallel:
        branches:
          card: { steps: [ { charge: { activity: charge, compensate: refund, output_schema: { type: object } } } ] }
          bank:
            steps:
              - debit: { activity: debit, compensate: credit }
        join: { at_least: 1 }
        losers: keep
  - lines:
      if: input.lines is defined
      for_each:
        in: input.lines
        as: line
        max_concurrency: 10
        steps:
          - reserve: { activity: reserve, input: "${ line }", compensate: release }
        collect: steps.reserve.id
  - choose:
      switch:
        - when: input.a
          steps: [ { ship: { activity: ship, no_undo: it is gone } } ]
        - when: ${ input.b }
          steps: [ { pick: { set: { picked: true } } } ]
        - else: { steps: [ { drop: { set: { picked: false } } } ] }
  - poll:
      while:
        when: not (vars.ready | default(false))
        max_iterations: 20
        steps:
          - pause: { wait: 10s }
          - look: { activity: look, read_only: true }
          - note: { set: { ready: "${ steps.look.ready }" } }
  - guard:
      try:
        steps: [ { risky: { activity: risky, compensate: unrisk } } ]
        catch:
          - { type: [card_declined, no_money], steps: [ { notify: { emit: { subject: "pay.${ error.type }" } } } ] }
          - { type: late, steps: [ { remember: { set: { late: true } } } ] }
          - steps: [ { give_up: { fail: { type: gave_up, message: "after ${ error.message }" } } } ]
        finally: { steps: [ { free: { activity: free, read_only: true } } ] }
  - reserve_all:
      scope:
        steps: [ { hold: { activity: hold, compensate: unhold } } ]
        otherwise: { steps: [ { ask: { workflow: { name: ask, version: 2, id: "input.id ~ '-ask'", input: { x: 1 }, parent_close: terminate } } } ] }
  - approval:
      wait_for: { signal: approve, match: signal.order == input.order, timeout: 24h }
      on_timeout:
        steps: [ { escalate: { workflow: { name: escalate, detached: true } } } ]
  - later: { wait: { until: "2030-01-01T00:00:00Z" } }
  - computed: { wait: { until: input.when } }
  - forever: { wait_for: { signal: go } }
  - maybe: { wait_for: { signal: go_on, timeout: 1h }, on_timeout: continue }
  - tell: { emit: { subject: shop.done, body: { order: "${ input.order }" } } }
  - pay: { activity: pay, pivot: true }
  - again: { if: input.again, continue_as_new: { round: 2 } }
  - stop: { if: input.stop, complete: "${ input.order }" }
  - end: { complete: }
"#;

fn path(plan: &Plan, id: NodeId) -> String {
    let mut names = Vec::new();
    let mut at = Some(id);
    while let Some(id) = at {
        let node = plan.node(id);
        if !node.name.is_empty() {
            names.push(node.name.to_string());
        }
        at = node.parent;
    }
    names.reverse();
    names.join(".")
}

fn at<'p>(plan: &'p Plan, wanted: &str) -> &'p Node {
    // A step stands before its main body, which has the same path.
    let mut nodes = (0..plan.nodes.len()).map(NodeId);
    let id = nodes.find(|id| path(plan, *id) == wanted);
    plan.node(id.unwrap_or_else(|| panic!("no node at `{wanted}`")))
}

#[test]
fn everything_is_read_stored_and_compiled() {
    let checked = accept(EVERYTHING);
    insta::assert_snapshot!("everything_canonical", checked.canonical);
    let plan = checked.plan;
    let paths: Vec<String> = (0..plan.nodes.len()).map(|n| path(&plan, NodeId(n))).collect();
    insta::assert_snapshot!("everything_paths", paths.join("\n"));
    for (n, node) in plan.nodes.iter().enumerate() {
        assert!(node.parent.is_none_or(|parent| parent.0 < n));
    }
}

#[test]
fn settings_of_the_kinds_reach_the_plan() {
    let plan = accept(EVERYTHING).plan;
    assert_eq!(plan.compensation.order, UndoOrder::Sequential);
    assert_eq!(plan.compensation.on_exhausted, OnExhausted::Halt);
    let NodeKind::Parallel(split) = &at(&plan, "split").kind else {
        panic!()
    };
    assert_eq!((split.join, split.losers), (Join::AtLeast(1), Losers::Keep));
    let NodeKind::ForEach(lines) = &at(&plan, "lines").kind else {
        panic!()
    };
    assert_eq!((lines.item.as_ref(), lines.max_concurrency), ("line", Some(10)));
    let NodeKind::Workflow(ask) = &at(&plan, "reserve_all.otherwise.ask").kind else {
        panic!()
    };
    assert_eq!(
        (ask.version, ask.parent_close, ask.detached),
        (Some(2), ParentClose::Terminate, false)
    );
    let NodeKind::Workflow(escalate) = &at(&plan, "approval.on_timeout.escalate").kind else {
        panic!()
    };
    assert_eq!((escalate.parent_close, escalate.detached), (ParentClose::Abandon, true));
    let NodeKind::WaitFor(maybe) = &at(&plan, "maybe").kind else {
        panic!()
    };
    assert_eq!(maybe.on_timeout, OnTimeout::Continue);
    assert!(matches!(at(&plan, "poll.pause").kind, NodeKind::Wait(Wait::For(span)) if span == Span::from_secs(10)));
    assert!(matches!(&at(&plan, "pay").kind, NodeKind::Activity(pay) if pay.pivot));
    assert!(
        matches!(&at(&plan, "forever").kind, NodeKind::WaitFor(wait) if matches!(**wait, WaitFor { timeout: None, .. }))
    );
}

/// A definition whose step `b` is this.
fn step(body: &str) -> String {
    with_steps(&format!("  - b: {body}\n"))
}

const STEPS: &str = "steps: [ { x: { activity: x, read_only: true } } ]";

#[test]
fn shapes_that_are_wrong() {
    for (body, wanted) in [
        ("{ parallel: {} }", "KN0106 `parallel` has no `branches` | parallel"),
        ("{ parallel: { branches: {} } }", "KN0111 `branches` is empty | {"),
        (
            "{ parallel: { branches: { x-y: { STEPS } } } }",
            "KN0109 `x-y` cannot be the name of a branch | x-y",
        ),
        (
            "{ parallel: { branches: { x: [ { y: { wait: 1s } } ] } } }",
            "KN0103 a branch must be a mapping, not a list | [",
        ),
        (
            "{ parallel: { branches: { y: { STEPS } }, join: some } }",
            "KN0111 `join` is `all`, `any` or `{ at_least: n }`, not `some` | some",
        ),
        (
            "{ parallel: { branches: { y: { STEPS } }, join: { at_least: 2 } } }",
            "KN0111 `at_least` is 2, and there are 1 branches | 2",
        ),
        (
            "{ parallel: { branches: { y: { STEPS } }, join: { atleast: 1 } } }",
            "KN0104 `join` has no key `atleast` | atleast",
        ),
        (
            "{ parallel: { branches: { y: { STEPS } }, losers: keep } }",
            "KN0113 `losers` has no meaning where all branches have to succeed | losers",
        ),
        ("{ for_each: { STEPS } }", "KN0106 `for_each` has no `in` | for_each"),
        (
            "{ for_each: { in: input.l } }",
            "KN0106 `for_each` has no `steps` | for_each",
        ),
        (
            "{ for_each: { in: 5, STEPS } }",
            "KN0103 `in` must be an expression or a list, not a number | 5",
        ),
        (
            "{ for_each: { in: input.l, as: steps, STEPS } }",
            "KN0109 `steps` is a name of the language and cannot name an item | steps",
        ),
        (
            "{ for_each: { in: input.l, as: none, STEPS } }",
            "KN0109 `none` is a name of the language and cannot name an item | none",
        ),
        (
            "{ switch: [ { when: input.a, STEPS }, { when: \"${ input.a }\", steps: [ { y: { wait: 1s } } ] } ] }",
            "KN0153 this case is never reached: the same condition stands before it | when",
        ),
        (
            "{ try: { STEPS, catch: [ { type: [a, b], steps: [ { y: { wait: 1s } } ] }, { type: a, steps: [ { z: { wait: 1s } } ] } ] } }",
            "KN0153 this `catch` is never reached: its errors are caught before it | type",
        ),
        (
            "{ for_each: { in: input.l, max_concurrency: 0, STEPS } }",
            "KN0111 `max_concurrency` must be a whole number from 1 to 10000, not 0 | 0",
        ),
        ("{ activity: y, STEPS }", "KN0104 a step has no key `steps` | steps"),
        (
            "{ switch: { when: true, STEPS } }",
            "KN0103 `switch` must be a list of cases (`- { when: …, steps: [ … ] }`), not a mapping | {",
        ),
        ("{ switch: [] }", "KN0111 `switch` has no cases | ["),
        (
            "{ switch: [ { STEPS } ] }",
            "KN0106 a case of `switch` has no `when` | {",
        ),
        (
            "{ switch: [ { when: true, else: { steps: [ { y: { wait: 1s } } ] } } ] }",
            "KN0113 `when` has no meaning beside `else` | when",
        ),
        (
            "{ switch: [ { else: { STEPS } }, { when: true, steps: [ { y: { wait: 1s } } ] } ] }",
            "KN0153 this case is never reached: `else` stands before it | when",
        ),
        (
            "{ while: { when: true, STEPS } }",
            "KN0152 `while` has no `max_iterations`, so nothing bounds it | while",
        ),
        (
            "{ while: { max_iterations: 3, STEPS } }",
            "KN0106 `while` has no `when` | while",
        ),
        (
            "{ try: { STEPS } }",
            "KN0106 `try` has neither `catch` nor `finally` | try",
        ),
        ("{ try: { STEPS, catch: [] } }", "KN0111 `catch` is empty | ["),
        (
            "{ try: { STEPS, catch: [ { type: [], steps: [ { y: { wait: 1s } } ] } ] } }",
            "KN0111 `type` names no error | [",
        ),
        (
            "{ try: { STEPS, catch: [ { steps: [ { y: { wait: 1s } } ] }, { type: late, steps: [ { z: { wait: 1s } } ] } ] } }",
            "KN0153 this `catch` is never reached: the one before it catches every error | type",
        ),
        (
            "{ try: { steps: [ { catch_1: { wait: 1s } } ], finally: { STEPS } } }",
            "KN0109 `catch_1` is the name of a body of `try` and cannot be a step in it | catch_1",
        ),
        (
            "{ scope: { steps: [ { otherwise: { wait: 1s } } ] } }",
            "KN0109 `otherwise` is the name of a body of `scope` and cannot be a step in it | otherwise",
        ),
        (
            "{ scope: { otherwise: { STEPS } } }",
            "KN0106 `scope` has no `steps` | scope",
        ),
        ("{ wait: 5 }", "KN0110 `wait` is a number, not a duration | 5"),
        ("{ wait: soon }", "KN0110 `soon` is not a duration | soon"),
        ("{ wait: {} }", "KN0106 `wait` has no `until` | wait"),
        (
            "{ wait_for: { match: signal } }",
            "KN0106 `wait_for` has no `signal` | wait_for",
        ),
        (
            "{ wait_for: { signal: a.b } }",
            "KN0109 `a.b` cannot be the name of a signal | a.b",
        ),
        (
            "{ wait_for: { signal: s }, on_timeout: continue }",
            "KN0113 `on_timeout` needs a `timeout` | on_timeout",
        ),
        (
            "{ wait_for: { signal: s, timeout: 1h, on_timeout: continue } }",
            "KN0104 `wait_for` has no key `on_timeout` | on_timeout",
        ),
        (
            "{ wait_for: { signal: s, timeout: 1h }, on_timeout: giveup }",
            "KN0111 `on_timeout` is `fail`, `continue` or `{ steps: [ … ] }`, not `giveup` | giveup",
        ),
        (
            "{ workflow: other }",
            "KN0103 `workflow` must be a mapping, not a string | other",
        ),
        (
            "{ workflow: { version: 1 } }",
            "KN0106 `workflow` has no `name` | workflow",
        ),
        (
            "{ workflow: { name: c }, input: 1 }",
            "KN0113 `input` has no meaning beside `workflow` | input",
        ),
        (
            "{ workflow: { name: c, detached: true, parent_close: terminate } }",
            "KN0113 `parent_close` contradicts `detached`: a detached child is left alone | parent_close",
        ),
        (
            "{ workflow: { name: c, parent_close: leave } }",
            "KN0111 `parent_close` is `request_cancel`, `terminate` or `abandon`, not `leave` | leave",
        ),
        ("{ emit: { body: 1 } }", "KN0106 `emit` has no `subject` | emit"),
        (
            "{ emit: { subject: knarr.in.x } }",
            "KN0111 nothing can be published to `knarr.in.x`: it is Knarr's own or the server's | knarr.in.x",
        ),
        (
            "{ emit: { subject: \"shop.*\" } }",
            "KN0111 nothing can be published to `shop.*`: it has a wildcard | \"shop.*\"",
        ),
        ("{ fail: { message: m } }", "KN0106 `fail` has no `type` | fail"),
        ("{ fail: late }", "KN0103 `fail` must be a mapping, not a string | late"),
        (
            "{ fail: { type: late }, complete: 1 }",
            "KN0112 a step is either `fail` or `complete` | complete",
        ),
        (
            "{ activity: x, output_schema: nowhere.json }",
            "KN0130 `nowhere.json` cannot be read: no such file | nowhere.json",
        ),
        (
            "{ activity: x, pivot: true, read_only: true }",
            "KN0113 `read_only` contradicts `pivot` | read_only",
        ),
        (
            "{ activity: x, pivot: true, on_failure: continue }",
            "KN0113 `on_failure` contradicts `pivot` | on_failure",
        ),
        (
            "{ paralel: { branches: {} } }",
            "KN0104 a step has no key `paralel` | paralel",
        ),
        ("{ if: true }", "KN0112 the step `b` does not say what it does | b"),
        (
            "{ parallel: { branches: { y: { steps: [ { b: { wait: 1s } } ] } } } }",
            "KN0107 there is a step `b` already | b",
        ),
    ] {
        let text = step(&body.replace("STEPS", STEPS));
        assert_eq!(findings(&text), [wanted.replace("STEPS", STEPS)], "{text}");
    }
    let top = |more: &str| step("{ wait: 1s }") + more + "\n";
    assert_eq!(
        findings(&top("compensation: { order: reverse }")),
        ["KN0111 `order` is `sequential` or `dependencies`, not `reverse` | reverse"]
    );
}

/// Steps in so many bodies, of the kind that takes the most YAML for each.
fn nested(levels: usize) -> String {
    let mut inner = "[ { leaf: { activity: x, read_only: true, input: [[[\"${ input.a }\"]]] } } ]".to_owned();
    for level in 0..levels {
        inner = format!("[ {{ s{level}: {{ parallel: {{ branches: {{ b: {{ steps: {inner} }} }} }} }} }} ]");
    }
    format!(
        "workflow: w\nversion: 1\ndefaults: {{ queue: q, start_to_close: 5s, retry: {{ maximum_attempts: 3 }} }}\nsteps: {inner}\n"
    )
}

#[test]
fn steps_nest_ten_levels_deep() {
    let checked = accept(&nested(MAX_NESTING));
    assert_eq!(checked.plan.nodes.len(), 2 * MAX_NESTING + 2);
    let found = read(&nested(MAX_NESTING + 1), &files).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].message, "steps are nested deeper than 10 levels");
    assert_eq!(found[0].code, code::TOO_LARGE);
}

#[test]
fn nested_steps_count() {
    let list = |prefix: &str, count: usize| {
        let steps = (0..count).map(|n| format!("{{ {prefix}{n}: {{ wait: 1s }} }}"));
        format!("{{ steps: [ {} ] }}", steps.collect::<Vec<_>>().join(", "))
    };
    let split = |b: usize| {
        step(&format!(
            "{{ parallel: {{ branches: {{ x: {}, y: {} }} }} }}",
            list("x", 499),
            list("y", b)
        ))
    };
    assert_eq!(accept(&split(500)).plan.nodes.len(), MAX_STEPS + 3);
    assert_eq!(
        read(&split(501), &files).unwrap_err()[0].message,
        "the definition has more than 1000 steps"
    );
}

/// A list of steps of any kind, without an id: they are numbered afterwards.
fn some_steps() -> impl Strategy<Value = Value> {
    let leaf = prop::sample::select(vec![
        json!({"wait": "5s"}),
        json!({"set": {"v": "${ input.a }"}}),
        json!({"activity": "x", "compensate": "y"}),
        json!({"activity": "x", "if": "input.a", "output_schema": {"type": "object"}}),
        json!({"emit": {"subject": "s.${ run.id }", "body": [1, "${ input }"]}}),
        json!({"wait_for": {"signal": "s", "match": "signal.x"}}),
        json!({"wait_for": {"signal": "s", "timeout": "1h"}, "on_timeout": "continue"}),
        json!({"workflow": {"name": "c", "id": "input.id", "detached": true}}),
        json!({"wait": {"until": "input.when"}}),
        json!({"fail": {"type": "t"}, "if": true}),
        json!({"continue_as_new": {"a": 1}, "if": "input.b"}),
    ]);
    let body = leaf.prop_recursive(4, 20, 3, |inner| {
        let steps = prop::collection::vec(inner, 1..4).prop_map(Value::Array);
        ([steps.clone(), steps.clone(), steps], 0..10_u8).prop_map(|([a, b, c], kind)| {
            let branches = json!({"l": {"steps": a}, "r": {"steps": b}});
            match kind {
                0 => json!({"parallel": {"branches": branches}}),
                1 => json!({"parallel": {"branches": branches, "join": "any", "losers": "keep"}}),
                2 => json!({"parallel": {"branches": branches, "join": {"at_least": 2}}}),
                3 => json!({"for_each": {"in": "input.l", "steps": a, "collect": {"v": "${ index }"}}}),
                4 => json!({"switch": [{"when": "input.a", "steps": a}, {"else": {"steps": b}}]}),
                5 => json!({"while": {"when": "input.w", "max_iterations": 3, "steps": a}}),
                6 => json!({"try": {"steps": a, "catch": [{"type": "t", "steps": b}], "finally": {"steps": c}}}),
                7 => json!({"try": {"steps": a, "catch": [{"steps": b}]}, "if": "input.t"}),
                8 => json!({"scope": {"steps": a, "otherwise": {"steps": b}}}),
                _ => json!({"wait_for": {"signal": "s", "timeout": "1h"}, "on_timeout": {"steps": a}}),
            }
        })
    });
    prop::collection::vec(body, 1..4).prop_map(Value::Array)
}

/// Gives every step an id and every loop's item a name of its own.
fn numbered(value: Value, next: &mut usize) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    ("steps", Value::Array(steps)) => steps.into_iter().map(|step| with_id(step, next)).collect(),
                    ("for_each", mut value) => {
                        *next += 1;
                        value["as"] = json!(format!("i{next}"));
                        numbered(value, next)
                    }
                    (_, value) => numbered(value, next),
                };
                (key, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| numbered(item, next)).collect(),
        other => other,
    }
}

fn with_id(step: Value, next: &mut usize) -> Value {
    *next += 1;
    let id = format!("s{next}");
    json!({ id: numbered(step, next) })
}

proptest! {
    #[test]
    fn any_tree_of_steps_is_stored_as_it_is_meant(steps in some_steps()) {
        let document = json!({
            "workflow": "w", "version": 1, "steps": steps,
            "defaults": {"queue": "q", "start_to_close": "1s"},
        });
        let text = numbered(document, &mut 0).to_string();
        let checked = read(&text, &files);
        prop_assert!(checked.is_ok(), "{}", diagnostic::render("x", &text, &checked.unwrap_err()));
        assert_same_from_canonical(&checked.unwrap());
    }
}
