//! What an exploration found, and how much it looked at.

use std::collections::BTreeMap;

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub workflow: String,
    pub version: u32,
    /// The most severe first, then those with the shortest way.
    pub findings: Vec<Finding>,
    pub coverage: Coverage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
    /// Nothing is wrong; it is told so that it is known.
    Notice,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub message: String,
    pub remedy: &'static str,
    /// The shortest way that leads to it.
    pub way: Vec<String>,
    /// In how many states it was seen.
    pub states: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coverage {
    pub states: u64,
    /// Ways from one state to another.
    pub transitions: u64,
    /// From the start to an end, without going in circles; as many as a float can tell.
    pub paths: f64,
    /// How many states were ends, by the status of the run.
    pub ends: BTreeMap<String, u64>,
    pub bound: Bound,
    /// Everything within the bound was looked at.
    pub exhaustive: bool,
    /// Conditions that were taken both ways, and lists of every length, whatever the data says.
    pub forced: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    pub list_items: usize,
    pub while_iterations: u32,
    /// Undos that keep failing on one way.
    pub parked_undos: usize,
    /// Failures, unknown outcomes, timeouts and cancellations on one way; `None` = any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<u32>,
    pub states: u64,
}
