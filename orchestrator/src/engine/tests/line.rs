//! Store and bus as one replica reaches them: every call takes a while, can be lost, and the replica can die at any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use knarr_core::ids::{DefinitionHash, Namespace, QueueName, RequestId, RunId, TaskNo, WorkflowId, WorkflowName};
use knarr_core::run::{Event, State, Transition, evolve};
use knarr_core::time::Timestamp;
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From as ReadFrom;
use knarr_schemas::{body, header as names};
use tokio::sync::Notify;
use uuid::Uuid;

use super::super::fetch;
use crate::bus::inlet::Inlet;
use crate::bus::memory::MemoryBus;
use crate::bus::source::Feed;
use crate::bus::{Bus, BusError, HeadRoom, Outgoing, PublishError, QueueSettings, Undelivered, header};
use crate::store::memory::{CommitFault, MemoryStore};
use crate::store::*;

/// A small generator: the same seed gives the same faults.
#[derive(Debug)]
pub(super) struct Random(Mutex<u64>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    pub(super) fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Below `limit`.
    pub(super) fn below(&self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(super) fn one_in(&self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }
}

/// What a replica's calls meet with.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// The most that each half of a call takes, in milliseconds.
    pub(super) latency_ms: AtomicU64,
    /// A commit takes so long beside that, in milliseconds.
    pub(super) commit_ms: AtomicU64,
    /// Commits fail, and nothing else does.
    pub(super) disk_is_full: AtomicBool,
    /// One in so many commits is lost, before or after its effect; 0 = none.
    pub(super) lose_commit: AtomicU64,
    /// One in so many reads of the store fails.
    pub(super) fail_read: AtomicU64,
    /// One in so many publications is not acknowledged, stored or not.
    pub(super) lose_publication: AtomicU64,
    /// A batch with this in one of its events is refused.
    pub(super) refuses: Mutex<Option<String>>,
    /// The next call of this name panics.
    pub(super) panics: Mutex<Option<&'static str>>,
    /// The end of this partition's log lies further away than anybody reads.
    pub(super) endless_log: Mutex<Option<i16>>,
    /// While it is there, loads of this run do not return.
    pub(super) withholds: Mutex<Option<RunId>>,
    /// What is read of the sizes of runs returns so late, in milliseconds.
    pub(super) answers_late_ms: AtomicU64,
    /// The next look-up of runs takes three seconds, and its answer is lost.
    pub(super) loses_look_up: AtomicBool,
    /// Each renewal tells of all partitions as if they had just been gained.
    pub(super) repeats_gained: AtomicBool,
    /// Snapshots come back as something else.
    pub(super) spoils_snapshots: AtomicBool,
    /// And so do events.
    pub(super) spoils_events: AtomicBool,
    /// Or those of this run alone.
    pub(super) spoils_run: Mutex<Option<RunId>>,
    /// Publications whose subject begins with this are not acknowledged.
    pub(super) loses_subject: Mutex<Option<&'static str>>,
    /// Questions about the queues of this namespace are not answered.
    pub(super) mute: Mutex<Option<&'static str>>,
    /// So many attempts to take a task out of its queue fail.
    pub(super) fail_withdrawals: AtomicU64,
    /// What is noticed of each after that time, in milliseconds.
    pub(super) notices_after_ms: AtomicU64,
}

/// The line from one replica to everything outside of it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) random: Random,
    pub(super) weather: Arc<Weather>,
    crossings: AtomicU64,
    /// The replica dies at this crossing; 0 = never.
    pub(super) dies_at: AtomicU64,
    dead: AtomicBool,
    stalls_until: Mutex<Option<tokio::time::Instant>>,
    pub(super) died: Notify,
    pub(super) commits: AtomicU64,
    pub(super) keeps: AtomicU64,
    pub(super) publications: AtomicU64,
    /// Partitions that were opened, each time.
    pub(super) opened: AtomicU64,
    /// The most bytes of messages that one answer about owed commits had.
    pub(super) most_owed: AtomicU64,
    /// Questions to the store, beside renewals and commits.
    pub(super) reads: AtomicU64,
    /// Those of them that ask for deadlines.
    pub(super) dues: AtomicU64,
    /// Runs that were asked for by their ids.
    pub(super) loads: AtomicU64,
    /// What must never happen and did.
    pub(super) crimes: Mutex<Vec<String>>,
}

