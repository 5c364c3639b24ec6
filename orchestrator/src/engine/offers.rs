//! Offering again what was not acknowledged: commits by name, one task for all of them, whatever their number.
//!
//! What they owe is read from the store when their turn comes, as for the commits of the dead, so that an outage of a stream
//! fills no memory. While it lasts one commit at a time is tried.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::RunId;
use tokio::time::Instant;

use super::definitions::Definitions;
use super::publication::{Published, Publisher};
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{CommitId, InheritedCommit, Session, Store};

/// Commits offered in one go while all goes well.
const WIDEST: usize = 64;
/// Runs remembered by name; beyond that all of a commit is offered again.
const MOST_RUNS: usize = 100_000;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What of a commit is still to be offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Left {
    #[default]
    Nothing,
    /// What these runs owe, and perhaps the messages that no run's events contain.
    Some {
        runs: BTreeSet<RunId>,
        messages: bool,
    },
    All,
}

impl Left {
    pub(super) fn add_runs(&mut self, more: impl IntoIterator<Item = RunId>) {
        match self {
            Self::All => {}
            Self::Some { runs, .. } => runs.extend(more),
            Self::Nothing => {
                let runs: BTreeSet<RunId> = more.into_iter().collect();
                if !runs.is_empty() {
                    *self = Self::Some { runs, messages: false };
                }
            }
        }
    }

    pub(super) fn add_messages(&mut self) {
        match self {
            Self::All => {}
            Self::Some { messages, .. } => *messages = true,
            Self::Nothing => {
                *self = Self::Some {
                    runs: BTreeSet::new(),
                    messages: true,
                }
            }
        }
    }

    fn add(&mut self, other: Self) {
        match other {
            Self::Nothing => {}
            Self::All => *self = Self::All,
            Self::Some { runs, messages } => {
                self.add_runs(runs);
                if messages {
                    self.add_messages();
                }
            }
        }
    }

    fn runs(&self) -> usize {
        match self {
            Self::Some { runs, .. } => runs.len(),
            Self::Nothing | Self::All => 0,
        }
    }

    /// Leaves of `owing` what is still to be offered.
    fn restrict(&self, owing: &mut InheritedCommit) {
        match self {
            Self::All => {}
            Self::Nothing => owing.owed = crate::store::Owed::default(),
            Self::Some { runs, messages } => {
                owing.owed.spans.retain(|span| runs.contains(&span.run_id));
                if !messages {
                    owing.owed.messages = None;
                }
            }
        }
    }
}

/// Commits that wait for their turn, each once.
#[derive(Debug)]
pub(super) struct Offers {
    order: VecDeque<CommitId>,
    left: HashMap<CommitId, Left>,
    runs: usize,
    under_way: bool,
    width: usize,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            left: HashMap::new(),
            runs: 0,
            under_way: false,
            width: WIDEST,
            pause: SHORTEST_PAUSE,
            not_before: None,
        }
    }
}

impl Offers {
    pub(super) fn put(&mut self, commit: CommitId, left: Left) {
        let known = self.left.entry(commit).or_insert_with(|| {
            self.order.push_back(commit);
            Left::Nothing
        });
        let before = known.runs();
        known.add(left);
        if self.runs - before + known.runs() > MOST_RUNS {
            *known = Left::All;
        }
        self.runs = self.runs - before + known.runs();
    }

    /// The next moment at which something may be offered, if there is something.
    pub(super) fn next(&self) -> Option<Instant> {
        let waits = !self.order.is_empty() && !self.under_way;
        self.not_before.filter(|_| waits)
    }

    fn take(&mut self) -> Vec<(CommitId, Left)> {
        let count = self.width.min(self.order.len());
        let mut taken = Vec::with_capacity(count);
        for commit in self.order.drain(..count) {
            if let Some(left) = self.left.remove(&commit) {
                self.runs -= left.runs();
                taken.push((commit, left));
            }
        }
        taken
    }

