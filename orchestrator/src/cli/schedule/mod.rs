//! `knarr schedule`: runs that start by the calendar.

mod describe;
mod document;
mod list;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use knarr_schemas::body::{Answer, AnswerStage, ScheduleRequest, ScheduleVerb};
use serde_json::Value;

use crate::api::command::ScheduleCommand;
use crate::cli::again::Again;
use crate::cli::cancel::confirm;
use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::{bulk, duration, output, start};

#[derive(Debug, Args)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    pub command: ScheduleCommands,
}

#[derive(Debug, Subcommand)]
pub enum ScheduleCommands {
    /// Makes a schedule and says when it comes due
    #[command(after_help = document::EXAMPLES)]
    Create(document::PutArgs),
    /// Changes what is said of a schedule and keeps the rest; with --file, changes it as a whole. Its calendar counts from now
    #[command(after_help = document::UPDATE_EXAMPLES)]
    Update(document::PutArgs),
    /// Starts nothing by itself until it is resumed
    Pause(OneArgs),
    /// Goes on; what came due meanwhile is not made up for
    Resume(OneArgs),
    /// Starts one occurrence now, also of a schedule that is paused
    Trigger(TriggerArgs),
    /// Starts the occurrences of a range that has passed and that were not started
    #[command(
        after_help = "Example:\n  knarr schedule backfill nightly --from 2026-11-01T00:00:00Z --until 2026-11-08T00:00:00Z"
    )]
    Backfill(BackfillArgs),
    /// Deletes a schedule; what it has started goes on
    Delete(DeleteArgs),
    /// Lists schedules by name
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Shows a schedule: what comes, what is open, and what became of the last occurrences
    #[command(visible_alias = "show")]
    Describe(describe::DescribeArgs),
}

#[derive(Debug, Args)]
pub struct OneArgs {
    /// The schedule
    #[arg(value_name = "NAME")]
    pub name: String,

    #[command(flatten)]
    pub record: RecordArgs,
}

#[derive(Debug, Clone, Args)]
pub struct RecordArgs {
    /// Why, for the record; of a pause, shown with it
    #[arg(long, short = 'r', value_name = "TEXT")]
    pub reason: Option<String>,

    /// Who, for the record
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,

    /// Makes repeating this command harmless [default: generated]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

#[derive(Debug, Args)]
pub struct TriggerArgs {
    #[command(flatten)]
    pub one: OneArgs,

    /// What to do about a run that is open [default: as the schedule says]
    #[arg(long, value_name = "POLICY", value_parser = OVERLAPS)]
    pub overlap: Option<String>,
}

#[derive(Debug, Args)]
pub struct BackfillArgs {
    #[command(flatten)]
    pub one: OneArgs,

    /// From then on, inclusive: a time, or how long ago, like `7d`
    #[arg(long, value_name = "TIME", value_parser = duration::moment)]
    pub from: DateTime<Utc>,

    /// Until then, inclusive; not in the future: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = duration::moment)]
    pub until: DateTime<Utc>,

