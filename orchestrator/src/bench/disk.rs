//! What servers count for themselves: bytes, rows and messages.

use async_nats::Client;
use futures_util::future::join;
use knarr_schemas::subject;
use serde::Deserialize;
use sqlx::{PgPool, Row as _};

use super::error::BenchError;

/// `None` where there is no access to PostgreSQL.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) database: Option<DatabaseCounts>,
    pub(crate) nats: NatsCounts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DatabaseCounts {
    pub(crate) bytes: i64,
    pub(crate) wal_bytes: i64,
    pub(crate) inserted: i64,
    pub(crate) updated: i64,
    pub(crate) deleted: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NatsCounts {
    pub(crate) bytes: u64,
    /// Messages ever stored.
    pub(crate) log: u64,
    pub(crate) tasks: u64,
}

pub(crate) async fn counts(pool: Option<&PgPool>, nats: &Client, namespace: &str) -> Result<Counts, BenchError> {
    let database = async {
        match pool {
            None => Ok(None),
            Some(pool) => database_counts(pool).await.map(Some),
        }
    };
    let (database, nats) = join(database, nats_counts(nats, namespace)).await;
    Ok(Counts {
        database: database?,
        nats: nats?,
    })
}

/// One statement, so that all figures are of one moment. The numbers of rows lag by up to a second, as backends report them.
async fn database_counts(pool: &PgPool) -> Result<DatabaseCounts, BenchError> {
    let sql = "select pg_database_size(current_database()) as bytes,
                      pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as wal_bytes,
                      tup_inserted, tup_updated, tup_deleted
               from pg_stat_database where datname = current_database()";
    let row = sqlx::query(sql).fetch_one(pool).await?;
    Ok(DatabaseCounts {
        bytes: row.try_get(0)?,
        wal_bytes: row.try_get(1)?,
        inserted: row.try_get(2)?,
        updated: row.try_get(3)?,
        deleted: row.try_get(4)?,
    })
}

async fn nats_counts(nats: &Client, namespace: &str) -> Result<NatsCounts, BenchError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Reply {
        storage: u64,
        state: State,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct State {
        last_seq: u64,
    }
    let ask = |subject: String| async move {
        let reply = nats
            .request(subject, "".into())
            .await
            .map_err(|error| BenchError::Nats(error.to_string()))?;
        serde_json::from_slice::<Reply>(&reply.payload).map_err(|error| BenchError::Nats(error.to_string()))
    };
    let tasks = subject::task_stream(namespace).map_err(|error| BenchError::Nats(error.to_string()))?;
    Ok(NatsCounts {
        bytes: ask("$JS.API.INFO".to_owned()).await?.storage,
        log: ask(format!("$JS.API.STREAM.INFO.{}", subject::LOG_STREAM))
            .await?
            .state
            .last_seq,
        tasks: ask(format!("$JS.API.STREAM.INFO.{tasks}")).await?.state.last_seq,
    })
}
