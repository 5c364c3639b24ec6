//! Leases of sessions, and who owns which partition.
//!
//! A session is *live* while `lease_until` lies ahead of the database's clock, while its row is locked, and until that row
//! has been seen unchanged for a while: every commit and renewal writes the lease as it is when the statement begins, and a
//! server that stalls lets it end before it can be seen. Nobody who only wants to know waits for a row that another has
//! locked, least of all for its own, which a commit that takes long holds. A session is taken over in two steps, each a
//! transaction of its own:
//!
//! 1. *claim*: its epoch goes up and `claimed_by` names the claimant, provided that it is not live any more or that it is
//!    this claimant's own predecessor. Every later commit of it is fenced.
//! 2. *move*: with a fresh snapshot, so that the last commit is seen, its partitions and commits become the claimant's and
//!    its row goes, provided that the epoch is still the one of step 1.
//!
//! A claimant that dies in between leaves a session that anybody may claim again.
//!
//! **Invariant:** only the session itself raises its epoch while `claimed_by` is null; so `recover` may be repeated.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use knarr_core::ids::Namespace;
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

/// The lease of a session that has been closed is before this.
const NEVER: Timestamp = Timestamp(0);

impl PostgresStore {
    pub(super) async fn keep_share(&self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        let mut lease = self.lease.lock().await;
        let mut connection = lease.take(self).await?;
        let kept = keep(&mut connection, session, published, &self.config, &mut lease.watched).await;
        let Kept {
            format_level,
            definitions_epoch,
            commits: all_commits,
            telling,
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
        self.hear_of_level(format_level);

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
            definitions_epoch,
            commits: all_commits,
            telling,
            now,
            inherited,
        })
    }

    pub(super) async fn release_partitions(&self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        let mut lease = self.lease.lock().await;
        let mut connection = lease.take(self).await?;
        // First: if the answer is lost they may be free and taken again before it is known, and the owner has to be told.
        let mut known = None;
        if let Some(told) = lease.told.get_mut(&session.id) {
            known = Some(told.partitions.clone());
            told.partitions.retain(|partition| !partitions.contains(partition));
        }
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
            // Nothing was given back.
            if let (Some(told), Some(known)) = (lease.told.get_mut(&session.id), known) {
                told.partitions = known;
            }
            return Err(StoreError::Fenced);
        }
        Ok(())
    }
}

/// What a round of keeping found, before it is compared with what the owner knows.
struct Kept {
    format_level: i32,
    definitions_epoch: i64,
    commits: i64,
    telling: Vec<Namespace>,
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
    watched: &mut HashMap<Uuid, Watched>,
) -> Result<Kept, StoreError> {
    let lease_us = config.lease_us();
    let renewal = sqlx::query!(
        r#"with me as (
               select id from sessions where id = $1 and epoch = $2
           ), free as (
               select s.id from sessions s where s.id = $1 and s.epoch = $2 for no key update skip locked
           ), renewed as (
               update sessions s set lease_until = clock_timestamp() + $3::bigint * interval '1 microsecond'
               from free where s.id = free.id
           ), done as (
               delete from commits c
               using me, unnest($4::uuid[], $5::bigint[]) as d (session, batch_no)
               where c.session = d.session and c.batch_no = d.batch_no and c.holder = me.id
           )
           select exists (select from me) as "mine!",
                  (select count(*) from partitions) as "partitions!",
                  array(select id from sessions where id <> $1 order by id) as "others!",
                  array(select lease_until from sessions where id <> $1 order by id) as "leases!: Vec<At>",
                  array(select lease_until < clock_timestamp() from sessions where id <> $1 order by id) as "lapsed!",
                  array(select claimed_by is not distinct from $1 from sessions where id <> $1 order by id)
                      as "inherited!",
                  (select format_level from cluster) as "format_level!",
                  (select definitions_epoch from cluster) as "definitions_epoch!",
                  array(select name from namespaces where events order by name) as "telling!",
                  (select min(reads_format) from sessions) as "all_read!",
                  (select sum(epoch + batch_no)::bigint from sessions) as "commits!",
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
    if !state.mine {
        return Err(StoreError::Fenced);
    }
    watched.retain(|id, _| state.others.contains(id));
    let mut live = state.others.len() + 1;
    let seen = state
        .leases
        .into_iter()
        .zip(state.lapsed.into_iter().zip(state.inherited));
    for (other, (lease, (lapsed, inherited))) in state.others.into_iter().zip(seen) {
        let silent = watch(watched, other, lease, answered) >= config.silence || lease.0 < NEVER;
        if !(inherited || lapsed && silent) {
            continue;
        }
        if let Some(epoch) = claim(connection, session.id, other, lease, lease_us).await? {
            move_from(connection, session, other, epoch).await?;
            live -= 1;
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
        definitions_epoch: state.definitions_epoch,
        commits: state.commits,
        telling: state.telling.iter().map(|name| Namespace::new(name)).collect(),
        now: state.now.0.plus(since),
        live,
        share,
        owned: mine,
        inherited,
    })
}

