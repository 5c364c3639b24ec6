//! Applying jobs to runs: the one place where core is called, and where a batch grows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use knarr_core::ids::{RunId, TaskNo};
use knarr_core::run::input::{AnswerOn, AnswerRequest, Input, TaskOutcome};
use knarr_core::run::{self, Event, Transition};
use knarr_core::time::{Span, Timestamp};
use knarr_schemas::body::{AnswerStage, BeatAnswer};
use knarr_schemas::code;

use super::batch::Confirm;
use super::job::{self, Job, JobKind, Origin, Verb, VerbRequest};
use super::live::IdKey;
use super::look_up::Absent;
use super::outgoing;
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::run_loop::Loop;
use super::spans;
use crate::bus::Bus;
use crate::store::{Append, Snapshot, Store, StoredTransition};
use crate::telemetry::metric;

/// What became of an input.
#[derive(Debug)]
pub(super) enum Applied {
    Changed,
    /// A duplicate, or not due yet.
    Nothing,
    Rejected(Refusal),
    /// Core panicked; the run is no longer in memory.
    Panicked,
}

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
            JobKind::Result { run_id, .. }
            | JobKind::Beat { run_id, .. }
            | JobKind::Wake { run_id }
            | JobKind::TaskLost { run_id, .. }
            | JobKind::Held { run_id, .. }
            | JobKind::Unpublishable { run_id, .. } => {
                let run_id = *run_id;
                if !self.live.contains(run_id) {
                    match self.absent.get(&run_id) {
                        None => return Step::Lacks(Box::new(job)),
                        Some(Absent::Missing) => self.run_is_absent(job, run_id),
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
        if let Origin::Log(message) = &origin
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
                if let (Some(refusal), Origin::Log(message)) = (letter, &origin) {
                    self.building.message(outgoing::dead_letter(message, &refusal));
                }
                applied
            }
            JobKind::Beat { task, running, .. } => {
                self.beat(&origin, run_id, task, running);
                return Step::Done;
            }
            JobKind::Wake { .. } => self.wake(run_id),
            JobKind::TaskLost { task, .. } => self.apply(run_id, Input::TaskLost { task }),
            JobKind::Held { task, commit, .. } => {
                let applied = self.apply(run_id, Input::DispatchHeld { task });
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
        self.building.inputs += 1;
        match applied {
            Applied::Changed | Applied::Nothing => self.taken(&origin, None),
            // A result that no task waits for is settled: the worker is to acknowledge its task.
            Applied::Rejected(refusal) => self.refuse(&origin, &refusal),
            Applied::Panicked => return self.poison(poison),
        }
        Step::Done
    }

    fn run_is_absent(&mut self, job: Job, run_id: RunId) {
        match &job.kind {
            JobKind::Held { commit, .. } | JobKind::Unpublishable { commit, .. } => self.settle_held(*commit),
            JobKind::Beat { .. } => self.answer_beat(&job.origin, BeatAnswer::Gone),
            // A worker that hears nothing hands in by the log, which is read by whoever owns the run.
            JobKind::Result { .. } if matches!(job.origin, Origin::Log(_)) => {
                let refusal = Refusal::new(&code::UNKNOWN_RUN, format!("there is no run {run_id}"));
                self.refuse(&job.origin, &refusal);
            }
            _ => {}
        }
    }

    /// Another replica owns the run, or is about to. A worker that hears nothing finds it; a deadline is its matter.
    fn run_is_elsewhere(&mut self, job: &Job, run_id: RunId) {
        match &job.kind {
            JobKind::Held { commit, .. } | JobKind::Unpublishable { commit, .. } => {
                if let Some(held) = self.held.get_mut(commit) {
                    held.elsewhere = true;
                }
                self.settle_held(*commit);
            }
            _ if matches!(job.origin, Origin::Log(_)) => {
                let refusal = Refusal::new(
                    &code::BAD_TASK_TOKEN,
                    format!("the run {run_id} belongs to another workflow id"),
                );
                self.refuse(&job.origin, &refusal);
            }
            _ => {}
        }
    }

    fn verb(&mut self, job: Job, request: &VerbRequest) -> Step {
        let key: IdKey = (request.namespace.clone(), request.workflow_id.clone());
        let Some(info) = self.live.ids.get(&key) else {
            return Step::Lacks(Box::new(job));
        };
        let Some(open) = info.open().map(|known| known.row.run_id) else {
            let refusal = match info.newest_closed() {
                Some(known) => Refusal::new(
                    &code::RUN_CLOSED,
                    format!("the run {} is closed ({})", known.row.run_id, known.row.status),
                ),
                None => Refusal::new(
                    &code::UNKNOWN_RUN,
                    format!(
                        "no run in `{}` has the workflow id `{}`",
                        request.namespace, request.workflow_id
                    ),
                ),
            };
            self.refuse(&job.origin, &refusal);
            self.building.inputs += 1;
            return Step::Done;
        };
        if !self.live.contains(open) {
            if !self.absent.contains_key(&open) {
                return Step::Lacks(Box::new(job));
            }
            // It was there a moment ago and cannot be read: an operator has to look at it.
            let refusal = Refusal::new(&code::POISON, format!("the history of the run {open} cannot be read"));
            self.refuse(&job.origin, &refusal);
            self.building.inputs += 1;
            return Step::Done;
        }
        let input = match request.verb {
            Verb::Cancel => Input::Cancel(request.operation.clone()),
            Verb::Terminate => Input::Terminate(request.operation.clone()),
        };
        self.building.inputs += 1;
        match self.apply(open, input) {
            Applied::Changed | Applied::Nothing => {
                if let (Some(to), Some(live)) = (&request.answer_to, self.live.get(open)) {
                    let mut answer = outgoing::answer_of(&live.state, AnswerOn::Started);
                    answer.stage = AnswerStage::Accepted;
                    self.building.answer(outgoing::answer(to, &answer));
                }
                self.taken(&job.origin, None);
            }
            Applied::Rejected(refusal) => self.refuse(&job.origin, &refusal),
            Applied::Panicked => return self.poison(PoisonKey::of(&job)),
        }
        Step::Done
    }

    /// Lets somebody else wait for a run's end.
    pub(super) fn await_run(&mut self, run_id: RunId, request: AnswerRequest) -> Applied {
        self.apply(run_id, Input::Await(request))
    }

    /// Core decides; the batch grows by the transition.
    pub(super) fn apply(&mut self, run_id: RunId, input: Input) -> Applied {
        let now = self.clock.now();
        let Some(live) = self.live.get_mut(run_id) else {
            return Applied::Nothing;
        };
        let (plan, state) = (&live.plan, &mut live.state);
        // A panic leaves the state half changed; it is dropped below and read again from the store.
        let result = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            super::tests::perhaps_panic(&input);
            run::apply(plan, state, input, now)
        }));
        match result {
            Ok(Ok(Some(transition))) => {
                self.record(run_id, &transition, now);
                Applied::Changed
            }
            Ok(Ok(None)) => Applied::Nothing,
            Ok(Err(rejected)) => Applied::Rejected(rejected.into()),
            Err(_) => {
                tracing::error!(run = %run_id, "an input made core panic; its run will be parked");
                Applied::Panicked
            }
        }
    }

    /// Takes a transition into the batch: its events, its effects, and what of its row has changed.
    pub(super) fn record(&mut self, run_id: RunId, transition: &Transition, now: Timestamp) {
        let Some(live) = self.live.get_mut(run_id) else { return };
        count_events(&transition.events);
        if self.spans.is_some() {
            let into = self.building.spans();
            spans::of_transition(&live.state, live.reference.trace, transition, &mut live.attempts, into);
        }
        let effects = run::effects(&live.state, transition);
        let owes = !effects.is_empty();
        outgoing::publications(
            &live.state,
            &live.reference,
            effects,
            &self.tokens,
            self.building.publications(),
        );
        // Events are maps with text keys and numbers that came from JSON: serialising cannot fail.
        let body = serde_json::to_string(&transition.events).unwrap_or_default();
        let seq = i32::try_from(transition.seq).unwrap_or(i32::MAX);
        let retention_class = live.row.retention_class;
        let stored = StoredTransition {
            seq,
            at: transition.at,
            body,
        };
        self.building.append(
            Append {
                retention_class,
                run_id,
                transition: stored,
            },
            owes,
        );
        live.touched_in = self.building.number;
        if transition.seq.is_multiple_of(self.config.snapshot_every)
            && !live.state.is_closed()
            && let Ok(body) = serde_json::to_string(&live.state)
        {
            self.building.snapshot(Snapshot { run_id, seq, body });
        }
        self.refresh_row(run_id, now);
    }

    /// Brings the row of a run in line with its state, and its alarm.
    fn refresh_row(&mut self, run_id: RunId, now: Timestamp) {
        let Some(live) = self.live.get_mut(run_id) else { return };
        let (state, row) = (&live.state, &mut live.row);
        let mut changed = false;
        let status = state.status().as_str();
        if row.status != status {
            status.clone_into(&mut row.status);
            changed = true;
        }
        if row.closed_at.is_none() && state.is_closed() {
            row.closed_at = state.closed_at();
            row.outcome = outgoing::outcome(state);
            row.wake_at = None;
            changed = true;
        } else if !state.is_closed() {
            let wake = state.wake_at();
            // Lowered eagerly; raised only when the stored one has come due.
            let write = match (wake, row.wake_at) {
                (Some(wake), Some(stored)) => wake < stored || (stored <= now && wake > stored),
                (Some(_), None) => true,
                (None, Some(stored)) => stored <= now,
                (None, None) => false,
            };
            if write {
                row.wake_at = wake;
                changed = true;
            }
            if let Some(wake) = wake
                && live.alarm.is_none_or(|alarm| wake < alarm)
                && self.alarms.set(wake, run_id, now)
            {
                live.alarm = Some(wake);
            }
        }
        if changed {
            let row = live.row.clone();
            live.touched_in = self.building.number;
            self.building.row_changed(run_id);
            let key: IdKey = (row.namespace.clone(), row.workflow_id.clone());
            if row.closed_at.is_some() || self.live.ids.contains_key(&key) {
                let number = self.building.number;
                self.live.ids.entry(key).or_default().put(row, number);
            }
        }
    }

    /// Raises a stored deadline that has passed to the next one, without a transition.
    pub(super) fn raise_wake(&mut self, run_id: RunId, now: Timestamp) {
        self.refresh_row(run_id, now);
    }

    /// The input has taken effect (or had before): its cursor moves, its worker is told after the commit.
    pub(super) fn taken(&mut self, origin: &Origin, refused: Option<&Refusal>) {
        match origin {
            Origin::Log(message) => {
                self.building.cursor(message.partition, message.cursor.clone());
                if let Some(partition) = self.partitions.get_mut(message.partition) {
                    partition.applied = message.cursor.clone();
                }
            }
            Origin::Direct {
                confirm: Some(inbox),
                token,
                ..
            } => self.building.confirm(Confirm {
                inbox: inbox.clone(),
                token: token.clone(),
                refused: refused.map(Refusal::body),
            }),
            Origin::Direct { .. } | Origin::Internal => {}
        }
    }

    /// The input is not taken: whoever sent it is told, a message of the log goes to the dead letters, and its cursor moves.
    pub(super) fn refuse(&mut self, origin: &Origin, refusal: &Refusal) {
        metrics::counter!(metric::REJECTED, "code" => refusal.code.id).increment(1);
        if let Origin::Log(message) = origin {
            metrics::counter!(metric::DEAD_LETTERS, "reason" => refusal.code.title).increment(1);
            tracing::info!(code = refusal.code.id, subject = %message.subject, sequence = message.cursor.sequence, "{}", refusal.message);
            self.building.message(outgoing::dead_letter(message, refusal));
            if let Some(to) = job::answer_to(&self.reader, message) {
                let id = match knarr_schemas::subject::parse_log_subject(&message.subject) {
                    Ok(knarr_schemas::subject::LogSubject::Run(run)) => run.workflow_id.into_owned(),
                    _ => String::new(),
                };
                self.building
                    .answer(outgoing::answer(&to, &outgoing::refused(&id, refusal)));
            }
        }
        self.taken(origin, Some(refusal));
    }

    fn beat(&mut self, origin: &Origin, run_id: RunId, task: TaskNo, running: Span) {
        let began = job::began(self.clock.now(), running);
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

fn count_result(origin: &Origin, outcome: &TaskOutcome) {
    let inlet = if matches!(origin, Origin::Log(_)) {
        "log"
    } else {
        "direct"
    };
    let outcome = match outcome {
        TaskOutcome::Completed { .. } => "completed",
        TaskOutcome::Failed(_) => "failed",
        TaskOutcome::Unknown(_) => "unknown",
        TaskOutcome::Cancelled => "cancelled",
        TaskOutcome::RetryLater { .. } => "retry_later",
    };
    metrics::counter!(metric::RESULTS, "inlet" => inlet, "outcome" => outcome).increment(1);
}

fn count_events(events: &[Event]) {
    for event in events {
        match event {
            Event::TaskTimedOut { .. } | Event::RunTimedOut { .. } => metrics::counter!(metric::TIMEOUTS).increment(1),
            Event::UndoParked { .. } => metrics::counter!(metric::UNDO_PARKED).increment(1),
            _ => {}
        }
    }
}
