//! Committing batches, one at a time, and letting out what they owe.
//!
//! **Invariant:** nothing is let out before its batch is known to be committed; a commit is struck off once everything it
//! owes is acknowledged, or recorded in its runs by a committed batch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knarr_core::ids::RunId;

use super::batch::{BatchBuilder, Confirm, Outbound, SealedBatch};
use super::failpoint::{self, Stage};
use super::job::{Job, JobKind};
use super::offers::Left;
use super::publication::{HeldTask, Published, UnpublishableTask};
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{CommitError, CommitId, Store};
use crate::telemetry::metric;

/// Workers that were not confirmed hand in again within that time, and the culprit with them.
const CAREFUL_FOR: Duration = Duration::from_secs(3);

impl<S: Store, B: Bus> Loop<S, B> {
    /// Closes the batch and commits it, if no other commit is under way.
    pub(super) fn commit(&mut self) {
        if self.committing.is_some() || self.building.is_empty() {
            return;
        }
        failpoint::pass(Stage::Applied);
        if !self.building.needs_commit() {
            // Only repeats: everything they are told is durable already.
            let sealed = self.next_batch().seal(&self.live);
            self.committed = sealed.number;
            self.forget_finished();
            self.let_out(None, sealed.outbound);
            return;
        }
        let published = self.take_published();
        self.building.published(published);
        let sealed = self.next_batch().seal(&self.live);
        let store = Arc::clone(&self.store);
        let batch = Arc::clone(&sealed.batch);
        let (session, life) = (self.session, self.life);
        self.committing = Some(sealed);
        self.start_successors();
        self.call_next();
        let panicked = Done::Committed {
            life,
            result: Err(CommitError::Unknown("the commit panicked".to_owned())),
            took: Duration::ZERO,
        };
        let writing = Arc::clone(&self.writing);
        self.beside(panicked, async move {
            let _turn = writing.lock().await;
            let began = Instant::now();
            let result = store.commit(&session, &batch).await;
            Done::Committed {
                life,
                result,
                took: began.elapsed(),
            }
        });
    }

    pub(super) fn commit_returned(&mut self, result: Result<(), CommitError>, took: Duration) {
        let Some(sealed) = self.committing.take() else { return };
        match result {
            Ok(()) => {
                self.failed = 0;
                metrics::histogram!(metric::COMMIT_SECONDS).record(took.as_secs_f64());
                metrics::histogram!(metric::BATCH_TRANSITIONS).record(sealed.batch.appends.len() as f64);
                metrics::counter!(metric::TRANSITIONS).increment(sealed.batch.appends.len() as u64);
                self.health.set_store(true);
                self.careful = self.careful.saturating_sub(sealed.inputs);
                self.batch_landed(sealed);
            }
            Err(CommitError::BadData(problem)) => {
                metrics::counter!(metric::COMMIT_ERRORS, "kind" => "bad_data").increment(1);
                tracing::error!(%problem, inputs = sealed.inputs, "the store refuses a batch");
                self.published.extend(sealed.batch.published.iter().copied());
                if sealed.inputs <= 1 {
                    // One that is poison already, if its parking is what was refused.
                    let parked = sealed.set_aside.first().cloned();
                    self.unparkable.extend(parked.clone());
                    self.poisoned.extend(parked.or_else(|| self.suspect(&sealed)));
                    self.careful = self.careful.max(1);
                } else {
                    // One by one from here, until the culprit has been met.
                    self.careful = sealed.inputs + self.building.inputs;
                    self.careful_until = Some(tokio::time::Instant::now() + CAREFUL_FOR);
                }
                self.reset("the store refused a batch");
            }
            Err(CommitError::Fenced) => {
                metrics::counter!(metric::COMMIT_ERRORS, "kind" => "fenced").increment(1);
                self.failed = self.failed.saturating_add(1);
                self.published.extend(sealed.batch.published.iter().copied());
                self.limbo = Some(sealed);
                self.reset("a commit was fenced off");
            }
            Err(CommitError::Unknown(problem)) => {
                metrics::counter!(metric::COMMIT_ERRORS, "kind" => "unknown").increment(1);
                tracing::warn!(%problem, "the outcome of a commit is unknown");
                self.failed = self.failed.saturating_add(1);
                self.health.set_store(false);
                self.published.extend(sealed.batch.published.iter().copied());
                self.limbo = Some(sealed);
                self.reset("a commit's outcome is unknown");
            }
        }
    }

