//! Runs: listing them, describing one, and its history in pages.

use knarr_core::ids::{Namespace, RunId, WorkflowId, WorkflowName};
use knarr_core::run::Status;
use knarr_core::run::schedule::schedule_of;
use knarr_core::run::trigger::trigger_of;
use knarr_core::time::Timestamp;
use knarr_schemas::api::{
    HistoryPage, HistoryTransition, ListRuns, MAX_PAGE, RunDescription, RunName, RunPage, RunTurn, ShowHistory,
};
use knarr_schemas::body::{RunAttempt, RunSummary};
use knarr_schemas::code;
use serde_json::Value;

use crate::api::describe::Describer;
use crate::api::{Operations, Refusal};
use crate::store::{PlaceAsked, RunFilter, RunRow, Store, StoredTransition};

const DEFAULT_PAGE: u32 = 100;
/// Transitions asked of the store at a time.
const CHUNK: u32 = 200;

impl<S: Store> Operations<S> {
    /// Newest first.
    pub async fn list_runs(&self, namespace: &Namespace, request: &ListRuns) -> Result<RunPage, Refusal> {
        if let Some(status) = &request.status
            && Status::parse(status).is_none()
        {
            return Err(Refusal::new(
                400,
                &code::BAD_REQUEST,
                format!("`{status}` is not a status"),
            ));
        }
        let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let filter = RunFilter {
            workflow: request.workflow.as_deref().map(WorkflowName::new),
            workflow_id: request.workflow_id.as_deref().map(WorkflowId::new),
            status: request.status.clone(),
            before: request.before.map(RunId),
            limit: limit + 1,
        };
        let rows = self.store.list_runs(namespace, &filter).await?;
        if rows.is_empty() {
            self.require_namespace(namespace).await?;
        }
        let mut runs: Vec<RunSummary> = rows.iter().map(summary).collect();
        let limit = limit as usize;
        let next = (runs.len() > limit).then(|| runs[limit - 1].run_id);
        runs.truncate(limit);
        Ok(RunPage { runs, next })
    }

    /// The run's state, folded from its history. Input and outputs are left out where the JSON would exceed `budget` bytes, and
    /// of long lists what matters least.
    pub async fn show_run(
        &self,
        namespace: &Namespace,
        run: &RunName,
        budget: usize,
    ) -> Result<RunDescription, Refusal> {
        let row = self.find_run(namespace, run).await?;
        refuse_actors(&row)?;
        let mut describer = Describer::default();
        let mut after = 0;
        loop {
            let transitions = self.store.history(row.run_id, after, CHUNK).await?;
            let Some(last) = transitions.last() else { break };
            after = last.seq;
            let complete = transitions.len() < CHUNK as usize;
            for transition in &transitions {
                describer.add(transition).map_err(unreadable)?;
            }
            if complete {
                break;
            }
        }
        let place = describer.place();
        let mut description = describer.finish(&row).map_err(unreadable)?;
        if let Some(turn) = &mut description.turn {
            self.look_around(&row, place.as_ref(), turn).await?;
        }
        if encoded_len(&description) > budget {
            description.shorten();
            let mut most = description.longest();
            while most > 0 && encoded_len(&description) > budget {
                most /= 2;
                description.cut(most);
            }
        }
        Ok(description)
    }

