//! Runs and their transitions, for the engine and for people.

use std::collections::{HashMap, HashSet};

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::PostgresStore;
use super::birth;
use super::error::to_store_error;
use super::time::At;
use crate::store::{
    CLOSED_LIMIT, ClosedRun, Due, DuePage, FOUND_OUTCOME_BYTES, Found, FoundRun, HISTORY_LIMIT, RunRow, RunSize,
    Snapshot, StoreError, StoredRun, StoredTransition,
};

/// Deadlines that one partition gives to a page at least.
const LEAST_DUE: usize = 256;
/// Some thousand years before anything, and within what the server can express.
const BEFORE_ALL: Timestamp = Timestamp(-200_000_000_000_000_000);

/// The checked queries make a record type each; this is what they have in common.
macro_rules! run_row {
    ($record:ident) => {
        RunRow {
            run_id: RunId($record.run_id),
            retention_class: $record.retention_class,
            namespace: Namespace::new(&$record.namespace),
            workflow_id: WorkflowId::new(&$record.workflow_id),
            workflow: WorkflowName::new(&$record.workflow),
            version: $record.version,
            definition: DefinitionHash($record.definition.into()),
            partition: $record.partition,
            status: $record.status,
            started_at: $record.started_at.0,
            closed_at: $record.closed_at.map(|At(at)| at),
            wake_at: $record.wake_at.map(|At(at)| at),
            request_id: $record.request_id.as_deref().map(RequestId::new),
            search_attributes: $record.search_attributes,
            outcome: $record.outcome,
            attempt: $record.attempt.unwrap_or(1),
            begins_at: $record.begins_at.map(|At(at)| at),
            retried_by: $record.retried_by.map(RunId),
            tenure: $record.tenure,
        }
    };
}
pub(super) use run_row;

impl PostgresStore {
    pub(super) async fn find(&self, ids: &[(Namespace, WorkflowId, Option<RequestId>)]) -> Result<Found, StoreError> {
        // Mostly nothing is there: one look at the end of the index's prefix says so. Where something is, the last one in
        // slot order is the closed run that had the id last, or the open one if there is no closed one. The run of a request is
        // the first that had its id, or in the index of those that were not.
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"
            select c.definitions_epoch as "definitions_epoch!", r.run_id as "run_id?", r.retention_class as "retention_class?",
                   r.partition as "partition?", r.version as "version?", r.namespace as "namespace?",
                   r.workflow_id as "workflow_id?", r.workflow as "workflow?", r.definition as "definition?",
                   r.status as "status?", r.started_at as "started_at?: At", r.closed_at as "closed_at?: At",
                   r.wake_at as "wake_at?: At", r.request_id as "request_id?",
                   r.search_attributes::text as "search_attributes?",
                   case when octet_length(r.outcome) <= $4 then r.outcome end as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?"
            from cluster c
            left join (
                unnest($1::text[], $2::text[], $3::text[]) as w (namespace, workflow_id, request_id)
                cross join lateral (
                    select l.run_id from runs l
                    where l.namespace = w.namespace and l.workflow_id = w.workflow_id and l.status <> 'queued'
                    order by l.namespace desc, l.workflow_id desc,
                        (case when l.closed_at is null and l.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                              else coalesce(l.tenure, l.run_id) end) desc
                    limit 1
                ) last
                cross join lateral (
                    select n.* from runs n where n.run_id = last.run_id
                    union all
                    select o.* from runs o
                    where o.namespace = w.namespace and o.workflow_id = w.workflow_id
                        and (case when o.closed_at is null and o.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                                  else coalesce(o.tenure, o.run_id) end) = '00000000-0000-0000-0000-000000000000'::uuid
                    union all
                    select k.* from runs k
                    where k.status = 'queued' and k.namespace = w.namespace and k.workflow_id = w.workflow_id
                    union all
                    select q.* from runs q
                    where q.again and q.namespace = w.namespace and q.workflow_id = w.workflow_id
                        and q.request_id = w.request_id
                    union all
                    select f.* from (
                        select e.* from runs e
                        where e.namespace = w.namespace and e.workflow_id = w.workflow_id
                            and (case when e.closed_at is null and e.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                                      else coalesce(e.tenure, e.run_id) end) > '00000000-0000-ffff-0000-000000000000'::uuid
                        order by e.namespace, e.workflow_id,
                            (case when e.closed_at is null and e.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                                  else coalesce(e.tenure, e.run_id) end)
                        limit 1
                    ) f where f.request_id = w.request_id
                ) r
            ) on true
            "#,
            ids.iter().map(|(namespace, _, _)| namespace.as_str()).bind_iter() as _,
            ids.iter().map(|(_, workflow_id, _)| workflow_id.as_str()).bind_iter() as _,
            ids.iter().map(|(_, _, request)| request.as_ref().map(|id| id.as_str())).bind_iter() as _,
            FOUND_OUTCOME_BYTES as i32,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();

        let mut found = Found::default();
        let mut seen = HashSet::new();
        for record in records {
            found.definitions_epoch = record.definitions_epoch;
            let (Some(run_id), Some(retention_class), Some(partition), Some(version), Some(namespace)) = (
                record.run_id,
                record.retention_class,
                record.partition,
                record.version,
                record.namespace,
            ) else {
                continue;
            };
            let (Some(workflow_id), Some(workflow), Some(definition), Some(status), Some(started_at)) = (
                record.workflow_id,
                record.workflow,
                record.definition,
                record.status,
                record.started_at,
            ) else {
                continue;
            };
            if !seen.insert(run_id) {
                continue;
            }
            found.runs.push(FoundRun {
                row: RunRow {
                    run_id: RunId(run_id),
                    retention_class,
                    namespace: Namespace::new(&namespace),
                    workflow_id: WorkflowId::new(&workflow_id),
                    workflow: WorkflowName::new(&workflow),
                    version,
                    definition: DefinitionHash(definition.into()),
                    partition,
                    status,
                    started_at: started_at.0,
                    closed_at: record.closed_at.map(|At(at)| at),
                    wake_at: record.wake_at.map(|At(at)| at),
                    request_id: record.request_id.as_deref().map(RequestId::new),
                    search_attributes: record.search_attributes,
                    outcome: record.outcome,
                    attempt: record.attempt.unwrap_or(1),
                    begins_at: record.begins_at.map(|At(at)| at),
                    retried_by: record.retried_by.map(RunId),
                    tenure: record.tenure,
                },
            });
        }
        Ok(found)
    }

