//! Leases of sessions, and who owns which partition.
//!
//! A session is *live* while `lease_until` lies ahead of the database's clock. It is taken over in two steps, each a
//! transaction of its own:
//!
//! 1. *claim*: its epoch goes up and `claimed_by` names the claimant, provided that its lease is over or that it is this
//!    claimant's own predecessor. This waits for a commit that is still executing; every later one is fenced.
//! 2. *move*: with a fresh snapshot, so that the last commit is seen, its partitions and commits become the claimant's and
//!    its row goes, provided that the epoch is still the one of step 1.
//!
//! A claimant that dies in between leaves a session that anybody may claim again.
//!
//! **Invariant:** only the session itself raises its epoch while `claimed_by` is null; so `recover` may be repeated.

use std::time::Instant;

use knarr_core::time::{Span, Timestamp};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::cursors::owned;
use super::error::to_store_error;
use super::session::Told;
use super::time::At;
use super::{PostgresConfig, PostgresStore, format, within};
use crate::store::{CommitId, OwnedPartition, Session, Share, StoreError, fair_share};

impl PostgresStore {
    pub(super) async fn keep_share(&self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        let mut lease = self.lease.lock().await;
        let mut connection = lease.take(self).await?;
        let kept = keep(&mut connection, session, published, &self.config).await;
        let Kept {
            format_level,
            now,
            live,
            share,
            owned,
            inherited,
        } = match kept {
            Ok(kept) => kept,
            Err(error) => {
                if matches!(error, StoreError::Fenced) {
                    lease.put(connection);
                    lease.told.remove(&session.id);
                }
                return Err(error);
            }
        };
        lease.put(connection);

        let told = lease.told.entry(session.id).or_default();
        let surplus = owned.len().saturating_sub(share);
        let partitions = owned.iter().map(|owned| owned.partition).collect();
        let commits = inherited.iter().copied().collect();
        let gained = owned
            .into_iter()
            .filter(|owned| !told.partitions.contains(&owned.partition))
            .collect();
        let inherited = inherited
            .into_iter()
            .filter(|commit| !told.commits.contains(commit))
            .collect();
        *told = Told { partitions, commits };
        Ok(Share {
            gained,
            surplus,
            live_sessions: live,
            format_level,
            now,
            inherited,
        })
    }

    pub(super) async fn release_partitions(&self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        let mut lease = self.lease.lock().await;
        let mut connection = lease.take(self).await?;
        let mine = sqlx::query_scalar!(
            r#"with me as (
                   update sessions set releases = releases + 1 where id = $1 and epoch = $2 returning id
               ), freed as (
                   update partitions p set owner = null from me where p.owner = me.id and p.partition = any($3)
               )
               select count(*) as "mine!" from me"#,
            session.id,
            session.epoch,
            partitions,
        )
        .fetch_one(&mut connection)
        .await
        .map_err(to_store_error)?;
        lease.put(connection);
        if mine == 0 {
            return Err(StoreError::Fenced);
        }
        if let Some(told) = lease.told.get_mut(&session.id) {
            told.partitions.retain(|partition| !partitions.contains(partition));
        }
        Ok(())
    }
}

/// What a round of keeping found, before it is compared with what the owner knows.
struct Kept {
    format_level: i32,
    now: Timestamp,
    live: usize,
    share: usize,
    owned: Vec<OwnedPartition>,
    inherited: Vec<CommitId>,
}

async fn keep(
    connection: &mut PgConnection,
    session: &Session,
    published: &[CommitId],
    config: &PostgresConfig,
) -> Result<Kept, StoreError> {
    let lease_us = config.lease_us();
    let renewal = sqlx::query!(
        r#"with me as (
               update sessions set lease_until = clock_timestamp() + $3::bigint * interval '1 microsecond'
               where id = $1 and epoch = $2
               returning id
           ), done as (
               delete from commits c
               using me, unnest($4::uuid[], $5::bigint[]) as d (session, batch_no)
               where c.session = d.session and c.batch_no = d.batch_no and c.holder = me.id
           )
           select exists (select from me) as "renewed!",
                  (select count(*) from sessions where id <> $1 and lease_until >= clock_timestamp()) + 1 as "live!",
                  (select count(*) from partitions) as "partitions!",
                  array(select id from sessions
                        where id <> $1 and (lease_until < clock_timestamp() or claimed_by = $1)
                        order by id) as "dead!",
                  (select format_level from cluster) as "format_level!",
                  (select min(reads_format) from sessions) as "all_read!",
                  clock_timestamp() as "now!: At""#,
        session.id,
        session.epoch,
        lease_us,
        &published.iter().map(|id| id.session).collect::<Vec<_>>(),
        &published.iter().map(|id| id.batch_no).collect::<Vec<_>>(),
    )
    .fetch_one(&mut *connection);
    let renewal = async { renewal.await.map_err(to_store_error) };
    let state = within(config.renewal_timeout, renewal).await?;
    let answered = Instant::now();
    if !state.renewed {
        return Err(StoreError::Fenced);
    }
    let mut live = usize::try_from(state.live).unwrap_or(1);
    for dead in state.dead {
        if let Some((epoch, was_live)) = claim(connection, session.id, dead, lease_us).await? {
            move_from(connection, session, dead, epoch).await?;
            live -= usize::from(was_live && live > 1);
        }
    }
    let partitions = usize::try_from(state.partitions).unwrap_or_default();
    let share = fair_share(partitions, live);
    let mut mine = owned(connection, session).await?;
    if mine.len() < share {
        let wanted = i64::try_from(share - mine.len()).unwrap_or_default();
        if claim_free(connection, session, wanted).await? {
            mine = owned(connection, session).await?;
        }
    }
    let inherited = inherited(connection, session).await?;
    let format_level = match state.all_read > state.format_level {
        true => format::raise(connection).await?,
        false => state.format_level,
    };
    let since = Span(u64::try_from(answered.elapsed().as_micros()).unwrap_or(u64::MAX));
    Ok(Kept {
        format_level,
        now: state.now.0.plus(since),
        live,
        share,
        owned: mine,
        inherited,
    })
}

