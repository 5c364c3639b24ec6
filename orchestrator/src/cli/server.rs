//! `knarr server`: an orchestrator on servers that are there.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::interrupt;
use crate::config::{ServerArgs, ServerConfig};
use crate::{server, telemetry};

#[derive(Debug, Args)]
pub struct ServerCommand {
    #[command(flatten)]
    pub settings: ServerArgs,
}

pub async fn run(args: ServerCommand, globals: &Globals) -> Result<(), CliError> {
    let config = ServerConfig::resolve(args.settings, globals.nats_url.clone(), globals.nats_creds.clone())?;
    let telemetry = telemetry::init(&config.telemetry())?;
    let shutdown = interrupt::token();
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let started = tokio::select! {
        started = server::start(config, shutdown.clone()) => started,
        () = shutdown.cancelled() => return Ok(()),
    };
    let ended = match started {
        Ok(mut running) => {
            tracing::info!(http = %running.http(), "serving");
            running.ended().await
        }
        Err(error) => Err(error),
    };
    telemetry.flush().await;
    Ok(ended?)
}
