//! Starts and operators' commands, from the caller's side: published to the log, acknowledged by JetStream, answered by
//! the partition's owner after its commit.
//!
//! Every command carries a request id, so that sending it again after any doubt is harmless.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use knarr_core::run::{schedule::workflow_id, trigger};
use knarr_schemas::api::TriggerName;
use knarr_schemas::body::{Answer, ScheduleRequest, TriggerRequest};
use knarr_schemas::subject::TokenError;
use knarr_schemas::{header, subject};
use knarr_worker::body::{self, BodyError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::client::max_payload;

const MAX_REQUEST_ID_BYTES: usize = 512;

/// A run to be started.
#[derive(Debug, Clone, Default)]
pub struct StartCommand {
    pub workflow: String,
    /// Without one the definition's `id` expression decides.
    pub workflow_id: Option<String>,
    /// JSON; empty = null.
    pub input: Bytes,
    pub version: Option<u32>,
    pub request_id: String,
    /// One JSON object.
    pub search_attributes: Option<String>,
    pub id_reuse: Option<String>,
    pub id_conflict: Option<String>,
    /// From 1, the most important, to 5.
    pub priority: Option<u8>,
    /// It begins that much later.
    pub delay: Option<String>,
    pub answer: Option<AnswerWanted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerWanted {
    Started,
    Closed,
}

impl AnswerWanted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Closed => "closed",
        }
    }
}

/// What an operator asks of the open run under a workflow id, or of the one that is named.
#[derive(Debug, Clone, Default)]
pub struct OperatorCommand {
    /// As in the subject: `cancel`, `parked.retry`.
    pub verb: &'static str,
    pub workflow_id: String,
    pub run: Option<Uuid>,
    /// The path of what is parked.
    pub step: Option<String>,
    /// `do` or `undo`.
    pub direction: Option<&'static str>,
    /// The version to move to, of this workflow.
    pub version: Option<(String, u32)>,
    /// JSON, where the verb takes any.
    pub body: Bytes,
    pub request_id: String,
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// Something to tell the open run of a workflow id.
#[derive(Debug, Clone, Default)]
pub struct SignalCommand {
    pub workflow_id: String,
    pub name: String,
    /// JSON; empty = null.
    pub body: Bytes,
    pub request_id: String,
    pub by: Option<String>,
    pub reason: Option<String>,
    /// Started where no run is open.
    pub start_workflow: Option<String>,
    /// JSON; without it the signal's body is that run's input.
    pub start_input: Option<Bytes>,
}

/// Something to ask of the open run of a workflow id, or of the one that is named.
#[derive(Debug, Clone)]
pub struct UpdateCommand {
    pub workflow_id: String,
    pub run: Option<Uuid>,
    pub name: String,
    /// JSON; empty = null.
    pub input: Bytes,
    /// The update's.
    pub request_id: String,
    pub by: Option<String>,
    pub reason: Option<String>,
    pub wanted: UpdateWanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateWanted {
    Accepted,
    Completed,
}

impl UpdateWanted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Completed => "completed",
        }
    }
}

