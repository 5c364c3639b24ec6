//! Reading what is said to a run by name: signals from outside, and messages of other runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use knarr_core::ids::{MessageNo, Namespace, RunId, WorkflowId, WorkflowName};
use knarr_core::run::message::{Answer, Body, Sender};
use knarr_schemas::body::{RunMessage as RunMessageBody, RunMessageAnswer};
use knarr_schemas::subject::{RunSubject, decode_token};
use knarr_schemas::{code, header};
use serde::de::DeserializeOwned;

use super::job::{Conflict, JobKind, Reuse, RunMessage, SignalRequest, StartRequest};
use super::job_reader::{
    JobReader, operation, priority, refuse_control_characters, refuse_task_headers, request_id, traceparent,
};
use super::limits::{LimitRequest, Said};
use super::refusal::Refusal;
use super::token::Signed;
use crate::bus::{self, LogMessage};

impl JobReader {
    pub(super) fn signal(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<JobKind, Refusal> {
        let headers = &message.headers;
        refuse_task_headers(headers)?;
        refuse_control_characters(headers)?;
        let name = subject
            .name
            .and_then(|name| decode_token(name).ok())
            .ok_or_else(|| Refusal::new(&code::SIGNAL_NAME, "a signal's subject ends with `.signal.<name>`"))?;
        let body = self.body(&message.headers, &message.payload)?;
        let namespace = Namespace::new(&subject.namespace);
        let workflow_id = WorkflowId::new(&subject.workflow_id);
        let start = match bus::header(headers, header::START_WORKFLOW) {
            None => None,
            Some(workflow) => Some(Box::new(StartRequest {
                namespace: namespace.clone(),
                workflow_id: workflow_id.clone(),
                workflow: WorkflowName::new(workflow),
                version: None,
                input: match bus::header(headers, header::START_INPUT) {
                    Some(input) => self.json(input.as_bytes())?,
                    None => Arc::clone(&body),
                },
                request_id: request_id(message)?,
                reuse: Reuse::AllowDuplicate,
                conflict: Conflict::UseExisting,
                search_attributes: BTreeMap::new(),
                answer: None,
                traceparent: traceparent(headers),
                priority: priority(headers)?,
                begins_at: self.begins_at(message)?,
            })),
        };
        Ok(JobKind::Signal(Box::new(SignalRequest {
            namespace,
            workflow_id,
            name: Arc::from(&*name),
            body,
            operation: operation(message)?,
            answer_to: self.answer_to(headers)?,
            start,
        })))
    }

    pub(super) fn run_message(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<JobKind, Refusal> {
        let body: RunMessageBody = self.signed(subject, message)?;
        let said: Body = serde_json::from_value(body.message)
            .map_err(|error| Refusal::new(&code::BAD_REQUEST, format!("a message between runs: {error}")))?;
        let from = Sender {
            run: RunId(body.from.run),
            namespace: Namespace::new(&body.from.namespace),
            workflow_id: WorkflowId::new(&body.from.workflow_id),
        };
        let (namespace, workflow_id) = (
            Namespace::new(&subject.namespace),
            WorkflowId::new(&subject.workflow_id),
        );
        let to_limiter = |from, said| {
            Ok(JobKind::Limit(Box::new(LimitRequest {
                namespace: namespace.clone(),
                address: workflow_id.clone(),
                from,
                number: MessageNo(body.number),
                said,
            })))
        };
        let said = match said {
            Body::Ask(ask) => return to_limiter(from, Said::Ask(ask)),
            Body::Release { ask, of, .. } => return to_limiter(from, Said::Release(ask, of)),
            said => said,
        };
        Ok(JobKind::Message(Box::new(RunMessage {
            namespace,
            workflow_id,
            from,
            number: MessageNo(body.number),
            to_run: body.to_run.map(RunId),
            body: said,
        })))
    }

    pub(super) fn run_message_answer(
        &self,
        subject: &RunSubject<'_>,
        message: &LogMessage,
    ) -> Result<JobKind, Refusal> {
        let body: RunMessageAnswer = self.signed(subject, message)?;
        let answer: Answer = serde_json::from_value(body.answer)
            .map_err(|error| Refusal::new(&code::BAD_REQUEST, format!("an answer between runs: {error}")))?;
        Ok(JobKind::Answered {
            run_id: RunId(body.to_run),
            number: MessageNo(body.number),
            answer,
        })
    }

    /// The body of a message that Knarr has composed for this subject.
    fn signed<T: DeserializeOwned>(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<T, Refusal> {
        refuse_task_headers(&message.headers)?;
        let token = bus::header(&message.headers, header::MESSAGE_TOKEN).unwrap_or_default();
        let signed = Signed {
            verb: subject.verb,
            namespace: &subject.namespace,
            workflow_id: &subject.workflow_id,
            body: &message.payload,
        };
        if subject.name.is_some() || !self.tokens.is_signed(token, &signed) {
            return Err(Refusal::new(
                &code::MESSAGE_TOKEN,
                "the message does not come from a run of this cluster, or has been changed",
            ));
        }
        serde_json::from_slice(&message.payload)
            .map_err(|error| Refusal::new(&code::BAD_REQUEST, format!("a message between runs: {error}")))
    }
}
