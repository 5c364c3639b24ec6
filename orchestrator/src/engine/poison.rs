//! Inputs that break core or the store: found, set aside, and their runs parked, so that a partition moves on.

use std::sync::Arc;

use knarr_core::ids::RunId;
use knarr_core::run::input::Input;
use knarr_schemas::code;

use super::apply::Applied;
use super::batch::SealedBatch;
use super::job::{Job, JobKind, Origin};
use super::limits::LimiterKey;
use super::outgoing;
use super::perform::Step;
use super::refusal::Refusal;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{DeferredId, Store};
use crate::telemetry::metric;

/// An input that is known to break core or the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PoisonKey {
    Log {
        partition: i16,
        sequence: u64,
    },
    Deferred(DeferredId),
    Task {
        token: String,
    },
    /// A deadline or word of a publication.
    Internal(RunId),
    /// Time has passed at a limiter.
    Limiter(LimiterKey),
}

impl PoisonKey {
    pub(super) fn of(job: &Job) -> Option<Self> {
        match (&job.origin, &job.kind) {
            (Origin::Log(message), _) => Some(Self::Log {
                partition: message.partition,
                sequence: message.cursor.sequence,
            }),
            (Origin::Deferred { message, no }, _) => Some(Self::Deferred(DeferredId {
                partition: message.partition,
                no: *no,
            })),
            // A beat reaches core with a deadline, or with the result after it.
            (Origin::Direct { .. }, JobKind::Beat { .. }) => None,
            (Origin::Direct { token, .. }, _) => Some(Self::Task { token: token.clone() }),
            (
                Origin::Internal,
                JobKind::Wake { run_id }
                | JobKind::Read { run_id, .. }
                | JobKind::TaskLost { run_id, .. }
                | JobKind::Silent { run_id, .. }
                | JobKind::Withdrawn { run_id, .. }
                | JobKind::Continue { run_id, .. }
                | JobKind::Held { run_id, .. }
                | JobKind::Unpublishable { run_id, .. },
            ) => Some(Self::Internal(*run_id)),
            (Origin::Internal, JobKind::LimiterWake(key)) => Some(Self::Limiter(key.clone())),
            (Origin::Internal, _) => None,
        }
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// The one input of a batch that the store refused.
    pub(super) fn suspect(&self, sealed: &SealedBatch) -> Option<PoisonKey> {
        let mut continuing = self.continuing.iter();
        if let Some((run_id, _)) = continuing.find(|(_, started_in)| **started_in == sealed.number) {
            // A successor is no input. Where it came with one nothing is known: next time each comes by itself.
            let alone = sealed.runs.len() == 1
                && sealed.batch.cursors.is_empty()
                && sealed.batch.settled.is_empty()
                && sealed.outbound.confirms.is_empty();
            return alone.then_some(PoisonKey::Internal(*run_id));
        }
        if let Some(cursor) = sealed.batch.cursors.first() {
            return Some(PoisonKey::Log {
                partition: cursor.partition,
                sequence: cursor.cursor.sequence,
            });
        }
        if let Some(id) = sealed.batch.settled.first() {
            return Some(PoisonKey::Deferred(*id));
        }
        if let Some(confirm) = sealed.outbound.confirms.first() {
            return Some(PoisonKey::Task {
                token: confirm.token.clone(),
            });
        }
        sealed.runs.first().map(|run_id| PoisonKey::Internal(*run_id))
    }

    /// An input made core panic: drop everything that is not durable, read it again, and set this input aside then.
    pub(super) fn poison(&mut self, key: Option<PoisonKey>) -> Step {
        if let Some(key) = key {
            self.poisoned.insert(key);
        }
        self.reset("an input could not be applied");
        Step::Reset
    }

    /// An input known to break core or the store: its run is parked, the message goes to the dead letters, the cursor moves.
    pub(super) fn set_aside(&mut self, mut job: Job, key: &PoisonKey) -> Step {
        let run_id = match &job.kind {
            JobKind::Result { run_id, .. }
            | JobKind::Answered { run_id, .. }
            | JobKind::Wake { run_id }
            | JobKind::Read { run_id, .. }
            | JobKind::TaskLost { run_id, .. }
            | JobKind::Claim { run_id, .. }
            | JobKind::Silent { run_id, .. }
            | JobKind::Withdrawn { run_id, .. }
            | JobKind::Held { run_id, .. }
            | JobKind::Unpublishable { run_id, .. } => Some(*run_id),
            JobKind::Verb(request) if request.run.is_some() => request.run,
            JobKind::Verb(_) | JobKind::Signal(_) | JobKind::Schedule(_) | JobKind::Message(_) => {
                let key = match &job.kind {
                    JobKind::Verb(request) => (request.namespace.clone(), request.workflow_id.clone()),
                    JobKind::Signal(request) => (request.namespace.clone(), request.workflow_id.clone()),
                    JobKind::Schedule(request) => (request.namespace.clone(), request.workflow_id.clone()),
                    JobKind::Message(request) => request.key(),
                    _ => return Step::Done,
                };
                match self.live.id(&key) {
                    None => return Step::Lacks(Box::new(job)),
                    Some(info) => info.open().map(|known| known.row.run_id),
                }
            }
            JobKind::LimiterWake(key) => {
                self.limiters.stop(key);
                None
            }
            JobKind::Limit(request) => {
                if let Some(message) = job.origin.message() {
                    self.limiters.let_go(request.key(message.partition), request);
                }
                None
            }
            _ => None,
        };
        if let Some(run_id) = run_id
            && !self.live.contains(run_id)
            && !self.absent.contains_key(&run_id)
        {
            return Step::Lacks(Box::new(job));
        }
        self.poisoned.remove(key);
        let hopeless = self.unparkable.contains(key);
        let reason: Arc<str> = Arc::from(match &job.origin {
            Origin::Internal => "a deadline, or what became of a task, could not be applied or stored",
            Origin::Log(_) | Origin::Deferred { .. } | Origin::Direct { .. } => {
                "an input of this run could not be applied or stored; it is in the dead letters"
            }
        });
        if let Some(run_id) = run_id.filter(|_| !hopeless)
            && let Applied::Panicked = self.apply(
                run_id,
                Input::Park {
                    reason: Arc::clone(&reason),
                },
            )
        {
            // Not even parking works. What else the batch holds of the run is dropped with it: next time the input is let go, and
            // the run stays as it is stored.
            self.unparkable.insert(key.clone());
            return self.poison(Some(key.clone()));
        }
        self.building.set_aside.push(key.clone());
        match job.kind {
            JobKind::Held { commit, .. } | JobKind::Unpublishable { commit, .. } => self.settle_held(commit),
            JobKind::Continue { run_id, commit } => {
                self.give_up(run_id);
                if let Some(commit) = commit {
                    self.settle_unreadable(commit, run_id);
                }
            }
            _ => {}
        }
        job.kind = JobKind::Refused(Refusal::new(&code::POISON, reason.as_ref()));
        if let JobKind::Refused(refusal) = &job.kind {
            // Its worker is told that it is settled, and lets go of it.
            if let Origin::Direct { token, message, .. } = &job.origin {
                metrics::counter!(metric::DEAD_LETTERS, "reason" => refusal.code.title).increment(1);
                self.building
                    .message(outgoing::dead_letter_of_direct(message, token, refusal));
            }
            self.refuse(&job.origin, refusal);
        }
        self.building.inputs += 1;
        Step::Done
    }
}
