//! What was asked for, what PostgreSQL holds and what the workers did, compared.
//!
//! Of every run: it ended as it had to; sequences have no gap; the fold of its events is what its row says (and its
//! snapshot, where there is one); every step's outcome is recorded once, and every task has at most one end; undone was
//! what was completed or unknown and has an undo, nothing else, in the reverse order of dispatch, and never before the
//! outcome of its do; whatever has an outcome by a worker was executed; nothing was executed that was not dispatched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use knarr_core::ids::{RunId, StepPath, TaskNo};
use knarr_core::run::effect::Direction;
use knarr_core::run::event::{LateOutcome, StepOutcome};
use knarr_core::run::{Event, State, Transition, evolve, idempotency_key};
use knarr_core::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use crate::record::Execution;
use crate::{Fault, Stack};

/// Clocks of two processes of one machine, and the engine's own idea of the database's.
const CLOCKS_DIFFER_US: i64 = 100_000;

/// What a test learns beside that all is well.
#[derive(Debug, Default)]
pub struct Audit {
    pub runs: usize,
    pub statuses: BTreeMap<String, usize>,
    pub transitions: usize,
    pub timeouts: usize,
    pub late_results: usize,
    /// Executions beyond one for every dispatched key.
    pub repeats: usize,
}

/// A stored run with its history.
#[derive(Debug)]
pub struct StoredHistory {
    pub run_id: Uuid,
    pub workflow_id: String,
    pub status: String,
    pub closed: bool,
    pub snapshot: Option<(i32, String)>,
    pub transitions: Vec<Transition>,
}

impl StoredHistory {
    /// Whether nothing will happen to the run by itself: not even a message of it waits for its answer.
    pub fn is_at_rest(&self) -> bool {
        let state = self.transitions.split_first().and_then(|(first, rest)| {
            let mut state = State::born(first)?;
            rest.iter().for_each(|transition| evolve(&mut state, transition));
            Some(state)
        });
        state.is_some_and(|state| state.wake_at().is_none())
    }
}

pub async fn histories(stack: &Stack, namespace: &str) -> Vec<StoredHistory> {
    let rows = sqlx::query(
        "select r.run_id, r.workflow_id, r.status, r.closed_at is not null as closed, s.seq as snapshot_seq,
                s.body as snapshot
         from runs r left join snapshots s using (run_id) where r.namespace = $1 order by r.run_id",
    )
    .bind(namespace)
    .fetch_all(stack.pool())
    .await
    .unwrap();
    let mut histories: Vec<StoredHistory> = rows
        .iter()
        .map(|row| StoredHistory {
            run_id: row.get("run_id"),
            workflow_id: row.get("workflow_id"),
            status: row.get("status"),
            closed: row.get("closed"),
            snapshot: row
                .get::<Option<i32>, _>("snapshot_seq")
                .map(|seq| (seq, row.get("snapshot"))),
            transitions: Vec::new(),
        })
        .collect();
    let places: HashMap<Uuid, usize> = histories.iter().enumerate().map(|(n, h)| (h.run_id, n)).collect();
    let events: Vec<(Uuid, i32, i64, String)> = sqlx::query_as(
        // A birth is kept without what the run's row says, and is measured as it was written.
        r#"select e.run_id, e.seq, (extract(epoch from e.at) * 1000000)::bigint,
                  case when starts_with(e.body, '[{"run_started":{"version":')
                       then concat('[{"run_started":{"run_id":"', r.run_id, '","namespace":', to_json(r.namespace),
                                   ',"workflow_id":', to_json(r.workflow_id), ',"workflow":', to_json(r.workflow),
                                   ',"request_id":' || to_json(r.request_id)::text, ',', substr(e.body, 18))
                       else e.body end
           from events e left join runs r using (run_id) order by e.run_id, e.seq"#,
    )
    .fetch_all(stack.pool())
    .await
    .unwrap();
    for (run_id, seq, at, body) in events {
        // Of another namespace, or of a run that is not there, which the count of runs shows.
        if let Some(place) = places.get(&run_id) {
            let seq = u32::try_from(seq).unwrap();
            let transition = Transition::read(seq, Timestamp(at), body).unwrap();
            histories[*place].transitions.push(transition);
        }
    }
    histories
}

