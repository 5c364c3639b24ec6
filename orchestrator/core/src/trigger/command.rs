//! What definitions and operators say to a trigger; sent and kept as it is written here.

use serde::{Deserialize, Serialize};

use super::spec::Spec;
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// What a definition says of it: it is made, changed, or with no `spec` deleted, unless a newer version has spoken.
    Define {
        version: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Box<Spec>>,
    },
    /// Reads nothing; its place is kept.
    Pause,
    Resume,
    /// Goes on elsewhere; what is read a second time counts a second time.
    Reset {
        to: Position,
    },
}

impl Command {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Define { .. } => "define",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset { .. } => "reset",
        }
    }
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// With what is stored from now on.
    New,
    /// With the first message there is.
    All,
    /// With the first message that was stored then or later.
    Time(Timestamp),
    /// With that sequence of the stream.
    Sequence(u64),
}
