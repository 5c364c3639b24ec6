//! The connection to PostgreSQL cut around a commit of nothing but direct results.

use std::collections::BTreeMap;
use std::time::Duration;

use knarr_tests::proxy::Cut;
use knarr_tests::{Fault, Proxy, Replica, ReplicaOptions, Stack, WorkerProcess, audit};

const CURSORS: &str = "select coalesce(sum(cursor_seq), 0)::bigint from partitions";

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_outcome_takes_effect_once() {
    let stack = Stack::start().await;
    let proxy = Proxy::start(stack.postgres_url()).await;
    let options = ReplicaOptions {
        database_url: Some(proxy.url(stack.postgres_url())),
        ..ReplicaOptions::default()
    };
    let replica = Replica::start_with(&stack, "one", options).await;
    stack.register("default", knarr_tests::stack::ORDER).await;
    let starter = stack.starter();
    let mut expected = BTreeMap::new();
    let mut worker = WorkerProcess::start(&stack, "worker");
    let mut direct_only = 0;
    let mut cuts = 0;
    for (n, cut) in [Cut::BeforeReply, Cut::BeforeSending, Cut::AtOnce]
        .into_iter()
        .cycle()
        .take(6)
        .enumerate()
    {
        worker.kill9();
        let (id, fault) = (format!("c-{n}"), if n < 3 { Fault::None } else { Fault::Stock });
        starter.start_confirmed(&id, fault).await;
        expected.insert(id, fault);
        let cursors = stack.number(CURSORS).await;
        let transitions = stack.transitions().await;
        proxy.arm(cut);
        worker.restart();
        cuts += 1;
        proxy.cut(cuts).await;
        let took = stack.all_closed(expected.len(), Duration::from_secs(60)).await;
        assert!(stack.transitions().await > transitions);
        // No message of the log was taken meanwhile: the batch that was cut had results of the direct inlet alone.
        if stack.number(CURSORS).await == cursors {
            direct_only += 1;
        }
        println!("{cut:?}: ended {took:?} later");
    }
    assert!(
        direct_only >= 4,
        "{direct_only} of {cuts} batches had direct results only"
    );
    let summary = audit(&stack, &expected).await;
    println!("{summary:?}");
    assert_eq!(summary.timeouts, 0, "{summary:?}");
    assert!(replica.metric("knarr_commit_errors_total").await >= f64::from(cuts));
    stack.stop().await;
}
