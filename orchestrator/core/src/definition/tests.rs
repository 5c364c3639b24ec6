use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{NodeKind, OnFailure, RetryPolicy, Undo};
use super::*;
use crate::expression::Scope;
use crate::time::Span;

mod activities;
mod concurrency;
mod flow;
mod handlers;
mod json_schema;
mod kinds;
mod queries;
mod remedies;
mod retry;
mod saga;
mod schedule;
pub(crate) mod soundness;
mod triggers;
mod updates;

const ORDER: &str = r#"
workflow: order
version: 1
input_schema: ./order.schema.json               # or inline; files are inlined and hashed at registration
defaults:
  queue: orders
  start_to_close: 30s
  retry: { initial_interval: 1s, backoff_coefficient: 2.0, maximum_interval: 1m, maximum_attempts: 5 }
steps:
  - create_order:
      activity: create-order
      input: { customer: "${ input.customer }", items: "${ input.items }" }
      compensate: { activity: cancel-order, input: { order_id: "${ steps.create_order.order_id | default(none) }" } }
  - payment:
      activity: process-payment
      input: { order_id: "${ steps.create_order.order_id }", amount: "${ steps.create_order.total }" }
      compensate: { activity: refund-payment, input: { order_id: "${ steps.create_order.order_id }" } }
  - stock:
      activity: reserve-inventory
      input: { order_id: "${ steps.create_order.order_id }", items: "${ input.items }" }
      compensate: { activity: release-inventory, input: { order_id: "${ steps.create_order.order_id }" } }
  - confirm:
      activity: send-confirmation
      input: { order_id: "${ steps.create_order.order_id }" }
      no_undo: a message cannot be unsent
      on_failure: continue                        # an unsent message is no reason to undo an order
output: { order_id: "${ steps.create_order.order_id }", payment_id: "${ steps.payment.payment_id }" }
"#;

fn files(path: &str) -> Result<String, String> {
    match path {
        "./order.schema.json" => Ok(r#"{"type": "object", "required": ["customer", "items"]}"#.to_owned()),
        "bad.json" => Ok("{\n  \"type\": [\n}".to_owned()),
        "invalid.json" => Ok("{\"type\": \"nonsense\"}".to_owned()),
        _ => Err("no such file".to_owned()),
    }
}

fn accept(text: &str) -> Checked {
    match read(text, &files) {
        Ok(checked) => {
            assert_same_from_canonical(&checked);
            checked
        }
        Err(findings) => panic!("{}", diagnostic::render("test.yaml", text, &findings)),
    }
}

fn assert_same_from_canonical(checked: &Checked) {
    let again = from_canonical(&checked.canonical).unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", checked.plan));
    assert_eq!(again.hash, checked.hash);
    // The canonical form is a definition of its own, with itself as canonical form and nothing more to say about it.
    let reread = read(&checked.canonical, &files).unwrap();
    assert_eq!(reread.canonical, checked.canonical);
    assert!(reread.findings.len() <= checked.findings.len());
}

/// The findings of a document as `code message | text under the caret`.
fn findings(text: &str) -> Vec<String> {
    let found = match read(text, &files) {
        Ok(checked) => checked.findings,
        Err(findings) => findings,
    };
    found
        .iter()
        .map(|f| format!("{} {} | {}", f.code.code, f.message, &text[f.span.clone()]))
        .collect()
}

/// A definition of the given steps, with `defaults` that leave nothing to say.
fn with_steps(steps: &str) -> String {
    format!(
        "workflow: w\nversion: 1\ndefaults: {{ queue: q, start_to_close: 5s, retry: {{ maximum_attempts: 3 }} }}\nsteps:\n{steps}"
    )
}

struct NoData;

impl Scope for NoData {
    fn root(&self, _: &str) -> Option<Cow<'_, Value>> {
        None
    }

    fn step(&self, _: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        None
    }
}

