//! Runs that are huge, or that a store which answers slowly loads slowly: their inputs wait in the store, their partition goes
//! on, and everything takes effect once and in its order, also when the replica is killed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use knarr_schemas::subject;
use knarr_tests::audit::audit_ends;
use knarr_tests::{Fault, Proxy, Replica, ReplicaOptions, Stack, WorkerProcess, eventually};
use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
use serde_json::{Value, json};

/// Of the replica: a run with more to be loaded is loaded by itself.
const HUGE: i64 = 4 << 20;

const LEAF: &str = include_str!("../definitions/families/leaf.yaml");

const HOARD: &str = r#"
workflow: hoard
version: 1
defaults: { queue: hoard, start_to_close: 30s }
steps:
  - a: { activity: fill, input: "${ input }", read_only: true }
  - b: { activity: fill, input: "${ input }", read_only: true }
  - c: { activity: fill, input: "${ input }", read_only: true }
  - d: { activity: fill, input: "${ input }", read_only: true }
  - e: { activity: fill, input: "${ input }", read_only: true }
  - kid: { workflow: { name: leaf, id: "${ run.workflow_id }-leaf" } }
  - one: { wait_for: { signal: go } }
  - two: { wait_for: { signal: go } }
  - three: { wait_for: { signal: go } }
output: [ "${ steps.kid.n }", "${ steps.one.n }", "${ steps.two.n }", "${ steps.three.n }" ]
"#;

/// Ids of one partition of the stack.
fn neighbours(stack: &Stack, of: &str, count: usize) -> Vec<String> {
    let partition = |id: &str| subject::partition_of("default", id, stack.partitions());
    let ids = (0..)
        .map(|n| format!("n-{n}"))
        .filter(|id| partition(id) == partition(of));
    ids.take(count).collect()
}

async fn signal(stack: &Stack, id: &str, n: u64) {
    let mut headers = HeaderMap::new();
    headers.insert("Knarr-Request-Id", format!("go-{n}").as_str());
    let subject = subject::signal("default", id, "go").unwrap();
    stack.starter().publish(&subject, headers, &json!({ "n": n })).await;
}

async fn waits(stack: &Stack, id: &'static str) {
    eventually(
        &format!("{id} to wait for a signal"),
        Duration::from_secs(60),
        || async {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from runs r join events e using (run_id)
             where r.workflow_id = $1 and e.body like '%\"signal_awaited\"%'",
            )
            .bind(id)
            .fetch_one(stack.pool())
            .await
            .unwrap();
            (waiting > 0).then_some(())
        },
    )
    .await;
}

async fn deferred(stack: &Stack, at_least: i64) {
    eventually("inputs that are deferred", Duration::from_secs(20), || async {
        (stack.number("select count(*) from deferred").await >= at_least).then_some(())
    })
    .await;
}

fn fill(stack: &Stack, shutdown: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let worker = Worker::builder(stack.nats().clone()).queue("hoard");
    let worker = worker.activity("fill", |_: Context, input: Value| async move {
        let bytes = usize::try_from(input["bytes"].as_u64().unwrap()).unwrap();
        Ok::<_, ActivityError>("x".repeat(bytes))
    });
    let worker = worker.build().unwrap();
    let shutdown = shutdown.clone();
    tokio::spawn(async move { worker.run(shutdown).await.unwrap() })
}

