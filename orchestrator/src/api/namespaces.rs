//! Namespaces: creating and listing them.

use knarr_core::ids::Namespace;
use knarr_schemas::api::{NamespaceInfo, NamespacePage};
use knarr_schemas::code;

use crate::api::{Operations, Refusal};
use crate::store::{NamespaceRow, Store};

/// Every namespace reserves storage in NATS for its tasks. Two that are created at the same moment may both be the last.
pub(super) const MOST_NAMESPACES: usize = 200;

impl<S: Store> Operations<S> {
    /// One that exists is left as it is; its task stream is asserted either way.
    pub async fn create_namespace(&self, namespace: &Namespace) -> Result<NamespaceInfo, Refusal> {
        let known = self.store.namespaces().await?;
        if known.len() >= MOST_NAMESPACES && known.iter().all(|row| row.name != *namespace) {
            let message = format!("there are {} namespaces, and {MOST_NAMESPACES} at most", known.len());
            return Err(Refusal::new(409, &code::TOO_MANY_NAMESPACES, message));
        }
        let row = NamespaceRow {
            name: namespace.clone(),
            retention_class: 0,
        };
        let created = self.store.create_namespace(&row).await?;
        (self.on_registered)(namespace.clone(), Vec::new()).await?;
        Ok(NamespaceInfo {
            name: namespace.to_string(),
            created,
        })
    }

    /// The names of all of them, whoever asks: who may, is for the permissions of NATS to say.
    pub async fn list_namespaces(&self) -> Result<NamespacePage, Refusal> {
        let mut names: Vec<String> = self
            .store
            .namespaces()
            .await?
            .into_iter()
            .map(|row| row.name.to_string())
            .collect();
        names.sort();
        Ok(NamespacePage {
            namespaces: names
                .into_iter()
                .map(|name| NamespaceInfo { name, created: false })
                .collect(),
        })
    }

    /// Refuses a namespace that does not exist; asked where an answer would otherwise be puzzling.
    pub(super) async fn require_namespace(&self, namespace: &Namespace) -> Result<(), Refusal> {
        let known = self.store.namespaces().await?;
        if known.iter().any(|row| row.name == *namespace) {
            return Ok(());
        }
        Err(Refusal::not_found(
            &code::UNKNOWN_NAMESPACE,
            format!("there is no namespace `{namespace}`"),
        ))
    }
}
