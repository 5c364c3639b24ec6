//! What a command ends with when it does not succeed: a code, a cause, a remedy, and the status of the process.

use std::fmt;
use std::time::Duration;

use knarr_schemas::api::RunDescription;
use knarr_schemas::body::ErrorBody;
use knarr_schemas::code::{self as wire, Code};

use crate::api::client::CallError;
use crate::api::command::{AnswerError, CommandError};
use crate::cli::again::Again;
use crate::cli::{code, operator_code, output};
use crate::config::ConfigError;
use crate::dev::DevError;
use crate::server::ServerError;
use crate::telemetry::TelemetryError;

/// The status of the process. 0 = done, and for a run that was waited for: completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The operation says no, or the run did not complete.
    No = 1,
    /// The command line is wrong (also clap's own).
    Usage = 2,
    /// NATS, the orchestrator or PostgreSQL is not there, or did not answer.
    Environment = 3,
    /// What was waited for has not ended in time and goes on, as `timeout` reports that.
    TimedOut = 124,
    /// A signal has ended it, as shells report that.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    pub exit: Exit,
    /// `None`: all there is to say has been printed already.
    pub body: Option<ErrorBody>,
}

impl CliError {
    pub fn new(exit: Exit, code: &Code, message: impl Into<String>) -> Self {
        Self {
            exit,
            body: Some(code.error(message)),
        }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, &code::BAD_ARGUMENT, message)
    }

    /// Only the status: the output has said it.
    pub fn silent(exit: Exit) -> Self {
        Self { exit, body: None }
    }

    pub fn refused(body: ErrorBody) -> Self {
        // What the environment of the orchestrator lacks is not the operation's no.
        let exit = match body.code.as_str() {
            "KN0227" | "KN0232" | "KN0233" | "KN0234" | "KN0240" | "KN0243" | "KN0244" | "KN0245" => Exit::Environment,
            _ => Exit::No,
        };
        Self { exit, body: Some(body) }
    }
}

impl std::error::Error for CliError {}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(body) = &self.body else {
            return Ok(());
        };
        write!(f, "error[{}]: {}\n  = help: {}", body.code, body.message, body.remedy)
    }
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        let environment = |code| Self::new(Exit::Environment, code, message.clone());
        match error {
            CallError::NoResponders { .. } => environment(&code::NO_ORCHESTRATOR),
            CallError::TimedOut { .. } => environment(&code::CALL_TIMED_OUT),
            CallError::NotSent(_) => environment(&code::NATS_REFUSED),
            CallError::BadReply(_) => environment(&code::BAD_REPLY),
            CallError::Refused(body) => Self::refused(body),
            CallError::Namespace(_) => Self::usage(message),
            CallError::TooLarge { .. } => Self::new(Exit::No, &code::MESSAGE_TOO_LARGE, message),
        }
    }
}

impl From<CommandError> for CliError {
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        match error {
            CommandError::Name { .. } | CommandError::RequestId(_) => Self::usage(message),
            CommandError::NoStream { .. } => Self::new(Exit::Environment, &code::NO_LOG, message),
            CommandError::Throttled { .. } => Self::new(Exit::Environment, &code::STARTS_THROTTLED, message),
            CommandError::Full(_) => Self::new(Exit::Environment, &code::LOG_FULL, message),
            CommandError::Refused(_) => Self::new(Exit::Environment, &code::NATS_REFUSED, message),
            CommandError::TooLarge { .. } => Self::new(Exit::No, &code::MESSAGE_TOO_LARGE, message),
            CommandError::Body(_) => Self::new(Exit::Environment, &wire::BODY_NOT_STORED, message),
            CommandError::Unacknowledged(_) => Self::new(Exit::Environment, &code::NOT_ACKNOWLEDGED, message),
        }
    }
}

impl CliError {
    /// Of a message that was not acknowledged: it may be stored all the same, so the command that asks again is shown.
    pub fn unsent(error: CommandError, again: &Again) -> Self {
        let in_doubt = matches!(error, CommandError::Unacknowledged(_));
        let error = Self::from(error);
        if in_doubt { error.in_doubt(again) } else { error }
    }

    /// The message is stored, and what became of it can be asked for.
    pub fn unanswered(error: &AnswerError, again: &Again) -> Self {
        let code = match error {
            AnswerError::Unreadable(_) => &code::BAD_REPLY,
            AnswerError::TimedOut(_) | AnswerError::Disconnected => &code::NO_ANSWER,
        };
        let message = format!("the message is stored, but: {error}");
        Self::new(Exit::Environment, code, message).in_doubt(again)
    }

