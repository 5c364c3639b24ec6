//! Runs and their transitions: found, loaded, listed.

use std::collections::{BTreeMap, BTreeSet};

use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowId};
use knarr_core::run::schedule::WORKFLOW as SCHEDULE;
use knarr_core::run::trigger::WORKFLOW as TRIGGER;
use knarr_core::time::Timestamp;
use uuid::Uuid;

use super::state::State;
use crate::store::{
    CLOSED_LIMIT, COUNT_LIMIT, ClosedRun, DEFERRED_LIMIT, DeferredInput, DeferredName, Due, DuePage,
    FOUND_OUTCOME_BYTES, Found, FoundRun, HISTORY_LIMIT, LIST_LIMIT, PermitRow, RunFilter, RunRow, RunSize, StoreError,
    StoredRun, StoredTransition,
};

impl State {
    pub(super) fn find_runs(&self, ids: &[(Namespace, WorkflowId, Option<RequestId>)]) -> Result<Found, StoreError> {
        readable(ids.iter().flat_map(|(namespace, workflow_id, request)| {
            let request = request.as_ref().map_or("", |id| id.as_str());
            [namespace.as_str(), workflow_id.as_str(), request]
        }))?;
        let mut found: BTreeMap<RunId, RunRow> = BTreeMap::new();
        for (namespace, workflow_id, request_id) in ids {
            let of_id: Vec<&RunRow> = self
                .runs
                .values()
                .filter(|row| row.namespace == *namespace && row.workflow_id == *workflow_id)
                .collect();
            let open = of_id.iter().filter(|row| row.closed_at.is_none());
            let closed = of_id.iter().filter(|row| row.closed_at.is_some());
            let newest_closed = closed.max_by_key(|row| row.tenure());
            let requested = of_id
                .iter()
                .filter(|row| request_id.is_some() && row.request_id == *request_id);
            for row in open.chain(newest_closed).chain(requested) {
                let mut row = (*row).clone();
                row.outcome = row.outcome.filter(|outcome| outcome.len() <= FOUND_OUTCOME_BYTES);
                found.insert(row.run_id, row);
            }
        }
        Ok(Found {
            runs: found.into_values().map(|row| FoundRun { row }).collect(),
            definitions_epoch: self.definitions_epoch,
        })
    }

    pub(super) fn closed_runs(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        before: Option<Uuid>,
    ) -> Result<Vec<ClosedRun>, StoreError> {
        readable([namespace.as_str(), workflow_id.as_str()])?;
        let of_id = self
            .runs
            .values()
            .filter(|row| row.namespace == *namespace && row.workflow_id == *workflow_id);
        let closed = of_id.filter_map(|row| {
            Some(ClosedRun {
                run_id: row.run_id,
                tenure: row.tenure(),
                closed_at: row.closed_at?,
            })
        });
        let mut closed: Vec<_> = closed
            .filter(|run| before.is_none_or(|before| run.tenure < before))
            .collect();
        closed.sort_by_key(|run| std::cmp::Reverse(run.tenure));
        closed.truncate(CLOSED_LIMIT);
        Ok(closed)
    }

    pub(super) fn load_runs(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, StoreError> {
        let ids: BTreeSet<&RunId> = ids.iter().collect();
        Ok(ids
            .into_iter()
            .filter_map(|id| self.runs.get(id))
            .map(|row| {
                let snapshot = self.snapshots.get(&row.run_id).cloned();
                let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq);
                StoredRun {
                    transitions: self.transitions(row, after).collect(),
                    row: row.clone(),
                    snapshot,
                }
            })
            .collect())
    }

    pub(super) fn run_row(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        Ok(self.runs.get(&run).cloned())
    }

    pub(super) fn run_sizes(&self, ids: &[RunId]) -> Result<Vec<RunSize>, StoreError> {
        let stored = self.load_runs(ids)?.into_iter();
        Ok(stored
            .map(|run| {
                let transitions = run.transitions.iter().map(|transition| transition.body.len());
                let bytes = transitions.chain(run.snapshot.iter().map(|snapshot| snapshot.body.len()));
                RunSize {
                    run_id: run.row.run_id,
                    partition: run.row.partition,
                    bytes: bytes.sum::<usize>() as u64,
                }
            })
            .collect())
    }

    pub(super) fn deferred_names(&self, partition: i16) -> Result<Vec<DeferredName>, StoreError> {
        let inputs = self.deferred.values().filter(|input| input.partition == partition);
        Ok(inputs
            .map(|input| DeferredName {
                no: input.no,
                run_id: input.run_id,
                subject: input.subject.clone(),
            })
            .collect())
    }

    pub(super) fn deferred(&self, partition: i16, run: RunId, after: i64) -> Result<Vec<DeferredInput>, StoreError> {
        let inputs = self.deferred.values().filter(|input| input.partition == partition);
        Ok(inputs
            .filter(|input| input.no > after && input.run_id == run)
            .take(DEFERRED_LIMIT)
            .cloned()
            .collect())
    }

