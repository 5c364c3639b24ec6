use std::time::Duration;

use async_nats::jetstream;
use knarr_schemas::api::{self, ListRuns, NamespaceInfo, NamespacePage, RunPage, verb};
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::header;

use super::*;
use crate::api::client::{ApiClient, CallError};
use crate::api::command::{AnswerWanted, CommandError, Commander, OperatorCommand, StartCommand};
use crate::api::service::serve;
use crate::bus::nats::test_server::TestServer;

const TIMEOUT: Duration = Duration::from_secs(10);

async fn client(server: &TestServer) -> async_nats::Client {
    async_nats::connect(server.url()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_calls_and_are_discovered() {
    let server = TestServer::start();
    let nats = client(&server).await;
    let caller = ApiClient::new(nats.clone(), "default", TIMEOUT);
    let nobody = caller.call::<_, NamespacePage>(verb::NAMESPACE_LIST, &json!({})).await;
    assert!(matches!(nobody, Err(CallError::NoResponders { .. })), "{nobody:?}");

    let world = World::new().await;
    let replica_a = serve(client(&server).await, Arc::clone(&world.operations))
        .await
        .unwrap();
    let replica_b = serve(client(&server).await, Arc::clone(&world.operations))
        .await
        .unwrap();
    world.add(&TestRun::start(1, "o-1", json!({"a": 1}))).await;
    // One answer a call, whichever replica gives it.
    let team = ApiClient::new(nats.clone(), "team a/ü", TIMEOUT);
    let created: Vec<NamespaceInfo> = futures_util::future::join_all(
        (0..20).map(|_| async { team.call(verb::NAMESPACE_CREATE, &json!({})).await.unwrap() }),
    )
    .await;
    assert_eq!(created.iter().filter(|namespace| namespace.created).count(), 1);
    assert_eq!(created[0].name, "team a/ü");
    let page: RunPage = caller.call(verb::RUN_LIST, &ListRuns::default()).await.unwrap();
    assert_eq!(page.runs.len(), 1);

    let stats = nats.request("$SRV.STATS.knarr", "".into()).await.unwrap();
    let stats: Value = serde_json::from_slice(&stats.payload).unwrap();
    assert_eq!(stats["endpoints"].as_array().unwrap().len(), verb::ALL.len());

    replica_a.stop().await;
    let page: NamespacePage = caller.call(verb::NAMESPACE_LIST, &json!({})).await.unwrap();
    assert_eq!(page.namespaces.len(), 2);
    replica_b.stop().await;
    let nobody = caller.call::<_, NamespacePage>(verb::NAMESPACE_LIST, &json!({})).await;
    assert!(matches!(nobody, Err(CallError::NoResponders { .. })), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_with_a_code() {
    let server = TestServer::start();
    let nats = client(&server).await;
    let world = World::new().await;
    let replica = serve(client(&server).await, Arc::clone(&world.operations))
        .await
        .unwrap();
    let big = format!("{{\"workflow\": \"{}\"}}", "x".repeat(600_000));
    for (subject, body, status, code) in [
        ("knarr.api.default.run.list", "{", "400", "KN0203"),
        ("knarr.api.default.run.list", r#"{"staus": "x"}"#, "400", "KN0228"),
        ("knarr.api.default.run.show", r#"{"run": 3}"#, "400", "KN0228"),
        (
            "knarr.api.default.run.show",
            r#"{"run": {"workflow_id": "o-9"}}"#,
            "404",
            "KN0211",
        ),
        (
            "knarr.api.default.run.list",
            r#"{"workflow": "a\u0000"}"#,
            "400",
            "KN0218",
        ),
        (
            "knarr.api.default.run.show",
            r#"{"run": {"workflow_id": "a\u0000"}}"#,
            "400",
            "KN0218",
        ),
        ("knarr.api.%zz.run.list", "{}", "400", "KN0202"),
        ("knarr.api.elsewhere.run.list", "{}", "404", "KN0205"),
        ("knarr.api.default.run.list", big.as_str(), "413", "KN0204"),
    ] {
        let reply = nats.request(subject, body.to_owned().into()).await.unwrap();
        let headers = reply.headers.unwrap();
        assert_eq!(
            headers.get(api::ERROR_CODE).unwrap().as_str(),
            status,
            "{subject} {body:.40}"
        );
        assert!(headers.get(api::ERROR).is_some());
        let body: ErrorBody = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(body.code, code, "{}", body.message);
        assert!(!body.remedy.is_empty());
    }
    let metrics = crate::telemetry::metrics::install().unwrap();
    nats.request("knarr.api.%zz.run.list", "{}".into()).await.unwrap();
    let exposed = metrics.render();
    assert!(exposed.contains("knarr_rejected_total{code=\"KN0202\"} "), "{exposed}");
    let caller = ApiClient::new(nats.clone(), "default", TIMEOUT);
    let refused = caller
        .call::<_, RunPage>(verb::RUN_LIST, &json!({"status": "odd"}))
        .await;
    assert!(matches!(refused, Err(CallError::Refused(body)) if body.code == "KN0228"));
    // An empty body is an empty request.
    let reply = nats.request("knarr.api.default.run.list", "".into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<RunPage>(&reply.payload).unwrap().runs, []);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_the_log_and_are_answered_at_their_inbox() {
    let server = TestServer::start();
    let nats = client(&server).await;
    let commander = Commander::new(nats.clone(), "default", TIMEOUT);
    let start = |id: Option<&str>, answer| StartCommand {
        workflow: "order".to_owned(),
        workflow_id: id.map(ToOwned::to_owned),
        input: r#"{"a": 1}"#.into(),
        version: Some(3),
        request_id: "r-1".to_owned(),
        answer,
        ..StartCommand::default()
    };
    let missing = commander.start(start(Some("o-1"), None)).await;
    assert!(matches!(missing, Err(CommandError::NoStream { .. })), "{missing:?}");

    let js = jetstream::new(nats.clone());
    let config = jetstream::stream::Config {
        name: "KNARR_IN".to_owned(),
        subjects: vec!["knarr.run.>".to_owned(), "knarr.start.>".to_owned()],
        discard: jetstream::stream::DiscardPolicy::New,
        max_messages: 4,
        ..Default::default()
    };
    let stream = js.create_stream(config).await.unwrap();

    let mut stored = commander
        .start(start(Some("o/1"), Some(AnswerWanted::Started)))
        .await
        .unwrap();
    let message = stream.get_raw_message(stored.sequence).await.unwrap();
    assert_eq!(message.subject.as_str(), "knarr.run.default.o%2F1.start.order");
    assert_eq!(&message.payload[..], br#"{"a": 1}"#);
    let get = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(get(header::VERSION).as_deref(), Some("3"));
    assert_eq!(get(header::REQUEST_ID).as_deref(), Some("r-1"));
    assert_eq!(get(header::REPLY_ON).as_deref(), Some("started"));
    let inbox = get(header::REPLY_TO).unwrap();
    assert!(inbox.starts_with("_INBOX."), "{inbox}");
    let answer = Answer {
        workflow_id: "o/1".to_owned(),
        run_id: Some(Uuid::from_u128(1)),
        stage: AnswerStage::Started,
        status: None,
        output: None,
        failure: None,
        error: None,
    };
    nats.publish(inbox, serde_json::to_vec(&answer).unwrap().into())
        .await
        .unwrap();
    assert_eq!(stored.answer(Some(TIMEOUT)).await.unwrap(), answer);

    let unkeyed = commander.start(start(None, None)).await.unwrap();
    let message = stream.get_raw_message(unkeyed.sequence).await.unwrap();
    assert_eq!(message.subject.as_str(), "knarr.start.default.order");
    assert_eq!(message.headers.get(header::REPLY_TO), None);

    let cancel = OperatorCommand {
        verb: "cancel",
        workflow_id: "o-1".to_owned(),
        request_id: "r-2".to_owned(),
        by: Some("ann".to_owned()),
        reason: Some("two\nlines".to_owned()),
        ..OperatorCommand::default()
    };
    let cancelled = commander.operate(cancel.clone()).await.unwrap();
    let message = stream.get_raw_message(cancelled.sequence).await.unwrap();
    assert_eq!(message.subject.as_str(), "knarr.run.default.o-1.cancel");
    assert_eq!(message.headers.get(header::VERB).unwrap().as_str(), "cancel default");
    assert_eq!(message.headers.get(header::REASON).unwrap().as_str(), "two lines");

    let signal = crate::api::command::SignalCommand {
        workflow_id: "o-1".to_owned(),
        name: "paid".to_owned(),
        body: "12".into(),
        request_id: "r-3".to_owned(),
        start_workflow: Some("order".to_owned()),
        start_input: Some("{\n}".into()),
        ..Default::default()
    };
    let signalled = commander.signal(signal).await.unwrap();
    let message = stream.get_raw_message(signalled.sequence).await.unwrap();
    assert_eq!(message.subject.as_str(), "knarr.run.default.o-1.signal.paid");
    assert_eq!(message.headers.get(header::START_WORKFLOW).unwrap().as_str(), "order");
    assert_eq!(message.headers.get(header::START_INPUT).unwrap().as_str(), "{ }");
    assert_eq!(&message.payload[..], b"12");

    let full = commander.operate(cancel).await;
    assert!(matches!(full, Err(CommandError::Full(_))), "{full:?}");

    let mut listening = stream.cached_info().config.clone();
    listening.subjects = vec!["knarr.run.*.*.*".to_owned()];
    js.update_stream(&listening).await.unwrap();
    let throttled = commander.start(start(Some("o-9"), None)).await;
    assert!(
        matches!(throttled, Err(CommandError::Throttled { .. })),
        "{throttled:?}"
    );
}
