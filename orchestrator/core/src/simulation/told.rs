//! What the history alone says of a run, told without the code under test; every event is held against what may happen at
//! all. Names of steps begin as in [`super::draft`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::handled::Handled;
use crate::definition::plan::{NodeKind, Plan, UndoOrder};
use crate::ids::{StepPath, TaskNo};
use crate::run::effect::Direction;
use crate::run::event::{LateOutcome, Resolution, RunStarted, StepOutcome};
use crate::run::message::Body;
use crate::run::{Admission, Event, PlaceWanted, Status, Transition};
use crate::time::{Span, Timestamp};

/// When something may happen at the earliest.
#[derive(Debug, Default)]
struct Clock {
    run: Option<Timestamp>,
    /// Of an attempt that is not the first.
    begins: Option<Timestamp>,
    waits: BTreeMap<StepPath, Timestamp>,
    pauses: BTreeMap<(StepPath, Direction), Timestamp>,
    /// Of every task, how long its worker has.
    spans: BTreeMap<(StepPath, Direction), Span>,
    /// From when start-to-close counts, of tasks that somebody has taken.
    began: BTreeMap<TaskNo, Timestamp>,
}

/// One run, by its history.
#[derive(Debug, Default)]
pub struct Told {
    order: UndoOrder,
    /// Names of activities that are undone when they failed, too.
    undone_on_failure: BTreeSet<Arc<str>>,
    clock: Clock,
    handled: Handled,
    ended_tasks: BTreeSet<TaskNo>,
    /// Steps with something to undo, in the order of their dispatch.
    dispatched: Vec<StepPath>,
    to_undo: BTreeSet<StepPath>,
    prepared: BTreeSet<StepPath>,
    tasks: BTreeMap<TaskNo, (StepPath, Direction)>,
    failed: BTreeSet<StepPath>,
    undoing: BTreeSet<StepPath>,
    /// Scheduled, and their first task waits for a permit.
    waiting: BTreeSet<StepPath>,
    parked: BTreeSet<StepPath>,
    settled: BTreeSet<StepPath>,
    discarded: BTreeSet<StepPath>,
    /// Regions that nothing may be dispatched in.
    halted: Vec<StepPath>,
    /// Scopes and parallels that wait for an undo.
    regions: BTreeSet<StepPath>,
    /// Dispatched, and neither ended nor waiting for an operator.
    under_way: BTreeSet<StepPath>,
    stopped: bool,
    /// A child that had completed and was told to undo.
    reopened: bool,
    past_pivot: bool,
    /// Names of activities that are pivots.
    pivots: BTreeSet<Arc<str>>,
    /// Pivots that ended unknown, and of which nobody has said more.
    undecided: BTreeSet<StepPath>,
    /// Its events say of what an operator has tried again that it may have been done before.
    tells_doubt: bool,
    /// An operator had a step tried again: steps are dispatched that were before.
    again: bool,
    /// What it waits for before it begins.
    waits_for: Vec<Admission>,
}

