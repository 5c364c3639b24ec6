//! `knarr history`: everything that happened to a run, as a timeline.

use clap::Args;
use knarr_schemas::api::{HistoryPage, HistoryTransition, RunName, ShowHistory, verb};
use knarr_schemas::body::RunSummary;

use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
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
    output::print(&render(&run, &transitions, &globals.look()));
    if let Some(note) = rest(&transitions, args.after, next) {
        output::note(&note);
    }
    Ok(())
}

fn render(run: &RunSummary, transitions: &[HistoryTransition], look: &Look) -> String {
    let head = format!(
        "{}  {}  {} v{}, run {}, started {}",
        output::bold(look, &output::cut(&run.workflow_id, 200)),
        output::status_text(look, &run.status),
        run.workflow,
        run.version,
        run.run_id,
        output::moment(run.started_at),
    );
    if transitions.is_empty() {
        return head;
    }
    let mut timeline = Timeline::default();
    for transition in transitions {
        timeline.add(transition);
    }
    format!("{head}\n\n{}", timeline.render(look))
}

/// What there is beside what is shown.
fn rest(transitions: &[HistoryTransition], after: Option<u32>, next: Option<u32>) -> Option<String> {
    match (next, after) {
        (Some(next), _) => Some(format!("there is more: --after {next}")),
        (None, Some(after)) if transitions.is_empty() => Some(format!("nothing has happened after transition {after}")),
        (None, _) => None,
    }
}

fn count(transitions: &[HistoryTransition]) -> u32 {
    u32::try_from(transitions.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_place_behind_the_end_is_said_to_have_nothing_behind_it() {
        let run = RunSummary {
            namespace: "default".into(),
            workflow_id: "o-1".into(),
            run_id: Uuid::from_u128(1),
            workflow: "order".into(),
            version: 2,
            status: "completed".into(),
            started_at: DateTime::UNIX_EPOCH,
            closed_at: Some(DateTime::UNIX_EPOCH),
            begins_at: None,
            attempt: None,
            retried_by: None,
        };
        let look = Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH,
        };
        assert_eq!(
            render(&run, &[], &look),
            format!(
                "o-1  completed  order v2, run {}, started 1970-01-01T00:00:00Z",
                run.run_id
            )
        );
        let none = rest(&[], Some(9), None);
        assert_eq!(none.as_deref(), Some("nothing has happened after transition 9"));
        let transition = HistoryTransition {
            seq: 4,
            at: DateTime::UNIX_EPOCH,
            events: Vec::new(),
            omitted_bytes: None,
        };
        let some = [transition];
        assert_eq!(rest(&some, Some(3), None), None);
        assert_eq!(rest(&some, None, Some(4)).as_deref(), Some("there is more: --after 4"));
    }
}
