//! `knarr demo`: a private stack and an order saga on it, told step by step. On a terminal it stays up until Ctrl-C, so
//! that one can look around; elsewhere it ends by itself, with status 0 if everything went as told.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use crate::cli::dev::Programs;
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::stack::Stack;
use crate::cli::{interrupt, output};
use crate::config::{ProcessArgs, ServerConfig};
use crate::dev::{PortChoice, Progress, ServerOptions};
use crate::telemetry;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the private servers keep their data; begun anew each time
    #[arg(long, default_value = ".knarr/demo", value_name = "DIR")]
    pub data_dir: PathBuf,

    #[command(flatten)]
    pub programs: Programs,

    #[command(flatten)]
    pub process: ProcessArgs,
}

pub async fn run(args: DemoArgs, globals: &Globals) -> Result<(), CliError> {
    let shutdown = interrupt::token();
    let settings = ServerConfig::private(args.process.clone(), "", "private")?;
    let telemetry = telemetry::init(&settings.telemetry())?;
    let options = ServerOptions {
        data_dir: Some(args.data_dir),
        fresh: true,
        nats_port: PortChoice::Any,
        search: args.programs.search(),
        ..ServerOptions::default()
    };
    let progress = Progress::for_stderr();
    let mut stack = tokio::select! {
        stack = Stack::start(options, args.process, &progress) => stack?,
        () = shutdown.cancelled() => return Ok(()),
    };
    progress.finish();
    let told = tokio::select! {
        told = tell(&stack, globals) => told,
        () = shutdown.cancelled() => Ok(()),
    };
    let stay = told.is_ok() && std::io::stdout().is_terminal() && !shutdown.is_cancelled();
    let kept = if stay { stack.keep(&shutdown).await } else { Ok(()) };
    let stopped = stack.stop().await;
    telemetry.flush().await;
    told.and(kept).and(stopped)
}

/// What the demo shows, on a stack that is up: the order saga belongs here.
async fn tell(stack: &Stack, globals: &Globals) -> Result<(), CliError> {
    let addresses = stack.addresses();
    if globals.json() {
        output::print_json(&addresses);
    } else {
        output::print(&format!(
            "A private Knarr is up: NATS at {}, metrics at {}/metrics.",
            addresses.nats_url, addresses.http_url
        ));
    }
    Ok(())
}
