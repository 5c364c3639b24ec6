//! What cannot be committed or published as it is.

use std::sync::Arc;
use std::time::Duration;

use knarr_core::run::Event;
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::{Act, World, done};
use crate::bus::header;

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
