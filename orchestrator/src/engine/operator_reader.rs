//! From an operator's message to a job.

use std::sync::Arc;

use knarr_core::ids::{Namespace, RunId, StepPath, WorkflowId, WorkflowName};
use knarr_core::run::UpdateStage;
use knarr_core::run::effect::Direction;
use knarr_core::run::input::ParkedAction;
use knarr_schemas::code;
use knarr_schemas::header;
use knarr_schemas::subject::{RunSubject, decode_token};
use uuid::Uuid;

use super::job::{JobKind, Verb, VerbRequest};
use super::job_reader::{
    JobReader, check_verb_header, operation, refuse_control_characters, refuse_task_headers, version,
};
use super::refusal::Refusal;
use crate::bus::{self, Headers, LogMessage};

/// Longest path of a step that is read; a definition is far from it.
const MAX_STEP_BYTES: usize = 4 * 1024;

impl JobReader {
    /// `cancel` and `terminate`: the subject says everything.
    pub(super) fn verb(&self, subject: &RunSubject<'_>, message: &LogMessage, verb: Verb) -> Result<JobKind, Refusal> {
        if subject.name.is_some() {
            return Err(Refusal::new(
                &code::BAD_SUBJECT,
                "nothing may follow this verb in the subject",
            ));
        }
        self.command(subject, message, subject.verb, |_| Ok(verb))
    }

    /// `parked.<action>`
    pub(super) fn parked(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<JobKind, Refusal> {
        let name = subject.name.unwrap_or_default();
        self.command(subject, message, &format!("parked.{name}"), |headers| {
            let step = bus::header(headers, header::STEP).unwrap_or_default();
            if step.len() > MAX_STEP_BYTES {
                return Err(Refusal::new(
                    &code::BAD_HEADER,
                    format!("`{}` is {} bytes long", header::STEP, step.len()),
                ));
            }
            let direction = match bus::header(headers, header::DIRECTION) {
                None => None,
                Some("do") => Some(Direction::Do),
                Some("undo") => Some(Direction::Undo),
                Some(other) => {
                    return Err(Refusal::new(
                        &code::BAD_HEADER,
                        format!("`{}: {other}` is neither do nor undo", header::DIRECTION),
                    ));
                }
            };
            let body = self.body(headers, &message.payload)?;
            let action = match name {
                "edit" => ParkedAction::RetryWithInput(body),
                "done" if body.is_null() => ParkedAction::MarkDone,
                "done" => ParkedAction::MarkDoneWithOutput(body),
                "retry" | "skip" if !body.is_null() => {
                    return Err(Refusal::new(
                        &code::BAD_REQUEST,
                        format!("`{name}` has no body; other input is given with `edit`, an output with `done`"),
                    ));
                }
                "retry" => ParkedAction::Retry,
                "skip" if bus::header(headers, header::REASON).is_none_or(|reason| reason.trim().is_empty()) => {
                    return Err(Refusal::new(
                        &code::BAD_HEADER,
                        format!("what is skipped needs a reason: `{}`", header::REASON),
                    ));
                }
                "skip" => ParkedAction::Skip,
                _ => {
                    return Err(Refusal::new(
                        &code::BAD_SUBJECT,
                        "`.parked` is followed by `retry`, `edit`, `done` or `skip`",
                    ));
                }
            };
            Ok(Verb::Parked {
                step: StepPath::new(step),
                direction,
                action,
            })
        })
    }

    /// `migrate`, to the version of a workflow that the headers name.
    pub(super) fn migrate(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<JobKind, Refusal> {
        if subject.name.is_some() {
            return Err(Refusal::new(
                &code::BAD_SUBJECT,
                "nothing may follow this verb in the subject",
            ));
        }
        self.command(subject, message, subject.verb, |headers| {
            let missing = |name: &str| Refusal::new(&code::BAD_HEADER, format!("`{name}` is missing"));
            let workflow = bus::header(headers, header::WORKFLOW).ok_or_else(|| missing(header::WORKFLOW))?;
            if let Err(error) = knarr_schemas::subject::encode_token(workflow) {
                return Err(Refusal::new(
                    &code::BAD_HEADER,
                    format!("the name in `{}` {error}", header::WORKFLOW),
                ));
            }
            Ok(Verb::Migrate {
                workflow: WorkflowName::new(workflow),
                version: version(headers)?.ok_or_else(|| missing(header::VERSION))?,
            })
        })
    }

    /// `update.<name>`
    pub(super) fn update(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<JobKind, Refusal> {
        let said = format!("update.{}", subject.name.unwrap_or_default());
        self.command(subject, message, &said, |headers| {
            let name = subject.name.and_then(|name| decode_token(name).ok());
            let name =
                name.ok_or_else(|| Refusal::new(&code::BAD_SUBJECT, "an update's subject ends with `.update.<name>`"))?;
            let on = match bus::header(headers, header::REPLY_ON) {
                None | Some("accepted") => UpdateStage::Accepted,
                Some("completed") => UpdateStage::Completed,
                Some(other) => {
                    return Err(Refusal::new(
                        &code::BAD_HEADER,
                        format!("`{}: {other}` is neither accepted nor completed", header::REPLY_ON),
                    ));
                }
            };
            Ok(Verb::Update {
                name: Arc::from(&*name),
                body: self.body(headers, &message.payload)?,
                on,
            })
        })
    }

    /// Whatever operators ask: composed for this subject, for a run that is named or open.
    fn command(
        &self,
        subject: &RunSubject<'_>,
        message: &LogMessage,
        said: &str,
        verb: impl FnOnce(&Headers) -> Result<Verb, Refusal>,
    ) -> Result<JobKind, Refusal> {
        let headers = &message.headers;
        refuse_task_headers(headers)?;
        refuse_control_characters(headers)?;
        check_verb_header(said, subject, headers)?;
        let run = match bus::header(headers, header::RUN_ID) {
            None => None,
            Some(text) => Some(
                text.parse::<Uuid>()
                    .map(RunId)
                    .map_err(|_| Refusal::new(&code::BAD_HEADER, format!("`{}` is not a run id", header::RUN_ID)))?,
            ),
        };
        Ok(JobKind::Verb(Box::new(VerbRequest {
            namespace: Namespace::new(&subject.namespace),
            workflow_id: WorkflowId::new(&subject.workflow_id),
            run,
            verb: verb(headers)?,
            operation: operation(message)?,
            answer_to: self.answer_to(headers)?,
        })))
    }
}
