//! `knarr show`: one run, and the state it is in.

use std::fmt::Write as _;

use clap::Args;
use comfy_table::Cell;
use knarr_schemas::api::{LedgerEntry, LimitUsage, RunDescription, RunName, RunTurn, ShowRun, verb};
use knarr_schemas::body::RunAttempt;
use uuid::Uuid;

use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Workflow id (its open run, else the last one), or run id
    #[arg(value_name = "WORKFLOW ID | RUN ID")]
    pub run: String,
}

/// A text in the form of a run id is one; an id of one's own in that form can be found with `list --id`.
pub fn run_name(text: &str) -> RunName {
    match text.parse::<Uuid>() {
        Ok(id) if text.len() == 36 => RunName::RunId(id),
        _ => RunName::WorkflowId(text.to_owned()),
    }
}

pub async fn run(args: ShowArgs, globals: &Globals) -> Result<(), CliError> {
    let request = ShowRun {
        run: run_name(&args.run),
    };
    let description: RunDescription = globals.api().await?.call(verb::RUN_SHOW, &request).await?;
    if globals.json() {
        output::print_json(&description);
    } else {
        output::print(&render(&description, &globals.look()));
    }
    Ok(())
}

pub fn render(description: &RunDescription, look: &Look) -> String {
    let mut out = String::new();
    summary(&mut out, description, look);
    steps(&mut out, description, look);
    undo(&mut out, description, look);
    tasks(&mut out, description, look);
    waiting(&mut out, description, look);
    updates(&mut out, description, look);
    signals(&mut out, description, look);
    operations(&mut out, description, look);
    if description.shortened {
        let lists = description.left_out.map_or("", |_| ", and so were parts of long lists");
        let _ = writeln!(
            out,
            "\nInput and outputs are too large for one answer and were left out{lists}; `knarr history` has all of it."
        );
    }
    out
}

fn summary(out: &mut String, description: &RunDescription, look: &Look) {
    let run = &description.run;
    let when = match run.closed_at {
        None => format!("started {} ago", output::age(look, run.started_at)),
        Some(closed) => format!(
            "closed {} ago, took {}",
            output::age(look, closed),
            output::span((closed - run.started_at).num_milliseconds())
        ),
    };
    let _ = writeln!(
        out,
        "{}  {}  {} v{}, {when}",
        output::bold(look, &output::cut(&run.workflow_id, 200)),
        output::status_text(look, &run.status),
        run.workflow,
        run.version,
    );
    let mut field = |name: &str, text: String| {
        let _ = writeln!(out, "  {}  {text}", output::dim(look, &format!("{name:<10}")));
    };
    field("run", run.run_id.to_string());
    field("started", output::moment(run.started_at));
    if let Some(begins_at) = run.begins_at.filter(|at| run.closed_at.is_none() && *at > look.now) {
        field("begins", output::until(look, begins_at));
    }
    if let Some(attempt) = &run.attempt {
        field("attempt", attempt_text(attempt, look));
    }
    if let Some(next) = run.retried_by {
        field("next", format!("tried again as {next}"));
    }
    if let Some(input) = &description.input {
        field("input", output::short_json(input, 200));
    }
    if !description.search_attributes.is_empty() {
        let attributes: Vec<_> = description
            .search_attributes
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        field("attributes", output::cut(&attributes.join(" "), 200));
    }
    if let Some(value) = &description.output {
        field("output", output::short_json(value, 200));
    }
    if let Some(failure) = &description.failure {
        field("failure", output::failure_text(failure));
    }
    if let Some(reason) = &description.parked {
        field("parked", output::cut(reason, 500));
    }
    if let Some(turn) = &description.turn {
        field("waits for", turn_text(turn));
    }
    let near: Vec<_> = description.limits.iter().filter(|limit| limit.warning).collect();
    for limit in near {
        field("limit", limit_text(limit));
    }
    if let Some(wake_at) = description.wake_at.filter(|_| run.closed_at.is_none()) {
        field("next look", output::until(look, wake_at));
    }
}

