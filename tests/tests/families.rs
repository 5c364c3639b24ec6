//! Messages between runs on real servers: children that start, complete, fail, are undone, cancelled, detached, abandoned and
//! terminated, successors and what is emitted, with both ends on different replicas; calm, under kill -9 of either replica,
//! with a log that is lost, and with everything said three times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use knarr_schemas::subject;
use knarr_tests::audit::audit_ends;
use knarr_tests::duplicator::Duplicator;
use knarr_tests::families::{self, Families, Kind, apart, owner};
use knarr_tests::{Random, Replica, ReplicaOptions, Stack, Valve, WorkerProcess, eventually, jetstream};
use serde_json::{Value, json};

const COPIES: usize = 6;

struct Scene {
    stack: Stack,
    replicas: [Replica; 2],
    _worker: WorkerProcess,
    families: Families,
}

async fn scene() -> Scene {
    let stack = Stack::start_with(16).await;
    let nats_url = stack.nats_url().to_owned();
    scene_of(stack, nats_url).await
}

/// The second replica has its own way to NATS.
async fn scene_of(stack: Stack, nats_url: String) -> Scene {
    let options = ReplicaOptions {
        nats_url: Some(nats_url),
        ..ReplicaOptions::default()
    };
    let one = stack.first_replica("one").await;
    let replicas = [one, Replica::start_with(&stack, "two", options).await];
    eventually("a share for each", Duration::from_secs(20), || async {
        let mut owned = Vec::new();
        for replica in &replicas {
            owned.push(replica.metric("knarr_partitions_owned").await);
        }
        (owned[0] + owned[1] == 17.0 && (owned[0] - owned[1]).abs() <= 1.0).then_some(())
    })
    .await;
    let stream = json!({ "name": "FAMILIES", "subjects": ["families.>"], "storage": "memory" });
    let made = jetstream::api(stack.nats(), "STREAM.CREATE.FAMILIES", &stream)
        .await
        .unwrap();
    assert!(made.get("error").is_none(), "{made}");
    let families = Families::new(&stack, COPIES).await;
    Scene {
        replicas,
        _worker: WorkerProcess::start(&stack, "worker"),
        families,
        stack,
    }
}

/// How often each event of a stream has been stored, by workflow id and the event's own id.
async fn events(stack: &Stack, stream: &str, subject: &str) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut found: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for message in jetstream::stored(stack.nats(), stream, subject).await {
        assert_eq!(message.header("ce-specversion"), "1.0");
        let id = message.header("ce-source").rsplit('/').next().unwrap().to_owned();
        *found
            .entry(id)
            .or_default()
            .entry(message.header("ce-id").to_owned())
            .or_default() += 1;
    }
    found
}

