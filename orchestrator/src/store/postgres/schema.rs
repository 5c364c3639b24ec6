//! Creating and migrating the schema, and the partitions of `events`.

use knarr_core::time::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;

use super::error::to_store_error;
use super::time::At;
use super::{ENSURE_LIMIT, PostgresStore, within};
use crate::store::{Cluster, StoreError};

const OLDEST_SERVER: i32 = 150_000;

/// Migrations of a newer binary are left alone: whether this one can live with them is the format level's to say.
pub(super) static MIGRATIONS: Migrator = Migrator {
    ignore_missing: true,
    ..sqlx::migrate!("src/store/postgres/migrations")
};

pub(super) async fn check_version(connection: &mut PgConnection) -> Result<(), StoreError> {
    let version = sqlx::query_scalar!(r#"select current_setting('server_version_num')::integer as "version!""#)
        .fetch_one(connection)
        .await
        .map_err(to_store_error)?;
    refuse_old_server(version)
}

fn refuse_old_server(version: i32) -> Result<(), StoreError> {
    if version >= OLDEST_SERVER {
        return Ok(());
    }
    Err(StoreError::Rejected(format!(
        "KN0310: PostgreSQL 15 or newer is needed, the server is {}.{}; upgrade it or name another one",
        version / 10_000,
        version % 10_000,
    )))
}

impl PostgresStore {
    pub(super) async fn prepare_schema(&self, partitions: u16) -> Result<Cluster, StoreError> {
        let partitions = i16::try_from(partitions)
            .ok()
            .filter(|count| (1..i16::MAX).contains(count))
            .ok_or_else(|| StoreError::Rejected("KN0314: a cluster has 1 to 32,766 partitions".to_owned()))?;
        // Its own connection, with no limit: a migration takes as long as it takes.
        let mut connection = self.open(&[]).await?;
        MIGRATIONS
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|error| match error {
                sqlx::migrate::MigrateError::Execute(error) => to_store_error(error),
                other => StoreError::Rejected(format!("KN0315: the schema cannot be migrated: {other}")),
            })?;

        let mut secret = [0; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| StoreError::Unavailable("the system has no randomness to give".to_owned()))?;
        // Both or neither, and the first replica's values win.
        sqlx::query!(
            "with founded as (
                 insert into cluster (partitions, secret, format_level) values ($1, $2, $3)
                 on conflict do nothing returning partitions
             )
             insert into partitions (partition) select generate_series(0, founded.partitions) from founded",
            partitions,
            secret.as_slice(),
            self.config.reads_format,
        )
        .execute(&mut connection)
        .await
        .map_err(to_store_error)?;
        let row = sqlx::query!(
            r#"select id as "id!", partitions as "partitions!", secret as "secret!", format_level as "format_level!"
               from cluster"#
        )
        .fetch_one(&mut connection)
        .await
        .map_err(to_store_error)?;
        if row.format_level > self.config.reads_format {
            return Err(StoreError::TooOld {
                level: row.format_level,
                reads: self.config.reads_format,
            });
        }
        self.hear_of_level(row.format_level);
        let cluster = Cluster {
            id: row.id,
            partitions: u16::try_from(row.partitions).unwrap_or_default(),
            // The column's check says 32 bytes.
            secret: row.secret.try_into().unwrap_or_default(),
            format_level: row.format_level,
        };
        self.try_event_partitions().await;
        Ok(cluster)
    }

    /// Commits do without them, so nobody is kept from starting by a backup that reads the tables beside which one is made.
    pub(super) async fn try_event_partitions(&self) {
        let ensured = async {
            let now = self.clock().await?;
            self.ensure_event_partitions(now).await
        };
        if let Err(error) = within(ENSURE_LIMIT, ensured).await {
            tracing::warn!(%error, "partitions of events cannot be made ahead yet; commits go on without them");
        }
    }

    pub(super) async fn ensure_event_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        // Its own connection: what it waits for must hold up nobody else.
        let mut connection = self.open(&[]).await?;
        sqlx::query!("select ensure_event_partitions($1)", At(now) as _)
            .fetch_one(&mut connection)
            .await
            .map_err(to_store_error)?;
        connection.close().await.ok();
        Ok(())
    }

    pub(super) async fn clock(&self) -> Result<Timestamp, StoreError> {
        let mut connection = self.reads.take().await?;
        let At(now) = sqlx::query_scalar!(r#"select clock_timestamp() as "now!: At""#)
            .fetch_one(&mut *connection)
            .await
            .map_err(to_store_error)?;
        connection.put_back();
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_15_are_refused_with_a_code() {
        assert!(refuse_old_server(150_000).is_ok());
        assert!(refuse_old_server(180_002).is_ok());
        let refused = refuse_old_server(140_019).unwrap_err().to_string();
        assert!(refused.starts_with("KN0310") && refused.contains("14.19"), "{refused}");
    }
}
