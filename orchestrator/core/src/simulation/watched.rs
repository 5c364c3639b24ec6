//! One run, held after every input against everything that needs no scenario to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::answers::Answers;
use super::told::Told;
use crate::definition::plan::{NodeKind, Plan, Undo};
use crate::ids::{ActivityName, RunId, StepPath};
use crate::run::effect::{Direction, Dispatch, Effect};
use crate::run::input::{Horizon, Input, Rejected, Start, Terms};
use crate::run::message::{Body, Sender};
use crate::run::{
    self, Event, Known, QueueLimits, State, Status, Transition, UndoState, effects, effects_still_wanted,
    idempotency_key,
};
use crate::time::Timestamp;

/// One in so many transitions is looked at in the ways that cost more.
const SELDOM: u32 = 16;

/// A plan, and who undoes its activities.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) plan: Arc<Plan>,
    undos: BTreeMap<Arc<str>, ActivityName>,
}

impl Played {
    pub(super) fn new(plan: Plan) -> Self {
        let undos = plan.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Activity(activity) => match &activity.undo {
                Undo::Compensate(call) => Some((Arc::clone(&node.name), call.activity.clone())),
                Undo::ReadOnly | Undo::None { .. } => None,
            },
            _ => None,
        });
        Self {
            undos: undos.collect(),
            plan: Arc::new(plan),
        }
    }
}

#[derive(Debug)]
pub(super) struct Watched<'p> {
    pub(super) played: &'p Played,
    /// It may move to another of them.
    all: &'p [Played],
    pub(super) state: State,
    /// What a replica that reads events from storage has made of them.
    loaded: State,
    told: Told,
    pub(super) answers: Answers,
    /// Why the last input was refused, if it was.
    pub(super) rejected: Option<Rejected>,
    /// What is stored: the time and the events of every transition.
    history: Vec<(Timestamp, String)>,
    /// The newest, and the transition it was made after.
    snapshot: Option<(usize, String)>,
    history_bytes: usize,
    /// Steps about which an operator has decided.
    pub(super) decided: BTreeSet<StepPath>,
}

/// As it comes back from storage.
pub(super) fn stored(seq: u32, at: Timestamp, body: &str) -> Transition {
    Transition::read(seq, at, body.to_owned()).unwrap()
}

impl<'p> Watched<'p> {
    pub(super) fn start(
        (played, all): (&'p Played, &'p [Played]),
        start: Start,
        terms: Terms,
        queues: &QueueLimits,
        now: Timestamp,
    ) -> Result<(Self, Vec<Effect>), Rejected> {
        let (state, transition) = run::start_within(terms, &played.plan, start, now, queues)?;
        if let Some(attempt) = state.attempt_made() {
            let most = attempt.most.expect("what is drawn is bounded");
            assert!(attempt.number <= most, "attempt {} of {most}", attempt.number);
            assert!(
                state.tasks_given() == 0,
                "an attempt begins before its pause has passed"
            );
        }
        let body = serde_json::to_string(&transition.events).unwrap();
        let birth = stored(transition.seq, transition.at, &body);
        let mut watched = Self {
            played,
            all,
            loaded: State::born(&birth).unwrap(),
            told: Told::new(&played.plan),
            answers: Answers::default(),
            rejected: None,
            history: Vec::new(),
            snapshot: None,
            history_bytes: 0,
            decided: BTreeSet::new(),
            state,
        };
        let sent = watched.check(transition, &birth, body, queues);
        Ok((watched, sent))
    }

