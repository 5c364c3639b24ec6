//! Queries: an expression over a run as it stands, open or closed.
//!
//! Asking changes nothing and costs no event. What the expression reads and makes is bounded like that of any other one
//! ([`crate::expression`]); what is not there is an error, unless the expression says what to answer then.

use std::sync::Arc;

use serde_json::Value;

use super::failure::Failure;
use super::scope::RunScope;
use super::state::State;
use crate::definition::plan::Plan;
use crate::expression::Template;
use crate::ids::StepPath;

/// Sees `input`, `steps`, `vars` and `run` as the run's output does, its `status`, and the `error` that it was stopped for.
///
/// # Errors
/// What the expression reads is missing, or is too much.
pub fn query(plan: &Plan, state: &State, expression: &Template) -> Result<Arc<Value>, Failure> {
    let root = StepPath::new("");
    RunScope::new(plan, state, &root).of_query().evaluate(Some(expression))
}
