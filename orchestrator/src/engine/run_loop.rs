//! The loop: *take a batch, load what it needs, apply, commit, publish, acknowledge*.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use knarr_core::ids::{RunId, TaskNo};
use knarr_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::apply::Step;
use super::batch::{BatchBuilder, Outbound, SealedBatch};
use super::clock::Clock;
use super::config::EngineConfig;
use super::deadlines::{Alarms, Gate, HorizonAnswer};
use super::definitions::Definitions;
use super::failpoint::{self, Stage};
use super::fetch::{self, Fetched, Wanted};
use super::job::{Job, JobKind, JobReader, Origin};
use super::live::{IdKey, Live, LiveRuns};
use super::outgoing::RunRef;
use super::partitions::Partitions;
use super::publication::{Published, Publisher};
use super::token::TokenKey;
use crate::bus::{Bus, Incoming};
use crate::store::{
    Cluster, CommitError, CommitId, InheritedCommit, OwnedPartition, Session, Share, Store, StoreError,
};
use crate::telemetry::metric;

/// Why an engine could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] crate::bus::BusError),
}

/// What readiness asks.
#[derive(Debug, Default)]
pub struct Health {
    store: AtomicBool,
    serving: AtomicBool,
}

impl Health {
    /// The store answered last time, and this replica holds a session.
    pub fn ready(&self) -> bool {
        self.store.load(Ordering::Relaxed) && self.serving.load(Ordering::Relaxed)
    }

    pub(super) fn set_store(&self, up: bool) {
        self.store.store(up, Ordering::Relaxed);
    }
}

/// An input that is known to break core or the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PoisonKey {
    Log {
        partition: i16,
        sequence: u64,
    },
    Task {
        token: String,
    },
    /// A deadline or word of a publication.
    Internal(RunId),
}

impl PoisonKey {
    pub(super) fn of(job: &Job) -> Option<Self> {
        match (&job.origin, &job.kind) {
            (Origin::Log(message), _) => Some(Self::Log {
                partition: message.partition,
                sequence: message.cursor.sequence,
            }),
            (Origin::Direct { token, .. }, _) => Some(Self::Task { token: token.clone() }),
            (
                Origin::Internal,
                JobKind::Wake { run_id }
                | JobKind::TaskLost { run_id, .. }
                | JobKind::Held { run_id, .. }
                | JobKind::Unpublishable { run_id, .. },
            ) => Some(Self::Internal(*run_id)),
            (Origin::Internal, _) => None,
        }
    }
}

/// What happened beside the loop. `life` tells what belongs to a state that has since been dropped.
#[derive(Debug)]
pub(super) enum Done {
    Committed {
        life: u64,
        result: Result<(), CommitError>,
        took: Duration,
    },
    Fetched {
        life: u64,
        number: u64,
        result: Result<Fetched, StoreError>,
    },
    Published(Option<Published>),
    Kept {
        life: u64,
        share: Result<Share, StoreError>,
        published: Vec<CommitId>,
        clock: Option<(Timestamp, Instant)>,
    },
    Released {
        life: u64,
        partitions: Vec<i16>,
        result: Result<(), StoreError>,
    },
    Due {
        life: u64,
        until: Timestamp,
        result: Result<Vec<(RunId, Timestamp)>, StoreError>,
        full: bool,
    },
    Horizon {
        life: u64,
        answer: Option<HorizonAnswer>,
    },
    Recovered {
        life: u64,
        session: Session,
        fenced: bool,
        owned: Vec<OwnedPartition>,
    },
    StillWanted {
        life: u64,
        partition: i16,
        reader: u64,
    },
}

/// A replica's engine, before it runs.
#[derive(Debug)]
pub struct Engine<S, B> {
    pub config: EngineConfig,
    pub store: Arc<S>,
    pub bus: Arc<B>,
    pub definitions: Arc<Definitions>,
    pub health: Arc<Health>,
}

impl<S: Store, B: Bus> Engine<S, B> {
    pub fn new(config: EngineConfig, store: Arc<S>, bus: Arc<B>) -> Self {
        Self {
            config,
            store,
            bus,
            definitions: Arc::default(),
            health: Arc::default(),
        }
    }

