//! What expressions of a run can see.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::state::{State, Step};
use crate::expression::{ExpressionError, Scope, Template};
use crate::ids::StepPath;
use crate::json::{self, Limits};

/// The names in scope at one step.
pub(super) struct RunScope<'a> {
    state: &'a State,
    at: &'a StepPath,
    /// Set by earlier lines of the same `set`.
    assigned: Option<&'a BTreeMap<Arc<str>, Arc<Value>>>,
    /// The output of the step itself, where it is known though the state must not show it.
    own_output: Option<&'a Arc<Value>>,
}

impl<'a> RunScope<'a> {
    pub(super) fn new(state: &'a State, at: &'a StepPath) -> Self {
        Self {
            state,
            at,
            assigned: None,
            own_output: None,
        }
    }

    #[must_use]
    pub(super) fn with_assigned(mut self, assigned: &'a BTreeMap<Arc<str>, Arc<Value>>) -> Self {
        self.assigned = Some(assigned);
        self
    }

    #[must_use]
    pub(super) fn with_own_output(mut self, output: Option<&'a Arc<Value>>) -> Self {
        self.own_output = output;
        self
    }

    /// `null` where the definition gives no template. What an expression made is held to the limits of JSON from outside,
    /// because it becomes part of events and tasks.
    pub(super) fn evaluate(&self, template: Option<&Template>) -> Result<Arc<Value>, Failure> {
        let Some(template) = template else {
            return Ok(Arc::default());
        };
        let value = template
            .evaluate(self)
            .map_err(|error: ExpressionError| Failure::expression(&error))?;
        match json::check(&value, &Limits::default()) {
            Ok(()) => Ok(value),
            Err(problem) => Err(Failure::new(
                super::failure::error_type::EXPRESSION,
                &format!("the value is {problem}"),
            )),
        }
    }

    fn run(&self) -> Value {
        json!({
            "id": self.state.run_id().to_string(),
            "workflow_id": self.state.workflow_id().as_str(),
            "attempt": 1,
            "started_at": self.state.started_at().to_utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        })
    }

    fn vars(&self) -> Value {
        let assigned = self.assigned.into_iter().flatten();
        let all = self.state.vars.iter().chain(assigned);
        Value::Object(
            all.map(|(name, value)| (name.to_string(), Value::clone(value)))
                .collect::<Map<_, _>>(),
        )
    }
}

/// The error as expressions see it.
fn error(failure: &Failure) -> Value {
    json!({
        "step": failure.step.as_ref().map(StepPath::as_str),
        "type": &*failure.error_type,
        "message": &*failure.message,
    })
}

impl Scope for RunScope<'_> {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "vars" => Some(Cow::Owned(self.vars())),
            "run" => Some(Cow::Owned(self.run())),
            "error" => self.state.failure().map(|failure| Cow::Owned(error(failure))),
            _ => None,
        }
    }

    fn step(&self, id: &str) -> Option<&Arc<Value>> {
        if let Some(own) = self.own_output
            && last_segment(self.at) == id
        {
            return Some(own);
        }
        let output = |step: &'_ Step| match step {
            Step::Completed { .. } => true,
            Step::Skipped | Step::Passed | Step::Failed { .. } => false,
        };
        let step = nearest(&self.state.steps, self.at, id).filter(|step| output(step))?;
        match step {
            Step::Completed { output } => Some(output),
            _ => None,
        }
    }

    fn input(&self) -> Option<&Arc<Value>> {
        Some(&self.state.birth.input)
    }
}

fn last_segment(path: &StepPath) -> &str {
    let path = path.as_str();
    path.rsplit_once('.').map_or(path, |(_, last)| last)
}

/// The instance of the step `id` that can be seen from `at`: in the innermost body around `at` that has one, else in a
/// body that has ended, wherever it lies. Step ids are unique in a definition, so only iterations have several.
fn nearest<'a>(steps: &'a BTreeMap<StepPath, Step>, at: &StepPath, id: &str) -> Option<&'a Step> {
    let mut around = at.as_str();
    while let Some((outer, _)) = around.rsplit_once('.') {
        let mut path = String::with_capacity(outer.len() + 1 + id.len());
        path.push_str(outer);
        path.push('.');
        path.push_str(id);
        if let Some(step) = steps.get(path.as_str()) {
            return Some(step);
        }
        around = outer;
    }
    steps.get(id).or_else(|| {
        steps
            .iter()
            .find(|(path, _)| last_segment(path) == id && !path.as_str().contains('['))
            .map(|(_, step)| step)
    })
}
