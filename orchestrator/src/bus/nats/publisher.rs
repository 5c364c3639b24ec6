//! Publishing into streams, pipelined: one inbox, one ring of what is not yet acknowledged.
//!
//! **Invariants:** every message of a call is settled exactly once; messages of one call are sent in their order; no more
//! than `max_in_flight` of up to 8 KiB are unacknowledged at any moment, or fewer larger ones, and callers wait for room in the order they came.
//!
//! What is reported as not acknowledged may have been stored all the same: publishing again is the caller's to do and
//! the receiver's to recognise. Nothing is retried here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use super::connection::Link;
use super::{Shared, header_map};
use crate::bus::{BusError, Delivery, Outgoing, PublishError};

/// Room is taken in portions, so that calls of any size share it.
const PORTION: u32 = 64;
/// A message takes the room of one for each beginning 8 KiB, so that the limit is one of bytes as well.
const BYTES_OF_ONE: usize = 8 << 10;
/// A server that has just come up answers before its streams do.
const SETTLING: Duration = Duration::from_secs(5);

type Outcome = Result<(), PublishError>;

#[derive(Debug)]
pub(super) struct Publisher {
    client: Client,
    link: watch::Receiver<Link>,
    /// Ends with a dot; the number of the publication follows.
    inbox: String,
    ack_timeout: Duration,
    flight: Arc<Flight>,
    /// What one message takes at most: all that there is.
    most: u32,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What is on its way.
#[derive(Debug)]
struct Flight {
    ring: Mutex<Ring>,
    room: Semaphore,
}

/// Publications by number. Acknowledgements come nearly in order, so that the front is nearly always the next.
#[derive(Debug, Default)]
struct Ring {
    /// The number of the front.
    base: u64,
    slots: VecDeque<Option<Pending>>,
}

#[derive(Debug)]
struct Pending {
    call: Arc<Call>,
    index: usize,
    sent: Instant,
    /// The room it takes.
    room: u32,
}

/// One call of `publish`.
#[derive(Debug)]
struct Call {
    outcomes: Mutex<Vec<Outcome>>,
    unsettled: AtomicUsize,
    done: Notify,
}

impl Call {
    fn settle(&self, index: usize, outcome: Outcome) {
        // `Ok` stands there from the start.
        if outcome.is_err() {
            let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = outcomes.get_mut(index) {
                *slot = outcome;
            }
        }
        if self.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

impl Ring {
    fn push(&mut self, pending: Pending) -> u64 {
        self.slots.push_back(Some(pending));
        self.base + self.slots.len() as u64 - 1
    }

    fn take(&mut self, number: u64) -> Option<Pending> {
        let offset = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let pending = self.slots.get_mut(offset)?.take();
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        pending
    }

    /// The oldest, if it was sent before `limit`.
    fn take_older(&mut self, limit: Instant) -> Option<Pending> {
        match self.slots.front() {
            Some(Some(pending)) if pending.sent < limit => self.take(self.base),
            _ => None,
        }
    }
}

impl Flight {
    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles everything sent before `limit` as not acknowledged.
    fn give_up(&self, limit: Instant, why: &str) {
        let mut settled = 0;
        loop {
            // Taken out first: settling wakes callers.
            let Some(pending) = self.ring().take_older(limit) else {
                break;
            };
            pending
                .call
                .settle(pending.index, Err(PublishError::Unacknowledged(why.to_owned())));
            settled += pending.room as usize;
        }
        self.room.add_permits(settled);
    }
}

/// Room taken and not yet used; given back when the call ends or is dropped.
struct Portion<'a> {
    room: &'a Semaphore,
    left: u32,
}

impl Portion<'_> {
    /// Makes sure of room for one message, taking more for those that follow.
    async fn reserve(&mut self, needed: u32, wanted: usize) {
        if self.left < needed {
            // Nothing is kept while more is waited for: callers that did would wait for each other.
            self.room.add_permits(std::mem::take(&mut self.left) as usize);
            let portion = u32::try_from(wanted).unwrap_or(PORTION).clamp(1, PORTION).max(needed);
            // The semaphore is never closed.
            if let Ok(permit) = self.room.acquire_many(portion).await {
                permit.forget();
                self.left = portion;
            }
        }
    }
}

impl Drop for Portion<'_> {
    fn drop(&mut self) {
        self.room.add_permits(self.left as usize);
    }
}

impl Publisher {
    pub(super) async fn start(
        client: Client,
        link: watch::Receiver<Link>,
        shared: Arc<Shared>,
    ) -> Result<Self, BusError> {
        let config = &shared.config;
        let room = config.max_in_flight.max(PORTION);
        let flight = Arc::new(Flight {
            ring: Mutex::default(),
            room: Semaphore::new(room as usize),
        });
        let inbox = format!("{}.", client.new_inbox());
        let subscription = client
            .subscribe(format!("{inbox}*"))
            .await
            .map_err(|error| BusError::Unavailable(error.to_string()))?;
        let ack_timeout = config.ack_timeout;
        let acknowledgements = tokio::spawn(take_acknowledgements(
            subscription,
            inbox.len(),
            Arc::clone(&flight),
            Arc::clone(&shared),
        ));
        let timeouts = tokio::spawn(watch_timeouts(Arc::clone(&flight), link.clone(), ack_timeout));
        Ok(Self {
            client,
            link,
            inbox,
            ack_timeout,
            flight,
            most: room,
            _tasks: [
                AbortOnDropHandle::new(acknowledgements),
                AbortOnDropHandle::new(timeouts),
            ],
        })
    }