    /// Prepares store and bus, then runs until `shutdown`; hands its partitions over before it returns.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let cluster = self.store.prepare(self.config.partitions).await?;
        self.bus.prepare(cluster.partitions).await?;
        let session = self.store.open_session(&self.config.replica).await?;
        let clock = Clock::new(self.store.now().await?, Instant::now());
        let tokens = Arc::new(TokenKey::new(&cluster.secret));
        let (intake, incoming) = mpsc::channel(self.config.intake);
        let (done, reports) = mpsc::unbounded_channel();
        let publications = CancellationToken::new();
        let upkeep = CancellationToken::new();
        let upkeep_ends = upkeep.clone().drop_guard();
        let kept_up = tokio::spawn(super::upkeep::run(
            Arc::clone(&self.store),
            Arc::clone(&self.bus),
            upkeep,
        ));
        let run_loop = Loop {
            reader: JobReader::new(Arc::clone(&tokens), &self.config),
            publisher: Publisher {
                bus: Arc::clone(&self.bus),
                tokens: Arc::clone(&tokens),
                stop: publications,
            },
            alarms: Alarms::new(self.config.deadline_horizon),
            config: self.config,
            store: self.store,
            bus: self.bus,
            definitions: self.definitions,
            health: self.health,
            tokens,
            clock,
            cluster,
            session,
            random: ring::rand::SystemRandom::new(),
            partitions: Partitions::default(),
            live: LiveRuns::default(),
            direct: VecDeque::new(),
            lacking: Vec::new(),
            wanted: Wanted::default(),
            fetching: None,
            fetches: 0,
            fetches_done: 0,
            fetch_after: None,
            fetch_readers: 0,
            building: BatchBuilder::new(1),
            committing: None,
            committed: 0,
            gate: Gate::default(),
            scanning: false,
            scan_from: Timestamp(i64::MIN),
            published: Vec::new(),
            held: HashMap::new(),
            poisoned: HashSet::new(),
            careful: 0,
            keeping: false,
            recovering: false,
            stopping: false,
            life: 1,
            limbo: None,
            intake,
            done,
            tasks: TaskTracker::new(),
        };
        run_loop.run(incoming, reports, shutdown).await;
        drop(upkeep_ends);
        // A panic there has been logged; it must not hide that the engine has ended well.
        let _ = kept_up.await;
        Ok(())
    }
}

/// Everything one replica knows; touched by one task alone.
pub(super) struct Loop<S, B> {
    pub(super) config: EngineConfig,
    pub(super) store: Arc<S>,
    pub(super) bus: Arc<B>,
    pub(super) definitions: Arc<Definitions>,
    pub(super) health: Arc<Health>,
    pub(super) tokens: Arc<TokenKey>,
    pub(super) reader: JobReader,
    pub(super) publisher: Publisher<B>,
    pub(super) clock: Clock,
    pub(super) cluster: Cluster,
    pub(super) session: Session,
    pub(super) random: ring::rand::SystemRandom,
    pub(super) partitions: Partitions,
    pub(super) live: LiveRuns,
    /// Jobs that are not ordered by a log: direct results, beats, deadlines.
    pub(super) direct: VecDeque<Job>,
    /// Those of them that wait for a look-up.
    lacking: Vec<Job>,
    wanted: Wanted,
    /// The number of the look-up under way.
    fetching: Option<u64>,
    fetches: u64,
    pub(super) fetches_done: u64,
    fetch_after: Option<tokio::time::Instant>,
    /// The newest reader when the look-up under way was asked: what it says of partitions opened since is stale.
    fetch_readers: u64,
    pub(super) building: BatchBuilder,
    pub(super) committing: Option<SealedBatch>,
    /// The number of the last batch that is committed.
    pub(super) committed: u64,
    pub(super) alarms: Alarms,
    pub(super) gate: Gate,
    scanning: bool,
    /// When the store is next asked for deadlines.
    pub(super) scan_from: Timestamp,
    /// Commits whose publications are acknowledged, to be struck off by the next commit or renewal.
    pub(super) published: Vec<CommitId>,
    /// Commits of which a task was refused, until that is recorded in a committed batch.
    pub(super) held: HashMap<CommitId, HeldCommit>,
    pub(super) poisoned: HashSet<PoisonKey>,
    /// Inputs still to be committed one by one, after the store refused a batch.
    careful: usize,
    pub(super) keeping: bool,
    pub(super) recovering: bool,
    pub(super) stopping: bool,
    /// Counts resets.
    pub(super) life: u64,
    /// A batch whose commit may or may not have happened.
    limbo: Option<SealedBatch>,
    pub(super) intake: mpsc::Sender<Incoming>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) tasks: TaskTracker,
}

