//! Tasks that are claimed, or finished later by whoever has their token.

use super::*;

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
