//! Activities under every condition, as far as the engine decides it: see the table in core's tests of the same name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use knarr_core::ids::RunId;
use knarr_core::run::Event;
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};

use super::scripts::honest;
use super::world::{Replica, World, done, headers_of};
use crate::bus::header;
use crate::bus::memory::PulledTask;
use crate::store::format;

/// One step of an hour, its fields and its policy as they are given.
fn job(fields: &str, attempts: u32) -> String {
    format!(
        r#"
workflow: job
version: 1
defaults:
  queue: orders
  start_to_close: 1h
  retry: {{ initial_interval: 100ms, maximum_interval: 1s, maximum_attempts: {attempts} }}
steps:
  - work:
      activity: work
      compensate: {{ activity: undo-work, start_to_close: 5s }}
      {fields}
"#
    )
}

/// A run of it, with its first task pulled.
struct Job {
    world: World,
    replica: Replica,
    run: RunId,
    task: PulledTask,
}

async fn at_work(seed: u64, fields: &str, attempts: u32) -> Job {
    let (world, replica, run) = scheduled(seed, fields, attempts).await;
    let task = pulled(&world).await;
    Job {
        world,
        replica,
        run,
        task,
    }
}

async fn scheduled(seed: u64, fields: &str, attempts: u32) -> (World, Replica, RunId) {
    scheduled_in(World::new(seed).await, fields, attempts).await
}

async fn scheduled_in(mut world: World, fields: &str, attempts: u32) -> (World, Replica, RunId) {
    world.register(&job(fields, attempts)).await;
    let replica = world.replica("r0");
    let start = subject::start("default", "j-1", "job").unwrap();
    world.publish(&start, &[], Value::Null).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let run = world.rows()[0].run_id;
    (world, replica, run)
}

async fn pulled(world: &World) -> PulledTask {
    let next = world.bus.next_tasks("default", "orders", 1);
    let mut tasks = tokio::time::timeout(Duration::from_secs(100), next)
        .await
        .expect("a task");
    tasks.remove(0)
}

fn text<'a>(task: &'a PulledTask, name: &str) -> &'a str {
    header(&task.headers, name).unwrap_or_default()
}

static ASKED: AtomicU32 = AtomicU32::new(0);

/// Asks the partition's owner as a worker does, until it answers.
async fn ask(world: &World, task: &PulledTask, kind: &str, more: &[(&str, &str)], body: &str) -> Value {
    let inbox = format!("_INBOX.ask.{}", ASKED.fetch_add(1, Ordering::SeqCst));
    let mut answers = world.bus.subscribe(&inbox);
    let mut headers = headers_of(&[(names::TOKEN, text(task, names::TOKEN))]);
    headers.extend(headers_of(more));
    let to = format!("{}.{kind}", text(task, names::DIRECT));
    for _ in 0..50 {
        world
            .bus
            .send_direct(&to, headers.clone(), Bytes::from(body.to_owned()), Some(&inbox));
        if let Ok(Some(answer)) = tokio::time::timeout(Duration::from_secs(1), answers.recv()).await {
            return serde_json::from_slice(&answer.payload).unwrap();
        }
    }
    panic!("no answer to a {kind}");
}

async fn beat(world: &World, task: &PulledTask, details: &str) -> Value {
    ask(world, task, "beat", &[(names::BEAT_EVERY_MS, "5000")], details).await
}

impl Job {
    async fn events(&self) -> Vec<Event> {
        self.world.events(self.run).await
    }

    async fn has(&self, wanted: fn(&Event) -> bool) -> bool {
        self.events().await.iter().any(wanted)
    }

    fn status(&self) -> String {
        self.world.statuses()["j-1"].clone()
    }

    async fn finish(&self, task: &PulledTask) {
        ask(&self.world, task, "result", &[], "1").await;
        self.world.bus.acknowledge(task);
    }

    async fn end(self) {
        self.world.quiet().await;
        self.replica.stop().await;
    }
}