/// # Panics
/// With everything that is wrong.
pub async fn audit(stack: &Stack, expected: &BTreeMap<String, Fault>) -> Audit {
    let ends = expected.iter().map(|(id, fault)| (id.clone(), fault.ends())).collect();
    audit_ends(stack, "default", &ends).await
}

/// Of the runs named; others of the namespace have to be right in themselves, however they ended.
pub async fn audit_ends(stack: &Stack, namespace: &str, expected: &BTreeMap<String, &[&str]>) -> Audit {
    let histories = histories(stack, namespace).await;
    let executions = stack.executions();
    let mut summary = Audit {
        runs: histories.len(),
        ..Audit::default()
    };
    let mut wrong = Vec::new();
    let mut by_key: HashMap<&str, Vec<&Execution>> = HashMap::new();
    for execution in &executions {
        by_key.entry(&execution.key).or_default().push(execution);
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dispatched: BTreeSet<String> = BTreeSet::new();
    for history in &histories {
        *seen.entry(&history.workflow_id).or_default() += 1;
        *summary.statuses.entry(history.status.clone()).or_default() += 1;
        summary.transitions += history.transitions.len();
        let mut walk = Walk::new(history.run_id);
        walk.history(history);
        if let Some(ends) = expected.get(&history.workflow_id)
            && !ends.contains(&history.status.as_str())
        {
            walk.say(format!("ended {} instead of {ends:?}", history.status));
        }
        walk.executed(&by_key);
        summary.timeouts += walk.timeouts;
        summary.late_results += walk.late;
        dispatched.extend(walk.dispatched.iter().cloned());
        wrong.extend(
            walk.wrong
                .into_iter()
                .map(|what| format!("{} ({}): {what}", history.workflow_id, history.run_id)),
        );
    }
    for id in expected.keys() {
        match seen.get(id.as_str()) {
            None => wrong.push(format!("{id}: there is no run of it")),
            Some(1) => {}
            Some(runs) => wrong.push(format!("{id}: it was started {runs} times")),
        }
    }
    let ours: BTreeSet<String> = histories.iter().map(|history| history.run_id.to_string()).collect();
    for (key, executions) in &by_key {
        if ours.contains(&executions[0].run) && !dispatched.contains(*key) {
            wrong.push(format!("{key} was executed and not dispatched"));
        }
    }
    summary.repeats = executions.len().saturating_sub(by_key.len());
    wrong.sort();
    let shown: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{} things are wrong:\n{}",
        wrong.len(),
        shown.join("\n")
    );
    summary
}

/// One run, walked through event by event.
#[derive(Debug)]
struct Walk {
    run: RunId,
    /// In the order of dispatch, with whether there is an undo.
    steps: Vec<(StepPath, bool)>,
    tasks: HashMap<TaskNo, (StepPath, Direction, bool)>,
    outcomes: BTreeMap<StepPath, (Outcome, i64)>,
    late_successes: BTreeSet<StepPath>,
    undo_order: Vec<(StepPath, i64)>,
    undone: BTreeSet<StepPath>,
    dispatched: BTreeSet<String>,
    /// Keys with an outcome that only a worker can have given.
    answered: BTreeSet<String>,
    closed: bool,
    terminated: bool,
    parked: bool,
    timeouts: usize,
    late: usize,
    wrong: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Completed,
    Failed,
    Unknown,
}

impl Walk {
    fn new(run: Uuid) -> Self {
        Self {
            run: RunId(run),
            steps: Vec::new(),
            tasks: HashMap::new(),
            outcomes: BTreeMap::new(),
            late_successes: BTreeSet::new(),
            undo_order: Vec::new(),
            undone: BTreeSet::new(),
            dispatched: BTreeSet::new(),
            answered: BTreeSet::new(),
            closed: false,
            terminated: false,
            parked: false,
            timeouts: 0,
            late: 0,
            wrong: Vec::new(),
        }
    }