#[test]
fn the_order_example_has_nothing_to_be_said_about_it() {
    let checked = accept(ORDER);
    assert_eq!(checked.findings, []);
    insta::assert_snapshot!("order_canonical", checked.canonical);
    assert_eq!(checked.hash.0.len(), 64);

    let plan = checked.plan;
    assert_eq!((plan.workflow.as_str(), plan.version), ("order", 1));
    let NodeKind::Sequence { children } = &plan.node(plan.root).kind else {
        panic!()
    };
    let names: Vec<_> = children.iter().map(|id| plan.node(*id).name.as_ref()).collect();
    assert_eq!(names, ["create_order", "payment", "stock", "confirm"]);
    assert_eq!(plan.queues(), ["orders".into()]);
    let NodeKind::Activity(payment) = &plan.node(children[1]).kind else {
        panic!()
    };
    assert_eq!(payment.call.activity.as_str(), "process-payment");
    assert_eq!(payment.call.start_to_close, Span::from_secs(30));
    assert_eq!(payment.call.retry.maximum_attempts, Some(5));
    assert_eq!(payment.call.retry.maximum_interval, Span::from_secs(60));
    let Undo::Compensate(refund) = &payment.undo else {
        panic!()
    };
    assert_eq!(refund.queue.as_str(), "orders");
    assert_eq!(
        refund.retry,
        RetryPolicy {
            initial_interval: Span::from_secs(1),
            backoff_coefficient: 2.0,
            maximum_interval: Span::from_secs(300),
            maximum_attempts: Some(10),
            non_retryable: vec![],
        }
    );
    let NodeKind::Activity(confirm) = &plan.node(children[3]).kind else {
        panic!()
    };
    assert_eq!(confirm.on_failure, OnFailure::Continue);
    assert!(matches!(&confirm.undo, Undo::None { reason } if reason.as_ref() == "a message cannot be unsent"));
    let NodeKind::Activity(create) = &plan.node(children[0]).kind else {
        panic!()
    };
    let Undo::Compensate(cancel) = &create.undo else {
        panic!()
    };
    assert_eq!(
        *cancel.input.as_ref().unwrap().evaluate(&NoData).unwrap(),
        json!({"order_id": null})
    );
    let schema = plan.input_schema.unwrap();
    assert!(schema.validate(&json!({"customer": 1, "items": []})).is_ok());
    assert!(schema.validate(&json!({"customer": 1})).is_err());
}

#[test]
fn warnings_and_notices_are_rendered() {
    let text = "\
workflow: w
version: 1
steps:
  - charge: { activity: charge, queue: q }
  - ship:
      activity: ship
      queue: q
      compensate: unship
";
    let checked = accept(text);
    insta::assert_snapshot!("advice", diagnostic::render("w.yaml", text, &checked.findings));
}

