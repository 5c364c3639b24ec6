//! Handlers of signals, over the engine: what comes is taken once, whatever dies, and what does not fit goes to the dead letters.

use knarr_schemas::body::AnswerStage;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::World;

const BASKET: &str = r#"
workflow: basket
version: 1
defaults: { queue: orders, start_to_close: 10s, retry: { maximum_attempts: 3 } }
steps:
  - open: { wait_for: { signal: order, timeout: 1h } }
signals:
  add:
    schema: { type: integer }
    steps:
      - check: { activity: check, input: "${ signal }", read_only: true }
      - sum: { set: { total: "${ vars.total | default(0) + signal }" } }
output: "${ vars.total | default(0) }"
"#;

fn to(name: &str) -> String {
    subject::signal("default", "b-1", name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_signal_is_handled_once_though_its_replica_dies() {
    let mut world = World::new(211).await;
    world.register(BASKET).await;
    let first = world.replica("r0");
    world.work(honest());
    let start = subject::start("default", "b-1", "basket").unwrap();
    world.publish(&start, &[], json!(null)).await;
    for n in 1..=5 {
        let request = format!("s-{n}");
        for _ in 0..2 {
            world
                .publish(&to("add"), &[(names::REQUEST_ID, &*request)], json!(n))
                .await;
        }
    }
    world.until("a run", |world| !world.rows_of("b-1").is_empty()).await;
    first.kill();
    let second = world.replica("r1");
    world.publish(&to("order"), &[], json!(null)).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    let rows = world.rows_of("b-1");
    assert_eq!(
        (rows[0].status.as_str(), rows[0].outcome.as_deref()),
        ("completed", Some("15"))
    );
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_does_not_fit_is_refused_and_starts_nothing() {
    let mut world = World::new(212).await;
    world.register(BASKET).await;
    let replica = world.replica("r0");
    world.work(honest());
    let mut inbox = world.bus.subscribe("_INBOX.test");
    let headers = [(names::START_WORKFLOW, "basket"), (names::REPLY_TO, "_INBOX.test")];
    world.publish(&to("add"), &headers, json!("three")).await;
    let refused = world.answer(&mut inbox).await;
    assert_eq!(refused.stage, AnswerStage::Refused);
    assert_eq!(refused.error.unwrap().code, "KN0284");
    assert!(world.rows_of("b-1").is_empty(), "no run is started for it");
    world.publish(&to("add"), &headers, json!(3)).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Accepted);
    world.publish(&to("add"), &headers, json!({})).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Refused);
    world.publish(&to("order"), &[], json!(null)).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    assert_eq!(world.rows_of("b-1")[0].outcome.as_deref(), Some("3"));
    let letters = world.bus.dead_letters();
    let codes: Vec<_> = letters
        .iter()
        .map(|letter| crate::bus::header(&letter.headers, names::ERROR_CODE).unwrap_or_default())
        .collect();
    assert_eq!(codes, ["KN0284", "KN0284"]);
    replica.stop().await;
}
