//! The document around the steps.

use super::{CallFields, Handler, Limited, Steps};
use crate::definition::plan::{Cancellation, CompensationPolicy, RetryPolicy};
use crate::definition::tree::{Node, Place};
use crate::limit::OnConflict;
use crate::schedule::Spec;
use crate::time::Span;
use crate::trigger;

#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) workflow: Text,
    pub(crate) version: u32,
    pub(crate) description: Option<String>,
    /// A string with `${ }`.
    pub(crate) id: Option<Node>,
    pub(crate) input_schema: Option<JsonSchema>,
    pub(crate) defaults: Option<Defaults>,
    pub(crate) compensation: CompensationPolicy,
    pub(crate) steps: Steps,
    pub(crate) output: Option<Node>,
    pub(crate) search_attributes: Vec<(Text, Node)>,
    pub(crate) timeout: Option<Span>,
    /// Of runs, every default filled in.
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) schedule: Option<Spec>,
    pub(crate) concurrency: Option<RunConcurrency>,
    pub(crate) priority: Option<u8>,
    pub(crate) triggers: Vec<trigger::Spec>,
    /// By name, in the order written.
    pub(crate) queries: Vec<(Text, Node)>,
    /// Of signals, in the order written.
    pub(crate) signals: Vec<Handler>,
    pub(crate) updates: Vec<Handler>,
}

impl Definition {
    pub(crate) fn handlers(&self) -> impl Iterator<Item = &Handler> {
        self.signals.iter().chain(&self.updates)
    }
}

/// How many runs are open at a time.
#[derive(Debug)]
pub(crate) struct RunConcurrency {
    pub(crate) limit: u32,
    /// One limit for each of its values.
    pub(crate) key: Option<Node>,
    pub(crate) on_conflict: OnConflict,
}

/// Inlined; the place is that of the key's value in the definition.
#[derive(Debug)]
pub(crate) struct JsonSchema {
    pub(crate) schema: serde_json::Value,
    pub(crate) place: Place,
}

#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) place: Place,
}

#[derive(Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) call: CallFields,
    pub(crate) undo: CallFields,
    pub(crate) cancellation: Option<Cancellation>,
    /// Of each activity that names no limit of its own.
    pub(crate) concurrency: Option<Limited<u32>>,
    pub(crate) priority: Option<u8>,
}
