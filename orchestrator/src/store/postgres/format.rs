//! The cluster's format level: raised once every session's binary can read more.
//!
//! A session that begins holds the row of `cluster` in share mode while it says what it can read, and who raises the level
//! holds it alone and looks at the sessions only then. So one of them sees the other: a binary that is too old has its session
//! in time, or is refused.

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use super::error::to_store_error;
use crate::store::StoreError;

impl PostgresStore {
    pub(super) async fn read_level(&self) -> Result<i32, StoreError> {
        let mut connection = self.reads.take().await?;
        let level = level(&mut connection).await?;
        connection.put_back();
        Ok(level)
    }
}

/// Returns the level as it is then.
pub(super) async fn raise(connection: &mut PgConnection) -> Result<i32, StoreError> {
    let mut transaction = connection.begin().await.map_err(to_store_error)?;
    sqlx::query!("select from cluster for update")
        .execute(&mut *transaction)
        .await
        .map_err(to_store_error)?;
    // A statement of its own, with a snapshot that was taken when the row was held.
    let level = sqlx::query_scalar!(
        "update cluster set format_level = greatest(format_level, (select min(reads_format) from sessions))
         returning format_level"
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(to_store_error)?;
    transaction.commit().await.map_err(to_store_error)?;
    tracing::info!(
        level,
        "every replica can read a newer storage format: it is written from here on"
    );
    Ok(level)
}

pub(super) async fn level(connection: &mut PgConnection) -> Result<i32, StoreError> {
    sqlx::query_scalar!("select format_level from cluster")
        .fetch_one(connection)
        .await
        .map_err(to_store_error)
}
