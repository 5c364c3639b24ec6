//! Two replicas: they share the partitions, hand over without a pause, and take over from the dead.
//!
//! The times are asserted as they must be when `KNARR_CHAOS_ROUNDS` is set (to any number: a machine with nothing else to
//! do), and generously otherwise.

use std::time::Duration;

use knarr_tests::{Fault, Load, Random, Replica, Stack, WorkerProcess, audit, eventually, load};

/// The longest time for which a saga stood still: between its publication and its first transition, or two transitions.
async fn longest_pause(stack: &Stack, started: &std::collections::BTreeMap<String, load::Started>) -> Duration {
    let transitions: Vec<(String, i64)> = sqlx::query_as(
        "select r.workflow_id, (extract(epoch from e.at) * 1000000)::bigint from runs r join events e using (run_id)
         order by r.run_id, e.seq",
    )
    .fetch_all(stack.pool())
    .await
    .unwrap();
    let mut longest = (0, "");
    let mut last: Option<(&str, i64)> = None;
    for (id, at) in &transitions {
        let since = last
            .filter(|(known, _)| known == id)
            .map_or(started[id].at, |(_, at)| at);
        longest = longest.max((at - since, id));
        last = Some((id, *at));
    }
    let (pause, id) = longest;
    let pause = Duration::from_micros(pause.try_into().unwrap_or(0));
    let at = started[id].at % 86_400_000_000 / 1_000;
    println!("{id} was published {at} ms into the day:{}", stack.timeline(id).await);
    pause
}

fn limit(seconds: u64) -> Duration {
    let factor = if std::env::var_os("KNARR_CHAOS_ROUNDS").is_some() {
        1
    } else {
        3
    };
    Duration::from_secs(seconds * factor)
}

async fn share(stack: &Stack, one: &Replica, two: &Replica) {
    let all = f64::from(stack.partitions()) + 1.0;
    eventually("a fair share", Duration::from_secs(20), || async {
        let (first, second) = (
            one.metric("knarr_partitions_owned").await,
            two.metric("knarr_partitions_owned").await,
        );
        (first + second == all && (first - second).abs() <= 1.0).then_some(())
    })
    .await;
}

async fn progress(stack: &Stack, load: &Load, sagas: i64) {
    let wanted = stack.closed_runs().await + sagas;
    eventually("sagas that end", Duration::from_secs(60), || async {
        (stack.closed_runs().await >= wanted).then_some(())
    })
    .await;
    println!("{} sagas started so far", load.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_hands_over_on_sigterm_without_a_pause() {
    let stack = Stack::alone(16).await;
    let mut one = stack.first_replica("one").await;
    let two = Replica::start(&stack, "two").await;
    share(&stack, &one, &two).await;
    let _worker = WorkerProcess::start(&stack, "worker");
    let faults = &[Fault::None, Fault::Stock, Fault::Order];
    let load = Load::start(stack.starter(), Random::seeded(3), faults, Duration::from_millis(30));
    progress(&stack, &load, 20).await;
    for _ in 0..2 {
        let status = one.terminate().await;
        assert!(status.success(), "{status}\n{}", one.log());
        progress(&stack, &load, 20).await;
        one.respawn();
        one.ready().await;
        share(&stack, &one, &two).await;
        progress(&stack, &load, 20).await;
    }
    let started = load.end().await;
    stack.all_closed(started.len(), Duration::from_secs(30)).await;
    let summary = audit(&stack, &load::faults(&started)).await;
    let pause = longest_pause(&stack, &started).await;
    println!("{summary:?}; the longest pause of a saga was {pause:?}");
    assert!(pause < limit(2), "{pause:?}\n{}\n{}", one.log(), two.log());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over_from_one_that_was_killed() {
    let stack = Stack::alone(16).await;
    let mut one = stack.first_replica("one").await;
    let two = Replica::start(&stack, "two").await;
    share(&stack, &one, &two).await;
    let _worker = WorkerProcess::start(&stack, "worker");
    let faults = &[Fault::None, Fault::Stock, Fault::Order];
    let load = Load::start(stack.starter(), Random::seeded(4), faults, Duration::from_millis(30));
    progress(&stack, &load, 20).await;
    one.kill9();
    let all = f64::from(stack.partitions()) + 1.0;
    two.wait_for_metric("knarr_partitions_owned", all, Duration::from_secs(10))
        .await;
    progress(&stack, &load, 20).await;
    let started = load.end().await;
    stack.all_closed(started.len(), Duration::from_secs(60)).await;
    let summary = audit(&stack, &load::faults(&started)).await;
    let pause = longest_pause(&stack, &started).await;
    println!("{summary:?}; the longest pause of a saga was {pause:?}");
    // A lease of 1.5 s, and what was in flight.
    assert!(pause < limit(3), "{pause:?}");
    stack.stop().await;
}
