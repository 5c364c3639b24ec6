//! Definitions and namespaces.

use std::sync::Arc;

use knarr_core::ids::{DefinitionHash, Namespace, WorkflowName};
use sqlx::postgres::PgBindIterExt;

use super::PostgresStore;
use super::error::to_store_error;
use super::time::At;
use crate::store::{
    DefaultVersion, DefinitionFilter, DefinitionHead, DefinitionHeads, DefinitionRow, LIST_LIMIT, NamespaceRow,
    Registered, StoreError, StoredDefinition,
};

/// As the checked queries find it.
struct Record {
    namespace: String,
    workflow: String,
    version: i32,
    hash: String,
    body: String,
    source: String,
    registered_at: At,
}

impl From<Record> for StoredDefinition {
    fn from(record: Record) -> Self {
        Self {
            namespace: Namespace::new(&record.namespace),
            workflow: WorkflowName::new(&record.workflow),
            version: record.version,
            hash: DefinitionHash(record.hash.into()),
            body: record.body,
            source: record.source,
            registered_at: record.registered_at.0,
        }
    }
}

impl PostgresStore {
    pub(super) async fn heads(&self) -> Result<DefinitionHeads, StoreError> {
        // One statement, so that the epoch is never newer than the heads.
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"
            select c.definitions_epoch as "definitions_epoch!", d.namespace as "namespace?", d.workflow as "workflow?", d.version as "version?",
                   d.hash as "hash?"
            from cluster c left join (
                select distinct on (v.namespace, v.workflow) v.namespace, v.workflow, v.version, v.hash
                from definitions v
                left join definition_defaults s
                    on s.namespace = v.namespace and s.workflow = v.workflow and s.version = v.version
                order by v.namespace, v.workflow, (s.version is not null) desc, v.version desc
            ) d on true
            order by d.namespace, d.workflow
            "#
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let mut heads = DefinitionHeads::default();
        for record in records {
            heads.definitions_epoch = record.definitions_epoch;
            let (Some(namespace), Some(workflow), Some(version), Some(hash)) =
                (record.namespace, record.workflow, record.version, record.hash)
            else {
                continue;
            };
            heads.heads.push(DefinitionHead {
                namespace: Namespace::new(&namespace),
                workflow: WorkflowName::new(&workflow),
                version,
                hash: DefinitionHash(hash.into()),
            });
        }
        Ok(heads)
    }

