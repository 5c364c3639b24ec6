//! The tasks a worker holds: running, or done and waiting for the confirmation of their result.
//!
//! **Invariant:** an entry leaves the table only when its task is acknowledged, given back, or left to the server's
//! redelivery on purpose; as long as it is there, the sweep keeps its lease.
//!
//! One lock for all entries: it is held for a lookup and never across an await.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::connection::State as ConnectionState;
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;
use futures_util::FutureExt as _;
use knarr_schemas::header;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::context::TaskInfo;
use crate::error::ActivityError;
use crate::handler::Handler;
use crate::outcome::Outcome;
use crate::sweep::beat;

pub(crate) const ACK: Bytes = Bytes::from_static(b"+ACK");
pub(crate) const NAK: Bytes = Bytes::from_static(b"-NAK");
pub(crate) const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");
/// The longest wait for the client to take a command while it is connected.
pub(crate) const OFFER: Duration = Duration::from_secs(1);
pub(crate) const TERM_NOT_A_TASK: Bytes = Bytes::from_static(b"+TERM not a task of Knarr's");

/// Where a result was handed in last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the partition's owner; confirmed by the commit.
    Direct,
    /// To the log; confirmed by its acknowledgement.
    Log,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) task: Arc<TaskInfo>,
    /// Of the latest delivery.
    pub(crate) ack: Subject,
    /// When the lease was last renewed.
    pub(crate) leased: Instant,
    pub(crate) state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    /// Of a task that may run at most once, or seems to be late: its handler is called when that is granted. Or of one that was
    /// delivered before: its handler is called unless nobody waits for it.
    Claiming {
        /// The same in every repeat; `None` = it was asked for by a beat.
        by: Option<String>,
        sent: Instant,
        handler: HeldBack,
    },
    Running {
        abort: AbortHandle,
        began: Instant,
        next_beat: Instant,
        /// How often the worker promises to beat.
        every: Duration,
        /// When it did last, or began.
        beaten: Instant,
        /// Start-to-close.
        ends: Option<Instant>,
    },
    HandedIn {
        outcome: Outcome,
        way: Way,
        sent: Instant,
        times: u32,
    },
}

/// A handler with its input, not called yet.
pub(crate) struct HeldBack {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) input: Bytes,
}

impl std::fmt::Debug for HeldBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldBack")
    }
}

/// What the parts of a worker share.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) client: Client,
    /// Prefix of the one inbox: confirmations, answers to beats and the server's *no responders* all arrive below it.
    pub(crate) inbox: String,
    confirm: HeaderValue,
    pub(crate) concurrency: usize,
    max_unconfirmed: usize,
    /// So many free slots are worth a pull of their own.
    pub(crate) low_water: usize,
    entries: Mutex<HashMap<Arc<str>, Entry>>,
    running: AtomicUsize,
    /// Asked for and not yet delivered.
    pub(crate) pulled: AtomicUsize,
    /// There is room to pull.
    pub(crate) room: Notify,
    /// Something has left the table or stopped running.
    pub(crate) changed: Notify,
    /// The queue's lease, in milliseconds; 0 = not read yet.
    pub(crate) ack_wait_ms: AtomicU64,
    /// A task came again that is here: the lease is shorter than was read, or was not kept.
    pub(crate) lease_in_doubt: AtomicBool,
}

impl Flight {
    pub(crate) fn new(client: Client, concurrency: usize, max_unconfirmed: usize) -> Self {
        let inbox = client.new_inbox();
        Self {
            confirm: HeaderValue::from(format!("{inbox}.c")),
            inbox,
            client,
            concurrency,
            max_unconfirmed,
            low_water: (concurrency / 4).max(1),
            entries: Mutex::default(),
            running: AtomicUsize::new(0),
            pulled: AtomicUsize::new(0),
            room: Notify::new(),
            changed: Notify::new(),
            ack_wait_ms: AtomicU64::new(0),
            lease_in_doubt: AtomicBool::new(false),
        }
    }

    /// A poisoned table is as good as any: no code that can panic changes an entry halfway.
    pub(crate) fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ack_wait(&self) -> Duration {
        match self.ack_wait_ms.load(Ordering::Relaxed) {
            0 => Duration::from_secs(30),
            ms => Duration::from_millis(ms),
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == ConnectionState::Connected
    }

    /// Gives the client a command, if it takes it. While the connection is away it only keeps commands for later, and once
    /// it has as many as it keeps it takes no more until the server is back: nothing may wait for that, least of all
    /// the shutdown. `None` = not taken.
    pub(crate) async fn offer<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        if self.is_connected() {
            tokio::time::timeout(OFFER, command).await.ok()
        } else {
            command.now_or_never()
        }
    }

    /// How many more tasks may be asked for.
    pub(crate) fn free(&self) -> usize {
        let running = self.running();
        let unconfirmed = self.entries().len().saturating_sub(running);
        let slots = self.concurrency.saturating_sub(running);
        let results = self.max_unconfirmed.saturating_sub(unconfirmed);
        slots.min(results).saturating_sub(self.pulled.load(Ordering::Acquire))
    }

