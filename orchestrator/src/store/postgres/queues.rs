//! Limits of queues, and what of limits is in use.

use knarr_core::ids::{Namespace, QueueName};
use knarr_core::time::{Span, Timestamp};
use sqlx::Connection;

use super::PostgresStore;
use super::error::to_store_error;
use crate::store::{LIST_LIMIT, LimitUse, QueueRate, QueueRow, StoreError};

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
                   select limiter, body::jsonb -> 'permit' as permit,
                          (body::jsonb #> '{permit,granted_at}') is not null as granted
                   from permits where namespace = $1 and no > 0
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
}
