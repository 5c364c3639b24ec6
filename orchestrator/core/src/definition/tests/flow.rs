//! What is known along the ways a run can take: steps, variables and names in scope, over the whole tree.

use super::*;

fn of(steps: &str) -> Vec<String> {
    findings(&with_steps(steps))
}

/// A step that reads what is given, by the id `r`.
fn reads(expression: &str) -> String {
    format!("  - r: {{ set: {{ out: \"${{ {expression} }}\" }} }}\n")
}

fn look(id: &str) -> String {
    format!("{{ {id}: {{ activity: look, read_only: true }} }}")
}

#[test]
fn what_is_visible_after_a_parallel() {
    let split = |join: &str| {
        format!(
            "  - split: {{ parallel: {{ branches: {{ l: {{ steps: [ {}, {{ s: {{ set: {{ v: 1 }} }} }} ] }}, r: {{ steps: [ {} ] }} }}, join: {join} }} }}\n",
            look("a"),
            look("b")
        )
    };
    for join in ["all", "{ at_least: 2 }"] {
        for read in ["steps.a.x", "steps.b.x", "vars.v", "steps.split.branches.l.x"] {
            let found = of(&(split(join) + &reads(read)));
            let wanted: &[&str] = match (join, read) {
                ("all", _) | (_, "steps.a.x" | "steps.b.x" | "vars.v") => &[],
                _ => &[
                    "KN0124 the branch `l` may have been cancelled (`split` does not wait for all) and then has no output | steps.split.branches.l.x",
                ],
            };
            assert_eq!(found, wanted, "{join} {read}");
        }
    }
    let any = split("any");
    assert_eq!(
        of(&(any.clone() + &reads("steps.a.x"))),
        [
            "KN0124 the step `a` may have been cancelled (`split` does not wait for all) and then has no output | steps.a.x"
        ]
    );
    assert_eq!(
        of(&(any.clone() + &reads("vars.v"))),
        ["KN0124 `vars.v` is set only if `s` runs | vars.v"]
    );
    assert_eq!(
        of(&(any.clone() + &reads("steps.l.x"))),
        ["KN0122 there is no step `l` | steps.l.x"]
    );
    for read in [
        "steps.a.x | default(1)",
        "steps.split.winner",
        "steps.split.branches.l.x | default(1)",
        "vars.v | default(1)",
    ] {
        assert_eq!(of(&(any.clone() + &reads(read))), Vec::<String>::new(), "{read}");
    }
    assert_eq!(
        of(&(any.clone() + &reads("steps.split.winer"))),
        ["KN0121 the output of `split` has no `winer` | steps.split.winer"]
    );
    assert_eq!(
        of(&(any + &reads("steps.split.branches.ll.x"))),
        ["KN0121 `split` has no branch `ll` | steps.split.branches.ll.x"]
    );
}

#[test]
fn branches_do_not_see_each_other() {
    let split = |expression: &str| {
        format!(
            "  - split:\n      parallel:\n        branches:\n          l: {{ steps: [ {}, {{ s: {{ set: {{ v: 1 }} }} }} ] }}\n          r: {{ steps: [ {{ r: {{ set: {{ out: \"${{ {expression} }}\" }} }} }} ] }}\n",
            look("a")
        )
    };
    assert_eq!(
        of(&split("steps.a.x | default(1)")),
        ["KN0132 the step `a` runs beside this one, in another branch of `split` | steps.a.x"]
    );
    assert_eq!(of(&split("vars.v")), ["KN0123 `vars.v` is not set before `s` | vars.v"]);
    assert_eq!(
        of(&split("steps.split.winner")),
        ["KN0123 the step `split` has no output while the steps in it run | steps.split.winner"]
    );
}