    /// How its runs are to overlap [default: buffer_all, one after the other]
    #[arg(long, value_name = "POLICY", value_parser = OVERLAPS)]
    pub overlap: Option<String>,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    pub one: OneArgs,

    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

const OVERLAPS: [&str; 6] = [
    "skip",
    "buffer_one",
    "buffer_all",
    "cancel_other",
    "terminate_other",
    "allow_all",
];

pub async fn run(args: ScheduleArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        ScheduleCommands::Create(args) => document::put(args, ScheduleVerb::Create, globals).await,
        ScheduleCommands::Update(args) => document::put(args, ScheduleVerb::Update, globals).await,
        ScheduleCommands::Pause(one) => ask(one, "pause", request(ScheduleVerb::Pause), &[], globals).await,
        ScheduleCommands::Resume(one) => ask(one, "resume", request(ScheduleVerb::Resume), &[], globals).await,
        ScheduleCommands::Trigger(TriggerArgs { one, overlap }) => {
            let flags = [("--overlap", overlap.clone())];
            let request = ScheduleRequest {
                overlap,
                ..request(ScheduleVerb::Trigger)
            };
            ask(one, "trigger", request, &flags, globals).await
        }
        ScheduleCommands::Backfill(args) => {
            let flags = [
                ("--from", Some(args.from.to_rfc3339())),
                ("--until", Some(args.until.to_rfc3339())),
                ("--overlap", args.overlap.clone()),
            ];
            let request = ScheduleRequest {
                from: Some(args.from),
                until: Some(args.until),
                overlap: args.overlap,
                ..request(ScheduleVerb::Backfill)
            };
            ask(args.one, "backfill", request, &flags, globals).await
        }
        ScheduleCommands::Delete(DeleteArgs { one, yes }) => {
            if !yes {
                confirm(&format!(
                    "Delete the schedule `{}` in namespace `{}`? What it has started goes on. [y/N] ",
                    one.name, globals.namespace
                ))?;
            }
            ask(one, "delete", request(ScheduleVerb::Delete), &[], globals).await
        }
        ScheduleCommands::List(args) => list::run(&args, globals).await,
        ScheduleCommands::Describe(args) => describe::run(args, globals).await,
    }
}

fn request(ask: ScheduleVerb) -> ScheduleRequest {
    ScheduleRequest {
        ask,
        schedule: None,
        version: None,
        from: None,
        until: None,
        overlap: None,
    }
}

async fn ask(
    one: OneArgs,
    what: &str,
    request: ScheduleRequest,
    flags: &[(&'static str, Option<String>)],
    globals: &Globals,
) -> Result<(), CliError> {
    let OneArgs { name, record } = one;
    let request_id = record.request_id.unwrap_or_else(start::new_request_id);
    let mut flags = flags.to_vec();
    flags.push(("--reason", record.reason.clone()));
    flags.push(("--by", record.by.clone()));
    let again = Again::schedule(what, &name, &flags, globals, &request_id);
    let command = ScheduleCommand {
        name: name.clone(),
        request,
        request_id,
        by: Some(record.by.unwrap_or_else(bulk::whoami)),
        reason: record.reason,
    };
    let connection = globals.connect().await?;
    let mut stored = connection
        .commander(globals)
        .schedule(command)
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let answer: Answer = stored
        .answer(Some(globals.timeout()))
        .await
        .map_err(|error| CliError::unanswered(&error, &again))?;
    if answer.stage == AnswerStage::Refused || globals.json() {
        return start::finish(&answer, globals);
    }
    let said = answer.output.unwrap_or_default();
    output::print(&told(what, &name, &said, &globals.look()));
    for warning in warnings(&said) {
        output::note(&warning);
    }
    Ok(())
}

/// What has been taken and will not work as it is.
fn warnings(said: &Value) -> Vec<String> {
    let warnings = said["warnings"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let text = |warning: &Value, key: &str| warning[key].as_str().unwrap_or_default().to_owned();
    let told = warnings.map(|warning| {
        let [code, message, remedy] = ["code", "message", "remedy"].map(|key| text(warning, key));
        format!("warning[{code}]: {message}\n  = help: {remedy}")
    });
    told.collect()
}

/// What has been done, and what comes.
fn told(what: &str, name: &str, said: &Value, look: &Look) -> String {
    let done = match what {
        "trigger" if said["skipped"].is_string() => "starts nothing",
        "create" => "is there",
        "update" => "is updated",
        "pause" => "is paused",
        "resume" => "goes on",
        "trigger" => "is triggered",
        "backfill" => "makes up for what was not started",
        _ => "is deleted",
    };
    let mut out = vec![format!("{} {done}", output::bold(look, name))];
    let next = said["next"].as_array().map_or(&[][..], Vec::as_slice);
    let zone = said["zone"].as_str().unwrap_or("UTC");
    out.extend(upcoming(next.iter().filter_map(Value::as_str), zone, look));
    let why_none = match (said["paused"].as_str(), said["deleted"].as_bool()) {
        (_, Some(true)) => None,
        (Some(reason), _) => Some(format!("paused: {reason}")),
        (None, _) if next.is_empty() => Some("nothing comes due any more".to_owned()),
        _ => None,
    };
    let skipped = said["skipped"].as_str().map(str::to_owned);
    out.extend(skipped.or(why_none).map(|why| format!("  {why}")));
    out.join("\n")
}

/// Nominal times that come next, one a line.
pub(super) fn upcoming<'t>(next: impl Iterator<Item = &'t str>, zone: &str, look: &Look) -> Vec<String> {
    let heads = std::iter::once("next").chain(std::iter::repeat(""));
    let lines = heads.zip(next).map(|(head, at)| {
        let label = output::dim(look, &format!("{head:<6}"));
        format!("  {label}  {}", in_zone(at, zone))
    });
    lines.collect()
}

/// A moment as it is in the schedule's zone, beside what it is everywhere.
fn in_zone(at: &str, zone: &str) -> String {
    let Ok(moment) = DateTime::parse_from_rfc3339(at) else {
        return at.to_owned();
    };
    match knarr_core::schedule::zone::Zone::get(zone).filter(|zone| &**zone.name() != "UTC") {
        None => at.to_owned(),
        Some(zone) => {
            let local = moment.timestamp() + zone.offset_at(moment.timestamp());
            let local = DateTime::<Utc>::from_timestamp(local, 0).unwrap_or_default();
            format!("{at}  ({} {})", local.format("%a %Y-%m-%d %H:%M:%S"), zone.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Look = Look {
        color: false,
        width: Some(100),
        now: DateTime::<Utc>::UNIX_EPOCH,
    };

    #[test]
    fn a_range_is_said_by_times_or_by_how_long_ago_they_are() {
        use crate::cli::{Cli, Command};

        let line = "knarr schedule backfill nightly --from 7d --until 2026-11-08T00:00:00Z".split(' ');
        let Command::Schedule(ScheduleArgs {
            command: ScheduleCommands::Backfill(args),
        }) = Cli::read(line).unwrap().command
        else {
            panic!("a backfill");
        };
        assert_eq!(args.until.to_rfc3339(), "2026-11-08T00:00:00+00:00");
        assert!((Utc::now() - args.from).num_hours() == 7 * 24);
        let line = "knarr schedule backfill nightly --from 2026-11-20 --until 1h".split(' ');
        let refused = Cli::read(line).unwrap_err().to_string();
        assert!(refused.contains("`2026-11-20` is neither a time like"), "{refused}");
    }

    #[test]
    fn the_next_occurrences_are_told_in_the_zone_of_the_schedule() {
        let said = json!({ "next": ["2026-11-27T02:00:00Z", "2026-11-30T02:00:00Z"], "zone": "Europe/Berlin", "paused": null });
        assert_eq!(
            told("create", "nightly", &said, &PLAIN),
            "nightly is there\n  next    2026-11-27T02:00:00Z  (Fri 2026-11-27 03:00:00 Europe/Berlin)\n          \
             2026-11-30T02:00:00Z  (Mon 2026-11-30 03:00:00 Europe/Berlin)"
        );
        let paused = json!({ "next": [], "zone": "UTC", "paused": "too loud" });
        assert_eq!(
            told("pause", "nightly", &paused, &PLAIN),
            "nightly is paused\n  paused: too loud"
        );
        let skipped = json!({ "next": [], "zone": "UTC", "skipped": "skipped: an earlier run was open" });
        assert_eq!(
            told("trigger", "nightly", &skipped, &PLAIN),
            "nightly starts nothing\n  skipped: an earlier run was open"
        );
        let missing =
            json!({ "warnings": [{ "code": "KN0206", "message": "there is none", "remedy": "Register it." }] });
        assert_eq!(
            warnings(&missing),
            ["warning[KN0206]: there is none\n  = help: Register it."]
        );
        let over = json!({ "next": [], "zone": "UTC", "paused": null });
        assert_eq!(warnings(&over), [""; 0]);
        assert_eq!(
            told("update", "n", &over, &PLAIN),
            "n is updated\n  nothing comes due any more"
        );
    }
}
