//! The engine in this process, over real servers: the order saga to its ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use knarr::bus::nats::{NatsBus, NatsConfig};
use knarr::bus::{Bus as _, QueueSettings};
use knarr::dev::{Progress, ServerOptions, Servers};
use knarr::engine::{Engine, EngineConfig};
use knarr::store::postgres::{PostgresConfig, PostgresStore};
use knarr::store::{Store as _, StoredDefinition};
use knarr_core::ids::{Namespace, QueueName, WorkflowName};
use knarr_core::time::Timestamp;
use knarr_schemas::body::Answer;
use knarr_worker::order_services::{OrderOptions, order_services};
use knarr_worker::{CancellationToken, Worker};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_completes_and_another_is_undone() {
    let servers = Servers::start(ServerOptions::default(), &Progress::for_stderr())
        .await
        .unwrap();
    let store = Arc::new(
        PostgresStore::connect(PostgresConfig::new(servers.postgres_url()))
            .await
            .unwrap(),
    );
    let config = NatsConfig {
        url: servers.nats_url().to_owned(),
        ..NatsConfig::default()
    };
    let bus = Arc::new(NatsBus::connect(config).await.unwrap());
    let cluster = store.prepare(64).await.unwrap();
    bus.prepare(cluster.id, 64).await.unwrap();
    let text = include_str!("../../workers/examples/order.yaml");
    let checked = knarr_core::definition::read(text, &|_| Err("no files".to_owned())).unwrap();
    let definition = StoredDefinition {
        namespace: Namespace::new("default"),
        workflow: WorkflowName::new("order"),
        version: 1,
        hash: checked.hash.clone(),
        body: checked.canonical.clone(),
        source: text.to_owned(),
        registered_at: Timestamp(0),
    };
    store.register_definition(&definition).await.unwrap();
    bus.ensure_queues(
        &Namespace::new("default"),
        &[QueueSettings {
            queue: QueueName::new("orders"),
            ack_wait: Duration::from_secs(30),
        }],
    )
    .await
    .unwrap();
    let shutdown = CancellationToken::new();
    let engine = Engine::new(EngineConfig::new("one"), Arc::clone(&store), bus);
    let running = tokio::spawn(engine.run(shutdown.clone()));
    let client = knarr_worker::connect(servers.nats_url()).await.unwrap();
    let worker = order_services(Worker::builder(client.clone()).queue("orders"), OrderOptions::default())
        .build()
        .unwrap();
    let working = tokio::spawn(worker.run(shutdown.clone()));

    for (id, fail, status) in [
        ("o-1", "{}", "completed"),
        ("o-2", r#"{"reserve-inventory": "failed"}"#, "compensated"),
    ] {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Knarr-Reply-On", "closed");
        headers.insert("Knarr-Reply-To", inbox.as_str());
        let body =
            format!(r#"{{"customer": "ada", "items": [{{"sku": "a", "quantity": 2, "price": 3.5}}], "fail": {fail}}}"#);
        let began = std::time::Instant::now();
        let ack = client
            .request_with_headers(format!("knarr.run.default.{id}.start.order"), headers, body.into())
            .await
            .unwrap();
        println!("{}", String::from_utf8_lossy(&ack.payload));
        let answer = tokio::time::timeout(Duration::from_secs(20), answers.next())
            .await
            .unwrap()
            .unwrap();
        println!("{:?} {}", began.elapsed(), String::from_utf8_lossy(&answer.payload));
        let answer: Answer = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer.status.as_deref(), Some(status));
    }
    shutdown.cancel();
    running.await.unwrap().unwrap();
    working.await.unwrap().unwrap();
    servers.stop().await;
}
