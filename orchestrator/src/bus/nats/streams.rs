//! Which streams and consumers there must be, and asserting them.
//!
//! **Invariants:** what a create or update returns is what was asked for, or it is an error; the number of partitions of
//! a log that exists is never changed here.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use knarr_core::ids::{Namespace, QueueName};
use knarr_schemas::subject;
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::connection::NatsConfig;
use super::head_room::{self, ALL_SUBJECTS};
use super::jetstream::{ApiError, JetStream, StreamInfo, code};
use super::stream_config::{Asked, belongs_to, echoes, over, refuse_other_partitions};
use super::stream_settings::{Setting, StreamSettings};
use crate::bus::{BusError, QueueSettings};

/// Lifecycle and emitted events, for whoever wants to listen.
const EVENT_STREAM: &str = "KNARR_EVENTS";
/// Keeps the advisories of tasks that were delivered too often.
pub(super) const ADVISORY_STREAM: &str = "KNARR_ADVISORIES";
const ADVISORY_SUBJECT: &str = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.*.>";

/// The smallest window the server takes; a repeat is recognised by state, and a window is stream-wide.
const LOG_DUPLICATE_WINDOW_MS: u64 = 100;
const TASK_DUPLICATE_WINDOW_MS: u64 = 30_000;
/// Above this many deliveries a task is taken to kill its workers.
const MAX_DELIVER: i64 = 5;
/// Delivered and not yet acknowledged, over all workers of a queue.
const MAX_ACK_PENDING: i64 = 20_000;
/// Workers pulling at once; a pull above it is dropped in silence by the server, and it cannot be changed later.
const MAX_WAITING: i64 = 16_384;

/// A server that shuts down has closed the connection by then.
const CONFIRM_MISSING: Duration = Duration::from_secs(1);

const ADVISORY_MAX_BYTES: u64 = 16 << 20;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Longer than a message waits to be taken; a task that waits longer is offered with another object.
const BODY_AGE_MS: u64 = 3 * DAY_MS;

#[derive(Debug)]
pub(super) struct Streams {
    js: JetStream,
    settings: StreamSettings,
    /// Whose streams they are; fixed by the first preparation.
    cluster: OnceLock<Uuid>,
    wanted: Mutex<Wanted>,
    /// One assertion at a time: many readers notice a missing stream together.
    asserting: tokio::sync::Mutex<()>,
    /// Somebody has seen a stream or a consumer missing.
    pub(super) suspected: Notify,
}

/// What has been asked for so far, to be asserted again after a reconnect.
#[derive(Debug, Default, Clone)]
struct Wanted {
    partitions: Option<u16>,
    namespaces: HashMap<Namespace, HashMap<QueueName, QueueSettings>>,
}

impl Streams {
    pub(super) fn new(js: JetStream, config: &NatsConfig) -> Self {
        Self {
            js,
            settings: config.streams.clone(),
            cluster: OnceLock::new(),
            wanted: Mutex::default(),
            asserting: tokio::sync::Mutex::default(),
            suspected: Notify::new(),
        }
    }

