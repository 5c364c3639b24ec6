//! Runs that are cancelled while their task lies in a queue without workers, on real servers: nothing is waited for.

use std::time::Duration;

use async_nats::HeaderMap;
use knarr_tests::cli::knarr;
use knarr_tests::plain::PlainTask;
use knarr_tests::{Stack, eventually, jetstream};
use serde_json::{Value, json};

const JOB: &str = r#"
workflow: job
version: 1
defaults: { queue: orders, start_to_close: 1h, retry: { maximum_attempts: 3, initial_interval: 50ms } }
steps:
  - hold: { activity: hold, compensate: { activity: release, input: 1 } }
  - pay: { activity: pay, queue: nobody, compensate: { activity: refund, input: 1, queue: orders } }
"#;

const PAYMENTS: &str = "knarr.task.default.nobody.>";

async fn payments(stack: &Stack) -> usize {
    jetstream::stored(stack.nats(), "KNARR_TASKS_default", PAYMENTS)
        .await
        .len()
}

/// The next task, which has to be that one, is done.
async fn does(stack: &Stack, id: &str, activity: &str) {
    let ask = || PlainTask::next(stack.nats(), "default");
    let task = eventually("a task", Duration::from_secs(30), ask).await.0;
    let told = (task.header("Knarr-Workflow-Id"), task.header("Knarr-Activity"));
    assert_eq!(told, (id, activity));
    let mut headers = HeaderMap::new();
    headers.insert("Knarr-Token", task.header("Knarr-Token"));
    assert!(task.hand_in(stack.nats(), headers, &json!({})).await);
    task.acknowledge(stack.nats()).await;
}

/// A run of which the first step is done, and the second in its queue.
async fn start(stack: &Stack, id: &str) {
    let before = payments(stack).await;
    let subject = knarr_schemas::subject::start("default", id, "job").unwrap();
    stack.starter().publish(&subject, HeaderMap::new(), &json!({})).await;
    does(stack, id, "hold").await;
    eventually("it is dispatched", Duration::from_secs(30), || async {
        (payments(stack).await > before).then_some(())
    })
    .await;
}

async fn shown(stack: &Stack, id: &str) -> Value {
    knarr(stack, &["show", id]).await.good()
}

async fn closed(stack: &Stack, id: &str) -> Value {
    let ask = || async {
        let shown = shown(stack, id).await;
        (!shown["run"]["closed_at"].is_null()).then_some(shown)
    };
    eventually("it has closed", Duration::from_secs(30), ask).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_queue_without_workers_is_cancelled_at_once() {
    let stack = Stack::alone(4).await;
    let mut replica = stack.first_replica("one").await;
    stack.register("default", JOB).await;
    for id in ["j-1", "j-2", "j-3"] {
        start(&stack, id).await;
    }
    assert_eq!(payments(&stack).await, 3);

    // In the middle of a backlog.
    knarr(&stack, &["cancel", "j-2"]).await.good();
    does(&stack, "j-2", "release").await;
    assert_eq!(closed(&stack, "j-2").await["run"]["status"], "cancelled");
    assert_eq!(
        payments(&stack).await,
        2,
        "its payment is not there any more, and the others are"
    );

    // By a replica that has published none of them.
    replica.kill9();
    let _other = stack.first_replica("two").await;
    knarr(&stack, &["cancel", "j-1"]).await.good();
    does(&stack, "j-1", "release").await;
    assert_eq!(closed(&stack, "j-1").await["run"]["status"], "cancelled");
    assert_eq!(payments(&stack).await, 1);

    // A worker has it: it is waited for, and what it has done is undone.
    let inbox = stack.nats().new_inbox();
    let mut tasks = stack.nats().subscribe(inbox.clone()).await.unwrap();
    let pull = json!({ "batch": 1, "expires": 5_000_000_000_u64 }).to_string();
    let subject = "$JS.API.CONSUMER.MSG.NEXT.KNARR_TASKS_default.q_nobody";
    stack
        .nats()
        .publish_with_reply(subject, inbox, pull.into())
        .await
        .unwrap();
    let task = futures_util::StreamExt::next(&mut tasks).await.unwrap();
    knarr(&stack, &["cancel", "j-3"]).await.good();
    let seen = "select count(*) from event_rows where event ? 'task_delivered'";
    eventually("its queue has said so", Duration::from_secs(30), || async {
        (stack.number(seen).await > 0).then_some(())
    })
    .await;
    assert_eq!(shown(&stack, "j-3").await["run"]["status"], "compensating");
    let headers = task.headers.as_ref().unwrap();
    let mut result = HeaderMap::new();
    result.insert("Knarr-Token", headers.get("Knarr-Token").unwrap().as_str());
    let reply = headers.get("Knarr-Reply").unwrap().as_str().to_owned();
    let request = async_nats::client::Request::new().headers(result).payload("{}".into());
    stack.nats().send_request(reply, request).await.unwrap();
    does(&stack, "j-3", "refund").await;
    does(&stack, "j-3", "release").await;
    assert_eq!(closed(&stack, "j-3").await["run"]["status"], "cancelled");
    stack.stop().await;
}

const LONE: &str = r#"
workflow: lone
version: 1
defaults: { queue: nobody, start_to_close: 1h, retry: { maximum_attempts: 3, initial_interval: 50ms } }
steps:
  - pay: { activity: pay, compensate: { activity: refund, input: 1 } }
"#;

/// Whatever their number, and however many others wait in the same queue.
#[tokio::test(flavor = "multi_thread")]
async fn many_that_are_cancelled_together_leave_the_others_where_they_are() {
    let stack = Stack::alone(4).await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", LONE).await;
    let starter = stack.starter();
    for n in 0..400 {
        let subject = knarr_schemas::subject::start("default", &format!("l-{n}"), "lone").unwrap();
        starter.publish(&subject, HeaderMap::new(), &json!({})).await;
    }
    eventually("they are dispatched", Duration::from_secs(60), || async {
        (payments(&stack).await == 400).then_some(())
    })
    .await;
    for n in (0..400).filter(|n| n % 5 != 0) {
        let subject = knarr_schemas::subject::run_verb("default", &format!("l-{n}"), "cancel").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Verb", "cancel default");
        starter.publish(&subject, headers, &Value::Null).await;
    }
    let cancelled = "select count(*) from runs where status = 'cancelled'";
    eventually("they are cancelled", Duration::from_secs(60), || async {
        (stack.number(cancelled).await == 320).then_some(())
    })
    .await;
    assert_eq!(payments(&stack).await, 80);
    stack.stop().await;
}