    /// What it sends; `None` where the input changed nothing.
    pub(super) fn apply(&mut self, input: Input, queues: &QueueLimits, now: Timestamp) -> Option<Vec<Effect>> {
        let (seq, at) = (self.state.seq(), self.state.at());
        let closed = self.state.is_closed().then(|| self.state.status());
        let reopens = matches!(
            &input,
            Input::Message {
                body: Body::Undo { .. },
                ..
            }
        );
        let asked = match &input {
            Input::Message { from, number, .. } => Some((from.run, *number)),
            _ => None,
        };
        if let Input::Parked { step, .. } = &input {
            self.decided.insert(step.clone());
        }
        let applied = run::apply_within(&self.played.plan, &mut self.state, input, now, queues);
        if let Some((from, number)) = asked {
            // A parked run is asked again, and the shell asks the successor of one that goes on as another.
            let later = self.state.parked_reason().is_some() || self.state.successor().is_some();
            assert!(
                later || self.state.answer_to(from, number).is_some(),
                "a message has no answer"
            );
        }
        self.rejected = applied.as_ref().err().cloned();
        let Ok(Some(transition)) = applied else {
            assert_eq!(self.state, self.loaded, "what is not a transition changes nothing");
            return None;
        };
        assert_eq!(transition.seq, seq + 1, "transitions have no gaps");
        assert!(transition.at >= at, "time goes back");
        assert!(!transition.events.is_empty(), "a transition says something");
        if let Some(closed) = closed.filter(|_| !reopens) {
            assert_eq!(self.state.status(), closed, "what is closed stays as it is");
        }
        let body = serde_json::to_string(&transition.events).unwrap();
        let read = stored(transition.seq, transition.at, &body);
        run::evolve(&mut self.loaded, &read);
        Some(self.check(transition, &read, body, queues))
    }

    fn check(&mut self, transition: Transition, read: &Transition, body: String, queues: &QueueLimits) -> Vec<Effect> {
        if self.loaded != self.state {
            assert_eq!(self.loaded, self.state, "fold(evolve, events) == state");
        }
        let sent = effects(&self.state, &transition);
        assert_eq!(
            effects(&self.loaded, read),
            sent,
            "effects are a function of what is stored"
        );
        self.told.take(&transition);
        self.answers.take(&self.state, &transition.events, &sent);
        if *self.state.definition_hash() != self.played.plan.hash {
            let mut all = self.all.iter();
            let moved = all.find(|played| played.plan.hash == *self.state.definition_hash());
            self.played = moved.expect("a run moves to a version that there is");
            self.told.goes_by(&self.played.plan);
        }
        self.history_bytes += body.len();
        self.history.push((transition.at, body));
        self.waits_for_something();
        self.owes(&sent);
        if self.state.seq().is_multiple_of(SELDOM) {
            self.look_closer(&transition.events, queues);
        }
        sent
    }

    fn waits_for_something(&self) {
        let state = &self.state;
        if state.is_closed() {
            let pending = state.unanswered().next().is_some();
            assert_eq!(
                state.wake_at().is_some(),
                pending,
                "a closed run is woken for what it said"
            );
            assert_eq!(state.open_tasks().count(), 0, "a closed run has an open task");
        } else {
            let others = state.waits_for_others(&self.played.plan) || state.status() == Status::Parked;
            assert!(
                state.wake_at().is_some() || others,
                "an open run waits for a deadline, an operator, a signal or another run: {state:?}"
            );
        }
    }

    /// What a new owner would send covers what was sent, and the ledger knew of it first.
    fn owes(&self, sent: &[Effect]) {
        if sent.is_empty() {
            return;
        }
        let seq = self.state.seq();
        let again = effects_still_wanted(&self.state, seq, seq);
        for effect in sent {
            match effect {
                Effect::Emit { .. } => {}
                Effect::CancelTask { .. } => {
                    let ever = effects_still_wanted(&self.state, 1, seq);
                    assert!(ever.contains(effect), "{effect:?} would be lost");
                }
                _ => assert!(again.contains(effect), "{effect:?} would be lost"),
            }
            if let Effect::Dispatch(dispatch) = effect {
                self.dispatched(dispatch);
            }
        }
    }

    fn dispatched(&self, dispatch: &Dispatch) {
        assert!(self.state.is_open(dispatch.task), "what is dispatched is open");
        let key = idempotency_key(self.state.run_id(), &dispatch.step, dispatch.direction);
        assert_eq!(dispatch.idempotency_key, key, "the key is the step's");
        let entry = self.state.ledger().iter().rfind(|entry| entry.step == dispatch.step);
        match dispatch.direction {
            Direction::Undo => {
                let entry = entry.expect("an undo has an entry");
                let is = (&entry.input, &entry.state);
                assert_eq!(
                    is,
                    (&dispatch.input, &UndoState::Running),
                    "an undo's input is stored first"
                );
            }
            Direction::Do => {
                let name = dispatch.step.as_str().rsplit('.').next().unwrap_or_default();
                let undo = self.played.undos.get(name);
                let knows = entry.and_then(|entry| entry.undo.as_ref()).map(|call| &call.activity);
                assert_eq!(
                    knows, undo,
                    "the ledger knows of {} before its task is out",
                    dispatch.step
                );
            }
        }
    }

