//! The store as one replica reaches it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

use super::Line;
use crate::store::memory::{CommitFault, MemoryStore};
use crate::store::*;

/// The store, by a line.
#[derive(Debug)]
pub(crate) struct LineStore {
    pub(crate) line: Arc<Line>,
    pub(crate) store: MemoryStore,
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