/// Every family that emits has emitted once; a repeat is known by its id, and there is none where nothing was killed.
async fn emitted(scene: &Scene, once: bool) {
    let emitters = scene.families.emitters();
    for (stream, subject) in [
        ("KNARR_EVENTS", "knarr.event.default.parent.*.kid-ended"),
        ("FAMILIES", "families.done"),
    ] {
        let (found, _) = eventually(&format!("the events of {stream}"), Duration::from_secs(60), || async {
            let found = events(&scene.stack, stream, subject).await;
            (found.len() == emitters.len()).then_some(found)
        })
        .await;
        let by: BTreeSet<String> = found.keys().cloned().collect();
        assert_eq!(by, emitters, "{stream}");
        for (id, events) in found {
            assert_eq!(events.len(), 1, "{id} emitted more than once to {stream}: {events:?}");
            if once {
                assert!(events.values().all(|count| *count == 1), "{id} in {stream}: {events:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn families_end_together_across_replicas() {
    let scene = scene().await;
    let began = Instant::now();
    scene.families.drive(&scene.stack).await;
    println!("all ended within {:?}", began.elapsed());
    let apart = apart(&scene.stack).await;
    assert!(apart.len() == 2 && apart.iter().all(|count| *count >= 3), "{apart:?}");
    println!("{:?}; apart: {apart:?}", scene.families.check(&scene.stack).await);
    emitted(&scene, true).await;
    assert_eq!(jetstream::dead_letters(scene.stack.nats()).await.len(), 0);
    scene.stack.stop().await;
}

/// Either replica, again and again, at moments that the seed decides.
#[tokio::test(flavor = "multi_thread")]
async fn families_end_together_whichever_replica_is_killed() {
    let mut random = Random::seeded(11);
    let mut scene = scene().await;
    let (stack, families, replicas) = (&scene.stack, &scene.families, &mut scene.replicas);
    let kills = async {
        for n in 0..8 {
            let moment = stack.transitions().await + i64::try_from(random.below(90)).unwrap();
            // So that none waits for what will never come when all has ended.
            let passed = tokio::time::timeout(
                Duration::from_secs(5),
                eventually("a moment", Duration::from_secs(60), || async {
                    (stack.transitions().await >= moment).then_some(())
                }),
            );
            let _ = passed.await;
            let victim = &mut replicas[n % 2];
            victim.kill9();
            victim.respawn();
            victim.ready().await;
        }
    };
    let began = Instant::now();
    tokio::join!(kills, families.drive(stack));
    println!("all ended within {:?}", began.elapsed());
    println!("{:?}", families.check(stack).await);
    emitted(&scene, false).await;
    scene.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn families_end_together_though_the_log_is_lost() {
    let mut random = Random::seeded(12);
    let scene = scene().await;
    let stack = &scene.stack;
    let losses = async {
        for _ in 0..3 {
            let moment = stack.transitions().await + 40 + i64::try_from(random.below(120)).unwrap();
            let passed = eventually("a moment", Duration::from_secs(60), || async {
                (stack.transitions().await >= moment).then_some(())
            });
            let _ = tokio::time::timeout(Duration::from_secs(10), passed).await;
            let answer = jetstream::api(stack.nats(), "STREAM.DELETE.KNARR_IN", &Value::Null).await;
            println!("the log is deleted: {answer:?}");
            eventually("the log to be made again", Duration::from_secs(20), || {
                jetstream::messages(stack.nats(), "KNARR_IN")
            })
            .await;
        }
    };
    let began = Instant::now();
    tokio::join!(losses, scene.families.drive(stack));
    println!("all ended within {:?}", began.elapsed());
    println!("{:?}", scene.families.check(stack).await);
    emitted(&scene, true).await;
    scene.stack.stop().await;
}

/// A message that lay in the log, for a replica that had not read it yet: the sender says it again by its own deadline. Of two
/// families, one loses the start of its child and one the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_lost_with_the_log_is_said_again() {
    let stack = Stack::start_with(16).await;
    let valve = Valve::start(stack.nats_url()).await;
    let scene = scene_of(stack, valve.url()).await;
    let stack = &scene.stack;
    let find = async |from: &str, to: &str, prefix: &str| {
        for n in 0.. {
            let id = format!("{prefix}-{n}");
            if owner(stack, &id).await == from && owner(stack, &format!("{id}-leaf")).await == to {
                return id;
            }
        }
        unreachable!("there are as many ids as anybody wants")
    };
    let begins = find("one", "two", "begins").await;
    let ends = find("two", "one", "ends").await;
    families::start(stack, &ends, Kind::AsksToCancel).await;
    families::waits(stack, &format!("{ends}-leaf"), 1).await;

    valve.shut();
    let starter = stack.starter();
    let start = subject::start("default", &begins, "asks").unwrap();
    starter.publish(&start, HeaderMap::new(), &json!({})).await;
    let word = subject::signal("default", &format!("{ends}-leaf"), "go").unwrap();
    starter.publish(&word, HeaderMap::new(), &json!({ "n": 1 })).await;
    for id in [&format!("{begins}-leaf"), &ends] {
        let partition = subject::partition_of("default", id, stack.partitions());
        let to = format!("knarr.in.{partition}.default.{id}.message");
        eventually(
            &format!("a message in the log to {id}"),
            Duration::from_secs(10),
            || async { (!jetstream::stored(stack.nats(), "KNARR_IN", &to).await.is_empty()).then_some(()) },
        )
        .await;
    }
    let answer = jetstream::api(stack.nats(), "STREAM.DELETE.KNARR_IN", &Value::Null).await;
    assert_eq!(answer.unwrap()["success"], true);
    let lost = Instant::now();
    valve.open();

    let leaf = format!("{begins}-leaf");
    tokio::join!(families::waits(stack, &leaf, 1), async {
        eventually("the parent to hear of the end", Duration::from_secs(120), || async {
            let query = "select count(*) from runs where workflow_id = $1 and closed_at is not null";
            let closed: i64 = sqlx::query_scalar(query)
                .bind(&ends)
                .fetch_one(stack.pool())
                .await
                .unwrap();
            (closed == 1).then_some(())
        })
        .await;
    });
    println!("heard of within {:?}", lost.elapsed());
    let query = "select distinct workflow_id from event_rows where event ? 'message_offered'";
    let again: Vec<String> = sqlx::query_scalar(query).fetch_all(stack.pool()).await.unwrap();
    for sender in [&begins, &format!("{ends}-leaf")] {
        assert!(again.contains(sender), "{sender} says it again: {again:?}");
    }
    families::signal(stack, &leaf, 1).await;
    stack.all_closed(4, Duration::from_secs(60)).await;
    let ends: BTreeMap<String, &[&str]> = [&begins, &leaf, &ends, &format!("{ends}-leaf")]
        .map(|id| (id.clone(), &["completed"][..]))
        .into();
    println!("{:?}", audit_ends(stack, "default", &ends).await);
    scene.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn families_end_together_when_everything_is_said_three_times() {
    let scene = scene().await;
    let copies = Duplicator::start(&scene.stack).await;
    let began = Instant::now();
    scene.families.drive(&scene.stack).await;
    println!(
        "all ended within {:?}, with {} copies",
        began.elapsed(),
        copies.copies()
    );
    assert!(copies.copies() > 200);
    println!("{:?}", scene.families.check(&scene.stack).await);
    emitted(&scene, true).await;
    scene.stack.stop().await;
}
