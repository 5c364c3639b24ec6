//! Performing jobs: what each kind needs before core can be asked, and what becomes of those whose run is not here.

use knarr_core::ids::{RunId, TaskNo};
use knarr_core::run::input::{Input, TaskOutcome};
use knarr_core::time::Span;
use knarr_schemas::body::BeatAnswer;
use knarr_schemas::code;

use super::apply::Applied;
use super::job::{Job, JobKind, Origin};
use super::look_up::Absent;
use super::outgoing;
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::result;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::Store;
use crate::telemetry::metric;

/// What a job lacks before it can be applied.
#[derive(Debug)]
pub(super) enum Step {
    Done,
    /// Put it back: something has to be looked up first.
    Lacks(Box<Job>),
    /// Put it back: it must not share a commit with what it follows.
    Blocked(Box<Job>),
    /// Everything has been dropped; nothing of this round counts.
    Reset,
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Applies one job, or says what it waits for.
    pub(super) fn perform(&mut self, mut job: Job) -> Step {
        if self.building.is_empty() {
            self.building.inputs = 0;
            self.building.began = self.clock.now();
        }
        if !self.poisoned.is_empty()
            && let Some(key) = PoisonKey::of(&job)
            && self.poisoned.contains(&key)
        {
            return self.set_aside(job, &key);
        }
        match &mut job.kind {
            JobKind::Refused(refusal) => {
                let refusal = refusal.clone();
                self.refuse(&job.origin, &refusal);
            }
            JobKind::Gap(gap) => {
                let gap = gap.clone();
                self.pass_gap(&gap);
            }
            JobKind::Start(_) => return self.start(job),
            JobKind::UnkeyedStart(_) => return self.unkeyed_start(job),
            JobKind::Verb(request) => {
                let request = request.clone();
                return self.verb(job, &request);
            }
            JobKind::Signal(request) => {
                let request = request.clone();
                return self.signal(job, &request);
            }
            JobKind::Message(request) => {
                let request = request.clone();
                return self.message(job, &request);
            }
            JobKind::Continue { run_id, commit } => {
                let (run_id, commit) = (*run_id, *commit);
                return self.continue_as_new(job, run_id, commit);
            }
            JobKind::Answered { run_id, .. }
            | JobKind::Result { run_id, .. }
            | JobKind::Beat { run_id, .. }
            | JobKind::Wake { run_id }
            | JobKind::TaskLost { run_id, .. }
            | JobKind::Held { run_id, .. }
            | JobKind::Unpublishable { run_id, .. } => {
                let run_id = *run_id;
                // What came before it has been deferred, and is applied first.
                if self.deferral.holds(run_id) && !matches!(job.origin, Origin::Deferred { .. }) {
                    return Step::Lacks(Box::new(job));
                }
                if !self.live.contains(run_id) {
                    match self.absent.get(&run_id) {
                        None => return Step::Lacks(Box::new(job)),
                        Some(Absent::Missing) => {
                            let refusal = Refusal::new(&code::UNKNOWN_RUN, format!("there is no run {run_id}"));
                            self.run_is_absent(&job, run_id, &refusal);
                        }
                        Some(Absent::Unreadable) => self.run_is_absent(&job, run_id, &unreadable(run_id)),
                        Some(Absent::Elsewhere) => self.run_is_elsewhere(&job, run_id),
                    }
                } else {
                    return self.perform_on(job, run_id);
                }
            }
        }
        self.building.inputs += 1;
        Step::Done
    }

    /// A job for a run that is in memory.
    fn perform_on(&mut self, job: Job, run_id: RunId) -> Step {
        let partition = self.live.get(run_id).map(|live| live.row.partition);
        if partition.is_some_and(|partition| !self.partitions.serves(partition)) {
            // It is being given away: nothing of it may change here any more.
            self.run_is_elsewhere(&job, run_id);
            self.building.inputs += 1;
            return Step::Done;
        }
        let poison = PoisonKey::of(&job);
        let Job { origin, kind, .. } = job;
        if let Some(message) = origin.message()
            && self
                .live
                .get(run_id)
                .is_some_and(|live| live.row.partition != message.partition)
        {
            let refusal = Refusal::new(
                &code::BAD_TASK_TOKEN,
                "the token belongs to a run of another workflow id",
            );
            self.refuse(&origin, &refusal);
            self.building.inputs += 1;
            return Step::Done;
        }
        let applied = match kind {
            JobKind::Result {
                task, outcome, letter, ..
            } => {
                count_result(&origin, &outcome);
                let applied = self.apply(run_id, Input::TaskEnded { task, outcome });
                if let (Some(refusal), Some(message)) = (letter, origin.message()) {
                    self.building.message(outgoing::dead_letter(message, &refusal));
                }
                applied
            }
            JobKind::Beat { task, running, .. } => {
                self.beat(&origin, run_id, task, running);
                return Step::Done;
            }
            JobKind::Wake { .. } => self.wake(run_id),
            JobKind::Answered { number, answer, .. } => self.apply(run_id, Input::MessageAnswered { number, answer }),
            JobKind::TaskLost { task, .. } => self.apply(run_id, Input::TaskLost { task }),
            JobKind::Held {
                task, in_doubt, commit, ..
            } => {
                let applied = self.apply(run_id, Input::DispatchHeld { task, in_doubt });
                self.settle_held(commit);
                applied
            }
            JobKind::Unpublishable { reason, commit, .. } => {
                let applied = self.apply(run_id, Input::Park { reason });
                self.settle_held(commit);
                applied
            }
            // The other kinds do not come here.
            _ => Applied::Nothing,
        };
        if !matches!(applied, Applied::Changed) {
            self.live.finish(run_id);
        }
        self.building.inputs += 1;
        match applied {
            Applied::Changed | Applied::Nothing => self.taken(&origin, None),
            // A result that no task waits for is settled: the worker is to acknowledge its task.
            Applied::Rejected(refusal) => self.refuse(&origin, &refusal),
            Applied::Panicked => return self.poison(poison),
        }
        Step::Done
    }

