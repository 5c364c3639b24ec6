//! A definition as it was written, typed: what `read` makes of the tree and `resolve` completes.

use super::plan::{OnFailure, RetryPolicy};
use super::tree::{Node, Place};
use crate::ids::QueueName;
use crate::time::Span;

#[derive(Debug)]
pub(super) struct Definition {
    pub(super) workflow: Text,
    pub(super) version: u32,
    pub(super) description: Option<String>,
    /// A string with `${ }`.
    pub(super) id: Option<Node>,
    pub(super) input_schema: Option<InputSchema>,
    pub(super) defaults: Option<Defaults>,
    pub(super) steps: Vec<Step>,
    pub(super) output: Option<Node>,
    pub(super) search_attributes: Vec<(Text, Node)>,
    pub(super) timeout: Option<Span>,
}

/// Inlined; the place is that of the key's value in the definition.
#[derive(Debug)]
pub(super) struct InputSchema {
    pub(super) schema: serde_json::Value,
    pub(super) place: Place,
}

#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) place: Place,
}

#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) call: CallFields,
    pub(super) undo: CallFields,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) id: Text,
    pub(super) condition: Option<Text>,
    pub(super) kind: StepKind,
}

#[derive(Debug)]
pub(super) enum StepKind {
    Activity(Box<Activity>),
    Set(Vec<(Text, Node)>),
    /// Findings say why; kept, so that references to it are not findings too.
    Broken,
}

#[derive(Debug)]
pub(super) struct Activity {
    pub(super) call: Call,
    pub(super) undo: Undo,
    pub(super) on_failure: OnFailure,
    pub(super) compensate_on_failure: bool,
}

#[derive(Debug)]
pub(super) enum Undo {
    Compensate(Box<Call>),
    ReadOnly,
    None { reason: String },
    Undeclared,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) activity: Text,
    pub(super) input: Option<Node>,
    pub(super) fields: CallFields,
    /// Filled by `resolve`.
    pub(super) settings: Option<Settings>,
}

/// How a task is given out, as far as the author said it.
#[derive(Debug, Default)]
pub(super) struct CallFields {
    pub(super) queue: Option<Text>,
    pub(super) start_to_close: Option<Span>,
    pub(super) retry: RetryFields,
}

#[derive(Debug, Default)]
pub(super) struct RetryFields {
    pub(super) initial_interval: Option<Span>,
    pub(super) backoff_coefficient: Option<f64>,
    pub(super) maximum_interval: Option<Span>,
    pub(super) maximum_attempts: Option<Attempts>,
    pub(super) non_retryable: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempts {
    Unlimited,
    AtMost(u32),
}

/// How a task is given out, every default filled in.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) queue: QueueName,
    pub(super) start_to_close: Span,
    pub(super) retry: RetryPolicy,
}

impl Step {
    pub(super) fn activity(&self) -> Option<&Activity> {
        match &self.kind {
            StepKind::Activity(activity) => Some(activity),
            _ => None,
        }
    }

    /// The step may end without an output although the run goes on.
    pub(super) fn may_lack_output(&self) -> bool {
        self.condition.is_some() || self.activity().is_some_and(|a| a.on_failure == OnFailure::Continue)
    }
}
