//! What carries messages: the log in its partitions, the direct inlet, task streams, answers and dead letters.
//! NATS in production, memory in simulation.
//!
//! **Invariant:** the bus forgets nothing by itself: every log message is handed over in order, with its sequence, until
//! the engine has committed past it; a gap is handed over as one.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use knarr_core::ids::{Namespace, QueueName, RunId, TaskNo};
use knarr_core::time::{Span, Timestamp};
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From as ReadFrom;
use knarr_schemas::code::{Code, split_id};
use knarr_schemas::header as names;
use uuid::Uuid;

use self::inlet::Inlet;
use self::source::Feed;
use crate::store::Cursor;

pub mod code;
pub mod head_room;
pub mod inlet;
pub mod memory;
pub mod nats;
pub mod source;
mod task_handle;

/// Headers of a message, in order; names as they are on the wire.
pub type Headers = Vec<(Arc<str>, String)>;

/// The value of a header, the first if there are several. Names are compared as they stand.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| &**key == name)
        .map(|(_, value)| value.as_str())
}

/// A task as the headers of its messages name it.
fn task_named<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Option<(RunId, TaskNo)> {
    let run = Uuid::parse_str(header(names::RUN_ID)?).ok()?;
    Some((RunId(run), TaskNo(header(names::TASK)?.parse().ok()?)))
}

/// What the engine takes.
#[derive(Debug)]
pub enum Incoming {
    Log(LogMessage),
    Direct(DirectMessage),
    /// The log lost or never had what lies between the cursor and the first message there is now.
    Gap(LogGap),
    /// A task was given up by the server after `max_deliver` deliveries; it has been removed from its stream.
    TaskLost {
        partition: i16,
        namespace: String,
        token: String,
    },
    /// Everything of the partition up to `cursor` has been handed over, though the message there belongs to another
    /// partition: commit it when convenient, so that an idle partition does not keep the log from being purged.
    /// At most one per partition every ten seconds; never earlier than the messages before it.
    Idle {
        partition: i16,
        cursor: Cursor,
        reader: u64,
    },
    /// The connection is back; timeouts wait out their grace from here.
    Reconnected,
    /// What the log's clock says, as the reading of a partition begins: how long its messages have waited is told by that.
    Clock(Timestamp),
}

#[derive(Debug, Clone)]
pub struct LogMessage {
    pub partition: i16,
    /// The position to commit once this message has taken effect.
    pub cursor: Cursor,
    /// As stored: `knarr.in.<p>.…` or `knarr.start.…`.
    pub subject: String,
    pub headers: Headers,
    /// What is wrong with the headers, if they cannot all be read: the message is to be set aside.
    pub flaw: Option<String>,
    pub payload: Bytes,
    /// Counts up with each (re)opening of the partition's reader, so that what an abandoned reader still had under way
    /// is told from what the new one delivers.
    pub reader: u64,
}

/// A message to a partition's owner over core NATS.
#[derive(Debug, Clone)]
pub struct DirectMessage {
    pub partition: i16,
    pub namespace: String,
    pub kind: DirectKind,
    pub headers: Headers,
    pub payload: Bytes,
    /// Where the confirmation goes.
    pub reply: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectKind {
    Result,
    Beat,
    Claim,
}

/// The stream is not the one the cursor was made on, or has gone back in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    pub partition: i16,
    /// The cursor as it was.
    pub lost_after: Cursor,
    /// Where reading goes on: what follows is `resumes_at.sequence + 1`.
    pub resumes_at: Cursor,
    pub reader: u64,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub subject: String,
    pub headers: Headers,
    pub payload: Bytes,
    pub delivery: Delivery,
}

impl Outgoing {
    /// Bytes of headers and body, as the bus counts them against its limit.
    pub fn size(&self) -> usize {
        // `NATS/1.0`, then `name: value` a line, then an empty line.
        let lines = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4);
        let headers = match lines.sum::<usize>() {
            0 => 0,
            bytes => bytes + 12,
        };
        headers + self.payload.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Into a stream, acknowledged by it.
    Stream,
    /// To whoever listens now.
    Core,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The stream is at its limits.
    #[error("the stream is full")]
    Full,
    /// No stream takes this subject.
    #[error("no stream takes the subject")]
    NoStream,
    /// Larger than the server takes, or otherwise refused for good.
    #[error("the message is refused: {0}")]
    Refused(String),
    /// Not acknowledged in time or not connected: publish again.
    #[error("not acknowledged: {0}")]
    Unacknowledged(String),
}

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("NATS is not available: {0}")]
    Unavailable(String),
    /// A configuration that will not become right by waiting.
    #[error("{0}")]
    Misconfigured(String),
}

