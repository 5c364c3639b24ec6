//! Changes of runs' status, told to whoever listens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::Namespace;
use knarr_schemas::body::{AnswerStage, RunEvent};
use knarr_schemas::{header as names, subject};
use serde_json::Value;

use super::world::{Act, World, done, failed};
use crate::bus::header;
use crate::store::Store as _;

async fn switch(world: &World, on: bool) {
    assert!(world.store.set_events(&Namespace::new("default"), on).await.unwrap());
    // Heard of with the next renewal of the lease.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Kinds by workflow id, in the order of the transitions that they tell of; every repeat is the same.
fn told(world: &World) -> BTreeMap<String, Vec<String>> {
    let mut by_id: BTreeMap<String, bytes::Bytes> = BTreeMap::new();
    let mut found: BTreeMap<String, BTreeSet<(u32, bool, String)>> = BTreeMap::new();
    for event in world.bus.events() {
        let get = |name| header(&event.headers, name).unwrap().to_owned();
        let kind = event.subject.rsplit('.').next().unwrap().to_owned();
        assert_eq!(get(names::CE_TYPE), format!("knarr.run.{kind}"));
        assert_eq!(get(names::CE_ID), get(names::NATS_MSG_ID));
        let first = by_id.entry(get(names::CE_ID)).or_insert_with(|| event.payload.clone());
        assert_eq!(*first, event.payload);
        let body: RunEvent = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(
            event.subject,
            format!("knarr.event.default.order.{}.{kind}", body.workflow_id)
        );
        assert_eq!(get(names::CE_ID), format!("{}/{}/{kind}", body.run_id, body.seq));
        assert_eq!(
            body.error.is_some(),
            ["compensating", "compensated", "terminated"].contains(&&*kind)
        );
        assert_eq!(body.output.is_some(), kind == "completed");
        // The start comes first of what one transition says.
        found
            .entry(body.workflow_id)
            .or_default()
            .insert((body.seq, kind != "started", kind));
    }
    let kinds = |set: BTreeSet<(u32, bool, String)>| set.into_iter().map(|(_, _, kind)| kind).collect();
    found.into_iter().map(|(id, set)| (id, kinds(set))).collect()
}

#[tokio::test(start_paused = true)]
async fn every_change_of_status_is_told_whoever_dies() {
    for dies_at in [0, 20, 30, 40, 50, 60, 70, 80, 90, 110, 130, 160, 200] {
        let mut world = World::new(200 + dies_at).await;
        world.work(Arc::new(|task| match (task.workflow_id, task.activity) {
            ("o-2", "reserve-inventory" | "process-payment") => failed(),
            _ => done(),
        }));
        world.store.set_events(&Namespace::new("default"), true).await.unwrap();
        let replica = world.replica_dying_at("r0", dies_at);
        world.start("o-1", &[]).await;
        world.start("o-2", &[]).await;
        world
            .until("both have ended, or it is dead", |world| {
                world.closed() == 2 || replica.has_ended()
            })
            .await;
        let heir = world.replica("r1");
        world.until("both have ended", |world| world.closed() == 2).await;
        world.quiet().await;
        let told = told(&world);
        assert_eq!(told["o-1"], ["started", "completed"], "{dies_at}");
        assert_eq!(told["o-2"], ["started", "compensating", "compensated"], "{dies_at}");
        heir.stop().await;
    }
}

/// No stream for events is no error, and what nobody keeps is not owed for ever.
#[tokio::test(start_paused = true)]
async fn a_namespace_says_whether_it_tells() {
    let mut world = World::new(220).await;
    world.work(Arc::new(|_| Act {
        takes_ms: 2_000,
        ..done()
    }));
    let replica = world.replica("r0");
    switch(&world, false).await;
    world.start("o-1", &[]).await;
    world.until("it is there", |world| world.rows().len() == 1).await;
    switch(&world, true).await;
    world.start("o-2", &[]).await;
    world.until("it is there", |world| world.rows().len() == 2).await;
    world.verb("o-2", "terminate", &[]).await;
    world.until("the second has ended", |world| world.closed() == 1).await;
    switch(&world, false).await;
    world.until("both have ended", |world| world.closed() == 2).await;
    world.quiet().await;
    let expected: BTreeMap<String, Vec<String>> =
        [("o-2".to_owned(), vec!["started".to_owned(), "terminated".to_owned()])].into();
    assert_eq!(told(&world), expected);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_run_that_has_moved_names_the_version_it_goes_by() {
    let sale = |version: u32, more: &str| {
        format!(
            "workflow: sale\nversion: {version}\nsteps:\n  - go: {{ wait_for: {{ signal: go, timeout: 1h }} }}\n{more}"
        )
    };
    let mut world = World::new(223).await;
    let replica = world.replica("r0");
    world.register(&sale(1, "")).await;
    switch(&world, true).await;
    let start = subject::start("default", "s-1", "sale").unwrap();
    world.publish(&start, &[], Value::Null).await;
    world.until("it is there", |world| world.rows().len() == 1).await;
    world.register(&sale(2, "  - noted: { set: { seen: true } }\n")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut inbox = world.bus.subscribe("_INBOX.ann");
    let to = [
        (names::WORKFLOW, "sale"),
        (names::VERSION, "2"),
        (names::REPLY_TO, "_INBOX.ann"),
    ];
    world.verb("s-1", "migrate", &to).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Accepted);
    let go = subject::signal("default", "s-1", "go").unwrap();
    world.publish(&go, &[], Value::Null).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    let told = world.bus.events().into_iter().map(|event| {
        let body: RunEvent = serde_json::from_slice(&event.payload).unwrap();
        (body.status, body.version)
    });
    let expected = [("running".to_owned(), 1), ("completed".to_owned(), 2)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_output_is_left_out_of_what_is_told() {
    let mut world = World::new(221).await;
    world
        .register(
            r#"
workflow: large
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - look: { activity: look, no_undo: it is read }
output: "${ steps.look }"
"#,
        )
        .await;
    world.work(Arc::new(|_| Act {
        output: Some(serde_json::json!("x".repeat(20_000))),
        ..done()
    }));
    let replica = world.replica("r0");
    switch(&world, true).await;
    let to = knarr_schemas::subject::start("default", "l-1", "large").unwrap();
    world.publish(&to, &[], serde_json::json!({})).await;
    world.until("it has ended", |world| world.closed() == 1).await;
    world.quiet().await;
    let events = world.bus.events();
    let body: RunEvent = serde_json::from_slice(&events.last().unwrap().payload).unwrap();
    assert_eq!((body.output, body.output_bytes), (None, Some(20_002)));
    replica.stop().await;
}
