//! What became of a case.

use serde::Serialize;

use crate::definition::code::Code;
use crate::run::Status;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    pub name: String,
    pub passed: bool,
    /// `None` where the run was never started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Virtual, from the start to the end.
    pub took_ms: u64,
    pub deviations: Vec<Deviation>,
    /// Everything that happened, in order.
    pub happened: Vec<Happening>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deviation {
    pub code: &'static str,
    /// What it is about: a key of `expect`, or a sentence.
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// In bytes of the test file.
    #[serde(skip)]
    pub place: std::ops::Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Happening {
    /// Virtual, from the start.
    pub at_ms: u64,
    pub what: String,
}

impl Deviation {
    pub(super) fn new(code: Code, place: &std::ops::Range<usize>, what: impl Into<String>) -> Self {
        Self {
            code: code.code,
            what: what.into(),
            expected: None,
            actual: None,
            place: place.clone(),
        }
    }

    pub(super) fn between(mut self, expected: String, actual: String) -> Self {
        self.expected = Some(expected);
        self.actual = Some(actual);
        self
    }
}
