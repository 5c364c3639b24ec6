//! The bus in one process: for simulation and for tests of the engine, with the faults that NATS can have.
//!
//! **Invariant:** it behaves as the bus over NATS does, gaps and refusals included; on a single-threaded runtime, with a
//! clock of the test's, the same calls lead to the same deliveries.
//!
//! What a worker, a service or a fault does is a method of [`MemoryBus`] outside of [`Bus`]. Clones share everything.

mod log;
mod queues;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use knarr_core::ids::{Namespace, QueueName};
use knarr_core::time::Timestamp;
use knarr_schemas::{header as names, subject};
use tokio::sync::{mpsc, watch};

pub use self::log::LogCopy;
use self::log::{Entry, Located, Log};
pub use self::queues::PulledTask;
use self::queues::Tasks;
use super::task_handle::TaskHandle;
use super::{
    Bus, BusError, Delivery, DirectKind, DirectMessage, Headers, Incoming, LogGap, LogMessage, Outgoing, PublishError,
    QueueSettings, header,
};
use crate::store::Cursor;

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What becomes of messages to the direct inlet; each is counted over all of them, and 0 means never.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirectFaults {
    /// Every n-th is lost though its sender was told nothing.
    pub drop_every: u32,
    /// Every n-th arrives twice.
    pub duplicate_every: u32,
    /// Every n-th arrives behind its successor.
    pub delay_every: u32,
}

#[derive(Clone)]
pub struct MemoryBus {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    state: Mutex<State>,
    /// Counts changes that readers or workers may wait for.
    changed: watch::Sender<u64>,
}

struct State {
    partitions: Option<u16>,
    connected: bool,
    log: Log,
    /// Streams made so far, so that no two share an identity.
    made: u64,
    last_time: Timestamp,
    tasks: HashMap<String, Tasks>,
    dead_letters: Vec<Outgoing>,
    events: Vec<Outgoing>,
    full: HashSet<String>,
    /// Of the next publications into streams, and whether they are stored all the same.
    unacknowledged: (u32, bool),
    open: HashMap<i16, Open>,
    listeners: Vec<(String, mpsc::UnboundedSender<Outgoing>)>,
    faults: DirectFaults,
    direct_count: u32,
    /// Held back behind its successor.
    delayed: Option<DirectMessage>,
    /// Given up while nobody owned their partition.
    lost_tasks: Vec<(i16, String, String)>,
}

