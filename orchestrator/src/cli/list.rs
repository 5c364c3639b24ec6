//! `knarr list`: runs of the namespace, newest first.

use clap::Args;
use knarr_schemas::api::{ListRuns, RunPage, verb};
use knarr_schemas::body::RunSummary;
use uuid::Uuid;

use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only runs of this definition
    #[arg(long, short = 'w', value_name = "NAME")]
    pub workflow: Option<String>,

    /// Only runs in this status, like `running`, `parked` or `compensated`
    #[arg(long, short = 's', value_name = "STATUS", value_parser = STATUSES)]
    pub status: Option<String>,

    /// Only runs under this workflow id
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// At most this many
    #[arg(long, short = 'l', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub limit: u32,

    /// Only runs started before this one: the next page
    #[arg(long, value_name = "RUN ID")]
    pub before: Option<Uuid>,
}

const STATUSES: [&str; 15] = [
    "queued",
    "waiting",
    "running",
    "compensating",
    "paused",
    "parked",
    "completed",
    "failed",
    "compensated",
    "compensation_failed",
    "cancelled",
    "timed_out",
    "terminated",
    "continued_as_new",
    "skipped",
];

pub async fn run(args: ListArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let mut request = ListRuns {
        workflow: args.workflow,
        workflow_id: args.id,
        status: args.status,
        before: args.before,
        limit: Some(args.limit),
    };
    let mut page: RunPage = api.call(verb::RUN_LIST, &request).await?;
    while let Some(next) = page.next
        && let Some(left @ 1..) = args
            .limit
            .checked_sub(u32::try_from(page.runs.len()).unwrap_or(u32::MAX))
    {
        request.before = Some(next);
        request.limit = Some(left);
        let more: RunPage = api.call(verb::RUN_LIST, &request).await?;
        page.runs.extend(more.runs);
        page.next = more.next;
    }
    if globals.json() {
        output::print_json(&page);
        return Ok(());
    }
    if page.runs.is_empty() {
        output::note(&format!("no such runs in namespace `{}`", globals.namespace));
        return Ok(());
    }
    output::print(&render(&page.runs, &globals.look()));
    if let Some(next) = page.next {
        output::note(&format!("there are more: --before {next}"));
    }
    Ok(())
}

pub fn render(runs: &[RunSummary], look: &Look) -> String {
    let again = runs.iter().any(|run| run.attempt.is_some());
    let mut heads = vec!["WORKFLOW ID", "STATUS", "WORKFLOW", "AGE", "TOOK", "RUN ID"];
    heads.extend(again.then_some("ATTEMPT"));
    let mut table = output::table(look, &heads);
    for run in runs {
        let took = run.closed_at.map_or_else(
            || "-".to_owned(),
            |closed| output::span((closed - run.started_at).num_milliseconds()),
        );
        let mut row = vec![
            comfy_table::Cell::new(output::cut(&run.workflow_id, 60)),
            output::status_cell(look, &run.status),
            comfy_table::Cell::new(format!("{} v{}", run.workflow, run.version)),
            comfy_table::Cell::new(output::age(look, run.started_at)),
            comfy_table::Cell::new(took),
            comfy_table::Cell::new(run.run_id.to_string()),
        ];
        let attempt = run.attempt.as_ref().map(|attempt| match run.closed_at {
            None => format!("{}{}", attempt.number, output::begins(look, attempt.begins_at)),
            Some(_) => attempt.number.to_string(),
        });
        row.extend(again.then(|| comfy_table::Cell::new(attempt.unwrap_or_default())));
        table.add_row(row);
    }
    output::table_text(&table, 0)
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone, Utc};

    use knarr_schemas::body::RunAttempt;

    use super::*;

    #[test]
    fn a_list_is_a_table_without_frames() {
        let now = Utc.timestamp_opt(1_795_000_000, 0).unwrap();
        let run = |n: u128, id: &str, status: &str, age: i64, took: Option<i64>| RunSummary {
            namespace: "default".into(),
            workflow_id: id.into(),
            run_id: Uuid::from_u128(n),
            workflow: "order".into(),
            version: 2,
            status: status.into(),
            started_at: now - TimeDelta::seconds(age),
            closed_at: took.map(|ms| now - TimeDelta::seconds(age) + TimeDelta::milliseconds(ms)),
            begins_at: None,
            attempt: None,
            retried_by: None,
        };
        let runs = [
            run(3, "order-17", "running", 4, None),
            run(2, &"x".repeat(70), "compensation_failed", 400, Some(31_020)),
            run(1, "order-\u{1b}[31m1", "completed", 90_000, Some(8)),
        ];
        let look = Look {
            color: false,
            width: None,
            now,
        };
        insta::assert_snapshot!("list", render(&runs, &look));
    }

    #[test]
    fn attempts_have_a_column_where_there_are_any() {
        let now = Utc.timestamp_opt(1_795_000_000, 0).unwrap();
        let run = |n: u128, attempt: Option<(u32, i64)>, closed: bool| RunSummary {
            namespace: "default".into(),
            workflow_id: "order-1".into(),
            run_id: Uuid::from_u128(n),
            workflow: "order".into(),
            version: 2,
            status: if closed { "compensated" } else { "running" }.into(),
            started_at: now - TimeDelta::seconds(9),
            closed_at: closed.then_some(now),
            begins_at: None,
            attempt: attempt.map(|(number, begins_in)| RunAttempt {
                number,
                most: None,
                first: None,
                begins_at: now + TimeDelta::seconds(begins_in),
            }),
            retried_by: None,
        };
        let look = Look {
            color: false,
            width: None,
            now,
        };
        let list = render(
            &[
                run(3, Some((3, 12)), false),
                run(2, Some((2, -40)), true),
                run(1, None, true),
            ],
            &look,
        );
        let lines: Vec<&str> = list.lines().map(str::trim_end).collect();
        assert!(lines[0].ends_with("ATTEMPT"), "{list}");
        assert!(lines[1].ends_with("3, begins in 12s"), "{list}");
        assert!(lines[2].ends_with("  2"), "{list}");
        assert!(lines[3].ends_with(&Uuid::from_u128(1).to_string()), "{list}");
        assert!(!render(&[run(1, None, true)], &look).contains("ATTEMPT"));
    }
}
