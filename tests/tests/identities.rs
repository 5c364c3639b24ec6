//! Workflow ids and requests: races, reuse, conflicts, and operators' verbs on running sagas.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_tests::audit::audit_ends;
use knarr_tests::plain::PlainTask;
use knarr_tests::record::RecordWriter;
use knarr_tests::{Fault, Stack, Starter, WorkerProcess, audit};

const LIMIT: Duration = Duration::from_secs(15);

async fn start(starter: &Starter, id: &str, request: &str, headers: &[(&str, &str)]) -> Answer {
    let mut map = HeaderMap::new();
    map.insert("Knarr-Request-Id", request);
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    starter
        .call(
            &starter.start_subject(id),
            map,
            Some("started"),
            &Fault::None.input(),
            LIMIT,
        )
        .await
        .unwrap_or_else(|| panic!("no answer to the start {request} of {id}"))
}

fn code(answer: &Answer) -> &str {
    answer.error.as_ref().map_or("", |error| &error.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_that_race_one_wins() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    let starter = stack.starter();
    let mut expected = BTreeMap::new();
    for n in 0..20 {
        let id = format!("race-{n}");
        let (left, right) = tokio::join!(start(&starter, &id, "left", &[]), start(&starter, &id, "right", &[]));
        let stages = [left.stage, right.stage];
        assert!(
            stages.contains(&AnswerStage::Started) && stages.contains(&AnswerStage::Refused),
            "{left:?} {right:?}"
        );
        let refused = if left.stage == AnswerStage::Refused {
            &left
        } else {
            &right
        };
        assert_eq!(code(refused), "KN0209");

        let id = format!("shared-{n}");
        let existing = [("Knarr-Id-Conflict", "use_existing")];
        let (left, right) = tokio::join!(
            start(&starter, &id, "left", &existing),
            start(&starter, &id, "right", &existing)
        );
        assert!(
            [left.stage, right.stage].contains(&AnswerStage::Existing) && left.run_id == right.run_id,
            "{left:?} {right:?}"
        );
        expected.insert(format!("race-{n}"), Fault::None);
        expected.insert(id, Fault::None);
    }
    let _worker = WorkerProcess::start(&stack, "worker");
    stack.all_closed(expected.len(), Duration::from_secs(30)).await;
    audit(&stack, &expected).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_id_is_used_again_as_the_start_allows() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    let _worker = WorkerProcess::start(&stack, "worker");
    let starter = stack.starter();
    for (id, fault, failed_only) in [
        ("completed", Fault::None, AnswerStage::Refused),
        ("compensated", Fault::Stock, AnswerStage::Started),
    ] {
        let first = starter.run(id, fault).await;
        let reject = start(&starter, id, "second", &[("Knarr-Id-Reuse", "reject_duplicate")]).await;
        assert_eq!((reject.stage, code(&reject)), (AnswerStage::Refused, "KN0210"));
        let failed = [("Knarr-Id-Reuse", "allow_duplicate_failed_only")];
        let answer = start(&starter, id, "third", &failed).await;
        assert_eq!(answer.stage, failed_only, "{answer:?}");
        stack.all_closed(1, LIMIT).await;
        let again = start(&starter, id, "fourth", &[]).await;
        assert_eq!(again.stage, AnswerStage::Started, "{again:?}");
        stack.all_closed(1, LIMIT).await;
        // The request that started the first run finds it still, behind all the others.
        let repeat = starter.start_confirmed(id, fault).await;
        assert_eq!(
            (repeat.stage, repeat.run_id),
            (AnswerStage::Existing, first.run_id),
            "{repeat:?}"
        );
    }
    audit_ends(&stack, "default", &BTreeMap::new()).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_may_terminate_the_run_that_has_its_id() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    let starter = stack.starter();
    let mut last = None;
    for n in 0..3 {
        let headers = [("Knarr-Id-Conflict", "terminate_existing")];
        let answer = start(&starter, "mine", &format!("request-{n}"), &headers).await;
        assert_eq!(answer.stage, AnswerStage::Started, "{answer:?}");
        assert_ne!(answer.run_id, last);
        last = answer.run_id;
    }
    let _worker = WorkerProcess::start(&stack, "worker");
    stack.all_closed(3, LIMIT).await;
    let terminated = stack
        .number("select count(*) from runs where status = 'terminated'")
        .await;
    let completed = stack
        .number("select count(*) from runs where status = 'completed'")
        .await;
    assert_eq!((terminated, completed), (2, 1));
    audit_ends(&stack, "default", &BTreeMap::new()).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_undoes_and_terminate_does_not_and_both_may_be_repeated() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    let starter = stack.starter();
    starter.start_confirmed("cancelled", Fault::None).await;
    // A worker has it: else it would be taken out of its queue, and the run closed at once.
    let task = PlainTask::next(stack.nats(), "default").await.unwrap();
    starter.start_confirmed("terminated", Fault::None).await;
    for request in ["first", "first", "second"] {
        let answer = starter.verb("cancelled", "cancel", request).await.unwrap();
        assert_eq!(answer.stage, AnswerStage::Accepted, "{answer:?}");
    }
    let answer = starter.verb("terminated", "terminate", "first").await.unwrap();
    assert_eq!(
        (answer.stage, answer.status.as_deref()),
        (AnswerStage::Accepted, Some("terminated")),
        "{answer:?}"
    );
    // Repeated, it finds the run closed, which is what was wanted.
    let again = starter.verb("terminated", "terminate", "first").await.unwrap();
    assert_eq!(again.stage, AnswerStage::Accepted, "{again:?}");
    // What a worker had before the cancellation is waited for, and undone.
    let record = RecordWriter::open(&stack.directory().join("plain.record")).unwrap();
    let (headers, output) = task.work(&record);
    assert!(task.hand_in(stack.nats(), headers, &output).await);
    task.acknowledge(stack.nats()).await;
    let _worker = WorkerProcess::start(&stack, "worker");
    stack.all_closed(2, Duration::from_secs(30)).await;
    let ends = BTreeMap::from([
        ("cancelled".to_owned(), ["cancelled"].as_slice()),
        ("terminated".to_owned(), ["terminated"].as_slice()),
    ]);
    audit_ends(&stack, "default", &ends).await;
    let again = starter.verb("cancelled", "cancel", "first").await.unwrap();
    assert_eq!(again.stage, AnswerStage::Accepted, "{again:?}");
    let after = starter.verb("cancelled", "cancel", "third").await.unwrap();
    assert_eq!(code(&after), "KN0212", "{after:?}");
    stack.stop().await;
}