struct Open {
    into: mpsc::Sender<Incoming>,
    direct: mpsc::UnboundedSender<Incoming>,
    cursor: Cursor,
    reader: u64,
    /// The log may have become another one.
    verify: bool,
    /// Asked to say how far it has read.
    idle: bool,
    tasks: [TaskHandle; 2],
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBus").finish_non_exhaustive()
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBus {
    /// By the system's clock.
    pub fn new() -> Self {
        Self::with_clock(|| Timestamp::from_utc(chrono::Utc::now()))
    }

    /// Stamps messages by this clock; times within the log never go back, whatever the clock does.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let state = State {
            partitions: None,
            connected: true,
            log: Log::new("memory-1".to_owned()),
            made: 1,
            last_time: Timestamp::default(),
            tasks: HashMap::new(),
            dead_letters: Vec::new(),
            events: Vec::new(),
            full: HashSet::new(),
            unacknowledged: (0, false),
            open: HashMap::new(),
            listeners: Vec::new(),
            faults: DirectFaults::default(),
            direct_count: 0,
            delayed: None,
            lost_tasks: Vec::new(),
        };
        Self {
            inner: Arc::new(Inner {
                clock: Arc::new(clock),
                state: Mutex::new(state),
                changed: watch::channel(0).0,
            }),
        }
    }

    // What services and workers do.

    /// Publishes as a service does, and returns the sequence in the log.
    ///
    /// # Errors
    /// As a publication: the log is full, not there, or not reachable.
    pub fn publish_to_log(&self, subject: &str, headers: Headers, payload: Bytes) -> Result<u64, PublishError> {
        let message = Outgoing {
            subject: subject.to_owned(),
            headers,
            payload,
            delivery: Delivery::Stream,
        };
        self.inner.publish(message)?;
        Ok(self.inner.state().log.last())
    }

    /// Up to `limit` tasks, without waiting.
    pub fn pull_tasks(&self, namespace: &str, queue: &str, limit: usize) -> Vec<PulledTask> {
        let mut state = self.inner.state();
        if !state.connected {
            return Vec::new();
        }
        state
            .tasks
            .get_mut(namespace)
            .map_or_else(Vec::new, |tasks| tasks.pull(queue, limit))
    }

    /// Up to `limit` tasks, and at least one.
    pub async fn next_tasks(&self, namespace: &str, queue: &str, limit: usize) -> Vec<PulledTask> {
        let mut changed = self.inner.changed.subscribe();
        loop {
            let tasks = self.pull_tasks(namespace, queue, limit);
            // The sender lives as long as this bus.
            if !tasks.is_empty() || changed.changed().await.is_err() {
                return tasks;
            }
        }
    }

    /// `false` if the task is not delivered any more.
    pub fn acknowledge(&self, task: &PulledTask) -> bool {
        let mut state = self.inner.state();
        let tasks = state.tasks.get_mut(&task.namespace);
        tasks.is_some_and(|tasks| tasks.acknowledge(task.sequence))
    }

    /// As if the task's lease had ended; the fifth time it is given up and its partition's owner is told.
    pub fn redeliver(&self, task: &PulledTask) {
        {
            let mut state = self.inner.state();
            let given_up = state
                .tasks
                .get_mut(&task.namespace)
                .and_then(|tasks| tasks.redeliver(task.sequence));
            if let Some(given_up) = given_up {
                let partition =
                    header(&given_up.headers, names::DIRECT).and_then(|to| to.rsplit('.').next()?.parse().ok());
                if let (Some(partition), Some(token)) = (partition, header(&given_up.headers, names::TOKEN)) {
                    state
                        .lost_tasks
                        .push((partition, task.namespace.clone(), token.to_owned()));
                    state.tell_lost_tasks();
                }
            }
        }
        self.inner.notify();
    }

    /// A message to `knarr.direct.<ns>.<partition>.<kind>`; `false` = nobody listens there.
    pub fn send_direct(&self, to: &str, headers: Headers, payload: Bytes, reply: Option<&str>) -> bool {
        let mut parts = to.strip_prefix("knarr.direct.").unwrap_or_default().split('.');
        let (Some(namespace), Some(partition), Some(kind)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let kind = match kind {
            "result" => DirectKind::Result,
            "beat" => DirectKind::Beat,
            "claim" => DirectKind::Claim,
            _ => return false,
        };
        let (Ok(namespace), Ok(partition)) = (subject::decode_token(namespace), partition.parse()) else {
            return false;
        };
        self.inner.state().take_direct(DirectMessage {
            partition,
            namespace: namespace.into_owned(),
            kind,
            headers,
            payload,
            reply: reply.map(str::to_owned),
        })
    }

    /// What is published over core NATS to a subject that matches (`*` and `>` as usual) from now on.
    pub fn subscribe(&self, filter: &str) -> mpsc::UnboundedReceiver<Outgoing> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.inner.state().listeners.push((filter.to_owned(), sender));
        receiver
    }

    /// Everything in the dead-letter stream.
    pub fn dead_letters(&self) -> Vec<Outgoing> {
        self.inner.state().dead_letters.clone()
    }

    /// Everything in the stream of lifecycle events.
    pub fn events(&self) -> Vec<Outgoing> {
        self.inner.state().events.clone()
    }

    /// Tasks in a namespace's stream, delivered or not.
    pub fn task_count(&self, namespace: &str) -> usize {
        self.inner.state().tasks.get(namespace).map_or(0, Tasks::len)
    }

    // Faults.

    /// Makes a stream (by name) refuse publications, or take them again.
    pub fn set_full(&self, stream: &str, full: bool) {
        let mut state = self.inner.state();
        if full {
            state.full.insert(stream.to_owned());
        } else {
            state.full.remove(stream);
        }
    }

    /// The next publications into streams are not acknowledged, whether they are stored or not.
    pub fn lose_acknowledgements(&self, count: u32, stored: bool) {
        self.inner.state().unacknowledged = (count, stored);
    }

    /// Deletes the log and makes a new, empty one.
    pub fn lose_log(&self) {
        {
            let mut state = self.inner.state();
            state.made += 1;
            let created = format!("memory-{}", state.made);
            state.replace_log(Log::new(created));
        }
        self.inner.notify();
    }

    pub fn copy_log(&self) -> LogCopy {
        LogCopy(self.inner.state().log.clone())
    }

    /// Puts the log back to what it was.
    pub fn restore_log(&self, copy: &LogCopy) {
        self.inner.state().replace_log(copy.0.clone());
        self.inner.notify();
    }

    /// Deletes all tasks of a namespace; its stream and queues stay.
    pub fn lose_tasks(&self, namespace: &str) {
        if let Some(tasks) = self.inner.state().tasks.get_mut(namespace) {
            *tasks = Tasks::default();
        }
    }

    /// Cuts the connection, or restores it.
    pub fn set_connected(&self, connected: bool) {
        {
            let mut state = self.inner.state();
            let back = connected && !state.connected;
            state.connected = connected;
            if back {
                for open in state.open.values_mut() {
                    open.verify = true;
                }
                let mut told: Vec<&mpsc::Sender<Incoming>> = Vec::new();
                for open in state.open.values() {
                    if !told.iter().any(|known| known.same_channel(&open.into)) {
                        let _ = open.direct.send(Incoming::Reconnected);
                        told.push(&open.into);
                    }
                }
            }
        }
        self.inner.notify();
    }

    pub fn set_direct_faults(&self, faults: DirectFaults) {
        let mut state = self.inner.state();
        state.faults = faults;
        if let Some(delayed) = state.delayed.take() {
            state.deliver_direct(delayed);
        }
    }

    /// Makes every open partition whose reader is behind the log's end, with nothing to deliver, say so.
    pub fn report_idle(&self) {
        for open in self.inner.state().open.values_mut() {
            open.idle = true;
        }
        self.inner.notify();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let outcome = self.state().publish(message, (self.clock)());
        self.notify();
        outcome
    }
}

