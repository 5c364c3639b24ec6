//! Deadlines: the near future in a heap, the rest in the store; and the gate that keeps a timeout from overtaking a
//! result that lies in the log.
//!
//! **Invariant:** a timeout due at D fires only after the partition's log has been read past D, and not within the grace
//! after NATS or the partition came back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use knarr_core::ids::{Namespace, QueueName, RunId};
use knarr_core::run::input::{Horizon, Input};
use knarr_core::time::{Span, Timestamp};

use super::apply::Applied;
use super::job::{Job, JobKind};
use super::run_loop::{Done, Loop};
use crate::bus::Bus;
use crate::store::{Store, StoreError};

/// Alarms of the near future. Entries are not removed when a deadline moves: a run that finds nothing due goes on.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    heap: BinaryHeap<Reverse<(Timestamp, RunId)>>,
    reach: Span,
}

impl Alarms {
    /// Keeps what is due within twice the `horizon` that the store is asked for, so that no deadline falls between them.
    pub(super) fn new(horizon: Span) -> Self {
        Self {
            heap: BinaryHeap::new(),
            reach: Span(horizon.0.saturating_mul(2)),
        }
    }

    /// `false` if it is too far away to be kept here.
    pub(super) fn set(&mut self, at: Timestamp, run: RunId, now: Timestamp) -> bool {
        let near = at <= now.plus(self.reach);
        if near {
            self.heap.push(Reverse((at, run)));
        }
        near
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, RunId)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }
}

/// Runs whose timeouts wait for the log, and what is being asked about it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) waiting: BTreeMap<i16, BTreeSet<RunId>>,
    asking: bool,
    pub(super) answer: Option<HorizonAnswer>,
    /// The answer has let go all it can; what waits now needs a newer one.
    spent: bool,
    pub(super) not_before: Option<tokio::time::Instant>,
}

/// What the bus said about the log and the queues, for everything that was due at `asked_at`.
#[derive(Debug, Clone)]
pub(super) struct HorizonAnswer {
    pub(super) asked_at: Timestamp,
    /// The last message of each partition's log then.
    pub(super) tails: BTreeMap<i16, u64>,
    pub(super) delivered: HashMap<Namespace, BTreeMap<QueueName, Timestamp>>,
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Turns alarms that are due into jobs.
    pub(super) fn ring(&mut self) {
        let now = self.clock.now();
        while let Some((at, run_id)) = self.alarms.pop_due(now) {
            if let Some(live) = self.live.get_mut(run_id) {
                if live.alarm != Some(at) {
                    continue;
                }
                live.alarm = None;
                match live.state.wake_at() {
                    Some(wake) if wake > now && live.row.wake_at.is_none_or(|stored| stored > now) => {
                        if self.alarms.set(wake, run_id, now) {
                            live.alarm = Some(wake);
                        }
                        continue;
                    }
                    None if live.row.wake_at.is_none_or(|stored| stored > now) => continue,
                    _ => {}
                }
            }
            self.direct.push_back(Job::internal(JobKind::Wake { run_id }));
        }
    }

    /// What is due in a run happens, as far as the log has been read.
    pub(super) fn wake(&mut self, run_id: RunId) -> Applied {
        let now = self.clock.now();
        let Some(live) = self.live.get_mut(run_id) else {
            return Applied::Nothing;
        };
        let partition = live.row.partition;
        let beats = std::mem::take(&mut live.beats);
        for (task, at) in beats {
            if let Applied::Panicked = self.apply(run_id, Input::TaskStarted { task, at }) {
                return Applied::Panicked;
            }
        }
        let horizon = self.horizon(run_id, partition, now);
        let applied = self.apply(run_id, Input::Wake(horizon));
        if matches!(applied, Applied::Panicked) {
            return applied;
        }
        let still_due = self
            .live
            .get(run_id)
            .is_some_and(|live| live.state.wake_at().is_some_and(|wake| wake <= now));
        if still_due {
            self.gate.waiting.entry(partition).or_default().insert(run_id);
        } else {
            self.raise_wake(run_id, now);
        }
        applied
    }

