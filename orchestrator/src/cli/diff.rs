//! `knarr diff`: what a new version of a definition changes.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use knarr_core::definition::diff::{Change, Diff, diff};
use knarr_schemas::api::{DefinitionDetail, ListRuns, RunPage, ShowDefinition, verb};
use knarr_schemas::body::RunSummary;
use owo_colors::OwoColorize;
use serde::Serialize;

use crate::api::source;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, Look};
use crate::cli::{check, code, list, output};

/// Statuses of runs that may still use their definition.
const OPEN: [&str; 6] = ["queued", "waiting", "running", "compensating", "paused", "parked"];
/// How many runs are told one by one.
const SHOWN: usize = 20;

/// Says what a new version of a definition changes
#[derive(Debug, Args)]
#[command(
    long_about = "Compares two versions of a definition, step by step: what is new, gone, moved, or has other settings; so too its \
                  schedule, triggers, concurrency and priority. Steps are recognised by their id; what was only written in \
                  other words is no difference.\n\nEach is a file, or name@version \
                  of a registered definition (then an orchestrator is asked). Where the old one is registered, \
                  or with --runs, the open runs that use it are told: a run keeps the definition it began with.",
    after_help = "Examples:\n  knarr diff order.yaml order-new.yaml\n  knarr diff order@3 order.yaml\n  knarr diff order@3 order@4 -o json\n\n\
                  Exit status: 0 the same, 1 they differ, 2 one cannot be read, 3 no orchestrator answers."
)]
pub struct DiffArgs {
    /// The old version: a file, or name@version
    #[arg(value_name = "OLD")]
    pub old: String,

    /// The new version: a file, or name@version
    #[arg(value_name = "NEW")]
    pub new: String,

    /// Asks an orchestrator which open runs use the old version, though it is a file
    #[arg(long)]
    pub runs: bool,
}

#[derive(Debug, Serialize)]
struct Compared {
    #[serde(rename = "diff")]
    of: Diff,
    /// That use the old version; absent where nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_runs: Option<Vec<RunSummary>>,
}

/// One side: its canonical form, and what it is.
struct Side {
    canonical: String,
    workflow: String,
    version: u32,
    registered: bool,
}

pub async fn run(args: DiffArgs, globals: &Globals) -> Result<(), CliError> {
    let old = side(&args.old, globals).await?;
    let new = side(&args.new, globals).await?;
    let of = diff(&old.canonical, &new.canonical)
        .map_err(|bad| CliError::new(Exit::Usage, &code::FILE_UNREADABLE, bad.to_string()))?;
    let open_runs = if old.registered || args.runs {
        Some(open_runs(&old, globals).await?)
    } else {
        None
    };
    let differs = !of.changes.is_empty();
    let compared = Compared { of, open_runs };
    if globals.json() {
        output::print_json(&compared);
    } else {
        output::print(&render(&compared, &globals.look()));
    }
    if differs {
        Err(CliError::silent(Exit::No))
    } else {
        Ok(())
    }
}

/// A file that is there is one, whatever its name.
async fn side(name: &str, globals: &Globals) -> Result<Side, CliError> {
    let registered = name
        .rsplit_once('@')
        .and_then(|(workflow, version)| Some((workflow, version.parse().ok()?)));
    match registered.filter(|_| !Path::new(name).exists()) {
        Some((workflow, version)) => stored(workflow, version, globals).await,
        None => {
            let local = check::load(Path::new(name))?;
            let Some(checked) = &local.read.checked else {
                check::report(&local, globals);
                return Err(CliError::silent(Exit::Usage));
            };
            Ok(Side {
                canonical: checked.canonical.clone(),
                workflow: checked.plan.workflow.to_string(),
                version: checked.plan.version,
                registered: false,
            })
        }
    }
}

async fn stored(workflow: &str, version: u32, globals: &Globals) -> Result<Side, CliError> {
    let request = ShowDefinition {
        workflow: workflow.to_owned(),
        version: Some(version),
    };
    let detail: DefinitionDetail = globals.api().await?.call(verb::DEFINITION_SHOW, &request).await?;
    // The text names the file; what was in it comes beside the text.
    let schema = detail.input_schema.as_ref().map(ToString::to_string);
    let files = |_: &str| {
        schema
            .clone()
            .ok_or_else(|| "it is not with the registered text".to_owned())
    };
    let Some(checked) = source::read(&detail.source, &files).checked else {
        let message = format!("{workflow}@{version} is registered, and cannot be read by this version of knarr");
        return Err(CliError::new(Exit::Usage, &code::FILE_UNREADABLE, message));
    };
    Ok(Side {
        canonical: checked.canonical,
        workflow: workflow.to_owned(),
        version,
        registered: true,
    })
}

