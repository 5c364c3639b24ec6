//! Deadlines: the near future in a heap, the rest in the store.
//!
//! **Invariant:** a timeout due at D fires only after the partition's log has been read past D, and not within the grace
//! after NATS or the partition came back; the gate sees to it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use knarr_core::ids::RunId;
use knarr_core::run::input::Input;
use knarr_core::time::{Span, Timestamp};

use super::apply::Applied;
use super::job::{Job, JobKind};
use super::live::Evicted;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{Due, DuePage, Store, StoreError};

/// The store is asked for what is due so long before it is: an answer takes a while, and a round of the loop up to a half of
/// that where nothing happens.
const AHEAD_US: i64 = 1_000_000;

fn ahead_of(at: Timestamp) -> Timestamp {
    Timestamp(at.0.saturating_sub(AHEAD_US))
}

/// Alarms of the near future. Entries are not removed when a deadline moves or its run closes: what counts is the alarm
/// that the run in memory knows of, or, for one that is not there, what is noted here.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    heap: BinaryHeap<Reverse<(Timestamp, RunId)>>,
    /// Runs that are not in memory and are to be woken: they had to leave it, or the store says so.
    asleep: HashMap<RunId, Asleep>,
    reach: Span,
}

#[derive(Debug, Clone, Copy)]
struct Asleep {
    /// `None` once it has rung: the run is being loaded.
    at: Option<Timestamp>,
    /// Not known of what the store was asked for.
    partition: Option<i16>,
}

impl Alarms {
    /// Keeps what is due within twice the `horizon` that the store is asked for, so that no deadline falls between them.
    pub(super) fn new(horizon: Span) -> Self {
        Self {
            heap: BinaryHeap::new(),
            asleep: HashMap::new(),
            reach: Span(horizon.0.saturating_mul(2)),
        }
    }

    /// `false` if it is too far away to be kept here.
    pub(super) fn set(&mut self, at: Timestamp, run: RunId, now: Timestamp) -> bool {
        let near = at <= now.plus(self.reach);
        if near {
            self.put(at, run);
        }
        near
    }

    /// However far away it is.
    pub(super) fn put(&mut self, at: Timestamp, run: RunId) {
        self.heap.push(Reverse((at, run)));
    }

    /// The run is being loaded, to be woken.
    pub(super) fn loading(&mut self, run: RunId, partition: i16) {
        let partition = Some(partition);
        self.asleep.insert(run, Asleep { at: None, partition });
    }

    /// An alarm of a run that is not in memory, from now on or as the store says.
    pub(super) fn sleep(&mut self, at: Timestamp, run: RunId, partition: Option<i16>) {
        let known = self.asleep.get(&run);
        if known.is_some_and(|known| known.at.is_none_or(|known| known <= at)) {
            return;
        }
        let partition = partition.or(known.and_then(|known| known.partition));
        self.asleep.insert(
            run,
            Asleep {
                at: Some(at),
                partition,
            },
        );
        self.heap.push(Reverse((at, run)));
    }

    /// Whether an alarm that is due counts for a run that is not in memory; it counts once.
    fn rings(&mut self, at: Timestamp, run: RunId) -> bool {
        match self.asleep.get_mut(&run) {
            Some(asleep) if asleep.at == Some(at) => {
                asleep.at = None;
                true
            }
            _ => false,
        }
    }

    /// The run is in memory, or is not to be had.
    pub(super) fn awake(&mut self, run: RunId) {
        self.asleep.remove(&run);
    }

    /// Forgets the runs of a partition that is given away, and those of unknown ones: the store has to be asked again.
    pub(super) fn forget_partition(&mut self, partition: i16) {
        self.asleep
            .retain(|_, asleep| asleep.partition.is_some_and(|number| number != partition));
    }

