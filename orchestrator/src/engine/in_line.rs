//! Starts in line for their workflow id (`Knarr-Id-Conflict: queue`).
//!
//! Each is a run of its own, `queued`, from the moment it is accepted: stored, listed, cancelled and found by its request like any.
//! What it lacks is the workflow id. When the run that has the id closes, the first in line gets it, in the batch after that:
//! one statement must not close and open the same id. All of it is of one partition, so no message is needed.
//!
//! What is kept in memory is which ids somebody is in line for, and no more; a new owner reads that before anything of the
//! partition is performed, and looks at each of them once. **Invariant:** nobody overtakes those in line: whoever speaks to an id
//! that is free waits until the first of them has it. Only a start that takes the place of the open run goes before them.

use std::collections::{HashMap, HashSet};

use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowId};
use knarr_core::run::Status;
use knarr_core::run::input::Input;
use knarr_schemas::code;
use uuid::Uuid;

use super::apply::Applied;
use super::job::{Job, JobKind};
use super::live::{IdKey, LiveRuns};
use super::look_up::Absent;
use super::perform::Step;
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::Store;

/// Starts in line for one workflow id.
pub(super) const MAX_IN_LINE: usize = 100;
/// Workflow ids of a replica that somebody is in line for.
const MAX_IDS: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct InLine {
    of: HashMap<i16, HashSet<IdKey>>,
    /// Whoever is next of these is to be called: their run has closed, in the batch that is being built or before.
    free: Vec<IdKey>,
    /// Starts that have terminated the open run, and take the id before anybody in line.
    ahead: HashMap<IdKey, RequestId>,
}

impl InLine {
    pub(super) fn is_for(&self, partition: i16, key: &IdKey) -> bool {
        self.of.get(&partition).is_some_and(|ids| ids.contains(key))
    }

    fn len(&self) -> usize {
        self.of.values().map(HashSet::len).sum()
    }

    pub(super) fn add(&mut self, partition: i16, key: IdKey) {
        self.of.entry(partition).or_default().insert(key);
    }

