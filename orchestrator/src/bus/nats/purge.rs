//! Letting the log forget what every partition has taken, and looking at its ends.
//!
//! **Invariant:** a purge never removes the message of a committed cursor, nor anything later than the smallest one.
//!
//! Purging is by sequence and unfiltered, which costs the server nothing per message and leaves no holes. It needs every
//! partition's cursor; those of silent partitions move by [`crate::bus::Incoming::Idle`].

use std::collections::HashSet;

use knarr_schemas::subject::LOG_STREAM;
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::jetstream::MessageQuery;
use crate::bus::BusError;
use crate::store::Cursor;

#[derive(Debug, Deserialize)]
struct Purged {
    #[serde(default)]
    purged: u64,
}

pub(super) async fn purge_log(shared: &Shared, cursors: &[(i16, Cursor)]) -> Result<(), BusError> {
    let partitions = shared.streams.partitions()?;
    let named: HashSet<i16> = cursors.iter().map(|(partition, _)| *partition).collect();
    if !(0..=i32::from(partitions)).all(|partition| i16::try_from(partition).is_ok_and(|p| named.contains(&p))) {
        return Err(BusError::Misconfigured(format!(
            "a purge of the log needs the cursors of all {} partitions, not of {}",
            u32::from(partitions) + 1,
            named.len()
        )));
    }
    let Some((_, smallest)) = cursors.iter().min_by_key(|(_, cursor)| cursor.sequence) else {
        return Ok(());
    };
    if smallest.sequence <= 1 {
        return Ok(());
    }
    let info = shared.js.stream(LOG_STREAM).await?;
    let elsewhere = cursors.iter().any(|(_, cursor)| cursor.stream != info.created);
    if elsewhere || info.state.first_seq >= smallest.sequence || info.state.last_seq < smallest.sequence {
        return Ok(());
    }
    // If this message is the one that was taken, all before it are those that were there then.
    let message = shared.js.message_at(LOG_STREAM, smallest.sequence).await?;
    if message.is_none_or(|message| message.at() != smallest.at) {
        return Ok(());
    }
    // Removes what is below `seq`.
    let answer: Purged = shared
        .js
        .call(
            &format!("STREAM.PURGE.{LOG_STREAM}"),
            &json!({ "seq": smallest.sequence }),
        )
        .await?;
    tracing::debug!(purged = answer.purged, below = smallest.sequence, "purged the log");
    Ok(())
}

/// The sequence of the partition's last message, 0 if there is none.
pub(super) async fn log_tail(shared: &Shared, partition: i16) -> Result<u64, BusError> {
    let mut tail = 0;
    for filter in shared.streams.filters(partition)? {
        let query = MessageQuery {
            last_by_subj: Some(&filter),
            ..MessageQuery::default()
        };
        let message = shared.js.message(LOG_STREAM, &query).await?;
        tail = tail.max(message.map_or(0, |message| message.sequence));
    }
    Ok(tail)
}
