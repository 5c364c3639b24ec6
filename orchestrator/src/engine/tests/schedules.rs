//! Schedules: occurrences that are started once each, whatever happens to those who decide them, and really overlap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::{Namespace, RunId};
use knarr_core::run::schedule::workflow_id;
use knarr_core::schedule::Schedule;
use knarr_core::schedule::spec::compact;
use knarr_core::schedule::state::Became;
use knarr_core::time::Timestamp;
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::{header as names, subject};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};

use super::scripts::honest;
use super::world::{Act, World, done};
use crate::store::memory::CommitFault;
use crate::store::{RunRow, Store};
use crate::telemetry::metric;

const TICK: &str = r#"
workflow: tick
version: 1
defaults: { queue: orders, start_to_close: 30s, retry: { maximum_attempts: 1 } }
steps:
  - work: { activity: work, input: { at: "${ run.scheduled_at }" }, no_undo: it is read }
output: "${ run.scheduled_at }"
"#;

async fn world(seed: u64) -> World {
    let world = World::new(seed).await;
    world.register(TICK).await;
    world
}

/// Asks, and returns what is answered.
async fn ask(world: &World, name: &str, request: &str, body: Value) -> Answer {
    let inbox_name = format!("_INBOX.{name}.{request}");
    let mut inbox = world.bus.subscribe(&inbox_name);
    let headers = [
        (names::VERB, "schedule default"),
        (names::REPLY_TO, inbox_name.as_str()),
        (names::REQUEST_ID, request),
    ];
    let id = workflow_id(name);
    let to = subject::run_verb("default", id.as_str(), "schedule").unwrap();
    world.publish(&to, &headers, body).await;
    world.answer(&mut inbox).await
}

fn create(document: Value) -> Value {
    json!({ "ask": "create", "schedule": document })
}

/// Occurrences by workflow id.
fn ticks(world: &World) -> BTreeMap<String, Vec<RunRow>> {
    let mut ticks: BTreeMap<String, Vec<RunRow>> = BTreeMap::new();
    for row in world.rows() {
        if row.workflow.as_str() == "tick" {
            ticks.entry(row.workflow_id.to_string()).or_default().push(row);
        }
    }
    ticks
}

async fn row_of(world: &World, name: &str) -> RunRow {
    let rows = world
        .store
        .list_schedules(&Namespace::new("default"), None, 100)
        .await
        .unwrap();
    rows.into_iter()
        .find(|row| row.workflow_id == workflow_id(name))
        .unwrap()
}

async fn schedule(world: &World, run: RunId) -> Schedule {
    let stored = world.store.load_runs(&[run]).await.unwrap().remove(0);
    let state = super::super::fetch::rebuild(&stored).unwrap();
    state.schedule().unwrap().clone()
}

