//! A schedule or a trigger, held after every input against what its history says by itself: [`calendar`] of occurrences,
//! [`stream`] of events.

pub mod calendar;
pub mod stream;

use std::sync::Arc;

pub(super) use self::calendar::Calendar;
pub(super) use self::stream::{Item, Stream};
use super::watched::stored;
use crate::definition::plan::Plan;
use crate::ids::RunId;
use crate::run::effect::Effect;
use crate::run::input::{Input, Start};
use crate::run::message::Sender;
use crate::run::{self, Event, State, Status, Transition, effects, effects_still_wanted};
use crate::time::Timestamp;

/// One in so many transitions is looked at in the ways that cost more.
const SELDOM: u32 = 8;

#[derive(Debug)]
pub(super) enum Teller {
    Schedule(Box<Calendar>),
    Trigger(Box<Stream>),
}

#[derive(Debug)]
pub(super) struct Actor {
    plan: Plan,
    pub(super) state: State,
    /// What a replica that reads events from storage has made of them.
    loaded: State,
    pub(super) teller: Teller,
    history: Vec<(Timestamp, String)>,
    snapshot: Option<(usize, String)>,
}

impl Actor {
    /// # Panics
    /// Where it cannot begin.
    pub(super) fn start(plan: Plan, start: Start, teller: Teller, now: Timestamp) -> (Self, Vec<Effect>) {
        let (state, transition) = run::start(&plan, start, now).unwrap();
        let body = serde_json::to_string(&transition.events).unwrap();
        let birth = stored(transition.seq, transition.at, &body);
        let mut actor = Self {
            plan,
            loaded: State::born(&birth).unwrap(),
            teller,
            history: Vec::new(),
            snapshot: None,
            state,
        };
        let sent = actor.check(&transition, &birth, body);
        (actor, sent)
    }

    /// What it sends; `None` where the input changed nothing or was rejected.
    pub(super) fn apply(&mut self, input: Input, now: Timestamp) -> Option<Vec<Effect>> {
        let (seq, at, closed) = (self.state.seq(), self.state.at(), self.state.is_closed());
        let applied = run::apply(&self.plan, &mut self.state, input, now);
        let Ok(Some(transition)) = applied else {
            assert_eq!(self.state, self.loaded, "what is not a transition changes nothing");
            return None;
        };
        assert_eq!(transition.seq, seq + 1, "transitions have no gaps");
        assert!(transition.at >= at, "time goes back");
        assert!(!closed || self.state.is_closed(), "what is closed stays as it is");
        let body = serde_json::to_string(&transition.events).unwrap();
        let read = stored(transition.seq, transition.at, &body);
        run::evolve(&mut self.loaded, &read);
        Some(self.check(&transition, &read, body))
    }

    fn check(&mut self, transition: &Transition, read: &Transition, body: String) -> Vec<Effect> {
        assert_eq!(self.loaded, self.state, "fold(evolve, events) == state");
        let sent = effects(&self.state, transition);
        assert_eq!(
            effects(&self.loaded, read),
            sent,
            "effects are a function of what is stored"
        );
        let seq = self.state.seq();
        let again = effects_still_wanted(&self.state, seq, seq);
        for effect in &sent {
            // An actor has one answer for every repeat, and keeps none.
            let kept = !matches!(effect, Effect::AnswerMessage { .. });
            assert!(!kept || again.contains(effect), "{effect:?} would be lost");
        }
        match &mut self.teller {
            Teller::Schedule(calendar) => calendar.take(transition),
            Teller::Trigger(stream) => stream.take(transition),
        }
        self.history.push((transition.at, body));
        if seq.is_multiple_of(SELDOM) {
            self.look_closer(&transition.events);
        }
        sent
    }

    fn look_closer(&mut self, events: &[Event]) {
        let all = effects_still_wanted(&self.state, 1, self.state.seq());
        let sends = all.iter().filter(|effect| matches!(effect, Effect::Send { .. }));
        assert_eq!(sends.count(), self.state.unanswered().count());
        self.wakes_when_due();
        let snapshot = serde_json::to_string(&self.state).unwrap();
        let read: State = serde_json::from_str(&snapshot).unwrap();
        assert_eq!(read, self.state, "a snapshot is the state; after {events:?}");
        self.snapshot = Some((self.history.len(), snapshot));
    }

    /// `wake_at` is exactly the moment from which a wake-up does something.
    fn wakes_when_due(&self) {
        let wake = |at: Timestamp| {
            let mut copy = self.state.clone();
            run::apply(&self.plan, &mut copy, Input::Wake(Default::default()), at)
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
        if let Teller::Trigger(stream) = &mut self.teller {
            stream.feed_again();
        }
        effects_still_wanted(&self.state, 1, self.state.seq())
    }

    /// Nothing of it is on its way any more.
    pub(super) fn is_at_rest(&self) {
        match &self.teller {
            Teller::Schedule(calendar) => calendar.is_at_rest(),
            Teller::Trigger(stream) => stream.is_at_rest(),
        }
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

/// The start of an actor, which says what it is to do.
pub(super) fn birth(number: u32, workflow_id: crate::ids::WorkflowId, command: &impl serde::Serialize) -> Start {
    Start {
        run_id: RunId(uuid::Uuid::from_u128(
            0x0180_0000_0000_7000_8000_0000_0000_0000 | u128::from(number),
        )),
        namespace: "default".into(),
        workflow_id,
        input: Arc::new(serde_json::to_value(command).unwrap()),
        request_id: None,
        search_attributes: [].into(),
        answer: None,
        traceparent: None,
        parent: None,
        priority: None,
        queued: false,
        begins_at: None,
        continues: None,
    }
}