#[test]
fn what_is_in_a_loop_over_a_list_stays_there() {
    let each = |inner: &str, collect: &str| {
        format!(
            "  - lines: {{ for_each: {{ in: input.lines, as: line, max_concurrency: 1, steps: [ {}, {{ i: {{ set: {{ v: \"${{ {inner} }}\" }} }} }} ], collect: \"{collect}\" }} }}\n",
            look("a")
        )
    };
    assert_eq!(
        of(&(each("line.x ~ index ~ steps.a.x", "[steps.a.x, line]") + &reads("steps.lines[0]"))),
        Vec::<String>::new()
    );
    assert_eq!(
        of(&(each("line", "line") + &reads("steps.a.x"))),
        ["KN0133 the step `a` runs once for every item of `lines`; outside there is only the list | steps.a.x"]
    );
    assert_eq!(
        of(&(each("line", "line") + "output: \"${ steps.a.x }\"\n")),
        ["KN0133 the step `a` runs once for every item of `lines`; outside there is only the list | steps.a.x"]
    );
    assert_eq!(
        of(&(each("line", "line") + &reads("vars.v"))),
        ["KN0124 `vars.v` is set only if `i` runs | vars.v"]
    );
    assert_eq!(
        of(&(each("line", "line") + &reads("line.x"))),
        ["KN0121 there is no `line` here | line.x"]
    );
    assert_eq!(of(&each("item.x", "line")), ["KN0121 there is no `item` here | item.x"]);
    assert_eq!(
        of(&each("steps.lines[0]", "line")),
        ["KN0123 the step `lines` has no output while the steps in it run | steps.lines[0]"]
    );
    assert_eq!(
        of(&format!(
            "  - o: {{ for_each: {{ in: input.l, steps: [ {{ i: {{ for_each: {{ in: item, steps: [ {} ] }} }} }} ] }} }}\n",
            look("a")
        )),
        ["KN0134 `item` is the item of a loop around this one already | for_each"]
    );
    assert_eq!(
        of("  - o: { for_each: { in: input.l, steps: [ { i: { set: { v: 1 } } } ] } }\n"),
        ["KN0159 `vars.v` is set by iterations that run side by side; the last one wins | v"]
    );
    assert_eq!(
        of(
            "  - o: { parallel: { branches: { l: { steps: [ { i: { set: { v: 1 } } } ] }, r: { steps: [ { j: { set: { v: 1 } } } ] } } } }\n"
        ),
        ["KN0159 `vars.v` is set in the branch `l` as well; the last one wins | v"]
    );
}

#[test]
fn what_is_visible_after_a_switch() {
    let choose = |rest: &str| {
        format!(
            "  - choose: {{ switch: [ {{ when: input.x, steps: [ {}, {{ s: {{ set: {{ v: 1 }} }} }} ] }}, {rest} ] }}\n",
            look("a")
        )
    };
    let other = format!(
        "{{ else: {{ steps: [ {}, {{ t: {{ set: {{ v: 2 }} }} }} ] }} }}",
        look("b")
    );
    let ends = "{ else: { steps: [ { f: { fail: { type: t } } } ] } }";
    for (rest, read, wanted) in [
        (other.as_str(), "vars.v", None),
        (ends, "steps.a.x", None),
        (ends, "vars.v", None),
        (
            &other,
            "steps.a.x",
            Some("KN0124 the step `a` may not run (it is in a case of `choose`) and then has no output | steps.a.x"),
        ),
        (
            &other,
            "steps.b.x",
            Some("KN0124 the step `b` may not run (it is in a case of `choose`) and then has no output | steps.b.x"),
        ),
        (&other, "steps.b.x | default(1)", None),
        (
            "{ when: input.y, steps: [ { t: { set: { v: 2 } } } ] }",
            "vars.v",
            Some("KN0124 `vars.v` is set only if `s` runs | vars.v"),
        ),
        (
            ends,
            "steps.choose",
            Some("KN0126 the step `choose` takes one of its cases and has no output | steps.choose"),
        ),
    ] {
        let found = of(&(choose(rest) + &reads(read)));
        assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "{rest} {read}");
    }
    // The first case's own condition tells.
    let told = choose(&other) + "  - r: { if: input.x, set: { out: \"${ steps.a.x }\" } }\n";
    assert_eq!(of(&told), Vec::<String>::new());
    assert_eq!(
        of(&choose(
            "{ else: { steps: [ { t: { set: { w: \"${ steps.a.x }\" } } } ] } }"
        )),
        ["KN0123 the step `a` runs instead of this one: both are in `choose`, which takes one of them | steps.a.x"]
    );
}

