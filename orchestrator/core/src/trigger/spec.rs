//! What a trigger reads and what it makes of it.
//!
//! Kept as canonical JSON, which holds every default, so that a later version with other defaults changes nothing about it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::source::SourceEvent;
use crate::definition::from_trigger_json;
use crate::expression::{Expression, ExpressionError, Scope, Template};
use crate::ids::{WorkflowId, WorkflowName};
use crate::schedule::spec::rfc3339;
use crate::time::Span;

/// What a workflow id is made of has room in a subject.
const MAX_ID_BYTES: usize = 200;
/// Events that one batch may have.
pub const MAX_BATCH: u32 = 1_000;
/// The longest that events are gathered for.
pub const LONGEST_WAIT: Span = Span::from_secs(30 * 86_400);

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `None` = a subject that no stream of the trigger's keeps.
    pub stream: Option<Arc<str>>,
    pub subject: Arc<str>,
}

/// Where a workflow id comes from.
#[derive(Debug, Clone)]
pub enum IdFrom {
    /// Sees `event`.
    Event(Arc<Template>),
    /// The definition's own `id`, which sees the input.
    Input(Arc<Template>),
    /// One for each event.
    Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    #[default]
    AllowDuplicate,
    AllowDuplicateFailedOnly,
    RejectDuplicate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    #[default]
    Fail,
    UseExisting,
}

/// What is done about one event.
#[derive(Debug, Clone)]
pub struct Act {
    /// A run is started; with a signal, where none is open.
    pub start: bool,
    pub signal: Option<Arc<str>>,
    pub reuse: Reuse,
    pub conflict: Conflict,
}

/// Events of one workflow id that count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// The latest, once none has come for that long, and at the latest so long after the first.
    Debounce { quiet: Span, max_wait: Span },
    /// All of them, as a list, once there are so many, or so long after the first.
    Batch { max: u32, wait: Span },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    #[default]
    New,
    All,
}

/// A specification, checked and compiled.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Spec {
    pub name: Arc<str>,
    pub workflow: WorkflowName,
    pub source: Source,
    pub filter: Option<Arc<Expression>>,
    pub id: IdFrom,
    /// `None` = the body.
    pub input: Option<Arc<Template>>,
    pub act: Act,
    pub begin: Begin,
    pub gather: Option<Gather>,
    pub(crate) canonical: Arc<Value>,
}

/// Why nothing can be made of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// Its body or its headers cannot be read.
    Unreadable,
    /// An expression fails, or gives no workflow id.
    Expression,
    /// The start or the signal was refused.
    Refused,
}

/// What an event comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Meant {
    pub id: WorkflowId,
    pub input: Arc<Value>,
}

impl Spec {
    /// The canonical document.
    pub fn json(&self) -> &Arc<Value> {
        &self.canonical
    }

    /// Of a definition's canonical form, which says the rest.
    pub fn within_definition(&self) -> Value {
        let mut said = (*self.canonical).clone();
        if let Some(said) = said.as_object_mut() {
            for key in ["trigger", "workflow", "id_of_input"] {
                said.remove(key);
            }
        }
        said
    }

    /// What an event comes to, `None` if the filter does not let it through.
    pub fn read(&self, event: &mut SourceEvent) -> Result<Option<Meant>, (Flaw, String)> {
        let data = match &mut event.data {
            Ok(data) => data.take(),
            Err(why) => return Err((Flaw::Unreadable, format!("the event cannot be read as JSON: {why}"))),
        };
        let failed = |error: ExpressionError| (Flaw::Expression, error.to_string());
        let scope = EventScope(self.seen(event, data));
        if let Some(filter) = &self.filter
            && !filter.is_true(&scope).map_err(failed)?
        {
            return Ok(None);
        }
        let input = match &self.input {
            Some(template) => template.evaluate(&scope).map_err(failed)?,
            None => Arc::new(scope.0.get("data").cloned().unwrap_or_default()),
        };
        let id = match &self.id {
            IdFrom::Event(template) => text(&*template.evaluate(&scope).map_err(failed)?),
            IdFrom::Input(template) => text(&*template.evaluate(&InputScope(&input)).map_err(failed)?),
            IdFrom::Place => Ok(self.generated(event)),
        };
        let id = id.and_then(usable).map_err(|why| (Flaw::Expression, why))?;
        Ok(Some(Meant { id, input }))
    }

    /// `event`, as expressions see it.
    fn seen(&self, event: &SourceEvent, data: Value) -> Value {
        let mut headers = Map::new();
        for (name, value) in &event.headers {
            // The first of a name counts, as it does for Knarr's own.
            headers.entry(&**name).or_insert_with(|| json!(value));
        }
        json!({
            "data": data,
            "subject": &*event.subject,
            "headers": headers,
            "time": rfc3339(event.at),
            "sequence": event.place.as_ref().map(|place| place.sequence),
            "stream": self.source.stream.as_deref(),
        })
    }

    /// The same for the same message, and another one for every other, also of a stream that takes this one's place.
    fn generated(&self, event: &SourceEvent) -> String {
        format!("{}-{}-{:x}-{}", self.workflow, self.name, event.at.0, event.sequence)
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(id) => Ok(id.clone()),
        Value::Number(id) => Ok(id.to_string()),
        other => {
            let kind = match other {
                Value::Null => "null",
                Value::Bool(_) => "a truth",
                Value::Array(_) => "a list",
                _ => "a mapping",
            };
            Err(format!(
                "the workflow id is {kind}, which is neither a text nor a number"
            ))
        }
    }
}

fn usable(id: String) -> Result<WorkflowId, String> {
    if id.is_empty() {
        return Err("the workflow id is empty".to_owned());
    }
    if id.starts_with('$') {
        return Err("the workflow id begins with `$`, which is reserved".to_owned());
    }
    if id.contains('\0') {
        return Err("the workflow id contains NUL".to_owned());
    }
    // As a token of a subject, in which most characters become three.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let bytes: usize = id.bytes().map(|byte| if plain(&byte) { 1 } else { 3 }).sum();
    if bytes > MAX_ID_BYTES {
        return Err(format!("the workflow id is longer than {MAX_ID_BYTES} bytes"));
    }
    Ok(WorkflowId::new(&id))
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
        from_trigger_json(&value)
    }
}

impl From<Spec> for Value {
    fn from(spec: Spec) -> Self {
        Arc::unwrap_or_clone(spec.canonical)
    }
}

struct EventScope(Value);

impl Scope for EventScope {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        (name == "event").then_some(Cow::Borrowed(&self.0))
    }

    fn step(&self, _id: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        None
    }
}

struct InputScope<'a>(&'a Arc<Value>);

impl Scope for InputScope<'_> {
    fn root(&self, _name: &str) -> Option<Cow<'_, Value>> {
        None
    }

    fn step(&self, _id: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        Some(self.0)
    }
}
