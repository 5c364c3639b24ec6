//! What leaves a run: a pure function of committed events and the state after them; nothing else is stored for it.

use std::sync::Arc;

use serde_json::Value;

use crate::ids::{ActivityName, QueueName, StepPath, TaskNo};
use crate::run::input::AnswerOn;
use crate::time::{Span, Timestamp};

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Dispatch(Dispatch),
    /// Tell workers of a queue that a task is no longer wanted.
    CancelTask {
        queue: QueueName,
        task: TaskNo,
    },
    /// Answer somebody who waits; the body is built from the state.
    Answer {
        to: Arc<str>,
        on: AnswerOn,
    },
}

/// A task to be published. Namespace, workflow, run and token are the shell's to add.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    pub task: TaskNo,
    pub step: StepPath,
    pub activity: ActivityName,
    pub queue: QueueName,
    pub direction: Direction,
    /// Counted from 1.
    pub attempt: u32,
    pub max_attempts: Option<u32>,
    /// `<run>/<step path>/<do|undo>`
    pub idempotency_key: Arc<str>,
    pub input: Arc<Value>,
    pub start_to_close: Span,
    /// Absolute, where one applies (the run's timeout, say).
    pub deadline: Option<Timestamp>,
    /// Counts offers of the same attempt after a full stream refused it; part of the message id.
    pub offer: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    #[default]
    Do,
    Undo,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}
