//! Compiled definitions, shared by the loop and its fetches: plans by hash, and the newest version of every name.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use knarr_core::definition::{self, plan::Plan};
use knarr_core::ids::{DefinitionHash, Namespace, WorkflowName};
use knarr_core::run::{schedule, trigger};

use super::queue_limits::{self, AllLimits};
use crate::store::{Store, StoreError};

/// Definitions known to this replica. Plans are immutable; what is newest is read again when the store's epoch moves.
#[derive(Debug)]
pub struct Definitions {
    known: Mutex<Known>,
    schedules: Arc<Plan>,
    triggers: Arc<Plan>,
}

impl Default for Definitions {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            schedules: Arc::new(schedule::plan()),
            triggers: Arc::new(trigger::plan()),
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    epoch: Option<i64>,
    newest: HashMap<(Namespace, WorkflowName), DefinitionHash>,
    versions: HashMap<(Namespace, WorkflowName, u32), DefinitionHash>,
    namespaces: HashMap<Namespace, i16>,
    /// Namespaces whose changes of status are published.
    telling: HashSet<Namespace>,
    plans: HashMap<DefinitionHash, Arc<Plan>>,
    queue_limits: Option<Arc<AllLimits>>,
}

impl Definitions {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Every write leaves the maps whole, so a panic elsewhere cannot have broken them.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything was read at this epoch of the store.
    pub(super) fn knows(&self, epoch: i64) -> bool {
        self.known().epoch == Some(epoch)
    }

    /// At which the definitions were read.
    pub(super) fn epoch(&self) -> Option<i64> {
        self.known().epoch
    }

    /// What operators allow queues, once it has been read; the same one until it changes.
    pub(super) fn queue_limits(&self) -> Option<Arc<AllLimits>> {
        self.known().queue_limits.clone()
    }

    /// The retention class of a namespace, if it exists.
    pub(super) fn namespace(&self, namespace: &Namespace) -> Option<i16> {
        self.known().namespaces.get(namespace).copied()
    }

    /// What schedules have in place of a definition; no name leads to it.
    pub(super) fn of_schedules(&self) -> Arc<Plan> {
        Arc::clone(&self.schedules)
    }

    /// The same for triggers.
    pub(super) fn of_triggers(&self) -> Arc<Plan> {
        Arc::clone(&self.triggers)
    }

    /// Whether changes of the status of its runs are published.
    pub(super) fn tells(&self, namespace: &Namespace) -> bool {
        self.known().telling.contains(namespace)
    }

    /// What the last renewal of the lease said.
    pub(super) fn set_telling(&self, telling: Vec<Namespace>) {
        self.known().telling = telling.into_iter().collect();
    }

    pub(super) fn plan(&self, hash: &DefinitionHash) -> Option<Arc<Plan>> {
        if *hash == self.schedules.hash {
            return Some(self.of_schedules());
        }
        if *hash == self.triggers.hash {
            return Some(self.of_triggers());
        }
        self.known().plans.get(hash).cloned()
    }

    /// The plan a start would use; no version = the newest.
    pub(super) fn resolve(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<u32>,
    ) -> Option<Arc<Plan>> {
        let known = self.known();
        let hash = match version {
            None => known.newest.get(&(namespace.clone(), workflow.clone()))?,
            Some(version) => known.versions.get(&(namespace.clone(), workflow.clone(), version))?,
        };
        known.plans.get(hash).cloned()
    }

    /// Catches up with the store, if its epoch is another than the one known.
    pub(super) async fn refresh<S: Store>(&self, store: &S, epoch: i64) -> Result<(), StoreError> {
        if self.known().epoch == Some(epoch) {
            return Ok(());
        }
        let heads = store.definition_heads().await?;
        let namespaces = store.namespaces().await?;
        let queue_limits = queue_limits::read(store.queues().await?);
        let read_at = heads.definitions_epoch;
        for head in &heads.heads {
            self.load(store, &head.hash).await?;
        }
        let mut known = self.known();
        known.namespaces = namespaces
            .into_iter()
            .map(|row| (row.name, row.retention_class))
            .collect();
        known.newest = heads
            .heads
            .into_iter()
            .map(|head| ((head.namespace, head.workflow), head.hash))
            .collect();
        if known.queue_limits.as_deref() != Some(&queue_limits) {
            known.queue_limits = Some(Arc::new(queue_limits));
        }
        known.epoch = Some(read_at);
        Ok(())
    }

    /// Makes sure that a named version is known, if it exists.
    pub(super) async fn load_version<S: Store>(
        &self,
        store: &S,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: u32,
    ) -> Result<(), StoreError> {
        let key = (namespace.clone(), workflow.clone(), version);
        if self.known().versions.contains_key(&key) {
            return Ok(());
        }
        let Ok(number) = i32::try_from(version) else {
            return Ok(());
        };
        if let Some(stored) = store.definition(namespace, workflow, Some(number)).await? {
            self.load(store, &stored.hash).await?;
            self.known().versions.insert(key, stored.hash.clone());
        }
        Ok(())
    }

    /// Makes sure that a plan is compiled.
    pub(super) async fn load<S: Store>(
        &self,
        store: &S,
        hash: &DefinitionHash,
    ) -> Result<Option<Arc<Plan>>, StoreError> {
        if let Some(plan) = self.plan(hash) {
            return Ok(Some(plan));
        }
        let Some(stored) = store.definition_by_hash(hash).await? else {
            return Ok(None);
        };
        match definition::from_canonical(&stored.body) {
            Ok(plan) => {
                let plan = Arc::new(plan);
                self.known().plans.insert(hash.clone(), Arc::clone(&plan));
                Ok(Some(plan))
            }
            Err(error) => {
                tracing::error!(workflow = %stored.workflow, version = stored.version, %error, "a stored definition does not compile");
                Ok(None)
            }
        }
    }
}
