//! The worker: built from handlers, run until told to stop.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use knarr_schemas::subject::{self, TokenError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;
use crate::drain::{AbortOnDrop, drain};
use crate::error::ActivityError;
use crate::flight::Flight;
use crate::handler::Typed;
use crate::inbox::{read_cancellations, read_inbox};
use crate::pull::{Queue, pull};
use crate::sweep::sweep;
use crate::task::Handlers;

/// Takes the tasks of one queue. For several queues run several workers; they may share a client.
pub struct Worker {
    client: Client,
    queue: Queue,
    cancellations: String,
    concurrency: usize,
    max_unconfirmed: usize,
    grace: Duration,
    handlers: Handlers,
}

/// Settings of a [`Worker`].
pub struct WorkerBuilder {
    client: Client,
    namespace: String,
    queue: String,
    concurrency: usize,
    max_unconfirmed: usize,
    grace: Duration,
    handlers: Handlers,
    repeated: Option<String>,
}

/// A worker that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("the {part} `{text}` {error}")]
    Name {
        part: &'static str,
        text: String,
        error: TokenError,
    },
    #[error("the activity `{0}` has two handlers")]
    Repeated(String),
    #[error("the worker has no activities")]
    NoActivities,
    #[error("the concurrency is zero")]
    NoConcurrency,
}

/// Why a worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot subscribe: {0}")]
    Subscribe(#[from] async_nats::SubscribeError),
}

impl Worker {
    /// Of queue `default` in namespace `default`, with 64 slots, until said otherwise.
    pub fn builder(client: Client) -> WorkerBuilder {
        WorkerBuilder {
            client,
            namespace: "default".to_owned(),
            queue: "default".to_owned(),
            concurrency: 64,
            max_unconfirmed: 4096,
            grace: Duration::from_secs(30),
            handlers: Handlers::new(),
            repeated: None,
        }
    }

    /// Works until `shutdown`, then drains: takes no more tasks, lets handlers finish within the grace, hands in their
    /// results, and gives back what was not begun. A queue that is not there yet, or a server that is away, is waited for.
    ///
    /// Dropping the future instead stops everything at once, as a crash would: nothing is lost, and the tasks are
    /// delivered again when their lease ends.
    ///
    /// # Errors
    /// When the client has been closed.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let flight = Arc::new(Flight::new(self.client, self.concurrency, self.max_unconfirmed));
        let subscribing = async {
            let inbox = flight.client.subscribe(format!("{}.>", flight.inbox)).await?;
            let pushes = flight.client.subscribe(self.cancellations).await?;
            Ok::<_, RunError>((inbox, pushes))
        };
        let (inbox, pushes) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            subscribed = subscribing => subscribed?,
        };
        let _abort = AbortOnDrop(Arc::clone(&flight));
        let _inbox = AbortOnDropHandle::new(tokio::spawn(read_inbox(Arc::clone(&flight), inbox)));
        let _pushes = AbortOnDropHandle::new(tokio::spawn(read_cancellations(Arc::clone(&flight), pushes)));
        let _sweep = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(&flight))));
        pull(&flight, &self.handlers, &self.queue, &shutdown).await?;
        drain(&flight, self.grace).await;
        Ok(())
    }
}

impl WorkerBuilder {
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = queue.into();
        self
    }

    /// How many handlers run at once; a slot is free again when its handler is done and the result handed in.
    #[must_use]
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.concurrency = slots;
        self
    }

    /// How many results may wait for their confirmation before no more tasks are taken (4096).
    #[must_use]
    pub fn max_unconfirmed(mut self, results: usize) -> Self {
        self.max_unconfirmed = results.max(1);
        self
    }

    /// How long handlers may go on after shutdown (30 s).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Handles an activity. The input is decoded from the task's body (an empty one is `null`); one that cannot be ends the
    /// attempt with the non-retryable type `bad_input`: *failed*, or *unknown* where the task was delivered before. The handler must be cancel safe where it awaits: at its start-to-close
    /// timeout it is dropped.
    #[must_use]
    pub fn activity<F, I, O, Fut>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Context, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, ActivityError>> + Send + 'static,
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
    {
        let name = name.into();
        if self
            .handlers
            .insert(name.clone(), Arc::new(Typed::new(handler)))
            .is_some()
        {
            self.repeated = Some(name);
        }
        self
    }

    /// # Errors
    /// See [`BuildError`].
    pub fn build(self) -> Result<Worker, BuildError> {
        let name = |part, text: &str| {
            let text = text.to_owned();
            move |error| BuildError::Name { part, text, error }
        };
        if let Some(name) = self.repeated {
            return Err(BuildError::Repeated(name));
        }
        if self.handlers.is_empty() {
            return Err(BuildError::NoActivities);
        }
        if self.concurrency == 0 {
            return Err(BuildError::NoConcurrency);
        }
        for activity in self.handlers.keys() {
            subject::encode_token(activity).map_err(name("activity", activity))?;
        }
        let stream = subject::task_stream(&self.namespace).map_err(name("namespace", &self.namespace))?;
        let consumer = subject::queue_consumer(&self.queue).map_err(name("queue", &self.queue))?;
        let cancellations = subject::cancel(&self.namespace, &self.queue).map_err(name("queue", &self.queue))?;
        Ok(Worker {
            client: self.client,
            queue: Queue { stream, consumer },
            cancellations,
            concurrency: self.concurrency,
            max_unconfirmed: self.max_unconfirmed,
            grace: self.grace,
            handlers: self.handlers,
        })
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.queue)
            .field("concurrency", &self.concurrency)
            .field("activities", &self.handlers.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("namespace", &self.namespace)
            .field("queue", &self.queue)
            .field("activities", &self.handlers.keys())
            .finish_non_exhaustive()
    }
}
