//! What is said to a schedule: by operators, and by the definition that it is named after.

use std::sync::Arc;

use super::super::decider::Decider;
use super::super::event::Event;
use super::super::input::{Operation, Rejected};
use super::super::request::{Verb, was_taken};
use super::due::{MAX_AT_ONCE, MAX_MISSED, advance, calendar, missed};
use super::occurrence::{occur, start_waiting};
use super::{deletion, emit, next, schedule};
use crate::schedule::command::{Command, MAX_BACKFILL};
use crate::schedule::state::{Backfill, Due, Schedule, ScheduleEvent};
use crate::schedule::{Overlap, Spec};
use crate::time::Timestamp;

pub(super) fn set(d: &mut Decider<'_>, spec: Spec, version: Option<u32>, operation: Operation) {
    decide_before(d);
    let before = d.state.schedule.as_deref();
    let said = |spec: &Spec| spec.paused.then(|| Arc::<str>::from("it was made paused"));
    // What is paused stays so, and what remains does, unless the specification says something else than before.
    let (paused, remaining) = match before {
        None => (said(&spec), spec.actions),
        Some(before) => (
            match before.spec.paused == spec.paused {
                true => before.paused.clone(),
                false => said(&spec),
            },
            match before.spec.actions == spec.actions {
                true => before.remaining,
                false => spec.actions,
            },
        ),
    };
    let version = version.or(before.and_then(|before| before.version));
    let next = next(d, &spec, d.at);
    let decided_to = d.at;
    emit(
        d,
        ScheduleEvent::Set {
            spec,
            version,
            paused,
            remaining,
            decided_to,
            next,
            operation,
        },
    );
    start_waiting(d);
}

/// Another calendar knows nothing of what this one has named up to now, before an update that is the first after an outage, or
/// comes while a jitter passes. It is decided by what has been said until now; of very much the first, and the rest is missed.
pub(super) fn decide_before(d: &mut Decider<'_>) {
    let named = |d: &Decider<'_>| {
        let schedule = schedule(d).filter(|schedule| schedule.is_active())?;
        schedule.next.filter(|next| next.nominal <= d.at)
    };
    if d.state.parked.is_none() {
        for _ in 0..MAX_AT_ONCE {
            let Some(next) = named(d) else { return };
            calendar(d, next);
        }
    }
    let rest = named(d).zip(schedule(d).map(|schedule| Arc::clone(&schedule.spec.times)));
    let Some((next, times)) = rest else { return };
    let to = d.at;
    let walk = times.walk(next.nominal, MAX_MISSED - 1, |nominal| nominal <= to);
    let (next, missed) = (None, missed(walk.count));
    emit(d, ScheduleEvent::Passed { to, next, missed });
}

pub(super) fn ask(d: &mut Decider<'_>, command: Command, operation: Operation) -> Result<(), Rejected> {
    let Some(schedule) = schedule(d) else {
        return Err(Rejected::Closed("completed"));
    };
    // What has a parked schedule go on is remembered like that of any run.
    if schedule.has_taken(&operation) || was_taken(d.state, Verb::Retry, &operation) {
        return Ok(());
    }
    match command {
        Command::Create(spec) if schedule.spec == *spec => {}
        Command::Create(_) => return Err(Rejected::ScheduleExists),
        Command::Update(spec) if schedule.spec == *spec => {}
        Command::Update(spec) => set(d, *spec, None, operation),
        Command::Define { version, spec } => return define(d, version, spec, operation),
        // Also what changes nothing is remembered: its repeat may come when somebody else has said otherwise.
        Command::Pause => {
            let reason = schedule
                .paused
                .clone()
                .or_else(|| operation.reason.clone())
                .unwrap_or_else(|| Arc::from("an operator paused it"));
            emit(d, ScheduleEvent::Paused { reason, operation });
        }
        Command::Resume if d.state.parked.is_some() => {
            d.emit(Event::RunResumed {
                operation,
                event_limit: None,
                history_limit: None,
            });
            advance(d);
        }
        Command::Resume => {
            let (decided_to, next) = match schedule.paused {
                Some(_) => (d.at, next(d, &schedule.spec, d.at)),
                None => (schedule.decided_to, schedule.next),
            };
            emit(
                d,
                ScheduleEvent::Resumed {
                    decided_to,
                    next,
                    operation,
                },
            );
            start_waiting(d);
        }
        Command::Trigger { overlap } => {
            let number = schedule.triggers.saturating_add(1);
            let due = Due {
                nominal: Timestamp(d.at.0 - d.at.0.rem_euclid(1_000_000)),
                trigger: Some(number),
                overlap: overlap.unwrap_or(schedule.spec.policy.overlap),
                counted: false,
            };
            emit(d, ScheduleEvent::Triggered { number, operation });
            occur(d, due);
        }
        Command::Backfill { from, until, overlap } => {
            let backfill = Backfill {
                after: Timestamp(from.0.saturating_sub(1)),
                until,
                overlap: overlap.unwrap_or(Overlap::BufferAll),
            };
            may_backfill(schedule, &backfill, d.at)?;
            emit(d, ScheduleEvent::BackfillBegun { backfill, operation });
            advance(d);
        }
        Command::Delete => delete(d, &operation),
    }
    Ok(())
}

pub(super) fn delete(d: &mut Decider<'_>, operation: &Operation) {
    let output = deletion(operation);
    d.emit(Event::RunCompleted { output });
}

/// An older version than the one that spoke last says nothing any more, nor does any of a schedule that was made by hand.
pub(super) fn define(
    d: &mut Decider<'_>,
    version: u32,
    spec: Option<Box<Spec>>,
    operation: Operation,
) -> Result<(), Rejected> {
    let Some(schedule) = schedule(d) else { return Ok(()) };
    match (schedule.version, spec) {
        (Some(last), _) if version < last => {}
        (None, Some(_)) => return Err(Rejected::ScheduleExists),
        (None, None) => {}
        (Some(last), Some(spec)) if last == version && schedule.spec == *spec => {}
        (Some(_), Some(spec)) => set(d, *spec, Some(version), operation),
        (Some(_), None) => delete(d, &operation),
    }
    Ok(())
}

pub(super) fn may_backfill(schedule: &Schedule, backfill: &Backfill, now: Timestamp) -> Result<(), Rejected> {
    let refuse = |why: String| Err(Rejected::Schedule(why));
    if backfill.until > now {
        return refuse("a backfill ends in the past; what is to come is the schedule's own".to_owned());
    }
    if backfill.after >= backfill.until {
        return refuse("the backfill ends before it begins".to_owned());
    }
    if schedule.backfills.len() >= 10 {
        return refuse("ten backfills are under way already".to_owned());
    }
    let times = &schedule.spec.times;
    let walk = times.walk(backfill.after, MAX_BACKFILL + 1, |nominal| nominal <= backfill.until);
    if walk.count > MAX_BACKFILL {
        return refuse(format!(
            "the range has more than {MAX_BACKFILL} occurrences; take a shorter one"
        ));
    }
    if !walk.whole {
        return refuse("the calendar names too much to look through in the range; take a shorter one".to_owned());
    }
    Ok(())
}
