//! `knarr trigger show`.

use std::fmt::Write as _;

use clap::Args;
use knarr_schemas::api::{ShowTrigger, TriggerDescription, TriggerName, verb};

use super::list::does;
use super::named;
use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The trigger: its workflow's name and its own
    #[arg(value_name = "WORKFLOW/NAME", value_parser = named)]
    pub trigger: TriggerName,
}

pub(super) async fn run(args: ShowArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let TriggerName { workflow, name } = args.trigger;
    let description: TriggerDescription = api.call(verb::TRIGGER_SHOW, &ShowTrigger { workflow, name }).await?;
    if globals.json() {
        output::print_json(&description);
    } else {
        output::print(&render(&description, &globals.look()));
    }
    Ok(())
}

fn render(trigger: &TriggerDescription, look: &Look) -> String {
    let summary = &trigger.summary;
    let document = &summary.trigger;
    let text = |key: &str| document[key].as_str();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let name = format!("{}/{}", summary.workflow, summary.name);
    let state = output::status_text(look, summary.standing());
    let _ = writeln!(out, "{} {state}", output::bold(look, &name));
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(out, "  {}  {value}", output::dim(look, &format!("{name:<8}")));
    };
    if let Some(reason) = &summary.paused {
        field("paused", reason);
    }
    if let Some(problem) = &summary.trouble {
        field("trouble", problem);
    }
    let subject = text("subject").unwrap_or(">");
    match text("stream") {
        Some(stream) => field("reads", &format!("{subject} of the stream {stream}")),
        None => field("hears", &format!("{subject}, at most once")),
    }
    for key in ["filter", "id"] {
        if let Some(value) = text(key) {
            field(key, value);
        }
    }
    field("does", &does(document));
    if let Some(gather) = document.get("debounce") {
        let of = |key: &str| gather[key].as_str().unwrap_or_default();
        let told = format!(
            "the latest, once it is quiet for {}, within {}",
            of("quiet"),
            of("max_wait")
        );
        field("gathers", &told);
    }
    if let Some(gather) = document.get("batch") {
        let told = format!(
            "{}, within {}",
            gather["max"],
            gather["wait"].as_str().unwrap_or_default()
        );
        field("gathers", &told);
    }
    field(
        "made by",
        &format!("the definition {} v{}", summary.workflow, summary.version),
    );
    match &trigger.place {
        Some(place) => field("read to", &format!("{} ({})", place.sequence, output::moment(place.at))),
        None if text("stream").is_some() => field("read to", "nothing yet"),
        None => {}
    }
    let on_its_way = format!(
        "{} sent, {} waiting, {} gathering",
        trigger.sent, trigger.waiting, trigger.gathering
    );
    field("now", &on_its_way);
    let counts = format!(
        "{} taken, {} skipped, {} started, {} signalled, {} refused",
        trigger.taken, trigger.skipped, trigger.started, trigger.signalled, trigger.refused
    );
    field("so far", &counts);
    if !trigger.lost.is_empty() {
        let _ = writeln!(out, "\n{}", output::dim(look, "LOST"));
        for gap in trigger.lost.iter().rev() {
            let (at, why) = (output::moment(gap.at), &gap.why);
            let _ = writeln!(
                out,
                "  {at}  {why}: after {}, goes on behind {}",
                gap.after, gap.resumes
            );
        }
    }
    if !trigger.past.is_empty() {
        let _ = writeln!(out, "\n{}", output::dim(look, "REFUSED"));
        for past in trigger.past.iter().rev() {
            let id = past
                .workflow_id
                .as_ref()
                .map(|id| format!("  {id}"))
                .unwrap_or_default();
            let (at, sequence) = (output::moment(past.at), past.sequence);
            let _ = writeln!(out, "  {at}  {sequence}{id}  {}", past.message);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    #[test]
    fn a_trigger_tells_what_it_reads_how_far_it_is_and_what_was_refused() {
        let golden = include_str!("../../../../schemas/golden/v1/api-trigger-show-reply.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let description: TriggerDescription = serde_json::from_value(golden["body"].clone()).unwrap();
        let look = Look {
            color: false,
            width: Some(100),
            now: DateTime::<Utc>::UNIX_EPOCH,
        };
        insta::assert_snapshot!("trigger", render(&description, &look));
    }
}