#[test]
fn conditions_hold_for_what_is_in_a_step() {
    let scope = format!("  - s: {{ if: input.x, scope: {{ steps: [ {} ] }} }}\n", look("a"));
    assert_eq!(
        of(&(scope.clone() + &reads("steps.a.x"))),
        ["KN0124 the step `a` may be skipped (`if` of `s`) and then has no output | steps.a.x"]
    );
    for reader in [
        "  - r: { if: input.x, set: { out: \"${ steps.a.x }\" } }\n",
        "  - r: { if: steps.a is defined, set: { out: \"${ steps.a.x }\" } }\n",
        "  - r: { if: input.x, scope: { steps: [ { i: { set: { out: \"${ steps.a.x }\" } } } ] } }\n",
        "  - r: { switch: [ { when: input.x, steps: [ { i: { set: { out: \"${ steps.a.x }\" } } } ] } ] }\n",
    ] {
        assert_eq!(of(&(scope.clone() + reader)), Vec::<String>::new(), "{reader}");
    }
    let twice = "  - s: { if: input.x, scope: { steps: [ { a: { if: input.y, activity: x, read_only: true } } ] } }\n";
    let reader = |condition: &str| format!("  - r: {{ if: {condition}, set: {{ out: \"${{ steps.a.x }}\" }} }}\n");
    assert_eq!(
        of(&format!("{twice}{}", reader("input.y"))),
        ["KN0124 the step `a` may be skipped (`if`) and then has no output | steps.a.x"]
    );
}

#[test]
fn a_loop_with_a_condition_may_not_run() {
    let poll = |when: &str, inner: &str| {
        format!(
            "  - poll: {{ while: {{ when: \"{when}\", max_iterations: 5, steps: [ {{ p: {{ wait: 1s }} }}, {inner} ] }} }}\n"
        )
    };
    assert_eq!(
        of(&(poll("not (steps.a.done | default(false))", &look("a")) + &reads("steps.a.done | default(false)"))),
        Vec::<String>::new()
    );
    assert_eq!(
        of(&poll("not steps.a.done", &look("a"))),
        ["KN0124 the step `a` has not run before the first iteration and then has no output | steps.a.done"]
    );
    // Inside, an iteration's own steps are seen; what the one before left is in variables.
    let early = "  - poll: { while: { when: index < 3, max_iterations: 5, steps: [ { i: { set: { v: \"${ steps.a.x | default(index) }\" } } }, { a: { activity: x, read_only: true } } ] } }\n";
    assert_eq!(of(early), ["KN0123 the step `a` runs later | steps.a.x"]);
    assert_eq!(
        of(&(poll("true", &look("a")) + &reads("steps.a.x"))),
        ["KN0124 the step `a` may not run (`poll` may pass without an iteration) and then has no output | steps.a.x"]
    );
    assert_eq!(
        of(&(poll("true", "{ s: { set: { v: 1 } } }") + &reads("vars.v"))),
        ["KN0124 `vars.v` is set only if `s` runs | vars.v"]
    );
    assert_eq!(
        of(&("  - i: { set: { v: 0 } }\n".to_owned()
            + &poll("vars.v < 3", "{ s: { set: { v: \"${ vars.v + 1 }\" } } }")
            + &reads("vars.v"))),
        Vec::<String>::new()
    );
}