    pub(super) async fn register(&self, definition: &StoredDefinition) -> Result<Registered, StoreError> {
        let mut connection = self.reads.take().await?;
        let registered = sqlx::query_scalar!(
            r#"
            with registered as (
                insert into definitions (namespace, workflow, version, hash, body, source, registered_at)
                values ($1, $2, $3, $4, $5, $6, $7)
                on conflict do nothing
                returning 1
            ), told as (
                update cluster set definitions_epoch = definitions_epoch + 1 where exists (select from registered)
            )
            select count(*) as "registered!" from registered
            "#,
            definition.namespace.as_str(),
            definition.workflow.as_str(),
            definition.version,
            &*definition.hash.0,
            definition.body,
            definition.source,
            At(definition.registered_at) as _,
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        if registered == 1 {
            return Ok(Registered::New);
        }
        // What was in the way is committed by now, and definitions never change.
        let there = self
            .definition_by_name(&definition.namespace, &definition.workflow, Some(definition.version))
            .await?
            .ok_or_else(|| StoreError::Unavailable("the definition is being registered elsewhere".to_owned()))?;
        Ok(if there.hash == definition.hash {
            Registered::Unchanged
        } else {
            Registered::Conflict {
                hash: there.hash.clone(),
            }
        })
    }

    /// The epoch moves with it, so that every replica reads the heads again.
    pub(super) async fn set_default(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        default: Option<&DefaultVersion>,
    ) -> Result<bool, StoreError> {
        let mut connection = self.reads.take().await?;
        let known = sqlx::query_scalar!(
            r#"
            with known as (
                select from definitions
                where namespace = $1 and workflow = $2 and ($3::integer is null or version = $3) limit 1
            ), changed as (
                insert into definition_defaults (namespace, workflow, version, set_at, set_by, reason)
                select $1, $2, $3, $4, $5, $6 from known where $3::integer is not null
                on conflict (namespace, workflow) do update
                set version = excluded.version, set_at = excluded.set_at, set_by = excluded.set_by, reason = excluded.reason
                returning 1
            ), gone as (
                delete from definition_defaults
                where namespace = $1 and workflow = $2 and $3::integer is null
                returning 1
            ), told as (
                update cluster set definitions_epoch = definitions_epoch + 1
                where exists (select from changed) or exists (select from gone)
            )
            select exists (select from known) as "known!"
            "#,
            namespace.as_str(),
            workflow.as_str(),
            default.map(|default| default.version),
            default.map(|default| At(default.at)) as _,
            default.and_then(|default| default.by.as_deref()),
            default.and_then(|default| default.reason.as_deref()),
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(known)
    }

    pub(super) async fn definition_by_name(
        &self,
        namespace: &Namespace,
        workflow: &WorkflowName,
        version: Option<i32>,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        let mut connection = self.reads.take().await?;
        let record = sqlx::query_as!(
            Record,
            r#"
            select namespace as "namespace!", workflow as "workflow!", version as "version!", hash as "hash!",
                   body as "body!", source as "source!", registered_at as "registered_at!: At"
            from definitions
            where namespace = $1 and workflow = $2 and ($3::integer is null or version = $3)
            order by version desc limit 1
            "#,
            namespace.as_str(),
            workflow.as_str(),
            version,
        )
        .fetch_optional(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(record.map(|record| Arc::new(record.into())))
    }

    pub(super) async fn definition_with_hash(
        &self,
        hash: &DefinitionHash,
    ) -> Result<Option<Arc<StoredDefinition>>, StoreError> {
        // The same content may be registered in several namespaces; the body is the same.
        let mut connection = self.reads.take().await?;
        let record = sqlx::query_as!(
            Record,
            r#"
            select namespace as "namespace!", workflow as "workflow!", version as "version!", hash as "hash!",
                   body as "body!", source as "source!", registered_at as "registered_at!: At"
            from definitions where hash = $1
            order by namespace, workflow, version limit 1
            "#,
            &*hash.0,
        )
        .fetch_optional(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(record.map(|record| Arc::new(record.into())))
    }

    pub(super) async fn definitions_of(
        &self,
        namespace: &Namespace,
        filter: &DefinitionFilter,
    ) -> Result<Vec<DefinitionRow>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"
            select d.workflow as "workflow!", d.version as "version!", d.hash as "hash!",
                   d.registered_at as "registered_at!: At", s.version is not null as "default!"
            from definitions d
            left join definition_defaults s
                on s.namespace = d.namespace and s.workflow = d.workflow and s.version = d.version
            where d.namespace = $1 and ($2::text is null or d.workflow = $2)
                and ($3::text is null or (d.workflow, d.version) > ($3, $4))
            order by d.namespace, d.workflow, d.version limit $5
            "#,
            namespace.as_str(),
            filter.workflow.as_ref().map(WorkflowName::as_str),
            filter.after.as_ref().map(|(workflow, _)| workflow.as_str()),
            filter.after.as_ref().map_or(0, |(_, version)| *version),
            i64::from(filter.limit.min(LIST_LIMIT)),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records
            .into_iter()
            .map(|record| DefinitionRow {
                workflow: WorkflowName::new(&record.workflow),
                version: record.version,
                hash: DefinitionHash(record.hash.into()),
                registered_at: record.registered_at.0,
                default: record.default,
            })
            .collect())
    }

    pub(super) async fn bodies(&self, hashes: &[DefinitionHash]) -> Result<Vec<(DefinitionHash, String)>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"select distinct on (hash) hash as "hash!", body as "body!" from definitions where hash = any($1)"#,
            hashes.iter().map(|hash| &*hash.0).bind_iter() as _,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records
            .into_iter()
            .map(|record| (DefinitionHash(record.hash.into()), record.body))
            .collect())
    }

    pub(super) async fn add_namespace(&self, namespace: &NamespaceRow) -> Result<bool, StoreError> {
        let mut connection = self.reads.take().await?;
        let created = sqlx::query_scalar!(
            r#"
            with created as (
                insert into namespaces (name, retention_class, events) values ($1, $2, $3) on conflict do nothing
                returning 1
            ), told as (
                update cluster set definitions_epoch = definitions_epoch + 1 where exists (select from created)
            )
            select count(*) as "created!" from created
            "#,
            namespace.name.as_str(),
            namespace.retention_class,
            namespace.events,
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        if created == 0 {
            return Ok(false);
        }
        // Its class may be a new one.
        self.try_event_partitions().await;
        Ok(true)
    }

    pub(super) async fn switch_events(&self, namespace: &Namespace, events: bool) -> Result<bool, StoreError> {
        let mut connection = self.reads.take().await?;
        let switched = sqlx::query!(
            "update namespaces set events = $2 where name = $1",
            namespace.as_str(),
            events,
        )
        .execute(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(switched.rows_affected() > 0)
    }

    pub(super) async fn all_namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"select name as "name!", retention_class as "retention_class!", events as "events!"
               from namespaces order by name"#
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records
            .into_iter()
            .map(|record| NamespaceRow {
                name: Namespace::new(&record.name),
                retention_class: record.retention_class,
                events: record.events,
            })
            .collect())
    }
}
