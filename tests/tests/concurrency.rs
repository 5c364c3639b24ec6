//! Runs that wait before they begin, measured by the workers themselves: never more of a key than its limit are open and at work,
//! whoever dies, and every start has its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use knarr_schemas::api::{ListQueues, QueuePage, RunDescription, RunName, ShowRun, verb};
use knarr_tests::cli::knarr;
use knarr_tests::{Replica, Stack, eventually};
use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
use serde_json::{Value, json};

const GATED: &str = r#"
workflow: gated
version: 1
concurrency: { key: input.customer, limit: 2 }
defaults: { queue: gated, start_to_close: 30s, retry: { maximum_attempts: 20, initial_interval: 200ms } }
steps:
  - first: { activity: first, input: "${ input }", read_only: true }
  - last: { activity: last, input: "${ input }", read_only: true }
"#;

/// Without a limit on how many are open.
const PLAIN: &str = r#"
workflow: plain
version: 1
defaults: { queue: gated, start_to_close: 30s, retry: { maximum_attempts: 20, initial_interval: 200ms } }
steps:
  - first: { activity: first, input: "${ input }", read_only: true }
  - last: { activity: last, input: "${ input }", read_only: true }
"#;

/// Which runs are at work, by key: from the beginning of a run's first task to the end of its last.
#[derive(Debug, Default)]
struct AtWork {
    now: BTreeMap<String, BTreeSet<String>>,
    most: BTreeMap<String, usize>,
    /// In the order in which they began.
    began: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<AtWork>>);

impl Seen {
    fn begins(&self, input: &Value) {
        let mut seen = self.0.lock().unwrap();
        let (key, start) = (input["customer"].to_string(), input["start"].to_string());
        let now = seen.now.entry(key.clone()).or_default();
        now.insert(start.clone());
        let count = now.len();
        let most = seen.most.entry(key).or_default();
        *most = count.max(*most);
        if !seen.began.contains(&start) {
            seen.began.push(start);
        }
    }

    fn ends(&self, input: &Value) {
        let mut seen = self.0.lock().unwrap();
        let now = seen.now.entry(input["customer"].to_string()).or_default();
        now.remove(&input["start"].to_string());
    }

    fn most(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().most.clone()
    }

    fn began(&self) -> Vec<String> {
        self.0.lock().unwrap().began.clone()
    }
}

fn workers(stack: &Stack, seen: &Seen) -> CancellationToken {
    let stop = CancellationToken::new();
    for _ in 0..30 {
        let (first, last) = (seen.clone(), seen.clone());
        let worker = Worker::builder(stack.nats().clone())
            .queue("gated")
            .concurrency(1)
            .activity("first", move |_: Context, input: Value| {
                let seen = first.clone();
                async move {
                    seen.begins(&input);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, ActivityError>(json!(null))
                }
            })
            .activity("last", move |_: Context, input: Value| {
                let seen = last.clone();
                async move {
                    seen.begins(&input);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    seen.ends(&input);
                    Ok::<_, ActivityError>(json!(null))
                }
            })
            .build()
            .unwrap();
        tokio::spawn(worker.run(stop.clone()));
    }
    stop
}

