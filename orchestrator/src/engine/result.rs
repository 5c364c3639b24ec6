//! Reading what a worker says of its task: whose it is, and how it ended.

use std::sync::Arc;

use knarr_core::definition::duration;
use knarr_core::ids::{RunId, TaskNo};
use knarr_core::run::error_type;
use knarr_core::run::input::{TaskOutcome, WorkerError};
use knarr_core::run::limits::MAX_DETAILS_BYTES;
use knarr_core::time::{Span, Timestamp};
use knarr_schemas::{code, header};

use super::job::{BeatSaid, HandedIn, JobKind};
use super::job_reader::{JobReader, storable};
use super::refusal::Refusal;
use crate::bus::{self, Headers};

/// Longest name of a claimant.
const MAX_CLAIM_BYTES: usize = 128;

impl JobReader {
    pub(super) fn task(&self, headers: &Headers, namespace: &str) -> Result<(RunId, TaskNo), Refusal> {
        let token = bus::header(headers, header::TOKEN).ok_or_else(|| {
            Refusal::new(
                &code::BAD_TASK_TOKEN,
                format!("the header `{}` is missing", header::TOKEN),
            )
        })?;
        self.tokens.verify(token, namespace).ok_or_else(|| {
            Refusal::new(
                &code::BAD_TASK_TOKEN,
                "the task token was not issued for this namespace",
            )
        })
    }

    pub(super) fn result(&self, headers: &Headers, payload: &[u8], namespace: &str) -> Result<JobKind, Refusal> {
        let (run_id, task) = self.task(headers, namespace)?;
        if bus::header(headers, header::OUTCOME) == Some("later") {
            return Ok(JobKind::Result {
                run_id,
                task,
                outcome: HandedIn::Later,
                letter: None,
            });
        }
        let (outcome, letter) = match self.outcome(headers, payload) {
            Ok(outcome) => (outcome, None),
            // The worker did something and said so unreadably: whether it is done cannot be known.
            Err(refusal) => {
                // The same would come again: its activity waits for an operator, and is not undone for what it said.
                let too_large = refusal.code.id == code::BODY_TOO_LARGE.id;
                let error_type = if too_large { error_type::LIMIT } else { "bad_result" };
                (
                    TaskOutcome::Unknown(WorkerError {
                        error_type: Arc::from(error_type),
                        message: storable(&refusal.message, 4_096),
                        retryable: !too_large,
                        not_done: false,
                        retry_after: None,
                    }),
                    Some(refusal),
                )
            }
        };
        Ok(JobKind::Result {
            run_id,
            task,
            outcome: HandedIn::Outcome(outcome),
            letter,
        })
    }

    pub(super) fn beat(&self, headers: &Headers, payload: &[u8], namespace: &str) -> Result<JobKind, Refusal> {
        let (run_id, task) = self.task(headers, namespace)?;
        let millis = |name| {
            let millis = bus::header(headers, name).and_then(|ms| ms.parse().ok());
            millis.map(Span::from_millis)
        };
        if payload.len() > MAX_DETAILS_BYTES {
            let problem = format!("{} bytes of details are more than {MAX_DETAILS_BYTES}", payload.len());
            return Err(Refusal::new(&code::DETAILS_TOO_LARGE, problem));
        }
        let details = match payload {
            [] => None,
            payload => Some(self.json(payload)?),
        };
        let said = BeatSaid {
            running: millis(header::RUNNING_MS).unwrap_or_default(),
            every: millis(header::BEAT_EVERY_MS),
            details,
        };
        Ok(JobKind::Beat { run_id, task, said })
    }

    pub(super) fn claim(&self, headers: &Headers, namespace: &str) -> Result<JobKind, Refusal> {
        let (run_id, task) = self.task(headers, namespace)?;
        let by = bus::header(headers, header::CLAIM).unwrap_or_default();
        if by.is_empty() || by.len() > MAX_CLAIM_BYTES || by.contains(|c: char| c.is_control()) {
            let problem = format!(
                "`{}` names the claimant, in 1 to {MAX_CLAIM_BYTES} bytes",
                header::CLAIM
            );
            return Err(Refusal::new(&code::BAD_HEADER, problem));
        }
        let by = Arc::from(by);
        Ok(JobKind::Claim { run_id, task, by })
    }

    fn outcome(&self, headers: &Headers, payload: &[u8]) -> Result<TaskOutcome, Refusal> {
        let flag = |name: &str, default: bool| match bus::header(headers, name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(Refusal::new(
                &code::BAD_HEADER,
                format!("`{name}: {other}` is neither true nor false"),
            )),
        };
        let retry_after = match bus::header(headers, header::RETRY_AFTER) {
            None => None,
            Some(text) => Some(
                duration::parse(text)
                    .map_err(|error| Refusal::new(&code::BAD_HEADER, format!("`{}`: {error}", header::RETRY_AFTER)))?,
            ),
        };
        let error = |default: &str| {
            Ok::<_, Refusal>(WorkerError {
                error_type: storable(bus::header(headers, header::ERROR_TYPE).unwrap_or(default), 200),
                message: storable(bus::header(headers, header::ERROR_MESSAGE).unwrap_or_default(), 4_096),
                retryable: flag(header::RETRYABLE, true)?,
                not_done: flag(header::NOT_DONE, false)?,
                retry_after,
            })
        };
        match bus::header(headers, header::OUTCOME).unwrap_or("completed") {
            "completed" => Ok(TaskOutcome::Completed {
                output: self.body(headers, payload)?,
            }),
            "failed" => Ok(TaskOutcome::Failed(error("failed")?)),
            "unknown" => Ok(TaskOutcome::Unknown(error("unknown")?)),
            "cancelled" => Ok(TaskOutcome::Cancelled),
            "retry_later" => Ok(TaskOutcome::RetryLater { after: retry_after }),
            other => Err(Refusal::new(
                &code::BAD_HEADER,
                format!("`{}: {other}` is not an outcome", header::OUTCOME),
            )),
        }
    }
}

/// When a beat's handler began, by the engine's clock.
pub(super) fn began(now: Timestamp, running: Span) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(running.0).unwrap_or(0)))
}