    /// How many more publications may be under way now.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.flight.room.available_permits()
    }

    pub(super) async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Outcome> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let call = Arc::new(Call {
            outcomes: Mutex::new(vec![Ok(()); count]),
            unsettled: AtomicUsize::new(count),
            done: Notify::new(),
        });
        let mut portion = Portion {
            room: &self.flight.room,
            left: 0,
        };
        // Once a message could not be sent in time, those behind it are not tried: each would wait as long.
        let mut stalled = None;
        for (index, message) in messages.into_iter().enumerate() {
            if let Some(why) = stalled {
                call.settle(index, Err(PublishError::Unacknowledged(String::from(why))));
                continue;
            }
            let needed = self.room_of(&message);
            if message.delivery == Delivery::Stream {
                portion.reserve(needed, count - index).await;
            }
            stalled = self.send(&call, (index, needed), message, &mut portion).await.err();
        }
        drop(portion);
        while call.unsettled.load(Ordering::Acquire) > 0 {
            call.done.notified().await;
        }
        let mut outcomes = call.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *outcomes)
    }

    fn room_of(&self, message: &Outgoing) -> u32 {
        let portions = message.payload.len() / BYTES_OF_ONE;
        u32::try_from(portions)
            .unwrap_or(u32::MAX)
            .saturating_add(1)
            .min(self.most)
    }

    /// Sends one message, and settles it if it cannot be sent or needs no acknowledgement. The error says why nothing can
    /// be sent at present.
    async fn send(
        &self,
        call: &Arc<Call>,
        (index, room): (usize, u32),
        message: Outgoing,
        portion: &mut Portion<'_>,
    ) -> Result<(), &'static str> {
        let headers = match header_map::to_client(message.headers) {
            Ok(headers) => headers,
            Err(reason) => {
                call.settle(index, Err(PublishError::Refused(reason)));
                return Ok(());
            }
        };
        if !self.link.borrow().up {
            // Not into the client's queue: a caller that gives up would find its messages sent all the same.
            let mut link = self.link.clone();
            let up = tokio::time::timeout(self.ack_timeout, link.wait_for(|link| link.up)).await;
            if !matches!(up, Ok(Ok(_))) {
                let why = "not connected";
                call.settle(index, Err(PublishError::Unacknowledged(why.to_owned())));
                return Err(why);
            }
        }
        let subject = Subject::from(message.subject);
        let (sending, number) = match message.delivery {
            Delivery::Core => {
                let sending = async {
                    if headers.is_empty() {
                        self.client.publish(subject, message.payload).await
                    } else {
                        self.client
                            .publish_with_headers(subject, headers, message.payload)
                            .await
                    }
                };
                (sending.left_future(), None)
            }
            Delivery::Stream => {
                // Before sending: the acknowledgement may be faster than this task.
                let number = self.flight.ring().push(Pending {
                    call: Arc::clone(call),
                    index,
                    sent: Instant::now(),
                    room,
                });
                portion.left = portion.left.saturating_sub(room);
                let reply = Subject::from(format!("{}{number}", self.inbox));
                let sending = async {
                    if headers.is_empty() {
                        self.client.publish_with_reply(subject, reply, message.payload).await
                    } else {
                        self.client
                            .publish_with_reply_and_headers(subject, reply, headers, message.payload)
                            .await
                    }
                };
                (sending.right_future(), Some(number))
            }
        };
        let (failure, stalled) = match tokio::time::timeout(self.ack_timeout, sending).await {
            Ok(Ok(())) => (None, Ok(())),
            Ok(Err(error)) => match error.kind() {
                PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                    (Some(PublishError::Refused(error.to_string())), Ok(()))
                }
                PublishErrorKind::Send => (
                    Some(PublishError::Unacknowledged(error.to_string())),
                    Err("the connection is closed"),
                ),
            },
            Err(_) => {
                let why = "not sent in time";
                (Some(PublishError::Unacknowledged(why.to_owned())), Err(why))
            }
        };
        match (failure, number) {
            (None, Some(_)) => {}
            (None, None) => call.settle(index, Ok(())),
            (Some(error), None) => call.settle(index, Err(error)),
            // Whoever takes it out of the ring settles it.
            (Some(error), Some(number)) => {
                let taken = self.flight.ring().take(number);
                if taken.is_some() {
                    portion.left += room;
                    call.settle(index, Err(error));
                }
            }
        }
        stalled
    }
}

