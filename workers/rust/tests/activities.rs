//! Heartbeats with details, claims, tasks that are finished later, and cancellation by both ways.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use knarr_schemas::body::{BeatAnswer, ClaimAnswer, Confirmation, ConfirmedResult};
use knarr_schemas::{code, header};
use knarr_worker::{ActivityError, Context};
use serde_json::{Value, json};
use support::{DIRECT, Nats, Orchestrator, Running, within, worker};

async fn subscribe(client: &Client, kind: &str) -> Subscriber {
    let subscriber = client.subscribe(format!("{DIRECT}.{kind}")).await.unwrap();
    client.flush().await.unwrap();
    subscriber
}

async fn next(from: &mut Subscriber, what: &str) -> Message {
    within(what, from.next()).await.unwrap()
}

fn text<'a>(message: &'a Message, name: &str) -> &'a str {
    let headers = message.headers.as_ref().unwrap();
    headers.get(name).map_or("", |value| value.as_str())
}

async fn answer(client: &Client, message: &Message, answer: &impl serde::Serialize) {
    let body = serde_json::to_vec(answer).unwrap();
    client
        .publish(message.reply.clone().unwrap(), body.into())
        .await
        .unwrap();
}

#[tokio::test]
async fn details_go_out_with_beats_and_before_a_failure() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let running = Running::start(
        worker(&nats)
            .await
            .activity("import", |ctx: Context, (): ()| async move {
                let from: u32 = ctx.last_details().unwrap_or(0);
                ctx.heartbeat_with(&json!({"page": from + 1}))?;
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                ctx.heartbeat_with(&json!({"page": from + 2}))?;
                Err::<(), _>(ActivityError::failed("broken", "no more pages"))
            }),
    );
    let more = [(header::LAST_DETAILS, "6"), (header::HEARTBEAT, "60000")];
    orchestrator.task("import", "", &more).await;
    let first = owner.beat().await;
    assert_eq!(
        serde_json::from_slice::<Value>(&first.payload).unwrap(),
        json!({"page": 7})
    );
    assert_eq!(text(&first, header::BEAT_EVERY_MS), "5000");
    let second = owner.beat().await;
    assert_eq!(
        serde_json::from_slice::<Value>(&second.payload).unwrap(),
        json!({"page": 8})
    );
    let result = owner.result().await;
    assert_eq!(result.get(header::OUTCOME), Some("failed"));
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_short_heartbeat_is_kept() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let running = Running::start(worker(&nats).await.activity("wait", |ctx: Context, (): ()| async move {
        ctx.cancelled().cancelled().await;
        Err::<(), _>(ActivityError::cancelled())
    }));
    orchestrator.task("wait", "", &[(header::HEARTBEAT, "900")]).await;
    for _ in 0..3 {
        let beat = owner.beat().await;
        assert_eq!(text(&beat, header::BEAT_EVERY_MS), "300");
        answer(&orchestrator.client, &beat, &BeatAnswer::Ok).await;
    }
    // The answer to a beat stops it.
    let beat = owner.beat().await;
    answer(&orchestrator.client, &beat, &BeatAnswer::Cancel).await;
    let result = owner.result().await;
    assert_eq!(result.get(header::OUTCOME), Some("cancelled"));
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_handler_that_runs_at_most_once_is_called_when_its_claim_is_granted() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let mut claims = subscribe(&orchestrator.client, "claim").await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let running = Running::start(worker(&nats).await.activity("pay", move |_: Context, (): ()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(1) }
    }));
    let once = [(header::MAX_ATTEMPTS, "1")];
    let token = orchestrator.task("pay", "", &once).await;
    let claim = next(&mut claims, "a claim").await;
    assert_eq!(text(&claim, header::TOKEN), token);
    let by = text(&claim, header::CLAIM).to_owned();
    assert!(!by.is_empty() && by.len() <= 128, "{by}");
    // Its answer is lost: the same claim comes again.
    let again = next(&mut claims, "the claim again").await;
    assert_eq!(text(&again, header::CLAIM), by);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    answer(&orchestrator.client, &again, &ClaimAnswer::Granted).await;
    // A second answer calls nothing.
    answer(&orchestrator.client, &claim, &ClaimAnswer::Granted).await;
    let result = owner.result().await;
    assert_eq!(
        (result.token.as_str(), result.get(header::OUTCOME)),
        (token.as_str(), None)
    );
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    for (said, outcome) in [
        (ClaimAnswer::Taken, None),
        (ClaimAnswer::Gone, None),
        (ClaimAnswer::Cancel, Some("cancelled")),
    ] {
        orchestrator.task("pay", "", &once).await;
        let claim = next(&mut claims, "a claim").await;
        answer(&orchestrator.client, &claim, &said).await;
        if outcome.is_some() {
            let result = owner.result().await;
            assert_eq!(result.get(header::OUTCOME), outcome);
            owner.confirm(&[&result]).await;
        }
        orchestrator.until_tasks(0, 0).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    running.drained().await;
}