/// Each nominal time from the first to the last has one run, and no other run is there.
#[track_caller]
fn assert_each_once(world: &World, period: i64) {
    let ticks = ticks(world);
    let mut nominal: Vec<i64> = Vec::new();
    for (id, rows) in &ticks {
        assert_eq!(rows.len(), 1, "{id} was started {} times", rows.len());
        let text = id.strip_prefix("every-").unwrap();
        let at = chrono::NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").unwrap();
        nominal.push(at.and_utc().timestamp());
    }
    for pair in nominal.windows(2) {
        assert_eq!(pair[1] - pair[0], period, "{} is followed by {}", pair[0], pair[1]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_nominal_time_is_started_once_whenever_a_replica_dies() {
    for (seed, dies_at) in (0..14).map(|n| (900 + n, 30 + 9 * n)) {
        let mut world = world(seed).await;
        world.work(honest());
        let replica = world.replica_dying_at("r0", dies_at);
        let asked = create(json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all" }));
        let id = workflow_id("every");
        let to = subject::run_verb("default", id.as_str(), "schedule").unwrap();
        let headers = [(names::VERB, "schedule default"), (names::REQUEST_ID, "c")];
        world.publish(&to, &headers, asked).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        let heir = world.replica("r1");
        tokio::time::sleep(Duration::from_secs(6)).await;
        replica.kill();
        world.until("it goes on", |world| ticks(world).len() >= 10).await;
        let paused = ask(&world, "every", "p", json!({ "ask": "pause" })).await;
        assert_eq!(paused.stage, AnswerStage::Accepted);
        world
            .until("all have ended", |world| {
                ticks(world).values().flatten().all(|row| row.closed_at.is_some())
            })
            .await;
        world.quiet().await;
        assert_each_once(&world, 1);
        let row = row_of(&world, "every").await;
        let schedule = schedule(&world, row.run_id).await;
        assert_eq!(schedule.counts.started, ticks(&world).len() as u64);
        assert_eq!(
            schedule.counts.skipped + schedule.counts.missed + schedule.counts.failed,
            0
        );
        for row in ticks(&world).values().flatten() {
            // It knows its nominal time, and is not early.
            let nominal = world.state(row.run_id).await.scheduled_at().unwrap();
            assert!(row.started_at >= nominal);
            assert!(row.workflow_id.as_str().ends_with(&compact(nominal)));
        }
        heir.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_outcome_is_unknown_starts_nothing_twice() {
    for fault in [CommitFault::LostBefore, CommitFault::LostAfter] {
        let mut world = world(950).await;
        world.work(honest());
        let replica = world.replica("r0");
        ask(
            &world,
            "every",
            "c",
            create(json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all" })),
        )
        .await;
        for _ in 0..8 {
            world.store.fail_next_commit(fault);
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
        world.until("it goes on", |world| ticks(world).len() >= 10).await;
        ask(&world, "every", "p", json!({ "ask": "pause" })).await;
        world.quiet().await;
        assert_each_once(&world, 1);
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_past_the_catch_up_window_is_missed_and_counted_once() {
    // Everything here runs on this thread, so no engine of another test is counted.
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _own = metrics::set_default_local_recorder(&recorder);
    let counted = |name: &str| {
        let text = metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let mut world = world(978).await;
    world.work(honest());
    let replica = world.replica("r0");
    let document = json!({ "workflow": "tick", "every": "30s", "catch_up_window": "1m", "overlap": "allow_all" });
    ask(&world, "every", "c", create(document)).await;
    world.until("some have started", |world| ticks(world).len() >= 2).await;
    assert_eq!(counted(metric::SCHEDULE_MISSED), 0);
    replica.kill();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let heir = world.replica("r1");
    world.until("it goes on", |world| ticks(world).len() >= 6).await;
    heir.kill();
    let last = world.replica("r2");
    world.until("it goes on", |world| ticks(world).len() >= 8).await;
    ask(&world, "every", "p", json!({ "ask": "pause" })).await;
    world.quiet().await;
    let row = row_of(&world, "every").await;
    let counts = schedule(&world, row.run_id).await.counts;
    let nominal: Vec<_> = ticks(&world)
        .into_values()
        .flatten()
        .map(|row| row.workflow_id.to_string())
        .collect();
    let at = |id: &String| {
        let text = id.strip_prefix("every-").unwrap();
        chrono::NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").unwrap()
    };
    let due = (at(nominal.last().unwrap()) - at(&nominal[0])).num_seconds() / 30 + 1;
    assert_eq!(counts.started, nominal.len() as u64);
    assert_eq!(counts.started + counts.missed, due.unsigned_abs());
    // Ten minutes without the last one, and whatever it takes to notice that the other is dead.
    assert!((17..=20).contains(&counts.missed), "{counts:?}");
    assert_eq!(counted(metric::SCHEDULE_MISSED), counts.missed);
    assert_eq!(counted(metric::SCHEDULE_STARTED), counts.started);
    assert_eq!(counted(metric::SCHEDULE_SKIPPED), 0);
    last.stop().await;
}

/// Runs of 2.5 s, and one due every second.
#[tokio::test(start_paused = true)]
async fn policies_hold_over_runs_that_really_overlap() {
    for policy in [
        "skip",
        "buffer_one",
        "buffer_all",
        "cancel_other",
        "terminate_other",
        "allow_all",
    ] {
        let mut world = world(960).await;
        world.work(Arc::new(|_| Act {
            takes_ms: 2_500,
            ..done()
        }));
        let replica = world.replica("r0");
        ask(
            &world,
            "every",
            "c",
            create(json!({ "workflow": "tick", "every": "1s", "overlap": policy })),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(12_300)).await;
        ask(&world, "every", "d", json!({ "ask": "pause" })).await;
        let row = row_of(&world, "every").await;
        let at_pause = schedule(&world, row.run_id).await;
        let ticks = ticks(&world);
        let mut rows: Vec<RunRow> = ticks.into_values().flatten().collect();
        rows.sort_by_key(|row| row.started_at);
        let overlapping = |row: &RunRow| {
            let others = rows
                .iter()
                .filter(|other| other.run_id != row.run_id && other.started_at >= row.started_at);
            others
                .filter(|other| row.closed_at.is_none_or(|closed| other.started_at < closed))
                .count()
        };
        let most = rows.iter().map(overlapping).max().unwrap();
        let gaps: Vec<i64> = rows
            .windows(2)
            .map(|pair| (pair[1].started_at.0 - pair[0].started_at.0 + 50_000) / 100_000)
            .collect();
        let counts = at_pause.counts;
        assert_eq!(
            counts.started + counts.skipped + at_pause.buffer.len() as u64,
            12,
            "{policy}: {at_pause:?}"
        );
        match policy {
            "allow_all" => {
                assert_eq!((rows.len(), counts.skipped), (12, 0));
                assert!(most >= 2, "they overlap");
            }
            _ => assert_eq!(most, 0, "{policy}: no two at a time"),
        }
        match policy {
            // The next second after its end.
            "skip" => assert!(gaps.iter().all(|gap| *gap == 30), "{gaps:?}"),
            // At once.
            "buffer_one" | "buffer_all" => assert!(gaps.iter().all(|gap| (25..=26).contains(gap)), "{gaps:?}"),
            "terminate_other" => {
                assert!(gaps.iter().all(|gap| (9..=11).contains(gap)), "{gaps:?}");
                assert!(rows.iter().rev().skip(1).all(|row| row.status == "terminated"));
            }
            // A cancelled run waits for what its worker says.
            "cancel_other" => assert!(rows.iter().any(|row| row.status == "cancelled"), "{rows:?}"),
            _ => {}
        }
        if policy == "buffer_all" {
            assert!(at_pause.buffer.len() >= 6 && counts.skipped == 0);
            ask(&world, "every", "r", json!({ "ask": "resume" })).await;
            ask(&world, "every", "p", json!({ "ask": "pause" })).await;
        }
        world.quiet().await;
        replica.stop().await;
    }
}

/// What could not be started in time while nobody was there is counted, in its schedule and for whoever watches.
#[tokio::test(start_paused = true)]
async fn what_was_missed_is_counted_in_its_metric() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let mut world = world(1_000).await;
    world.work(honest());
    let replica = world.replica("r0");
    let asked = json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all", "catch_up_window": "10s" });
    ask(&world, "every", "c", create(asked)).await;
    world.until("it has begun", |world| !ticks(world).is_empty()).await;
    replica.kill();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = ticks(&world).len();
    let heir = world.replica("r0");
    world
        .until("it goes on", |world| ticks(world).len() >= before + 10)
        .await;
    ask(&world, "every", "p", json!({ "ask": "pause" })).await;
    world.quiet().await;
    let missed = schedule(&world, row_of(&world, "every").await.run_id)
        .await
        .counts
        .missed;
    assert!((15..=25).contains(&missed), "{missed}");
    let line = format!("knarr_schedule_missed_catchup_window_total {missed}");
    let metrics = handle.render();
    assert!(metrics.lines().any(|told| told == line), "{line}:\n{metrics}");
    heir.stop().await;
}

/// Ahead and behind for a moment, ahead for good, and back again: nothing is started early, and nothing twice.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_starts_nothing_early_or_twice() {
    let mut world = world(1_010).await;
    world.work(honest());
    let replica = world.replica("r0");
    let asked = json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all" });
    ask(&world, "every", "c", create(asked)).await;
    world.until("it has begun", |world| ticks(world).len() >= 3).await;
    for ms in [3_600_000, -3_600_000] {
        let before = ticks(&world).len();
        world.leap(ms);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        world.leap(-ms);
        let after = ticks(&world).len();
        assert!(
            after <= before + 2,
            "{before} before a moment at {ms} ms, {after} behind it"
        );
    }
    world.leap(20_000);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let ahead = ticks(&world).len();
    assert!(ahead >= 20, "it follows what stays: {ahead}");
    world.leap(-20_000);
    world
        .until("it goes on", |world| ticks(world).len() >= ahead + 20)
        .await;
    ask(&world, "every", "p", json!({ "ask": "pause" })).await;
    world.quiet().await;
    assert_each_once(&world, 1);
    for row in ticks(&world).values().flatten() {
        assert!(row.started_at >= world.state(row.run_id).await.scheduled_at().unwrap());
    }
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_replicas_share_schedules_and_hand_them_over() {
    let mut world = world(970).await;
    world.work(honest());
    let (first, second) = (world.replica("r0"), world.replica("r1"));
    ask(
        &world,
        "every",
        "c",
        create(json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all" })),
    )
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    first.stop().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let third = world.replica("r2");
    tokio::time::sleep(Duration::from_secs(5)).await;
    second.kill();
    world.until("it goes on", |world| ticks(world).len() >= 20).await;
    ask(&world, "every", "p", json!({ "ask": "pause" })).await;
    world.quiet().await;
    assert_each_once(&world, 1);
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_schedule_is_answered() {
    let mut world = world(980).await;
    world.work(honest());
    let replica = world.replica("r0");
    let refused = |answer: &Answer| {
        answer
            .error
            .as_ref()
            .map(|error| error.code.clone())
            .unwrap_or_default()
    };
    let none = ask(&world, "every", "0", json!({ "ask": "pause" })).await;
    assert_eq!(
        (none.stage, refused(&none)),
        (AnswerStage::Refused, "KN0266".to_owned())
    );
    let document = json!({ "workflow": "tick", "every": "10s" });
    let made = ask(&world, "every", "1", create(document.clone())).await;
    assert_eq!(made.stage, AnswerStage::Accepted);
    let told = made.output.unwrap();
    assert_eq!(told["next"].as_array().unwrap().len(), 5);
    assert_eq!(told["zone"], "UTC");
    let again = ask(&world, "every", "1b", create(document)).await;
    assert_eq!((again.stage, again.run_id), (AnswerStage::Accepted, made.run_id));
    let other = ask(
        &world,
        "every",
        "2",
        create(json!({ "workflow": "tick", "every": "11s" })),
    )
    .await;
    assert_eq!(refused(&other), "KN0265");
    let bad = ask(
        &world,
        "every",
        "3",
        create(json!({ "workflow": "tick", "cron": "0 25 * * *" })),
    )
    .await;
    assert_eq!(refused(&bad), "KN0268");
    assert!(bad.error.unwrap().message.starts_with("KN0190: `25` is no hour"));
    for (n, body) in [json!({ "ask": "dance" }), json!({ "ask": "backfill" }), json!(1)]
        .into_iter()
        .enumerate()
    {
        let answer = ask(&world, "every", &format!("4{n}"), body).await;
        assert_eq!(refused(&answer), "KN0228");
    }
    let range = |from: &str, until: &str| json!({ "ask": "backfill", "from": from, "until": until });
    let future = ask(
        &world,
        "every",
        "5",
        range("2023-01-01T00:00:00Z", "2043-01-01T00:00:00Z"),
    )
    .await;
    assert_eq!(refused(&future), "KN0267");
    let named = ask(&world, "no.name", "6", json!({ "ask": "pause" })).await;
    assert_eq!(refused(&named), "KN0267");
    // Nobody else can have its id, or take its requests away.
    let mut inbox = world.bus.subscribe("_INBOX.other");
    let id = workflow_id("every");
    let to = subject::start("default", id.as_str(), "tick").unwrap();
    world
        .publish(&to, &[(names::REPLY_TO, "_INBOX.other")], json!({}))
        .await;
    assert_eq!(refused(&world.answer(&mut inbox).await), "KN0269");
    let to = subject::start("default", "mine", "tick").unwrap();
    let headers = [(names::REPLY_TO, "_INBOX.other"), (names::REQUEST_ID, "$schedule/x/1")];
    world.publish(&to, &headers, json!({})).await;
    assert_eq!(refused(&world.answer(&mut inbox).await), "KN0269");
    let deleted = ask(&world, "every", "7", json!({ "ask": "delete" })).await;
    assert_eq!(deleted.output.unwrap()["deleted"], true);
    let gone = ask(&world, "every", "8", json!({ "ask": "trigger" })).await;
    assert_eq!(refused(&gone), "KN0266");
    let anew = ask(
        &world,
        "every",
        "9",
        create(json!({ "workflow": "tick", "every": "11s" })),
    )
    .await;
    assert_ne!(anew.run_id, made.run_id);
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_triggers_a_schedule_is_told_what_becomes_of_it() {
    let mut world = world(982).await;
    world.work(Arc::new(|_| Act {
        takes_ms: 10_000,
        ..done()
    }));
    let replica = world.replica("r0");
    let yearly = create(json!({ "workflow": "tick", "cron": "0 0 1 1 *" }));
    ask(&world, "every", "c", yearly).await;
    let open = json!("skipped: an earlier run was open");
    for (request, skipped) in [("t1", Value::Null), ("t2", open)] {
        let told = ask(&world, "every", request, json!({ "ask": "trigger" })).await;
        assert_eq!(told.output.unwrap()["skipped"], skipped);
    }
    world.until("one has ended", |world| world.closed() == 1).await;
    world.quiet().await;
    assert_eq!(ticks(&world).len(), 1);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backfill_does_not_start_what_has_been_started() {
    let mut world = world(985).await;
    world.work(honest());
    let replica = world.replica("r0");
    let from = world.store.now().await.unwrap();
    ask(
        &world,
        "every",
        "c",
        create(json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all" })),
    )
    .await;
    world.until("some have started", |world| ticks(world).len() >= 5).await;
    ask(&world, "every", "p", json!({ "ask": "pause" })).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let started = ticks(&world).len();
    let until = world.store.now().await.unwrap();
    let text = |at: Timestamp| at.to_utc().to_rfc3339();
    let range = json!({ "ask": "backfill", "from": text(from), "until": text(until), "overlap": "allow_all" });
    ask(&world, "every", "b", range).await;
    world
        .until("the rest has started", |world| ticks(world).len() >= started + 3)
        .await;
    world.quiet().await;
    assert_each_once(&world, 1);
    let row = row_of(&world, "every").await;
    let schedule = schedule(&world, row.run_id).await;
    let already = schedule
        .past
        .iter()
        .filter(|past| past.became == Became::AlreadyStarted);
    assert_eq!(already.count(), started);
    assert_eq!(schedule.counts.failed, 0);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_schedule_has_been_through_does_not_pile_up() {
    let mut world = world(990).await;
    world.config.snapshot_every = 50;
    world.work(honest());
    let replica = world.replica("r0");
    ask(
        &world,
        "every",
        "c",
        create(json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all" })),
    )
    .await;
    world
        .until("many have started", |world| ticks(world).len() >= 200)
        .await;
    let row = row_of(&world, "every").await;
    let kept = world.store.history(row.run_id, 0, 10_000).await.unwrap();
    assert!(kept.first().unwrap().seq > 1 && kept.len() < 320, "{} kept", kept.len());
    replica.kill();
    let heir = world.replica("r1");
    world.until("it goes on", |world| ticks(world).len() >= 210).await;
    ask(&world, "every", "p", json!({ "ask": "pause" })).await;
    world.quiet().await;
    assert_each_once(&world, 1);
    heir.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_the_store_while_nothing_is_due() {
    let mut world = world(995).await;
    let replica = world.replica("r0");
    ask(
        &world,
        "every",
        "c",
        create(json!({ "workflow": "tick", "cron": "0 0 1 1 *" })),
    )
    .await;
    world.quiet().await;
    let dump = world.store.dump(|_| 0);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let later = world.store.dump(|_| 0);
    assert_eq!(dump.events.len(), later.events.len());
    assert_eq!(dump.runs, later.runs);
    replica.stop().await;
}

/// What listens for runs hears of occurrences, and of nothing that nobody has defined.
#[tokio::test(start_paused = true)]
async fn occurrences_are_told_and_schedules_are_not() {
    let mut world = world(880).await;
    world.work(honest());
    world.store.set_events(&Namespace::new("default"), true).await.unwrap();
    let replica = world.replica("r0");
    let document = json!({ "workflow": "tick", "every": "1s", "actions": 3 });
    let made = ask(&world, "told", "r1", create(document)).await;
    assert_eq!(made.stage, AnswerStage::Accepted, "{made:?}");
    world
        .until("three have completed", |world| {
            let ticks = ticks(world);
            ticks.len() == 3 && ticks.values().flatten().all(|row| row.closed_at.is_some())
        })
        .await;
    let deleted = ask(&world, "told", "r2", json!({ "ask": "delete" })).await;
    assert_eq!(deleted.stage, AnswerStage::Accepted, "{deleted:?}");
    world.quiet().await;
    replica.stop().await;
    // The schedule's own takeover finds nothing either.
    let heir = world.replica("r1");
    world.quiet().await;
    let events = world.bus.events();
    let told = |kind: &str| events.iter().filter(|event| event.subject.ends_with(kind)).count();
    assert_eq!((told(".started"), told(".completed")), (3, 3));
    assert_eq!(events.len(), 6);
    heir.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_what_is_not_registered_is_taken_with_a_warning() {
    let mut world = World::new(981).await;
    world.work(honest());
    let replica = world.replica("r0");
    let warnings = |answer: Answer| {
        assert_eq!(answer.stage, AnswerStage::Accepted);
        let warnings = answer.output.unwrap()["warnings"].clone();
        let warnings = warnings.as_array().cloned().unwrap_or_default().into_iter();
        let told = warnings.map(|it| (it["code"].as_str().unwrap().to_owned(), it["message"].to_string()));
        told.collect::<Vec<_>>()
    };
    let document = json!({ "workflow": "tick", "every": "1h" });
    let told = warnings(ask(&world, "every", "1", create(document.clone())).await);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "KN0206");
    assert!(
        told[0]
            .1
            .contains("no definition `tick` is registered in `default`; until it is"),
        "{told:?}"
    );
    // It follows, and whoever asks hears of it at once.
    world.register(TICK).await;
    let update = |document: &Value| json!({ "ask": "update", "schedule": document });
    assert_eq!(warnings(ask(&world, "every", "2", update(&document)).await), []);
    let pinned = json!({ "workflow": "tick", "version": 9, "every": "1h" });
    let told = warnings(ask(&world, "every", "3", update(&pinned)).await);
    assert_eq!(told[0].0, "KN0207");
    let pinned = json!({ "workflow": "tick", "version": 1, "every": "1h" });
    assert_eq!(warnings(ask(&world, "every", "4", update(&pinned)).await), []);
    assert_eq!(warnings(ask(&world, "every", "5", json!({ "ask": "pause" })).await), []);
    replica.stop().await;
}
