//! `knarr definition register | list | show`.

use std::path::PathBuf;

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use knarr_schemas::api::{
    DefinitionDetail, DefinitionInfo, DefinitionPage, ListDefinitions, RegisterDefinition, RegisteredDefinition,
    RegistrationOutcome, ScheduleOutlook, SetDefaultVersion, ShowDefinition, verb,
};

use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, Look};
use crate::cli::schedule::upcoming;
use crate::cli::{bulk, check, code, findings, output};

#[derive(Debug, Args)]
pub struct DefinitionArgs {
    #[command(subcommand)]
    pub command: DefinitionCommand,
}

#[derive(Debug, Subcommand)]
pub enum DefinitionCommand {
    /// Checks a definition and registers it, with the files it refers to
    Register {
        /// The definition, YAML or JSON; - for stdin
        file: PathBuf,
    },
    /// Lists the definitions of the namespace, every version
    List {
        /// Only versions of this one
        workflow: Option<String>,
    },
    /// Sets the version that starts take which name none
    Default(DefaultArgs),
    /// Prints a definition as it was registered
    Show {
        /// Its name
        workflow: String,
        /// Which version [default: the highest]
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub struct DefaultArgs {
    /// Name of the definition
    pub workflow: String,

    /// The version
    #[arg(
        value_name = "VERSION",
        required_unless_present = "highest",
        conflicts_with = "highest"
    )]
    pub version: Option<u32>,

    /// The highest registered one, also of those to come
    #[arg(long)]
    pub highest: bool,

    /// Why, for the record
    #[arg(long, short = 'r', value_name = "TEXT")]
    pub reason: Option<String>,

    /// Who, for the record [default: user@host]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

pub async fn run(args: DefinitionArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        DefinitionCommand::Register { file } => register(&file, globals).await,
        DefinitionCommand::List { workflow } => list(workflow, globals).await,
        DefinitionCommand::Default(args) => set_default(args, globals).await,
        DefinitionCommand::Show { workflow, version } => show(workflow, version, globals).await,
    }
}

async fn register(file: &std::path::Path, globals: &Globals) -> Result<(), CliError> {
    let local = check::load(file)?;
    if local.read.checked.is_none() {
        // The orchestrator would say the same: no need for one to be there.
        if globals.json() {
            output::print_json(&RegisteredDefinition {
                outcome: RegistrationOutcome::Refused,
                definition: None,
                queues: Vec::new(),
                schedule: None,
                findings: local.read.findings,
                error: Some(knarr_schemas::code::DEFINITION_INVALID.plain()),
            });
        } else {
            check::report(&local, globals);
        }
        return Err(CliError::silent(Exit::No));
    }
    let request = RegisterDefinition {
        source: local.text.clone(),
        file_name: Some(local.name.clone()),
        files: local.files.clone(),
    };
    let reply: RegisteredDefinition = globals.api().await?.call(verb::DEFINITION_REGISTER, &request).await?;
    if globals.json() {
        output::print_json(&reply);
    } else if !reply.findings.is_empty() {
        let text = findings::render(&globals.look(), &local.name, &local.text, &reply.findings);
        output::note(text.trim_end());
    }
    match (reply.outcome, &reply.definition) {
        (RegistrationOutcome::Refused, _) if globals.json() => Err(CliError::silent(Exit::No)),
        (RegistrationOutcome::Refused, _) => Err(match reply.error {
            Some(body) => CliError::refused(body),
            None => CliError::new(
                Exit::No,
                &code::BAD_REPLY,
                "the registration was refused without a reason",
            ),
        }),
        (_, None) => Err(CliError::new(
            Exit::No,
            &code::BAD_REPLY,
            "the answer names no definition",
        )),
        (outcome, Some(definition)) => {
            if !globals.json() {
                let schedule = reply.schedule.as_ref();
                output::print(&registered(
                    outcome,
                    definition,
                    &reply.queues,
                    schedule,
                    &globals.look(),
                ));
            }
            Ok(())
        }
    }
}

async fn set_default(args: DefaultArgs, globals: &Globals) -> Result<(), CliError> {
    let request = SetDefaultVersion {
        workflow: args.workflow,
        version: args.version,
        by: Some(args.by.unwrap_or_else(bulk::whoami)),
        reason: args.reason,
    };
    let now: DefinitionInfo = globals.api().await?.call(verb::DEFINITION_DEFAULT, &request).await?;
    if globals.json() {
        output::print_json(&now);
    } else {
        let and_later = if now.default {
            ""
        } else {
            ", and every higher one once it is registered"
        };
        output::print(&format!(
            "starts of {} that name no version take v{}{and_later}",
            now.workflow, now.version
        ));
    }
    Ok(())
}

