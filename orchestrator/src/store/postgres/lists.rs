//! Lists of runs for people, newest first, each by the index that knows its filter.
//!
//! A list by workflow, or of what is running, reads the namespace from its newest run on; where little of that fits, the
//! server's time limit ends it.

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};

use super::PostgresStore;
use super::error::to_store_error;
use super::runs::run_row;
use super::time::At;
use crate::store::{COUNT_LIMIT, LIST_LIMIT, RunFilter, RunRow, StoreError};

impl PostgresStore {
    pub(super) async fn list(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        let filter = RunFilter {
            limit: filter.limit.min(LIST_LIMIT),
            ..filter.clone()
        };
        match (&filter.workflow_id, filter.status.as_deref()) {
            (Some(workflow_id), _) => self.list_of_id(namespace, workflow_id, &filter).await,
            (None, None | Some("running" | "completed")) => self.list_of_namespace(namespace, &filter).await,
            (None, Some(status)) => self.list_of_status(namespace, status, &filter).await,
        }
    }

    async fn list_of_namespace(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        let mut connection = self.people.take().await?;
        let records = sqlx::query!(
            r#"
            select r.run_id as "run_id!", r.retention_class as "retention_class!", r.partition as "partition!",
                   r.version as "version!", r.namespace as "namespace!", r.workflow_id as "workflow_id!",
                   r.workflow as "workflow!", r.definition as "definition!", r.status as "status!",
                   r.started_at as "started_at!: At", r.closed_at as "closed_at?: At", r.wake_at as "wake_at?: At",
                   r.request_id as "request_id?", r.search_attributes::text as "search_attributes?",
                   r.outcome as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?"
            from runs r
            where r.namespace collate "POSIX" = $1
                and ($2::text is null and r.workflow not in ('$schedule', '$trigger') or r.workflow = $2)
                and ($3::text is null or r.status = $3)
                and ($4::uuid is null or r.run_id < $4)
            order by r.run_id desc limit $5
            "#,
            namespace.as_str(),
            filter.workflow.as_ref().map(WorkflowName::as_str),
            filter.status.as_deref(),
            filter.before.map(|run| run.0),
            i64::from(filter.limit),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records.into_iter().map(|record| run_row!(record)).collect())
    }

