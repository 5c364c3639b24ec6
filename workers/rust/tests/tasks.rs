//! How tasks are taken, kept, refused, stopped and given back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use chrono::{SecondsFormat, TimeDelta, Utc};
use futures_util::StreamExt as _;
use knarr_schemas::body::{BeatAnswer, CancelTasks, ClaimAnswer};
use knarr_schemas::{header, subject};
use knarr_worker::{ActivityError, Context};
use support::{DIRECT, Nats, Orchestrator, QUEUE, Running, eventually, within, worker};
use tokio::sync::Semaphore;

/// Counts calls, and lets them end when the test says so.
#[derive(Clone)]
struct Gate {
    calls: Arc<AtomicU32>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self {
            calls: Arc::default(),
            inside: Arc::default(),
            most: Arc::default(),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    async fn pass(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.open.acquire().await.unwrap().forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn until_inside(&self, count: usize) {
        eventually(&format!("{count} handlers run"), || async {
            self.inside.load(Ordering::SeqCst) == count
        })
        .await;
    }

    fn handler(
        &self,
    ) -> impl Fn(Context, ()) -> futures_util::future::BoxFuture<'static, Result<(), ActivityError>> + use<> {
        let gate = self.clone();
        move |_, ()| {
            let gate = gate.clone();
            Box::pin(async move {
                gate.pass().await;
                Ok(())
            })
        }
    }
}

/// Whether a task is late is not for the worker's clock to say, which may be off by an hour: the owner is asked.
#[tokio::test]
async fn a_task_that_seems_to_be_late_is_asked_for() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let client = &orchestrator.client;
    let mut claims = client.subscribe(format!("{DIRECT}.claim")).await.unwrap();
    client.flush().await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let running = Running::start(worker(&nats).await.activity("pay", move |ctx: Context, (): ()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(ctx.deadline()) }
    }));
    let at = |seconds| (Utc::now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Millis, true);
    for (said, outcome) in [
        (ClaimAnswer::Gone, None),
        (ClaimAnswer::Cancel, Some(Some("cancelled"))),
        (ClaimAnswer::Granted, Some(None)),
    ] {
        let late = orchestrator.task("pay", "", &[(header::DEADLINE, &at(-3_600))]).await;
        let claim = within("a claim", claims.next()).await.unwrap();
        assert_eq!(
            claim.headers.as_ref().unwrap().get(header::TOKEN).unwrap().as_str(),
            late
        );
        let body = serde_json::to_vec(&said).unwrap();
        client.publish(claim.reply.unwrap(), body.into()).await.unwrap();
        if let Some(outcome) = outcome {
            let result = owner.result().await;
            assert_eq!((result.token.as_str(), result.get(header::OUTCOME)), (&*late, outcome));
            owner.confirm(&[&result]).await;
        }
        orchestrator.until_tasks(0, 0).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let in_time = orchestrator.task("pay", "", &[(header::DEADLINE, &at(60))]).await;
    let result = owner.result().await;
    assert_eq!(result.token, in_time);
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn no_more_tasks_are_taken_than_there_are_free_slots() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let gate = Gate::new();
    let running = Running::start(worker(&nats).await.concurrency(3).activity("pay", gate.handler()));
    for _ in 0..10 {
        orchestrator.task("pay", "", &[]).await;
    }
    gate.until_inside(3).await;
    assert_eq!(orchestrator.tasks().await, (7, 3), "the others are anybody's");
    gate.open.add_permits(10);
    for _ in 0..10 {
        let result = owner.result().await;
        owner.confirm(&[&result]).await;
    }
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(gate.most.load(Ordering::SeqCst), 3);
    running.drained().await;
}

#[tokio::test]
async fn results_without_confirmation_bound_what_is_taken() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let slots = worker(&nats).await.concurrency(2).max_unconfirmed(4);
    let running = Running::start(slots.activity("pay", |_: Context, (): ()| async { Ok(()) }));
    for _ in 0..10 {
        orchestrator.task("pay", "", &[]).await;
    }
    let mut first: HashMap<String, _> = HashMap::new();
    while first.len() < 4 {
        let result = owner.result().await;
        first.insert(result.token.clone(), result);
    }
    let (_, held) = orchestrator.tasks().await;
    assert!(
        (4..=6).contains(&held),
        "{held} tasks are held with 4 results unconfirmed and 2 slots"
    );
    owner.confirm(&first.values().collect::<Vec<_>>()).await;
    let mut all = first;
    while all.len() < 10 {
        let result = owner.result().await;
        owner.confirm(&[&result]).await;
        all.insert(result.token.clone(), result);
    }
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn draining_finishes_what_has_begun_and_leaves_the_rest_to_others() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let gate = Gate::new();
    let running = Running::start(worker(&nats).await.concurrency(2).activity("pay", gate.handler()));
    for _ in 0..5 {
        orchestrator.task("pay", "", &[]).await;
    }
    gate.until_inside(2).await;
    running.stop.cancel();
    gate.open.add_permits(2);
    let results = [owner.result().await, owner.result().await];
    owner.confirm(&[&results[0], &results[1]]).await;
    running.drained().await;
    // What is given back is so once the server has heard of it.
    orchestrator.until_tasks(3, 0).await;
    assert_eq!(gate.calls(), 2);
}

