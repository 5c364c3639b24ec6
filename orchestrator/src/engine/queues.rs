//! Seeing to it that task queues are there, and as definitions and operators have them: at the start of a replica, when another
//! has been told something new, and where one turns out to be missing.

use std::collections::HashSet;
use std::sync::Arc;

use knarr_core::ids::Namespace;

use super::replica::EngineError;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::queues::KnownQueues;
use crate::store::Store;

/// The bus knows from here on what a stream that it finds missing is to look like.
pub(super) async fn ensure_all<S: Store, B: Bus>(store: &S, bus: &B, known: &KnownQueues) -> Result<(), EngineError> {
    for row in store.namespaces().await? {
        ensure(store, bus, known, &row.name).await?;
    }
    Ok(())
}

async fn ensure<S: Store, B: Bus>(
    store: &S,
    bus: &B,
    known: &KnownQueues,
    namespace: &Namespace,
) -> Result<(), EngineError> {
    let queues = known.settings_of(store, namespace).await?;
    Ok(bus.ensure_queues(namespace, &queues).await?)
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// The task stream of a namespace has gone, or has never been: it is made again, once for all who miss it. Their tasks
    /// are offered later.
    pub(super) fn restore_queues(&mut self, missing: HashSet<Namespace>) {
        for namespace in missing {
            if !self.restoring.insert(namespace.clone()) {
                continue;
            }
            let (store, bus) = (Arc::clone(&self.store), Arc::clone(&self.bus));
            let panicked = Done::QueuesRestored(namespace.clone());
            self.beside(panicked, async move {
                if let Err(error) = ensure(&*store, &*bus, &KnownQueues::default(), &namespace).await {
                    tracing::warn!(%error, %namespace, "the task queues of a namespace cannot be made");
                }
                Done::QueuesRestored(namespace)
            });
        }
    }
}
