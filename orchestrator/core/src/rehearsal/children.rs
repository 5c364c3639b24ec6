//! Children of the run: mocked as well, and as obliging as workers are.

use std::sync::Arc;

use serde_json::Value;

use super::workers;
use super::world::{Delivery, World};
use crate::definition::test_file::{ChildOutcome, code};
use crate::ids::{MessageNo, RunId};
use crate::run::message::{Answer, Body, ChildClosed, Recipient, Refusal, Sender, StartChild};
use crate::run::{Failure, Status};
use crate::time::Span;

impl World<'_> {
    pub(super) fn message(&mut self, number: MessageNo, to: Recipient, body: &Body) {
        match body {
            Body::StartChild(start) => self.child(number, &to, start),
            Body::Cancel { .. } => self.stop_child(number, &to, Status::Cancelled),
            Body::Terminate { .. } => self.stop_child(number, &to, Status::Terminated),
            Body::Undo { .. } => self.undo_child(number, &to),
            Body::Ask(ask) => {
                let limit = ask.limit.clone();
                self.send(
                    Span::ZERO,
                    Delivery::Answer(number, Answer::Granted { limit, at: None }),
                );
            }
            Body::ChildClosed(_) | Body::Signal { .. } | Body::Release { .. } => {
                self.send(Span::ZERO, Delivery::Answer(number, Answer::Accepted))
            }
        }
    }

    fn child(&mut self, number: MessageNo, to: &Recipient, start: &StartChild) {
        let call = self.call(format!("child {}", start.workflow));
        let mock = workers::child_mock(self.case, start.workflow.as_str(), call);
        let accepted = Delivery::Answer(number, Answer::Accepted);
        let Some(mock) = mock else {
            if start.detached {
                return self.send(Span::ZERO, accepted);
            }
            let what = format!(
                "`{}` starts `{}`, for which there is no mock",
                start.step, start.workflow
            );
            return self.problem(code::NO_MOCK, what);
        };
        if let ChildOutcome::Refuse { message } = &mock.outcome {
            let answer = Answer::refused(Refusal::NotStarted, message);
            return self.send(Span::ZERO, Delivery::Answer(number, answer));
        }
        self.children.insert(start.run_id, start.clone());
        self.send(Span::ZERO, accepted);
        if start.detached {
            return;
        }
        let (status, output, error) = match &mock.outcome {
            ChildOutcome::Result(template) => match workers::result(template, &start.input, Value::Null) {
                Ok(output) => (Status::Completed, output, None),
                Err(problem) => return self.problem(code::NO_MOCK, format!("`{}`: {problem}", start.step)),
            },
            ChildOutcome::Fail { error_type, message } => {
                (Status::Compensated, Arc::default(), Some(failure(error_type, message)))
            }
            ChildOutcome::Refuse { .. } => return,
        };
        let closed = ChildClosed {
            child: start.run_id,
            step: start.step.clone(),
            status,
            output,
            error,
        };
        self.send(mock.after, Delivery::Child(sender(to, start.run_id), closed));
    }

    fn stop_child(&mut self, number: MessageNo, to: &Recipient, status: Status) {
        self.send(Span::ZERO, Delivery::Answer(number, Answer::Accepted));
        let Some(start) = to.run.and_then(|run| self.children.get(&run)).cloned() else {
            return;
        };
        self.coming
            .retain(|_, delivery| !matches!(delivery, Delivery::Child(_, closed) if closed.child == start.run_id));
        let closed = ChildClosed {
            child: start.run_id,
            step: start.step.clone(),
            status,
            output: Arc::default(),
            error: Some(failure("cancelled", "the parent run stops")),
        };
        self.send(Span::ZERO, Delivery::Child(sender(to, start.run_id), closed));
    }

    fn undo_child(&mut self, number: MessageNo, to: &Recipient) {
        let Some(start) = to.run.and_then(|run| self.children.get(&run)).cloned() else {
            return;
        };
        let mock = workers::child_mock(self.case, start.workflow.as_str(), 0);
        if let Some(reason) = mock.and_then(|mock| mock.undo_refused.as_deref()) {
            let answer = Answer::refused(Refusal::PastPivot, reason);
            return self.send(Span::ZERO, Delivery::Answer(number, answer));
        }
        self.send(Span::ZERO, Delivery::Answer(number, Answer::Accepted));
        let closed = ChildClosed {
            child: start.run_id,
            step: start.step.clone(),
            status: Status::Compensated,
            output: Arc::default(),
            error: None,
        };
        self.send(Span::ZERO, Delivery::Child(sender(to, start.run_id), closed));
    }
}

fn sender(to: &Recipient, run: RunId) -> Sender {
    Sender {
        run,
        namespace: "default".into(),
        workflow_id: to.workflow_id.clone(),
    }
}

fn failure(error_type: &str, message: &str) -> Failure {
    Failure {
        step: None,
        error_type: Arc::from(error_type),
        message: Arc::from(message),
    }
}
