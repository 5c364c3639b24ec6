use std::time::Duration;

use bytes::Bytes;
use knarr_schemas::{header as names, subject};

use super::*;
use crate::bus::inlet::Admitted;
use crate::bus::{Delivery, Headers};

async fn next(from: &mut mpsc::Receiver<Admitted>) -> Incoming {
    let deadline = Duration::from_secs(10);
    loop {
        let admitted = tokio::time::timeout(deadline, from.recv()).await.expect("in time");
        match admitted.expect("open").incoming {
            Incoming::Clock(_) => {}
            incoming => return incoming,
        }
    }
}

async fn text(from: &mut mpsc::Receiver<Admitted>) -> (String, Cursor) {
    match next(from).await {
        Incoming::Log(message) => (String::from_utf8(message.payload.to_vec()).unwrap(), message.cursor),
        other => panic!("{other:?}"),
    }
}

fn start(bus: &MemoryBus, body: &str) -> u64 {
    let subject = subject::start("default", "o-1", "order").unwrap();
    bus.publish_to_log(&subject, Headers::new(), Bytes::from(body.to_owned()))
        .unwrap()
}

async fn prepared() -> MemoryBus {
    let time = std::sync::atomic::AtomicI64::new(1_000);
    let bus = MemoryBus::with_clock(move || Timestamp(time.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
    bus.prepare(uuid::Uuid::nil(), 1).await.unwrap();
    bus
}

fn task(token: &str) -> Outgoing {
    Outgoing {
        subject: subject::task("a", "q", "act").unwrap(),
        headers: vec![
            (Arc::from(names::TOKEN), token.to_owned()),
            (Arc::from(names::DIRECT), subject::direct("a", 0).unwrap()),
            (Arc::from(names::NATS_MSG_ID), token.to_owned()),
        ],
        payload: Bytes::new(),
        delivery: Delivery::Stream,
    }
}

#[tokio::test]
async fn the_log_is_read_from_the_cursor_through_every_fault() {
    let bus = prepared().await;
    let (into, mut from) = Inlet::of_messages(1);
    bus.open_partition(0, Cursor::default(), 1, into.clone()).await.unwrap();
    start(&bus, "1");
    let copy = bus.copy_log();
    start(&bus, "2");
    let (body, first) = text(&mut from).await;
    assert_eq!((body.as_str(), first.sequence), ("1", 1));
    let (_, second) = text(&mut from).await;

    bus.restore_log(&copy);
    let Incoming::Gap(gap) = next(&mut from).await else {
        panic!()
    };
    assert_eq!((gap.lost_after, gap.resumes_at), (second, first.clone()));
    start(&bus, "3");
    assert_eq!(text(&mut from).await.0, "3");

    bus.lose_log();
    let Incoming::Gap(gap) = next(&mut from).await else {
        panic!()
    };
    assert_eq!(gap.resumes_at.sequence, 0);
    start(&bus, "4");
    let (body, cursor) = text(&mut from).await;
    assert_eq!((body.as_str(), cursor.sequence), ("4", 1));
    assert_ne!(cursor.stream, first.stream);

    bus.set_connected(false);
    let subject = subject::start("default", "o-1", "order").unwrap();
    assert!(matches!(
        bus.publish_to_log(&subject, Headers::new(), Bytes::new()),
        Err(PublishError::Unacknowledged(_))
    ));
    bus.set_connected(true);
    assert!(matches!(next(&mut from).await, Incoming::Reconnected));
    bus.set_full(subject::LOG_STREAM, true);
    assert_eq!(
        bus.publish_to_log(&subject, Headers::new(), Bytes::new()),
        Err(PublishError::Full)
    );
    bus.set_full(subject::LOG_STREAM, false);

    bus.close_partition(0).await;
    start(&bus, "5");
    bus.open_partition(0, cursor, 2, into).await.unwrap();
    assert_eq!(text(&mut from).await.0, "5");
    assert_eq!(bus.log_tail(0).await.unwrap(), 2);
}

#[tokio::test]
async fn purging_and_idle_reports_are_those_of_nats() {
    let bus = prepared().await;
    let (into, mut from) = Inlet::of_messages(8);
    bus.open_partition(1, Cursor::default(), 9, into).await.unwrap();
    for n in 0..3 {
        start(&bus, &n.to_string());
    }
    bus.report_idle();
    let Incoming::Idle {
        partition: 1,
        cursor,
        reader: 9,
    } = next(&mut from).await
    else {
        panic!()
    };
    assert_eq!(cursor.sequence, 3);
    assert!(bus.purge_log(&[(1, cursor.clone())]).await.is_err());
    bus.purge_log(&[(0, cursor.clone()), (1, cursor.clone())])
        .await
        .unwrap();
    let state = bus.inner.state();
    assert!(state.log.get(2).is_none() && state.log.get(3).is_some());
}

#[tokio::test]
async fn every_copy_of_a_task_is_taken_out_if_none_was_delivered() {
    let bus = prepared().await;
    let (namespace, queue) = (Namespace::new("a"), QueueName::new("q"));
    let settings = QueueSettings {
        queue: queue.clone(),
        ack_wait: Duration::from_secs(30),
    };
    bus.ensure_queues(&namespace, &[settings]).await.unwrap();
    let name = |number: u32| (RunId(Uuid::from_u128(7)), TaskNo(number));
    let copy = |number: u32, id: &str| {
        let mut message = task(id);
        let (run, number) = name(number);
        message.headers.extend([
            (Arc::from(names::RUN_ID), run.to_string()),
            (Arc::from(names::TASK), number.0.to_string()),
        ]);
        message
    };
    let messages = vec![copy(1, "1"), task("b"), copy(1, "2"), copy(2, "3"), copy(3, "4")];
    assert!(bus.publish(messages).await.iter().all(Result::is_ok));
    let withdraw = async |names: &[_]| bus.withdraw(&namespace, &queue, names).await;
    let (taken, not) = (Some(true), Some(false));
    assert_eq!(
        withdraw(&[name(3), name(1), name(9), name(1)]).await,
        [taken, taken, not, taken]
    );
    assert_eq!(withdraw(&[name(1)]).await, [not], "it is gone");
    assert_eq!(bus.task_count("a"), 2);
    assert_eq!(bus.pull_tasks("a", "q", 2).len(), 2);
    assert!(bus.publish(vec![copy(2, "5")]).await.iter().all(Result::is_ok));
    assert_eq!(withdraw(&[name(2)]).await, [not]);
    assert_eq!(bus.task_count("a"), 3, "what a worker has is not taken from it");
    bus.set_connected(false);
    assert_eq!(withdraw(&[name(2)]).await, [None]);
}

#[tokio::test]
async fn tasks_are_pulled_acknowledged_and_given_up() {
    let bus = prepared().await;
    let (namespace, queue) = (Namespace::new("a"), QueueName::new("q"));
    assert_eq!(bus.publish(vec![task("t")]).await, [Err(PublishError::NoStream)]);
    bus.ensure_queues(&namespace, &[]).await.unwrap();
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.next_tasks("a", "q", 10).await }
    });
    assert_eq!(
        bus.publish(vec![task("t"), task("t"), task("u")]).await,
        [Ok(()), Ok(()), Ok(())]
    );
    let mut tasks = waiting.await.unwrap();
    if tasks.len() == 1 {
        tasks.extend(bus.pull_tasks("a", "q", 10));
    }
    assert_eq!(tasks.len(), 2, "a repeated id is swallowed");
    assert_eq!(bus.undelivered(&namespace, &queue).await.unwrap(), Undelivered::Nothing);
    assert!(bus.acknowledge(&tasks[1]) && !bus.acknowledge(&tasks[1]));
    let mut task = tasks.remove(0);
    for delivery in 2..=5 {
        bus.redeliver(&task);
        task = bus.pull_tasks("a", "q", 10).remove(0);
        assert_eq!(task.deliveries, delivery);
    }
    bus.redeliver(&task);
    assert_eq!(bus.task_count("a"), 0);
    let (into, mut from) = Inlet::of_messages(8);
    bus.open_partition(0, Cursor::default(), 1, into).await.unwrap();
    let Incoming::TaskLost {
        partition: 0, token, ..
    } = next(&mut from).await
    else {
        panic!()
    };
    assert_eq!(token, "t");
    bus.lose_acknowledgements(1, true);
    assert!(matches!(
        bus.publish(vec![self::task("v")]).await[0],
        Err(PublishError::Unacknowledged(_))
    ));
    assert_eq!(bus.task_count("a"), 1);
    assert!(matches!(
        bus.undelivered(&namespace, &queue).await.unwrap(),
        Undelivered::For(_)
    ));
}

