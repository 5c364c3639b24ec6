use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    knarr::cli::run(knarr::cli::Cli::parse()).await
}