    fn run_is_absent(&mut self, job: &Job, run_id: RunId, refusal: &Refusal) {
        self.alarms.awake(run_id);
        match &job.kind {
            JobKind::Held { commit, .. } | JobKind::Unpublishable { commit, .. } => {
                match refusal.code.id == code::UNREADABLE_RUN.id {
                    true => self.settle_unreadable(*commit, run_id),
                    false => self.settle_held(*commit),
                }
            }
            JobKind::Beat { .. } => self.answer_beat(&job.origin, BeatAnswer::Gone),
            JobKind::Result { .. } if job.origin.message().is_some() => self.refuse(&job.origin, refusal),
            JobKind::Answered { .. } if refusal.code.id == code::UNREADABLE_RUN.id => self.refuse(&job.origin, refusal),
            // A sender that does not exist any more needs no answer.
            JobKind::Answered { .. } => self.taken(&job.origin, None),
            // The log is read by whoever owns the run.
            _ => self.turn_away(job),
        }
    }

    /// Another replica owns the run, or is about to. A worker finds it by the log; a deadline is the owner's matter.
    fn run_is_elsewhere(&mut self, job: &Job, run_id: RunId) {
        self.alarms.awake(run_id);
        match &job.kind {
            JobKind::Held { commit, .. } | JobKind::Unpublishable { commit, .. } => {
                if let Some(held) = self.held.get_mut(commit) {
                    held.elsewhere = true;
                }
                self.settle_held(*commit);
            }
            _ if job.origin.message().is_some() => {
                let refusal = Refusal::new(
                    &code::BAD_TASK_TOKEN,
                    format!("the run {run_id} belongs to another workflow id"),
                );
                self.refuse(&job.origin, &refusal);
            }
            _ => self.turn_away(job),
        }
    }

    fn beat(&mut self, origin: &Origin, run_id: RunId, task: TaskNo, running: Span) {
        let began = result::began(self.clock.now(), running);
        let answer = match self.live.get_mut(run_id) {
            None => BeatAnswer::Gone,
            Some(live) if !live.state.is_open(task) => BeatAnswer::Gone,
            Some(live) => {
                if !live.beats.iter().any(|(known, _)| *known == task) {
                    live.beats.push((task, began));
                }
                if live.state.is_unwanted(task) {
                    BeatAnswer::Cancel
                } else {
                    BeatAnswer::Ok
                }
            }
        };
        self.answer_beat(origin, answer);
    }

    fn answer_beat(&mut self, origin: &Origin, answer: BeatAnswer) {
        if let Origin::Direct {
            confirm: Some(inbox), ..
        } = origin
        {
            let body = serde_json::to_vec(&answer).unwrap_or_default();
            self.building.answer(outgoing::core(inbox.clone(), body));
        }
    }
}

pub(super) fn unreadable(run_id: RunId) -> Refusal {
    let problem = format!("the history of the run {run_id} cannot be read");
    Refusal::new(&code::UNREADABLE_RUN, problem)
}

fn count_result(origin: &Origin, outcome: &TaskOutcome) {
    let inlet = if origin.message().is_some() { "log" } else { "direct" };
    let outcome = match outcome {
        TaskOutcome::Completed { .. } => "completed",
        TaskOutcome::Failed(_) => "failed",
        TaskOutcome::Unknown(_) => "unknown",
        TaskOutcome::Cancelled => "cancelled",
        TaskOutcome::RetryLater { .. } => "retry_later",
    };
    metrics::counter!(metric::RESULTS, "inlet" => inlet, "outcome" => outcome).increment(1);
}
