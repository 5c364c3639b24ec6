//! `knarr update`: asks a run to do something, and hears what came of it.

use std::time::Duration;

use clap::{Args, ValueEnum};
use knarr_schemas::api::{RunDescription, RunName, ShowRun, verb};
use knarr_schemas::body::{Answer, AnswerStage};
use uuid::Uuid;

use crate::api::client::ApiClient;
use crate::api::command::{AnswerError, UpdateCommand, UpdateWanted};
use crate::cli::again::Again;
use crate::cli::cancel::{self, Named, OperationArgs};
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::start;

/// Longest wait for an update to be done, unless --timeout says otherwise.
const DONE_TIMEOUT: Duration = Duration::from_secs(3_600);

#[derive(Debug, Args)]
#[command(after_help = "\
The request id is the update's: under the same one nothing is done twice, and what came of the first is told.

Exit status: 0 accepted, or done; 1 refused or failed, 2 wrong usage, 3 NATS or orchestrator missing, 124 accepted but not
done within --timeout: then it goes on without being waited for.

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
        workflow_id: args.operation.id.clone(),
        run: args.run,
        name: args.name.clone(),
        input: start::read_input("--input", args.input.as_deref())?,
        request_id: request_id.clone(),
        by: args.operation.by.clone(),
        reason: args.operation.reason.clone(),
        wanted,
    };
    let connection = globals.connect().await?;
    let mut stored = connection
        .commander(globals)
        .update(command)
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let api = ApiClient::new(connection.nats.clone(), globals.namespace.clone(), globals.timeout());
    let answer: Answer = match stored.answer(Some(limit)).await {
        Ok(answer) => answer,
        Err(error @ AnswerError::TimedOut(_)) => {
            let run = match args.run {
                Some(run) => RunName::RunId(run),
                None => RunName::WorkflowId(args.operation.id.clone()),
            };
            let shown: Option<RunDescription> = api.call(verb::RUN_SHOW, &ShowRun { run }).await.ok();
            return Err(unfinished(&error, limit, &request_id, shown.as_ref(), &again, globals));
        }
        Err(error) => return Err(CliError::unanswered(&error, &again)),
    };
    let answer = cancel::of_run_id(answer, &args.operation.id, &Named::ByRun("update"), &api).await;
    start::finish(&answer, globals)?;
    match answer.failure {
        Some(_) if answer.stage == AnswerStage::Completed => Err(CliError::silent(Exit::No)),
        _ => Ok(()),
    }
}

/// Of an update whose answer has not come in time: that the run has it is an answer as well.
fn unfinished(
    error: &AnswerError,
    limit: Duration,
    request_id: &str,
    shown: Option<&RunDescription>,
    again: &Again,
    globals: &Globals,
) -> CliError {
    let taken = shown.and_then(|run| {
        let update = run.updates.iter().find(|update| update.id == request_id)?;
        Some((run, update))
    });
    match taken {
        None => CliError::unanswered(error, again),
        Some((run, update)) => {
            let looks = Again::looks(&run.run.workflow_id, globals);
            CliError::not_done(limit, update.step.as_deref(), (run, &looks), again)
        }
    }
}
