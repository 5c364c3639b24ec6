//! `knarr migrate`: open runs go on with another version of their definition.

use std::collections::HashSet;

use clap::Args;
use comfy_table::Cell;
use knarr_schemas::api::{CheckMigration, MigrationEntry, MigrationPage, verb};
use serde::Serialize;
use uuid::Uuid;

use crate::api::command::OperatorCommand;
use crate::cli::bulk::{self, BulkArgs, Report};
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Api, Globals, Look, interactive};
use crate::cli::{operator_code, output, show};

/// In the order in which they are looked through.
const STATUSES: [&str; 6] = ["queued", "waiting", "running", "compensating", "paused", "parked"];
/// Most runs that are moved by one command.
const MOST: usize = 100_000;
/// How many are told one by one.
const SHOWN: usize = 20;

/// Moves open runs to another version of their definition
#[derive(Debug, Args)]
#[command(
    long_about = "Moves open runs to another version of their definition. A run may move if everything it has passed, or has \
                  under way, is the same in that version, its undos included; what it has not reached may be anything. \
                  Those that may not are told, with the step that keeps them, and go on as they are.",
    after_help = "\
Exit status: 0 all that were asked have moved, 1 some may not, 2 wrong usage, 3 NATS or orchestrator missing, or no answer.

Examples:
  knarr migrate order --to 4 --dry-run
  knarr migrate order --to 4 --from 3 --reason 'the new carrier'
  knarr migrate order --to 4 order-17 order-18"
)]
pub struct MigrateArgs {
    /// The workflow
    #[arg(value_name = "WORKFLOW")]
    pub workflow: String,

    /// Only these runs: workflow ids or run ids [default: all that are open]
    #[arg(value_name = "WORKFLOW ID | RUN ID")]
    pub runs: Vec<String>,

    /// The version to move to
    #[arg(long, value_name = "VERSION")]
    pub to: u32,

    /// Only runs of this version
    #[arg(long, value_name = "VERSION")]
    pub from: Option<u32>,

    /// Only runs in this status
    #[arg(long, short = 's', value_name = "STATUS", value_parser = STATUSES)]
    pub status: Option<String>,

    #[command(flatten)]
    pub bulk: BulkArgs,
}

#[derive(Debug, Serialize)]
struct Named {
    workflow_id: String,
    run_id: Uuid,
}

#[derive(Debug, Serialize)]
struct Looked {
    dry_run: bool,
    may_move: usize,
    runs: Vec<MigrationEntry>,
}

pub async fn run(args: MigrateArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let runs = distinct(entries(&args, &api).await?);
    let (may, not): (Vec<_>, Vec<_>) = runs.into_iter().partition(|entry| entry.refused.is_none());
    if args.bulk.dry_run {
        return look(may, not, globals);
    }
    if !globals.json() && !not.is_empty() {
        output::note(&render(&not, &globals.look()));
    }
    let question = format!("Move {} to v{}?", output::plural(may.len() as u64, "run"), args.to);
    if !may.is_empty() && (may.len() > 1 || interactive()) {
        args.bulk.confirm(&question)?;
    }
    let request_id = args.bulk.request_id();
    let connection = globals.connect().await?;
    let commands = may.iter().map(|entry| command(entry, &args, &request_id)).collect();
    let mut asked = bulk::ask(commands, args.bulk.rate, &connection, globals).await;
    asked.extend(not.into_iter().map(|entry| bulk::Asked {
        what: named(&entry),
        accepted: false,
        error: entry.refused,
    }));
    let report = Report::new("migrate", &args.bulk, &request_id, asked);
    report.finish("moved", |named: &Named| named.workflow_id.clone(), globals)
}

async fn entries(args: &MigrateArgs, api: &Api) -> Result<Vec<MigrationEntry>, CliError> {
    let mut request = CheckMigration {
        workflow: args.workflow.clone(),
        to: args.to,
        from: args.from,
        run: None,
        status: None,
        before: None,
        limit: None,
    };
    let mut runs = Vec::new();
    for run in &args.runs {
        request.run = Some(show::run_name(run));
        let page: MigrationPage = api.call(verb::MIGRATION_CHECK, &request).await?;
        let wanted = |entry: &MigrationEntry| {
            args.from.is_none_or(|from| from == entry.run.version)
                && args.status.as_ref().is_none_or(|status| *status == entry.run.status)
        };
        runs.extend(page.runs.into_iter().filter(wanted));
    }
    if !args.runs.is_empty() {
        return Ok(runs);
    }
    for status in STATUSES {
        if args.status.as_ref().is_some_and(|only| only != status) {
            continue;
        }
        request.status = Some(status.to_owned());
        request.before = None;
        loop {
            let page: MigrationPage = api.call(verb::MIGRATION_CHECK, &request).await?;
            runs.extend(page.runs);
            request.before = page.next;
            if request.before.is_none() {
                break;
            }
            if runs.len() >= MOST {
                output::note(&format!("note: these are the first {}; there are more", runs.len()));
                return Ok(runs);
            }
        }
    }
    Ok(runs)
}