#[test]
fn what_is_visible_around_an_error() {
    let guard = |catch: &str, finally: &str| {
        format!(
            "  - g: {{ try: {{ steps: [ {}, {}, {{ s: {{ set: {{ v: 1 }} }} }} ], catch: [ {{ steps: [ {catch} ] }} ], finally: {{ steps: [ {finally} ] }} }} }}\n",
            look("a"),
            look("b")
        )
    };
    let pause = |id: &str| format!("{{ {id}: {{ wait: 1s }} }}");
    let set = |expression: &str| format!("{{ c: {{ set: {{ v: \"${{ {expression} }}\" }} }} }}");
    assert_eq!(
        of(&(guard(&set("error.type ~ error.message ~ error.step"), &pause("f")) + &reads("vars.v"))),
        Vec::<String>::new()
    );
    assert_eq!(
        of(&guard(&set("error.code"), &pause("f"))),
        ["KN0121 `error` has no `code` | error.code"]
    );
    assert_eq!(
        of(&guard(&set("steps.a.x"), &pause("f"))),
        [
            "KN0124 the step `a` may not have run (an error in `g` may come before it) and then has no output | steps.a.x"
        ]
    );
    assert_eq!(
        of(&guard(&pause("d"), &set("steps.b.x"))),
        [
            "KN0124 the step `b` may not have run (an error in `g` may come before it) and then has no output | steps.b.x"
        ]
    );
    assert_eq!(
        of(&guard(&pause("d"), &set("error.type"))),
        ["KN0121 there is no `error` here | error.type"]
    );
    assert_eq!(
        of(&(guard(&pause("c"), &pause("f")) + &reads("steps.a.x"))),
        [
            "KN0124 the step `a` may not have run (an error in `g` may come before it) and then has no output | steps.a.x"
        ]
    );
    assert_eq!(
        of(&(guard("{ c: { fail: { type: t } } }", &look("f")) + &reads("steps.a.x ~ steps.f.x ~ vars.v"))),
        Vec::<String>::new()
    );
    assert_eq!(
        of(&(guard(&look("c"), &pause("f")) + &reads("steps.c.x"))),
        ["KN0124 the step `c` may not run (it is in a `catch` of `g`) and then has no output | steps.c.x"]
    );
}

#[test]
fn what_is_visible_around_a_savepoint() {
    let scope = |otherwise: &str| {
        format!(
            "  - s: {{ scope: {{ steps: [ {}, {{ m: {{ set: {{ v: 1 }} }} }} ], otherwise: {{ steps: [ {otherwise} ] }} }} }}\n",
            look("a")
        )
    };
    assert_eq!(
        of(&(scope("{ o: { set: { v: \"${ error.type }\" } } }") + &reads("vars.v"))),
        Vec::<String>::new()
    );
    let undone =
        "KN0124 the step `a` may not have run, or was undone when `s` failed and then has no output | steps.a.x";
    assert_eq!(of(&scope("{ o: { set: { w: \"${ steps.a.x }\" } } }")), [undone]);
    assert_eq!(of(&(scope(&look("o")) + &reads("steps.a.x"))), [undone]);
    assert_eq!(
        of(&(scope(&look("o")) + &reads("steps.o.x"))),
        ["KN0124 the step `o` may not run (it is in `otherwise` of `s`) and then has no output | steps.o.x"]
    );
    assert_eq!(
        of(&(scope("{ o: { fail: { type: t } } }") + &reads("steps.a.x"))),
        Vec::<String>::new()
    );
}

#[test]
fn signals_and_time_outs() {
    let wait = |rest: &str| {
        format!("  - w: {{ wait_for: {{ signal: s, match: signal.ok, timeout: 1h }}, on_timeout: {rest} }}\n")
    };
    assert_eq!(of(&(wait("fail") + &reads("steps.w.x"))), Vec::<String>::new());
    assert_eq!(
        of(&(wait("continue") + &reads("steps.w.x"))),
        ["KN0124 the step `w` may have timed out (`on_timeout: continue`) and then has no output | steps.w.x"]
    );
    let steps = |list: &str| format!("{{ steps: [ {list} ] }}");
    assert_eq!(
        of(&(wait(&steps(&look("a"))) + &reads("steps.w.x"))),
        Vec::<String>::new()
    );
    assert_eq!(
        of(&(wait(&steps("{ p: { wait: 1s } }")) + &reads("steps.w.x"))),
        [
            "KN0124 the step `w` may have timed out, and the last step of `on_timeout` may have no output and then has no output | steps.w.x"
        ]
    );
    assert_eq!(
        of(&(wait(&steps(&look("a"))) + &reads("steps.a.x"))),
        ["KN0124 the step `a` may not run (`w` may not time out) and then has no output | steps.a.x"]
    );
    assert_eq!(
        of(&(wait("fail") + &reads("signal.x"))),
        ["KN0121 there is no `signal` here | signal.x"]
    );
}

