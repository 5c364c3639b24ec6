//! Looking through what a queue holds for certain tasks, from its oldest message to the newest one.
//!
//! Messages are got, not consumed: the stream of a queue has one consumer for each subject, and whatever another one were given
//! would be gone. They come in batches, bodies and all; a batch that does not come, or not whole, is read again one by one, as
//! data, from where it broke off: one message may have headers that end the client's connection.
//!
//! **Invariant:** nothing of the queue up to the last sequence is passed over. Any server that has the stream may answer, also
//! one that is behind: so of a batch only what lies before a message of its own is known. That nothing follows, the stream's
//! leader says.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::{HeaderMap, StatusCode, Subscriber};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use knarr_core::ids::{RunId, TaskNo};
use serde_json::json;

use super::jetstream::{ApiError, JetStream, MessageQuery};
use crate::bus::task_named;

/// Messages got at once, and their bytes: those of one message of the largest size come whole.
const BATCH: u32 = 500;
const BATCH_BYTES: u32 = 2 << 20;
/// Between two messages of a batch.
const SILENCE: Duration = Duration::from_secs(5);
/// Failures without a message in between: the sweep is given up then, and begun anew when it is asked for again.
const MOST_FAILURES: u32 = 3;
/// Got one by one after a batch that failed.
const CAREFUL: u32 = BATCH;

/// A task as its messages name it.
pub(super) type Name = (RunId, TaskNo);

/// A message that is one of the tasks looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) sequence: u64,
    /// When it was stored.
    pub(super) at: DateTime<Utc>,
}

#[derive(Debug)]
pub(super) struct Sweep<'a> {
    js: &'a JetStream,
    stream: &'a str,
    /// What the queue's consumer takes.
    filter: &'a str,
    /// The first sequence that has not been looked at, and the last one that is.
    next: u64,
    last: u64,
    wanted: HashMap<Name, Vec<Found>>,
    answers: Option<(Subscriber, String)>,
    /// So many are got one by one first.
    careful: u32,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(js: &'a JetStream, stream: &'a str, filter: &'a str, last: u64, wanted: &[Name]) -> Self {
        Self {
            js,
            stream,
            filter,
            next: 1,
            last,
            wanted: wanted.iter().map(|name| (*name, Vec::new())).collect(),
            answers: None,
            careful: 0,
        }
    }

    /// Where each of the tasks lies, in the order of the stream; as often as it was published and is still there.
    pub(super) async fn find(mut self) -> Result<HashMap<Name, Vec<Found>>, ApiError> {
        let mut failures = 0;
        while self.next <= self.last {
            let began_at = self.next;
            let read = match self.careful {
                0 => self.batch().await,
                _ => self.one().await,
            };
            if self.next > began_at {
                failures = 0;
            }
            if let Err(error) = read {
                failures += 1;
                if failures >= MOST_FAILURES {
                    return Err(error);
                }
                tracing::debug!(%error, stream = self.stream, from = self.next, "a queue is looked through more carefully");
                self.answers = None;
                self.careful = CAREFUL;
            }
        }
        Ok(self.wanted)
    }

    /// By the stream's leader.
    async fn one(&mut self) -> Result<(), ApiError> {
        let query = MessageQuery {
            seq: Some(self.next),
            next_by_subj: Some(self.filter),
            ..MessageQuery::default()
        };
        match self.js.message(self.stream, &query).await? {
            Some(message) => {
                self.careful = self.careful.saturating_sub(1);
                self.looked_at(message.sequence, message.time, task_named(|name| message.header(name)));
            }
            None => self.next = self.last + 1,
        }
        Ok(())
    }

    async fn batch(&mut self) -> Result<(), ApiError> {
        let unavailable = |error: &dyn std::fmt::Display| ApiError::Unavailable(error.to_string());
        let client = self.js.client();
        let (mut answers, inbox) = match self.answers.take() {
            Some(answers) => answers,
            None => {
                let inbox = client.new_inbox();
                let answers = client.subscribe(inbox.clone()).await;
                (answers.map_err(|error| unavailable(&error))?, inbox)
            }
        };
        let query = json!({
            "seq": self.next, "next_by_subj": self.filter, "batch": BATCH, "max_bytes": BATCH_BYTES,
        });
        let subject = format!("$JS.API.DIRECT.GET.{}", self.stream);
        client
            .publish_with_reply(subject, inbox.clone(), Bytes::from(query.to_string()))
            .await
            .map_err(|error| unavailable(&error))?;
        let mut previous = 0;
        loop {
            let message = tokio::time::timeout(SILENCE, answers.next()).await;
            let message = message.map_err(|_| unavailable(&"no answer in time"))?;
            let message = message.ok_or_else(|| unavailable(&"the subscription has ended"))?;
            let headers = message.headers.unwrap_or_default();
            // Before the status: a stored message can have one too, and any header of these, but the server's come last.
            let Some(sequence) = number(&headers, "Nats-Sequence") else {
                let ends = message.status.is_some_and(|status| status.as_u16() == END_OF_BATCH);
                if message.status == Some(StatusCode::NOT_FOUND) {
                    // As far as that server knows.
                    self.careful = 1;
                } else if !ends || number(&headers, LAST_SENT) != Some(previous) {
                    return Err(unavailable(&format!(
                        "a batch ended with {:?} after {previous}",
                        message.status
                    )));
                } else if number(&headers, "Nats-Num-Pending") == Some(0) {
                    self.careful = 1;
                }
                self.answers = Some((answers, inbox));
                return Ok(());
            };
            if sequence < self.next || number(&headers, LAST_SENT) != Some(previous) {
                return Err(unavailable(&format!("{sequence} follows {previous} in a batch")));
            }
            let at = headers.get_last("Nats-Time-Stamp").map(|value| value.as_str());
            let at = at.and_then(|at| DateTime::parse_from_rfc3339(at).ok());
            let at = at.ok_or_else(|| unavailable(&format!("message {sequence} has no time")))?;
            previous = sequence;
            self.looked_at(
                sequence,
                at.to_utc(),
                task_named(|name| Some(headers.get(name)?.as_str())),
            );
        }
    }

    fn looked_at(&mut self, sequence: u64, at: DateTime<Utc>, name: Option<Name>) {
        self.next = sequence + 1;
        if sequence <= self.last
            && let Some(copies) = name.and_then(|name| self.wanted.get_mut(&name))
        {
            copies.push(Found { sequence, at });
        }
    }
}

/// Of a status, not in the client's list.
const END_OF_BATCH: u16 = 204;
/// What was sent before in this batch, 0 if nothing was.
const LAST_SENT: &str = "Nats-Last-Sequence";

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get_last(name)?.as_str().parse().ok()
}
