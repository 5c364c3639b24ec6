//! What has to be undone if the run fails: one entry per dispatched step that has an undo, and per child, in the
//! order of dispatch.
//!
//! **Invariant:** an entry is made by the event that opens the step's first task, or asks for a permit for it, so it is durable before
//! the task goes out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::UndoCall;
use super::failure::Failure;
use super::permit::TaskLimits;
use crate::ids::{MessageNo, RunId, StepPath, WorkflowId, WorkflowName};
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    pub step: StepPath,
    /// `None` = the step is a child, which undoes itself when it is told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildToUndo>,
    /// Those of the step, which its undo is under as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Arc<TaskLimits>>,
    /// `null` until it has been evaluated.
    #[serde(default)]
    pub input: Arc<Value>,
    pub state: UndoState,
    /// An operator has had it tried again: the input is theirs to answer for.
    pub resumed: bool,
    /// To be undone though the run goes on: the step belongs to a scope that failed, or to a loser.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discarded: bool,
}

/// A child as something to undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildToUndo {
    pub workflow: WorkflowName,
    pub workflow_id: WorkflowId,
    /// The last one, where it has continued as new.
    pub run: RunId,
    /// The message that told it to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<MessageNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoState {
    /// Nothing to undo: the step is under way, or was surely not done.
    Dormant,
    /// To be undone if the run fails; the input reads the run's error and is evaluated when there is one.
    Needed,
    /// To be undone if the run fails; the input is stored.
    Ready,
    /// Being undone.
    Running,
    /// Waits for an operator. `prepared` tells whether there is an input to try again with.
    Parked {
        error: Failure,
        prepared: bool,
        /// Not known of what earlier versions parked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// Undone, by a worker or, as an operator says, otherwise.
    Done,
    /// Left as it is, as an operator decided.
    Skipped,
}