/// A run that was named twice, or whose status changed while one after the other was listed, is one run.
fn distinct(mut runs: Vec<MigrationEntry>) -> Vec<MigrationEntry> {
    let mut seen = HashSet::new();
    runs.retain(|entry| seen.insert(entry.run.run_id));
    runs
}

fn named(entry: &MigrationEntry) -> Named {
    Named {
        workflow_id: entry.run.workflow_id.clone(),
        run_id: entry.run.run_id,
    }
}

fn command(entry: &MigrationEntry, args: &MigrateArgs, request_id: &str) -> (Named, OperatorCommand) {
    let run = entry.run.run_id.to_string();
    let command = OperatorCommand {
        verb: "migrate",
        workflow_id: entry.run.workflow_id.clone(),
        run: Some(entry.run.run_id),
        version: Some((args.workflow.clone(), args.to)),
        request_id: bulk::request_id_of(request_id, &[&run, "migrate"]),
        by: Some(args.bulk.by()),
        reason: args.bulk.reason.clone(),
        ..OperatorCommand::default()
    };
    (named(entry), command)
}

fn look(may: Vec<MigrationEntry>, not: Vec<MigrationEntry>, globals: &Globals) -> Result<(), CliError> {
    let (able, unable) = (may.len(), not.len());
    let all: Vec<_> = may.into_iter().chain(not).collect();
    if globals.json() {
        output::print_json(&Looked {
            dry_run: true,
            may_move: able,
            runs: all,
        });
    } else {
        if !all.is_empty() {
            output::print(&render(&all, &globals.look()));
        }
        output::note(&format!("{able} may move, {unable} may not"));
    }
    if unable == 0 {
        return Ok(());
    }
    if globals.json() {
        return Err(CliError::silent(Exit::No));
    }
    let message = format!("{unable} of {} may not move", able + unable);
    Err(CliError::new(Exit::No, &operator_code::PARTLY_DONE, message))
}

fn render(entries: &[MigrationEntry], look: &Look) -> String {
    let mut table = output::table(look, &["WORKFLOW ID", "STATUS", "VERSION", "AGE", "MAY MOVE"]);
    for entry in entries.iter().take(SHOWN) {
        let may = match &entry.refused {
            None => "yes".to_owned(),
            Some(error) => format!("no: {}", output::cut(&error.message, 120)),
        };
        table.add_row([
            Cell::new(output::cut(&entry.run.workflow_id, 60)),
            output::status_cell(look, &entry.run.status),
            Cell::new(format!("v{}", entry.run.version)),
            Cell::new(output::age(look, entry.run.started_at)),
            Cell::new(may),
        ]);
    }
    let mut text = output::table_text(&table, 0);
    if entries.len() > SHOWN {
        text.push_str(&format!("… and {} more\n", entries.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use knarr_schemas::body::RunSummary;

    use super::*;

    #[test]
    fn a_run_that_is_listed_twice_is_asked_once() {
        let entry = |run: u128, status: &str| MigrationEntry {
            run: RunSummary {
                namespace: "default".into(),
                workflow_id: format!("order-{run}"),
                run_id: Uuid::from_u128(run),
                workflow: "order".into(),
                version: 3,
                status: status.into(),
                started_at: DateTime::UNIX_EPOCH,
                closed_at: None,
                begins_at: None,
                attempt: None,
                retried_by: None,
            },
            refused: None,
        };
        let listed = vec![entry(1, "running"), entry(2, "running"), entry(1, "parked")];
        let asked: Vec<_> = distinct(listed)
            .iter()
            .map(|entry| entry.run.run_id.as_u128())
            .collect();
        assert_eq!(asked, [1, 2]);
    }
}
