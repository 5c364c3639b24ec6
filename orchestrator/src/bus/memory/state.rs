//! Everything the bus in memory holds, and what each message does to it. Synchronous: the lock is around all of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use knarr_core::ids::Namespace;
use knarr_core::time::Timestamp;
use knarr_schemas::subject;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::controls::DirectFaults;
use super::log::{Entry, Located, Log};
use super::queues::Tasks;
use crate::bus::head_room::Taken;
use crate::bus::inlet::Inlet;
use crate::bus::task_handle::TaskHandle;
use crate::bus::{Delivery, DirectMessage, Incoming, LogGap, LogMessage, Outgoing, PublishError};
use crate::store::Cursor;

pub(super) struct State {
    pub(super) cluster: Option<Uuid>,
    pub(super) partitions: Option<u16>,
    pub(super) connected: bool,
    pub(super) log: Log,
    /// Of the user.
    pub(super) streams: BTreeMap<String, Log>,
    /// Streams made so far, so that no two share an identity.
    pub(super) made: u64,
    pub(super) last_time: Timestamp,
    pub(super) tasks: HashMap<String, Tasks>,
    pub(super) dead_letters: Vec<Outgoing>,
    pub(super) events: Vec<Outgoing>,
    pub(super) full: HashSet<String>,
    /// In bytes; 0 = none.
    pub(super) log_limit: u64,
    /// Whose starts the log takes.
    pub(super) starts: Taken,
    /// Of the next publications into streams, and whether they are stored all the same.
    pub(super) unacknowledged: (u32, bool),
    pub(super) processes: u64,
    pub(super) open: BTreeMap<OpenKey, Open>,
    pub(super) listeners: Vec<(String, mpsc::UnboundedSender<Outgoing>)>,
    pub(super) faults: DirectFaults,
    pub(super) direct_count: u32,
    /// Held back behind its successor.
    pub(super) delayed: Option<DirectMessage>,
    /// Given up while nobody owned their partition.
    /// Partition, namespace and token of each.
    pub(super) lost_tasks: Vec<(i16, String, String)>,
}

/// A process and a partition it reads.
pub(super) type OpenKey = (u64, i16);

pub(super) struct Open {
    pub(super) into: Inlet,
    pub(super) direct: mpsc::UnboundedSender<Incoming>,
    pub(super) cursor: Cursor,
    pub(super) reader: u64,
    /// The log may have become another one.
    pub(super) verify: bool,
    /// Asked to say how far it has read.
    pub(super) idle: bool,
    pub(super) tasks: [TaskHandle; 2],
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            cluster: None,
            partitions: None,
            connected: true,
            log: Log::new("memory-1".to_owned()),
            streams: BTreeMap::new(),
            made: 1,
            last_time: Timestamp::default(),
            tasks: HashMap::new(),
            dead_letters: Vec::new(),
            events: Vec::new(),
            full: HashSet::new(),
            log_limit: 0,
            starts: Taken::All,
            unacknowledged: (0, false),
            processes: 0,
            open: BTreeMap::new(),
            listeners: Vec::new(),
            faults: DirectFaults::default(),
            direct_count: 0,
            delayed: None,
            lost_tasks: Vec::new(),
        }
    }

    pub(super) fn publish(&mut self, message: Outgoing, now: Timestamp) -> Result<(), PublishError> {
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

    pub(super) fn store(&mut self, message: Outgoing, now: Timestamp) -> Result<(), PublishError> {
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
                if let (Taken::Of(namespaces), Some(namespace)) = (&self.starts, start_of(&message.subject))
                    && !namespaces.contains(&namespace)
                {
                    return Err(PublishError::NoStream);
                }
                if self.log_limit > 0 && self.log.bytes() + size(&message.subject, &message.payload) > self.log_limit {
                    return Err(PublishError::Full);
                }
                self.last_time = now.max(self.last_time);
                let (partition, stored_as) = match message.subject.strip_prefix("knarr.run.") {
                    // Sorted as the server's mapping does it; what is too short for it stays as it is.
                    Some(rest) if rest.split('.').count() > 2 => {
                        let partition = subject::partition_of(first, second, partitions);
                        (partition, format!("knarr.in.{partition}.{rest}"))
                    }
                    _ => (partitions, message.subject.clone()),
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

    pub(super) fn replace_log(&mut self, log: Log) {
        self.log = log;
        for open in self.open.values_mut() {
            open.verify = true;
        }
    }

    pub(super) fn take_direct(&mut self, message: DirectMessage) -> bool {
        if !self.connected || self.of(message.partition).next().is_none() {
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

    pub(super) fn deliver_direct(&self, message: DirectMessage) {
        for open in self.of(message.partition) {
            let _ = open.direct.send(Incoming::Direct(message.clone()));
        }
    }

    /// Who has the partition open: more than one while an owner does not know yet that it is none any more.
    fn of(&self, partition: i16) -> impl Iterator<Item = &Open> {
        let of_partition = self.open.iter().filter(move |((_, number), _)| *number == partition);
        of_partition.map(|(_, open)| open)
    }

    pub(super) fn tell_lost_tasks(&mut self) {
        let open = &self.open;
        self.lost_tasks.retain(|(partition, namespace, token)| {
            let mut owners = open.iter().filter(|((_, number), _)| number == partition);
            let Some((_, owner)) = owners.next() else { return true };
            let lost = Incoming::TaskLost {
                partition: *partition,
                namespace: namespace.clone(),
                token: token.clone(),
            };
            owner.direct.send(lost).is_err()
        });
    }

    /// What a partition's reader hands over next, and the cursor after it.
    pub(super) fn step(&mut self, key: OpenKey) -> Option<(Incoming, Cursor)> {
        let (_, partition) = key;
        let open = self.open.get_mut(&key)?;
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
                flaw: None,
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

pub(super) fn matches(filter: &str, subject: &str) -> bool {
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

/// The namespace of a start; `None` for everything else.
pub(super) fn start_of(text: &str) -> Option<Namespace> {
    let token = match text.strip_prefix("knarr.start.") {
        Some(rest) => rest.split('.').next()?,
        None => {
            let rest = text.strip_prefix("knarr.run.").or_else(|| {
                let sorted = text.strip_prefix("knarr.in.")?;
                sorted.split_once('.').map(|(_, rest)| rest)
            })?;
            let mut parts = rest.split('.');
            let (namespace, _, verb) = (parts.next()?, parts.next()?, parts.next()?);
            (verb == "start").then_some(namespace)?
        }
    };
    Some(Namespace::new(&subject::decode_token(token).ok()?))
}

fn size(subject: &str, payload: &[u8]) -> u64 {
    (subject.len() + payload.len()) as u64
}
