//! The gate: a timeout fires only when the log has been read past it and its queue is known to have delivered its task.
//! A task that may not have been published yet has not been delivered, whatever its queue says.
//!
//! Runs that are overdue wait here. The bus is asked for the end of their partitions' logs and for what their queues have
//! delivered; a run is woken again once its partition has been read to the end that was named. Questions are short and
//! paced; a partition that is far behind holds up nobody but itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use knarr_core::ids::{Namespace, QueueName, RunId};
use knarr_core::run::input::Horizon;
use knarr_core::time::{Span, Timestamp};
use tokio::time::Instant;

use super::job::{Job, JobKind};
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::{Bus, BusError, Undelivered};
use crate::store::Store;

/// Between two questions at least.
const PACE: Duration = Duration::from_millis(50);
/// After a question that could not be answered.
const PAUSE: Duration = Duration::from_millis(250);

/// An answer that takes longer is none.
const ASK_WITHIN: Duration = Duration::from_millis(900);
/// A queue that has not answered is not asked for so long.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// A commit's publication goes to those that are offered again after about that long.
const PUBLISHED_WITHIN: Span = Span::from_secs(2);

type Runs = BTreeSet<RunId>;

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// All that wait here: the store need not name their deadlines again.
    inside: HashSet<RunId>,
    /// Nothing has been asked for them yet.
    waiting: BTreeMap<i16, Runs>,
    /// A question about their partition is under way.
    asked: BTreeMap<i16, Runs>,
    /// Until their partition's log has been read that far.
    reading: BTreeMap<i16, Reading>,
    /// Of tasks of those runs: asked about with the next question. The runs themselves may leave the memory meanwhile.
    queues: BTreeSet<(Namespace, QueueName)>,
    delivered: HashMap<Namespace, BTreeMap<QueueName, Delivered>>,
    /// Queues that did not answer, until they are asked again.
    silent: HashMap<(Namespace, QueueName), Instant>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Reading {
    asked_at: Timestamp,
    tail: u64,
    runs: Runs,
}

#[derive(Debug, Clone, Copy)]
struct Delivered {
    asked_at: Timestamp,
    /// Tasks published up to then have been delivered.
    to: Timestamp,
}

impl Gate {
    fn wait(&mut self, partition: i16, run_id: RunId) {
        self.inside.insert(run_id);
        self.waiting.entry(partition).or_default().insert(run_id);
    }

    pub(super) fn holds(&self, run_id: RunId) -> bool {
        self.inside.contains(&run_id)
    }

    /// The next moment at which a question may be asked, if one is to be.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = !self.waiting.is_empty() && self.asked.is_empty();
        self.not_before.filter(|_| due)
    }

    /// The partition's log is another one now, or is not ours any more: what was said of its end means nothing.
    pub(super) fn log_changed(&mut self, partition: i16) {
        let asked = self.asked.remove(&partition).unwrap_or_default();
        let reading = self.reading.remove(&partition).map(|reading| reading.runs);
        let runs: Runs = asked.into_iter().chain(reading.unwrap_or_default()).collect();
        if !runs.is_empty() {
            self.waiting.entry(partition).or_default().extend(runs);
        }
    }

    pub(super) fn forget_partition(&mut self, partition: i16) {
        let reading = self.reading.remove(&partition).map(|reading| reading.runs);
        let left = [self.waiting.remove(&partition), self.asked.remove(&partition), reading];
        for run_id in left.into_iter().flatten().flatten() {
            self.inside.remove(&run_id);
        }
    }
}

/// A queue to be asked about.
#[derive(Debug)]
struct Asked {
    namespace: Namespace,
    queue: QueueName,
    /// Tasks opened later may not be in it yet.
    published_to: Timestamp,
    /// It did not answer a while ago, and is not waited for again.
    silent: bool,
}

