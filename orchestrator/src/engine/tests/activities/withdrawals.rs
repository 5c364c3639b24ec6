//! Tasks that nobody has had, and that are taken out of their queues.

use super::*;

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

/// It would be done for nobody when a worker comes. Nothing but its own task is taken, and the run hears no more of it.
#[tokio::test(start_paused = true)]
async fn a_terminated_run_whose_task_nobody_has_takes_it_out_of_the_queue() {
    let (world, replica, run) = scheduled(146, "", 3).await;
    let start = subject::start("default", "j-2", "job").unwrap();
    world.publish(&start, &[], Value::Null).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 2)
        .await;
    // The first tries get no answer.
    world.weather.fail_withdrawals.store(3, Ordering::SeqCst);
    world.verb("j-1", "terminate", &[]).await;
    world
        .within(Duration::from_secs(10), "taken out", |world| {
            world.bus.task_count("default") == 1
        })
        .await;
    assert_eq!(world.statuses()["j-1"], "terminated");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let events = world.events(run).await;
    assert!(
        matches!(events.last(), Some(Event::RunTerminated { .. })),
        "it hears nothing of it: {events:#?}"
    );
    world.work(honest());
    world
        .until("done", |world| world.statuses()["j-2"] == "completed")
        .await;
    assert!(world.effects_of(run).is_empty(), "{:?}", world.effects_of(run));
    world.quiet().await;
    replica.stop().await;
}

/// The dead one was still publishing what it had committed.
#[tokio::test(start_paused = true)]
async fn a_new_owner_takes_out_what_a_terminated_run_has_left() {
    let (mut world, replica, _) = scheduled(147, "", 3).await;
    *world.weather.loses_subject.lock().unwrap() = Some("knarr.cancel.");
    world.verb("j-1", "terminate", &[]).await;
    world
        .until("terminated", |world| world.statuses()["j-1"] == "terminated")
        .await;
    replica.kill();
    assert_eq!(world.bus.task_count("default"), 1);
    *world.weather.loses_subject.lock().unwrap() = None;
    let next = world.replica("r1");
    world
        .within(Duration::from_secs(60), "taken out", |world| {
            world.bus.task_count("default") == 0
        })
        .await;
    world.quiet().await;
    next.stop().await;
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
