//! The direct inlet of a partition: core NATS, from SDK workers, to the partition's owner.
//!
//! Core NATS knows no back-pressure. What arrives is handed over at once as far as the engine has room for it, so that nothing
//! piles up in the subscription's buffer; the rest is dropped and counted (`knarr_bus_dropped_messages_total`), and its
//! sender repeats it after a second, then goes by the log.
//!
//! A message whose headers are no headers ends the connection, once: nothing of core NATS is delivered again. That is borne,
//! here and by the API; who may publish here is a matter of permissions.
//!
//! **Invariant:** what was received is handed over, also when the partition is closed: first nothing more is sent here, so
//! that whoever comes now is told that nobody listens, and then what lies in the buffer follows.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use futures_util::StreamExt as _;
use knarr_schemas::subject;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Shared, bodies, header_map};
use crate::bus::inlet::Inlet;
use crate::bus::task_handle::TaskHandle;
use crate::bus::{BusError, DirectKind, DirectMessage};
use crate::telemetry::metric;

/// Results whose bodies are being fetched, or wait for that, of one partition.
const MOST_FETCHED: usize = 32;
/// Bodies that are being fetched at a time, over all partitions: they have no room of the engine's yet.
pub(super) const FETCHED_AT_ONCE: usize = 16;

/// Not connected, the end of what was received is not heard of.
const DRAIN_WITHIN: Duration = Duration::from_millis(500);

pub(super) async fn open(shared: &Arc<Shared>, partition: i16, into: Inlet) -> Result<TaskHandle, BusError> {
    let mut subscription = shared
        .js
        .client()
        .subscribe(format!("knarr.direct.*.{partition}.*"))
        .await
        .map_err(|error| BusError::Unavailable(error.to_string()))?;
    let owner = Arc::clone(shared);
    Ok(TaskHandle::spawn_with(|stop| async move {
        let mut fetching = JoinSet::new();
        let mut ends: Option<Instant> = None;
        loop {
            let message = tokio::select! {
                message = subscription.next() => message,
                () = into.closed() => return,
                () = stop.cancelled(), if ends.is_none() => {
                    // A connection that is gone delivers nothing more.
                    if subscription.drain().await.is_err() {
                        return;
                    }
                    ends = Some(Instant::now() + DRAIN_WITHIN);
                    continue;
                }
                () = tokio::time::sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => return,
            };
            let Some(message) = message else {
                // These were received as well. One whose body does not come in time is handed in again by its worker.
                let fetched = async { while fetching.join_next().await.is_some() {} };
                let _ = tokio::time::timeout(DRAIN_WITHIN, fetched).await;
                return;
            };
            let Some(mut direct) = read(partition, message) else {
                metrics::counter!("knarr_bus_malformed_direct_messages_total").increment(1);
                continue;
            };
            if bodies::is_elsewhere(&direct.headers) {
                while fetching.try_join_next().is_some() {}
                if fetching.len() >= MOST_FETCHED {
                    metrics::counter!(metric::BUS_DROPPED).increment(1);
                    continue;
                }
                // Beside the others, which are not to wait for it; its worker does, and repeats itself if this ends first.
                let (shared, into) = (Arc::clone(&owner), into.clone());
                fetching.spawn(async move {
                    // Never closed.
                    let _place = shared.fetching.acquire().await;
                    let payload = std::mem::take(&mut direct.payload);
                    let whose = bodies::Whose::of_direct(&direct.namespace);
                    let fetched = bodies::fetch(&shared, &whose, &mut direct.headers, payload);
                    direct.payload = fetched.await;
                    // Nobody takes it any more: the worker goes by the log.
                    let _ = into.offer(direct);
                });
                continue;
            }
            if into.offer(direct).is_err() {
                return;
            }
        }
    }))
}

/// `knarr.direct.<ns>.<partition>.<kind>`; `None` for what is none of ours.
fn read(partition: i16, message: Message) -> Option<DirectMessage> {
    let (namespace, kind) = parse(&message.subject)?;
    Some(DirectMessage {
        partition,
        namespace,
        kind,
        headers: header_map::from_client(message.headers.as_ref()),
        payload: message.payload,
        reply: message.reply.map(async_nats::Subject::into_string),
    })
}

fn parse(text: &str) -> Option<(String, DirectKind)> {
    let mut parts = text.strip_prefix("knarr.direct.")?.split('.');
    let namespace = subject::decode_token(parts.next()?).ok()?.into_owned();
    let _partition = parts.next()?;
    let kind = match parts.next()? {
        "result" => DirectKind::Result,
        "beat" => DirectKind::Beat,
        "claim" => DirectKind::Claim,
        _ => return None,
    };
    Some((namespace, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_subjects_are_taken_apart() {
        for (text, expected) in [
            ("knarr.direct.default.3.result", Some(("default", DirectKind::Result))),
            ("knarr.direct.a%2Fb.3.beat", Some(("a/b", DirectKind::Beat))),
            ("knarr.direct.a.3.claim", Some(("a", DirectKind::Claim))),
            ("knarr.direct.a%2fb.3.beat", None),
            ("knarr.direct.a.3.other", None),
            ("knarr.direct.a.3", None),
        ] {
            let expected = expected.map(|(namespace, kind)| (namespace.to_owned(), kind));
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
