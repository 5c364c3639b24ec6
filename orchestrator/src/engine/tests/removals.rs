//! Schedules that are made and deleted: by whom, and once, however often that is said.

use knarr_core::ids::Namespace;
use knarr_core::run::schedule::workflow_id;
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};

use super::world::World;
use crate::store::Store;

const TICK: &str = r#"
workflow: tick
version: 1
steps:
  - note: { set: { at: "${ run.scheduled_at }" } }
"#;

async fn ask(world: &World, label: &str, request: &str, body: Value) -> Answer {
    let inbox_name = format!("_INBOX.{label}");
    let mut inbox = world.bus.subscribe(&inbox_name);
    let headers = [
        (names::VERB, "schedule default"),
        (names::REPLY_TO, inbox_name.as_str()),
        (names::REQUEST_ID, request),
        (names::BY, "ann"),
        (names::REASON, "so it is"),
    ];
    let to = subject::run_verb("default", workflow_id("nightly").as_str(), "schedule").unwrap();
    world.publish(&to, &headers, body).await;
    world.answer(&mut inbox).await
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_delete_leaves_the_next_one_alone() {
    let mut world = World::new(990).await;
    world.register(TICK).await;
    let replica = world.replica("r0");
    let create = json!({ "ask": "create", "schedule": { "workflow": "tick", "cron": "0 0 1 1 *" } });
    let delete = json!({ "ask": "delete" });
    ask(&world, "1", "c1", create.clone()).await;
    for label in ["2", "3"] {
        let deleted = ask(&world, label, "d1", delete.clone()).await;
        assert_eq!(deleted.stage, AnswerStage::Accepted, "{deleted:?}");
    }
    ask(&world, "4", "c2", create).await;
    let again = ask(&world, "5", "d1", delete.clone()).await;
    assert_eq!(again.stage, AnswerStage::Accepted);
    let open = async || {
        let listed = world.store.list_schedules(&Namespace::new("default"), None, 9).await;
        listed.unwrap()
    };
    let rows = open().await;
    assert_eq!(rows.len(), 1, "the next one is there still");
    // Who has made it is in its history.
    let events = world.events(rows[0].run_id).await;
    let said = serde_json::to_string(&events).unwrap();
    for part in [r#""by":"ann""#, r#""reason":"so it is""#, r#""request_id":"c2""#] {
        assert!(said.contains(part), "{part} in {said}");
    }
    ask(&world, "6", "d2", delete).await;
    assert!(open().await.is_empty());
    replica.stop().await;
}
