//! Sessions: how one begins, recovers and ends, and the lock by which a replica knows its dead predecessor.

use std::collections::{BTreeSet, HashMap};

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::error::to_store_error;
use super::format;
use super::lease::Watched;
use super::{HOT, PostgresStore};
use crate::store::{CommitId, Session, StoreError};

/// What belongs to the connection that holds the session locks.
#[derive(Debug, Default)]
pub(super) struct Lease {
    pub(super) connection: Option<PgConnection>,
    /// Replica names whose lock this process holds.
    replicas: BTreeSet<String>,
    /// Those whose lock it held on a connection that is gone, and somebody else had when it was asked for again: most
    /// likely the old connection's backend, or else a namesake.
    lost: BTreeSet<String>,
    /// What each session's owner has been told. An answer that never arrived is given again: what is owned in the tables
    /// and not here counts as gained.
    pub(super) told: HashMap<Uuid, Told>,
    /// What has been seen of other sessions on this connection.
    pub(super) watched: HashMap<Uuid, Watched>,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) partitions: BTreeSet<i16>,
    pub(super) commits: BTreeSet<CommitId>,
}

/// Statements of this connection wait for a row lock so long, then the caller tries again. Less than an answer is waited
/// for, so that the connection outlives it.
const LOCK_TIMEOUT: &str = "2s";
const LEASE: &[(&str, &str)] = &[
    ("lock_timeout", LOCK_TIMEOUT),
    // A takeover that is no longer waited for must not hold the rows of others.
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
];

impl Lease {
    /// Takes the connection out, so that a failed or cancelled use closes it; put it back with [`Lease::put`].
    pub(super) async fn take(&mut self, store: &PostgresStore) -> Result<PgConnection, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut settings = HOT.to_vec();
                settings.extend_from_slice(LEASE);
                self.lost.append(&mut self.replicas);
                // While the server was away nobody could renew.
                self.watched.clear();
                store.open(&settings).await?
            }
        };
        // Until it is held, a namesake that begins would take this process for dead.
        for replica in self.lost.clone() {
            if try_lock(&mut connection, &replica).await? {
                self.lost.remove(&replica);
                self.replicas.insert(replica);
            }
        }
        Ok(connection)
    }

    pub(super) fn put(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
    }
}

