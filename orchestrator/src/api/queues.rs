//! What operators allow queues, and what of limits is in use.

use knarr_core::ids::{Namespace, QueueName};
use knarr_core::time::{Span, Timestamp};
use knarr_schemas::api::{LimitInfo, QueueInfo, QueuePage, RateBody, SetQueue};
use knarr_schemas::{code, subject};

use crate::api::{Operations, Refusal};
use crate::store::{QueueRate, QueueRow, Store, format};

const MAX_LIMIT: u32 = 1_000_000;
/// Bounds of a lease.
const ACK_WAIT_MS: std::ops::RangeInclusive<u64> = 1_000..=30 * 86_400_000;

impl<S: Store> Operations<S> {
    /// Replaces what was said of the queue before.
    pub async fn set_queue(&self, namespace: &Namespace, request: SetQueue) -> Result<QueueInfo, Refusal> {
        let row = row(namespace, &request)?;
        self.require_namespace(namespace).await?;
        // To lift a limit is harmless at any time.
        let limits = row.max_concurrent.is_some() || row.rate.is_some();
        if limits && self.store.format_level().await? < format::SECOND {
            return Err(Refusal::new(
                409,
                &code::OLDER_REPLICAS,
                code::OLDER_REPLICAS.cause.to_owned(),
            ));
        }
        self.store.set_queue(&row).await?;
        // Also where nothing is said of it any more, or the same as before: an earlier call may have ended here.
        let mut settings = self.queues.settings_of(&*self.store, namespace).await?;
        settings.retain(|settings| settings.queue == row.queue);
        if !settings.is_empty() {
            let asserted = (self.on_registered)(namespace.clone(), settings).await;
            asserted.map_err(|error| {
                let problem = format!(
                    "what was said of the queue is stored, but NATS does not know it yet: {}; say it again",
                    error.cause()
                );
                Refusal::new(503, &code::UNAVAILABLE, problem)
            })?;
        }
        Ok(info(row))
    }

    pub async fn list_queues(&self, namespace: &Namespace) -> Result<QueuePage, Refusal> {
        self.require_namespace(namespace).await?;
        let queues = self.store.queues().await?.into_iter();
        let limits = self.store.limits_in_use(namespace).await?.into_iter();
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(QueuePage {
            queues: queues.filter(|row| row.namespace == *namespace).map(info).collect(),
            limits: limits
                .map(|used| LimitInfo {
                    kind: used.limit.kind.as_str().to_owned(),
                    of: used.limit.of.to_string(),
                    key: Some(used.limit.key.to_string()).filter(|key| !key.is_empty()),
                    held: count(used.held),
                    waiting: count(used.waiting),
                    since: used.since.map(Timestamp::to_utc),
                })
                .collect(),
        })
    }
}

fn row(namespace: &Namespace, request: &SetQueue) -> Result<QueueRow, Refusal> {
    let bad = |problem: String| Err(Refusal::new(400, &code::QUEUE_LIMIT, problem));
    let in_range = |limit: &u32| (1..=MAX_LIMIT).contains(limit);
    // What is said of a queue that no definition can name would count for nothing.
    let is_name = subject::encode_token(&request.queue).is_ok_and(|token| *token == request.queue);
    if request.queue.is_empty() || !is_name {
        return bad(format!("`{}` is no name of a queue", request.queue.escape_debug()));
    }
    if let Some(limit) = request.max_concurrent.filter(|limit| !in_range(limit)) {
        return bad(format!("{limit} tasks at a time are out of range"));
    }
    if let Some(RateBody { limit, per_ms }) = request.rate {
        let micros = per_ms.saturating_mul(1_000);
        if !in_range(&limit) || micros < u64::from(limit) || i64::try_from(micros).is_err() {
            return bad(format!("{limit} tasks in {per_ms} ms are out of range"));
        }
    }
    if let Some(ms) = request.ack_wait_ms.filter(|ms| !ACK_WAIT_MS.contains(ms)) {
        return bad(format!("a lease of {ms} ms is out of range"));
    }
    let number = |limit: u32| i32::try_from(limit).unwrap_or(i32::MAX);
    Ok(QueueRow {
        namespace: namespace.clone(),
        queue: QueueName::new(&request.queue),
        max_concurrent: request.max_concurrent.map(number),
        rate: request.rate.map(|rate| QueueRate {
            limit: number(rate.limit),
            per: Span::from_millis(rate.per_ms),
        }),
        ack_wait: request.ack_wait_ms.map(Span::from_millis),
    })
}

fn info(row: QueueRow) -> QueueInfo {
    let number = |limit: i32| u32::try_from(limit).unwrap_or(0);
    QueueInfo {
        queue: row.queue.to_string(),
        max_concurrent: row.max_concurrent.map(number),
        rate: row.rate.map(|rate| RateBody {
            limit: number(rate.limit),
            per_ms: rate.per.as_millis(),
        }),
        ack_wait_ms: row.ack_wait.map(Span::as_millis),
    }
}