async fn take_acknowledgements(mut subscription: Subscriber, prefix: usize, flight: Arc<Flight>, shared: Arc<Shared>) {
    while let Some(first) = subscription.next().await {
        let (mut settled, mut room) = (0, 0);
        let mut next = Some(first);
        while let Some(message) = next {
            let number = message
                .subject
                .as_str()
                .get(prefix..)
                .and_then(|text| text.parse().ok());
            let pending = number.and_then(|number| flight.ring().take(number));
            if let Some(pending) = pending {
                pending.call.settle(pending.index, outcome(&message, &shared));
                settled += 1;
                room += pending.room as usize;
            }
            // A portion's worth of room is given back at once: handing it back one by one wakes the callers as often.
            next = if settled < PORTION as usize {
                subscription.next().now_or_never().flatten()
            } else {
                None
            };
        }
        flight.room.add_permits(room);
    }
}

async fn watch_timeouts(flight: Arc<Flight>, mut link: watch::Receiver<Link>, ack_timeout: Duration) {
    let mut tick = tokio::time::interval((ack_timeout / 10).max(Duration::from_millis(10)));
    let mut epoch = link.borrow().epoch;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if let Some(limit) = Instant::now().checked_sub(ack_timeout) {
                    flight.give_up(limit, "no acknowledgement in time");
                }
            }
            changed = link.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = *link.borrow_and_update();
                if !now.up {
                    flight.give_up(Instant::now(), "the connection was lost");
                } else if now.epoch != epoch {
                    // The loss went by unseen; what was sent after the return is awaited.
                    flight.give_up(now.since.unwrap_or_else(Instant::now), "the connection was lost");
                }
                epoch = now.epoch;
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Debug, Deserialize)]
struct RefusalBody {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

fn outcome(message: &Message, shared: &Shared) -> Outcome {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        let settling = shared
            .link
            .borrow()
            .since
            .is_some_and(|since| since.elapsed() < SETTLING);
        shared.streams.suspected.notify_one();
        return Err(if settling {
            PublishError::Unacknowledged("the stream is not ready".to_owned())
        } else {
            PublishError::NoStream
        });
    }
    read_acknowledgement(&message.payload)
}

fn read_acknowledgement(payload: &[u8]) -> Outcome {
    // What JetStream writes for every stored message; refusals begin with `{"error":`.
    if payload.starts_with(b"{\"stream\":") {
        return Ok(());
    }
    let Ok(Refusal { error }) = serde_json::from_slice::<Refusal>(payload) else {
        return Err(PublishError::Unacknowledged(
            "an acknowledgement that cannot be read".to_owned(),
        ));
    };
    let text = format!("{} ({})", error.description, error.err_code);
    Err(match (error.code, error.err_code) {
        // Limits of the stream, of the account's storage, of what the server queues for a stream.
        (_, 10_077 | 10_047 | 10_023 | 10_028) | (429, _) => PublishError::Full,
        // Too large for the stream, another stream, a wrong expectation.
        (_, 10_054 | 10_060) | (400, _) => PublishError::Refused(text),
        _ => PublishError::Unacknowledged(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_told_apart() {
        let kind = |text: &str| match read_acknowledgement(text.as_bytes()) {
            Ok(()) => "ok",
            Err(PublishError::Full) => "full",
            Err(PublishError::NoStream) => "no stream",
            Err(PublishError::Refused(_)) => "refused",
            Err(PublishError::Unacknowledged(_)) => "unacknowledged",
        };
        for (text, expected) in [
            (r#"{"stream":"A","seq":1}"#, "ok"),
            (r#"{"stream":"A","seq":1,"duplicate":true}"#, "ok"),
            (
                r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"A","seq":0}"#,
                "full",
            ),
            (
                r#"{"error":{"code":429,"err_code":10167,"description":"too many requests"}}"#,
                "full",
            ),
            (
                r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum"}}"#,
                "refused",
            ),
            (
                r#"{"error":{"code":503,"err_code":10008,"description":"unavailable"}}"#,
                "unacknowledged",
            ),
            ("", "unacknowledged"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn the_ring_gives_each_publication_back_once_in_any_order() {
        let call = Arc::new(Call {
            outcomes: Mutex::new(vec![Ok(()); 3]),
            unsettled: AtomicUsize::new(3),
            done: Notify::new(),
        });
        let mut ring = Ring::default();
        let numbers: Vec<u64> = (0..3)
            .map(|index| {
                ring.push(Pending {
                    call: Arc::clone(&call),
                    index,
                    sent: Instant::now(),
                    room: 1,
                })
            })
            .collect();
        assert_eq!(ring.take(numbers[1]).map(|pending| pending.index), Some(1));
        assert!(ring.take(numbers[1]).is_none());
        assert_eq!(ring.take(numbers[0]).map(|pending| pending.index), Some(0));
        assert_eq!(ring.slots.len(), 1);
        assert!(ring.take_older(Instant::now() - Duration::from_secs(1)).is_none());
        assert_eq!(
            ring.take_older(Instant::now() + Duration::from_secs(1))
                .map(|p| p.index),
            Some(2)
        );
        assert!(ring.take(99).is_none());
    }
}
