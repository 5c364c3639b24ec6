//! Taking a task out of its queue, and saying whether a worker may have had it.
//!
//! A task that may have to be taken out has a subject of its own, so that it is found without looking through a backlog.
//! What the consumer has delivered is asked before and after: a task that it may have handed out in between counts as delivered.
//! A consumer that is younger than the task says nothing of what an earlier one delivered.

use knarr_core::ids::{Namespace, QueueName};
use serde_json::json;

use super::jetstream::{ApiError, ConsumerInfo, JetStream, MessageQuery, code};
use super::streams;
use crate::bus::BusError;

/// A task that was offered more often than that was held for hours.
const MOST_OFFERS: usize = 64;

pub(super) async fn withdraw(
    js: &JetStream,
    namespace: &Namespace,
    queue: &QueueName,
    subject: &str,
) -> Result<bool, BusError> {
    let (stream, _) = streams::names(namespace)?;
    let (consumer, _) = streams::queue_names(namespace, queue)?;
    let mut withdrawn = false;
    for _ in 0..MOST_OFFERS {
        let query = MessageQuery {
            last_by_subj: Some(subject),
            ..MessageQuery::default()
        };
        let message = match js.message(&stream, &query).await {
            Err(error) if error.is(code::STREAM_NOT_FOUND) => return Ok(withdrawn),
            other => other?,
        };
        let Some(message) = message else {
            return Ok(withdrawn);
        };
        let untouched = |info: &ConsumerInfo| {
            let older = info.created.is_some_and(|created| created <= message.time);
            older && info.delivered.stream_seq < message.sequence
        };
        let Some(before) = found(js.consumer(&stream, &consumer).await)? else {
            return Ok(false);
        };
        if !untouched(&before) {
            return Ok(false);
        }
        let deleted = js
            .call::<serde_json::Value>(
                &format!("STREAM.MSG.DELETE.{stream}"),
                &json!({ "seq": message.sequence }),
            )
            .await;
        match deleted {
            Ok(_) => {}
            // A worker was quicker, and is done with it.
            Err(error) if error.is(code::NO_MESSAGE_FOUND) || error.is(code::DELETE_FAILED) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let after = found(js.consumer(&stream, &consumer).await)?;
        if !after.is_some_and(|after| untouched(&after)) {
            return Ok(false);
        }
        withdrawn = true;
    }
    Ok(false)
}

fn found(info: Result<ConsumerInfo, ApiError>) -> Result<Option<ConsumerInfo>, BusError> {
    match info {
        Err(error) if error.is(code::CONSUMER_NOT_FOUND) || error.is(code::STREAM_NOT_FOUND) => Ok(None),
        other => Ok(Some(other?)),
    }
}
