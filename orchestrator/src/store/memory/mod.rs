//! The reference model of the store: the same answers as PostgreSQL gives, from maps behind one lock; deterministic, with
//! a clock that moves when it is told to, and failures on request.
//!
//! It is not a second product: nothing is durable, and every operation is as slow as its simplest correct form. In one
//! respect it is stricter than PostgreSQL: numbers in search attributes have to fit what `serde_json` reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::{Span, Timestamp};
use uuid::Uuid;

use super::{
    Batch, Cluster, CommitError, CommitId, Cursor, DefinitionHead, DefinitionHeads, Found, FoundRun, HISTORY_LIMIT,
    InheritedCommit, LIST_LIMIT, NamespaceRow, Owed, OwnedPartition, Registered, RunFilter, RunRow, Session, Share,
    Snapshot, Store, StoreError, StoredDefinition, StoredRun, StoredTransition, fair_share,
};

mod commit;
#[cfg(test)]
mod dump;

/// As in production.
const LEASE: Span = Span::from_millis(1_500);

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
}

#[derive(Debug, Default)]
struct State {
    now: Timestamp,
    unavailable: bool,
    faults: VecDeque<CommitFault>,
    processes: u64,
    /// Who holds the session lock of a replica name.
    locks: BTreeMap<String, u64>,
    cluster: Option<Cluster>,
    namespaces: BTreeMap<Namespace, i16>,
    definitions: BTreeMap<(Namespace, WorkflowName, i32), Arc<StoredDefinition>>,
    definitions_epoch: i64,
    sessions_opened: u64,
    sessions: BTreeMap<Uuid, SessionRow>,
    partitions: BTreeMap<i16, PartitionRow>,
    commits: BTreeMap<CommitId, CommitRow>,
    runs: BTreeMap<RunId, RunRow>,
    events: BTreeMap<(i16, RunId, i32), (Timestamp, String)>,
    snapshots: BTreeMap<RunId, Snapshot>,
}

#[derive(Debug)]
struct SessionRow {
    replica: String,
    epoch: i64,
    batch_no: i64,
    lease_until: Timestamp,
    claimed_by: Option<Uuid>,
    /// What the owner has been told; see the PostgreSQL store.
    told_partitions: BTreeSet<i16>,
    told_commits: BTreeSet<CommitId>,
}

#[derive(Debug, Default)]
struct PartitionRow {
    owner: Option<Uuid>,
    cursor: Cursor,
}

#[derive(Debug)]
struct CommitRow {
    holder: Uuid,
    owed: Owed,
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
        }
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

impl State {
    fn session(&mut self, session: &Session) -> Result<&mut SessionRow, StoreError> {
        self.sessions
            .get_mut(&session.id)
            .filter(|row| row.epoch == session.epoch)
            .ok_or(StoreError::Fenced)
    }

    fn is_live(&self, row: &SessionRow) -> bool {
        row.lease_until >= self.now
    }

    fn take_over(&mut self, claimant: Uuid) {
        let dead: Vec<Uuid> = self
            .sessions
            .iter()
            .filter(|(id, row)| **id != claimant && (!self.is_live(row) || row.claimed_by == Some(claimant)))
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.sessions.remove(&id);
            for partition in self.partitions.values_mut().filter(|row| row.owner == Some(id)) {
                partition.owner = Some(claimant);
            }
            for commit in self.commits.values_mut().filter(|row| row.holder == id) {
                commit.holder = claimant;
            }
        }
    }

    fn owned(&self, session: Uuid) -> Vec<OwnedPartition> {
        self.partitions
            .iter()
            .filter(|(_, row)| row.owner == Some(session))
            .map(|(partition, row)| OwnedPartition {
                partition: *partition,
                cursor: row.cursor.clone(),
            })
            .collect()
    }

    fn claim_free(&mut self, session: Uuid, wanted: usize) {
        for row in self
            .partitions
            .values_mut()
            .filter(|row| row.owner.is_none())
            .take(wanted)
        {
            row.owner = Some(session);
        }
    }

    fn forget_published(&mut self, session: Uuid, published: &[CommitId]) {
        for id in published {
            if self.commits.get(id).is_some_and(|row| row.holder == session) {
                self.commits.remove(id);
            }
        }
    }
}

