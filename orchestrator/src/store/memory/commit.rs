//! What a commit checks and changes, in the order in which PostgreSQL finds fault: values it cannot even be sent, the
//! fence, the cursors, then everything else; nothing is changed before all of it is known to be right.

use std::collections::{BTreeMap, BTreeSet};

use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowId};
use knarr_core::run::schedule::PREFIX;
use knarr_core::time::Timestamp;
use serde_json::Value;

use super::lease::LEASE;
use super::state::{CommitRow, State};
use crate::store::{
    Batch, CLOSED_STATUSES, CommitError, CommitId, DeferredId, DeferredInput, Forgotten, OPEN_STATUSES, PermitWrite,
    RETRIED_STATUSES, RunRow, RunWrite, Session, UNDONE_LATER_STATUSES,
};

/// What a `timestamptz` can hold begins 4714-11-24 before Christ and ends beyond what a [`Timestamp`] can express.
const TIMES: std::ops::RangeFrom<i64> = -210_866_803_200_000_000..;

impl State {
    pub(super) fn commit(&mut self, session: &Session, batch: &Batch) -> Result<(), CommitError> {
        check_values(batch)?;
        let fenced = self
            .sessions
            .get(&session.id)
            .is_none_or(|row| row.epoch != session.epoch || row.batch_no != session.batch_no);
        if fenced {
            return Err(CommitError::Fenced);
        }
        let owns = |partition: i16| self.partitions.get(&partition).and_then(|row| row.owner) == Some(session.id);
        if !batch.partitions.iter().all(|partition| owns(*partition)) {
            return Err(CommitError::Fenced);
        }
        let mut moved = BTreeSet::new();
        for write in &batch.cursors {
            if !owns(write.partition) || !moved.insert(write.partition) {
                return Err(CommitError::Fenced);
            }
        }
        self.check_deferred(batch)?;
        self.check_runs(batch)?;
        self.check_appends(batch)?;
        check_permits(batch)?;
        self.apply(session, batch);
        Ok(())
    }

    fn check_deferred(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut settled = BTreeSet::new();
        for id in &batch.settled {
            if !self.deferred.contains_key(id) || !settled.insert(id) {
                return refuse("a deferred input that is settled is not there");
            }
        }
        let mut deferred = BTreeSet::new();
        for input in &batch.deferred {
            let id = id_of(input);
            if id.no < 1 || self.deferred.contains_key(&id) || !deferred.insert(id) {
                return refuse("a deferred input is there already or is numbered wrongly");
            }
        }
        Ok(())
    }

    fn check_runs(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut updated = BTreeSet::new();
        let mut after: BTreeMap<RunId, &RunRow> = BTreeMap::new();
        for row in batch.runs.iter().filter_map(RunWrite::as_update) {
            if !self.runs.contains_key(&row.run_id) || !updated.insert(row.run_id) {
                return refuse("an update names a run that is not there, or one run twice");
            }
            after.insert(row.run_id, row);
        }
        for row in batch.runs.iter().filter_map(RunWrite::as_insert) {
            if self.runs.contains_key(&row.run_id) || after.insert(row.run_id, row).is_some() {
                return refuse("a run is there already");
            }
            if row.retention_class < 0 || row.partition < 0 {
                return refuse("a retention class or partition is negative");
            }
            if row.attempt < 1 {
                return refuse("attempts count from 1");
            }
        }
        let mut occurrences: BTreeSet<&RequestId> = self.runs.values().filter_map(occurrence).collect();
        for row in batch.runs.iter().filter_map(RunWrite::as_insert) {
            if occurrence(row).is_some_and(|request| !occurrences.insert(request)) {
                return refuse("the occurrence of a schedule has been started");
            }
        }
        let mut open: BTreeSet<(&Namespace, &WorkflowId)> = self
            .runs
            .values()
            .filter(|row| row.has_id() && !after.contains_key(&row.run_id))
            .map(|row| (&row.namespace, &row.workflow_id))
            .collect();
        for row in after.values() {
            let status_fits = match row.closed_at {
                None => OPEN_STATUSES.contains(&row.status.as_str()),
                Some(_) => {
                    let status = row.status.as_str();
                    CLOSED_STATUSES.contains(&status) || UNDONE_LATER_STATUSES.contains(&status)
                }
            };
            if !status_fits {
                return refuse("the status does not fit");
            }
            let may_be_retried = row.closed_at.is_some() && RETRIED_STATUSES.contains(&row.status.as_str());
            if row.retried_by.is_some() && !may_be_retried {
                return refuse("a run that is tried again has closed without success");
            }
            if let Some(attributes) = &row.search_attributes {
                match serde_json::from_str::<Value>(attributes) {
                    Ok(value) if value.is_object() && !has_nul(&value) => {}
                    _ => return refuse("the search attributes are not an object that can be stored"),
                }
            }
            // An update does not write the ids: those of the stored row count.
            let ids = self.runs.get(&row.run_id).unwrap_or(row);
            if row.has_id() && !open.insert((&ids.namespace, &ids.workflow_id)) {
                return refuse("the workflow id has an open run");
            }
        }
        Ok(())
    }

