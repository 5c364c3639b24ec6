//! The bus in one process: for simulation and for tests of the engine, with the faults that NATS can have.
//!
//! **Invariant:** it behaves as the bus over NATS does, gaps and refusals included; on a single-threaded runtime, with a
//! clock of the test's, the same calls lead to the same deliveries.
//!
//! What a worker, a service or a fault does is a method of [`MemoryBus`] outside of [`Bus`]. Clones are the same process;
//! [`MemoryBus::another_process`] has readers of its own.

mod controls;
mod log;
mod queues;
mod source;
mod state;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use knarr_core::ids::{Namespace, QueueName, RunId, TaskNo};
use knarr_core::time::Timestamp;
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From as ReadFrom;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

pub use self::controls::DirectFaults;
pub use self::log::LogCopy;
pub use self::queues::PulledTask;
use self::state::{Open, OpenKey, State};
use super::head_room::{Fill, decide};
use super::inlet::Inlet;
use super::source::Feed;
use super::task_handle::TaskHandle;
use super::{Bus, BusError, HeadRoom, Incoming, Outgoing, PublishError, QueueSettings, Undelivered};
use crate::store::Cursor;

/// As NATS's own default.
const MAX_PAYLOAD: usize = 1 << 20;

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Clone)]
pub struct MemoryBus {
    inner: Arc<Inner>,
    process: u64,
}

struct Inner {
    clock: Clock,
    state: Mutex<State>,
    /// Counts changes that readers or workers may wait for.
    changed: watch::Sender<u64>,
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
        Self {
            inner: Arc::new(Inner {
                clock: Arc::new(clock),
                state: Mutex::new(State::new()),
                changed: watch::channel(0).0,
            }),
            process: 0,
        }
    }

    /// The same servers, seen from another process: a partition can be open in several at once.
    #[must_use]
    pub fn another_process(&self) -> Self {
        let mut state = self.inner.state();
        state.processes += 1;
        Self {
            inner: Arc::clone(&self.inner),
            process: state.processes,
        }
    }

    /// The process dies: nobody reads for it any more.
    pub fn kill_process(&self) {
        let process = self.process;
        self.inner.state().open.retain(|(owner, _), _| *owner != process);
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
        if message.size() > MAX_PAYLOAD {
            return Err(PublishError::Refused("it is larger than 1 MiB".to_owned()));
        }
        let outcome = self.state().publish(message, (self.clock)());
        self.notify();
        outcome
    }
}

/// Reads a partition for as long as it is open.
async fn read(inner: Arc<Inner>, key: OpenKey, into: Inlet) {
    let mut changed = inner.changed.subscribe();
    let at = (inner.clock)();
    if into.send(Incoming::Clock(at)).await.is_err() {
        return;
    }
    loop {
        changed.borrow_and_update();
        let next = inner.state().step(key);
        let Some((incoming, cursor)) = next else {
            tokio::select! {
                biased;
                changed = changed.changed() => if changed.is_err() { return },
                () = into.closed() => return,
            }
            continue;
        };
        if into.send(incoming).await.is_err() {
            return;
        }
        // What was handed over counts, even if the log has become another one meanwhile: that is seen at the next step.
        if let Some(open) = inner.state().open.get_mut(&key) {
            open.cursor = cursor;
        }
    }
}

impl Bus for MemoryBus {
    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    async fn prepare(&self, cluster: Uuid, partitions: u16) -> Result<(), BusError> {
        let mut state = self.inner.state();
        if *state.cluster.get_or_insert(cluster) != cluster {
            return Err(BusError::Misconfigured("the log is another cluster's".to_owned()));
        }
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

    async fn ensure_queues(&self, namespace: &Namespace, queues: &[QueueSettings]) -> Result<(), BusError> {
        let mut state = self.inner.state();
        let stream = state.tasks.entry(namespace.as_str().to_owned()).or_default();
        let settings = queues
            .iter()
            .map(|settings| (settings.queue.clone(), settings.ack_wait));
        stream.ack_waits.extend(settings);
        Ok(())
    }

    async fn open_partition(&self, partition: i16, cursor: Cursor, reader: u64, into: Inlet) -> Result<(), BusError> {
        self.close_partition(partition).await;
        let (direct, mut from_direct) = mpsc::unbounded_channel();
        let mut state = self.inner.state();
        // Its sender is dropped when the partition is closed; what was sent before follows.
        let forwarding = TaskHandle::spawn_with(|_| {
            let into = into.clone();
            async move {
                while let Some(incoming) = from_direct.recv().await {
                    let handed_over = match incoming {
                        Incoming::Direct(message) => into.offer(message),
                        other => into.send(other).await,
                    };
                    if handed_over.is_err() {
                        return;
                    }
                }
            }
        });
        let reading = TaskHandle::spawn(read(Arc::clone(&self.inner), (self.process, partition), into.clone()));
        state.open.insert(
            (self.process, partition),
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
        let open = self.inner.state().open.remove(&(self.process, partition));
        if let Some(Open { tasks, direct, .. }) = open {
            drop(direct);
            for task in tasks {
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

    async fn keep_head_room(&self, namespaces: &[Namespace]) -> Result<HeadRoom, BusError> {
        let mut state = self.inner.state();
        if !state.connected {
            return Err(BusError::Unavailable("not connected".to_owned()));
        }
        let fill = Fill {
            bytes: state.log.bytes(),
            limit: state.log_limit,
        };
        let backlog = |namespace: &Namespace| {
            let starts = state.log.subjects().filter_map(state::start_of);
            (namespace.clone(), starts.filter(|of| of == namespace).count() as u64)
        };
        let backlogs: Vec<_> = namespaces.iter().map(backlog).collect();
        let taken = decide(fill, &state.starts, &backlogs);
        let changed = taken != state.starts;
        state.starts = taken.clone();
        Ok(HeadRoom { fill, taken, changed })
    }

    async fn undelivered(&self, namespace: &Namespace, queue: &QueueName) -> Result<Undelivered, BusError> {
        let state = self.inner.state();
        if !state.connected {
            return Err(BusError::Unavailable("not connected".to_owned()));
        }
        let Some(tasks) = state.tasks.get(namespace.as_str()) else {
            return Ok(Undelivered::All);
        };
        let oldest = tasks.oldest_undelivered(queue.as_str());
        let now = (self.inner.clock)();
        Ok(oldest.map_or(Undelivered::Nothing, |at| Undelivered::For(now.since(at))))
    }

    async fn withdraw(&self, namespace: &Namespace, queue: &QueueName, tasks: &[(RunId, TaskNo)]) -> Vec<Option<bool>> {
        let mut state = self.inner.state();
        if !state.connected {
            return vec![None; tasks.len()];
        }
        match state.tasks.get_mut(namespace.as_str()) {
            Some(stream) => stream.withdraw(queue.as_str(), tasks).into_iter().map(Some).collect(),
            None => vec![Some(false); tasks.len()],
        }
    }

    fn open_source(&self, source: &Source, from: &ReadFrom) -> Feed {
        source::open(&self.inner, source, from)
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        messages
            .into_iter()
            .map(|message| self.inner.publish(message))
            .collect()
    }
}
