//! The loop: *take a batch, load what it needs, apply, commit, publish, acknowledge*.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use knarr_core::ids::{Namespace, RunId};
use knarr_core::time::Timestamp;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::{BatchBuilder, SealedBatch};
use super::beats::Pulses;
use super::clock::Clock;
use super::commit::HeldCommit;
use super::config::EngineConfig;
use super::deadlines::Alarms;
use super::deferral::Turn;
use super::deferred_runs::Deferral;
use super::definitions::Definitions;
use super::failpoint::{self, Stage};
use super::fetch::Wanted;
use super::gate::Gate;
use super::in_line::InLine;
use super::job::Job;
use super::job_reader::JobReader;
use super::limits::Limiters;
use super::live::LiveRuns;
use super::look_up::Absent;
use super::offers::Offers;
use super::partitions::Partitions;
use super::perform::Step;
use super::poison::PoisonKey;
use super::publication::Publisher;
use super::queue_limits::KnownLimits;
use super::readers::Readers;
use super::replica::Health;
use super::report::Done;
use super::stored_answer::StoredAnswers;
use super::token::TokenKey;
use super::triggers::Triggers;
use super::withdrawals::Withdrawals;
use crate::bus::Bus;
use crate::bus::inlet::{Admitted, Room};
use crate::store::{Cluster, CommitId, Session, Store, StoreError};
use crate::telemetry::span::SpanSink;

