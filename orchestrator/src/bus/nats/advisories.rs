//! Tasks the server has given up after `max_deliver` deliveries.
//!
//! Every replica reads every advisory and acts on those of its own partitions; the others are kept, bounded, for the
//! case that their partition moves here before its owner has acted. An advisory has been acted on when its task is gone
//! from the task stream, so that reading all of them again after a restart is harmless. What falls between two owners is
//! found by the task's own deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knarr_schemas::header;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;

use super::Shared;
use super::jetstream::{ApiError, JetStream};
use super::pull::{Pull, Pulled};
use super::streams::ADVISORY_STREAM;
use crate::bus::Incoming;

/// Advisories kept for other partitions; the oldest go first.
const KEPT: usize = 10_000;
const HEARTBEAT: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_millis(500);

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
    loop {
        match Pull::open(&shared.js, ADVISORY_STREAM, &[], next, HEARTBEAT).await {
            Ok(mut pull) => {
                loop {
                    let pulled = tokio::select! {
                        pulled = pull.next() => pulled,
                        () = shared.advisories.look.notified() => {
                            settle(&shared, &mut kept).await;
                            // The pull was cancelled; it goes on from `next`.
                            break;
                        }
                    };
                    match pulled {
                        Ok(Pulled::Message { message, position }) => {
                            next = position.stream_sequence + 1;
                            if let Some(lost) = read(&shared.js, &message.payload).await {
                                kept.insert(position.stream_sequence, lost);
                                settle(&shared, &mut kept).await;
                            }
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
async fn read(js: &JetStream, payload: &[u8]) -> Option<Lost> {
    let advisory: Advisory = serde_json::from_slice(payload).ok()?;
    if !advisory.stream.starts_with("KNARR_TASKS_") {
        return None;
    }
    let message = js.message_at(&advisory.stream, advisory.stream_seq).await.ok()??;
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

/// Hands over what concerns open partitions, and removes its tasks.
async fn settle(shared: &Shared, kept: &mut BTreeMap<u64, Lost>) {
    while kept.len() > KEPT {
        kept.pop_first();
    }
    let mine: Vec<(u64, tokio::sync::mpsc::Sender<Incoming>)> = kept
        .iter()
        .filter_map(|(place, lost)| Some((*place, shared.sender_of(lost.partition)?)))
        .collect();
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
            Err(ApiError::Refused { .. }) => {}
            Err(error) => {
                tracing::debug!(%error, "a lost task could not be removed");
                continue;
            }
        }
        kept.remove(&place);
    }
}
