//! `knarr parked retry | edit | done | skip`: of one thing, or of everything that is chosen.

use bytes::Bytes;
use knarr_schemas::api::{ListParked, ParkedEntry, ParkedKind, RunDescription, RunName, ShowRun, verb};
use knarr_schemas::body::Answer;
use serde::Serialize;
use uuid::Uuid;

use super::args::{ActArgs, Kind};
use super::list;
use crate::api::command::OperatorCommand;
use crate::cli::again::Again;
use crate::cli::bulk::{self, Report};
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Api, Globals, interactive};
use crate::cli::{operator_code, output, show, start};

/// Most things that are done with one command.
const MOST: usize = 100_000;
/// How many are shown before asking.
const SHOWN: usize = 10;

#[derive(Debug, Clone)]
pub(super) enum Action {
    Retry,
    /// With this input.
    Edit(Bytes),
    /// With this output, empty for none.
    Done(Bytes),
    Skip,
}

impl Action {
    fn name(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Edit(_) => "edit",
            Self::Done(_) => "done",
            Self::Skip => "skip",
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Retry => "parked.retry",
            Self::Edit(_) => "parked.edit",
            Self::Done(_) => "parked.done",
            Self::Skip => "parked.skip",
        }
    }

    fn body(&self) -> Bytes {
        match self {
            Self::Retry | Self::Skip => Bytes::new(),
            Self::Edit(body) | Self::Done(body) => body.clone(),
        }
    }

    /// As in a question, `Skip 3 undos and steps?`, and behind it.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Retry => ("Retry", "retried"),
            Self::Edit(_) => ("Retry with other input", "retried with other input"),
            Self::Done(_) => ("Count as done", "counted as done"),
            Self::Skip => ("Skip", "skipped"),
        }
    }

    /// Nothing is lost by trying again.
    fn is_final(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Skip)
    }

    /// Whether it can be done about that at all, as far as the list tells.
    ///
    /// A run as a whole can be done where it waits for its output alone, which the list does not tell: it has to be asked for.
    fn is_for(&self, entry: &ParkedEntry, of_runs: bool) -> bool {
        match self {
            Self::Retry => true,
            Self::Edit(_) => entry.kind != ParkedKind::Run && entry.child.is_none(),
            Self::Done(output) => {
                entry.kind == ParkedKind::Step || output.is_empty() && (entry.kind == ParkedKind::Undo || of_runs)
            }
            Self::Skip => entry.kind != ParkedKind::Run,
        }
    }
}

/// What is asked about, in the report.
#[derive(Debug, Serialize)]
struct Named {
    workflow_id: String,
    run_id: Uuid,
    kind: ParkedKind,
    #[serde(skip_serializing_if = "String::is_empty")]
    step: String,
}

#[derive(Debug, Serialize)]
struct DryRun {
    action: &'static str,
    dry_run: bool,
    would_be_asked: Vec<ParkedEntry>,
}

pub(super) async fn run(action: Action, args: ActArgs, globals: &Globals) -> Result<(), CliError> {
    check(&action, &args)?;
    let request_id = args.bulk.request_id();
    // One thing of the open run is named in full: the orchestrator knows best, and a repeat of the request is one.
    if let (Some(run), Some(step), true, false) = (&args.run, &args.step, args.filter.is_empty(), args.bulk.dry_run)
        && run.len() != 36
    {
        if action.is_final() {
            let (what, _) = action.words();
            args.bulk.confirm(&format!("{what} `{step}` of `{run}`?"))?;
        }
        return one(&action, run, step, &request_id, &args, globals).await;
    }
    let api = globals.api().await?;
    let request = ListParked {
        run: args.run.as_deref().map(show::run_name),
        step: args.step.clone().or_else(|| args.filter.at.clone()),
        ..args.filter.request()
    };
    let of_runs = args.filter.kind == Some(Kind::Run);
    let (found, more) = list::all(&api, request, MOST).await?;
    let chosen: Vec<_> = found
        .into_iter()
        .filter(|entry| action.is_for(entry, of_runs))
        .collect();
    if chosen.is_empty() && args.run.is_some() {
        let message = format!(
            "nothing of `{}` that is parked can be {}",
            args.run.as_deref().unwrap_or_default(),
            action.words().1
        );
        return Err(CliError::new(Exit::No, &operator_code::NOTHING_FOUND, message));
    }
    if more {
        output::note(&format!("note: these are the first {MOST}; there are more"));
    }
    if args.bulk.dry_run {
        return dry_run(&action, chosen, globals);
    }
    if chosen.len() > 1 || action.is_final() {
        if interactive() && !args.bulk.yes {
            output::note(&list::render(&chosen[..chosen.len().min(SHOWN)], &globals.look()));
            if chosen.len() > SHOWN {
                output::note(&format!("… and {} more", chosen.len() - SHOWN));
            }
        }
        if !chosen.is_empty() {
            args.bulk.confirm(&question(&action, &chosen, globals))?;
        }
    }
    let connection = globals.connect().await?;
    let commands = chosen
        .iter()
        .map(|entry| command(&action, entry, &args, &request_id))
        .collect();
    let asked = bulk::ask(commands, args.bulk.rate, &connection, globals).await;
    let report = Report::new(action.name(), &args.bulk, &request_id, asked);
    if matches!(action, Action::Retry) && !globals.json() {
        tell_limits(&report, &api).await;
    }
    let name = |named: &Named| {
        let step = match named.kind {
            ParkedKind::Run => String::new(),
            ParkedKind::Step => format!(", step {}", named.step),
            ParkedKind::Undo => format!(", undo {}", named.step),
        };
        format!("{}{step}", named.workflow_id)
    };
    report.finish(action.words().1, name, globals)
}