#[tokio::test]
async fn a_handler_that_outlives_the_grace_is_stopped_and_its_task_given_back() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let gate = Gate::new();
    let hasty = worker(&nats).await.grace(Duration::from_millis(100));
    let running = Running::start(hasty.activity("pay", gate.handler()));
    orchestrator.task("pay", "", &[]).await;
    gate.until_inside(1).await;
    running.drained().await;
    let next = Gate::new();
    let other = Running::start(worker(&nats).await.activity("pay", next.handler()));
    // Long before the lease of 30 s ends.
    next.until_inside(1).await;
    other.crash().await;
}

#[tokio::test]
async fn a_task_of_a_crashed_worker_is_delivered_again_under_the_same_key() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::with_ack_wait(&nats, Duration::from_secs(1)).await;
    let mut owner = orchestrator.own().await;
    let gate = Gate::new();
    let first = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    let token = orchestrator.task("pay", "", &[]).await;
    gate.until_inside(1).await;
    first.crash().await;
    let second = Running::start(worker(&nats).await.activity("pay", |ctx: Context, (): ()| async move {
        Ok((ctx.delivery(), ctx.idempotency_key().to_owned()))
    }));
    let result = owner.result().await;
    assert_eq!(result.token, token);
    assert_eq!(result.body, serde_json::json!([2, "run/1/do"]));
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    second.drained().await;
}

#[tokio::test]
async fn a_task_that_comes_again_while_it_runs_is_not_run_twice() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let gate = Gate::new();
    let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    orchestrator.task("pay", "", &[]).await;
    gate.until_inside(1).await;
    // What a lease that ran out would do: the first delivery of the first message is given back.
    let ack = "$JS.ACK.KNARR_TASKS_default.q_orders.1.1.1.1764000000000000000.0";
    orchestrator.client.publish(ack, "-NAK".into()).await.unwrap();
    eventually("the task is delivered again", || async {
        orchestrator.deliveries().await == 2
    })
    .await;
    gate.open.add_permits(1);
    let result = owner.result().await;
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(gate.calls(), 1);
    running.drained().await;
}

#[tokio::test]
async fn a_long_handler_keeps_its_lease_and_beats() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::with_ack_wait(&nats, Duration::from_millis(1200)).await;
    let mut owner = orchestrator.own().await;
    let gate = Gate::new();
    let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    let token = orchestrator.task("pay", "", &[]).await;
    let beat = owner.beat().await;
    let headers = beat.headers.unwrap();
    assert_eq!(headers.get(header::TOKEN).unwrap().as_str(), token);
    let ms: u64 = headers.get(header::RUNNING_MS).unwrap().as_str().parse().unwrap();
    assert!((1000..5000).contains(&ms), "the first beat came after {ms} ms");
    // Three leases long.
    let end = tokio::time::Instant::now() + Duration::from_millis(3600);
    while tokio::time::Instant::now() < end {
        assert_eq!(orchestrator.tasks().await, (0, 1));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gate.open.add_permits(1);
    let result = owner.result().await;
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(gate.calls(), 1, "the task was not delivered again");
    running.drained().await;
}

