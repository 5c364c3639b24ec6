//! The difference, as programs get it (`-o json`).

use serde::Serialize;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    pub before: Version,
    pub after: Version,
    /// Empty where nothing but the version differs.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    pub workflow: String,
    pub version: u64,
}

/// Steps are named by their path in the new version, removed ones by that in the old one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// Of the document around the steps.
    Document {
        field: Field,
    },
    /// The schedule, the concurrency, a trigger (`triggers.<name>`) or the handler of a signal or an update (`signals.<name>`) is new, with all that is said of it.
    PartAdded {
        part: String,
        what: String,
        said: Value,
    },
    PartRemoved {
        part: String,
        what: String,
        said: Value,
    },
    PartChanged {
        part: String,
        field: Field,
    },
    Added {
        step: String,
        what: String,
    },
    Removed {
        step: String,
        what: String,
    },
    /// To another body, or within its own.
    Moved {
        step: String,
        from: String,
        /// The id of the step before it; `None` = it is the first one.
        #[serde(skip_serializing_if = "Option::is_none")]
        behind: Option<String>,
    },
    Changed {
        step: String,
        field: Field,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Keys joined by dots, as in `retry.maximum_attempts`.
    pub name: String,
    /// `None` = it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}
