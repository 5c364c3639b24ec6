//! Reading the log and the direct inlets, and forgetting what has been read.

use super::*;

#[tokio::test]
async fn messages_come_in_order_and_exactly_from_the_cursor_on() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    bus.prepare(CLUSTER, 1).await.unwrap();
    assert_eq!(bus.log_tail(0).await.unwrap(), 0);
    let (into, mut from) = Inlet::of_messages(64);
    bus.open_partition(0, Cursor::default(), 1, into.clone()).await.unwrap();
    assert!(all_ok(&bus.publish(numbered(0..1000)).await));
    let half = expect(&mut from, 0..500).await;
    assert!(!half.stream.is_empty());
    assert!(half.at > Timestamp::default());
    let last = expect(&mut from, 500..1000).await;
    assert_eq!(bus.log_tail(0).await.unwrap(), last.sequence);
    // A new opening ends the earlier one, and each says which it is.
    bus.open_partition(0, half, 2, into.clone()).await.unwrap();
    let message = next_log(&mut from).await;
    assert_eq!((number(&message), message.reader), (500, 2));
    assert_eq!(message.subject, "knarr.in.0.default.o-1.start.order");
    bus.close_partition(0).await;
    while from.try_recv().is_ok() {}
    assert!(all_ok(&bus.publish(numbered(1000..1001)).await));
    bus.open_partition(0, last, 3, into).await.unwrap();
    assert_eq!(number(&next_log(&mut from).await), 1000);
}

#[tokio::test]
async fn un_keyed_starts_come_to_the_ingress_with_their_headers() {
    let server = TestServer::start();
    let bus = bus(&server, 4).await;
    let (into, mut from) = Inlet::of_messages(64);
    bus.open_partition(4, Cursor::default(), 1, into).await.unwrap();
    let start = Outgoing {
        subject: subject::unkeyed_start("default", "order").unwrap(),
        headers: vec![(Arc::from(header::REQUEST_ID), "r-1".to_owned())],
        payload: Bytes::from_static(b"{}"),
        delivery: Delivery::Stream,
    };
    assert_eq!(bus.publish(vec![start]).await, [Ok(())]);
    let message = next_log(&mut from).await;
    assert_eq!(
        (message.partition, message.subject.as_str()),
        (4, "knarr.start.default.order")
    );
    assert_eq!(crate::bus::header(&message.headers, header::REQUEST_ID), Some("r-1"));
}

#[tokio::test]
async fn what_is_too_short_to_be_sorted_comes_to_the_ingress_too() {
    let server = TestServer::start();
    let bus = bus(&server, 4).await;
    let (into, mut from) = Inlet::of_messages(64);
    bus.open_partition(4, Cursor::default(), 1, into).await.unwrap();
    let short = Outgoing {
        subject: "knarr.run.default.o-1".to_owned(),
        ..to_log("o-1", "1")
    };
    assert_eq!(bus.publish(vec![short, to_log("o-1", "2")]).await, [Ok(()), Ok(())]);
    let message = next_log(&mut from).await;
    assert_eq!(message.subject, "knarr.run.default.o-1");
    assert_eq!(bus.log_tail(4).await.unwrap(), message.cursor.sequence);
    bus.close_partition(4).await;
    assert!(
        from.recv()
            .await
            .is_none_or(|incoming| matches!(incoming.incoming, Incoming::Idle { .. }))
    );
}

#[tokio::test]
async fn a_reader_whose_consumer_is_taken_away_goes_on_where_it_was() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (into, mut from) = Inlet::of_messages(16);
    bus.open_partition(0, Cursor::default(), 1, into).await.unwrap();
    for round in 0..5 {
        assert!(all_ok(&bus.publish(numbered(round * 400..(round + 1) * 400)).await));
        expect(&mut from, round * 400..round * 400 + 100).await;
        let names: Value = bus.shared.js.call("CONSUMER.NAMES.KNARR_IN", &json!({})).await.unwrap();
        for name in names["consumers"].as_array().unwrap() {
            let operation = format!("CONSUMER.DELETE.KNARR_IN.{}", name.as_str().unwrap());
            let _: Value = bus.shared.js.call(&operation, &json!({})).await.unwrap();
        }
        expect(&mut from, round * 400 + 100..(round + 1) * 400).await;
    }
}

