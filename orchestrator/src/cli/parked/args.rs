//! What can be said on the command line.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use knarr_schemas::api::{ListParked, ParkedKind};

use crate::cli::bulk::BulkArgs;
use crate::cli::duration;

#[derive(Debug, Args)]
pub struct ParkedArgs {
    #[command(subcommand)]
    pub command: ParkedCommand,
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Parked is the undo of a step whose attempts are exhausted, a step that may not fail any more or would break a limit, or a run \
as a whole.

Exit status: 0 done, 1 refused, 2 wrong usage, 3 NATS or orchestrator missing, or no answer.

Examples:
  knarr parked list --workflow order --since 1h
  knarr parked retry order-17
  knarr parked edit order-17 payment --input '{\"account\": \"new\"}'
  knarr parked done order-17 payment --reason 'refunded by hand'
  knarr parked done order-17 ship --result '{\"parcel\": 7}'
  knarr parked skip --workflow order --error-type account_closed --reason 'written off' --dry-run")]
pub enum ParkedCommand {
    /// Lists what is parked
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Tries again, with all attempts anew; without a step everything of the run
    Retry(ActArgs),
    /// Tries again with other input
    Edit {
        /// The input to go on with: JSON, @file, or - for stdin
        #[arg(long, short = 'i', value_name = "JSON|@FILE|-")]
        input: String,

        #[command(flatten)]
        act: ActArgs,
    },
    /// Counts it as done: somebody has seen to it otherwise
    Done {
        /// What later steps read as the step's output: JSON, @file, or - for stdin (not for undos)
        #[arg(long, value_name = "JSON|@FILE|-")]
        result: Option<String>,

        #[command(flatten)]
        act: ActArgs,
    },
    /// Leaves it as it is, with a reason; a run whose undo was skipped ends as compensation_failed
    Skip(ActArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only of this run: a workflow id, or a run id
    #[arg(value_name = "WORKFLOW ID | RUN ID")]
    pub run: Option<String>,

    #[command(flatten)]
    pub filter: FilterArgs,

    /// At most this many
    #[arg(long, short = 'l', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub limit: u32,
}

/// All that are given have to fit.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Only of runs of this definition
    #[arg(long, short = 'w', value_name = "NAME")]
    pub workflow: Option<String>,

    /// Only this step, by its path
    #[arg(long = "step", value_name = "PATH")]
    pub at: Option<String>,

    /// Only calls of this activity
    #[arg(long, value_name = "NAME")]
    pub activity: Option<String>,

    /// Only what ended with an error of this type
    #[arg(long, value_name = "TYPE")]
    pub error_type: Option<String>,

    /// Only undos, steps, or runs as a whole
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,

    /// Only what was parked then or later: a time, or how long ago, like `1h`
    #[arg(long, value_name = "TIME", value_parser = duration::moment)]
    pub since: Option<DateTime<Utc>>,

    /// Only what was parked before: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = duration::moment)]
    pub before: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Undo,
    Step,
    Run,
}

impl FilterArgs {
    pub fn is_empty(&self) -> bool {
        self.request() == ListParked::default()
    }

    pub fn request(&self) -> ListParked {
        ListParked {
            run: None,
            workflow: self.workflow.clone(),
            step: self.at.clone(),
            activity: self.activity.clone(),
            error_type: self.error_type.clone(),
            kind: self.kind.map(|kind| match kind {
                Kind::Undo => ParkedKind::Undo,
                Kind::Step => ParkedKind::Step,
                Kind::Run => ParkedKind::Run,
            }),
            since: self.since,
            before: self.before,
            after: None,
            limit: None,
        }
    }
}

#[derive(Debug, Args)]
pub struct ActArgs {
    /// Workflow id or run id; without it, everything that the filters fit
    #[arg(value_name = "WORKFLOW ID | RUN ID")]
    pub run: Option<String>,

    /// Path of the step
    #[arg(value_name = "STEP", conflicts_with = "at")]
    pub step: Option<String>,

    #[command(flatten)]
    pub filter: FilterArgs,

    /// Everything that is parked: of the run, or of the namespace
    #[arg(long, help_heading = "Filters")]
    pub all: bool,

    #[command(flatten)]
    pub bulk: BulkArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    /// Names of options are those of their commands and of the global ones alike.
    #[test]
    fn every_command_reads_what_it_says() {
        for line in [
            "parked list order-17 --kind undo --since 1h -l 7",
            "parked retry order-17",
            "parked retry --all --dry-run",
            "parked edit order-17 payment --input 1 --by ann",
            "parked done order-17 ship --result 1 --request-id r -y",
            "parked skip -w order --step payment --activity refund --error-type x --before 1d -r why --rate 3",
        ] {
            let words = ["knarr", "-o", "json"].into_iter().chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "parked edit order-17 payment",
            "parked retry o a --step b",
            "parked retry --all --rate 0",
        ] {
            let words = ["knarr"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
