//! Reading what is asked of a schedule.

use knarr_core::definition::from_schedule_json;
use knarr_core::ids::{Namespace, WorkflowId};
use knarr_core::run::schedule::schedule_of;
use knarr_core::schedule::spec::MAX_NAME_BYTES;
use knarr_core::schedule::{Command, Overlap, Spec};
use knarr_core::time::Timestamp;
use knarr_schemas::body::{ScheduleRequest as Asked, ScheduleVerb};
use knarr_schemas::code;
use knarr_schemas::subject::RunSubject;

use super::job::{ActorCommand, JobKind, ScheduleRequest};
use super::job_reader::{
    JobReader, check_verb_header, operation, refuse_control_characters, refuse_task_headers, request_id,
};
use super::refusal::Refusal;
use crate::bus::LogMessage;

impl JobReader {
    pub(super) fn schedule(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<JobKind, Refusal> {
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
        let name = schedule_of(&workflow_id).unwrap_or_default();
        if !is_name(name) {
            let problem = format!("a schedule is named by letters, digits, `_` and `-`, up to {MAX_NAME_BYTES}");
            return Err(Refusal::new(&code::SCHEDULE_REFUSED, problem));
        }
        let body = self.body(headers, &message.payload)?;
        let asked: Asked = serde_json::from_value((*body).clone())
            .map_err(|error| Refusal::new(&code::BAD_REQUEST, format!("what is asked of a schedule: {error}")))?;
        Ok(JobKind::Schedule(Box::new(ScheduleRequest {
            namespace: Namespace::new(&subject.namespace),
            command: ActorCommand::Schedule(command(asked)?),
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

fn command(asked: Asked) -> Result<Command, Refusal> {
    let lacks = |what: &str| {
        Refusal::new(
            &code::BAD_REQUEST,
            format!("what is asked of a schedule lacks `{what}`"),
        )
    };
    let spec = || -> Result<Box<Spec>, Refusal> {
        let document = asked.schedule.as_ref().ok_or_else(|| lacks("schedule"))?;
        let spec = from_schedule_json(document).map_err(|problem| Refusal::new(&code::BAD_SCHEDULE, problem))?;
        Ok(Box::new(spec))
    };
    let overlap = match asked.overlap.as_deref() {
        None => None,
        Some(text) => Some(Overlap::parse(text).ok_or_else(|| {
            let all: Vec<_> = Overlap::ALL.iter().map(|overlap| overlap.as_str()).collect();
            Refusal::new(&code::BAD_REQUEST, format!("`overlap` is none of {}", all.join(", ")))
        })?),
    };
    Ok(match asked.ask {
        ScheduleVerb::Create => Command::Create(spec()?),
        ScheduleVerb::Update => Command::Update(spec()?),
        ScheduleVerb::Define => Command::Define {
            version: asked.version.ok_or_else(|| lacks("version"))?,
            spec: match asked.schedule {
                Some(_) => Some(spec()?),
                None => None,
            },
        },
        ScheduleVerb::Pause => Command::Pause,
        ScheduleVerb::Resume => Command::Resume,
        ScheduleVerb::Trigger => Command::Trigger { overlap },
        ScheduleVerb::Backfill => Command::Backfill {
            from: Timestamp::from_utc(asked.from.ok_or_else(|| lacks("from"))?),
            until: Timestamp::from_utc(asked.until.ok_or_else(|| lacks("until"))?),
            overlap,
        },
        ScheduleVerb::Delete => Command::Delete,
    })
}