#[tokio::test]
async fn messages_whose_headers_end_the_connection_are_handed_over_and_passed() {
    let server = TestServer::start();
    let bus = bus(&server, 2).await;
    let number_of = |id: &str| i16::try_from(subject::partition_of("default", id, 2)).unwrap();
    let other = (0..)
        .map(|n| format!("p-{n}"))
        .find(|id| number_of(id) != number_of("o-1"));
    let other = other.unwrap();
    let bad = subject::start("default", "o-1", "order").unwrap();
    assert!(all_ok(&bus.publish(numbered(0..300)).await));
    let blocks = [
        &b"NATS/1.0\r\nX-Name: caf\xff\r\nKnarr-Version: 2\r\n\r\n"[..],
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
    ];
    for block in blocks {
        server.publish_raw(&bad, block, b"the body");
    }
    // By its look a control message; the server of today forgets the status, those before it do not.
    server.publish_raw(&bad, b"NATS/1.0 503\r\n\r\n", b"300");
    assert!(all_ok(&bus.publish(numbered(301..600)).await));
    server.publish_raw(&bad, blocks[0], &[b'x'; 1_048_000]);
    assert!(all_ok(&bus.publish(numbered(600..601)).await));
    assert!(all_ok(&bus.publish(vec![to_log(&other, "0")]).await));

    let (into, mut from) = Inlet::of_messages(2_000);
    let (elsewhere, mut from_other) = Inlet::of_messages(64);
    bus.open_partition(number_of("o-1"), Cursor::default(), 1, into)
        .await
        .unwrap();
    bus.open_partition(number_of(&other), Cursor::default(), 1, elsewhere)
        .await
        .unwrap();
    expect(&mut from, 0..300).await;
    for block in blocks {
        let message = next_log(&mut from).await;
        assert!(message.flaw.is_some(), "{message:?}");
        assert_eq!(
            (message.subject.as_str(), &message.payload[..]),
            ("knarr.in.1.default.o-1.start.order", &b"the body"[..])
        );
        let kept = crate::bus::header(&message.headers, header::ORIGINAL_HEADERS).unwrap();
        assert_eq!(kept, block.escape_ascii().to_string());
    }
    expect(&mut from, 300..600).await;
    let message = next_log(&mut from).await;
    assert_eq!((message.flaw.is_some(), message.payload.len()), (true, 1_048_000));
    assert_eq!(crate::bus::header(&message.headers, header::VERSION), Some("2"));
    let message = next_log(&mut from).await;
    assert_eq!((number(&message), message.flaw), (600, None));
    assert_eq!(number(&next_log(&mut from_other).await), 0);
    assert!(all_ok(&bus.publish(numbered(601..700)).await));
    expect(&mut from, 601..700).await;
}

#[tokio::test]
async fn a_full_channel_holds_the_reader_back_and_loses_nothing() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (into, mut from) = Inlet::of_messages(1);
    bus.open_partition(0, Cursor::default(), 1, into).await.unwrap();
    assert!(all_ok(&bus.publish(numbered(0..5000)).await));
    // What was pulled and is not taken is bounded: the server still holds most of it as undelivered.
    let names: Value = bus.shared.js.call("CONSUMER.NAMES.KNARR_IN", &json!({})).await.unwrap();
    let name = names["consumers"][0].as_str().unwrap().to_owned();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let info = bus.shared.js.consumer("KNARR_IN", &name).await.unwrap();
        assert!(info.num_pending >= 5000 - 600, "{info:?}");
        if info.delivered.stream_seq >= 256 {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    expect(&mut from, 0..5000).await;
}

#[tokio::test]
async fn purging_keeps_the_smallest_cursors_message_and_needs_all_partitions() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (into, mut from) = Inlet::of_messages(256);
    bus.open_partition(0, Cursor::default(), 1, into.clone()).await.unwrap();
    assert!(all_ok(&bus.publish(numbered(0..100)).await));
    let fiftieth = expect(&mut from, 0..50).await;
    let last = expect(&mut from, 50..100).await;
    assert!(matches!(
        bus.purge_log(&[(0, last.clone())]).await,
        Err(BusError::Misconfigured(_))
    ));
    // A cursor made on another history purges nothing.
    let other = Cursor {
        at: Timestamp(1),
        ..fiftieth.clone()
    };
    bus.purge_log(&[(0, last.clone()), (1, other)]).await.unwrap();
    assert_eq!(bus.shared.js.stream("KNARR_IN").await.unwrap().state.first_seq, 1);
    bus.purge_log(&[(0, last.clone()), (1, fiftieth.clone())])
        .await
        .unwrap();
    assert_eq!(
        bus.shared.js.stream("KNARR_IN").await.unwrap().state.first_seq,
        fiftieth.sequence
    );
    bus.open_partition(0, fiftieth.clone(), 2, into.clone()).await.unwrap();
    expect(&mut from, 50..100).await;
    // Purged by somebody else: empty, with nothing missing behind the last cursor, and unknown behind an earlier one.
    let _: Value = bus.shared.js.call("STREAM.PURGE.KNARR_IN", &json!({})).await.unwrap();
    assert!(all_ok(&bus.publish(numbered(100..101)).await));
    bus.open_partition(0, last.clone(), 3, into.clone()).await.unwrap();
    expect(&mut from, 100..101).await;
    bus.open_partition(0, fiftieth, 4, into).await.unwrap();
    assert_eq!(next_gap(&mut from).await.resumes_at.sequence, last.sequence);
    expect(&mut from, 100..101).await;
}

