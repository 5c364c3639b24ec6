//! For those who look at what a run may do, instead of running it: what can happen to it next, and which states are the same
//! for everything that may follow.
//!
//! Used by [`crate::verify`], [`crate::replay`] and simulation alone. **Invariant:** nothing here is called for a run that exists:
//! [`State::hasten`] changes a state without an event.

use std::hash::Hasher;
use std::sync::Arc;

use serde::Serialize as _;

use super::effect::Direction;
use super::execution::Wait;
use super::fingerprint::Fingerprint;
use super::ledger::UndoState;
use super::message::{Body, Recipient};
use super::open::Open;
use super::state::State;
#[cfg(any(test, feature = "simulation"))]
use super::wait_for;
#[cfg(any(test, feature = "simulation"))]
use crate::definition::plan::Plan;
use crate::ids::{MessageNo, RunId, StepPath};

/// Something that time alone brings about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passing {
    /// A `wait` is over.
    Timer(StepPath),
    /// A signal has not come in time.
    Timeout(StepPath),
    /// The pause before the next attempt is over.
    Pause(Direction, StepPath),
}

/// A child that is waited for.
#[derive(Debug, Clone)]
pub(crate) struct OpenChild {
    pub(crate) step: StepPath,
    pub(crate) run: RunId,
    pub(crate) to: Recipient,
    pub(crate) started: bool,
    pub(crate) stopping: bool,
}

/// A completed child that was told to undo.
#[derive(Debug, Clone)]
pub(crate) struct UndoneChild {
    pub(crate) step: StepPath,
    pub(crate) run: RunId,
    pub(crate) to: Recipient,
}

impl State {
    /// Everything that will come by itself, in no order: how long things take is not known.
    pub(crate) fn passing(&self) -> Vec<Passing> {
        if self.is_closed() || self.parked.is_some() {
            return Vec::new();
        }
        let waits = self.open.iter().filter_map(|(step, open)| match open {
            Open::Timer { .. } => Some(Passing::Timer(step.clone())),
            Open::Signal { due: Some(_), .. } => Some(Passing::Timeout(step.clone())),
            _ => None,
        });
        let pauses = [Direction::Do, Direction::Undo].into_iter().flat_map(|direction| {
            let executions = self.executions(direction).iter();
            let paused = executions.filter(|(_, execution)| matches!(execution.wait, Wait::Until(_)));
            paused.map(move |(step, _)| Passing::Pause(direction, step.clone()))
        });
        waits.chain(pauses).collect()
    }

    /// Makes it due now, and only it.
    pub(crate) fn hasten(&mut self, passing: &Passing) {
        let now = self.at;
        match passing {
            Passing::Timer(step) | Passing::Timeout(step) => match self.open.get_mut(step) {
                Some(Open::Timer { due }) => *due = now,
                Some(Open::Signal { due, .. }) => *due = Some(now),
                _ => {}
            },
            Passing::Pause(direction, step) => {
                if let Some(execution) = self.executions_mut(*direction).get_mut(step) {
                    execution.wait = Wait::Until(now);
                }
            }
        }
    }

