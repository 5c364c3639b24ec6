//! A worker that is nothing but a NATS client: it pulls with a request, publishes results to the log, and acknowledges.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::Stack;
use crate::record::{Execution, RecordWriter, now_micros};

/// A task in the hands of a plain worker.
#[derive(Debug)]
pub struct PlainTask {
    message: Message,
}

impl PlainTask {
    /// The next task of the queue `orders`, waiting for it a second at most.
    pub async fn next(client: &Client, namespace: &str) -> Option<Self> {
        let inbox = client.new_inbox();
        let mut tasks = client.subscribe(inbox.clone()).await.ok()?;
        let pull = json!({ "batch": 1, "expires": 1_000_000_000_u64 }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.KNARR_TASKS_{namespace}.q_orders");
        client.publish_with_reply(subject, inbox, pull.into()).await.ok()?;
        let message = tokio::time::timeout(Duration::from_secs(2), tasks.next())
            .await
            .ok()??;
        // A status (no messages, time is up) has no token.
        message.headers.as_ref()?.get("Knarr-Token")?;
        Some(Self { message })
    }

    pub fn header(&self, name: &str) -> &str {
        let headers = self.message.headers.as_ref();
        headers
            .and_then(|headers| headers.get(name))
            .map_or("", |value| value.as_str())
    }

    pub fn input(&self) -> Value {
        serde_json::from_slice(&self.message.payload).unwrap_or(Value::Null)
    }

    fn execution(&self, done: bool) -> Execution {
        let text = |name: &str| self.header(name).to_owned();
        Execution {
            at: now_micros(),
            run: text("Knarr-Run-Id"),
            workflow_id: text("Knarr-Workflow-Id"),
            step: text("Knarr-Step"),
            undo: self.header("Knarr-Direction") == "undo",
            key: text("Knarr-Idempotency-Key"),
            attempt: self.header("Knarr-Attempt").parse().unwrap(),
            delivery: 1,
            done,
        }
    }

    /// Does the work of the order services, as far as a test needs it: the headers and body of the result.
    pub fn work(&self, record: &RecordWriter) -> (HeaderMap, Value) {
        let activity = self.header("Knarr-Activity");
        let fails = self.input()["fail"][activity] == "failed";
        record.write(&self.execution(!fails));
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Token", self.header("Knarr-Token"));
        if fails {
            headers.insert("Knarr-Outcome", "failed");
            headers.insert("Knarr-Error-Type", "on_request");
            headers.insert("Knarr-Error-Message", "it fails, as asked");
            headers.insert("Knarr-Retryable", "false");
        }
        let output = match activity {
            "create-order" => json!({ "order_id": "ord-1", "total": 7.0 }),
            "process-payment" => json!({ "payment_id": "pay-1" }),
            _ => json!({}),
        };
        (headers, output)
    }

    /// Publishes the result to the log; whether JetStream has it.
    pub async fn hand_in(&self, client: &Client, headers: HeaderMap, output: &Value) -> bool {
        let request = Request::new()
            .headers(headers)
            .payload(output.to_string().into())
            .timeout(Some(Duration::from_secs(2)));
        let subject = self.header("Knarr-Reply").to_owned();
        match client.send_request(subject, request).await {
            Ok(reply) => {
                let answer: Value = serde_json::from_slice(&reply.payload).unwrap_or(Value::Null);
                answer.get("stream").is_some()
            }
            Err(_) => false,
        }
    }

    pub async fn acknowledge(&self, client: &Client) {
        let subject = self.message.reply.clone().unwrap();
        client.publish(subject, "+ACK".into()).await.unwrap();
        client.flush().await.unwrap();
    }
}

/// Works until it is dropped or aborted.
#[derive(Debug)]
pub struct PlainWorker(tokio::task::JoinHandle<()>);

impl PlainWorker {
    pub fn start(stack: &Stack, name: &str) -> Self {
        let client = stack.nats().clone();
        let record = RecordWriter::open(&stack.directory().join(format!("{name}.record"))).unwrap();
        Self(tokio::spawn(async move {
            loop {
                let Some(task) = PlainTask::next(&client, "default").await else {
                    continue;
                };
                let (headers, output) = task.work(&record);
                if task.hand_in(&client, headers, &output).await {
                    task.acknowledge(&client).await;
                }
            }
        }))
    }
}

impl Drop for PlainWorker {
    fn drop(&mut self) {
        self.0.abort();
    }
}