impl State {
    fn publish(&mut self, message: Outgoing, now: Timestamp) -> Result<(), PublishError> {
        if !self.connected {
            return Err(PublishError::Unacknowledged("not connected".to_owned()));
        }
        if message.delivery == Delivery::Core {
            self.listeners.retain(|(filter, listener)| {
                !matches(filter, &message.subject) || listener.send(message.clone()).is_ok()
            });
            return Ok(());
        }
        let (lost, stored) = &mut self.unacknowledged;
        let acknowledged = *lost == 0;
        *lost = lost.saturating_sub(1);
        if acknowledged || *stored {
            self.store(message, now)?;
        }
        if acknowledged {
            Ok(())
        } else {
            Err(PublishError::Unacknowledged("no acknowledgement in time".to_owned()))
        }
    }

    fn store(&mut self, message: Outgoing, now: Timestamp) -> Result<(), PublishError> {
        let full = |state: &Self, stream: &str| match state.full.contains(stream) {
            true => Err(PublishError::Full),
            false => Ok(()),
        };
        let mut parts = message.subject.split('.').skip(1);
        let kind = parts.next().unwrap_or_default();
        let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match kind {
            "run" | "start" => {
                let partitions = self.partitions.ok_or(PublishError::NoStream)?;
                full(self, subject::LOG_STREAM)?;
                self.last_time = now.max(self.last_time);
                let (partition, stored_as) = match message.subject.strip_prefix("knarr.run.") {
                    // Sorted as the server's mapping does it: what is too short for the mapping stays as it is.
                    Some(rest) if rest.split('.').count() > 2 => {
                        let partition = subject::partition_of(first, second, partitions);
                        (partition, format!("knarr.in.{partition}.{rest}"))
                    }
                    Some(_) => (u16::MAX, message.subject.clone()),
                    None => (partitions, message.subject.clone()),
                };
                self.log.push(Entry {
                    at: self.last_time,
                    partition: i16::try_from(partition).unwrap_or(-1),
                    subject: stored_as,
                    headers: message.headers,
                    payload: message.payload,
                });
                Ok(())
            }
            "task" => {
                let namespace = subject::decode_token(first)
                    .map_err(|_| PublishError::NoStream)?
                    .into_owned();
                let queue = subject::decode_token(second)
                    .map_err(|_| PublishError::NoStream)?
                    .into_owned();
                let stream = subject::task_stream(&namespace).map_err(|_| PublishError::NoStream)?;
                if !self.tasks.contains_key(&namespace) {
                    return Err(PublishError::NoStream);
                }
                full(self, &stream)?;
                if let Some(tasks) = self.tasks.get_mut(&namespace) {
                    tasks.push(&namespace, &queue, message, now);
                }
                Ok(())
            }
            "dlq" => {
                full(self, subject::DLQ_STREAM)?;
                self.dead_letters.push(message);
                Ok(())
            }
            "event" => {
                full(self, "KNARR_EVENTS")?;
                self.events.push(message);
                Ok(())
            }
            _ => Err(PublishError::NoStream),
        }
    }

