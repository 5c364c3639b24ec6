//! What has been read of a stream, or heard.

use std::sync::Arc;

use super::super::decider::Decider;
use super::super::limits::truncated;
use super::firing::fire;
use super::gather::gathered;
use super::{MAX_MESSAGE_BYTES, advance, emit, trigger};
use crate::json;
use crate::time::Span;
use crate::trigger::event::Firing;
use crate::trigger::source::{Item, Place, SourceEvent};
use crate::trigger::{Read, Spec, TriggerEvent};

/// So many events that matched nothing are not read again after a takeover, and for so long nothing is recorded of them.
const MAX_UNRECORDED: u64 = 1_000;
const UNRECORDED_FOR: Span = Span::from_secs(10);
/// With more nothing further of a stream is decided by one transition: what that says is stored and sent as a whole.
pub const MAX_BYTES_AT_ONCE: u64 = 1 << 20;

pub(super) fn take(d: &mut Decider<'_>, read: Read) {
    let stands = d.state.is_closed() || d.state.parked.is_some();
    let Some(trigger) = trigger(d).filter(|trigger| !stands && trigger.is_active() && trigger.opening == read.opening)
    else {
        return;
    };
    let spec = trigger.spec.clone();
    let mut passing = Passing {
        skipped: read.skipped,
        ..Passing::default()
    };
    for item in read.items {
        // What a stream keeps is handed in again from here on.
        if spec.source.stream.is_some() && d.bytes_so_far() >= MAX_BYTES_AT_ONCE {
            break;
        }
        match item {
            Item::Trouble(problem) => {
                passing.record(d, false);
                troubled(d, Some(problem));
            }
            Item::Gap(gap) => {
                passing.record(d, true);
                troubled(d, None);
                emit(d, TriggerEvent::Missed(gap));
            }
            Item::Reached(place) => {
                troubled(d, None);
                if !is_behind(d, Some(&place)) {
                    passing.to = Some(place);
                }
            }
            Item::Event(event) => {
                troubled(d, None);
                if !is_behind(d, event.place.as_ref()) {
                    one(d, &spec, *event, &mut passing);
                }
            }
        }
    }
    passing.record(d, false);
    advance(d);
}

fn is_behind(d: &Decider<'_>, place: Option<&Place>) -> bool {
    place.is_some_and(|place| trigger(d).is_none_or(|trigger| trigger.is_behind(place)))
}

fn troubled(d: &mut Decider<'_>, problem: Option<Arc<str>>) {
    if trigger(d).is_some_and(|trigger| trigger.trouble != problem) {
        emit(d, TriggerEvent::Troubled { problem });
    }
}

/// What has been read, and is not recorded yet.
#[derive(Default)]
struct Passing {
    to: Option<Place>,
    taken: u32,
    skipped: u64,
    /// Something comes of an event: the place has to move with it.
    decided: bool,
}

impl Passing {
    fn record(&mut self, d: &mut Decider<'_>, always: bool) {
        let Some(trigger) = trigger(d) else { return };
        let nothing = self.to.is_none() && self.taken == 0 && self.skipped == 0;
        let first = trigger.place().is_none() && self.to.is_some();
        let long = d.at.since(trigger.moved_at) >= UNRECORDED_FOR;
        let due = self.decided || always || first || long || self.skipped >= MAX_UNRECORDED;
        if nothing || !due {
            return;
        }
        let (to, taken, skipped) = (self.to.take(), self.taken, self.skipped);
        emit(d, TriggerEvent::Passed { to, taken, skipped });
        *self = Self::default();
    }
}

fn one(d: &mut Decider<'_>, spec: &Spec, mut event: SourceEvent, passing: &mut Passing) {
    let sequence = event.sequence;
    let meant = spec.read(&mut event);
    if let Some(place) = event.place {
        passing.to = Some(place);
    }
    match meant {
        Ok(None) => passing.skipped += 1,
        Ok(Some(meant)) => {
            passing.taken = passing.taken.saturating_add(1);
            passing.decided = true;
            let headers = event.headers.iter().map(|(name, value)| name.len() + value.len());
            let read = usize::try_from(event.bytes)
                .unwrap_or(usize::MAX)
                .saturating_add(headers.sum());
            let bytes = u32::try_from(read.max(json::length(&meant.input))).unwrap_or(u32::MAX);
            let firing = Firing {
                id: meant.id,
                sequence,
                events: 1,
                bytes,
                since: d.at,
                tries: 0,
            };
            match spec.gather {
                None => fire(d, firing, meant.input),
                Some(gather) => gathered(d, gather, firing, meant.input),
            }
        }
        Err((flaw, why)) => {
            passing.decided = true;
            let message = Arc::from(truncated(&why, MAX_MESSAGE_BYTES));
            emit(
                d,
                TriggerEvent::Refused {
                    no: None,
                    id: None,
                    sequence,
                    flaw,
                    message,
                    input: None,
                },
            );
        }
    }
}
