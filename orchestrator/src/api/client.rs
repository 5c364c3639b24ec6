//! Calls of the API over NATS, from the caller's side: one request, one reply, a limit on the time.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use knarr_schemas::api;
use knarr_schemas::body::ErrorBody;
use knarr_schemas::subject::{self, TokenError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Asks in one namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiClient {
    nats: async_nats::Client,
    namespace: String,
    timeout: Duration,
}

/// How a call can fail.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// NATS says that nobody serves the call.
    #[error("no orchestrator answers `{subject}`")]
    NoResponders { subject: String },
    #[error("no answer to `{subject}` within {} ms", timeout.as_millis())]
    TimedOut { subject: String, timeout: Duration },
    /// The orchestrator's own answer.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
    #[error("the namespace {0}")]
    Namespace(TokenError),
    #[error("the request of {bytes} bytes is larger than the {limit} that can be sent")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the answer cannot be read: {0}")]
    BadReply(String),
    #[error("the request could not be sent: {0}")]
    NotSent(String),
}

impl ApiClient {
    pub fn new(nats: async_nats::Client, namespace: impl Into<String>, timeout: Duration) -> Self {
        Self {
            nats,
            namespace: namespace.into(),
            timeout,
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sends `request` to `verb` (one of [`api::verb`]) and reads the reply.
    pub async fn call<Q, R>(&self, verb: &str, request: &Q) -> Result<R, CallError>
    where
        Q: Serialize + Sync,
        R: DeserializeOwned,
    {
        let subject = subject::api(&self.namespace, verb).map_err(CallError::Namespace)?;
        let body = serde_json::to_vec(request).map_err(|error| CallError::NotSent(error.to_string()))?;
        let limit = api::MAX_REQUEST_BYTES.min(max_payload(&self.nats));
        if body.len() > limit {
            return Err(CallError::TooLarge {
                bytes: body.len(),
                limit,
            });
        }
        let request = Request::new().payload(body.into()).timeout(Some(self.timeout));
        let reply = match self.nats.send_request(subject.clone(), request).await {
            Ok(reply) => reply,
            Err(error) => {
                return Err(match error.kind() {
                    RequestErrorKind::NoResponders => CallError::NoResponders { subject },
                    RequestErrorKind::TimedOut => CallError::TimedOut {
                        subject,
                        timeout: self.timeout,
                    },
                    _ => CallError::NotSent(error.to_string()),
                });
            }
        };
        let refused = reply.headers.as_ref().and_then(|headers| headers.get(api::ERROR));
        if let Some(cause) = refused {
            return Err(match serde_json::from_slice::<ErrorBody>(&reply.payload) {
                Ok(body) => CallError::Refused(body),
                Err(_) => CallError::BadReply(format!("a refusal without a body: {cause}")),
            });
        }
        serde_json::from_slice(&reply.payload).map_err(|error| CallError::BadReply(error.to_string()))
    }
}

/// Largest message the server takes, headers included; 1 MiB while it has not said.
pub(crate) fn max_payload(nats: &async_nats::Client) -> usize {
    match nats.server_info().max_payload {
        0 => 1024 * 1024,
        bytes => bytes,
    }
}
