//! What services, workers and faults do to the bus in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use knarr_core::ids::QueueName;
use knarr_schemas::{header as names, subject};
use tokio::sync::mpsc;

use super::MemoryBus;
use super::log::{Log, LogCopy};
use super::queues::{PulledTask, Tasks};
use crate::bus::inlet::Inlet;
use crate::bus::{Delivery, DirectKind, DirectMessage, Headers, Incoming, Outgoing, PublishError, header};

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

impl MemoryBus {
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
            let namespace = &task.namespace;
            if let Some(task) = given_up {
                let partition = header(&task.headers, names::DIRECT).and_then(|to| to.rsplit('.').next()?.parse().ok());
                if let (Some(partition), Some(token)) = (partition, header(&task.headers, names::TOKEN)) {
                    let namespace = namespace.clone();
                    state.lost_tasks.push((partition, namespace, token.to_owned()));
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

    /// The last message of each partition that has any.
    pub fn log_ends(&self) -> BTreeMap<i16, u64> {
        self.inner.state().log.ends()
    }

    /// Tasks in a namespace's stream, delivered or not.
    pub fn task_count(&self, namespace: &str) -> usize {
        self.inner.state().tasks.get(namespace).map_or(0, Tasks::len)
    }

    /// The lease of a queue's tasks, if the queue is there.
    pub fn ack_wait(&self, namespace: &str, queue: &str) -> Option<Duration> {
        let state = self.inner.state();
        let stream = state.tasks.get(namespace)?;
        stream.ack_waits.get(&QueueName::new(queue)).copied()
    }

    /// The bodies of what the log holds under subjects that end so, in order.
    pub fn logged(&self, end: &str) -> Vec<Bytes> {
        self.inner.state().log.bodies(end)
    }

    /// Gives the log a limit, in bytes; 0 = none.
    pub fn limit_log(&self, bytes: u64) {
        self.inner.state().log_limit = bytes;
    }

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
            let ack_waits = std::mem::take(&mut tasks.ack_waits);
            *tasks = Tasks::default();
            tasks.ack_waits = ack_waits;
        }
    }

    /// Deletes a namespace's stream with its tasks and queues.
    pub fn lose_task_stream(&self, namespace: &str) {
        self.inner.state().tasks.remove(namespace);
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
                let mut told: Vec<&Inlet> = Vec::new();
                for open in state.open.values() {
                    if !told.iter().any(|known| known.is_beside(&open.into)) {
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
