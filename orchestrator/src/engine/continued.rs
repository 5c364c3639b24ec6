//! Continuing as new, and trying again: the successor of a run that has closed so is started before anything else for its
//! workflow id.
//!
//! It is a function of the closed state, with a fixed run id, so that it may be tried again. In the ordinary course it opens
//! in the batch after the one in which its predecessor closes, before any other input: one statement must not close and
//! open the same id. After a failure it is found by the commit that owes it, or by whoever speaks to the id.
//!
//! One that core panics over, or the store refuses, is given up here: who speaks to the id does not wait for it. It stays owed,
//! and is tried again by whoever takes over, and here when everything is read anew or partitions are taken.

use std::sync::Arc;

use knarr_core::ids::RunId;
use knarr_schemas::code;

use super::job::{Job, JobKind};
use super::live::IdKey;
use super::look_up::Absent;
use super::perform::Step;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{CommitId, Store};

/// In place of the batch in which a successor has begun: it cannot be started now, and nobody waits for it.
const NEVER: u64 = u64::MAX;

/// How the start of a successor went.
enum Successor {
    /// It is there.
    There,
    /// It has to be found out whether it is.
    Unknown,
    /// It must not share a statement with the end of its predecessor, or of who has had the workflow id since.
    Blocked,
    /// It has been given up, or another run has the workflow id.
    Never,
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// The run has closed as continued as new, or is tried again, in the batch that is being built.
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
            let fresh = live.closed_just_before(self.building.number);
            if let Some(successor) = live.state.successor().filter(|_| fresh)
                && !self.live.contains(successor.run_id)
            {
                self.absent.insert(successor.run_id, Absent::Missing);
            }
            self.start_successor(run_id);
        }
    }

    /// These runs are among what a commit has made durable.
    pub(super) fn owe_successors(&mut self, commit: CommitId, runs: &[RunId]) {
        if self.continuing.is_empty() {
            return;
        }
        let continuing = runs.iter().copied();
        let continuing: Vec<RunId> = continuing
            .filter(|run_id| self.continuing.contains_key(run_id))
            .collect();
        if !continuing.is_empty() {
            self.owing_successors.insert(commit, continuing);
        }
    }

    /// Commits to be struck off. One that owes a successor is not, before that is there for good: an heir would hear of it by
    /// nothing else.
    pub(super) fn take_published(&mut self) -> Vec<CommitId> {
        let continuing = &self.continuing;
        self.owing_successors
            .retain(|_, runs| runs.iter().any(|run_id| continuing.contains_key(run_id)));
        let owing = &self.owing_successors;
        let published = std::mem::take(&mut self.published).into_iter();
        let (waiting, ready): (Vec<_>, Vec<_>) = published.partition(|commit| owing.contains_key(commit));
        self.published = waiting;
        ready
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

    /// Whether there are successors that are not under way in the ordinary course, by which they open in the batch after the one that
    /// closed their predecessor here.
    pub(super) fn owes_successors(&self) -> bool {
        let mut waiting = self.continuing.iter().filter(|(_, started_in)| **started_in == 0);
        waiting.any(|(run_id, _)| self.live.get(*run_id).is_none_or(|live| live.closed_in == 0))
    }

    /// Partitions have been taken: what could not be started may be possible by now, or its run be somebody else's.
    pub(super) fn try_given_up(&mut self) {
        let never = self.continuing.iter().filter(|(_, started_in)| **started_in == NEVER);
        for (run_id, _) in never {
            let (run_id, commit) = (*run_id, None);
            self.direct
                .push_back(Job::internal(JobKind::Continue { run_id, commit }));
        }
    }

    /// Somebody speaks to an id whose newest run is to be continued: that comes first. `true` = wait for it.
    pub(super) fn continues_first(&mut self, key: &IdKey) -> bool {
        let continued = self.live.id(key).and_then(|info| info.continued());
        let Some(run_id) = continued.filter(|run_id| !self.given_up.contains(run_id)) else {
            return false;
        };
        match self.continuing.get(&run_id) {
            Some(&NEVER) => return false,
            Some(_) => {}
            None => {
                self.continuing.insert(run_id, 0);
                let kind = JobKind::Continue { run_id, commit: None };
                self.direct.push_back(Job::internal(kind));
            }
        }
        true
    }

    pub(super) fn continue_as_new(&mut self, job: Job, run_id: RunId, commit: Option<CommitId>) -> Step {
        if self.live.contains(run_id) {
            if commit.is_none() {
                self.given_up.remove(&run_id);
            }
            match self.start_successor(run_id) {
                Successor::There => {}
                Successor::Unknown => return Step::Lacks(Box::new(job)),
                Successor::Blocked => return Step::Blocked(Box::new(job)),
                Successor::Never => {
                    if let Some(held) = commit.and_then(|commit| self.held.get_mut(&commit)) {
                        held.left.add_unreadable([run_id]);
                    }
                }
            }
        } else {
            match self.absent.get(&run_id) {
                None => return Step::Lacks(Box::new(job)),
                Some(Absent::Missing) => {
                    self.continuing.remove(&run_id);
                }
                Some(Absent::Unreadable) => {
                    if let Some(held) = commit.and_then(|commit| self.held.get_mut(&commit)) {
                        held.left.add_unreadable([run_id]);
                    }
                    // It is owed all the same, but others do not wait until somebody has seen to it.
                    self.wait_no_more(run_id);
                }
                Some(Absent::Elsewhere) => {
                    // It is tried now and then, as what cannot be read is: at once it would be where it was.
                    if let Some(held) = commit.and_then(|commit| self.held.get_mut(&commit)) {
                        held.left.add_unreadable([run_id]);
                    }
                    // What a commit from here owes it goes on to owe.
                    if self.owing_successors.values().flatten().any(|owed| *owed == run_id) {
                        self.continuing.insert(run_id, NEVER);
                    } else if self.continuing.get(&run_id) != Some(&NEVER) {
                        self.continuing.remove(&run_id);
                    }
                }
            }
        }
        if let Some(commit) = commit {
            self.settle_held(commit);
        }
        self.building.inputs += 1;
        Step::Done
    }

    /// The commit in which the run closed is not struck off meanwhile.
    pub(super) fn give_up(&mut self, run_id: RunId) {
        tracing::error!(code = code::POISON.id, run = %run_id, "the run that continues this one as new cannot be started");
        self.wait_no_more(run_id);
        self.given_up.insert(run_id);
    }

    fn start_successor(&mut self, run_id: RunId) -> Successor {
        if self.given_up.contains(&run_id) {
            return Successor::Never;
        }
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
        if let Some(touched_in) = self.live.get(start.run_id).map(|successor| successor.touched_in) {
            if touched_in > self.committed {
                self.continuing.insert(run_id, touched_in);
            } else {
                self.continuing.remove(&run_id);
            }
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
        // Where the run has closed a moment ago, nobody else can have the id.
        if !live.closed_just_before(number) {
            match self.live.id(&key) {
                None => return Successor::Unknown,
                Some(info) if info.open().is_some() => {
                    tracing::warn!(run = %run_id, id = %key.1, "another run has the workflow id of one that goes on, which waits");
                    self.wait_no_more(run_id);
                    return Successor::Never;
                }
                Some(info) if info.closes_in(number) => {
                    // It is started with those whose predecessor has closed in this batch.
                    self.continuing.insert(run_id, 0);
                    return Successor::Blocked;
                }
                Some(_) => {}
            }
        }
        self.continuing.insert(run_id, number);
        match self.open(&key, &plan, class, start) {
            Ok(true) => {}
            Ok(false) => {
                self.give_up(run_id);
                return Successor::Never;
            }
            Err(refusal) => {
                tracing::error!(run = %run_id, "a successor cannot be started: {}", refusal.message);
                self.wait_no_more(run_id);
            }
        }
        Successor::There
    }

    /// Whoever waits for a successor goes on without one.
    fn wait_no_more(&mut self, run_id: RunId) {
        self.continuing.insert(run_id, NEVER);
        if let Some(live) = self.live.get(run_id) {
            let key: IdKey = (live.row.namespace.clone(), live.row.workflow_id.clone());
            if self.in_line.is_for(live.row.partition, &key) {
                self.direct.push_back(Job::internal(JobKind::NextInLine(key)));
            }
        }
        // They wait for another batch, and nothing of this goes into one.
        for (_, partition) in self.partitions.iter_mut() {
            partition.blocked_in = None;
        }
    }
}
