//! A starter and a worker without any SDK: a NATS client, subjects and headers.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use knarr_tests::plain::{PlainTask, PlainWorker};
use knarr_tests::record::RecordWriter;
use knarr_tests::{Fault, Stack, audit, eventually};
use sqlx::Row as _;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_drives_the_saga_to_either_end() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    let _worker = PlainWorker::start(&stack, "plain");
    let starter = stack.starter();
    let mut expected = BTreeMap::new();
    for (id, fault) in [("p-1", Fault::None), ("p-2", Fault::Stock), ("p-3", Fault::Order)] {
        let answer = starter.run(id, fault).await;
        assert_eq!(answer.status.as_deref(), Some(fault.ends()[0]), "{answer:?}");
        expected.insert(id.to_owned(), fault);
    }
    let answer = starter.run("p-1", Fault::None).await;
    assert_eq!(answer.output.unwrap()["payment_id"], "pay-1");

    // Without an id: the message's own id is the workflow id, else one is made up.
    let subject = "knarr.start.default.order";
    for _ in 0..3 {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", "u-1");
        starter.publish(subject, headers, &Fault::None.input()).await;
        // Past the stream's own window, so that it is state that recognises the repeat.
        stack.all_closed(4, Duration::from_secs(20)).await;
    }
    expected.insert("u-1".to_owned(), Fault::None);
    for _ in 0..2 {
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Request-Id", "made-up");
        starter.publish(subject, headers, &Fault::None.input()).await;
        stack.all_closed(5, Duration::from_secs(20)).await;
    }
    let mut headers = HeaderMap::new();
    headers.insert("Knarr-Workflow-Id", "named / id");
    starter.publish(subject, headers, &Fault::Stock.input()).await;
    expected.insert("named / id".to_owned(), Fault::Stock);
    stack.all_closed(6, Duration::from_secs(20)).await;

    // And keyed, again and again under one id.
    for name in ["Nats-Msg-Id", "Knarr-Request-Id"] {
        let id = format!("again-{name}");
        for _ in 0..3 {
            let mut headers = HeaderMap::new();
            headers.insert(name, id.as_str());
            starter
                .publish(&starter.start_subject(&id), headers, &Fault::None.input())
                .await;
            let runs = expected.len() + 2;
            stack.all_closed(runs, Duration::from_secs(20)).await;
        }
        expected.insert(id, Fault::None);
    }
    let runs: i64 = stack.number("select count(*) from runs").await;
    assert_eq!(runs, i64::try_from(expected.len() + 1).unwrap());
    audit(&stack, &expected).await;
    stack.stop().await;
}

/// The result lies in the log and its timeout is long past when a replica starts: the result wins.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_in_the_log_wins_over_a_timeout_that_is_overdue() {
    let stack = Stack::start().await;
    let mut replica = stack.first_replica("one").await;
    let starter = stack.starter();
    starter.start_confirmed("late-1", Fault::None).await;
    let record = RecordWriter::open(&stack.directory().join("first.record")).unwrap();
    let (task, _) = eventually("the first task", Duration::from_secs(20), || {
        PlainTask::next(stack.nats(), "default")
    })
    .await;
    // The engine has learned that the task was delivered: from here its start-to-close counts.
    eventually("the delivery to be known", Duration::from_secs(30), || async {
        let known = "select count(*) from events where body like '%\"task_delivered\"%'";
        (stack.number(known).await > 0).then_some(())
    })
    .await;
    replica.kill9();
    let (headers, output) = task.work(&record);
    assert!(task.hand_in(stack.nats(), headers, &output).await);
    task.acknowledge(stack.nats()).await;
    eventually("the deadline to be past", Duration::from_secs(20), || async {
        let past = "select count(*) from runs where wake_at < clock_timestamp() - interval '1 second'";
        let delivered = "select count(*) from events where body like '%\"task_delivered\"%'
                         and at < clock_timestamp() - interval '5 seconds'";
        (stack.number(past).await > 0 && stack.number(delivered).await > 0).then_some(())
    })
    .await;
    let _worker = PlainWorker::start(&stack, "rest");
    replica.respawn();
    stack.all_closed(1, Duration::from_secs(30)).await;
    let summary = audit(&stack, &BTreeMap::from([("late-1".to_owned(), Fault::None)])).await;
    assert_eq!((summary.timeouts, summary.late_results, summary.repeats), (0, 0, 0));
    let row = sqlx::query("select status from runs")
        .fetch_one(stack.pool())
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>("status"), "completed");
    stack.stop().await;
}
