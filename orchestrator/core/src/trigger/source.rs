//! What is read of a stream, as the shell hands it in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::Timestamp;

/// A message's place: in which stream, by when that was created, since one of the same name may take its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub stream: Arc<str>,
    pub sequence: u64,
    /// When it was stored, as far as that is known.
    pub at: Timestamp,
}

/// What was read at a stretch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Read {
    /// Which opening of the source it comes from; what an earlier one has read says nothing any more.
    pub opening: u32,
    /// Of a stream those behind the place that the trigger has come to are not decided, where much came of those before them:
    /// they are handed in again.
    pub items: Vec<Item>,
    /// Events that were read before and matched nothing, without anything having been decided since.
    pub skipped: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Event(Box<SourceEvent>),
    /// Nothing that is wanted lies before this place.
    Reached(Place),
    Gap(Gap),
    /// The stream cannot be read; it is tried again.
    Trouble(Arc<str>),
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceEvent {
    /// `None` for what no stream keeps.
    pub place: Option<Place>,
    /// In its stream, or, where there is none, of those that were heard.
    pub sequence: u64,
    pub subject: Arc<str>,
    pub headers: Vec<(Arc<str>, String)>,
    pub at: Timestamp,
    /// The body, or why it cannot be read.
    pub data: Result<Value, Arc<str>>,
    /// Of the body.
    pub bytes: u32,
}

/// Messages that are not there to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub why: Loss,
    /// The last that was read.
    pub after: Place,
    /// Where reading goes on: behind this.
    pub resumes: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Another stream of that name is there.
    Recreated,
    /// The stream has dropped messages that were not read yet; some of them may have been wanted.
    Purged,
    /// The stream has lost its latest messages and counts from an earlier one.
    SteppedBack,
}

impl Loss {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recreated => "recreated",
            Self::Purged => "purged",
            Self::SteppedBack => "stepped_back",
        }
    }
}
