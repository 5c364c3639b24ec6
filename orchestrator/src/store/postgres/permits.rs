//! The rows of limiters.

use std::collections::HashSet;

use knarr_core::ids::Namespace;
use sqlx::postgres::{PgBindIterExt, PgConnection};

use super::PostgresStore;
use super::error::{to_commit_error, to_store_error};
use crate::store::{Batch, CommitError, PermitId, PermitRow, StoreError};

impl PostgresStore {
    pub(super) async fn permits_of(&self, partition: i16) -> Result<Vec<PermitRow>, StoreError> {
        let mut connection = self.reads.take().await?;
        let rows = sqlx::query!(
            "select namespace, limiter, no, body from permits where partition = $1 order by namespace, limiter, no",
            partition
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let rows = rows.into_iter().map(|row| PermitRow {
            id: PermitId {
                partition,
                namespace: Namespace::new(&row.namespace),
                limiter: row.limiter,
                no: row.no,
            },
            body: row.body,
        });
        Ok(rows.collect())
    }
}

/// What a batch changes here, in the transaction of its statement.
pub(super) async fn write(connection: &mut PgConnection, batch: &Batch) -> Result<(), CommitError> {
    let mut written = HashSet::new();
    if !batch.permits.iter().all(|write| written.insert(&write.id)) {
        return Err(CommitError::BadData("there are two permits of one number".to_owned()));
    }
    let gone = || {
        batch
            .permits
            .iter()
            .filter(|write| write.body.is_none())
            .map(|write| &write.id)
    };
    if gone().next().is_some() {
        sqlx::query!(
            "delete from permits p
             using unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[]) as g (partition, namespace, limiter, no)
             where p.partition = g.partition and p.namespace = g.namespace and p.limiter = g.limiter and p.no = g.no",
            gone().map(|id| id.partition).bind_iter() as _,
            gone().map(|id| id.namespace.as_str()).bind_iter() as _,
            gone().map(|id| id.limiter.as_str()).bind_iter() as _,
            gone().map(|id| id.no).bind_iter() as _,
        )
        .execute(&mut *connection)
        .await
        .map_err(to_commit_error)?;
    }
    let put = || {
        let writes = batch.permits.iter();
        writes.filter_map(|write| Some((&write.id, write.body.as_deref()?)))
    };
    if put().next().is_some() {
        sqlx::query!(
            "insert into permits (partition, namespace, limiter, no, body)
             select * from unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[], $5::text[])
             on conflict (partition, namespace, limiter, no) do update set body = excluded.body",
            put().map(|(id, _)| id.partition).bind_iter() as _,
            put().map(|(id, _)| id.namespace.as_str()).bind_iter() as _,
            put().map(|(id, _)| id.limiter.as_str()).bind_iter() as _,
            put().map(|(id, _)| id.no).bind_iter() as _,
            put().map(|(_, body)| body).bind_iter() as _,
        )
        .execute(&mut *connection)
        .await
        .map_err(to_commit_error)?;
    }
    Ok(())
}
