//! What a start means where there were others.

use std::time::Duration;

use knarr_core::time::Span;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::{code, header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::World;
use crate::store::Store as _;

#[tokio::test(start_paused = true)]
async fn a_request_starts_one_run_however_often_it_is_repeated() {
    let mut world = World::new(15).await;
    let mut replica = world.replica("r0");
    world.work(honest());
    for (count, request) in ["a", "b", "a", "c", "a", "b", "c"].into_iter().enumerate() {
        world.start("o-1", &[(names::REQUEST_ID, request)]).await;
        world
            .until("taken and closed", |world| {
                world.is_quiet() && world.closed() == world.rows().len()
            })
            .await;
        if count == 3 {
            replica.kill();
            replica = world.replica("r0");
        }
    }
    world.until("closed", |world| world.closed() == 3).await;
    world.quiet().await;
    assert_eq!(world.rows_of("o-1").len(), 3);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_uses_what_was_registered_before_it() {
    let mut world = World::new(16).await;
    let replica = world.replica("r0");
    world.work(honest());
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    world
        .register(&super::world::ORDER.replace("version: 1", "version: 2"))
        .await;
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 2).await;
    assert_eq!(world.rows_of("o-1")[1].version, 2);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn earlier_runs_decide_about_a_start() {
    let mut world = World::new(17).await;
    let replica = world.replica("r0");
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    let reply = (names::REPLY_TO, "_INBOX.caller");
    world.start("o-1", &[reply]).await;
    let first = world.answer(&mut inbox).await;
    assert_eq!(first.stage, AnswerStage::Started);
    world.start("o-1", &[reply]).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Refused);
    world.start("o-1", &[reply, (names::ID_CONFLICT, "use_existing")]).await;
    let existing = world.answer(&mut inbox).await;
    assert_eq!((existing.stage, existing.run_id), (AnswerStage::Existing, first.run_id));
    world
        .start("o-1", &[reply, (names::ID_CONFLICT, "terminate_existing")])
        .await;
    let second = world.answer(&mut inbox).await;
    assert_eq!(second.stage, AnswerStage::Started);
    let statuses = |world: &World| {
        let rows = world.rows_of("o-1").into_iter();
        rows.map(|row| row.status).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&world), ["terminated", "running"]);
    // It would end the run and then be a duplicate of it: nothing is done at all.
    let contradiction = [
        reply,
        (names::ID_CONFLICT, "terminate_existing"),
        (names::ID_REUSE, "reject_duplicate"),
    ];
    world.start("o-1", &contradiction).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Refused);
    assert_eq!(statuses(&world), ["terminated", "running"]);
    world.work(honest());
    world.until("closed", |world| world.closed() == 2).await;
    world
        .start("o-1", &[reply, (names::ID_REUSE, "allow_duplicate_failed_only")])
        .await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Refused);
    world
        .start("o-1", &[reply, (names::ID_REUSE, "reject_duplicate")])
        .await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Refused);
    world.start("o-1", &[reply]).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Started);
    world.until("closed", |world| world.closed() == 3).await;
    world.quiet().await;
    replica.stop().await;
}

/// The run that was to be replaced goes on: it is ended for a run that begins, not for a mistake.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_refused_terminates_nobody() {
    let mut world = World::new(29).await;
    let replica = world.replica("r0");
    world
        .register(
            r#"
workflow: strict
version: 1
input_schema: { type: object, required: [amount] }
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - stock: { activity: reserve-inventory, read_only: true }
"#,
        )
        .await;
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    let reply = (names::REPLY_TO, "_INBOX.caller");
    world.start("o-1", &[reply]).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Started);
    let replace = (names::ID_CONFLICT, "terminate_existing");
    for (workflow, version, code) in [
        ("strict", "1", "KN0208"),
        ("strict", "9", "KN0207"),
        ("nothing", "1", "KN0207"),
    ] {
        let to = subject::start("default", "o-1", workflow).unwrap();
        let headers = [reply, replace, (names::VERSION, version)];
        world.publish(&to, &headers, json!({})).await;
        let refused = world.answer(&mut inbox).await;
        assert_eq!(refused.error.unwrap().code, code, "{workflow} v{version}");
        assert_eq!(world.statuses()["o-1"], "running", "{workflow} v{version}");
    }
    let to = subject::start("default", "o-1", "strict").unwrap();
    world.publish(&to, &[reply, replace], json!({ "amount": 1 })).await;
    assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Started);
    let rows = world.rows_of("o-1").into_iter();
    let statuses: Vec<_> = rows.map(|row| row.status).collect();
    assert_eq!(statuses, ["terminated", "running"]);
    replica.stop().await;
}

