//! Signals: durable, in the order in which they came, buffered until a step or a handler takes them.
//!
//! A repeat, by request id, changes nothing. A run that is parked as a whole buffers them too; a closed one refuses them,
//! so that the shell can report them instead of losing them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cancel::refused;
use super::decider::Decider;
use super::event::{Event, SignalReceived};
use super::input::{Operation, Rejected};
use super::limits::{MAX_BUFFERED_SIGNALS, MAX_SIGNAL_NAME_BYTES};
use super::request::{Verb, was_taken};
use super::state::State;
use super::{handler, wait_for};
use crate::ids::RequestId;

/// One that no step has taken yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Counted from 1 in the order of their coming.
    pub number: u32,
    pub name: Arc<str>,
    #[serde(default)]
    pub body: Arc<Value>,
    /// Of who sent it, for the run after the one that takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

impl State {
    /// Whether this very request has brought it a signal.
    pub fn has_taken_signal(&self, operation: &Operation) -> bool {
        was_taken(self, Verb::Signal, operation)
    }
}

pub(super) fn receive(
    d: &mut Decider<'_>,
    name: Arc<str>,
    body: Arc<Value>,
    operation: Operation,
) -> Result<(), Rejected> {
    if was_taken(d.state, Verb::Signal, &operation) || refused(d.state)? {
        return Ok(());
    }
    if name.is_empty() || name.len() > MAX_SIGNAL_NAME_BYTES || name.contains('\0') {
        return Err(Rejected::SignalName);
    }
    handler::refused(d.plan, &name, &body)?;
    if d.state.signals.buffer.len() >= MAX_BUFFERED_SIGNALS {
        return Err(Rejected::SignalsFull);
    }
    d.emit(Event::SignalReceived(Box::new(SignalReceived {
        name,
        body,
        operation,
    })));
    if d.state.parked.is_none() {
        wait_for::offer(d, d.state.signals.received);
    }
    Ok(())
}
