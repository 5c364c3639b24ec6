//! Queries: an expression over a run as it stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RunName;
use crate::body::RunSummary;

/// What is asked of a run, open or closed: a query of its definition, or an expression. One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryRun {
    pub run: RunName,
    /// By its name in the version of the definition that the run goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// With or without `${ }`; sees `input`, `steps`, `vars`, `run`, `status` and `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// Of everything that was committed when it was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueryAnswer {
    pub run: RunSummary,
    /// The last transition that the answer knows of.
    pub seq: u32,
    pub value: Value,
}
