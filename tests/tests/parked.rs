//! Parked undos and what operators decide about them, on real servers, by the command line.

use std::time::Duration;

use async_nats::HeaderMap;
use knarr_tests::cli::{self, knarr};
use knarr_tests::plain::PlainWorker;
use knarr_tests::{Replica, Stack, eventually};
use serde_json::{Value, json};

const SALE: &str = r#"
workflow: sale
version: 1
defaults: { queue: orders, start_to_close: 30s, retry: { maximum_attempts: 1 } }
steps:
  - pay:
      activity: process-payment
      compensate:
        activity: refund-payment
        input: { fail: { refund-payment: failed } }
        retry: { maximum_attempts: 1 }
  - stock: { activity: reserve-inventory, input: { fail: { reserve-inventory: failed } }, read_only: true }
"#;

/// Past its pivot, with a step that fails for good.
const SHIPMENT: &str = r#"
workflow: shipment
version: 1
defaults: { queue: orders, start_to_close: 30s, retry: { maximum_attempts: 1 } }
steps:
  - pay: { activity: process-payment, pivot: true, no_undo: it is what was asked for }
  - ship: { activity: ship-parcel, input: { fail: { ship-parcel: failed } }, no_undo: it is on its way }
  - tell: { activity: send-confirmation, input: "${ steps.ship }", no_undo: it is read }
output: "${ steps.ship.parcel }"
"#;

const PARKED: &str = "select count(*) from runs where status = 'parked'";
const OF_SALES: usize = 205;

async fn start(stack: &Stack, workflow: &str, id: &str) {
    let subject = knarr_schemas::subject::start("default", id, workflow).unwrap();
    stack.starter().publish(&subject, HeaderMap::new(), &json!({})).await;
}

async fn until(stack: &Stack, query: &'static str, wanted: i64) {
    let ask = || async { (stack.number(query).await == wanted).then_some(()) };
    eventually(&format!("{query} = {wanted}"), Duration::from_secs(60), ask).await;
}

