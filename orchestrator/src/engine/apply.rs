//! Applying inputs to runs: the one place where core is called, and where a batch grows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use knarr_core::ids::RunId;
use knarr_core::json;
use knarr_core::run::input::Input;
use knarr_core::run::{self, Event, State, Transition, error_type};
use knarr_core::schedule::state::ScheduleEvent;
use knarr_core::time::Timestamp;

use super::batch::Confirm;
use super::job::Origin;
use super::job_reader;
use super::lifecycle;
use super::live::IdKey;
use super::outgoing;
use super::refusal::Refusal;
use super::run_loop::Loop;
use super::{schedule, spans, triggers, warnings};
use crate::bus::Bus;
use crate::store::{Append, DeferredId, Forgotten, Snapshot, Store, StoredTransition};
use crate::telemetry::metric;

/// The latest transitions of a schedule or a trigger, which goes on for ever, that stay when a snapshot has taken them in.
const KEPT: i32 = 256;

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

impl<S: Store, B: Bus> Loop<S, B> {
    /// Core decides; the batch grows by the transition.
    pub(super) fn apply(&mut self, run_id: RunId, input: Input) -> Applied {
        let now = self.clock.now();
        let Some(live) = self.live.get_mut(run_id) else {
            return Applied::Nothing;
        };
        let (plan, state) = (&live.plan, &mut live.state);
        let queues = self.queue_limits.of(&live.row.namespace);
        // A panic leaves the state half changed; it is dropped below and read again from the store.
        let result = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            super::tests::perhaps_panic(&input);
            run::apply_within(plan, state, input, now, queues)
        }));
        match result {
            Ok(Ok(Some(transition))) => {
                self.record(run_id, transition, now);
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
    pub(super) fn record(&mut self, run_id: RunId, transition: Transition, now: Timestamp) {
        let Some(live) = self.live.get_mut(run_id) else { return };
        count_events(&live.state, &transition.events);
        if live.state.trigger().is_some() {
            let letters = triggers::letters(&live.state, &transition, &self.triggers.at_hand);
            letters.into_iter().for_each(|letter| self.building.message(letter));
        }
        live.warned
            .look(&live.state, transition.body().len(), self.reader.limits.bytes);
        if self.spans.is_some() {
            let into = self.building.spans();
            spans::of_transition(&live.state, live.reference.trace, &transition, &mut live.attempts, into);
        }
        let mut effects = run::effects(&live.state, &transition);
        let mut owes = !effects.is_empty();
        let before = effects.len();
        // Not published: it is started from memory, and the commit owes it to a later owner alone.
        effects.retain(|effect| *effect != run::effect::Effect::Continue);
        let continues = effects.len() < before;
        let composed = self.building.publications().len();
        outgoing::publications(
            &live.state,
            &live.reference,
            effects,
            &self.tokens,
            self.building.publications(),
        );
        if live.state.turned_in(&(transition.seq..=transition.seq)) && self.definitions.tells(&live.row.namespace) {
            let into = self.building.publications();
            owes |= lifecycle::tell(&live.state, &live.reference, &transition, into);
        }
        self.building.count_publications(composed);
        let weight = json::weight(transition.body().as_bytes());
        let number = transition.seq;
        let seq = i32::try_from(number).unwrap_or(i32::MAX);
        let (retention_class, partition) = (live.row.retention_class, live.row.partition);
        let stored = StoredTransition {
            seq,
            at: transition.at,
            body: transition.into_body(),
        };
        self.building.append(
            partition,
            Append {
                retention_class,
                run_id,
                transition: stored,
            },
            owes,
        );
        live.touched_in = self.building.number;
        let is_actor = live.state.is_actor();
        let is_trigger = live.state.trigger().is_some();
        if number.is_multiple_of(self.config.snapshot_every)
            && !live.state.is_closed()
            && let Ok(body) = serde_json::to_string(&live.state)
        {
            self.live.weigh(run_id, json::weight(body.as_bytes()));
            self.building.snapshot(Snapshot { run_id, seq, body });
            if is_actor {
                self.building.forget(Forgotten {
                    retention_class,
                    run_id,
                    up_to: seq.saturating_sub(KEPT),
                });
            }
        } else {
            self.live.grow(run_id, weight);
        }
        self.refresh_row(run_id, now);
        if is_trigger {
            self.triggers.note(run_id, partition);
        }
        if continues {
            self.continues(run_id);
        }
    }

    /// Brings the row of a run in line with its state, and its alarm.
    fn refresh_row(&mut self, run_id: RunId, now: Timestamp) {
        let tenure = self.tenure_after_line(run_id);
        let Some(live) = self.live.get_mut(run_id) else { return };
        let (state, row) = (&live.state, &mut live.row);
        let mut changed = false;
        row.tenure = tenure.or(row.tenure);
        let status = state.status().as_str();
        if row.status != status {
            status.clone_into(&mut row.status);
            changed = true;
        }
        if state.has_migrated() && row.definition != *state.definition_hash() {
            row.definition = state.definition_hash().clone();
            row.version = i32::try_from(state.version()).unwrap_or(i32::MAX);
            self.building.migrated(run_id, row.partition);
            changed = true;
        }
        let closes = row.closed_at.is_none() && state.closed_at().is_some();
        if closes {
            row.closed_at = state.closed_at();
            row.retried_by = state.retried_by().map(|(run, _)| run);
            live.closed_in = self.building.number;
            let key: IdKey = (row.namespace.clone(), row.workflow_id.clone());
            if self.in_line.is_for(row.partition, &key) {
                self.in_line.is_free(key);
            }
        }
        if state.is_closed() && (closes || changed) {
            row.outcome = outgoing::outcome(state);
        }
        if state.is_actor() {
            let said = schedule::row_attributes(state);
            changed |= said != row.search_attributes;
            row.search_attributes = said;
        }
        let wake = state.wake_at();
        // Lowered eagerly; raised only when the stored one has come due, or when the row is written anyway.
        let write = match (wake, row.wake_at) {
            (Some(wake), Some(stored)) => wake < stored || (stored <= now && wake > stored),
            (Some(_), None) => true,
            (None, Some(stored)) => stored <= now || closes,
            (None, None) => false,
        };
        if write || (closes && row.wake_at != wake) {
            row.wake_at = wake;
        }
        changed |= closes || write;
        if let Some(wake) = live.wakes_at()
            && live.alarm.is_none_or(|alarm| wake < alarm)
            && self.alarms.set(wake, run_id, now)
        {
            live.alarm = Some(wake);
        }
        if changed {
            let row = live.row.clone();
            live.touched_in = self.building.number;
            self.building.row_changed(run_id, row.partition);
            let key: IdKey = (row.namespace.clone(), row.workflow_id.clone());
            if row.closed_at.is_some() || self.live.keeps_id(&key) {
                let number = self.building.number;
                self.live.put_id(key, row, number);
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
            Origin::Deferred { message, no } => self.building.settle(DeferredId {
                partition: message.partition,
                no: *no,
            }),
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
        if let Some(message) = origin.message() {
            let subject = match knarr_schemas::subject::parse_log_subject(&message.subject) {
                Ok(knarr_schemas::subject::LogSubject::Run(run)) => Some(run),
                _ => None,
            };
            let to = job_reader::answer_to(&self.reader, message);
            // An update that is refused leaves no trace, as long as somebody is told.
            let told_only = to.is_some() && subject.as_ref().is_some_and(|run| run.verb == "update");
            tracing::info!(code = refusal.code.id, subject = %message.subject, sequence = message.cursor.sequence, "{}", refusal.message);
            if !told_only {
                metrics::counter!(metric::DEAD_LETTERS, "reason" => refusal.code.title).increment(1);
                self.building.message(outgoing::dead_letter(message, refusal));
            }
            if let Some(to) = to {
                let id = subject.map(|run| run.workflow_id.into_owned()).unwrap_or_default();
                self.building
                    .answer(outgoing::answer(&to, &outgoing::refused(&id, refusal)));
            }
        }
        self.taken(origin, Some(refusal));
    }
}

fn count_events(state: &State, events: &[Event]) {
    for event in events {
        match event {
            Event::TaskTimedOut { .. } | Event::ScheduleToClosePassed { .. } | Event::RunTimedOut { .. } => {
                metrics::counter!(metric::TIMEOUTS).increment(1)
            }
            Event::TaskWithdrawn { error, .. } if *error.error_type == *error_type::TIMEOUT => {
                metrics::counter!(metric::TIMEOUTS).increment(1);
            }
            Event::Schedule(event) => count_schedule(event),
            Event::Trigger(event) => triggers::count(event),
            Event::RunRetried { .. } => metrics::counter!(metric::RUNS_RETRIED).increment(1),
            Event::UndoParked { .. } => metrics::counter!(metric::UNDO_PARKED).increment(1),
            Event::RunParked { .. } | Event::StepParked { .. } => warnings::count_parked(state, event),
            _ => {}
        }
    }
}

fn count_schedule(event: &ScheduleEvent) {
    match event {
        ScheduleEvent::Passed { missed, .. } if *missed > 0 => {
            metrics::counter!(metric::SCHEDULE_MISSED).increment(u64::from(*missed));
        }
        ScheduleEvent::Started { .. } => metrics::counter!(metric::SCHEDULE_STARTED).increment(1),
        ScheduleEvent::Skipped { .. } => metrics::counter!(metric::SCHEDULE_SKIPPED).increment(1),
        _ => {}
    }
}
