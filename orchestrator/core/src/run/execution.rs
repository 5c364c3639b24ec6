//! One activity under way, forwards or as an undo: its attempts and what they wait for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;
use super::permit::TaskLimits;
use crate::ids::{ActivityName, MessageNo, QueueName, TaskNo};
use crate::time::{Span, Timestamp};

/// Everything a task says is kept here, so that a dispatch is a function of the state alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    pub activity: ActivityName,
    pub queue: QueueName,
    #[serde(default)]
    pub input: Arc<Value>,
    pub start_to_close: Span,
    pub max_attempts: Option<u32>,
    /// The current or coming attempt, counted from 1.
    pub attempt: u32,
    /// An attempt ended unknown, and no worker has since asserted that nothing was done.
    pub unknown: bool,
    /// The current attempt was answered with *retry later*: it is running somewhere.
    pub deferred: bool,
    /// A closed attempt was answered *completed*: no assertion of a later one can undo that knowledge.
    pub succeeded_late: bool,
    pub last_error: Option<Failure>,
    /// What has a task of it wait for a permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Arc<TaskLimits>>,
    pub wait: Wait,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    Task(OpenTask),
    /// The next task is opened then.
    Until(Timestamp),
    /// The next task is opened when that message, which asks for a permit, has been answered.
    Permit(MessageNo),
    /// An attempt has ended and what follows is decided in the same transition; never seen between transitions.
    Decision,
}

/// A task that was given out and has no outcome yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTask {
    pub task: TaskNo,
    /// The transition that offered it last.
    pub seq: u32,
    pub opened_at: Timestamp,
    /// Counted from 0.
    pub offer: u32,
    pub known: Known,
    /// A try to publish it was neither acknowledged nor refused: a worker may have it, also while it is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// When the task is looked at: its timeout, or where `known` says less, the moment to find out more.
    pub due: Timestamp,
}

/// What is known about a task's whereabouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// Nothing: it may still be in its queue, and then it is not late.
    Offered,
    /// Its stream refused it.
    Held,
    /// The queue has delivered past it.
    Delivered,
    /// A worker's beat said when it began.
    Started,
}

impl Execution {
    pub fn open_task(&self) -> Option<&OpenTask> {
        match &self.wait {
            Wait::Task(open) => Some(open),
            Wait::Until(_) | Wait::Permit(_) | Wait::Decision => None,
        }
    }

    pub(super) fn open_task_mut(&mut self, task: TaskNo) -> Option<&mut OpenTask> {
        match &mut self.wait {
            Wait::Task(open) if open.task == task => Some(open),
            _ => None,
        }
    }

    /// When this execution has to be looked at; the end of time where something else than time is waited for.
    pub(super) fn due(&self) -> Timestamp {
        match &self.wait {
            Wait::Task(open) => open.due,
            Wait::Until(at) => *at,
            Wait::Permit(_) | Wait::Decision => Timestamp::MAX,
        }
    }

    /// Whether the activity may have been done, should it end now without success.
    pub(super) fn may_be_done(&self) -> bool {
        self.unknown || self.deferred || self.succeeded_late || self.open_task().is_some_and(|open| open.in_doubt)
    }
}
