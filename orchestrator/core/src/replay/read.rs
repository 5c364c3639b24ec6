//! A history as `knarr history -o json` prints it, or the list of its transitions alone.

use chrono::DateTime;
use serde_json::Value;

use crate::run::{Status, Transition};
use crate::time::Timestamp;

/// What was recorded of a run, from its first transition on.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    pub transitions: Vec<Transition>,
    /// What the run is said to be.
    pub status: Option<Status>,
}

/// Why a history is none, or not a whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHistory {
    #[error("it is no JSON: {0}")]
    Json(String),
    #[error("it is no history: {0}")]
    Shape(String),
    #[error("there are no transitions in it")]
    Empty,
    #[error("it does not begin with the start of a run")]
    NoBirth,
    #[error("transition {found} follows on transition {after}")]
    Gap { after: u32, found: u32 },
    #[error("the time of transition {seq} is before that of the one before")]
    TimeGoesBack { seq: u32 },
    #[error("the events of transition {seq} were left out for their size")]
    LeftOut { seq: u32 },
    #[error("event {event} of transition {seq} cannot be read: {problem}")]
    Event { seq: u32, event: usize, problem: String },
}

pub fn read(text: &str) -> Result<History, BadHistory> {
    let value: Value = serde_json::from_str(text).map_err(|error| BadHistory::Json(error.to_string()))?;
    let list = match &value {
        Value::Array(list) => list,
        Value::Object(page) => match page.get("transitions") {
            Some(Value::Array(list)) => list,
            _ => return Err(BadHistory::Shape("there is no list of `transitions` in it".to_owned())),
        },
        _ => return Err(BadHistory::Shape("it is neither a mapping nor a list".to_owned())),
    };
    let status = value
        .pointer("/run/status")
        .and_then(Value::as_str)
        .and_then(Status::parse);
    // The summary may be younger than the last page that was asked for.
    let whole = value.get("next").is_none_or(Value::is_null);
    Ok(History {
        transitions: list.iter().map(transition).collect::<Result<_, _>>()?,
        status: status.filter(|_| whole),
    })
}

/// Whether it is the beginning of a history that goes on.
pub fn is_part(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Page {
        next: Option<u32>,
    }
    serde_json::from_str::<Page>(text).is_ok_and(|page| page.next.is_some())
}

fn transition(value: &Value) -> Result<Transition, BadHistory> {
    let shape = |problem: &str| BadHistory::Shape(format!("a transition {problem}"));
    let seq = value
        .get("seq")
        .and_then(Value::as_u64)
        .and_then(|seq| u32::try_from(seq).ok());
    let seq = seq.ok_or_else(|| shape("has no `seq`"))?;
    let at = value
        .get("at")
        .and_then(Value::as_str)
        .and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    let at = at.ok_or_else(|| shape("has no time `at`"))?;
    if value.get("omitted_bytes").is_some_and(|bytes| !bytes.is_null()) {
        return Err(BadHistory::LeftOut { seq });
    }
    let events = value
        .get("events")
        .and_then(Value::as_array)
        .ok_or_else(|| shape("has no `events`"))?;
    let events = events.iter().enumerate().map(|(index, event)| {
        serde_json::from_value(event.clone()).map_err(|error| BadHistory::Event {
            seq,
            event: index,
            problem: problem(&error),
        })
    });
    let events = events.collect::<Result<_, _>>()?;
    Ok(Transition::new(seq, Timestamp(at.timestamp_micros()), events))
}

/// Of an event that a newer version has written, its name, and not those of all that there are.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(", expected one of ") {
        Some((what, _)) => what.to_owned(),
        None => text,
    }
}
