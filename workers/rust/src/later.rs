//! Finishing a task that its handler has let go of, from anywhere.

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use knarr_schemas::api::{self, verb};
use knarr_schemas::body::{BeatAnswer, ErrorBody};
use knarr_schemas::subject;
use serde::Serialize;

use crate::error::ActivityError;

/// The API answers within this.
const WITHIN: Duration = Duration::from_secs(10);

/// A task whose handler returned [`complete_later`](crate::Context::complete_later): namespace and
/// [token](crate::Context::token) are all that has to be kept of it.
#[derive(Debug, Clone)]
pub struct LaterTask {
    client: Client,
    namespace: String,
    token: String,
}

/// Why a task was not finished. Trying again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum LaterError {
    #[error("{}: {}", .0.code, .0.message)]
    Refused(ErrorBody),
    #[error("no answer of Knarr: {0}")]
    Unanswered(String),
    #[error("what was said is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl LaterTask {
    pub fn new(client: Client, namespace: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            token: token.into(),
        }
    }

    /// The work is done.
    ///
    /// # Errors
    /// When Knarr does not take it.
    pub async fn complete(&self, output: &impl Serialize) -> Result<(), LaterError> {
        let request = api::CompleteActivity {
            token: self.token.clone(),
            output: serde_json::to_value(output)?,
        };
        let _: api::ActivityAnswer = self.ask(verb::ACTIVITY_COMPLETE, &request).await?;
        Ok(())
    }

    /// The work has ended otherwise.
    ///
    /// # Errors
    /// When Knarr does not take it.
    pub async fn fail(&self, error: &ActivityError) -> Result<(), LaterError> {
        let request = api::FailActivity {
            token: self.token.clone(),
            outcome: error.kind.as_str().to_owned(),
            error_type: error.error_type.clone().into_owned(),
            message: error.message.clone(),
            retryable: error.retryable,
            not_done: error.not_done,
            retry_after_ms: error
                .retry_after
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        };
        let _: api::ActivityAnswer = self.ask(verb::ACTIVITY_FAIL, &request).await?;
        Ok(())
    }

    /// The work goes on; details are for the next attempt, should there be one. `true` = it should stop: the run was
    /// cancelled, or nobody waits for the task any more.
    ///
    /// # Errors
    /// When Knarr does not take it.
    pub async fn heartbeat(&self, details: Option<&impl Serialize>) -> Result<bool, LaterError> {
        let request = api::HeartbeatActivity {
            token: self.token.clone(),
            details: details.map(serde_json::to_value).transpose()?,
        };
        let answer: api::HeartbeatAnswer = self.ask(verb::ACTIVITY_HEARTBEAT, &request).await?;
        Ok(answer.answer != BeatAnswer::Ok)
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, verb: &str, request: &impl Serialize) -> Result<T, LaterError> {
        let unanswered = |error: &dyn std::fmt::Display| LaterError::Unanswered(error.to_string());
        let subject = subject::api(&self.namespace, verb).map_err(|error| unanswered(&error))?;
        let body = Bytes::from(serde_json::to_vec(request)?);
        let asked = tokio::time::timeout(WITHIN, self.client.request(subject, body)).await;
        let answer = asked
            .map_err(|late| unanswered(&late))?
            .map_err(|error| unanswered(&error))?;
        let refused = answer.headers.as_ref().and_then(|headers| headers.get(api::ERROR));
        if refused.is_some() {
            return Err(LaterError::Refused(serde_json::from_slice(&answer.payload)?));
        }
        Ok(serde_json::from_slice(&answer.payload)?)
    }
}
