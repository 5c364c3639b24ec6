//! Which task queues a namespace must have: those that any version of any of its definitions names, for runs of older
//! versions still send tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use knarr_core::definition;
use knarr_core::definition::plan::{Call, NodeKind, Plan, Undo};
use knarr_core::ids::{Namespace, QueueName};

use crate::bus::QueueSettings;
use crate::store::{Store, StoreError};

/// The shortest lease of plain workers.
const MIN_ACK_WAIT: Duration = Duration::from_secs(30);

/// Every queue with its settings; the lease is that of the longest activity.
pub(crate) async fn settings_of<S: Store>(store: &S, namespace: &Namespace) -> Result<Vec<QueueSettings>, StoreError> {
    let mut longest = BTreeMap::new();
    for stored in store.list_definitions(namespace).await? {
        match definition::from_canonical(&stored.body) {
            Ok(plan) => collect(&plan, &mut longest),
            Err(error) => tracing::error!(
                workflow = %stored.workflow,
                version = stored.version,
                %error,
                "a stored definition cannot be used any more"
            ),
        }
    }
    let settings = longest
        .into_iter()
        .map(|(queue, longest): (_, Duration)| QueueSettings {
            queue,
            ack_wait: longest.max(MIN_ACK_WAIT),
        });
    Ok(settings.collect())
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
