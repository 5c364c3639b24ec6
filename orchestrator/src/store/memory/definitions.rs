//! Definitions and namespaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use knarr_core::ids::{DefinitionHash, Namespace, WorkflowName};

use super::runs::readable;
use super::state::State;
use crate::store::{
    DefaultVersion, DefinitionFilter, DefinitionHead, DefinitionHeads, DefinitionRow, LIST_LIMIT, NamespaceRow,
    Registered, StoreError, StoredDefinition,
};

impl State {
    pub(super) fn definition_heads(&self) -> Result<DefinitionHeads, StoreError> {
        let mut heads: BTreeMap<(&Namespace, &WorkflowName), DefinitionHead> = BTreeMap::new();
        // In the order of versions, so that the newest stays.
        for ((namespace, workflow, version), definition) in &self.definitions {
            let set = self.default_versions.get(&(namespace.clone(), workflow.clone()));
            if set.is_some_and(|set| set.version != *version) {
                continue;
            }
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
            definitions_epoch: self.definitions_epoch,
            heads: heads.into_values().collect(),
        })
    }

    pub(super) fn register_definition(&mut self, definition: &StoredDefinition) -> Result<Registered, StoreError> {
        let texts = [
            definition.workflow.as_str(),
            &definition.hash.0,
            &definition.body,
            &definition.source,
        ];
        if !self.namespaces.contains_key(&definition.namespace)
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
        if let Some(there) = self.definitions.get(&key) {
            return Ok(if there.hash == definition.hash {
                Registered::Unchanged
            } else {
                Registered::Conflict {
                    hash: there.hash.clone(),
                }
            });
        }
        self.definitions.insert(key, Arc::new(definition.clone()));
        self.definitions_epoch += 1;
        Ok(Registered::New)
    }

    pub(super) fn set_default_version(
        &mut self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        default: Option<&DefaultVersion>,
    ) -> Result<bool, StoreError> {
        let told = default
            .iter()
            .flat_map(|default| default.by.iter().chain(&default.reason));
        readable(
            [namespace.as_str(), workflow.as_str()]
                .into_iter()
                .chain(told.map(String::as_str)),
        )?;
        let key = (namespace.clone(), workflow.clone());
        let Some(default) = default else {
            if self.default_versions.remove(&key).is_some() {
                self.definitions_epoch += 1;
            }
            let mut definitions = self.definitions.keys();
            return Ok(definitions.any(|(of, name, _)| of == namespace && name == workflow));
        };
        if !self
            .definitions
            .contains_key(&(namespace.clone(), workflow.clone(), default.version))
        {
            return Ok(false);
        }
        self.default_versions.insert(key, default.clone());
        self.definitions_epoch += 1;
        Ok(true)
    }

    pub(super) fn definition(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        readable([namespace.as_str(), workflow.as_str()])?;
        Ok(self
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

    pub(super) fn definition_by_hash(
        &self,
        hash: &DefinitionHash,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        Ok(self.definitions.values().find(|there| there.hash == *hash).cloned())
    }

    pub(super) fn list_definitions(
        &self,
        namespace: &Namespace,
        filter: &DefinitionFilter,
    ) -> Result<Vec<DefinitionRow>, StoreError> {
        let texts = filter
            .workflow
            .iter()
            .chain(filter.after.iter().map(|(workflow, _)| workflow));
        readable([namespace.as_str()].into_iter().chain(texts.map(WorkflowName::as_str)))?;
        Ok(self
            .definitions
            .values()
            .filter(|there| there.namespace == *namespace)
            .filter(|there| filter.workflow.as_ref().is_none_or(|name| there.workflow == *name))
            .filter(|there| {
                let after = filter.after.as_ref();
                after.is_none_or(|(workflow, version)| (&there.workflow, there.version) > (workflow, *version))
            })
            .take(filter.limit.min(LIST_LIMIT) as usize)
            .map(|there| DefinitionRow {
                workflow: there.workflow.clone(),
                version: there.version,
                hash: there.hash.clone(),
                registered_at: there.registered_at,
                default: self
                    .default_versions
                    .get(&(there.namespace.clone(), there.workflow.clone()))
                    .is_some_and(|set| set.version == there.version),
            })
            .collect())
    }

    pub(super) fn definition_bodies(
        &self,
        hashes: &[DefinitionHash],
    ) -> Result<Vec<(DefinitionHash, String)>, StoreError> {
        let bodies: BTreeMap<_, _> = self
            .definitions
            .values()
            .filter(|there| hashes.contains(&there.hash))
            .map(|there| (&there.hash.0, there))
            .collect();
        Ok(bodies
            .into_values()
            .map(|there| (there.hash.clone(), there.body.clone()))
            .collect())
    }

    pub(super) fn create_namespace(&mut self, namespace: &NamespaceRow) -> Result<bool, StoreError> {
        let name = namespace.name.as_str();
        if name.is_empty() || name.contains('\0') || namespace.retention_class < 0 {
            return Err(StoreError::Rejected(
                "the namespace breaks a rule of the store".to_owned(),
            ));
        }
        if self.namespaces.contains_key(&namespace.name) {
            return Ok(false);
        }
        self.namespaces.insert(namespace.name.clone(), namespace.clone());
        self.definitions_epoch += 1;
        Ok(true)
    }

    pub(super) fn set_events(&mut self, namespace: &Namespace, events: bool) -> bool {
        let row = self.namespaces.get_mut(namespace);
        row.map(|row| row.events = events).is_some()
    }

    pub(super) fn namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        Ok(self.namespaces.values().cloned().collect())
    }
}
