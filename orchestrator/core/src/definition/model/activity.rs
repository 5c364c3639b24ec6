//! Activities, their undo, and how their tasks are given out.

use super::{JsonSchema, Text};
use crate::definition::plan::{Cancellation, OnExhausted, OnFailure, RetryPolicy, Timeouts};
use crate::definition::tree::Node;
use crate::ids::QueueName;
use crate::limit::Rate;
use crate::time::Span;

#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) call: Call,
    /// Of the step's output, for the checks alone.
    pub(crate) output_schema: Option<JsonSchema>,
    pub(crate) undo: Undo,
    pub(crate) on_failure: OnFailure,
    pub(crate) compensate_on_failure: bool,
    pub(crate) pivot: bool,
    pub(crate) limiting: Limiting,
    /// As far as the author said it, then as `resolve` leaves it.
    pub(crate) cancellation: Option<Cancellation>,
}

/// What its tasks wait for beside a worker.
#[derive(Debug, Default)]
pub(crate) struct Limiting {
    pub(crate) concurrency: Option<Limited<u32>>,
    pub(crate) rate: Option<Limited<Rate>>,
    pub(crate) priority: Option<u8>,
    pub(crate) fairness_key: Option<Node>,
}

#[derive(Debug, Clone)]
pub(crate) struct Limited<T> {
    pub(crate) to: T,
    /// One limit for each of its values.
    pub(crate) key: Option<Node>,
}

impl Limiting {
    pub(crate) fn is_said(&self) -> bool {
        let values = self.concurrency.is_some() || self.rate.is_some();
        values || self.priority.is_some() || self.fairness_key.is_some()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Node> {
        let concurrency = self.concurrency.as_ref().and_then(|it| it.key.as_ref());
        let rate = self.rate.as_ref().and_then(|it| it.key.as_ref());
        [concurrency, rate, self.fairness_key.as_ref()].into_iter().flatten()
    }
}

#[derive(Debug)]
pub(crate) enum Undo {
    Compensate(Box<Call>),
    ReadOnly,
    None { reason: String },
    Undeclared,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) activity: Text,
    pub(crate) input: Option<Node>,
    pub(crate) fields: CallFields,
    /// Filled by `resolve`.
    pub(crate) settings: Option<Settings>,
}

/// How a task is given out, as far as the author said it.
#[derive(Debug, Default)]
pub(crate) struct CallFields {
    pub(crate) queue: Option<Text>,
    pub(crate) start_to_close: Option<Span>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: RetryFields,
    /// Of undos.
    pub(crate) on_exhausted: Option<OnExhausted>,
}

#[derive(Debug, Default)]
pub(crate) struct RetryFields {
    pub(crate) initial_interval: Option<Span>,
    pub(crate) backoff_coefficient: Option<f64>,
    pub(crate) maximum_interval: Option<Span>,
    pub(crate) maximum_attempts: Option<Attempts>,
    pub(crate) non_retryable: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempts {
    Unlimited,
    AtMost(u32),
}

/// How a task is given out, every default filled in.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) queue: QueueName,
    pub(crate) start_to_close: Span,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: RetryPolicy,
    /// Of undos, where it is not as the policy of the definition has it.
    pub(crate) on_exhausted: Option<OnExhausted>,
}