#[test]
fn steps_without_an_output() {
    for (body, why) in [
        ("{ wait: 1s }", "only waits and"),
        ("{ emit: { subject: s } }", "publishes and"),
        ("{ scope: { steps: [ { x: { wait: 1s } } ] } }", "guards its steps and"),
        (
            "{ workflow: { name: c, detached: true } }",
            "is not waited for (`detached`) and",
        ),
        (
            "{ while: { when: input.x, max_iterations: 2, steps: [ { x: { wait: 1s } } ] } }",
            "repeats its steps and",
        ),
    ] {
        assert_eq!(
            of(&(format!("  - b: {body}\n") + &reads("steps.b.x"))),
            [format!("KN0126 the step `b` {why} has no output | steps.b.x")]
        );
    }
    assert_eq!(
        of(&("  - b: { workflow: { name: c } }\n".to_owned() + &reads("steps.b.x"))),
        Vec::<String>::new()
    );
}

#[test]
fn what_is_never_reached() {
    assert_eq!(
        of("  - e: { complete: 1 }\n  - x: { wait: 1s }\n  - y: { wait: 1s }\n"),
        ["KN0153 `x` is never reached: no way leads past `e` | x"]
    );
    assert_eq!(
        of(
            "  - e: { switch: [ { when: input.x, steps: [ { f: { fail: { type: t } } } ] }, { else: { steps: [ { c: { continue_as_new: 1 } } ] } } ] }\n  - x: { wait: 1s }\n"
        ),
        ["KN0153 `x` is never reached: no way leads past `e` | x"]
    );
    assert_eq!(
        of("  - e: { if: input.x, complete: 1 }\n  - x: { wait: 1s }\n"),
        Vec::<String>::new()
    );
    assert_eq!(
        of("  - e: { complete: 1 }\noutput: 5\n"),
        ["KN0153 the output is never evaluated: every way through the steps ends the run before | 5"]
    );
    assert_eq!(
        of(&("  - e: { switch: [ { when: input.x, steps: [ { a: { activity: x, read_only: true } }, { c: { complete: 1 } } ] } ] }\n".to_owned() + &reads("steps.a.x"))),
        ["KN0123 the step `a` runs on no way that leads here | steps.a.x"]
    );
}

#[test]
fn an_undo_in_a_loop_says_what_to_do_without_its_output() {
    let each = |undo: &str| {
        format!(
            "  - l: {{ for_each: {{ in: input.l, as: line, steps: [ {{ a: {{ activity: x, compensate: {{ activity: y, input: \"${{ {undo} }}\" }} }} }} ] }} }}\n"
        )
    };
    assert_eq!(
        of(&each("steps.a.id")),
        [
            "KN0125 the undo of `a` reads its own step's output, which is missing when the outcome is unknown | steps.a.id"
        ]
    );
    for undo in ["steps.a.id | default(none)", "line.id ~ index ~ error.type"] {
        assert_eq!(of(&each(undo)), Vec::<String>::new(), "{undo}");
    }
}