#[tokio::test]
async fn direct_messages_are_dropped_doubled_and_reordered_on_demand() {
    let bus = prepared().await;
    let send = |n: u32| {
        bus.send_direct(
            "knarr.direct.a.0.result",
            Headers::new(),
            Bytes::from(n.to_string()),
            Some("r"),
        )
    };
    assert!(!send(0), "nobody listens");
    let (into, mut from) = Inlet::of_messages(64);
    bus.open_partition(0, Cursor::default(), 1, into).await.unwrap();
    let mut order = async |count: usize| {
        let mut bodies = Vec::new();
        for _ in 0..count {
            let Incoming::Direct(message) = next(&mut from).await else {
                panic!()
            };
            bodies.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
        bodies.join(" ")
    };
    // The counts go on from one case to the next.
    for (faults, expected) in [
        (DirectFaults::default(), "1 2 3 4"),
        (
            DirectFaults {
                drop_every: 2,
                ..DirectFaults::default()
            },
            "1 3",
        ),
        (
            DirectFaults {
                duplicate_every: 4,
                ..DirectFaults::default()
            },
            "1 2 3 4 4",
        ),
        (
            DirectFaults {
                delay_every: 3,
                ..DirectFaults::default()
            },
            "1 2 4 3",
        ),
    ] {
        bus.set_direct_faults(faults);
        assert!((1..=4).all(send));
        assert_eq!(order(expected.split(' ').count()).await, expected, "{faults:?}");
    }
}

#[tokio::test]
async fn core_messages_reach_who_listens() {
    let bus = prepared().await;
    let mut all = bus.subscribe("_INBOX.>");
    let mut other = bus.subscribe("_INBOX.*.b");
    let message = Outgoing {
        subject: "_INBOX.a".to_owned(),
        headers: Headers::new(),
        payload: Bytes::new(),
        delivery: Delivery::Core,
    };
    assert_eq!(bus.publish(vec![message]).await, [Ok(())]);
    assert_eq!(all.recv().await.unwrap().subject, "_INBOX.a");
    assert!(other.try_recv().is_err());
}
