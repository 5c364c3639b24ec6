//! Sagas in flight while processes are killed at random moments.
//!
//! In `cargo test` a few rounds; at full length
//! `KNARR_CHAOS_ROUNDS=20 cargo test -p knarr-tests --test chaos -- --nocapture`, with the figures it prints.
//! `KNARR_SEED` replays the choices of a run.

use std::time::{Duration, Instant};

use knarr::dev::Server;
use knarr_tests::{Fault, Load, Random, Replica, Stack, WorkerProcess, audit, eventually, load};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Replica(usize),
    Worker(usize),
    Nats,
    Postgres,
}

const VICTIMS: [Victim; 6] = [
    Victim::Replica(0),
    Victim::Postgres,
    Victim::Worker(0),
    Victim::Nats,
    Victim::Replica(1),
    Victim::Worker(1),
];

fn rounds() -> usize {
    std::env::var("KNARR_CHAOS_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(1)
}

/// Every victim once a round, in an order and at moments that the seed decides.
#[tokio::test(flavor = "multi_thread")]
async fn every_saga_ends_as_it_must_whatever_is_killed() {
    let mut random = Random::seeded(7);
    let stack = Stack::start_with(16).await;
    let mut replicas = [stack.first_replica("one").await, Replica::start(&stack, "two").await];
    let mut workers = [
        WorkerProcess::start(&stack, "worker-one"),
        WorkerProcess::start(&stack, "worker-two"),
    ];
    let load = Load::start(stack.starter(), random.clone(), &Fault::ALL, Duration::from_millis(40));
    eventually("the first sagas", Duration::from_secs(30), || async {
        (stack.closed_runs().await >= 5).then_some(())
    })
    .await;

    let mut resumed: Vec<(Victim, Duration)> = Vec::new();
    for round in 0..rounds() {
        let mut order = VICTIMS.to_vec();
        for last in (1..order.len()).rev() {
            order.swap(last, usize::try_from(random.below(last as u64 + 1)).unwrap());
        }
        for victim in order {
            // A random moment: so many transitions from now.
            let moment = stack.transitions().await + i64::try_from(random.below(60)).unwrap();
            eventually("progress between two kills", Duration::from_secs(60), || async {
                (stack.transitions().await >= moment).then_some(())
            })
            .await;
            match victim {
                Victim::Replica(n) => {
                    replicas[n].kill9();
                    replicas[n].respawn();
                }
                Victim::Worker(n) => workers[n].restart(),
                Victim::Nats => {
                    stack.kill9(Server::Nats).await;
                    stack.restart(Server::Nats).await;
                }
                Victim::Postgres => {
                    stack.kill9(Server::Postgres).await;
                    stack.restart(Server::Postgres).await;
                }
            }
            let back = Instant::now();
            let closed = stack.closed_runs().await;
            eventually("a saga that ends", Duration::from_secs(60), || async {
                (stack.closed_runs().await > closed).then_some(())
            })
            .await;
            println!(
                "round {round}: {victim:?} killed; a saga ended {:?} after its return",
                back.elapsed()
            );
            resumed.push((victim, back.elapsed()));
            if let Victim::Replica(n) = victim {
                replicas[n].ready().await;
            }
        }
    }

    let started = load.end().await;
    let rest = stack.all_closed(started.len(), Duration::from_secs(90)).await;
    println!(
        "{} sagas started; the last ended {rest:?} after the last start",
        started.len()
    );
    println!("{:?}", audit(&stack, &load::faults(&started)).await);
    let worst = resumed.iter().max_by_key(|(_, took)| *took);
    println!("slowest return: {worst:?}");
    if rounds() > 1 {
        let limit = Duration::from_secs(2);
        let slow: Vec<_> = resumed.iter().filter(|(_, took)| *took > limit).collect();
        assert!(slow.is_empty(), "not back within {limit:?}: {slow:?}");
    }
    stack.stop().await;
}