impl Store for MemoryStore {
    async fn prepare(&self, partitions: u16) -> Result<Cluster, StoreError> {
        let mut state = self.available()?;
        let last = i16::try_from(partitions)
            .ok()
            .filter(|count| (1..i16::MAX).contains(count))
            .ok_or_else(|| StoreError::Rejected("KN0314: a cluster has 1 to 32,766 partitions".to_owned()))?;
        if let Some(cluster) = &state.cluster {
            return Ok(cluster.clone());
        }
        let cluster = Cluster {
            id: Uuid::from_u128(1),
            partitions,
            secret: [7; 32],
            format_level: 1,
        };
        state.partitions = (0..=last)
            .map(|partition| (partition, PartitionRow::default()))
            .collect();
        state.namespaces.insert(Namespace::new("default"), 0);
        state.cluster = Some(cluster.clone());
        Ok(cluster)
    }

    async fn ensure_partitions(&self, _now: Timestamp) -> Result<(), StoreError> {
        self.available().map(|_| ())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.available()?.now)
    }

    async fn open_session(&self, replica: &str) -> Result<Session, StoreError> {
        let mut state = self.available()?;
        let locked = state.locks.get(replica).is_none_or(|holder| *holder == self.process);
        if !locked
            && state
                .sessions
                .values()
                .any(|row| row.replica == replica && state.is_live(row))
        {
            return Err(StoreError::Rejected(format!(
                "KN0312: a replica named `{replica}` is running; give this one another name"
            )));
        }
        state.sessions_opened += 1;
        let id = Uuid::from_u128((1 << 64) | u128::from(state.sessions_opened));
        if locked {
            state.locks.insert(replica.to_owned(), self.process);
            for row in state.sessions.values_mut().filter(|row| row.replica == replica) {
                row.epoch += 1;
                row.claimed_by = Some(id);
            }
        }
        let lease_until = state.now.plus(LEASE);
        state.sessions.insert(
            id,
            SessionRow {
                replica: replica.to_owned(),
                epoch: 1,
                batch_no: 0,
                lease_until,
                claimed_by: None,
                told_partitions: BTreeSet::new(),
                told_commits: BTreeSet::new(),
            },
        );
        Ok(Session {
            id,
            epoch: 1,
            batch_no: 0,
        })
    }

    async fn keep(&self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        let mut state = self.available()?;
        let lease_until = state.now.plus(LEASE);
        state.session(session)?.lease_until = lease_until;
        state.forget_published(session.id, published);
        state.take_over(session.id);

        let live_sessions = state.sessions.values().filter(|row| state.is_live(row)).count();
        let share = fair_share(state.partitions.len(), live_sessions);
        let owned = state.owned(session.id).len();
        state.claim_free(session.id, share.saturating_sub(owned));

        let owned = state.owned(session.id);
        let inherited: Vec<InheritedCommit> = state
            .commits
            .iter()
            .filter(|(id, row)| row.holder == session.id && id.session != session.id)
            .map(|(id, row)| InheritedCommit {
                id: *id,
                owed: row.owed.clone(),
            })
            .collect();
        let row = state.session(session)?;
        let partitions = owned.iter().map(|owned| owned.partition).collect();
        let commits = inherited.iter().map(|commit| commit.id).collect();
        let told_partitions = std::mem::replace(&mut row.told_partitions, partitions);
        let told_commits = std::mem::replace(&mut row.told_commits, commits);
        Ok(Share {
            surplus: owned.len().saturating_sub(share),
            live_sessions,
            gained: owned
                .into_iter()
                .filter(|owned| !told_partitions.contains(&owned.partition))
                .collect(),
            inherited: inherited
                .into_iter()
                .filter(|commit| !told_commits.contains(&commit.id))
                .collect(),
        })
    }

    async fn release(&self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        let mut state = self.available()?;
        let row = state.session(session)?;
        row.told_partitions.retain(|partition| !partitions.contains(partition));
        for partition in partitions {
            if let Some(row) = state.partitions.get_mut(partition)
                && row.owner == Some(session.id)
            {
                row.owner = None;
            }
        }
        Ok(())
    }

    async fn close_session(&self, session: &Session) -> Result<(), StoreError> {
        let mut state = self.available()?;
        let row = state.session(session)?;
        row.epoch += 1;
        row.lease_until = Timestamp(i64::MIN);
        let replica = row.replica.clone();
        for row in state
            .partitions
            .values_mut()
            .filter(|row| row.owner == Some(session.id))
        {
            row.owner = None;
        }
        if !state.commits.values().any(|row| row.holder == session.id) {
            state.sessions.remove(&session.id);
        }
        if state.locks.get(&replica) == Some(&self.process) {
            state.locks.remove(&replica);
        }
        Ok(())
    }

    async fn recover(&self, session: &Session) -> Result<Session, StoreError> {
        let mut state = self.available()?;
        let lease_until = state.now.plus(LEASE);
        let row = state
            .sessions
            .get_mut(&session.id)
            .filter(|row| row.epoch >= session.epoch && row.claimed_by.is_none())
            .ok_or(StoreError::Fenced)?;
        row.epoch += 1;
        row.lease_until = lease_until;
        Ok(Session {
            id: session.id,
            epoch: row.epoch,
            batch_no: row.batch_no,
        })
    }

    async fn cursors(&self, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
        let mut state = self.available()?;
        if state.session(session).is_err() {
            return Ok(Vec::new());
        }
        Ok(state.owned(session.id))
    }

    async fn all_cursors(&self) -> Result<Vec<OwnedPartition>, StoreError> {
        let state = self.available()?;
        let every = state.partitions.iter();
        Ok(every
            .map(|(partition, row)| OwnedPartition {
                partition: *partition,
                cursor: row.cursor.clone(),
            })
            .collect())
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

    async fn find_runs(&self, ids: &[(Namespace, WorkflowId, Option<RequestId>)]) -> Result<Found, StoreError> {
        let state = self.available()?;
        let mut found: BTreeMap<RunId, RunRow> = BTreeMap::new();
        for (namespace, workflow_id, request_id) in ids {
            let of_id: Vec<&RunRow> = state
                .runs
                .values()
                .filter(|row| row.namespace == *namespace && row.workflow_id == *workflow_id)
                .collect();
            let open = of_id.iter().filter(|row| row.closed_at.is_none());
            let newest_closed = of_id.iter().rev().find(|row| row.closed_at.is_some());
            let requested = of_id
                .iter()
                .filter(|row| request_id.is_some() && row.request_id == *request_id);
            for row in open.chain(newest_closed).chain(requested) {
                found.insert(row.run_id, (*row).clone());
            }
        }
        Ok(Found {
            runs: found.into_values().map(|row| FoundRun { row }).collect(),
            definitions_epoch: state.definitions_epoch,
        })
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, StoreError> {
        let state = self.available()?;
        let ids: BTreeSet<&RunId> = ids.iter().collect();
        Ok(ids
            .into_iter()
            .filter_map(|id| state.runs.get(id))
            .map(|row| {
                let snapshot = state.snapshots.get(&row.run_id).cloned();
                let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq);
                StoredRun {
                    transitions: state.transitions(row, after).collect(),
                    row: row.clone(),
                    snapshot,
                }
            })
            .collect())
    }

    async fn history(&self, run: RunId, after: i32, limit: u32) -> Result<Vec<StoredTransition>, StoreError> {
        let state = self.available()?;
        let Some(row) = state.runs.get(&run) else {
            return Ok(Vec::new());
        };
        Ok(state
            .transitions(row, after)
            .take(limit.min(HISTORY_LIMIT) as usize)
            .collect())
    }

    async fn due(
        &self,
        partitions: &[i16],
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<(RunId, Timestamp)>, StoreError> {
        let state = self.available()?;
        let mut due: Vec<(Timestamp, RunId)> = state
            .runs
            .values()
            .filter(|row| partitions.contains(&row.partition))
            .filter_map(|row| Some((row.wake_at?, row.run_id)))
            .filter(|(wake_at, _)| *wake_at <= until)
            .collect();
        due.sort_unstable();
        due.truncate(limit as usize);
        Ok(due.into_iter().map(|(wake_at, run_id)| (run_id, wake_at)).collect())
    }

    async fn definition_heads(&self) -> Result<DefinitionHeads, StoreError> {
        let state = self.available()?;
        let mut heads: BTreeMap<(&Namespace, &WorkflowName), DefinitionHead> = BTreeMap::new();
        // In the order of versions, so that the newest stays.
        for ((namespace, workflow, version), definition) in &state.definitions {
            heads.insert(
                (namespace, workflow),
                DefinitionHead {
                    namespace: namespace.clone(),
                    workflow: workflow.clone(),
                    version: *version,
                    hash: definition.hash.clone(),
                },
            );
        }
        Ok(DefinitionHeads {
            definitions_epoch: state.definitions_epoch,
            heads: heads.into_values().collect(),
        })
    }

    async fn register_definition(&self, definition: &StoredDefinition) -> Result<Registered, StoreError> {
        let mut state = self.available()?;
        let texts = [
            definition.workflow.as_str(),
            &definition.hash.0,
            &definition.body,
            &definition.source,
        ];
        if !state.namespaces.contains_key(&definition.namespace)
            || definition.version < 1
            || texts.iter().any(|text| text.contains('\0'))
        {
            return Err(StoreError::Rejected(
                "the definition breaks a rule of the store".to_owned(),
            ));
        }
        let key = (
            definition.namespace.clone(),
            definition.workflow.clone(),
            definition.version,
        );
        if let Some(there) = state.definitions.get(&key) {
            return Ok(if there.hash == definition.hash {
                Registered::Unchanged
            } else {
                Registered::Conflict {
                    hash: there.hash.clone(),
                }
            });
        }
        state.definitions.insert(key, Arc::new(definition.clone()));
        state.definitions_epoch += 1;
        Ok(Registered::New)
    }

    async fn definition(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        let state = self.available()?;
        Ok(state
            .definitions
            .values()
            .rev()
            .find(|there| {
                there.namespace == *namespace
                    && there.workflow == *workflow
                    && version.is_none_or(|version| there.version == version)
            })
            .cloned())
    }

    async fn definition_by_hash(&self, hash: &DefinitionHash) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        let state = self.available()?;
        Ok(state.definitions.values().find(|there| there.hash == *hash).cloned())
    }

    async fn list_definitions(&self, namespace: &Namespace) -> Result<Vec<StoredDefinition>, StoreError> {
        let state = self.available()?;
        Ok(state
            .definitions
            .values()
            .filter(|there| there.namespace == *namespace)
            .map(|there| StoredDefinition::clone(there))
            .collect())
    }

    async fn create_namespace(&self, namespace: &NamespaceRow) -> Result<bool, StoreError> {
        let mut state = self.available()?;
        let name = namespace.name.as_str();
        if name.is_empty() || name.contains('\0') || namespace.retention_class < 0 {
            return Err(StoreError::Rejected(
                "the namespace breaks a rule of the store".to_owned(),
            ));
        }
        if state.namespaces.contains_key(&namespace.name) {
            return Ok(false);
        }
        state
            .namespaces
            .insert(namespace.name.clone(), namespace.retention_class);
        Ok(true)
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        let state = self.available()?;
        Ok(state
            .namespaces
            .iter()
            .map(|(name, retention_class)| NamespaceRow {
                name: name.clone(),
                retention_class: *retention_class,
            })
            .collect())
    }

    async fn list_runs(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        let state = self.available()?;
        Ok(state
            .runs
            .values()
            .rev()
            .filter(|row| row.namespace == *namespace)
            .filter(|row| {
                filter
                    .workflow
                    .as_ref()
                    .is_none_or(|workflow| row.workflow == *workflow)
            })
            .filter(|row| filter.workflow_id.as_ref().is_none_or(|id| row.workflow_id == *id))
            .filter(|row| filter.status.as_ref().is_none_or(|status| row.status == *status))
            .filter(|row| filter.before.is_none_or(|before| row.run_id < before))
            .take(filter.limit.min(LIST_LIMIT) as usize)
            .cloned()
            .collect())
    }
}

impl State {
    fn transitions<'a>(&'a self, row: &RunRow, after: i32) -> impl Iterator<Item = StoredTransition> + use<'a> {
        let (class, run_id) = (row.retention_class, row.run_id);
        self.events
            .range((class, run_id, after.saturating_add(1))..=(class, run_id, i32::MAX))
            .map(|((_, _, seq), (at, body))| StoredTransition {
                seq: *seq,
                at: *at,
                body: body.clone(),
            })
    }
}
