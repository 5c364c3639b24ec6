//! Performing jobs: what each kind needs before core can be asked, and what becomes of those whose run is not here.

use knarr_core::ids::{Namespace, RunId, WorkflowId};
use knarr_core::run::input::{Input, TaskOutcome};
use knarr_core::run::message::{Answer, Sender};
use knarr_core::run::{Known, OpenTaskView};
use knarr_schemas::body::{BeatAnswer, ClaimAnswer};
use knarr_schemas::code;
use knarr_schemas::subject::{LogSubject, parse_log_subject};

use super::apply::Applied;
use super::job::{HandedIn, Job, JobKind, Origin};
use super::look_up::Absent;
use super::outgoing;
use super::places::GrantedPlace;
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::run_loop::Loop;
use crate::bus::{Bus, LogMessage};
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
            JobKind::Gap { gap, said_to } => {
                // The cursor moves with the last of them, so that whoever takes over says them all.
                if let Some(said) = self.say_grants_again(gap.partition, said_to.as_ref()) {
                    *said_to = Some(said);
                    self.building.inputs += 1;
                    return Step::Blocked(Box::new(job));
                }
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
            JobKind::Schedule(request) => {
                let request = request.clone();
                return self.schedule(job, &request);
            }
            JobKind::Message(request) => {
                let request = request.clone();
                return self.message(job, &request);
            }
            JobKind::Limit(request) => {
                let request = request.clone();
                return self.limit(&job, &request);
            }
            JobKind::LimiterWake(key) => {
                let key = key.clone();
                return self.limiter_wakes(&key);
            }
            JobKind::NextInLine(_) => return self.next_in_line(job),
            JobKind::Continue { run_id, commit } => {
                let (run_id, commit) = (*run_id, *commit);
                return self.continue_as_new(job, run_id, commit);
            }
            JobKind::Answered { run_id, .. }
            | JobKind::Result { run_id, .. }
            | JobKind::Beat { run_id, .. }
            | JobKind::Claim { run_id, .. }
            | JobKind::Silent { run_id, .. }
            | JobKind::Withdrawn { run_id, .. }
            | JobKind::Wake { run_id }
            | JobKind::Read { run_id, .. }
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
                            if let Some(place) = GrantedPlace::of(&job) {
                                return self.place_of_absent(job, place);
                            }
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
                let applied = match outcome {
                    HandedIn::Outcome(outcome) => {
                        count_result(&origin, &outcome);
                        // What its heartbeats said is the next attempt's.
                        if !matches!(outcome, TaskOutcome::Completed { .. })
                            && matches!(self.hand_in_beat(run_id, task), Applied::Panicked)
                        {
                            return self.poison(poison);
                        }
                        self.apply(run_id, Input::TaskEnded { task, outcome })
                    }
                    HandedIn::Later => self.left(run_id, task),
                };
                if let (Some(refusal), Some(message)) = (letter, origin.message()) {
                    self.building.message(outgoing::dead_letter(message, &refusal));
                }
                applied
            }
            JobKind::Beat { task, said, .. } => {
                self.beat(&origin, run_id, task, said);
                return Step::Done;
            }
            JobKind::Claim { task, by, .. } => {
                let applied = self.claim(&origin, run_id, task, by);
                self.building.inputs += 1;
                return match applied {
                    Applied::Panicked => self.poison(poison),
                    _ => Step::Done,
                };
            }
            JobKind::Silent { task, .. } => self.silent(run_id, task),
            JobKind::Withdrawn { task, withdrawn, .. } => self.apply(run_id, Input::Withdrawn { task, withdrawn }),
            JobKind::Wake { .. } => self.wake(run_id),
            JobKind::Read { read, .. } => self.read(run_id, read),
            JobKind::Answered { number, answer, .. } => self.apply(run_id, Input::MessageAnswered { number, answer }),
            JobKind::TaskLost { task, .. } => match self.hand_in_beat(run_id, task) {
                Applied::Panicked => Applied::Panicked,
                _ => self.apply(run_id, Input::TaskLost { task }),
            },
            JobKind::Held {
                task, in_doubt, commit, ..
            } => {
                let applied = self.apply(run_id, Input::DispatchHeld { task, in_doubt });
                self.settle_held(commit);
                applied
            }
            JobKind::Unpublishable {
                task,
                in_doubt,
                reason,
                commit,
                ..
            } => {
                // It is not out, whoever has the run go on.
                let mut applied = self.apply(run_id, Input::DispatchHeld { task, in_doubt });
                let is_held = |view: &OpenTaskView<'_>| view.open.task == task && view.open.known == Known::Held;
                let live = self.live.get(run_id);
                if live.is_some_and(|live| live.state.open_tasks().any(|view| is_held(&view)))
                    && let parked @ (Applied::Changed | Applied::Panicked) = self.apply(run_id, Input::Park { reason })
                {
                    applied = parked;
                }
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
            // It is there all the same: its worker is not to stop, nor to let go of the task, and asks again.
            JobKind::Beat { .. } | JobKind::Claim { .. } if refusal.code.id == code::UNREADABLE_RUN.id => {}
            JobKind::Beat { .. } => self.answer_worker(&job.origin, &BeatAnswer::Gone),
            JobKind::Claim { .. } => self.answer_worker(&job.origin, &ClaimAnswer::Gone),
            JobKind::Result { .. } if job.origin.message().is_some() => self.refuse(&job.origin, refusal),
            JobKind::Answered { .. } if refusal.code.id == code::UNREADABLE_RUN.id => self.refuse(&job.origin, refusal),
            // A sender that does not exist any more needs no answer, and no permit.
            JobKind::Answered { number, answer, .. } => {
                if let (Answer::Granted { limit, .. }, Some(from)) =
                    (answer, job.origin.message().and_then(|it| sender(run_id, it)))
                {
                    self.give_back_for(from, *number, limit.clone());
                }
                self.taken(&job.origin, None);
            }
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
}

/// The run that an answer was sent to.
pub(super) fn sender(run: RunId, answer: &LogMessage) -> Option<Sender> {
    match parse_log_subject(&answer.subject).ok()? {
        LogSubject::Run(subject) => Some(Sender {
            run,
            namespace: Namespace::new(&subject.namespace),
            workflow_id: WorkflowId::new(&subject.workflow_id),
        }),
        LogSubject::UnkeyedStart { .. } => None,
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
