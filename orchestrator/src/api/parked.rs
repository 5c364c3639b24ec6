//! What waits for an operator: the runs that the store lists as parked, each folded to its state.
//!
//! **Invariant:** a question is answered from a bounded number of runs and bytes. Where that was not enough for a page the
//! answer says where to go on, be it empty.

use std::time::Duration;

use knarr_core::ids::{Namespace, RunId, WorkflowId, WorkflowName};
use knarr_core::run::effect::Direction;
use knarr_core::run::{ParkedItem, ParkedWhat, State};
use knarr_core::time::Timestamp;
use knarr_schemas::api::{ListParked, MAX_PAGE, ParkedEntry, ParkedKey, ParkedKind, ParkedPage, ParkedPlace, RunName};
use knarr_schemas::body::FailureBody;
use knarr_schemas::code;

use crate::api::describe::failure_body;
use crate::api::runs::encoded_len;
use crate::api::{Operations, Refusal};
use crate::engine::rebuild;
use crate::store::{RunFilter, RunRow, Store, StoreError};

const DEFAULT_PAGE: u32 = 100;
/// Runs asked of the store at a time.
const CHUNK: u32 = 50;
/// Most runs that are folded for one answer, the bytes of them after which no more are, and the time.
const MOST_RUNS: usize = 500;
const MOST_BYTES: u64 = 32 * 1024 * 1024;
const LONGEST: Duration = Duration::from_secs(5);
/// Characters of why a run cannot be read.
const MOST_OF_AN_ERROR: usize = 500;

impl<S: Store> Operations<S> {
    /// One page of at most `budget` bytes of JSON.
    pub async fn list_parked(
        &self,
        namespace: &Namespace,
        request: &ListParked,
        budget: usize,
    ) -> Result<ParkedPage, Refusal> {
        let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
        let mut page = Page::new(limit, budget);
        if let Some(run) = &request.run {
            let mut rows = self.rows_of(namespace, run).await?;
            if let Some(key) = &request.after {
                let last = RunId(key.run_id);
                rows.retain(|row| row.run_id < last || row.run_id == last && key.item.is_some());
            }
            self.add(&rows, request, &mut page).await?;
            return Ok(page.finish());
        }
        let mut before = None;
        if let Some(key) = &request.after {
            before = Some(RunId(key.run_id));
            // More of the run that the page before ended in.
            if key.item.is_some()
                && let Some(row) = self.store.run_row(RunId(key.run_id)).await?
                && row.namespace == *namespace
                && !self.add(&[row], request, &mut page).await?
            {
                return Ok(page.finish());
            }
        }
        let mut first = before.is_none();
        loop {
            let filter = RunFilter {
                workflow: request.workflow.as_deref().map(WorkflowName::new),
                status: Some("parked".to_owned()),
                before,
                limit: CHUNK,
                ..RunFilter::default()
            };
            let rows = self.store.list_runs(namespace, &filter).await?;
            if first && rows.is_empty() {
                self.require_namespace(namespace).await?;
            }
            first = false;
            let complete = rows.len() < CHUNK as usize;
            before = rows.last().map(|row| row.run_id).or(before);
            if !self.add(&rows, request, &mut page).await? || complete {
                return Ok(page.finish());
            }
        }
    }

    /// The open run of an id and those that undo themselves for a parent; or the run of that id.
    async fn rows_of(&self, namespace: &Namespace, run: &RunName) -> Result<Vec<RunRow>, Refusal> {
        let named = self.find_run(namespace, run).await?;
        let mut rows = vec![named];
        if let RunName::WorkflowId(id) = run {
            let filter = RunFilter {
                workflow_id: Some(WorkflowId::new(id)),
                status: Some("parked".to_owned()),
                limit: CHUNK,
                ..RunFilter::default()
            };
            let parked = self.store.list_runs(namespace, &filter).await?;
            rows.extend(parked);
            rows.sort_by_key(|row| std::cmp::Reverse(row.run_id));
            rows.dedup_by_key(|row| row.run_id);
        }
        Ok(rows)
    }

