//! What the SDK itself costs: `cargo test --release -p knarr-worker --test throughput -- --ignored --nocapture`.
//!
//! Worker, server and the orchestrator's part share the machine; the figure is a lower bound.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use knarr_worker::Context;
use serde_json::{Value, json};
use support::{Nats, Orchestrator, Running, worker};

const TASKS: usize = 50_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn tasks_a_second() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    orchestrator.load(TASKS).await;
    let mut owner = orchestrator.own().await;
    let answer = json!({ "payment_id": "x".repeat(180) });
    let builder = worker(&nats)
        .await
        .concurrency(256)
        .activity("pay", move |_: Context, _: Value| {
            let answer = answer.clone();
            async move { Ok(answer) }
        });
    let began = Instant::now();
    let running = Running::start(builder);
    let mut taken = 0;
    while taken < TASKS {
        let batch = owner.batch(1000).await;
        taken += batch.len();
        owner.confirm(&batch.iter().collect::<Vec<_>>()).await;
    }
    let elapsed = began.elapsed();
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
    let rate = TASKS as f64 / elapsed.as_secs_f64();
    println!("{TASKS} tasks in {elapsed:.2?}: {rate:.0} a second");
    assert!(elapsed < Duration::from_secs(60));
}