    /// Names of signals that steps wait for, each once.
    pub(crate) fn awaited(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        if self.is_closed() || self.parked.is_some() {
            return names;
        }
        for open in self.open.values() {
            if let Open::Signal { name, .. } = open
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        names
    }

    /// How often the handler of a signal or an update has begun, and whether it is at it.
    pub(crate) fn handled(&self, group: &str, name: &str) -> (u32, bool) {
        let path = format!("{group}.{name}");
        let of = self.handling.executions.get(path.as_str());
        of.map_or((0, false), |of| (of.begun, of.open))
    }

    pub(crate) fn open_children(&self) -> Vec<OpenChild> {
        let open = self.open.iter().filter(|_| !self.is_closed());
        open.filter_map(|(step, open)| match open {
            Open::Child(child) => Some(OpenChild {
                step: step.clone(),
                run: child.run,
                to: child.to.clone(),
                started: child.started,
                stopping: child.stopping,
            }),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn open_child_at(&self, step: &StepPath) -> Option<RunId> {
        match self.open.get(step) {
            Some(Open::Child(child)) => Some(child.run),
            _ => None,
        }
    }

    /// Children under way backwards.
    pub(crate) fn undone_children(&self) -> Vec<UndoneChild> {
        let running = self.ledger.iter().filter(|entry| entry.state == UndoState::Running);
        running
            .filter_map(|entry| {
                let child = entry.child.as_ref()?;
                Some(UndoneChild {
                    step: entry.step.clone(),
                    run: child.run,
                    to: Recipient {
                        workflow_id: child.workflow_id.clone(),
                        run: Some(child.run),
                    },
                })
            })
            .collect()
    }

    /// Messages without an answer.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = (MessageNo, &Body)> {
        self.mail
            .outbox
            .iter()
            .map(|(number, pending)| (*number, &*pending.body))
    }

    pub(crate) fn is_addressed_to(&self, message: MessageNo, run: RunId) -> bool {
        let pending = self.mail.outbox.get(&message);
        pending.is_some_and(|pending| pending.to.run == Some(run))
    }

    /// How many messages of that run were taken.
    pub(crate) fn taken_of(&self, run: RunId) -> u32 {
        let taken = self.mail.taken.get(&run).map_or(0, |of| of.len());
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// Whether a signal that has not come, or another run, can make it go on.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn waits_for_others(&self, plan: &Plan) -> bool {
        let mut open = self.open.iter().filter(|(path, open)| match open {
            Open::Signal { .. } => !wait_for::is_overlooked(plan, self, path),
            open => matches!(open, Open::Child(_)),
        });
        let mut undone = self.ledger.iter().filter(|entry| entry.child.is_some());
        self.admission.is_some() || open.next().is_some() || undone.any(|entry| entry.state == UndoState::Running)
    }

    /// How many tasks were ever given out.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn tasks_given(&self) -> u32 {
        self.next_task().0 - 1
    }

    /// Whether it is being undone as a whole.
    pub(crate) fn stops(&self) -> bool {
        self.is_stopping()
    }

    /// Whether it is neither stopped nor about to go on as another.
    pub(crate) fn is_running_on(&self) -> bool {
        self.is_running() && self.exit.is_none()
    }

    pub(crate) fn is_past_pivot(&self) -> bool {
        self.past_pivot
    }

    /// Whether it stops, or is to end.
    pub(crate) fn is_leaving(&self) -> bool {
        !self.is_running() || self.exit.is_some() || self.deferred.is_some()
    }

    /// Equal for states from which the same may follow: without clocks, and without the numbers of tasks, transitions,
    /// attempts and messages.
    pub(crate) fn fingerprint(&self) -> u128 {
        let mut fingerprint = Fingerprint::default();
        let parts = (
            &self.phase,
            &self.parked,
            &self.steps,
            &self.doing,
            &self.undoing,
            &self.ledger,
            &self.vars,
            &self.signals,
        );
        let more = (
            &self.open,
            &self.loops,
            &self.blocked,
            &self.exit,
            self.past_pivot,
            &self.deferred,
            &self.handling,
            &self.updates.waiting,
        );
        let pending: Vec<_> = self.mail.outbox.values().map(|pending| &pending.body).collect();
        // Hashing cannot fail: every part serialises.
        let _ = parts.serialize(&mut fingerprint);
        let _ = more.serialize(&mut fingerprint);
        let _ = pending.serialize(&mut fingerprint);
        fingerprint.finish()
    }

    /// Of what lies within an iteration, without the iteration's own number: equal for iterations that stand the same.
    pub(crate) fn stand_of(&self, iteration: &str) -> u128 {
        let mut fingerprint = Fingerprint::default();
        let rest = |step: &StepPath| {
            let step = step.as_str();
            super::path::is_within(step, iteration).then(|| step[iteration.len()..].to_owned())
        };
        let steps = self.steps.iter().filter_map(|(step, it)| Some((rest(step)?, it)));
        let _ = steps.collect::<Vec<_>>().serialize(&mut fingerprint);
        for executions in [&self.doing, &self.undoing] {
            let executions = executions.iter().filter_map(|(step, it)| Some((rest(step)?, it)));
            let _ = executions.collect::<Vec<_>>().serialize(&mut fingerprint);
        }
        let open = self.open.iter().filter_map(|(step, it)| Some((rest(step)?, it)));
        let _ = open.collect::<Vec<_>>().serialize(&mut fingerprint);
        let ledger = self
            .ledger
            .iter()
            .filter_map(|it| Some((rest(&it.step)?, &it.state, it.discarded)));
        let _ = ledger.collect::<Vec<_>>().serialize(&mut fingerprint);
        fingerprint.finish()
    }
}

impl Fingerprint {
    fn finish(self) -> u128 {
        let (first, second) = self.into_parts();
        u128::from(first.finish()) << 64 | u128::from(second.finish())
    }
}