/// Step 1. Returns the new epoch, and whether the lease was still running; `None` if it has come back to life or somebody
/// else was faster.
async fn claim(
    connection: &mut PgConnection,
    claimant: Uuid,
    dead: Uuid,
    lease_us: i64,
) -> Result<Option<(i64, bool)>, StoreError> {
    let row = sqlx::query!(
        r#"with dead as (
               select id, lease_until >= clock_timestamp() as live from sessions
               where id = $1 and (lease_until < clock_timestamp() or claimed_by = $2)
               for update
           )
           update sessions s
           set epoch = s.epoch + 1, claimed_by = $2,
               lease_until = clock_timestamp() + $3::bigint * interval '1 microsecond'
           from dead where s.id = dead.id
           returning s.epoch, dead.live as "live!""#,
        dead,
        claimant,
        lease_us,
    )
    .fetch_optional(connection)
    .await
    .map_err(to_store_error)?;
    Ok(row.map(|row| (row.epoch, row.live)))
}

/// Step 2.
async fn move_from(
    connection: &mut PgConnection,
    session: &Session,
    dead: Uuid,
    dead_epoch: i64,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await.map_err(to_store_error)?;
    let locked = sqlx::query_scalar!(
        "select id from sessions where (id = $1 and epoch = $2) or (id = $3 and epoch = $4) order by id for update",
        session.id,
        session.epoch,
        dead,
        dead_epoch,
    )
    .fetch_all(&mut *transaction)
    .await
    .map_err(to_store_error)?;
    if !locked.contains(&session.id) {
        transaction.rollback().await.map_err(to_store_error)?;
        return Err(StoreError::Fenced);
    }
    if locked.contains(&dead) {
        sqlx::query!("update partitions set owner = $1 where owner = $2", session.id, dead)
            .execute(&mut *transaction)
            .await
            .map_err(to_store_error)?;
        sqlx::query!("update commits set holder = $1 where holder = $2", session.id, dead)
            .execute(&mut *transaction)
            .await
            .map_err(to_store_error)?;
        sqlx::query!("delete from sessions where id = $1", dead)
            .execute(&mut *transaction)
            .await
            .map_err(to_store_error)?;
    }
    transaction.commit().await.map_err(to_store_error)
}

/// The share lock on the session's own row keeps a claimant's step 2 out until the new owner is visible to it.
async fn claim_free(connection: &mut PgConnection, session: &Session, wanted: i64) -> Result<bool, StoreError> {
    let claimed = sqlx::query!(
        "with me as (
             select id from sessions where id = $1 and epoch = $2 for key share
         ), free as (
             select p.partition from partitions p
             where p.owner is null and exists (select from me)
             order by p.partition limit $3
             for update skip locked
         )
         update partitions p set owner = $1 from free where p.partition = free.partition",
        session.id,
        session.epoch,
        wanted,
    )
    .execute(connection)
    .await
    .map_err(to_store_error)?;
    Ok(claimed.rows_affected() > 0)
}

async fn inherited(connection: &mut PgConnection, session: &Session) -> Result<Vec<CommitId>, StoreError> {
    let rows = sqlx::query!(
        "select session, batch_no from commits where holder = $1 and session <> $1 order by session, batch_no",
        session.id
    )
    .fetch_all(connection)
    .await
    .map_err(to_store_error)?;
    let ids = rows.into_iter().map(|row| CommitId {
        session: row.session,
        batch_no: row.batch_no,
    });
    Ok(ids.collect())
}
