//! The reference model of the store: the same answers as PostgreSQL gives, from maps behind one lock; deterministic, with
//! a clock that moves when it is told to, and failures on request.
//!
//! It is not a second product: nothing is durable, and every operation is as slow as its simplest correct form. In one
//! respect it is stricter than PostgreSQL: numbers in search attributes have to fit what `serde_json` reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::run::schedule::WORKFLOW as SCHEDULE;
use knarr_core::run::trigger::WORKFLOW as TRIGGER;
use knarr_core::time::{Span, Timestamp};
use uuid::Uuid;

use self::state::State;
use super::{
    Batch, ClosedRun, Cluster, CommitError, CommitId, DefaultVersion, DeferredInput, DeferredName, DefinitionFilter,
    DefinitionHeads, DefinitionRow, Due, DuePage, FORMAT_LEVEL, Found, InheritedCommit, LimitLine, LimitUse,
    NamespaceRow, OwnedPartition, PermitRow, PlaceAsked, QueueRow, Registered, RunFilter, RunRow, RunSize, Session,
    Share, Store, StoreError, StoredDefinition, StoredRun, StoredTransition,
};

mod commit;
mod definitions;
#[cfg(test)]
mod dump;
mod lease;
mod queues;
mod runs;
mod state;

/// What is to happen to a commit instead of its normal course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// The connection is lost before the batch arrives.
    LostBefore,
    /// The batch takes effect and its answer is lost.
    LostAfter,
    /// The data is refused, whatever it is.
    Refused,
}

/// A handle of one process on a shared store: clones are the same process, [`MemoryStore::another_process`] is not.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    process: u64,
    /// The newest storage format that this process can read.
    reads_format: i32,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store whose clock stands at the Unix epoch.
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            process: 0,
            reads_format: FORMAT_LEVEL,
        }
    }

    /// A handle of another process on the same store.
    #[must_use]
    pub fn another_process(&self) -> Self {
        let mut state = self.lock();
        state.processes += 1;
        Self {
            state: Arc::clone(&self.state),
            process: state.processes,
            reads_format: self.reads_format,
        }
    }

    /// The same process with a binary that reads storage formats up to this one.
    #[must_use]
    pub fn reading(mut self, format: i32) -> Self {
        self.reads_format = format;
        self
    }

    /// The process dies: its session locks fall. Its leases stay until they end.
    pub fn kill_process(&self) {
        let process = self.process;
        self.lock().locks.retain(|_, holder| *holder != process);
    }

    pub fn set_now(&self, now: Timestamp) {
        self.lock().now = now;
    }

    pub fn advance(&self, by: Span) {
        let mut state = self.lock();
        state.now = state.now.plus(by);
    }

    /// Ends a session's lease, as if it had not been renewed in time.
    pub fn lapse(&self, session: Uuid) {
        let mut state = self.lock();
        let past = Timestamp(state.now.0.saturating_sub(1));
        if let Some(row) = state.sessions.get_mut(&session) {
            row.lease_until = past;
        }
    }

    /// Queued: each commit takes one.
    pub fn fail_next_commit(&self, fault: CommitFault) {
        self.lock().faults.push_back(fault);
    }

    /// As its retention does, be it closed or not.
    pub fn forget_run(&self, run: RunId) {
        let mut state = self.lock();
        state.runs.remove(&run);
        state.events.retain(|(_, of, _), _| *of != run);
        state.snapshots.remove(&run);
    }

    /// While it is not available commits have an unknown outcome (none) and everything else says so.
    pub fn set_available(&self, available: bool) {
        self.lock().unavailable = !available;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No operation leaves the state half-changed: validation comes before the first write.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn available(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        if state.unavailable {
            return Err(StoreError::Unavailable("it was switched off".to_owned()));
        }
        Ok(state)
    }
}

impl Store for MemoryStore {
    async fn prepare(&self, partitions: u16) -> Result<Cluster, StoreError> {
        self.available()?.prepare(partitions, self.reads_format)
    }

    async fn ensure_partitions(&self, _now: Timestamp) -> Result<(), StoreError> {
        self.available().map(|_| ())
    }

