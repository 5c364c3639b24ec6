//! The command line: one file a command. Data goes to stdout, everything else to stderr.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod bench;
pub mod cancel;
pub mod check;
pub mod code;
pub mod definition;
pub mod demo;
pub mod dev;
pub mod error;
pub mod explain;
pub mod findings;
pub mod globals;
pub mod history;
pub mod interrupt;
pub mod list;
pub mod namespace;
pub mod output;
pub mod server;
pub mod show;
pub mod signal;
pub mod stack;
pub mod start;
pub mod story;
pub mod timeline;

use error::CliError;
use globals::Globals;

/// A durable saga orchestrator over NATS and PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "knarr",
    version,
    after_help = "Exit status: 0 done, 1 the operation says no or the run did not complete, 2 wrong usage, 3 NATS or an orchestrator is missing."
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs an orchestrator with a private PostgreSQL and NATS, until Ctrl-C
    Dev(dev::DevArgs),
    /// Shows an order saga: one that completes, one that is undone
    Demo(demo::DemoArgs),
    /// Runs an orchestrator on a PostgreSQL and a NATS that are there
    Server(server::ServerCommand),
    /// Checks a definition offline: everything wrong with it, with its place
    Check(check::CheckArgs),
    /// Registers, lists and shows definitions
    #[command(visible_alias = "def")]
    Definition(definition::DefinitionArgs),
    /// Starts a run
    Start(start::StartArgs),
    /// Lists runs, newest first
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Shows a run and the state it is in
    Show(show::ShowArgs),
    /// Shows everything that happened to a run
    History(history::HistoryArgs),
    /// Stops a run and undoes what it has done
    Cancel(cancel::CancelArgs),
    /// Stops a run at once and undoes nothing
    Terminate(cancel::TerminateArgs),
    /// Tell a run something it waits for, or will
    Signal(signal::SignalArgs),
    /// Creates and lists namespaces
    Namespace(namespace::NamespaceArgs),
    /// Measures sagas a second, their latency and what they cost, and checks how each of them ended
    Bench(bench::BenchArgs),
    /// The worker that `knarr bench` starts
    #[command(hide = true)]
    BenchWorker(bench::BenchWorkerArgs),
    /// Says what an error code means and what to do
    Explain(explain::ExplainArgs),
}

/// Runs a command and reports how it ended.
pub async fn run(cli: Cli) -> ExitCode {
    match execute(cli).await {
        (_, Ok(())) => ExitCode::SUCCESS,
        (globals, Err(error)) => report(&error, &globals),
    }
}

async fn execute(cli: Cli) -> (Globals, Result<(), CliError>) {
    let globals = &cli.globals;
    let result = match cli.command {
        Command::Dev(args) => dev::run(args, globals).await,
        Command::Demo(args) => demo::run(args, globals).await,
        Command::Server(args) => server::run(args, globals).await,
        Command::Check(args) => check::run(&args, globals),
        Command::Definition(args) => definition::run(args, globals).await,
        Command::Start(args) => start::run(args, globals).await,
        Command::List(args) => list::run(args, globals).await,
        Command::Show(args) => show::run(args, globals).await,
        Command::History(args) => history::run(args, globals).await,
        Command::Cancel(args) => cancel::cancel(args, globals).await,
        Command::Terminate(args) => cancel::terminate(args, globals).await,
        Command::Signal(args) => signal::run(args, globals).await,
        Command::Namespace(args) => namespace::run(args, globals).await,
        Command::Bench(args) => bench::run(args, globals).await,
        Command::BenchWorker(args) => bench::work(args, globals).await,
        Command::Explain(args) => explain::run(&args, globals),
    };
    (cli.globals, result)
}

/// Prints the error, as JSON where JSON was asked for, and gives the status of the process.
pub fn report(error: &CliError, globals: &Globals) -> ExitCode {
    match &error.body {
        Some(body) if globals.json() => output::note(&serde_json::to_string(body).unwrap_or_default()),
        Some(_) => output::note(&error.to_string()),
        None => {}
    }
    error.exit.into()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod parsing {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wait_alone_is_for_the_end() {
        let wait = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["knarr", "start"], arguments].concat()).unwrap();
            match cli.command {
                Command::Start(args) => args.wait,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(&["order"]), start::Wait::Started);
        assert_eq!(wait(&["order", "--wait"]), start::Wait::Closed);
        assert_eq!(wait(&["order", "--wait", "stored"]), start::Wait::Stored);
    }
}