/// `3 of 5, begins in 12 s`
fn attempt_text(attempt: &RunAttempt, look: &Look) -> String {
    let of = attempt.most.map_or(String::new(), |most| format!(" of {most}"));
    format!("{}{of}{}", attempt.number, output::begins(look, attempt.begins_at))
}

/// What it waits for before it begins, and who else does.
fn turn_text(turn: &RunTurn) -> String {
    let Some(limit) = &turn.limit else {
        return match turn.ahead {
            None | Some(0) => "its workflow id, as the next".to_owned(),
            Some(count) => format!("its workflow id; {count} are queued before it"),
        };
    };
    match turn.open.zip(turn.waiting) {
        None => format!("its turn at {limit}"),
        Some((open, waiting)) => {
            let place = match turn.ahead {
                None => String::new(),
                Some(0) => "; it is the next".to_owned(),
                Some(count) => format!(", {count} of them before it"),
            };
            format!("its turn at {limit}: {open} are open, {waiting} wait{place}")
        }
    }
}

/// One that a fifth or more of is used.
pub fn limit_text(limit: &LimitUsage) -> String {
    let (used, most) = match limit.limit.as_str() {
        "history_bytes" | "payload" => (output::bytes(limit.used), output::bytes(limit.most)),
        _ => (limit.used.to_string(), limit.most.to_string()),
    };
    match limit.limit.as_str() {
        "events" => format!("{used} events of {most}"),
        "history_bytes" => format!("{used} of history, of {most}"),
        "pending" => format!("{used} activities and children under way, of {most}"),
        "payload" => format!("{used} said at once; a body may have {most}"),
        other => format!("{used} of {most} {other}"),
    }
}

fn steps(out: &mut String, description: &RunDescription, look: &Look) {
    let more = description.left_out.unwrap_or_default().steps;
    if description.steps.is_empty() && more == 0 {
        return;
    }
    let _ = writeln!(out, "\n{}", output::bold(look, "Steps"));
    let mut table = output::table(look, &["STEP", "STATUS", "ACTIVITY", "ATTEMPTS", "RESULT"]);
    for step in &description.steps {
        let result = match (&step.failure, &step.output) {
            (Some(failure), _) => error_text(failure),
            (None, Some(output)) => output::short_json(output, 60),
            (None, None) => String::new(),
        };
        let attempts = if step.attempts == 0 {
            String::new()
        } else {
            step.attempts.to_string()
        };
        table.add_row([
            Cell::new(&step.path),
            output::status_cell(look, &step.status),
            Cell::new(step.activity.as_deref().unwrap_or_default()),
            Cell::new(attempts),
            Cell::new(result),
        ]);
    }
    out.push_str(&output::table_text(&table, 2));
    and_more(out, more, "step");
}

fn undo(out: &mut String, description: &RunDescription, look: &Look) {
    let more = description.left_out.unwrap_or_default().ledger;
    if description.ledger.is_empty() && more == 0 {
        return;
    }
    let has_begun = |entry: &&LedgerEntry| !matches!(entry.status.as_str(), "dormant" | "armed");
    let mut entries: Vec<_> = description.ledger.iter().rev().collect();
    let heading = match (description.run.closed_at, &description.failure) {
        (None, _) if description.past_pivot => {
            // A scope within it may have been undone.
            entries.retain(has_begun);
            let heading = "The pivot has passed: the run only goes forward, and is not undone";
            if entries.is_empty() {
                let _ = writeln!(out, "\n{}", output::bold(look, heading));
                return;
            }
            heading
        }
        (_, Some(_)) => "Undo (last step first)",
        (None, None) => "Would be undone if the run failed now (last step first)",
        // Nothing of a completed run is undone.
        (Some(_), None) => return,
    };
    let _ = writeln!(out, "\n{}", output::bold(look, heading));
    let mut table = output::table(look, &["STEP", "UNDO", "ACTIVITY", "ATTEMPTS", "ERROR"]);
    for entry in entries {
        let attempts = if entry.attempts == 0 {
            String::new()
        } else {
            entry.attempts.to_string()
        };
        table.add_row([
            Cell::new(&entry.step),
            output::status_cell(look, &entry.status),
            Cell::new(undoer(entry)),
            Cell::new(attempts),
            Cell::new(entry.failure.as_ref().map(error_text).unwrap_or_default()),
        ]);
    }
    out.push_str(&output::table_text(&table, 2));
    and_more(out, more, "step");
}