impl Line {
    pub(super) fn new(seed: u64, weather: Arc<Weather>) -> Arc<Self> {
        Arc::new(Self {
            random: Random::new(seed),
            weather,
            crossings: AtomicU64::new(0),
            dies_at: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            stalls_until: Mutex::default(),
            died: Notify::new(),
            commits: AtomicU64::new(0),
            keeps: AtomicU64::new(0),
            publications: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            most_owed: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            dues: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            crimes: Mutex::default(),
        })
    }

    /// From here on nothing of the replica reaches the outside, and nothing it waits for returns.
    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// Every call from now on takes until then.
    pub(super) fn stall(&self, time: Duration) {
        *self.stalls_until.lock().unwrap() = Some(tokio::time::Instant::now() + time);
    }

    pub(super) fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::SeqCst)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    async fn cross(&self) {
        let number = self.crossings.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.dies_at.load(Ordering::SeqCst) {
            self.die();
        }
        let stalls = *self.stalls_until.lock().unwrap();
        if let Some(end) = stalls {
            tokio::time::sleep_until(end).await;
        }
        let latency = self.weather.latency_ms.load(Ordering::SeqCst);
        if latency > 0 && !self.is_dead() {
            tokio::time::sleep(Duration::from_millis(self.random.below(latency + 1))).await;
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Stands in for a bug of store or bus.
    fn perhaps_panic(&self, call: &'static str) {
        let mut panics = self.weather.panics.lock().unwrap();
        if *panics == Some(call) {
            *panics = None;
            drop(panics);
            panic!("a panic in {call}, asked for by a test");
        }
    }

    async fn read<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.cross().await;
        if self.random.one_in(self.weather.fail_read.load(Ordering::SeqCst)) {
            return Err(StoreError::Unavailable("the line is down".to_owned()));
        }
        let answer = call.await;
        self.cross().await;
        answer
    }

    fn spoil(&self, run: RunId, transitions: &mut [StoredTransition]) {
        let all = self.weather.spoils_events.load(Ordering::SeqCst);
        if all || *self.weather.spoils_run.lock().unwrap() == Some(run) {
            for transition in transitions {
                "[{}]".clone_into(&mut transition.body);
            }
        }
    }

    fn crime(&self, what: String) {
        self.crimes.lock().unwrap().push(what);
    }
}

/// The store, by a line.
#[derive(Debug)]
pub(super) struct LineStore {
    pub(super) line: Arc<Line>,
    pub(super) store: MemoryStore,
}

impl Store for LineStore {
    async fn prepare(&self, partitions: u16) -> Result<Cluster, StoreError> {
        self.store.prepare(partitions).await
    }

