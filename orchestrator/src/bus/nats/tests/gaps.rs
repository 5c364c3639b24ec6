//! What has become of the log while a server was away.

use super::*;

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
