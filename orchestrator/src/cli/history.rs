//! `knarr history`: everything that happened to a run, as a timeline.

use clap::Args;
use knarr_schemas::api::{HistoryPage, HistoryTransition, RunName, ShowHistory, verb};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::timeline::Timeline;
use crate::cli::{output, show};

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Workflow id (its open run, else the last one), or run id
    #[arg(value_name = "WORKFLOW ID | RUN ID")]
    pub run: String,

    /// At most this many transitions [default: all]
    #[arg(long, short = 'l', value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub limit: Option<u32>,

    /// Only what came after this transition
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u32>,
}

pub async fn run(args: HistoryArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let mut request = ShowHistory {
        run: show::run_name(&args.run),
        after: args.after,
        limit: args.limit,
    };
    let mut transitions: Vec<HistoryTransition> = Vec::new();
    let (run, next) = loop {
        let page: HistoryPage = api.call(verb::RUN_HISTORY, &request).await?;
        transitions.extend(page.transitions);
        // The newest run under an id may become another one between two pages.
        request.run = RunName::RunId(page.run.run_id);
        request.after = page.next;
        let left = args.limit.map(|limit| limit.saturating_sub(count(&transitions)));
        request.limit = left;
        if page.next.is_none() || left == Some(0) {
            break (page.run, page.next);
        }
    };
    if globals.json() {
        output::print_json(&HistoryPage { run, transitions, next });
        return Ok(());
    }
    let look = globals.look();
    let mut timeline = Timeline::default();
    for transition in &transitions {
        timeline.add(transition);
    }
    output::print(&format!(
        "{}  {}  {} v{}, run {}, started {}\n\n{}",
        output::bold(&look, &output::cut(&run.workflow_id, 200)),
        output::status_text(&look, &run.status),
        run.workflow,
        run.version,
        run.run_id,
        output::moment(run.started_at),
        timeline.render(&look)
    ));
    if let Some(next) = next {
        output::note(&format!("there is more: --after {next}"));
    }
    Ok(())
}

fn count(transitions: &[HistoryTransition]) -> u32 {
    u32::try_from(transitions.len()).unwrap_or(u32::MAX)
}
