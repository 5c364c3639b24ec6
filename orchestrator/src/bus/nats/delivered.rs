//! How far a queue's tasks have been delivered, so that a backlog is not taken for slow workers.

use std::time::Duration;

use chrono::Utc;
use knarr_core::ids::{Namespace, QueueName};
use knarr_core::time::{Span, Timestamp};

use super::jetstream::{JetStream, MessageQuery, code};
use super::streams;
use crate::bus::BusError;

/// Between this host's clock and the one the engine's times come from. Too much only means that an attempt's clock
/// starts a moment later than it could.
const CLOCK_SLACK: Duration = Duration::from_millis(250);

pub(super) async fn delivered_to(
    js: &JetStream,
    namespace: &Namespace,
    queue: &QueueName,
) -> Result<Timestamp, BusError> {
    let (stream, _) = streams::names(namespace)?;
    let (consumer, filter) = streams::queue_names(namespace, queue)?;
    let asked_at = Timestamp::from_utc(Utc::now());
    let info = match js.consumer(&stream, &consumer).await {
        // Nothing can have been delivered from a queue that is not there.
        Err(error) if error.is(code::CONSUMER_NOT_FOUND) || error.is(code::STREAM_NOT_FOUND) => {
            return Ok(Timestamp::default());
        }
        other => other?,
    };
    if info.num_pending == 0 {
        return Ok(Timestamp::MAX);
    }
    let query = MessageQuery {
        seq: Some(info.delivered.stream_seq + 1),
        next_by_subj: Some(&filter),
        ..MessageQuery::default()
    };
    let Some(oldest) = js.message(&stream, &query).await? else {
        // Delivered between the two questions.
        return Ok(asked_at);
    };
    // Its age is a difference within the server's clock; how that clock stands to ours does not matter.
    let age = info
        .ts
        .map_or(Span::ZERO, |now| Timestamp::from_utc(now).since(oldest.at()));
    let slack = i64::try_from(age.0)
        .unwrap_or(i64::MAX)
        .saturating_add(CLOCK_SLACK.as_micros() as i64);
    Ok(Timestamp(asked_at.0.saturating_sub(slack)))
}
