//! Reading what is asked of a trigger.

use knarr_core::definition::from_trigger_json;
use knarr_core::ids::{Namespace, WorkflowId};
use knarr_core::run::trigger::trigger_of;
use knarr_core::time::Timestamp;
use knarr_core::trigger::{Command, Position};
use knarr_schemas::body::{TriggerPosition, TriggerRequest as Asked, TriggerVerb};
use knarr_schemas::code;
use knarr_schemas::subject::RunSubject;

use super::job::{ActorCommand, JobKind, ScheduleRequest};
use super::job_reader::{
    JobReader, check_verb_header, operation, refuse_control_characters, refuse_task_headers, request_id,
};
use super::refusal::Refusal;
use crate::bus::LogMessage;

/// As definitions have them.
const MAX_NAME_BYTES: usize = 100;

impl JobReader {
    pub(super) fn trigger(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<JobKind, Refusal> {
        let headers = &message.headers;
        refuse_task_headers(headers)?;
        refuse_control_characters(headers)?;
        if subject.name.is_some() {
            return Err(Refusal::new(
                &code::BAD_SUBJECT,
                "nothing may follow this verb in the subject",
            ));
        }
        check_verb_header(subject.verb, subject, headers)?;
        let workflow_id = WorkflowId::new(&subject.workflow_id);
        let names = trigger_of(&workflow_id).filter(|(workflow, name)| is_name(workflow) && is_name(name));
        let Some((workflow, name)) = names else {
            let problem = "a trigger has the workflow id `$trigger/<workflow>/<name>`";
            return Err(Refusal::new(&code::TRIGGER_REFUSED, problem));
        };
        let body = self.body(headers, &message.payload)?;
        let asked: Asked = serde_json::from_value((*body).clone())
            .map_err(|error| Refusal::new(&code::BAD_REQUEST, format!("what is asked of a trigger: {error}")))?;
        let command = command(asked, workflow, name)?;
        Ok(JobKind::Schedule(Box::new(ScheduleRequest {
            namespace: Namespace::new(&subject.namespace),
            command: ActorCommand::Trigger(command),
            operation: operation(message)?,
            request_id: request_id(message)?,
            answer_to: self.answer_to(headers)?,
            workflow_id,
        })))
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(fits)
}

fn command(asked: Asked, workflow: &str, name: &str) -> Result<Command, Refusal> {
    let lacks = |what: &str| Refusal::new(&code::BAD_REQUEST, format!("what is asked of a trigger lacks `{what}`"));
    Ok(match asked.ask {
        TriggerVerb::Define => {
            let bad = |problem: String| Refusal::new(&code::BAD_TRIGGER, problem);
            let spec = asked.trigger.as_ref().map(from_trigger_json).transpose().map_err(bad)?;
            if spec
                .as_ref()
                .is_some_and(|spec| *spec.name != *name || spec.workflow.as_str() != workflow)
            {
                return Err(bad("the trigger has another name than its workflow id".to_owned()));
            }
            Command::Define {
                version: asked.version.ok_or_else(|| lacks("version"))?,
                spec: spec.map(Box::new),
            }
        }
        TriggerVerb::Pause => Command::Pause,
        TriggerVerb::Resume => Command::Resume,
        TriggerVerb::Reset => Command::Reset {
            to: match asked.to.ok_or_else(|| lacks("to"))? {
                TriggerPosition::New => Position::New,
                TriggerPosition::All => Position::All,
                TriggerPosition::Time(at) => Position::Time(Timestamp::from_utc(at)),
                TriggerPosition::Sequence(sequence) => Position::Sequence(sequence),
            },
        },
    })
}
