//! The way into the engine: a channel, and room by weight.
//!
//! What has been taken from outside and is not yet applied takes up memory: its bytes, and what they are parsed into, which
//! can be fifty times as much. So each message has a *weight*, an upper estimate of both, from the moment that it is handed
//! over until its job is done; and there is so much [`Room`] and no more:
//! - Each partition of the log has a share of its own, so that one that stands still takes nothing from the others. What is
//!   heavier than the share takes the rest from a reserve for all. A reader that finds no room waits, in order, and asks
//!   NATS for nothing more.
//! - The direct inlet knows no back-pressure. What finds no room there is dropped and counted: its worker still has the
//!   task, hands in again and then goes by the log.
//!
//! **Invariant:** a message that is let in holds its room until its job is dropped, wherever that lies meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use knarr_core::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{DirectMessage, Headers, Incoming, LogMessage};
use crate::telemetry::metric;

/// Of a message beside its bytes: the job that it becomes, its place in queues.
const OF_A_MESSAGE: usize = 512;
const OF_A_HEADER: usize = 40;

/// What is taken from the bus.
#[derive(Debug)]
pub struct Admitted {
    pub incoming: Incoming,
    pub held: Option<Held>,
}

/// Room that is given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    _own: Option<OwnedSemaphorePermit>,
    _common: Option<OwnedSemaphorePermit>,
}

/// The room of one engine.
#[derive(Debug)]
pub struct Room {
    log: Side,
    direct: Side,
}

#[derive(Debug)]
struct Side {
    share: usize,
    shares: Mutex<BTreeMap<i16, Arc<Semaphore>>>,
    common: Arc<Semaphore>,
    in_common: usize,
}

impl Side {
    fn new(share: usize, in_common: usize) -> Self {
        let (share, in_common) = (share.max(1), in_common.max(1));
        Self {
            share,
            shares: Mutex::default(),
            common: Arc::new(Semaphore::new(in_common)),
            in_common,
        }
    }

    fn share_of(&self, partition: i16) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares
            .entry(partition)
            .or_insert_with(|| Arc::new(Semaphore::new(self.share)));
        Arc::clone(share)
    }

    fn in_use(&self) -> usize {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let own = shares.values().map(|share| self.share - share.available_permits());
        own.sum::<usize>() + (self.in_common - self.common.available_permits())
    }
}

/// What is in use, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InUse {
    pub log: usize,
    pub direct: usize,
}

impl Room {
    /// In bytes, for the logs of so many partitions and for the direct inlets of all. A half of the log's is shared out
    /// evenly, the other is the reserve; a partition's direct inlet takes a quarter of theirs at most.
    pub fn new(log: usize, direct: usize, partitions: u16) -> Arc<Self> {
        let half = log / 2;
        Arc::new(Self {
            log: Side::new(half / (usize::from(partitions) + 1), half),
            direct: Side::new(direct / 4, direct),
        })
    }

    pub fn inlet(self: &Arc<Self>, partition: i16, into: mpsc::Sender<Admitted>) -> Inlet {
        Inlet {
            into,
            limited: Some(Limited {
                log: self.log.share_of(partition),
                direct: self.direct.share_of(partition),
                room: Arc::clone(self),
            }),
        }
    }

    pub fn in_use(&self) -> InUse {
        InUse {
            log: self.log.in_use(),
            // Everything of the direct inlet is counted twice: in its partition's share, and in common.
            direct: self.direct.in_common - self.direct.common.available_permits(),
        }
    }

    /// Waits for room; the rest of what is heavier than a share comes from the reserve.
    async fn wait(&self, share: &Arc<Semaphore>, weight: usize) -> Option<Held> {
        let own = weight.min(self.log.share);
        let rest = (weight - own).min(self.log.in_common);
        let own = Arc::clone(share).acquire_many_owned(permits(own)).await.ok()?;
        let common = match rest {
            0 => None,
            rest => Some(
                Arc::clone(&self.log.common)
                    .acquire_many_owned(permits(rest))
                    .await
                    .ok()?,
            ),
        };
        Some(Held {
            _own: Some(own),
            _common: common,
        })
    }