    /// As [`Self::unanswered`], of a run whose end was waited for, and which is that `run`, where that is known.
    pub fn not_closed(error: &AnswerError, run: Option<(&RunDescription, Looks)>, again: &Again) -> Self {
        let AnswerError::TimedOut(limit) = error else {
            return Self::unanswered(error, again);
        };
        let limit = span(*limit);
        if let Some((run, looks)) = run {
            let status = &run.run.status;
            let message = format!(
                "`{}` is {status} and has not closed within {limit}",
                run.run.workflow_id
            );
            return Self::goes_on(message, run, &looks, again);
        }
        let mut body = code::NO_ANSWER.error(format!(
            "the start is stored, but the run has not closed within {limit}"
        ));
        body.remedy = "It goes on without being waited for: see `knarr list` and `knarr show`, or wait longer with \
                       --timeout, for the same request id waits for the same run."
            .to_owned();
        let error = Self {
            exit: Exit::Environment,
            body: Some(body),
        };
        error.in_doubt(again)
    }

    /// As [`Self::unanswered`], of an update that `run` has taken: `step` is what it is at, if it has begun.
    pub fn not_done(
        limit: Duration,
        step: Option<&str>,
        (run, looks): (&RunDescription, &Looks),
        again: &Again,
    ) -> Self {
        let at = match step {
            Some(step) => format!("is under way (at `{step}`)"),
            None => "is accepted and waits for its turn".to_owned(),
        };
        let message = format!("the update {at} and has not been done within {}", span(limit));
        Self::goes_on(message, run, looks, again)
    }

    fn goes_on(message: String, run: &RunDescription, looks: &Looks, again: &Again) -> Self {
        let Looks { show, parked } = looks;
        let mut body = match parked_at(run) {
            None => operator_code::GOES_ON.error(message),
            Some(why) => operator_code::GOES_ON.error(format!("{message}: the run waits for an operator ({why})")),
        };
        body.remedy = match run.run.status.as_str() {
            "parked" => format!(
                "Decide about what is parked: `{parked}` lists it, `{show}` shows the run. Then wait again with a longer --timeout."
            ),
            _ => format!("It goes on without being waited for: look with `{show}`, or wait longer with --timeout."),
        };
        let error = Self {
            exit: Exit::TimedOut,
            body: Some(body),
        };
        error.in_doubt(again)
    }

    /// The end of a run was waited for until a signal came. `look` is the command that shows the run.
    pub fn left(look: &str, again: &Again) -> Self {
        let message = "interrupted while waiting; the start is stored, and the run goes on";
        let mut error = Self::new(Exit::Interrupted, &operator_code::LEFT, message);
        if let Some(body) = &mut error.body {
            body.remedy = format!("Look at it with `{look}`.");
        }
        error.in_doubt(again)
    }

    fn in_doubt(mut self, again: &Again) -> Self {
        if let Some(body) = &mut self.body {
            body.message = format!("{} (request id {})", body.message, again.request_id());
            body.remedy = format!("{} To repeat it harmlessly: {again}", body.remedy);
        }
        self
    }
}

/// The commands that show a run, and what is parked of it.
#[derive(Debug, Clone)]
pub struct Looks {
    pub show: String,
    pub parked: String,
}

/// What of a parked run waits for an operator.
fn parked_at(run: &RunDescription) -> Option<String> {
    if run.run.status != "parked" {
        return None;
    }
    let undo = || run.ledger.iter().find(|entry| entry.status == "parked");
    let step = || run.waiting.iter().find(|step| step.kind == "operator");
    let at = run.parked.clone();
    let at = at.or_else(|| step().map(|step| format!("step `{}`", step.step)));
    let at = at.or_else(|| undo().map(|entry| format!("undo of `{}`", entry.step)));
    Some(output::cut(&at.unwrap_or_else(|| "parked".to_owned()), 300))
}

fn span(limit: Duration) -> String {
    output::span(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
}

impl From<DevError> for CliError {
    fn from(error: DevError) -> Self {
        Self::new(Exit::Environment, error.code(), error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Usage, error.code(), error.to_string())
    }
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        Self::new(Exit::Environment, error.code(), error.cause())
    }
}

impl From<TelemetryError> for CliError {
    fn from(error: TelemetryError) -> Self {
        Self::usage(error.to_string())
    }
}