    /// Goes on faster, or slower.
    fn ended(&mut self, well: bool) {
        self.under_way = false;
        if well {
            self.width = (self.width * 2).min(WIDEST);
            self.pause = SHORTEST_PAUSE;
            self.not_before = None;
        } else {
            self.width = (self.width / 8).max(1);
            self.not_before = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Offers what waits, beside the loop, one round at a time.
    pub(super) fn offer_again(&mut self) {
        if self.offers.under_way
            || self.offers.order.is_empty()
            || self.offers.not_before.is_some_and(|at| at > Instant::now())
        {
            return;
        }
        self.offers.under_way = true;
        let taken = self.offers.take();
        let panicked = taken.iter().cloned();
        let panicked = panicked.map(|(commit, left)| Published::unsettled(commit, left));
        let panicked = Done::Offered(panicked.collect());
        let (publisher, store, definitions) = (
            self.publisher.clone(),
            Arc::clone(&self.store),
            Arc::clone(&self.definitions),
        );
        let session = self.session;
        self.beside(panicked, async move {
            Done::Offered(offer(&publisher, &*store, &definitions, &session, taken).await)
        });
    }

    pub(super) fn offered(&mut self, ended: Vec<Published>) {
        self.offers
            .ended(ended.iter().all(|published| published.left == Left::Nothing));
        for published in ended {
            self.publication_ended(published);
        }
    }
}

/// Those whose row has another holder by now are the other's to publish.
async fn offer<S: Store, B: Bus>(
    publisher: &Publisher<B>,
    store: &S,
    definitions: &Definitions,
    session: &Session,
    taken: Vec<(CommitId, Left)>,
) -> Vec<Published> {
    let ids: Vec<CommitId> = taken.iter().map(|(commit, _)| *commit).collect();
    let mut left: HashMap<CommitId, Left> = taken.into_iter().collect();
    let owing = match store.owed(session, &ids).await {
        Ok(owing) => owing,
        Err(error) => {
            tracing::warn!(%error, "what is still to be published cannot be read yet");
            let unsettled = left.into_iter();
            return unsettled
                .map(|(commit, left)| Published::unsettled(commit, left))
                .collect();
        }
    };
    let mut ended = Vec::with_capacity(owing.len());
    for mut commit in owing {
        if let Some(left) = left.remove(&commit.id) {
            left.restrict(&mut commit);
        }
        // Where the engine stops first, the rows stay.
        ended.extend(publisher.inherit(store, definitions, commit).await);
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(batch_no: i64) -> CommitId {
        CommitId {
            session: uuid::Uuid::from_u128(1),
            batch_no,
        }
    }

    fn runs(numbers: std::ops::Range<u128>) -> Left {
        Left::Some {
            runs: numbers.map(|n| RunId(uuid::Uuid::from_u128(n))).collect(),
            messages: false,
        }
    }

    #[test]
    fn a_commit_waits_once_with_all_that_is_left_of_it() {
        let mut offers = Offers::default();
        offers.put(commit(1), runs(0..2));
        offers.put(commit(2), Left::All);
        let mut messages = Left::Nothing;
        messages.add_messages();
        offers.put(commit(1), messages);
        offers.put(commit(1), runs(1..3));
        let mut both = runs(0..3);
        both.add_messages();
        assert_eq!(offers.take(), [(commit(1), both), (commit(2), Left::All)]);
        assert_eq!((offers.runs, offers.take()), (0, Vec::new()));
    }

    #[test]
    fn runs_are_remembered_up_to_a_number() {
        let mut offers = Offers::default();
        let most = MOST_RUNS as u128;
        offers.put(commit(1), runs(0..most));
        offers.put(commit(2), runs(0..1));
        assert_eq!(offers.take(), [(commit(1), runs(0..most)), (commit(2), Left::All)]);
    }

    #[test]
    fn one_commit_at_a_time_is_tried_until_one_succeeds() {
        let mut offers = Offers::default();
        for n in 0..200 {
            offers.put(commit(n), Left::All);
        }
        let mut widths = Vec::new();
        for well in [true, false, false, false, true, true] {
            widths.push(offers.take().len());
            offers.ended(well);
        }
        assert_eq!(widths, [64, 64, 8, 1, 1, 2]);
    }
}