/// What the bus said about the log and the queues, for everything that was due at `asked_at`.
#[derive(Debug)]
pub(super) struct HorizonAnswer {
    asked_at: Timestamp,
    /// The last message of each partition's log then.
    tails: BTreeMap<i16, u64>,
    /// `None` where the queue has not answered.
    delivered: Vec<(Namespace, QueueName, Option<Timestamp>)>,
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// How far the world is known to have been read, for a run that is awake; `None` while the queue of one of its overdue
    /// tasks has yet to be asked about.
    pub(super) fn horizon(&self, run_id: RunId, now: Timestamp) -> Option<Horizon> {
        let live = self.live.get(run_id)?;
        let log_read_to = match self.partitions.get(live.row.partition) {
            Some(partition)
                if partition.grace_until <= now && !partition.unknown_deferred && !partition.unknown_permits =>
            {
                partition.read_to
            }
            _ => Timestamp(i64::MIN),
        };
        // With what was heard of workers: what is stored of their beats lies in the past, and any answer would be young enough.
        let due = live.wakes_at().unwrap_or(now);
        let known = self.gate.delivered.get(&live.row.namespace);
        let mut delivered_to = BTreeMap::new();
        for queue in live.state.overdue_queues(now) {
            if self.offers.is_unreadable(run_id) {
                // It could not be read when its tasks were to be published.
                delivered_to.insert(queue, Timestamp(i64::MIN));
                continue;
            }
            let delivered = known.and_then(|queues| queues.get(&queue))?;
            if delivered.asked_at < due {
                return None;
            }
            delivered_to.insert(queue, delivered.to);
        }
        Some(Horizon {
            log_read_to,
            delivered_to,
            listening_since: self.listening_since(live.row.partition),
            heard: self.heard(run_id),
        })
    }

    /// Lets a run wait until more is known of what it is overdue for.
    pub(super) fn wait_at_gate(&mut self, run_id: RunId, now: Timestamp) {
        let Some(live) = self.live.get(run_id) else { return };
        let queues = live.state.overdue_queues(now).into_iter();
        let namespace = &live.row.namespace;
        self.gate.queues.extend(queues.map(|queue| (namespace.clone(), queue)));
        let (partition, next) = (live.row.partition, live.state.wake_after(now));
        self.gate.wait(partition, run_id);
        // What else it waits for is not held up here, and the store says only that it is overdue.
        if let Some(at) = next
            && let Some(live) = self.live.get_mut(run_id)
            && live.alarm.is_none_or(|alarm| at < alarm || alarm <= now)
        {
            self.alarms.put(at, run_id);
            live.alarm = Some(at);
        }
    }

    /// Wakes the runs whose partition has been read far enough, and asks for those that nothing has been asked for.
    pub(super) fn tend_gate(&mut self) {
        self.open_gate();
        let ready = self.gate.not_before.is_none_or(|at| at <= Instant::now());
        if self.gate.waiting.is_empty() || !self.gate.asked.is_empty() || !ready {
            return;
        }
        let now = self.clock.now();
        let mut earliest_grace: Option<Timestamp> = None;
        for (number, runs) in std::mem::take(&mut self.gate.waiting) {
            let Some(partition) = self.partitions.get(number) else {
                continue;
            };
            if partition.grace_until > now {
                let left = partition.grace_until;
                earliest_grace = Some(earliest_grace.map_or(left, |known| known.min(left)));
                self.gate.waiting.insert(number, runs);
                continue;
            }
            // One answer at a time for a partition: its log is being read as fast as it can.
            if self.gate.reading.contains_key(&number) {
                self.gate.waiting.insert(number, runs);
                continue;
            }
            self.gate.asked.insert(number, runs);
        }
        self.gate.not_before = Some(Instant::now() + PACE);
        if self.gate.asked.is_empty() {
            if let Some(at) = earliest_grace {
                self.gate.not_before = Some(Instant::now() + self.clock.until(at).max(PACE));
            }
            return;
        }
        let published = |namespace: &Namespace| match self.offers.owes(namespace) {
            true => Timestamp(i64::MIN),
            false => self.offers.published_to(),
        };
        let moment = Instant::now();
        self.gate.silent.retain(|_, until| *until > moment);
        let silent = |namespace: &Namespace, queue: &QueueName| {
            let name = (namespace.clone(), queue.clone());
            self.gate.silent.contains_key(&name)
        };
        // Before they are asked: what is opened from now on is not due yet.
        let queues = std::mem::take(&mut self.gate.queues).into_iter();
        let queues: Vec<Asked> = queues
            .map(|(namespace, queue)| Asked {
                published_to: published(&namespace),
                silent: silent(&namespace, &queue),
                namespace,
                queue,
            })
            .collect();
        let partitions: Vec<i16> = self.gate.asked.keys().copied().collect();
        let bus = Arc::clone(&self.bus);
        let life = self.life;
        let panicked = Done::Horizon { life, answer: None };
        self.beside(panicked, async move {
            let answer = ask(&*bus, now, partitions, queues).await;
            Done::Horizon { life, answer }
        });
    }