fn within(step: &StepPath, region: &StepPath) -> bool {
    let rest = step.as_str().strip_prefix(region.as_str());
    region.as_str().is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether one of them may depend on what the other did.
fn depend(order: UndoOrder, a: &StepPath, b: &StepPath) -> bool {
    if order == UndoOrder::Sequential {
        return true;
    }
    let (mut a, mut b) = (a.as_str().split('.'), b.as_str().split('.'));
    let mut around = "";
    loop {
        match (a.next(), b.next()) {
            (Some(one), Some(other)) if one == other => around = one,
            (Some(one), Some(other)) => {
                let (x, y) = (one.split('[').next().unwrap(), other.split('[').next().unwrap());
                // Different iterations of one loop, or different steps or branches of one place.
                return if x == y {
                    !x.starts_with('e')
                } else {
                    !around.starts_with('p')
                };
            }
            _ => return true,
        }
    }
}

impl Told {
    fn forward(&mut self, step: &StepPath) {
        assert!(self.waits_for.is_empty(), "{step} before the run had begun");
        assert!(self.handled.is_under_way(step), "{step} without anything to handle");
        self.may_go_out(step);
        self.under_way.insert(step.clone());
    }

    fn may_go_out(&self, step: &StepPath) {
        // What has become of it has to be known first, whatever is halted.
        if self.undecided.contains(step) && !self.stopped {
            return;
        }
        let allowed = |region: &StepPath| {
            // What handlers have begun is done to its end in a run that is to end.
            if region.as_str().is_empty() && step.as_str().starts_with('$') {
                return true;
            }
            let rest = step.as_str().strip_prefix(region.as_str()).unwrap_or("");
            !within(step, region) || rest.contains("finally.")
        };
        assert!(
            self.halted.iter().all(allowed),
            "{step} was dispatched in a halted region"
        );
        assert!(
            !self.stopped || step.as_str().contains("finally."),
            "{step} was dispatched in a run that stops"
        );
    }

    fn entry(&mut self, step: &StepPath) {
        if self.dispatched.contains(step) && (self.settled.contains(step) || !self.to_undo.contains(step)) {
            assert!(self.again, "{step} was dispatched twice");
            self.dispatched.retain(|one| one != step);
            self.settled.remove(step);
            self.to_undo.remove(step);
            self.discarded.remove(step);
        }
        if !self.dispatched.contains(step) {
            self.dispatched.push(step.clone());
        }
    }

    fn undo(&mut self, step: &StepPath) {
        // A scope, or losers, whose undo has begun end it before the rest of a run that stops begins.
        let all = self.stopped && self.regions.is_empty() && self.under_way.is_empty();
        // What was discarded is undone by itself, also where it is heard of as late as the stop.
        let belated = self.discarded.contains(step);
        let due = |one: &StepPath| all && !belated || self.discarded.contains(one);
        assert!(
            due(step),
            "an undo of {step} in a run that goes on, or over {:?}",
            self.under_way
        );
        assert!(self.to_undo.contains(step), "{step} was not to be undone");
        assert!(!self.settled.contains(step), "{step} was undone already");
        let place = |step: &StepPath| self.dispatched.iter().position(|one| one == step);
        for other in self.dispatched.iter().filter(|other| *other != step) {
            let left = self.to_undo.contains(other) && due(other) && !self.settled.contains(other);
            let is_later = place(other) > place(step) && left && !self.parked.contains(other);
            let is_running = self.undoing.contains(other);
            if is_later || is_running {
                assert!(!depend(self.order, other, step), "{step} is undone before {other}");
            }
        }
        self.undoing.insert(step.clone());
        self.parked.remove(step);
    }

    fn discard(&mut self, body: &StepPath) {
        let within = self.dispatched.iter().filter(|step| within(step, body));
        self.discarded.extend(within.cloned());
    }

    fn began(&mut self, started: &RunStarted) {
        self.tells_doubt = started.withdraws;
        let before = started.continues.as_ref().and_then(|before| before.place.as_ref());
        let needs = |wanted: &&PlaceWanted| before.is_none_or(|before| before.limit != wanted.limit);
        let place = started.place.as_deref().filter(needs).map(|_| Admission::Place);
        let pause = started.paused_until().map(|_| Admission::Pause);
        let id = started.queued.then_some(Admission::Id);
        self.waits_for = id.into_iter().chain(pause).chain(place).collect();
    }

    fn ended(&mut self, step: &StepPath) {
        self.waiting.remove(step);
        self.regions.remove(step);
        self.under_way.remove(step);
        self.halted.retain(|region| region != step);
    }

    fn stop(&mut self) {
        assert!(!self.past_pivot, "a run past its pivot was stopped");
        let undecided = &self.undecided;
        assert!(
            undecided.is_empty(),
            "{undecided:?} may have been done, and the run was stopped"
        );
        self.stopped = true;
    }
}

impl Told {
    pub fn new(plan: &Plan) -> Self {
        let mut told = Self::default();
        told.goes_by(plan);
        told
    }

    /// From its next transition on.
    pub fn goes_by(&mut self, plan: &Plan) {
        let names = plan.nodes.iter().filter(|node| match &node.kind {
            NodeKind::Activity(activity) => activity.compensate_on_failure,
            _ => false,
        });
        let pivots = plan.nodes.iter().filter(|node| match &node.kind {
            NodeKind::Activity(activity) => activity.pivot,
            _ => false,
        });
        self.pivots = pivots.map(|node| Arc::clone(&node.name)).collect();
        self.handled.goes_by(plan);
        self.order = plan.compensation.order;
        self.undone_on_failure = names.map(|node| Arc::clone(&node.name)).collect();
    }

    /// # Panics
    /// Where one of its events must not have happened.
    pub fn take(&mut self, transition: &Transition) {
        for event in &transition.events {
            self.clock.check(event, transition.at);
            // The other timeouts count from elsewhere.
            if let Event::TaskTimedOut { task, error } = event
                && error.message.ends_with("of being taken")
            {
                self.clock.timed_out(*task, &self.tasks[task], transition.at);
            }
            self.event(event);
            // Its id may have become free only after the moment that it was to begin at.
            if let Event::RunAdmitted { to: Admission::Id } = event
                && self.clock.begins.is_some_and(|begins| begins <= transition.at)
            {
                self.waits_for.retain(|what| *what != Admission::Pause);
            }
        }
    }

    fn compensates_on_failure(&self, step: &StepPath) -> bool {
        !self.undone_on_failure.is_empty()
            && self
                .undone_on_failure
                .contains(step.as_str().rsplit('.').next().unwrap())
    }

    fn is_pivot(&self, step: &StepPath) -> bool {
        self.pivots.contains(step.as_str().rsplit('.').next().unwrap())
    }

    /// What is known of pivots.
    fn decide(&mut self, event: &Event) {
        match event {
            Event::StepParked { step, outcome, .. } if self.is_pivot(step) => match outcome {
                StepOutcome::Unknown => drop(self.undecided.insert(step.clone())),
                _ => drop(self.undecided.remove(step)),
            },
            Event::StepFailed { step, outcome, .. } if self.is_pivot(step) => {
                let unknown = *outcome == StepOutcome::Unknown;
                let forgotten = self.tells_doubt && self.undecided.contains(step);
                assert!(!unknown && !forgotten, "{step} may have been done, and has failed");
                self.undecided.remove(step);
            }
            Event::TaskFailed {
                task, not_done: true, ..
            }
            | Event::TaskCompleted { task, .. } => {
                self.undecided.remove(&self.tasks[task].0);
            }
            Event::StepCompleted { step, .. } | Event::StepResolved { step, .. } | Event::StepSkipped { step } => {
                self.undecided.remove(step);
            }
            // A run of an earlier version forgets it when an operator has it tried again.
            Event::ActivityScheduled(scheduled) if !self.tells_doubt => {
                self.undecided.remove(&scheduled.step);
            }
            _ => {}
        }
    }

    fn task_ended(&mut self, task: TaskNo) {
        assert!(self.tasks.contains_key(&task), "{task:?} ended and was never given out");
        assert!(self.ended_tasks.insert(task), "{task:?} ended twice");
    }

    fn event(&mut self, event: &Event) {
        let told = self;
        told.handled.event(event);
        told.decide(event);
        match event {
            Event::RunStarted(started) => told.began(started),
            Event::RunAdmitted { to } => {
                assert!(told.waits_for.contains(to), "it did not wait for {to:?}");
                told.waits_for.retain(|what| what != to);
            }
            Event::ActivityScheduled(scheduled) => {
                told.forward(&scheduled.step);
                if scheduled.task == TaskNo::NONE {
                    told.waiting.insert(scheduled.step.clone());
                } else {
                    let task = (scheduled.step.clone(), Direction::Do);
                    told.tasks.insert(scheduled.task, task);
                }
                told.failed.remove(&scheduled.step);
                if scheduled.undo.is_some() {
                    told.entry(&scheduled.step);
                }
            }
            Event::MessageSent(sent) => {
                if let Body::StartChild(start) = &*sent.body {
                    told.forward(&start.step);
                    if !start.detached {
                        told.entry(&start.step);
                    }
                }
            }
            Event::TimerSet { step, .. } | Event::SignalAwaited { step, .. } => told.forward(step),
            Event::TaskOpened {
                task, step, direction, ..
            } => {
                if *direction == Direction::Do && told.waiting.remove(step) {
                    told.may_go_out(step);
                }
                told.tasks.insert(*task, (step.clone(), *direction));
            }
            Event::UndoScheduled { step, task, .. } => {
                assert!(told.prepared.contains(step), "input before dispatch");
                if *task != TaskNo::NONE {
                    told.tasks.insert(*task, (step.clone(), Direction::Undo));
                }
                told.undo(step);
            }
            Event::ChildUndoSent { step, .. } => told.undo(step),
            Event::TaskCompleted { task, .. } => {
                told.task_ended(*task);
                match told.tasks[task].clone() {
                    (step, Direction::Do) => {
                        told.to_undo.insert(step.clone());
                        told.ended(&step);
                    }
                    (step, Direction::Undo) => {
                        told.undoing.remove(&step);
                        told.settled.insert(step);
                    }
                }
            }
            Event::TaskFailed { task, .. }
            | Event::TaskUnknown { task, .. }
            | Event::TaskCancelled { task }
            | Event::TaskDeferred { task, .. }
            | Event::TaskTimedOut { task, .. }
            | Event::TaskWithdrawn { task, .. }
            | Event::TaskAbandoned { task }
            | Event::TaskLost { task, .. } => told.task_ended(*task),
            Event::ChildEnded(ended) => {
                told.ended(&ended.step);
                // One for which there was no room has done nothing.
                if ended.error.is_none() && ended.status != Status::Skipped {
                    told.to_undo.insert(ended.step.clone());
                }
            }
            Event::StepFailed { step, outcome, .. } | Event::StepParked { step, outcome, .. } => {
                told.ended(step);
                told.failed.insert(step.clone());
                if *outcome == StepOutcome::Unknown || told.compensates_on_failure(step) {
                    told.to_undo.insert(step.clone());
                }
            }
            Event::StepPassed { step }
            | Event::StepCompleted { step, .. }
            | Event::SignalTaken { step, .. }
            | Event::SignalTimedOut { step } => told.ended(step),
            Event::StepResolved { step, how, .. } => {
                told.ended(step);
                // In place of a child, whatever was done is nothing that a run could undo.
                let is_child = step.as_str().rsplit('.').next().unwrap().starts_with('k');
                if *how == Resolution::Done && !is_child && told.dispatched.contains(step) {
                    told.to_undo.insert(step.clone());
                }
            }
            Event::StepResumed { .. } => told.again = true,
            Event::LateResult(late) if late.outcome == LateOutcome::Completed && !late.after_close => {
                if let (step, Direction::Do) = &told.tasks[&late.task]
                    && told.failed.contains(step)
                {
                    told.to_undo.insert(step.clone());
                }
            }
            Event::UndoReady { step, .. } => {
                told.prepared.insert(step.clone());
            }
            Event::UndoParked { step, .. } => {
                told.undoing.remove(step);
                told.parked.insert(step.clone());
            }
            Event::UndoResumed { step, .. } => {
                told.parked.remove(step);
            }
            Event::UndoResolved { step, .. } => {
                told.undoing.remove(step);
                told.parked.remove(step);
                told.settled.insert(step.clone());
            }
            Event::ParallelStopped { step, .. } | Event::ForEachStopped { step, .. } => told.halted.push(step.clone()),
            Event::ScopeFailed { step, .. } => {
                told.regions.insert(step.clone());
                told.discard(step);
            }
            Event::ScopeUndone { step } => {
                told.regions.remove(step);
            }
            Event::BodiesDiscarded { step, bodies } => {
                told.regions.insert(step.clone());
                bodies.iter().for_each(|body| told.discard(body));
            }
            Event::ExitRequested { .. } => told.halted.push(StepPath::new("")),
            Event::PivotCompleted { .. } => told.past_pivot = true,
            Event::RunFailed { .. } | Event::RunTimedOut { .. } | Event::CancelRequested { .. } => told.stop(),
            Event::RunReopened { .. } => {
                told.reopened = true;
                told.stop();
            }
            _ => {}
        }
    }

    /// Of a run that has closed.
    /// # Panics
    /// Where something is left to be done, or was done that should not have been.
    pub fn end(&self, status: Status) {
        let told = self;
        told.handled.end(status);
        let to_undo: BTreeSet<_> = told
            .to_undo
            .iter()
            .filter(|step| told.dispatched.contains(step))
            .collect();
        let settled: BTreeSet<_> = told.settled.iter().collect();
        match status {
            Status::Terminated => return,
            Status::Skipped => assert!(told.dispatched.is_empty() && !told.waits_for.is_empty()),
            Status::Completed | Status::ContinuedAsNew => {
                assert!(!told.stopped);
                let left = to_undo.difference(&settled);
                let left: Vec<_> = left.filter(|step| told.discarded.contains(**step)).collect();
                assert!(left.is_empty(), "what was discarded has not been undone: {left:?}");
            }
            status => {
                assert!(told.stopped);
                assert_eq!(
                    settled, to_undo,
                    "undone is exactly what had to be, in a run that ended {status}"
                );
                let by_itself = !matches!(status, Status::Cancelled | Status::TimedOut) && !told.reopened;
                assert_eq!(
                    status == Status::Failed,
                    settled.is_empty() && by_itself,
                    "ended {status}"
                );
            }
        }
        assert!(told.under_way.is_empty(), "closed over {:?}", told.under_way);
        assert!(told.undoing.is_empty());
    }
}

impl Clock {
    fn check(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::RunStarted(started) => {
                self.run = started.timeout_at;
                self.begins = started.paused_until();
            }
            Event::RunAdmitted { to: Admission::Pause } => {
                let due = self.begins.expect("a pause before it");
                assert!(due <= at, "it began early");
                // It has all of its time.
                self.run = self.run.map(|timeout| timeout.plus(at.since(due)));
            }
            Event::RunTimedOut { .. } => {
                assert!(self.run.is_some_and(|due| due <= at), "the run timed out early");
            }
            Event::TimerSet { step, due }
            | Event::SignalAwaited {
                step, due: Some(due), ..
            } => {
                self.waits.insert(step.clone(), *due);
            }
            Event::StepPassed { step } | Event::SignalTimedOut { step } => {
                if let Some(due) = self.waits.remove(step) {
                    assert!(due <= at, "{step} fired early");
                }
            }
            Event::SignalTaken { step, .. } | Event::StepFailed { step, .. } => drop(self.waits.remove(step)),
            Event::RetryScheduled {
                step,
                direction,
                at: due,
                ..
            } => drop(self.pauses.insert((step.clone(), *direction), *due)),
            Event::ActivityScheduled(scheduled) => {
                let key = (scheduled.step.clone(), Direction::Do);
                self.pauses.remove(&key);
                self.spans.insert(key, scheduled.start_to_close);
            }
            Event::UndoScheduled {
                step, start_to_close, ..
            } => {
                let key = (step.clone(), Direction::Undo);
                self.pauses.remove(&key);
                self.spans.insert(key, *start_to_close);
            }
            Event::TaskOpened { step, direction, .. } => {
                if let Some(due) = self.pauses.remove(&(step.clone(), *direction)) {
                    assert!(due <= at, "{step} was tried again early");
                }
            }
            Event::TaskStarted { task, at } => drop(self.began.insert(*task, *at)),
            Event::TaskDelivered { task } | Event::TaskClaimed { task, .. } => drop(self.began.insert(*task, at)),
            Event::TaskLeft { task } | Event::WorkerSilent { task } => {
                self.began.entry(*task).or_insert(at);
            }
            _ => {}
        }
    }

    /// A task that nobody has taken is not late.
    fn timed_out(&self, task: TaskNo, of: &(StepPath, Direction), at: Timestamp) {
        let began = self.began.get(&task);
        let due = began.map(|began| began.plus(self.spans[of]));
        assert!(due.is_some_and(|due| due <= at), "{task:?} of {of:?} timed out early");
    }
}
