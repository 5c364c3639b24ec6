//! `knarr signal`: something a run waits for, or will.

use clap::Args;
use knarr_schemas::body::Answer;

use crate::api::client::ApiClient;
use crate::api::command::SignalCommand;
use crate::cli::again::Again;
use crate::cli::cancel::{self, Named, OperationArgs};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::{bulk, start};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 kept, 1 refused, 2 wrong usage, 3 NATS or orchestrator missing.

Examples:
  knarr signal order-17 paid --body '{\"amount\": 12}'
  knarr signal order-17 paid --body 12 --start order --start-input @order.json")]
pub struct SignalArgs {
    #[command(flatten)]
    pub operation: OperationArgs,

    /// What the signal is called
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Body: JSON, @file, or - for stdin [default: null]
    #[arg(long, short = 'b', value_name = "JSON|@FILE|-")]
    pub body: Option<String>,

    /// Start a run of this workflow if none is open under the id; the signal is its first
    #[arg(long, value_name = "WORKFLOW")]
    pub start: Option<String>,

    /// Input of that run [default: the signal's body]
    #[arg(long, value_name = "JSON|@FILE|-", requires = "start")]
    pub start_input: Option<String>,
}

pub async fn run(args: SignalArgs, globals: &Globals) -> Result<(), CliError> {
    let request_id = args.operation.request_id.clone().unwrap_or_else(start::new_request_id);
    let again = Again::signal(&args, globals, &request_id);
    let start_input = match &args.start_input {
        Some(input) => Some(start::read_input("--start-input", Some(input))?),
        None => None,
    };
    let command = SignalCommand {
        workflow_id: args.operation.id.clone(),
        name: args.name,
        body: start::read_input("--body", args.body.as_deref())?,
        request_id,
        by: Some(args.operation.by.unwrap_or_else(bulk::whoami)),
        reason: args.operation.reason,
        start_workflow: args.start,
        start_input,
    };
    let connection = globals.connect().await?;
    let mut stored = connection
        .commander(globals)
        .signal(command)
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let answer: Answer = stored
        .answer(Some(globals.timeout()))
        .await
        .map_err(|error| CliError::unanswered(&error, &again))?;
    let api = ApiClient::new(connection.nats.clone(), globals.namespace.clone(), globals.timeout());
    let answer = cancel::of_run_id(answer, &args.operation.id, &Named::ById("signal"), &api).await;
    start::finish(&answer, globals)
}
