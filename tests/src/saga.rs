//! Starting sagas: with a plain NATS client, repeated under one request id until somebody has confirmed it.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt as _;
use knarr_schemas::body::Answer;
use serde_json::{Value, json};

use crate::eventually;

/// For what has to be answered sooner or later, whatever is being killed.
const LIMIT: Duration = Duration::from_secs(60);

/// What a saga is asked to run into, and so how it has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// `reserve-inventory` fails for good.
    Stock,
    /// `process-payment` does its work and cannot say so.
    PaymentUnknown,
    /// `process-payment` panics at its first attempt.
    PaymentPanics,
    /// `reserve-inventory` fails once.
    StockFlaky,
    /// `send-confirmation` fails, which does not matter.
    Confirmation,
    /// `create-order` fails: there is nothing to undo.
    Order,
}

impl Fault {
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Stock,
        Self::PaymentUnknown,
        Self::PaymentPanics,
        Self::StockFlaky,
        Self::Confirmation,
        Self::Order,
    ];

    pub fn input(self) -> Value {
        let fail = match self {
            Self::None => json!({}),
            Self::Stock => json!({ "reserve-inventory": "failed" }),
            Self::PaymentUnknown => json!({ "process-payment": "unknown" }),
            Self::PaymentPanics => json!({ "process-payment": "panic" }),
            Self::StockFlaky => json!({ "reserve-inventory": "flaky" }),
            Self::Confirmation => json!({ "send-confirmation": "failed" }),
            Self::Order => json!({ "create-order": "failed" }),
        };
        json!({ "customer": "ada", "items": [{ "sku": "a", "quantity": 2, "price": 3.5 }], "fail": fail })
    }

    /// The statuses it may end with.
    pub fn ends(self) -> &'static [&'static str] {
        match self {
            Self::None | Self::PaymentPanics | Self::StockFlaky | Self::Confirmation => &["completed"],
            Self::Stock | Self::PaymentUnknown => &["compensated"],
            // An attempt that was lost before the one that failed makes the step unknown, and that is undone.
            Self::Order => &["failed", "compensated"],
        }
    }
}

#[derive(Debug, Clone)]
pub struct Starter {
    client: Client,
    namespace: String,
}

impl Starter {
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Publishes until JetStream has acknowledged it. Under one request id, so a repeat starts nothing twice.
    pub async fn start(&self, id: &str, fault: Fault) {
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Request-Id", id);
        self.publish(&self.start_subject(id), headers, &fault.input()).await;
    }

    pub fn start_subject(&self, id: &str) -> String {
        knarr_schemas::subject::start(&self.namespace, id, "order").unwrap()
    }

    /// Publishes until JetStream has acknowledged it; its answer.
    pub async fn publish(&self, subject: &str, headers: HeaderMap, body: &Value) -> Value {
        let ask = || self.publish_once(subject, headers.clone(), body.to_string().into());
        eventually(&format!("JetStream's acknowledgement of {subject}"), LIMIT, ask)
            .await
            .0
    }

    /// JetStream's acknowledgement, if there was one.
    pub async fn publish_once(&self, subject: &str, headers: HeaderMap, body: bytes::Bytes) -> Option<Value> {
        let request = Request::new()
            .headers(headers)
            .payload(body)
            .timeout(Some(Duration::from_secs(2)));
        let reply = self.client.send_request(subject.to_owned(), request).await.ok()?;
        let answer: Value = serde_json::from_slice(&reply.payload).ok()?;
        answer.get("stream").is_some().then_some(answer)
    }

    /// Publishes a call and returns Knarr's answer to it, asking again (under the same request id) for as long as nobody
    /// answers.
    pub async fn call(
        &self,
        subject: &str,
        mut headers: HeaderMap,
        reply_on: Option<&str>,
        body: &Value,
        limit: Duration,
    ) -> Option<Answer> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.ok()?;
        if let Some(stage) = reply_on {
            headers.insert("Knarr-Reply-On", stage);
        }
        headers.insert("Knarr-Reply-To", inbox.as_str());
        self.publish_once(subject, headers, body.to_string().into()).await;
        let answer = tokio::time::timeout(limit, answers.next()).await.ok()??;
        serde_json::from_slice(&answer.payload).ok()
    }

    /// Starts a saga and returns once PostgreSQL holds it.
    pub async fn start_confirmed(&self, id: &str, fault: Fault) -> Answer {
        self.start_until(id, fault, "started", Duration::from_secs(3)).await
    }

    /// Starts a saga and returns its end.
    pub async fn run(&self, id: &str, fault: Fault) -> Answer {
        self.start_until(id, fault, "closed", Duration::from_secs(10)).await
    }

    async fn start_until(&self, id: &str, fault: Fault, stage: &str, patience: Duration) -> Answer {
        let ask = || async {
            let mut headers = HeaderMap::new();
            headers.insert("Knarr-Request-Id", id);
            let subject = self.start_subject(id);
            self.call(&subject, headers, Some(stage), &fault.input(), patience)
                .await
        };
        eventually(&format!("`{stage}` of {id}"), LIMIT, ask).await.0
    }

    /// An operator's verb with the header it needs.
    pub async fn verb(&self, id: &str, verb: &str, request_id: &str) -> Option<Answer> {
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Verb", format!("{verb} {}", self.namespace));
        headers.insert("Knarr-Request-Id", request_id);
        headers.insert("Knarr-By", "a test");
        headers.insert("Knarr-Reason", "to see what happens");
        let subject = knarr_schemas::subject::run_verb(&self.namespace, id, verb).unwrap();
        self.call(&subject, headers, None, &Value::Null, Duration::from_secs(10))
            .await
    }
}