async fn open_runs(of: &Side, globals: &Globals) -> Result<Vec<RunSummary>, CliError> {
    let api = globals.api().await?;
    let mut runs = Vec::new();
    for status in OPEN {
        let mut request = ListRuns {
            workflow: Some(of.workflow.clone()),
            status: Some(status.to_owned()),
            ..ListRuns::default()
        };
        loop {
            let page: RunPage = api.call(verb::RUN_LIST, &request).await?;
            runs.extend(page.runs.into_iter().filter(|run| run.version == of.version));
            request.before = page.next;
            if request.before.is_none() {
                break;
            }
        }
    }
    Ok(runs)
}

fn render(compared: &Compared, look: &Look) -> String {
    let Diff { before, after, changes } = &compared.of;
    let name = |version: &knarr_core::definition::diff::Version| format!("{} v{}", version.workflow, version.version);
    let head = output::bold(look, &format!("{} → {}", name(before), name(after)));
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = if changes.is_empty() && before == after {
        writeln!(out, "{head}: they are the same")
    } else if changes.is_empty() {
        writeln!(out, "{head}: nothing changes but the version")
    } else {
        writeln!(out, "{head}: {}", output::plural(changes.len() as u64, "change"))
    };
    for change in changes {
        let (sign, text) = (sign(change), output::cut(&change.to_string(), 300));
        let line = format!("{sign} {text}");
        let line = match sign {
            '+' if look.color => line.green().to_string(),
            '-' if look.color => line.red().to_string(),
            _ => line,
        };
        let _ = writeln!(out, "  {line}");
    }
    if let Some(runs) = &compared.open_runs {
        let count = output::plural(runs.len() as u64, "open run");
        let verb = if runs.len() == 1 { "uses" } else { "use" };
        let _ = writeln!(out, "\n{count} {verb} {}, and will go on with it", name(before));
        if !runs.is_empty() {
            out.push_str(&list::render(&runs[..runs.len().min(SHOWN)], look));
        }
        if runs.len() > SHOWN {
            let _ = writeln!(out, "… and {} more", runs.len() - SHOWN);
        }
    }
    out
}

fn sign(change: &Change) -> char {
    match change {
        Change::Added { .. } | Change::PartAdded { .. } => '+',
        Change::Removed { .. } | Change::PartRemoved { .. } => '-',
        Change::Moved { .. } => '>',
        Change::Document { .. } | Change::PartChanged { .. } | Change::Changed { .. } => '~',
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use uuid::Uuid;

    use super::*;

    fn canonical(version: u32, steps: &str) -> String {
        let text = format!(
            "workflow: order\nversion: {version}\ndefaults: {{ queue: q, start_to_close: 5s }}\nsteps:\n{steps}"
        );
        source::read(&text, &|_| Err(String::new())).checked.unwrap().canonical
    }

    #[test]
    fn differences_look_like_this() {
        let look = Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH + TimeDelta::hours(1),
        };
        let old = canonical(
            1,
            "  - a: { activity: a, read_only: true }\n  - b: { activity: b, compensate: ub }\n",
        );
        let new = canonical(
            2,
            "  - b: { activity: b, compensate: { activity: ub, input: 1 }, start_to_close: 9s }\n  - c: { wait: 1h }\n",
        );
        let of = diff(&old, &new).unwrap();
        let run = RunSummary {
            namespace: "default".into(),
            workflow_id: "order-17".into(),
            run_id: Uuid::from_u128(3),
            workflow: "order".into(),
            version: 1,
            status: "running".into(),
            started_at: DateTime::UNIX_EPOCH,
            closed_at: None,
            begins_at: None,
            attempt: None,
            retried_by: None,
        };
        let compared = Compared {
            of,
            open_runs: Some(vec![run]),
        };
        insta::assert_snapshot!("diff", render(&compared, &look));
        let same = Compared {
            of: diff(&old, &old.replace("\"version\":1", "\"version\":9")).unwrap(),
            open_runs: Some(Vec::new()),
        };
        insta::assert_snapshot!("diff_same", render(&same, &look));
    }
}
