//! `knarr update`: asks a run to do something, and hears what came of it.

use std::time::Duration;

use clap::{Args, ValueEnum};
use knarr_schemas::body::{Answer, AnswerStage};
use uuid::Uuid;

use crate::api::command::{UpdateCommand, UpdateWanted};
use crate::cli::again::Again;
use crate::cli::cancel::OperationArgs;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::start;

/// Longest wait for an update to be done, unless --timeout says otherwise.
const DONE_TIMEOUT: Duration = Duration::from_secs(3_600);

#[derive(Debug, Args)]
#[command(after_help = "\
The request id is the update's: under the same one nothing is done twice, and what came of the first is told.

Exit status: 0 accepted, or done; 1 refused or failed, 2 wrong usage, 3 NATS or orchestrator missing.

Examples:
  knarr update order-17 change_address --input '{\"city\": \"Bergen\"}'
  knarr update order-17 change_address --input @address.json --wait accepted")]
pub struct UpdateArgs {
    #[command(flatten)]
    pub operation: OperationArgs,

    /// An update of the run's definition
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Input: JSON, @file, or - for stdin [default: null]
    #[arg(long, short = 'i', value_name = "JSON|@FILE|-")]
    pub input: Option<String>,

    /// This run of the workflow id, instead of the open one
    #[arg(long, value_name = "RUN ID")]
    pub run: Option<Uuid>,

    /// What to wait for
    #[arg(long, value_enum, default_value = "completed")]
    pub wait: WaitFor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// Until the update is accepted
    Accepted,
    /// Until it is done
    Completed,
}

pub async fn run(args: UpdateArgs, globals: &Globals) -> Result<(), CliError> {
    let request_id = args.operation.request_id.clone().unwrap_or_else(start::new_request_id);
    let again = Again::update(&args, globals, &request_id);
    let (wanted, limit) = match args.wait {
        WaitFor::Accepted => (UpdateWanted::Accepted, globals.timeout()),
        WaitFor::Completed => (UpdateWanted::Completed, globals.timeout.unwrap_or(DONE_TIMEOUT)),
    };
    let command = UpdateCommand {
        workflow_id: args.operation.id,
        run: args.run,
        name: args.name,
        input: start::read_input(args.input.as_deref())?,
        request_id,
        by: args.operation.by,
        reason: args.operation.reason,
        wanted,
    };
    let connection = globals.connect().await?;
    let mut stored = connection
        .commander(globals)
        .update(command)
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let answer: Answer = stored
        .answer(Some(limit))
        .await
        .map_err(|error| CliError::unanswered(&error, &again))?;
    start::finish(&answer, globals)?;
    match answer.failure {
        Some(_) if answer.stage == AnswerStage::Completed => Err(CliError::silent(Exit::No)),
        _ => Ok(()),
    }
}