/// A run that waits and is in nobody's memory, behind a store that takes seconds to load it; its child ends and its
/// signals come, each twice, and what its neighbours are sent lies behind that in the log.
async fn deferred_inputs(bytes: usize, killed: bool) {
    let stack = Stack::start().await;
    let proxy = Proxy::start(stack.postgres_url()).await;
    let options = || ReplicaOptions {
        database_url: Some(proxy.url(stack.postgres_url())),
        ..ReplicaOptions::default()
    };
    let mut replica = Replica::start_with(&stack, "one", options()).await;
    for source in [knarr_tests::stack::ORDER, LEAF, HOARD] {
        stack.register("default", source).await;
    }
    let shutdown = CancellationToken::new();
    let working = fill(&stack, &shutdown);
    let _worker = WorkerProcess::start(&stack, "worker");
    let mut headers = HeaderMap::new();
    headers.insert("Knarr-Request-Id", "h");
    let start = subject::start("default", "h", "hoard").unwrap();
    stack
        .starter()
        .publish(&start, headers, &json!({ "bytes": bytes }))
        .await;
    waits(&stack, "h-leaf").await;
    let stored = stack.number("select sum(octet_length(body))::bigint from events").await;
    let huge = bytes > 100_000;
    assert_eq!(stored > HUGE, huge, "{stored} bytes");

    replica.kill9();
    proxy.slow_loads(Duration::from_millis(3_500));
    replica.respawn();
    replica.ready().await;
    let neighbours = neighbours(&stack, "h", 8);
    let others = async || {
        for n in 1..=3 {
            for _ in 0..2 {
                signal(&stack, "h", n).await;
            }
        }
        for id in &neighbours {
            stack.starter().start(id, Fault::None).await;
        }
    };
    // How large a run is, is known before it is loaded. That a look-up is slow is known after a second, and then of the run
    // alone that is named: the child's end names it.
    let most = if huge { 6 } else { 1 };
    if huge {
        others().await;
    }
    signal(&stack, "h-leaf", 0).await;
    deferred(&stack, most).await;
    let closed = |id: &'static str| {
        let stack = &stack;
        async move {
            sqlx::query_scalar::<_, i64>("select count(*) from runs where workflow_id = $1 and closed_at is not null")
                .bind(id)
                .fetch_one(stack.pool())
                .await
                .unwrap()
        }
    };
    assert_eq!(closed("h").await, 0);
    let heir = if killed {
        replica.kill9();
        deferred(&stack, most).await;
        Some(Replica::start_with(&stack, "two", options()).await)
    } else {
        assert!(replica.metric("knarr_deferred_inputs_total").await >= 1.0);
        None
    };
    if !huge {
        others().await;
    }
    if huge && !killed {
        // It is loaded by itself: who lies behind it in the log overtakes it.
        let query = "select count(*) from runs where workflow_id like 'n-%' and closed_at is not null";
        eventually("the neighbours", Duration::from_secs(30), || async {
            let done = stack.number(query).await;
            let open = closed("h").await == 0;
            assert!(done > 0 || open, "nobody overtook the huge run");
            (done > 0 && open).then_some(())
        })
        .await;
    }
    stack.all_closed(neighbours.len() + 2, Duration::from_secs(60)).await;
    let outcome: String = sqlx::query_scalar("select outcome from runs where workflow_id = 'h'")
        .fetch_one(stack.pool())
        .await
        .unwrap();
    assert_eq!(outcome, "[0,1,2,3]");
    eventually("nothing to be deferred any more", Duration::from_secs(20), || async {
        (stack.number("select count(*) from deferred").await == 0).then_some(())
    })
    .await;
    let taken = "select count(*) from event_rows where event::text like '%signal_received%'";
    assert_eq!(stack.number(taken).await, 4);
    let mut expected: BTreeMap<String, &[&str]> = BTreeMap::new();
    expected.insert("h-leaf".to_owned(), &["completed"]);
    expected.extend(neighbours.into_iter().map(|id| (id, Fault::None.ends())));
    // What the run itself did is in no worker's record.
    sqlx::query("delete from events where run_id = (select run_id from runs where workflow_id = 'h')")
        .execute(stack.pool())
        .await
        .unwrap();
    sqlx::query("delete from runs where workflow_id = 'h'")
        .execute(stack.pool())
        .await
        .unwrap();
    println!("{:?}", audit_ends(&stack, "default", &expected).await);
    drop(heir);
    shutdown.cancel();
    working.await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_run_holds_up_nobody_and_takes_its_inputs_in_order() {
    deferred_inputs(900_000, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_of_a_huge_run_survive_the_replica_that_put_them_aside() {
    deferred_inputs(900_000, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_slowly_defers_what_waits_for_it() {
    deferred_inputs(10, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_behind_a_slow_store_survive_the_replica_that_put_them_aside() {
    deferred_inputs(10, true).await;
}