    fn check_appends(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut keys = BTreeSet::new();
        for append in &batch.appends {
            let key = (append.retention_class, append.run_id, append.transition.seq);
            if key.0 < 0 || key.2 < 1 || self.events.contains_key(&key) || !keys.insert(key) {
                return refuse("a transition is there already or is numbered wrongly");
            }
        }
        let mut runs = BTreeSet::new();
        for snapshot in &batch.snapshots {
            if snapshot.seq < 1 || !runs.insert(snapshot.run_id) {
                return refuse("a snapshot is numbered wrongly or there are two of a run");
            }
        }
        Ok(())
    }

    fn apply(&mut self, session: &Session, batch: &Batch) {
        let lease_until = self.now.plus(LEASE);
        if let Some(row) = self.sessions.get_mut(&session.id) {
            row.batch_no += 1;
            row.lease_until = lease_until;
        }
        for write in &batch.runs {
            match write {
                RunWrite::Insert(row) => {
                    self.runs.insert(row.run_id, row.clone());
                }
                RunWrite::Update(row) | RunWrite::Migrate(row) => {
                    let migration = write.as_migration();
                    if let Some(there) = self.runs.get_mut(&row.run_id) {
                        there.status.clone_from(&row.status);
                        there.closed_at = row.closed_at;
                        there.wake_at = row.wake_at;
                        there.search_attributes.clone_from(&row.search_attributes);
                        there.outcome.clone_from(&row.outcome);
                        there.retried_by = row.retried_by;
                        there.tenure = row.tenure;
                        if let Some(to) = migration {
                            there.version = to.version;
                            there.definition = to.definition.clone();
                        }
                    }
                }
            }
        }
        for append in &batch.appends {
            let key = (append.retention_class, append.run_id, append.transition.seq);
            self.events
                .insert(key, (append.transition.at, append.transition.body.clone()));
        }
        for write in &batch.cursors {
            if let Some(row) = self.partitions.get_mut(&write.partition) {
                row.cursor = write.cursor.clone();
            }
        }
        for snapshot in &batch.snapshots {
            let older = self
                .snapshots
                .get(&snapshot.run_id)
                .is_none_or(|there| there.seq < snapshot.seq);
            if older {
                self.snapshots.insert(snapshot.run_id, snapshot.clone());
            }
        }
        for Forgotten {
            retention_class,
            run_id,
            up_to,
        } in &batch.forgotten
        {
            self.events
                .retain(|(class, run, seq), _| (class, run) != (retention_class, run_id) || seq > up_to);
        }
        for id in &batch.settled {
            self.deferred.remove(id);
        }
        let deferred = batch.deferred.iter();
        self.deferred
            .extend(deferred.map(|input| (id_of(input), input.clone())));
        for write in &batch.permits {
            match &write.body {
                Some(body) => self.permits.insert(write.id.clone(), body.clone()),
                None => self.permits.remove(&write.id),
            };
        }
        // Before this batch's own row is there: nobody can have published it yet.
        self.forget_published(session.id, &batch.published);
        if !batch.owed.is_empty() {
            let id = CommitId {
                session: session.id,
                batch_no: session.batch_no + 1,
            };
            let row = CommitRow {
                holder: session.id,
                owed: batch.owed.clone(),
            };
            self.commits.insert(id, row);
        }
    }
}

