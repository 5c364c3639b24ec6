//! Servers that are there, are not, or are another cluster's.

use super::*;

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

#[tokio::test]
async fn another_clusters_log_is_refused() {
    let server = TestServer::start();
    let _first = bus(&server, 4).await;
    let second = NatsBus::connect(config(&server)).await.unwrap();
    let error = second.prepare(CLUSTER, 8).await.unwrap_err();
    assert!(error.to_string().contains("KN0307"), "{error}");
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
