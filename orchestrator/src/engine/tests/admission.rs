//! Runs that wait before they begin: for a place among the open runs of their workflow, or for their workflow id; whatever
//! happens to the replicas.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use knarr_core::ids::RunId;
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::{code, header, subject};
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::world::{Act, Script, World, done};
use crate::store::memory::CommitFault;

pub(super) fn gated(version: u32, said: &str) -> String {
    format!(
        r#"
workflow: gated
version: {version}
concurrency: {{ key: input.customer, {said} }}
defaults: {{ queue: orders, start_to_close: 20s, retry: {{ maximum_attempts: 5, initial_interval: 100ms }} }}
steps:
  - first: {{ activity: first, compensate: unfirst }}
  - last: {{ activity: last, no_undo: it is read }}
"#
    )
}

/// A run goes on in another one, once.
const CHAIN: &str = r#"
workflow: gated
version: 1
concurrency: { key: input.customer, limit: 1, on_conflict: cancel_running }
defaults: { queue: orders, start_to_close: 20s, retry: { maximum_attempts: 5 } }
steps:
  - first: { activity: first, compensate: unfirst }
  - more: { if: "input.again", continue_as_new: { customer: "${ input.customer }", again: false } }
  - last: { activity: last, no_undo: it is read }
"#;

/// From when to when each run was worked on, as the workers saw it.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen(Arc<Mutex<BTreeMap<String, (Instant, Instant)>>>);

impl Seen {
    pub(super) fn by(
        &self,
        ms: u64,
        act: impl Fn(&super::world::Delivery<'_>) -> Act + Send + Sync + 'static,
    ) -> Script {
        let seen = self.clone();
        Arc::new(move |task| {
            let mut act = act(task);
            act.takes_ms = ms;
            let (from, to) = (Instant::now(), Instant::now() + Duration::from_millis(ms));
            let mut seen = seen.0.lock().unwrap();
            let span = seen.entry(task.workflow_id.to_owned()).or_insert((from, to));
            span.1 = span.1.max(to);
            act
        })
    }

    /// Most runs of an id that begins so at a time, from the beginning of the first task to the end of the last.
    pub(super) fn most(&self, prefix: &str) -> usize {
        let seen = self.0.lock().unwrap();
        let spans: Vec<_> = seen
            .iter()
            .filter(|(id, _)| id.starts_with(prefix))
            .map(|(_, span)| *span)
            .collect();
        let at = |now: Instant| spans.iter().filter(|(from, to)| *from <= now && now < *to).count();
        spans.iter().map(|(from, _)| at(*from)).max().unwrap_or(0)
    }

    /// In the order in which they began.
    fn order(&self) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        let mut order: Vec<_> = seen.iter().map(|(id, (from, _))| (*from, id.clone())).collect();
        order.sort();
        order.into_iter().map(|(_, id)| id).collect()
    }
}

pub(super) async fn start(world: &World, id: &str, customer: &str, headers: &[(&str, &str)]) {
    let to = subject::start("default", id, "gated").unwrap();
    world
        .publish(&to, headers, json!({ "customer": customer, "again": true }))
        .await;
}

/// Starts, and says what the starter is told.
async fn ask(world: &World, id: &str, on: &str, headers: &[(&str, &str)]) -> Answer {
    let inbox = format!("_INBOX.{id}.{on}");
    let mut answers = world.bus.subscribe(&inbox);
    let mut all = vec![(header::REPLY_TO, inbox.as_str()), (header::REPLY_ON, on)];
    all.extend_from_slice(headers);
    start(world, id, "c", &all).await;
    world.answer(&mut answers).await
}

pub(super) async fn settled(world: &World) {
    world
        .until("every place is given back", |world| {
            world.store.dump(|_| 0).permits.is_empty()
        })
        .await;
    world.quiet().await;
    world
        .until("nobody is owed an answer", |world| {
            world.rows().iter().all(|row| row.wake_at.is_none())
        })
        .await;
}

pub(super) fn count(world: &World, status: &str) -> usize {
    world.rows().iter().filter(|row| row.status == status).count()
}