    fn replace_log(&mut self, log: Log) {
        self.log = log;
        for open in self.open.values_mut() {
            open.verify = true;
        }
    }

    fn take_direct(&mut self, message: DirectMessage) -> bool {
        if !self.connected || !self.open.contains_key(&message.partition) {
            return false;
        }
        self.direct_count = self.direct_count.wrapping_add(1);
        let count = self.direct_count;
        let hits = |every: u32| every > 0 && count.is_multiple_of(every);
        if hits(self.faults.drop_every) {
            return true;
        }
        if hits(self.faults.delay_every) && self.delayed.is_none() {
            self.delayed = Some(message);
            return true;
        }
        if hits(self.faults.duplicate_every) {
            self.deliver_direct(message.clone());
        }
        self.deliver_direct(message);
        if let Some(delayed) = self.delayed.take() {
            self.deliver_direct(delayed);
        }
        true
    }

    fn deliver_direct(&self, message: DirectMessage) {
        if let Some(open) = self.open.get(&message.partition) {
            let _ = open.direct.send(Incoming::Direct(message));
        }
    }

    fn tell_lost_tasks(&mut self) {
        let open = &self.open;
        self.lost_tasks.retain(|(partition, namespace, token)| {
            let Some(owner) = open.get(partition) else { return true };
            let lost = Incoming::TaskLost {
                partition: *partition,
                namespace: namespace.clone(),
                token: token.clone(),
            };
            owner.direct.send(lost).is_err()
        });
    }

    /// What a partition's reader hands over next, and the cursor after it.
    fn step(&mut self, partition: i16) -> Option<(Incoming, Cursor)> {
        let open = self.open.get_mut(&partition)?;
        if !self.connected {
            return None;
        }
        if open.verify || open.cursor.stream.is_empty() {
            open.verify = false;
            if let Located::Gap { resumes_at } = self.log.locate(&open.cursor) {
                let gap = LogGap {
                    partition,
                    lost_after: open.cursor.clone(),
                    resumes_at: resumes_at.clone(),
                    reader: open.reader,
                };
                return Some((Incoming::Gap(gap), resumes_at));
            }
            open.cursor.stream.clone_from(&self.log.created);
        }
        if let Some((sequence, entry)) = self.log.next_of(partition, open.cursor.sequence) {
            let cursor = self.log.cursor(sequence, entry.at);
            let message = LogMessage {
                partition,
                cursor: cursor.clone(),
                subject: entry.subject.clone(),
                headers: entry.headers.clone(),
                payload: entry.payload.clone(),
                reader: open.reader,
            };
            return Some((Incoming::Log(message), cursor));
        }
        let last = self.log.last();
        if std::mem::take(&mut open.idle) && last > open.cursor.sequence && self.log.get(last).is_some() {
            let cursor = self.log.cursor(last, Timestamp::default());
            let idle = Incoming::Idle {
                partition,
                cursor: cursor.clone(),
                reader: open.reader,
            };
            return Some((idle, cursor));
        }
        None
    }
}

