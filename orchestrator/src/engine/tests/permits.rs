//! Limits over all runs: what the workers saw at a time, whatever happens to the replicas.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use knarr_core::ids::{Namespace, QueueName};
use knarr_core::limit::{Ask, Bound, LimitKind, LimitName, OnConflict, Row};
use knarr_core::run::effect::Direction;
use knarr_core::run::message::Body;
use knarr_core::time::Span;
use knarr_schemas::body::{RunMessage, SendingRun};
use knarr_schemas::subject;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::messages::publish_signed;
use super::world::{Act, Script, World, done, failed};
use crate::store::memory::CommitFault;
use crate::store::{QueueRate, QueueRow, Store as _};

const LIMITED: &str = r#"
workflow: limited
version: 1
defaults: { queue: orders, start_to_close: 20s, retry: { maximum_attempts: 3, initial_interval: 100ms } }
steps:
  - work: { activity: work, concurrency: { limit: 2 }, compensate: { activity: unwork } }
  - last: { activity: last, no_undo: it is read, retry: { maximum_attempts: 1 } }
"#;

const KEYED: &str = r#"
workflow: keyed
version: 1
defaults: { queue: orders, start_to_close: 20s, retry: { maximum_attempts: 3 } }
steps:
  - work: { activity: work, concurrency: { limit: 1, key: input.customer }, read_only: true }
"#;

const PACED: &str = r#"
workflow: paced
version: 1
defaults: { queue: orders, start_to_close: 20s, retry: { maximum_attempts: 3 } }
steps:
  - work: { activity: work, rate: { limit: 20, per: 1s }, read_only: true }
"#;

const SHARED: &str = r#"
workflow: shared
version: 1
defaults: { queue: orders, start_to_close: 20s, retry: { maximum_attempts: 3 } }
steps:
  - work: { activity: work, concurrency: { limit: 1 }, fairness_key: input.tenant, read_only: true }
"#;

/// What was being worked on, as the workers noted it.
#[derive(Debug, Default, Clone)]
struct Seen(Arc<Mutex<Vec<Worked>>>);

#[derive(Debug)]
struct Worked {
    id: String,
    activity: String,
    from: Instant,
    to: Instant,
}