    pub(super) fn batch_landed(&mut self, sealed: SealedBatch) {
        failpoint::pass(Stage::Committed);
        self.session.batch_no += 1;
        self.committed = sealed.number;
        for write in &sealed.batch.cursors {
            if let Some(partition) = self.partitions.get_mut(write.partition) {
                partition.committed = write.cursor.clone();
            }
        }
        let committed = self.committed;
        self.continuing
            .retain(|_, started_in| *started_in == 0 || *started_in > committed);
        for commit in &sealed.batch.published {
            self.held.remove(commit);
        }
        for run_id in &sealed.runs {
            if let Some(live) = self.live.get(*run_id)
                && live.state.is_closed()
                && live.touched_in <= self.committed
            {
                if live.closed_in == sealed.number {
                    metrics::counter!(metric::RUNS_CLOSED, "status" => live.state.status().as_str()).increment(1);
                }
                self.live.finish(*run_id);
            }
        }
        self.forget_finished();
        let (runs, bytes) = (self.config.live_runs, self.config.live_bytes);
        for evicted in self.live.shrink(runs, bytes, self.committed) {
            self.let_sleep(&evicted);
        }
        if self.live.forgot_beats() {
            self.pulses.forgot(self.clock.now());
        }
        if self.live.knows_too_much(bytes / 8) && self.fetching.is_none() {
            self.live.forget_ids(self.committed);
        }
        metrics::gauge!(metric::LIVE_RUNS).set(self.live.len() as f64);
        metrics::gauge!(metric::LIVE_BYTES).set(self.live.bytes() as f64);
        let commit = (!sealed.batch.owed.is_empty()).then_some(CommitId {
            session: self.session.id,
            batch_no: self.session.batch_no,
        });
        if let Some(commit) = commit {
            self.offers.publishing(commit, sealed.began);
            self.owe_successors(commit, &sealed.runs);
        }
        self.let_out(commit, sealed.outbound);
    }

    fn forget_finished(&mut self) {
        for left in self.live.drop_finished(self.committed) {
            self.let_sleep(&left);
        }
    }

    /// Publishes what a committed batch owes, beside the loop. Where too much is under way already, only those who wait are
    /// told; the rest waits by the name of its commit, and is read from the store when it is its turn.
    pub(super) fn let_out(&mut self, mut commit: Option<CommitId>, mut outbound: Outbound) {
        let publisher = self.publisher.clone();
        if self.publishing_bytes > 0
            && self.publishing_bytes + outbound.bytes > self.config.publish_bytes
            && let Some(owed) = commit.take()
        {
            outbound.publications = Vec::new();
            outbound.messages = Vec::new();
            let answers: usize = outbound.answers.iter().map(|answer| answer.payload.len()).sum();
            outbound.bytes = answers + outbound.confirms.iter().map(Confirm::bytes).sum::<usize>();
            self.offers.was_published(owed);
            self.offers.put(owed, Left::All);
            metrics::counter!(metric::PUBLICATIONS_PUT_OFF).increment(1);
        }
        let bytes = outbound.bytes;
        self.publishing_bytes += bytes;
        let panicked = Done::Published {
            bytes,
            published: commit.map(|commit| Published::unsettled(commit, Left::All)),
        };
        self.beside(panicked, async move {
            let published = publisher.publish(commit, outbound).await;
            Done::Published { bytes, published }
        });
    }

