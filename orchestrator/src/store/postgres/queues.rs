//! Limits of queues, and what of limits is in use.

use knarr_core::ids::{Namespace, QueueName};
use knarr_core::limit::{MOST_IMPORTANT, PRIORITY};
use knarr_core::time::{Span, Timestamp};
use sqlx::Connection;

use super::PostgresStore;
use super::error::to_store_error;
use crate::store::{LIST_LIMIT, LimitLine, LimitUse, PlaceAsked, QueueRate, QueueRow, StoreError};

impl PostgresStore {
    pub(super) async fn say_of_queue(&self, row: &QueueRow) -> Result<(), StoreError> {
        let micros = |span: Span| i64::try_from(span.0).unwrap_or(i64::MAX);
        let per = row.rate.map(|rate| micros(rate.per));
        let mut connection = self.reads.take().await?;
        let mut transaction = connection.begin().await.map_err(to_store_error)?;
        sqlx::query!("update cluster set definitions_epoch = definitions_epoch + 1")
            .execute(&mut *transaction)
            .await
            .map_err(to_store_error)?;
        if row.says_nothing() {
            sqlx::query!(
                "delete from queues where namespace = $1 and queue = $2",
                row.namespace.as_str(),
                row.queue.as_str()
            )
            .execute(&mut *transaction)
            .await
            .map_err(to_store_error)?;
        } else {
            sqlx::query!(
                "insert into queues (namespace, queue, max_concurrent, rate_limit, rate_per_us, ack_wait_us)
                 values ($1, $2, $3, $4, $5, $6)
                 on conflict (namespace, queue) do update
                 set max_concurrent = excluded.max_concurrent, rate_limit = excluded.rate_limit,
                     rate_per_us = excluded.rate_per_us, ack_wait_us = excluded.ack_wait_us",
                row.namespace.as_str(),
                row.queue.as_str(),
                row.max_concurrent,
                row.rate.map(|rate| rate.limit),
                per,
                row.ack_wait.map(micros),
            )
            .execute(&mut *transaction)
            .await
            .map_err(to_store_error)?;
        }
        transaction.commit().await.map_err(to_store_error)?;
        connection.put_back();
        Ok(())
    }

    pub(super) async fn all_queues(&self) -> Result<Vec<QueueRow>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            "select namespace, queue, max_concurrent, rate_limit, rate_per_us, ack_wait_us from queues
             order by namespace, queue"
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        // The columns' checks say that they are positive.
        let span = |micros: i64| Span(u64::try_from(micros).unwrap_or(1));
        let rows = records.into_iter().map(|record| QueueRow {
            namespace: Namespace::new(&record.namespace),
            queue: QueueName::new(&record.queue),
            max_concurrent: record.max_concurrent,
            rate: record
                .rate_limit
                .zip(record.rate_per_us)
                .map(|(limit, per)| QueueRate { limit, per: span(per) }),
            ack_wait: record.ack_wait_us.map(span),
        });
        Ok(rows.collect())
    }

    pub(super) async fn used_limits(&self, namespace: &Namespace) -> Result<Vec<LimitUse>, StoreError> {
        let mut connection = self.reads.take().await?;
        let records = sqlx::query!(
            r#"select min((permit #> '{ask,limit}')::text) as "limit!", count(*) filter (where granted) as "held!",
                      count(*) filter (where not granted) as "waiting!",
                      min((permit ->> 'asked_at')::bigint) filter (where not granted) as since
               from (
                   select limiter, permit, (permit -> 'granted_at') is not null as granted
                   from (
                       -- Not pulled up, so that each text is parsed once.
                       select limiter, body::jsonb -> 'permit' as permit from permits where namespace = $1 and no > 0 offset 0
                   ) r
               ) p
               group by limiter order by count(*) filter (where not granted) desc, limiter limit $2"#,
            namespace.as_str(),
            i64::from(LIST_LIMIT),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let uses = records.into_iter().map(|record| {
            Ok(LimitUse {
                limit: serde_json::from_str(&record.limit)
                    .map_err(|error| StoreError::Rejected(format!("the name of a limit cannot be read: {error}")))?,
                held: record.held,
                waiting: record.waiting,
                since: record.since.map(Timestamp),
            })
        });
        uses.collect()
    }

    /// Who is next is said by rank, turn and number (`core/src/limit/limiter.rs`). The rows of one limiter are read by the primary
    /// key: its partition is known to NATS, so each is looked into.
    pub(super) async fn line(&self, namespace: &Namespace, asked: &PlaceAsked) -> Result<LimitLine, StoreError> {
        let address = asked.limit.address();
        let mut connection = self.reads.take().await?;
        let record = sqlx::query!(
            r#"with line as materialized (
                   select no, permit #>> '{from,run}' as run, (permit ->> 'number')::bigint as number,
                          (permit -> 'granted_at') is not null as granted, (permit ->> 'turn')::bigint as turn,
                          case when permit #>> '{ask,direction}' = 'undo' then 0
                               else greatest(coalesce((permit #>> '{ask,priority}')::int, $5), $6) end as rank
                   from (
                       select p.no, p.body::jsonb -> 'permit' as permit
                       from partitions q
                       join permits p on p.partition = q.partition and p.namespace = $1 and p.limiter = $2 and p.no > 0
                       offset 0
                   ) r
               ), own as (
                   select rank, turn, no from line where run = $3 and number = $4 and not granted
               )
               select count(*) filter (where granted) as "held!", count(*) filter (where not granted) as "waiting!",
                      (select count(*) filter (where not l.granted and (l.rank, l.turn, l.no) < (own.rank, own.turn, own.no))
                       from own, line l group by own.no) as ahead
               from line"#,
            namespace.as_str(),
            address.as_str(),
            asked.run.to_string(),
            i64::from(asked.number.0),
            i32::from(PRIORITY),
            i32::from(MOST_IMPORTANT),
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        Ok(LimitLine {
            held: record.held,
            waiting: record.waiting,
            ahead: record.ahead,
        })
    }
}
