//! Against a real nats-server, found as `knarr dev` finds it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use knarr_core::ids::{Namespace, QueueName};
use knarr_core::time::Timestamp;
use knarr_schemas::{header, subject};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::jetstream::MessageQuery;
use super::test_server::TestServer;
use super::*;
use crate::bus::inlet::{self, Admitted, Inlet};
use crate::bus::{Delivery, DirectKind, Headers, Incoming, LogGap, LogMessage, Undelivered, head_room};

const DEADLINE: Duration = Duration::from_secs(30);
const CLUSTER: Uuid = Uuid::from_u128(1);

fn config(server: &TestServer) -> NatsConfig {
    NatsConfig {
        url: server.url(),
        idle_after: Duration::from_secs(1),
        ..NatsConfig::default()
    }
}

async fn bus(server: &TestServer, partitions: u16) -> NatsBus {
    let bus = NatsBus::connect(config(server)).await.unwrap();
    bus.prepare(CLUSTER, partitions).await.unwrap();
    bus
}

fn to_log(id: &str, body: &str) -> Outgoing {
    Outgoing {
        subject: subject::start("default", id, "order").unwrap(),
        headers: Headers::new(),
        payload: Bytes::from(body.to_owned()),
        delivery: Delivery::Stream,
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<Outgoing> {
    range.map(|n| to_log("o-1", &n.to_string())).collect()
}

fn all_ok(outcomes: &[Result<(), PublishError>]) -> bool {
    outcomes.iter().all(Result::is_ok)
}

async fn next(from: &mut mpsc::Receiver<Admitted>) -> Incoming {
    tokio::time::timeout(DEADLINE, from.recv())
        .await
        .expect("in time")
        .expect("open")
        .incoming
}

/// The next message of the log; what only tells of the connection is passed over.
async fn next_log(from: &mut mpsc::Receiver<Admitted>) -> LogMessage {
    loop {
        match next(from).await {
            Incoming::Log(message) => return message,
            Incoming::Reconnected | Incoming::Idle { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn next_gap(from: &mut mpsc::Receiver<Admitted>) -> LogGap {
    loop {
        match next(from).await {
            Incoming::Gap(gap) => return gap,
            Incoming::Reconnected | Incoming::Idle { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn number(message: &LogMessage) -> u32 {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

async fn expect(from: &mut mpsc::Receiver<Admitted>, range: std::ops::Range<u32>) -> Cursor {
    let mut cursor = Cursor::default();
    for expected in range {
        let message = next_log(from).await;
        assert_eq!(number(&message), expected);
        assert!(message.cursor.sequence > cursor.sequence);
        cursor = message.cursor;
    }
    cursor
}

async fn publish_until_stored(bus: &NatsBus, message: Outgoing) {
    let deadline = Instant::now() + DEADLINE;
    while bus.publish(vec![message.clone()]).await != [Ok(())] {
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_a_remedy() {
    let config = NatsConfig {
        url: "nats://127.0.0.1:1".to_owned(),
        ..NatsConfig::default()
    };
    let error = NatsBus::connect(config).await.unwrap_err();
    assert!(matches!(error, BusError::Unavailable(_)));
    let text = error.to_string();
    assert!(text.contains("KN0301") && text.contains("127.0.0.1:1"), "{text}");
}

#[tokio::test]
async fn a_server_that_cannot_serve_is_refused_with_a_remedy() {
    for (arguments, expected) in [(&[][..], "KN0304"), (&["-js", "--user", "u", "--pass", "p"], "KN0302")] {
        let server = TestServer::start_with(arguments);
        let error = NatsBus::connect(config(&server)).await.unwrap_err();
        assert!(matches!(error, BusError::Misconfigured(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        if expected == "KN0302" {
            let credentials = Credentials::UserPassword {
                user: "u".to_owned(),
                password: "p".to_owned(),
            };
            NatsBus::connect(NatsConfig {
                credentials,
                ..config(&server)
            })
            .await
            .unwrap();
        }
    }
}

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
async fn the_servers_partitions_are_ours() {
    const PARTITIONS: u16 = 64;
    let server = TestServer::start();
    let bus = bus(&server, PARTITIONS).await;
    let ids: Vec<String> = (0..200)
        .map(|n| format!("order-{n}"))
        .chain(["Grüße/2026", "a.b*c>d %", "100%", "_", "-", "日本"].map(str::to_owned))
        .collect();
    let messages = ids
        .iter()
        .flat_map(|id| {
            ["default", "tëam a"].map(|ns| Outgoing {
                subject: subject::start(ns, id, "order").unwrap(),
                headers: Headers::new(),
                payload: Bytes::from(format!(
                    "{}",
                    subject::partition_of(
                        &subject::encode_token(ns).unwrap(),
                        &subject::encode_token(id).unwrap(),
                        PARTITIONS
                    )
                )),
                delivery: Delivery::Stream,
            })
        })
        .collect();
    assert!(all_ok(&bus.publish(messages).await));
    let (into, mut from) = Inlet::of_messages(64);
    for partition in 0..PARTITIONS {
        bus.open_partition(partition as i16, Cursor::default(), 1, into.clone())
            .await
            .unwrap();
    }
    let mut seen = BTreeSet::new();
    for _ in 0..2 * ids.len() {
        let message = next_log(&mut from).await;
        assert_eq!(number(&message), message.partition as u32, "{}", message.subject);
        seen.insert(message.partition);
    }
    assert!(seen.len() > 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_it_acknowledged() {
    let mut server = TestServer::start();
    let bus = Arc::new(bus(&server, 1).await);
    let (into, mut from) = Inlet::of_messages(256);
    bus.open_partition(0, Cursor::default(), 1, into).await.unwrap();
    let publishing = tokio::spawn({
        let bus = Arc::clone(&bus);
        async move {
            let mut acknowledged = Vec::new();
            let mut failed = 0;
            for round in 0..400_u32 {
                let outcomes = bus.publish(numbered(round * 50..(round + 1) * 50)).await;
                for (n, outcome) in (round * 50..).zip(outcomes) {
                    match outcome {
                        Ok(()) => acknowledged.push(n),
                        Err(PublishError::Unacknowledged(_) | PublishError::NoStream) => failed += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            (acknowledged, failed)
        }
    });
    let mut got = Vec::new();
    while got.len() < 1000 {
        got.push(number(&next_log(&mut from).await));
    }
    server.kill();
    server.run();
    let mut reconnected = false;
    let mut publishing = publishing;
    let result = loop {
        tokio::select! {
            result = &mut publishing => break result.unwrap(),
            incoming = next(&mut from) => match incoming {
                Incoming::Log(message) => got.push(number(&message)),
                Incoming::Reconnected => reconnected = true,
                Incoming::Idle { .. } => {}
                other => panic!("{other:?}"),
            },
        }
    };
    let (acknowledged, failed) = result;
    publish_until_stored(&bus, to_log("o-1", "1000000")).await;
    while got.last() != Some(&1_000_000) {
        match next(&mut from).await {
            Incoming::Log(message) => got.push(number(&message)),
            Incoming::Reconnected => reconnected = true,
            Incoming::Idle { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(reconnected);
    assert!(failed > 0, "the kill came too late to matter");
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "out of order or twice");
    let got: BTreeSet<u32> = got.into_iter().collect();
    let lost: Vec<u32> = acknowledged.into_iter().filter(|n| !got.contains(n)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn a_stream_that_was_recreated_is_a_gap_read_from_its_first_message() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (into, mut from) = Inlet::of_messages(256);
    bus.open_partition(0, Cursor::default(), 7, into.clone()).await.unwrap();
    assert!(all_ok(&bus.publish(numbered(0..10)).await));
    let cursor = expect(&mut from, 0..10).await;
    let _: Value = bus.shared.js.call("STREAM.DELETE.KNARR_IN", &json!({})).await.unwrap();
    publish_until_stored(&bus, to_log("o-1", "10")).await;
    let gap = next_gap(&mut from).await;
    assert_eq!((gap.lost_after.clone(), gap.reader), (cursor.clone(), 7));
    assert_eq!(gap.resumes_at.sequence, 0);
    assert_ne!(gap.resumes_at.stream, cursor.stream);
    let message = next_log(&mut from).await;
    assert_eq!((number(&message), message.cursor.sequence), (10, 1));
    // The same by a cursor from before, in a new opening.
    bus.open_partition(0, cursor, 8, into).await.unwrap();
    assert_eq!(next_gap(&mut from).await.resumes_at.sequence, 0);
    assert_eq!(number(&next_log(&mut from).await), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_restart_under_load_is_no_gap() {
    let mut server = TestServer::start();
    let bus = Arc::new(bus(&server, 1).await);
    let (into, mut from) = Inlet::of_messages(256);
    bus.open_partition(0, Cursor::default(), 1, into).await.unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publishing = tokio::spawn({
        let (bus, stop) = (Arc::clone(&bus), Arc::clone(&stop));
        async move {
            let mut acknowledged = 0;
            for n in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let outcomes = bus.publish(numbered(n * 20..n * 20 + 20)).await;
                acknowledged += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            }
            acknowledged
        }
    });
    let mut sequence = 0;
    let mut received = 0;
    for _ in 0..4 {
        for _ in 0..200 {
            let message = next_log(&mut from).await;
            assert_eq!(message.cursor.sequence, sequence + 1);
            sequence += 1;
            received += 1;
        }
        server.stop();
        server.run();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut publishing = publishing;
    let acknowledged = loop {
        tokio::select! {
            acknowledged = &mut publishing => break acknowledged.unwrap(),
            _ = next_log(&mut from) => received += 1,
        }
    };
    while received < acknowledged {
        next_log(&mut from).await;
        received += 1;
    }
}

/// Copies the files at message 100, goes on to 150, and puts the copy back.
async fn rolled_back(live: bool) {
    let mut server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (into, mut from) = Inlet::of_messages(256);
    bus.open_partition(0, Cursor::default(), 1, into.clone()).await.unwrap();
    assert!(all_ok(&bus.publish(numbered(0..100)).await));
    let at_copy = expect(&mut from, 0..100).await;
    server.stop();
    let copy = server.copy_files();
    server.run();
    for n in 100..150 {
        publish_until_stored(&bus, to_log("o-1", &n.to_string())).await;
    }
    let cursor = expect(&mut from, 100..150).await;
    if !live {
        bus.close_partition(0).await;
    }
    server.stop();
    server.restore_files(&copy);
    server.run();
    if !live {
        // New messages take the sequences the cursor has passed already.
        for n in 1000..1080 {
            publish_until_stored(&bus, to_log("o-1", &n.to_string())).await;
        }
        bus.open_partition(0, cursor.clone(), 2, into).await.unwrap();
    }
    let gap = next_gap(&mut from).await;
    assert_eq!(gap.lost_after, cursor);
    assert_eq!(gap.resumes_at, at_copy);
    if live {
        publish_until_stored(&bus, to_log("o-1", "1000")).await;
    }
    let message = next_log(&mut from).await;
    assert_eq!((number(&message), message.cursor.sequence), (1000, 101));
    if !live {
        expect(&mut from, 1001..1080).await;
    }
}

#[tokio::test]
async fn a_log_put_back_to_an_older_state_resumes_by_time() {
    rolled_back(false).await;
}

#[tokio::test]
async fn a_log_put_back_under_a_live_reader_is_noticed() {
    rolled_back(true).await;
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

/// Pulls up to `batch` tasks of a queue and acknowledges those that `keep` says.
async fn pull_tasks(client: &async_nats::Client, batch: usize, acknowledge: bool) -> usize {
    let inbox = client.new_inbox();
    let mut subscription = client.subscribe(inbox.clone()).await.unwrap();
    let body = json!({ "batch": batch, "expires": 300_000_000 }).to_string();
    client
        .publish_with_reply("$JS.API.CONSUMER.MSG.NEXT.KNARR_TASKS_a.q_q", inbox, body.into())
        .await
        .unwrap();
    let mut count = 0;
    while let Some(message) = subscription.next().await {
        if message.status.is_some() {
            break;
        }
        count += 1;
        let kind: &'static str = if acknowledge { "+ACK" } else { "-NAK" };
        client.publish(message.reply.unwrap(), kind.into()).await.unwrap();
        if count == batch {
            break;
        }
    }
    client.flush().await.unwrap();
    count
}

fn a_task(token: &str, partition: u16) -> Outgoing {
    Outgoing {
        subject: subject::task("a", "q", "act").unwrap(),
        headers: vec![
            (Arc::from(header::TOKEN), token.to_owned()),
            (Arc::from(header::DIRECT), subject::direct("a", partition).unwrap()),
        ],
        payload: Bytes::from_static(b"{}"),
        delivery: Delivery::Stream,
    }
}

fn queue_q() -> (Namespace, QueueName, Vec<QueueSettings>) {
    let queue = QueueName::new("q");
    let settings = QueueSettings {
        queue: queue.clone(),
        ack_wait: Duration::from_secs(30),
    };
    (Namespace::new("a"), queue, vec![settings])
}

#[tokio::test]
async fn how_far_a_queue_was_delivered_is_known_by_time() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    let undelivered = async || bus.undelivered(&namespace, &queue).await.unwrap();
    assert_eq!(undelivered().await, Undelivered::All);
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    assert_eq!(undelivered().await, Undelivered::Nothing);
    assert!(all_ok(&bus.publish(vec![a_task("1", 0), a_task("2", 0)]).await));
    // All by the server's clock: what the test's own did meanwhile does not matter.
    let js = &bus.shared.js;
    let (consumer, filter) = streams::queue_names(&namespace, &queue).unwrap();
    let first = MessageQuery {
        next_by_subj: Some(&filter),
        seq: Some(1),
        ..MessageQuery::default()
    };
    let published = js.message("KNARR_TASKS_a", &first).await.unwrap().unwrap().at();
    let age_now = async || {
        let info = js.consumer("KNARR_TASKS_a", &consumer).await.unwrap();
        Timestamp::from_utc(info.ts.unwrap()).since(published)
    };
    let before = age_now().await;
    let Undelivered::For(age) = undelivered().await else {
        panic!("two tasks wait");
    };
    assert!(before <= age && age <= age_now().await, "{age:?}");
    assert_eq!(pull_tasks(&bus.client(), 1, true).await, 1);
    assert!(matches!(undelivered().await, Undelivered::For(_)));
    assert_eq!(pull_tasks(&bus.client(), 1, true).await, 1);
    assert_eq!(undelivered().await, Undelivered::Nothing);
}

/// At its own place, found in a backlog, and only where nobody has had it.
#[tokio::test]
async fn a_task_is_taken_out_of_its_queue_if_nobody_has_had_it() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    let withdraw = async |subject: &str| bus.withdraw(&namespace, &queue, subject).await.unwrap();
    let at = |place: &str| subject::task_at("a", "q", "act", place).unwrap();
    assert!(!withdraw(&at("r-1")).await, "there is no queue");
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let placed = |place: &str| Outgoing {
        subject: at(place),
        ..a_task(place, 0)
    };
    let mut backlog: Vec<_> = (0..50).map(|n| a_task(&format!("b{n}"), 0)).collect();
    backlog.insert(0, placed("r-1"));
    backlog.push(placed("r-2"));
    backlog.push(placed("r-3"));
    assert!(all_ok(&bus.publish(backlog).await));
    assert!(withdraw(&at("r-2")).await);
    assert!(!withdraw(&at("r-2")).await, "it is gone");
    // Delivered and not acknowledged.
    assert_eq!(pull_tasks(&bus.client(), 1, false).await, 1);
    assert!(!withdraw(&at("r-1")).await);
    assert!(withdraw(&at("r-3")).await);
    let info = bus.shared.js.stream("KNARR_TASKS_a").await.unwrap();
    assert_eq!(info.state.last_seq, 53);
    assert_eq!(
        pull_tasks(&bus.client(), 60, true).await,
        51,
        "the others are where they were, and the one that was given back"
    );
}

#[tokio::test]
async fn a_task_delivered_too_often_is_reported_to_its_owner_and_removed() {
    let server = TestServer::start();
    let bus = bus(&server, 4).await;
    let (namespace, _, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let (into, mut from) = Inlet::of_messages(16);
    bus.open_partition(2, Cursor::default(), 1, into.clone()).await.unwrap();
    assert!(all_ok(&bus.publish(vec![a_task("mine", 2), a_task("other", 3)]).await));
    let deadline = Instant::now() + DEADLINE;
    while pull_tasks(&bus.client(), 2, false).await > 0 {
        assert!(Instant::now() < deadline);
    }
    let lost = async |from: &mut mpsc::Receiver<Admitted>| match next(from).await {
        Incoming::TaskLost { partition, token, .. } => (partition, token),
        other => panic!("{other:?}"),
    };
    assert_eq!(lost(&mut from).await, (2, "mine".to_owned()));
    let state = async || {
        let info: Value = bus
            .shared
            .js
            .call("STREAM.INFO.KNARR_TASKS_a", &json!({}))
            .await
            .unwrap();
        info["state"]["messages"].as_u64().unwrap()
    };
    assert_eq!(state().await, 1);
    // The other one waits until its partition is opened.
    bus.open_partition(3, Cursor::default(), 1, into).await.unwrap();
    assert_eq!(lost(&mut from).await, (3, "other".to_owned()));
    assert_eq!(state().await, 0);
}

#[tokio::test]
async fn another_clusters_log_is_refused() {
    let server = TestServer::start();
    let _first = bus(&server, 4).await;
    let second = NatsBus::connect(config(&server)).await.unwrap();
    let error = second.prepare(CLUSTER, 8).await.unwrap_err();
    assert!(error.to_string().contains("KN0307"), "{error}");
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

#[tokio::test]
async fn a_nats_of_another_cluster_is_refused_and_left_as_it_is() {
    let mut server = TestServer::start();
    let theirs = bus(&server, 2).await;
    assert!(all_ok(&theirs.publish(numbered(0..3)).await));
    let ours = NatsBus::connect(config(&server)).await.unwrap();
    let before = theirs.shared.js.stream("KNARR_IN").await.unwrap().config;
    let error = ours.prepare(Uuid::from_u128(2), 2).await.unwrap_err();
    assert!(
        matches!(error, BusError::Misconfigured(_)) && error.to_string().contains("KN0309"),
        "{error}"
    );
    // Also where its log is lost and something else of it is there.
    let _: Value = theirs
        .shared
        .js
        .call("STREAM.DELETE.KNARR_IN", &json!({}))
        .await
        .unwrap();
    assert!(ours.prepare(Uuid::from_u128(2), 2).await.is_err());
    assert!(ours.shared.js.stream("KNARR_IN").await.is_err());
    // A lost log is made again by whose it was.
    theirs.prepare(CLUSTER, 2).await.unwrap();
    assert_eq!(
        theirs.shared.js.stream("KNARR_IN").await.unwrap().config["subjects"],
        before["subjects"]
    );
    // Under a reader that has another cluster's server before it all of a sudden.
    let files = {
        server.stop();
        server.copy_files()
    };
    let elsewhere = TestServer::start();
    let other = NatsBus::connect(config(&elsewhere)).await.unwrap();
    other.prepare(Uuid::from_u128(2), 2).await.unwrap();
    let (into, mut from) = Inlet::of_messages(64);
    let partition = i16::try_from(subject::partition_of("default", "o-1", 2)).unwrap();
    other
        .open_partition(partition, Cursor::default(), 1, into)
        .await
        .unwrap();
    assert!(all_ok(&other.publish(numbered(0..1)).await));
    expect(&mut from, 0..1).await;
    let mut elsewhere = elsewhere;
    elsewhere.stop();
    elsewhere.restore_files(&files);
    elsewhere.run();
    let client = async_nats::connect(elsewhere.url()).await.unwrap();
    let js = JetStream::new(client);
    let message = bytes::Bytes::from_static(b"7");
    js.client()
        .publish(subject::start("default", "o-1", "order").unwrap(), message)
        .await
        .unwrap();
    loop {
        if let Incoming::Reconnected = next(&mut from).await {
            break;
        }
    }
    let nothing = tokio::time::timeout(Duration::from_secs(1), from.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn streams_of_an_earlier_version_are_adopted() {
    let server = TestServer::start();
    let client = async_nats::connect(server.url()).await.unwrap();
    let js = JetStream::new(client);
    let dlq = json!({ "name": "KNARR_DLQ", "subjects": ["knarr.dlq.>"], "metadata": { "team": "a" } });
    let _: Value = js.call("STREAM.CREATE.KNARR_DLQ", &dlq).await.unwrap();
    let bus = bus(&server, 1).await;
    let metadata = js.stream("KNARR_DLQ").await.unwrap().config["metadata"].clone();
    assert_eq!(
        (&metadata["team"], &metadata["knarr.cluster"]),
        (&json!("a"), &json!(CLUSTER))
    );
    bus.prepare(CLUSTER, 1).await.unwrap();
}

#[tokio::test]
async fn what_an_operator_changed_in_nats_stays_unless_it_is_set() {
    let server = TestServer::start();
    let first = bus(&server, 1).await;
    let js = &first.shared.js;
    let of = async |stream: &str| js.stream(stream).await.unwrap().config;
    let mut log = of("KNARR_IN").await;
    log["max_bytes"] = json!(3_u64 << 30);
    log["description"] = json!("ours");
    log["duplicate_window"] = json!(5_000_000_000_u64);
    let _: Value = js.call("STREAM.UPDATE.KNARR_IN", &log).await.unwrap();
    first.prepare(CLUSTER, 1).await.unwrap();
    let kept = of("KNARR_IN").await;
    assert_eq!(
        (&kept["max_bytes"], &kept["description"]),
        (&json!(3_u64 << 30), &json!("ours"))
    );
    // What is Knarr's own is put right.
    assert_eq!(kept["duplicate_window"], json!(100_000_000));
    let second = NatsBus::connect(NatsConfig {
        streams: StreamSettings {
            log_max_bytes: Setting::Always(64 << 20),
            ..StreamSettings::default()
        },
        ..config(&server)
    })
    .await
    .unwrap();
    second.prepare(CLUSTER, 1).await.unwrap();
    let set = of("KNARR_IN").await;
    assert_eq!(
        (&set["max_bytes"], &set["description"]),
        (&json!(64 << 20), &json!("ours"))
    );
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
