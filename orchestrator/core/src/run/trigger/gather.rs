//! Events of one workflow id that count together.

use std::sync::Arc;

use serde_json::Value;

use super::super::decider::Decider;
use super::firing::fire;
use super::{emit, trigger};
use crate::ids::WorkflowId;
use crate::time::Timestamp;
use crate::trigger::event::Firing;
use crate::trigger::spec::Gather;
use crate::trigger::{Trigger, TriggerEvent};

pub(super) fn gathered(d: &mut Decider<'_>, gather: Gather, firing: Firing, input: Arc<Value>) {
    let Some(trigger) = trigger(d) else { return };
    let of = trigger.gathered.get(&firing.id);
    let first_at = of.map_or(d.at, |of| of.first_at);
    let due = match gather {
        Gather::Debounce { quiet, max_wait } => d.at.plus(quiet).min(first_at.plus(max_wait)),
        Gather::Batch { wait, .. } => first_at.plus(wait),
    };
    let full = match gather {
        Gather::Batch { max, .. } => of.map_or(0, |of| of.events).saturating_add(1) >= max,
        Gather::Debounce { .. } => false,
    };
    let Firing {
        id, sequence, bytes, ..
    } = firing;
    emit(
        d,
        TriggerEvent::Gathered {
            id: id.clone(),
            input,
            sequence,
            bytes,
            due,
        },
    );
    if full {
        release_one(d, id);
    }
    while self::trigger(d).is_some_and(Trigger::gathers_too_much) {
        let first = self::trigger(d).and_then(|trigger| {
            let first = trigger.gathered.iter().min_by_key(|(_, of)| of.due);
            first.map(|(id, _)| id.clone())
        });
        match first {
            Some(id) => release_one(d, id),
            None => return,
        }
    }
}

/// What was gathered counts, the first that is due first.
pub(super) fn release(d: &mut Decider<'_>, due: impl Fn(Timestamp) -> bool) {
    let Some(trigger) = trigger(d).filter(|trigger| !trigger.gathered.is_empty()) else {
        return;
    };
    let ready = trigger.gathered.iter().filter(|(_, of)| due(of.due));
    let mut ready: Vec<_> = ready.map(|(id, of)| (of.due, id.clone())).collect();
    ready.sort();
    for (_, id) in ready {
        release_one(d, id);
    }
}

fn release_one(d: &mut Decider<'_>, id: WorkflowId) {
    let Some(trigger) = trigger(d) else { return };
    let Some(of) = trigger.gathered.get(&id).cloned() else {
        return;
    };
    let input = match trigger.spec.gather {
        Some(Gather::Debounce { .. }) => of.inputs.last().cloned().unwrap_or_default(),
        // A list also where the definition has changed meanwhile: it was gathered as one.
        _ => Arc::new(Value::Array(of.inputs.iter().map(|input| (**input).clone()).collect())),
    };
    emit(d, TriggerEvent::Released { id: id.clone() });
    let firing = Firing {
        id,
        sequence: of.sequence,
        events: of.events,
        bytes: of.bytes,
        since: d.at,
        tries: 0,
    };
    fire(d, firing, input);
}
