//! What a test file says.

use std::sync::Arc;

use serde_json::Value;

use crate::definition::tree::Place;
use crate::expression::Template;
use crate::run::Status;
use crate::time::{Span, Timestamp};

#[derive(Debug)]
pub struct TestFile {
    /// Beside the test file; `None` = named like it.
    pub definition: Option<String>,
    pub cases: Vec<Case>,
}

/// Mocks and children of the file are in every case, behind its own.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub place: Place,
    pub input: Arc<Value>,
    /// When the run starts.
    pub start: Timestamp,
    pub mocks: Vec<(String, Arc<[Mock]>)>,
    pub children: Vec<(String, Arc<[ChildMock]>)>,
    /// In the order of their time.
    pub events: Vec<External>,
    pub expect: Expectation,
}

/// What a worker does with one attempt. The last of a list goes on for ever.
#[derive(Debug)]
pub struct Mock {
    pub outcome: Outcome,
    /// From the dispatch of the task.
    pub after: Span,
    /// It stops as soon as it is asked to, instead of going on to its outcome.
    pub stops: bool,
}

#[derive(Debug)]
pub enum Outcome {
    /// Sees the task's input as `input`, and `task` (`step`, `activity`, `attempt`, `key`).
    Result(Template),
    Fail {
        error_type: String,
        message: String,
        retryable: bool,
        not_done: bool,
        retry_after: Option<Span>,
    },
    Unknown {
        message: String,
    },
    /// Takes the task and never answers.
    Timeout,
    /// No worker takes the task.
    NotTaken,
    RetryLater {
        after: Option<Span>,
    },
}

#[derive(Debug)]
pub struct ChildMock {
    pub outcome: ChildOutcome,
    pub after: Span,
    /// Why it refuses to be undone, if it does.
    pub undo_refused: Option<String>,
}

#[derive(Debug)]
pub enum ChildOutcome {
    /// Sees the child's input as `input`.
    Result(Template),
    /// It has undone itself.
    Fail { error_type: String, message: String },
    /// It is not started.
    Refuse { message: String },
}

/// What happens to the run from outside.
#[derive(Debug)]
pub struct External {
    /// From the start of the run.
    pub at: Span,
    pub kind: ExternalKind,
}

#[derive(Debug)]
pub enum ExternalKind {
    Signal { name: String, body: Arc<Value> },
    Update { name: String, body: Arc<Value> },
    Cancel { reason: Option<String> },
    Terminate { reason: Option<String> },
    Retry { step: String, input: Option<Arc<Value>> },
    Skip { step: String },
    MarkDone { step: String },
}

/// What is expected; what is not named may be anything.
#[derive(Debug, Default)]
pub struct Expectation {
    pub status: Option<Expected<Status>>,
    pub output: Option<Expected<Value>>,
    /// Of the run that continues this one.
    pub next_input: Option<Expected<Value>>,
    pub error_step: Option<Expected<String>>,
    pub error_type: Option<Expected<String>>,
    /// A part of the message.
    pub error_message: Option<Expected<String>>,
    /// A part of what the rejection of the input says.
    pub rejected: Option<Expected<String>>,
    /// Activities and children that were begun, in order.
    pub steps: Option<Expected<Vec<String>>>,
    /// In any order.
    pub skipped: Option<Expected<Vec<String>>>,
    /// Undos that were begun, in order.
    pub undos: Option<Expected<Vec<String>>>,
    /// What waits for an operator in the end, in any order.
    pub parked: Option<Expected<Vec<String>>>,
    /// How many attempts an activity had; `undo <path>` for an undo.
    pub attempts: Vec<(String, Expected<u64>)>,
    /// How many attempts the run had. What else is expected is of the last one, but for what was emitted and how long it took.
    pub run_attempts: Option<Expected<u64>>,
    /// Of the first task; `undo <path>` for an undo.
    pub inputs: Vec<(String, Expected<Value>)>,
    /// Of each entry, what became of it.
    pub ledger: Option<Expected<Vec<(String, String)>>>,
    pub vars: Vec<(String, Expected<Value>)>,
    /// What queries are answered in the end.
    pub queries: Vec<(String, Expected<Value>)>,
    pub emitted: Option<Expected<Vec<ExpectedEvent>>>,
    pub took: Option<Expected<Took>>,
}

/// Its subject, and its body, where that may not be anything.
pub type ExpectedEvent = (String, Option<Value>);

#[derive(Debug)]
pub struct Expected<T> {
    pub value: T,
    pub place: Place,
}

/// From the start to the end, in virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    pub at_least: Span,
    pub at_most: Span,
}
