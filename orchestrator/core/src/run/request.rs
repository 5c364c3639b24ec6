//! Requests that a run has taken: a repeat changes nothing.
//!
//! By verb and request id, since an id says which request this is and not what it asks for: whoever retries a parked undo
//! under an id may skip it under the same one, and a signal may have the id of either.
//!
//! **Bound:** a request is remembered with the event that took it, so a run remembers at most as many as it has events
//! ([`super::limits::MAX_EVENTS`], and as many again for each time that an operator lets it go on), and a run that is parked over
//! that limit as many more as signals can wait ([`super::limits::MAX_BUFFERED_SIGNALS`]). A run that continues another as new
//! knows those of the run before as well, with what was handed on to that one, of which there are no more than can wait; and none
//! from before that: however many signals a chain of runs takes, it carries two runs' worth.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::event::Resolution;
use super::input::{Operation, ParkedAction};
use super::state::State;
use crate::ids::RequestId;

/// What a request asks for. Stored: names only ever grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Cancel,
    Terminate,
    Signal,
    /// With the same or other input.
    Retry,
    MarkDone,
    Skip,
    RaiseLimits,
    Migrate,
    Update,
}

impl Verb {
    pub(super) fn of(action: &ParkedAction) -> Self {
        match action {
            ParkedAction::Retry | ParkedAction::RetryWithInput(_) => Self::Retry,
            ParkedAction::MarkDone | ParkedAction::MarkDoneWithOutput(_) => Self::MarkDone,
            ParkedAction::Skip => Self::Skip,
        }
    }

    pub(super) fn resolving(how: Resolution) -> Self {
        match how {
            Resolution::Done => Self::MarkDone,
            Resolution::Skipped => Self::Skip,
        }
    }

    /// Whether earlier versions kept its requests in one set with those of other verbs.
    fn was_shared(self) -> bool {
        !matches!(
            self,
            Self::Cancel | Self::Terminate | Self::RaiseLimits | Self::Migrate | Self::Update
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Requests(BTreeMap<Verb, BTreeSet<RequestId>>);

impl Requests {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are remembered, of all verbs.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    fn contains(&self, verb: Verb, request: &RequestId) -> bool {
        self.0.get(&verb).is_some_and(|taken| taken.contains(request))
    }

    pub(super) fn remember(&mut self, verb: Verb, operation: &Operation) {
        if let Some(request) = &operation.request_id {
            self.insert(verb, request);
        }
    }

    fn insert(&mut self, verb: Verb, request: &RequestId) {
        self.0.entry(verb).or_default().insert(request.clone());
    }
}

impl State {
    /// What the run that goes on in the place of this one knows of: what came to this one, and what was handed on to it, which
    /// it may have done.
    pub(super) fn requests_to_hand_on(&self) -> Requests {
        let mut taken = self.taken.clone();
        if let Some(continues) = &self.birth.continues {
            for request in continues.signals.iter().filter_map(|signal| signal.request_id.as_ref()) {
                taken.insert(Verb::Signal, request);
            }
            for update in &continues.updates {
                taken.insert(Verb::Update, &update.id);
            }
        }
        taken
    }
}

/// Whether the run, or the one that it continues, has taken this very request.
pub(super) fn was_taken(state: &State, verb: Verb, operation: &Operation) -> bool {
    let Some(request) = &operation.request_id else {
        return false;
    };
    let shared = |requests: &BTreeSet<RequestId>| verb.was_shared() && requests.contains(request);
    state.taken.contains(verb, request)
        || shared(&state.requests)
        || state
            .birth
            .continues
            .as_ref()
            .is_some_and(|continues| continues.taken.contains(verb, request) || shared(&continues.requests))
}