    /// By the index that [`PostgresStore::find`] reads, from its end or from where a page ended.
    pub(super) async fn closed_of_id(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        before: Option<Uuid>,
    ) -> Result<Vec<ClosedRun>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"
            select r.run_id, coalesce(r.tenure, r.run_id) as "tenure!", r.closed_at as "closed_at!: At"
            from runs r
            where r.namespace = $1 and r.workflow_id = $2 and r.closed_at is not null
                and (case when r.closed_at is null and r.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                          else coalesce(r.tenure, r.run_id) end) < coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
            order by r.namespace desc, r.workflow_id desc,
                (case when r.closed_at is null and r.status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
                      else coalesce(r.tenure, r.run_id) end) desc
            limit $4
            "#,
            namespace.as_str(),
            workflow_id.as_str(),
            before,
            CLOSED_LIMIT as i64,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let closed = records.into_iter().map(|record| ClosedRun {
            run_id: RunId(record.run_id),
            tenure: record.tenure,
            closed_at: record.closed_at.0,
        });
        Ok(closed.collect())
    }

    /// Workflow ids of a partition that starts are queued for.
    pub(super) async fn ids_queued_for(&self, partition: i16) -> Result<Vec<(Namespace, WorkflowId)>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            "select distinct namespace, workflow_id from runs where partition = $1 and status = 'queued'",
            partition
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let ids = records.into_iter();
        Ok(ids
            .map(|record| (Namespace::new(&record.namespace), WorkflowId::new(&record.workflow_id)))
            .collect())
    }

    pub(super) async fn load(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"
            select r.run_id as "run_id!", r.retention_class as "retention_class!", r.partition as "partition!",
                   r.version as "version!", r.namespace as "namespace!", r.workflow_id as "workflow_id!",
                   r.workflow as "workflow!", r.definition as "definition!", r.status as "status!",
                   r.started_at as "started_at!: At", r.closed_at as "closed_at?: At", r.wake_at as "wake_at?: At",
                   r.request_id as "request_id?", r.search_attributes::text as "search_attributes?",
                   r.outcome as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?",
                   s.seq as "snapshot_seq?", s.body as "snapshot_body?"
            from runs r left join snapshots s on s.run_id = r.run_id
            where r.run_id = any($1)
            "#,
            ids.iter().map(|id| id.0).bind_iter() as _,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        let mut runs = Vec::with_capacity(records.len());
        let mut index = HashMap::with_capacity(records.len());
        for record in records {
            let snapshot = record
                .snapshot_seq
                .zip(record.snapshot_body)
                .map(|(seq, body)| Snapshot {
                    run_id: RunId(record.run_id),
                    seq,
                    body,
                });
            index.insert(record.run_id, runs.len());
            runs.push(StoredRun {
                row: run_row!(record),
                snapshot,
                transitions: Vec::new(),
            });
        }
        if runs.is_empty() {
            connection.put_back();
            return Ok(runs);
        }

        // By a function, so that the tables that have them are read and no other is opened.
        let events = sqlx::query!(
            r#"
            select e.run_id as "run_id!", e.seq as "seq!", e.at as "at!: At", e.body as "body!"
            from events_after($1::smallint[], $2::uuid[], $3::integer[]) e
            "#,
            runs.iter().map(|run| run.row.retention_class).bind_iter() as _,
            runs.iter().map(|run| run.row.run_id.0).bind_iter() as _,
            runs.iter()
                .map(|run| run.snapshot.as_ref().map_or(0, |snapshot| snapshot.seq))
                .bind_iter() as _,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        for event in events {
            if let Some(run) = index.get(&event.run_id).and_then(|position| runs.get_mut(*position)) {
                let body = birth::restored(event.body, &birth::Said::by(&run.row));
                run.transitions.push(StoredTransition {
                    seq: event.seq,
                    at: event.at.0,
                    body,
                });
            }
        }
        Ok(runs)
    }

    pub(super) async fn row(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        let mut connection = self.reads.take().await?;
        let record = sqlx::query!(
            r#"
            select r.run_id as "run_id!", r.retention_class as "retention_class!", r.partition as "partition!",
                   r.version as "version!", r.namespace as "namespace!", r.workflow_id as "workflow_id!",
                   r.workflow as "workflow!", r.definition as "definition!", r.status as "status!",
                   r.started_at as "started_at!: At", r.closed_at as "closed_at?: At", r.wake_at as "wake_at?: At",
                   r.request_id as "request_id?", r.search_attributes::text as "search_attributes?",
                   r.outcome as "outcome?", r.attempt as "attempt?",
                   r.begins_at as "begins_at?: At", r.retried_by as "retried_by?", r.tenure as "tenure?"
            from runs r where r.run_id = $1
            "#,
            run.0,
        )
        .fetch_optional(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(record.map(|record| run_row!(record)))
    }

    /// Of what is stored out of line only the size is read.
    pub(super) async fn sizes(&self, ids: &[RunId]) -> Result<Vec<RunSize>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"
            select s.run_id as "run_id!", s.partition as "partition!", s.bytes as "bytes!" from run_sizes($1::uuid[]) s
            "#,
            ids.iter().map(|id| id.0).bind_iter() as _,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let sizes = records.into_iter().map(|record| RunSize {
            run_id: RunId(record.run_id),
            partition: record.partition,
            bytes: u64::try_from(record.bytes).unwrap_or_default(),
        });
        Ok(sizes.collect())
    }

    pub(super) async fn transitions(
        &self,
        run: RunId,
        after: i32,
        limit: u32,
    ) -> Result<Vec<StoredTransition>, StoreError> {
        let mut connection = self.people.take().await?;
        let records = sqlx::query!(
            r#"
            select e.seq as "seq!", e.at as "at!: At", e.body as "body!", r.namespace as "namespace!",
                   r.workflow_id as "workflow_id!", r.workflow as "workflow!", r.request_id
            from runs r join events e on e.retention_class = r.retention_class and e.run_id = r.run_id
            where r.run_id = $1 and e.run_id = $1 and e.seq > $2
            order by e.seq limit $3
            "#,
            run.0,
            after,
            i64::from(limit.min(HISTORY_LIMIT)),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(records
            .into_iter()
            .map(|record| {
                let said = birth::Said {
                    run_id: run,
                    namespace: &record.namespace,
                    workflow_id: &record.workflow_id,
                    workflow: &record.workflow,
                    request_id: record.request_id.as_deref(),
                };
                StoredTransition {
                    seq: record.seq,
                    at: record.at.0,
                    body: birth::restored(record.body, &said),
                }
            })
            .collect())
    }

    pub(super) async fn due_runs(&self, partitions: &[i16], page: DuePage) -> Result<Due, StoreError> {
        // Each partition gives the first ones behind the last page, from the index alone; but only some more than its part, or
        // they would be read as often as there are partitions. So what follows the end of one that gave all it was to is left
        // to the next page.
        let limit = page.limit.max(1) as usize;
        let each = (4 * limit).div_ceil(partitions.len().max(1)).max(LEAST_DUE).min(limit) + 1;
        let (after_at, after_run) = page.after.unwrap_or((BEFORE_ALL, RunId(Uuid::nil())));
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"
            select p.partition as "partition!", d.run_id as "run_id!", d.wake_at as "wake_at!: At"
            from unnest($1::smallint[]) as p (partition)
            cross join lateral (
                select r.run_id, r.wake_at from runs r
                where r.partition = p.partition and r.wake_at <= $2 and (r.wake_at, r.run_id) > ($4, $5)
                order by r.wake_at, r.run_id limit $3
            ) d
            "#,
            partitions,
            At(page.until) as _,
            i64::try_from(each).unwrap_or(i64::MAX),
            At(after_at) as _,
            after_run.0,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let mut given: HashMap<i16, (usize, (Timestamp, RunId))> = HashMap::new();
        let mut due = Vec::with_capacity(records.len());
        for record in records {
            let one = (record.wake_at.0, RunId(record.run_id));
            let of = given.entry(record.partition).or_insert((0, one));
            *of = (of.0 + 1, of.1.max(one));
            due.push(one);
        }
        let ends = given
            .values()
            .filter(|(count, _)| *count == each)
            .map(|(_, last)| *last);
        let known_to = ends.min();
        due.sort_unstable();
        if let Some(known_to) = known_to {
            due.truncate(due.partition_point(|one| *one <= known_to));
        }
        let whole = known_to.is_none() && due.len() <= limit;
        due.truncate(limit);
        Ok(Due {
            runs: due.into_iter().map(|(at, run_id)| (run_id, at)).collect(),
            whole,
        })
    }
}
