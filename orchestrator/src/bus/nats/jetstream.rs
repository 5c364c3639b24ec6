//! Requests to the JetStream API, in the shapes Knarr needs. The API is JSON over request and reply.

use std::time::Duration;

use async_nats::Client;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use knarr_core::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bus::BusError;

/// `err_code`s of the API.
pub(super) mod code {
    pub(in super::super) const STREAM_NOT_FOUND: u32 = 10_059;
    pub(in super::super) const NO_MESSAGE_FOUND: u32 = 10_037;
    /// Of a message that is not there (any more).
    pub(in super::super) const DELETE_FAILED: u32 = 10_057;
    pub(in super::super) const CONSUMER_NOT_FOUND: u32 = 10_014;
    pub(in super::super) const STREAM_NAME_IN_USE: u32 = 10_058;
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("JetStream refuses: {description} ({err_code})")]
    Refused {
        code: u32,
        err_code: u32,
        description: String,
    },
    #[error("JetStream does not answer: it is switched off or not ready")]
    NoResponders,
    #[error("{0}")]
    Unavailable(String),
}

impl ApiError {
    pub(super) fn is(&self, wanted: u32) -> bool {
        matches!(self, Self::Refused { err_code, .. } if *err_code == wanted)
    }
}

impl From<ApiError> for BusError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused { code: 400, .. } => Self::Misconfigured(format!("KN0306: {error}")),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Failure {
    error: Option<FailureBody>,
}

#[derive(Debug, Deserialize)]
struct FailureBody {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub(super) api: AccountApi,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccountApi {
    /// Absent before nats-server 2.11.
    #[serde(default)]
    pub(super) level: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: Value,
    /// As text: it is an identity, not a time.
    pub(super) created: String,
    pub(super) state: StreamState,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    #[serde(default)]
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) config: Value,
    pub(super) delivered: Delivered,
    #[serde(default)]
    pub(super) num_pending: u64,
    /// The server's clock when it answered.
    pub(super) ts: Option<DateTime<Utc>>,
    pub(super) created: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Delivered {
    pub(super) stream_seq: u64,
}

#[derive(Debug, Deserialize)]
struct MessageAnswer {
    message: RawMessage,
}

#[derive(Debug, Deserialize)]
struct RawMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: DateTime<Utc>,
}

/// A stored message.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) time: DateTime<Utc>,
    /// As they were sent, whatever that is.
    pub(super) headers: Vec<u8>,
    /// In Base64: most callers do not look at it.
    data: String,
}

impl StoredMessage {
    #[cfg(test)]
    pub(super) fn at_time(time: DateTime<Utc>, headers: &[u8]) -> Self {
        Self {
            subject: String::new(),
            sequence: 1,
            time,
            headers: headers.to_vec(),
            data: String::new(),
        }
    }

    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_utc(self.time)
    }

    /// `None` also for a value that is not UTF-8.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
            let (key, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    }

    pub(super) fn payload(&self) -> Result<Bytes, ApiError> {
        decode(&self.data).map(Bytes::from)
    }
}

/// Which message to get.
#[derive(Debug, Default, Serialize)]
pub(super) struct MessageQuery<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_time: Option<DateTime<Utc>>,
}

/// A handle on the API over one connection.
#[derive(Debug, Clone)]
pub(super) struct JetStream {
    client: Client,
}

impl JetStream {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let unavailable = |error: &dyn std::fmt::Display| ApiError::Unavailable(error.to_string());
        let body = serde_json::to_vec(body).map_err(|error| unavailable(&error))?;
        let answer = self
            .client
            .request(format!("$JS.API.{operation}"), Bytes::from(body))
            .await
            .map_err(|error| match error.kind() {
                async_nats::RequestErrorKind::NoResponders => ApiError::NoResponders,
                _ => unavailable(&error),
            })?;
        let failure: Failure = serde_json::from_slice(&answer.payload).map_err(|error| unavailable(&error))?;
        if let Some(error) = failure.error {
            return Err(ApiError::Refused {
                code: error.code,
                err_code: error.err_code,
                description: error.description,
            });
        }
        serde_json::from_slice(&answer.payload).map_err(|error| unavailable(&error))
    }

    pub(super) async fn account(&self) -> Result<Account, ApiError> {
        self.call("INFO", &json!({})).await
    }

    pub(super) async fn stream(&self, stream: &str) -> Result<StreamInfo, ApiError> {
        self.call(&format!("STREAM.INFO.{stream}"), &json!({})).await
    }

    pub(super) async fn consumer(&self, stream: &str, consumer: &str) -> Result<ConsumerInfo, ApiError> {
        self.call(&format!("CONSUMER.INFO.{stream}.{consumer}"), &json!({}))
            .await
    }

    /// Creates a consumer, or updates it as far as that is possible.
    pub(super) async fn put_consumer(
        &self,
        stream: &str,
        name: &str,
        config: &Value,
    ) -> Result<ConsumerInfo, ApiError> {
        let filter = config.get("filter_subject").and_then(Value::as_str).unwrap_or_default();
        let mut operation = format!("CONSUMER.CREATE.{stream}.{name}");
        if !filter.is_empty() {
            operation.push('.');
            operation.push_str(filter);
        }
        self.call(&operation, &json!({ "stream_name": stream, "config": config }))
            .await
    }

    /// Without waiting for the answer: a consumer that stays is removed by its inactivity.
    pub(super) async fn forget_consumer(&self, stream: &str, name: &str) {
        let nobody = self.client.new_inbox();
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
        let _ = tokio::time::timeout(
            Duration::from_millis(100),
            self.client.publish_with_reply(subject, nobody, Bytes::new()),
        )
        .await;
    }

    /// `None` if there is no such message.
    pub(super) async fn message(
        &self,
        stream: &str,
        query: &MessageQuery<'_>,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let operation = format!("STREAM.MSG.GET.{stream}");
        match self.call::<MessageAnswer>(&operation, query).await {
            Ok(MessageAnswer { message }) => Ok(Some(StoredMessage {
                subject: message.subject,
                sequence: message.seq,
                time: message.time,
                headers: decode(&message.hdrs)?,
                data: message.data,
            })),
            Err(error) if error.is(code::NO_MESSAGE_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn message_at(&self, stream: &str, sequence: u64) -> Result<Option<StoredMessage>, ApiError> {
        let query = MessageQuery {
            seq: Some(sequence),
            ..MessageQuery::default()
        };
        self.message(stream, &query).await
    }
}

fn decode(base64: &str) -> Result<Vec<u8>, ApiError> {
    STANDARD
        .decode(base64)
        .map_err(|error| ApiError::Unavailable(error.to_string()))
}