async fn start(stack: &Stack, workflow: &str, id: &str, request: &str, input: Value, conflict: Option<&str>) {
    let subject = knarr_schemas::subject::start("default", id, workflow).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Knarr-Request-Id", request);
    if let Some(conflict) = conflict {
        headers.insert("Knarr-Id-Conflict", conflict);
    }
    stack.starter().publish(&subject, headers, &input).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_than_two_of_a_key_are_open_and_at_work_across_the_death_of_replicas() {
    let stack = Stack::alone(16).await;
    let mut replicas = [Replica::start(&stack, "one").await, Replica::start(&stack, "two").await];
    stack.register("default", GATED).await;
    let seen = Seen::default();
    let stop = workers(&stack, &seen);
    for n in 0..200 {
        let id = format!("gated-{n}");
        let input = json!({ "customer": n % 10, "start": n });
        start(&stack, "gated", &id, &id, input, None).await;
    }
    eventually("some wait for their turn", Duration::from_secs(60), || async {
        let waiting = "select count(*) from runs where status = 'waiting'";
        (stack.number(waiting).await > 20).then_some(())
    })
    .await;
    for round in 0..3 {
        let wanted = (stack.closed_runs().await + 20).min(200);
        eventually("some more have ended", Duration::from_secs(120), || async {
            (stack.closed_runs().await >= wanted).then_some(())
        })
        .await;
        let replica = &mut replicas[round % 2];
        replica.kill9();
        replica.respawn();
        replica.ready().await;
    }
    stack.all_closed(200, Duration::from_secs(240)).await;
    let completed = "select count(*) from runs where status = 'completed'";
    assert_eq!(stack.number(completed).await, 200);
    let most = seen.most();
    assert_eq!(most.len(), 10);
    assert!(most.values().all(|most| *most == 2), "{most:?}");
    assert_eq!(seen.began().len(), 200, "each begins once");
    eventually("every place is given back", Duration::from_secs(120), || async {
        (stack.number("select count(*) from permits").await == 0).then_some(())
    })
    .await;
    let page: QueuePage = stack
        .api("default")
        .call(verb::QUEUE_LIST, &ListQueues {})
        .await
        .unwrap();
    assert_eq!(page.limits, []);
    stop.cancel();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_are_queued_for_an_id_begin_one_after_the_other_in_order_across_the_death_of_replicas() {
    let stack = Stack::alone(8).await;
    let mut replicas = [Replica::start(&stack, "one").await, Replica::start(&stack, "two").await];
    stack.register("default", PLAIN).await;
    let seen = Seen::default();
    for n in 0..20 {
        let input = json!({ "customer": "one", "start": format!("{n:02}") });
        start(&stack, "plain", "the-id", &format!("r-{n}"), input, Some("queue")).await;
    }
    let queued = "select count(*) from runs where status = 'queued'";
    eventually("all but one are queued", Duration::from_secs(60), || async {
        (stack.number(queued).await == 19).then_some(())
    })
    .await;
    // The last of them says who comes before it, and the open one is what the id means.
    let last = "select run_id::text from runs where status = 'queued' order by run_id desc limit 1";
    let (last,): (String,) = sqlx::query_as(last).fetch_one(stack.pool()).await.unwrap();
    let show = async |run: RunName| -> RunDescription {
        let api = stack.api("default");
        api.call(verb::RUN_SHOW, &ShowRun { run }).await.unwrap()
    };
    let shown = show(RunName::RunId(last.parse().unwrap())).await;
    assert_eq!(
        (shown.run.status.as_str(), shown.turn.unwrap().ahead),
        ("queued", Some(18))
    );
    assert_eq!(
        show(RunName::WorkflowId("the-id".to_owned())).await.run.status,
        "running"
    );

    let stop = workers(&stack, &seen);
    for round in 0..3 {
        let wanted = stack.closed_runs().await + 3;
        eventually("some more have ended", Duration::from_secs(120), || async {
            (stack.closed_runs().await >= wanted).then_some(())
        })
        .await;
        let replica = &mut replicas[round % 2];
        replica.kill9();
        replica.respawn();
        replica.ready().await;
    }
    stack.all_closed(20, Duration::from_secs(120)).await;
    let began = seen.began();
    let mut in_order = began.clone();
    in_order.sort();
    assert_eq!((began.len(), &began), (20, &in_order));
    assert_eq!(seen.most()["\"one\""], 1);
    stop.cancel();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_place_is_told_how_many_come_first() {
    let stack = Stack::alone(8).await;
    let replica = Replica::start(&stack, "one").await;
    stack.register("default", GATED).await;
    // No worker is there, so that nobody's turn comes.
    for n in 0..5 {
        let id = format!("gated-{n}");
        start(
            &stack,
            "gated",
            &id,
            &id,
            json!({ "customer": "one", "start": n }),
            None,
        )
        .await;
        eventually("it has asked for its place", Duration::from_secs(60), || async {
            (stack.number("select count(*) from permits where no > 0").await > n).then_some(())
        })
        .await;
    }
    for (n, ahead) in [(2, 0), (3, 1), (4, 2)] {
        let shown: Value = knarr(&stack, &["show", &format!("gated-{n}")]).await.good();
        assert_eq!(shown["run"]["status"], "waiting");
        let turn = &shown["turn"];
        assert_eq!(
            (&turn["open"], &turn["waiting"], &turn["ahead"]),
            (&json!(2), &json!(3), &json!(ahead))
        );
    }
    let open: Value = knarr(&stack, &["show", "gated-0"]).await.good();
    assert!(open.get("turn").is_none(), "{open}");
    drop(replica);
    stack.stop().await;
}
