//! What is said twice: the run that took it may have closed, and others have had its workflow id since.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use knarr_core::ids::RunId;
use knarr_core::run::message::{Answer, Body, StartChild};
use knarr_schemas::body::AnswerStage;
use knarr_schemas::{header as names, subject};
use serde_json::json;
use uuid::Uuid;

use super::messages::{CHAIN, answers, say, signals, slow, start_child};
use super::world::{Act, World, done};

/// Its answer may be late, and the run that has taken it closed meanwhile.
#[tokio::test(start_paused = true)]
async fn a_repeat_that_finds_the_next_run_of_its_id_is_not_taken_by_that() {
    for dies in [false, true] {
        let mut world = World::new(116).await;
        let mut replica = world.replica("r0");
        world.work(slow());
        world.start("o-1", &[(names::REQUEST_ID, "a")]).await;
        world.until("started", |world| world.rows().len() == 1).await;
        let signal = |body: u32| Body::Signal {
            name: "paid".into(),
            body: Arc::new(json!(body)),
            sent_at: Some(world.rows()[0].started_at),
        };
        let (first, second) = (signal(1), signal(2));
        say(&world, "o-1", 1, None, &first).await;
        world.until("closed", |world| world.closed() == 1).await;
        world.start("o-1", &[(names::REQUEST_ID, "b")]).await;
        world.until("started again", |world| world.rows().len() == 2).await;
        if dies {
            replica.kill();
            replica = world.replica("r1");
        }
        let before = answers(&world).len();
        say(&world, "o-1", 1, None, &first).await;
        say(&world, "o-1", 2, None, &second).await;
        world
            .until("answered", |world| answers(world).len() >= before + 2)
            .await;
        assert!(answers(&world).iter().all(|(_, answer)| *answer == Answer::Accepted));
        let rows = world.rows_of("o-1");
        assert_eq!(signals(&world.events(rows[0].run_id).await), [json!(1)]);
        assert_eq!(signals(&world.events(rows[1].run_id).await), [json!(2)]);
        world.until("closed", |world| world.closed() == 2).await;
        replica.stop().await;
    }
}

/// Several may have had the id between the delivery and its repeat, and none may be open.
#[tokio::test(start_paused = true)]
async fn a_repeat_that_finds_a_later_run_of_its_id_is_not_taken_by_that() {
    for (dies, open) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut world = World::new(118).await;
        let mut replica = world.replica("r0");
        world.work(slow());
        world.start("o-1", &[(names::REQUEST_ID, "a")]).await;
        world.until("started", |world| world.rows().len() == 1).await;
        let signal = Body::Signal {
            name: "paid".into(),
            body: Arc::new(json!(1)),
            sent_at: Some(world.rows()[0].started_at),
        };
        say(&world, "o-1", 1, None, &signal).await;
        world.until("closed", |world| world.closed() == 1).await;
        for n in 2..=4 {
            world.start("o-1", &[(names::REQUEST_ID, &n.to_string())]).await;
            let closed = if open { n - 1 } else { n };
            world
                .until("the next", |world| world.rows().len() == n && world.closed() == closed)
                .await;
            if n < 4 {
                world.until("closed", |world| world.closed() == n).await;
            }
        }
        if dies {
            replica.kill();
            replica = world.replica("r1");
        }
        let before = answers(&world).len();
        say(&world, "o-1", 1, None, &signal).await;
        world.until("answered", |world| answers(world).len() > before).await;
        assert!(answers(&world).iter().all(|(_, answer)| *answer == Answer::Accepted));
        let taken: Vec<_> = {
            let mut taken = Vec::new();
            for row in world.rows_of("o-1") {
                taken.push(signals(&world.events(row.run_id).await));
            }
            taken
        };
        assert_eq!(
            taken,
            [vec![json!(1)], vec![], vec![], vec![]],
            "dies: {dies}, open: {open}"
        );
        world.until("closed", |world| world.closed() == 4).await;
        replica.stop().await;
    }
}

/// Nobody waits between its runs.
const ENDLESS: &str = r#"
workflow: endless
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - work: { activity: work, no_undo: it is read }
  - more:
      if: "${ input.left > 0 }"
      continue_as_new: { left: "${ input.left - 1 }" }
output: "done"
"#;

