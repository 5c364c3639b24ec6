//! The bus over NATS: JetStream for the log, the task queues and dead letters, core NATS for the direct inlet.
//!
//! **Invariants:** nothing is handed over that was not received in unbroken sequence from the cursor on; a publication is
//! reported as done only on the stream's own acknowledgement; a partition's tasks end before `close_partition` returns.
//!
//! It keeps no state of the engine's: where a partition's log is read from is the engine's cursor, and all the bus does
//! with it is to check that the stream is still the one it was made on.

mod advisories;
mod bodies;
mod connection;
mod creds_file;
mod delivered;
mod direct;
mod head_room;
mod header_block;
mod header_map;
mod holes;
mod jetstream;
mod log_position;
mod log_reader;
mod publisher;
mod pull;
mod purge;
mod source;
mod stream_config;
mod stream_settings;
mod streams;
mod supervisor;
mod sweep;
mod withdrawal;

#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use knarr_core::ids::{Namespace, QueueName, RunId, TaskNo};
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From as ReadFrom;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::connection::Link;
pub use self::connection::{Credentials, NatsConfig};
use self::jetstream::JetStream;
use self::publisher::Publisher;
pub use self::stream_settings::{Setting, Storage, StreamSettings};
use self::streams::Streams;
use super::inlet::Inlet;
use super::source::Feed;
use super::task_handle::TaskHandle;
use super::{Bus, BusError, HeadRoom, Outgoing, PublishError, QueueSettings, Undelivered};
use crate::store::Cursor;

/// The bus of a running replica. Dropping it ends its tasks; the connection closes with its last client.
#[derive(Debug)]
pub struct NatsBus {
    shared: Arc<Shared>,
    publisher: Publisher,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What the tasks of a bus have in common.
#[derive(Debug)]
struct Shared {
    config: NatsConfig,
    js: JetStream,
    link: watch::Receiver<Link>,
    streams: Streams,
    partitions: Mutex<HashMap<i16, OpenPartition>>,
    advisories: advisories::Advisories,
    /// Places for bodies of direct results that are being fetched.
    fetching: Semaphore,
    /// The same of the log, in mebibytes.
    fetching_of_logs: Semaphore,
}

#[derive(Debug)]
struct OpenPartition {
    into: Inlet,
    log: TaskHandle,
    direct: TaskHandle,
}

impl Shared {
    /// Where what concerns a partition goes, if it is open here.
    fn inlet_of(&self, partition: i16) -> Option<Inlet> {
        let open = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&partition).map(|open| open.into.clone())
    }

    /// One for each engine, however many partitions it has.
    fn inlets(&self) -> Vec<Inlet> {
        let open = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut distinct: Vec<Inlet> = Vec::new();
        for partition in open.values() {
            if !distinct.iter().any(|known| known.is_beside(&partition.into)) {
                distinct.push(partition.into.clone());
            }
        }
        distinct
    }
}

impl NatsBus {
    /// Connects and checks the server. Does not wait for a server that is not there.
    ///
    /// # Errors
    /// `Unavailable` when no server answers, `Misconfigured` when it is too old, has no JetStream or refuses the credentials.
    pub async fn connect(config: NatsConfig) -> Result<Self, BusError> {
        let (client, link) = connection::connect(&config).await?;
        let js = JetStream::new(client.clone());
        connection::check_server(&js).await?;
        let shared = Arc::new(Shared {
            streams: Streams::new(js.clone(), &config),
            js,
            link: link.clone(),
            config,
            partitions: Mutex::default(),
            advisories: advisories::Advisories::default(),
            fetching: Semaphore::new(direct::FETCHED_AT_ONCE),
            fetching_of_logs: Semaphore::new(bodies::LOG_MEBIBYTES),
        });
        let publisher = Publisher::start(client, link, Arc::clone(&shared)).await?;
        let tasks = vec![
            AbortOnDropHandle::new(tokio::spawn(supervisor::run(Arc::clone(&shared)))),
            AbortOnDropHandle::new(tokio::spawn(advisories::run(Arc::clone(&shared)))),
        ];
        Ok(Self {
            shared,
            publisher,
            _tasks: tasks,
        })
    }

