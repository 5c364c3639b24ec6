//! `knarr limit raise`: what a run may have before it waits for an operator.

use clap::{Args, Subcommand};
use knarr_schemas::body::{Answer, RaiseLimits};

use crate::api::client::ApiClient;
use crate::api::command::OperatorCommand;
use crate::cli::again::Again;
use crate::cli::cancel::{self, Named, OperationArgs};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::{bulk, start};
use crate::config::streams::ByteSize;

#[derive(Debug, Args)]
pub struct LimitArgs {
    #[command(subcommand)]
    pub command: LimitCommand,
}

#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// Raises limits of one open run; what waits because of them goes on
    Raise(RaiseArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
A run that has reached a limit is parked, and nothing of it is lost; `knarr show` says which and how far others are.

Exit status: 0 raised, 1 refused, 2 wrong usage, 3 NATS or orchestrator missing.

Examples:
  knarr limit raise order-17 --events 200000
  knarr limit raise order-17 --history 200MiB --pending 5000")]
#[group(id = "limits", required = true, multiple = true, args = ["events", "history", "pending"])]
pub struct RaiseArgs {
    #[command(flatten)]
    pub operation: OperationArgs,

    /// Events of its history [by default it may have 50000; at most 2000000]
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,

    /// Size of its history, like 200MiB [by default it may have 50MiB; at most 2GiB]
    #[arg(long, value_name = "SIZE")]
    pub history: Option<ByteSize>,

    /// Activities and children under way at a time [by default it may have 2000; at most 20000]
    #[arg(long, value_name = "N")]
    pub pending: Option<u64>,
}

pub async fn run(args: LimitArgs, globals: &Globals) -> Result<(), CliError> {
    let LimitCommand::Raise(args) = args.command;
    let request_id = args.operation.request_id.clone().unwrap_or_else(start::new_request_id);
    let again = Again::raise_limits(&args, globals, &request_id);
    let limits = RaiseLimits {
        events: args.events,
        history_bytes: args.history.map(|size| size.0),
        pending: args.pending,
    };
    let command = OperatorCommand {
        verb: "limit",
        workflow_id: args.operation.id.clone(),
        // Three numbers always serialise.
        body: serde_json::to_vec(&limits).unwrap_or_default().into(),
        request_id,
        by: Some(args.operation.by.unwrap_or_else(bulk::whoami)),
        reason: args.operation.reason,
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
    let answer = cancel::of_run_id(answer, &args.operation.id, &Named::ById("limit raise"), &api).await;
    start::finish(&answer, globals)
}