    /// The open run stands apart in the index, before the closed ones in the order in which they started; those that had the id in
    /// another order are in an index of their own as well.
    async fn list_of_id(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        filter: &RunFilter,
    ) -> Result<Vec<RunRow>, StoreError> {
        let mut connection = self.people.take().await?;
        let records = sqlx::query!(
            r#"
            select r.run_id as "run_id!", r.retention_class as "retention_class!", r.partition as "partition!",
                   r.version as "version!", r.namespace as "namespace!", r.workflow_id as "workflow_id!",
                   r.workflow as "workflow!", r.definition as "definition!", r.status as "status!",
                   r.started_at as "started_at!: At", r.closed_at as "closed_at?: At", r.wake_at as "wake_at?: At",
                   r.request_id as "request_id?", r.search_attributes::text as "search_attributes?",
                   r.outcome as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?"
            from (
                select o.* from runs o
                where o.namespace = $1 and o.workflow_id = $2
                    and (case when o.closed_at is null and o.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                              else coalesce(o.tenure, o.run_id) end) = '00000000-0000-0000-0000-000000000000'::uuid
                    and ($5::uuid is null or o.run_id < $5)
                union all
                (select c.* from runs c
                 where c.namespace = $1 and c.workflow_id = $2 and c.tenure is null
                    and (case when c.closed_at is null and c.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                              else coalesce(c.tenure, c.run_id) end) > '00000000-0000-ffff-0000-000000000000'::uuid
                    and (case when c.closed_at is null and c.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                              else coalesce(c.tenure, c.run_id) end) < coalesce($5::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                    and ($3::text is null or c.workflow = $3)
                    and ($4::text is null or c.status = $4)
                 order by c.namespace desc, c.workflow_id desc,
                    (case when c.closed_at is null and c.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                          else coalesce(c.tenure, c.run_id) end) desc
                 limit $6)
                union all
                (select t.* from runs t
                 where t.namespace = $1 and t.workflow_id = $2 and t.tenure is not null
                    and (t.closed_at is not null or t.status = 'queued')
                    and t.run_id < coalesce($5::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                    and ($3::text is null or t.workflow = $3)
                    and ($4::text is null or t.status = $4)
                 order by t.namespace desc, t.workflow_id desc, t.run_id desc
                 limit $6)
            ) r
            where ($3::text is null or r.workflow = $3) and ($4::text is null or r.status = $4)
            order by r.run_id desc limit $6
            "#,
            namespace.as_str(),
            workflow_id.as_str(),
            filter.workflow.as_ref().map(WorkflowName::as_str),
            filter.status.as_deref(),
            filter.before.map(|run| run.0),
            i64::from(filter.limit),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records.into_iter().map(|record| run_row!(record)).collect())
    }

    /// By an index that has nothing else.
    pub(super) async fn parked_count(&self) -> Result<u64, StoreError> {
        let mut connection = self.people.take().await?;
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from (select from runs where status = 'parked' limit $1) parked"#,
            COUNT_LIMIT as i64,
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(count.unsigned_abs())
    }

    /// Not for those that complete on their own, which are in no index by their status.
    async fn list_of_status(
        &self,
        namespace: &Namespace,
        status: &str,
        filter: &RunFilter,
    ) -> Result<Vec<RunRow>, StoreError> {
        let mut connection = self.people.take().await?;
        let records = sqlx::query!(
            r#"
            select r.run_id as "run_id!", r.retention_class as "retention_class!", r.partition as "partition!",
                   r.version as "version!", r.namespace as "namespace!", r.workflow_id as "workflow_id!",
                   r.workflow as "workflow!", r.definition as "definition!", r.status as "status!",
                   r.started_at as "started_at!: At", r.closed_at as "closed_at?: At", r.wake_at as "wake_at?: At",
                   r.request_id as "request_id?", r.search_attributes::text as "search_attributes?",
                   r.outcome as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?"
            from runs r
            where r.namespace = $1 and r.status = $2 and r.status not in ('running', 'completed')
                and ($3::text is null and r.workflow not in ('$schedule', '$trigger') or r.workflow = $3)
                and ($4::uuid is null or r.run_id < $4)
            order by r.namespace desc, r.status desc, r.run_id desc limit $5
            "#,
            namespace.as_str(),
            status,
            filter.workflow.as_ref().map(WorkflowName::as_str),
            filter.before.map(|run| run.0),
            i64::from(filter.limit),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records.into_iter().map(|record| run_row!(record)).collect())
    }

    pub(super) async fn schedules(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        let mut connection = self.people.take().await?;
        let records = sqlx::query!(
            r#"
            select r.run_id as "run_id!", r.retention_class as "retention_class!", r.partition as "partition!",
                   r.version as "version!", r.namespace as "namespace!", r.workflow_id as "workflow_id!",
                   r.workflow as "workflow!", r.definition as "definition!", r.status as "status!",
                   r.started_at as "started_at!: At", r.closed_at as "closed_at?: At", r.wake_at as "wake_at?: At",
                   r.request_id as "request_id?", r.search_attributes::text as "search_attributes?",
                   r.outcome as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?"
            from runs r
            where r.namespace = $1 and r.workflow = '$schedule' and r.closed_at is null
                and ($2::text is null or r.workflow_id > $2)
            order by r.namespace, r.workflow_id limit $3
            "#,
            namespace.as_str(),
            after.map(WorkflowId::as_str),
            i64::from(limit.min(LIST_LIMIT)),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records.into_iter().map(|record| run_row!(record)).collect())
    }
    pub(super) async fn all_triggers(
        &self,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        let mut connection = self.people.take().await?;
        let records = sqlx::query!(
            r#"
            select r.run_id as "run_id!", r.retention_class as "retention_class!", r.partition as "partition!",
                   r.version as "version!", r.namespace as "namespace!", r.workflow_id as "workflow_id!",
                   r.workflow as "workflow!", r.definition as "definition!", r.status as "status!",
                   r.started_at as "started_at!: At", r.closed_at as "closed_at?: At", r.wake_at as "wake_at?: At",
                   r.request_id as "request_id?", r.search_attributes::text as "search_attributes?",
                   r.outcome as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?"
            from runs r
            where r.namespace = $1 and r.workflow = '$trigger' and r.closed_at is null
                and ($2::text is null or r.workflow_id > $2)
            order by r.namespace, r.workflow_id limit $3
            "#,
            namespace.as_str(),
            after.map(WorkflowId::as_str),
            i64::from(limit.min(LIST_LIMIT)),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records.into_iter().map(|record| run_row!(record)).collect())
    }
    /// Those whose partitions these are.
    pub(super) async fn triggers_of(&self, partitions: &[i16]) -> Result<Vec<RunId>, StoreError> {
        let mut connection = self.reads.take().await?;
        let runs = sqlx::query_scalar!(
            "select run_id from runs where workflow = '$trigger' and closed_at is null and partition = any($1)
             order by run_id",
            partitions
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(runs.into_iter().map(RunId).collect())
    }
}