    async fn ensure_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        self.line.read(self.store.ensure_partitions(now)).await
    }

    async fn format_level(&self) -> Result<i32, StoreError> {
        self.line.read(self.store.format_level()).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        if self.line.is_dead() {
            std::future::pending::<()>().await;
        }
        self.store.now().await
    }

    async fn open_session(&self, replica: &str) -> Result<Session, StoreError> {
        self.store.open_session(replica).await
    }

    async fn keep(&self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        self.line.perhaps_panic("keep");
        self.line.keeps.fetch_add(1, Ordering::SeqCst);
        self.line.cross().await;
        let mut share = self.store.keep(session, published).await;
        if self.line.weather.repeats_gained.load(Ordering::SeqCst)
            && let Ok(share) = &mut share
        {
            share.gained = self.store.cursors(session).await?;
        }
        self.line.cross().await;
        share
    }

    async fn release(&self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        self.line.perhaps_panic("release");
        self.line.cross().await;
        let released = self.store.release(session, partitions).await;
        self.line.cross().await;
        released
    }

    async fn close_session(&self, session: &Session) -> Result<(), StoreError> {
        self.line.cross().await;
        self.store.close_session(session).await
    }

    async fn recover(&self, session: &Session) -> Result<Session, StoreError> {
        self.line.perhaps_panic("recover");
        self.line.read(self.store.recover(session)).await
    }

    async fn cursors(&self, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
        self.line.read(self.store.cursors(session)).await
    }

    async fn all_cursors(&self) -> Result<Vec<OwnedPartition>, StoreError> {
        self.line.read(self.store.all_cursors()).await
    }

    async fn commit(&self, session: &Session, batch: &Batch) -> Result<(), CommitError> {
        self.line.perhaps_panic("commit");
        self.line.cross().await;
        if self.line.weather.disk_is_full.load(Ordering::SeqCst) {
            self.line.commits.fetch_add(1, Ordering::SeqCst);
            return Err(CommitError::Unknown("no space left on device".to_owned()));
        }
        if let Some(poison) = &*self.line.weather.refuses.lock().unwrap()
            && batch
                .appends
                .iter()
                .any(|append| append.transition.body.contains(poison.as_str()))
        {
            return Err(CommitError::BadData("it is poison".to_owned()));
        }
        if self
            .line
            .random
            .one_in(self.line.weather.lose_commit.load(Ordering::SeqCst))
        {
            let fault = if self.line.random.one_in(2) {
                CommitFault::LostBefore
            } else {
                CommitFault::LostAfter
            };
            self.store.fail_next_commit(fault);
        }
        let takes = self.line.weather.commit_ms.load(Ordering::SeqCst);
        if takes > 0 {
            tokio::time::sleep(Duration::from_millis(takes)).await;
        }
        if self.line.is_dead() {
            // The statement had yet to reach the server.
            std::future::pending::<()>().await;
        }
        let result = self.store.commit(session, batch).await;
        self.line.commits.fetch_add(1, Ordering::SeqCst);
        if result.is_ok() {
            for append in &batch.appends {
                let partition = self.store.partition_of(append.run_id);
                if !partition.is_some_and(|partition| batch.partitions.contains(&partition)) {
                    self.line
                        .crime(format!("a batch does not name the partition of {}", append.run_id));
                }
            }
        }
        if let Err(CommitError::BadData(problem)) = &result
            && problem != "refused on request"
        {
            self.line.crime(format!("a batch was refused: {problem}"));
        }
        self.line.cross().await;
        result
    }

    async fn owed(&self, session: &Session, commits: &[CommitId]) -> Result<Vec<InheritedCommit>, StoreError> {
        self.line.perhaps_panic("owed");
        let owed = self.line.read(self.store.owed(session, commits)).await?;
        let messages = owed.iter().filter_map(|commit| commit.owed.messages.as_ref());
        let bytes = messages.map(|text| text.len() as u64).sum();
        self.line.most_owed.fetch_max(bytes, Ordering::SeqCst);
        Ok(owed)
    }

    async fn find_runs(&self, ids: &[(Namespace, WorkflowId, Option<RequestId>)]) -> Result<Found, StoreError> {
        self.line.perhaps_panic("find_runs");
        self.line.read(self.store.find_runs(ids)).await
    }

    async fn closed_runs(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        before: Option<Uuid>,
    ) -> Result<Vec<ClosedRun>, StoreError> {
        self.line.perhaps_panic("closed_runs");
        self.line
            .read(self.store.closed_runs(namespace, workflow_id, before))
            .await
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, StoreError> {
        self.line.perhaps_panic("load_runs");
        self.line.loads.fetch_add(ids.len() as u64, Ordering::SeqCst);
        while self
            .line
            .weather
            .withholds
            .lock()
            .unwrap()
            .is_some_and(|run| ids.contains(&run))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut runs = self.line.read(self.store.load_runs(ids)).await?;
        for run in &mut runs {
            if self.line.weather.spoils_snapshots.load(Ordering::SeqCst)
                && let Some(snapshot) = &mut run.snapshot
            {
                "{}".clone_into(&mut snapshot.body);
            }
            self.line.spoil(run.row.run_id, &mut run.transitions);
        }
        Ok(runs)
    }

    async fn run_row(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        self.line.read(self.store.run_row(run)).await
    }

    async fn run_sizes(&self, ids: &[RunId]) -> Result<Vec<RunSize>, StoreError> {
        if self.line.weather.loses_look_up.swap(false, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(3)).await;
            return Err(StoreError::Unavailable("the answer was lost".to_owned()));
        }
        let sizes = self.line.read(self.store.run_sizes(ids)).await;
        tokio::time::sleep(Duration::from_millis(
            self.line.weather.answers_late_ms.load(Ordering::SeqCst),
        ))
        .await;
        sizes
    }

    async fn deferred_names(&self, partition: i16) -> Result<Vec<DeferredName>, StoreError> {
        self.line.read(self.store.deferred_names(partition)).await
    }

    async fn deferred(&self, partition: i16, run: RunId, after: i64) -> Result<Vec<DeferredInput>, StoreError> {
        self.line.read(self.store.deferred(partition, run, after)).await
    }

    async fn permits(&self, partition: i16) -> Result<Vec<PermitRow>, StoreError> {
        self.line.read(self.store.permits(partition)).await
    }

    async fn ids_queued_for(&self, partition: i16) -> Result<Vec<(Namespace, WorkflowId)>, StoreError> {
        self.line.read(self.store.ids_queued_for(partition)).await
    }

    async fn set_queue(&self, row: &QueueRow) -> Result<(), StoreError> {
        self.store.set_queue(row).await
    }

    async fn queues(&self) -> Result<Vec<QueueRow>, StoreError> {
        self.line.read(self.store.queues()).await
    }

    async fn limits_in_use(&self, namespace: &Namespace) -> Result<Vec<LimitUse>, StoreError> {
        self.store.limits_in_use(namespace).await
    }

    async fn line_of(&self, namespace: &Namespace, asked: &PlaceAsked) -> Result<LimitLine, StoreError> {
        self.store.line_of(namespace, asked).await
    }

    async fn history(&self, run: RunId, after: i32, limit: u32) -> Result<Vec<StoredTransition>, StoreError> {
        let mut history = self.line.read(self.store.history(run, after, limit)).await?;
        self.line.spoil(run, &mut history);
        Ok(history)
    }

    async fn due(&self, partitions: &[i16], page: DuePage) -> Result<Due, StoreError> {
        self.line.perhaps_panic("due");
        self.line.dues.fetch_add(1, Ordering::SeqCst);
        self.line.read(self.store.due(partitions, page)).await
    }

    async fn definition_heads(&self) -> Result<DefinitionHeads, StoreError> {
        self.line.read(self.store.definition_heads()).await
    }

    async fn register_definition(&self, definition: &StoredDefinition) -> Result<Registered, StoreError> {
        self.store.register_definition(definition).await
    }

    async fn set_default_version(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        default: Option<&DefaultVersion>,
    ) -> Result<bool, StoreError> {
        self.store.set_default_version(namespace, workflow, default).await
    }

    async fn definition(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.line
            .read(self.store.definition(namespace, workflow, version))
            .await
    }

    async fn definition_by_hash(&self, hash: &DefinitionHash) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.line.read(self.store.definition_by_hash(hash)).await
    }

    async fn list_definitions(
        &self,
        namespace: &Namespace,
        filter: &DefinitionFilter,
    ) -> Result<Vec<DefinitionRow>, StoreError> {
        self.store.list_definitions(namespace, filter).await
    }

    async fn definition_bodies(&self, hashes: &[DefinitionHash]) -> Result<Vec<(DefinitionHash, String)>, StoreError> {
        self.store.definition_bodies(hashes).await
    }

    async fn create_namespace(&self, namespace: &NamespaceRow) -> Result<bool, StoreError> {
        self.store.create_namespace(namespace).await
    }

    async fn set_events(&self, namespace: &Namespace, events: bool) -> Result<bool, StoreError> {
        self.store.set_events(namespace, events).await
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        self.line.read(self.store.namespaces()).await
    }

    async fn count_parked(&self) -> Result<u64, StoreError> {
        self.line.reads.fetch_add(1, Ordering::SeqCst);
        self.store.count_parked().await
    }

    async fn list_runs(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.store.list_runs(namespace, filter).await
    }

    async fn list_schedules(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        self.store.list_schedules(namespace, after, limit).await
    }

    async fn list_triggers(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        self.store.list_triggers(namespace, after, limit).await
    }

    async fn triggers(&self, partitions: &[i16]) -> Result<Vec<RunId>, StoreError> {
        self.line.cross().await;
        self.store.triggers(partitions).await
    }
}