fn registered(
    outcome: RegistrationOutcome,
    definition: &DefinitionInfo,
    queues: &[String],
    schedule: Option<&ScheduleOutlook>,
    look: &Look,
) -> String {
    let what = match outcome {
        RegistrationOutcome::Unchanged => "was registered already, with the same content",
        _ => "registered",
    };
    let name = output::bold(look, &format!("{} v{}", definition.workflow, definition.version));
    let mut text = format!("{name} {what}");
    if !queues.is_empty() {
        let noun = if queues.len() == 1 { "queue" } else { "queues" };
        text.push_str(&format!("\n  task {noun}  {}", queues.join(", ")));
    }
    for line in schedule.into_iter().flat_map(|schedule| outlook(schedule, look)) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

/// When the definition's own schedule comes due.
fn outlook(schedule: &ScheduleOutlook, look: &Look) -> Vec<String> {
    let next = schedule.next.iter();
    let next: Vec<_> = next.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true)).collect();
    match &schedule.paused {
        Some(reason) => vec![format!("  its schedule is paused: {reason}")],
        None if next.is_empty() => vec!["  its schedule does not come due any more".to_owned()],
        None => upcoming(next.iter().map(String::as_str), &schedule.zone, look),
    }
}

async fn list(workflow: Option<String>, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let mut request = ListDefinitions {
        workflow,
        ..ListDefinitions::default()
    };
    let mut definitions = Vec::new();
    loop {
        let page: DefinitionPage = api.call(verb::DEFINITION_LIST, &request).await?;
        definitions.extend(page.definitions);
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    if globals.json() {
        output::print_json(&DefinitionPage {
            definitions,
            next: None,
        });
    } else if definitions.is_empty() {
        output::note(&format!("no such definitions in namespace `{}`", globals.namespace));
    } else {
        output::print(&render(&definitions, &globals.look()));
    }
    Ok(())
}

fn render(definitions: &[DefinitionInfo], look: &Look) -> String {
    let mut table = output::table(look, &["WORKFLOW", "VERSION", "AGE", "HASH"]);
    for definition in definitions {
        table.add_row([
            Cell::new(&definition.workflow),
            Cell::new(match definition.default {
                true => format!("{} (default)", definition.version),
                false => definition.version.to_string(),
            }),
            Cell::new(output::age(look, definition.registered_at)),
            Cell::new(definition.hash.get(..12).unwrap_or(&definition.hash)),
        ]);
    }
    output::table_text(&table, 0)
}

async fn show(workflow: String, version: Option<u32>, globals: &Globals) -> Result<(), CliError> {
    let request = ShowDefinition { workflow, version };
    let detail: DefinitionDetail = globals.api().await?.call(verb::DEFINITION_SHOW, &request).await?;
    if globals.json() {
        output::print_json(&detail);
        return Ok(());
    }
    let look = globals.look();
    output::note(&output::dim(
        &look,
        &format!(
            "# {} v{}, registered {} ago, {}",
            detail.definition.workflow,
            detail.definition.version,
            output::age(&look, detail.definition.registered_at),
            detail.definition.hash
        ),
    ));
    output::print(&detail.source);
    if let (Some(schema), false) = (&detail.input_schema, detail.source.contains("input_schema: {")) {
        let text = serde_json::to_string_pretty(schema).unwrap_or_default();
        output::note(&output::dim(&look, &format!("# input_schema, files inlined:\n{text}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone, Utc};

    use super::*;

    fn look() -> Look {
        Look {
            color: false,
            width: None,
            now: Utc.timestamp_opt(1_795_000_000, 0).unwrap(),
        }
    }

    fn info(look: &Look, workflow: &str, version: u32, age: i64) -> DefinitionInfo {
        DefinitionInfo {
            workflow: workflow.into(),
            version,
            hash: "0123456789abcdef".repeat(4),
            registered_at: look.now - TimeDelta::seconds(age),
            default: false,
        }
    }

    #[test]
    fn definitions_look_like_this() {
        let look = look();
        let info = |workflow: &str, version, age| info(&look, workflow, version, age);
        insta::assert_snapshot!(
            "definitions",
            render(&[info("order", 1, 90_000), info("order", 12, 3)], &look)
        );
        let queues = ["orders".to_owned(), "payments".to_owned()];
        insta::assert_snapshot!(
            "registered",
            registered(
                RegistrationOutcome::Registered,
                &info("order", 2, 0),
                &queues,
                None,
                &look
            )
        );
    }

    #[test]
    fn a_registration_tells_when_its_schedule_comes_due() {
        let look = look();
        let mut schedule = ScheduleOutlook {
            zone: "Europe/Berlin".to_owned(),
            next: (0..5).map(|day| look.now + TimeDelta::days(day)).collect(),
            paused: None,
        };
        let told = |schedule: &ScheduleOutlook| {
            let order = info(&look, "order", 2, 0);
            let text = registered(RegistrationOutcome::Registered, &order, &[], Some(schedule), &look);
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&schedule),
            [
                "  next    2026-11-18T11:06:40Z  (Wed 2026-11-18 12:06:40 Europe/Berlin)",
                "          2026-11-19T11:06:40Z  (Thu 2026-11-19 12:06:40 Europe/Berlin)",
                "          2026-11-20T11:06:40Z  (Fri 2026-11-20 12:06:40 Europe/Berlin)",
                "          2026-11-21T11:06:40Z  (Sat 2026-11-21 12:06:40 Europe/Berlin)",
                "          2026-11-22T11:06:40Z  (Sun 2026-11-22 12:06:40 Europe/Berlin)",
            ]
        );
        schedule.next.clear();
        assert_eq!(told(&schedule), ["  its schedule does not come due any more"]);
        schedule.paused = Some("too loud".to_owned());
        assert_eq!(told(&schedule), ["  its schedule is paused: too loud"]);
    }
}
