//! The bus as one replica reaches it; what it says is held against what is committed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::ids::{Namespace, QueueName, RunId, TaskNo};
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From as ReadFrom;
use knarr_schemas::{body, header as names};

use super::Line;
use super::committed::Committed;
use crate::bus::inlet::Inlet;
use crate::bus::memory::MemoryBus;
use crate::bus::source::Feed;
use crate::bus::{Bus, BusError, HeadRoom, Outgoing, PublishError, QueueSettings, Undelivered, header};
use crate::store::Cursor;

/// The bus, by a line. Whatever leaves is held against what is committed.
#[derive(Debug)]
pub(crate) struct LineBus {
    pub(crate) line: Arc<Line>,
    pub(crate) bus: MemoryBus,
    /// Not reached by the line.
    pub(crate) truth: Arc<Committed>,
}

impl Bus for LineBus {
    fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }

    async fn prepare(&self, cluster: uuid::Uuid, partitions: u16) -> Result<(), BusError> {
        self.bus.prepare(cluster, partitions).await
    }

    async fn ensure_queues(&self, namespace: &Namespace, queues: &[QueueSettings]) -> Result<(), BusError> {
        self.line.cross().await;
        self.bus.ensure_queues(namespace, queues).await
    }

    async fn open_partition(&self, partition: i16, cursor: Cursor, reader: u64, into: Inlet) -> Result<(), BusError> {
        self.line.opened.fetch_add(1, Ordering::SeqCst);
        self.line.cross().await;
        if self
            .line
            .random
            .one_in(self.line.weather.fail_read.load(Ordering::SeqCst))
        {
            return Err(BusError::Unavailable("the line is down".to_owned()));
        }
        self.bus.open_partition(partition, cursor, reader, into).await
    }

    async fn close_partition(&self, partition: i16) {
        self.line.cross().await;
        self.bus.close_partition(partition).await;
    }

    async fn log_tail(&self, partition: i16) -> Result<u64, BusError> {
        self.line.perhaps_panic("log_tail");
        self.line.cross().await;
        let mut tail = self.bus.log_tail(partition).await;
        if *self.line.weather.endless_log.lock().unwrap() == Some(partition) {
            tail = tail.map(|_| u64::MAX);
        }
        self.line.cross().await;
        tail
    }

    async fn purge_log(&self, cursors: &[(i16, Cursor)]) -> Result<(), BusError> {
        self.line.cross().await;
        self.bus.purge_log(cursors).await
    }

    async fn keep_head_room(&self, namespaces: &[Namespace]) -> Result<HeadRoom, BusError> {
        self.line.cross().await;
        self.bus.keep_head_room(namespaces).await
    }

    fn open_source(&self, source: &Source, from: &ReadFrom) -> Feed {
        self.bus.open_source(source, from)
    }

    async fn withdraw(&self, namespace: &Namespace, queue: &QueueName, tasks: &[(RunId, TaskNo)]) -> Vec<Option<bool>> {
        self.line.cross().await;
        if self.is_mute(namespace) {
            // No request to a server is waited for longer.
            tokio::time::sleep(Duration::from_secs(10)).await;
            return vec![None; tasks.len()];
        }
        let fail = &self.line.weather.fail_withdrawals;
        if fail.load(Ordering::SeqCst) > 0 {
            fail.fetch_sub(1, Ordering::SeqCst);
            return vec![None; tasks.len()];
        }
        let withdrawn = self.bus.withdraw(namespace, queue, tasks).await;
        self.line.cross().await;
        withdrawn
    }

    async fn undelivered(&self, namespace: &Namespace, queue: &QueueName) -> Result<Undelivered, BusError> {
        self.line.cross().await;
        if self.is_mute(namespace) {
            std::future::pending::<()>().await;
        }
        let undelivered = self.bus.undelivered(namespace, queue).await;
        self.line.cross().await;
        undelivered
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        self.line.perhaps_panic("publish");
        self.line.publications.fetch_add(1, Ordering::SeqCst);
        let mut results = Vec::with_capacity(messages.len());
        self.line.cross().await;
        for message in messages {
            if self.line.is_dead() {
                std::future::pending::<()>().await;
            }
            self.check(&message);
            let stream = message.delivery == crate::bus::Delivery::Stream;
            if stream
                && self
                    .line
                    .random
                    .one_in(self.line.weather.lose_publication.load(Ordering::SeqCst))
            {
                self.bus.lose_acknowledgements(1, self.line.random.one_in(2));
            }
            let loses = *self.line.weather.loses_subject.lock().unwrap();
            if loses.is_some_and(|prefix| message.subject.starts_with(prefix)) {
                let after = self.line.weather.notices_after_ms.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(after)).await;
                results.push(Err(PublishError::Unacknowledged("asked for by a test".to_owned())));
                continue;
            }
            let refuses = *self.line.weather.refuses_subject.lock().unwrap();
            if refuses.is_some_and(|prefix| message.subject.starts_with(prefix)) {
                results.push(Err(PublishError::Refused("asked for by a test".to_owned())));
                continue;
            }
            results.extend(self.bus.publish(vec![message]).await);
        }
        self.line.cross().await;
        results
    }
}

impl LineBus {
    fn is_mute(&self, namespace: &Namespace) -> bool {
        let mute = *self.line.weather.mute.lock().unwrap();
        mute.is_some_and(|mute| mute == namespace.as_str())
    }

    /// Nothing may be said that is not committed.
    fn check(&self, message: &Outgoing) {
        if let Some(task) = header(&message.headers, names::TASK) {
            let run = RunId(header(&message.headers, names::RUN_ID).unwrap().parse().unwrap());
            let task = TaskNo(task.parse().unwrap());
            if self.truth.of(run, |run| run.opened.contains(&task)) != Some(true) {
                self.line
                    .crime(format!("task {} of {run} left before it was committed", task.0));
            }
        } else if let Ok(confirmation) = serde_json::from_slice::<body::Confirmation>(&message.payload) {
            for result in confirmation.results.iter().filter(|result| result.refused.is_none()) {
                let token = knarr_schemas::token::TaskToken::decode(&result.token).unwrap();
                let left = |view: knarr_core::run::OpenTaskView<'_>| view.open.task.0 == token.task && view.open.later;
                let owes = self.truth.of(RunId(token.run_id), |run| {
                    run.state.is_open(TaskNo(token.task))
                        && !run.state.open_tasks().any(left)
                        && run.state.parked_reason().is_none()
                });
                if owes == Some(true) {
                    self.line.crime(format!(
                        "a result of {} was confirmed and is not committed",
                        token.run_id
                    ));
                }
            }
        } else if let Ok(answer) = serde_json::from_slice::<body::Answer>(&message.payload)
            && let Some(run) = answer.run_id
        {
            match self.truth.of(RunId(run), |run| run.state.is_closed()) {
                None => self
                    .line
                    .crime(format!("an answer names {run}, which is not committed")),
                Some(closed) => {
                    if answer.stage == body::AnswerStage::Closed && !closed {
                        self.line.crime(format!("{run} was said to be closed and is not"));
                    }
                }
            }
        }
    }
}
