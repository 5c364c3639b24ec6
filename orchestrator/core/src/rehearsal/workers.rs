//! The mocks at work: which one answers, and with what.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::record::task_name;
use crate::definition::test_file::{Case, ChildMock, Mock, Outcome, plain};
use crate::expression::{Scope, Template};
use crate::run::effect::{Direction, Dispatch};
use crate::run::input::{TaskOutcome, WorkerError};

/// The mock for a call of a task, counted from 0: by the path of its step, then its id, then its activity.
pub(super) fn mock<'c>(case: &'c Case, dispatch: &Dispatch, call: usize) -> Option<&'c Mock> {
    let path = dispatch.step.as_str();
    let id = path.rsplit_once('.').map_or(path, |(_, last)| last);
    let prefix = match dispatch.direction {
        Direction::Do => "",
        Direction::Undo => "undo ",
    };
    let keys = [
        task_name(dispatch.direction, &dispatch.step),
        format!("{prefix}{}", plain(path)),
        format!("{prefix}{}", plain(id)),
        dispatch.activity.to_string(),
    ];
    let list = keys.iter().find_map(|key| named(&case.mocks, key))?;
    list.get(call.min(list.len().saturating_sub(1)))
}

pub(super) fn child_mock<'c>(case: &'c Case, workflow: &str, call: usize) -> Option<&'c ChildMock> {
    let list = named(&case.children, workflow)?;
    list.get(call.min(list.len().saturating_sub(1)))
}

/// The case's own stand before those of the file.
fn named<'c, T>(lists: &'c [(String, Arc<[T]>)], key: &str) -> Option<&'c [T]> {
    let mut lists = lists.iter();
    lists.find(|(name, _)| name == key).map(|(_, list)| &**list)
}

/// What the worker says; `None` = nothing, ever.
pub(super) fn outcome(mock: &Mock, dispatch: &Dispatch) -> Result<Option<TaskOutcome>, String> {
    Ok(Some(match &mock.outcome {
        Outcome::Result(template) => {
            let task = json!({
                "step": dispatch.step.as_str(),
                "activity": dispatch.activity.as_str(),
                "attempt": dispatch.attempt,
                "key": &*dispatch.idempotency_key,
            });
            TaskOutcome::Completed {
                output: result(template, &dispatch.input, task)?,
            }
        }
        Outcome::Fail {
            error_type,
            message,
            retryable,
            not_done,
            retry_after,
        } => TaskOutcome::Failed(WorkerError {
            error_type: Arc::from(error_type.as_str()),
            message: Arc::from(message.as_str()),
            retryable: *retryable,
            not_done: *not_done,
            retry_after: *retry_after,
        }),
        Outcome::Unknown { message } => TaskOutcome::Unknown(WorkerError {
            error_type: Arc::from("crash"),
            message: Arc::from(message.as_str()),
            retryable: true,
            not_done: false,
            retry_after: None,
        }),
        Outcome::Timeout | Outcome::NotTaken => return Ok(None),
        Outcome::RetryLater { after } => TaskOutcome::RetryLater { after: *after },
    }))
}

pub(super) fn result(template: &Template, input: &Arc<Value>, task: Value) -> Result<Arc<Value>, String> {
    let scope = Worker { input, task };
    template
        .evaluate(&scope)
        .map_err(|error| format!("the mocked result cannot be evaluated: {error}"))
}

struct Worker<'a> {
    input: &'a Arc<Value>,
    task: Value,
}

impl Scope for Worker<'_> {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        (name == "task").then_some(Cow::Borrowed(&self.task))
    }

    fn step(&self, _id: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        Some(self.input)
    }
}
