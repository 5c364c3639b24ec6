//! `knarr schedule create` and `update`: a document from a file, or from flags.

use std::path::PathBuf;

use clap::Args;
use knarr_core::definition::{read_schedule, schedule_of};
use knarr_schemas::api::{ScheduleDescription, ShowSchedule, verb as call};
use knarr_schemas::body::{ErrorBody, ScheduleRequest, ScheduleVerb};
use serde_json::{Map, Value, json};

use super::{OVERLAPS, OneArgs, RecordArgs, ask, request};
use crate::api::source;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::{check, code, findings, output, start};

pub(super) const EXAMPLES: &str = "\
Examples:
  knarr schedule create nightly --workflow report --cron '0 3 * * 1-5' --zone Europe/Berlin
  knarr schedule create poll --workflow poll --every 30s --overlap skip
  knarr schedule create --file nightly.yaml

A file says everything the flags say, and more (`calendars`, `exclude`, phases, `dst`):
  schedule: nightly
  workflow: report
  calendars: { hour: 9-17, day_of_week: MON-FRI }
  exclude: { month: DEC, day_of_month: 24-26 }
  zone: Europe/Berlin
  input: { day: \"${ schedule.nominal_time }\" }";

pub(super) const UPDATE_EXAMPLES: &str = "\
Flags change what they say and nothing else; --cron and --every say together when it starts. A switch that is on
(--paused, --pause-on-failure) and whatever else is to be taken back is changed by --file, which says everything.

Examples:
  knarr schedule update nightly --cron '0 4 * * *'
  knarr schedule update nightly --overlap buffer_one --note 'one after the other'
  knarr schedule update --file nightly.yaml";

#[derive(Debug, Args)]
pub struct PutArgs {
    /// The schedule [default: as the file says]
    #[arg(value_name = "NAME", required_unless_present = "file")]
    pub name: Option<String>,

    /// Its document, YAML or JSON; - for stdin
    #[arg(long, short = 'f', conflicts_with_all = FLAGS)]
    pub file: Option<PathBuf>,

    /// When: five fields of cron, six with the second first, seven with the year last; or @daily and its like. May be repeated
    #[arg(long, value_name = "CRON")]
    pub cron: Vec<String>,

    /// Or an interval, like 30s or 1h. May be repeated
    #[arg(long, value_name = "DURATION")]
    pub every: Vec<String>,

    /// IANA time zone of its calendars [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,

    /// Not before
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<String>,

    /// Not after
    #[arg(long, value_name = "TIME")]
    pub end_at: Option<String>,

    /// Up to so much later, so that not everything starts at once
    #[arg(long, value_name = "DURATION")]
    pub jitter: Option<String>,

    /// What to start
    #[arg(long, short = 'w', value_name = "WORKFLOW")]
    pub workflow: Option<String>,

    /// Its version [default: the one that starts take at that time]
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,

    /// Its input: JSON, @file, or - for stdin; sees `schedule.id` and `schedule.nominal_time`
    #[arg(long, short = 'i', value_name = "JSON|@FILE|-")]
    pub input: Option<String>,

    /// What to do about a run that is open [default: skip]
    #[arg(long, value_name = "POLICY", value_parser = OVERLAPS)]
    pub overlap: Option<String>,

    /// An occurrence that could not be started for longer is missed [default: 365d]
    #[arg(long, value_name = "DURATION")]
    pub catch_up_window: Option<String>,

    /// Pause when a run fails
    #[arg(long)]
    pub pause_on_failure: bool,

    /// Start so many and no more
    #[arg(long, value_name = "N")]
    pub actions: Option<u32>,

    /// Make it paused
    #[arg(long)]
    pub paused: bool,

    /// For people
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,

    #[command(flatten)]
    pub record: RecordArgs,
}

const FLAGS: [&str; 15] = [
    "cron",
    "every",
    "zone",
    "start_at",
    "end_at",
    "jitter",
    "workflow",
    "version",
    "input",
    "overlap",
    "catch_up_window",
    "pause_on_failure",
    "actions",
    "paused",
    "note",
];

pub(super) async fn put(args: PutArgs, verb: ScheduleVerb, globals: &Globals) -> Result<(), CliError> {
    let what = if verb == ScheduleVerb::Create {
        "create"
    } else {
        "update"
    };
    let (name, document, flags) = match &args.file {
        Some(path) => {
            let (name, document) = from_file(path, globals)?;
            let name = args.name.clone().or(name).ok_or_else(|| {
                CliError::usage("the schedule has no name: give one, or write `schedule: <name>` into the file")
            })?;
            let file = path.display().to_string();
            (name, document, vec![("--file", Some(file))])
        }
        None => {
            let name = args.name.clone().unwrap_or_default();
            let before = match verb {
                ScheduleVerb::Update => Some(before(&name, globals).await?),
                _ if args.workflow.is_none() => {
                    return Err(CliError::usage(
                        "it is not said what the schedule is to start: give --workflow, or a --file",
                    ));
                }
                _ => None,
            };
            (name, from_flags(&args, before)?, flags_again(&args))
        }
    };
    let asked = ScheduleRequest {
        schedule: Some(document),
        ..request(verb)
    };
    let one = OneArgs {
        name,
        record: args.record,
    };
    ask(one, what, asked, &flags, globals).await
}

/// A file is read here, so that what is wrong with it has a line and a caret.
fn from_file(path: &std::path::Path, globals: &Globals) -> Result<(Option<String>, Value), CliError> {
    let (name, text) = check::read_text(path)?;
    match read_schedule(&text) {
        Ok((id, spec)) => Ok((id, (**spec.json()).clone())),
        Err(found) => {
            let found = source::wire(&text, &found);
            if globals.json() {
                output::print_json(&found);
            } else {
                output::note(findings::render(&globals.look(), &name, &text, &found).trim_end());
                output::note(&format!("\n{name}: {}", findings::count(&found)));
            }
            Err(CliError::silent(Exit::No))
        }
    }
}

/// What is said of it so far, with every default.
async fn before(name: &str, globals: &Globals) -> Result<Map<String, Value>, CliError> {
    let request = ShowSchedule {
        name: name.to_owned(),
        next: Some(0),
    };
    let shown: ScheduleDescription = globals.api().await?.call(call::SCHEDULE_SHOW, &request).await?;
    match shown.summary.schedule {
        Value::Object(document) => Ok(document),
        _ => Err(CliError::new(
            Exit::No,
            &code::BAD_REPLY,
            "the answer has no document of the schedule",
        )),
    }
}

/// `before` has what is not said.
fn from_flags(args: &PutArgs, before: Option<Map<String, Value>>) -> Result<Value, CliError> {
    let mut document = before.unwrap_or_default();
    if !args.cron.is_empty() || !args.every.is_empty() {
        for key in ["cron", "every", "calendars"] {
            document.remove(key);
        }
    }
    let is_another = |workflow: &String| document.get("workflow").and_then(Value::as_str) != Some(workflow);
    if args.workflow.as_ref().is_some_and(is_another) {
        // That of the other one.
        document.remove("version");
    }
    let mut put = |key: &str, value: Value| {
        document.insert(key.to_owned(), value);
    };
    let texts = [
        ("zone", &args.zone),
        ("start_at", &args.start_at),
        ("end_at", &args.end_at),
        ("jitter", &args.jitter),
        ("workflow", &args.workflow),
        ("overlap", &args.overlap),
        ("catch_up_window", &args.catch_up_window),
        ("note", &args.note),
    ];
    for (key, text) in texts {
        text.iter().for_each(|text| put(key, json!(text)));
    }
    for (key, texts) in [("cron", &args.cron), ("every", &args.every)] {
        if !texts.is_empty() {
            put(key, json!(texts));
        }
    }
    for (key, number) in [("version", args.version), ("actions", args.actions)] {
        number.iter().for_each(|number| put(key, json!(number)));
    }
    for (key, flag) in [("pause_on_failure", args.pause_on_failure), ("paused", args.paused)] {
        if flag {
            put(key, json!(true));
        }
    }
    if args.input.is_some() {
        let input = start::read_input("--input", args.input.as_deref())?;
        let input =
            serde_json::from_slice(&input).map_err(|error| CliError::usage(format!("--input is not JSON: {error}")))?;
        put("input", input);
    }
    let spec = schedule_of(&Value::Object(document)).map_err(|found| match found {
        Some(finding) => CliError {
            exit: Exit::Usage,
            body: Some(ErrorBody {
                code: finding.code.code.to_owned(),
                message: finding.message,
                remedy: finding.help,
            }),
        },
        None => CliError::usage("these options make no schedule"),
    })?;
    Ok((**spec.json()).clone())
}

fn flags_again(args: &PutArgs) -> Vec<(&'static str, Option<String>)> {
    let mut flags: Vec<(&'static str, Option<String>)> = Vec::new();
    flags.extend(args.cron.iter().map(|cron| ("--cron", Some(cron.clone()))));
    flags.extend(args.every.iter().map(|every| ("--every", Some(every.clone()))));
    flags.extend([
        ("--zone", args.zone.clone()),
        ("--start-at", args.start_at.clone()),
        ("--end-at", args.end_at.clone()),
        ("--jitter", args.jitter.clone()),
        ("--workflow", args.workflow.clone()),
        ("--version", args.version.map(|version| version.to_string())),
        ("--input", args.input.clone()),
        ("--overlap", args.overlap.clone()),
        ("--catch-up-window", args.catch_up_window.clone()),
        ("--actions", args.actions.map(|actions| actions.to_string())),
        ("--note", args.note.clone()),
        ("--pause-on-failure", args.pause_on_failure.then(String::new)),
        ("--paused", args.paused.then(String::new)),
    ]);
    flags
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{ScheduleArgs, ScheduleCommands};
    use super::*;
    use crate::cli::again::Again;
    use crate::cli::{Cli, Command};

    fn args(line: &[&str]) -> PutArgs {
        let cli = Cli::try_parse_from([&["knarr", "schedule", "create"], line].concat()).unwrap();
        match cli.command {
            Command::Schedule(ScheduleArgs {
                command: ScheduleCommands::Create(args),
            }) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_make_the_same_document_as_a_file() {
        let args = args(&[
            "nightly",
            "--workflow=report",
            "--cron=0 3 * * 1-5",
            "--every=1h",
            "--zone=Europe/Berlin",
            "--jitter=30s",
            "--input={\"day\": \"${ schedule.nominal_time }\"}",
            "--overlap=buffer_one",
            "--actions=3",
            "--paused",
            "--pause-on-failure",
            "--note=the report",
        ]);
        let text = "workflow: report\ncron: 0 3 * * 1-5\nevery: 1h\nzone: Europe/Berlin\njitter: 30s\n\
            input: { day: '${ schedule.nominal_time }' }\noverlap: buffer_one\nactions: 3\npaused: true\n\
            pause_on_failure: true\nnote: the report\n";
        let (_, spec) = read_schedule(text).unwrap();
        assert_eq!(from_flags(&args, None).unwrap(), **spec.json());
    }

    #[test]
    fn an_update_keeps_what_it_does_not_say() {
        let before = "workflow: report\nversion: 3\ncalendars: { hour: 9-17 }\nevery: 1h\nzone: Europe/Berlin\n\
            input: { day: 1 }\noverlap: buffer_one\nactions: 3\npaused: true\nnote: the report\n";
        let document = |text: &str| (**read_schedule(text).unwrap().1.json()).clone();
        let update = |line: &[&str]| {
            let before = document(before).as_object().cloned();
            from_flags(&args(line), before).unwrap()
        };
        assert_eq!(update(&["nightly"]), document(before));
        let when = before.replace("calendars: { hour: 9-17 }\nevery: 1h\n", "cron: '@daily'\n");
        assert_eq!(update(&["nightly", "--cron=@daily"]), document(&when));
        let noted = before.replace("the report", "told").replace("buffer_one", "skip");
        assert_eq!(update(&["nightly", "--note=told", "--overlap=skip"]), document(&noted));
        let same = update(&["nightly", "--workflow=report"]);
        assert_eq!(same, document(before));
        let other = before.replace("workflow: report\nversion: 3\n", "workflow: shop\n");
        assert_eq!(update(&["nightly", "--workflow=shop"]), document(&other));
    }

    /// Whoever pastes it must not get a schedule that starts runs at once.
    #[test]
    fn the_command_to_repeat_says_all_that_was_said() {
        let line = [
            "nightly",
            "--workflow=report",
            "--cron=0 3 * * 1-5",
            "--every=1h",
            "--zone=Europe/Berlin",
            "--overlap=buffer_one",
            "--actions=3",
            "--paused",
            "--pause-on-failure",
        ];
        let globals = Cli::try_parse_from(["knarr", "schedule", "list"]).unwrap().globals;
        let again = Again::schedule("create", "nightly", &flags_again(&args(&line)), &globals, "cli-1");
        let words = again.to_string();
        for word in ["--paused", "--pause-on-failure", "--actions=3"] {
            assert!(words.split(' ').any(|said| said == word), "{word} in {words}");
        }
        let plain = args(&["nightly", "--workflow=report", "--every=1h"]);
        let again = Again::schedule("create", "nightly", &flags_again(&plain), &globals, "cli-1");
        assert!(!again.to_string().contains("--pause"), "{again}");
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_named_by_its_code() {
        let refused = from_flags(&args(&["nightly", "-w", "report", "--cron", "0 25 * * *"]), None).unwrap_err();
        assert!(
            refused.to_string().starts_with("error[KN0190]: `25` is no hour"),
            "{refused}"
        );
        let zone = args(&["nightly", "-w", "report", "--cron", "@daily", "--zone", "Europe/Berln"]);
        let refused = from_flags(&zone, None).unwrap_err().to_string();
        assert!(
            refused.contains("KN0194") && refused.contains("did you mean `Europe/Berlin`?"),
            "{refused}"
        );
        let beside = ["knarr", "schedule", "create", "--file", "x.yaml", "--cron", "@daily"];
        assert!(Cli::try_parse_from(beside).is_err());
    }

    #[tokio::test]
    async fn what_is_created_is_said_to_start_something() {
        let globals = Cli::try_parse_from(["knarr", "schedule", "list"]).unwrap().globals;
        let nothing = args(&["nightly", "--cron", "@daily"]);
        let refused = put(nothing, ScheduleVerb::Create, &globals).await.unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.to_string().contains("--workflow"), "{refused}");
    }
}
