//! Versions of a definition: what differs, which open runs it concerns, and moving them, on real servers.

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
  - pay: { activity: process-payment, compensate: { activity: refund-payment, input: { account: old } } }
  - go: { wait_for: { signal: go, timeout: 1h } }
  - ship: { activity: ship-parcel, no_undo: it is on its way }
"#;

fn version(version: u32, from: &str, to: &str) -> String {
    assert!(SALE.contains(from));
    SALE.replace("version: 1", &format!("version: {version}"))
        .replace(from, to)
}

async fn until(stack: &Stack, query: &'static str, wanted: i64) {
    let ask = || async { (stack.number(query).await == wanted).then_some(()) };
    eventually(&format!("{query} = {wanted}"), Duration::from_secs(60), ask).await;
}

/// Open runs that a diff concerns.
fn concerned(diff: &cli::Ended) -> Vec<String> {
    assert_eq!(diff.status, 1, "{diff:?}");
    let runs = diff.json()["open_runs"].clone();
    let ids = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["workflow_id"].as_str().unwrap().to_owned());
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids
}

fn refusals(report: &Value) -> Vec<&str> {
    let asked = report["asked"].as_array().unwrap().iter();
    asked.filter_map(|one| one["error"]["message"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn open_runs_move_to_a_version_in_which_what_they_passed_is_the_same() {
    let stack = Stack::start().await;
    let mut one = stack.first_replica("one").await;
    stack.register("default", SALE).await;
    let mail = "  - mail: { activity: send-confirmation, no_undo: it is read }\n  - ship: { activity: ship-parcel, ";
    let second = version(2, "  - ship: { activity: ship-parcel, ", mail);
    stack
        .register("default", &version(3, "account: old", "account: new"))
        .await;
    let _worker = PlainWorker::start(&stack, "plain");
    for id in ["g-0", "g-1", "g-2"] {
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Version", "1");
        let subject = knarr_schemas::subject::start("default", id, "sale").unwrap();
        stack.starter().publish(&subject, headers, &json!({})).await;
    }
    until(
        &stack,
        "select count(*) from event_rows where event ? 'signal_awaited'",
        3,
    )
    .await;

    // What differs, before the new version is registered.
    let file = stack.directory().join("second.yaml");
    std::fs::write(&file, &second).unwrap();
    let diff = knarr(&stack, &["diff", "sale@1", file.to_str().unwrap()]).await;
    assert_eq!(concerned(&diff), ["g-0", "g-1", "g-2"]);
    assert_eq!(diff.json()["diff"]["changes"][0]["step"], "mail");
    let told = cli::run(&stack, &["diff", "sale@1", file.to_str().unwrap()]).await.out;
    assert!(
        told.contains("mail is new") && told.contains("3 open runs use sale v1"),
        "{told}"
    );
    stack.register("default", &second).await;

    // The undo of a step that was passed is another one there.
    let refused = knarr(&stack, &["migrate", "sale", "--to", "3", "--dry-run"]).await;
    assert_eq!((refused.status, refused.json()["may_move"].as_u64()), (1, Some(0)));
    let refused = knarr(&stack, &["migrate", "sale", "--to", "3", "--yes"]).await;
    assert_eq!(refused.status, 1);
    let why = "`pay` has another undo in the other version";
    assert_eq!(refusals(&refused.json()), [why; 3]);
    let unknown = knarr(&stack, &["migrate", "sale", "--to", "9", "--yes"]).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (1, "KN0207"));
    until(
        &stack,
        "select count(*) from runs where workflow = 'sale' and version = 1",
        3,
    )
    .await;

    // One, then the others; who and why is told.
    let may = knarr(&stack, &["migrate", "sale", "--to", "2", "--dry-run"])
        .await
        .good();
    assert_eq!(may["may_move"], 3);
    let first = ["migrate", "sale", "--to", "2", "g-0", "--by", "ann", "--reason", "mail"];
    assert_eq!(knarr(&stack, &first).await.good()["accepted"], 1);
    assert_eq!(
        concerned(&knarr(&stack, &["diff", "sale@1", "sale@2"]).await),
        ["g-1", "g-2"]
    );
    let rest = ["migrate", "sale", "--to", "2", "--from", "1", "--yes"];
    assert_eq!(knarr(&stack, &rest).await.good()["accepted"], 2);
    assert_eq!(concerned(&knarr(&stack, &["diff", "sale@1", "sale@2"]).await), [""; 0]);
    assert_eq!(
        concerned(&knarr(&stack, &["diff", "sale@2", "sale@3"]).await),
        ["g-0", "g-1", "g-2"]
    );
    let shown = cli::run(&stack, &["show", "g-0"]).await.out;
    assert!(
        shown.contains("sale v2") && shown.contains("migrate") && shown.contains("ann"),
        "{shown}"
    );
    let history = cli::run(&stack, &["history", "g-0"]).await.out;
    assert!(history.contains("moved to v2"), "{history}");

    // The next owner goes on with it.
    one.kill9();
    let _two = Replica::start(&stack, "two").await;
    for id in ["g-0", "g-1", "g-2"] {
        let subject = knarr_schemas::subject::signal("default", id, "go").unwrap();
        stack.starter().publish(&subject, HeaderMap::new(), &json!({})).await;
    }
    stack.all_closed(3, Duration::from_secs(60)).await;
    until(
        &stack,
        "select count(*) from runs where version = 2 and status = 'completed'",
        3,
    )
    .await;
    until(
        &stack,
        "select count(*) from event_rows where event #>> '{activity_scheduled,activity}' = 'send-confirmation'",
        3,
    )
    .await;
    let late = knarr(&stack, &["migrate", "sale", "--to", "3", "g-0", "--yes"]).await;
    assert_eq!((late.status, late.code().as_str()), (1, "KN0212"));
}

/// Of starts that name no version; taken from the next one on, by every replica.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_says_which_version_a_start_takes() {
    let stack = Stack::start().await;
    let _one = stack.first_replica("one").await;
    stack.register("default", SALE).await;
    stack
        .register("default", &version(2, "account: old", "account: new"))
        .await;
    let start = async |id: &str| -> u64 {
        let started = knarr(&stack, &["start", "sale", "--id", id]).await.good();
        assert_eq!(started["stage"], "started");
        knarr(&stack, &["show", id]).await.good()["run"]["version"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(start("d-1").await, 2);
    let set = knarr(
        &stack,
        &["definition", "default", "sale", "1", "--reason", "2 is not trusted"],
    )
    .await
    .good();
    assert_eq!((&set["version"], &set["default"]), (&json!(1), &json!(true)));
    assert_eq!(start("d-2").await, 1);
    // A higher one that is registered changes nothing about it.
    stack
        .register("default", &version(3, "account: old", "account: newer"))
        .await;
    assert_eq!(start("d-3").await, 1);
    let list = cli::run(&stack, &["definition", "list", "sale"]).await.out;
    assert!(list.contains("1 (default)"), "{list}");
    let unknown = knarr(&stack, &["definition", "default", "sale", "9"]).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (1, "KN0207"));
    let unknown = knarr(&stack, &["definition", "default", "nothing", "1"]).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (1, "KN0206"));
    assert_eq!(start("d-4").await, 1);
    let highest = knarr(&stack, &["definition", "default", "sale", "--highest"])
        .await
        .good();
    assert_eq!((&highest["version"], &highest["default"]), (&json!(3), &Value::Null));
    assert_eq!(start("d-5").await, 3);
    until(&stack, "select count(*) from definition_defaults", 0).await;
}