    /// What others say of the turn that a run waits for.
    async fn look_around(&self, row: &RunRow, place: Option<&PlaceAsked>, turn: &mut RunTurn) -> Result<(), Refusal> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let Some(place) = place else {
            let asked = [(row.namespace.clone(), row.workflow_id.clone(), None)];
            let found = self.store.find_runs(&asked).await?.runs.into_iter();
            let before = found.filter(|found| found.row.is_queued() && found.row.run_id < row.run_id);
            turn.ahead = Some(count(before.count()));
            return Ok(());
        };
        let line = self.store.line_of(&row.namespace, place).await?;
        turn.open = u64::try_from(line.held).ok();
        turn.waiting = u64::try_from(line.waiting).ok();
        turn.ahead = line.ahead.and_then(|ahead| u64::try_from(ahead).ok());
        Ok(())
    }

    /// One page of at most `budget` bytes of JSON.
    pub async fn history(
        &self,
        namespace: &Namespace,
        request: &ShowHistory,
        budget: usize,
    ) -> Result<HistoryPage, Refusal> {
        let row = self.find_run(namespace, &request.run).await?;
        let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
        let mut page = HistoryPage {
            run: summary(&row),
            transitions: Vec::new(),
            next: None,
        };
        let mut left = budget.saturating_sub(encoded_len(&page));
        let mut after = i32::try_from(request.after.unwrap_or(0)).unwrap_or(i32::MAX);
        loop {
            let chunk = self.store.history(row.run_id, after, CHUNK).await?;
            let complete = chunk.len() < CHUNK as usize;
            for stored in &chunk {
                let mut transition = wire_transition(stored).map_err(unreadable)?;
                let mut size = encoded_len(&transition) + 1;
                if size > left && page.transitions.is_empty() {
                    // Alone it is too large for any page: what it contains cannot be shown this way.
                    transition.events.clear();
                    transition.omitted_bytes = Some(stored.body.len() as u64);
                    size = encoded_len(&transition) + 1;
                }
                if size > left || page.transitions.len() == limit {
                    page.next = page.transitions.last().map(|last| last.seq);
                    return Ok(page);
                }
                left -= size;
                after = stored.seq;
                page.transitions.push(transition);
            }
            if complete {
                return Ok(page);
            }
        }
    }

    pub(super) async fn find_run(&self, namespace: &Namespace, run: &RunName) -> Result<RunRow, Refusal> {
        let (found, name) = match run {
            RunName::RunId(id) => {
                let row = self.store.run_row(RunId(*id)).await?;
                (row.filter(|row| row.namespace == *namespace), format!("run id `{id}`"))
            }
            RunName::WorkflowId(id) => {
                let asked = [(namespace.clone(), WorkflowId::new(id), None)];
                let found = self.store.find_runs(&asked).await?;
                let newest = found
                    .runs
                    .into_iter()
                    .map(|found| found.row)
                    .max_by_key(|row| (row.has_id(), row.closed_at.is_none(), row.tenure()));
                // What was found may be without an outcome that is long.
                let newest = match newest {
                    Some(row) if row.closed_at.is_some() && row.outcome.is_none() => {
                        self.store.run_row(row.run_id).await?
                    }
                    other => other,
                };
                (newest, format!("workflow id `{id}`"))
            }
        };
        if let Some(row) = found {
            return Ok(row);
        }
        self.require_namespace(namespace).await?;
        Err(Refusal::not_found(
            &code::UNKNOWN_RUN,
            format!("no run in namespace `{namespace}` has the {name}"),
        ))
    }
}

/// What is kept like a run, and is none.
pub(super) fn refuse_actors(row: &RunRow) -> Result<(), Refusal> {
    if let Some(name) = schedule_of(&row.workflow_id) {
        let message = format!(
            "`{}` is a schedule; `knarr schedule describe {name}` shows it",
            row.workflow_id
        );
        return Err(Refusal::new(400, &code::RESERVED_ID, message));
    }
    if let Some((workflow, name)) = trigger_of(&row.workflow_id) {
        let message = format!(
            "`{}` is a trigger; `knarr trigger show {workflow}/{name}` shows it",
            row.workflow_id
        );
        return Err(Refusal::new(400, &code::RESERVED_ID, message));
    }
    Ok(())
}

pub(super) fn summary(row: &RunRow) -> RunSummary {
    RunSummary {
        namespace: row.namespace.to_string(),
        workflow_id: row.workflow_id.to_string(),
        run_id: row.run_id.0,
        workflow: row.workflow.to_string(),
        version: u32::try_from(row.version).unwrap_or_default(),
        status: row.status.clone(),
        started_at: row.started_at.to_utc(),
        closed_at: row.closed_at.map(Timestamp::to_utc),
        begins_at: row.begins_at.filter(|_| row.attempt == 1).map(Timestamp::to_utc),
        attempt: row.begins_at.filter(|_| row.attempt > 1).map(|begins_at| RunAttempt {
            number: u32::try_from(row.attempt).unwrap_or(1),
            most: None,
            first: None,
            begins_at: begins_at.to_utc(),
        }),
        retried_by: row.retried_by.map(|run| run.0),
    }
}

fn wire_transition(stored: &StoredTransition) -> Result<HistoryTransition, serde_json::Error> {
    Ok(HistoryTransition {
        seq: u32::try_from(stored.seq).unwrap_or_default(),
        at: stored.at.to_utc(),
        events: serde_json::from_str::<Vec<Value>>(&stored.body)?,
        omitted_bytes: None,
    })
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        500,
        &code::INTERNAL,
        format!("the stored history cannot be read: {error}"),
    )
}

/// Without building the text.
pub(super) fn encoded_len(value: &impl serde::Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}