    pub(crate) fn slot_taken(&self) {
        self.running.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn slot_free(&self) {
        let running = self.running.fetch_sub(1, Ordering::AcqRel) - 1;
        self.note_room(running);
        if running == 0 {
            self.changed.notify_waiters();
        }
    }

    /// Wakes the pull loop only when it would pull: a wake-up for each task would cost more than the task.
    fn note_room(&self, running: usize) {
        let pulled = self.pulled.load(Ordering::Acquire);
        if pulled == 0 || self.concurrency.saturating_sub(running + pulled) >= self.low_water {
            self.room.notify_one();
        }
    }

    /// The handler is done: its result goes out, and waits in the table for its confirmation.
    pub(crate) async fn hand_in(&self, task: &Arc<TaskInfo>, outcome: Outcome) {
        // Before the outcome that another attempt may follow.
        if matches!(outcome, Outcome::Error(_)) && task.progress.is_unsent() && self.is_connected() {
            let began = match self.entries().get(&task.token).map(|entry| &entry.state) {
                Some(State::Running { began, .. }) => *began,
                _ => Instant::now(),
            };
            beat(self, task, began.elapsed(), None).await;
        }
        let way = if task.header(header::DIRECT).is_some() {
            Way::Direct
        } else {
            Way::Log
        };
        if let Some(entry) = self.entries().get_mut(&task.token) {
            entry.state = State::HandedIn {
                outcome: outcome.clone(),
                way,
                sent: Instant::now(),
                times: 1,
            };
        }
        self.send(task, outcome, way).await;
    }

    /// Publishes a result once. What goes wrong here is repeated by the sweep.
    pub(crate) async fn send(&self, task: &TaskInfo, outcome: Outcome, way: Way) {
        // It would only take the place of an acknowledgement in the client's queue; the sweep sends it afterwards.
        if !self.is_connected() {
            return;
        }
        let Some(Err(error)) = self.offer(self.publish_result(task, &outcome, way)).await else {
            return;
        };
        if error.kind() != PublishErrorKind::MaxPayloadExceeded {
            tracing::debug!(token = &*task.token, "a result was not published: {error}");
            return;
        }
        // The work is done, so this is no failure; but another attempt would answer as much again. By this type the step
        // waits for an operator, like one whose result the orchestrator finds too large.
        let size = outcome.body().len();
        tracing::error!(size, "a result is larger than the server takes");
        let too_large = ActivityError::unknown("limit", format!("the result of {size} bytes cannot be sent"));
        let outcome = Outcome::Error(Box::new(too_large.non_retryable()));
        if let Some(Entry {
            state: State::HandedIn { outcome: kept, .. },
            ..
        }) = self.entries().get_mut(&task.token)
        {
            *kept = outcome.clone();
        }
        if let Some(Err(error)) = self.offer(self.publish_result(task, &outcome, way)).await {
            tracing::debug!(token = &*task.token, "a result was not published: {error}");
        }
    }

    async fn publish_result(
        &self,
        task: &TaskInfo,
        outcome: &Outcome,
        way: Way,
    ) -> Result<(), async_nats::PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(header::TOKEN), &*task.token);
        outcome.write_headers(&mut headers);
        let (subject, reply) = match way {
            Way::Direct => {
                headers.insert(HeaderName::from_static(header::CONFIRM), self.confirm.clone());
                let direct = task.header(header::DIRECT).unwrap_or_default();
                (format!("{direct}.result"), format!("{}.r.{}", self.inbox, task.token))
            }
            Way::Log => (
                task.header(header::REPLY).unwrap_or_default().to_owned(),
                format!("{}.l.{}", self.inbox, task.token),
            ),
        };
        self.client
            .publish_with_reply_and_headers(subject, reply, headers, outcome.body())
            .await
    }

    /// The result with this token is confirmed: the task is acknowledged.
    ///
    /// The acknowledgement is not awaited. If it is lost, the task is delivered once more and its result is taken for the
    /// repeat it is; waiting for the server would cost every task a round trip.
    pub(crate) async fn settle(&self, token: &str) {
        let entry = {
            let mut entries = self.entries();
            match entries.get(token) {
                Some(entry) if matches!(entry.state, State::HandedIn { .. }) => entries.remove(token),
                _ => None,
            }
        };
        if let Some(entry) = entry {
            self.tell(entry.ack, ACK).await;
            self.left();
        }
    }

    /// Something left the table.
    pub(crate) fn left(&self) {
        self.note_room(self.running());
        self.changed.notify_waiters();
    }

    /// Tells the server about a delivery: done, in progress, given back.
    pub(crate) async fn tell(&self, ack: Subject, what: Bytes) {
        match self.offer(self.client.publish(ack, what)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!("an acknowledgement was not sent: {error}"),
            None => tracing::debug!("an acknowledgement was not sent: the connection is away"),
        }
    }
}
