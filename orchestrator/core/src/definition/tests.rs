use std::borrow::Cow;

use serde_json::{Value, json};

use super::plan::{NodeKind, OnFailure, RetryPolicy, Undo};
use super::*;
use crate::expression::Scope;
use crate::time::Span;

mod activities;
mod concurrency;
mod findings;
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
mod total;
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