    /// Adds what of these runs fits, in their order; `false` = the page is full, or enough has been looked at.
    async fn add(&self, rows: &[RunRow], request: &ListParked, page: &mut Page) -> Result<bool, StoreError> {
        for portion in self.portions(rows).await? {
            if page.has_seen_enough() {
                page.stop();
                return Ok(false);
            }
            let rows = &rows[portion.rows];
            let ids: Vec<RunId> = rows.iter().map(|row| row.run_id).collect();
            let stored = self.store.load_runs(&ids).await?;
            page.bytes += portion.bytes;
            for row in rows {
                let run = stored.iter().find(|run| run.row.run_id == row.run_id);
                let Some(run) = run else { continue };
                let state = match rebuild(run) {
                    Ok(state) => state,
                    Err(error) => {
                        tracing::error!(run = %row.run_id, %error, "the history of a parked run cannot be read");
                        if !page.add_unreadable(&run.row, &error, request) {
                            return Ok(false);
                        }
                        continue;
                    }
                };
                if !page.add_run(&run.row, &state, request) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// A page while it is filled.
struct Page {
    parked: Vec<ParkedEntry>,
    next: Option<ParkedKey>,
    limit: usize,
    left: usize,
    looked_at: usize,
    bytes: u64,
    began: tokio::time::Instant,
    /// The last run that was looked at to its end.
    passed: Option<RunId>,
}

impl Page {
    fn new(limit: usize, budget: usize) -> Self {
        Self {
            parked: Vec::new(),
            next: None,
            limit,
            // Room for `next`, whose step may be long.
            left: budget.saturating_sub(8 * 1024),
            looked_at: 0,
            bytes: 0,
            began: tokio::time::Instant::now(),
            passed: None,
        }
    }

    fn finish(self) -> ParkedPage {
        ParkedPage {
            parked: self.parked,
            next: self.next,
        }
    }

    fn has_seen_enough(&self) -> bool {
        self.looked_at > 0
            && (self.looked_at >= MOST_RUNS || self.bytes >= MOST_BYTES || self.began.elapsed() >= LONGEST)
    }

    /// The next page begins behind the last run.
    fn stop(&mut self) {
        self.next = self.passed.map(|run| ParkedKey {
            run_id: run.0,
            item: None,
        });
    }

    /// `false` = it is full.
    fn add_run(&mut self, row: &RunRow, state: &State, request: &ListParked) -> bool {
        self.looked_at += 1;
        let behind = match &request.after {
            Some(key) if key.run_id == row.run_id.0 => key.item.clone(),
            _ => None,
        };
        let mut entries: Vec<ParkedEntry> = state
            .parked_items()
            .iter()
            .map(|item| entry(row, state, item))
            .collect();
        entries.sort_by_key(place);
        for entry in entries {
            let is_behind = behind.as_ref().is_none_or(|behind| place(&entry) > *behind);
            if is_behind && fits(&entry, request) && !self.add(entry) {
                return false;
            }
        }
        self.passed = Some(row.run_id);
        true
    }

    /// One of which nothing is known but that it is parked. `false` = the page is full.
    fn add_unreadable(&mut self, row: &RunRow, error: &str, request: &ListParked) -> bool {
        self.looked_at += 1;
        let was_shown = request
            .after
            .as_ref()
            .is_some_and(|key| key.run_id == row.run_id.0 && key.item.is_some());
        if row.status == "parked" && !was_shown {
            let mut entry = of_run(row, &row.status, None);
            code::UNREADABLE_RUN.title.clone_into(&mut entry.failure.error_type);
            entry.failure.message = error.chars().take(MOST_OF_AN_ERROR).collect();
            if fits(&entry, request) && !self.add(entry) {
                return false;
            }
        }
        self.passed = Some(row.run_id);
        true
    }

    fn add(&mut self, mut entry: ParkedEntry) -> bool {
        let mut size = encoded_len(&entry) + 1;
        if size > self.left && self.parked.is_empty() {
            // Alone it is too large for any page.
            entry.omitted_bytes = entry.input.take().map(|input| encoded_len(&input) as u64);
            size = encoded_len(&entry) + 1;
        }
        if size > self.left || self.parked.len() == self.limit {
            self.next = match self.parked.last() {
                Some(last) => Some(ParkedKey {
                    run_id: last.run_id,
                    item: Some(place(last)),
                }),
                None => self.next.take(),
            };
            return false;
        }
        self.left -= size;
        self.parked.push(entry);
        true
    }
}

fn place(entry: &ParkedEntry) -> ParkedPlace {
    ParkedPlace {
        kind: entry.kind,
        step: entry.step.clone(),
    }
}

/// The run as a whole.
fn of_run(row: &RunRow, status: &str, since: Option<Timestamp>) -> ParkedEntry {
    ParkedEntry {
        workflow_id: row.workflow_id.to_string(),
        run_id: row.run_id.0,
        workflow: row.workflow.to_string(),
        version: u32::try_from(row.version).unwrap_or_default(),
        status: status.to_owned(),
        kind: ParkedKind::Run,
        step: String::new(),
        activity: None,
        child: None,
        attempts: 0,
        failure: FailureBody {
            step: None,
            error_type: "parked".to_owned(),
            message: String::new(),
        },
        since: since.map(Timestamp::to_utc),
        input: None,
        omitted_bytes: None,
    }
}

fn entry(row: &RunRow, state: &State, item: &ParkedItem<'_>) -> ParkedEntry {
    // The transitions may be newer than the row.
    let mut entry = of_run(row, state.status().as_str(), item.since);
    match &item.what {
        ParkedWhat::Run { reason } => entry.failure.message = reason.to_string(),
        ParkedWhat::Step(step) => {
            entry.kind = match step.direction {
                Direction::Do => ParkedKind::Step,
                Direction::Undo => ParkedKind::Undo,
            };
            entry.step = step.step.to_string();
            entry.activity = step.activity.map(ToString::to_string);
            entry.child = step.child.map(ToString::to_string);
            entry.attempts = step.attempts;
            entry.failure = failure_body(step.error);
            entry.input = step
                .input
                .filter(|input| !input.is_null())
                .map(|input| (**input).clone());
        }
    }
    entry
}

fn fits(entry: &ParkedEntry, request: &ListParked) -> bool {
    let is = |asked: &Option<String>, is: Option<&str>| asked.as_deref().is_none_or(|asked| Some(asked) == is);
    is(&request.workflow, Some(&entry.workflow))
        && is(&request.step, Some(&entry.step))
        && is(&request.activity, entry.activity.as_deref())
        && is(&request.error_type, Some(&entry.failure.error_type))
        && request.kind.is_none_or(|kind| kind == entry.kind)
        && request
            .since
            .is_none_or(|since| entry.since.is_some_and(|at| at >= since))
        && request
            .before
            .is_none_or(|before| entry.since.is_some_and(|at| at < before))
}
