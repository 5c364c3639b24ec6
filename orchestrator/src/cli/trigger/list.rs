//! `knarr trigger list`.

use clap::Args;
use knarr_schemas::api::{ListTriggers, TriggerName, TriggerPage, TriggerSummary, verb};
use serde_json::Value;

use super::named;
use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// At most this many
    #[arg(long, short = 'l', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub limit: u32,

    /// Only those behind this one: the next page
    #[arg(long, value_name = "WORKFLOW/NAME", value_parser = named)]
    pub after: Option<TriggerName>,
}

pub(super) async fn run(args: &ListArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let mut page = TriggerPage {
        triggers: Vec::new(),
        next: args.after.clone(),
    };
    loop {
        let left = args
            .limit
            .saturating_sub(u32::try_from(page.triggers.len()).unwrap_or(u32::MAX));
        let request = ListTriggers {
            after: page.next.take(),
            limit: Some(left),
        };
        let more: TriggerPage = api.call(verb::TRIGGER_LIST, &request).await?;
        page.triggers.extend(more.triggers);
        page.next = more.next;
        if page.next.is_none() || page.triggers.len() >= args.limit as usize {
            break;
        }
    }
    if globals.json() {
        output::print_json(&page);
        return Ok(());
    }
    if page.triggers.is_empty() {
        output::note(&format!("no triggers in namespace `{}`", globals.namespace));
        return Ok(());
    }
    output::print(&render(&page.triggers, &globals.look()));
    if let Some(next) = page.next {
        output::note(&format!("there are more: --after {}/{}", next.workflow, next.name));
    }
    Ok(())
}

fn render(triggers: &[TriggerSummary], look: &Look) -> String {
    let mut table = output::table(look, &["TRIGGER", "STATUS", "STREAM", "SUBJECT", "DOES", "VERSION"]);
    for trigger in triggers {
        let document = &trigger.trigger;
        let name = format!("{}/{}", trigger.workflow, trigger.name);
        table.add_row([
            comfy_table::Cell::new(output::cut(&name, 60)),
            output::status_cell(look, trigger.standing()),
            comfy_table::Cell::new(output::cut(document["stream"].as_str().unwrap_or("-"), 30)),
            comfy_table::Cell::new(output::cut(document["subject"].as_str().unwrap_or("-"), 50)),
            comfy_table::Cell::new(output::cut(&does(document), 40)),
            comfy_table::Cell::new(trigger.version),
        ]);
    }
    output::table_text(&table, 0)
}

/// What becomes of an event.
pub(super) fn does(document: &Value) -> String {
    match (document["signal"].as_str(), document["start"].as_bool()) {
        (None, _) => "starts".to_owned(),
        (Some(signal), Some(true)) => format!("starts, signals {signal}"),
        (Some(signal), _) => format!("signals {signal}"),
    }
}
