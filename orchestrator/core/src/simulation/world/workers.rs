//! What workers do with the tasks of runs, and clocks with the rest.

use std::sync::Arc;

use serde_json::json;

use super::World;
use super::inputs::done;
use crate::ids::TaskNo;
use crate::run::error_type;
use crate::run::input::{Beat, Horizon, Input, TaskOutcome, WorkerError};
use crate::time::{Span, Timestamp};

impl World<'_> {
    pub(super) fn open_task(&self, index: usize) -> Option<TaskNo> {
        self.runs[index].state.open_tasks().map(|view| view.open.task).next()
    }

    /// Any there ever was.
    pub(super) fn any_task(&self, index: usize, which: u32) -> Option<TaskNo> {
        let state = &self.runs[index].state;
        let most = state.tasks_given();
        (most > 0).then(|| TaskNo(which % most + 1))
    }

    pub(super) fn ended(&mut self, index: usize, task: TaskNo, how: u32) {
        let error = |error_type: &str| WorkerError {
            error_type: error_type.into(),
            message: "no".into(),
            retryable: true,
            not_done: false,
            retry_after: None,
        };
        let refused = if how & 1 > 0 { "Refused" } else { "Other" };
        let outcome = if how % self.temper.fails_in == self.temper.fails_in - 1 {
            match (how / self.temper.fails_in) % 9 {
                0..=2 => TaskOutcome::Failed(error(refused)),
                3 => TaskOutcome::Failed(WorkerError {
                    retryable: false,
                    ..error(refused)
                }),
                4 => TaskOutcome::Failed(WorkerError {
                    not_done: true,
                    ..error(refused)
                }),
                // It has answered more than a run may hold.
                5 if (how / self.temper.fails_in / 9).is_multiple_of(4) => TaskOutcome::Unknown(WorkerError {
                    retryable: false,
                    ..error(error_type::LIMIT)
                }),
                5 => TaskOutcome::Unknown(error("Crash")),
                6 => TaskOutcome::Cancelled,
                7 => TaskOutcome::RetryLater { after: None },
                _ => TaskOutcome::Failed(WorkerError {
                    retry_after: Some(Span::from_secs(u64::from(how % 100))),
                    ..error(refused)
                }),
            }
        } else {
            done(task)
        };
        self.apply(index, Input::TaskEnded { task, outcome });
    }

    pub(super) fn about_task(&mut self, index: usize, what: u32, which: u32, how: u32) {
        let open = self.runs[index].state.open_tasks();
        let open = open.map(|view| view.open.task).nth(which as usize % 4);
        let Some(task) = open.or_else(|| self.any_task(index, which)) else {
            return;
        };
        let input = match what % 4 {
            0 if how.is_multiple_of(2) => Input::TaskLost { task },
            0 | 1 => Input::DispatchHeld {
                task,
                in_doubt: how.is_multiple_of(2),
            },
            _ => {
                self.now = self.now.plus(Span::from_secs(u64::from(how % 8)));
                let earlier = |secs: u32| Timestamp(self.now.0 - i64::from(secs) * 1_000_000);
                match how / 8 % 8 {
                    0 => Input::WorkerSilent { task },
                    1 => Input::TaskLeft { task },
                    2 => Input::TaskClaimed {
                        task,
                        by: ["one", "another"][which as usize % 2].into(),
                    },
                    3..=5 => Input::Heartbeat {
                        task,
                        beat: Beat {
                            began: earlier(which % 10),
                            at: earlier(which % 4),
                            details: (!which.is_multiple_of(3)).then(|| Arc::new(json!(which % 5))),
                        },
                    },
                    _ => Input::TaskStarted {
                        task,
                        at: earlier(which % 10),
                    },
                }
            }
        };
        self.apply(index, input);
    }

    pub(super) fn wake_partly(&mut self, index: usize, which: u32, how: u32) {
        self.now = self.now.plus(Span::from_secs(u64::from(which % 30)));
        let behind = Timestamp(self.now.0 - i64::from(how % 20) * 1_000_000);
        let delivered = ["main", "other"].into_iter().take(how as usize % 3);
        let horizon = Horizon {
            log_read_to: behind,
            delivered_to: delivered.map(|queue| (queue.into(), behind)).collect(),
            listening_since: behind,
            heard: Default::default(),
        };
        self.apply(index, Input::Wake(horizon));
    }
}