/// However long tasks lie in their queue: nobody is late, and nothing is undone. Looking costs little.
#[tokio::test(start_paused = true)]
async fn an_hour_of_backlog_makes_no_timeout_and_no_undo() {
    let mut world = World::new(90).await;
    let replica = world.replica("r0");
    for n in 0..40 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 40)
        .await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    world.work(Arc::new(|_| done()));
    world.until("all are done", |world| world.closed() == 40).await;
    for row in world.rows() {
        assert_eq!(row.status, "completed");
        let events = world.events(row.run_id).await;
        let late = |event: &Event| {
            matches!(
                event,
                Event::TaskTimedOut { .. } | Event::TaskLost { .. } | Event::UndoScheduled { .. }
            )
        };
        assert!(!events.iter().any(late), "{events:#?}");
        let looks = events
            .iter()
            .filter(|event| matches!(event, Event::DeadlineDeferred { .. }));
        // Once a minute, after the first.
        assert!(looks.count() <= 70, "{events:#?}");
    }
    world.quiet().await;
    replica.stop().await;
}

/// The server would not deliver the task again before its lease of an hour has ended.
#[tokio::test(start_paused = true)]
async fn a_worker_that_misses_three_beats_is_lost() {
    let job = at_work(91, "", 3).await;
    let began = tokio::time::Instant::now();
    assert_eq!(beat(&job.world, &job.task, "").await, json!("ok"));
    let next = pulled(&job.world).await;
    let took = began.elapsed().as_secs();
    assert!((15..=19).contains(&took), "{took} s");
    assert_eq!(text(&next, names::ATTEMPT), "2");
    assert!(job.has(|event| matches!(event, Event::TaskLost { .. })).await);
    assert_eq!(
        beat(&job.world, &job.task, "").await,
        json!("gone"),
        "it was not dead after all"
    );
    job.finish(&next).await;
    job.world.bus.acknowledge(&job.task);
    job.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_beats_is_there_and_costs_nothing() {
    let job = at_work(92, "", 3).await;
    for _ in 0..60 {
        assert_eq!(beat(&job.world, &job.task, "").await, json!("ok"));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let before = job.events().await.len();
    job.finish(&job.task).await;
    job.world.until("done", |world| world.closed() == 1).await;
    assert_eq!(before, 2, "nothing but the start: {:#?}", job.events().await);
    job.end().await;
}

/// A replica that takes over has heard nothing of the worker yet.
#[tokio::test(start_paused = true)]
async fn silence_does_not_count_from_before_a_takeover() {
    let mut job = at_work(93, "heartbeat: 20s", 3).await;
    // Without a promise of when the next one comes.
    let say = async |job: &Job| ask(&job.world, &job.task, "beat", &[], "").await;
    say(&job).await;
    tokio::time::sleep(Duration::from_secs(18)).await;
    say(&job).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    job.replica.kill();
    // Nobody is there when the next beats come.
    tokio::time::sleep(Duration::from_secs(40)).await;
    job.replica = job.world.replica("r0");
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(say(&job).await, json!("ok"));
    job.finish(&job.task).await;
    job.world.until("done", |world| world.closed() == 1).await;
    assert_eq!(job.status(), "completed");
    job.end().await;
}

/// Nor while nothing could reach the replica: a beat may have been said into the void.
#[tokio::test(start_paused = true)]
async fn silence_does_not_count_while_nothing_can_be_heard() {
    let job = at_work(94, "", 3).await;
    assert_eq!(beat(&job.world, &job.task, "").await, json!("ok"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    job.world.bus.set_connected(false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    job.world.bus.set_connected(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(beat(&job.world, &job.task, "").await, json!("ok"));
    let silent = |event: &Event| matches!(event, Event::WorkerSilent { .. } | Event::TaskLost { .. });
    assert!(!job.has(silent).await, "{:#?}", job.events().await);
    // It counts again from then on.
    let next = pulled(&job.world).await;
    assert_eq!(text(&next, names::ATTEMPT), "2");
    assert!(job.has(silent).await);
    job.finish(&next).await;
    job.world.bus.acknowledge(&job.task);
    job.end().await;
}

/// Nor does it where the run has to leave the memory between two beats, and one that falls silent then is lost all the same.
#[tokio::test(start_paused = true)]
async fn what_was_heard_outlives_the_runs_stay_in_memory() {
    let mut world = World::new(110).await;
    world.config.live_runs = 0;
    world.register(&job("heartbeat: 12s", 3)).await;
    let replica = world.replica("r0");
    let start = async |world: &World, id: &str| {
        let start = subject::start("default", id, "job").unwrap();
        world.publish(&start, &[], Value::Null).await;
        world.until("started", |world| world.statuses().contains_key(id)).await;
    };
    start(&world, "j-1").await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let run = world.rows_of("j-1")[0].run_id;
    let task = pulled(&world).await;
    // By then the time of what lies in the queue tells that this one was taken.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for n in 0..12 {
        assert_eq!(beat(&world, &task, &format!("[{n}]")).await, json!("ok"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Another run starts, and all leave the memory with its commit.
        start(&world, &format!("k-{n}")).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let lost = |event: &Event| matches!(event, Event::TaskTimedOut { .. } | Event::TaskLost { .. });
    let events = world.events(run).await;
    assert!(!events.iter().any(lost), "{events:#?}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(world.events(run).await.iter().any(lost));
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_missed_heartbeat_ends_the_attempt_and_its_details_reach_the_next() {
    let job = at_work(94, "heartbeat: 4s", 3).await;
    assert_eq!(text(&job.task, names::HEARTBEAT), "4000");
    assert_eq!(text(&job.task, names::LAST_DETAILS), "");
    let say = async |details: &str| ask(&job.world, &job.task, "beat", &[], details).await;
    say("").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    say(r#"{"page": 7, "für": "alle"}"#).await;
    let heard = tokio::time::Instant::now();
    let next = pulled(&job.world).await;
    let silent = heard.elapsed().as_millis();
    assert!((4_000..6_000).contains(&silent), "{silent} ms");
    assert_eq!(text(&next, names::LAST_DETAILS), r#"{"page":7,"f\u00fcr":"alle"}"#);
    assert!(job.has(|event| matches!(event, Event::TaskTimedOut { .. })).await);
    job.world.bus.acknowledge(&job.task);
    job.finish(&next).await;
    job.end().await;
}

/// However long a worker beats, also over a takeover, its run has no event for that; when it falls silent it is found out all the same.
#[tokio::test(start_paused = true)]
async fn beats_alone_are_no_events() {
    let mut job = at_work(145, "heartbeat: 6s", 2).await;
    let count = async |job: &Job| job.events().await.len();
    let mut counts = Vec::new();
    for n in 0..90 {
        if n == 45 {
            job.replica.kill();
            job.replica = job.world.replica("r1");
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        assert_eq!(beat(&job.world, &job.task, &n.to_string()).await, json!("ok"));
        tokio::time::sleep(Duration::from_secs(2)).await;
        if n % 15 == 14 {
            counts.push(count(&job).await);
        }
    }
    assert_eq!(counts[0], counts[2], "within a minute: {counts:?}");
    assert!(counts[5] <= counts[2] + 2, "a takeover counts anew: {counts:?}");
    let heard = tokio::time::Instant::now();
    let next = pulled(&job.world).await;
    let silent = heard.elapsed().as_millis();
    assert!((3_000..8_000).contains(&silent), "{silent} ms");
    assert_eq!(text(&next, names::LAST_DETAILS), "89");
    job.world.bus.acknowledge(&job.task);
    job.finish(&next).await;
    job.end().await;
}

/// Nothing is stored of beats that come in time. What is asked about the queue of another step is asked anew all the same.
#[tokio::test(start_paused = true)]
async fn a_worker_that_beats_hides_no_other_that_is_late() {
    let mut world = World::new(146).await;
    world
        .register(
            r#"
workflow: pair
version: 1
defaults:
  queue: orders
  start_to_close: 1h
  retry: { initial_interval: 100ms, maximum_attempts: 3 }
steps:
  - both:
      parallel:
        branches:
          long: { steps: [ { watch: { activity: watch, read_only: true, heartbeat: 6s } } ] }
          short: { steps: [ { work: { activity: work, read_only: true, queue: others, start_to_close: 30s } } ] }
"#,
        )
        .await;
    let replica = world.replica("r0");
    let start = subject::start("default", "j-1", "pair").unwrap();
    world.publish(&start, &[], Value::Null).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 2)
        .await;
    let run = world.rows()[0].run_id;
    let watching = pulled(&world).await;
    let beats = async |world: &World, times: u32| {
        for _ in 0..times {
            assert_eq!(beat(world, &watching, "").await, json!("ok"));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    // Looked at while it lies in its queue, and taken later by a worker that dies.
    beats(&world, 50).await;
    let taken = world.bus.pull_tasks("default", "others", 1);
    assert_eq!(taken.len(), 1);
    beats(&world, 100).await;
    let events = world.events(run).await;
    let late = |event: &Event| matches!(event, Event::TaskTimedOut { .. });
    assert!(events.iter().any(late), "{events:#?}");
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn details_come_before_the_failure_they_belong_to() {
    let job = at_work(95, "", 3).await;
    beat(&job.world, &job.task, "[1]").await;
    beat(&job.world, &job.task, "[1,2]").await;
    ask(&job.world, &job.task, "result", &[(names::OUTCOME, "failed")], "").await;
    job.world.bus.acknowledge(&job.task);
    let next = pulled(&job.world).await;
    assert_eq!(text(&next, names::LAST_DETAILS), "[1,2]");
    job.finish(&next).await;
    job.end().await;
}

#[tokio::test(start_paused = true)]
async fn details_that_are_too_large_are_refused() {
    let job = at_work(96, "", 3).await;
    let refused = beat(&job.world, &job.task, &format!("\"{}\"", "x".repeat(2_047))).await;
    assert_eq!(refused["results"][0]["refused"]["code"], "KN0270", "{refused}");
    job.finish(&job.task).await;
    job.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_nobody_takes_is_taken_out_of_its_queue() {
    let (world, replica, run) = scheduled(97, "schedule_to_start: 10s", 3).await;
    world.until("failed", |world| world.closed() == 1).await;
    assert_eq!(
        world.statuses()["j-1"],
        "failed",
        "surely not done, so there is nothing to undo"
    );
    assert_eq!(world.bus.task_count("default"), 0);
    let events = world.events(run).await;
    assert!(events.iter().any(|event| matches!(event, Event::TaskWithdrawn { .. })));
    world.quiet().await;
    replica.stop().await;
}

/// However long its queue is without workers, with nothing said about how long a task may lie there.
#[tokio::test(start_paused = true)]
async fn a_cancelled_run_whose_task_nobody_has_takes_it_out_of_the_queue() {
    for cancellation in [
        "",
        "cancellation: try_cancel",
        "cancellation: wait_cancelled\n      heartbeat: 5s",
    ] {
        let (world, replica, run) = scheduled(140, cancellation, 3).await;
        world.verb("j-1", "cancel", &[]).await;
        world
            .within(Duration::from_secs(5), "cancelled", |world| world.closed() == 1)
            .await;
        assert_eq!(world.statuses()["j-1"], "cancelled");
        assert_eq!(world.bus.task_count("default"), 0);
        let events = world.events(run).await;
        assert!(events.iter().any(|event| matches!(event, Event::TaskWithdrawn { .. })));
        assert!(!events.iter().any(|event| matches!(event, Event::UndoScheduled { .. })));
        world.quiet().await;
        replica.stop().await;
    }
}

/// While a replica is there that could not read it, a run is begun as it was before, and stays so.
#[tokio::test(start_paused = true)]
async fn a_run_of_an_earlier_version_waits_for_its_queue_as_before() {
    let (world, replica, _) = scheduled_in(World::of_level(141, format::THIRD).await, "", 3).await;
    world.verb("j-1", "cancel", &[]).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.statuses()["j-1"], "compensating");
    assert_eq!(world.bus.task_count("default"), 1);
    world.work(honest());
    world.until("closed", |world| world.closed() == 1).await;
    replica.stop().await;
}

/// It was delivered and nobody answers: its worker is waited for within its timeouts, and then it is undone.
#[tokio::test(start_paused = true)]
async fn a_task_that_was_delivered_is_not_taken_from_its_worker() {
    let job = at_work(142, "start_to_close: 60s", 1).await;
    job.world.verb("j-1", "cancel", &[]).await;
    job.world
        .until("asked", |world| world.statuses()["j-1"] == "compensating")
        .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(job.status(), "compensating", "its worker may be at work");
    assert!(!job.has(|event| matches!(event, Event::TaskWithdrawn { .. })).await);
    let undo = pulled(&job.world).await;
    assert_eq!(text(&undo, names::DIRECTION), "undo");
    job.world.bus.acknowledge(&job.task);
    job.finish(&undo).await;
    job.world.until("cancelled", |world| world.closed() == 1).await;
    job.end().await;
}

/// Nor does one that never answers keep the others waiting.
#[tokio::test(start_paused = true)]
async fn a_queue_that_does_not_answer_keeps_no_withdrawal_of_another_waiting() {
    let (world, replica, _) = scheduled(145, "", 3).await;
    world.register_in("other", &job("", 3)).await;
    *world.weather.mute.lock().unwrap() = Some("other");
    let start = subject::start("other", "x-1", "job").unwrap();
    world.publish(&start, &[], Value::Null).await;
    world
        .until("dispatched", |world| world.bus.task_count("other") == 1)
        .await;
    let cancel = subject::run_verb("other", "x-1", "cancel").unwrap();
    world
        .publish(&cancel, &[(names::VERB, "cancel other")], Value::Null)
        .await;
    world
        .until("asked", |world| world.rows_in("other")[0].status == "compensating")
        .await;
    world.verb("j-1", "cancel", &[]).await;
    world
        .within(Duration::from_secs(5), "cancelled", |world| world.closed() == 1)
        .await;
    assert_eq!(world.statuses()["j-1"], "cancelled");
    assert_eq!(world.rows_in("other")[0].status, "compensating");
    replica.stop().await;
}

/// Its publication is under way when the run is cancelled: it is not looked for before it can be there.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_being_published_is_taken_out_once_it_is_there() {
    let mut world = World::new(143).await;
    world.register(&job("", 3)).await;
    let replica = world.replica("r0");
    let start = subject::start("default", "j-1", "job").unwrap();
    for slow in [false, true] {
        world.publish(&start, &[], Value::Null).await;
        // The stream keeps it without saying so, or not before the next try.
        world.bus.lose_acknowledgements(1, !slow);
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.verb("j-1", "cancel", &[]).await;
        world
            .within(Duration::from_secs(20), "cancelled", |world| {
                let rows = world.rows();
                !rows.is_empty() && rows.iter().all(|row| row.closed_at.is_some())
            })
            .await;
        assert_eq!(world.statuses()["j-1"], "cancelled");
        assert_eq!(world.bus.task_count("default"), 0);
    }
    world.quiet().await;
    replica.stop().await;
}

/// Whoever takes over asks for what the dead has not heard of.
#[tokio::test(start_paused = true)]
async fn a_new_owner_takes_out_what_the_old_one_was_asked_to() {
    let (mut world, replica, run) = scheduled(144, "", 3).await;
    world.weather.fail_withdrawals.store(u64::MAX, Ordering::SeqCst);
    world.verb("j-1", "cancel", &[]).await;
    world
        .until("asked", |world| world.statuses()["j-1"] == "compensating")
        .await;
    replica.kill();
    world.weather.fail_withdrawals.store(0, Ordering::SeqCst);
    let next = world.replica("r1");
    world
        .within(Duration::from_secs(60), "cancelled", |world| world.closed() == 1)
        .await;
    let events = world.events(run).await;
    assert!(events.iter().any(|event| matches!(event, Event::TaskWithdrawn { .. })));
    assert_eq!(world.bus.task_count("default"), 0);
    world.quiet().await;
    next.stop().await;
}

/// A run that is cancelled meanwhile waits no longer for it than anybody would have: it ends with nothing to undo.
#[tokio::test(start_paused = true)]
async fn a_cancelled_run_whose_task_nobody_takes_ends_when_the_task_is_taken_out() {
    for fields in ["schedule_to_start: 10s", "schedule_to_close: 10s"] {
        let (world, replica, run) = scheduled(127, fields, 3).await;
        world.verb("j-1", "cancel", &[]).await;
        world
            .within(Duration::from_secs(25), "cancelled", |world| world.closed() == 1)
            .await;
        assert_eq!(world.statuses()["j-1"], "cancelled");
        assert_eq!(world.bus.task_count("default"), 0);
        let events = world.events(run).await;
        assert!(events.iter().any(|event| matches!(event, Event::TaskWithdrawn { .. })));
        assert!(!events.iter().any(|event| matches!(event, Event::UndoScheduled { .. })));
        world.quiet().await;
        replica.stop().await;
    }
}

/// Asked over a queue that cannot be reached at first.
#[tokio::test(start_paused = true)]
async fn a_task_is_taken_out_when_its_queue_is_back() {
    let (world, replica, _) = scheduled(98, "schedule_to_start: 10s", 3).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    world.bus.set_connected(false);
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.bus.set_connected(true);
    world.until("failed", |world| world.closed() == 1).await;
    assert_eq!(world.statuses()["j-1"], "failed");
    world.quiet().await;
    replica.stop().await;
}

/// The first try fails, and its commit is offered again: what the queue says then is heard, too.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_taken_out_at_the_second_try_was_not_done_either() {
    let (world, replica, run) = scheduled(107, "schedule_to_start: 10s", 3).await;
    world.weather.fail_withdrawals.store(1, Ordering::SeqCst);
    world
        .within(Duration::from_secs(25), "failed", |world| world.closed() == 1)
        .await;
    assert_eq!(world.statuses()["j-1"], "failed");
    let events = world.events(run).await;
    assert!(events.iter().any(|event| matches!(event, Event::TaskWithdrawn { .. })));
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_delivered_in_time_is_left_where_it_is() {
    let job = at_work(99, "schedule_to_start: 10s", 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    job.finish(&job.task).await;
    job.world.until("done", |world| world.closed() == 1).await;
    assert_eq!(job.status(), "completed");
    job.end().await;
}

/// Another one of nearly its age lies behind it, so that the time of what is left in the queue does not tell that it was taken.
#[tokio::test(start_paused = true)]
async fn a_task_that_was_delivered_in_time_is_left_where_it_is_in_a_backlog_too() {
    let job = at_work(108, "schedule_to_start: 10s", 3).await;
    let start = subject::start("default", "j-2", "job").unwrap();
    job.world.publish(&start, &[], Value::Null).await;
    job.world
        .until("one more waits", |world| world.bus.task_count("default") == 2)
        .await;
    job.world
        .within(Duration::from_secs(30), "the other is taken back", |world| {
            world.statuses()["j-2"] == "failed"
        })
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(job.status(), "running");
    job.finish(&job.task).await;
    job.world.until("done", |world| world.closed() == 2).await;
    assert_eq!(job.status(), "completed");
    job.end().await;
}

#[tokio::test(start_paused = true)]
async fn schedule_to_close_ends_a_task_under_way() {
    let job = at_work(100, "schedule_to_close: 10s", 3).await;
    assert_ne!(text(&job.task, names::DEADLINE), "", "a worker refuses it afterwards");
    job.world.bus.acknowledge(&job.task);
    let undo = pulled(&job.world).await;
    assert_eq!(text(&undo, names::DIRECTION), "undo");
    job.finish(&undo).await;
    job.world.until("undone", |world| world.closed() == 1).await;
    assert_eq!(job.status(), "compensated");
    job.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_granted_once_and_survives_a_takeover() {
    let mut job = at_work(101, "", 1).await;
    assert_eq!(text(&job.task, names::MAX_ATTEMPTS), "1", "what workers claim by");
    let claim = async |job: &Job, by: &str| ask(&job.world, &job.task, "claim", &[(names::CLAIM, by)], "").await;
    assert_eq!(claim(&job, "one").await, json!("granted"));
    assert_eq!(
        claim(&job, "one").await,
        json!("granted"),
        "its answer may have been lost"
    );
    assert_eq!(claim(&job, "two").await, json!("taken"));
    job.replica.kill();
    job.replica = job.world.replica("r0");
    assert_eq!(claim(&job, "two").await, json!("taken"));
    assert_eq!(claim(&job, "one").await, json!("granted"));
    let nameless = ask(&job.world, &job.task, "claim", &[], "").await;
    assert_eq!(nameless["results"][0]["refused"]["code"], "KN0222", "{nameless}");
    job.finish(&job.task).await;
    assert_eq!(claim(&job, "two").await, json!("gone"));
    job.end().await;
}

/// A run that cannot be read just now is there all the same: its worker is neither stopped nor told to let go of its task.
#[tokio::test(start_paused = true)]
async fn the_worker_of_a_run_that_cannot_be_read_is_told_nothing() {
    let mut job = at_work(111, "", 1).await;
    job.world.until("nothing is owed", World::is_quiet).await;
    job.replica.kill();
    *job.world.weather.spoils_run.lock().unwrap() = Some(job.run);
    job.replica = job.world.replica("r0");
    let mut inbox = job.world.bus.subscribe("_INBOX.unreadable");
    let (token, direct) = (text(&job.task, names::TOKEN), text(&job.task, names::DIRECT));
    for _ in 0..60 {
        for kind in ["beat", "claim"] {
            let headers = headers_of(&[(names::TOKEN, token), (names::CLAIM, "one")]);
            let to = format!("{direct}.{kind}");
            job.world
                .bus
                .send_direct(&to, headers, Bytes::new(), Some("_INBOX.unreadable"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(job.replica.line.loads.load(Ordering::SeqCst) > 0, "it was looked for");
    assert!(inbox.try_recv().is_err());
    job.replica.kill();
    *job.world.weather.spoils_run.lock().unwrap() = None;
    job.replica = job.world.replica("r0");
    let claimed = ask(&job.world, &job.task, "claim", &[(names::CLAIM, "one")], "").await;
    assert_eq!(claimed, json!("granted"));
    job.finish(&job.task).await;
    job.end().await;
}

/// A worker claims and dies: the step is unknown after it has missed three beats, and is undone.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_never_resolved_ends_unknown() {
    let job = at_work(102, "", 1).await;
    ask(&job.world, &job.task, "claim", &[(names::CLAIM, "one")], "").await;
    beat(&job.world, &job.task, "").await;
    let undo = pulled(&job.world).await;
    assert_eq!(text(&undo, names::DIRECTION), "undo");
    job.world.bus.acknowledge(&job.task);
    job.finish(&undo).await;
    job.world.until("undone", |world| world.closed() == 1).await;
    assert_eq!(job.status(), "compensated");
    job.end().await;
}

/// Its worker lets go of the message, and says how it ended after half an hour, by the log, from wherever.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_finished_later_is_waited_for() {
    let job = at_work(103, "", 1).await;
    beat(&job.world, &job.task, "").await;
    ask(&job.world, &job.task, "result", &[(names::OUTCOME, "later")], "").await;
    job.world.bus.acknowledge(&job.task);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    let token = text(&job.task, names::TOKEN).to_owned();
    let reply = text(&job.task, names::REPLY).to_owned();
    job.world.publish(&reply, &[(names::TOKEN, &token)], json!(42)).await;
    job.world.until("done", |world| world.closed() == 1).await;
    assert_eq!(job.status(), "completed");
    job.end().await;
}

/// Whoever finishes it beats without a promise, and is heard though its worker has promised more before.
#[tokio::test(start_paused = true)]
async fn heartbeats_of_a_task_that_is_finished_later_are_heard() {
    let job = at_work(109, "heartbeat: 20s", 1).await;
    beat(&job.world, &job.task, "").await;
    ask(&job.world, &job.task, "result", &[(names::OUTCOME, "later")], "").await;
    job.world.bus.acknowledge(&job.task);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert_eq!(ask(&job.world, &job.task, "beat", &[], "").await, json!("ok"));
    }
    job.finish(&job.task).await;
    job.world.until("done", |world| world.closed() == 1).await;
    assert_eq!(job.status(), "completed");
    job.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_never_finished_later_times_out() {
    let job = at_work(104, "heartbeat: 30s", 1).await;
    ask(&job.world, &job.task, "result", &[(names::OUTCOME, "later")], "").await;
    job.world.bus.acknowledge(&job.task);
    let undo = pulled(&job.world).await;
    assert_eq!(text(&undo, names::DIRECTION), "undo");
    job.finish(&undo).await;
    job.end().await;
}

/// By the answer to a beat, and by a push to all workers of the queue; not at all where the task is abandoned.
#[tokio::test(start_paused = true)]
async fn a_cancellation_reaches_the_worker_twice_unless_it_is_abandoned() {
    for (fields, answer, pushed) in [
        ("", json!("cancel"), 1),
        ("cancellation: wait_cancelled\n      heartbeat: 20s", json!("cancel"), 1),
        ("cancellation: abandon", json!("ok"), 0),
    ] {
        let job = at_work(105, fields, 3).await;
        let mut pushes = job.world.bus.subscribe("knarr.cancel.default.orders");
        beat(&job.world, &job.task, "").await;
        job.world.verb("j-1", "cancel", &[]).await;
        job.world
            .until("the run stops", |world| world.statuses()["j-1"] == "compensating")
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(beat(&job.world, &job.task, "").await, answer, "{fields}");
        let mut count = 0;
        while let Ok(push) = pushes.try_recv() {
            let push: Value = serde_json::from_slice(&push.payload).unwrap();
            assert_eq!(push["tokens"], json!([text(&job.task, names::TOKEN)]));
            count += 1;
        }
        assert_eq!(count, pushed, "{fields}");
        if pushed == 0 {
            let undo = pulled(&job.world).await;
            job.finish(&undo).await;
        } else {
            ask(&job.world, &job.task, "result", &[(names::OUTCOME, "cancelled")], "").await;
        }
        job.world.bus.acknowledge(&job.task);
        job.world.until("cancelled", |world| world.closed() == 1).await;
        assert_eq!(job.status(), "cancelled");
        job.end().await;
    }
}

/// With `wait_cancelled` a worker that goes on beating is waited for past its start-to-close.
#[tokio::test(start_paused = true)]
async fn a_worker_that_cleans_up_gets_the_time_it_needs() {
    let fields = "cancellation: wait_cancelled\n      start_to_close: 30s\n      heartbeat: 20s";
    let job = at_work(106, fields, 3).await;
    assert_eq!(text(&job.task, names::CANCELLATION), "wait_cancelled");
    beat(&job.world, &job.task, "").await;
    job.world.verb("j-1", "cancel", &[]).await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        beat(&job.world, &job.task, "").await;
    }
    assert_eq!(job.status(), "compensating");
    ask(&job.world, &job.task, "result", &[(names::OUTCOME, "cancelled")], "").await;
    job.world.bus.acknowledge(&job.task);
    job.world.until("cancelled", |world| world.closed() == 1).await;
    assert!(!job.has(|event| matches!(event, Event::TaskTimedOut { .. })).await);
    job.end().await;
}

/// What workers may say that a replica of the first level could not read.
const OF_SECOND: [&str; 4] = ["heartbeat_taken", "worker_silent", "task_claimed", "task_left"];

/// Before the second level it counts as a replica that does not know the words would count it: details are lost, silence is left
/// to the server, a claim is not answered, and *later* is no outcome.
#[tokio::test(start_paused = true)]
async fn what_workers_say_waits_for_the_end_of_an_upgrade() {
    for (level, seed) in [(1, 120), (2, 121)] {
        let mut world = World::of_level(seed, level).await;
        world.config.run_limits = knarr_core::run::limits::RunLimits {
            events: Some(5_000),
            ..Default::default()
        };
        let (world, replica, run) = scheduled_in(world, "", 3).await;
        let first = pulled(&world).await;
        let job = Job {
            world,
            replica,
            run,
            task: first,
        };
        beat(&job.world, &job.task, "[1]").await;
        ask(&job.world, &job.task, "result", &[(names::OUTCOME, "failed")], "").await;
        job.world.bus.acknowledge(&job.task);
        let second = pulled(&job.world).await;
        assert_eq!(text(&second, names::LAST_DETAILS), if level == 1 { "" } else { "[1]" });

        let inbox = job.world.bus.subscribe("_INBOX.claim");
        let mut headers = headers_of(&[(names::TOKEN, text(&second, names::TOKEN)), (names::CLAIM, "me")]);
        headers.extend(headers_of(&[(names::BEAT_EVERY_MS, "5000")]));
        for kind in ["claim", "beat"] {
            let to = format!("{}.{kind}", text(&second, names::DIRECT));
            let answer = (kind == "claim").then_some("_INBOX.claim");
            job.world.bus.send_direct(&to, headers.clone(), Bytes::new(), answer);
        }
        // Silent for longer than it has promised.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(inbox.len(), usize::from(level == 2), "whoever hears nothing asks again");

        let open = match level {
            1 => second,
            _ => pulled(&job.world).await,
        };
        ask(&job.world, &open, "result", &[(names::OUTCOME, "later")], "").await;
        job.world.bus.acknowledge(&open);
        if level == 1 {
            let third = pulled(&job.world).await;
            assert_eq!(text(&third, names::ATTEMPT), "3");
            job.finish(&third).await;
        } else {
            job.finish(&open).await;
        }
        job.world.until("done", |world| world.closed() == 1).await;

        let stored: Vec<String> = job
            .world
            .store
            .dump(|_| 0)
            .events
            .into_iter()
            .map(|append| append.transition.body)
            .collect();
        for name in OF_SECOND {
            let name = format!(r#"{{"{name}":"#);
            let found = stored.iter().any(|body| body.contains(&name));
            assert_eq!(found, level == 2, "{name} at level {level}: {stored:#?}");
        }
        assert_eq!(stored.iter().any(|body| body.contains(r#""limits":"#)), level == 2);
        job.end().await;
    }
}