async fn status(stack: &Stack, id: &str) -> String {
    knarr(stack, &["show", id]).await.good()["run"]["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn listed(parked: &Value) -> usize {
    parked["parked"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_decide_about_one_and_about_many() {
    let stack = Stack::start().await;
    let mut one = stack.first_replica("one").await;
    stack.register("default", SALE).await;
    stack
        .register("default", &SALE.replace("workflow: sale", "workflow: return"))
        .await;
    stack.register("default", SHIPMENT).await;
    let _workers: Vec<_> = (0..6).map(|n| PlainWorker::start(&stack, &format!("w{n}"))).collect();
    for n in 0..OF_SALES {
        start(&stack, "sale", &format!("s-{n}")).await;
    }
    for n in 0..3 {
        start(&stack, "return", &format!("r-{n}")).await;
    }
    start(&stack, "shipment", "p-1").await;
    until(&stack, PARKED, i64::try_from(OF_SALES).unwrap() + 4).await;

    let all = knarr(&stack, &["parked", "list", "--limit", "1000"]).await.good();
    assert_eq!((listed(&all), &all["more"]), (OF_SALES + 4, &json!(false)));
    let page = knarr(&stack, &["parked", "list", "--limit", "7"]).await.good();
    assert_eq!((listed(&page), &page["more"]), (7, &json!(true)));
    let of_one = knarr(&stack, &["parked", "list", "s-0"]).await.good();
    let entry = &of_one["parked"][0];
    assert_eq!(
        [&entry["kind"], &entry["step"], &entry["activity"], &entry["attempts"]],
        [&json!("undo"), &json!("pay"), &json!("refund-payment"), &json!(1)]
    );
    assert_eq!(entry["input"], json!({ "fail": { "refund-payment": "failed" } }));
    assert_eq!(entry["failure"]["error_type"], "on_request");
    assert!(entry["since"].is_string());
    // The same by SQL.
    until(
        &stack,
        "select count(*) from parked where kind = 'undo' and error_type = 'on_request'",
        208,
    )
    .await;
    until(
        &stack,
        "select count(*) from parked where kind = 'step' and step = 'ship'",
        1,
    )
    .await;

    // One by one.
    let edit = [
        "parked", "edit", "s-0", "pay", "--input", "{}", "--by", "ann", "--reason", "moved",
    ];
    assert_eq!(knarr(&stack, &edit).await.good()["stage"], "accepted");
    let done = ["parked", "done", "s-1", "pay", "--yes"];
    assert_eq!(knarr(&stack, &done).await.good()["status"], "compensated");
    let skip = [
        "parked",
        "skip",
        "s-2",
        "pay",
        "--yes",
        "--by",
        "ann",
        "--reason",
        "written off",
    ];
    assert_eq!(knarr(&stack, &skip).await.good()["status"], "compensation_failed");
    let unreasoned = knarr(&stack, &["parked", "skip", "s-3", "pay", "--yes"]).await;
    assert_eq!((unreasoned.status, unreasoned.code().as_str()), (2, "KN0348"));
    let unasked = knarr(&stack, &["parked", "done", "s-3", "pay"]).await;
    assert_eq!((unasked.status, unasked.code().as_str()), (2, "KN0349"));
    let unchosen = knarr(&stack, &["parked", "retry"]).await;
    assert_eq!((unchosen.status, unchosen.code().as_str()), (2, "KN0400"));
    let nothing = knarr(&stack, &["parked", "retry", "s-1"]).await;
    assert_eq!((nothing.status, nothing.code().as_str()), (1, "KN0401"));
    // A step ahead of the pivot goes on with what it is given.
    let ship = ["parked", "done", "p-1", "ship", "--result", r#"{"parcel": 7}"#, "--yes"];
    assert_eq!(knarr(&stack, &ship).await.good()["stage"], "accepted");
    until(
        &stack,
        "select count(*) from runs where workflow_id = 'p-1' and outcome = '7'",
        1,
    )
    .await;

    // It fails again, and a repeat of the request is no second try.
    let retry = ["parked", "retry", "s-3", "pay", "--request-id", "once"];
    for _ in 0..3 {
        assert_eq!(knarr(&stack, &retry).await.good()["stage"], "accepted");
        until(&stack, PARKED, 205).await;
    }
    until(
        &stack,
        "select count(*) from event_rows where workflow_id = 's-3' and event ? 'undo_resumed'",
        1,
    )
    .await;

    // Two at once: one of them decides.
    let line = ["parked", "done", "s-4", "pay", "--yes"];
    let (first, second) = tokio::join!(knarr(&stack, &line), knarr(&stack, &line));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [0, 1], "{first:?} {second:?}");

    // Who and why is shown.
    let shown = cli::run(&stack, &["show", "s-2"]).await.out;
    assert!(
        shown.contains("skip undo pay") && shown.contains("written off"),
        "{shown}"
    );
    let history = cli::run(&stack, &["history", "s-2"]).await.out;
    assert!(history.contains("by ann: written off"), "{history}");
    assert_eq!(status(&stack, "s-0").await, "compensated");

    // In bulk, by the next owner.
    one.kill9();
    let _two = Replica::start(&stack, "two").await;
    let bulk = ["parked", "done", "--workflow", "sale", "--error-type", "on_request"];
    let dry = knarr(&stack, &[&bulk[..], &["--dry-run"]].concat()).await.good();
    assert_eq!(dry["would_be_asked"].as_array().unwrap().len(), 201);
    until(&stack, PARKED, 204).await;
    let report = knarr(&stack, &[&bulk[..], &["--yes", "--request-id", "many"]].concat())
        .await
        .good();
    assert_eq!(
        (&report["accepted"], report["asked"].as_array().unwrap().len()),
        (&json!(201), 201)
    );
    until(&stack, PARKED, 3).await;
    until(&stack, "select count(*) from runs where status = 'compensated'", 204).await;
    let other = knarr(&stack, &["parked", "retry", "--workflow", "sale", "--yes"])
        .await
        .good();
    assert_eq!(other["accepted"], 0);

    // No faster than wanted, and everything that is left.
    let began = std::time::Instant::now();
    let rest = ["parked", "skip", "--all", "--reason", "the end", "--rate", "2", "--yes"];
    assert_eq!(knarr(&stack, &rest).await.good()["accepted"], 3);
    assert!(began.elapsed() >= Duration::from_millis(1_000), "{:?}", began.elapsed());
    until(&stack, PARKED, 0).await;
    until(
        &stack,
        "select count(*) from runs where status = 'compensation_failed'",
        4,
    )
    .await;
    until(&stack, "select count(*) from parked", 0).await;
}