#[test]
fn everything_that_can_be_written_is_read() {
    let checked = accept(
        r#"{
        "workflow": "full", "version": 7, "description": "all of it",
        "id": "input.order_id",
        "input_schema": {"type": "object"},
        "timeout": "P1D",
        "search_attributes": {"customer": "${ input.customer }", "run": "${ run.id }"},
        "defaults": {"queue": "q", "start_to_close": "1m", "compensate": {"queue": "undo", "retry": {"maximum_attempts": "unlimited"}},
                     "retry": {"maximum_attempts": 4, "non_retryable": ["card_declined"]}},
        "steps": [
            {"look": {"activity": "look", "read_only": true, "retry": {"initial_interval": "100ms"}}},
            {"note": {"set": {"a": 1, "b": "${ vars.a + 1 }"}}},
            {"maybe": {"if": "${ input.big }", "activity": "maybe", "compensate": "undo-maybe", "compensate_on_failure": true, "queue": "other"}},
            {"after": {"if": "input.big", "activity": "after", "input": {"x": "${ steps.maybe.x }", "y": "${ steps.note2 | default(1) if false else vars.b }"},
                       "compensate": {"activity": "undo-after", "start_to_close": "2s", "input": "${ error.type | default('none') }"}}},
            {"note2": {"activity": "note", "no_undo": "why not"}},
            {"pick": {"set": {"x": "${ steps.maybe.x if steps.maybe is defined else 0 }"}}}
        ],
        "output": "${ steps.maybe.y | default(none) }"
        }"#
        .replace("steps.note2 | default(1) if false else ", "")
        .as_str(),
    );
    assert_eq!(checked.findings, []);
    let plan = checked.plan;
    assert_eq!(plan.timeout, Some(Span::from_secs(86_400)));
    assert_eq!(
        plan.queues().iter().map(|q| q.as_str()).collect::<Vec<_>>(),
        ["q", "other", "undo"]
    );
    let NodeKind::Activity(look) = &plan.nodes[1].kind else {
        panic!()
    };
    assert_eq!(look.call.retry.initial_interval, Span::from_millis(100));
    assert_eq!(look.call.retry.maximum_interval, Span::from_secs(10));
    assert_eq!(look.call.retry.maximum_attempts, Some(4));
    assert_eq!(look.call.retry.non_retryable, [Arc::from("card_declined")]);
    let NodeKind::Activity(maybe) = &plan.nodes[3].kind else {
        panic!()
    };
    let Undo::Compensate(undo) = &maybe.undo else { panic!() };
    assert_eq!((undo.activity.as_str(), undo.queue.as_str()), ("undo-maybe", "undo"));
    assert_eq!(undo.retry.maximum_attempts, None);
    assert!(maybe.compensate_on_failure);
}

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
fn limits() {
    let step = |n: usize| format!("  - s{n}: {{ activity: x, read_only: true }}\n");
    let most: String = (0..super::read::MAX_STEPS).map(step).collect();
    let checked = read(&with_steps(&most), &files).unwrap();
    assert_eq!(
        from_canonical(&checked.canonical).unwrap().nodes.len(),
        read::MAX_STEPS + 1
    );
    let over = with_steps(&(most + &step(read::MAX_STEPS)));
    assert_eq!(read(&over, &files).unwrap_err()[0].code, code::TOO_LARGE);
    let fat = with_steps(&format!(
        "  - a: {{ activity: x, input: \"{}\" }}\n",
        "x".repeat(MAX_DOCUMENT_BYTES)
    ));
    assert_eq!(read(&fat, &files).unwrap_err()[0].code, code::TOO_LARGE);
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

#[test]
fn the_hash_is_of_what_it_means() {
    let one = accept(&with_steps(
        "  - a: { activity: x, read_only: true, input: { b: 1, a: 2 } }\n",
    ));
    let same = accept(
        "# a comment\nversion: 1\nworkflow: w\nsteps:\n- a:\n    read_only: yes\n    activity: x\n    queue: q\n    start_to_close: 5000ms\n    retry: {maximum_attempts: 3}\n    input: {\"b\": 1, a: 2}\n".replace("yes", "true").as_str(),
    );
    assert_eq!(one.hash, same.hash);
    let other = accept(&with_steps(
        "  - a: { activity: x, read_only: true, input: { b: 1, a: 3 } }\n",
    ));
    assert_ne!(one.hash, other.hash);
}

/// A file that a definition names is a part of it, under whatever name.
#[test]
fn the_hash_is_of_the_files_as_well() {
    let with = |name: &str, schema: &str| {
        let text = with_steps("  - a: { activity: x, read_only: true }\n") + &format!("input_schema: {name}\n");
        read(&text, &|_| Ok(schema.to_owned())).unwrap().hash
    };
    let object = r#"{ "type": "object" }"#;
    assert_eq!(with("one.json", object), with("two.json", r#"{"type":"object"}"#));
    assert_ne!(with("one.json", object), with("one.json", r#"{ "type": "array" }"#));
}

#[test]
fn a_damaged_canonical_form_is_an_error() {
    for json in [
        "",
        "{",
        "[]",
        "{}",
        "{\"workflow\":\"w\",\"version\":1,\"expr_version\":9,\"steps\":[]}",
        "\"x\"",
    ] {
        assert!(from_canonical(json).is_err(), "{json}");
    }
}

fn assert_total(text: &str) -> Result<(), TestCaseError> {
    match read(text, &files) {
        Ok(checked) => {
            let again = from_canonical(&checked.canonical);
            prop_assert!(again.is_ok(), "{:?}\n{}", again, checked.canonical);
            prop_assert_eq!(format!("{:?}", again.unwrap()), format!("{:?}", checked.plan));
            let _ = diagnostic::render("x", text, &checked.findings);
        }
        Err(findings) => {
            prop_assert!(!findings.is_empty());
            let rendered = diagnostic::render("x", text, &findings);
            prop_assert!(rendered.contains("KN01"));
        }
    }
    Ok(())
}

/// A value as a person might write it into an input.
fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        (-1e300..1e300).prop_map(|n: f64| json!(n)),
        "\\PC{0,12}".prop_map(|s| json!(s.replace('{', "("))),
        prop::sample::select(vec![
            "${ input.a }",
            "x ${ input.b | default(1) } $${y}",
            "${ {'a': [1, input.c]} }",
            "${ run.id }",
        ])
        .prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("\\PC{1,6}".prop_map(|key| key.replace('{', "(")), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn a_step() -> impl Strategy<Value = Value> {
    (
        data(),
        prop::option::of(1_u64..10_000_000_000),
        prop::option::of(1_u32..100),
        0..4_u8,
        any::<bool>(),
        prop::option::of(prop::sample::select(vec!["input.a", "${ input.a > 1 }", "true"])),
    )
        .prop_map(|(input, timeout, attempts, undo, go_on, condition)| {
            let mut body = json!({"activity": "do-it", "input": input});
            if let Some(micros) = timeout {
                body["start_to_close"] = json!(duration::format(Span(micros)));
            }
            if let Some(attempts) = attempts {
                body["retry"] = json!({"maximum_attempts": attempts, "backoff_coefficient": 1.5});
            }
            match undo {
                0 => body["compensate"] = json!("undo-it"),
                1 => body["compensate"] = json!({"activity": "undo-it", "input": "${ input }"}),
                2 => body["no_undo"] = json!("because"),
                _ => {}
            }
            if go_on {
                body["on_failure"] = json!("continue");
            }
            if let Some(condition) = condition {
                body["if"] = json!(condition);
            }
            body
        })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        assert_total(&text)?;
    }

    #[test]
    fn yaml_like_text_is_read_or_refused(lines in prop::collection::vec((0_usize..6, prop::sample::select(vec![
        "workflow: w", "version: 1", "steps:", "- a:", "- b: { activity: x }", "activity: y", "compensate: z", "if: input.a",
        "input: \"${ steps.a.b }\"", "input:", "retry: { maximum_attempts: 2 }", "queue: q", "start_to_close: 5s", "set: { v: 1 }",
        "output: \"${ vars.v }\"", "defaults:", "&x", "*x", "<<: *x", "? a", "|", ">", "- - -", "{", "}", "]", "'", "\"${\"", "!!binary x",
        "\t", "---", "...", "é: ü", "input_schema: { type: object }", "no_undo: x", "id: input.x", "~",
        "parallel: { branches: { l: { steps: [ { c: { wait: 1s } } ] } } }", "for_each: { in: input.l, steps: *x }", "switch:",
        "- when: input.a", "- else: { steps: [] }", "while: { when: true, max_iterations: 2, steps: [ { d: { complete: } } ] }",
        "try:", "catch:", "finally: { steps: *x }", "scope:", "wait: 1s", "wait_for: { signal: s }", "on_timeout: continue",
        "workflow: { name: c }", "emit: { subject: s }", "fail: { type: t }", "complete:", "continue_as_new: 1", "pivot: true",
    ])), 0..16)) {
        let text: String = lines.iter().map(|(indent, line)| format!("{}{line}\n", "  ".repeat(*indent))).collect();
        assert_total(&text)?;
    }

    /// One byte of a good document changed, removed or doubled.
    #[test]
    fn a_damaged_order_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<char>(), how in 0..3_u8) {
        let mut chars: Vec<char> = ORDER.chars().collect();
        let at = at.index(chars.len());
        match how {
            0 => chars[at] = byte,
            1 => { chars.remove(at); }
            _ => chars.insert(at, byte),
        }
        assert_total(&chars.into_iter().collect::<String>())?;
    }

    #[test]
    fn the_canonical_form_gives_the_same_plan(steps in prop::collection::vec(a_step(), 1..5), output in data(), defaults in any::<bool>()) {
        let steps: Vec<Value> = steps.into_iter().enumerate().map(|(n, mut body)| {
            body["queue"] = json!("q");
            json!({format!("s{n}"): body})
        }).collect();
        let mut document = json!({"workflow": "w", "version": 3, "steps": steps, "output": output});
        if defaults {
            document["defaults"] = json!({"start_to_close": "7s", "retry": {"initial_interval": "10ms"}});
        }
        let text = document.to_string();
        let checked = read(&text, &files);
        prop_assert!(checked.is_ok(), "{}", diagnostic::render("x", &text, &checked.unwrap_err()));
        let checked = checked.unwrap();
        let again = from_canonical(&checked.canonical).unwrap();
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", checked.plan));
        prop_assert_eq!(again.hash, checked.hash.clone());
        let reread = read(&checked.canonical, &files).unwrap();
        prop_assert_eq!(reread.hash, checked.hash);
    }
}
