//! Steps under way that are no activities: containers with something to remember, and what waits.
//!
//! Sequences, `switch`, `while`, and a `try` or `scope` whose body is running, remember nothing: the child that ends says
//! where they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decider::End;
use super::execution::Execution;
use super::failure::Failure;
use super::message::{OnParentClose, Recipient};
use crate::ids::{ActivityName, MessageNo, RunId};
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Open {
    Parallel(Parallel),
    ForEach(ForEach),
    /// From when an error was caught, or `finally` began.
    Try {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caught: Option<Failure>,
        /// What the step ends with once `finally` has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        finally: Option<End>,
    },
    /// A savepoint that failed: being undone, or in its `otherwise`.
    Scope {
        error: Failure,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undone: bool,
    },
    Timer {
        due: Timestamp,
    },
    Signal {
        name: Arc<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due: Option<Timestamp>,
    },
    Child(Child),
    /// Waits for an operator.
    Parked {
        error: Failure,
        /// Not known of what earlier versions parked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        /// Of an activity that was dispatched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<Box<ParkedCall>>,
    },
}

/// What a parked activity called, for whoever has to decide about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ParkedCall {
    pub(super) activity: ActivityName,
    #[serde(default, skip_serializing_if = "super::event::is_null")]
    pub(super) input: Arc<Value>,
}

impl ParkedCall {
    pub(super) fn of(execution: Execution) -> Box<Self> {
        Box::new(Self {
            activity: execution.activity,
            input: execution.input,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Parallel {
    /// Branches that have ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) ended: BTreeMap<Arc<str>, End>,
    /// The first branch that passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) winner: Option<Arc<str>>,
    /// The first error of a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stopped: Option<Stopped>,
    /// What the losers did is being undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) undoing: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct ForEach {
    /// How many iterations have begun, in order.
    pub(super) begun: u32,
    pub(super) ended: u32,
    /// What they contributed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) outputs: BTreeMap<u32, Arc<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stopped: Option<Stopped>,
}

/// What is still under way within is not needed any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stopped {
    /// The transition that asked for the cancellation of what was in flight.
    pub(super) seq: u32,
    /// `None` = the step has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Failure>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) run: RunId,
    pub(super) message: MessageNo,
    pub(super) to: Recipient,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub(super) parent_close: OnParentClose,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) detached: bool,
    /// Its start was accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) started: bool,
    /// It is told to stop, now or once it has started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) stopping: bool,
}

/// A loop that has begun; kept when it has ended, because undos read it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Loop {
    /// The list of a `for_each`.
    #[serde(default, skip_serializing_if = "super::event::is_null")]
    pub(super) items: Arc<Value>,
    /// The last iteration that has begun.
    pub(super) last: u32,
}

/// How a run ends that a step has ended before its last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Completed {
        #[serde(default, skip_serializing_if = "super::event::is_null")]
        output: Arc<Value>,
    },
    ContinuedAsNew {
        #[serde(default, skip_serializing_if = "super::event::is_null")]
        input: Arc<Value>,
    },
}
