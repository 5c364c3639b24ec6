//! The order services: what they answer, that they act once, and how they misbehave on request.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use knarr_schemas::header;
use knarr_worker::Context;
use knarr_worker::order_services::{Effect, OrderOptions, order_services};
use serde_json::json;
use support::{Nats, Orchestrator, Running, eventually, worker};
use tokio::sync::Notify;

type Records = Arc<Mutex<Vec<(String, Effect)>>>;

fn recording(records: &Records) -> OrderOptions {
    let records = Arc::clone(records);
    OrderOptions {
        recorder: Some(Arc::new(move |ctx: &Context, effect: Effect| {
            records.lock().unwrap().push((ctx.activity().to_owned(), effect));
        })),
        ..OrderOptions::default()
    }
}

#[tokio::test]
async fn the_services_act_once_for_a_key_and_fail_on_request() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::start(&nats).await;
    let mut owner = orchestrator.own().await;
    let records = Records::default();
    let running = Running::start(order_services(worker(&nats).await, recording(&records)));
    let key = (header::IDEMPOTENCY_KEY, "run/create/do");
    // Activity, input, headers → outcome, body, effect.
    let order = json!({ "customer": "c", "items": [{ "sku": "a", "quantity": 2, "price": 1.5 }], "fail": null });
    let created = json!({ "order_id": "ord-000000000001", "total": 3.0 });
    let fail = |how: &str| json!({ "order_id": "o", "fail": { "process-payment": how } });
    let second = (header::ATTEMPT, "2");
    let table = [
        (
            "create-order",
            order.clone(),
            vec![key],
            None,
            created.clone(),
            Some(Effect::Applied),
        ),
        (
            "create-order",
            order,
            vec![key, second],
            None,
            created,
            Some(Effect::Repeated),
        ),
        (
            "process-payment",
            fail("failed"),
            vec![second],
            Some("failed"),
            json!(null),
            Some(Effect::Failed),
        ),
        (
            "process-payment",
            fail("flaky"),
            vec![],
            Some("failed"),
            json!(null),
            Some(Effect::Failed),
        ),
        (
            "process-payment",
            fail("unknown"),
            vec![],
            Some("unknown"),
            json!(null),
            Some(Effect::Applied),
        ),
        (
            "process-payment",
            fail("panic"),
            vec![],
            Some("unknown"),
            json!(null),
            None,
        ),
        (
            "refund-payment",
            json!({ "order_id": null }),
            vec![(header::DIRECTION, "undo")],
            None,
            json!({ "undone": true, "order_id": null }),
            Some(Effect::Applied),
        ),
    ];
    for (activity, input, headers, outcome, body, effect) in table {
        orchestrator.task(activity, &input.to_string(), &headers).await;
        let result = owner.result().await;
        owner.confirm(&[&result]).await;
        assert_eq!(
            (result.get(header::OUTCOME), &result.body),
            (outcome, &body),
            "{activity} {input}"
        );
        let recorded = std::mem::take(&mut *records.lock().unwrap());
        let expected: Vec<_> = effect.map(|effect| (activity.to_owned(), effect)).into_iter().collect();
        assert_eq!(recorded, expected, "{activity} {input}");
    }
    orchestrator.until_tasks(0, 0).await;
    running.drained().await;
}

#[tokio::test]
async fn a_crash_on_request_happens_at_the_first_delivery_only() {
    let nats = Nats::start().await;
    let orchestrator = Orchestrator::with_ack_wait(&nats, std::time::Duration::from_secs(1)).await;
    let mut owner = orchestrator.own().await;
    let records = Records::default();
    let crashed = Arc::new(Notify::new());
    let crashing = OrderOptions {
        crash: Arc::new({
            let crashed = Arc::clone(&crashed);
            move || crashed.notify_one()
        }),
        result_bytes: 200,
        ..recording(&records)
    };
    let first = Running::start(order_services(worker(&nats).await, crashing.clone()));
    let input = r#"{ "fail": { "reserve-inventory": "crash" } }"#;
    orchestrator.task("reserve-inventory", input, &[]).await;
    support::within("the service crashes", crashed.notified()).await;
    first.crash().await;
    let second = Running::start(order_services(worker(&nats).await, crashing));
    let result = owner.result().await;
    assert_eq!(result.get(header::OUTCOME), None);
    assert_eq!(result.body.to_string().len(), 200);
    owner.confirm(&[&result]).await;
    eventually("it acted once", || async {
        *records.lock().unwrap() == [("reserve-inventory".to_owned(), Effect::Applied)]
    })
    .await;
    orchestrator.until_tasks(0, 0).await;
    second.drained().await;
}
