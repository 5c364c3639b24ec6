//! Places among the open runs of a workflow, after messages about them were lost for good or came a second time.

use knarr_core::ids::RunId;
use knarr_core::limit::{Ask, Bound, LimitKind, LimitName, OnConflict};
use knarr_core::run::effect::Direction;
use knarr_core::run::message::Body;
use knarr_schemas::body::{RunMessage, SendingRun};
use tokio::time::Duration;

use super::admission::{Seen, count, gated, settled, start};
use super::messages::publish_signed;
use super::world::{World, done};

/// A run goes on in another one, once; others of its customer wait for both.
const CHAIN: &str = r#"
workflow: gated
version: 1
concurrency: { key: input.customer, limit: 1 }
defaults: { queue: orders, start_to_close: 20s, retry: { maximum_attempts: 5 } }
steps:
  - first: { activity: first, compensate: unfirst }
  - more: { if: "input.again", continue_as_new: { customer: "${ input.customer }", again: false } }
  - last: { activity: last, no_undo: it is read }
"#;

/// An old copy of what a run has asked for when it was started.
async fn asks_again(world: &World, id: &str, run: RunId, customer: &str) {
    let limit = LimitName {
        kind: LimitKind::Workflow,
        of: "gated".into(),
        key: customer.into(),
    };
    let ask = Ask {
        limit: limit.clone(),
        bound: Bound::Concurrent(1),
        step: "".into(),
        direction: Direction::Do,
        priority: 3,
        fairness_key: "".into(),
        on_conflict: OnConflict::Queue,
    };
    let message = RunMessage {
        from: SendingRun {
            run: run.0,
            namespace: "default".to_owned(),
            workflow_id: id.to_owned(),
        },
        number: 1,
        to_run: None,
        message: serde_json::to_value(Body::Ask(Box::new(ask))).unwrap(),
    };
    publish_signed(world, "message", limit.address().as_str(), &message).await;
}

/// An old copy of an ask is granted while nobody reads what its run hears, and then the log is lost with the grant: it is for
/// the limiter to speak again, or the place is nobody's for ever. Of half of the runs nothing is stored any more.
#[tokio::test(start_paused = true)]
async fn a_place_whose_grant_is_lost_with_the_log_is_given_back() {
    for forgotten in [false, true] {
        let mut world = World::new(960).await;
        world.config.live_runs = 0;
        // Fewer than are out, so that they are said with several batches.
        world.config.batch_inputs = 2;
        world.register(&gated(1, "limit: 1, on_conflict: queue")).await;
        world.work(Seen::default().by(10, |_| done()));
        let replica = world.replica("r0");
        let other = world.replica("r1");
        for n in 0..24 {
            start(&world, &format!("k-{n}"), &format!("c-{n}"), &[]).await;
        }
        world.until("all have completed", |world| world.closed() == 24).await;
        settled(&world).await;
        other.kill();
        for n in 0..24 {
            let run = world.rows_of(&format!("k-{n}"))[0].run_id;
            if forgotten {
                world.store.forget_run(run);
            }
            asks_again(&world, &format!("k-{n}"), run, &format!("c-{n}")).await;
        }
        // It is published, and struck off.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let held = world.store.dump(|_| 0).permits.len();
        assert!((1..24).contains(&held), "{held} places");
        world.bus.lose_log();
        world
            .until("every place is given back", |world| {
                world.store.dump(|_| 0).permits.is_empty()
            })
            .await;
        for n in 0..24 {
            start(&world, &format!("l-{n}"), &format!("c-{n}"), &[]).await;
        }
        let begun = |world: &World| {
            (0..24).all(|n| {
                world
                    .statuses()
                    .get(&format!("l-{n}"))
                    .is_some_and(|it| it == "completed")
            })
        };
        world.until("others have them", begun).await;
        replica.stop().await;
    }
}

/// Whoever asked is gone, and the run that continues it has the place: it stays the run's, however often it is granted again.
#[tokio::test(start_paused = true)]
async fn the_place_of_a_run_that_is_continued_outlives_it() {
    for lost in [false, true] {
        let mut world = World::new(961).await;
        world.config.live_runs = 0;
        world.register(CHAIN).await;
        let seen = Seen::default();
        world.work(seen.by(5_000, |_| done()));
        let replica = world.replica("r0");
        start(&world, "one", "c", &[]).await;
        world
            .until("it goes on in another", |world| {
                count(world, "continued_as_new") == 1 && count(world, "running") == 1
            })
            .await;
        start(&world, "two", "c", &[]).await;
        world
            .until("the next waits", |world| count(world, "waiting") == 1)
            .await;
        let first = world
            .rows_of("one")
            .into_iter()
            .find(|row| row.status == "continued_as_new");
        let first = first.unwrap().run_id;
        world.store.forget_run(first);
        match lost {
            false => asks_again(&world, "one", first, "c").await,
            true => world.bus.lose_log(),
        }
        world
            .until("both have completed", |world| count(world, "completed") == 2)
            .await;
        assert_eq!(seen.most(""), 1, "one at a time");
        world
            .until("every place is given back", |world| {
                world.store.dump(|_| 0).permits.is_empty()
            })
            .await;
        replica.stop().await;
    }
}