    fn try_direct(&self, share: &Arc<Semaphore>, weight: usize) -> Option<Held> {
        let weight = permits(weight.min(self.direct.share));
        Some(Held {
            _own: Some(Arc::clone(share).try_acquire_many_owned(weight).ok()?),
            _common: Some(Arc::clone(&self.direct.common).try_acquire_many_owned(weight).ok()?),
        })
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Nobody takes anything any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// One partition's way into an engine.
#[derive(Debug, Clone)]
pub struct Inlet {
    into: mpsc::Sender<Admitted>,
    limited: Option<Limited>,
}

#[derive(Debug, Clone)]
struct Limited {
    room: Arc<Room>,
    log: Arc<Semaphore>,
    direct: Arc<Semaphore>,
}

impl Inlet {
    /// With room for so many messages, whatever they weigh.
    #[cfg(test)]
    pub fn of_messages(count: usize) -> (Self, mpsc::Receiver<Admitted>) {
        let (into, from) = mpsc::channel(count);
        (Self { into, limited: None }, from)
    }

    /// Hands over in order; waits for room, which only messages of the log need.
    pub async fn send(&self, incoming: Incoming) -> Result<(), Closed> {
        let held = match (&incoming, &self.limited) {
            (Incoming::Log(message), Some(limited)) => {
                let wait = limited.room.wait(&limited.log, weight_of_log(message));
                tokio::select! {
                    biased;
                    held = wait => held,
                    () = self.into.closed() => return Err(Closed),
                }
            }
            _ => None,
        };
        self.into.send(Admitted { incoming, held }).await.map_err(|_| Closed)
    }

    /// Hands over at once, or drops and counts what finds no room.
    pub fn offer(&self, message: DirectMessage) -> Result<(), Closed> {
        let held = match &self.limited {
            None => None,
            Some(limited) => {
                let held = limited.room.try_direct(&limited.direct, weight_of_direct(&message));
                if held.is_none() {
                    metrics::counter!(metric::BUS_DROPPED).increment(1);
                    return Ok(());
                }
                held
            }
        };
        let incoming = Incoming::Direct(message);
        match self.into.try_send(Admitted { incoming, held }) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!(metric::BUS_DROPPED).increment(1);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Closed),
        }
    }

    /// Resolves when nobody takes anything any more.
    pub async fn closed(&self) {
        self.into.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.into.is_closed()
    }

    /// Whether both lead to the same engine.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.into.same_channel(&other.into)
    }
}

fn of_headers(headers: &Headers) -> usize {
    let of = |(_, value): &(Arc<str>, String)| OF_A_HEADER + value.len();
    headers.iter().map(of).sum()
}

pub(super) fn weight_of_log(message: &LogMessage) -> usize {
    OF_A_MESSAGE + message.subject.len() + of_headers(&message.headers) + json::weight(&message.payload)
}

