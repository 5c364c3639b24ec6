//! The end of a case: nothing is lost any more and everybody is willing, until all has come to its end.

use serde_json::json;

use super::World;
use super::inputs::{done, resume};
use crate::run::input::{Input, Operation, ParkedAction};
use crate::run::{Status, UndoState};
use crate::simulation::watched::full_wake;

/// A limit of one task at a time makes hundreds of tasks a long story.
const MOST_ROUNDS: u32 = 100_000;

impl World<'_> {
    /// It comes to rest, and everything has ended.
    pub(in crate::simulation) fn finish(&mut self) {
        self.refusing = false;
        self.calm_actors();
        let (mut tasks, mut idle) = (0, 0);
        for _ in 0..MOST_ROUNDS {
            let before = self.transitions();
            let given = self.runs.iter().map(|run| run.state.tasks_given()).sum();
            idle = if given > tasks { 0 } else { idle + 1 };
            tasks = given;
            assert!(idle < 3_000, "nothing is given out any more: {}", self.states());
            self.wake_limiters();
            self.read_on();
            for _ in 0..self.log.len() {
                let parcel = self.log.remove(0);
                self.deliver(parcel);
            }
            for index in 0..self.runs.len() {
                while let Some(task) = self.open_task(index) {
                    let outcome = done(task);
                    self.apply(index, Input::TaskEnded { task, outcome });
                    if self.runs[index].state.is_open(task) {
                        break;
                    }
                }
            }
            self.call_all();
            let is_at_rest = before == self.transitions() && self.log.is_empty();
            if is_at_rest && !self.nudge() && !self.dismiss_actors() {
                self.check_end();
                return;
            }
        }
        panic!("it does not come to rest: {}", self.states());
    }

    fn states(&self) -> String {
        format!("{:?}", self.runs.iter().map(|run| &run.state).collect::<Vec<_>>())
    }

    /// What only time and people bring.
    fn nudge(&mut self) -> bool {
        let mut changed = false;
        for index in 0..self.runs.len() {
            let state = &self.runs[index].state;
            if state.is_closed() && state.wake_at().is_none() {
                continue;
            }
            let input = if state.is_closed() {
                self.now = self.now.max(state.wake_at().unwrap_or_default());
                full_wake(self.now)
            } else if state.parked_reason().is_some() {
                resume()
            } else if let Some(step) = self.parked(index, 0) {
                Input::Parked {
                    direction: None,
                    step,
                    action: ParkedAction::MarkDone,
                    operation: Operation::default(),
                }
            } else if let Some(at) = state.wake_at() {
                self.now = self.now.max(at);
                full_wake(self.now)
            } else if let Some(name) = state.awaited().into_iter().next() {
                Input::Signal {
                    name,
                    body: json!(1).into(),
                    operation: Operation::default(),
                }
            } else {
                continue;
            };
            changed |= self.apply(index, input);
        }
        changed |= self.wake_actors();
        // An old copy of an ask may wait there for its pace, though its run has closed.
        if !changed && let Some(at) = self.limiters.wake_at() {
            self.now = self.now.max(at);
            self.wake_limiters();
            changed = true;
        }
        changed
    }

    fn check_end(&self) {
        self.limiters.check_end();
        self.check_actors();
        assert!(self.line.values().all(Vec::is_empty), "somebody is queued for ever");
        for run in &self.runs {
            let state = &run.state;
            assert!(state.is_closed(), "{} is {}: {state:?}", run.run_id(), state.status());
            assert_eq!(state.unanswered().count(), 0, "{} is owed an answer", run.run_id());
            run.end();
            if let Some(next) = state.successor() {
                assert!(self.find(next.run_id).is_some(), "nobody goes on for {}", run.run_id());
            }
            for entry in state.ledger() {
                let Some(child) = &entry.child else { continue };
                let undone = entry.state == UndoState::Done && !run.decided.contains(&entry.step);
                if let Some(index) = self.find(child.run).filter(|_| undone) {
                    let status = self.runs[index].state.status();
                    assert!(
                        status != Status::Completed && status.is_closed(),
                        "{} was to be undone and is {status}",
                        entry.step
                    );
                }
            }
        }
    }
}