    fn horizon(&self, run_id: RunId, partition: i16, now: Timestamp) -> Horizon {
        let log_read_to = match self.partitions.get(partition) {
            Some(partition) if partition.grace_until <= now => partition.read_to,
            _ => Timestamp(i64::MIN),
        };
        let delivered_to = match (&self.gate.answer, self.live.get(run_id)) {
            // What was asked before it was due says nothing of a task that went out in between.
            (Some(answer), Some(live)) if live.state.wake_at().is_none_or(|due| due <= answer.asked_at) => {
                answer.delivered.get(&live.row.namespace).cloned().unwrap_or_default()
            }
            _ => BTreeMap::new(),
        };
        Horizon {
            log_read_to,
            delivered_to,
        }
    }

    /// Asks the bus how far the log reaches and the queues have delivered, for runs whose timeouts wait on it; and lets
    /// those fire whose partition has been read that far.
    pub(super) fn tend_gate(&mut self) {
        if self.gate.waiting.is_empty() {
            return;
        }
        self.open_gate();
        let now = self.clock.now();
        let ready = self.gate.not_before.is_none_or(|at| at <= tokio::time::Instant::now());
        let answered = self.gate.answer.is_some() && !self.gate.spent;
        if self.gate.asking || answered || self.gate.waiting.is_empty() || !ready {
            return;
        }
        let mut partitions = Vec::new();
        let mut queues: BTreeSet<(Namespace, QueueName)> = BTreeSet::new();
        let mut earliest_grace = None;
        for (number, runs) in &self.gate.waiting {
            let Some(partition) = self.partitions.get(*number) else {
                continue;
            };
            if partition.grace_until > now {
                let left = partition.grace_until;
                earliest_grace = Some(earliest_grace.map_or(left, |known: Timestamp| known.min(left)));
                continue;
            }
            partitions.push(*number);
            for run_id in runs {
                if let Some(live) = self.live.get(*run_id) {
                    for queue in live.state.overdue_queues(now) {
                        queues.insert((live.row.namespace.clone(), queue));
                    }
                }
            }
        }
        if partitions.is_empty() {
            if let Some(at) = earliest_grace {
                self.gate.not_before = Some(tokio::time::Instant::now() + self.clock.until(at));
            }
            return;
        }
        self.gate.asking = true;
        let bus = std::sync::Arc::clone(&self.bus);
        let (done, life) = (self.done.clone(), self.life);
        self.tasks.spawn(async move {
            let answer = ask(&*bus, now, partitions, queues).await;
            // The loop may have ended.
            let _ = done.send(Done::Horizon { life, answer });
        });
    }

    /// Asks the store for deadlines of the near future, now and then.
    pub(super) fn scan(&mut self) {
        let now = self.clock.now();
        if self.scanning || now < self.scan_from || self.partitions.len() == 0 {
            return;
        }
        self.scanning = true;
        let store = Arc::clone(&self.store);
        let partitions = self.partitions.served();
        let until = now.plus(self.config.deadline_horizon);
        let (life, done) = (self.life, self.done.clone());
        self.tasks.spawn(async move {
            const PAGE: u32 = 10_000;
            let result = store.due(&partitions, until, PAGE).await;
            let full = result.as_ref().is_ok_and(|due| due.len() >= PAGE as usize);
            let _ = done.send(Done::Due {
                life,
                until,
                result,
                full,
            });
        });
    }

