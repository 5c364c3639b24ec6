//! A replica killed between every two stages of its loop, with sagas in flight, and started again.
//!
//! In `cargo test` each stage at two counts; at full length `KNARR_CHAOS_ROUNDS=10 cargo test -p knarr-tests --test
//! crash_points -- --nocapture` takes ten.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use knarr_tests::{Fault, Random, Replica, ReplicaOptions, Stack, WorkerProcess, audit};

const STAGES: [&str; 5] = ["taken", "applied", "committed", "published", "acknowledged"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_stuck_wherever_a_replica_dies() {
    let mut random = Random::seeded(11);
    let counts: usize = std::env::var("KNARR_CHAOS_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(2);
    let stack = Stack::start().await;
    let mut replica = stack.first_replica("one").await;
    replica.terminate().await;
    let _worker = WorkerProcess::start(&stack, "worker");
    let starter = stack.starter();
    let mut expected = BTreeMap::new();
    for stage in STAGES {
        for round in 0..counts {
            // The first time, and somewhere in the middle of things.
            let count = if round == 0 { 1 } else { 2 + random.below(24) };
            let options = ReplicaOptions {
                failpoint: Some(format!("{stage}:{count}")),
                ..ReplicaOptions::default()
            };
            let mut replica = Replica::spawn(&stack, "one", options);
            let mut started = 0;
            while !replica.has_ended() {
                assert!(started < 300, "{stage}:{count} was never passed:\n{}", replica.log());
                let closed = usize::try_from(stack.closed_runs().await).unwrap();
                if expected.len() - closed < 8 {
                    started += 1;
                    let (id, fault) = (format!("{stage}-{round}-{started}"), *random.pick(&Fault::ALL));
                    starter.start(&id, fault).await;
                    expected.insert(id, fault);
                } else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            let status = replica.ended(Duration::from_secs(1)).await;
            assert_eq!(status.signal(), Some(9), "{stage}:{count}: {status}\n{}", replica.log());
            replica.respawn();
            let took = stack.all_closed(expected.len(), Duration::from_secs(60)).await;
            println!("{stage}:{count}: {started} sagas, all ended {took:?} after the restart");
            replica.terminate().await;
        }
    }
    println!("{:?}", audit(&stack, &expected).await);
    stack.stop().await;
}
