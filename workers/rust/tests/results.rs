//! What becomes of a task's outcome: confirmed, repeated, or left to the log; and what each kind of outcome says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use knarr_schemas::header;
use knarr_worker::{ActivityError, Context};
use serde_json::{Value, json};
use support::{Nats, Orchestrator, Running, eventually, within, worker};

#[tokio::test]
async fn a_task_is_acknowledged_only_after_its_result_was_confirmed() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let echo = worker(&nats).await.activity("echo", |ctx: Context, input: Value| async move {
        Ok(json!({ "input": input, "key": ctx.idempotency_key(), "attempt": ctx.attempt(), "delivery": ctx.delivery() }))
    });
    let running = Running::start(echo);
    let tokens = [
        orchestrator.task("echo", r#"{"n":1}"#, &[]).await,
        orchestrator.task("echo", r#"{"n":2}"#, &[(header::ATTEMPT, "3")]).await,
    ];
    let mut results = [owner.result().await, owner.result().await];
    results.sort_by_key(|result| result.token.clone());
    assert_eq!(results.each_ref().map(|r| r.token.clone()), tokens);
    assert_eq!(
        results[1].body,
        json!({ "input": { "n": 2 }, "key": "run/2/do", "attempt": 3, "delivery": 1 })
    );
    assert_eq!(results[0].get(header::OUTCOME), None, "completed is the default");
    assert_eq!(orchestrator.tasks().await, (0, 2), "nothing is confirmed yet");
    owner.confirm(&[&results[0], &results[1]]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn without_an_owner_the_result_goes_to_the_log_at_once() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let running = Running::start(worker(&nats).await.activity("pay", |_: Context, _: ()| async { Ok(7) }));
    let began = Instant::now();
    let token = orchestrator.task("pay", "", &[]).await;
    orchestrator.until_tasks(0, 0).await;
    // Two confirmations waited for in vain would take longer.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let logged = orchestrator.logged(1).await;
    assert_eq!(logged[0].subject.as_str(), "knarr.run.default.o-1.result");
    assert_eq!(logged[0].headers.get(header::TOKEN).unwrap().as_str(), token);
    assert_eq!(logged[0].payload.as_ref(), b"7");
    running.drained().await;
}

#[tokio::test]
async fn a_result_whose_owner_leaves_goes_to_the_log_at_once() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let running = Running::start(worker(&nats).await.activity("pay", |_: Context, _: ()| async { Ok(7) }));
    let token = orchestrator.task("pay", "", &[]).await;
    let result = owner.result().await;
    let began = Instant::now();
    owner.turn_away(&result).await;
    let logged = orchestrator.logged(1).await;
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(logged[0].headers.get(header::TOKEN).unwrap().as_str(), token);
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_lost_confirmation_is_repeated_once_and_then_the_log_takes_the_result() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let running = Running::start(worker(&nats).await.activity("pay", |_: Context, _: ()| async { Ok(7) }));
    let token = orchestrator.task("pay", "", &[]).await;
    assert_eq!(owner.result().await.token, token);
    assert_eq!(orchestrator.tasks().await, (0, 1));
    assert_eq!(owner.result().await.token, token, "the repeat");
    assert_eq!(orchestrator.tasks().await, (0, 1));
    let logged = orchestrator.logged(1).await;
    assert_eq!(logged[0].headers.get(header::TOKEN).unwrap().as_str(), token);
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_missing_log_is_waited_for() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::bare(&nats).await;
    orchestrator.create_queue(Duration::from_secs(30)).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let running = Running::start(worker(&nats).await.activity("pay", move |_: Context, _: ()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    }));
    orchestrator.task("pay", "", &[]).await;
    eventually("the handler has run", || async { calls.load(Ordering::SeqCst) == 1 }).await;
    assert_eq!(orchestrator.tasks().await, (0, 1));
    orchestrator.create_log().await;
    orchestrator.until_tasks(0, 0).await;
    orchestrator.logged(1).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    running.drained().await;
}