    pub(super) fn publication_ended(&mut self, published: Published) {
        failpoint::pass(Stage::Acknowledged);
        self.restore_queues(published.missing);
        if let Some(commit) = published.commit {
            self.offers.was_published(commit);
        }
        self.withdraw_soon(published.withdrawals);
        let Some(commit) = published.commit else { return };
        if published.held.is_empty() && published.unpublishable.is_empty() && published.continues.is_empty() {
            match published.left {
                Left::Nothing => self.published.push(commit),
                left => self.offers.put(commit, left),
            }
            return;
        }
        let mut held = HeldCommit {
            unrecorded: 0,
            elsewhere: false,
            tasks: published.held,
            unpublishable: published.unpublishable,
            continues: published.continues,
            left: published.left,
        };
        if !self.recovering {
            self.direct.extend(held.jobs(commit));
        }
        self.held.insert(commit, held);
    }

    /// What a stream refused cannot be recorded in a run that cannot be read: it stays owed.
    pub(super) fn settle_unreadable(&mut self, commit: CommitId, run_id: RunId) {
        if let Some(held) = self.held.get_mut(&commit) {
            held.left.add_unreadable([run_id]);
        }
        self.settle_held(commit);
    }

    /// One task that a stream refused has been recorded; the commit it came from is published once all are.
    pub(super) fn settle_held(&mut self, commit: crate::store::CommitId) {
        if let Some(held) = self.held.get_mut(&commit) {
            held.unrecorded = held.unrecorded.saturating_sub(1);
            if held.unrecorded > 0 {
                return;
            }
            if !held.elsewhere && held.left == Left::Nothing {
                self.building.published([commit]);
                return;
            }
            // What was refused cannot be recorded in a run that another owns. What has been recorded here is offered in
            // vain, unless the batch that says so is dropped.
            if let Some(mut held) = self.held.remove(&commit) {
                let mut runs = held.runs();
                // A successor that cannot be started now is not tried at once, and again at once.
                runs.retain(|run| !held.left.is_unreadable(*run));
                held.left.add_runs(runs);
                self.offers.put(commit, held.left);
            }
        }
    }

    /// A fresh batch, to be filled while the last one commits.
    pub(super) fn next_batch(&mut self) -> BatchBuilder {
        let number = self.building.number + 1;
        std::mem::replace(&mut self.building, BatchBuilder::new(number))
    }
}

/// What of a commit could not be published, and has to be recorded in its runs.
#[derive(Debug, Default)]
pub(super) struct HeldCommit {
    /// How many are not yet recorded, not even in the batch that is being built.
    pub(super) unrecorded: usize,
    /// A run of these has another owner by now, who does not know what was refused.
    pub(super) elsewhere: bool,
    pub(super) tasks: Vec<HeldTask>,
    pub(super) unpublishable: Vec<UnpublishableTask>,
    /// Runs whose successors have to be started.
    pub(super) continues: Vec<RunId>,
    /// What was neither refused nor acknowledged.
    pub(super) left: Left,
}

impl HeldCommit {
    fn runs(&self) -> BTreeSet<RunId> {
        let tasks = self.tasks.iter().map(|held| held.run_id);
        tasks
            .chain(self.unpublishable.iter().map(|lost| lost.held.run_id))
            .chain(self.continues.iter().copied())
            .collect()
    }

    pub(super) fn jobs(&mut self, commit: CommitId) -> Vec<Job> {
        self.unrecorded = self.tasks.len() + self.unpublishable.len() + self.continues.len();
        self.elsewhere = false;
        let held = self.tasks.iter().map(|held| JobKind::Held {
            run_id: held.run_id,
            task: held.task,
            in_doubt: held.in_doubt,
            commit,
        });
        let lost = self
            .unpublishable
            .iter()
            .map(|UnpublishableTask { held, reason }| JobKind::Unpublishable {
                run_id: held.run_id,
                task: held.task,
                in_doubt: held.in_doubt,
                reason: Arc::clone(reason),
                commit,
            });
        let continues = self.continues.iter().map(|run_id| JobKind::Continue {
            run_id: *run_id,
            commit: Some(commit),
        });
        held.chain(lost).chain(continues).map(Job::internal).collect()
    }
}