    async fn format_level(&self) -> Result<i32, StoreError> {
        Ok(self.available()?.format_level())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.available()?.now)
    }

    async fn open_session(&self, replica: &str) -> Result<Session, StoreError> {
        self.available()?.open_session(self.process, self.reads_format, replica)
    }

    async fn keep(&self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        self.available()?.keep(session, published)
    }

    async fn release(&self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        self.available()?.release(session, partitions)
    }

    async fn close_session(&self, session: &Session) -> Result<(), StoreError> {
        self.available()?.close_session(self.process, session)
    }

    async fn recover(&self, session: &Session) -> Result<Session, StoreError> {
        self.available()?.recover(session)
    }

    async fn cursors(&self, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
        self.available()?.cursors(session)
    }

    async fn all_cursors(&self) -> Result<Vec<OwnedPartition>, StoreError> {
        self.available()?.all_cursors()
    }

    async fn commit(&self, session: &Session, batch: &Batch) -> Result<(), CommitError> {
        let mut state = self.lock();
        if state.unavailable {
            return Err(CommitError::Unknown("it was switched off".to_owned()));
        }
        match state.faults.pop_front() {
            None => state.commit(session, batch),
            Some(CommitFault::LostBefore) => Err(CommitError::Unknown("the connection was lost before".to_owned())),
            Some(CommitFault::LostAfter) => {
                state.commit(session, batch)?;
                Err(CommitError::Unknown("the connection was lost after".to_owned()))
            }
            Some(CommitFault::Refused) => Err(CommitError::BadData("refused on request".to_owned())),
        }
    }

    async fn owed(&self, session: &Session, commits: &[CommitId]) -> Result<Vec<InheritedCommit>, StoreError> {
        self.available()?.owed(session, commits)
    }

    async fn find_runs(&self, ids: &[(Namespace, WorkflowId, Option<RequestId>)]) -> Result<Found, StoreError> {
        self.available()?.find_runs(ids)
    }

    async fn closed_runs(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        before: Option<Uuid>,
    ) -> Result<Vec<ClosedRun>, StoreError> {
        self.available()?.closed_runs(namespace, workflow_id, before)
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, StoreError> {
        self.available()?.load_runs(ids)
    }

    async fn run_row(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        self.available()?.run_row(run)
    }

    async fn run_sizes(&self, ids: &[RunId]) -> Result<Vec<RunSize>, StoreError> {
        self.available()?.run_sizes(ids)
    }

    async fn deferred_names(&self, partition: i16) -> Result<Vec<DeferredName>, StoreError> {
        self.available()?.deferred_names(partition)
    }

    async fn deferred(&self, partition: i16, run: RunId, after: i64) -> Result<Vec<DeferredInput>, StoreError> {
        self.available()?.deferred(partition, run, after)
    }

    async fn permits(&self, partition: i16) -> Result<Vec<PermitRow>, StoreError> {
        Ok(self.available()?.permits(partition))
    }

    async fn ids_queued_for(&self, partition: i16) -> Result<Vec<(Namespace, WorkflowId)>, StoreError> {
        Ok(self.available()?.ids_queued_for(partition))
    }

    async fn set_queue(&self, row: &QueueRow) -> Result<(), StoreError> {
        self.available()?.set_queue(row)
    }

    async fn queues(&self) -> Result<Vec<QueueRow>, StoreError> {
        Ok(self.available()?.queues())
    }

    async fn limits_in_use(&self, namespace: &Namespace) -> Result<Vec<LimitUse>, StoreError> {
        Ok(self.available()?.limits_in_use(namespace))
    }

    async fn line_of(&self, namespace: &Namespace, asked: &PlaceAsked) -> Result<LimitLine, StoreError> {
        Ok(self.available()?.line_of(namespace, asked))
    }

    async fn history(&self, run: RunId, after: i32, limit: u32) -> Result<Vec<StoredTransition>, StoreError> {
        self.available()?.history(run, after, limit)
    }

    async fn due(&self, partitions: &[i16], page: DuePage) -> Result<Due, StoreError> {
        self.available()?.due(partitions, page)
    }

    async fn definition_heads(&self) -> Result<DefinitionHeads, StoreError> {
        self.available()?.definition_heads()
    }

    async fn register_definition(&self, definition: &StoredDefinition) -> Result<Registered, StoreError> {
        self.available()?.register_definition(definition)
    }

    async fn set_default_version(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        default: Option<&DefaultVersion>,
    ) -> Result<bool, StoreError> {
        self.available()?.set_default_version(namespace, workflow, default)
    }

    async fn definition(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.available()?.definition(namespace, workflow, version)
    }

    async fn definition_by_hash(&self, hash: &DefinitionHash) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        self.available()?.definition_by_hash(hash)
    }

    async fn list_definitions(
        &self,
        namespace: &Namespace,
        filter: &DefinitionFilter,
    ) -> Result<Vec<DefinitionRow>, StoreError> {
        self.available()?.list_definitions(namespace, filter)
    }

    async fn definition_bodies(&self, hashes: &[DefinitionHash]) -> Result<Vec<(DefinitionHash, String)>, StoreError> {
        self.available()?.definition_bodies(hashes)
    }

    async fn create_namespace(&self, namespace: &NamespaceRow) -> Result<bool, StoreError> {
        self.available()?.create_namespace(namespace)
    }

    async fn set_events(&self, namespace: &Namespace, events: bool) -> Result<bool, StoreError> {
        Ok(self.available()?.set_events(namespace, events))
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        self.available()?.namespaces()
    }

    async fn count_parked(&self) -> Result<u64, StoreError> {
        Ok(self.available()?.count_parked())
    }

    async fn list_runs(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.available()?.list_runs(namespace, filter)
    }

    async fn list_schedules(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        self.available()?.list_actors(SCHEDULE, namespace, after, limit)
    }

    async fn list_triggers(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        self.available()?.list_actors(TRIGGER, namespace, after, limit)
    }

    async fn triggers(&self, partitions: &[i16]) -> Result<Vec<RunId>, StoreError> {
        Ok(self.available()?.triggers_of(partitions))
    }
}
