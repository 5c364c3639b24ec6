//! Inputs that wait for their runs.

use knarr_core::ids::RunId;
use sqlx::postgres::{PgBindIterExt, PgConnection};

use super::PostgresStore;
use super::error::{to_commit_error, to_store_error};
use super::time::At;
use crate::store::{Batch, CommitError, Cursor, DEFERRED_LIMIT, DeferredInput, DeferredName, StoreError};

impl PostgresStore {
    pub(super) async fn names_of_deferred(&self, partition: i16) -> Result<Vec<DeferredName>, StoreError> {
        let mut connection = self.reads.take().await?;
        let rows = sqlx::query!(
            "select no, run_id, subject from deferred where partition = $1 order by no",
            partition
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let names = rows.into_iter().map(|row| DeferredName {
            no: row.no,
            run_id: RunId(row.run_id),
            subject: row.subject,
        });
        Ok(names.collect())
    }

    pub(super) async fn deferred_inputs(
        &self,
        partition: i16,
        run: RunId,
        after: i64,
    ) -> Result<Vec<DeferredInput>, StoreError> {
        let mut connection = self.reads.take().await?;
        let rows = sqlx::query!(
            r#"select partition, no, run_id, cursor_seq, cursor_at as "cursor_at!: At", cursor_stream, subject, headers, body
               from deferred
               where partition = $1 and no > $2 and run_id = $3
               order by no limit $4"#,
            partition,
            after,
            run.0,
            i64::try_from(DEFERRED_LIMIT).unwrap_or(i64::MAX),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let inputs = rows.into_iter().map(|row| DeferredInput {
            partition: row.partition,
            no: row.no,
            run_id: RunId(row.run_id),
            cursor: Cursor {
                // The column's check says that it is not negative.
                sequence: u64::try_from(row.cursor_seq).unwrap_or_default(),
                at: row.cursor_at.0,
                stream: row.cursor_stream,
            },
            subject: row.subject,
            headers: row.headers,
            body: row.body,
        });
        Ok(inputs.collect())
    }
}

/// What a batch changes here, in the transaction of its statement.
pub(super) async fn change(connection: &mut PgConnection, batch: &Batch) -> Result<(), CommitError> {
    let Batch { deferred, settled, .. } = batch;
    let sequences = deferred
        .iter()
        .map(|input| i64::try_from(input.cursor.sequence))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| CommitError::BadData("a cursor's sequence is out of range".to_owned()))?;
    let removed = sqlx::query!(
        "delete from deferred d
         using unnest($1::smallint[], $2::bigint[]) as s (partition, no)
         where d.partition = s.partition and d.no = s.no",
        settled.iter().map(|id| id.partition).bind_iter() as _,
        settled.iter().map(|id| id.no).bind_iter() as _,
    )
    .execute(&mut *connection)
    .await
    .map_err(to_commit_error)?;
    if removed.rows_affected() != settled.len() as u64 {
        return Err(CommitError::BadData(
            "a deferred input that is settled is not there".to_owned(),
        ));
    }
    sqlx::query!(
        "insert into deferred (partition, no, run_id, cursor_seq, cursor_at, cursor_stream, subject, headers, body)
         select * from unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[],
                              $7::text[], $8::text[], $9::bytea[])",
        deferred.iter().map(|input| input.partition).bind_iter() as _,
        deferred.iter().map(|input| input.no).bind_iter() as _,
        deferred.iter().map(|input| input.run_id.0).bind_iter() as _,
        &sequences,
        deferred.iter().map(|input| At(input.cursor.at)).bind_iter() as _,
        deferred.iter().map(|input| input.cursor.stream.as_str()).bind_iter() as _,
        deferred.iter().map(|input| input.subject.as_str()).bind_iter() as _,
        deferred.iter().map(|input| input.headers.as_str()).bind_iter() as _,
        deferred.iter().map(|input| input.body.as_slice()).bind_iter() as _,
    )
    .execute(connection)
    .await
    .map_err(to_commit_error)?;
    Ok(())
}