    /// Runs that the store need not name again.
    pub(super) fn asleep(&self) -> usize {
        self.asleep.len()
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
        self.asleep.clear();
    }
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
                match live.wakes_at() {
                    Some(wake) if wake > now && live.row.wake_at.is_none_or(|stored| stored > now) => {
                        if self.alarms.set(wake, run_id, now) {
                            live.alarm = Some(wake);
                        }
                        continue;
                    }
                    None if live.row.wake_at.is_none_or(|stored| stored > now) => continue,
                    _ => {}
                }
            } else if !self.alarms.rings(at, run_id) {
                continue;
            }
            self.direct.push_back(Job::internal(JobKind::Wake { run_id }));
        }
    }

    /// What is due in a run happens, as far as the log has been read.
    pub(super) fn wake(&mut self, run_id: RunId) -> Applied {
        let now = self.clock.now();
        if matches!(self.hand_in_news(run_id), Applied::Panicked) {
            return Applied::Panicked;
        }
        // What its queues have delivered is asked first: a task that may lie in its queue is not late.
        let Some(horizon) = self.horizon(run_id, now) else {
            self.wait_at_gate(run_id, now);
            return Applied::Nothing;
        };
        let applied = self.apply(run_id, Input::Wake(horizon));
        if matches!(applied, Applied::Panicked) {
            return applied;
        }
        let still_due = self
            .live
            .get(run_id)
            .is_some_and(|live| live.wakes_at().is_some_and(|wake| wake <= now));
        if still_due {
            self.wait_at_gate(run_id, now);
        } else {
            self.raise_wake(run_id, now);
        }
        applied
    }

    /// Asks the store for deadlines of the near future, now and then.
    pub(super) fn scan(&mut self) {
        let now = self.clock.now();
        let begins = self.scan_after.is_none();
        if self.scanning || now < self.scan_from || self.partitions.len() == 0 || (!begins && self.sleeps_enough()) {
            return;
        }
        self.scanning = true;
        let store = Arc::clone(&self.store);
        let partitions = self.partitions.served();
        let until = now.plus(self.config.deadline_horizon);
        let life = self.life;
        self.scan_readers = self.partitions.newest_reader();
        let panicked = Done::Due {
            life,
            until,
            result: Err(StoreError::Unavailable("the question panicked".to_owned())),
        };
        let page = DuePage {
            after: self.scan_after,
            until,
            limit: u32::try_from(self.config.deadline_page).unwrap_or(u32::MAX),
        };
        self.beside(panicked, async move {
            let result = store.due(&partitions, page).await;
            Done::Due { life, until, result }
        });
    }

    /// Alarms of runs that are not in memory are bounded: what the store has to say behind them waits there.
    fn sleeps_enough(&self) -> bool {
        self.alarms.asleep() >= 4 * self.config.deadline_page
    }

    /// A run leaves the memory with an alarm. Where too many sleep already the store names it again, in time.
    pub(super) fn let_sleep(&mut self, left: &Evicted) {
        if self.sleeps_enough() {
            self.scan_after = None;
            self.scan_from = self.scan_from.min(ahead_of(left.wake_at));
        } else {
            self.alarms.sleep(left.wake_at, left.run_id, Some(left.partition));
        }
    }

    pub(super) fn scanned(&mut self, until: Timestamp, result: Result<Due, StoreError>) {
        self.scanning = false;
        let now = self.clock.now();
        match result {
            Ok(due) => {
                let last = due
                    .runs
                    .last()
                    .map(|(run_id, at)| (*at, *run_id))
                    .filter(|_| !due.whole);
                for (run_id, at) in due.runs {
                    if self.gate.holds(run_id) {
                        continue;
                    }
                    match self.live.get_mut(run_id) {
                        None => self.alarms.sleep(at, run_id, None),
                        Some(live) if live.alarm.is_none() => {
                            if self.alarms.set(at, run_id, now) {
                                live.alarm = Some(at);
                            }
                        }
                        Some(_) => {}
                    }
                }
                if self.partitions.newest_reader() > self.scan_readers {
                    // Partitions taken meanwhile have not been asked about.
                    (self.scan_after, self.scan_from) = (None, now);
                    return;
                }
                self.scan_after = last;
                // The next page is asked for a little before the last of this one is reached; all of it anew after half the
                // horizon.
                self.scan_from = match last {
                    Some((at, _)) => ahead_of(at).min(until),
                    None => now.plus(Span(self.config.deadline_horizon.0 / 2)),
                };
            }
            Err(error) => {
                tracing::warn!(%error, "deadlines cannot be read yet");
                self.scan_from = now.plus(Span::from_secs(1));
            }
        }
    }
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

    #[test]
    fn a_run_that_is_not_in_memory_rings_once_and_at_its_earliest_alarm() {
        let mut alarms = Alarms::new(Span::from_secs(60));
        let run = |n| RunId(uuid::Uuid::from_u128(n));
        for (at, number, partition) in [
            (30, 1, Some(0)),
            (20, 1, None),
            (40, 1, None),
            (10, 2, Some(7)),
            (15, 3, None),
        ] {
            alarms.sleep(Timestamp(at), run(number), partition);
        }
        alarms.forget_partition(7);
        let mut rung = Vec::new();
        while let Some((at, run)) = alarms.pop_due(Timestamp(100)) {
            if alarms.rings(at, run) {
                rung.push((at, run));
                // It is being loaded: what the store says again meanwhile is nothing new.
                alarms.sleep(at, run, None);
            }
        }
        assert_eq!(rung, [(Timestamp(20), run(1))]);
        alarms.awake(run(1));
        alarms.sleep(Timestamp(20), run(1), Some(0));
        assert_eq!(alarms.pop_due(Timestamp(20)), Some((Timestamp(20), run(1))));
    }
}
