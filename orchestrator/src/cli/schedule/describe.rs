//! `knarr schedule describe`.

use std::fmt::Write as _;

use clap::Args;
use knarr_schemas::api::{ScheduleDescription, ShowSchedule, verb};

use super::in_zone;
use super::list::when;
use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The schedule
    #[arg(value_name = "NAME")]
    pub name: String,

    /// How many of the occurrences to come
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000), value_name = "N")]
    pub next: u32,
}

pub(super) async fn run(args: DescribeArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let request = ShowSchedule {
        name: args.name,
        next: Some(args.next),
    };
    let description: ScheduleDescription = api.call(verb::SCHEDULE_SHOW, &request).await?;
    if globals.json() {
        output::print_json(&description);
    } else {
        output::print(&render(&description, &globals.look()));
    }
    Ok(())
}

fn render(schedule: &ScheduleDescription, look: &Look) -> String {
    let summary = &schedule.summary;
    let document = &summary.schedule;
    let text = |key: &str| document[key].as_str();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let state = output::status_text(look, summary.standing());
    let _ = writeln!(out, "{} {state}", output::bold(look, &summary.name));
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(out, "  {}  {value}", output::dim(look, &format!("{name:<9}")));
    };
    if let Some(reason) = &summary.paused {
        field("paused", reason);
    }
    if let Some(note) = text("note") {
        field("note", note);
    }
    let version = document["version"].as_u64().map(|version| format!(" v{version}"));
    field(
        "starts",
        &format!("{}{}", summary.workflow, version.unwrap_or_default()),
    );
    if let Some(version) = summary.version {
        field("made by", &format!("the definition {} v{version}", summary.workflow));
    }
    field("when", &when(document));
    for key in ["start_at", "end_at", "jitter"] {
        if let Some(value) = text(key) {
            field(key, value);
        }
    }
    let pauses = match document["pause_on_failure"].as_bool() {
        Some(true) => ", pauses on failure",
        _ => "",
    };
    let policy = format!(
        "{}, catches up within {}{pauses}",
        text("overlap").unwrap_or("skip"),
        text("catch_up_window").unwrap_or_default()
    );
    field("overlap", &policy);
    if let Some(remaining) = summary.remaining {
        field("remaining", &remaining.to_string());
    }
    let counts = format!(
        "{} started, {} skipped, {} missed, {} failed",
        schedule.started, schedule.skipped, schedule.missed, schedule.failed
    );
    field("so far", &counts);
    for range in &schedule.backfills {
        field(
            "backfill",
            &format!(
                "{} to {} ({})",
                output::moment(range.after),
                output::moment(range.until),
                range.overlap
            ),
        );
    }
    section(&mut out, look, "NEXT", schedule.upcoming.is_empty());
    let zone = text("zone").unwrap_or("UTC");
    for next in &schedule.upcoming {
        let nominal = output::moment(next.nominal_time);
        let late = (next.fires_at - next.nominal_time).num_milliseconds();
        let late = if late > 0 {
            format!("  + {}", output::span(late))
        } else {
            String::new()
        };
        let _ = writeln!(out, "  {}{late}", in_zone(&nominal, zone));
    }
    if !schedule.open.is_empty() {
        section(&mut out, look, "OPEN", false);
        for open in &schedule.open {
            let state = match (open.started, open.stopping) {
                (_, true) => "stopping",
                (true, _) => "running",
                (false, _) => "starting",
            };
            let _ = writeln!(out, "  {}  {}", open.workflow_id, output::status_text(look, state));
        }
    }
    if !schedule.waiting.is_empty() {
        section(&mut out, look, "WAITING", false);
        for at in schedule.waiting.iter().take(10) {
            let _ = writeln!(out, "  {}", output::moment(*at));
        }
        if schedule.waiting.len() > 10 {
            let _ = writeln!(out, "  and {} more", schedule.waiting.len() - 10);
        }
    }
    section(&mut out, look, "PAST", schedule.past.is_empty());
    for past in schedule.past.iter().rev() {
        let nominal = output::moment(past.nominal_time);
        let trigger = past.trigger.map(|n| format!(" (trigger {n})")).unwrap_or_default();
        let why = past
            .message
            .as_ref()
            .map(|message| format!(": {message}"))
            .unwrap_or_default();
        let id = past
            .workflow_id
            .as_ref()
            .map(|id| format!("  {id}"))
            .unwrap_or_default();
        let became = output::status_text(look, &past.became);
        let _ = writeln!(out, "  {nominal}{trigger}  {became}{why}{id}");
    }
    out
}

fn section(out: &mut String, look: &Look, name: &str, empty: bool) {
    let none = if empty { "  -" } else { "" };
    let _ = writeln!(out, "\n{}{none}", output::dim(look, name));
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    #[test]
    fn a_description_tells_what_comes_what_is_open_and_what_has_been() {
        let golden = include_str!("../../../../schemas/golden/v1/api-schedule-show-reply.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let description: ScheduleDescription = serde_json::from_value(golden["body"].clone()).unwrap();
        let look = Look {
            color: false,
            width: Some(100),
            now: DateTime::<Utc>::UNIX_EPOCH,
        };
        insta::assert_snapshot!("description", render(&description, &look));
    }
}