    /// The connection, for what else is served over it.
    pub fn client(&self) -> async_nats::Client {
        self.shared.js.client().clone()
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer within `limit`.
    pub async fn ping(&self, limit: Duration) -> Result<(), BusError> {
        match tokio::time::timeout(limit, self.shared.js.account()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(BusError::Unavailable("no answer in time".to_owned())),
        }
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        // Readers hold the shared part, which holds their handles.
        let mut open = self.shared.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        open.clear();
    }
}

impl Bus for NatsBus {
    fn max_payload(&self) -> usize {
        self.shared.js.client().max_payload()
    }

    fn max_body(&self) -> usize {
        bodies::MAX_BODY_BYTES
    }

    async fn prepare(&self, cluster: Uuid, partitions: u16) -> Result<(), BusError> {
        self.shared.streams.prepare(cluster, partitions).await?;
        self.shared.advisories.begin();
        Ok(())
    }

    async fn ensure_queues(&self, namespace: &Namespace, queues: &[QueueSettings]) -> Result<(), BusError> {
        self.shared.streams.ensure_queues(namespace, queues).await
    }

    async fn open_partition(&self, partition: i16, cursor: Cursor, reader: u64, into: Inlet) -> Result<(), BusError> {
        self.close_partition(partition).await;
        let filters = self.shared.streams.filters(partition)?;
        let direct = direct::open(&self.shared, partition, into.clone()).await?;
        let log = log_reader::open(&self.shared, partition, filters, cursor, reader, into.clone());
        self.shared
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(partition, OpenPartition { into, log, direct });
        self.shared.advisories.look_again();
        Ok(())
    }

    async fn close_partition(&self, partition: i16) {
        let open = self
            .shared
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&partition);
        if let Some(open) = open {
            tokio::join!(open.direct.stop(), open.log.stop());
        }
    }

    async fn log_tail(&self, partition: i16) -> Result<u64, BusError> {
        purge::log_tail(&self.shared, partition).await
    }

    async fn purge_log(&self, cursors: &[(i16, Cursor)]) -> Result<(), BusError> {
        purge::purge_log(&self.shared, cursors).await
    }

    async fn keep_head_room(&self, namespaces: &[Namespace]) -> Result<HeadRoom, BusError> {
        head_room::keep(&self.shared, namespaces).await
    }

    async fn undelivered(&self, namespace: &Namespace, queue: &QueueName) -> Result<Undelivered, BusError> {
        delivered::undelivered(&self.shared, namespace, queue).await
    }

    async fn withdraw(&self, namespace: &Namespace, queue: &QueueName, tasks: &[(RunId, TaskNo)]) -> Vec<Option<bool>> {
        withdrawal::withdraw(&self.shared.js, namespace, queue, tasks).await
    }

    fn open_source(&self, source: &Source, from: &ReadFrom) -> Feed {
        source::open(&self.shared, source, from)
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        if !bodies::any_large(&messages) {
            return self.publisher.publish(messages).await;
        }
        let put = bodies::put_all(&self.shared, messages).await;
        let mut outcomes: Vec<Result<(), PublishError>> = Vec::with_capacity(put.len());
        let mut ready = Vec::with_capacity(put.len());
        let mut objects = Vec::with_capacity(put.len());
        for message in put {
            outcomes.push(message.map(|bodies::Ready { message, object }| {
                ready.push(message);
                objects.push(object);
            }));
        }
        let published = self.publisher.publish(ready).await;
        let with_objects = objects.into_iter().zip(&published);
        let refused = with_objects.filter(|(_, outcome)| bodies::is_refused(outcome));
        let left_over: Vec<String> = refused.filter_map(|(object, _)| object).collect();
        if !left_over.is_empty() {
            // Beside it: whoever publishes waits for the outcome alone.
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { bodies::forget(&shared, left_over).await });
        }
        let mut published = published.into_iter();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            if let Some(result) = published.next() {
                *outcome = result;
            }
        }
        outcomes
    }
}
