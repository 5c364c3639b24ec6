//! Runs: lists, one as it stands, and its history.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::body::{FailureBody, RunSummary};

/// Runs of the namespace, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRuns {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only runs started before this one: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Uuid>,
    /// At most this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunPage {
    pub runs: Vec<RunSummary>,
    /// Give it as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Uuid>,
}

/// Names a run: by run id, or the newest one under a workflow id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunName {
    RunId(Uuid),
    /// The open run, else the one that closed last.
    WorkflowId(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowRun {
    pub run: RunName,
}

/// A run and the state it is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunDescription {
    pub run: RunSummary,
    /// SHA-256 of the definition it is bound to.
    pub definition: String,
    /// The last transition.
    pub seq: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub search_attributes: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Of a completed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why the run is being undone, or did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
    /// Why the run as a whole waits for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
    /// What it waits for before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<RunTurn>,
    /// The earliest deadline, or somewhat earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<DateTime<Utc>>,
    /// Those that have been reached, in the order in which they were.
    pub steps: Vec<StepState>,
    /// What has to be undone if the run fails, in the order of the steps.
    pub ledger: Vec<LedgerEntry>,
    /// Attempts that have not ended, and those waiting for their time.
    pub tasks: Vec<OpenTask>,
    /// Steps that wait for something else than a worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingStep>,
    /// Signals that no step and no handler has taken, in the order of their coming.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<WaitingSignal>,
    /// Updates that are not done: those under way first, then each in the order of its coming.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<OpenUpdate>,
    /// What operators have done about it, oldest first; the last hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationState>,
    /// How much it has of what is limited: `events`, `history_bytes` and `pending`, which an operator can raise, and `payload`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitUsage>,
    /// Its pivot has been completed: it only goes forward, and nothing of the ledger is undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub past_pivot: bool,
    /// Input and outputs were left out, because the reply would have been larger than NATS takes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shortened: bool,
    /// How much more was left out, where it would have been too large without them as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Of each list, how many were left out. Those that are kept are what is parked, what has failed, what is under way, and the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LeftOut {
    #[serde(skip_serializing_if = "is_zero")]
    pub steps: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub ledger: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub tasks: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub signals: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub updates: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub operations: u64,
}

/// What a run waits for before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunTurn {
    /// The limit on open runs of its workflow; absent where it waits for its workflow id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Runs that are open under the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// How many wait there, this one among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// How many come before it: at the limit, or of the starts that are queued for the same workflow id. Absent where it does not
    /// stand in line yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
}

/// Something that was decided from outside, with who and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationState {
    pub at: DateTime<Utc>,
    /// `cancel`, `terminate`, `limit`, `retry`, `done`, `skip` or `migrate`.
    pub action: String,
    /// `do` or `undo`, of a parked step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl RunDescription {
    /// Leaves out the user's data.
    pub fn shorten(&mut self) {
        self.input = None;
        self.output = None;
        self.search_attributes.clear();
        for step in &mut self.steps {
            step.output = None;
        }
        for signal in &mut self.signals {
            signal.body = None;
        }
        for update in &mut self.updates {
            update.input = None;
        }
        self.shortened = true;
    }

    /// Leaves so many of each list: those that somebody who looks at the run has to know of, and of the rest the newest.
    pub fn cut(&mut self, most: usize) {
        let mut left_out = self.left_out.unwrap_or_default();
        left_out.steps += keep(&mut self.steps, most, |step| match step.status.as_str() {
            "parked" => 0,
            "failed" | "unknown" => 1,
            "running" | "waiting" => 2,
            _ => 3,
        });
        left_out.ledger += keep(&mut self.ledger, most, |entry| match entry.status.as_str() {
            "parked" => 0,
            "undoing" => 1,
            "skipped" => 2,
            _ => 3,
        });
        left_out.waiting += keep(&mut self.waiting, most, |step| u8::from(step.kind != "operator"));
        left_out.tasks += keep(&mut self.tasks, most, |task| u8::from(task.last_failure.is_none()));
        left_out.signals += keep(&mut self.signals, most, |_| 0);
        left_out.updates += keep(&mut self.updates, most, |update| u8::from(update.status != "running"));
        left_out.operations += keep(&mut self.operations, most, |_| 0);
        self.left_out = (left_out != LeftOut::default()).then_some(left_out);
    }

    /// The length of its longest list.
    pub fn longest(&self) -> usize {
        let lists = [
            self.steps.len(),
            self.ledger.len(),
            self.tasks.len(),
            self.waiting.len(),
            self.signals.len(),
            self.updates.len(),
            self.operations.len(),
        ];
        lists.into_iter().max().unwrap_or_default()
    }
}