#[tokio::test]
async fn a_silent_partition_reports_how_far_it_has_read() {
    let server = TestServer::start();
    let bus = bus(&server, 2).await;
    let (into, mut from) = Inlet::of_messages(256);
    let silent = 1 - subject::partition_of("default", "o-1", 2) as i16;
    bus.open_partition(silent, Cursor::default(), 5, into.clone())
        .await
        .unwrap();
    assert!(all_ok(&bus.publish(numbered(0..10)).await));
    let Incoming::Idle {
        partition,
        cursor,
        reader,
    } = next(&mut from).await
    else {
        panic!()
    };
    assert_eq!((partition, cursor.sequence, reader), (silent, 10, 5));
    // It is a cursor like any other.
    bus.open_partition(silent, cursor, 6, into).await.unwrap();
    assert!(all_ok(&bus.publish(numbered(10..11)).await));
    let Incoming::Idle { cursor, .. } = next(&mut from).await else {
        panic!()
    };
    assert_eq!(cursor.sequence, 11);
}

#[tokio::test]
async fn direct_messages_reach_the_owner_and_nobody_else() {
    let server = TestServer::start();
    let bus = bus(&server, 4).await;
    let (into, mut from) = Inlet::of_messages(16);
    bus.open_partition(2, Cursor::default(), 1, into).await.unwrap();
    let worker = async_nats::connect(server.url()).await.unwrap();
    let mut confirmations = worker.subscribe("_INBOX.w.1").await.unwrap();
    worker.flush().await.unwrap();
    bus.client().flush().await.unwrap();
    worker
        .publish("knarr.direct.default.2.other", Bytes::new())
        .await
        .unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(header::TOKEN, "tok");
    worker
        .publish_with_reply_and_headers("knarr.direct.default.2.result", "_INBOX.w.1", headers, "out".into())
        .await
        .unwrap();
    let Incoming::Direct(direct) = next(&mut from).await else {
        panic!()
    };
    assert_eq!(
        (direct.partition, direct.namespace.as_str(), direct.kind),
        (2, "default", DirectKind::Result)
    );
    assert_eq!(crate::bus::header(&direct.headers, header::TOKEN), Some("tok"));
    let confirm = Outgoing {
        subject: direct.reply.unwrap(),
        headers: Headers::new(),
        payload: Bytes::from_static(b"ok"),
        delivery: Delivery::Core,
    };
    assert_eq!(bus.publish(vec![confirm]).await, [Ok(())]);
    assert_eq!(confirmations.next().await.unwrap().payload, "ok");
    // Where nobody owns a partition (any more) the server says so, as soon as it knows.
    bus.close_partition(2).await;
    for partition in [3, 2] {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let request = async_nats::Request::new().timeout(Some(Duration::from_millis(100)));
            let subject = format!("knarr.direct.default.{partition}.result");
            let error = worker.send_request(subject, request).await.unwrap_err();
            if error.kind() == async_nats::RequestErrorKind::NoResponders {
                break;
            }
            assert!(Instant::now() < deadline);
        }
    }
}

/// A partition that nobody works on holds its share of the room, whatever lies in its log; another is read meanwhile, and what
/// waited follows in order.
#[tokio::test]
async fn a_flood_of_large_messages_waits_in_the_log() {
    const MIB: usize = 1 << 20;
    let server = TestServer::start();
    let bus = bus(&server, 2).await;
    let number_of = |id: &str| subject::partition_of("default", id, 2) as i16;
    let full = "o-1";
    let other = (2..)
        .map(|n| format!("o-{n}"))
        .find(|id| number_of(id) != number_of(full))
        .unwrap();
    let large = |n: u32| format!("{}{n}", "0".repeat(MIB - (16 << 10)));
    for n in 0..40 {
        publish_until_stored(&bus, to_log(full, &large(n))).await;
    }
    for n in 0..100 {
        publish_until_stored(&bus, to_log(&other, &n.to_string())).await;
    }
    let room = inlet::Room::new(24 * MIB, 0, 2);
    let (into, mut from) = mpsc::channel(1_000);
    for partition in 0..2 {
        let inlet = room.inlet(partition, into.clone());
        bus.open_partition(partition, Cursor::default(), 1, inlet)
            .await
            .unwrap();
    }
    let (mut held, mut others) = (std::collections::VecDeque::new(), 0);
    while others < 100 || held.is_empty() {
        let taken = tokio::time::timeout(DEADLINE, from.recv()).await.unwrap().unwrap();
        match &taken.incoming {
            Incoming::Log(message) if message.partition == number_of(full) => held.push_back(taken),
            Incoming::Log(message) => {
                assert_eq!(number(message), others);
                others += 1;
            }
            _ => {}
        }
        assert!(room.in_use().log <= 24 * MIB);
    }
    // Each weighs twice its bytes, and a share has four mebibytes.
    assert!(held.len() <= 2, "{}", held.len());
    for expected in 0..40 {
        while held.is_empty() {
            let taken = tokio::time::timeout(DEADLINE, from.recv()).await.unwrap().unwrap();
            assert!(room.in_use().log <= 24 * MIB);
            if matches!(&taken.incoming, Incoming::Log(_)) {
                held.push_back(taken);
            }
        }
        let Some(Admitted {
            incoming: Incoming::Log(message),
            ..
        }) = held.pop_front()
        else {
            panic!()
        };
        assert_eq!(number(&message), expected);
    }
    assert_eq!(room.in_use(), inlet::InUse::default());
}