/// Reads a partition for as long as it is open.
async fn read(inner: Arc<Inner>, partition: i16, into: mpsc::Sender<Incoming>) {
    let mut changed = inner.changed.subscribe();
    loop {
        changed.borrow_and_update();
        let next = inner.state().step(partition);
        let Some((incoming, cursor)) = next else {
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = into.closed() => return,
            }
            continue;
        };
        if into.send(incoming).await.is_err() {
            return;
        }
        // What was handed over counts, even if the log has become another one meanwhile: that is seen at the next step.
        if let Some(open) = inner.state().open.get_mut(&partition) {
            open.cursor = cursor;
        }
    }
}

impl Bus for MemoryBus {
    async fn prepare(&self, partitions: u16) -> Result<(), BusError> {
        let mut state = self.inner.state();
        match state.partitions {
            Some(known) if known != partitions => Err(BusError::Misconfigured(format!(
                "the log has {known} partitions, not {partitions}"
            ))),
            _ => {
                state.partitions = Some(partitions);
                Ok(())
            }
        }
    }

    async fn ensure_queues(&self, namespace: &Namespace, _queues: &[QueueSettings]) -> Result<(), BusError> {
        self.inner
            .state()
            .tasks
            .entry(namespace.as_str().to_owned())
            .or_default();
        Ok(())
    }

    async fn open_partition(
        &self,
        partition: i16,
        cursor: Cursor,
        reader: u64,
        into: mpsc::Sender<Incoming>,
    ) -> Result<(), BusError> {
        self.close_partition(partition).await;
        let (direct, mut from_direct) = mpsc::unbounded_channel();
        let mut state = self.inner.state();
        let forwarding = TaskHandle::spawn({
            let into = into.clone();
            async move {
                while let Some(incoming) = from_direct.recv().await {
                    if into.send(incoming).await.is_err() {
                        return;
                    }
                }
            }
        });
        let reading = TaskHandle::spawn(read(Arc::clone(&self.inner), partition, into.clone()));
        state.open.insert(
            partition,
            Open {
                into,
                direct,
                cursor,
                reader,
                verify: true,
                idle: false,
                tasks: [forwarding, reading],
            },
        );
        state.tell_lost_tasks();
        Ok(())
    }

    async fn close_partition(&self, partition: i16) {
        let open = self.inner.state().open.remove(&partition);
        if let Some(open) = open {
            for task in open.tasks {
                task.stop().await;
            }
        }
    }

    async fn log_tail(&self, partition: i16) -> Result<u64, BusError> {
        let state = self.inner.state();
        if !state.connected {
            return Err(BusError::Unavailable("not connected".to_owned()));
        }
        Ok(state.log.last_of(partition))
    }

    async fn purge_log(&self, cursors: &[(i16, Cursor)]) -> Result<(), BusError> {
        let mut state = self.inner.state();
        let partitions = i32::from(state.partitions.unwrap_or_default());
        let named: HashSet<i32> = cursors.iter().map(|(partition, _)| i32::from(*partition)).collect();
        if !(0..=partitions).all(|partition| named.contains(&partition)) {
            return Err(BusError::Misconfigured(
                "a purge of the log needs the cursors of all partitions".to_owned(),
            ));
        }
        let Some((_, smallest)) = cursors.iter().min_by_key(|(_, cursor)| cursor.sequence) else {
            return Ok(());
        };
        let here = cursors.iter().all(|(_, cursor)| cursor.stream == state.log.created);
        if here
            && state
                .log
                .get(smallest.sequence)
                .is_some_and(|entry| entry.at == smallest.at)
        {
            state.log.purge(smallest.sequence);
        }
        Ok(())
    }

    async fn delivered_to(&self, namespace: &Namespace, queue: &QueueName) -> Result<Timestamp, BusError> {
        let state = self.inner.state();
        if !state.connected {
            return Err(BusError::Unavailable("not connected".to_owned()));
        }
        let Some(tasks) = state.tasks.get(namespace.as_str()) else {
            return Ok(Timestamp::default());
        };
        let oldest = tasks.oldest_undelivered(queue.as_str());
        Ok(oldest.map_or(Timestamp::MAX, |at| Timestamp(at.0.saturating_sub(1))))
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        messages
            .into_iter()
            .map(|message| self.inner.publish(message))
            .collect()
    }
}

fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in filter.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}
