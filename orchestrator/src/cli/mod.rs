//! The command line: one file a command. Data goes to stdout, everything else to stderr.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub mod activity;
pub mod again;
pub mod bench;
pub mod bulk;
pub mod cancel;
pub mod check;
pub mod code;
pub mod definition;
pub mod demo;
pub mod dev;
pub mod diff;
pub mod duration;
pub mod ending;
pub mod error;
pub mod explain;
pub mod findings;
pub mod globals;
pub mod graph;
pub mod history;
pub mod interrupt;
pub mod junit;
pub mod limit;
pub mod list;
pub mod migrate;
pub mod namespace;
pub mod operator_code;
pub mod output;
pub mod parked;
pub mod query;
pub mod queue;
pub mod replay;
pub mod schedule;
pub mod server;
pub mod show;
pub mod signal;
pub mod stack;
pub mod start;
pub mod story;
pub mod test;
pub mod timeline;
pub mod trigger;
pub mod update;
pub mod verify;

use error::{CliError, Exit};
use globals::Globals;

/// A durable saga orchestrator over NATS and PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "knarr",
    version,
    after_help = "Exit status: 0 done, 1 the operation says no or the run did not complete, 2 wrong usage, 3 NATS or an orchestrator is missing, 124 what was waited for goes on."
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
    Verify(verify::VerifyArgs),
    Test(test::TestArgs),
    Graph(graph::GraphArgs),
    Diff(diff::DiffArgs),
    Replay(replay::ReplayArgs),
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
    /// Asks a run to do something that its definition offers, and waits for the answer
    Update(update::UpdateArgs),
    /// Asks a run something: a query of its definition, or any expression
    Query(query::QueryArgs),
    /// Finishes a task that its worker has let go of
    Activity(activity::ActivityArgs),
    /// Lists what waits for an operator, and decides about it
    Parked(parked::ParkedArgs),
    /// Starts runs by the calendar: cron, intervals, time zones
    Schedule(schedule::ScheduleArgs),
    /// Starts and signals runs by what is published to subjects of yours
    Trigger(trigger::TriggerArgs),
    /// Lets a run have more of what is limited
    Limit(limit::LimitArgs),
    Migrate(migrate::MigrateArgs),
    /// Creates and lists namespaces
    Namespace(namespace::NamespaceArgs),
    /// Limits queues, and shows what waits at which limit
    Queue(queue::QueueArgs),
    /// Measures sagas a second, their latency and what they cost, and checks how each of them ended
    Bench(bench::BenchArgs),
    /// The worker that `knarr bench` starts
    #[command(hide = true)]
    BenchWorker(bench::BenchWorkerArgs),
    /// Says what an error code means and what to do
    Explain(explain::ExplainArgs),
}

/// Global options that a command has no use for, and what to use instead. From the environment, which is there for all
/// commands, they are ignored.
const NO_USE: &[(&str, &str, &str)] = &[
    ("server", "namespace", "a server serves every namespace"),
    ("server", "output", "how it logs is said by --log-format"),
    ("server", "timeout", "a server waits for no answer"),
];

impl Cli {
    /// Reads a command line, with what is only known of how it was written.
    ///
    /// # Errors
    /// What is wrong with it, in clap's own words; also an option that would do nothing.
    pub fn read<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(arguments)?;
        if let Some((command, given)) = matches.subcommand() {
            for (_, option, instead) in NO_USE.iter().filter(|(of, ..)| *of == command) {
                if given.value_source(option) == Some(ValueSource::CommandLine) {
                    let message = format!("`knarr {command}` has no use for --{option}: {instead}");
                    return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
                }
            }
        }
        let mut cli = Self::from_arg_matches(&matches)?;
        // A global option stands before or behind the command.
        let sources = [Some(&matches), matches.subcommand().map(|(_, matches)| matches)];
        let mut sources = sources.into_iter().flatten();
        cli.globals.nats_is_named =
            sources.any(|matches| matches.value_source("nats_url") == Some(ValueSource::CommandLine));
        Ok(cli)
    }
}