/// Of a list that was cut.
fn and_more(out: &mut String, more: u64, what: &str) {
    if more > 0 {
        let plural = if more == 1 { "" } else { "s" };
        let _ = writeln!(out, "  and {more} more {what}{plural}");
    }
}

/// The activity that undoes a step, or the child that undoes itself.
fn undoer(entry: &LedgerEntry) -> String {
    match (&entry.activity, &entry.child) {
        (Some(activity), _) => activity.clone(),
        (None, Some(child)) => format!("child {child}"),
        (None, None) => String::new(),
    }
}

fn waiting(out: &mut String, description: &RunDescription, look: &Look) {
    if description.waiting.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", output::bold(look, "Waiting"));
    let mut table = output::table(look, &["STEP", "FOR", "UNTIL", "ERROR"]);
    for step in &description.waiting {
        let what = match &step.name {
            Some(name) => format!("{} {name}", step.kind),
            None => step.kind.clone(),
        };
        table.add_row([
            Cell::new(&step.step),
            Cell::new(what),
            Cell::new(step.due.map(|due| output::until(look, due)).unwrap_or_default()),
            Cell::new(step.failure.as_ref().map(error_text).unwrap_or_default()),
        ]);
    }
    out.push_str(&output::table_text(&table, 2));
    and_more(out, description.left_out.unwrap_or_default().waiting, "step");
}

fn updates(out: &mut String, description: &RunDescription, look: &Look) {
    if description.updates.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", output::bold(look, "Updates"));
    let mut table = output::table(look, &["UPDATE", "ID", "STATUS", "AT", "INPUT"]);
    for update in &description.updates {
        let input = update.input.as_ref().map(|input| output::short_json(input, 60));
        table.add_row([
            Cell::new(&update.name),
            Cell::new(output::cut(&update.id, 60)),
            output::status_cell(look, &update.status),
            Cell::new(update.step.as_deref().unwrap_or_default()),
            Cell::new(input.unwrap_or_default()),
        ]);
    }
    out.push_str(&output::table_text(&table, 2));
    and_more(out, description.left_out.unwrap_or_default().updates, "update");
}

fn signals(out: &mut String, description: &RunDescription, look: &Look) {
    if description.signals.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", output::bold(look, "Signals nobody has taken"));
    let mut table = output::table(look, &["SIGNAL", "BODY"]);
    for signal in &description.signals {
        let body = signal.body.as_ref().map(|body| output::short_json(body, 60));
        table.add_row([Cell::new(&signal.name), Cell::new(body.unwrap_or_default())]);
    }
    out.push_str(&output::table_text(&table, 2));
    and_more(out, description.left_out.unwrap_or_default().signals, "signal");
}

fn tasks(out: &mut String, description: &RunDescription, look: &Look) {
    if description.tasks.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", output::bold(look, "Under way"));
    let told = description.tasks.iter().any(|task| task.details.is_some());
    let mut heads = vec!["STEP", "", "QUEUE", "ATTEMPT", "STATUS", "DUE", "LAST ERROR"];
    heads.extend(told.then_some("DETAILS"));
    let mut table = output::table(look, &heads);
    for task in &description.tasks {
        let attempt = match task.max_attempts {
            Some(max) if task.attempt <= max => format!("{} of {max}", task.attempt),
            // What a pivot that may have been done is tried for.
            Some(_) => format!("{}, without limit", task.attempt),
            None => task.attempt.to_string(),
        };
        let mut row = vec![
            Cell::new(&task.step),
            Cell::new(&task.direction),
            Cell::new(format!("{}/{}", task.queue, task.activity)),
            Cell::new(attempt),
            output::status_cell(look, &task.status),
            Cell::new(task.due.map(|due| output::until(look, due)).unwrap_or_default()),
            Cell::new(task.last_failure.as_ref().map(error_text).unwrap_or_default()),
        ];
        let details = task.details.as_ref().map(|details| output::short_json(details, 40));
        row.extend(told.then(|| Cell::new(details.unwrap_or_default())));
        table.add_row(row);
    }
    out.push_str(&output::table_text(&table, 2));
    and_more(out, description.left_out.unwrap_or_default().tasks, "task");
    for task in &description.tasks {
        if let Some(limit) = &task.limit {
            let _ = writeln!(out, "  {} waits for its turn at {limit}", task.step);
        }
    }
}