/// Those of the lowest ranks, and of one rank the last ones, in the order they were in. How many are not kept.
fn keep<T>(list: &mut Vec<T>, most: usize, rank: impl Fn(&T) -> u8) -> u64 {
    let Some(more) = list.len().checked_sub(most).filter(|more| *more > 0) else {
        return 0;
    };
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_key(|&index| (rank(&list[index]), std::cmp::Reverse(index)));
    let mut kept = vec![false; list.len()];
    order.iter().take(most).for_each(|&index| kept[index] = true);
    let mut kept = kept.into_iter();
    list.retain(|_| kept.next().unwrap_or_default());
    u64::try_from(more).unwrap_or(u64::MAX)
}

/// How much of something a run has, and how much it may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitUsage {
    /// `events`, `history_bytes`, `pending` (activities and children under way) or `payload` (the most that was said at once, in bytes).
    pub limit: String,
    pub used: u64,
    /// At this the run, or the one activity, waits for an operator.
    pub most: u64,
    /// A fifth of it is used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepState {
    pub path: String,
    /// `running`, `waiting`, `parked`, `completed`, `failed`, `unknown`, `cancelled`, `skipped`, or `abandoned` by a terminated run.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Attempts so far; 0 for steps that are not activities.
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Its last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerEntry {
    /// The step that would be undone.
    pub step: String,
    /// The activity that undoes it; absent where a child workflow undoes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// The workflow id of the child that undoes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// `dormant` (the step is under way or was surely not done), `armed`, `undoing`, `undone`, `parked` or `skipped`.
    pub status: String,
    /// Attempts of the undo so far.
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
}

/// A step that waits, and for what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingStep {
    pub step: String,
    /// `timer`, `signal`, `child` or `operator`.
    pub kind: String,
    /// The signal's name, or the child's workflow id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When a timer is due, or the wait for a signal ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// Why an operator is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
}

/// A signal in the run's buffer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingSignal {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// An update that is not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenUpdate {
    /// Its request id.
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// `running`, `accepted` (it waits for its handler), or `put_off`: it is decided about when the run goes on, or by the run that
    /// goes on in its place.
    pub status: String,
    /// What a running one is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// How many wait to be told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiters: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenTask {
    /// The number of the task within its run; absent while the attempt waits for its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u32>,
    pub step: String,
    pub activity: String,
    pub queue: String,
    /// `do` or `undo`.
    pub direction: String,
    /// From 1.
    pub attempt: u32,
    /// Absent when unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// `dispatched`, `delivered`, `started`, `later` (its worker has let go of the message and finishes it from elsewhere),
    /// `held` (the task stream is full), `withdrawn` (taken back, as nobody took it), `limited` (it waits for its turn at a limit)
    /// or `waiting` (for its next attempt).
    pub status: String,
    /// What a limited one waits for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// When it came to be what `status` says, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// When a waiting one is tried again, or a running one times out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// How the attempt before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureBody>,
    /// How far the work was, by the last heartbeat that was stored: at a heartbeat's deadline, or when an attempt ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowHistory {
    pub run: RunName,
    /// Go on behind this transition: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// At most this many transitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage {
    pub run: RunSummary,
    pub transitions: Vec<HistoryTransition>,
    /// Give it as `after`, with the run id, for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// One input applied to the run, and the events it caused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryTransition {
    /// From 1, without gaps.
    pub seq: u32,
    pub at: DateTime<Utc>,
    /// As they are stored.
    pub events: Vec<Value>,
    /// The size of the events in bytes, where they were left out for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parked_has_failed_or_is_open_is_kept_before_the_newest() {
        let step = |(number, status): (usize, &&str)| (number, (*status).to_owned());
        let statuses = [
            "completed",
            "parked",
            "completed",
            "running",
            "failed",
            "completed",
            "completed",
        ];
        let rank = |(_, status): &(usize, String)| match status.as_str() {
            "parked" => 0,
            "failed" => 1,
            "running" => 2,
            _ => 3,
        };
        let kept = |most: usize| {
            let mut list: Vec<_> = statuses.iter().enumerate().map(step).collect();
            let left_out = keep(&mut list, most, rank);
            (left_out, list.into_iter().map(|(number, _)| number).collect::<Vec<_>>())
        };
        assert_eq!(kept(7), (0, vec![0, 1, 2, 3, 4, 5, 6]));
        assert_eq!(kept(5), (2, vec![1, 3, 4, 5, 6]));
        assert_eq!(kept(2), (5, vec![1, 4]));
        assert_eq!(kept(0), (7, Vec::new()));
    }
}
