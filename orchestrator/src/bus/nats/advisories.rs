//! Tasks the server has given up after `max_deliver` deliveries.
//!
//! Every replica reads every advisory and acts on those of its own partitions; the others are kept, bounded, for the
//! case that their partition moves here before its owner has acted. An advisory has been acted on when its task is gone
//! from the task stream, or a later message stands in its place (a stream that was made again counts from 1), so that reading
//! all of them again after a restart is harmless. What falls between two owners is
//! found by the task's own deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use knarr_schemas::header;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;

use super::Shared;
use super::jetstream::{ApiError, JetStream, StoredMessage, code};
use super::pull::{Pull, Pulled};
use super::streams::ADVISORY_STREAM;
use crate::bus::Incoming;
use crate::bus::inlet::Inlet;

/// Advisories kept for other partitions; the oldest go first.
const KEPT: usize = 10_000;
const HEARTBEAT: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// What a deletion is refused with where there is nothing to delete; anything else may pass.
const GONE: [u32; 3] = [code::STREAM_NOT_FOUND, code::NO_MESSAGE_FOUND, code::DELETE_FAILED];

#[derive(Debug, Default)]
pub(super) struct Advisories {
    ready: Notify,
    look: Notify,
}

impl Advisories {
    /// The streams are there.
    pub(super) fn begin(&self) {
        self.ready.notify_one();
    }

    /// A partition was opened, or the connection is back.
    pub(super) fn look_again(&self) {
        self.look.notify_one();
    }
}

#[derive(Debug, Deserialize)]
struct Advisory {
    stream: String,
    stream_seq: u64,
    /// The server's clock when it gave the task up.
    timestamp: DateTime<Utc>,
}

/// A task given up, by its place, with what its message says.
#[derive(Debug)]
struct Lost {
    stream: String,
    sequence: u64,
    partition: i16,
    namespace: String,
    token: String,
}

pub(super) async fn run(shared: Arc<Shared>) {
    shared.advisories.ready.notified().await;
    // By the advisory's own place, oldest first.
    let mut kept: BTreeMap<u64, Lost> = BTreeMap::new();
    let mut next = 1;
    let mut unsettled = false;
    loop {
        match Pull::open(&shared.js, ADVISORY_STREAM, &[], next, HEARTBEAT).await {
            Ok(mut pull) => {
                loop {
                    let pulled = tokio::select! {
                        pulled = pull.next() => pulled,
                        () = shared.advisories.look.notified() => {
                            unsettled = !settle(&shared, &mut kept).await;
                            // The pull was cancelled; it goes on from `next`.
                            break;
                        }
                        () = tokio::time::sleep(RETRY_DELAY), if unsettled => {
                            unsettled = !settle(&shared, &mut kept).await;
                            break;
                        }
                    };
                    match pulled {
                        Ok(Pulled::Message { message, position }) => {
                            match read(&shared.js, &message.payload).await {
                                Ok(Some(lost)) => {
                                    kept.insert(position.stream_sequence, lost);
                                    unsettled = !settle(&shared, &mut kept).await;
                                }
                                Ok(None) => {}
                                Err(error) => {
                                    tracing::debug!(%error, "a lost task cannot be looked at yet");
                                    tokio::time::sleep(RETRY_DELAY).await;
                                    break;
                                }
                            }
                            next = position.stream_sequence + 1;
                        }
                        Ok(Pulled::Idle { .. }) => {}
                        Err(broken) => {
                            tracing::debug!(why = broken.0, "reading the advisories again");
                            tokio::time::sleep(RETRY_DELAY).await;
                            break;
                        }
                    }
                }
                pull.close().await;
            }
            Err(error) => {
                tracing::debug!(%error, "the advisories cannot be read");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
        // A stream that was recreated counts from 1 again.
        if let Ok(info) = shared.js.stream(ADVISORY_STREAM).await {
            next = next.min(info.state.last_seq + 1);
        }
    }
}

/// `None` for what concerns no task that still exists.
async fn read(js: &JetStream, payload: &[u8]) -> Result<Option<Lost>, ApiError> {
    let Ok(advisory) = serde_json::from_slice::<Advisory>(payload) else {
        return Ok(None);
    };
    if !advisory.stream.starts_with("KNARR_TASKS_") {
        return Ok(None);
    }
    match js.message_at(&advisory.stream, advisory.stream_seq).await {
        Ok(message) => Ok(message.and_then(|message| lost(advisory, &message))),
        Err(error) if error.is(code::STREAM_NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

fn lost(advisory: Advisory, message: &StoredMessage) -> Option<Lost> {
    if message.time > advisory.timestamp {
        return None;
    }
    // `knarr.direct.<ns>.<partition>`
    let (namespace, partition) = message
        .header(header::DIRECT)?
        .strip_prefix("knarr.direct.")?
        .rsplit_once('.')?;
    let namespace = knarr_schemas::subject::decode_token(namespace).ok()?.into_owned();
    let partition = partition.parse().ok()?;
    Some(Lost {
        namespace,
        token: message.header(header::TOKEN)?.to_owned(),
        stream: advisory.stream,
        sequence: advisory.stream_seq,
        partition,
    })
}

/// Hands over what concerns open partitions, and removes its tasks; `false` if one could not be removed yet.
async fn settle(shared: &Shared, kept: &mut BTreeMap<u64, Lost>) -> bool {
    while kept.len() > KEPT {
        kept.pop_first();
    }
    let mine: Vec<(u64, Inlet)> = kept
        .iter()
        .filter_map(|(place, lost)| Some((*place, shared.inlet_of(lost.partition)?)))
        .collect();
    let mut settled = true;
    for (place, into) in mine {
        let Some(lost) = kept.get(&place) else { continue };
        let answer = shared
            .js
            .call::<serde_json::Value>(
                &format!("STREAM.MSG.DELETE.{}", lost.stream),
                &json!({ "seq": lost.sequence }),
            )
            .await;
        match answer {
            Ok(_) => {
                let incoming = Incoming::TaskLost {
                    partition: lost.partition,
                    namespace: lost.namespace.clone(),
                    token: lost.token.clone(),
                };
                let _ = into.send(incoming).await;
            }
            // Gone: its owner of then has seen to it.
            Err(error) if GONE.iter().any(|code| error.is(*code)) => {}
            Err(error) => {
                tracing::debug!(%error, "a lost task could not be removed");
                settled = false;
                continue;
            }
        }
        kept.remove(&place);
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_message_in_the_place_of_a_lost_task_is_left_alone() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let lost = |stored: &str| {
            let payload = br#"{"stream":"KNARR_TASKS_a","stream_seq":5,"timestamp":"2026-01-01T10:00:00.5Z"}"#;
            let headers = b"NATS/1.0\r\nKnarr-Token: t\r\nKnarr-Direct: knarr.direct.a.3\r\n\r\n";
            let message = StoredMessage::at_time(at(stored), headers);
            super::lost(serde_json::from_slice(payload).unwrap(), &message)
        };
        assert!(lost("2026-01-01T10:00:00.5Z").is_some_and(|lost| lost.partition == 3));
        assert!(lost("2026-01-01T10:00:00.500000001Z").is_none());
    }
}
