//! `knarr activity complete | fail | heartbeat`: a task that its worker has let go of is finished from here.

use crate::cli::duration;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use knarr_schemas::api::{ActivityAnswer, CompleteActivity, FailActivity, HeartbeatActivity, HeartbeatAnswer, verb};
use knarr_schemas::body::BeatAnswer;
use serde_json::Value;

use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::{output, start};

#[derive(Debug, Args)]
#[command(after_help = "\
A worker that answers a task with `Knarr-Outcome: later` keeps the task's `Knarr-Token` and acknowledges the task. Whoever
has the token says later how it ended. Saying it twice is harmless.

Exit status: 0 taken, 1 refused, or too late, 2 wrong usage, 3 NATS or orchestrator missing.

Examples:
  knarr activity complete --token \"$TOKEN\" --result '{\"payment_id\": \"p-1\"}'
  knarr activity fail --token \"$TOKEN\" --type declined --message 'no funds' --no-retry
  knarr activity heartbeat --token \"$TOKEN\" --details '{\"page\": 7}'")]
pub struct ActivityArgs {
    #[command(subcommand)]
    pub command: ActivityCommand,
}

#[derive(Debug, Subcommand)]
pub enum ActivityCommand {
    /// The task has been done
    Complete {
        #[command(flatten)]
        task: TaskArgs,

        /// What it gave: JSON, @file, or - for stdin [default: null]
        #[arg(long, short = 'r', value_name = "JSON|@FILE|-")]
        result: Option<String>,
    },
    /// The task has ended otherwise
    Fail(FailArgs),
    /// The work goes on; the answer says whether it should
    Heartbeat {
        #[command(flatten)]
        task: TaskArgs,

        /// How far it is, for the next attempt: JSON, @file, or - for stdin
        #[arg(long, short = 'd', value_name = "JSON|@FILE|-")]
        details: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct TaskArgs {
    /// The task's `Knarr-Token`
    #[arg(long, short = 't', value_name = "TOKEN")]
    pub token: String,
}

#[derive(Debug, Args)]
pub struct FailArgs {
    #[command(flatten)]
    pub task: TaskArgs,

    /// What is known of it
    #[arg(long, value_enum, default_value_t = Outcome::Failed)]
    pub outcome: Outcome,

    /// The type of the error, as `retry.non_retryable` and `catch` name it
    #[arg(long = "type", value_name = "TYPE", default_value = "failed")]
    pub error_type: String,

    /// What happened
    #[arg(long, short = 'm', default_value = "")]
    pub message: String,

    /// No other attempt would end better
    #[arg(long)]
    pub no_retry: bool,

    /// No attempt, this or an earlier one, has had an effect
    #[arg(long)]
    pub not_done: bool,

    /// The next attempt begins no earlier than after this time (30s, 5m)
    #[arg(long, value_name = "DURATION", value_parser = duration::millis)]
    pub retry_after: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    /// It was surely not done
    Failed,
    /// It may have been done
    Unknown,
    /// It was stopped as it was asked to, and surely not done
    Cancelled,
}

pub async fn run(args: ActivityArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        ActivityCommand::Complete { task, result } => {
            let request = CompleteActivity {
                token: task.token,
                output: json(start::read_input("--result", result.as_deref())?),
            };
            let answer = globals.api().await?.call(verb::ACTIVITY_COMPLETE, &request).await?;
            taken(&answer, globals)?;
        }
        ActivityCommand::Fail(args) => {
            let outcome = match args.outcome {
                Outcome::Failed => "failed",
                Outcome::Unknown => "unknown",
                Outcome::Cancelled => "cancelled",
            };
            let request = FailActivity {
                token: args.task.token,
                outcome: outcome.to_owned(),
                error_type: args.error_type,
                message: args.message,
                retryable: !args.no_retry,
                not_done: args.not_done,
                retry_after_ms: args.retry_after,
            };
            let answer = globals.api().await?.call(verb::ACTIVITY_FAIL, &request).await?;
            taken(&answer, globals)?;
        }
        ActivityCommand::Heartbeat { task, details } => {
            let details = match details {
                Some(details) => Some(json(start::read_input("--details", Some(&details))?)),
                None => None,
            };
            let token = task.token;
            let request = HeartbeatActivity { token, details };
            let answer: HeartbeatAnswer = globals.api().await?.call(verb::ACTIVITY_HEARTBEAT, &request).await?;
            if globals.json() {
                output::print_json(&answer);
            } else {
                output::print(match answer.answer {
                    BeatAnswer::Ok => "heard; go on",
                    BeatAnswer::Cancel => "heard; stop, and say so: the task is not wanted any more",
                    BeatAnswer::Gone => "nobody waits for this task any more",
                });
            }
        }
    }
    Ok(())
}

/// `read_input` has checked it; nothing is `null`.
fn json(text: Bytes) -> Value {
    serde_json::from_slice(&text).unwrap_or_default()
}

fn taken(answer: &ActivityAnswer, globals: &Globals) -> Result<(), CliError> {
    let (told, in_time) = told(&answer.stage);
    if globals.json() {
        output::print_json(answer);
    } else {
        output::print(told);
    }
    match in_time {
        true => Ok(()),
        false => Err(CliError::silent(Exit::No)),
    }
}

/// What became of it, and whether the run goes by it.
fn told(stage: &str) -> (&'static str, bool) {
    match stage {
        "committed" => ("taken", true),
        "late" => ("too late: recorded as a late result", false),
        "gone" => ("too late: nobody waits for this task any more", false),
        _ => ("stored; it is taken as soon as its partition has an owner", true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_late_is_no_success() {
        for (stage, says, in_time) in [
            ("committed", "taken", true),
            ("stored", "stored; ", true),
            ("late", "too late: recorded", false),
            ("gone", "too late: nobody waits", false),
        ] {
            let (told, taken) = told(stage);
            assert!(told.starts_with(says) && taken == in_time, "{stage}: {told}");
        }
    }
}