/// Since when a session's row has been as it is.
#[derive(Debug)]
pub(super) struct Watched {
    lease_until: At,
    since: Instant,
}

/// How long a session's row has been seen as it is.
fn watch(watched: &mut HashMap<Uuid, Watched>, session: Uuid, lease_until: At, now: Instant) -> Duration {
    let new = Watched {
        lease_until,
        since: now,
    };
    match watched.entry(session) {
        Entry::Occupied(known) if known.get().lease_until == lease_until => now - known.get().since,
        entry => {
            entry.insert_entry(new);
            Duration::ZERO
        }
    }
}

/// Step 1. Returns the new epoch; `None` if it has come back to life or somebody else was faster.
async fn claim(
    connection: &mut PgConnection,
    claimant: Uuid,
    dead: Uuid,
    lease_until: At,
    lease_us: i64,
) -> Result<Option<i64>, StoreError> {
    sqlx::query_scalar!(
        "with dead as (
             select id from sessions
             where id = $1 and (claimed_by = $2 or lease_until <= $3 and lease_until < clock_timestamp())
             for update skip locked
         )
         update sessions s
         set epoch = s.epoch + 1, claimed_by = $2,
             lease_until = clock_timestamp() + $4::bigint * interval '1 microsecond'
         from dead where s.id = dead.id
         returning s.epoch",
        dead,
        claimant,
        // Infinity cannot be sent.
        At(lease_until.0.max(NEVER)) as _,
        lease_us,
    )
    .fetch_optional(connection)
    .await
    .map_err(to_store_error)
}

/// Step 2. What is locked is the dead session's row, and one's own only against the step 2 of somebody else's: a commit
/// under way goes on. In the order of ids, so that two who claim each other do not wait for each other.
async fn move_from(
    connection: &mut PgConnection,
    session: &Session,
    dead: Uuid,
    dead_epoch: i64,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await.map_err(to_store_error)?;
    let (mine, theirs) = if session.id < dead {
        let mine = pin(&mut transaction, session).await?;
        (mine, lock(&mut transaction, dead, dead_epoch).await?)
    } else {
        let theirs = lock(&mut transaction, dead, dead_epoch).await?;
        (pin(&mut transaction, session).await?, theirs)
    };
    if !mine {
        transaction.rollback().await.map_err(to_store_error)?;
        return Err(StoreError::Fenced);
    }
    if theirs {
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

async fn pin(connection: &mut PgConnection, session: &Session) -> Result<bool, StoreError> {
    let pinned = sqlx::query!(
        "select from sessions where id = $1 and epoch = $2 for key share",
        session.id,
        session.epoch,
    )
    .fetch_optional(connection)
    .await
    .map_err(to_store_error)?;
    Ok(pinned.is_some())
}

async fn lock(connection: &mut PgConnection, session: Uuid, epoch: i64) -> Result<bool, StoreError> {
    let locked = sqlx::query!(
        "select from sessions where id = $1 and epoch = $2 for update",
        session,
        epoch,
    )
    .fetch_optional(connection)
    .await
    .map_err(to_store_error)?;
    Ok(locked.is_some())
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