    fn look_closer(&mut self, events: &[Event], queues: &QueueLimits) {
        let seq = self.state.seq();
        let all = effects_still_wanted(&self.state, 1, seq);
        let count = |is: fn(&Effect) -> bool| all.iter().filter(|effect| is(effect)).count();
        let open = self
            .state
            .open_tasks()
            .filter(|view| view.open.known != Known::Held && view.open.withdrawn_for.is_none());
        assert_eq!(count(|effect| matches!(effect, Effect::Dispatch(_))), open.count());
        let pending = self.state.unanswered().count();
        assert_eq!(count(|effect| matches!(effect, Effect::Send { .. })), pending);
        self.wakes_when_due(queues);
        let snapshot = serde_json::to_string(&self.state).unwrap();
        let read: State = serde_json::from_str(&snapshot).unwrap();
        assert_eq!(read, self.state, "a snapshot is the state; after {events:?}");
        self.ask(&read);
        // Nothing is kept that no event has brought; outputs are kept in an undo's input, too.
        assert!(
            snapshot.len() <= 6 * self.history_bytes + 4_096,
            "a state of {} bytes by {} bytes of history",
            snapshot.len(),
            self.history_bytes
        );
        self.snapshot = Some((self.history.len(), snapshot));
    }

    /// `wake_at` is exactly the moment from which a wake-up with every horizon known does something.
    fn wakes_when_due(&self, queues: &QueueLimits) {
        let wake = |at: Timestamp| {
            let mut copy = self.state.clone();
            run::apply_within(&self.played.plan, &mut copy, full_wake(at), at, queues)
                .unwrap()
                .is_some()
        };
        match self.state.wake_at() {
            Some(at) if at > self.state.at() => {
                assert!(!wake(Timestamp(at.0 - 1)), "something is due before {at:?}");
                assert!(wake(at), "nothing is due at {at:?}");
            }
            Some(_) => assert!(wake(self.state.at()), "nothing is due that was"),
            None => assert!(
                !wake(Timestamp(i64::MAX / 2)),
                "something is due that no deadline names"
            ),
        }
    }

    /// As a new owner has it: from the newest snapshot and the transitions behind it, or from the first one.
    pub(super) fn restart(&mut self, from_snapshot: bool) -> Vec<Effect> {
        let number = |index: usize| u32::try_from(index + 1).unwrap();
        let (mut state, from) = match self.snapshot.as_ref().filter(|_| from_snapshot) {
            Some((from, body)) => (serde_json::from_str(body).unwrap(), *from),
            None => (
                State::born(&stored(1, self.history[0].0, &self.history[0].1)).unwrap(),
                1,
            ),
        };
        for (index, (at, body)) in self.history.iter().enumerate().skip(from) {
            run::evolve(&mut state, &stored(number(index), *at, body));
        }
        assert_eq!(state, self.state, "what is loaded is what was");
        self.state = state;
        effects_still_wanted(&self.state, 1, self.state.seq())
    }

    /// What may be asked of the run is answered, or is not, from wherever its state comes.
    fn ask(&self, other: &State) {
        let plan = &self.played.plan;
        for (name, query) in &plan.queries {
            let answer = run::query(plan, &self.state, query);
            assert_eq!(run::query(plan, other, query), answer, "{name}");
        }
    }

    pub(super) fn asked(&self) {
        self.ask(&self.loaded);
        assert_eq!(self.state, self.loaded, "a query changes nothing");
    }

    pub(super) fn end(&self) {
        self.asked();
        self.told.end(self.state.status());
        self.answers.end(&self.state);
    }

    pub(super) fn sender(&self) -> Sender {
        Sender {
            run: self.state.run_id(),
            namespace: self.state.namespace().clone(),
            workflow_id: self.state.workflow_id().clone(),
        }
    }

    pub(super) fn run_id(&self) -> RunId {
        self.state.run_id()
    }

    pub(super) fn into_history(self) -> (Status, Vec<String>) {
        let bodies = self.history.into_iter().map(|(_, body)| body);
        (self.state.status(), bodies.collect())
    }
}

pub(super) fn full_wake(now: Timestamp) -> Input {
    Input::Wake(Horizon {
        log_read_to: now,
        delivered_to: ["main", "other"].into_iter().map(|queue| (queue.into(), now)).collect(),
        listening_since: Timestamp::default(),
        heard: Default::default(),
    })
}
