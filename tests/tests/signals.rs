//! Signals by a plain NATS client, over real servers.

use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt as _;
use knarr_tests::plain::PlainWorker;
use knarr_tests::{Fault, Replica, Stack};

const SIGNALS: &str = "select count(*) from event_rows where event::text like '%signal_received%'";

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_starts_its_run_once_and_one_to_nobody_is_a_dead_letter() {
    let stack = Stack::start().await;
    let mut replica = stack.first_replica("one").await;
    let _worker = PlainWorker::start(&stack, "plain");
    let starter = stack.starter();
    let mut letters = stack.nats().subscribe("knarr.dlq.default.>").await.unwrap();
    stack.nats().flush().await.unwrap();
    for request in ["s-1", "s-1", "s-2"] {
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Request-Id", request);
        headers.insert("Knarr-Start-Workflow", "order");
        starter
            .publish("knarr.run.default.g-1.signal.paid", headers, &Fault::None.input())
            .await;
    }
    stack.all_closed(1, Duration::from_secs(20)).await;
    let taken = stack.number(SIGNALS).await;
    let runs = stack.number("select count(*) from runs").await;
    // The second signal found the run open, or started one of its own.
    assert!(
        (taken, runs) == (2, 1) || (taken, runs) == (2, 2),
        "{taken} signals, {runs} runs"
    );

    // A repeat when the run has closed, by the next replica: nothing.
    stack
        .all_closed(usize::try_from(runs).unwrap(), Duration::from_secs(20))
        .await;
    replica.kill9();
    let _next = Replica::start(&stack, "two").await;
    let mut headers = HeaderMap::new();
    headers.insert("Knarr-Request-Id", "s-1");
    headers.insert("Knarr-Start-Workflow", "order");
    starter
        .publish("knarr.run.default.g-1.signal.paid", headers, &Fault::None.input())
        .await;
    starter
        .publish(
            "knarr.run.default.g-2.signal.paid",
            HeaderMap::new(),
            &Fault::None.input(),
        )
        .await;
    let letter = tokio::time::timeout(Duration::from_secs(20), letters.next())
        .await
        .unwrap()
        .unwrap();
    let headers = letter.headers.unwrap();
    assert_eq!(headers.get("Knarr-Error-Code").unwrap().as_str(), "KN0211");
    assert_eq!(stack.number(SIGNALS).await, taken);
    assert_eq!(stack.number("select count(*) from runs").await, runs);
}
