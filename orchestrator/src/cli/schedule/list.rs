//! `knarr schedule list`.

use clap::Args;
use knarr_schemas::api::{ListSchedules, SchedulePage, ScheduleSummary, verb};
use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// At most this many
    #[arg(long, short = 'l', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub limit: u32,

    /// Only those behind this one, by name: the next page
    #[arg(long, value_name = "NAME")]
    pub after: Option<String>,
}

pub(super) async fn run(args: &ListArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let mut page = SchedulePage {
        schedules: Vec::new(),
        next: args.after.clone(),
    };
    loop {
        let left = args
            .limit
            .saturating_sub(u32::try_from(page.schedules.len()).unwrap_or(u32::MAX));
        let request = ListSchedules {
            after: page.next.take(),
            limit: Some(left),
        };
        let more: SchedulePage = api.call(verb::SCHEDULE_LIST, &request).await?;
        page.schedules.extend(more.schedules);
        page.next = more.next;
        if page.next.is_none() || page.schedules.len() >= args.limit as usize {
            break;
        }
    }
    if globals.json() {
        output::print_json(&page);
        return Ok(());
    }
    if page.schedules.is_empty() {
        output::note(&format!("no schedules in namespace `{}`", globals.namespace));
        return Ok(());
    }
    output::print(&render(&page.schedules, &globals.look()));
    if let Some(next) = page.next {
        output::note(&format!("there are more: --after {next}"));
    }
    Ok(())
}

fn render(schedules: &[ScheduleSummary], look: &Look) -> String {
    let mut table = output::table(look, &["NAME", "STATUS", "WORKFLOW", "WHEN", "OVERLAP", "NEXT"]);
    for schedule in schedules {
        let next = schedule.next.map_or_else(|| "-".to_owned(), output::moment);
        table.add_row([
            comfy_table::Cell::new(output::cut(&schedule.name, 60)),
            output::status_cell(look, schedule.standing()),
            comfy_table::Cell::new(&schedule.workflow),
            comfy_table::Cell::new(output::cut(&when(&schedule.schedule), 50)),
            comfy_table::Cell::new(schedule.schedule["overlap"].as_str().unwrap_or("-")),
            comfy_table::Cell::new(next),
        ]);
    }
    output::table_text(&table, 0)
}

/// Its rules in one line.
pub(super) fn when(document: &Value) -> String {
    let mut rules = Vec::new();
    for key in ["cron", "every", "calendars"] {
        for rule in document[key].as_array().into_iter().flatten() {
            rules.push(match (key, rule) {
                ("cron", Value::String(text)) => text.clone(),
                ("every", Value::String(text)) => format!("every {text}"),
                ("every", rule) => format!(
                    "every {} + {}",
                    rule["every"].as_str().unwrap_or_default(),
                    rule["phase"].as_str().unwrap_or_default()
                ),
                (_, rule) => {
                    let fields = rule.as_object().into_iter().flatten();
                    let fields: Vec<_> = fields
                        .map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or_default()))
                        .collect();
                    fields.join(" ")
                }
            });
        }
    }
    let zone = document["zone"].as_str().filter(|zone| *zone != "UTC");
    let mut text = rules.join("; ");
    if let Some(zone) = zone {
        text.push_str(&format!(" {zone}"));
    }
    text
}
