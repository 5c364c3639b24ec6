//! One activity under way, forwards or as an undo: its attempts and what they wait for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;
use super::permit::TaskLimits;
use crate::definition::plan::{Cancellation, Timeouts};
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
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub timeouts: Timeouts,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub cancellation: Cancellation,
    /// The end of schedule-to-close, where it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_by: Option<Timestamp>,
    /// What the last heartbeat that is stored said of the work's progress; the next attempt is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Arc<Value>>,
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
    /// The end of schedule-to-start, which matters while nobody is known to have the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by: Option<Timestamp>,
    /// The next heartbeat has to come by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beat_by: Option<Timestamp>,
    /// When its worker had not been heard of as long as it had promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_at: Option<Timestamp>,
    /// Its worker has let go of the message and finishes the task from wherever it likes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub later: bool,
    /// Who has claimed it, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Arc<str>>,
    /// It is being taken out of its queue, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_for: Option<Unstarted>,
}

/// Why a task is taken out of its queue: the timeout that it has met there, or that its step was halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unstarted {
    ScheduleToStart,
    ScheduleToClose,
    NotNeeded,
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

impl OpenTask {
    fn due(&self, heard: Option<Timestamp>) -> Timestamp {
        let by = match self.known {
            Known::Offered | Known::Held => self.start_by,
            Known::Delivered | Known::Started => self.beat_by.max(heard),
        };
        let dues = by.into_iter().chain(self.silent_at);
        dues.fold(self.due, Timestamp::min)
    }
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

    /// When this execution has to be looked at.
    pub fn due(&self) -> Timestamp {
        self.due_if(None)
    }

    /// The same if its worker was heard of last at that time.
    pub(super) fn due_if(&self, heard: Option<Timestamp>) -> Timestamp {
        let due = match &self.wait {
            Wait::Task(open) if open.withdrawn_for.is_some() => return open.due,
            Wait::Task(open) => open.due(self.beat_after(open, heard)),
            Wait::Until(at) => *at,
            // Something else than time is waited for.
            Wait::Permit(_) => Timestamp::MAX,
            Wait::Decision => return Timestamp::MAX,
        };
        self.close_by.map_or(due, |by| by.min(due))
    }

    /// When the next beat has to come after one that is not stored.
    pub(super) fn beat_after(&self, open: &OpenTask, heard: Option<Timestamp>) -> Option<Timestamp> {
        let silence = self.timeouts.heartbeat.filter(|_| open.beat_by.is_some())?;
        Some(heard?.plus(silence))
    }

    /// How soon a task is looked at of which nothing is known.
    pub(super) fn first_look(&self) -> Span {
        let silence = self.timeouts.heartbeat.unwrap_or(self.start_to_close);
        silence.min(self.start_to_close)
    }

    /// The timeout that a task meets in its queue at that time.
    pub(super) fn unstarted(&self, open: &OpenTask, at: Timestamp) -> Option<Unstarted> {
        let start = open.start_by.map(|by| (by, Unstarted::ScheduleToStart));
        let close = self.close_by.map(|by| (by, Unstarted::ScheduleToClose));
        let due = start.into_iter().chain(close).filter(|(by, _)| *by <= at);
        due.min_by_key(|(by, _)| *by).map(|(_, timeout)| timeout)
    }

    /// Whether the activity may have been done, should it end now without success.
    pub(super) fn may_be_done(&self) -> bool {
        self.unknown || self.deferred || self.succeeded_late || self.open_task().is_some_and(|open| open.in_doubt)
    }
}
