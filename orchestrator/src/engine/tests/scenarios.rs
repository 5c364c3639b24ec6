//! One fault at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::{by_log, forgotten, honest, out_of_stock, unknown_payment};
use super::world::{Act, World, done, failed};
use crate::bus::header;
use crate::store::memory::CommitFault;

#[tokio::test(start_paused = true)]
async fn an_order_ends_as_it_must() {
    for (script, status) in [
        (honest(), "completed"),
        (out_of_stock(), "compensated"),
        (unknown_payment(), "compensated"),
        (by_log(honest()), "completed"),
        (by_log(out_of_stock()), "compensated"),
    ] {
        let mut world = World::new(1).await;
        let replica = world.replica("r0");
        world.work(script);
        world.start("o-1", &[]).await;
        world.until("closed", |world| world.closed() == 1).await;
        world.quiet().await;
        assert_eq!(world.statuses()["o-1"], status);
        replica.stop().await;
    }
}

/// A commit is lost, before or after its effect, at every number it can have.
#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_changes_nothing_but_time() {
    for fault in [CommitFault::LostBefore, CommitFault::LostAfter, CommitFault::Refused] {
        for script in [honest(), out_of_stock()] {
            for lost in 1..14 {
                let mut world = World::new(lost).await;
                let replica = world.replica("r0");
                world.work(Arc::clone(&script));
                let line = Arc::clone(&replica.line);
                let store = world.store.clone();
                tokio::spawn(async move {
                    while line.commits.load(Ordering::SeqCst) < lost - 1 {
                        tokio::task::yield_now().await;
                        tokio::time::sleep(Duration::from_micros(100)).await;
                    }
                    store.fail_next_commit(fault);
                });
                for n in 0..3 {
                    world.start(&format!("o-{n}"), &[]).await;
                }
                // A batch of one input that is refused names its culprit, which is set aside.
                world
                    .until("closed, or set aside", |world| {
                        let parked = world.statuses().values().filter(|status| *status == "parked").count();
                        let unborn = 3 - world.rows().len().min(3);
                        let aside = parked + unborn.min(world.bus.dead_letters().len());
                        world.closed() + aside == 3 && aside <= usize::from(fault == CommitFault::Refused)
                    })
                    .await;
                world.quiet().await;
                replica.stop().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_culprit_of_a_refused_batch_is_set_aside() {
    for by_log in [false, true] {
        let mut world = World::new(3).await;
        *world.weather.refuses.lock().unwrap() = Some("poison!".to_owned());
        let replica = world.replica("r0");
        world.work(Arc::new(move |task| {
            let poison = task.workflow_id == "o-3" && task.activity == "process-payment";
            Act {
                output: poison.then(|| json!("poison!")),
                by_log,
                ..done()
            }
        }));
        for n in 0..8 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world
            .until("seven closed, one parked", |world| {
                world.closed() == 7 && world.statuses()["o-3"] == "parked"
            })
            .await;
        world.quiet().await;
        let letters = world.bus.dead_letters();
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert!(letters[0].payload.windows(7).any(|part| part == b"poison!"));
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_input_that_makes_core_panic_is_set_aside() {
    for by_log in [false, true] {
        let mut world = World::new(4).await;
        let replica = world.replica("r0");
        world.work(Arc::new(move |task| {
            let panic = task.workflow_id == "o-3" && task.activity == "process-payment";
            Act {
                outcome: panic.then_some("failed"),
                error_type: panic.then_some("panic"),
                by_log,
                ..done()
            }
        }));
        for n in 0..8 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world
            .until("seven closed, one parked", |world| {
                world.closed() == 7 && world.statuses()["o-3"] == "parked"
            })
            .await;
        world.quiet().await;
        let letters = world.bus.dead_letters();
        let codes: Vec<_> = letters
            .iter()
            .map(|letter| header(&letter.headers, names::ERROR_CODE))
            .collect();
        assert_eq!(codes, [Some("KN0220")], "{by_log}");
        replica.stop().await;
    }
}

/// Where not even parking its run works an input is let go, and the run goes on by its timeouts.
#[tokio::test(start_paused = true)]
async fn an_input_whose_run_cannot_be_parked_is_let_go() {
    super::PARKING_PANICS.set(true);
    let mut world = World::new(132).await;
    let replica = world.replica("r0");
    world.work(Arc::new(move |task| {
        let panic = task.workflow_id == "o-3" && task.activity == "process-payment";
        Act {
            outcome: panic.then_some("failed"),
            error_type: panic.then_some("panic"),
            by_log: true,
            ..done()
        }
    }));
    for n in 0..8 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("all closed", |world| world.closed() == 8).await;
    world.quiet().await;
    assert_eq!(world.statuses()["o-3"], "compensated");
    assert_eq!(world.bus.dead_letters().len(), 3, "one of each attempt");
    replica.stop().await;
    super::PARKING_PANICS.set(false);
}

#[tokio::test(start_paused = true)]
async fn a_full_task_stream_holds_and_offers_again() {
    let mut world = World::new(5).await;
    let replica = world.replica("r0");
    world.work(honest());
    let stream = subject::task_stream("default").unwrap();
    world.bus.set_full(&stream, true);
    world.start("o-1", &[]).await;
    world
        .until("held", |world| !world.rows().is_empty() && world.is_quiet())
        .await;
    let run = world.rows()[0].run_id;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        world
            .events(run)
            .await
            .iter()
            .any(|event| matches!(event, Event::DispatchHeld { .. }))
    );
    world.bus.set_full(&stream, false);
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    replica.stop().await;
}

/// A task is stored and not acknowledged, and its stream is full when it is offered again, by its replica or, when that has
/// died, by the next one: a worker may have it, so that a cancelled run undoes it.
#[tokio::test(start_paused = true)]
async fn a_task_refused_when_it_is_offered_again_may_be_in_a_workers_hands() {
    for dies in [false, true] {
        let mut world = World::new(26).await;
        let mut replica = world.replica("r0");
        let stream = subject::task_stream("default").unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.start("o-1", &[]).await;
        world.bus.lose_acknowledgements(1, true);
        world
            .until("stored", |world| world.bus.task_count("default") == 1)
            .await;
        world.bus.set_full(&stream, true);
        let task = world.bus.pull_tasks("default", "orders", 1).remove(0);
        if dies {
            replica.kill();
            // The stream forgets the ids of its messages.
            tokio::time::sleep(Duration::from_secs(31)).await;
            replica = world.replica("r0");
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        let run = world.rows()[0].run_id;
        let held = |event: &Event| matches!(event, Event::DispatchHeld { in_doubt: true, .. });
        assert!(world.events(run).await.iter().any(held), "{dies}");
        world.verb("o-1", "cancel", &[]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let text = |name| header(&task.headers, name).unwrap().to_owned();
        world
            .publish(&text(names::REPLY), &[(names::TOKEN, &text(names::TOKEN))], json!(1))
            .await;
        world.bus.acknowledge(&task);
        world.bus.set_full(&stream, false);
        world.work(honest());
        world.until("closed", |world| world.closed() == 1).await;
        world.quiet().await;
        assert_eq!(world.statuses()["o-1"], "cancelled");
        let undo = |event: &Event| matches!(event, Event::UndoScheduled { .. });
        assert!(world.events(run).await.iter().any(undo), "{dies}");
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_activity_nobody_answers_for_times_out_and_a_backlog_does_not() {
    let mut world = World::new(6).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    // Nobody pulls: the task is not late.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let run = world.rows()[0].run_id;
    assert!(
        !world
            .events(run)
            .await
            .iter()
            .any(|event| matches!(event, Event::TaskTimedOut { .. }))
    );
    // Pulled and forgotten.
    world.work(forgotten());
    world
        .within(Duration::from_secs(200), "closed", |world| world.closed() == 1)
        .await;
    let timeouts = world.events(run).await;
    assert_eq!(
        timeouts
            .iter()
            .filter(|event| matches!(event, Event::TaskTimedOut { .. }))
            .count(),
        3
    );
    replica.stop().await;
}

/// Deadlines of several runs of one partition that come due one after another, while the log is being asked about.
#[tokio::test(start_paused = true)]
async fn timeouts_that_come_due_in_a_row_all_fire() {
    let mut world = World::new(7).await;
    world.config.partitions = 3;
    world.weather.latency_ms.store(40, Ordering::SeqCst);
    let replica = world.replica("r0");
    world.work(forgotten());
    for n in 0..30 {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(37)).await;
    }
    world
        .within(Duration::from_secs(90), "closed", |world| world.closed() == 30)
        .await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_overdue_deadlines_does_not_overtake_results_in_the_log() {
    let mut world = World::new(8).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let task = world.bus.pull_tasks("default", "orders", 1).remove(0);
    // The deadline is known to run from the delivery on.
    tokio::time::sleep(Duration::from_secs(7)).await;
    replica.kill();
    let text = |name| header(&task.headers, name).unwrap().to_owned();
    world
        .publish(&text(names::REPLY), &[(names::TOKEN, &text(names::TOKEN))], json!(1))
        .await;
    world.bus.acknowledge(&task);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let replica = world.replica("r0");
    world.work(honest());
    world.until("closed", |world| world.closed() == 1).await;
    let run = world.rows()[0].run_id;
    assert!(
        !world
            .events(run)
            .await
            .iter()
            .any(|event| matches!(event, Event::TaskTimedOut { .. }))
    );
    assert_eq!(world.statuses()["o-1"], "completed");
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_overdue_deadline_fires_after_a_restart() {
    let mut world = World::new(9).await;
    let replica = world.replica("r0");
    for n in 0..6 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 6)
        .await;
    for task in world.bus.pull_tasks("default", "orders", 10) {
        world.bus.acknowledge(&task);
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    replica.kill();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let replica = world.replica("r0");
    world.work(honest());
    world
        .within(Duration::from_secs(30), "closed", |world| world.closed() == 6)
        .await;
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_is_recreated_or_rolled_back() {
    for recreated in [true, false] {
        let mut world = World::new(10).await;
        let replica = world.replica("r0");
        world.work(by_log(Arc::new(|_| Act {
            takes_ms: 300,
            ..done()
        })));
        let copy = world.bus.copy_log();
        for n in 0..4 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world.until("started", |world| world.rows().len() == 4).await;
        if recreated {
            world.bus.lose_log();
        } else {
            world.bus.restore_log(&copy);
        }
        world.start("o-4", &[]).await;
        world.until("closed", |world| world.closed() == 5).await;
        world.quiet().await;
        replica.stop().await;
    }
}

/// What was read and not yet applied when the log was lost is in memory, and takes effect.
#[tokio::test(start_paused = true)]
async fn what_was_read_of_a_lost_log_is_not_dropped() {
    let mut world = World::new(11).await;
    world.weather.latency_ms.store(50, Ordering::SeqCst);
    let replica = world.replica("r0");
    world.work(honest());
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..10 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.bus.lose_log();
    world.until("closed", |world| world.closed() == 10).await;
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_comes_back() {
    let mut world = World::new(12).await;
    let replica = world.replica("r0");
    world.work(honest());
    for n in 0..5 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    tokio::time::sleep(Duration::from_millis(3)).await;
    world.bus.set_connected(false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.bus.set_connected(true);
    world.until("closed", |world| world.closed() == 5).await;
    world.quiet().await;
    assert!(world.statuses().values().all(|status| status == "completed"));
    replica.stop().await;
}

/// A replica dies at each of its calls in turn, and another takes over (or it comes back under its own name).
#[tokio::test(start_paused = true)]
async fn a_replica_that_dies_anywhere_is_taken_over() {
    for successor in ["r0", "r1"] {
        for script in [honest(), out_of_stock()] {
            let mut crossing = 1;
            loop {
                let mut world = World::new(crossing).await;
                world.weather.latency_ms.store(2, Ordering::SeqCst);
                let mut inbox = world.bus.subscribe("_INBOX.caller");
                let first = world.replica_dying_at("r0", crossing);
                world.work(Arc::clone(&script));
                world
                    .start(
                        "o-1",
                        &[(names::REPLY_TO, "_INBOX.caller"), (names::REPLY_ON, "closed")],
                    )
                    .await;
                world.start("o-2", &[]).await;
                let unkeyed = subject::unkeyed_start("default", "order").unwrap();
                world.publish(&unkeyed, &[], json!({ "order": "o-3" })).await;
                // It may still die after the last run has closed, with something owed.
                let done = |world: &World| world.closed() == 3 && world.is_quiet();
                world
                    .until("done or dead", |world| done(world) || first.has_ended())
                    .await;
                let died = first.has_ended();
                let second = world.replica(successor).checked(died);
                world.until("closed", |world| world.closed() == 3).await;
                world.quiet().await;
                let answer = world.answer(&mut inbox).await;
                assert_eq!(answer.stage, AnswerStage::Closed, "crossing {crossing}");
                assert_eq!(world.rows().len(), 3, "crossing {crossing}");
                if let Some(second) = second {
                    second.stop().await;
                }
                if !died {
                    first.kill();
                    break;
                }
                crossing += 1;
            }
            assert!(crossing > 20);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_are_shared_and_handed_over_under_load() {
    for seed in 1..6 {
        let mut world = World::new(seed).await;
        world.weather.latency_ms.store(20, Ordering::SeqCst);
        let first = world.replica("r0");
        world.work(Arc::new(|task| Act {
            takes_ms: task.random.below(400),
            ..done()
        }));
        let mut second = None;
        for n in 0..60 {
            world.start(&format!("o-{n}"), &[]).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            if n == 20 {
                second = Some(world.replica("r1"));
            }
        }
        world.until("closed", |world| world.closed() == 60).await;
        world.quiet().await;
        first.stop().await;
        world.start("o-60", &[]).await;
        world.until("closed", |world| world.closed() == 61).await;
        world.quiet().await;
        second.unwrap().stop().await;
    }
}

/// A replica that is never without a commit under way gives partitions back all the same.
#[tokio::test(start_paused = true)]
async fn a_replica_that_always_commits_gives_partitions_back() {
    let mut world = World::new(130).await;
    world.weather.commit_ms.store(100, Ordering::SeqCst);
    let first = world.replica("r0");
    world.work(honest());
    let mut second = None;
    let starts = 1_000;
    for n in 0..starts {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        if n == 100 {
            second = Some(world.replica("r1"));
        }
    }
    let second = second.unwrap();
    assert!(second.line.commits.load(Ordering::SeqCst) > 0, "it has nothing to do");
    world.until("closed", |world| world.closed() == starts).await;
    world.quiet().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_task_survives_the_handover_of_its_partition() {
    let mut world = World::new(13).await;
    world.weather.latency_ms.store(30, Ordering::SeqCst);
    let first = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stream = subject::task_stream("default").unwrap();
    world.bus.set_full(&stream, true);
    world.work(honest());
    let second = world.replica("r1");
    for n in 0..100 {
        world.start(&format!("o-{n}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.bus.set_full(&stream, false);
    world.until("closed", |world| world.closed() == 100).await;
    world.quiet().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn little_memory_is_enough() {
    for (live_runs, batch_inputs, intake) in [(1, 1, 1), (1, 2, 4), (2, 3, 8), (3, 2_000, 8_192), (1, 2_000, 3)] {
        let mut world = World::new(14).await;
        world.config.live_runs = live_runs;
        world.config.batch_inputs = batch_inputs;
        world.config.intake = intake;
        world.config.snapshot_every = 2;
        world.weather.latency_ms.store(5, Ordering::SeqCst);
        let replica = world.replica("r0");
        world.work(Arc::new(|task| {
            let act = if task.workflow_id.ends_with('3') && task.activity == "reserve-inventory" {
                failed()
            } else {
                done()
            };
            Act {
                by_log: task.random.one_in(2),
                repeats: u32::from(task.random.one_in(4)),
                takes_ms: task.random.below(50),
                ..act
            }
        }));
        for n in 0..20 {
            world.start(&format!("o-{n}"), &[]).await;
        }
        world.until("closed", |world| world.closed() == 20).await;
        world.quiet().await;
        let letters = world.bus.dead_letters();
        assert!(letters.is_empty(), "{live_runs} {batch_inputs} {intake}: {letters:#?}");
        replica.stop().await;
    }
}

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

/// One id for a cancellation and for the start that is to replace the run: neither is lost, and nothing waits behind them.
#[tokio::test(start_paused = true)]
async fn a_request_id_of_another_verb_holds_up_nobody() {
    let mut world = World::new(25).await;
    let replica = world.replica("r0");
    // The payment is in nobody's hands: the run is being stopped for as long as it lies in its queue.
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
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
async fn a_cancelled_order_is_undone() {
    let mut world = World::new(18).await;
    let replica = world.replica("r0");
    world.work(Arc::new(|task| Act {
        takes_ms: 2_000,
        outcome: (task.activity == "process-payment").then_some("cancelled"),
        effect: task.activity != "process-payment",
        ..done()
    }));
    world.start("o-1", &[]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.verb("o-1", "cancel", &[]).await;
    world.verb("o-1", "cancel", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    assert_eq!(world.statuses()["o-1"], "cancelled");
    world.verb("o-1", "cancel", &[]).await;
    world
        .until("refused", |world| world.bus.dead_letters().len() == 1)
        .await;
    replica.stop().await;
}

/// Deadlines of partitions taken while the store is being asked for those of others are not forgotten.
#[tokio::test(start_paused = true)]
async fn overdue_deadlines_of_a_partition_taken_later_fire_soon() {
    let mut world = World::new(19).await;
    let first = world.replica("r0");
    let second = world.replica("r1");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for n in 0..12 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 12)
        .await;
    for task in world.bus.pull_tasks("default", "orders", 20) {
        world.bus.acknowledge(&task);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The store answers slowly: what is asked is still under way when the partitions of the dead one come.
    world.weather.latency_ms.store(400, Ordering::SeqCst);
    first.kill();
    world.work(honest());
    world
        .within(Duration::from_secs(40), "closed", |world| world.closed() == 12)
        .await;
    world.weather.latency_ms.store(0, Ordering::SeqCst);
    world.quiet().await;
    second.stop().await;
}

/// A reader that could not be opened and was superseded must not come back and replace its successor.
#[tokio::test(start_paused = true)]
async fn readers_that_opened_late_do_not_make_a_partition_deaf() {
    for seed in 1..12 {
        let mut world = World::new(seed).await;
        world.weather.fail_read.store(2, Ordering::SeqCst);
        world.weather.latency_ms.store(10, Ordering::SeqCst);
        let replica = world.replica("r0");
        world.work(honest());
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(30 + seed * 40)).await;
            world.store.fail_next_commit(CommitFault::LostBefore);
            world.start(&format!("o-{}", world.random.next()), &[]).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.weather.fail_read.store(0, Ordering::SeqCst);
        for n in 0..12 {
            world.start(&format!("p-{n}"), &[]).await;
        }
        world
            .within(Duration::from_secs(60), "closed", |world| world.closed() == 16)
            .await;
        world.quiet().await;
        replica.stop().await;
    }
}

/// Renewals and the end do not wait for a pause in what comes in.
#[tokio::test(start_paused = true)]
async fn a_replica_under_constant_load_renews_its_lease_and_can_be_stopped() {
    let mut world = World::new(20).await;
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.weather.latency_ms.store(1, Ordering::SeqCst);
    let line = Arc::clone(&replica.line);
    let before = line.keeps.load(Ordering::SeqCst);
    let bus = world.bus.clone();
    let flood = tokio::spawn(async move {
        loop {
            // Beats of nobody: refused in memory, without a commit.
            for partition in 0..3 {
                bus.send_direct(
                    &format!("knarr.direct.default.{partition}.beat"),
                    Vec::new(),
                    Default::default(),
                    None,
                );
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_micros(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept = line.keeps.load(Ordering::SeqCst) - before;
    assert!(kept >= 4, "{kept} renewals in three seconds");
    replica.stop().await;
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_store_is_gone_can_be_stopped() {
    let mut world = World::new(21).await;
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.store.set_available(false);
    world.start("o-1", &[]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_replica_owes_nothing() {
    let mut world = World::new(22).await;
    world.weather.latency_ms.store(10, Ordering::SeqCst);
    let replica = world.replica("r0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..20 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world.until("started", |world| !world.rows().is_empty()).await;
    replica.stop().await;
    let dump = world.store.dump(|_| 0);
    assert!(dump.commits.is_empty(), "{:?}", dump.commits);
    assert!(dump.partitions.iter().all(|row| row.owner.is_none()));
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_does_not_spin() {
    let mut world = World::new(23).await;
    let replica = world.replica("r0");
    world.start("o-1", &[]).await;
    world
        .until("dispatched", |world| world.bus.task_count("default") == 1)
        .await;
    let before = super::turns();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let turns = super::turns() - before;
    assert!(turns < 2_000, "{turns} turns in 100 s");
    replica.stop().await;
}

/// Inputs that change nothing are not committed, and must not fill a batch either.
#[tokio::test(start_paused = true)]
async fn overdue_runs_that_have_to_wait_do_not_stop_the_rest() {
    let mut world = World::new(24).await;
    world.config.batch_inputs = 4;
    let replica = world.replica("r0");
    for n in 0..10 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    world
        .until("dispatched", |world| world.bus.task_count("default") == 10)
        .await;
    for task in world.bus.pull_tasks("default", "orders", 10) {
        world.bus.acknowledge(&task);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    replica.kill();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let replica = world.replica("r0");
    world.work(honest());
    // Within the grace: the overdue ten wait, and this one does not.
    world.start("o-10", &[]).await;
    world
        .within(Duration::from_secs(2), "closed", |world| world.closed() == 1)
        .await;
    world.until("closed", |world| world.closed() == 11).await;
    world.quiet().await;
    replica.stop().await;
}