/// Everything one replica knows; touched by one task alone.
pub(super) struct Loop<S, B> {
    pub(super) config: EngineConfig,
    pub(super) store: Arc<S>,
    pub(super) bus: Arc<B>,
    pub(super) definitions: Arc<Definitions>,
    pub(super) health: Arc<Health>,
    pub(super) spans: Option<SpanSink>,
    pub(super) tokens: Arc<TokenKey>,
    pub(super) reader: JobReader,
    pub(super) publisher: Publisher<B>,
    pub(super) stored_answers: StoredAnswers,
    pub(super) clock: Clock,
    pub(super) cluster: Cluster,
    pub(super) session: Session,
    pub(super) random: ring::rand::SystemRandom,
    /// The time in the last run id.
    pub(super) minted: Timestamp,
    pub(super) partitions: Partitions,
    pub(super) live: LiveRuns,
    /// Jobs that are not ordered by a log: direct results, beats, deadlines.
    pub(super) direct: VecDeque<Job>,
    /// Those of them that wait for a look-up.
    pub(super) lacking: Vec<Job>,
    pub(super) wanted: Wanted,
    /// Runs that a look-up did not find, or that belong to others: known until partitions change.
    pub(super) absent: HashMap<RunId, Absent>,
    /// The number of the look-up under way.
    pub(super) fetching: Option<u64>,
    pub(super) fetches: u64,
    pub(super) fetches_done: u64,
    pub(super) fetch_after: Option<tokio::time::Instant>,
    /// When the look-up under way was asked.
    pub(super) fetching_since: Instant,
    /// The newest reader when the look-up under way was asked: what it says of partitions opened since is stale.
    pub(super) fetch_readers: u64,
    /// The last batch that was committed when it was asked.
    pub(super) fetch_committed: u64,
    pub(super) building: BatchBuilder,
    pub(super) committing: Option<SealedBatch>,
    /// Held by a commit, or while partitions are given back: a commit that begins meanwhile would be fenced off.
    pub(super) writing: Arc<Mutex<()>>,
    /// The number of the last batch that is committed.
    pub(super) committed: u64,
    /// Runs whose inputs are deferred.
    pub(super) deferral: Deferral,
    pub(super) limiters: Limiters,
    pub(super) in_line: InLine,
    pub(super) triggers: Triggers,
    pub(super) queue_limits: KnownLimits,
    pub(super) alarms: Alarms,
    /// Of workers that promised to be heard of.
    pub(super) pulses: Pulses,
    pub(super) gate: Gate,
    pub(super) scanning: bool,
    /// The newest reader when the scan under way was asked.
    pub(super) scan_readers: u64,
    /// The last deadline that the store has named, if there are more behind it.
    pub(super) scan_after: Option<(Timestamp, RunId)>,
    /// When the store is next asked for deadlines.
    pub(super) scan_from: Timestamp,
    /// Commits whose publications are acknowledged, to be struck off by the next commit or renewal.
    pub(super) published: Vec<CommitId>,
    /// Commits of which a task was refused, until that is recorded in a committed batch.
    pub(super) held: HashMap<CommitId, HeldCommit>,
    /// Commits of which something was not acknowledged.
    pub(super) offers: Offers,
    pub(super) withdrawals: Withdrawals,
    /// Runs that have closed as continued as new, and the batch that starts their successor; 0 = none yet. They stay until
    /// that is committed.
    pub(super) continuing: HashMap<RunId, u64>,
    /// What they have closed in, as far as it is committed: not struck off while one of its runs is among them.
    pub(super) owing_successors: HashMap<CommitId, Vec<RunId>>,
    /// Those of them whose successors cannot be started.
    pub(super) given_up: HashSet<RunId>,
    /// Namespaces whose task queues are being made.
    pub(super) restoring: HashSet<Namespace>,
    pub(super) poisoned: HashSet<PoisonKey>,
    /// Inputs still to be committed one by one, after the store refused a batch.
    pub(super) careful: usize,
    /// Nor before that: those of workers come again by and by.
    pub(super) careful_until: Option<Instant>,
    /// What could not be set aside by parking its run: core breaks, or the store refuses it. The run is left alone.
    pub(super) unparkable: HashSet<PoisonKey>,
    pub(super) readers: Readers,
    /// Workers to be told that results of theirs are taken elsewhere: tokens by inbox.
    pub(super) moved: HashMap<String, Vec<String>>,
    pub(super) keeping: bool,
    /// Commits of all sessions and the epoch of definitions, as the last renewal told them.
    pub(super) heard: Option<(i64, i64)>,
    /// Counts when that was something new.
    pub(super) changes: Arc<AtomicU64>,
    /// The last of definitions, for those beside the loop.
    pub(super) epoch: Arc<AtomicI64>,
    pub(super) recovering: bool,
    pub(super) stopping: bool,
    /// Why this replica ends without having been asked to.
    pub(super) over: Option<StoreError>,
    /// The end is not waited for longer than that.
    pub(super) stop_by: Option<Instant>,
    /// Counts resets.
    pub(super) life: u64,
    /// Commits in a row of which nothing good was heard.
    pub(super) failed: u32,
    /// A batch whose commit may or may not have happened.
    pub(super) limbo: Option<SealedBatch>,
    pub(super) intake: mpsc::Sender<Admitted>,
    pub(super) room: Arc<Room>,
    /// Of publications under way.
    pub(super) publishing_bytes: usize,
    /// The partition whose turn is first, so that none waits for ever behind full ones.
    pub(super) first: i16,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) tasks: TaskTracker,
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Admitted>,
        mut reports: mpsc::UnboundedReceiver<Done>,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        self.health.set_store(true);
        self.health.set_serving(true);
        let mut renewals = tokio::time::interval(self.config.keep_every);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        loop {
            self.turn();
            // Where the store is gone there is nothing to be saved: what is committed is taken over by others.
            let drained = self.committing.is_none() && self.building.is_empty();
            if self.stopping && (drained || self.recovering) || self.over.is_some() {
                break;
            }
            let room = self.room();
            let alarm = self.next_alarm();
            tokio::select! {
                biased;
                // First what is rare, so that it is never kept waiting by what is not.
                () = shutdown.cancelled(), if !self.stopping => self.stop(),
                _ = renewals.tick() => self.keep(),
                Some(report) = reports.recv() => {
                    self.report(report);
                    while let Ok(report) = reports.try_recv() {
                        self.report(report);
                    }
                }
                _ = incoming.recv_many(&mut taken, room.max(1)), if room > 0 => {
                    failpoint::pass(Stage::Taken);
                    for message in taken.drain(..) {
                        if self.stopping {
                            self.take_no_more(message.incoming);
                        } else {
                            self.take(message);
                        }
                    }
                }
                () = sleep_until(alarm), if alarm.is_some() => {}
                () = sleep_until(self.stop_by), if self.stop_by.is_some() => break,
            }
        }
        self.health.set_serving(false);
        let over = self.over.take();
        self.leave(incoming, reports).await;
        over.map_or(Ok(()), Err)
    }

    /// One round: everything that can be done without waiting.
    fn turn(&mut self) {
        #[cfg(test)]
        super::tests::turned(super::tests::Kept {
            live: self.live.len(),
            live_bytes: self.live.bytes(),
            intake: self.room.in_use(),
            publishing_bytes: self.publishing_bytes,
            asleep: self.alarms.asleep(),
        });
        self.send_on();
        if self.recovering {
            return;
        }
        if !self.stopping {
            self.ring();
            self.ring_limiters();
            self.listen();
            self.tend_gate();
            self.tend_deferral();
            self.tend_triggers();
            self.perform_all();
            self.tend_triggers();
            self.look_up();
            self.scan();
            self.offer_again();
            self.withdraw();
        }
        if !self.recovering {
            self.commit();
            self.release_drained();
        }
    }

    /// How many more messages may be taken now. Zero is back-pressure: the bus keeps what it has. What has been taken and is
    /// not applied yet is bounded by the room that it holds.
    fn room(&self) -> usize {
        // Publications that have names wait in the store; those that have none, answers and confirmations, hold up what
        // would make more of them.
        let jammed = self.publishing_bytes > 2 * self.config.publish_bytes;
        if !self.stopping && (self.recovering || jammed || self.batch_is_full()) {
            return 0;
        }
        self.config.batch_inputs
    }

    pub(super) fn batch_is_full(&self) -> bool {
        let careful = self.careful > 0 || self.careful_until.is_some_and(|until| Instant::now() < until);
        let inputs = if careful { 1 } else { self.config.batch_inputs };
        // What changed nothing is never committed, and would fill it for ever.
        !self.building.is_empty() && (self.building.inputs >= inputs || self.building.bytes >= self.config.batch_bytes)
    }

    fn next_alarm(&mut self) -> Option<tokio::time::Instant> {
        if self.recovering || self.stopping {
            return None;
        }
        let now = tokio::time::Instant::now();
        let alarms = [self.alarms.next(), self.limiters.next(), self.pulses.next()];
        let mut next = alarms.into_iter().flatten().min().map(|at| now + self.clock.until(at));
        let mut sooner = |at: Option<tokio::time::Instant>| {
            if let Some(at) = at {
                next = Some(next.map_or(at, |known: tokio::time::Instant| known.min(at)));
            }
        };
        sooner(self.gate.next().filter(|at| *at > now));
        sooner(self.offers.next().filter(|at| *at > now));
        sooner(self.withdrawals.next().filter(|at| *at > now));
        sooner(self.deferral.next().filter(|at| *at > now));
        if self.fetching.is_some() {
            sooner(Some(self.fetching_since + self.config.slow_look_up).filter(|at| *at > now));
        }
        if !self.wanted.is_empty() {
            sooner(self.fetch_after.filter(|at| *at > now));
        }
        // A full batch that commits rings by its report; an alarm in the past must not spin meanwhile.
        if self.batch_is_full() { None } else { next }
    }

    /// Applies whatever is ready: first what was deferred, then what no log orders, then each partition in its order.
    fn perform_all(&mut self) {
        if !self.perform_deferred() || !self.perform_direct() {
            return;
        }
        for partition in self.partitions.served_from(self.first) {
            if !self.perform_partition(partition) {
                return;
            }
            if self.batch_is_full() {
                self.first = partition.saturating_add(1);
                break;
            }
        }
        // What the head of a partition waits for.
        self.perform_direct();
    }

    /// Applies what no log orders. `false` = everything has been dropped.
    fn perform_direct(&mut self) -> bool {
        while !self.batch_is_full() {
            let Some(job) = self.direct.pop_front() else { break };
            match self.perform(job) {
                Step::Done => {}
                Step::Lacks(mut job) | Step::Blocked(mut job) => {
                    self.note_wants(&mut job);
                    self.lacking.push(*job);
                }
                Step::Reset => return false,
            }
        }
        true
    }

    /// Applies what is ready of a partition. `false` = everything has been dropped.
    fn perform_partition(&mut self, partition: i16) -> bool {
        let number = self.building.number;
        while !self.batch_is_full() {
            let Some(owned) = self.partitions.get_mut(partition) else {
                break;
            };
            let unknown = owned.unknown_deferred || owned.unknown_permits;
            if unknown || owned.blocked_in.is_some_and(|blocked| blocked >= number) {
                break;
            }
            owned.blocked_in = None;
            let Some(job) = owned.queue.pop_front() else { break };
            match self.turn_of(&job) {
                Turn::Its => {}
                Turn::Deferred(run) => {
                    self.defer(&job, run);
                    continue;
                }
                Turn::Waits => {
                    self.put_first(partition, job);
                    break;
                }
            }
            match self.perform(job) {
                Step::Done => {}
                Step::Lacks(job) => {
                    if let Some(run) = self.not_to_be_waited_for(&job) {
                        self.defer(&job, run);
                        continue;
                    }
                    self.put_first(partition, *job);
                    self.want_queue(partition);
                    break;
                }
                Step::Blocked(job) => {
                    self.put_first(partition, *job);
                    // A batch with nothing in it is never sealed: then it waits for a look-up.
                    let is_sealed = !self.building.is_empty();
                    if let Some(owned) = self.partitions.get_mut(partition) {
                        owned.blocked_in = is_sealed.then_some(number);
                    }
                    break;
                }
                Step::Reset => return false,
            }
        }
        true
    }

    fn put_first(&mut self, partition: i16, job: Job) {
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.queue.push_front(job);
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
