//! How far the logs of partitions have been taken.

use sqlx::postgres::PgConnection;

use super::PostgresStore;
use super::error::to_store_error;
use super::time::At;
use crate::store::{Cursor, OwnedPartition, Session, StoreError};

impl PostgresStore {
    pub(super) async fn owned_cursors(&self, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
        let mut connection = self.reads.take().await?;
        let owned = owned(&mut connection, session).await?;
        connection.put_back();
        Ok(owned)
    }

    pub(super) async fn every_cursor(&self) -> Result<Vec<OwnedPartition>, StoreError> {
        let mut connection = self.reads.take().await?;
        let rows = sqlx::query_as!(
            Row,
            r#"select p.partition, p.cursor_seq, p.cursor_at as "cursor_at!: At", p.cursor_stream,
                      exists (select from deferred d where d.partition = p.partition) as "deferred!",
                      exists (select from permits r where r.partition = p.partition)
                          or exists (select from runs q where q.partition = p.partition and q.status = 'queued') as "permits!"
               from partitions p order by p.partition"#
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(rows.into_iter().map(OwnedPartition::from).collect())
    }
}

pub(super) async fn owned(connection: &mut PgConnection, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select p.partition as "partition!", p.cursor_seq as "cursor_seq!", p.cursor_at as "cursor_at!: At",
                  p.cursor_stream as "cursor_stream!",
                  exists (select from deferred d where d.partition = p.partition) as "deferred!",
                  exists (select from permits r where r.partition = p.partition)
                      or exists (select from runs q where q.partition = p.partition and q.status = 'queued') as "permits!"
           from partitions p join sessions s on s.id = p.owner
           where s.id = $1 and s.epoch = $2
           order by p.partition"#,
        session.id,
        session.epoch,
    )
    .fetch_all(connection)
    .await
    .map_err(to_store_error)?;
    Ok(rows.into_iter().map(OwnedPartition::from).collect())
}

struct Row {
    partition: i16,
    cursor_seq: i64,
    cursor_at: At,
    cursor_stream: String,
    deferred: bool,
    permits: bool,
}

impl From<Row> for OwnedPartition {
    fn from(row: Row) -> Self {
        Self {
            partition: row.partition,
            cursor: Cursor {
                // The column's check says that it is not negative.
                sequence: u64::try_from(row.cursor_seq).unwrap_or_default(),
                at: row.cursor_at.0,
                stream: row.cursor_stream,
            },
            deferred: row.deferred,
            permits: row.permits,
        }
    }
}