/// Its runs close faster than the store answers which of them has taken it.
#[tokio::test(start_paused = true)]
async fn a_signal_to_an_id_that_goes_on_and_on_is_taken() {
    let mut world = World::new(119).await;
    world.register(ENDLESS).await;
    world.config.live_runs = 2;
    let replica = world.replica("r0");
    world.work(Arc::new(|_| Act { takes_ms: 20, ..done() }));
    let to = subject::start("default", "c-1", "endless").unwrap();
    world.publish(&to, &[], json!({ "left": 200 })).await;
    world.until("it goes on", |world| world.rows_of("c-1").len() > 5).await;
    world.weather.answers_late_ms.store(60, Ordering::SeqCst);
    let signal = Body::Signal {
        name: "paid".into(),
        body: Arc::new(json!(1)),
        sent_at: Some(world.rows_of("c-1").last().unwrap().started_at),
    };
    say(&world, "c-1", 1, None, &signal).await;
    world.until("answered", |world| !answers(world).is_empty()).await;
    let links = world.rows_of("c-1").len();
    assert!(links < 150, "it was taken after {links} links");
    world.weather.answers_late_ms.store(0, Ordering::SeqCst);
    world
        .until("the end", |world| {
            world.rows_of("c-1").last().unwrap().status == "completed"
        })
        .await;
    world.quiet().await;
    replica.stop().await;
}

/// Whoever names the first of a long chain reaches the last, though no more than a few fit into memory.
#[tokio::test(start_paused = true)]
async fn a_message_to_a_long_chain_does_not_need_all_of_it_in_memory() {
    let mut world = World::new(120).await;
    world.register(CHAIN).await;
    world.config.live_runs = 3;
    let replica = world.replica("r0");
    world.work(slow());
    let child = RunId(Uuid::from_u128(
        (0x0190_0000_0002 << 80) | (0x7 << 76) | (0x8 << 60) | 9,
    ));
    let Body::StartChild(start) = start_child(child, "chain") else {
        panic!("it is a start");
    };
    let start = StartChild {
        input: Arc::new(json!({ "left": 20 })),
        ..start
    };
    let start = Body::StartChild(start);
    say(&world, "c-1", 1, None, &start).await;
    let go = subject::signal("default", "c-1", "go").unwrap();
    for runs in 1..=12 {
        world
            .until("it goes on", |world| world.rows_of("c-1").len() == runs)
            .await;
        if runs < 12 {
            world.publish(&go, &[], json!(runs)).await;
        }
    }
    let loads = || replica.line.loads.load(Ordering::SeqCst);
    for n in 0..9 {
        world.start(&format!("o-{n}"), &[]).await;
    }
    // That it has begun is known to the first.
    let told = answers(&world).len();
    say(&world, "c-1", 1, None, &start).await;
    world
        .until("it is told again", |world| answers(world).len() > told)
        .await;
    assert!(answers(&world).iter().all(|(_, answer)| *answer == Answer::Accepted));
    let before = loads();
    let cancel = Body::Cancel {
        operation: Default::default(),
    };
    say(&world, "c-1", 2, Some(child), &cancel).await;
    world
        .until("cancelled", |world| {
            world.rows_of("c-1").last().unwrap().status == "cancelled"
        })
        .await;
    assert!(loads() - before < 12, "{} runs were loaded", loads() - before);
    world.until("closed", |world| world.closed() == 12 + 9).await;
    say(&world, "c-1", 3, Some(child), &cancel).await;
    world
        .until("refused", |world| answers(world).iter().any(|(number, _)| *number == 3))
        .await;
    replica.stop().await;
}

/// The run that took it has closed; nobody else is to have it, nor is a run to be started for it.
#[tokio::test(start_paused = true)]
async fn a_signal_that_a_closed_run_had_taken_is_not_taken_again() {
    for (dies, starts) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new(121).await;
        let mut replica = world.replica("r0");
        world.work(slow());
        world.start("o-1", &[]).await;
        world.until("started", |world| world.rows().len() == 1).await;
        let mut inbox = world.bus.subscribe("_INBOX.test");
        let to = subject::signal("default", "o-1", "paid").unwrap();
        let mut headers = vec![(names::REQUEST_ID, "s-1"), (names::REPLY_TO, "_INBOX.test")];
        if starts {
            headers.push((names::START_WORKFLOW, "order"));
        }
        world.publish(&to, &headers, json!({ "order": 1 })).await;
        let first = world.answer(&mut inbox).await;
        world.until("closed", |world| world.closed() == 1).await;
        if dies {
            replica.kill();
            replica = world.replica("r1");
        }
        world.publish(&to, &headers, json!({ "order": 1 })).await;
        let again = world.answer(&mut inbox).await;
        assert_eq!(
            (again.stage, again.run_id),
            (AnswerStage::Accepted, first.run_id),
            "{again:?}"
        );
        assert_eq!(world.rows_of("o-1").len(), 1);
        assert_eq!(world.bus.dead_letters().len(), 0);
        // Another one finds nobody, or starts a run.
        headers[0] = (names::REQUEST_ID, "s-2");
        world.publish(&to, &headers, json!({ "order": 1 })).await;
        let other = world.answer(&mut inbox).await;
        assert_eq!(other.stage == AnswerStage::Accepted, starts, "{other:?}");
        world
            .until("closed", |world| world.closed() == 1 + usize::from(starts))
            .await;
        world.quiet().await;
        replica.stop().await;
    }
}
