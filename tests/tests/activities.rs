//! Tasks that their workers have let go of, finished by the command line on real servers: every verb, taken and refused.

use std::time::Duration;

use async_nats::HeaderMap;
use knarr_tests::cli::{self, knarr};
use knarr_tests::plain::PlainTask;
use knarr_tests::{Stack, eventually};
use serde_json::{Value, json};

const JOB: &str = r#"
workflow: job
version: 1
defaults: { queue: orders, start_to_close: 1h, retry: { maximum_attempts: 3, initial_interval: 50ms } }
steps:
  - work: { activity: work, compensate: { activity: undo-work, input: 1 } }
output: "${ steps.work }"
"#;

const LEFT: &str = "select count(*) from event_rows where event ? 'task_left'";

async fn next(stack: &Stack) -> PlainTask {
    let ask = || PlainTask::next(stack.nats(), "default");
    eventually("a task", Duration::from_secs(30), ask).await.0
}

/// Its worker takes the task, says *later*, and lets go of it; the token is what is left.
async fn let_go(stack: &Stack, task: &PlainTask) -> String {
    let before = stack.number(LEFT).await;
    let token = task.header("Knarr-Token").to_owned();
    let mut headers = HeaderMap::new();
    headers.insert("Knarr-Token", token.as_str());
    headers.insert("Knarr-Outcome", "later");
    assert!(task.hand_in(stack.nats(), headers, &Value::Null).await);
    task.acknowledge(stack.nats()).await;
    eventually("it is let go of", Duration::from_secs(30), || async {
        (stack.number(LEFT).await > before).then_some(())
    })
    .await;
    token
}

async fn start(stack: &Stack, id: &str) -> String {
    let subject = knarr_schemas::subject::start("default", id, "job").unwrap();
    stack.starter().publish(&subject, HeaderMap::new(), &json!({})).await;
    let task = next(stack).await;
    assert_eq!(
        (task.header("Knarr-Workflow-Id"), task.header("Knarr-Attempt")),
        (id, "1")
    );
    let_go(stack, &task).await
}

/// The verb about this task, with these arguments, as JSON.
async fn said(stack: &Stack, verb: &str, token: &str, more: &[&str]) -> Value {
    knarr(stack, &[&["activity", verb, "--token", token], more].concat())
        .await
        .good()
}

async fn closed(stack: &Stack, id: &str) -> Value {
    let ask = || async {
        let shown = knarr(stack, &["show", id]).await.good();
        (!shown["run"]["closed_at"].is_null()).then_some(shown)
    };
    eventually("it has closed", Duration::from_secs(30), ask).await.0
}

