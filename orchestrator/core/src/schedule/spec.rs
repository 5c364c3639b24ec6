//! What a schedule is told to do: its moments, what it starts, and how it treats what is still running.
//!
//! Kept as canonical JSON, which is itself a schedule's document (`definition::read_schedule` reads both) and holds every
//! default, so that a later version with other defaults changes nothing about it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::times::Times;
use crate::definition::from_schedule_json;
use crate::expression::{ExpressionError, Scope, Template};
use crate::ids::WorkflowName;
use crate::time::{Span, Timestamp};

/// Occurrences that `buffer_all` keeps waiting at most; those beyond are skipped.
pub const MAX_BUFFERED: usize = 1_000;
/// The shortest and the usual catch-up window.
pub const CATCH_UP_SHORTEST: Span = Span::from_secs(10);
pub const CATCH_UP_USUAL: Span = Span::from_secs(365 * 86_400);
/// Rules, and what they exclude.
pub const MAX_RULES: usize = 100;
/// The name of a schedule: that and a nominal time are a workflow id.
pub const MAX_NAME_BYTES: usize = 100;

/// What an occurrence starts.
#[derive(Debug, Clone)]
pub struct Action {
    pub workflow: WorkflowName,
    /// `None` = the one a start without a version takes.
    pub version: Option<u32>,
    /// Sees `schedule` alone.
    pub input: Option<Arc<Template>>,
}

/// What becomes of an occurrence that comes due while a run of an earlier one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    #[default]
    Skip,
    /// One waits; those that come while it does are skipped.
    BufferOne,
    /// All wait, up to [`MAX_BUFFERED`].
    BufferAll,
    /// The open run is cancelled, which undoes it; the latest occurrence starts when it has closed.
    CancelOther,
    TerminateOther,
    AllowAll,
}

impl Overlap {
    pub const ALL: [Self; 6] = [
        Self::Skip,
        Self::BufferOne,
        Self::BufferAll,
        Self::CancelOther,
        Self::TerminateOther,
        Self::AllowAll,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::BufferOne => "buffer_one",
            Self::BufferAll => "buffer_all",
            Self::CancelOther => "cancel_other",
            Self::TerminateOther => "terminate_other",
            Self::AllowAll => "allow_all",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|overlap| overlap.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub overlap: Overlap,
    /// An occurrence that could not be started for longer is missed.
    pub catch_up_window: Span,
    pub pause_on_failure: bool,
}

/// A specification, checked and compiled.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Spec {
    pub times: Arc<Times>,
    pub action: Action,
    pub policy: Policy,
    pub note: Option<Arc<str>>,
    /// How many runs it may still start, from when that was said.
    pub actions: Option<u32>,
    /// Whether it is paused, from when that was said.
    pub paused: bool,
    pub(crate) canonical: Arc<Value>,
}

impl Spec {
    /// The canonical document.
    pub fn json(&self) -> &Arc<Value> {
        &self.canonical
    }

    /// The input of one occurrence.
    pub fn input(&self, schedule: &str, nominal: Timestamp) -> Result<Arc<Value>, ExpressionError> {
        match &self.action.input {
            None => Ok(Arc::new(Value::Null)),
            Some(template) => template.evaluate(&OccurrenceScope(json!({
                "id": schedule,
                "nominal_time": rfc3339(nominal),
            }))),
        }
    }
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spec({})", self.canonical)
    }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl TryFrom<Value> for Spec {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        from_schedule_json(&value)
    }
}

impl From<Spec> for Value {
    fn from(spec: Spec) -> Self {
        Arc::unwrap_or_clone(spec.canonical)
    }
}

/// `2026-11-26T02:00:00Z`
pub fn rfc3339(at: Timestamp) -> String {
    at.to_utc().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// As part of a workflow id: `20261126T020000Z`.
pub fn compact(at: Timestamp) -> String {
    at.to_utc().format("%Y%m%dT%H%M%SZ").to_string()
}

struct OccurrenceScope(Value);

impl Scope for OccurrenceScope {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        (name == "schedule").then_some(Cow::Borrowed(&self.0))
    }

    fn step(&self, _id: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        None
    }
}
