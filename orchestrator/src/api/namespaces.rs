//! Namespaces: creating, changing and listing them.

use knarr_core::ids::Namespace;
use knarr_schemas::api::{CreateNamespace, NamespaceInfo, NamespacePage, SetNamespace};
use knarr_schemas::code;

use crate::api::{Operations, Refusal};
use crate::store::{EVENTS_BY_DEFAULT, NamespaceRow, Store};

/// Every namespace reserves storage in NATS for its tasks. Two that are created at the same moment may both be the last.
pub(super) const MOST_NAMESPACES: usize = 200;

impl<S: Store> Operations<S> {
    /// One that exists is left as it is; its task stream is asserted either way.
    pub async fn create_namespace(
        &self,
        namespace: &Namespace,
        request: CreateNamespace,
    ) -> Result<NamespaceInfo, Refusal> {
        let known = self.store.namespaces().await?;
        if known.len() >= MOST_NAMESPACES && known.iter().all(|row| row.name != *namespace) {
            let message = format!("there are {} namespaces, and {MOST_NAMESPACES} at most", known.len());
            return Err(Refusal::new(409, &code::TOO_MANY_NAMESPACES, message));
        }
        let row = NamespaceRow {
            name: namespace.clone(),
            retention_class: 0,
            events: request.events.unwrap_or(EVENTS_BY_DEFAULT),
        };
        let created = self.store.create_namespace(&row).await?;
        (self.on_registered)(namespace.clone(), Vec::new()).await?;
        let found = known.iter().find(|there| there.name == *namespace);
        let events = if created {
            Some(row.events)
        } else {
            found.map(|there| there.events)
        };
        Ok(NamespaceInfo {
            name: namespace.to_string(),
            created,
            events,
        })
    }

    pub async fn set_namespace(&self, namespace: &Namespace, request: SetNamespace) -> Result<NamespaceInfo, Refusal> {
        if let Some(events) = request.events {
            self.store.set_events(namespace, events).await?;
        }
        let known = self.store.namespaces().await?;
        match known.into_iter().find(|row| row.name == *namespace) {
            Some(row) => Ok(NamespaceInfo {
                name: row.name.to_string(),
                created: false,
                events: Some(row.events),
            }),
            None => Err(unknown(namespace)),
        }
    }

    /// All of them, whoever asks: who may, is for the permissions of NATS to say.
    pub async fn list_namespaces(&self) -> Result<NamespacePage, Refusal> {
        let mut rows = self.store.namespaces().await?;
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(NamespacePage {
            namespaces: rows
                .into_iter()
                .map(|row| NamespaceInfo {
                    name: row.name.to_string(),
                    created: false,
                    events: Some(row.events),
                })
                .collect(),
        })
    }

    /// Refuses a namespace that does not exist; asked where an answer would otherwise be puzzling.
    pub(super) async fn require_namespace(&self, namespace: &Namespace) -> Result<(), Refusal> {
        let known = self.store.namespaces().await?;
        if known.iter().any(|row| row.name == *namespace) {
            return Ok(());
        }
        Err(unknown(namespace))
    }
}

fn unknown(namespace: &Namespace) -> Refusal {
    Refusal::not_found(&code::UNKNOWN_NAMESPACE, format!("there is no namespace `{namespace}`"))
}