fn operations(out: &mut String, description: &RunDescription, look: &Look) {
    if description.operations.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", output::bold(look, "Operators"));
    let mut table = output::table(look, &["WHEN", "WHAT", "WHO", "WHY"]);
    for operation in &description.operations {
        let what = match (&operation.step, operation.direction.as_deref()) {
            (Some(step), Some("undo")) => format!("{} undo {step}", operation.action),
            (Some(step), _) => format!("{} {step}", operation.action),
            (None, _) => operation.action.clone(),
        };
        table.add_row([
            Cell::new(output::moment(operation.at)),
            Cell::new(what),
            Cell::new(output::cut(operation.by.as_deref().unwrap_or_default(), 60)),
            Cell::new(output::cut(operation.reason.as_deref().unwrap_or_default(), 100)),
        ]);
    }
    out.push_str(&output::table_text(&table, 2));
}

/// Without the step, which stands in the same line.
fn error_text(failure: &knarr_schemas::body::FailureBody) -> String {
    let message = if failure.message.is_empty() {
        String::new()
    } else {
        format!(": {}", failure.message)
    };
    output::cut(&format!("{}{message}", failure.error_type), 60)
}

#[cfg(test)]
mod turns {
    use super::*;

    #[test]
    fn what_a_run_waits_for_is_told_with_who_else_does() {
        let turn = |limit: Option<&str>, open, waiting, ahead| RunTurn {
            limit: limit.map(str::to_owned),
            open,
            waiting,
            ahead,
        };
        assert_eq!(
            turn_text(&turn(None, None, None, Some(0))),
            "its workflow id, as the next"
        );
        assert_eq!(
            turn_text(&turn(None, None, None, Some(2))),
            "its workflow id; 2 are queued before it"
        );
        let limit = Some("the concurrency of the workflow `order` for `c1`");
        assert_eq!(
            turn_text(&turn(limit, Some(2), Some(7), None)),
            "its turn at the concurrency of the workflow `order` for `c1`: 2 are open, 7 wait"
        );
        for (ahead, place) in [(0, "; it is the next"), (3, ", 3 of them before it")] {
            assert_eq!(
                turn_text(&turn(limit, Some(2), Some(7), Some(ahead))),
                format!("its turn at the concurrency of the workflow `order` for `c1`: 2 are open, 7 wait{place}")
            );
        }
        assert_eq!(
            turn_text(&turn(limit, None, None, None)),
            "its turn at the concurrency of the workflow `order` for `c1`"
        );
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone, Utc};
    use knarr_schemas::api::{LedgerEntry, OpenTask, OpenUpdate, OperationState, StepState, WaitingSignal};
    use knarr_schemas::body::{FailureBody, RunSummary};
    use serde_json::json;

    use super::*;

    fn look() -> Look {
        Look {
            color: false,
            width: None,
            now: Utc.timestamp_opt(1_795_000_000, 0).unwrap(),
        }
    }

    fn step(path: &str, status: &str, activity: &str, attempts: u32) -> StepState {
        StepState {
            path: path.into(),
            status: status.into(),
            activity: Some(activity.into()),
            attempts,
            output: None,
            failure: None,
        }
    }

