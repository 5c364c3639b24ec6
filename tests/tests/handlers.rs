//! Handlers of signals, updates and queries, by the command line, on real servers.

use std::time::Duration;

use knarr_tests::cli::knarr;
use knarr_tests::plain::PlainWorker;
use knarr_tests::{Replica, Stack};
use serde_json::{Value, json};

const BASKET: &str = r#"
workflow: basket
version: 1
defaults: { queue: orders, start_to_close: 30s, retry: { maximum_attempts: 3 } }
steps:
  - order: { wait_for: { signal: order, timeout: 1h } }
  - pay: { activity: process-payment, input: "${ input }", compensate: { activity: refund-payment, input: "${ input }" } }
signals:
  add:
    schema: { type: object, required: [n], properties: { n: { type: integer } } }
    steps: [ { count: { set: { items: "${ vars.items | default(0) + signal.n }" } } } ]
updates:
  discount:
    schema: { type: integer }
    validate: "'too much' if update > 50 else true"
    steps: [ { keep: { set: { discount: "${ update }" } } } ]
    output: "${ { 'items': vars.items | default(0), 'discount': vars.discount } }"
queries:
  items: vars.items | default(0)
  paid: steps.pay is defined
output: { items: "${ vars.items | default(0) }", discount: "${ vars.discount | default(0) }" }
"#;

async fn add(stack: &Stack, n: u32, request: &str) {
    let body = json!({ "n": n }).to_string();
    let line = ["signal", "b-1", "add", "--body", &body, "--request-id", request];
    assert_eq!(knarr(stack, &line).await.good()["stage"], "accepted");
}

async fn ask(stack: &Stack, line: &[&str]) -> Value {
    knarr(stack, &[&["query", "b-1"], line].concat()).await.good()["value"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_updated_and_asked_while_it_goes_on_and_asked_when_it_has_closed() {
    let stack = Stack::start().await;
    let mut one = Replica::start(&stack, "one").await;
    assert_eq!(stack.register("default", BASKET).await.findings.len(), 0);
    let _worker = PlainWorker::start(&stack, "plain");
    let start = ["start", "basket", "--id", "b-1", "--input", "{}"];
    assert_eq!(knarr(&stack, &start).await.good()["stage"], "started");

    add(&stack, 2, "s-1").await;
    assert_eq!(ask(&stack, &["items"]).await, json!(2), "what was answered is visible");
    let update = |request: &'static str, input: &'static str| {
        ["update", "b-1", "discount", "--input", input, "--request-id", request]
    };
    let done = knarr(&stack, &update("u-1", "10")).await.good();
    assert_eq!(
        (&done["stage"], &done["output"]),
        (&json!("completed"), &json!({ "items": 2, "discount": 10 }))
    );
    let refused = knarr(&stack, &update("u-2", "60")).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (1, &json!("KN0287"))
    );
    assert_eq!(refused.json()["error"]["message"], "the update is refused: too much");
    let wrong = knarr(&stack, &["signal", "b-1", "add", "--body", "{}"]).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (1, &json!("KN0284")));

    // Another replica knows what was done.
    one.kill9();
    let _two = Replica::start(&stack, "two").await;
    add(&stack, 2, "s-1").await;
    add(&stack, 3, "s-2").await;
    let again = knarr(&stack, &update("u-1", "99")).await.good();
    assert_eq!(again["output"], json!({ "items": 2, "discount": 10 }));
    assert_eq!(
        ask(&stack, &["--expr", "{ 'items': vars.items, 'status': status }"]).await,
        json!({ "items": 5, "status": "running" })
    );
    assert_eq!(ask(&stack, &["paid"]).await, json!(false));
    knarr(&stack, &["signal", "b-1", "order"]).await.good();
    stack.all_closed(1, Duration::from_secs(30)).await;
    assert_eq!(ask(&stack, &["paid"]).await, json!(true));
    let late = knarr(&stack, &update("u-3", "1")).await;
    assert_eq!((late.status, &late.json()["error"]["code"]), (1, &json!("KN0212")));
    let again = knarr(&stack, &update("u-1", "10")).await.good();
    assert_eq!(again["output"], json!({ "items": 2, "discount": 10 }));
    let outcome = "select count(*) from runs where outcome::jsonb = '{\"items\": 5, \"discount\": 10}'::jsonb";
    assert_eq!(stack.number(outcome).await, 1);
}