    fn say(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    fn history(&mut self, history: &StoredHistory) {
        let mut state: Option<State> = None;
        for (n, transition) in history.transitions.iter().enumerate() {
            if transition.seq != u32::try_from(n + 1).unwrap() {
                self.say(format!("transition {} stands at place {}", transition.seq, n + 1));
            }
            match &mut state {
                None => state = State::born(transition),
                Some(state) => {
                    if transition.at < state.at() {
                        self.say(format!("time goes back at transition {}", transition.seq));
                    }
                    evolve(state, transition);
                }
            }
            for event in &transition.events {
                self.event(event, transition.at);
            }
            if let (Some((seq, body)), Some(state)) = (&history.snapshot, &state)
                && u32::try_from(*seq).ok() == Some(transition.seq)
                && serde_json::from_str::<State>(body).ok().as_ref() != Some(state)
            {
                self.say(format!("the snapshot at {seq} is not the fold of the events"));
            }
        }
        let Some(state) = state else {
            return self.say("its history does not begin with a start");
        };
        if state.status().as_str() != history.status || state.is_closed() != history.closed {
            self.say(format!(
                "its row says {}, its events {}",
                history.status,
                state.status().as_str()
            ));
        }
        if history.closed {
            self.end();
        }
    }

    fn open_task(&mut self, task: TaskNo, step: &StepPath, direction: Direction) {
        if task == TaskNo::NONE {
            return;
        }
        self.dispatched
            .insert(idempotency_key(self.run, step, direction).to_string());
        if self.tasks.insert(task, (step.clone(), direction, true)).is_some() {
            self.say(format!("task {task:?} was opened twice"));
        }
    }

    /// Ends a task; what it was for.
    fn end_task(&mut self, task: TaskNo) -> Option<(StepPath, Direction)> {
        let Some((step, direction, open)) = self.tasks.get_mut(&task) else {
            self.say(format!("task {task:?} ended and was never opened"));
            return None;
        };
        let was_open = std::mem::replace(open, false);
        let found = (step.clone(), *direction);
        if !was_open {
            self.say(format!("task {task:?} of {} ended twice", found.0));
        }
        Some(found)
    }

    fn outcome(&mut self, step: &StepPath, outcome: Outcome, at: Timestamp) {
        if self.outcomes.insert(step.clone(), (outcome, at.0)).is_some() {
            self.say(format!("the outcome of {step} is recorded twice"));
        }
    }

    fn event(&mut self, event: &Event, at: Timestamp) {
        let of_others = matches!(
            event,
            Event::LateResult(_)
                | Event::Awaited(_)
                | Event::MessageSent(_)
                | Event::MessageOffered { .. }
                | Event::MessageAnswered { .. }
                | Event::MessageTaken(_)
                | Event::RunReopened { .. }
        );
        if self.closed && !of_others {
            self.say(format!("something happened after its end: {event:?}"));
        }
        match event {
            Event::ActivityScheduled(scheduled) => {
                if self.steps.iter().any(|(step, _)| *step == scheduled.step) {
                    self.say(format!("{} was scheduled twice", scheduled.step));
                }
                self.steps.push((scheduled.step.clone(), scheduled.undo.is_some()));
                self.open_task(scheduled.task, &scheduled.step, Direction::Do);
            }
            Event::TaskOpened {
                task, step, direction, ..
            } => self.open_task(*task, step, *direction),
            Event::UndoScheduled { step, task, .. } => {
                self.open_task(*task, step, Direction::Undo);
                self.undo_order.push((step.clone(), at.0));
                let undoable = matches!(
                    self.outcomes.get(step),
                    Some((Outcome::Completed | Outcome::Unknown, _))
                );
                if !undoable && !self.late_successes.contains(step) {
                    self.say(format!(
                        "{step} is undone though its outcome is {:?}",
                        self.outcomes.get(step)
                    ));
                }
            }
            Event::TaskCompleted { task, .. } => {
                if let Some((step, direction)) = self.end_task(*task) {
                    self.answered
                        .insert(idempotency_key(self.run, &step, direction).to_string());
                    match direction {
                        Direction::Do => self.outcome(&step, Outcome::Completed, at),
                        Direction::Undo => {
                            if !self.undone.insert(step.clone()) {
                                self.say(format!("{step} was undone twice"));
                            }
                        }
                    }
                }
            }
            Event::TaskFailed { task, .. } => {
                if let Some((step, direction)) = self.end_task(*task) {
                    self.answered
                        .insert(idempotency_key(self.run, &step, direction).to_string());
                }
            }
            Event::TaskUnknown { task, .. } | Event::TaskCancelled { task } | Event::TaskLost { task, .. } => {
                self.end_task(*task);
            }
            Event::TaskTimedOut { task, .. } => {
                self.timeouts += 1;
                self.end_task(*task);
            }
            Event::StepFailed { step, outcome, .. } => {
                let outcome = match outcome {
                    StepOutcome::Unknown => Outcome::Unknown,
                    StepOutcome::Failed | StepOutcome::Cancelled => Outcome::Failed,
                };
                self.outcome(step, outcome, at);
            }
            Event::LateResult(late) => {
                self.late += 1;
                if late.outcome == LateOutcome::Completed
                    && let Some((step, Direction::Do, _)) = self.tasks.get(&late.task)
                {
                    self.late_successes.insert(step.clone());
                }
            }
            Event::UndoParked { .. } | Event::RunParked { .. } => self.parked = true,
            Event::RunReopened { .. } => self.closed = false,
            Event::RunCompleted { .. } | Event::RunClosed { .. } | Event::RunContinued { .. } => self.closed = true,
            Event::RunTerminated { .. } => {
                self.closed = true;
                self.terminated = true;
            }
            _ => {}
        }
    }

    /// What must hold of a run that has ended.
    fn end(&mut self) {
        if self.parked {
            self.say("something of it was parked");
        }
        if self.terminated {
            if !self.undo_order.is_empty() && self.undone.is_empty() {
                // Terminated while it undid: as far as it had come.
            }
            return;
        }
        let completed = self.undo_order.is_empty()
            && self
                .steps
                .iter()
                .all(|(step, undo)| !*undo || matches!(self.outcomes.get(step), Some((Outcome::Completed, _))));
        for (step, _) in self.steps.clone() {
            if !self.outcomes.contains_key(&step) {
                self.say(format!("{step} was dispatched and has no outcome"));
            }
        }
        let owed: Vec<StepPath> = if completed {
            Vec::new()
        } else {
            let owed = self.steps.iter().rev().filter(|(step, undo)| {
                *undo
                    && matches!(
                        self.outcomes.get(step),
                        Some((Outcome::Completed | Outcome::Unknown, _))
                    )
            });
            owed.map(|(step, _)| step.clone()).collect()
        };
        let order: Vec<StepPath> = self
            .undo_order
            .iter()
            .map(|(step, _)| step.clone())
            .filter(|step| owed.contains(step) || !self.late_successes.contains(step))
            .collect();
        if order != owed {
            self.say(format!("undone was {order:?}, owed {owed:?}"));
        }
        for step in owed {
            if !self.undone.contains(&step) {
                self.say(format!("the undo of {step} has no outcome"));
            }
        }
    }

    /// What the workers must have done.
    fn executed(&mut self, by_key: &HashMap<&str, Vec<&Execution>>) {
        let first = |key: &str| by_key.get(key).and_then(|executions| executions.first()).map(|e| e.at);
        for key in self.answered.clone() {
            if first(&key).is_none() {
                self.say(format!("{key} has an outcome and was never executed"));
            }
        }
        let mut last = i64::MIN;
        for (step, scheduled) in self.undo_order.clone() {
            let Some(executed) = first(&idempotency_key(self.run, &step, Direction::Undo)) else {
                continue;
            };
            if executed + CLOCKS_DIFFER_US < scheduled {
                self.say(format!("the undo of {step} was executed before it was recorded"));
            }
            let outcome = self.outcomes.get(&step).map_or(i64::MIN, |(_, at)| *at);
            if executed + CLOCKS_DIFFER_US < outcome {
                self.say(format!("the undo of {step} was executed before the outcome of its do"));
            }
            if executed < last {
                self.say(format!("the undo of {step} was executed before that of a later step"));
            }
            last = executed;
        }
    }
}