    pub(super) fn horizon_answered(&mut self, answer: Option<HorizonAnswer>) {
        let asked = std::mem::take(&mut self.gate.asked);
        let Some(answer) = answer else {
            self.gate.not_before = Some(Instant::now() + PAUSE);
            for (number, runs) in asked {
                self.gate.waiting.entry(number).or_default().extend(runs);
            }
            return;
        };
        let asked_at = answer.asked_at;
        for (namespace, queue, to) in answer.delivered {
            // Where tasks have gone out late, the time of the oldest in the queue says nothing of when it was opened.
            let late = self.offers.late(&namespace);
            if to.is_none() {
                let silent = self.gate.silent.entry((namespace.clone(), queue.clone()));
                silent.or_insert_with(|| Instant::now() + SILENT_FOR);
            }
            let to = to.filter(|to| *to >= late).unwrap_or(Timestamp(i64::MIN));
            let queues = self.gate.delivered.entry(namespace).or_default();
            queues.insert(queue, Delivered { asked_at, to });
        }
        for (number, runs) in asked {
            match answer.tails.get(&number) {
                Some(tail) => {
                    let tail = *tail;
                    self.gate.reading.insert(number, Reading { asked_at, tail, runs });
                }
                None => self.gate.waiting.entry(number).or_default().extend(runs),
            }
        }
    }

    fn open_gate(&mut self) {
        let partitions = &self.partitions;
        let read: Vec<i16> = self
            .gate
            .reading
            .iter()
            .filter(|(number, reading)| {
                let partition = partitions.get(**number);
                partition.is_none_or(|partition| partition.applied.sequence >= reading.tail)
            })
            .map(|(number, _)| *number)
            .collect();
        for number in read {
            let reading = self.gate.reading.remove(&number);
            if let (Some(reading), Some(partition)) = (reading, self.partitions.get_mut(number)) {
                partition.read_to = partition.read_to.max(reading.asked_at);
                for run_id in reading.runs {
                    self.gate.inside.remove(&run_id);
                    if !self.live.contains(run_id) {
                        self.alarms.loading(run_id, number);
                    }
                    self.direct.push_back(Job::internal(JobKind::Wake { run_id }));
                }
            }
        }
    }
}

/// Tasks opened up to then have been delivered. The age is that of an answer which came after `asked_at`, so that it never
/// says too much; a task that was published some time after it was opened is allowed for.
fn delivered_to(undelivered: Undelivered, asked_at: Timestamp) -> Timestamp {
    match undelivered {
        Undelivered::Nothing => Timestamp::MAX,
        Undelivered::For(age) => back(back(asked_at, age), PUBLISHED_WITHIN),
        Undelivered::All => Timestamp(i64::MIN),
    }
}

fn back(from: Timestamp, by: Span) -> Timestamp {
    Timestamp(from.0.saturating_sub(i64::try_from(by.0).unwrap_or(i64::MAX)))
}

/// Each is asked by itself, and none waits for another: a partition or a queue that does not answer holds up its own alone.
async fn ask<B: Bus>(bus: &B, asked_at: Timestamp, partitions: Vec<i16>, queues: Vec<Asked>) -> Option<HorizonAnswer> {
    let tails = join_all(
        partitions
            .into_iter()
            .map(async |partition| match within(bus.log_tail(partition)).await {
                Ok(tail) => Some((partition, tail)),
                Err(problem) => {
                    tracing::debug!(%problem, partition, "timeouts of a partition wait: its log's end is not known");
                    None
                }
            }),
    );
    let delivered = join_all(queues.into_iter().map(async |asked| {
        let Asked {
            namespace,
            queue,
            published_to,
            silent,
        } = asked;
        let undelivered = match silent {
            true => Err("it did not answer before".to_owned()),
            false => within(bus.undelivered(&namespace, &queue)).await,
        };
        let to = match undelivered {
            Ok(undelivered) => Some(delivered_to(undelivered, asked_at).min(published_to)),
            Err(problem) => {
                tracing::debug!(%problem, %queue, "what a queue has delivered is not known; its timeouts are put off");
                None
            }
        };
        (namespace, queue, to)
    }));
    let (tails, delivered) = tokio::join!(tails, delivered);
    let tails: BTreeMap<i16, u64> = tails.into_iter().flatten().collect();
    (!tails.is_empty()).then_some(HorizonAnswer {
        asked_at,
        tails,
        delivered,
    })
}

async fn within<T>(question: impl Future<Output = Result<T, BusError>>) -> Result<T, String> {
    match tokio::time::timeout(ASK_WITHIN, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