/// Runs a command and reports how it ended.
pub async fn run(cli: Cli) -> ExitCode {
    let (globals, result) = execute(cli).await;
    match (result, output::cut_short()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(why)) => {
            let message = format!("the output could not be written: {why}");
            report(&CliError::new(Exit::Environment, &code::OUTPUT_CUT, message), &globals)
        }
        (Err(error), _) => report(&error, &globals),
    }
}

async fn execute(cli: Cli) -> (Globals, Result<(), CliError>) {
    let globals = &cli.globals;
    let result = match cli.command {
        Command::Dev(args) => dev::run(args, globals).await,
        Command::Demo(args) => demo::run(args, globals).await,
        Command::Server(args) => server::run(args, globals).await,
        Command::Check(args) => check::run(&args, globals),
        Command::Verify(args) => verify::run(&args, globals),
        Command::Test(args) => test::run(&args, globals),
        Command::Graph(args) => graph::run(&args, globals),
        Command::Diff(args) => diff::run(args, globals).await,
        Command::Replay(args) => replay::run(&args, globals),
        Command::Definition(args) => definition::run(args, globals).await,
        Command::Start(args) => start::run(args, globals).await,
        Command::List(args) => list::run(args, globals).await,
        Command::Show(args) => show::run(args, globals).await,
        Command::History(args) => history::run(args, globals).await,
        Command::Cancel(args) => cancel::cancel(args, globals).await,
        Command::Terminate(args) => cancel::terminate(args, globals).await,
        Command::Signal(args) => signal::run(args, globals).await,
        Command::Migrate(args) => migrate::run(args, globals).await,
        Command::Update(args) => update::run(args, globals).await,
        Command::Query(args) => query::run(args, globals).await,
        Command::Activity(args) => activity::run(args, globals).await,
        Command::Parked(args) => parked::run(args, globals).await,
        Command::Schedule(args) => schedule::run(args, globals).await,
        Command::Trigger(args) => trigger::run(args, globals).await,
        Command::Limit(args) => limit::run(args, globals).await,
        Command::Namespace(args) => namespace::run(args, globals).await,
        Command::Queue(args) => queue::run(args, globals).await,
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
    use super::*;

    #[test]
    fn a_server_that_is_to_be_used_is_named_by_a_flag() {
        for (line, named) in [
            (&["knarr", "dev"][..], false),
            (&["knarr", "dev", "--nats-url", "nats://h"], true),
            (&["knarr", "--nats-url", "nats://h", "bench", "order"], true),
        ] {
            let cli = Cli::read(line).unwrap();
            assert_eq!(cli.globals.nats_is_named, named, "{line:?}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_argument_says_what_it_is() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments().filter(|it| !it.is_hide_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{path} {}", argument.get_id());
            }
            for sub in command.get_subcommands().filter(|it| !it.is_hide_set()) {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "knarr");
    }

    /// Clap breaks longer lines, and the example of a file in them.
    #[test]
    fn examples_of_files_are_not_broken() {
        let mut cli = Cli::command();
        let test = cli.find_subcommand_mut("test").unwrap();
        let help = test.get_after_long_help().unwrap().to_string();
        let long: Vec<_> = help
            .lines()
            .filter(|line| line.starts_with(' ') && line.len() > 80)
            .collect();
        assert_eq!(long, [""; 0]);
    }

    #[test]
    fn an_option_that_would_do_nothing_is_refused() {
        for line in [
            "knarr server -n shop",
            "knarr -n default server",
            "knarr server -o json",
            "knarr --timeout 5s server",
        ] {
            let refused = Cli::read(line.split(' ')).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{line}");
            assert!(refused.to_string().contains("has no use for --"), "{refused}");
        }
        Cli::read(["knarr", "server", "--nats-url", "nats://h"]).unwrap();
        Cli::read(["knarr", "-n", "shop", "list", "-o", "json"]).unwrap();
    }

    /// An address may hold a password, and help is pasted into tickets.
    #[test]
    fn help_does_not_show_what_the_environment_says_of_addresses() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                if argument.get_env().is_some() && (id.ends_with("_url") || id.ends_with("_endpoint")) {
                    assert!(argument.is_hide_env_values_set(), "{} {id}", command.get_name());
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
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
