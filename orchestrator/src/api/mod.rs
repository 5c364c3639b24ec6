//! What people and programs can ask: operations over the store, one file a subject, served over NATS ([`service`]); and
//! the caller's side of it ([`client`], [`command`]).
//!
//! **Invariant:** nothing here changes a run. Starts, signals and operators' commands go through the log, so that their
//! order is theirs; the API reads, registers definitions and namespaces, and hands on what is said of tasks, as a worker
//! would say it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use knarr_core::ids::Namespace;
use knarr_schemas::api::TriggerName;
use knarr_schemas::body::{ErrorBody, ScheduleRequest, TriggerRequest};
use knarr_schemas::code::{self, Code};
use serde_json::Value;

use crate::bus::{BusError, QueueSettings};
use crate::queues::KnownQueues;
use crate::store::{Store, StoreError};

mod activities;
pub mod client;
pub mod command;
mod definitions;
mod describe;
mod migration;
mod namespaces;
mod operations;
mod parked;
mod portions;
mod queries;
mod queues;
mod runs;
mod schedules;
pub mod service;
pub mod source;
mod triggers;

/// Given by the server: asserts a namespace's task stream and the consumers of these queues, before the caller hears
/// that its definition is registered.
pub type OnRegistered =
    Arc<dyn Fn(Namespace, Vec<QueueSettings>) -> BoxFuture<'static, Result<(), BusError>> + Send + Sync>;

/// Given by the server: tells the schedule named after a workflow what its definition says, and returns what that one
/// answers when it is committed. It goes through the log like everything that is asked of a schedule.
pub type OnScheduled =
    Arc<dyn Fn(Namespace, String, ScheduleRequest) -> BoxFuture<'static, Result<Option<Value>, Refusal>> + Send + Sync>;

/// The same for a trigger of a workflow, by its name.
pub type OnTriggered =
    Arc<dyn Fn(Namespace, TriggerName, TriggerRequest) -> BoxFuture<'static, Result<(), Refusal>> + Send + Sync>;

/// The operations, over a store.
pub struct Operations<S> {
    store: Arc<S>,
    on_registered: OnRegistered,
    on_scheduled: OnScheduled,
    on_triggered: OnTriggered,
    queues: KnownQueues,
}

impl<S> std::fmt::Debug for Operations<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl<S: Store> Operations<S> {
    pub fn new(
        store: Arc<S>,
        on_registered: OnRegistered,
        on_scheduled: OnScheduled,
        on_triggered: OnTriggered,
    ) -> Self {
        Self {
            store,
            on_registered,
            on_scheduled,
            on_triggered,
            queues: KnownQueues::default(),
        }
    }
}

/// Why an operation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", body.message)]
pub struct Refusal {
    /// In the manner of HTTP.
    pub status: u16,
    pub body: ErrorBody,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &Code, message: impl Into<String>) -> Self {
        Self {
            status,
            body: code.error(message),
        }
    }

    fn not_found(code: &Code, message: impl Into<String>) -> Self {
        Self::new(404, code, message)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooSlow => Self::new(504, &code::TOO_SLOW, code::TOO_SLOW.cause),
            StoreError::Unavailable(_) => Self::new(503, &code::STORE_UNAVAILABLE, error.to_string()),
            StoreError::Fenced | StoreError::TooOld { .. } | StoreError::NameTaken { .. } | StoreError::Rejected(_) => {
                Self::new(500, &code::INTERNAL, error.to_string())
            }
        }
    }
}

/// Of a registration: what was stored stays.
impl From<BusError> for Refusal {
    fn from(error: BusError) -> Self {
        let (status, code) = match error {
            BusError::Unavailable(_) => (503, &code::QUEUES_UNAVAILABLE),
            BusError::Misconfigured(_) => (500, &code::QUEUES_REFUSED),
        };
        let message = format!(
            "the definition is registered, but its task queues could not be set up: {}",
            error.cause()
        );
        Self::new(status, code, message)
    }
}

#[cfg(test)]
mod tests;
