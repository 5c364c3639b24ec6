//! A schedule as it stands: what has been decided, what is running, what waits, and what became of the last occurrences.
//!
//! **Invariants:** changed by [`Schedule::evolve`] alone; everything in it is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::spec::{MAX_BUFFERED, Overlap, Spec};
use crate::ids::{MessageNo, RequestId, RunId};
use crate::run::Status;
use crate::run::input::Operation;
use crate::time::Timestamp;

/// Past occurrences that are told of.
pub const MAX_PAST: usize = 20;
/// Requests that are remembered, so that a repeat changes nothing.
const MAX_REQUESTS: usize = 256;
/// Runs of one schedule that may be open at a time; an occurrence beyond that is skipped.
pub const MAX_RUNNING: usize = 2_000;

/// One occurrence, by its nominal time, or by its number if somebody triggered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    pub nominal: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub overlap: Overlap,
    /// It is of the schedule itself, and counts towards its limited actions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counted: bool,
}

impl Due {
    /// Of the same workflow id: whoever names it, it is started once.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.nominal, self.trigger) == (other.nominal, other.trigger)
    }
}

/// The nominal time that comes next, and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    pub nominal: Timestamp,
    pub at: Timestamp,
}

/// An occurrence that was started and is not known to have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub due: Due,
    pub message: MessageNo,
    pub since: Timestamp,
    /// Its start was accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub started: bool,
    /// It is told to stop, or will be once its start is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Overlap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// Decided up to here.
    pub after: Timestamp,
    pub until: Timestamp,
    #[serde(default, skip_serializing_if = "is_default")]
    pub overlap: Overlap,
}

/// Why an occurrence was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// The run of an earlier one was open.
    Overlap,
    /// A later one took its place.
    Replaced,
    /// Too many are open or wait.
    Full,
    /// The schedule has started as many as it may.
    Limit,
}

/// What became of an occurrence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    Skipped(Skip),
    Closed(Status),
    /// Another run has been started for this nominal time.
    AlreadyStarted,
    NotStarted {
        reason: Arc<str>,
        message: Arc<str>,
    },
    /// Its run does not exist any more.
    Lost,
}

impl Became {
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Closed(status) => matches!(
                status,
                Status::Failed | Status::Compensated | Status::CompensationFailed | Status::TimedOut
            ),
            Self::NotStarted { .. } | Self::Lost => true,
            Self::Skipped(_) | Self::AlreadyStarted => false,
        }
    }

    /// For people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Skipped(Skip::Overlap) => "skipped: an earlier run was open",
            Self::Skipped(Skip::Replaced) => "skipped: a later one took its place",
            Self::Skipped(Skip::Full) => "skipped: too many were open or waiting",
            Self::Skipped(Skip::Limit) => "skipped: no actions remained",
            Self::Closed(status) => status.as_str(),
            Self::AlreadyStarted => "already started",
            Self::NotStarted { .. } => "not started",
            Self::Lost => "lost",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub due: Due,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    pub became: Became,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Those that were sent and have not been refused; see [`Schedule::started`].
    pub started: u64,
    pub skipped: u64,
    /// Past the catch-up window.
    pub missed: u64,
    pub failed: u64,
}