impl BusError {
    /// The code that the text begins with, so that a plain line of a log has it too.
    pub fn code(&self) -> Option<&'static Code> {
        let (id, _) = split_id(self.text())?;
        code::ALL.iter().copied().find(|code| code.id == id)
    }

    /// What is known beyond the code.
    pub fn cause(&self) -> String {
        match split_id(self.text()) {
            Some((_, cause)) => cause.to_owned(),
            None => self.to_string(),
        }
    }

    fn text(&self) -> &str {
        let (Self::Unavailable(text) | Self::Misconfigured(text)) = self;
        text
    }
}

/// The tasks of a queue that no worker has got yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// Every task published before the question has been delivered at least once.
    Nothing,
    /// The oldest of them has lain in the queue for that long.
    For(Span),
    /// The queue is not there: nothing can have been delivered from it.
    All,
}

/// The answer of [`Bus::keep_head_room`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRoom {
    pub fill: head_room::Fill,
    /// Whose starts are taken from here on.
    pub taken: head_room::Taken,
    pub changed: bool,
}

/// Settings of a queue's consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    pub queue: QueueName,
    /// Liveness lease of plain workers: what an operator says, else 30 s, or the largest start-to-close of the queue's
    /// activities if that is more.
    pub ack_wait: std::time::Duration,
}

pub trait Bus: Send + Sync + 'static {
    /// The largest message that is taken, headers included, in bytes.
    fn max_payload(&self) -> usize;

    /// The largest body that can be carried, whether in a message or beside it, in bytes.
    fn max_body(&self) -> usize {
        self.max_payload().saturating_sub(8 << 10)
    }

    /// Asserts the streams that every cluster has, and compares what the server returns with what was asked for. Refuses
    /// those of another cluster: what a database has taken says nothing about another's log.
    fn prepare(&self, cluster: Uuid, partitions: u16) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Asserts a namespace's task stream and its queues' consumers.
    fn ensure_queues(
        &self,
        namespace: &Namespace,
        queues: &[QueueSettings],
    ) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Starts handing over a partition's log after `cursor`, and what arrives at its direct inlet, into `into`, tagged
    /// with `reader`. Survives reconnects and recreated streams by itself until [`Bus::close_partition`] or the next
    /// `open_partition` of the same partition. Back-pressure is that `into` has no room.
    fn open_partition(
        &self,
        partition: i16,
        cursor: Cursor,
        reader: u64,
        into: Inlet,
    ) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Stops both inlets of a partition; nothing of it is handed over after this returns. What the direct inlet has
    /// received is handed over before: its senders were not told that nobody listens.
    fn close_partition(&self, partition: i16) -> impl Future<Output = ()> + Send;

    /// The sequence of the last message the partition's log holds now; 0 if it holds none.
    fn log_tail(&self, partition: i16) -> impl Future<Output = Result<u64, BusError>> + Send;

    /// Lets the log forget what lies below the smallest cursor; the message at it stays, as the mark by which the log is
    /// recognised. Takes the committed cursors of *all* partitions, the ingress included, and refuses fewer: a purge
    /// knows no partitions. Does nothing while a cursor is 0, or the log is not the one the smallest cursor was made on.
    fn purge_log(&self, cursors: &[(i16, Cursor)]) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Sees to it that starts leave room in the log for everything else, by whose starts it takes; the rules are those of
    /// [`head_room`]. Takes every namespace there is; the starts of others are not taken while there is little room.
    fn keep_head_room(&self, namespaces: &[Namespace]) -> impl Future<Output = Result<HeadRoom, BusError>> + Send;

    /// What of a queue has never been delivered to a worker. Told as an age, by the server's clock alone: how that clock or
    /// this host's stands to the engine's does not matter.
    fn undelivered(
        &self,
        namespace: &Namespace,
        queue: &QueueName,
    ) -> impl Future<Output = Result<Undelivered, BusError>> + Send;

    /// Takes tasks out of their queue, with every copy of them, by one look through it, however many they are. One answer
    /// each, in their order: `false` where it is not there, or may have been delivered to a worker; `None` where the queue
    /// has not answered.
    fn withdraw(
        &self,
        namespace: &Namespace,
        queue: &QueueName,
        tasks: &[(RunId, TaskNo)],
    ) -> impl Future<Output = Vec<Option<bool>>> + Send;

    /// Reads a source of the user's for a trigger, from there on, for as long as the feed is kept. Survives reconnects and
    /// recreated streams by itself; says what was lost.
    fn open_source(&self, source: &Source, from: &ReadFrom) -> Feed;

    /// Publishes all, pipelined, and returns one result for each, in order, when every one is settled.
    fn publish(&self, messages: Vec<Outgoing>) -> impl Future<Output = Vec<Result<(), PublishError>>> + Send;
}
