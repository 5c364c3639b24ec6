//! The order saga on the real binary: every way it can end, before anything is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use knarr_tests::{Fault, Stack, WorkerProcess, audit};

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_as_it_must() {
    let stack = Stack::start().await;
    let began = std::time::Instant::now();
    let replica = stack.first_replica("one").await;
    println!("a replica and its definition: {:?}", began.elapsed());
    let _worker = WorkerProcess::start(&stack, "worker");
    let starter = stack.starter();
    let mut expected = BTreeMap::new();
    for (n, fault) in Fault::ALL.into_iter().enumerate() {
        let id = format!("o-{n}");
        let began = std::time::Instant::now();
        let answer = starter.run(&id, fault).await;
        println!("{fault:?}: {:?}", began.elapsed());
        // Nothing is killed, so nothing waits for a lease or a timeout.
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(8),
            "{took:?}{}\n{}",
            stack.timeline(&id).await,
            replica.log()
        );
        assert!(
            fault.ends().contains(&answer.status.as_deref().unwrap()),
            "{fault:?}: {answer:?}"
        );
        expected.insert(id, fault);
    }
    stack.all_closed(expected.len(), Duration::from_secs(10)).await;
    let summary = audit(&stack, &expected).await;
    assert_eq!((summary.timeouts, summary.repeats), (0, 1), "{summary:?}");
    drop(replica);
    stack.stop().await;
}
