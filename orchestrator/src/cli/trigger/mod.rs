//! `knarr trigger`: what definitions make of the user's own subjects.

mod list;
mod show;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use knarr_schemas::api::TriggerName;
use knarr_schemas::body::{Answer, AnswerStage, TriggerPosition, TriggerRequest, TriggerVerb};

use crate::api::command::TriggerCommand;
use crate::cli::again::Again;
use crate::cli::cancel::confirm;
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::schedule::RecordArgs;
use crate::cli::{bulk, output, start};

#[derive(Debug, Args)]
pub struct TriggerArgs {
    #[command(subcommand)]
    pub command: TriggerCommands,
}

#[derive(Debug, Subcommand)]
pub enum TriggerCommands {
    /// Lists triggers by workflow and name
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Shows a trigger: how far it has read, what is on its way, and what nothing came of lately
    #[command(visible_alias = "describe")]
    Show(show::ShowArgs),
    /// Reads nothing until it is resumed; its place is kept
    Pause(OneArgs),
    /// Goes on where it was
    Resume(OneArgs),
    /// Goes on elsewhere in its stream; what is read a second time counts a second time
    #[command(after_help = EXAMPLES)]
    Reset(ResetArgs),
}

const EXAMPLES: &str = "Examples:\n  knarr trigger reset order/placed --to 1041\n  knarr trigger reset order/placed \
                        --to 2026-11-26T08:00:00Z\n  knarr trigger reset order/placed --to new --yes";

#[derive(Debug, Args)]
pub struct OneArgs {
    /// The trigger: its workflow's name and its own
    #[arg(value_name = "WORKFLOW/NAME", value_parser = named)]
    pub trigger: TriggerName,

    #[command(flatten)]
    pub record: RecordArgs,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    pub one: OneArgs,

    /// The sequence or the time of the first message to be read; `new` for those to come, `all` for the first there is
    #[arg(long, value_name = "PLACE", value_parser = position)]
    pub to: TriggerPosition,

    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

pub(super) fn named(text: &str) -> Result<TriggerName, String> {
    match text.split_once('/') {
        Some((workflow, name)) if !workflow.is_empty() && !name.is_empty() && !name.contains('/') => Ok(TriggerName {
            workflow: workflow.to_owned(),
            name: name.to_owned(),
        }),
        _ => Err("a trigger is named as <workflow>/<name>".to_owned()),
    }
}

fn position(text: &str) -> Result<TriggerPosition, String> {
    match text {
        "new" => Ok(TriggerPosition::New),
        "all" => Ok(TriggerPosition::All),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse() {
            Ok(sequence) if sequence > 0 => Ok(TriggerPosition::Sequence(sequence)),
            _ => Err("sequences are counted from 1".to_owned()),
        },
        text => text.parse::<DateTime<Utc>>().map(TriggerPosition::Time).map_err(|_| {
            "it is neither a sequence nor a time like 2026-11-26T08:00:00Z, nor `new` or `all`".to_owned()
        }),
    }
}

fn written(position: TriggerPosition) -> String {
    match position {
        TriggerPosition::New => "new".to_owned(),
        TriggerPosition::All => "all".to_owned(),
        TriggerPosition::Time(at) => at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        TriggerPosition::Sequence(sequence) => sequence.to_string(),
    }
}

pub async fn run(args: TriggerArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        TriggerCommands::List(args) => list::run(&args, globals).await,
        TriggerCommands::Show(args) => show::run(args, globals).await,
        TriggerCommands::Pause(one) => ask(one, TriggerVerb::Pause, None, globals).await,
        TriggerCommands::Resume(one) => ask(one, TriggerVerb::Resume, None, globals).await,
        TriggerCommands::Reset(ResetArgs { one, to, yes }) => {
            if !yes {
                let TriggerName { workflow, name } = &one.trigger;
                confirm(&format!(
                    "Let the trigger `{workflow}/{name}` go on at {}? What it has read before counts again where it is read \
                     again, and what it leaves out never counts. [y/N] ",
                    written(to)
                ))?;
            }
            ask(one, TriggerVerb::Reset, Some(to), globals).await
        }
    }
}

async fn ask(one: OneArgs, verb: TriggerVerb, to: Option<TriggerPosition>, globals: &Globals) -> Result<(), CliError> {
    let OneArgs { trigger, record } = one;
    let (what, done) = match verb {
        TriggerVerb::Pause => ("pause", "is paused"),
        TriggerVerb::Resume => ("resume", "goes on"),
        _ => ("reset", "is reset"),
    };
    let name = format!("{}/{}", trigger.workflow, trigger.name);
    let request_id = record.request_id.unwrap_or_else(start::new_request_id);
    let flags = [
        ("--to", to.map(written)),
        ("--reason", record.reason.clone()),
        ("--by", record.by.clone()),
    ];
    let again = Again::trigger(what, &name, &flags, globals, &request_id);
    let command = TriggerCommand {
        name: trigger,
        request: TriggerRequest {
            ask: verb,
            trigger: None,
            version: None,
            to,
        },
        request_id,
        by: Some(record.by.unwrap_or_else(bulk::whoami)),
        reason: record.reason,
    };
    let connection = globals.connect().await?;
    let mut stored = connection
        .commander(globals)
        .trigger(command)
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let answer: Answer = stored
        .answer(Some(globals.timeout()))
        .await
        .map_err(|error| CliError::unanswered(&error, &again))?;
    if answer.stage == AnswerStage::Refused || globals.json() {
        return start::finish(&answer, globals);
    }
    output::print(&format!("{} {done}", output::bold(&globals.look(), &name)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_sequences_times_and_words() {
        for text in ["1", "1041", "new", "all", "2026-11-26T08:00:00Z"] {
            assert_eq!(written(position(text).unwrap()), text);
        }
        for text in ["", "0", "-1", "soon", "99999999999999999999"] {
            assert!(position(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_trigger_is_named_with_its_workflow() {
        let name = named("order/placed").unwrap();
        assert_eq!((name.workflow.as_str(), name.name.as_str()), ("order", "placed"));
        for text in ["", "order", "order/", "/placed", "a/b/c"] {
            assert!(named(text).is_err(), "{text}");
        }
    }
}