/// Something to ask of a schedule.
#[derive(Debug, Clone)]
pub struct ScheduleCommand {
    pub name: String,
    pub request: ScheduleRequest,
    pub request_id: String,
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// Something to ask of a trigger.
#[derive(Debug, Clone)]
pub struct TriggerCommand {
    pub name: TriggerName,
    pub request: TriggerRequest,
    pub request_id: String,
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// How a command can fail to be stored.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the {part} {error}")]
    Name { part: &'static str, error: TokenError },
    #[error("the request id {0}")]
    RequestId(&'static str),
    /// Nobody takes the subject: the log is not there.
    #[error("no stream takes `{subject}`: the log (KNARR_IN) is not there")]
    NoStream { subject: String },
    /// The log takes no starts of this namespace for now, so that results keep their room; nothing was stored.
    #[error("the log (KNARR_IN) takes no starts on `{subject}` for now: too many wait")]
    Throttled { subject: String },
    #[error("the log is full: {0}")]
    Full(String),
    /// Refused by JetStream for another reason; not stored.
    #[error("JetStream refuses the message: {0}")]
    Refused(String),
    #[error("the message of {bytes} bytes is larger than the {limit} that the NATS server takes")]
    TooLarge { bytes: usize, limit: usize },
    /// Nothing was sent.
    #[error("the body cannot be stored beside its message: {0}")]
    Body(BodyError),
    /// It may be stored or not.
    #[error("JetStream did not acknowledge the message: {0}")]
    Unacknowledged(String),
}

/// How the answer of a stored command can fail to come.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    #[error("the connection was closed")]
    Disconnected,
}

/// A stored command; holds the inbox the answer comes to.
#[derive(Debug)]
pub struct Stored {
    /// Its sequence in the log.
    pub sequence: u64,
    /// JetStream knew the message already.
    pub duplicate: bool,
    inbox: Option<Subscriber>,
}

impl Stored {
    /// The next answer; `None` waits without limit.
    pub async fn answer(&mut self, timeout: Option<Duration>) -> Result<Answer, AnswerError> {
        let inbox = self.inbox.as_mut().ok_or(AnswerError::Disconnected)?;
        let message = match timeout {
            Some(limit) => tokio::time::timeout(limit, inbox.next())
                .await
                .map_err(|_| AnswerError::TimedOut(limit))?,
            None => inbox.next().await,
        };
        let message = message.ok_or(AnswerError::Disconnected)?;
        serde_json::from_slice(&message.payload).map_err(|error| AnswerError::Unreadable(error.to_string()))
    }
}

/// Publishes commands of one namespace.
#[derive(Debug, Clone)]
pub struct Commander {
    nats: async_nats::Client,
    namespace: String,
    /// Of JetStream's acknowledgement.
    timeout: Duration,
}

impl Commander {
    pub fn new(nats: async_nats::Client, namespace: impl Into<String>, timeout: Duration) -> Self {
        Self {
            nats,
            namespace: namespace.into(),
            timeout,
        }
    }

    pub async fn start(&self, command: StartCommand) -> Result<Stored, CommandError> {
        let name = |part| move |error| CommandError::Name { part, error };
        subject::encode_token(&self.namespace).map_err(name("namespace"))?;
        subject::encode_token(&command.workflow).map_err(name("workflow"))?;
        let subject = match &command.workflow_id {
            Some(id) => subject::start(&self.namespace, id, &command.workflow).map_err(name("workflow id"))?,
            None => subject::unkeyed_start(&self.namespace, &command.workflow).map_err(name("workflow"))?,
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::REQUEST_ID, request_id(&command.request_id)?);
        let mut set = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        };
        set(header::VERSION, command.version.map(|v| v.to_string()).as_deref());
        set(header::SEARCH_ATTRIBUTES, command.search_attributes.as_deref());
        set(header::ID_REUSE, command.id_reuse.as_deref());
        set(header::ID_CONFLICT, command.id_conflict.as_deref());
        set(header::PRIORITY, command.priority.map(|n| n.to_string()).as_deref());
        set(header::START_DELAY, command.delay.as_deref());
        set(header::REPLY_ON, command.answer.map(AnswerWanted::as_str));
        let stored = self
            .publish(subject, headers, command.input, command.answer.is_some())
            .await;
        match stored {
            Err(CommandError::NoStream { subject }) if self.log_is_there().await => {
                Err(CommandError::Throttled { subject })
            }
            other => other,
        }
    }

    /// Only what JetStream says counts: a caller who may not ask it hears nothing.
    async fn log_is_there(&self) -> bool {
        let info = format!("$JS.API.STREAM.INFO.{}", subject::LOG_STREAM);
        let asked = Request::new().timeout(Some(self.timeout));
        let Ok(reply) = self.nats.send_request(info, asked).await else {
            return false;
        };
        serde_json::from_slice::<PublishAck>(&reply.payload).is_ok_and(|answer| answer.error.is_none())
    }