    fn remove(&mut self, partition: i16, key: &IdKey) {
        if let Some(ids) = self.of.get_mut(&partition) {
            ids.remove(key);
            if ids.is_empty() {
                self.of.remove(&partition);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn forget_partition(&mut self, partition: i16) {
        if let Some(ids) = self.of.remove(&partition) {
            self.free.retain(|key| !ids.contains(key));
            self.ahead.retain(|key, _| !ids.contains(key));
        }
    }

    /// The run that had the id has closed.
    pub(super) fn is_free(&mut self, key: IdKey) {
        if !self.free.contains(&key) {
            self.free.push(key);
        }
    }

    /// This start takes the id before anybody in line.
    pub(super) fn goes_first(&mut self, key: &IdKey, request: &RequestId) {
        self.ahead.insert(key.clone(), request.clone());
    }

    /// A start has been decided about; whether it was to go first.
    pub(super) fn has_gone(&mut self, key: &IdKey, request: &RequestId) -> bool {
        let went = self.ahead.get(key) == Some(request);
        if went {
            self.ahead.remove(key);
        }
        went
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Why one more start cannot be put in line for this id, if it cannot.
    pub(super) fn line_is_full(&self, partition: i16, key: &IdKey) -> Option<Refusal> {
        let queued = self.live.id(key).map_or(0, |info| info.queued().count());
        if queued >= MAX_IN_LINE {
            let problem = format!("{queued} starts are queued for the workflow id `{}` already", key.1);
            return Some(Refusal::new(&code::LINE_FULL, problem));
        }
        if !self.in_line.is_for(partition, key) && self.in_line.len() >= MAX_IDS {
            let problem = format!("starts are queued for {MAX_IDS} workflow ids already");
            return Some(Refusal::new(&code::LINE_FULL, problem));
        }
        None
    }

    /// A batch has been sealed: who is next for what became free in it is called before anything else.
    pub(super) fn call_next(&mut self) {
        for key in std::mem::take(&mut self.in_line.free) {
            self.direct.push_front(Job::internal(JobKind::NextInLine(key)));
        }
    }

    /// A partition was taken over: whatever happened to its last owner, each line is looked at once.
    pub(super) fn lines_found(&mut self, partition: i16, ids: Vec<(Namespace, WorkflowId)>) {
        for key in ids {
            self.in_line.add(partition, key.clone());
            self.direct.push_back(Job::internal(JobKind::NextInLine(key)));
        }
    }

    /// Somebody speaks to an id that is free and that others are in line for: the first of them comes first. `true` = wait.
    pub(super) fn others_come_first(&mut self, key: &IdKey, request: Option<&RequestId>) -> bool {
        if self.in_line.of.is_empty() || !self.in_line.is_for(self.partition_of(&key.0, &key.1), key) {
            return false;
        }
        let is_free = self.live.id(key).is_some_and(|info| info.open().is_none());
        let goes_first = request.is_some() && self.in_line.ahead.get(key) == request;
        if !is_free || goes_first {
            return false;
        }
        let waits = |job: &Job| matches!(&job.kind, JobKind::NextInLine(next) if next == key);
        if !self.in_line.free.contains(key) && !self.direct.iter().chain(&self.lacking).any(waits) {
            self.direct.push_back(Job::internal(JobKind::NextInLine(key.clone())));
        }
        true
    }

    /// Of a run that was in line until this transition: what its row says from now on of when it had its workflow id.
    pub(super) fn tenure_after_line(&self, run_id: RunId) -> Option<Uuid> {
        let live = self.live.get(run_id).filter(|live| live.row.is_queued())?;
        if live.state.left_line() {
            return Some(live.row.no_tenure());
        }
        let key: IdKey = (live.row.namespace.clone(), live.row.workflow_id.clone());
        let has_id = live.state.status() != Status::Queued;
        has_id.then(|| self.live.tenure(&key, run_id, None))?
    }

    pub(super) fn next_in_line(&mut self, job: Job) -> Step {
        let JobKind::NextInLine(key) = &job.kind else {
            return Step::Done;
        };
        let key = key.clone();
        let partition = self.partition_of(&key.0, &key.1);
        if !self.partitions.serves(partition) || !self.in_line.is_for(partition, &key) {
            return Step::Done;
        }
        if !self.was_looked_up(&job) {
            return Step::Lacks(Box::new(job));
        }
        let Some(info) = self.live.id(&key) else {
            return Step::Lacks(Box::new(job));
        };
        // It is called again when that one has closed.
        if info.open().is_some() || self.in_line.ahead.contains_key(&key) {
            return Step::Done;
        }
        if info.closes_in(self.building.number) {
            self.in_line.is_free(key);
            return Step::Done;
        }
        let queued: Vec<RunId> = info.queued().collect();
        if self.continues_first(&key) {
            return Step::Done;
        }
        let Some(next) = queued.iter().copied().find(|run| !self.absent.contains_key(run)) else {
            for run in queued {
                tracing::error!(%run, id = %key.1, "a queued start cannot be read, and is passed over");
            }
            self.in_line.remove(partition, &key);
            return Step::Done;
        };
        if !self.live.contains(next) {
            return Step::Lacks(Box::new(job));
        }
        let poison = PoisonKey::Internal(next);
        if self.poisoned.contains(&poison) {
            // Parked, it takes the id without going on, so that a person finds it there.
            self.direct.push_back(job);
            return self.set_aside(Job::internal(JobKind::Wake { run_id: next }), &poison);
        }
        match self.apply(next, Input::IdFree) {
            Applied::Changed => {}
            Applied::Nothing => tracing::error!(run = %next, "a queued start does not want its workflow id"),
            Applied::Rejected(refusal) => tracing::error!(run = %next, "a queued start: {}", refusal.message),
            Applied::Panicked => return self.poison(Some(poison)),
        }
        if queued.iter().all(|run| *run == next) {
            self.in_line.remove(partition, &key);
        }
        self.building.inputs += 1;
        Step::Done
    }
}

/// The first in line of an id, if it is not in memory.
pub(super) fn lacked_in_line(live: &LiveRuns, absent: &HashMap<RunId, Absent>, key: &IdKey) -> Option<RunId> {
    let next = live.id(key)?.queued().find(|run| !absent.contains_key(run))?;
    (!live.contains(next)).then_some(next)
}