/// The bus, by a line. Whatever leaves is held against what is committed.
#[derive(Debug)]
pub(super) struct LineBus {
    pub(super) line: Arc<Line>,
    pub(super) bus: MemoryBus,
    /// Not reached by the line.
    pub(super) truth: Arc<Committed>,
}

impl Bus for LineBus {
    fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }

    async fn prepare(&self, cluster: uuid::Uuid, partitions: u16) -> Result<(), BusError> {
        self.bus.prepare(cluster, partitions).await
    }

    async fn ensure_queues(&self, namespace: &Namespace, queues: &[QueueSettings]) -> Result<(), BusError> {
        self.line.cross().await;
        self.bus.ensure_queues(namespace, queues).await
    }

    async fn open_partition(&self, partition: i16, cursor: Cursor, reader: u64, into: Inlet) -> Result<(), BusError> {
        self.line.opened.fetch_add(1, Ordering::SeqCst);
        self.line.cross().await;
        if self
            .line
            .random
            .one_in(self.line.weather.fail_read.load(Ordering::SeqCst))
        {
            return Err(BusError::Unavailable("the line is down".to_owned()));
        }
        self.bus.open_partition(partition, cursor, reader, into).await
    }

    async fn close_partition(&self, partition: i16) {
        self.line.cross().await;
        self.bus.close_partition(partition).await;
    }

    async fn log_tail(&self, partition: i16) -> Result<u64, BusError> {
        self.line.perhaps_panic("log_tail");
        self.line.cross().await;
        let mut tail = self.bus.log_tail(partition).await;
        if *self.line.weather.endless_log.lock().unwrap() == Some(partition) {
            tail = tail.map(|_| u64::MAX);
        }
        self.line.cross().await;
        tail
    }

    async fn purge_log(&self, cursors: &[(i16, Cursor)]) -> Result<(), BusError> {
        self.line.cross().await;
        self.bus.purge_log(cursors).await
    }

    async fn keep_head_room(&self, namespaces: &[Namespace]) -> Result<HeadRoom, BusError> {
        self.line.cross().await;
        self.bus.keep_head_room(namespaces).await
    }

    fn open_source(&self, source: &Source, from: &ReadFrom) -> Feed {
        self.bus.open_source(source, from)
    }

    async fn withdraw(&self, namespace: &Namespace, queue: &QueueName, tasks: &[(RunId, TaskNo)]) -> Vec<Option<bool>> {
        self.line.cross().await;
        if self.is_mute(namespace) {
            // No request to a server is waited for longer.
            tokio::time::sleep(Duration::from_secs(10)).await;
            return vec![None; tasks.len()];
        }
        let fail = &self.line.weather.fail_withdrawals;
        if fail.load(Ordering::SeqCst) > 0 {
            fail.fetch_sub(1, Ordering::SeqCst);
            return vec![None; tasks.len()];
        }
        let withdrawn = self.bus.withdraw(namespace, queue, tasks).await;
        self.line.cross().await;
        withdrawn
    }

    async fn undelivered(&self, namespace: &Namespace, queue: &QueueName) -> Result<Undelivered, BusError> {
        self.line.cross().await;
        if self.is_mute(namespace) {
            std::future::pending::<()>().await;
        }
        let undelivered = self.bus.undelivered(namespace, queue).await;
        self.line.cross().await;
        undelivered
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        self.line.perhaps_panic("publish");
        self.line.publications.fetch_add(1, Ordering::SeqCst);
        let mut results = Vec::with_capacity(messages.len());
        self.line.cross().await;
        for message in messages {
            if self.line.is_dead() {
                std::future::pending::<()>().await;
            }
            self.check(&message);
            let stream = message.delivery == crate::bus::Delivery::Stream;
            if stream
                && self
                    .line
                    .random
                    .one_in(self.line.weather.lose_publication.load(Ordering::SeqCst))
            {
                self.bus.lose_acknowledgements(1, self.line.random.one_in(2));
            }
            let loses = *self.line.weather.loses_subject.lock().unwrap();
            if loses.is_some_and(|prefix| message.subject.starts_with(prefix)) {
                let after = self.line.weather.notices_after_ms.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(after)).await;
                results.push(Err(PublishError::Unacknowledged("asked for by a test".to_owned())));
                continue;
            }
            results.extend(self.bus.publish(vec![message]).await);
        }
        self.line.cross().await;
        results
    }
}

