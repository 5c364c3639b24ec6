//! Workers that are heard of, and those that are not.

use super::*;

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