    pub(super) fn scanned(
        &mut self,
        until: Timestamp,
        result: Result<Vec<(RunId, Timestamp)>, StoreError>,
        full: bool,
    ) {
        self.scanning = false;
        let now = self.clock.now();
        match result {
            Ok(due) => {
                let last = due.last().map(|(_, at)| *at);
                for (run_id, at) in due {
                    if self.live.get(run_id).is_none_or(|live| live.alarm.is_none()) {
                        self.alarms.set(at, run_id, now);
                        if let Some(live) = self.live.get_mut(run_id) {
                            live.alarm = Some(at);
                        }
                    }
                }
                let half = knarr_core::time::Span(self.config.deadline_horizon.0 / 2);
                // A full page covers the time up to its last row; the rest is asked for when that is reached.
                self.scan_from = match last {
                    Some(last) if full => last.max(now.plus(knarr_core::time::Span::from_millis(200))).min(until),
                    _ => now.plus(half),
                };
            }
            Err(error) => {
                tracing::warn!(%error, "deadlines cannot be read yet");
                self.scan_from = now.plus(knarr_core::time::Span::from_secs(1));
            }
        }
    }

    pub(super) fn horizon_answered(&mut self, answer: Option<HorizonAnswer>) {
        self.gate.asking = false;
        match answer {
            Some(answer) => {
                self.gate.answer = Some(answer);
                self.gate.spent = false;
            }
            None => {
                self.gate.not_before = Some(tokio::time::Instant::now() + std::time::Duration::from_millis(250));
            }
        }
    }

    fn open_gate(&mut self) {
        if self.gate.spent {
            return;
        }
        let Some(answer) = self.gate.answer.clone() else { return };
        let mut all_read = true;
        for (number, tail) in &answer.tails {
            let Some(partition) = self.partitions.get_mut(*number) else {
                continue;
            };
            if partition.applied.sequence >= *tail {
                partition.read_to = partition.read_to.max(answer.asked_at);
                for run_id in self.gate.waiting.remove(number).unwrap_or_default() {
                    self.direct.push_back(Job::internal(JobKind::Wake { run_id }));
                }
            } else if self.gate.waiting.contains_key(number) {
                all_read = false;
            }
        }
        if all_read {
            // The jobs just made still need what the queues said, so it is kept until there is a newer answer.
            self.gate.spent = true;
            // What is due again at once (nothing had been delivered, say) must not make a busy loop.
            self.gate.not_before = Some(tokio::time::Instant::now() + std::time::Duration::from_millis(100));
        }
    }
}

async fn ask<B: Bus>(
    bus: &B,
    asked_at: Timestamp,
    partitions: Vec<i16>,
    queues: BTreeSet<(Namespace, QueueName)>,
) -> Option<HorizonAnswer> {
    let mut answer = HorizonAnswer {
        asked_at,
        tails: BTreeMap::new(),
        delivered: HashMap::new(),
    };
    for partition in partitions {
        match bus.log_tail(partition).await {
            Ok(tail) => {
                answer.tails.insert(partition, tail);
            }
            Err(error) => {
                tracing::debug!(%error, "timeouts wait: the log's end is not known");
                return None;
            }
        }
    }
    for (namespace, queue) in queues {
        match bus.delivered_to(&namespace, &queue).await {
            Ok(at) => {
                answer.delivered.entry(namespace).or_default().insert(queue, at);
            }
            Err(error) => {
                tracing::debug!(%error, %queue, "timeouts of a queue wait: what it has delivered is not known")
            }
        }
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_order_and_only_when_due() {
        let mut alarms = Alarms::new(Span::from_secs(60));
        let run = |n| RunId(uuid::Uuid::from_u128(n));
        assert!(alarms.set(Timestamp(30), run(2), Timestamp(0)));
        assert!(alarms.set(Timestamp(10), run(1), Timestamp(0)));
        assert!(!alarms.set(Timestamp(120_000_001), run(3), Timestamp(0)));
        assert_eq!(alarms.pop_due(Timestamp(9)), None);
        assert_eq!(alarms.pop_due(Timestamp(10)), Some((Timestamp(10), run(1))));
        assert_eq!(alarms.next(), Some(Timestamp(30)));
    }
}