#[test]
fn schemas_of_outputs_and_items() {
    let with = |expression: &str| {
        format!(
            "  - a: {{ activity: x, read_only: true, output_schema: {{ type: object, required: [id], properties: {{ id: {{ type: string }}, note: {{}}, lines: {{ type: array, items: {{ properties: {{ sku: {{}} }}, required: [sku] }} }} }} }} }}\n{expression}"
        )
    };
    assert_eq!(of(&with(&reads("steps.a.id"))), Vec::<String>::new());
    assert_eq!(
        of(&with(&reads("steps.a.idd"))),
        ["KN0127 the output schema of `a` has no property `idd` there | steps.a.idd"]
    );
    assert_eq!(
        of(&with(&reads("steps.a.note"))),
        ["KN0128 the output schema of `a` does not require `note`; without it the run fails here | steps.a.note"]
    );
    let each = |list: &str, item: &str| {
        with(&format!(
            "  - l: {{ for_each: {{ in: \"{list}\", as: line, max_concurrency: 1, steps: [ {{ s: {{ set: {{ v: \"${{ {item} }}\" }} }} }} ] }} }}\n"
        ))
    };
    assert_eq!(
        of(&each("steps.a.lines | default([])", "line.sku")),
        Vec::<String>::new()
    );
    assert_eq!(
        of(&each("steps.a.id", "line.sku")),
        ["KN0129 `in` must be a list, and by its schema `steps.a.id` is a text | steps.a.id"]
    );
    let referred = "input_schema: { $defs: { line: { description: d, $ref: '#/$defs/real' }, real: { type: object, required: [sku], properties: { sku: {} } }, loop: { $ref: '#/$defs/loop' } }, required: [lines, loop], properties: { lines: { type: array, items: { $ref: '#/$defs/line' } }, loop: { $ref: '#/$defs/loop' } } }\n";
    assert_eq!(
        of(&(reads("[input.lines[0].sku, input.lines[1].skuu, input.loop.x]") + referred)),
        ["KN0127 the input schema has no property `skuu` there | input.lines[1].skuu"]
    );
    let input = "  - l: { for_each: { in: input.lines, as: line, max_concurrency: 1, steps: [ { s: { set: { v: \"${ line.skuu }\" } } } ] } }\ninput_schema: { required: [lines], properties: { lines: { type: array, items: { properties: { sku: {} }, required: [sku] } } } }\n";
    assert_eq!(
        of(input),
        ["KN0127 the schema of `line` has no property `skuu` there | line.skuu"]
    );
}

#[test]
fn what_has_the_wrong_type_by_its_schema_is_an_error_wherever_a_type_is_needed() {
    for (step, what) in [
        ("w: { wait: { until: \"${ input.lines }\" } }", "`until`"),
        ("c: { workflow: { name: c, id: \"${ input.lines }\" } }", "`id`"),
        (
            "a: { activity: x, read_only: true, concurrency: { limit: 1, key: \"${ input.lines }\" } }",
            "the key of a limit",
        ),
    ] {
        let found = of(&format!(
            "  - {step}\ninput_schema: {{ required: [lines], properties: {{ lines: {{ type: array }} }} }}\n"
        ));
        let [found] = found.as_slice() else {
            panic!("{step}: {found:?}")
        };
        assert!(found.starts_with(&format!("KN0129 {what} must be ")), "{found}");
        assert!(found.ends_with(" is a list | input.lines"), "{found}");
    }
}

/// What a person sees, for one finding of each code that the tree brought.
#[test]
fn findings_of_the_tree_are_rendered() {
    let text = r#"workflow: shop
version: 3
timeout: 1h
defaults: { queue: shop, start_to_close: 30s, retry: { maximum_attempts: 5 } }
input_schema:
  type: object
  required: [lines, note]
  properties: { lines: { type: array }, note: { type: string } }
steps:
  - quote:
      parallel:
        branches:
          cheap: { steps: [ { ask_cheap: { activity: ask, read_only: true } } ] }
          fast: { steps: [ { ask_fast: { activity: ask, input: "${ steps.ask_cheap.price }", read_only: true } } ] }
        join: any
  - lines:
      for_each:
        in: input.lines
        steps:
          - reserve: { activity: reserve, input: "${ item.sku }", compensate: release }
          - last: { set: { sku: "${ item.sku }" } }
  - notes: { for_each: { in: input.note, steps: [ { skip: { wait: 1s } } ] } }
  - poll: { while: { when: "steps.reserve.id is defined", steps: [ { pause: { wait: 5s } } ] } }
  - approval: { wait_for: { signal: approve } }
  - note: { activity: note }
  - charge: { activity: charge, pivot: true, input: "${ steps.quote.winer }" }
  - ship: { activity: ship, compensate: return }
  - sure: { activity: sure, pivot: true }
  - give_up: { fail: { type: gave_up } }
  - thank: { emit: { subject: shop.thanks, body: "${ steps.poll }" } }
"#;
    let found = read(text, &files).unwrap_err();
    insta::assert_snapshot!("tree", diagnostic::render("shop.yaml", text, &found));
}