    #[test]
    fn an_attempt_says_which_it_is_and_when_it_begins() {
        let mut description = running();
        description.run.attempt = Some(RunAttempt {
            number: 3,
            most: Some(5),
            first: None,
            begins_at: look().now + TimeDelta::seconds(12),
        });
        let shown = render(&description, &look());
        assert!(shown.contains("attempt     3 of 5, begins in 12s\n"), "{shown}");
        description.run.attempt = Some(RunAttempt {
            number: 2,
            most: None,
            first: None,
            begins_at: look().now - TimeDelta::seconds(12),
        });
        description.run.retried_by = Some(Uuid::from_u128(8));
        let shown = render(&description, &look());
        assert!(shown.contains("attempt     2\n"), "{shown}");
        assert!(
            shown.contains(&format!("next        tried again as {}\n", Uuid::from_u128(8))),
            "{shown}"
        );
        assert!(
            !render(&running(), &look()).contains("attempt  "),
            "nothing is said of the first"
        );
    }

    fn running() -> RunDescription {
        let now = look().now;
        let timeout = FailureBody {
            step: Some("payment".into()),
            error_type: "timeout".into(),
            message: "no outcome within 30000 ms".into(),
        };
        let mut created = step("create_order", "completed", "create-order", 1);
        created.output = Some(json!({"order_id": "o-1", "total": 12}));
        RunDescription {
            run: RunSummary {
                namespace: "default".into(),
                workflow_id: "order-17".into(),
                run_id: Uuid::from_u128(7),
                workflow: "order".into(),
                version: 3,
                status: "running".into(),
                started_at: now - TimeDelta::seconds(45),
                closed_at: None,
                begins_at: None,
                attempt: None,
                retried_by: None,
            },
            definition: "ab".repeat(32),
            seq: 5,
            request_id: None,
            search_attributes: [("customer".to_owned(), json!("c-1"))].into_iter().collect(),
            input: Some(json!({"items": [1, 2]})),
            output: None,
            failure: None,
            parked: None,
            turn: None,
            wake_at: Some(now + TimeDelta::seconds(16)),
            steps: vec![created, step("payment", "running", "process-payment", 2)],
            ledger: vec![
                LedgerEntry {
                    step: "create_order".into(),
                    activity: Some("cancel-order".into()),
                    child: None,
                    status: "armed".into(),
                    attempts: 0,
                    failure: None,
                },
                LedgerEntry {
                    step: "payment".into(),
                    activity: Some("refund-payment".into()),
                    child: None,
                    status: "dormant".into(),
                    attempts: 0,
                    failure: None,
                },
            ],
            tasks: vec![OpenTask {
                task: Some(3),
                step: "payment".into(),
                activity: "process-payment".into(),
                queue: "orders".into(),
                direction: "do".into(),
                attempt: 2,
                max_attempts: Some(5),
                status: "dispatched".into(),
                limit: None,
                since: Some(now - TimeDelta::seconds(14)),
                due: Some(now + TimeDelta::seconds(16)),
                last_failure: Some(timeout),
                details: Some(json!({"page": 7})),
            }],
            waiting: Vec::new(),
            signals: Vec::new(),
            updates: Vec::new(),
            operations: Vec::new(),
            limits: Vec::new(),
            past_pivot: false,
            shortened: false,
            left_out: None,
        }
    }

    #[test]
    fn a_running_run() {
        insta::assert_snapshot!("show_running", render(&running(), &look()));
    }

    #[test]
    fn a_run_with_a_parked_undo() {
        let failure = FailureBody {
            step: Some("payment".into()),
            error_type: "card_declined".into(),
            message: "the card was declined".into(),
        };
        let mut parked = running();
        parked.run.status = "parked".into();
        parked.failure = Some(failure.clone());
        parked.steps[1].status = "failed".into();
        parked.steps[1].failure = Some(failure);
        parked.ledger[0].status = "parked".into();
        parked.ledger[0].attempts = 10;
        parked.ledger[0].failure = Some(FailureBody {
            step: None,
            error_type: "gone".into(),
            message: "the order service does not know the order".into(),
        });
        parked.tasks.clear();
        parked.wake_at = None;
        parked.operations = vec![OperationState {
            at: look().now - TimeDelta::seconds(9),
            action: "retry".into(),
            direction: Some("undo".into()),
            step: Some("create_order".into()),
            by: Some("ann@ops-1".into()),
            reason: Some("the order service is back".into()),
        }];
        insta::assert_snapshot!("show_parked", render(&parked, &look()));
    }