    pub(super) fn permits(&self, partition: i16) -> Vec<PermitRow> {
        let rows = self.permits.iter().filter(|(id, _)| id.partition == partition);
        rows.map(|(id, body)| PermitRow {
            id: id.clone(),
            body: body.clone(),
        })
        .collect()
    }

    pub(super) fn is_queued_in(&self, partition: i16) -> bool {
        let mut runs = self.runs.values();
        runs.any(|row| row.partition == partition && row.is_queued())
    }

    pub(super) fn ids_queued_for(&self, partition: i16) -> Vec<(Namespace, WorkflowId)> {
        let queued = self.runs.values();
        let queued = queued.filter(|row| row.partition == partition && row.is_queued());
        let ids: BTreeSet<_> = queued
            .map(|row| (row.namespace.clone(), row.workflow_id.clone()))
            .collect();
        ids.into_iter().collect()
    }

    pub(super) fn history(&self, run: RunId, after: i32, limit: u32) -> Result<Vec<StoredTransition>, StoreError> {
        let Some(row) = self.runs.get(&run) else {
            return Ok(Vec::new());
        };
        Ok(self
            .transitions(row, after)
            .take(limit.min(HISTORY_LIMIT) as usize)
            .collect())
    }

    pub(super) fn due(&self, partitions: &[i16], page: DuePage) -> Result<Due, StoreError> {
        let mut due: Vec<(Timestamp, RunId)> = self
            .runs
            .values()
            .filter(|row| partitions.contains(&row.partition))
            .filter_map(|row| Some((row.wake_at?, row.run_id)))
            .filter(|due| due.0 <= page.until && page.after.is_none_or(|after| *due > after))
            .collect();
        due.sort_unstable();
        let limit = page.limit.max(1) as usize;
        let whole = due.len() <= limit;
        due.truncate(limit);
        Ok(Due {
            runs: due.into_iter().map(|(wake_at, run_id)| (run_id, wake_at)).collect(),
            whole,
        })
    }

    pub(super) fn count_parked(&self) -> u64 {
        let parked = self.runs.values().filter(|row| row.status == "parked");
        (parked.count() as u64).min(COUNT_LIMIT)
    }

    pub(super) fn list_runs(&self, namespace: &Namespace, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        let workflow = filter.workflow.as_ref().map_or("", |name| name.as_str());
        let workflow_id = filter.workflow_id.as_ref().map_or("", |id| id.as_str());
        let status = filter.status.as_deref().unwrap_or_default();
        readable([namespace.as_str(), workflow, workflow_id, status])?;
        Ok(self
            .runs
            .values()
            .rev()
            .filter(|row| row.namespace == *namespace)
            .filter(|row| match &filter.workflow {
                Some(workflow) => row.workflow == *workflow,
                None => ![SCHEDULE, TRIGGER].contains(&row.workflow.as_str()) || filter.workflow_id.is_some(),
            })
            .filter(|row| filter.workflow_id.as_ref().is_none_or(|id| row.workflow_id == *id))
            .filter(|row| filter.status.as_ref().is_none_or(|status| row.status == *status))
            .filter(|row| filter.before.is_none_or(|before| row.run_id < before))
            .take(filter.limit.min(LIST_LIMIT) as usize)
            .cloned()
            .collect())
    }

    /// Of the workflow that schedules or triggers are runs of.
    pub(super) fn list_actors(
        &self,
        workflow: &str,
        namespace: &Namespace,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<RunRow>, StoreError> {
        readable([namespace.as_str(), after.map_or("", |id| id.as_str())])?;
        let open = self.runs.values().filter(|row| row.closed_at.is_none());
        let mut rows: Vec<RunRow> = open
            .filter(|row| row.namespace == *namespace && row.workflow.as_str() == workflow)
            .filter(|row| after.is_none_or(|after| row.workflow_id > *after))
            .cloned()
            .collect();
        rows.sort_by(|a, b| a.workflow_id.cmp(&b.workflow_id));
        rows.truncate(limit.min(LIST_LIMIT) as usize);
        Ok(rows)
    }

    pub(super) fn triggers_of(&self, partitions: &[i16]) -> Vec<RunId> {
        let open = self.runs.values().filter(|row| row.closed_at.is_none());
        let mut runs: Vec<RunId> = open
            .filter(|row| row.workflow.as_str() == TRIGGER && partitions.contains(&row.partition))
            .map(|row| row.run_id)
            .collect();
        runs.sort_unstable();
        runs
    }

    fn transitions<'a>(&'a self, row: &RunRow, after: i32) -> impl Iterator<Item = StoredTransition> + use<'a> {
        let (class, run_id) = (row.retention_class, row.run_id);
        self.events
            .range((class, run_id, after.saturating_add(1))..=(class, run_id, i32::MAX))
            .map(|((_, _, seq), (at, body))| StoredTransition {
                seq: *seq,
                at: *at,
                body: body.clone(),
            })
    }
}

/// The server refuses a text with the character zero in a question as well.
pub(super) fn readable<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), StoreError> {
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(StoreError::Rejected("a text contains the character zero".to_owned()));
    }
    Ok(())
}
