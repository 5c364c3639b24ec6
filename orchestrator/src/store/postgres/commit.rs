//! The group commit: one statement, one round trip, all or nothing; with deferred inputs, permits or something to
//! forget, a transaction of a few.
//!
//! **Invariant:** every part joins on the fence, the one row of `sessions` that still has the epoch and batch number the
//! caller believes in. Without that row nothing is written. A partition that is not the session's, or an update of a run
//! that is not there, raises an error from within the statement, so that nothing of it stays.
//!
//! Only a session itself can lose a partition without losing its epoch, by giving it back. A commit that waited behind
//! that statement sees the partitions as they were when it began to wait, but the session's row as it is: it compares the
//! number of releases, which the statement that gives back has raised. So partitions are read and not locked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgBindIterExt, PgConnection};

use super::error::to_commit_error;
use super::time::At;
use super::{HOT, PostgresStore, milliseconds, within};
use super::{birth, deferred, permits};
use crate::store::{Batch, CommitError, Forgotten, RunWrite, Session, StoreError};

/// The server goes on with a commit so much longer than it is waited for: to end it at the same moment would make outcomes
/// unknown that are about to be known.
const ABANDONED: Duration = Duration::from_secs(5);

impl PostgresStore {
    pub(super) async fn commit_batch(&self, session: &Session, batch: &Batch) -> Result<(), CommitError> {
        let mut slot = self.commits.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            // Nothing was sent, but to recover is what the caller has to do in any case.
            None => within(self.config.answer_timeout, self.connect_for_commits())
                .await
                .map_err(|error| CommitError::Unknown(error.to_string()))?,
        };
        let executed = tokio::time::timeout(
            self.config.commit_timeout,
            write(&mut connection, session, batch, (self.config.lease_us(), self.level())),
        )
        .await
        .unwrap_or_else(|_| Err(CommitError::Unknown("no answer within the time limit".to_owned())));
        // A connection that has failed may be half-way through a statement or lead to a server that has stepped down.
        if !matches!(executed, Err(CommitError::Unknown(_))) {
            *slot = Some(connection);
        }
        executed
    }

    async fn connect_for_commits(&self) -> Result<PgConnection, StoreError> {
        // A commit that is no longer waited for must not hold its session's row for ever.
        let limit = milliseconds(self.config.commit_timeout + ABANDONED);
        let mut settings = HOT.to_vec();
        settings.push(("statement_timeout", &limit));
        let mut connection = self.open(&settings).await?;
        // Not every build has it, and asking for it in vain would refuse the connection.
        sqlx::query!(
            "select set_config(name, 'lz4', false) from pg_settings
             where name = 'default_toast_compression' and 'lz4' = any(enumvals)"
        )
        .fetch_optional(&mut connection)
        .await
        .map_err(super::error::to_store_error)?;
        Ok(connection)
    }
}

/// What is deferred, settled and forgotten, which is rare, and what limiters are made of go beside the statement and in its
/// transaction: the statement of every other batch need not carry it.
async fn write(
    connection: &mut PgConnection,
    session: &Session,
    batch: &Batch,
    (lease_us, level): (i64, i32),
) -> Result<(), CommitError> {
    if !batch.defers() && batch.forgotten.is_empty() && batch.permits.is_empty() {
        return execute(connection, session, batch, (lease_us, level)).await;
    }
    let mut transaction = connection.begin().await.map_err(to_commit_error)?;
    let written = match execute(&mut transaction, session, batch, (lease_us, level)).await {
        Ok(()) => beside(&mut transaction, batch).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => transaction.commit().await.map_err(to_commit_error),
        Err(error) => {
            // If this fails as well the connection is closed, which has the same effect.
            transaction.rollback().await.map_err(to_commit_error)?;
            Err(error)
        }
    }
}

async fn beside(connection: &mut PgConnection, batch: &Batch) -> Result<(), CommitError> {
    if batch.defers() {
        deferred::change(connection, batch).await?;
    }
    forget(connection, &batch.forgotten).await?;
    permits::write(connection, batch).await
}

/// What a schedule has been through grows without end, and its snapshot holds what is left of it.
async fn forget(connection: &mut PgConnection, forgotten: &[Forgotten]) -> Result<(), CommitError> {
    if forgotten.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "delete from events e
         using unnest($1::smallint[], $2::uuid[], $3::integer[]) as f (retention_class, run_id, up_to)
         where e.retention_class = f.retention_class and e.run_id = f.run_id and e.seq <= f.up_to",
        forgotten.iter().map(|one| one.retention_class).bind_iter() as _,
        forgotten.iter().map(|one| one.run_id.0).bind_iter() as _,
        forgotten.iter().map(|one| one.up_to).bind_iter() as _,
    )
    .execute(connection)
    .await
    .map_err(to_commit_error)?;
    Ok(())
}