fn weight_of_direct(message: &DirectMessage) -> usize {
    OF_A_MESSAGE + of_headers(&message.headers) + json::weight(&message.payload)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::bus::DirectKind;
    use crate::store::Cursor;

    fn log(partition: i16, bytes: usize) -> Incoming {
        Incoming::Log(LogMessage {
            partition,
            cursor: Cursor::default(),
            subject: String::new(),
            headers: Headers::new(),
            flaw: None,
            payload: Bytes::from(vec![b' '; bytes]),
            reader: 1,
        })
    }

    fn direct(bytes: usize) -> DirectMessage {
        DirectMessage {
            partition: 0,
            namespace: "default".to_owned(),
            kind: DirectKind::Result,
            headers: Headers::new(),
            payload: Bytes::from(vec![b' '; bytes]),
            reply: None,
        }
    }

    fn weight(bytes: usize) -> usize {
        OF_A_MESSAGE + json::weight(&vec![b' '; bytes])
    }

    /// Room for two messages a share, and for one more in the reserve.
    #[test]
    fn a_partition_that_stands_still_takes_its_share_and_no_more() {
        let one = weight(100);
        let room = Room::new(4 * 2 * one, 0, 1);
        assert_eq!((room.log.share, room.log.in_common), (2 * one, 4 * one));
        let (into, mut from) = mpsc::channel(100);
        let (stuck, other) = (room.inlet(0, into.clone()), room.inlet(1, into));
        let sent = |inlet: &Inlet, partition, bytes| inlet.send(log(partition, bytes)).now_or_never();
        assert_eq!(sent(&stuck, 0, 100), Some(Ok(())));
        assert_eq!(sent(&stuck, 0, 100), Some(Ok(())));
        assert_eq!(room.in_use().log, 2 * one);
        assert_eq!(sent(&stuck, 0, 0), None, "one past its share");
        assert_eq!(sent(&other, 1, 100), Some(Ok(())), "the other has its own");
        let first = from.try_recv().unwrap();
        assert_eq!(sent(&stuck, 0, 0), None, "taken is not done");
        drop(first);
        assert_eq!(sent(&stuck, 0, 100), Some(Ok(())));
        drop(from);
        assert_eq!(sent(&other, 1, 100), Some(Err(Closed)));
        assert_eq!(
            sent(&stuck, 0, 100),
            Some(Err(Closed)),
            "nor is a closed one waited for"
        );
        assert_eq!(room.in_use(), InUse::default());
    }

    #[test]
    fn what_is_heavier_than_a_share_takes_from_the_reserve_and_always_passes_alone() {
        let one = weight(100);
        let room = Room::new(4 * one, 0, 1);
        let (into, mut from) = mpsc::channel(100);
        let inlets: Vec<_> = (0..2).map(|partition| room.inlet(partition, into.clone())).collect();
        let sent = |partition: usize, bytes| inlets[partition].send(log(partition as i16, bytes)).now_or_never();
        assert_eq!(sent(0, 1_000_000), Some(Ok(())), "all that there is");
        assert_eq!(room.in_use().log, 3 * one);
        assert_eq!(sent(1, 1_000_000), None);
        assert_eq!(
            sent(1, 100),
            Some(Ok(())),
            "what fits its share does not wait for the reserve"
        );
        drop(from.try_recv().unwrap());
        drop(from.try_recv().unwrap());
        assert_eq!(sent(1, 1_000_000), Some(Ok(())));
    }

    #[test]
    fn what_the_direct_inlet_has_no_room_for_is_dropped() {
        let one = weight(100);
        let room = Room::new(0, 4 * one, 1);
        let (into, mut from) = mpsc::channel(3);
        let inlets: Vec<_> = (0..5).map(|partition| room.inlet(partition, into.clone())).collect();
        let mut taken = Vec::new();
        let mut offer = |inlet: &Inlet, bytes| {
            inlet.offer(direct(bytes)).unwrap();
            let arrived = from.try_recv().ok();
            let is_there = arrived.is_some();
            taken.extend(arrived);
            is_there
        };
        assert!(offer(&inlets[0], 100));
        assert!(!offer(&inlets[0], 0), "a quarter is one partition's");
        assert!(
            (1..4).all(|partition| offer(&inlets[partition], 1_000_000)),
            "it counts as a share at most"
        );
        assert_eq!(room.in_use().direct, 4 * one);
        assert!(!offer(&inlets[4], 0), "all is taken");
        taken.clear();
        assert_eq!(room.in_use().direct, 0);
        for inlet in &inlets {
            inlet.offer(direct(100)).unwrap();
        }
        assert_eq!(from.len(), 3, "a full channel drops as well");
        assert_eq!(room.in_use().direct, 3 * one);
        drop(from);
        assert_eq!(inlets[0].offer(direct(0)), Err(Closed));
    }
}
