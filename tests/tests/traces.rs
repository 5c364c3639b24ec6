//! A run as a trace: its span, those of its attempts below it, and what tasks carry on to workers.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use knarr_tests::collector::{Collector, hex};
use knarr_tests::plain::{PlainTask, PlainWorker};
use knarr_tests::record::RecordWriter;
use knarr_tests::{Fault, Replica, ReplicaOptions, Stack};
use opentelemetry_proto::tonic::trace::v1::Span;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

async fn traced(stack: &Stack, name: &str, collector: &Collector) -> Replica {
    let options = ReplicaOptions {
        otlp_endpoint: Some(collector.url().to_owned()),
        ..ReplicaOptions::default()
    };
    Replica::start_with(stack, name, options).await
}

async fn start(stack: &Stack, id: &str, fault: Fault, traceparent: Option<&str>) {
    let starter = stack.starter();
    let mut headers = HeaderMap::new();
    if let Some(traceparent) = traceparent {
        headers.insert("traceparent", traceparent);
    }
    starter
        .publish(&starter.start_subject(id), headers, &fault.input())
        .await;
}

/// By name; each name once.
fn by_name(spans: Vec<Span>) -> BTreeMap<String, Span> {
    let count = spans.len();
    let named: BTreeMap<_, _> = spans.into_iter().map(|span| (span.name.clone(), span)).collect();
    assert_eq!(named.len(), count, "{:?}", named.keys());
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_a_span_of_its_callers_trace_and_its_attempts_lie_below_it() {
    let stack = Stack::start().await;
    let collector = Collector::start().await;
    let _replica = traced(&stack, "one", &collector).await;
    stack.register("default", knarr_tests::stack::ORDER).await;
    start(&stack, "t-1", Fault::None, Some(&format!("00-{TRACE}-{CALLER}-01"))).await;
    let record = RecordWriter::open(&stack.directory().join("plain.record")).unwrap();
    let mut told = BTreeMap::new();
    for _ in 0..4 {
        let task = PlainTask::next(stack.nats(), "default").await.unwrap();
        told.insert(
            task.header("Knarr-Activity").to_owned(),
            task.header("traceparent").to_owned(),
        );
        let (headers, output) = task.work(&record);
        assert!(task.hand_in(stack.nats(), headers, &output).await);
        task.acknowledge(stack.nats()).await;
    }
    // The same caller looks at what it started.
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let listing = stack
        .nats()
        .request_with_headers("knarr.api.default.run.list", headers, "{}".into());
    listing.await.unwrap();
    let spans = by_name(collector.trace(TRACE, 6).await);
    assert_eq!(hex(&spans["api"].parent_span_id), CALLER);
    let run = &spans["order"];
    assert_eq!(hex(&run.parent_span_id), CALLER);
    for (activity, traceparent) in &told {
        let attempt = &spans[activity];
        assert_eq!(attempt.parent_span_id, run.span_id, "{activity}");
        assert_eq!(
            *traceparent,
            format!("00-{TRACE}-{}-01", hex(&attempt.span_id)),
            "{activity}"
        );
        assert!(attempt.start_time_unix_nano >= run.start_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= run.end_time_unix_nano);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_continues_the_trace_of_a_run_that_has_no_caller() {
    let stack = Stack::start().await;
    let collector = Collector::start().await;
    let mut first = traced(&stack, "one", &collector).await;
    stack.register("default", knarr_tests::stack::ORDER).await;
    start(&stack, "t-2", Fault::Stock, None).await;
    // The first attempt begins under one replica and ends under another.
    let task = PlainTask::next(stack.nats(), "default").await.unwrap();
    first.kill9();
    let _second = traced(&stack, "two", &collector).await;
    let record = RecordWriter::open(&stack.directory().join("first.record")).unwrap();
    let (headers, output) = task.work(&record);
    assert!(task.hand_in(stack.nats(), headers, &output).await);
    task.acknowledge(stack.nats()).await;
    let _worker = PlainWorker::start(&stack, "plain");

    let trace = task.header("Knarr-Run-Id").replace('-', "");
    let spans = by_name(collector.trace(&trace, 6).await);
    let names: Vec<_> = spans.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "cancel-order",
            "create-order",
            "order",
            "process-payment",
            "refund-payment",
            "reserve-inventory"
        ]
    );
    let run = &spans["order"];
    assert!(run.parent_span_id.is_empty());
    assert_eq!(
        task.header("traceparent"),
        format!("00-{trace}-{}-01", hex(&spans["create-order"].span_id))
    );
    for name in ["order", "reserve-inventory"] {
        let status = spans[name].status.as_ref().unwrap();
        assert_eq!(status.message, "on_request: it fails, as asked", "{name}");
    }
    stack.stop().await;
}
