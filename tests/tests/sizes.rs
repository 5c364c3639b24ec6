//! Bodies near what NATS takes: each start is a run or a dead letter, and whoever waits for a large output is answered.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use knarr_schemas::body::AnswerStage;
use knarr_tests::jetstream::dead_letters;
use knarr_tests::{Stack, eventually};
use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
use serde_json::{Value, json};

const MAX_PAYLOAD: usize = 1 << 20;
/// With this much in it a message that is sent on, with more headers, would not fit.
const LIMIT: usize = MAX_PAYLOAD - (8 << 10);

const TWICE: &str = "
workflow: twice
version: 1
defaults: { queue: twice, start_to_close: 10s }
steps:
  - look: { activity: look, input: {}, no_undo: nothing is changed }
output: { a: '${ input }', b: '${ input }' }
";

/// A JSON text of so many bytes.
fn body(bytes: usize) -> Bytes {
    format!("\"{}\"", "x".repeat(bytes - 2)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_start_near_the_limit_is_a_run_or_a_dead_letter() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", TWICE).await;
    let starter = stack.starter();
    let sizes: Vec<usize> = (0..=4)
        .map(|n| MAX_PAYLOAD - n * 512)
        .chain([MAX_PAYLOAD - 50, LIMIT + 1, LIMIT])
        .collect();
    let (mut starts, mut unknown) = (0, 0);
    for (n, size) in sizes.iter().enumerate() {
        for subject in [
            format!("knarr.run.default.large-{n}.start.twice"),
            "knarr.start.default.twice".to_owned(),
            format!("knarr.run.default.none-{n}.start.nothing"),
        ] {
            let stored = starter.publish_once(&subject, HeaderMap::new(), body(*size)).await;
            assert!(stored.is_some(), "{subject} with {size} bytes");
            if subject.ends_with("nothing") {
                unknown += 1;
            } else {
                starts += 1;
            }
        }
    }
    // A body that is small enough, and headers that leave no room for those which are added.
    let mut headers = HeaderMap::new();
    headers.insert("X-Long", "h".repeat(7 << 10));
    let most = MAX_PAYLOAD - (7 << 10) - 40;
    let stored = starter
        .publish_once("knarr.start.default.twice", headers, body(most.min(LIMIT)))
        .await;
    assert!(stored.is_some());
    starts += 1;
    let mut headers = HeaderMap::new();
    headers.insert("X-Long", "h".repeat((8 << 10) - 40));
    let inbox = stack.nats().new_inbox();
    let mut answers = stack.nats().subscribe(inbox.clone()).await.unwrap();
    headers.insert("Knarr-Reply-To", inbox.as_str());
    let stored = starter
        .publish_once("knarr.start.default.twice", headers, body(LIMIT - 80))
        .await;
    assert!(stored.is_some());
    starts += 1;

    let letters = eventually("all dead letters", Duration::from_secs(30), || async {
        let letters = dead_letters(stack.nats()).await;
        (letters.len() >= unknown).then_some(letters)
    });
    let (letters, _) = letters.await;
    let runs = eventually("all runs", Duration::from_secs(30), || async {
        let runs = stack.number("select count(*) from runs").await;
        (runs >= starts).then_some(runs)
    });
    assert_eq!((runs.await.0, letters.len()), (starts, unknown));
    for letter in &letters {
        let code = letter.header("Knarr-Error-Code");
        assert_eq!(code, "KN0206", "{letter:?}");
        match letter.header("Knarr-Original-Bytes") {
            "" => assert!(letter.body.len() <= MAX_PAYLOAD),
            bytes => assert!(bytes.parse::<usize>().unwrap() > letter.body.len()),
        }
    }
    assert!(
        letters
            .iter()
            .any(|letter| letter.header("Knarr-Original-Bytes") == MAX_PAYLOAD.to_string())
    );
    let answer = tokio::time::timeout(Duration::from_secs(10), futures_util::StreamExt::next(&mut answers)).await;
    let answer: Value = serde_json::from_slice(&answer.unwrap().unwrap().payload).unwrap();
    assert_eq!(answer["stage"], "started", "{answer}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_an_output_that_is_too_large_is_told_so() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", TWICE).await;
    let worker = Worker::builder(stack.nats().clone())
        .queue("twice")
        .activity("look", |_: Context, _: Value| async move {
            Ok::<_, ActivityError>(json!({}))
        })
        .build()
        .unwrap();
    let end = CancellationToken::new();
    let working = tokio::spawn(worker.run(end.clone()));
    for (size, fits) in [(400_000, true), (600_000, false)] {
        let subject = format!("knarr.run.default.o-{size}.start.twice");
        let input = json!("x".repeat(size));
        let answer = stack
            .starter()
            .call(
                &subject,
                HeaderMap::new(),
                Some("closed"),
                &input,
                Duration::from_secs(20),
            )
            .await
            .unwrap();
        assert_eq!(
            (answer.stage, answer.status.as_deref()),
            (AnswerStage::Closed, Some("completed"))
        );
        assert_eq!(answer.output.is_some(), fits);
        assert_eq!(
            answer.error.map(|error| error.code),
            (!fits).then(|| "KN0242".to_owned())
        );
    }
    end.cancel();
    let _ = working.await;
    stack.stop().await;
}