/// A run that was parked at a limit has got more of it by being retried: what it may have now is told.
async fn tell_limits(report: &Report<Named>, api: &Api) {
    let runs = report
        .asked
        .iter()
        .filter(|asked| asked.accepted && asked.what.kind == ParkedKind::Run);
    for asked in runs.take(SHOWN) {
        let run = RunName::RunId(asked.what.run_id);
        let shown: Result<RunDescription, _> = api.call(verb::RUN_SHOW, &ShowRun { run }).await;
        for limit in shown
            .iter()
            .flat_map(|shown| &shown.limits)
            .filter(|limit| limit.warning)
        {
            let id = &asked.what.workflow_id;
            output::note(&format!("  {id} may have more now: it has {}", show::limit_text(limit)));
        }
    }
}

fn check(action: &Action, args: &ActArgs) -> Result<(), CliError> {
    let reason = args.bulk.reason.as_deref().unwrap_or_default();
    if matches!(action, Action::Skip) && reason.trim().is_empty() && !args.bulk.dry_run {
        return Err(CliError::usage("what is skipped needs a reason: --reason TEXT"));
    }
    let is_chosen = match (&args.run, &args.step) {
        (Some(_), Some(_)) => true,
        (Some(_), None) => matches!(action, Action::Retry) || args.all || !args.filter.is_empty(),
        (None, _) => args.all || !args.filter.is_empty(),
    };
    if is_chosen {
        return Ok(());
    }
    let message = match &args.run {
        Some(run) => format!("which of what is parked of `{run}`? Name the step, or give --all"),
        None => "it is not said what is meant".to_owned(),
    };
    Err(CliError::new(Exit::Usage, &operator_code::NOTHING_CHOSEN, message))
}

fn question(action: &Action, chosen: &[ParkedEntry], globals: &Globals) -> String {
    let (what, _) = action.words();
    match chosen {
        [one] => format!("{what} {} of `{}`?", list::what(one), one.workflow_id),
        many => format!(
            "{what} all {} of them in namespace `{}`?",
            many.len(),
            globals.namespace
        ),
    }
}

fn command(action: &Action, entry: &ParkedEntry, args: &ActArgs, request_id: &str) -> (Named, OperatorCommand) {
    let (kind, direction) = match entry.kind {
        ParkedKind::Run => ("run", None),
        ParkedKind::Step => ("step", Some("do")),
        ParkedKind::Undo => ("undo", Some("undo")),
    };
    let run = entry.run_id.to_string();
    let command = OperatorCommand {
        verb: action.verb(),
        workflow_id: entry.workflow_id.clone(),
        run: Some(entry.run_id),
        step: direction.map(|_| entry.step.clone()),
        direction,
        body: action.body(),
        request_id: bulk::request_id_of(request_id, &[&run, kind, &entry.step]),
        by: Some(args.bulk.by()),
        reason: args.bulk.reason.clone(),
        ..OperatorCommand::default()
    };
    let named = Named {
        workflow_id: entry.workflow_id.clone(),
        run_id: entry.run_id,
        kind: entry.kind,
        step: entry.step.clone(),
    };
    (named, command)
}

fn dry_run(action: &Action, chosen: Vec<ParkedEntry>, globals: &Globals) -> Result<(), CliError> {
    if globals.json() {
        output::print_json(&DryRun {
            action: action.name(),
            dry_run: true,
            would_be_asked: chosen,
        });
    } else {
        if !chosen.is_empty() {
            output::print(&list::render(&chosen, &globals.look()));
        }
        output::note(&format!("{} would be {}", chosen.len(), action.words().1));
    }
    Ok(())
}

async fn one(
    action: &Action,
    run: &str,
    step: &str,
    request_id: &str,
    args: &ActArgs,
    globals: &Globals,
) -> Result<(), CliError> {
    let command = OperatorCommand {
        verb: action.verb(),
        workflow_id: run.to_owned(),
        step: Some(step.to_owned()),
        body: action.body(),
        request_id: request_id.to_owned(),
        by: Some(args.bulk.by()),
        reason: args.bulk.reason.clone(),
        ..OperatorCommand::default()
    };
    let again = Again::parked(action.name(), run, step, &command, globals);
    let connection = globals.connect().await?;
    let mut stored = connection
        .commander(globals)
        .operate(command)
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let answer: Answer = stored
        .answer(Some(globals.timeout()))
        .await
        .map_err(|error| CliError::unanswered(&error, &again))?;
    start::finish(&answer, globals)
}
