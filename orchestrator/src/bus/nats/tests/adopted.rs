//! Streams that are there already.

use super::*;

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