#[tokio::test]
async fn each_way_to_end_says_what_is_known() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let running = Running::start(
        worker(&nats)
            .await
            .activity("pay", |_: Context, how: String| async move {
                match how.as_str() {
                    "failed" => Err(ActivityError::failed("no_stock", "none left").non_retryable()),
                    "not_done" => Err(ActivityError::failed("refused", "x")
                        .not_done()
                        .retry_after(Duration::from_secs(2))),
                    "error" => Err(std::io::Error::other("the line broke"))?,
                    "panic" => panic!("a bug in the {}", "handler"),
                    "cancelled" => Err(ActivityError::cancelled()),
                    "later" => Err(ActivityError::retry_later(Duration::from_millis(250))),
                    "large" => Ok("x".repeat(2 << 20)),
                    _ => Ok("fine".to_owned()),
                }
            }),
    );
    // Activity, body → outcome, type, retryable, not done, retry after.
    let table = [
        ("pay", r#""failed""#, "failed", "no_stock", Some("false"), None, None),
        (
            "pay",
            r#""not_done""#,
            "failed",
            "refused",
            None,
            Some("true"),
            Some("2000ms"),
        ),
        ("pay", r#""error""#, "unknown", "error", None, None, None),
        ("pay", r#""panic""#, "unknown", "panic", None, None, None),
        ("pay", r#""cancelled""#, "cancelled", "cancelled", None, None, None),
        (
            "pay",
            r#""later""#,
            "retry_later",
            "retry_later",
            None,
            None,
            Some("250ms"),
        ),
        ("pay", r#""large""#, "unknown", "limit", Some("false"), None, None),
        (
            "pay",
            r#"{"no":"text"}"#,
            "failed",
            "bad_input",
            Some("false"),
            None,
            None,
        ),
        ("pay", "{", "failed", "bad_input", Some("false"), None, None),
        ("unheard-of", "", "failed", "activity_not_registered", None, None, None),
    ];
    for (activity, body, outcome, error_type, retryable, not_done, after) in table {
        let token = orchestrator.task(activity, body, &[]).await;
        let result = owner.result().await;
        owner.confirm(&[&result]).await;
        assert_eq!(result.token, token);
        assert_eq!(
            (
                result.get(header::OUTCOME),
                result.get(header::ERROR_TYPE),
                result.get(header::RETRYABLE),
                result.get(header::NOT_DONE),
                result.get(header::RETRY_AFTER),
            ),
            (Some(outcome), Some(error_type), retryable, not_done, after),
            "{activity} {body}"
        );
        assert!(!result.get(header::ERROR_MESSAGE).unwrap().is_empty());
    }
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

/// As after a restart of the servers, while the bucket has no leader.
#[tokio::test]
async fn a_large_result_waits_for_its_bucket() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let running = Running::start(worker(&nats).await.activity("print", move |_: Context, (): ()| {
        called.send(()).unwrap();
        async { Ok("x".repeat(2 << 20)) }
    }));
    let token = orchestrator.task("print", "", &[]).await;
    within("the handler is called", calls.recv()).await.unwrap();
    orchestrator.create_bucket().await;
    let result = owner.result().await;
    assert_eq!((result.token.as_str(), result.get(header::OUTCOME)), (&*token, None));
    assert!(result.get(header::BODY).is_some());
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

/// An earlier delivery may have charged the card and died; an undo must not be skipped on the word of a worker that cannot
/// know.
#[tokio::test]
async fn a_task_that_was_delivered_before_and_cannot_be_handled_here_is_unknown() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let tokens = [
        orchestrator.task("pay", "{", &[]).await,
        orchestrator.task("unheard-of", "", &[]).await,
    ];
    orchestrator.deliver_and_give_back(2).await;
    let running = Running::start(
        worker(&nats)
            .await
            .activity("pay", |_: Context, _: String| async { Ok(()) }),
    );
    let mut results = Vec::new();
    for _ in 0..2 {
        // The one that has a handler is asked for first, in vain.
        let result = owner.result().await;
        owner.confirm(&[&result]).await;
        results.push(result);
    }
    results.sort_by_key(|result| result.token.clone());
    assert!(results.iter().map(|result| &result.token).eq(&tokens));
    for (result, error_type) in results.iter().zip(["bad_input", "activity_not_registered"]) {
        assert_eq!(
            (
                result.get(header::OUTCOME),
                result.get(header::ERROR_TYPE),
                result.get(header::NOT_DONE),
            ),
            (Some("unknown"), Some(error_type), None)
        );
    }
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn results_are_handed_in_again_when_nats_was_killed_before_their_confirmation() {
    let mut nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let running = Running::start(worker(&nats).await.activity("pay", move |_: Context, n: u32| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(n) }
    }));
    let first = orchestrator.task("pay", "1", &[]).await;
    assert_eq!(owner.result().await.token, first);
    nats.kill();
    nats.restart().await;
    let again = owner.result().await;
    assert_eq!(again.token, first);
    owner.confirm(&[&again]).await;
    orchestrator.until_tasks(0, 0).await;
    let began = Instant::now();
    let second = orchestrator.task("pay", "2", &[]).await;
    let result = loop {
        let result = owner.result().await;
        if result.token == second {
            break result;
        }
    };
    // The server has forgotten the pull; waiting for its heartbeat would take ten seconds.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "pulling resumed after {:?}",
        began.elapsed()
    );
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2, "no handler ran twice");
    running.drained().await;
}
