//! Whether the log is still the one a cursor was made on, and where to go on if it is not.
//!
//! A stream is recognised by its creation time, and its past by the message the cursor names: the same sequence must
//! bear the same time. A stream that lost its last, unsynced messages goes on counting from an earlier sequence, so that
//! what it stores next has sequences the cursor has passed already; those messages are found by time.

use chrono::{TimeDelta, Utc};
use knarr_core::time::Timestamp;
use knarr_schemas::subject::LOG_STREAM;

use super::jetstream::{ApiError, JetStream, MessageQuery, StreamInfo};
use super::streams::Streams;
use crate::store::Cursor;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// Go on after the cursor. Carries the stream's identity, which a first cursor lacks.
    Continues { stream: String },
    /// What the cursor says does not hold (any more): go on after this one.
    Gap { resumes_at: Cursor },
}

pub(super) async fn locate(js: &JetStream, streams: &Streams, cursor: &Cursor) -> Result<Located, ApiError> {
    let info = js.stream(LOG_STREAM).await?;
    // Of a server that has another cluster's streams all of a sudden nothing is taken.
    streams
        .refuse_other_cluster(LOG_STREAM, &info)
        .map_err(|error| ApiError::Unavailable(error.to_string()))?;
    locate_in(js, LOG_STREAM, &info, cursor).await
}

/// The same of any stream.
pub(super) async fn locate_in(
    js: &JetStream,
    stream: &str,
    info: &StreamInfo,
    cursor: &Cursor,
) -> Result<Located, ApiError> {
    let continues = Located::Continues {
        stream: info.created.clone(),
    };
    if cursor.sequence == 0 && cursor.stream.is_empty() {
        return Ok(continues);
    }
    if cursor.stream != info.created {
        let resumes_at = Cursor {
            sequence: 0,
            at: Timestamp::default(),
            stream: info.created.clone(),
        };
        return Ok(Located::Gap { resumes_at });
    }
    // One whose message was not there when it was made has no time to be recognised by.
    if cursor.sequence == 0 || cursor.at == Timestamp::default() {
        return Ok(continues);
    }
    let (first, last) = (info.state.first_seq, info.state.last_seq);
    if last >= cursor.sequence {
        if first > cursor.sequence + 1 {
            // Purged beyond the cursor by somebody else, or the cursor comes from a restored database: what was there
            // for this partition cannot be known.
            let resumes_at = Cursor {
                sequence: first - 1,
                ..cursor.clone()
            };
            return Ok(Located::Gap { resumes_at });
        }
        let intact = match js.message_at(stream, cursor.sequence).await? {
            Some(message) => message.at() == cursor.at,
            None if first > cursor.sequence => true,
            // Deleted one by one. Had the log gone back in time, the messages before it would be later than the cursor.
            None => first_later(js, stream, cursor.at)
                .await?
                .is_none_or(|sequence| sequence > cursor.sequence),
        };
        if intact {
            return Ok(continues);
        }
    }
    // Back in time. `last` was read first, so whatever comes later than that has a higher sequence.
    let sequence = match first_later(js, stream, cursor.at).await? {
        Some(sequence) => sequence - 1,
        None => last,
    };
    let at = match sequence {
        0 => None,
        _ => js.message_at(stream, sequence).await?,
    };
    let resumes_at = Cursor {
        sequence,
        at: at.map_or(cursor.at, |message| message.at()),
        stream: info.created.clone(),
    };
    Ok(Located::Gap { resumes_at })
}

/// The first message later than the cursor's microsecond.
pub(super) async fn first_later(js: &JetStream, stream: &str, at: Timestamp) -> Result<Option<u64>, ApiError> {
    let start = chrono::DateTime::<Utc>::from_timestamp_micros(at.0)
        .and_then(|time| time.checked_add_signed(TimeDelta::microseconds(1)))
        .unwrap_or(chrono::DateTime::UNIX_EPOCH);
    let query = MessageQuery {
        start_time: Some(start),
        next_by_subj: Some(">"),
        ..MessageQuery::default()
    };
    Ok(js.message(stream, &query).await?.map(|message| message.sequence))
}
