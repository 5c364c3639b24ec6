//! Continuing as new: the successor of a run that has closed so is started before anything else for its workflow id.
//!
//! It is a function of the closed state, with a fixed run id, so that it may be tried again. In the ordinary course it opens
//! in the batch after the one in which its predecessor closes, before any other input: one statement must not close and
//! open the same id. After a failure it is found by the commit that owes it, or by whoever speaks to the id.

use std::sync::Arc;

use knarr_core::ids::RunId;

use super::job::{Job, JobKind};
use super::live::IdKey;
use super::look_up::Absent;
use super::perform::Step;
use super::poison::PoisonKey;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{CommitId, Store};

/// How the start of a successor went.
enum Successor {
    /// It is there.
    There,
    /// It has to be found out whether it is.
    Unknown,
    /// It must not share a statement with the end of its predecessor.
    Blocked,
    Panicked,
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// The run has closed as continued as new in the batch that is being built.
    pub(super) fn continues(&mut self, run_id: RunId) {
        self.continuing.insert(run_id, 0);
    }

    /// A batch has been sealed: successors of what closed in it are the first of the next.
    pub(super) fn start_successors(&mut self) {
        if self.continuing.is_empty() {
            return;
        }
        let waiting = self.continuing.iter().filter(|(_, started_in)| **started_in == 0);
        let waiting: Vec<RunId> = waiting.map(|(run_id, _)| *run_id).collect();
        for run_id in waiting {
            let Some(live) = self.live.get(run_id) else { continue };
            // Where it closed here a moment ago, nobody can have started its successor.
            let fresh = live.closed_in + 1 == self.building.number;
            if let Some(successor) = live.state.successor().filter(|_| fresh)
                && !self.live.contains(successor.run_id)
            {
                self.absent.insert(successor.run_id, Absent::Missing);
            }
            self.start_successor(run_id);
        }
    }

    /// After everything in memory was dropped.
    pub(super) fn continue_again(&mut self) {
        for (run_id, started_in) in &mut self.continuing {
            *started_in = 0;
            let kind = JobKind::Continue {
                run_id: *run_id,
                commit: None,
            };
            self.direct.push_back(Job::internal(kind));
        }
    }

    /// Somebody speaks to an id whose newest run is to be continued: that comes first. `true` = wait for it.
    pub(super) fn continues_first(&mut self, key: &IdKey) -> bool {
        let Some(run_id) = self.live.ids.get(key).and_then(|info| info.continued()) else {
            return false;
        };
        self.continue_first(run_id);
        true
    }

    pub(super) fn continue_first(&mut self, run_id: RunId) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.continuing.entry(run_id) {
            entry.insert(0);
            let kind = JobKind::Continue { run_id, commit: None };
            self.direct.push_back(Job::internal(kind));
        }
    }

    pub(super) fn continue_as_new(&mut self, job: Job, run_id: RunId, commit: Option<CommitId>) -> Step {
        if self.live.contains(run_id) {
            match self.start_successor(run_id) {
                Successor::There => {}
                Successor::Unknown => return Step::Lacks(Box::new(job)),
                Successor::Blocked => return Step::Blocked(Box::new(job)),
                Successor::Panicked => return self.poison(PoisonKey::of(&job)),
            }
        } else {
            match self.absent.get(&run_id) {
                None => return Step::Lacks(Box::new(job)),
                Some(Absent::Missing) => {}
                Some(Absent::Unreadable) => {
                    if let Some(held) = commit.and_then(|commit| self.held.get_mut(&commit)) {
                        held.left.add_unreadable([run_id]);
                    }
                }
                Some(Absent::Elsewhere) => {
                    if let Some(held) = commit.and_then(|commit| self.held.get_mut(&commit)) {
                        held.elsewhere = true;
                    }
                }
            }
            self.continuing.remove(&run_id);
        }
        if let Some(commit) = commit {
            self.settle_held(commit);
        }
        self.building.inputs += 1;
        Step::Done
    }

    fn start_successor(&mut self, run_id: RunId) -> Successor {
        let Some(live) = self.live.get(run_id) else {
            return Successor::Unknown;
        };
        let Some(start) = live.state.successor() else {
            self.continuing.remove(&run_id);
            return Successor::There;
        };
        let number = self.building.number;
        if live.closed_in == number {
            return Successor::Blocked;
        }
        if self.live.contains(start.run_id) {
            self.continuing.remove(&run_id);
            return Successor::There;
        }
        match self.absent.get(&start.run_id) {
            None => return Successor::Unknown,
            Some(Absent::Elsewhere | Absent::Unreadable) => {
                self.continuing.remove(&run_id);
                return Successor::There;
            }
            Some(Absent::Missing) => {}
        }
        let (plan, class) = (Arc::clone(&live.plan), live.row.retention_class);
        let key: IdKey = (live.row.namespace.clone(), live.row.workflow_id.clone());
        self.continuing.insert(run_id, number);
        match self.open(&key, &plan, class, start) {
            Ok(true) => {}
            Ok(false) => return Successor::Panicked,
            Err(refusal) => tracing::error!(run = %run_id, "a successor cannot be started: {}", refusal.message),
        }
        Successor::There
    }
}