async fn execute(
    connection: &mut PgConnection,
    session: &Session,
    batch: &Batch,
    (lease_us, level): (i64, i32),
) -> Result<(), CommitError> {
    let cursor_sequences = batch
        .cursors
        .iter()
        .map(|write| i64::try_from(write.cursor.sequence))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| CommitError::BadData("a cursor's sequence is out of range".to_owned()))?;
    let Batch {
        partitions,
        appends,
        runs,
        cursors,
        snapshots,
        owed,
        published,
        // Not by the statement.
        deferred: _,
        settled: _,
        forgotten: _,
        permits: _,
    } = batch;
    let inserts = || runs.iter().filter_map(RunWrite::as_insert);
    let updates = || runs.iter().filter_map(RunWrite::as_update);
    let updating = || runs.iter().filter(|write| write.as_update().is_some());

    // Updates come before inserts, so that a run may close and another open under its workflow id in one batch.
    let mut first_of_id = HashMap::new();
    for row in inserts() {
        let first = first_of_id
            .entry((&row.namespace, &row.workflow_id))
            .or_insert(row.run_id);
        *first = row.run_id.min(*first);
    }
    let again: Vec<bool> = inserts()
        .map(|row| first_of_id.get(&(&row.namespace, &row.workflow_id)) != Some(&row.run_id))
        .collect();
    // The births of this batch, without what its rows say.
    let born: HashMap<_, _> = match level < birth::LEVEL {
        true => HashMap::new(),
        false => inserts().map(|row| (row.run_id, row)).collect(),
    };
    let bodies: Vec<Cow<'_, str>> = appends
        .iter()
        .map(|append| {
            let body = append.transition.body.as_str();
            match born.get(&append.run_id).filter(|_| append.transition.seq == 1) {
                Some(row) => birth::shortened(body, &birth::Said::by(row)),
                None => Cow::Borrowed(body),
            }
        })
        .collect();
    let committed = sqlx::query_scalar!(
        r#"
        with fence as (
            update sessions
            set batch_no = batch_no + 1, lease_until = clock_timestamp() + $4::bigint * interval '1 microsecond'
            where id = $1 and epoch = $2 and batch_no = $3
            returning id, batch_no, releases
        ), appended as (
            insert into events (retention_class, run_id, seq, at, body)
            select a.* from fence,
                unnest($5::smallint[], $6::uuid[], $7::integer[], $8::timestamptz[], $9::text[]) as a
        ), updated as (
            update runs r
            set status = u.status, closed_at = u.closed_at, wake_at = u.wake_at,
                search_attributes = u.search_attributes::jsonb, outcome = u.outcome, retried_by = u.retried_by,
                tenure = u.tenure,
                version = coalesce(u.version, r.version), definition = coalesce(u.definition, r.definition)
            from fence, unnest($10::uuid[], $11::text[], $12::timestamptz[], $13::timestamptz[], $14::text[], $15::text[],
                               $46::integer[], $47::text[], $48::uuid[], $52::uuid[])
                as u (run_id, status, closed_at, wake_at, search_attributes, outcome, version, definition, retried_by,
                      tenure)
            where r.run_id = u.run_id
            returning 1
        ), inserted as (
            insert into runs (run_id, retention_class, partition, version, namespace, workflow_id, workflow, definition,
                              status, started_at, closed_at, wake_at, request_id, search_attributes, outcome, attempt,
                              begins_at, retried_by, tenure, again)
            select i.run_id, i.retention_class, i.partition, i.version, i.namespace, i.workflow_id, i.workflow,
                   i.definition, i.status, i.started_at, i.closed_at, i.wake_at, i.request_id,
                   i.search_attributes::jsonb, i.outcome, i.attempt, i.begins_at, i.retried_by,
                   i.tenure,
                   -- Not `exists`: the planner may answer that by reading the whole namespace once.
                   i.again or coalesce((select true from runs e
                                        where e.namespace = i.namespace and e.workflow_id = i.workflow_id
                                        limit 1), false)
            from fence, unnest($16::uuid[], $17::smallint[], $18::smallint[], $19::integer[], $20::text[], $21::text[],
                               $22::text[], $23::text[], $24::text[], $25::timestamptz[], $26::timestamptz[],
                               $27::timestamptz[], $28::text[], $29::text[], $30::text[], $45::boolean[],
                               $49::integer[], $50::timestamptz[], $51::uuid[], $53::uuid[])
                as i (run_id, retention_class, partition, version, namespace, workflow_id, workflow, definition, status,
                      started_at, closed_at, wake_at, request_id, search_attributes, outcome, again, attempt, begins_at,
                      retried_by, tenure)
            where (select count(*) from updated) >= 0
        ), moved as (
            update partitions p
            set cursor_seq = c.seq, cursor_at = c.at, cursor_stream = c.stream
            from fence, unnest($31::smallint[], $32::bigint[], $33::timestamptz[], $34::text[])
                as c (partition, seq, at, stream)
            where p.partition = c.partition and p.owner = fence.id
            returning 1
        ), saved as (
            insert into snapshots (run_id, seq, body)
            select s.* from fence, unnest($35::uuid[], $36::integer[], $37::text[]) as s
            on conflict (run_id) do update set seq = excluded.seq, body = excluded.body
            where snapshots.seq < excluded.seq
        ), owed as (
            insert into commits (session, batch_no, holder, run_ids, first_seqs, last_seqs, messages)
            select fence.id, fence.batch_no, fence.id, $38, $39, $40, $41
            from fence where cardinality($38::uuid[]) > 0 or $41::text is not null
        ), done as (
            delete from commits c
            using fence, unnest($42::uuid[], $43::bigint[]) as d (session, batch_no)
            where c.session = d.session and c.batch_no = d.batch_no and c.holder = fence.id
        )
        select case
            when not exists (select from fence) then 0
            when (select releases from fence) <> (select releases from sessions where id = $1)
                or not $44::smallint[] <@ array(select partition from partitions where owner = $1)
                then refuse_commit('KN001', 'a run belongs to a partition of another session')
            when (select count(*) from moved) <> cardinality($31::smallint[])
                then refuse_commit('KN001', 'a cursor belongs to a partition of another session')
            when (select count(*) from updated) <> cardinality($10::uuid[])
                then refuse_commit('KN002', 'an update names a run that is not there, or one run twice')
            else 1
        end as "committed!"
        "#,
        session.id,
        session.epoch,
        session.batch_no,
        lease_us,
        appends.iter().map(|append| append.retention_class).bind_iter() as _,
        appends.iter().map(|append| append.run_id.0).bind_iter() as _,
        appends.iter().map(|append| append.transition.seq).bind_iter() as _,
        appends.iter().map(|append| At(append.transition.at)).bind_iter() as _,
        bodies.iter().map(|body| &**body).bind_iter() as _,
        updates().map(|row| row.run_id.0).bind_iter() as _,
        updates().map(|row| row.status.as_str()).bind_iter() as _,
        updates().map(|row| row.closed_at.map(At)).bind_iter() as _,
        updates().map(|row| row.wake_at.map(At)).bind_iter() as _,
        updates().map(|row| row.search_attributes.as_deref()).bind_iter() as _,
        updates().map(|row| row.outcome.as_deref()).bind_iter() as _,
        inserts().map(|row| row.run_id.0).bind_iter() as _,
        inserts().map(|row| row.retention_class).bind_iter() as _,
        inserts().map(|row| row.partition).bind_iter() as _,
        inserts().map(|row| row.version).bind_iter() as _,
        inserts().map(|row| row.namespace.as_str()).bind_iter() as _,
        inserts().map(|row| row.workflow_id.as_str()).bind_iter() as _,
        inserts().map(|row| row.workflow.as_str()).bind_iter() as _,
        inserts().map(|row| &*row.definition.0).bind_iter() as _,
        inserts().map(|row| row.status.as_str()).bind_iter() as _,
        inserts().map(|row| At(row.started_at)).bind_iter() as _,
        inserts().map(|row| row.closed_at.map(At)).bind_iter() as _,
        inserts().map(|row| row.wake_at.map(At)).bind_iter() as _,
        inserts().map(|row| row.request_id.as_ref().map(|id| id.as_str())).bind_iter() as _,
        inserts().map(|row| row.search_attributes.as_deref()).bind_iter() as _,
        inserts().map(|row| row.outcome.as_deref()).bind_iter() as _,
        cursors.iter().map(|write| write.partition).bind_iter() as _,
        &cursor_sequences,
        cursors.iter().map(|write| At(write.cursor.at)).bind_iter() as _,
        cursors.iter().map(|write| write.cursor.stream.as_str()).bind_iter() as _,
        snapshots.iter().map(|snapshot| snapshot.run_id.0).bind_iter() as _,
        snapshots.iter().map(|snapshot| snapshot.seq).bind_iter() as _,
        snapshots.iter().map(|snapshot| snapshot.body.as_str()).bind_iter() as _,
        owed.spans.iter().map(|span| span.run_id.0).bind_iter() as _,
        owed.spans.iter().map(|span| span.first_seq).bind_iter() as _,
        owed.spans.iter().map(|span| span.last_seq).bind_iter() as _,
        owed.messages.as_deref(),
        published.iter().map(|id| id.session).bind_iter() as _,
        published.iter().map(|id| id.batch_no).bind_iter() as _,
        partitions,
        &again,
        updating().map(|write| write.as_migration().map(|row| row.version)).bind_iter() as _,
        updating().map(|write| write.as_migration().map(|row| &*row.definition.0)).bind_iter() as _,
        updates().map(|row| row.retried_by.map(|run| run.0)).bind_iter() as _,
        inserts().map(|row| (row.attempt != 1).then_some(row.attempt)).bind_iter() as _,
        inserts().map(|row| row.begins_at.map(At)).bind_iter() as _,
        inserts().map(|row| row.retried_by.map(|run| run.0)).bind_iter() as _,
        updates().map(|row| row.tenure).bind_iter() as _,
        inserts().map(|row| row.tenure).bind_iter() as _,
    )
    .fetch_one(connection)
    .await
    .map_err(to_commit_error)?;
    if committed == 1 {
        Ok(())
    } else {
        Err(CommitError::Fenced)
    }
}