/// A task of another cluster, say: it neither runs nor keeps its slot.
#[tokio::test]
async fn a_claim_that_is_refused_is_not_repeated_for_ever() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let mut claims = subscribe(&orchestrator.client, "claim").await;
    let slot = worker(&nats).await.concurrency(1);
    let running = Running::start(slot.activity("pay", |_: Context, (): ()| async { Ok(1) }));
    let once = [(header::MAX_ATTEMPTS, "1")];
    let foreign = orchestrator.task("pay", "", &once).await;
    let claim = next(&mut claims, "a claim").await;
    let refused = Confirmation {
        results: vec![ConfirmedResult {
            token: foreign,
            refused: Some(code::BAD_TASK_TOKEN.error("the task token was not issued for this namespace")),
        }],
        moved: Vec::new(),
    };
    answer(&orchestrator.client, &claim, &refused).await;
    orchestrator.until_tasks(0, 0).await;
    let own = orchestrator.task("pay", "", &once).await;
    let claim = loop {
        let claim = next(&mut claims, "the next claim").await;
        if text(&claim, header::TOKEN) == own {
            break claim;
        }
    };
    answer(&orchestrator.client, &claim, &ClaimAnswer::Granted).await;
    let result = owner.result().await;
    assert_eq!(result.token, own);
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_claim_waits_for_an_owner() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let running = Running::start(
        worker(&nats)
            .await
            .activity("pay", |_: Context, (): ()| async { Ok(1) }),
    );
    orchestrator.task("pay", "", &[(header::MAX_ATTEMPTS, "1")]).await;
    orchestrator.until_tasks(0, 1).await;
    let mut owner = orchestrator.own().await;
    let mut claims = subscribe(&orchestrator.client, "claim").await;
    let claim = next(&mut claims, "a claim").await;
    answer(&orchestrator.client, &claim, &ClaimAnswer::Granted).await;
    let result = owner.result().await;
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_task_that_is_finished_later_is_let_go_of() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let (kept, mut tokens) = tokio::sync::mpsc::unbounded_channel();
    let running = Running::start(worker(&nats).await.activity("ask", move |ctx: Context, (): ()| {
        kept.send(ctx.token().to_owned()).unwrap();
        async move { Err::<(), _>(ctx.complete_later()) }
    }));
    let token = orchestrator.task("ask", "", &[]).await;
    assert_eq!(
        within("the handler keeps the token", tokens.recv()).await.unwrap(),
        token
    );
    let result = owner.result().await;
    assert_eq!(result.get(header::OUTCOME), Some("later"));
    assert_eq!(result.get(header::ERROR_TYPE), None);
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_handler_that_cleans_up_is_not_stopped_at_its_start_to_close() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let running = Running::start(
        worker(&nats)
            .await
            .activity("print", |ctx: Context, (): ()| async move {
                ctx.cancelled().cancelled().await;
                tokio::time::sleep(Duration::from_secs(3)).await;
                Err::<(), _>(ActivityError::cancelled())
            }),
    );
    let more = [
        (header::CANCELLATION, "wait_cancelled"),
        (header::START_TO_CLOSE, "2000"),
    ];
    orchestrator.task("print", "", &more).await;
    let beat = owner.beat().await;
    answer(&orchestrator.client, &beat, &BeatAnswer::Cancel).await;
    let result = owner.result().await;
    assert_eq!(
        result.get(header::OUTCOME),
        Some("cancelled"),
        "after its start-to-close"
    );
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}
