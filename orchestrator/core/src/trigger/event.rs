//! What has happened to a trigger, as it is stored.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::Position;
use super::source::{Gap, Place};
use super::spec::{Flaw, Spec};
use crate::ids::{MessageNo, WorkflowId};
use crate::run::input::Operation;
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerEvent {
    /// It was made, or changed; with a position it reads from there.
    Set {
        spec: Spec,
        /// Of the definition that says so.
        version: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Position>,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    Paused {
        reason: Arc<str>,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    Resumed {
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    Reset {
        to: Position,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// Everything up to there is decided.
    Passed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Place>,
        /// So many events that were let through, and so many that were not.
        #[serde(default, skip_serializing_if = "is_default")]
        taken: u32,
        #[serde(default, skip_serializing_if = "is_default")]
        skipped: u64,
    },
    Missed(Gap),
    /// The source cannot be read, or can be again.
    Troubled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Arc<str>>,
    },
    /// Waits for others of its workflow id.
    Gathered {
        id: WorkflowId,
        input: Arc<Value>,
        sequence: u64,
        bytes: u32,
        due: Timestamp,
    },
    /// What was gathered of that workflow id counts now.
    Released {
        id: WorkflowId,
    },
    /// Waits for an earlier one of its workflow id.
    Held {
        no: u64,
        firing: Firing,
        input: Arc<Value>,
    },
    /// Its start or its signal was sent, by the message of that number.
    Sent {
        no: u64,
        firing: Firing,
        message: MessageNo,
        stage: Stage,
        /// The start before that signal, which an open run has taken in: it has begun none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken_in: Option<MessageNo>,
        /// The signal behind that start, which has been sent before and found nobody: it is offered again under this number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<MessageNo>,
    },
    /// There was no run for it: its message is offered again then, under the same number, since a repeat of it that is under way
    /// may still find one.
    Postponed {
        no: u64,
        message: MessageNo,
        since: Timestamp,
        due: Timestamp,
    },
    /// It has taken effect.
    Done {
        no: u64,
        stage: Stage,
    },
    /// Nothing comes of it: it goes to the dead letters.
    Refused {
        /// Of one that was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        no: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<WorkflowId>,
        sequence: u64,
        flaw: Flaw,
        message: Arc<str>,
        /// What it would have been started or signalled with; of an event that could not be read the shell has the message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Arc<Value>>,
    },
}

/// What has been decided about an event, or several that count together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    pub id: WorkflowId,
    /// Of the last event.
    pub sequence: u64,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub events: u32,
    /// Of what was read, or of what was made of it, whichever is more.
    pub bytes: u32,
    /// When it was decided, or, once there was no run for it, when that was first so.
    pub since: Timestamp,
    /// How often it was refused for want of a run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tries: u32,
}

/// What was sent for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Start,
    /// A signal follows.
    StartToSignal,
    Signal,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}
