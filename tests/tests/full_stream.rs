//! One namespace's task stream full: its dispatches are held, another namespace works on, and nothing is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use knarr_tests::audit::audit_ends;
use knarr_tests::{Fault, Stack, Starter, WorkerProcess, eventually, jetstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_holds_up_its_own_namespace_alone() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    stack.create_namespace("small").await;
    stack.register("small", knarr_tests::stack::ORDER).await;
    let stream = "KNARR_TASKS_small";
    jetstream::reconfigure(stack.nats(), stream, &[("max_bytes", 4_096.into())]).await;
    let small = Starter::new(stack.nats(), "small");
    let mut ends = BTreeMap::new();
    for n in 0..30 {
        let fault = if n % 3 == 0 { Fault::Stock } else { Fault::None };
        let id = format!("small-{n}");
        small.start(&id, fault).await;
        ends.insert(id, fault.ends());
    }
    eventually("held dispatches", Duration::from_secs(20), || async {
        let held = "select count(distinct run_id) from events where body like '%\"dispatch_held\"%'";
        (stack.number(held).await > 10).then_some(())
    })
    .await;

    let _worker = WorkerProcess::start(&stack, "worker");
    let starter = stack.starter();
    let mut others = BTreeMap::new();
    for n in 0..10 {
        let id = format!("other-{n}");
        let answer = starter.run(&id, Fault::None).await;
        assert_eq!(answer.status.as_deref(), Some("completed"));
        others.insert(id, Fault::None.ends());
    }
    let open = stack.number("select count(*) from runs where closed_at is null").await;
    assert_eq!(open, 30, "nobody works in the other namespace yet");

    let _small_worker = WorkerProcess::start_in(&stack, "small-worker", "small", 0);
    jetstream::reconfigure(stack.nats(), stream, &[("max_bytes", (1 << 30).into())]).await;
    let took = stack.all_closed(40, Duration::from_secs(60)).await;
    println!("all ended {took:?} after there was room");
    println!("{:?}", audit_ends(&stack, "small", &ends).await);
    audit_ends(&stack, "default", &others).await;
    stack.stop().await;
}