impl<S: Store, B: Bus> Loop<S, B> {
    async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Incoming>,
        mut reports: mpsc::UnboundedReceiver<Done>,
        shutdown: CancellationToken,
    ) {
        self.health.set_store(true);
        self.health.serving.store(true, Ordering::Relaxed);
        let mut renewals = tokio::time::interval(self.config.keep_every);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        loop {
            self.turn();
            if self.stopping && self.committing.is_none() && self.building.is_empty() && !self.recovering {
                break;
            }
            let room = self.room();
            let alarm = self.next_alarm();
            tokio::select! {
                biased;
                Some(report) = reports.recv() => {
                    self.report(report);
                    while let Ok(report) = reports.try_recv() {
                        self.report(report);
                    }
                }
                _ = incoming.recv_many(&mut taken, room.max(1)), if room > 0 => {
                    failpoint::pass(Stage::Taken);
                    for message in taken.drain(..) {
                        self.take(message);
                    }
                }
                () = sleep_until(alarm), if alarm.is_some() => {}
                _ = renewals.tick() => self.keep(),
                () = shutdown.cancelled(), if !self.stopping => self.stop(),
            }
        }
        self.health.serving.store(false, Ordering::Relaxed);
        self.leave().await;
    }

    /// One round: everything that can be done without waiting.
    fn turn(&mut self) {
        if self.recovering {
            return;
        }
        if !self.stopping {
            self.ring();
            self.tend_gate();
            self.perform_all();
            self.look_up();
            self.scan();
        }
        if !self.recovering {
            self.commit();
            self.release_drained();
        }
    }

    /// How many more messages may be taken now. Zero is back-pressure: the bus keeps what it has.
    fn room(&self) -> usize {
        if self.recovering || self.stopping || self.batch_is_full() {
            return 0;
        }
        let waiting: usize =
            self.lacking.len() + self.direct.len() + self.partitions.iter().map(|(_, p)| p.queue.len()).sum::<usize>();
        self.config.intake.saturating_sub(waiting).min(self.config.batch_inputs)
    }

    fn batch_is_full(&self) -> bool {
        let inputs = if self.careful > 0 { 1 } else { self.config.batch_inputs };
        self.building.inputs >= inputs || self.building.bytes >= self.config.batch_bytes
    }

    fn next_alarm(&mut self) -> Option<tokio::time::Instant> {
        if self.recovering || self.stopping {
            return None;
        }
        let now = tokio::time::Instant::now();
        let mut next = self.alarms.next().map(|at| now + self.clock.until(at));
        let mut sooner = |at: Option<tokio::time::Instant>| {
            if let Some(at) = at {
                next = Some(next.map_or(at, |known: tokio::time::Instant| known.min(at)));
            }
        };
        if !self.gate.waiting.is_empty() {
            sooner(self.gate.not_before.filter(|at| *at > now));
        }
        if !self.wanted.is_empty() {
            sooner(self.fetch_after.filter(|at| *at > now));
        }
        // A full batch that commits rings by its report; an alarm in the past must not spin meanwhile.
        if self.batch_is_full() { None } else { next }
    }

    /// Sorts a message to its queue.
    fn take(&mut self, message: Incoming) {
        match message {
            Incoming::Log(message) => {
                let number = message.partition;
                let Some(partition) = self.partitions.get(number) else {
                    return;
                };
                if partition.reader != message.reader || partition.leaving_after.is_some() {
                    return;
                }
                let job = self.reader.log(message);
                if let Some(partition) = self.partitions.get_mut(number) {
                    partition.queue.push_back(job);
                }
            }
            // What is not owned any more is not confirmed: the worker finds the new owner.
            Incoming::Direct(message) => {
                if self.partitions.serves(message.partition) {
                    let job = self.reader.direct(message);
                    self.direct.push_back(job);
                }
            }
            Incoming::Gap(gap) => self.gap(gap),
            Incoming::TaskLost {
                partition,
                namespace,
                token,
            } => {
                if self.partitions.serves(partition)
                    && let Some(job) = self.reader.task_lost(&namespace, &token)
                {
                    self.direct.push_back(job);
                }
            }
            Incoming::Idle {
                partition,
                cursor,
                reader,
            } => self.idle(partition, cursor, reader),
            Incoming::Reconnected => {
                let until = self.clock.now().plus(self.config.timeout_grace);
                for (_, partition) in self.partitions.iter_mut() {
                    partition.grace_until = until;
                }
            }
        }
    }

    /// The log lost something: it is said once, by its range, and reading goes on behind it.
    fn gap(&mut self, gap: crate::bus::LogGap) {
        let Some(partition) = self.partitions.get_mut(gap.partition) else {
            return;
        };
        if partition.reader != gap.reader || partition.leaving_after.is_some() {
            return;
        }
        let (from, to) = (gap.lost_after.sequence, gap.resumes_at.sequence);
        metrics::counter!(metric::LOG_GAPS).increment(1);
        if gap.lost_after.stream == gap.resumes_at.stream {
            metrics::counter!(metric::LOG_GAP_MESSAGES).increment(from.saturating_sub(to));
        }
        tracing::error!(
            code = "KN0340",
            partition = gap.partition,
            after_sequence = from,
            after_time = %gap.lost_after.at.to_utc(),
            stream = %gap.lost_after.stream,
            resumes_after_sequence = to,
            resumed_stream = %gap.resumes_at.stream,
            "the log is not the one that was read: messages stored after this position and not yet taken are lost unless \
             their publishers send them again"
        );
        partition.queue.clear();
        partition.applied = gap.resumes_at.clone();
        self.building.cursor(gap.partition, gap.resumes_at);
    }

    /// Nothing more lies in a partition's log: its cursor follows the stream, so that the log can be purged behind it.
    fn idle(&mut self, number: i16, cursor: crate::store::Cursor, reader: u64) {
        let Some(partition) = self.partitions.get_mut(number) else {
            return;
        };
        if partition.reader == reader
            && partition.leaving_after.is_none()
            && partition.queue.is_empty()
            && cursor.sequence > partition.applied.sequence
        {
            partition.applied = cursor.clone();
            self.building.cursor(number, cursor);
        }
    }

    /// Applies whatever is ready: first what no log orders, then each partition in its order.
    fn perform_all(&mut self) {
        while !self.batch_is_full() {
            let Some(job) = self.direct.pop_front() else { break };
            match self.perform(job) {
                Step::Done => {}
                Step::Lacks(mut job) | Step::Blocked(mut job) => {
                    self.note_wants(&mut job);
                    self.lacking.push(*job);
                }
                Step::Reset => return,
            }
        }
        let number = self.building.number;
        for partition in self.partitions.served() {
            while !self.batch_is_full() {
                let Some(owned) = self.partitions.get_mut(partition) else {
                    break;
                };
                if owned.blocked_in.is_some_and(|blocked| blocked >= number) {
                    break;
                }
                owned.blocked_in = None;
                let Some(job) = owned.queue.pop_front() else { break };
                match self.perform(job) {
                    Step::Done => {}
                    Step::Lacks(job) => {
                        if let Some(owned) = self.partitions.get_mut(partition) {
                            owned.queue.push_front(*job);
                        }
                        self.want_queue(partition);
                        break;
                    }
                    Step::Blocked(job) => {
                        if let Some(owned) = self.partitions.get_mut(partition) {
                            owned.queue.push_front(*job);
                            owned.blocked_in = Some(number);
                        }
                        break;
                    }
                    Step::Reset => return,
                }
            }
        }
    }

    /// Everything that the jobs of a queue will ask for, in one look-up.
    fn want_queue(&mut self, partition: i16) {
        let Some(owned) = self.partitions.get_mut(partition) else {
            return;
        };
        let mut queue = std::mem::take(&mut owned.queue);
        for job in &mut queue {
            self.note_wants(job);
        }
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.queue = queue;
        }
    }

    /// Notes what a job lacks, unless a look-up that was asked for it has yet to return.
    fn note_wants(&mut self, job: &mut Job) {
        let done = self.fetches_done;
        if job.asked_in.max(job.asked_run).is_some_and(|fetch| fetch > done) {
            return;
        }
        let next = Some(self.fetches + 1);
        let (live, wanted) = (&self.live, &mut self.wanted);
        // An id's open run, or that nothing is known of the id.
        let open_run = |key: &IdKey| {
            live.ids.get(key).map(|info| {
                info.open()
                    .map(|open| open.row.run_id)
                    .filter(|run| !live.contains(*run))
            })
        };
        match &job.kind {
            JobKind::Start(start) => {
                let key: IdKey = (start.namespace.clone(), start.workflow_id.clone());
                match open_run(&key) {
                    None => {
                        wanted.id(&key, Some(&start.request_id));
                        job.asked_in = next;
                    }
                    Some(Some(run)) => {
                        wanted.run(run);
                        job.asked_run = next;
                    }
                    Some(None) => {}
                }
                if let Some(version) = start.version
                    && self
                        .definitions
                        .resolve(&start.namespace, &start.workflow, Some(version))
                        .is_none()
                {
                    wanted.version(&start.namespace, &start.workflow, version);
                    job.asked_in = next;
                }
            }
            JobKind::UnkeyedStart(start) => {
                wanted.definitions();
                if let Some(version) = start.version {
                    wanted.version(&start.namespace, &start.workflow, version);
                }
                job.asked_in = next;
            }
            JobKind::Verb(verb) => {
                let key: IdKey = (verb.namespace.clone(), verb.workflow_id.clone());
                match open_run(&key) {
                    None => {
                        wanted.open_run(&key);
                        (job.asked_in, job.asked_run) = (next, next);
                    }
                    Some(Some(run)) => {
                        wanted.run(run);
                        job.asked_run = next;
                    }
                    Some(None) => {}
                }
            }
            JobKind::Result { run_id, .. }
            | JobKind::Beat { run_id, .. }
            | JobKind::Wake { run_id }
            | JobKind::TaskLost { run_id, .. }
            | JobKind::Held { run_id, .. }
            | JobKind::Unpublishable { run_id, .. } => {
                if !live.contains(*run_id) {
                    wanted.run(*run_id);
                    job.asked_run = next;
                }
            }
            JobKind::Refused(_) => {}
        }
    }

    /// Looks up what is wanted, beside the loop; one look-up at a time, so that an answer is never older than a change.
    fn look_up(&mut self) {
        let now = tokio::time::Instant::now();
        if self.fetching.is_some() || self.wanted.is_empty() || self.fetch_after.is_some_and(|at| at > now) {
            return;
        }
        self.fetch_after = None;
        self.live.forget_ids(self.committed);
        self.fetches += 1;
        let number = self.fetches;
        self.fetching = Some(number);
        self.fetch_readers = self.partitions.newest_reader();
        let wanted = std::mem::take(&mut self.wanted);
        let (store, definitions) = (Arc::clone(&self.store), Arc::clone(&self.definitions));
        let (life, done) = (self.life, self.done.clone());
        self.tasks.spawn(async move {
            let result = fetch::fetch(&*store, &definitions, wanted).await;
            let _ = done.send(Done::Fetched { life, number, result });
        });
    }

    fn fetched(&mut self, number: u64, result: Result<Fetched, StoreError>) {
        self.fetching = None;
        let fetched = match result {
            Ok(fetched) => {
                self.health.set_store(true);
                fetched
            }
            Err(error) => {
                tracing::warn!(%error, "a look-up failed and is repeated");
                self.fetch_after = Some(tokio::time::Instant::now() + Duration::from_millis(100));
                self.forget_asked(number);
                return;
            }
        };
        self.fetches_done = number;
        for (key, rows) in fetched.ids {
            if !self
                .partitions
                .opened_since(self.partition_of(&key.0, &key.1), self.fetch_readers)
            {
                self.live.learn(key, rows);
            }
        }
        for loaded in fetched.runs {
            let run_id = loaded.row.run_id;
            let partition = loaded.row.partition;
            let stale = self.partitions.opened_since(partition, self.fetch_readers);
            if self.live.contains(run_id) || !self.partitions.serves(partition) || stale {
                continue;
            }
            if let Some(reference) = RunRef::new(&loaded.state, loaded.row.partition) {
                let live = Live::new(loaded.state, loaded.plan, Arc::new(reference), loaded.row);
                self.live.insert(run_id, live);
                let now = self.clock.now();
                self.raise_wake(run_id, now);
            }
        }
        let lacking = std::mem::take(&mut self.lacking);
        self.direct.extend(lacking);
    }

    /// A look-up that failed has told nothing: its jobs ask again.
    fn forget_asked(&mut self, number: u64) {
        let forget = |job: &mut Job| {
            if job.asked_in == Some(number) {
                job.asked_in = None;
            }
            if job.asked_run == Some(number) {
                job.asked_run = None;
            }
        };
        self.lacking.iter_mut().for_each(forget);
        self.direct.iter_mut().for_each(forget);
        for (_, partition) in self.partitions.iter_mut() {
            partition.queue.iter_mut().for_each(forget);
        }
        // Numbers are compared with the last that returned.
        self.fetches_done = number;
        let numbers: Vec<i16> = self.partitions.served();
        for partition in numbers {
            self.want_queue(partition);
        }
        let mut lacking = std::mem::take(&mut self.lacking);
        for job in &mut lacking {
            self.note_wants(job);
        }
        self.lacking = lacking;
    }

    /// Asks the store for deadlines of the near future, now and then.
    fn scan(&mut self) {
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

    fn scanned(&mut self, until: Timestamp, result: Result<Vec<(RunId, Timestamp)>, StoreError>, full: bool) {
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

    /// Closes the batch and commits it, if no other commit is under way.
    fn commit(&mut self) {
        if self.committing.is_some() || self.building.is_empty() {
            return;
        }
        failpoint::pass(Stage::Applied);
        if !self.building.needs_commit() {
            // Only repeats: everything they are told is durable already.
            let sealed = self.next_batch().seal(&self.live);
            self.committed = sealed.number;
            self.let_out(None, sealed.outbound);
            return;
        }
        let published = std::mem::take(&mut self.published);
        self.building.published(published);
        let sealed = self.next_batch().seal(&self.live);
        let store = Arc::clone(&self.store);
        let batch = Arc::clone(&sealed.batch);
        let (session, life, done) = (self.session, self.life, self.done.clone());
        self.committing = Some(sealed);
        self.tasks.spawn(async move {
            let began = Instant::now();
            let result = store.commit(&session, &batch).await;
            let _ = done.send(Done::Committed {
                life,
                result,
                took: began.elapsed(),
            });
        });
    }

    fn commit_returned(&mut self, result: Result<(), CommitError>, took: Duration) {
        let Some(sealed) = self.committing.take() else { return };
        match result {
            Ok(()) => {
                metrics::histogram!(metric::COMMIT_SECONDS).record(took.as_secs_f64());
                metrics::histogram!(metric::BATCH_TRANSITIONS).record(sealed.batch.appends.len() as f64);
                metrics::counter!(metric::TRANSITIONS).increment(sealed.batch.appends.len() as u64);
                self.health.set_store(true);
                self.careful = self.careful.saturating_sub(sealed.inputs);
                self.batch_landed(sealed);
            }
            Err(CommitError::BadData(problem)) => {
                metrics::counter!(metric::COMMIT_ERRORS, "kind" => "bad_data").increment(1);
                tracing::error!(%problem, inputs = sealed.inputs, "the store refuses a batch");
                self.published.extend(sealed.batch.published.iter().copied());
                if sealed.inputs <= 1 {
                    if let Some(key) = self.suspect(&sealed) {
                        self.poisoned.insert(key);
                    }
                    self.careful = self.careful.max(1);
                } else {
                    // One by one from here, until the culprit has been met.
                    self.careful = sealed.inputs + self.building.inputs;
                }
                self.reset("the store refused a batch");
            }
            Err(CommitError::Fenced) => {
                metrics::counter!(metric::COMMIT_ERRORS, "kind" => "fenced").increment(1);
                self.published.extend(sealed.batch.published.iter().copied());
                self.limbo = Some(sealed);
                self.reset("a commit was fenced off");
            }
            Err(CommitError::Unknown(problem)) => {
                metrics::counter!(metric::COMMIT_ERRORS, "kind" => "unknown").increment(1);
                tracing::warn!(%problem, "the outcome of a commit is unknown");
                self.published.extend(sealed.batch.published.iter().copied());
                self.limbo = Some(sealed);
                self.reset("a commit's outcome is unknown");
            }
        }
    }

    /// The one input of a batch that the store refused.
    fn suspect(&self, sealed: &SealedBatch) -> Option<PoisonKey> {
        if let Some(cursor) = sealed.batch.cursors.first() {
            return Some(PoisonKey::Log {
                partition: cursor.partition,
                sequence: cursor.cursor.sequence,
            });
        }
        if let Some(confirm) = sealed.outbound.confirms.first() {
            return Some(PoisonKey::Task {
                token: confirm.token.clone(),
            });
        }
        sealed.runs.first().map(|run_id| PoisonKey::Internal(*run_id))
    }

    fn batch_landed(&mut self, sealed: SealedBatch) {
        failpoint::pass(Stage::Committed);
        self.session.batch_no += 1;
        self.committed = sealed.number;
        for write in &sealed.batch.cursors {
            if let Some(partition) = self.partitions.get_mut(write.partition) {
                partition.committed = write.cursor.clone();
            }
        }
        for commit in &sealed.batch.published {
            self.held.remove(commit);
        }
        for run_id in &sealed.runs {
            if let Some(live) = self.live.get(*run_id)
                && live.state.is_closed()
                && live.touched_in <= self.committed
            {
                metrics::counter!(metric::RUNS_CLOSED, "status" => live.state.status().as_str()).increment(1);
                self.live.remove(*run_id);
            }
        }
        self.live.shrink(self.config.live_runs, self.committed);
        metrics::gauge!(metric::LIVE_RUNS).set(self.live.len() as f64);
        let commit = (!sealed.batch.owed.is_empty()).then_some(CommitId {
            session: self.session.id,
            batch_no: self.session.batch_no,
        });
        self.let_out(commit, sealed.outbound);
    }

    /// Publishes what a committed batch owes, beside the loop.
    fn let_out(&mut self, commit: Option<CommitId>, outbound: Outbound) {
        let publisher = self.publisher.clone();
        let done = self.done.clone();
        self.tasks.spawn(async move {
            let published = publisher.publish(commit, outbound).await;
            let _ = done.send(Done::Published(published));
        });
    }

    pub(super) fn inherit(&mut self, inherited: InheritedCommit) {
        let (publisher, store, definitions) = (
            self.publisher.clone(),
            Arc::clone(&self.store),
            Arc::clone(&self.definitions),
        );
        let done = self.done.clone();
        self.tasks.spawn(async move {
            let published = publisher
                .inherit(&*store, &definitions, inherited, |row| row.partition)
                .await;
            let _ = done.send(Done::Published(published));
        });
    }

    fn publication_ended(&mut self, published: Published) {
        failpoint::pass(Stage::Acknowledged);
        let Some(commit) = published.commit else { return };
        if published.held.is_empty() && published.unpublishable.is_empty() {
            self.published.push(commit);
            return;
        }
        let mut held = HeldCommit {
            left: 0,
            tasks: published.held,
            unpublishable: published.unpublishable,
        };
        if !self.recovering {
            self.direct.extend(held.jobs(commit));
        }
        self.held.insert(commit, held);
    }

    fn report(&mut self, report: Done) {
        match report {
            Done::Published(Some(published)) => self.publication_ended(published),
            Done::Published(None) => {}
            Done::Committed { life, result, took } if life == self.life => self.commit_returned(result, took),
            Done::Fetched { life, number, result } if life == self.life => self.fetched(number, result),
            Done::Kept {
                life,
                share,
                published,
                clock,
            } => {
                self.keeping = false;
                if let Some((now, at)) = clock {
                    self.clock.adjust(now, at);
                }
                if share.is_err() {
                    self.published.extend(published);
                }
                if life == self.life {
                    self.kept(share);
                } else if let Ok(share) = share {
                    // What was owed by the dead is not said twice; the partitions are in the recovered list.
                    for inherited in share.inherited {
                        self.inherit(inherited);
                    }
                }
            }
            Done::Released {
                life,
                partitions,
                result,
            } if life == self.life => {
                if let Err(error) = result {
                    tracing::warn!(%error, ?partitions, "partitions could not be released");
                    self.reset("a release failed");
                }
            }
            Done::Due {
                life,
                until,
                result,
                full,
            } if life == self.life => self.scanned(until, result, full),
            Done::Horizon { life, answer } if life == self.life => self.horizon_answered(answer),
            Done::Recovered {
                life,
                session,
                fenced,
                owned,
            } if life == self.life => {
                self.recovered(session, fenced, owned);
            }
            Done::StillWanted {
                life,
                partition,
                reader,
            } => {
                // A reader that opened late for a state that is gone: whatever it delivers is dropped by its number.
                let wanted = life == self.life
                    && self
                        .partitions
                        .get(partition)
                        .is_some_and(|owned| owned.reader == reader);
                if !wanted {
                    tracing::debug!(partition, "a late reader is not wanted any more");
                }
            }
            _ => {}
        }
    }

    /// Drops everything that is not durable and begins again from the store.
    pub(super) fn reset(&mut self, why: &'static str) {
        if self.recovering {
            return;
        }
        tracing::warn!(why, "memory is dropped and read again");
        self.life += 1;
        self.recovering = true;
        if let Some(sealed) = self.committing.take() {
            self.published.extend(sealed.batch.published.iter().copied());
            self.limbo = Some(sealed);
        }
        let number = self.building.number;
        let dropped = std::mem::replace(&mut self.building, BatchBuilder::new(number + 1)).seal(&self.live);
        self.published.extend(dropped.batch.published.iter().copied());
        self.committed = number;
        self.live.clear();
        self.lacking.clear();
        self.direct.clear();
        // A commit is published once what was refused of it is recorded, and that has just been dropped.
        let held = &self.held;
        self.published.retain(|commit| !held.contains_key(commit));
        self.wanted = Wanted::default();
        self.fetching = None;
        self.fetches_done = self.fetches;
        self.fetch_after = None;
        self.alarms.clear();
        self.gate = Gate::default();
        self.scanning = false;
        self.partitions.clear();
        self.recover();
    }

    fn recover(&mut self) {
        let store = Arc::clone(&self.store);
        let (session, life, done) = (self.session, self.life, self.done.clone());
        let replica = self.config.replica.clone();
        let health = Arc::clone(&self.health);
        self.tasks.spawn(async move {
            let mut session = session;
            let mut fenced = false;
            loop {
                if done.is_closed() {
                    return;
                }
                let attempt = async {
                    let next = if fenced {
                        store.open_session(&replica).await?
                    } else {
                        store.recover(&session).await?
                    };
                    // A session of its own from here, so that a failure below does not open another.
                    let owned = store.cursors(&next).await?;
                    Ok::<_, StoreError>((next, owned))
                };
                match attempt.await {
                    Ok((next, owned)) => {
                        let _ = done.send(Done::Recovered {
                            life,
                            session: next,
                            fenced,
                            owned,
                        });
                        return;
                    }
                    Err(StoreError::Fenced) => fenced = true,
                    Err(error) => {
                        health.set_store(false);
                        tracing::warn!(%error, "the store is not back yet");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                session.epoch = session.epoch.max(0);
            }
        });
    }

    fn recovered(&mut self, session: Session, fenced: bool, owned: Vec<OwnedPartition>) {
        let before = std::mem::replace(&mut self.session, session);
        self.recovering = false;
        self.health.set_store(true);
        tracing::info!(partitions = owned.len(), "recovered");
        if let Some(limbo) = self.limbo.take()
            && !fenced
            && session.batch_no > before.batch_no
        {
            // It was committed after all: what it owes is published as for any other.
            let commit = (!limbo.batch.owed.is_empty()).then_some(CommitId {
                session: session.id,
                batch_no: before.batch_no + 1,
            });
            self.let_out(commit, limbo.outbound);
        }
        for (commit, held) in &mut self.held {
            self.direct.extend(held.jobs(*commit));
        }
        self.gained(owned);
        self.keep();
    }

    /// Begins the end: nothing more is taken, what was taken is committed.
    fn stop(&mut self) {
        tracing::info!("stopping: handing over");
        self.stopping = true;
        for partition in self.partitions.served() {
            let bus = Arc::clone(&self.bus);
            self.tasks.spawn(async move { bus.close_partition(partition).await });
        }
    }

    /// Waits for publications, a while, and ends the session.
    async fn leave(self) {
        self.tasks.close();
        let publishing = self.tasks.wait();
        if tokio::time::timeout(Duration::from_secs(3), publishing).await.is_err() {
            // The commit's row stays: whoever takes over publishes again.
            self.publisher.stop.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
        if let Err(error) = self.store.close_session(&self.session).await {
            tracing::warn!(%error, "the session could not be ended; its lease will");
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What of a commit could not be published, and has to be recorded in its runs.
#[derive(Debug, Default)]
pub(super) struct HeldCommit {
    /// Not yet recorded, not even in the batch that is being built.
    pub(super) left: usize,
    tasks: Vec<(RunId, TaskNo)>,
    unpublishable: Vec<(RunId, Arc<str>)>,
}

impl HeldCommit {
    fn jobs(&mut self, commit: CommitId) -> Vec<Job> {
        self.left = self.tasks.len() + self.unpublishable.len();
        let held = self.tasks.iter().map(|(run_id, task)| JobKind::Held {
            run_id: *run_id,
            task: *task,
            commit,
        });
        let lost = self
            .unpublishable
            .iter()
            .map(|(run_id, reason)| JobKind::Unpublishable {
                run_id: *run_id,
                reason: Arc::clone(reason),
                commit,
            });
        held.chain(lost).map(Job::internal).collect()
    }
}
