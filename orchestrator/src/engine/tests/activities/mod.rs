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

mod claims;
mod heartbeats;
mod withdrawals;

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
