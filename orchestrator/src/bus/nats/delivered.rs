//! How far a queue's tasks have been delivered, so that a backlog is not taken for slow workers.

use knarr_core::ids::{Namespace, QueueName};
use knarr_core::time::{Span, Timestamp};

use super::jetstream::{MessageQuery, code};
use super::{Shared, streams};
use crate::bus::{BusError, Undelivered};

pub(super) async fn undelivered(
    shared: &Shared,
    namespace: &Namespace,
    queue: &QueueName,
) -> Result<Undelivered, BusError> {
    let js = &shared.js;
    let (stream, _) = streams::names(namespace)?;
    let (consumer, filter) = streams::queue_names(namespace, queue)?;
    let info = match js.consumer(&stream, &consumer).await {
        Err(error) if error.is(code::CONSUMER_NOT_FOUND) || error.is(code::STREAM_NOT_FOUND) => {
            // Nobody else notices: a stream without the consumer takes tasks, and workers wait for one.
            shared.streams.suspected.notify_one();
            return Ok(Undelivered::All);
        }
        other => other?,
    };
    // The count of what is pending is not asked: the server brings it up to date after it has acknowledged a publication.
    let query = MessageQuery {
        seq: Some(info.delivered.stream_seq + 1),
        next_by_subj: Some(&filter),
        ..MessageQuery::default()
    };
    let Some(oldest) = js.message(&stream, &query).await? else {
        return Ok(Undelivered::Nothing);
    };
    let age = info
        .ts
        .map_or(Span::ZERO, |now| Timestamp::from_utc(now).since(oldest.at()));
    Ok(Undelivered::For(age))
}