impl LineBus {
    fn is_mute(&self, namespace: &Namespace) -> bool {
        let mute = *self.line.weather.mute.lock().unwrap();
        mute.is_some_and(|mute| mute == namespace.as_str())
    }

    /// Nothing may be said that is not committed.
    fn check(&self, message: &Outgoing) {
        if let Some(task) = header(&message.headers, names::TASK) {
            let run = RunId(header(&message.headers, names::RUN_ID).unwrap().parse().unwrap());
            let task = TaskNo(task.parse().unwrap());
            if self.truth.of(run, |run| run.opened.contains(&task)) != Some(true) {
                self.line
                    .crime(format!("task {} of {run} left before it was committed", task.0));
            }
        } else if let Ok(confirmation) = serde_json::from_slice::<body::Confirmation>(&message.payload) {
            for result in confirmation.results.iter().filter(|result| result.refused.is_none()) {
                let token = knarr_schemas::token::TaskToken::decode(&result.token).unwrap();
                let left = |view: knarr_core::run::OpenTaskView<'_>| view.open.task.0 == token.task && view.open.later;
                let owes = self.truth.of(RunId(token.run_id), |run| {
                    run.state.is_open(TaskNo(token.task))
                        && !run.state.open_tasks().any(left)
                        && run.state.parked_reason().is_none()
                });
                if owes == Some(true) {
                    self.line.crime(format!(
                        "a result of {} was confirmed and is not committed",
                        token.run_id
                    ));
                }
            }
        } else if let Ok(answer) = serde_json::from_slice::<body::Answer>(&message.payload)
            && let Some(run) = answer.run_id
        {
            match self.truth.of(RunId(run), |run| run.state.is_closed()) {
                None => self
                    .line
                    .crime(format!("an answer names {run}, which is not committed")),
                Some(closed) => {
                    if answer.stage == body::AnswerStage::Closed && !closed {
                        self.line.crime(format!("{run} was said to be closed and is not"));
                    }
                }
            }
        }
    }
}

