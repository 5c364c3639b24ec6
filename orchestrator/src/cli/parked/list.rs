//! `knarr parked list`.

use comfy_table::Cell;
use knarr_schemas::api::{ListParked, ParkedEntry, ParkedKey, ParkedKind, ParkedPage, verb};
use serde::Serialize;

use super::args::ListArgs;
use crate::cli::error::CliError;
use crate::cli::globals::{Api, Globals, Look};
use crate::cli::{output, show};

#[derive(Debug, Serialize)]
struct Listed {
    parked: Vec<ParkedEntry>,
    /// There are more.
    more: bool,
}

pub(super) async fn run(args: ListArgs, globals: &Globals) -> Result<(), CliError> {
    let api = globals.api().await?;
    let request = ListParked {
        run: args.run.as_deref().map(show::run_name),
        ..args.filter.request()
    };
    let (parked, more) = all(&api, request, args.limit as usize).await?;
    if globals.json() {
        output::print_json(&Listed { parked, more });
        return Ok(());
    }
    if parked.is_empty() {
        output::note(&format!("nothing such is parked in namespace `{}`", globals.namespace));
        return Ok(());
    }
    output::print(&render(&parked, &globals.look()));
    if more {
        output::note(&format!("there are more: --limit {}", args.limit.saturating_mul(2)));
    }
    Ok(())
}

/// Up to `limit`, page by page, and whether there are more.
pub(super) async fn all(
    api: &Api,
    mut request: ListParked,
    limit: usize,
) -> Result<(Vec<ParkedEntry>, bool), CliError> {
    let mut parked = Vec::new();
    loop {
        let left = limit.saturating_sub(parked.len());
        request.limit = Some(u32::try_from(left).unwrap_or(u32::MAX));
        let page: ParkedPage = api.call(verb::PARKED_LIST, &request).await?;
        parked.extend(page.parked);
        let Some(next): Option<ParkedKey> = page.next else {
            return Ok((parked, false));
        };
        if parked.len() >= limit {
            return Ok((parked, true));
        }
        request.after = Some(next);
    }
}

pub(super) fn render(parked: &[ParkedEntry], look: &Look) -> String {
    let header = [
        "WORKFLOW ID",
        "WORKFLOW",
        "WHAT",
        "ACTIVITY",
        "ATTEMPTS",
        "PARKED",
        "ERROR",
    ];
    let mut table = output::table(look, &header);
    for entry in parked {
        let called = match (&entry.activity, &entry.child) {
            (Some(activity), _) => activity.clone(),
            (None, Some(child)) => format!("child {child}"),
            (None, None) => String::new(),
        };
        let attempts = if entry.attempts == 0 {
            String::new()
        } else {
            entry.attempts.to_string()
        };
        let error = match entry.kind {
            ParkedKind::Run => output::cut(&entry.failure.message, 80),
            ParkedKind::Step | ParkedKind::Undo => {
                output::cut(&format!("{}: {}", entry.failure.error_type, entry.failure.message), 80)
            }
        };
        table.add_row([
            Cell::new(output::cut(&entry.workflow_id, 60)),
            Cell::new(format!("{} v{}", entry.workflow, entry.version)),
            Cell::new(what(entry)),
            Cell::new(called),
            Cell::new(attempts),
            Cell::new(
                entry
                    .since
                    .map(|since| format!("{} ago", output::age(look, since)))
                    .unwrap_or_default(),
            ),
            Cell::new(error),
        ]);
    }
    output::table_text(&table, 0)
}

/// `undo payment`, `step ship`, `run`
pub(super) fn what(entry: &ParkedEntry) -> String {
    match entry.kind {
        ParkedKind::Run => "run".to_owned(),
        ParkedKind::Step => format!("step {}", entry.step),
        ParkedKind::Undo => format!("undo {}", entry.step),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone as _, Utc};
    use knarr_schemas::body::FailureBody;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_list_of_what_is_parked() {
        let now = Utc.timestamp_opt(1_795_000_000, 0).unwrap();
        let undo = ParkedEntry {
            workflow_id: "order-17".into(),
            run_id: Uuid::from_u128(7),
            workflow: "order".into(),
            version: 3,
            status: "parked".into(),
            kind: ParkedKind::Undo,
            step: "payment".into(),
            activity: Some("refund-payment".into()),
            child: None,
            attempts: 10,
            failure: FailureBody {
                step: Some("payment".into()),
                error_type: "account_closed".into(),
                message: "the account of the customer is closed, and no other one is known".into(),
            },
            since: Some(now - TimeDelta::minutes(12)),
            input: None,
            omitted_bytes: None,
        };
        let child = ParkedEntry {
            workflow_id: "order-18".into(),
            kind: ParkedKind::Step,
            step: "lines[3].ship".into(),
            activity: None,
            child: Some("order-18/ship".into()),
            attempts: 0,
            since: None,
            ..undo.clone()
        };
        let whole = ParkedEntry {
            workflow_id: "order-19".into(),
            kind: ParkedKind::Run,
            step: String::new(),
            activity: None,
            attempts: 0,
            failure: FailureBody {
                step: None,
                error_type: "parked".into(),
                message: "the run has 50000 events, which is its limit".into(),
            },
            ..undo.clone()
        };
        let look = Look {
            color: false,
            width: None,
            now,
        };
        insta::assert_snapshot!("parked", render(&[undo, child, whole], &look));
    }
}
