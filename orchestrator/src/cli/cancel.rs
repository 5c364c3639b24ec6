//! `knarr cancel` (stop and undo) and `knarr terminate` (stop, undo nothing).

use std::io::Write as _;

use clap::Args;
use knarr_schemas::body::Answer;
use uuid::Uuid;

use crate::api::command::OperatorCommand;
use crate::cli::again::Again;
use crate::cli::code;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, interactive};
use crate::cli::{bulk, output, start};

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
    start::finish(&answer, globals)
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
