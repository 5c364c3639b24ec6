//! What is said to a trigger: by the definition that has it, and by operators.

use std::sync::Arc;

use super::super::decider::Decider;
use super::super::event::Event;
use super::super::input::{Operation, Rejected};
use super::super::request::{Verb, was_taken};
use super::super::schedule::deletion;
use super::firing::send;
use super::gather::release;
use super::{advance, emit, first, trigger};
use crate::trigger::TriggerEvent;
use crate::trigger::command::{Command, Position};

pub(super) fn ask(d: &mut Decider<'_>, command: Command, operation: Operation) -> Result<(), Rejected> {
    let Some(trigger) = trigger(d).filter(|_| !d.state.is_closed()) else {
        return Err(Rejected::Closed("completed"));
    };
    // What has a parked trigger go on is remembered like that of any run.
    if trigger.has_taken(&operation) || was_taken(d.state, Verb::Retry, &operation) {
        return Ok(());
    }
    match command {
        // An older version says nothing any more.
        Command::Define { version, .. } if version < trigger.version => {}
        Command::Define {
            version,
            spec: Some(spec),
        } => {
            if trigger.version != version || trigger.spec != *spec {
                let elsewhere = trigger.spec.source.stream != spec.source.stream;
                let from = elsewhere.then(|| first(&spec, d.at));
                let spec = *spec;
                // It counts as it was gathered, and before what comes by the new version.
                if trigger.spec.gather != spec.gather {
                    release(d, |_| true);
                }
                emit(
                    d,
                    TriggerEvent::Set {
                        spec,
                        version,
                        from,
                        operation,
                    },
                );
            }
        }
        Command::Define { spec: None, .. } => delete(d, operation),
        // Also what changes nothing is remembered: its repeat may come when somebody else has said otherwise.
        Command::Pause => {
            let reason = trigger
                .paused
                .clone()
                .or_else(|| operation.reason.clone())
                .unwrap_or_else(|| Arc::from("an operator paused it"));
            emit(d, TriggerEvent::Paused { reason, operation });
        }
        Command::Resume if d.state.parked.is_some() => {
            d.emit(Event::RunResumed {
                operation,
                event_limit: None,
                history_limit: None,
            });
            advance(d);
        }
        Command::Resume => emit(d, TriggerEvent::Resumed { operation }),
        Command::Reset { to } => {
            if trigger.spec.source.stream.is_none() {
                return Err(Rejected::Trigger(
                    "the trigger listens to a subject that no stream keeps for it, so it has no place to be set"
                        .to_owned(),
                ));
            }
            let to = match to {
                Position::New => Position::Time(d.at),
                to => to,
            };
            emit(d, TriggerEvent::Reset { to, operation });
        }
    }
    Ok(())
}

/// What has been read counts, whatever comes of the trigger.
fn delete(d: &mut Decider<'_>, operation: Operation) {
    release(d, |_| true);
    while let Some((no, held)) = trigger(d).and_then(|trigger| {
        let (no, held) = trigger.held.first_key_value()?;
        Some((*no, held.clone()))
    }) {
        send(d, no, held.firing, held.input);
    }
    let output = deletion(&operation);
    d.emit(Event::RunCompleted { output });
}
