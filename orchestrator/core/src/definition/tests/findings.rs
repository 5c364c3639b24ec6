//! What is said of a document that is wrong: one finding for each mistake, at its place.

use super::*;

#[test]
fn one_finding_each() {
    let step = |body: &str| with_steps(&format!("  - a: {{ activity: x, read_only: true }}\n  - b: {body}\n"));
    for (text, wanted) in [
        ("workflow: w\nversion: 1\nsteps: [\n", "KN0101"),
        ("[]", "KN0103 a definition must be a mapping, not a list | ["),
        ("", "KN0103 a definition must be a mapping, not nothing | "),
        (
            &step("{ activity: y, actvity: z }"),
            "KN0104 a step has no key `actvity` | actvity",
        ),
        (
            &step("{ activity: y, read_only: true, rate: 5 }"),
            "KN0103 `rate` must be a mapping, not a number | 5",
        ),
        (
            &step("{ activity: y, read_only: true, priority: 6 }"),
            "KN0111 `priority` must be a whole number from 1 to 5, not 6 | 6",
        ),
        (
            &step("{ activity: y, read_only: true, max_concurrent: 3 }"),
            "KN0104 a step has no key `max_concurrent` | max_concurrent",
        ),
        (
            &step("{ activity: y, read_only: true, concurrency: { key: input.a } }"),
            "KN0106 `concurrency` has no `limit` | concurrency",
        ),
        (
            &step("{ activity: y, read_only: true, concurrency: { limit: 0 } }"),
            "KN0111 `limit` must be a whole number from 1 to 1000000, not 0 | 0",
        ),
        (
            &step("{ activity: y, read_only: true, concurrency: { limit: 1, key: steps.c.id } }"),
            "KN0122 there is no step `c` | steps.c.id",
        ),
        (
            &step("{ activity: y, read_only: true, rate: { limit: 1000000, per: 500ms } }"),
            "KN0111 a rate is one in a microsecond at most | per",
        ),
        ("workflow: w\nversion: 1\n", "KN0106 the definition has no `steps` | "),
        (
            &step("{ activity: y, compensate: { input: 1 } }"),
            "KN0106 `compensate` names no `activity` | compensate",
        ),
        (
            &with_steps("  - a: { activity: x, read_only: true }\n  - a: { activity: y }\n"),
            "KN0107 there is a step `a` already | a",
        ),
        (
            &step("{ activity: y, activity: z }"),
            "KN0108 the key `activity` appears twice | activity",
        ),
        (
            &step("{ activity: y, input: { k: 1, k: 2 } }"),
            "KN0108 the key `k` appears twice | k",
        ),
        (
            &step("{ activity: a.b }"),
            "KN0109 `a.b` cannot be the name of an activity | a.b",
        ),
        (
            &with_steps("  - a-b: { activity: x }\n"),
            "KN0109 `a-b` cannot be the name of a step | a-b",
        ),
        (
            &step("{ activity: y, start_to_close: 5 }"),
            "KN0110 `start_to_close` is a number, not a duration | 5",
        ),
        (
            &step("{ activity: y, start_to_close: 5 min }"),
            "KN0110 `5 min` is not a duration | 5 min",
        ),
        (
            &step("{ activity: y, start_to_close: 0s }"),
            "KN0110 `start_to_close` must be longer than nothing | 0s",
        ),
        (
            &step("{ activity: y, retry: { maximum_attempts: 0 } }"),
            "KN0111 `maximum_attempts` must be a whole number from 1 to 1000000, not 0 | 0",
        ),
        (
            &step("{ activity: y, retry: { backoff_coefficient: 0.5 } }"),
            "KN0111 `backoff_coefficient` must be a number from 1 to 1000 | 0.5",
        ),
        (
            &step("{ activity: y, on_failure: ignore }"),
            "KN0111 `on_failure` is `fail` or `continue`, not `ignore` | ignore",
        ),
        (
            &step("{ input: 1 }"),
            "KN0112 the step `b` does not say what it does | b",
        ),
        (
            &step("{ activity: y, set: { v: 1 } }"),
            "KN0112 a step is either `activity` or `set` | set",
        ),
        (
            &step("{ set: { v: 1 }, queue: q }"),
            "KN0113 `queue` has no meaning beside `set` | queue",
        ),
        (
            &step("{ activity: y, read_only: true, compensate: z }"),
            "KN0113 `read_only` contradicts `compensate` | read_only",
        ),
        (
            &step("{ activity: y, compensate_on_failure: true }"),
            "KN0113 `compensate_on_failure` needs `compensate` | compensate_on_failure",
        ),
        (
            &step("{ activity: y, retry: { initial_interval: 2s, maximum_interval: 1s } }"),
            "KN0113 `maximum_interval` is shorter than `initial_interval` | maximum_interval",
        ),
        (&step("\"x\""), "KN0103 a step must be a mapping, not a string | \"x\""),
        (
            &step("{ activity: y, input: \"${ input.a \" }"),
            "KN0120 `${` is not closed by `}`; write `$${` for a literal one | ${ input.a ",
        ),
        (&step("{ activity: y, input: \"x ${ input.a + } y\" }"), "KN0120"),
        (
            &step("{ activity: y, input: \"${ inptu.a }\" }"),
            "KN0121 there is no `inptu` here | inptu.a",
        ),
        (
            &step("{ activity: y, input: \"${ a.x }\" }"),
            "KN0121 there is no `a` here | a.x",
        ),
        (
            &step("{ activity: y, input: \"${ input.a | lenght }\" }"),
            "KN0121 there is no filter `lenght` | lenght",
        ),
        (
            &step("{ activity: y, input: \"${ run.idd }\" }"),
            "KN0121 `run` has no `idd` | run.idd",
        ),
        (
            &step("{ activity: y, input: \"${ vars.x }\" }"),
            "KN0121 no step sets `vars.x` | vars.x",
        ),
        (
            &step("{ activity: y, input: \"${ error.type }\" }"),
            "KN0121 there is no `error` here | error.type",
        ),
        (
            &step("{ activity: y, input: [\"${ steps.aa.x }\"] }"),
            "KN0122 there is no step `aa` | steps.aa.x",
        ),
        (
            &step("{ activity: y, input: \"${ steps }\" }"),
            "KN0122 `steps` alone is not a value | steps",
        ),
        (
            &step("{ activity: y, if: steps.b.x }"),
            "KN0123 the step `b` has no output before it has run | steps.b.x",
        ),
        (
            &with_steps("  - a: { activity: x, read_only: true, input: \"${ steps.b.x }\" }\n  - b: { activity: y }\n"),
            "KN0123 the step `b` runs later | steps.b.x",
        ),
        (
            &with_steps(
                "  - a: { activity: x, read_only: true, if: input.a }\n  - b: { activity: y, input: \"${ steps.a.x }\" }\n",
            ),
            "KN0124 the step `a` may be skipped (`if`) and then has no output | steps.a.x",
        ),
        (
            &with_steps(
                "  - a: { activity: x, read_only: true, on_failure: continue }\n  - b: { activity: y, input: \"${ steps.a.x }\" }\n",
            ),
            "KN0124 the step `a` may have failed (`on_failure: continue`) and then has no output | steps.a.x",
        ),
        (
            &with_steps("  - a: { if: input.z, set: { v: 1 } }\n  - b: { activity: y, input: \"${ vars.v }\" }\n"),
            "KN0124 `vars.v` is set only if `a` runs | vars.v",
        ),
        (
            &with_steps("  - a: { activity: y, input: \"${ vars.v }\" }\n  - b: { set: { v: 1 } }\n"),
            "KN0123 `vars.v` is not set before `b` | vars.v",
        ),
        (
            &step("{ activity: y, compensate: { activity: z, input: { id: \"${ steps.b.id }\" } } }"),
            "KN0125 the undo of `b` reads its own step's output, which is missing when the outcome is unknown | steps.b.id",
        ),
        (
            &step("{ activity: y, compensate: { activity: z, input: \"${ error.typ }\" } }"),
            "KN0121 `error` has no `typ` | error.typ",
        ),
        (
            &(step("{ activity: y, input: \"${ input.o.p }\" }")
                + "input_schema: { required: [o], properties: { o: { properties: { p: {} } } } }\n"),
            "KN0128 the input schema does not require `p`; without it the run fails here | input.o.p",
        ),
        (
            &with_steps("  - a: { set: { v: 1 } }\n  - b: { activity: y, input: \"${ steps.a.v }\" }\n"),
            "KN0126 the step `a` sets variables and has no output | steps.a.v",
        ),
        (
            &(step("{ activity: y }") + "input_schema: nowhere.json\n"),
            "KN0130 `nowhere.json` cannot be read: no such file | nowhere.json",
        ),
        (
            &(step("{ activity: y }") + "input_schema: bad.json\n"),
            "KN0131 `bad.json`, line 2: ",
        ),
        (&(step("{ activity: y }") + "input_schema: invalid.json\n"), "KN0131"),
        (
            &(step("{ activity: y }") + "input_schema: { type: nonsense }\n"),
            "KN0131",
        ),
        (
            &step("{ activity: y, input: { \"${ input.k }\": 1 } }"),
            "KN0120 keys are not evaluated | \"${ input.k }\"",
        ),
        (
            &(step("{ activity: y, input: \"${ input.l[0].amout }\" }")
                + "input_schema: { properties: { l: { items: { properties: { amount: {} } } } } }\n"),
            "KN0127 the input schema has no property `amout` there | input.l[0].amout",
        ),
        (
            &(step("{ activity: y, input: \"${ input.b }\" }")
                + "input_schema: { properties: { first: {} }, additionalProperties: false }\n"),
            "KN0127 the input schema has no property `b` there | input.b",
        ),
        (
            &(step("{ activity: y }") + "id: steps.a.x\n"),
            "KN0121 there is no `steps` here | steps.a.x",
        ),
        (
            &(step("{ activity: y }") + "search_attributes: { x: \"${ vars.y }\" }\n"),
            "KN0121 there is no `vars` here | vars.y",
        ),
        (
            &(step("{ activity: y }") + "expr_version: 2\n"),
            "KN0160 the expression language has version 2; this is 1 | 2",
        ),
        (
            "workflow: w\nversion: 1\ndefaults: { start_to_close: 1s }\nsteps:\n  - a: { activity: x }\n",
            "KN0140 the step `a` has no queue | a",
        ),
        (
            "workflow: w\nversion: 1\ndefaults: { queue: q }\nsteps:\n  - a: { activity: x }\n",
            "KN0141 the step `a` has no `start_to_close` | a",
        ),
        (
            "workflow: w\nversion: 1\nsteps:\n  - a: { activity: x, queue: q }\n",
            "KN0142 10 s is assumed as `start_to_close` of `a` | a",
        ),
        (
            &with_steps("  - a: { activity: x }\n  - b: { activity: y }\n"),
            "KN0150 what `a` did stays when a later step (`b`, say) fails | a",
        ),
        (
            &step("{ activity: y, compensate: z, retry: { maximum_attempts: unlimited } }"),
            "KN0151 `b` is retried without limit: the saga may never get to compensate | b",
        ),
        (
            &step("{ activity: y, start_to_close: 10s, schedule_to_close: 9s }"),
            "KN0163 `start_to_close` of `b` comes to nothing: `schedule_to_close` ends first | b",
        ),
        (
            &step("{ activity: y, heartbeat: 5s }"),
            "KN0163 `heartbeat` of `b` comes to nothing: `start_to_close` ends first | b",
        ),
        (
            &step("{ activity: y, schedule_to_start: 1m, schedule_to_close: 1m }"),
            "KN0163 `schedule_to_start` of `b` comes to nothing: `schedule_to_close` ends first | b",
        ),
        (
            &step("{ activity: y, compensate: { activity: z, heartbeat: 7s } }"),
            "KN0163 `heartbeat` of the undo of `b` comes to nothing: `start_to_close` ends first | b",
        ),
        (
            &step("{ activity: y, cancellation: wait_cancelled }"),
            "KN0164 nothing ends the wait for `b` once it has been cancelled | b",
        ),
        (
            &step("{ activity: y, cancellation: abandon, pivot: true }"),
            "KN0113 `cancellation` contradicts `pivot` | cancellation",
        ),
    ] {
        let found = findings(text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        let exact = wanted.contains('|');
        assert!(
            if exact {
                found[0] == wanted
            } else {
                found[0].starts_with(wanted)
            },
            "{text}\nfound  {}\nwanted {wanted}",
            found[0]
        );
    }
}

#[test]
fn what_is_prepared_for_is_no_finding() {
    for steps in [
        "  - a: { activity: x, read_only: true, if: input.a }\n  - b: { activity: y, input: \"${ steps.a.x | default(1) }\" }\n",
        "  - a: { activity: x, read_only: true, if: input.a }\n  - b: { activity: y, input: \"${ steps.a.x if steps.a is defined else 1 }\" }\n",
        "  - a: { activity: x, read_only: true, if: input.a }\n  - b: { if: \"${input.a}\", activity: y, input: \"${ steps.a.x }\" }\n",
        "  - a: { activity: y, compensate: { activity: z, input: \"${ steps.a.x | default(none) }\" } }\n",
        "  - a: { activity: x, on_failure: continue }\n",
        "  - a: { activity: x }\n  - b: { activity: x, on_failure: continue }\n",
        "  - a: { activity: x, read_only: false, on_failure: fail }\n",
        "  - a: { activity: x, input: \"${ input.p | default(1) }\" }\ninput_schema: { properties: { p: {} } }\n",
        "  - a: { if: input.p is defined, activity: x, input: \"${ input.p }\" }\ninput_schema: { properties: { p: {} } }\n",
        "  - a: { activity: x, compensate: { activity: y, input: \"${ error.type }\" } }\n",
        "  - a: { if: true, set: { v: 1 } }\n  - b: { activity: x, input: \"${ vars.v | default(2) }\" }\n",
    ] {
        let text = with_steps(steps);
        assert_eq!(findings(&text), Vec::<String>::new(), "{text}");
        accept(&text);
    }
}

#[test]
fn a_broken_definition_is_explained_at_once() {
    let text = r#"workflow: order saga
version: "1"
defaults:
  queue: orders
  retry: { maximum_attempts: five, inital_interval: 1s }
timout: 1h
steps:
  - create_order:
      activity: create-order
      input: { customer: "${ input.customer", items: "${ input.items | lenght }" }
      compensate: { activity: cancel-order, input: { order_id: "${ steps.create_order.order_id }" } }
  - payment:
      activity: process-payment
      start_to_close: 30 seconds
      input:
        order: "${ steps.create_ordr.order_id }"
        note: "Größe ${ input.a + } für ${ inputs.b }"
      compensate: refund-payment
      read_only: true
  - payment:
      activity: pay-again
  - stock:
    activity: reserve-inventory
  - split:
      schedule_to_close: 5m
  - confirm:
      actvity: send-confirmation
      input: "${ steps.last.x }"
  - last:
      activity: last
      if: input.amount >
output: { id: "${ steps.split.id }", x: "${ vars.total }" }
"#;
    let found = read(text, &files).unwrap_err();
    insta::assert_snapshot!("broken", diagnostic::render("order.yaml", text, &found));
}

#[test]
fn findings_have_a_limit_and_errors_come_first() {
    let wrong = |n: usize| {
        let reads: Vec<String> = (0..n).map(|n| format!("\"${{ input.a{n} | nosuch }}\"")).collect();
        with_steps(&format!(
            "  - a: {{ activity: x }}\n  - b: {{ activity: y, input: [ {} ] }}\n",
            reads.join(", ")
        ))
    };
    // And the warning that `a` stays behind.
    let most = findings(&wrong(MAX_FINDINGS - 1));
    assert_eq!(most.len(), MAX_FINDINGS);
    assert!(most[0].starts_with("KN0150"));
    let over = findings(&wrong(MAX_FINDINGS));
    assert_eq!(over.len(), MAX_FINDINGS + 1);
    assert!(over[0].starts_with("KN0121"));
    assert!(over[MAX_FINDINGS].starts_with("KN0102 there are 1 more findings"));
}