#[tokio::test(start_paused = true)]
async fn never_more_open_than_the_limit_across_the_death_of_a_replica() {
    for dies_at in [0, 20, 35, 50, 65, 80, 100, 120, 150, 180] {
        let mut world = World::new(900 + dies_at).await;
        world.register(&gated(1, "limit: 2")).await;
        let seen = Seen::default();
        world.work(seen.by(150, |_| done()));
        let replica = world.replica_dying_at("r0", dies_at);
        for n in 0..10 {
            start(&world, &format!("{}-{n}", ["a", "b"][n % 2]), ["a", "b"][n % 2], &[]).await;
        }
        world
            .until("it is done, or dead", |world| {
                world.closed() == 10 || replica.has_ended()
            })
            .await;
        let heir = world.replica("r1");
        world.until("all have completed", |world| world.closed() == 10).await;
        assert!(world.statuses().values().all(|status| status == "completed"));
        assert_eq!((seen.most("a-"), seen.most("b-")), (2, 2), "died at {dies_at}");
        settled(&world).await;
        heir.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn commits_of_unknown_outcome_neither_lose_nor_double_a_place() {
    for fault in [CommitFault::LostBefore, CommitFault::LostAfter] {
        let mut world = World::new(930).await;
        world.register(&gated(1, "limit: 2")).await;
        let seen = Seen::default();
        world.work(seen.by(150, |_| done()));
        let replicas = [world.replica("r0"), world.replica("r1")];
        for n in 0..8 {
            start(&world, &format!("a-{n}"), "a", &[]).await;
            world.store.fail_next_commit(fault);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        world.until("all have completed", |world| world.closed() == 8).await;
        assert_eq!(seen.most("a-"), 2);
        settled(&world).await;
        for replica in replicas {
            replica.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_begins_by_priority_then_in_the_order_of_starting_and_can_be_stopped() {
    let mut world = World::new(940).await;
    world.register(&gated(1, "limit: 1")).await;
    let seen = Seen::default();
    world.work(seen.by(100, |_| done()));
    let replica = world.replica("r0");
    start(&world, "holds", "c", &[]).await;
    world.until("it has begun", |world| count(world, "running") == 1).await;
    for (id, priority) in [
        ("e", "5"),
        ("c1", "3"),
        ("c2", "3"),
        ("gone", "1"),
        ("a", "1"),
        ("off", "2"),
    ] {
        start(&world, id, "c", &[(header::PRIORITY, priority)]).await;
        world
            .until("it waits", |world| {
                world.statuses().get(id).is_some_and(|status| status == "waiting")
            })
            .await;
    }
    world.verb("gone", "terminate", &[]).await;
    world.verb("off", "cancel", &[]).await;
    world.until("all are closed", |world| world.closed() == 7).await;
    assert_eq!(seen.order(), ["holds", "a", "c1", "c2", "e"]);
    let statuses = world.statuses();
    assert_eq!(
        (statuses["gone"].as_str(), statuses["off"].as_str()),
        ("terminated", "cancelled")
    );
    settled(&world).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn reject_tells_the_starter_and_lets_it_in_again_when_there_is_room() {
    let mut world = World::new(945).await;
    world.register(&gated(1, "limit: 1, on_conflict: reject")).await;
    let seen = Seen::default();
    world.work(seen.by(500, |_| done()));
    let replica = world.replica("r0");
    let told = ask(&world, "one", "started", &[]).await;
    assert_eq!(
        (told.stage, told.status.as_deref()),
        (AnswerStage::Started, Some("running"))
    );
    for on in ["started", "closed"] {
        let told = ask(&world, &format!("two-{on}"), on, &[]).await;
        assert_eq!(
            (told.stage, told.status.as_deref()),
            (AnswerStage::Refused, Some("failed"))
        );
        assert_eq!(told.error.unwrap().code, code::NO_PLACE.id);
    }
    world.until("all are closed", |world| world.closed() == 3).await;
    let told = ask(&world, "three", "closed", &[]).await;
    assert_eq!(told.status.as_deref(), Some("completed"));
    settled(&world).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn skip_ends_as_skipped_and_tells_the_starter() {
    let mut world = World::new(946).await;
    world.register(&gated(1, "limit: 1, on_conflict: skip")).await;
    let seen = Seen::default();
    world.work(seen.by(500, |_| done()));
    let replica = world.replica("r0");
    ask(&world, "one", "started", &[]).await;
    let told = ask(&world, "two", "started", &[]).await;
    assert_eq!(
        (told.stage, told.status.as_deref()),
        (AnswerStage::Closed, Some("skipped"))
    );
    world.until("all are closed", |world| world.closed() == 2).await;
    assert_eq!(world.statuses()["one"], "completed");
    settled(&world).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn cancel_running_undoes_the_oldest_and_begins_when_that_has_closed_also_across_a_chain() {
    for definition in [gated(1, "limit: 1, on_conflict: cancel_running"), CHAIN.to_owned()] {
        let mut world = World::new(947).await;
        world.register(&definition).await;
        let seen = Seen::default();
        world.work(seen.by(400, |_| done()));
        let replicas = [world.replica("r0"), world.replica("r1")];
        start(&world, "one", "c", &[]).await;
        let chain = definition == CHAIN;
        world
            .until("it is at work", |world| match chain {
                true => count(world, "continued_as_new") == 1 && count(world, "running") == 1,
                false => count(world, "running") == 1,
            })
            .await;
        start(&world, "two", "c", &[]).await;
        world
            .until("the first is cancelled", |world| count(world, "cancelled") == 1)
            .await;
        world
            .until("the second has begun", |world| {
                world.rows_of("two").iter().any(|row| row.status != "waiting")
            })
            .await;
        world
            .until("all are closed", |world| {
                world.rows().iter().all(|row| row.closed_at.is_some())
            })
            .await;
        assert_eq!(seen.most(""), 1, "one at a time");
        assert!(world.rows_of("two").iter().any(|row| row.status == "completed"));
        settled(&world).await;
        for replica in replicas {
            replica.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_version_says_how_many_are_open_also_to_those_who_wait() {
    let mut world = World::new(948).await;
    world.register(&gated(1, "limit: 1")).await;
    let seen = Seen::default();
    world.work(seen.by(20_000, |_| done()));
    let replica = world.replica("r0");
    for n in 0..5 {
        start(&world, &format!("a-{n}"), "a", &[]).await;
    }
    world.until("four wait", |world| count(world, "waiting") == 4).await;
    world.register(&gated(2, "limit: 3")).await;
    world
        .until("two more have begun", |world| count(world, "waiting") == 2)
        .await;
    let unlimited = gated(3, "limit: 3").replace("concurrency: { key: input.customer, limit: 3 }", "priority: 3");
    world.register(&unlimited).await;
    world.until("nobody waits", |world| count(world, "waiting") == 0).await;
    for n in 0..5 {
        world.verb(&format!("a-{n}"), "terminate", &[]).await;
    }
    settled(&world).await;
    replica.stop().await;
}

const QUEUE: (&str, &str) = (header::ID_CONFLICT, "queue");

fn queued(world: &World, id: &str) -> Vec<RunId> {
    let rows = world.rows_of(id).into_iter().filter(|row| row.status == "queued");
    rows.map(|row| row.run_id).collect()
}

#[tokio::test(start_paused = true)]
async fn starts_are_queued_for_their_id_and_begin_in_order_across_the_death_of_a_replica() {
    for dies_at in [0, 15, 30, 45, 60, 75, 90, 110, 130] {
        let mut world = World::new(960 + dies_at).await;
        let seen = Seen::default();
        world.work(seen.by(100, |_| done()));
        let replica = world.replica_dying_at("r0", dies_at);
        for n in 0..5 {
            let request = format!("r-{n}");
            let headers = [QUEUE, (header::REQUEST_ID, request.as_str())];
            world.start("o-1", &headers).await;
            // Said twice, and one start all the same.
            world.start("o-1", &headers).await;
        }
        world
            .until("it is done, or dead", |world| {
                world.closed() == 5 || replica.has_ended()
            })
            .await;
        let heir = world.replica("r1");
        world.until("all have completed", |world| world.closed() == 5).await;
        let rows = world.rows_of("o-1");
        assert!(rows.iter().all(|row| row.status == "completed"), "{rows:?}");
        let requests: Vec<_> = rows
            .iter()
            .map(|row| row.request_id.clone().unwrap().to_string())
            .collect();
        assert_eq!(requests, ["r-0", "r-1", "r-2", "r-3", "r-4"], "died at {dies_at}");
        // One after the other.
        let mut closed = rows.iter().map(|row| row.closed_at).collect::<Vec<_>>();
        closed.sort();
        assert_eq!(closed, rows.iter().map(|row| row.closed_at).collect::<Vec<_>>());
        world.quiet().await;
        heir.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_in_line_can_be_cancelled_and_who_terminates_the_open_run_goes_before_the_line() {
    let mut world = World::new(980).await;
    let seen = Seen::default();
    world.work(seen.by(5_000, |_| done()));
    let replica = world.replica("r0");
    let start = async |request: &str, conflict: &str| {
        let headers = [(header::ID_CONFLICT, conflict), (header::REQUEST_ID, request)];
        world.start("o-1", &headers).await;
    };
    start("open", "fail").await;
    for request in ["q-1", "q-2", "q-3"] {
        start(request, "queue").await;
    }
    world
        .until("three are in line", |world| queued(world, "o-1").len() == 3)
        .await;
    let second = queued(&world, "o-1")[1].to_string();
    world.verb("o-1", "cancel", &[(header::RUN_ID, &second)]).await;
    world
        .until("one has left", |world| queued(world, "o-1").len() == 2)
        .await;
    start("first", "terminate_existing").await;
    let of = |world: &World, request: &str| {
        let rows = world.rows_of("o-1").into_iter();
        let mut rows = rows.filter(|row| row.request_id.as_ref().is_some_and(|it| it.as_str() == request));
        rows.next().map(|row| row.status)
    };
    world
        .until("it has the id", |world| {
            of(world, "first").as_deref() == Some("running")
        })
        .await;
    assert_eq!(of(&world, "open").as_deref(), Some("terminated"));
    assert_eq!(queued(&world, "o-1").len(), 2);
    world
        .until("all are closed", |world| {
            world.rows().iter().all(|row| row.closed_at.is_some())
        })
        .await;
    let end = |request: &str| of(&world, request).unwrap();
    assert_eq!(
        [end("first"), end("q-1"), end("q-2"), end("q-3")],
        ["completed", "completed", "cancelled", "completed"]
    );
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_has_an_end_and_who_is_in_it_is_told_so() {
    let mut world = World::new(985).await;
    let seen = Seen::default();
    world.work(seen.by(60_000, |_| done()));
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world.until("it is open", |world| count(world, "running") == 1).await;
    for _ in 0..super::super::in_line::MAX_IN_LINE {
        world.start("o-1", &[QUEUE]).await;
    }
    let mut answers = world.bus.subscribe("_INBOX.1");
    let reply = [QUEUE, (header::REPLY_TO, "_INBOX.1")];
    world.start("o-1", &reply).await;
    let told = world.answer(&mut answers).await;
    assert_eq!(
        (told.stage, told.error.unwrap().code.as_str()),
        (AnswerStage::Refused, code::LINE_FULL.id)
    );
    let first = queued(&world, "o-1")[0].to_string();
    world.verb("o-1", "terminate", &[(header::RUN_ID, &first)]).await;
    world.start("o-1", &reply).await;
    let told = world.answer(&mut answers).await;
    assert_eq!(
        (told.stage, told.status.as_deref()),
        (AnswerStage::Started, Some("queued"))
    );
    let wrong = [
        QUEUE,
        (header::ID_REUSE, "reject_duplicate"),
        (header::REPLY_TO, "_INBOX.1"),
    ];
    world.start("o-1", &wrong).await;
    assert_eq!(
        world.answer(&mut answers).await.error.unwrap().code,
        code::BAD_HEADER.id
    );
    for priority in ["0", "6", "x", ""] {
        let wrong = [(header::PRIORITY, priority), (header::REPLY_TO, "_INBOX.1")];
        world.start("o-2", &wrong).await;
        assert_eq!(
            world.answer(&mut answers).await.error.unwrap().code,
            code::BAD_HEADER.id
        );
    }
    replica.stop().await;
}

/// What a replica of an older version cannot read is not written while there is one.
#[tokio::test(start_paused = true)]
async fn nothing_waits_while_there_are_older_replicas() {
    let mut world = World::of_level(990, 2).await;
    world.register(&gated(1, "limit: 1")).await;
    let seen = Seen::default();
    world.work(seen.by(60_000, |_| done()));
    let replica = world.replica("r0");
    let told = ask(&world, "one", "started", &[]).await;
    assert_eq!(told.error.unwrap().code, code::OLDER_REPLICAS.id);
    let mut answers = world.bus.subscribe("_INBOX.1");
    world.start("o-1", &[]).await;
    world.until("it is open", |world| count(world, "running") == 1).await;
    for headers in [QUEUE, (header::PRIORITY, "1")] {
        let id = if headers == QUEUE { "o-1" } else { "o-2" };
        world.start(id, &[headers, (header::REPLY_TO, "_INBOX.1")]).await;
        let told = world.answer(&mut answers).await;
        assert_eq!(told.error.unwrap().code, code::OLDER_REPLICAS.id);
    }
    replica.stop().await;
}
