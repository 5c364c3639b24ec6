//! Everything at once, by seed.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::world::{Act, Replica, Script, World, done, failed};

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    match (number("KNARR_SIM_SEED"), number("KNARR_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (1..=count).collect(),
        (None, None) => (1..=12).collect(),
    }
}

/// Of the workflow id, so that every delivery of a task has the same opinion of it where that matters.
fn of(id: &str, salt: u64) -> u64 {
    id.bytes()
        .fold(salt, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

fn anybody() -> Script {
    Arc::new(|task| {
        let fate = of(task.workflow_id, of(task.activity, 7)) % 12;
        let undo = matches!(task.activity, "cancel-order" | "refund-payment" | "release-inventory");
        let base = match fate {
            0 if !undo => failed(),
            // The first attempt fails in this or that way.
            1 if task.attempt == 1 => Act {
                outcome: Some("unknown"),
                ..done()
            },
            2 if task.attempt == 1 && !undo => Act {
                outcome: Some("failed"),
                ..Act::default()
            },
            3 if task.random.one_in(2) => Act {
                outcome: Some("retry_later"),
                ..Act::default()
            },
            4 if task.attempt == 1 => Act {
                forgets: true,
                ..done()
            },
            _ => done(),
        };
        Act {
            takes_ms: task.random.below(300),
            by_log: task.random.one_in(3),
            repeats: u32::from(task.random.one_in(5)),
            dies: task.deliveries == 1 && task.random.one_in(12),
            ..base
        }
    })
}

/// Restarts what has died; now and then kills, stops and adds.
async fn replicas(world: &mut World, running: &mut Vec<(String, Replica)>, names: u64) {
    let random = Arc::clone(&world.random);
    for index in (0..running.len()).rev() {
        if running[index].1.has_ended() {
            let (name, _) = running.remove(index);
            running.push((name.clone(), world.replica(&name)));
        } else if random.one_in(25) {
            running[index].1.kill();
        } else if running.len() > 1 && random.one_in(25) {
            running.remove(index).1.stop().await;
        }
    }
    let name = format!("r{}", random.below(names));
    if random.one_in(8) && running.iter().all(|(known, _)| *known != name) {
        let replica = world.replica_dying_at(&name, random.below(400));
        running.push((name, replica));
    }
}

async fn scenario(seed: u64) {
    let mut world = World::new(seed).await;
    let random = Arc::clone(&world.random);
    let sagas = 10 + random.below(40);
    let names = 1 + random.below(3);
    if random.one_in(2) {
        world.config.live_runs = usize::try_from(1 + random.below(5)).unwrap();
        world.config.batch_inputs = usize::try_from(1 + random.below(8)).unwrap();
        world.config.intake = usize::try_from(1 + random.below(16)).unwrap();
    }
    if random.one_in(3) {
        // Next to everything is too large, or too slow, for a look-up.
        world.config.huge_run_bytes = 200 + random.below(2_000);
        world.config.look_up_bytes = 1 + random.below(4_000);
        world.config.slow_look_up = Duration::from_millis(random.below(60));
    }
    world.config.snapshot_every = u32::try_from(2 + random.below(6)).unwrap();
    let weather = Arc::clone(&world.weather);
    let rare = |n: u64| if random.one_in(2) { 0 } else { n + random.below(n) };
    weather.latency_ms.store(random.below(30), Ordering::SeqCst);
    weather.lose_commit.store(rare(8), Ordering::SeqCst);
    weather.fail_read.store(rare(8), Ordering::SeqCst);
    weather.lose_publication.store(rare(8), Ordering::SeqCst);
    world.bus.set_direct_faults(crate::bus::memory::DirectFaults {
        drop_every: u32::try_from(rare(6)).unwrap(),
        duplicate_every: u32::try_from(rare(6)).unwrap(),
        delay_every: u32::try_from(rare(6)).unwrap(),
    });
    world.work(anybody());
    let mut running = vec![("r0".to_owned(), world.replica("r0"))];
    let stream = subject::task_stream("default").unwrap();
    for n in 0..sagas {
        let id = format!("o-{n}");
        let request = format!("request-{n}");
        if random.one_in(4) {
            let unkeyed = subject::unkeyed_start("default", "order").unwrap();
            world
                .publish(&unkeyed, &[(names::REQUEST_ID, &request)], json!({ "order": id }))
                .await;
        } else {
            world.start(&id, &[(names::REQUEST_ID, &request)]).await;
        }
        if random.one_in(4) {
            world.start(&id, &[(names::REQUEST_ID, &request)]).await;
        }
        if random.one_in(10) {
            world.verb(&id, "cancel", &[]).await;
        }
        match random.below(30) {
            0 => world.bus.set_full(&stream, true),
            1..=4 => world.bus.set_full(&stream, false),
            5 => {
                world.bus.set_connected(false);
                tokio::time::sleep(Duration::from_millis(random.below(4_000))).await;
                world.bus.set_connected(true);
            }
            _ => {}
        }
        replicas(&mut world, &mut running, names).await;
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
    }
    world.bus.set_full(&stream, false);
    for unlucky in [&weather.lose_commit, &weather.fail_read, &weather.lose_publication] {
        unlucky.store(0, Ordering::SeqCst);
    }
    world.bus.set_direct_faults(Default::default());
    // Whoever is alive finishes; one that dies by itself has a successor.
    if running.iter().all(|(_, replica)| replica.has_ended()) {
        running.push(("last".to_owned(), world.replica("last")));
    }
    running.push(("r9".to_owned(), world.replica("r9")));
    let wanted = usize::try_from(sagas).unwrap();
    world
        .until("closed", |world| {
            world.closed() == world.rows().len() && world.rows().len() >= wanted
        })
        .await;
    world.quiet().await;
    assert_eq!(world.rows().len(), wanted, "seed {seed}: a request was taken twice");
    for (_, replica) in running {
        if !replica.has_ended() {
            replica.stop().await;
        }
    }
    world
        .until("nothing owed", |world| world.store.dump(|_| 0).commits.is_empty())
        .await;
}

#[test]
fn anything_may_happen() {
    let began = Instant::now();
    let bounded = std::env::var("KNARR_SIM_SEEDS").is_err();
    for seed in seeds() {
        // A loop that never waits would hang without a word in stopped time.
        let (ended, watch) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if watch.recv_timeout(Duration::from_secs(40)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // Not by a macro: the test harness keeps what those print.
                let _ = writeln!(std::io::stderr(), "seed {seed} hangs");
                std::process::abort();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(scenario(seed))));
        drop(ended);
        let _ = watchdog.join();
        if let Err(panic) = outcome {
            eprintln!("KNARR_SIM_SEED={seed} cargo test -p knarr --lib engine::tests::random");
            std::panic::resume_unwind(panic);
        }
        if bounded && began.elapsed() > Duration::from_secs(15) {
            break;
        }
    }
}