fn committed() -> Value {
    json!({ "stage": "committed" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_completed_from_elsewhere() {
    let stack = Stack::alone(4).await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", JOB).await;

    let token = start(&stack, "j-1").await;
    assert_eq!(
        said(&stack, "complete", &token, &["--result", r#"{"paid": 7}"#]).await,
        committed()
    );
    let shown = closed(&stack, "j-1").await;
    assert_eq!(shown["run"]["status"], "completed");
    assert_eq!(shown["output"], json!({ "paid": 7 }));
    // Twice is harmless, and changes nothing.
    let again = knarr(&stack, &["activity", "complete", "--token", &token, "--result", "8"]).await;
    assert!([0, 1].contains(&again.status), "{again:?}");
    assert_eq!(closed(&stack, "j-1").await["output"], json!({ "paid": 7 }));

    // For people, from a file, and without a result.
    let file = stack.directory().join("result.json");
    std::fs::write(&file, "[1, 2]").unwrap();
    let file = format!("@{}", file.display());
    for (id, more, output) in [
        ("j-2", &["--result", file.as_str()][..], json!([1, 2])),
        ("j-3", &[], Value::Null),
    ] {
        let token = start(&stack, id).await;
        let ended = cli::run(&stack, &[&["activity", "complete", "-t", &token], more].concat()).await;
        assert_eq!((ended.status, ended.out.as_str()), (0, "taken\n"), "{ended:?}");
        let shown = closed(&stack, id).await;
        assert_eq!(
            (&shown["run"]["status"], &shown["output"]),
            (&json!("completed"), &output)
        );
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_fails_from_elsewhere_in_every_way() {
    let stack = Stack::alone(4).await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", JOB).await;

    // For good, and surely not done: nothing is undone.
    let token = start(&stack, "declined").await;
    let more = ["--type", "declined", "--message", "no\nfunds", "--no-retry"];
    assert_eq!(said(&stack, "fail", &token, &more).await, committed());
    let shown = closed(&stack, "declined").await;
    assert_eq!(shown["run"]["status"], "failed");
    assert_eq!(shown["failure"]["error_type"], "declined");
    assert_eq!(shown["failure"]["message"], "no funds", "what a header can carry");

    // Another attempt follows, not before it may; then nobody knows, and another is certain that nothing was done.
    let token = start(&stack, "again").await;
    let ended = cli::run(
        &stack,
        &["activity", "fail", "--token", &token, "--retry-after", "100ms"],
    )
    .await;
    assert_eq!((ended.status, ended.out.as_str()), (0, "taken\n"), "{ended:?}");
    let second = next(&stack).await;
    assert_eq!(second.header("Knarr-Attempt"), "2");
    let token = let_go(&stack, &second).await;
    said(&stack, "fail", &token, &["--outcome", "unknown"]).await;
    let third = next(&stack).await;
    assert_eq!(third.header("Knarr-Attempt"), "3");
    let token = let_go(&stack, &third).await;
    said(&stack, "fail", &token, &["--not-done"]).await;
    assert_eq!(closed(&stack, "again").await["run"]["status"], "failed");

    // It may have been done, so it is undone; the undo is finished from elsewhere as well.
    let token = start(&stack, "unknown").await;
    said(&stack, "fail", &token, &["--outcome", "unknown", "--no-retry"]).await;
    let undo = next(&stack).await;
    assert_eq!(undo.header("Knarr-Direction"), "undo");
    let token = let_go(&stack, &undo).await;
    said(&stack, "complete", &token, &[]).await;
    assert_eq!(closed(&stack, "unknown").await["run"]["status"], "compensated");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_from_elsewhere_is_answered() {
    let stack = Stack::alone(4).await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", JOB).await;

    let token = start(&stack, "j-1").await;
    let heard = said(&stack, "heartbeat", &token, &["--details", r#"{"page": 7}"#]).await;
    assert_eq!(heard, json!({ "answer": "ok" }));
    said(&stack, "fail", &token, &[]).await;
    let second = next(&stack).await;
    assert_eq!(second.header("Knarr-Last-Details"), r#"{"page":7}"#);
    let token = let_go(&stack, &second).await;

    let people = async |expected: &str| {
        let ended = cli::run(&stack, &["activity", "heartbeat", "--token", &token]).await;
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.out.starts_with(expected), "{ended:?}");
    };
    people("heard; go on").await;
    knarr(&stack, &["cancel", "j-1"]).await.good();
    people("heard; stop").await;
    said(&stack, "fail", &token, &["--outcome", "cancelled"]).await;
    assert_eq!(closed(&stack, "j-1").await["run"]["status"], "cancelled");
    people("nobody waits").await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_wrongly_is_refused_and_changes_nothing() {
    let stack = Stack::alone(4).await;
    let mut replica = stack.first_replica("one").await;
    stack.register("default", JOB).await;
    stack.create_namespace("other").await;
    let token = start(&stack, "j-1").await;
    let transitions = stack.transitions().await;

    // Another signature, and no token at all.
    let last = if token.ends_with('A') { 'B' } else { 'A' };
    let forged = format!("{}{last}", &token[..token.len() - 1]);
    for (verb, more) in [("complete", &[][..]), ("fail", &["--no-retry"]), ("heartbeat", &[])] {
        for (token, namespace) in [("nonsense", "default"), (forged.as_str(), "default"), (&token, "other")] {
            let arguments = [&["-n", namespace, "activity", verb, "--token", token], more].concat();
            let ended = knarr(&stack, &arguments).await;
            assert_eq!((ended.status, ended.out.as_str()), (1, ""), "{arguments:?}: {ended:?}");
            let expected = if namespace == "other" { "KN0211" } else { "KN0213" };
            assert_eq!(ended.code(), expected, "{arguments:?}: {ended:?}");
        }
    }
    let large = format!("\"{}\"", "x".repeat(2_047));
    let ended = knarr(
        &stack,
        &["activity", "heartbeat", "--token", &token, "--details", &large],
    )
    .await;
    assert_eq!((ended.status, ended.code().as_str()), (1, "KN0270"), "{ended:?}");
    for wrong in [
        &["activity", "complete"][..],
        &["activity", "complete", "--token", &token, "--result", "{"],
        &[
            "activity",
            "complete",
            "--token",
            &token,
            "--result",
            "@/nowhere/at/all",
        ],
        &["activity", "fail", "--token", &token, "--outcome", "completed"],
        &["activity", "fail", "--token", &token, "--retry-after", "soon"],
        &["activity", "heartbeat", "--token", &token, "--details", "page"],
    ] {
        let ended = knarr(&stack, wrong).await;
        assert_eq!((ended.status, ended.out.as_str()), (2, ""), "{wrong:?}: {ended:?}");
    }
    assert_eq!(stack.transitions().await, transitions);

    // Nobody is there to take it.
    replica.kill9();
    let ended = knarr(&stack, &["--timeout", "1s", "activity", "complete", "--token", &token]).await;
    assert_eq!((ended.status, ended.out.as_str()), (3, ""), "{ended:?}");
    replica.respawn();
    replica.ready().await;
    // Before its partition is served again the result would be stored in the log, and committed from there.
    eventually("somebody to listen", Duration::from_secs(20), || async {
        let beat = knarr(&stack, &["activity", "heartbeat", "--token", &token]).await;
        (beat.status == 0).then_some(())
    })
    .await;
    assert_eq!(said(&stack, "complete", &token, &[]).await, committed());
    assert_eq!(closed(&stack, "j-1").await["run"]["status"], "completed");
    stack.stop().await;
}