/// What is committed of each run. A history only ever grows, so each transition is folded once.
#[derive(Debug)]
pub(super) struct Committed {
    store: MemoryStore,
    runs: Mutex<BTreeMap<RunId, Folded>>,
}

#[derive(Debug)]
pub(super) struct Folded {
    pub(super) state: State,
    /// The tasks that its events have opened.
    pub(super) opened: BTreeSet<TaskNo>,
}

impl Committed {
    pub(super) fn new(store: MemoryStore) -> Arc<Self> {
        Arc::new(Self {
            store,
            runs: Mutex::default(),
        })
    }

    /// As the last commit has left it.
    pub(super) fn of<T>(&self, run: RunId, look: impl FnOnce(&Folded) -> T) -> Option<T> {
        let history = |after: u32| {
            let after = i32::try_from(after).unwrap();
            let news = self.store.history(run, after, HISTORY_LIMIT).now_or_never();
            news.expect("the memory store does not wait").unwrap()
        };
        let mut runs = self.runs.lock().unwrap();
        let mut known = runs.remove(&run);
        let mut news = history(known.as_ref().map_or(0, |folded| folded.state.seq()));
        // Of a schedule the first events are not kept.
        let next = known.as_ref().map_or(1, |folded| folded.state.seq() + 1);
        if news.first().is_some_and(|first| i64::from(first.seq) > i64::from(next)) {
            known = self.of_snapshot(run);
            news = history(known.as_ref()?.state.seq());
        }
        for stored in news {
            let transition = Transition::read(u32::try_from(stored.seq).unwrap(), stored.at, stored.body).unwrap();
            match &mut known {
                Some(folded) => evolve(&mut folded.state, &transition),
                None => known = State::born(&transition).map(Folded::new),
            }
            let folded = known.as_mut().unwrap();
            folded.opened.extend(transition.events.iter().filter_map(opens));
        }
        let folded = known?;
        let seen = look(&folded);
        runs.insert(run, folded);
        Some(seen)
    }

    fn of_snapshot(&self, run: RunId) -> Option<Folded> {
        let stored = self.store.load_runs(&[run]).now_or_never();
        let stored = stored.expect("the memory store does not wait").unwrap().pop()?;
        Some(Folded::new(fetch::rebuild(&stored).unwrap()))
    }
}

impl Folded {
    fn new(state: State) -> Self {
        Self {
            state,
            opened: BTreeSet::new(),
        }
    }
}

fn opens(event: &Event) -> Option<TaskNo> {
    match event {
        Event::ActivityScheduled(scheduled) => Some(scheduled.task),
        Event::TaskOpened { task, .. } | Event::UndoScheduled { task, .. } => Some(*task),
        _ => None,
    }
}

pub(super) async fn events_of(store: &MemoryStore, run: RunId) -> Vec<Event> {
    let transitions = store.history(run, 0, HISTORY_LIMIT).await.unwrap_or_default();
    let read = |row: StoredTransition| serde_json::from_str::<Vec<Event>>(&row.body).unwrap();
    transitions.into_iter().flat_map(read).collect()
}
