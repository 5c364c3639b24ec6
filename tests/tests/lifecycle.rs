//! Changes of runs' status, heard by a plain client: each once by its id, whoever was killed over it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use knarr_core::run::{self, State};
use knarr_schemas::api::{NamespaceInfo, SetNamespace, verb};
use knarr_schemas::body::RunEvent;
use knarr_tests::audit::histories;
use knarr_tests::{Fault, Load, Random, Replica, Stack, WorkerProcess, eventually, jetstream, load};

async fn switch(stack: &Stack, on: bool) {
    let request = SetNamespace { events: Some(on) };
    let set: NamespaceInfo = stack.api("default").call(verb::NAMESPACE_SET, &request).await.unwrap();
    assert_eq!(set.events, Some(on));
}

/// What the histories say must have been told: ids, and the kind of each.
async fn owed(stack: &Stack) -> BTreeMap<String, String> {
    let mut owed = BTreeMap::new();
    for history in histories(stack, "default").await {
        let mut state: Option<State> = None;
        for transition in &history.transitions {
            match &mut state {
                None => state = State::born(transition),
                Some(state) => run::evolve(state, transition),
            }
        }
        let state = state.unwrap();
        for turn in history
            .transitions
            .iter()
            .flat_map(|transition| run::turns(&state, transition))
        {
            let kind = if turn.started { "started" } else { turn.status.as_str() };
            owed.insert(format!("{}/{}/{kind}", history.run_id, turn.seq), kind.to_owned());
        }
    }
    owed
}

/// Ids of what the stream of events holds; a repeat says the same.
async fn stored(stack: &Stack) -> BTreeSet<String> {
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for event in jetstream::stored(stack.nats(), "KNARR_EVENTS", "knarr.event.default.>").await {
        let (id, kind) = (
            event.header("ce-id").to_owned(),
            event.subject.rsplit('.').next().unwrap(),
        );
        assert_eq!(event.header("ce-type"), format!("knarr.run.{kind}"));
        assert!(id.ends_with(&format!("/{kind}")), "{id}");
        let body: RunEvent = serde_json::from_slice(&event.body).unwrap();
        let known = if kind == "started" { "running" } else { kind };
        assert_eq!((body.status.as_str(), body.workflow.as_str()), (known, "order"));
        assert_eq!(
            event.subject,
            format!("knarr.event.default.order.{}.{kind}", body.workflow_id)
        );
        let first = bodies.entry(id).or_insert_with(|| event.body.clone());
        assert_eq!(*first, event.body);
    }
    bodies.into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_status_is_heard_also_across_a_takeover() {
    let stack = Stack::start_with(16).await;
    let mut one = stack.first_replica("one").await;
    let two = Replica::start(&stack, "two").await;
    switch(&stack, true).await;
    // Each replica hears of it when it keeps its lease, twice a second; its own clock is not ours to wait for.
    let starter = stack.starter();
    let mut probes = 0;
    eventually("events to be on", Duration::from_secs(30), || {
        probes += 1;
        let (starter, stack, id) = (starter.clone(), &stack, format!("probe-{probes}"));
        async move {
            starter.start_confirmed(&id, Fault::None).await;
            let one = jetstream::stored(stack.nats(), "KNARR_EVENTS", "knarr.event.default.order.*.started").await;
            // Of both replicas.
            let owners: BTreeSet<i16> = one
                .iter()
                .map(|event| {
                    let id = event.subject.split('.').nth(4).unwrap().to_owned();
                    i16::try_from(knarr_schemas::subject::partition_of("default", &id, stack.partitions())).unwrap()
                })
                .collect();
            let query = "select count(distinct owner) from partitions where partition = any($1)";
            let owners: Vec<i16> = owners.into_iter().collect();
            let told: i64 = sqlx::query_scalar(query)
                .bind(owners)
                .fetch_one(stack.pool())
                .await
                .unwrap();
            (told == 2).then_some(())
        }
    })
    .await;
    let worker = WorkerProcess::start(&stack, "worker");
    stack.all_closed(probes, Duration::from_secs(30)).await;
    let before = owed(&stack).await;

    let mut heard = stack.nats().subscribe("knarr.event.default.order.*.*").await.unwrap();
    stack.nats().flush().await.unwrap();
    let listening = tokio::spawn(async move {
        let mut ids = BTreeSet::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(5), heard.next()).await {
            ids.insert(event.headers.unwrap().get("ce-id").unwrap().as_str().to_owned());
        }
        ids
    });
    let faults = &[Fault::None, Fault::Stock, Fault::Order];
    let load = Load::start(stack.starter(), Random::seeded(5), faults, Duration::from_millis(30));
    for _ in 0..2 {
        let wanted = stack.closed_runs().await + 10;
        eventually("sagas that end", Duration::from_secs(60), || async {
            (stack.closed_runs().await >= wanted).then_some(())
        })
        .await;
        one.kill9();
        let all = f64::from(stack.partitions()) + 1.0;
        two.wait_for_metric("knarr_partitions_owned", all, Duration::from_secs(20))
            .await;
        one.respawn();
        one.ready().await;
    }
    let started = load.end().await;
    stack.all_closed(started.len() + probes, Duration::from_secs(60)).await;
    let owed = owed(&stack).await;
    let told = owed.iter().filter(|(id, _)| !before.contains_key(*id));
    let told: BTreeSet<String> = told.map(|(id, _)| id.clone()).collect();
    assert!(told.len() >= 2 * started.len());
    eventually("all of it to be stored", Duration::from_secs(30), || async {
        stored(&stack).await.is_superset(&told).then_some(())
    })
    .await;
    let owed: BTreeSet<String> = owed.into_keys().collect();
    assert!(
        owed.is_superset(&stored(&stack).await),
        "what did not happen is not told"
    );
    assert!(
        listening.await.unwrap().is_superset(&told),
        "who listens hears all of it"
    );
    let kinds: BTreeSet<&str> = told.iter().filter_map(|id| id.rsplit('/').next()).collect();
    assert!(
        kinds.is_superset(&["started", "compensating", "completed", "compensated", "failed"].into()),
        "{kinds:?}"
    );
    println!(
        "{} changes of {} runs were told",
        told.len(),
        load::faults(&started).len()
    );
    drop(worker);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_switched_off_tells_nothing() {
    let stack = Stack::start().await;
    let replica = stack.first_replica("one").await;
    switch(&stack, false).await;
    // By the next renewal of the lease but one it is known: its round may have been under way.
    drop(replica);
    let _replica = Replica::start(&stack, "one").await;
    let _worker = WorkerProcess::start(&stack, "worker");
    for (n, fault) in [Fault::None, Fault::Stock].into_iter().enumerate() {
        stack.starter().run(&format!("o-{n}"), fault).await;
    }
    assert!(stored(&stack).await.is_empty());
    stack.stop().await;
}