    pub async fn signal(&self, command: SignalCommand) -> Result<Stored, CommandError> {
        let name = |part| move |error| CommandError::Name { part, error };
        subject::encode_token(&command.name).map_err(name("signal"))?;
        let subject =
            subject::signal(&self.namespace, &command.workflow_id, &command.name).map_err(name("workflow id"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::REQUEST_ID, request_id(&command.request_id)?);
        let input = command.start_input.as_deref().map(String::from_utf8_lossy);
        for (name, value) in [
            (header::BY, command.by.as_deref()),
            (header::REASON, command.reason.as_deref()),
            (header::START_WORKFLOW, command.start_workflow.as_deref()),
            (header::START_INPUT, input.as_deref()),
        ] {
            if let Some(value) = value {
                headers.insert(name, header_text(value).as_str());
            }
        }
        self.publish(subject, headers, command.body, true).await
    }

    pub async fn update(&self, command: UpdateCommand) -> Result<Stored, CommandError> {
        let name = |part| move |error| CommandError::Name { part, error };
        let namespace = subject::encode_token(&self.namespace).map_err(name("namespace"))?;
        let update = subject::encode_token(&command.name).map_err(name("update"))?;
        let subject =
            subject::update(&self.namespace, &command.workflow_id, &command.name).map_err(name("workflow id"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::VERB, format!("update.{update} {namespace}").as_str());
        headers.insert(header::REQUEST_ID, request_id(&command.request_id)?);
        headers.insert(header::REPLY_ON, command.wanted.as_str());
        let run = command.run.map(|run| run.to_string());
        for (name, value) in [
            (header::BY, command.by.as_deref()),
            (header::REASON, command.reason.as_deref()),
            (header::RUN_ID, run.as_deref()),
        ] {
            if let Some(value) = value {
                headers.insert(name, header_text(value).as_str());
            }
        }
        self.publish(subject, headers, command.input, true).await
    }

    pub async fn operate(&self, command: OperatorCommand) -> Result<Stored, CommandError> {
        let name = |part| move |error| CommandError::Name { part, error };
        let namespace = subject::encode_token(&self.namespace).map_err(name("namespace"))?;
        let subject =
            subject::run_verb(&self.namespace, &command.workflow_id, command.verb).map_err(name("workflow id"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::VERB, format!("{} {namespace}", command.verb).as_str());
        headers.insert(header::REQUEST_ID, request_id(&command.request_id)?);
        let run = command.run.map(|run| run.to_string());
        let version = command.version.as_ref().map(|(_, version)| version.to_string());
        let workflow = command.version.as_ref().map(|(workflow, _)| workflow.as_str());
        for (name, value) in [
            (header::BY, command.by.as_deref()),
            (header::REASON, command.reason.as_deref()),
            (header::RUN_ID, run.as_deref()),
            (header::STEP, command.step.as_deref()),
            (header::DIRECTION, command.direction),
            (header::WORKFLOW, workflow),
            (header::VERSION, version.as_deref()),
        ] {
            if let Some(value) = value {
                headers.insert(name, header_text(value).as_str());
            }
        }
        self.publish(subject, headers, command.body, true).await
    }

    pub async fn schedule(&self, command: ScheduleCommand) -> Result<Stored, CommandError> {
        let id = workflow_id(&command.name);
        let record = (command.request_id.as_str(), &command.by, &command.reason);
        self.to_actor("schedule", id.as_str(), record, &command.request).await
    }

    pub async fn trigger(&self, command: TriggerCommand) -> Result<Stored, CommandError> {
        let id = trigger::workflow_id(&command.name.workflow, &command.name.name);
        let record = (command.request_id.as_str(), &command.by, &command.reason);
        self.to_actor("trigger", id.as_str(), record, &command.request).await
    }

    /// To what is kept like a run, and is none.
    async fn to_actor(
        &self,
        verb: &'static str,
        id: &str,
        (request, by, reason): (&str, &Option<String>, &Option<String>),
        body: &impl Serialize,
    ) -> Result<Stored, CommandError> {
        let name = |part| move |error| CommandError::Name { part, error };
        let namespace = subject::encode_token(&self.namespace).map_err(name("namespace"))?;
        let part = match verb {
            "schedule" => "name of the schedule",
            _ => "name of the trigger",
        };
        let subject = subject::run_verb(&self.namespace, id, verb).map_err(name(part))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::VERB, format!("{verb} {namespace}").as_str());
        headers.insert(header::REQUEST_ID, request_id(request)?);
        for (name, value) in [(header::BY, by), (header::REASON, reason)] {
            if let Some(value) = value {
                headers.insert(name, header_text(value).as_str());
            }
        }
        // Made of texts, numbers and JSON.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.publish(subject, headers, body.into(), true).await
    }

    /// Puts a large body beside its message; what is left travels in it. Where it cannot be put (the caller may not, or the
    /// namespace has no bucket), it may be small enough to be sent as it is.
    async fn put(&self, headers: &mut HeaderMap, payload: Bytes) -> Result<Bytes, CommandError> {
        match body::put(&self.nats, &self.namespace, &payload).await {
            Ok(reference) => {
                for (name, value) in reference.headers() {
                    headers.insert(name, value.as_str());
                }
                Ok(Bytes::new())
            }
            Err(_) if payload.len() < max_payload(&self.nats).saturating_sub(8 << 10) => Ok(payload),
            Err(error) => Err(CommandError::Body(error)),
        }
    }

    async fn publish(
        &self,
        subject: String,
        mut headers: HeaderMap,
        payload: Bytes,
        answered: bool,
    ) -> Result<Stored, CommandError> {
        let limit = max_payload(&self.nats);
        let bytes = payload.len();
        let payload = if bytes > subject::MAX_INLINE_BYTES {
            self.put(&mut headers, payload).await?
        } else {
            payload
        };
        if payload.len() > limit {
            return Err(CommandError::TooLarge { bytes, limit });
        }
        let inbox = if answered {
            let inbox = self.nats.new_inbox();
            let subscriber = self
                .nats
                .subscribe(inbox.clone())
                .await
                .map_err(|error| CommandError::Unacknowledged(error.to_string()))?;
            headers.insert(header::REPLY_TO, inbox.as_str());
            Some(subscriber)
        } else {
            None
        };
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(self.timeout));
        let reply = match self.nats.send_request(subject.clone(), request).await {
            Ok(reply) => reply,
            Err(error) => {
                return Err(match error.kind() {
                    RequestErrorKind::NoResponders => CommandError::NoStream { subject },
                    RequestErrorKind::MaxPayloadExceeded => CommandError::TooLarge { bytes, limit },
                    _ => CommandError::Unacknowledged(error.to_string()),
                });
            }
        };
        let ack: PublishAck =
            serde_json::from_slice(&reply.payload).map_err(|error| CommandError::Unacknowledged(error.to_string()))?;
        match ack.error {
            // 10077: the store refuses, which for a stream that discards what is new means that it is at its limits.
            Some(error) if error.err_code == 10_077 => Err(CommandError::Full(error.description)),
            Some(error) => Err(CommandError::Refused(error.description)),
            None => Ok(Stored {
                sequence: ack.seq,
                duplicate: ack.duplicate,
                inbox,
            }),
        }
    }
}

/// As the orchestrator takes it; what a header cannot hold never leaves.
fn request_id(id: &str) -> Result<&str, CommandError> {
    match id {
        "" => Err(CommandError::RequestId("is empty")),
        id if id.len() > MAX_REQUEST_ID_BYTES => Err(CommandError::RequestId("is longer than 512 bytes")),
        id if id.chars().any(char::is_control) => Err(CommandError::RequestId("contains control characters")),
        // The client trims what it reads, so that a repeat would have another id.
        id if id.trim() != id => Err(CommandError::RequestId("begins or ends with white space")),
        id => Ok(id),
    }
}

/// Header values hold one line.
fn header_text(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[derive(Debug, Deserialize)]
struct PublishAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AckError>,
}

#[derive(Debug, Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_what_a_header_can_hold() {
        let longest = "x".repeat(MAX_REQUEST_ID_BYTES);
        for id in ["r-1", "order 17/ü", &longest] {
            assert_eq!(request_id(id).unwrap(), id);
        }
        for id in ["", "a\nb", "a\r", "a\0", " a", "a ", &format!("{longest}x")] {
            let refused = request_id(id).unwrap_err();
            assert!(matches!(refused, CommandError::RequestId(_)), "{id:?}");
        }
    }
}