#[tokio::test]
async fn a_cancellation_reaches_the_handler_by_beat_and_by_push() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let began = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&began);
    let running = Running::start(worker(&nats).await.activity("pay", move |ctx: Context, (): ()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            ctx.heartbeat();
            ctx.cancelled().cancelled().await;
            Err::<(), _>(ActivityError::cancelled())
        }
    }));
    for answer in [BeatAnswer::Cancel, BeatAnswer::Gone] {
        orchestrator.task("pay", "", &[]).await;
        let beat = owner.beat().await;
        let body = serde_json::to_vec(&answer).unwrap();
        orchestrator
            .client
            .publish(beat.reply.unwrap(), body.into())
            .await
            .unwrap();
        let result = owner.result().await;
        assert_eq!(result.get(header::OUTCOME), Some("cancelled"));
        owner.confirm(&[&result]).await;
    }
    let token = orchestrator.task("pay", "", &[]).await;
    eventually("the third handler runs", || async { began.load(Ordering::SeqCst) == 3 }).await;
    let push = CancelTasks {
        tokens: vec!["of-another-worker".into(), token],
    };
    let body = serde_json::to_vec(&push).unwrap();
    let to = subject::cancel("default", QUEUE).unwrap();
    orchestrator.client.publish(to, body.into()).await.unwrap();
    let result = owner.result().await;
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn start_to_close_stops_a_handler_and_leaves_the_verdict_to_the_orchestrator() {
    struct Dropped(Arc<Mutex<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = true;
        }
    }
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let stopped = Arc::new(Mutex::new(false));
    let flag = Arc::clone(&stopped);
    let running = Running::start(
        worker(&nats)
            .await
            .concurrency(1)
            .activity("pay", move |_: Context, wait: bool| {
                let dropped = Dropped(Arc::clone(&flag));
                async move {
                    if wait {
                        std::future::pending::<()>().await;
                    }
                    drop(dropped);
                    Ok(())
                }
            }),
    );
    orchestrator
        .task("pay", "true", &[(header::START_TO_CLOSE, "300")])
        .await;
    orchestrator.until_tasks(0, 0).await;
    eventually("the handler is dropped", || async { *stopped.lock().unwrap() }).await;
    let next = orchestrator
        .task("pay", "false", &[(header::START_TO_CLOSE, "300")])
        .await;
    let result = owner.result().await;
    assert_eq!(
        result.token, next,
        "the stopped one has no result, and its slot is free"
    );
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_queue_that_is_not_there_yet_is_waited_for() {
    let nats = Nats::start().await;
    let gate = Gate::new();
    gate.open.add_permits(1);
    let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    let orchestrator = Orchestrator::bare(&nats).await;
    orchestrator.create_log().await;
    orchestrator.create_queue(Duration::from_secs(30)).await;
    orchestrator.task("pay", "", &[]).await;
    orchestrator.logged(1).await;
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_handler_survives_the_loss_of_nats() {
    let mut nats = Nats::start().await;
    let orchestrator = Orchestrator::with_ack_wait(&nats, Duration::from_secs(2)).await;
    let gate = Gate::new();
    let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    orchestrator.task("pay", "", &[]).await;
    gate.until_inside(1).await;
    nats.kill();
    gate.open.add_permits(1);
    gate.until_inside(0).await;
    nats.restart().await;
    orchestrator.logged(1).await;
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(gate.calls(), 1);
    running.drained().await;
}

#[tokio::test]
async fn what_is_not_a_task_is_removed() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let gate = Gate::new();
    let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    let subject = subject::task("default", QUEUE, "pay").unwrap();
    for headers in [HeaderMap::new(), HeaderMap::from_iter([])] {
        let published = orchestrator
            .jetstream
            .publish_with_headers(subject.clone(), headers, "x".into());
        published.await.unwrap().await.unwrap();
    }
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(gate.calls(), 0);
    running.drained().await;
}

/// The client keeps what it is given while the server is away, and blocks when it has kept enough of it.
#[tokio::test]
async fn a_worker_stops_in_time_while_nats_is_away_and_nothing_more_can_be_sent() {
    let mut nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let gate = Gate::new();
    let client = knarr_worker::connect(&nats.url()).await.unwrap();
    let running = Running::start(
        knarr_worker::Worker::builder(client.clone())
            .queue(QUEUE)
            .grace(Duration::from_millis(200))
            .activity("pay", gate.handler()),
    );
    for _ in 0..20 {
        orchestrator.task("pay", "", &[]).await;
    }
    gate.until_inside(20).await;
    nats.kill();
    eventually("the connection is seen to be lost", || async {
        client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    // Some have a result to hand in, the others are given back.
    gate.open.add_permits(10);
    let flooded: Vec<_> = (0..3_000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.publish("elsewhere", "x".into()).await })
        })
        .collect();
    gate.until_inside(10).await;
    running.drained().await;
    for publishing in flooded {
        publishing.abort();
    }
}