impl Seen {
    /// Workers that note when they work, for `ms` at a time.
    fn by(&self, ms: u64, act: impl Fn(&super::world::Delivery<'_>) -> Act + Send + Sync + 'static) -> Script {
        let seen = self.clone();
        Arc::new(move |task| {
            let mut act = act(task);
            act.takes_ms = ms;
            let now = Instant::now();
            seen.0.lock().unwrap().push(Worked {
                id: task.workflow_id.to_owned(),
                activity: task.activity.to_owned(),
                from: now,
                to: now + Duration::from_millis(ms),
            });
            act
        })
    }

    fn of(&self, activity: impl Fn(&str, &str) -> bool) -> Vec<(String, Instant, Instant)> {
        let seen = self.0.lock().unwrap();
        let of = seen.iter().filter(|worked| activity(&worked.id, &worked.activity));
        of.map(|worked| (worked.id.clone(), worked.from, worked.to)).collect()
    }

    /// Most at a time.
    fn most(&self, activity: impl Fn(&str, &str) -> bool) -> usize {
        let seen = self.of(activity);
        let at = |now: Instant| seen.iter().filter(|(_, from, to)| *from <= now && now < *to).count();
        seen.iter().map(|(_, from, _)| at(*from)).max().unwrap_or(0)
    }

    fn order(&self) -> Vec<String> {
        self.of(|_, name| name == "work")
            .into_iter()
            .map(|(id, ..)| id)
            .collect()
    }
}

async fn start(world: &World, workflow: &str, id: &str, input: Value) {
    let to = subject::start("default", id, workflow).unwrap();
    world.publish(&to, &[], input).await;
}

async fn settled(world: &World) {
    world
        .until("every permit is given back", |world| {
            world.store.dump(|_| 0).permits.is_empty()
        })
        .await;
    world.quiet().await;
    world
        .until("nobody is owed an answer", |world| {
            world.rows().iter().all(|row| row.wake_at.is_none())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_limit_across_the_death_of_a_replica() {
    for dies_at in [0, 25, 40, 55, 70, 85, 100, 120, 140, 170, 200] {
        let mut world = World::new(700 + dies_at).await;
        world.register(LIMITED).await;
        let seen = Seen::default();
        world.work(seen.by(200, |_| done()));
        let replica = world.replica_dying_at("r0", dies_at);
        for n in 0..8 {
            start(&world, "limited", &format!("l-{n}"), json!({})).await;
        }
        world
            .until("it is done, or dead", |world| {
                world.closed() == 8 || replica.has_ended()
            })
            .await;
        let heir = world.replica("r1");
        world.until("all have completed", |world| world.closed() == 8).await;
        assert!(world.statuses().values().all(|status| status == "completed"));
        assert_eq!(seen.most(|_, name| name == "work"), 2, "died at {dies_at}");
        settled(&world).await;
        heir.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn commits_of_unknown_outcome_neither_lose_nor_double_a_permit() {
    for (fault, every) in [
        (CommitFault::LostBefore, 90),
        (CommitFault::LostAfter, 90),
        (CommitFault::LostAfter, 35),
    ] {
        let mut world = World::new(720).await;
        world.register(LIMITED).await;
        let seen = Seen::default();
        world.work(seen.by(150, |_| done()));
        let replicas = [world.replica("r0"), world.replica("r1")];
        for n in 0..8 {
            start(&world, "limited", &format!("l-{n}"), json!({})).await;
            world.store.fail_next_commit(fault);
            tokio::time::sleep(Duration::from_millis(every)).await;
        }
        world.until("all have completed", |world| world.closed() == 8).await;
        assert_eq!(seen.most(|_, name| name == "work"), 2);
        settled(&world).await;
        for replica in replicas {
            replica.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_limit_of_its_own() {
    let mut world = World::new(730).await;
    world.register(KEYED).await;
    let seen = Seen::default();
    world.work(seen.by(300, |_| done()));
    let replica = world.replica("r0");
    for n in 0..12 {
        start(&world, "keyed", &format!("{}-{n}", n % 3), json!({ "customer": n % 3 })).await;
    }
    world.until("all have completed", |world| world.closed() == 12).await;
    for customer in ["0-", "1-", "2-"] {
        assert_eq!(seen.most(|id, _| id.starts_with(customer)), 1);
    }
    assert_eq!(seen.most(|_, _| true), 3);
    settled(&world).await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_reached_and_not_passed_and_goes_on_in_a_new_owner() {
    let mut world = World::new(740).await;
    world.register(PACED).await;
    let seen = Seen::default();
    world.work(seen.by(20, |_| done()));
    let replica = world.replica("r0");
    for n in 0..80 {
        start(&world, "paced", &format!("p-{n}"), json!({})).await;
    }
    world.until("half of it is done", |world| world.closed() >= 40).await;
    replica.kill();
    let heir = world.replica("r0");
    world.until("all have completed", |world| world.closed() == 80).await;
    let began: Vec<Instant> = seen.of(|_, _| true).into_iter().map(|(_, from, _)| from).collect();
    for (first, at) in began.iter().enumerate() {
        let within = began[first..]
            .iter()
            .take_while(|other| other.duration_since(*at) < Duration::from_secs(1));
        // A tenth above, and what messages have taken longer.
        assert!(within.count() <= 24);
    }
    let took = began[39].duration_since(began[0]).as_secs_f64();
    assert!((1.8..=2.2).contains(&took), "40 at 20 in a second took {took} s");
    settled(&world).await;
    heir.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_and_nobody_waits_for_a_backlog_of_others() {
    let mut world = World::new(750).await;
    world.register(SHARED).await;
    let seen = Seen::default();
    world.work(seen.by(100, |_| done()));
    let replica = world.replica("r0");
    for n in 0..8 {
        start(&world, "shared", &format!("many-{n}"), json!({ "tenant": "many" })).await;
    }
    world
        .until("there is a backlog", |world| world.store.dump(|_| 0).permits.len() == 8)
        .await;
    start(&world, "shared", "few", json!({ "tenant": "few" })).await;
    world.until("all have completed", |world| world.closed() == 9).await;
    let place = seen.order().iter().position(|id| id == "few").unwrap();
    assert!(place <= 5, "{:?}", seen.order());
    settled(&world).await;
    replica.stop().await;
}

/// The undo of one run is not kept waiting by the first steps of the others, and what holds a permit for nothing is freed.
#[tokio::test(start_paused = true)]
async fn undos_go_first_and_a_run_that_is_terminated_lets_others_in() {
    let mut world = World::new(760).await;
    world.register(LIMITED).await;
    let seen = Seen::default();
    world.work(seen.by(100, |task| match (task.workflow_id, task.activity) {
        ("fails", "last") => failed(),
        // Its worker is gone, and nobody says so.
        ("gone", "work") => Act {
            forgets: true,
            ..done()
        },
        _ => done(),
    }));
    let replica = world.replica("r0");
    start(&world, "limited", "gone", json!({})).await;
    start(&world, "limited", "fails", json!({})).await;
    world
        .until("both have asked", |world| world.store.dump(|_| 0).permits.len() == 2)
        .await;
    for n in 0..10 {
        start(&world, "limited", &format!("l-{n}"), json!({})).await;
    }
    world
        .until("it is undone", |world| {
            world
                .statuses()
                .get("fails")
                .is_some_and(|status| status == "compensated")
        })
        .await;
    // Everybody else has come before it, and has waited.
    assert!(world.closed() < 6, "{:?}", world.statuses());
    assert_eq!(seen.most(|id, name| id != "gone" && name.ends_with("work")), 1);
    world.verb("gone", "terminate", &[]).await;
    world.until("all are closed", |world| world.closed() == 12).await;
    assert_eq!(seen.most(|id, name| id != "gone" && name.ends_with("work")), 2);
    settled(&world).await;
    replica.stop().await;
}

/// A message is read again, or comes twice: the permit is one, and rows tell what there is.
#[tokio::test(start_paused = true)]
async fn what_waits_is_told_by_rows_and_goes_with_them() {
    let mut world = World::new(770).await;
    world.register(LIMITED).await;
    let seen = Seen::default();
    world.work(seen.by(40_000, |_| done()));
    let replica = world.replica("r0");
    for n in 0..5 {
        start(&world, "limited", &format!("l-{n}"), json!({})).await;
    }
    let counts = |world: &World| {
        let rows = world.store.dump(|_| 0).permits.into_iter();
        let granted = rows.map(|row| match serde_json::from_str(&row.body).unwrap() {
            Row::Permit(permit) => permit.granted_at.is_some(),
            Row::Pace(_) => panic!("it has no rate"),
        });
        let granted: Vec<bool> = granted.collect();
        (granted.iter().filter(|granted| **granted).count(), granted.len())
    };
    world
        .until("two are out and three wait", |world| counts(world) == (2, 5))
        .await;
    // Those who wait offer their asks again, and nothing comes of it.
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(counts(&world), (2, 5));
    for n in 0..5 {
        world.verb(&format!("l-{n}"), "terminate", &[]).await;
    }
    settled(&world).await;
    replica.stop().await;
}

/// What an operator says of a queue counts for all its activities and their undos, from the next task on, and for who waits already.
#[tokio::test(start_paused = true)]
async fn an_operators_limit_of_a_queue_counts_for_every_activity_and_follows_their_word() {
    let mut world = World::new(780).await;
    let say = |max_concurrent: Option<i32>, rate: Option<i32>| QueueRow {
        namespace: Namespace::new("default"),
        queue: QueueName::new("orders"),
        max_concurrent,
        rate: rate.map(|limit| QueueRate {
            limit,
            per: Span::from_secs(1),
        }),
        ack_wait: None,
    };
    world.store.set_queue(&say(Some(2), None)).await.unwrap();
    let seen = Seen::default();
    world.work(seen.by(100, |task| match task.activity {
        // The last one of each three fails, and is undone.
        "reserve-inventory" if task.workflow_id.ends_with('2') => failed(),
        _ => done(),
    }));
    let replica = world.replica("r0");
    let heir = world.replica("r1");
    let waits = |world: &World| world.store.dump(|_| 0).permits.len() >= 3;
    for n in 0..3 {
        world.start(&format!("a-{n}"), &[]).await;
    }
    world.until("all are closed", |world| world.closed() == 3).await;
    assert_eq!(seen.most(|id, _| id.starts_with("a-")), 2);
    assert_eq!(world.statuses()["a-2"], "compensated");

    world.store.set_queue(&say(Some(1), None)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..6 {
        world.start(&format!("b-{n}"), &[]).await;
    }
    world.until("some wait", waits).await;
    assert_eq!(seen.most(|id, _| id.starts_with("b-")), 1);
    world.store.set_queue(&say(Some(3), Some(1_000))).await.unwrap();
    world.until("all are closed", |world| world.closed() == 9).await;
    assert_eq!(seen.most(|id, _| id.starts_with("b-")), 3);

    world.store.set_queue(&say(Some(1), None)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..6 {
        world.start(&format!("c-{n}"), &[]).await;
    }
    world.until("some wait", waits).await;
    // Nobody is kept waiting for a limit that is no more.
    world.store.set_queue(&say(None, None)).await.unwrap();
    world.until("all are closed", |world| world.closed() == 15).await;
    assert!(seen.most(|id, _| id.starts_with("c-")) > 3);
    settled(&world).await;
    replica.stop().await;
    heir.stop().await;
}

/// An old copy of an ask is granted while nobody reads what its run hears, and then the log is lost: the run has nothing to ask for,
/// so it is its limiter that speaks again.
#[tokio::test(start_paused = true)]
async fn a_permit_whose_grant_is_lost_with_the_log_is_given_back() {
    let mut world = World::new(800).await;
    // Fewer than are out, so that they are said with several batches.
    world.config.batch_inputs = 2;
    world.register(KEYED).await;
    world.work(Seen::default().by(10, |_| done()));
    let replica = world.replica("r0");
    let other = world.replica("r1");
    // So that there are some whose limiter the one replica has, and whose run the other.
    for n in 0..24 {
        start(
            &world,
            "keyed",
            &format!("k-{n}"),
            json!({ "customer": format!("c-{n}") }),
        )
        .await;
    }
    world.until("all have completed", |world| world.closed() == 24).await;
    settled(&world).await;
    other.kill();
    for n in 0..24 {
        let id = format!("k-{n}");
        let limit = LimitName {
            kind: LimitKind::Activity,
            of: "work".into(),
            key: format!("c-{n}").into(),
        };
        let ask = Ask {
            limit: limit.clone(),
            bound: Bound::Concurrent(1),
            step: "work".into(),
            direction: Direction::Do,
            priority: 3,
            fairness_key: limit.key.clone(),
            on_conflict: OnConflict::Queue,
        };
        let message = RunMessage {
            from: SendingRun {
                run: world.rows_of(&id)[0].run_id.0,
                namespace: "default".to_owned(),
                workflow_id: id,
            },
            number: 1,
            to_run: None,
            message: serde_json::to_value(Body::Ask(Box::new(ask))).unwrap(),
        };
        publish_signed(&world, "message", limit.address().as_str(), &message).await;
    }
    // It is published, and struck off.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let held = world.store.dump(|_| 0).permits.len();
    assert!((1..24).contains(&held), "{held} permits");
    world.bus.lose_log();
    settled(&world).await;
    replica.stop().await;
}

/// A limiter that makes core panic whenever time passes stands still, and it alone; whoever takes the partition over tries again.
#[tokio::test(start_paused = true)]
async fn a_limiter_that_breaks_core_stands_still_and_nothing_else_does() {
    let mut world = World::new(790).await;
    world.register(PACED).await;
    world.register(LIMITED).await;
    let seen = Seen::default();
    world.work(seen.by(10, |_| done()));
    let replica = world.replica("r0");
    super::break_wakes(true);
    for n in 0..10 {
        start(&world, "paced", &format!("p-{n}"), json!({})).await;
    }
    world.until("it has broken", |_| super::broken_wakes() > 0).await;
    for n in 0..6 {
        start(&world, "limited", &format!("l-{n}"), json!({})).await;
    }
    let others = |world: &World| world.statuses().iter().filter(|(id, _)| id.starts_with("l-")).count();
    world
        .until("those of another limit have completed", |world| {
            others(world) == 6 && world.closed() >= 6
        })
        .await;
    // Long enough for what waits to be asked for again.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(super::broken_wakes(), 1);
    let open = world.rows().iter().filter(|row| row.closed_at.is_none()).count();
    assert!(open >= 5, "{open} of ten wait");

    super::break_wakes(false);
    replica.stop().await;
    let heir = world.replica("r1");
    world.until("all have completed", |world| world.closed() == 16).await;
    assert!(world.statuses().values().all(|status| status == "completed"));
    settled(&world).await;
    heir.stop().await;
}