impl PostgresStore {
    pub(super) async fn begin_session(&self, replica: &str) -> Result<Session, StoreError> {
        let mut lease = self.lease.lock().await;
        let mut connection = lease.take(self).await?;
        // Whoever asks again in the same process has given up its earlier session.
        let locked = lease.replicas.contains(replica) || self.lock_replica(&mut connection, replica).await?;
        if !locked && live_namesake(&mut connection, replica).await? {
            lease.put(connection);
            return Err(StoreError::NameTaken {
                replica: replica.to_owned(),
            });
        }
        let row = sqlx::query!(
            r#"with readable as (
                 select from cluster where format_level <= $4 for share
             ), born as (
                 insert into sessions (id, replica, epoch, lease_until, reads_format)
                 select gen_random_uuid(), $1, 1, clock_timestamp() + $2::bigint * interval '1 microsecond', $4
                 from readable
                 returning id, epoch, batch_no
             ), predecessors as (
                 update sessions s set epoch = s.epoch + 1, claimed_by = born.id
                 from born where s.replica = $1 and $3
             )
             select id as "id!", epoch as "epoch!", batch_no as "batch_no!" from born"#,
            replica,
            self.config.lease_us(),
            locked,
            self.config.reads_format,
        )
        .fetch_optional(&mut connection)
        .await
        .map_err(to_store_error)?;
        let Some(row) = row else {
            let level = format::level(&mut connection).await?;
            lease.put(connection);
            return Err(StoreError::TooOld {
                level,
                reads: self.config.reads_format,
            });
        };
        if locked {
            lease.lost.remove(replica);
            lease.replicas.insert(replica.to_owned());
        }
        lease.told.insert(row.id, Told::default());
        lease.put(connection);
        Ok(Session {
            id: row.id,
            epoch: row.epoch,
            batch_no: row.batch_no,
        })
    }

    /// Waits a moment for the backend of a process that has just died to notice.
    async fn lock_replica(&self, connection: &mut PgConnection, replica: &str) -> Result<bool, StoreError> {
        if try_lock(connection, replica).await? {
            return Ok(true);
        }
        let wait = format!("{}ms", self.config.replica_lock_wait.as_millis().max(1));
        sqlx::query!("select set_config('lock_timeout', $1, false)", wait)
            .fetch_one(&mut *connection)
            .await
            .map_err(to_store_error)?;
        let waited = sqlx::query!(
            "select pg_advisory_lock(hashtextextended('knarr replica ' || $1, 0))",
            replica
        )
        .fetch_one(&mut *connection)
        .await;
        sqlx::query!("select set_config('lock_timeout', $1, false)", LOCK_TIMEOUT)
            .fetch_one(&mut *connection)
            .await
            .map_err(to_store_error)?;
        match waited {
            Ok(_) => Ok(true),
            // lock_not_available
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => Ok(false),
            Err(error) => Err(to_store_error(error)),
        }
    }

    pub(super) async fn end_session(&self, session: &Session) -> Result<(), StoreError> {
        let mut lease = self.lease.lock().await;
        let mut connection = lease.take(self).await?;
        let mut transaction = connection.begin().await.map_err(to_store_error)?;
        // The epoch goes up, so that nothing the session may still have under way can land.
        let replica = sqlx::query_scalar!(
            "update sessions set epoch = epoch + 1, lease_until = '-infinity' where id = $1 and epoch = $2
             returning replica",
            session.id,
            session.epoch,
        )
        .fetch_optional(&mut *transaction)
        .await
        .map_err(to_store_error)?;
        sqlx::query!(
            "update partitions set owner = null where owner = $1 and $2",
            session.id,
            replica.is_some()
        )
        .execute(&mut *transaction)
        .await
        .map_err(to_store_error)?;
        // With commits to be inherited the row stays, as a session whose lease is over.
        sqlx::query!(
            "delete from sessions where id = $1 and $2 and not exists (select from commits where holder = $1)",
            session.id,
            replica.is_some()
        )
        .execute(&mut *transaction)
        .await
        .map_err(to_store_error)?;
        transaction.commit().await.map_err(to_store_error)?;
        lease.told.remove(&session.id);
        let Some(replica) = replica else {
            lease.put(connection);
            return Err(StoreError::Fenced);
        };
        lease.lost.remove(&replica);
        if lease.replicas.remove(&replica) {
            sqlx::query!(
                "select pg_advisory_unlock(hashtextextended('knarr replica ' || $1, 0))",
                replica
            )
            .fetch_one(&mut connection)
            .await
            .map_err(to_store_error)?;
        }
        lease.put(connection);
        Ok(())
    }

    pub(super) async fn recover_session(&self, session: &Session) -> Result<Session, StoreError> {
        let mut lease = self.lease.lock().await;
        let mut connection = lease.take(self).await?;
        let row = sqlx::query!(
            "update sessions
             set epoch = epoch + 1, lease_until = clock_timestamp() + $3::bigint * interval '1 microsecond'
             where id = $1 and epoch >= $2 and claimed_by is null
             returning epoch, batch_no",
            session.id,
            session.epoch,
            self.config.lease_us(),
        )
        .fetch_optional(&mut connection)
        .await
        .map_err(to_store_error)?;
        lease.put(connection);
        let row = row.ok_or(StoreError::Fenced)?;
        Ok(Session {
            id: session.id,
            epoch: row.epoch,
            batch_no: row.batch_no,
        })
    }
}

async fn try_lock(connection: &mut PgConnection, replica: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"select pg_try_advisory_lock(hashtextextended('knarr replica ' || $1, 0)) as "locked!""#,
        replica
    )
    .fetch_one(connection)
    .await
    .map_err(to_store_error)
}

async fn live_namesake(connection: &mut PgConnection, replica: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"select exists (select from sessions where replica = $1 and lease_until >= clock_timestamp()) as "live!""#,
        replica
    )
    .fetch_one(connection)
    .await
    .map_err(to_store_error)
}
