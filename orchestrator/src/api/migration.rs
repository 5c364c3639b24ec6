//! Which open runs may move to another version of their definition: each is folded and asked, and nothing is changed.
//!
//! **Invariant:** a question is answered from a bounded number of runs and bytes; where that was not enough for a page, the
//! answer says where to go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use knarr_core::definition::plan::Plan;
use knarr_core::definition::{self};
use knarr_core::ids::{DefinitionHash, Namespace, RunId, WorkflowName};
use knarr_core::run::migrate;
use knarr_schemas::api::{CheckMigration, MAX_PAGE, MigrationEntry, MigrationPage};
use knarr_schemas::body::ErrorBody;
use knarr_schemas::code;

use crate::api::runs::{encoded_len, summary};
use crate::api::{Operations, Refusal};
use crate::engine::rebuild;
use crate::store::{OPEN_STATUSES, RunFilter, RunRow, Store, StoredDefinition, StoredRun};

const DEFAULT_PAGE: u32 = 100;
/// Runs asked of the store, and folded, at a time.
const CHUNK: u32 = 50;
const MOST_RUNS: usize = 500;
/// Bytes of runs that were folded, after which no more are.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
const LONGEST: Duration = Duration::from_secs(5);

impl<S: Store> Operations<S> {
    /// One page of at most `budget` bytes of JSON.
    pub async fn check_migration(
        &self,
        namespace: &Namespace,
        request: &CheckMigration,
        budget: usize,
    ) -> Result<MigrationPage, Refusal> {
        let status = request.status.as_deref().unwrap_or("running");
        if !OPEN_STATUSES.contains(&status) {
            let message = format!("`{status}` is not the status of an open run");
            return Err(Refusal::new(400, &code::BAD_REQUEST, message));
        }
        let to = self.plan_of(namespace, &request.workflow, request.to).await?;
        let mut plans: HashMap<DefinitionHash, Option<Arc<Plan>>> = HashMap::new();
        let mut page = MigrationPage {
            runs: Vec::new(),
            next: None,
        };
        if let Some(run) = &request.run {
            let row = self.find_run(namespace, run).await?;
            if row.closed_at.is_some() {
                let message = format!("the run {} is closed ({})", row.run_id, row.status);
                return Err(Refusal::new(409, &code::RUN_CLOSED, message));
            }
            self.judge(&[row], &to, &mut plans, &mut page).await?;
            return Ok(page);
        }
        let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
        let began = tokio::time::Instant::now();
        let (mut before, mut looked_at, mut size) = (request.before.map(RunId), 0, 0);
        let mut bytes = 0_u64;
        loop {
            let filter = RunFilter {
                workflow: Some(WorkflowName::new(&request.workflow)),
                status: Some(status.to_owned()),
                before,
                limit: CHUNK,
                ..RunFilter::default()
            };
            let rows = self.store.list_runs(namespace, &filter).await?;
            looked_at += rows.len();
            let complete = rows.len() < CHUNK as usize;
            let last = rows.last().map(|row| row.run_id);
            let meant = |row: &RunRow| {
                let version = u32::try_from(row.version).unwrap_or_default();
                // One that its parent undoes has closed; what moved is as it was to be.
                row.closed_at.is_none() && row.definition != to.hash && request.from.is_none_or(|from| from == version)
            };
            let rows: Vec<_> = rows.into_iter().filter(meant).collect();
            for portion in self.portions(&rows).await? {
                if bytes > 0 && (bytes >= MOST_BYTES || began.elapsed() >= LONGEST) {
                    // Behind those that were judged, or left out.
                    let passed = portion.rows.start.checked_sub(1).map(|passed| rows[passed].run_id);
                    page.next = passed.or(before).map(|run| run.0);
                    return Ok(page);
                }
                bytes = bytes.saturating_add(portion.bytes.max(1));
                let first = page.runs.len();
                self.judge(&rows[portion.rows], &to, &mut plans, &mut page).await?;
                for index in first..page.runs.len() {
                    size += encoded_len(&page.runs[index]) + 1;
                    if index == limit || size > budget.saturating_sub(1_024) && index > 0 {
                        page.next = Some(page.runs[index - 1].run.run_id);
                        page.runs.truncate(index);
                        return Ok(page);
                    }
                }
            }
            before = last.or(before);
            if complete {
                return Ok(page);
            }
            if looked_at >= MOST_RUNS || began.elapsed() >= LONGEST {
                page.next = before.map(|run| run.0);
                return Ok(page);
            }
        }
    }

    async fn plan_of(&self, namespace: &Namespace, workflow: &str, version: u32) -> Result<Arc<Plan>, Refusal> {
        let name = WorkflowName::new(workflow);
        let number = i32::try_from(version).unwrap_or(i32::MAX);
        let stored = self.store.definition(namespace, &name, Some(number)).await?;
        let Some(stored) = stored else {
            self.require_namespace(namespace).await?;
            let message = format!("`{workflow}` is not registered in `{namespace}` in version {version}");
            return Err(Refusal::new(404, &code::UNKNOWN_VERSION, message));
        };
        compiled(&stored)
    }

    async fn judge(
        &self,
        rows: &[RunRow],
        to: &Plan,
        plans: &mut HashMap<DefinitionHash, Option<Arc<Plan>>>,
        page: &mut MigrationPage,
    ) -> Result<(), Refusal> {
        let ids: Vec<RunId> = rows.iter().map(|row| row.run_id).collect();
        let stored = self.store.load_runs(&ids).await?;
        for row in rows {
            let run = stored.iter().find(|run| run.row.run_id == row.run_id);
            let refused = match run {
                Some(run) => self.obstacle(run, to, plans).await?,
                None => Some(code::UNKNOWN_RUN.plain()),
            };
            page.runs.push(MigrationEntry {
                run: summary(row),
                refused,
            });
        }
        Ok(())
    }

    async fn obstacle(
        &self,
        run: &StoredRun,
        to: &Plan,
        plans: &mut HashMap<DefinitionHash, Option<Arc<Plan>>>,
    ) -> Result<Option<ErrorBody>, Refusal> {
        let state = match rebuild(run) {
            Ok(state) => state,
            Err(error) => return Ok(Some(code::UNREADABLE_RUN.error(error))),
        };
        let hash = state.definition_hash();
        if !plans.contains_key(hash) {
            let stored = self.store.definition_by_hash(hash).await?;
            let plan = stored.and_then(|stored| compiled(&stored).ok());
            plans.insert(hash.clone(), plan);
        }
        let Some(Some(from)) = plans.get(hash) else {
            let message = "the definition that the run goes by cannot be read";
            return Ok(Some(code::NOT_MIGRATABLE.error(message)));
        };
        let checked = migrate::check(from, to, &state);
        Ok(checked
            .err()
            .map(|obstacle| code::NOT_MIGRATABLE.error(obstacle.to_string())))
    }
}

fn compiled(stored: &StoredDefinition) -> Result<Arc<Plan>, Refusal> {
    definition::from_canonical(&stored.body).map(Arc::new).map_err(|error| {
        let message = format!("{} v{} cannot be read: {error}", stored.workflow, stored.version);
        Refusal::new(500, &code::INTERNAL, message)
    })
}