/// What has happened to a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleEvent {
    /// It was made, or changed.
    Set {
        spec: Spec,
        /// Of the definition that says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        paused: Option<Arc<str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remaining: Option<u32>,
        decided_to: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    Paused {
        reason: Arc<str>,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    Resumed {
        decided_to: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// Everything up to then is decided.
    Passed {
        to: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
        /// That many were past the catch-up window.
        #[serde(default, skip_serializing_if = "is_default")]
        missed: u32,
    },
    Skipped {
        due: Due,
        why: Skip,
    },
    Buffered {
        due: Due,
    },
    /// Its start was sent, by the message of that number.
    Started {
        due: Due,
        run: RunId,
        message: MessageNo,
    },
    /// It could not be started at all.
    NotStarted {
        due: Due,
        reason: Arc<str>,
        message: Arc<str>,
    },
    /// That run is to stop, for the sake of a later occurrence.
    StopAsked {
        run: RunId,
        how: Overlap,
    },
    Ended {
        run: RunId,
        became: Became,
    },
    Triggered {
        number: u32,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    BackfillBegun {
        backfill: Backfill,
        #[serde(default, skip_serializing_if = "is_default")]
        operation: Operation,
    },
    /// Of the first backfill that is not done.
    BackfillPassed {
        after: Timestamp,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        done: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub spec: Spec,
    /// The version of the definition that last spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    pub decided_to: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// Why, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Arc<str>>,
    /// How many it may still start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub triggers: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub running: BTreeMap<RunId, Running>,
    /// In the order in which they will be started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buffer: Vec<Due>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backfills: Vec<Backfill>,
    /// The latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub counts: Counts,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requests: Vec<RequestId>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Schedule {
    /// Whether it takes occurrences by itself.
    pub fn is_active(&self) -> bool {
        self.paused.is_none() && self.remaining != Some(0)
    }

    /// Those whose start has been accepted, so far.
    pub fn started(&self) -> u64 {
        let unanswered = self.running.values().filter(|running| !running.started).count();
        let unanswered = u64::try_from(unanswered).unwrap_or(u64::MAX);
        self.counts.started.saturating_sub(unanswered)
    }

    /// When it has something to do, `None` = never by itself.
    pub fn due(&self) -> Option<Timestamp> {
        let next = self.next.filter(|_| self.is_active()).map(|next| next.at);
        let backfill = self
            .backfills
            .first()
            .filter(|backfill| self.has_room(backfill.overlap));
        // At once.
        let backfill = backfill.map(|backfill| backfill.after.min(self.decided_to));
        next.into_iter().chain(backfill).min()
    }

    /// Whether one more occurrence can be taken without being skipped for want of room.
    pub(crate) fn has_room(&self, overlap: Overlap) -> bool {
        match overlap {
            Overlap::AllowAll => self.running.len() < MAX_RUNNING,
            // They start when nothing is open.
            _ => self.buffer.len() < MAX_BUFFERED,
        }
    }

    /// A pause holds back what is due by the calendar, not what somebody asks for.
    pub(crate) fn may_start(&self, due: &Due) -> bool {
        self.paused.is_none() || !due.counted
    }

    pub(crate) fn has_taken(&self, operation: &Operation) -> bool {
        let id = operation.request_id.as_ref();
        id.is_some_and(|id| self.requests.contains(id))
    }

    fn remember(&mut self, operation: &Operation) {
        if let Some(id) = &operation.request_id {
            self.requests.push(id.clone());
            keep_last(&mut self.requests, MAX_REQUESTS);
        }
    }

    fn tell(&mut self, due: Due, run: Option<RunId>, became: Became, at: Timestamp) {
        match &became {
            Became::Skipped(_) => self.counts.skipped += 1,
            became if became.is_failure() => self.counts.failed += 1,
            _ => {}
        }
        self.past.push(Past { due, run, became, at });
        keep_last(&mut self.past, MAX_PAST);
    }

    /// The only way in which a schedule changes. `None` before it was made.
    pub(crate) fn evolve(this: &mut Option<Box<Self>>, at: Timestamp, event: &ScheduleEvent) {
        if let ScheduleEvent::Set {
            spec,
            version,
            paused,
            remaining,
            decided_to,
            next,
            operation,
        } = event
        {
            let schedule = this.get_or_insert_with(|| Box::new(Self::new(spec, *decided_to)));
            schedule.spec = spec.clone();
            schedule.version = *version;
            schedule.paused.clone_from(paused);
            schedule.remaining = *remaining;
            schedule.decided_to = *decided_to;
            schedule.next = *next;
            schedule.remember(operation);
        } else if let Some(schedule) = this {
            schedule.change(at, event);
        }
    }

    fn new(spec: &Spec, decided_to: Timestamp) -> Self {
        Self {
            spec: spec.clone(),
            version: None,
            decided_to,
            next: None,
            paused: None,
            remaining: None,
            triggers: 0,
            running: BTreeMap::new(),
            buffer: Vec::new(),
            backfills: Vec::new(),
            past: Vec::new(),
            counts: Counts::default(),
            requests: Vec::new(),
        }
    }

    fn change(&mut self, at: Timestamp, event: &ScheduleEvent) {
        match event {
            ScheduleEvent::Set { .. } => {}
            ScheduleEvent::Paused { reason, operation } => {
                self.paused = Some(reason.clone());
                self.remember(operation);
            }
            ScheduleEvent::Resumed {
                decided_to,
                next,
                operation,
            } => {
                self.paused = None;
                self.decided_to = *decided_to;
                self.next = *next;
                self.remember(operation);
            }
            ScheduleEvent::Passed { to, next, missed } => {
                self.decided_to = *to;
                self.next = *next;
                self.counts.missed += u64::from(*missed);
            }
            ScheduleEvent::Skipped { due, why } => {
                self.buffer.retain(|waiting| waiting != due);
                self.tell(*due, None, Became::Skipped(*why), at);
            }
            ScheduleEvent::Buffered { due } => self.buffer.push(*due),
            ScheduleEvent::Started { due, run, message } => {
                self.buffer.retain(|waiting| waiting != due);
                self.counts.started += 1;
                if due.counted {
                    self.remaining = self.remaining.map(|left| left.saturating_sub(1));
                }
                let running = Running {
                    due: *due,
                    message: *message,
                    since: at,
                    started: false,
                    stopping: None,
                };
                self.running.insert(*run, running);
            }
            ScheduleEvent::NotStarted { due, reason, message } => {
                self.buffer.retain(|waiting| waiting != due);
                let became = Became::NotStarted {
                    reason: reason.clone(),
                    message: message.clone(),
                };
                self.tell(*due, None, became, at);
            }
            ScheduleEvent::StopAsked { run, how } => {
                if let Some(running) = self.running.get_mut(run) {
                    running.stopping = Some(*how);
                }
            }
            ScheduleEvent::Ended { run, became } => {
                if let Some(running) = self.running.remove(run) {
                    if matches!(became, Became::NotStarted { .. } | Became::AlreadyStarted) {
                        self.counts.started = self.counts.started.saturating_sub(1);
                    }
                    self.tell(running.due, Some(*run), became.clone(), at);
                }
            }
            ScheduleEvent::Triggered { number, operation } => {
                self.triggers = *number;
                self.remember(operation);
            }
            ScheduleEvent::BackfillBegun { backfill, operation } => {
                self.backfills.push(*backfill);
                self.remember(operation);
            }
            ScheduleEvent::BackfillPassed { after, done } => {
                if *done && !self.backfills.is_empty() {
                    self.backfills.remove(0);
                } else if let Some(backfill) = self.backfills.first_mut() {
                    backfill.after = *after;
                }
            }
        }
    }

    /// The start of a run was accepted.
    pub(crate) fn accepted(&mut self, run: RunId) {
        if let Some(running) = self.running.get_mut(&run) {
            running.started = true;
        }
    }
}

fn keep_last<T>(list: &mut Vec<T>, most: usize) {
    let more = list.len().saturating_sub(most);
    list.drain(..more);
}
