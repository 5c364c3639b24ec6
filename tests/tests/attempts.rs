//! Runs that are tried again, on real servers: attempt after attempt under one workflow id, whoever is killed while one waits, and
//! what people are shown of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use knarr_tests::cli::knarr;
use knarr_tests::{Replica, Stack, eventually};
use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
use serde_json::{Value, json};

/// Undoes itself twice, and completes.
fn definition(pause: &str) -> String {
    format!(
        r#"
workflow: again
version: 1
defaults: {{ queue: again, start_to_close: 30s, retry: {{ maximum_attempts: 20, initial_interval: 200ms }} }}
retry: {{ initial_interval: {pause}, maximum_attempts: 3 }}
steps:
  - hold: {{ activity: hold, compensate: unhold }}
  - early: {{ if: "${{ run.attempt < 3 }}", fail: {{ type: too_early }} }}
output: "${{ run.attempt }}"
"#
    )
}

/// What was done and undone, by the part of the key that is the run's.
#[derive(Debug, Clone, Default)]
struct Held(Arc<Mutex<BTreeMap<String, BTreeSet<&'static str>>>>);

impl Held {
    fn note(&self, context: &Context, what: &'static str) {
        let run = context.idempotency_key().split('/').next().unwrap().to_owned();
        self.0.lock().unwrap().entry(run).or_default().insert(what);
    }
}

fn worker(stack: &Stack, held: &Held) -> CancellationToken {
    let stop = CancellationToken::new();
    let (done, undone) = (held.clone(), held.clone());
    let worker = Worker::builder(stack.nats().clone())
        .queue("again")
        .concurrency(8)
        .activity("hold", move |context: Context, _: Value| {
            done.note(&context, "done");
            async { Ok::<_, ActivityError>(json!(null)) }
        })
        .activity("unhold", move |context: Context, _: Value| {
            undone.note(&context, "undone");
            async { Ok::<_, ActivityError>(json!(null)) }
        })
        .build()
        .unwrap();
    tokio::spawn(worker.run(stop.clone()));
    stop
}

async fn start(stack: &Stack, id: &str) {
    let subject = knarr_schemas::subject::start("default", id, "again").unwrap();
    stack.starter().publish(&subject, HeaderMap::new(), &json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_follow_each_other_across_the_death_of_replicas() {
    let stack = Stack::alone(8).await;
    let mut replicas = [Replica::start(&stack, "one").await, Replica::start(&stack, "two").await];
    stack.register("default", &definition("700ms")).await;
    let held = Held::default();
    let stop = worker(&stack, &held);
    for n in 0..40 {
        start(&stack, &format!("a-{n}")).await;
    }
    for round in 0..3 {
        let wanted = (stack.closed_runs().await + 15).min(120);
        eventually("some more have ended", Duration::from_secs(120), || async {
            (stack.closed_runs().await >= wanted).then_some(())
        })
        .await;
        let replica = &mut replicas[round % 2];
        replica.kill9();
        replica.respawn();
        replica.ready().await;
    }
    stack.all_closed(120, Duration::from_secs(240)).await;

    let rows: Vec<(String, String, String, i32, Option<String>)> = sqlx::query_as(
        "select workflow_id, run_id::text, status, coalesce(attempt, 1), retried_by::text from runs order by workflow_id, run_id",
    )
    .fetch_all(stack.pool())
    .await
    .unwrap();
    let mut chains: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for row in &rows {
        chains.entry(&row.0).or_default().push(row);
    }
    assert_eq!(chains.len(), 40);
    for (id, chain) in chains {
        let told: Vec<_> = chain.iter().map(|row| (row.2.as_str(), row.3)).collect();
        assert_eq!(told, [("compensated", 1), ("compensated", 2), ("completed", 3)], "{id}");
        let next: Vec<_> = chain.iter().map(|row| row.4.as_deref()).collect();
        assert_eq!(
            next,
            [Some(chain[1].1.as_str()), Some(chain[2].1.as_str()), None],
            "{id}"
        );
        // Each attempt had keys of its own, and what it did it has undone.
        let held = held.0.lock().unwrap();
        let seen: Vec<_> = chain.iter().map(|row| held[&row.1].clone()).collect();
        let undone = BTreeSet::from(["done", "undone"]);
        assert_eq!(seen, [undone.clone(), undone, BTreeSet::from(["done"])], "{id}");
    }
    // None has begun before its time: an attempt's second transition is its beginning.
    let early =
        "select count(*) from runs r join events e on e.retention_class = r.retention_class and e.run_id = r.run_id
                 where r.attempt > 1 and e.seq = 2 and e.at < r.begins_at";
    assert_eq!(stack.number(early).await, 0);
    stop.cancel();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_which_attempt_waits_and_when_it_begins_and_may_cancel_it() {
    let stack = Stack::alone(8).await;
    let replica = Replica::start(&stack, "one").await;
    stack.register("default", &definition("1h")).await;
    let stop = worker(&stack, &Held::default());
    start(&stack, "a-1").await;
    eventually("the second attempt to wait", Duration::from_secs(60), || async {
        (stack.number("select count(*) from runs where attempt = 2").await == 1).then_some(())
    })
    .await;
    let shown = knarr(&stack, &["show", "a-1"]).await.good();
    assert_eq!(shown["run"]["status"], "running");
    let attempt = &shown["run"]["attempt"];
    assert_eq!((&attempt["number"], &attempt["most"]), (&json!(2), &json!(3)));
    assert!(attempt["begins_at"].is_string(), "{shown}");
    let due = "select count(*) from runs where attempt = 2 and begins_at = wake_at
               and begins_at - started_at between interval '54 minutes' and interval '66 minutes'";
    assert_eq!(stack.number(due).await, 1, "an hour, give or take a tenth");

    let list = knarr(&stack, &["list", "--id", "a-1"]).await.good();
    let runs = list["runs"].as_array().unwrap();
    let told: Vec<_> = runs
        .iter()
        .map(|run| (&run["status"], &run["attempt"]["number"]))
        .collect();
    assert_eq!(
        told,
        [(&json!("running"), &json!(2)), (&json!("compensated"), &json!(null))]
    );
    assert_eq!(runs[1]["retried_by"], runs[0]["run_id"]);

    let first = runs[1]["run_id"].as_str().unwrap();
    let history = knarr(&stack, &["history", first]).await.good().to_string();
    assert!(history.contains("run_retried"), "{history}");

    knarr(&stack, &["cancel", "a-1", "--reason", "enough"]).await.good();
    eventually("it is cancelled", Duration::from_secs(60), || async {
        (stack
            .number("select count(*) from runs where status = 'cancelled'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    assert_eq!(stack.number("select count(*) from runs").await, 2, "none follows");
    assert_eq!(replica.metric("knarr_runs_retried_total").await, 1.0);
    stop.cancel();
    stack.stop().await;
}
