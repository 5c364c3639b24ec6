//! What triggers read: a stream of the user's, or a subject that no stream keeps, as a feed of items in order.
//!
//! **Invariants:** what was taken from a feed is never handed over by it again; a stream's items come in its order, and what
//! is known to be lost between two of them is an item as well. A feed knows nothing of what has been decided: whoever opens
//! one says where it begins.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use knarr_core::time::Timestamp;
use knarr_core::trigger::source::{Gap, Place};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Headers;
use super::task_handle::TaskHandle;

/// Bodies and headers that a feed holds beside the one that waits to be put into it, in bytes.
const ROOM: usize = 1 << 20;
/// Items that it holds.
const ITEMS: usize = 256;

#[derive(Debug, Clone, PartialEq)]
pub enum SourceItem {
    Message(SourceMessage),
    /// Nothing that is wanted lies before this place.
    Reached(Place),
    Gap(Gap),
    /// It cannot be read now, and is tried again.
    Trouble(String),
}

/// A message of the user's.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceMessage {
    /// `None` where no stream keeps it.
    pub place: Option<Place>,
    /// In its stream, or of those that were heard.
    pub sequence: u64,
    pub at: Timestamp,
    pub subject: String,
    pub headers: Headers,
    /// What is wrong with the headers, if they cannot all be read.
    pub flaw: Option<String>,
    pub payload: Bytes,
}

impl SourceMessage {
    fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.subject.len() + self.payload.len() + headers.sum::<usize>()
    }
}

/// Nobody takes from the feed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

/// The side that reads the source.
#[derive(Debug)]
pub(super) struct Feeder {
    items: mpsc::Sender<Fed>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Fed {
    item: SourceItem,
    _room: Option<OwnedSemaphorePermit>,
}

/// The side that is taken from. Dropping it ends the reading.
#[derive(Debug)]
pub struct Feed {
    items: mpsc::Receiver<Fed>,
    ahead: VecDeque<SourceItem>,
    reading: Option<TaskHandle>,
}

pub(super) fn feed() -> (Feeder, Feed) {
    let (sender, receiver) = mpsc::channel(ITEMS);
    let feeder = Feeder {
        items: sender,
        room: Arc::new(Semaphore::new(ROOM)),
    };
    let feed = Feed {
        items: receiver,
        ahead: VecDeque::new(),
        reading: None,
    };
    (feeder, feed)
}

impl Feeder {
    fn weight(item: &SourceItem) -> u32 {
        let bytes = match item {
            SourceItem::Message(message) => message.size(),
            _ => 0,
        };
        u32::try_from(bytes.clamp(1, ROOM)).unwrap_or(u32::MAX)
    }

    /// Waits for room.
    pub(super) async fn send(&self, item: SourceItem) -> Result<(), Closed> {
        let room = Arc::clone(&self.room);
        let permit = tokio::select! {
            permit = room.acquire_many_owned(Self::weight(&item)) => permit.map_err(|_| Closed)?,
            () = self.items.closed() => return Err(Closed),
        };
        let fed = Fed {
            item,
            _room: Some(permit),
        };
        self.items.send(fed).await.map_err(|_| Closed)
    }

    /// `Ok(false)` = there is no room for it.
    pub(super) fn offer(&self, item: SourceItem) -> Result<bool, Closed> {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_many_owned(Self::weight(&item)) else {
            return Ok(false);
        };
        let fed = Fed {
            item,
            _room: Some(permit),
        };
        match self.items.try_send(fed) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Closed(_)) => Err(Closed),
        }
    }

    pub(super) async fn closed(&self) {
        self.items.closed().await;
    }
}

impl Feed {
    pub(super) fn read_by(mut self, task: TaskHandle) -> Self {
        self.reading = Some(task);
        self
    }

    /// What there is, at least one item, up to `most` of them and, beyond the first, `bytes`. Empty once the source has ended.
    /// Safe to be cancelled: what was not returned is returned by the next call.
    pub async fn next(&mut self, most: usize, bytes: usize) -> Vec<SourceItem> {
        if self.ahead.is_empty() {
            match self.items.recv().await {
                Some(fed) => self.ahead.push_back(fed.item),
                None => return Vec::new(),
            }
        }
        let (mut taken, mut size) = (Vec::new(), 0);
        while taken.len() < most {
            let Some(item) = self
                .ahead
                .pop_front()
                .or_else(|| Some(self.items.try_recv().ok()?.item))
            else {
                break;
            };
            size += match &item {
                SourceItem::Message(message) => message.size(),
                _ => 0,
            };
            if size > bytes && !taken.is_empty() {
                self.ahead.push_front(item);
                break;
            }
            taken.push(item);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, bytes: usize) -> SourceItem {
        SourceItem::Message(SourceMessage {
            place: None,
            sequence,
            at: Timestamp(0),
            subject: String::new(),
            headers: Headers::new(),
            flaw: None,
            payload: Bytes::from(vec![b'x'; bytes]),
        })
    }

    fn sequences(items: &[SourceItem]) -> Vec<u64> {
        let of = |item: &SourceItem| match item {
            SourceItem::Message(message) => message.sequence,
            _ => 0,
        };
        items.iter().map(of).collect()
    }

    #[tokio::test]
    async fn it_is_bounded_in_bytes_and_hands_over_in_order() {
        let (feeder, mut feed) = feed();
        assert_eq!(feeder.offer(message(1, ROOM)), Ok(true));
        assert_eq!(feeder.offer(message(2, 1)), Ok(false), "there is no room");
        assert_eq!(
            sequences(&feed.next(10, 10).await),
            [1],
            "the first is handed over whatever it is"
        );
        for n in 2..6 {
            assert_eq!(feeder.offer(message(n, 100)), Ok(true));
        }
        assert_eq!(sequences(&feed.next(10, 250).await), [2, 3]);
        assert_eq!(sequences(&feed.next(1, 1_000).await), [4]);
        assert_eq!(sequences(&feed.next(10, 1_000).await), [5]);
        drop(feed);
        assert_eq!(feeder.send(message(6, 1)).await, Err(Closed));
        assert_eq!(feeder.offer(message(6, 1)), Err(Closed));
    }
}
