//! Who is told what of updates, held against who waits: each is told once, as soon as there is what they wait for, and what was said
//! stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::ids::RequestId;
use crate::run::effect::Effect;
use crate::run::{Event, Failure, State, Update, UpdateAnswer, UpdateStage};

#[derive(Debug, Clone, PartialEq)]
enum Stands {
    Accepted,
    Refused(Failure),
    Completed(Arc<Value>),
    Failed(Failure),
}

impl Stands {
    fn of(update: Update<'_>) -> Self {
        match update {
            Update::Accepted => Self::Accepted,
            Update::Refused(error) => Self::Refused(error.clone()),
            Update::Completed(output) => Self::Completed(Arc::clone(output)),
            Update::Failed(error) => Self::Failed(error.clone()),
        }
    }

    fn may_become(&self, other: &Self) -> bool {
        let is_end = matches!(other, Self::Completed(_) | Self::Failed(_));
        self == other || *self == Self::Accepted && is_end
    }
}

/// Of one run.
#[derive(Debug, Default)]
pub(super) struct Answers {
    stands: BTreeMap<RequestId, Option<Stands>>,
    /// And whether they have been told.
    waiters: BTreeMap<(RequestId, Arc<str>, UpdateStage), bool>,
}

impl Answers {
    pub(super) fn waits(&self, id: &RequestId, answer: &UpdateAnswer) -> bool {
        let key = (id.clone(), Arc::clone(&answer.to), answer.on);
        self.waiters.contains_key(&key)
    }

    /// A transition, what it sends, and the state after it.
    pub(super) fn take(&mut self, state: &State, events: &[Event], sent: &[Effect]) {
        events.iter().for_each(|event| self.event(event));
        if self.stands.is_empty() {
            return;
        }
        for (id, before) in &mut self.stands {
            let now = state.update(id).map(Stands::of);
            if let Some(before) = before {
                let kept = now.as_ref().is_some_and(|now| before.may_become(now));
                assert!(kept, "{id} was {before:?} and is {now:?}");
            }
            *before = now;
        }
        let told = sent.iter().filter_map(|effect| match effect {
            Effect::AnswerUpdate { to, id } => Some((id, to)),
            _ => None,
        });
        let told: BTreeSet<_> = told.collect();
        for (id, to) in &told {
            let mut waiters = self.waiters.iter();
            let waits = waiters
                .any(|((of, who, on), told)| of == *id && who == *to && !told && state.is_update_decided(id, *on));
            assert!(waits, "{to} is told of {id}, and does not wait for it any more");
        }
        for ((id, to, on), is_told) in &mut self.waiters {
            if !*is_told && state.is_update_decided(id, *on) {
                assert!(told.contains(&(id, to)), "{to} waits for {id}, and is not told");
                *is_told = true;
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted(started) => {
                let before = started.continues.iter();
                for update in before.flat_map(|before| &before.updates) {
                    self.taken(&update.id, &update.waiters);
                }
            }
            Event::UpdateAccepted(taken) | Event::UpdatePutOff(taken) => {
                if let Some(id) = &taken.operation.request_id {
                    self.taken(id, taken.answer.as_slice());
                }
            }
            Event::UpdateAwaited { id, answer } => self.taken(id, std::slice::from_ref(answer)),
            _ => {}
        }
    }

    fn taken(&mut self, id: &RequestId, waiters: &[UpdateAnswer]) {
        self.stands.entry(id.clone()).or_default();
        for UpdateAnswer { to, on } in waiters {
            let again = self.waiters.insert((id.clone(), Arc::clone(to), *on), false);
            assert_eq!(again, None, "{to} waits for {id} twice");
        }
    }

    /// Of a run that has closed: who has not been told will be by the run that goes on in its place.
    pub(super) fn end(&self, state: &State) {
        for ((id, to, _), told) in &self.waiters {
            let moved = state.successor().is_some_and(|next| {
                let before = next.continues.iter();
                let mut updates = before.flat_map(|before| &before.updates);
                updates.any(|update| update.id == *id)
            });
            assert!(*told || moved, "{to} waits for {id} for ever");
        }
    }
}