/// The request of a run that is an occurrence of a schedule.
fn occurrence(row: &RunRow) -> Option<&RequestId> {
    row.request_id.as_ref().filter(|id| id.as_str().starts_with(PREFIX))
}

fn id_of(input: &DeferredInput) -> DeferredId {
    DeferredId {
        partition: input.partition,
        no: input.no,
    }
}

fn check_permits(batch: &Batch) -> Result<(), CommitError> {
    let mut written = BTreeSet::new();
    for PermitWrite { id, body } in &batch.permits {
        if body.is_some() && (id.no < 0 || id.partition < 0) || !written.insert(id) {
            return refuse("a permit is numbered wrongly or there are two of one number");
        }
    }
    Ok(())
}

/// What the server refuses when it reads the parameters.
fn check_values(batch: &Batch) -> Result<(), CommitError> {
    let appends = batch.appends.iter().map(|append| append.transition.body.as_str());
    let snapshots = batch.snapshots.iter().map(|snapshot| snapshot.body.as_str());
    let cursors = batch.cursors.iter().map(|write| write.cursor.stream.as_str());
    let runs = batch.runs.iter().flat_map(|write| {
        let row = write.row();
        let ids = [
            row.namespace.as_str(),
            row.workflow_id.as_str(),
            row.workflow.as_str(),
            &row.definition.0,
        ];
        let written = matches!(write, RunWrite::Insert(_));
        let definition = write.as_migration().map(|row| &*row.definition.0);
        ids.into_iter()
            .chain(row.request_id.as_ref().map(|id| id.as_str()))
            .filter(move |_| written)
            .chain(definition)
            .chain([row.status.as_str()])
            .chain(row.search_attributes.as_deref())
            .chain(row.outcome.as_deref())
    });
    let mut texts = appends
        .chain(snapshots)
        .chain(cursors)
        .chain(runs)
        .chain(batch.owed.messages.as_deref())
        .chain(batch.deferred.iter().flat_map(|input| {
            let texts = [&input.cursor.stream, &input.subject, &input.headers];
            texts.map(String::as_str)
        }))
        .chain(batch.permits.iter().flat_map(|write| {
            let id = [write.id.namespace.as_str(), &write.id.limiter];
            id.into_iter().chain(write.body.as_deref())
        }));
    if texts.any(|text| text.contains('\0')) {
        return refuse("a text contains the character zero");
    }
    let mut times = batch
        .appends
        .iter()
        .map(|append| append.transition.at)
        .chain(batch.cursors.iter().map(|write| write.cursor.at))
        .chain(batch.runs.iter().flat_map(|write| {
            let row = write.row();
            let is_new = matches!(write, RunWrite::Insert(_));
            let of_birth = is_new.then_some(row.started_at).into_iter();
            let of_birth = of_birth.chain(row.begins_at.filter(|_| is_new));
            of_birth.chain(row.closed_at).chain(row.wake_at)
        }));
    if times.any(|Timestamp(micros)| !TIMES.contains(&micros)) {
        return refuse("a time is out of range");
    }
    if batch
        .cursors
        .iter()
        .any(|write| i64::try_from(write.cursor.sequence).is_err())
    {
        return refuse("a cursor's sequence is out of range");
    }
    Ok(())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn refuse(reason: &str) -> Result<(), CommitError> {
    Err(CommitError::BadData(reason.to_owned()))
}
