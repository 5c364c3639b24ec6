//! Task queues in memory: a work-queue stream for each namespace, pulled by tests.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use knarr_core::ids::{QueueName, RunId, TaskNo};
use knarr_core::time::{Span, Timestamp};
use knarr_schemas::header;

use crate::bus::{Headers, Outgoing, header as value_of, task_named};

/// As the server's consumers are set.
const MAX_DELIVER: u32 = 5;
const DUPLICATE_WINDOW: Span = Span::from_secs(30);

/// A task as a worker gets it.
#[derive(Debug, Clone)]
pub struct PulledTask {
    pub namespace: String,
    /// Its place in the namespace's stream: what acknowledges it.
    pub sequence: u64,
    pub subject: String,
    pub headers: Headers,
    pub payload: Bytes,
    /// Counts from 1.
    pub deliveries: u32,
    /// When it was stored.
    pub at: Timestamp,
}

/// A namespace's stream.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    last: u64,
    /// Waiting for a worker, by queue.
    waiting: HashMap<String, VecDeque<PulledTask>>,
    /// Delivered and not acknowledged, with their queue.
    delivered: BTreeMap<u64, (String, PulledTask)>,
    /// Ids of publications, until the window has passed.
    ids: HashMap<String, Timestamp>,
    /// Of its queues.
    pub(super) ack_waits: HashMap<QueueName, Duration>,
}

impl Tasks {
    pub(super) fn push(&mut self, namespace: &str, queue: &str, message: Outgoing, now: Timestamp) {
        if let Some(id) = value_of(&message.headers, header::NATS_MSG_ID) {
            if self.ids.get(id).is_some_and(|at| now.since(*at) < DUPLICATE_WINDOW) {
                return;
            }
            self.ids.insert(id.to_owned(), now);
        }
        self.last += 1;
        self.waiting.entry(queue.to_owned()).or_default().push_back(PulledTask {
            namespace: namespace.to_owned(),
            sequence: self.last,
            subject: message.subject,
            headers: message.headers,
            payload: message.payload,
            deliveries: 0,
            at: now,
        });
    }

    pub(super) fn pull(&mut self, queue: &str, limit: usize) -> Vec<PulledTask> {
        let Some(waiting) = self.waiting.get_mut(queue) else {
            return Vec::new();
        };
        let count = limit.min(waiting.len());
        let mut pulled: Vec<PulledTask> = waiting.drain(..count).collect();
        for task in &mut pulled {
            task.deliveries += 1;
            self.delivered.insert(task.sequence, (queue.to_owned(), task.clone()));
        }
        pulled
    }

    /// Takes out what lies there of each task, if none of it was ever delivered.
    pub(super) fn withdraw(&mut self, queue: &str, tasks: &[(RunId, TaskNo)]) -> Vec<bool> {
        // Whether any of it was delivered.
        let mut there: HashMap<(RunId, TaskNo), bool> = HashMap::new();
        let waiting = self.waiting.get(queue).into_iter().flatten();
        let delivered = self.delivered.values().filter(|(of, _)| of == queue);
        for task in waiting.chain(delivered.map(|(_, task)| task)) {
            if let Some(name) = name_of(task) {
                *there.entry(name).or_default() |= task.deliveries > 0;
            }
        }
        let taken = |name: &(RunId, TaskNo)| there.get(name) == Some(&false);
        let answers = tasks.iter().map(taken).collect();
        let named: HashSet<_> = tasks.iter().filter(|name| taken(name)).collect();
        if let Some(waiting) = self.waiting.get_mut(queue).filter(|_| !named.is_empty()) {
            waiting.retain(|task| name_of(task).is_none_or(|name| !named.contains(&name)));
        }
        answers
    }

    /// `false` if there is no such delivered task any more.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> bool {
        self.delivered.remove(&sequence).is_some()
    }

    /// As if its lease had ended. A task delivered too often is given up and returned.
    pub(super) fn redeliver(&mut self, sequence: u64) -> Option<PulledTask> {
        let (queue, task) = self.delivered.remove(&sequence)?;
        if task.deliveries >= MAX_DELIVER {
            return Some(task);
        }
        self.waiting.entry(queue).or_default().push_front(task);
        None
    }

    /// A task that waits for its redelivery has been delivered.
    pub(super) fn oldest_undelivered(&self, queue: &str) -> Option<Timestamp> {
        let waiting = self.waiting.get(queue)?;
        waiting.iter().find(|task| task.deliveries == 0).map(|task| task.at)
    }

    pub(super) fn len(&self) -> usize {
        self.delivered.len() + self.waiting.values().map(VecDeque::len).sum::<usize>()
    }
}

fn name_of(task: &PulledTask) -> Option<(RunId, TaskNo)> {
    task_named(|name| value_of(&task.headers, name))
}
