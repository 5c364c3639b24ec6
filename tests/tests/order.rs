//! The order saga on the real binary: every way it can end, before anything is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use knarr_tests::{Fault, Stack, WorkerProcess, audit};

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_as_it_must() {
    let stack = Stack::start().await;
    let replica = stack.first_replica("one").await;
    let _worker = WorkerProcess::start(&stack, "worker");
    let starter = stack.starter();
    let mut expected = BTreeMap::new();
    for (n, fault) in Fault::ALL.into_iter().enumerate() {
        let id = format!("o-{n}");
        let answer = starter.run(&id, fault).await;
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