/// What an older replica could not read is refused before anybody is terminated for it.
#[tokio::test(start_paused = true)]
async fn a_start_that_waits_for_older_replicas_terminates_nobody() {
    for (level, header) in [(3, (names::START_DELAY, "1h")), (2, (names::PRIORITY, "1"))] {
        let mut world = World::of_level(29, level).await;
        let replica = world.replica("r0");
        let mut inbox = world.bus.subscribe("_INBOX.caller");
        let reply = (names::REPLY_TO, "_INBOX.caller");
        world.start("o-1", &[reply]).await;
        assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Started);
        let replace = (names::ID_CONFLICT, "terminate_existing");
        world.start("o-1", &[reply, replace, header]).await;
        let refused = world.answer(&mut inbox).await;
        assert_eq!(refused.error.unwrap().code, code::OLDER_REPLICAS.id);
        assert_eq!(world.statuses()["o-1"], "running");
        replica.stop().await;
    }
}

/// One id for a cancellation and for the start that is to replace the run: neither is lost, and nothing waits behind them.
#[tokio::test(start_paused = true)]
async fn a_request_id_of_another_verb_holds_up_nobody() {
    let mut world = World::new(25).await;
    let replica = world.replica("r0");
    // The payment is in somebody's hands who says nothing: the run is being stopped for as long.
    world.start("o-1", &[]).await;
    let _held = world.bus.next_tasks("default", "orders", 1).await;
    let request = (names::REQUEST_ID, "x");
    world.verb("o-1", "cancel", &[request]).await;
    world
        .until("being undone", |world| world.statuses()["o-1"] == "compensating")
        .await;
    world
        .start("o-1", &[request, (names::ID_CONFLICT, "terminate_existing")])
        .await;
    for n in 0..10_000 {
        world
            .verb("o-1", "cancel", &[(names::REQUEST_ID, &format!("c-{n}"))])
            .await;
    }
    world.start("o-2", &[]).await;
    world
        .within(Duration::from_secs(20), "replaced, and another started", |world| {
            world.rows_of("o-1").len() == 2 && world.rows_of("o-2").len() == 1
        })
        .await;
    assert_eq!(world.rows_of("o-1")[0].status, "terminated");
    world.work(honest());
    world.until("closed", |world| world.closed() == 3).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unkeyed_start_is_told_what_of_it_is_missing() {
    let mut world = World::new(30).await;
    let replica = world.replica("r0");
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    let reply = (names::REPLY_TO, "_INBOX.caller");
    for (namespace, workflow, version, code, message) in [
        (
            "default",
            "order",
            Some("9"),
            "KN0207",
            "`order` is not registered in version 9 in `default`",
        ),
        (
            "default",
            "nothing",
            None,
            "KN0206",
            "no definition `nothing` is registered in `default`",
        ),
        (
            "nowhere",
            "order",
            Some("9"),
            "KN0205",
            "there is no namespace `nowhere`",
        ),
    ] {
        let to = subject::unkeyed_start(namespace, workflow).unwrap();
        let headers: Vec<_> = std::iter::once(reply)
            .chain(version.map(|version| (names::VERSION, version)))
            .collect();
        world.publish(&to, &headers, json!({ "order": "o-1" })).await;
        let refused = world.answer(&mut inbox).await.error.unwrap();
        assert_eq!((&*refused.code, &*refused.message), (code, message));
    }
    replica.stop().await;
}

/// Keyed or not, or with a signal, which is kept: the run is there at once, and begins when it is time, whoever owns it then.
#[tokio::test(start_paused = true)]
async fn a_start_with_a_delay_begins_when_it_is_over() {
    let mut world = World::new(32).await;
    let replica = world.replica("r0");
    let delay = (names::START_DELAY, "10m");
    let unkeyed = subject::unkeyed_start("default", "order").unwrap();
    world.publish(&unkeyed, &[delay], json!({ "order": "o-1" })).await;
    let keyed = subject::start("default", "o-2", "order").unwrap();
    world.publish(&keyed, &[delay], json!({ "order": "o-2" })).await;
    let signal = subject::signal("default", "o-3", "go").unwrap();
    let starts = [
        delay,
        (names::START_WORKFLOW, "order"),
        (names::START_INPUT, "{\"order\": \"o-3\"}"),
    ];
    world.publish(&signal, &starts, json!(1)).await;
    world.quiet().await;
    let rows = world.rows();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!((row.status.as_str(), row.attempt), ("waiting", 1));
        let late = row.begins_at.unwrap().since(row.started_at);
        assert!(late > Span::from_secs(590) && late <= Span::from_secs(600), "{late:?}");
        assert_eq!(row.wake_at, row.begins_at);
    }
    replica.kill();
    let replica = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(580)).await;
    assert!(world.rows().iter().all(|row| row.status == "waiting"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(world.rows().iter().all(|row| row.status == "running"));
    replica.stop().await;
}

/// By whichever clock: a delay is never over early, and late by no more than reading takes. What the log has kept while nobody
/// read it has waited meanwhile.
#[tokio::test(start_paused = true)]
async fn the_clocks_of_the_log_and_the_store_do_not_meet_in_a_delay() {
    const AWAY: i64 = 100;
    for (seed, ahead) in [(33, -5), (34, 5), (35, 0)] {
        let mut world = World::new(seed).await;
        world
            .bus_ahead
            .store(ahead * 1_000_000, std::sync::atomic::Ordering::SeqCst);
        let start = async |world: &World, delay: &str, number: u32| {
            let began = world.store.now().await.unwrap();
            let delay = (names::START_DELAY, delay);
            let input = json!({ "order": number });
            let keyed = subject::start("default", &format!("o-{number}"), "order").unwrap();
            world.publish(&keyed, &[delay], input.clone()).await;
            let unkeyed = subject::unkeyed_start("default", "order").unwrap();
            let id = format!("u-{number}");
            world
                .publish(&unkeyed, &[delay, (names::WORKFLOW_ID, &id)], input.clone())
                .await;
            let signal = subject::signal("default", &format!("s-{number}"), "go").unwrap();
            let starts = [
                delay,
                (names::START_WORKFLOW, "order"),
                (names::START_INPUT, "{\"order\": 1}"),
            ];
            world.publish(&signal, &starts, json!(1)).await;
            began
        };
        // Nobody reads it for a while.
        let kept = start(&world, "150s", 1).await;
        tokio::time::sleep(Duration::from_secs(AWAY.unsigned_abs())).await;
        let replica = world.replica("r0");
        world.until("taken", |world| world.rows().len() == 3).await;
        let fresh = start(&world, "4s", 2).await;
        world.until("taken", |world| world.rows().len() == 6).await;
        for row in world.rows() {
            let (asked, delay) = match row.workflow_id.as_str().ends_with('1') {
                true => (kept, 150_000),
                false => (fresh, 4_000),
            };
            let begins_at = row.begins_at.unwrap_or(row.started_at);
            let after_ms = (begins_at.0 - asked.0) / 1_000;
            assert!(
                (delay..delay + 3_000).contains(&after_ms),
                "{ahead} s: {} begins after {after_ms} ms",
                row.workflow_id
            );
        }
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_is_none_is_refused() {
    let mut world = World::new(32).await;
    let replica = world.replica("r0");
    let mut inbox = world.bus.subscribe("_INBOX.caller");
    let headers = [(names::REPLY_TO, "_INBOX.caller"), (names::START_DELAY, "soon")];
    let unkeyed = subject::unkeyed_start("default", "order").unwrap();
    let keyed = subject::start("default", "o-1", "order").unwrap();
    for to in [unkeyed, keyed] {
        world.publish(&to, &headers, json!({ "order": "o-1" })).await;
        assert_eq!(world.answer(&mut inbox).await.error.unwrap().code, "KN0292", "{to}");
    }
    let signal = subject::signal("default", "o-1", "go").unwrap();
    let starts = [headers[0], headers[1], (names::START_WORKFLOW, "order")];
    world.publish(&signal, &starts, json!(1)).await;
    assert_eq!(world.answer(&mut inbox).await.error.unwrap().code, "KN0292");
    world.quiet().await;
    assert!(world.rows().is_empty());
    replica.stop().await;
}
