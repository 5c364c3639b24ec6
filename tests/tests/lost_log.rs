//! The log stream deleted, and put back to an older copy of its files: what was confirmed is intact, what was not is
//! reported as a gap, and the system works on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use knarr::dev::Server;
use knarr_tests::{Fault, Replica, Stack, WorkerProcess, audit, eventually, jetstream};
use serde_json::Value;

const GAP: &str = "KN0340";

async fn delete_log(stack: &Stack) {
    let answer = jetstream::api(stack.nats(), "STREAM.DELETE.KNARR_IN", &Value::Null)
        .await
        .unwrap();
    assert_eq!(answer["success"], true, "{answer}");
}

async fn log_is_there(stack: &Stack) {
    eventually("the log to be made again", Duration::from_secs(20), || {
        jetstream::messages(stack.nats(), "KNARR_IN")
    })
    .await;
}

async fn gap_is_reported(replica: &Replica) {
    eventually("a gap that is reported", Duration::from_secs(30), || async {
        (!replica.log_lines_with_code(GAP).is_empty()).then_some(())
    })
    .await;
    replica
        .wait_for_metric("knarr_log_gaps_total", 1.0, Duration::from_secs(10))
        .await;
}

/// Sagas that are confirmed by PostgreSQL and in flight: nobody works yet.
async fn confirm(stack: &Stack, prefix: &str, count: usize, expected: &mut BTreeMap<String, Fault>) {
    let began = std::time::Instant::now();
    for n in 0..count {
        let fault = if n % 2 == 0 { Fault::None } else { Fault::Stock };
        let id = format!("{prefix}-{n}");
        stack.starter().start_confirmed(&id, fault).await;
        expected.insert(id, fault);
    }
    println!("{prefix}: confirmed within {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_deleted_is_made_again_and_reported() {
    let stack = Stack::start().await;
    let mut replica = stack.first_replica("one").await;
    let mut expected = BTreeMap::new();
    confirm(&stack, "before", 12, &mut expected).await;
    delete_log(&stack).await;
    log_is_there(&stack).await;
    gap_is_reported(&replica).await;
    confirm(&stack, "between", 12, &mut expected).await;
    let mut worker = WorkerProcess::start(&stack, "worker");
    let took = stack.all_closed(expected.len(), Duration::from_secs(60)).await;
    println!("deleted while it runs: all ended within {took:?}");
    worker.kill9();

    confirm(&stack, "running", 12, &mut expected).await;
    replica.terminate().await;
    delete_log(&stack).await;
    replica.respawn();
    replica.ready().await;
    log_is_there(&stack).await;
    gap_is_reported(&replica).await;
    worker.restart();
    confirm(&stack, "after", 12, &mut expected).await;
    let took = stack.all_closed(expected.len(), Duration::from_secs(60)).await;
    println!("deleted while it is stopped: all ended within {took:?}");
    println!("{:?}", audit(&stack, &expected).await);
    stack.stop().await;
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_back_in_time_skips_nothing_new() {
    let stack = Stack::start().await;
    let replica = stack.first_replica("one").await;
    let mut worker = WorkerProcess::start(&stack, "worker");
    let mut expected = BTreeMap::new();
    confirm(&stack, "old", 10, &mut expected).await;
    stack.all_closed(expected.len(), Duration::from_secs(30)).await;

    let store = stack.servers().nats_store_dir().unwrap();
    let backup = stack.directory().join("older");
    stack.halt(Server::Nats).await;
    copy(&store, &backup);
    stack.restart(Server::Nats).await;

    // Confirmed after the copy was made; the older half has ended, the younger is in flight.
    confirm(&stack, "lost", 10, &mut expected).await;
    stack.all_closed(expected.len(), Duration::from_secs(30)).await;
    worker.kill9();
    confirm(&stack, "flying", 10, &mut expected).await;

    stack.halt(Server::Nats).await;
    std::fs::remove_dir_all(&store).unwrap();
    copy(&backup, &store);
    stack.restart(Server::Nats).await;
    // New messages have sequences that the cursors have passed already.
    confirm(&stack, "new", 20, &mut expected).await;
    gap_is_reported(&replica).await;
    worker.restart();
    let took = stack.all_closed(expected.len(), Duration::from_secs(90)).await;
    println!("all ended {took:?} after the workers' return");
    println!("{:?}", audit(&stack, &expected).await);
    stack.stop().await;
}
