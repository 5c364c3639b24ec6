//! What is due: of the calendar, then of backfills.

use super::super::decider::Decider;
use super::super::{deadline, outbox};
use super::occurrence::{occur, start_waiting};
use super::{emit, name, next, schedule};
use crate::schedule::state::{Due, Next, ScheduleEvent};
use crate::time::Timestamp;

/// Occurrences that one transition decides; the rest follow at once.
pub(super) const MAX_AT_ONCE: usize = 100;

/// And fewer, where their inputs come to more: what one transition says is stored and sent as a whole.
pub(super) const MAX_BYTES_AT_ONCE: u64 = 1 << 20;

/// Missed occurrences that one transition counts, at most.
pub(super) const MAX_MISSED: usize = 10_000;

pub(super) fn wake(d: &mut Decider<'_>) {
    for number in deadline::messages_due(d) {
        outbox::offer_again(d, number);
    }
    advance(d);
}

/// Decides what is due: of the calendar, then of backfills.
pub(super) fn advance(d: &mut Decider<'_>) {
    if d.state.parked.is_some() {
        return;
    }
    for _ in 0..MAX_AT_ONCE {
        if d.bytes_so_far() >= MAX_BYTES_AT_ONCE {
            break;
        }
        let Some(schedule) = schedule(d) else { return };
        let due = schedule.next.filter(|next| schedule.is_active() && next.at <= d.at);
        match due {
            Some(due) => calendar(d, due),
            None if !backfill(d) => break,
            None => {}
        }
    }
    start_waiting(d);
}

pub(super) fn calendar(d: &mut Decider<'_>, due: Next) {
    let Some((spec, decided_to)) = schedule(d).map(|schedule| (schedule.spec.clone(), schedule.decided_to)) else {
        return;
    };
    let window = spec.policy.catch_up_window;
    // Its time is when it is to fire: jitter is no delay.
    if d.at.since(due.at) > window {
        let oldest = Timestamp(d.at.0.saturating_sub(i64::try_from(window.0).unwrap_or(i64::MAX)));
        let gone = Timestamp(oldest.0.saturating_sub(1));
        let id = name(d);
        // They fire in the order of their nominal times, each before the next one.
        let is_gone = |nominal: Timestamp| nominal <= gone && spec.times.fires_at(&id, nominal) <= gone;
        let walk = spec.times.walk(due.nominal, MAX_MISSED - 1, is_gone);
        // Else not all are counted, and all are passed.
        let to = if walk.whole { walk.last } else { gone };
        let missed = missed(walk.count);
        let next = next(d, &spec, to.max(decided_to));
        return emit(d, ScheduleEvent::Passed { to, next, missed });
    }
    let next = next(d, &spec, due.nominal);
    emit(
        d,
        ScheduleEvent::Passed {
            to: due.nominal,
            next,
            missed: 0,
        },
    );
    let due = Due {
        nominal: due.nominal,
        trigger: None,
        overlap: spec.policy.overlap,
        counted: true,
    };
    occur(d, due);
}

/// One, and so many behind it.
pub(super) fn missed(more: usize) -> u32 {
    u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
}

/// One occurrence of the first backfill; `false` if there is none to decide.
pub(super) fn backfill(d: &mut Decider<'_>) -> bool {
    let Some(schedule) = schedule(d) else { return false };
    let Some(backfill) = schedule.backfills.first().copied() else {
        return false;
    };
    if !schedule.has_room(backfill.overlap) {
        return false;
    }
    let nominal = schedule.spec.times.next_after(backfill.after);
    match nominal.filter(|nominal| *nominal <= backfill.until) {
        None => emit(
            d,
            ScheduleEvent::BackfillPassed {
                after: backfill.until,
                done: true,
            },
        ),
        Some(nominal) => {
            emit(
                d,
                ScheduleEvent::BackfillPassed {
                    after: nominal,
                    done: false,
                },
            );
            let due = Due {
                nominal,
                trigger: None,
                overlap: backfill.overlap,
                counted: false,
            };
            occur(d, due);
        }
    }
    true
}
