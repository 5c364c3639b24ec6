//! Publications, and what is full.

use super::*;

#[tokio::test]
async fn publications_without_a_server_fail_together_and_not_one_after_the_other() {
    let mut server = TestServer::start();
    let bus = NatsBus::connect(NatsConfig {
        ack_timeout: Duration::from_millis(300),
        ..config(&server)
    })
    .await
    .unwrap();
    bus.prepare(CLUSTER, 1).await.unwrap();
    server.kill();
    let started = Instant::now();
    let outcomes = bus.publish(numbered(0..1000)).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(PublishError::Unacknowledged(_))))
    );
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(bus.publisher.room(), NatsConfig::default().max_in_flight as usize);
    // A caller that goes away leaves its room behind.
    let call = bus.publish(numbered(0..10));
    assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
    assert_eq!(bus.publisher.room(), NatsConfig::default().max_in_flight as usize);
    server.run();
    publish_until_stored(&bus, to_log("o-1", "1")).await;
}

#[tokio::test]
async fn a_full_stream_refuses_and_the_others_go_on() {
    let server = TestServer::start();
    let bus = NatsBus::connect(NatsConfig {
        streams: StreamSettings {
            task_max_bytes: Setting::Always(20_000),
            ..StreamSettings::default()
        },
        ..config(&server)
    })
    .await
    .unwrap();
    bus.prepare(CLUSTER, 1).await.unwrap();
    bus.ensure_queues(&Namespace::new("a"), &[]).await.unwrap();
    let task = |n: u32| Outgoing {
        subject: subject::task("a", "q", "act").unwrap(),
        headers: Headers::new(),
        payload: Bytes::from(vec![b'x'; 900 + n as usize % 2]),
        delivery: Delivery::Stream,
    };
    let mut messages: Vec<Outgoing> = (0..50).map(task).collect();
    messages.push(to_log("o-1", "1"));
    messages.push(Outgoing {
        subject: subject::task("b", "q", "act").unwrap(),
        ..task(0)
    });
    let large = Bytes::from(vec![0; 2 << 20]);
    messages.push(Outgoing {
        payload: large.clone(),
        ..task(0)
    });
    messages.push(Outgoing {
        subject: subject::dead_letter(Some("a"), "poison"),
        payload: large,
        ..task(0)
    });
    let outcomes = bus.publish(messages).await;
    let stored = outcomes[..50].iter().take_while(|outcome| outcome.is_ok()).count();
    assert!((15..25).contains(&stored), "{stored}");
    assert!(
        outcomes[stored..50]
            .iter()
            .all(|outcome| *outcome == Err(PublishError::Full))
    );
    assert_eq!(outcomes[50], Ok(()));
    // So soon after connecting a missing stream may still be on its way.
    assert!(matches!(
        outcomes[51],
        Err(PublishError::Unacknowledged(_) | PublishError::NoStream)
    ));
    // Its body has room beside the stream that has none for it.
    assert_eq!(outcomes[52], Err(PublishError::Full));
    assert!(matches!(outcomes[53], Err(PublishError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_publications_are_settled_in_order_for_two_callers() {
    let server = TestServer::start();
    let bus = Arc::new(bus(&server, 1).await);
    let (into, mut from) = Inlet::of_messages(256);
    bus.open_partition(0, Cursor::default(), 1, into).await.unwrap();
    let other = tokio::spawn({
        let bus = Arc::clone(&bus);
        async move { bus.publish(numbered(100_000..110_000)).await }
    });
    let mut messages = numbered(0..10_000);
    messages[5_000].headers = vec![(Arc::from("bad:name"), String::new())];
    let outcomes = bus.publish(messages).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        match n {
            5_000 => assert!(matches!(outcome, Err(PublishError::Refused(_)))),
            _ => assert_eq!(*outcome, Ok(())),
        }
    }
    assert!(all_ok(&other.await.unwrap()));
    let mut streams = [Vec::new(), Vec::new()];
    for _ in 0..19_999 {
        let n = number(&next_log(&mut from).await);
        streams[usize::from(n >= 100_000)].push(n);
    }
    assert!(streams.iter().all(|numbers| numbers.is_sorted()));
    assert_eq!(bus.publisher.room(), NatsConfig::default().max_in_flight as usize);
}

/// Starts fill the log up to their share; what is left takes results, and another namespace's starts, until there is room.
#[tokio::test]
async fn starts_leave_room_in_the_log_for_results() {
    const LIMIT: u64 = 4 << 20;
    let server = TestServer::start();
    let bus = NatsBus::connect(NatsConfig {
        streams: StreamSettings {
            log_max_bytes: Setting::Always(LIMIT),
            ..StreamSettings::default()
        },
        ..config(&server)
    })
    .await
    .unwrap();
    bus.prepare(CLUSTER, 2).await.unwrap();
    let namespaces = ["a", "b", "c"].map(Namespace::new);
    let start = |namespace: &str, n: u32| Outgoing {
        subject: subject::start(namespace, &format!("o-{n}"), "order").unwrap(),
        payload: Bytes::from(vec![b'x'; 4_000]),
        ..to_log("o-1", "")
    };
    let unkeyed = |namespace: &str| Outgoing {
        subject: subject::unkeyed_start(namespace, "order").unwrap(),
        ..to_log("o-1", "")
    };
    let verb = |namespace: &str, verb: &str, size: usize| Outgoing {
        subject: subject::run_verb(namespace, "o-1", verb).unwrap(),
        payload: Bytes::from(vec![b'y'; size]),
        ..to_log("o-1", "")
    };
    let (mut starts, mut stored) = (0, 0);
    let room = loop {
        let room = bus.keep_head_room(&namespaces).await.unwrap();
        if room.changed {
            break room;
        }
        let batch = (0..20).map(|n| start("a", starts + n)).collect();
        stored += bus.publish(batch).await.iter().filter(|stored| stored.is_ok()).count();
        starts += 20;
        assert!(starts < 2_000, "never throttled");
        if starts == 20 {
            assert_eq!(bus.publish(vec![start("b", 1)]).await, [Ok(())]);
        }
    };
    assert_eq!(stored, usize::try_from(starts).unwrap());
    assert!((75..80).contains(&room.fill.percent()), "{room:?}");
    let of = |names: &[&str]| head_room::Taken::Of(names.iter().map(|name| Namespace::new(name)).collect());
    assert_eq!(room.taken, of(&["b", "c"]));

    // Its starts find nobody, from the server itself; whatever asserts the streams again leaves that as it is.
    bus.prepare(CLUSTER, 2).await.unwrap();
    let refused = async |message: Outgoing| {
        let answer = bus.client().request(message.subject, message.payload).await;
        let error = answer.map(|answer| answer.payload).expect_err("a start was taken");
        assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    };
    refused(start("a", 9_999)).await;
    refused(unkeyed("a")).await;
    let taken = vec![
        start("b", 2),
        unkeyed("b"),
        start("c", 1),
        verb("a", "result", 100_000),
        verb("a", "cancel", 0),
        verb("a", "signal.paid", 10_000),
    ];
    assert!(all_ok(&bus.publish(taken).await));

    // Beyond nine tenths no starts are taken at all, and results still are.
    while bus.keep_head_room(&namespaces).await.unwrap().fill.percent() < 90 {
        assert!(all_ok(&bus.publish(vec![verb("b", "result", 100_000)]).await));
    }
    assert_eq!(bus.keep_head_room(&namespaces).await.unwrap().taken, of(&[]));
    refused(start("b", 3)).await;
    assert!(all_ok(&bus.publish(vec![verb("a", "result", 10_000)]).await));

    // All of it is in its partition, in order.
    let (into, mut from) = Inlet::of_messages(10_000);
    for partition in 0..3 {
        bus.open_partition(partition, Cursor::default(), 1, into.clone())
            .await
            .unwrap();
    }
    let mut cursors: Vec<Cursor> = vec![Cursor::default(); 3];
    let last = bus.shared.js.stream(subject::LOG_STREAM).await.unwrap().state.last_seq;
    while cursors.iter().map(|cursor| cursor.sequence).max() < Some(last) {
        let message = next_log(&mut from).await;
        let cursor = &mut cursors[usize::try_from(message.partition).unwrap()];
        assert!(message.cursor.sequence > cursor.sequence);
        *cursor = message.cursor;
    }
    // Every partition has read the end.
    let end = cursors.iter().max_by_key(|cursor| cursor.sequence).unwrap().clone();
    let committed: Vec<_> = (0..3).map(|partition| (partition, end.clone())).collect();
    bus.purge_log(&committed).await.unwrap();
    let room = bus.keep_head_room(&namespaces).await.unwrap();
    assert_eq!((room.changed, room.taken), (true, head_room::Taken::All));
    assert!(all_ok(&bus.publish(vec![start("a", 10_000), unkeyed("a")]).await));
    for _ in 0..2 {
        next_log(&mut from).await;
    }
}