    pub(super) fn partitions(&self) -> Result<u16, BusError> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted
            .partitions
            .ok_or_else(|| BusError::Misconfigured("the bus was not prepared".to_owned()))
    }

    /// A stream of another cluster is nothing to read from or to write to.
    pub(super) fn refuse_other_cluster(&self, name: &str, existing: &StreamInfo) -> Result<(), BusError> {
        match self.cluster.get() {
            Some(cluster) => belongs_to(name, *cluster, &existing.config),
            None => Ok(()),
        }
    }

    /// What a partition's messages in the log match. The ingress takes, beside un-keyed starts, what is too short for the
    /// mapping to sort it: it belongs to no run, and somebody must say so.
    pub(super) fn filters(&self, partition: i16) -> Result<Vec<String>, BusError> {
        Ok(if i32::from(partition) == i32::from(self.partitions()?) {
            vec!["knarr.start.>".to_owned(), "knarr.run.>".to_owned()]
        } else {
            vec![format!("knarr.in.{partition}.>")]
        })
    }

    pub(super) async fn prepare(&self, cluster: Uuid, partitions: u16) -> Result<(), BusError> {
        let _one = self.asserting.lock().await;
        let _ = self.cluster.set(cluster);
        // All of them before the first is changed: nothing of another cluster is to be touched.
        for name in [subject::LOG_STREAM, subject::DLQ_STREAM, EVENT_STREAM, ADVISORY_STREAM] {
            if let Some(existing) = self.find_stream(name).await? {
                self.refuse_other_cluster(name, &existing)?;
            }
        }
        self.assert_base(partitions, Missing::Create).await?;
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).partitions = Some(partitions);
        Ok(())
    }

    pub(super) async fn ensure_queues(&self, namespace: &Namespace, queues: &[QueueSettings]) -> Result<(), BusError> {
        let _one = self.asserting.lock().await;
        self.assert_tasks(namespace, queues.iter(), Missing::Create).await?;
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = wanted.namespaces.entry(namespace.clone()).or_default();
        for queue in queues {
            known.insert(queue.queue.clone(), queue.clone());
        }
        Ok(())
    }

    /// Everything that was ever asked for, once more. The lease of a queue that is there stays: another replica may have been told
    /// another one since.
    pub(super) async fn assert_again(&self) -> Result<(), BusError> {
        let _one = self.asserting.lock().await;
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(partitions) = wanted.partitions {
            self.assert_base(partitions, Missing::Confirm).await?;
        }
        for (namespace, queues) in &wanted.namespaces {
            self.assert_tasks(namespace, queues.values(), Missing::Confirm).await?;
        }
        Ok(())
    }

    /// The log, and what else every cluster has: for readers that found it missing.
    pub(super) async fn assert_log(&self) -> Result<(), BusError> {
        let partitions = self.partitions()?;
        let _one = self.asserting.lock().await;
        self.assert_base(partitions, Missing::Confirm).await
    }

    async fn assert_base(&self, partitions: u16, missing: Missing) -> Result<(), BusError> {
        self.put_log(partitions, missing).await?;
        let dlq = json!({
            "name": subject::DLQ_STREAM,
            "subjects": ["knarr.dlq.>"],
            "retention": "limits", "discard": "old", "max_consumers": -1,
            "max_age": nanos(7 * DAY_MS),
        });
        let dlq = self.sized(dlq, self.settings.dlq_max_bytes);
        self.put_stream(&dlq, missing).await?;
        if let Some(max_bytes) = self.settings.events_max_bytes {
            let events = json!({
                "name": EVENT_STREAM,
                "subjects": ["knarr.event.>"],
                "retention": "limits", "discard": "old", "max_consumers": -1,
                "max_age": nanos(7 * DAY_MS),
            });
            self.put_stream(&self.sized(events, max_bytes), missing).await?;
        }
        let advisories = json!({
            "name": ADVISORY_STREAM,
            "subjects": [ADVISORY_SUBJECT],
            "retention": "limits", "discard": "old", "max_consumers": -1,
            "max_age": nanos(DAY_MS),
        });
        let advisories = self.sized(advisories, Setting::AtFirst(ADVISORY_MAX_BYTES));
        self.put_stream(&advisories, missing).await
    }

    /// With what an operator may have set.
    fn sized(&self, config: Value, max_bytes: Setting<u64>) -> Asked {
        let StreamSettings { replicas, storage, .. } = &self.settings;
        let mut asked = Asked::new(config);
        asked.set("num_replicas", replicas, json!(replicas.value()));
        asked.set("storage", storage, json!(storage.value().as_str()));
        asked.set("max_bytes", &max_bytes, json!(max_bytes.value()));
        asked
    }

    /// Whose starts an existing log takes is left as it is.
    async fn put_log(&self, partitions: u16, missing: Missing) -> Result<(), BusError> {
        let existing = self.find_stream(subject::LOG_STREAM).await?;
        let listens = existing.as_ref().filter(|info| head_room::is_throttled(info));
        let listens = listens.and_then(|info| info.config.get("subjects"));
        let listens = listens.cloned().unwrap_or_else(|| json!(ALL_SUBJECTS));
        self.put_stream(&self.log_config(partitions, &listens), missing).await
    }

    /// Has the log listen to these subjects from here on.
    pub(super) async fn take_starts(&self, subjects: &[String]) -> Result<(), BusError> {
        let partitions = self.partitions()?;
        let _one = self.asserting.lock().await;
        self.put_stream(&self.log_config(partitions, &json!(subjects)), Missing::Confirm)
            .await
    }

    fn log_config(&self, partitions: u16, subjects: &Value) -> Asked {
        let config = json!({
            "name": subject::LOG_STREAM,
            "subjects": subjects,
            "retention": "limits", "discard": "new", "max_consumers": -1,
            "duplicate_window": nanos(LOG_DUPLICATE_WINDOW_MS),
            "allow_direct": true,
            "subject_transform": {
                "src": "knarr.run.*.*.>",
                "dest": format!("knarr.in.{{{{partition({partitions},1,2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.>"),
            },
        });
        self.sized(config, self.settings.log_max_bytes)
    }

    async fn assert_tasks(
        &self,
        namespace: &Namespace,
        queues: impl Iterator<Item = &QueueSettings>,
        missing: Missing,
    ) -> Result<(), BusError> {
        let (stream, token) = names(namespace)?;
        let config = json!({
            "name": stream,
            "subjects": [format!("knarr.task.{token}.>")],
            "retention": "workqueue", "discard": "new", "max_consumers": -1,
            "duplicate_window": nanos(TASK_DUPLICATE_WINDOW_MS),
            "allow_direct": true,
        });
        self.put_stream(&self.sized(config, self.settings.task_max_bytes), missing)
            .await?;
        let bucket = subject::body_bucket(namespace.as_str())
            .map_err(|error| BusError::Misconfigured(format!("the namespace {namespace:?} {error}")))?;
        // As NATS makes an object store.
        let config = json!({
            "name": format!("OBJ_{bucket}"),
            "subjects": [format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
            "retention": "limits", "discard": "new", "max_consumers": -1,
            "max_age": nanos(BODY_AGE_MS),
            "allow_rollup_hdrs": true, "allow_direct": true,
        });
        self.put_stream(&self.sized(config, self.settings.bucket_max_bytes), missing)
            .await?;
        for settings in queues {
            let (name, filter) = queue_names(namespace, &settings.queue)?;
            let what = format!("consumer {name} of stream {stream}");
            let mut config = json!({
                "durable_name": name, "name": name,
                "filter_subject": filter,
                "deliver_policy": "all", "ack_policy": "explicit", "replay_policy": "instant",
                "ack_wait": u64::try_from(settings.ack_wait.as_nanos()).unwrap_or(u64::MAX),
                "max_deliver": MAX_DELIVER,
                "max_ack_pending": MAX_ACK_PENDING,
                "max_waiting": MAX_WAITING,
            });
            if missing == Missing::Confirm {
                match self.js.consumer(&stream, &name).await {
                    Ok(info) => {
                        if let Some(lease) = info.config.get("ack_wait") {
                            config["ack_wait"] = lease.clone();
                        }
                        if echoes(&what, &config, &info.config).is_ok() {
                            continue;
                        }
                    }
                    Err(error) if error.is(code::CONSUMER_NOT_FOUND) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let info = self.js.put_consumer(&stream, &name, &config).await?;
            echoes(&what, &config, &info.config)?;
        }
        Ok(())
    }

    /// Creates the stream, or brings it to this configuration; what it does not name stays.
    async fn put_stream(&self, asked: &Asked, missing: Missing) -> Result<(), BusError> {
        let name = asked.name();
        let mut existing = self.find_stream(name).await?;
        if existing.is_none() && missing == Missing::Confirm {
            tokio::time::sleep(CONFIRM_MISSING).await;
            existing = self.find_stream(name).await?;
        }
        let what = format!("stream {name}");
        let existing = existing.as_ref();
        if let Some(info) = existing {
            self.refuse_other_cluster(name, info)?;
            refuse_other_partitions(asked.config(), &info.config)?;
        }
        let existing = existing.map(|info| &info.config);
        let config = &asked.beside(existing, self.cluster.get());
        let (operation, whole) = match existing {
            None => ("CREATE", config.clone()),
            Some(existing) if echoes(&what, config, existing).is_ok() => return Ok(()),
            Some(existing) => ("UPDATE", over(existing, config)),
        };
        let info: StreamInfo = self
            .js
            .call(&format!("STREAM.{operation}.{name}"), &whole)
            .await
            .map_err(|error| match error {
                // Another replica was faster; the next look finds its stream.
                error if error.is(code::STREAM_NAME_IN_USE) => BusError::Unavailable(error.to_string()),
                // Refused for what it says, not for the moment.
                ApiError::Refused {
                    code: 400 | 500,
                    description,
                    ..
                } => BusError::Misconfigured(format!(
                    "KN0306: NATS refuses stream {name}: {description}. Remove what stands in its way (a stream with the \
                     same subjects, an account limit) or change the setting it names."
                )),
                other => other.into(),
            })?;
        echoes(&what, config, &info.config)
    }

    async fn find_stream(&self, name: &str) -> Result<Option<StreamInfo>, BusError> {
        match self.js.stream(name).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is(code::STREAM_NOT_FOUND) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What to do about a stream that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    /// Look again first: a server that shuts down denies streams it still has, and one created in that moment would
    /// pass for a log that was lost.
    Confirm,
}

/// The stream of a namespace's tasks, and the namespace's token.
pub(super) fn names(namespace: &Namespace) -> Result<(String, String), BusError> {
    let refused = |error: subject::TokenError| BusError::Misconfigured(format!("the namespace {namespace:?} {error}"));
    let token = subject::encode_token(namespace.as_str()).map_err(refused)?.into_owned();
    Ok((subject::task_stream(namespace.as_str()).map_err(refused)?, token))
}

/// The consumer of a queue, and what it takes.
pub(super) fn queue_names(namespace: &Namespace, queue: &QueueName) -> Result<(String, String), BusError> {
    let refused = |error: subject::TokenError| BusError::Misconfigured(format!("the task queue {queue:?} {error}"));
    let (_, namespace) = names(namespace)?;
    let token = subject::encode_token(queue.as_str()).map_err(refused)?;
    Ok((
        subject::queue_consumer(queue.as_str()).map_err(refused)?,
        format!("knarr.task.{namespace}.{token}.>"),
    ))
}

fn nanos(ms: u64) -> u64 {
    ms * 1_000_000
}