/// Whoever had it before may be dead, and what became of it decided long ago: only the owner knows whether anybody waits.
#[tokio::test]
async fn a_task_that_was_delivered_before_is_asked_for_before_it_is_done() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    for answer in [
        Some(BeatAnswer::Gone),
        Some(BeatAnswer::Cancel),
        Some(BeatAnswer::Ok),
        None,
    ] {
        let token = orchestrator.task("pay", "", &[(header::MAX_ATTEMPTS, "2")]).await;
        orchestrator.deliver_and_give_back(1).await;
        let gate = Gate::new();
        gate.open.add_permits(1);
        let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
        let beat = owner.beat().await;
        let said = beat.headers.unwrap();
        assert_eq!(said.get(header::TOKEN).unwrap().as_str(), token);
        assert_eq!(said.get(header::RUNNING_MS).unwrap().as_str(), "0");
        assert!(said.get(header::BEAT_EVERY_MS).is_none(), "nothing is promised yet");
        assert_eq!(gate.calls(), 0, "{answer:?}");
        if let Some(answer) = &answer {
            let body = serde_json::to_vec(answer).unwrap();
            let to = beat.reply.unwrap();
            orchestrator.client.publish(to, body.into()).await.unwrap();
        }
        if !matches!(answer, Some(BeatAnswer::Gone)) {
            let result = owner.result().await;
            let unknown = matches!(answer, Some(BeatAnswer::Cancel)).then_some("unknown");
            assert_eq!((&result.token, result.get(header::OUTCOME)), (&token, unknown));
            owner.confirm(&[&result]).await;
        }
        orchestrator.until_tasks(0, 0).await;
        let done = !matches!(answer, Some(BeatAnswer::Gone | BeatAnswer::Cancel));
        assert_eq!(gate.calls(), u32::from(done), "{answer:?}");
        running.drained().await;
    }
}

/// Where nobody owns the partition just now, it is done as it would have been the first time.
#[tokio::test]
async fn a_task_that_was_delivered_before_is_done_where_nobody_can_be_asked() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    orchestrator.task("pay", "", &[]).await;
    orchestrator.deliver_and_give_back(1).await;
    let gate = Gate::new();
    gate.open.add_permits(1);
    let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    orchestrator.logged(1).await;
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(gate.calls(), 1);
    running.drained().await;
}

/// By an operator, while a handler is at work.
#[tokio::test]
async fn a_lease_that_is_shortened_is_kept() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::with_ack_wait(&nats, Duration::from_secs(7_200)).await;
    let mut owner = orchestrator.own().await;
    let client = knarr_worker::connect(&nats.url()).await.unwrap();
    let mut asked = client.subscribe("$JS.API.CONSUMER.INFO.>").await.unwrap();
    let mut acks = client.subscribe("$JS.ACK.>").await.unwrap();
    client.flush().await.unwrap();
    let gate = Gate::new();
    let running = Running::start(worker(&nats).await.activity("pay", gate.handler()));
    orchestrator.task("pay", "", &[]).await;
    gate.until_inside(1).await;
    within("the lease is read", asked.next()).await.unwrap();
    orchestrator.create_queue(Duration::from_millis(900)).await;
    let mut renewed: HashMap<String, u32> = HashMap::new();
    // Of one delivery: it is kept, and not only taken again each time.
    while renewed.values().all(|count| *count < 4) {
        let ack = within("the lease is renewed", acks.next()).await.unwrap();
        if ack.payload.as_ref() == b"+WPI" {
            *renewed.entry(ack.subject.to_string()).or_default() += 1;
        }
    }
    gate.open.add_permits(1);
    let result = owner.result().await;
    owner.confirm(&[&result]).await;
    orchestrator.until_tasks(0, 0).await;
    assert_eq!(gate.calls(), 1);
    running.drained().await;
}

#[tokio::test]
async fn a_workflow_id_is_handed_out_decoded() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let running = Running::start(worker(&nats).await.activity("pay", |ctx: Context, (): ()| async move {
        Ok(ctx.workflow_id().to_owned())
    }));
    for (sent, read) in [
        ("order%3A4711%20f%C3%BCr%20Zo%C3%AB", "order:4711 für Zoë"),
        ("o-1", "o-1"),
        // Of nobody who encodes.
        ("o/1", "o/1"),
    ] {
        orchestrator.task("pay", "", &[(header::WORKFLOW_ID, sent)]).await;
        let result = owner.result().await;
        owner.confirm(&[&result]).await;
        assert_eq!(result.body, serde_json::json!(read));
    }
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}