    #[test]
    fn a_run_near_its_limits() {
        let mut near = running();
        let limit = |limit: &str, used, most, warning| LimitUsage {
            limit: limit.into(),
            used,
            most,
            warning,
        };
        near.parked = Some("the run has 50000 events, which is its limit".into());
        near.limits = vec![
            limit("events", 50_000, 50_000, true),
            limit("history_bytes", 12_900_000, 52_428_800, true),
            limit("pending", 3, 2_000, false),
            limit("payload", 1_048_576, 2_097_152, true),
        ];
        insta::assert_snapshot!("show_near_limits", render(&near, &look()));
    }

    #[test]
    fn a_run_with_updates_and_signals() {
        let update = |id: &str, status: &str, step: Option<&str>| OpenUpdate {
            id: id.into(),
            name: "change_address".into(),
            input: Some(json!({ "city": "Bergen" })),
            status: status.into(),
            step: step.map(str::to_owned),
            waiters: 1,
        };
        let mut run = running();
        run.updates = vec![
            update("u-1", "running", Some("$updates.change_address[0]")),
            update("u-2", "accepted", None),
            update("u-3", "put_off", None),
        ];
        run.signals = vec![
            WaitingSignal {
                name: "approve".into(),
                body: Some(json!({ "ok": true })),
            },
            WaitingSignal {
                name: "paid".into(),
                body: None,
            },
        ];
        insta::assert_snapshot!("show_updates", render(&run, &look()));
    }

    #[test]
    fn past_its_pivot_a_run_is_not_undone() {
        let mut past = running();
        past.past_pivot = true;
        past.tasks[0].attempt = 6;
        let shown = render(&past, &look());
        assert!(!shown.contains("Would be undone"), "{shown}");
        assert!(
            shown.contains("\nThe pivot has passed: the run only goes forward, and is not undone\n"),
            "{shown}"
        );
        assert!(!shown.contains("cancel-order"), "{shown}");
        assert!(shown.contains(" 6, without limit "), "{shown}");
        past.ledger[0].status = "undone".into();
        let shown = render(&past, &look());
        assert!(
            shown.contains("cancel-order") && !shown.contains("refund-payment"),
            "{shown}"
        );
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let mut cut = running();
        cut.shorten();
        cut.cut(1);
        let shown = render(&cut, &look());
        assert!(
            shown.contains("process-payment") && !shown.contains(" create-order "),
            "{shown}"
        );
        assert_eq!(shown.matches("\n  and 1 more step\n").count(), 2, "{shown}");
        assert!(shown.contains("parts of long lists"), "{shown}");
    }

    #[test]
    fn a_completed_run_has_nothing_to_undo() {
        let mut completed = running();
        completed.run.status = "completed".into();
        completed.run.closed_at = Some(completed.run.started_at + TimeDelta::milliseconds(4_260));
        completed.output = Some(json!({"order_id": "o-1"}));
        completed.steps[1].status = "completed".into();
        completed.tasks.clear();
        insta::assert_snapshot!("show_completed", render(&completed, &look()));
    }

    #[test]
    fn only_a_run_id_in_full_is_one() {
        let id = Uuid::from_u128(7);
        assert_eq!(run_name(&id.to_string()), RunName::RunId(id));
        assert_eq!(
            run_name(&id.simple().to_string()),
            RunName::WorkflowId(id.simple().to_string())
        );
        assert_eq!(run_name("order-17"), RunName::WorkflowId("order-17".into()));
    }
}
