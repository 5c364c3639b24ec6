//! Which task queues a namespace must have: those that any version of any of its definitions names, for runs of older
//! versions still send tasks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use knarr_core::definition;
use knarr_core::definition::plan::{Call, NodeKind, Plan, Undo};
use knarr_core::ids::{DefinitionHash, Namespace, QueueName};

use crate::bus::QueueSettings;
use crate::store::{DefinitionFilter, LIST_LIMIT, Store, StoreError};

/// The shortest lease of plain workers where no operator says otherwise.
const MIN_ACK_WAIT: Duration = Duration::from_secs(30);

/// Definitions read at a time.
const CHUNK: usize = 100;

/// The queues of namespaces, as far as they are known. Definitions never change, so each is read once.
#[derive(Debug, Default)]
pub(crate) struct KnownQueues {
    known: Mutex<HashMap<Namespace, Known>>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    read: HashSet<DefinitionHash>,
    longest: BTreeMap<QueueName, Duration>,
}

impl KnownQueues {
    /// Every queue with its settings; the lease is what an operator says, or that of the longest activity.
    pub(crate) async fn settings_of<S: Store>(
        &self,
        store: &S,
        namespace: &Namespace,
    ) -> Result<Vec<QueueSettings>, StoreError> {
        let mut known = self.lock().get(namespace).cloned().unwrap_or_default();
        let missing = unread(store, namespace, &known).await?;
        for chunk in missing.chunks(CHUNK) {
            for (hash, body) in store.definition_bodies(chunk).await? {
                match definition::from_canonical(&body) {
                    Ok(plan) => collect(&plan, &mut known.longest),
                    Err(error) => tracing::error!(%namespace, %error, "a stored definition cannot be used any more"),
                }
                known.read.insert(hash);
            }
        }
        let rows = store.queues().await?.into_iter();
        let said = rows.filter(|row| row.namespace == *namespace);
        let said: HashMap<_, _> = said.filter_map(|row| Some((row.queue, row.ack_wait?))).collect();
        let settings = known.longest.iter().map(|(queue, longest)| QueueSettings {
            queue: queue.clone(),
            ack_wait: said
                .get(queue)
                .map_or((*longest).max(MIN_ACK_WAIT), |said| (*said).into()),
        });
        let settings = settings.collect();
        // Of two who read at the same time the last one wins; the other's definitions are read again.
        self.lock().insert(namespace.clone(), known);
        Ok(settings)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, Known>> {
        // Every write leaves the map whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn unread<S: Store>(store: &S, namespace: &Namespace, known: &Known) -> Result<Vec<DefinitionHash>, StoreError> {
    let mut filter = DefinitionFilter {
        limit: LIST_LIMIT,
        ..DefinitionFilter::default()
    };
    let mut missing = HashSet::new();
    loop {
        let page = store.list_definitions(namespace, &filter).await?;
        let full = page.len() == LIST_LIMIT as usize;
        filter.after = page.last().map(|last| (last.workflow.clone(), last.version));
        let hashes = page.into_iter().map(|row| row.hash);
        missing.extend(hashes.filter(|hash| !known.read.contains(hash)));
        if !full {
            return Ok(missing.into_iter().collect());
        }
    }
}

fn collect(plan: &Plan, longest: &mut BTreeMap<QueueName, Duration>) {
    let mut add = |call: &Call| {
        let known = longest.entry(call.queue.clone()).or_default();
        *known = (*known).max(call.start_to_close.into());
    };
    for node in &plan.nodes {
        if let NodeKind::Activity(activity) = &node.kind {
            add(&activity.call);
            if let Undo::Compensate(call) = &activity.undo {
                add(call);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use knarr_core::time::{Span, Timestamp};

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{NamespaceRow, QueueRow, StoredDefinition};

    async fn leases(definitions: &[&str]) -> Vec<(String, u64)> {
        let (store, known, namespace) = (MemoryStore::new(), KnownQueues::default(), Namespace::new("default"));
        store.prepare(1).await.unwrap();
        for text in definitions {
            register(&store, text).await;
            // What is known from before counts as well.
            known.settings_of(&store, &namespace).await.unwrap();
        }
        let settings = known.settings_of(&store, &namespace).await.unwrap();
        let leases = settings
            .into_iter()
            .map(|it| (it.queue.to_string(), it.ack_wait.as_secs()));
        leases.collect()
    }

    fn of(version: u32, steps: &str) -> String {
        format!("workflow: w\nversion: {version}\nsteps:\n{steps}")
    }

    fn lease(queue: &str, seconds: u64) -> (String, u64) {
        (queue.to_owned(), seconds)
    }

    /// SEMANTICS §3, by the exact values.
    #[tokio::test]
    async fn a_lease_is_thirty_seconds_or_the_longest_start_to_close_of_its_queue() {
        let bare = of(1, "  - a: { activity: x, queue: q, read_only: true }\n");
        assert_eq!(leases(&[&bare]).await, [lease("q", 30)]);
        for (said, seconds) in [("29s", 30), ("30s", 30), ("31s", 31), ("2h", 7_200)] {
            let one = of(
                1,
                &format!("  - a: {{ activity: x, queue: q, read_only: true, start_to_close: {said} }}\n"),
            );
            assert_eq!(leases(&[&one]).await, [lease("q", seconds)], "{said}");
        }
        let undo = of(
            1,
            "  - a: { activity: x, queue: q, start_to_close: 40s, compensate: { activity: y, start_to_close: 50s } }\n  \
               - b: { activity: x, queue: p, start_to_close: 45s, compensate: { activity: y, queue: q, start_to_close: 90s } }\n",
        );
        assert_eq!(leases(&[&undo]).await, [lease("p", 45), lease("q", 90)]);
        // Runs of older versions still send tasks.
        let short = of(
            2,
            "  - a: { activity: x, queue: q, read_only: true, start_to_close: 35s }\n",
        );
        assert_eq!(leases(&[&undo, &short]).await, [lease("p", 45), lease("q", 90)]);
    }

    /// Shorter or longer than any activity, and that of its namespace alone.
    #[tokio::test]
    async fn what_an_operator_says_of_a_lease_goes_before_the_definitions() {
        let (store, known) = (MemoryStore::new(), KnownQueues::default());
        store.prepare(1).await.unwrap();
        let text = of(
            1,
            "  - a: { activity: x, queue: q, read_only: true, start_to_close: 50s }\n",
        );
        register(&store, &text).await;
        let namespace = Namespace::new("default");
        let lease = async || {
            known.settings_of(&store, &namespace).await.unwrap()[0]
                .ack_wait
                .as_secs()
        };
        let say = async |namespace: &str, seconds: Option<u64>| {
            let row = QueueRow {
                namespace: Namespace::new(namespace),
                queue: QueueName::new("q"),
                max_concurrent: Some(1),
                rate: None,
                ack_wait: seconds.map(Span::from_secs),
            };
            store.set_queue(&row).await.unwrap();
        };
        for seconds in [1, 40, 3_600] {
            say("default", Some(seconds)).await;
            assert_eq!(lease().await, seconds);
        }
        say("default", None).await;
        assert_eq!(lease().await, 50, "limits say nothing of it");
        let other = NamespaceRow {
            name: Namespace::new("other"),
            retention_class: 1,
            events: false,
        };
        store.create_namespace(&other).await.unwrap();
        say("other", Some(2)).await;
        assert_eq!(lease().await, 50);
    }

    async fn register(store: &MemoryStore, text: &str) {
        let checked = definition::read(text, &|_| Err("no files".to_owned())).unwrap();
        let stored = StoredDefinition {
            namespace: Namespace::new("default"),
            workflow: checked.plan.workflow.clone(),
            version: i32::try_from(checked.plan.version).unwrap(),
            hash: checked.hash.clone(),
            body: checked.canonical.clone(),
            source: text.to_owned(),
            registered_at: Timestamp(0),
        };
        store.register_definition(&stored).await.unwrap();
    }
}
