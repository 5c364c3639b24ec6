//! `knarr cancel` (stop and undo) and `knarr terminate` (stop, undo nothing).

use std::io::Write as _;

use clap::Args;
use knarr_schemas::api::{RunDescription, RunName, ShowRun, verb};
use knarr_schemas::body::Answer;
use knarr_schemas::code as wire;
use uuid::Uuid;

use crate::api::client::ApiClient;
use crate::api::command::OperatorCommand;
use crate::cli::again::Again;
use crate::cli::code;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, interactive};
use crate::cli::{bulk, output, show, start};

#[derive(Debug, Args)]
pub struct CancelArgs {
    #[command(flatten)]
    pub operation: OperationArgs,

    /// This run of the workflow id, as one that is queued, instead of the open one
    #[arg(long, value_name = "RUN ID")]
    pub run: Option<Uuid>,
}

#[derive(Debug, Args)]
pub struct TerminateArgs {
    #[command(flatten)]
    pub operation: OperationArgs,

    /// This run of the workflow id, as one that is queued, instead of the open one
    #[arg(long, value_name = "RUN ID")]
    pub run: Option<Uuid>,

    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct OperationArgs {
    /// Workflow id of the open run
    #[arg(value_name = "WORKFLOW ID")]
    pub id: String,

    /// Why, for the record
    #[arg(long, short = 'r', value_name = "TEXT")]
    pub reason: Option<String>,

    /// Who, for the record [default: user@host]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,

    /// Makes repeating this command harmless [default: generated]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

pub async fn cancel(args: CancelArgs, globals: &Globals) -> Result<(), CliError> {
    operate("cancel", args.operation, args.run, globals).await
}

pub async fn terminate(args: TerminateArgs, globals: &Globals) -> Result<(), CliError> {
    if !args.yes {
        confirm(&format!(
            "Terminate `{}` in namespace `{}`? It stops at once and nothing is undone. [y/N] ",
            args.operation.id, globals.namespace
        ))?;
    }
    operate("terminate", args.operation, args.run, globals).await
}

async fn operate(
    verb: &'static str,
    args: OperationArgs,
    run: Option<Uuid>,
    globals: &Globals,
) -> Result<(), CliError> {
    let request_id = args.request_id.clone().unwrap_or_else(start::new_request_id);
    let again = Again::operation(verb, &args, globals, &request_id).of_run(run);
    let id = args.id.clone();
    let command = OperatorCommand {
        verb,
        workflow_id: args.id,
        run,
        request_id,
        by: Some(args.by.unwrap_or_else(bulk::whoami)),
        reason: args.reason,
        ..OperatorCommand::default()
    };
    let connection = globals.connect().await?;
    let mut stored = connection
        .commander(globals)
        .operate(command)
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let answer: Answer = stored
        .answer(Some(globals.timeout()))
        .await
        .map_err(|error| CliError::unanswered(&error, &again))?;
    let api = ApiClient::new(connection.nats.clone(), globals.namespace.clone(), globals.timeout());
    let answer = of_run_id(answer, &id, &Named::ByRun(verb), &api).await;
    start::finish(&answer, globals)
}

/// How a command that takes a workflow id names a certain run.
pub(super) enum Named<'n> {
    /// Beside the workflow id, with `--run`.
    ByRun(&'n str),
    /// Not at all: it is for the open run.
    ById(&'n str),
}

/// Where no run has the workflow id that was said, and it is a run id: says so, and how that run is named.
pub(super) async fn of_run_id(mut answer: Answer, said: &str, named: &Named<'_>, api: &ApiClient) -> Answer {
    let Some(error) = answer.error.as_mut().filter(|error| error.code == wire::UNKNOWN_RUN.id) else {
        return answer;
    };
    let run @ RunName::RunId(_) = show::run_name(said) else {
        return answer;
    };
    let shown: Option<RunDescription> = api.call(verb::RUN_SHOW, &ShowRun { run }).await.ok();
    let id = shown.as_ref().map(|shown| &*shown.run.workflow_id);
    error.message = match id {
        Some(id) => format!("`{said}` is a run id, and this takes a workflow id: that of the run is `{id}`"),
        None => format!("no run has the workflow id `{said}`, which has the form of a run id"),
    };
    let id = id.unwrap_or("<workflow id>");
    error.remedy = match named {
        Named::ByRun(command) => {
            format!("Say `knarr {command} {id} --run {said}`, or leave --run out for the open run.")
        }
        Named::ById(command) => format!("Say `knarr {command} {id} …`, which is for the open run of the workflow id."),
    };
    answer
}

pub(super) fn confirm(question: &str) -> Result<(), CliError> {
    let refused = |message: &str| CliError::new(Exit::Usage, &code::NOT_CONFIRMED, message);
    if !interactive() {
        return Err(refused("this needs a confirmation, and nobody can be asked here"));
    }
    let mut err = anstream::stderr().lock();
    let mut line = String::new();
    let asked = write!(err, "{question}").and_then(|()| err.flush());
    if asked
        .and_then(|()| std::io::stdin().read_line(&mut line).map(|_| ()))
        .is_err()
    {
        return Err(refused("the answer cannot be read"));
    }
    if matches!(line.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        output::note("nothing was done");
        Err(CliError::silent(Exit::No))
    }
}
