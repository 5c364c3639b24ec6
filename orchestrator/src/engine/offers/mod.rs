//! Offering again what was not acknowledged: commits by name, one task for all of a namespace, whatever their number.
//!
//! What they owe is read from the store when their turn comes, as for the commits of the dead, so that an outage of a stream
//! fills no memory. While it lasts one commit at a time is tried. Commits wait in *lanes*, one for each namespace whose tasks
//! they owe, so that the stream of one does not hold up another's; what is inherited is read first, to learn whose it is.
//! What cannot be read has a lane of its own, and is tried again about once a minute until it can, or an operator gives it up.
//!
//! **Invariant:** whose tasks may be unpublished is known here, so that none of them counts as delivered.

mod lane;
mod left;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::StreamExt as _;
use knarr_core::ids::{Namespace, RunId};
use knarr_core::time::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

pub(in crate::engine) use self::lane::LaneName;
use self::lane::{Lane, WIDEST};
pub(in crate::engine) use self::left::{Left, Unreadable};
use self::left::{MOST_RUNS, Owing};
use crate::bus::Bus;
use crate::engine::definitions::Definitions;
use crate::engine::look_up::Absent;
use crate::engine::publication::{Published, Publisher};
use crate::engine::report::Done;
use crate::engine::run_loop::Loop;
use crate::store::{CommitId, Session, Store};
use crate::telemetry::metric;

/// Commits of one go that are offered at the same time: one that is not acknowledged takes as long as the bus waits for that.
const ABREAST: usize = 16;
/// Commits whose messages are read in one go, at first. A commit may have as many bytes of them as a batch.
const FIRST_READ: usize = 4;
/// Where they were more than these, one commit is read at a time.
const READ_TOGETHER: usize = 1 << 20;

/// Commits that wait for their turn, each once.
#[derive(Debug, Default)]
pub(in crate::engine) struct Offers {
    lanes: BTreeMap<LaneName, Lane>,
    waiting: HashMap<CommitId, (Left, Owing)>,
    /// How many commits, waiting or being offered, may owe a task of a namespace; of `None`, of any.
    owed: HashMap<Option<Namespace>, usize>,
    /// Commits that are being published for the first time, and when the first of their transitions may have been.
    publishing: HashMap<CommitId, Timestamp>,
    /// Until when tasks of a namespace, or of any, have gone out that had waited here: in their queue they lie behind younger
    /// ones.
    late: HashMap<Option<Namespace>, Timestamp>,
    runs: usize,
    /// How often something was offered again.
    begun: u64,
    /// Runs that could not be read, and of how many commits that waits.
    unreadable: HashMap<RunId, usize>,
}

impl Offers {
    pub(in crate::engine) fn put(&mut self, commit: CommitId, left: Left) {
        let (mut known, mut owing) = match self.waiting.remove(&commit) {
            Some(known) => known,
            None => {
                let lane = LaneName::of(&left);
                let known = self.lanes.entry(lane);
                let name = known.key().clone();
                known.or_insert_with(|| Lane::new(&name)).order.push_back(commit);
                (Left::Nothing, Some(BTreeSet::new()))
            }
        };
        self.count(&owing, false);
        self.runs -= known.runs();
        self.count_unreadable(known.unreadable().map(|unreadable| unreadable.runs.clone()), false);
        owing = match (owing, left.owing()) {
            (Some(owing), Some(more)) => Some(owing.into_iter().chain(more).collect()),
            _ => None,
        };
        known.add(left);
        if self.runs + known.runs() > MOST_RUNS {
            known = Left::All;
        }
        self.runs += known.runs();
        self.count(&owing, true);
        self.count_unreadable(known.unreadable().map(|unreadable| unreadable.runs.clone()), true);
        self.waiting.insert(commit, (known, owing));
    }

    /// A committed batch is published for the first time.
    pub(in crate::engine) fn publishing(&mut self, commit: CommitId, began: Timestamp) {
        self.publishing.insert(commit, began);
    }

    /// What is not acknowledged by now waits here.
    pub(in crate::engine) fn was_published(&mut self, commit: CommitId) {
        self.publishing.remove(&commit);
    }

    /// Whether a task of the namespace may not be out, however old it is.
    pub(in crate::engine) fn owes(&self, namespace: &Namespace) -> bool {
        let any = |key: &Option<Namespace>| self.owed.get(key).is_some_and(|count| *count > 0);
        !self.owed.is_empty() && (any(&None) || any(&Some(namespace.clone())))
    }

    /// What was opened before is out, but for what waits here.
    pub(in crate::engine) fn published_to(&self) -> Timestamp {
        let first = self.publishing.values().min();
        first.map_or(Timestamp::MAX, |began| Timestamp(began.0.saturating_sub(1)))
    }

    pub(in crate::engine) fn begun(&self) -> u64 {
        self.begun
    }

    /// The first of those that are being offered again now.
    pub(in crate::engine) fn oldest_under_way(&self) -> Option<u64> {
        let lanes = self.lanes.values().filter(|lane| lane.under_way);
        lanes.map(|lane| lane.number).min()
    }

    /// Whether something of another session is to be offered, as far as it can be read.
    pub(in crate::engine) fn inherits(&self, own: Uuid) -> bool {
        let mut waiting = self.waiting.iter();
        let mut lanes = self.lanes.iter().filter(|(name, _)| **name != LaneName::Unreadable);
        waiting.any(|(commit, (left, _))| commit.session != own && LaneName::of(left) != LaneName::Unreadable)
            || lanes.any(|(_, lane)| lane.sessions.iter().any(|session| *session != own))
    }

    fn went_out_late(&mut self, owing: Owing, now: Timestamp) {
        match owing {
            None => drop(self.late.insert(None, now)),
            Some(namespaces) => self.late.extend(namespaces.into_iter().map(|name| (Some(name), now))),
        }
    }

    /// A task that was published before then may have been opened long before.
    pub(in crate::engine) fn late(&self, namespace: &Namespace) -> Timestamp {
        let of = |key: &Option<Namespace>| self.late.get(key).copied().unwrap_or(Timestamp(i64::MIN));
        of(&None).max(of(&Some(namespace.clone())))
    }

    fn count(&mut self, owing: &Owing, more: bool) {
        let mut count = |key: Option<Namespace>| {
            let of = self.owed.entry(key.clone()).or_default();
            *of = if more { *of + 1 } else { of.saturating_sub(1) };
            if *of == 0 {
                self.owed.remove(&key);
            }
        };
        match owing {
            None => count(None),
            Some(namespaces) => namespaces.iter().cloned().map(Some).for_each(count),
        }
    }

    fn count_unreadable(&mut self, runs: Option<BTreeSet<RunId>>, more: bool) {
        for run in runs.into_iter().flatten() {
            let of = self.unreadable.entry(run).or_default();
            *of = if more { *of + 1 } else { of.saturating_sub(1) };
            if *of == 0 {
                self.unreadable.remove(&run);
            }
        }
    }

    /// Whether what the run owes could not be published, because it could not be read.
    pub(in crate::engine) fn is_unreadable(&self, run: RunId) -> bool {
        !self.unreadable.is_empty() && self.unreadable.contains_key(&run)
    }

    /// It could be read now: what it owes is tried at once.
    pub(in crate::engine) fn is_readable(&mut self, run: RunId) {
        if self.is_unreadable(run)
            && let Some(lane) = self.lanes.get_mut(&LaneName::Unreadable)
        {
            lane.width = WIDEST;
            lane.not_before = None;
        }
    }

    /// The next moment at which something may be offered, if there is something.
    pub(in crate::engine) fn next(&self) -> Option<Instant> {
        let waiting = self.lanes.values().filter(|lane| lane.waits());
        waiting.filter_map(|lane| lane.not_before).min()
    }

    /// Lanes whose turn it is.
    fn ready(&self, now: Instant) -> Vec<LaneName> {
        let ready = |lane: &Lane| lane.waits() && lane.not_before.is_none_or(|at| at <= now);
        let lanes = self.lanes.iter().filter(|(_, lane)| ready(lane));
        lanes.map(|(name, _)| name.clone()).collect()
    }

    fn take(&mut self, name: &LaneName) -> Vec<(CommitId, Left)> {
        let Some(lane) = self.lanes.get_mut(name) else {
            return Vec::new();
        };
        self.begun += 1;
        (lane.under_way, lane.number) = (true, self.begun);
        let count = lane.width.min(lane.order.len());
        let mut taken = Vec::with_capacity(count);
        for commit in lane.order.drain(..count) {
            if let Some((left, owing)) = self.waiting.remove(&commit) {
                lane.sessions.insert(commit.session);
                self.runs -= left.runs();
                let unreadable = left.unreadable().map(|unreadable| unreadable.runs.clone());
                lane.trying.push((owing, unreadable.unwrap_or_default()));
                taken.push((commit, left));
            }
        }
        taken
    }

    /// Answers whose tasks may have gone out late; what is left of them is put back by the caller.
    fn ended(&mut self, name: &LaneName, well: bool) -> Vec<Owing> {
        let Some(lane) = self.lanes.get_mut(name) else {
            return Vec::new();
        };
        let tried = std::mem::take(&mut lane.trying);
        lane.ended(well);
        if well && lane.order.is_empty() {
            self.lanes.remove(name);
        }
        let mut owings = Vec::with_capacity(tried.len());
        for (owing, unreadable) in tried {
            self.count(&owing, false);
            self.count_unreadable(Some(unreadable), false);
            owings.push(owing);
        }
        owings
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Offers what waits, beside the loop, one round of each lane at a time.
    pub(in crate::engine) fn offer_again(&mut self) {
        for lane in self.offers.ready(Instant::now()) {
            let taken = self.offers.take(&lane);
            let unreadable = taken.iter().filter_map(|(_, left)| left.unreadable());
            // Whoever works on what goes out now must not be told that its run cannot be read.
            for run_id in unreadable.flat_map(|unreadable| &unreadable.runs) {
                self.forget_unreadable(*run_id);
            }
            let panicked = taken.iter().cloned();
            let panicked = panicked.map(|(commit, left)| Published::unsettled(commit, left));
            let panicked = Done::Offered(lane.clone(), panicked.collect());
            let (publisher, store, definitions) = (
                self.publisher.clone(),
                Arc::clone(&self.store),
                Arc::clone(&self.definitions),
            );
            let session = self.session;
            self.beside(panicked, async move {
                let ended = offer(&publisher, &*store, &definitions, &session, taken).await;
                Done::Offered(lane, ended)
            });
        }
    }

    fn forget_unreadable(&mut self, run_id: RunId) {
        if self.absent.get(&run_id) == Some(&Absent::Unreadable) {
            self.absent.remove(&run_id);
        }
    }

    pub(in crate::engine) fn offered(&mut self, lane: &LaneName, ended: Vec<Published>) {
        let well = ended.iter().all(|published| match lane {
            // It is known now whose it is, and waits there.
            LaneName::Unread => published.left != Left::All,
            LaneName::Messages | LaneName::Tasks(_) => published.left.only_unreadable(),
            LaneName::Unreadable => published.left == Left::Nothing,
        });
        let now = self.clock.now();
        for owing in self.offers.ended(lane, well) {
            self.offers.went_out_late(owing, now);
        }
        for mut published in ended {
            for (run_id, namespace) in published.readable.drain(..) {
                self.offers.went_out_late(Some(BTreeSet::from([namespace])), now);
                self.forget_unreadable(run_id);
            }
            self.publication_ended(published);
        }
        metrics::gauge!(metric::OWED_UNREADABLE).set(self.offers.unreadable.len() as f64);
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
    let mut ended = Vec::with_capacity(taken.len());
    let mut rest = taken.into_iter();
    let mut width = FIRST_READ;
    loop {
        let some: Vec<(CommitId, Left)> = rest.by_ref().take(width).collect();
        if some.is_empty() {
            return ended;
        }
        let ids: Vec<CommitId> = some.iter().map(|(commit, _)| *commit).collect();
        let owing = match store.owed(session, &ids).await {
            Ok(owing) => owing,
            Err(error) => {
                tracing::warn!(%error, "what is still to be published cannot be read yet");
                let unsettled = some.into_iter().chain(rest);
                ended.extend(unsettled.map(|(commit, left)| Published::unsettled(commit, left)));
                return ended;
            }
        };
        let messages = owing.iter().filter_map(|commit| commit.owed.messages.as_ref());
        width = match messages.map(String::len).sum::<usize>() > READ_TOGETHER {
            true => 1,
            false => (2 * width).min(ABREAST),
        };
        let mut left: HashMap<CommitId, Left> = some.into_iter().collect();
        let offers = owing.into_iter().map(|mut commit| {
            let mut before = Unreadable::default();
            if let Some(left) = left.remove(&commit.id) {
                left.restrict(&mut commit);
                before = left.unreadable().cloned().unwrap_or_default();
            }
            async move { publisher.inherit(store, definitions, commit, &before).await }
        });
        // Where the engine stops first, the rows stay.
        let offers: Vec<_> = offers.collect();
        let published = futures_util::stream::iter(offers).buffer_unordered(ABREAST);
        let published: Vec<Published> = published.filter_map(std::future::ready).collect().await;
        ended.extend(published);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn commit(batch_no: i64) -> CommitId {
        CommitId {
            session: uuid::Uuid::from_u128(1),
            batch_no,
        }
    }

    fn runs(numbers: std::ops::Range<u128>) -> Left {
        let mut left = Left::Nothing;
        numbers.for_each(|n| left.add_task(RunId(uuid::Uuid::from_u128(n)), &x()));
        left
    }

    fn x() -> Namespace {
        Namespace::new("x")
    }

    #[test]
    fn a_commit_waits_once_with_all_that_is_left_of_it() {
        let mut offers = Offers::default();
        offers.put(commit(1), runs(0..2));
        offers.put(commit(2), runs(5..6));
        let mut messages = Left::Nothing;
        messages.add_messages();
        offers.put(commit(1), messages);
        offers.put(commit(1), runs(1..3));
        let mut both = runs(0..3);
        both.add_messages();
        let lane = LaneName::Tasks(x());
        assert_eq!(offers.take(&lane), [(commit(1), both), (commit(2), runs(5..6))]);
        assert_eq!((offers.runs, offers.take(&lane)), (0, Vec::new()));
    }

    #[test]
    fn runs_are_remembered_up_to_a_number_and_namespaces_beyond_it() {
        let mut offers = Offers::default();
        let most = MOST_RUNS as u128;
        offers.put(commit(1), runs(0..most));
        offers.put(commit(2), runs(0..1));
        let lane = LaneName::Tasks(x());
        assert_eq!(offers.take(&lane), [(commit(1), runs(0..most)), (commit(2), Left::All)]);
        assert!(offers.owes(&x()) && !offers.owes(&Namespace::new("y")));
    }

    #[test]
    fn one_commit_at_a_time_is_tried_until_one_succeeds() {
        let mut offers = Offers::default();
        for n in 0..200 {
            offers.put(commit(n), Left::All);
        }
        let mut widths = Vec::new();
        for well in [true, false, false, false, true, true] {
            widths.push(offers.take(&LaneName::Unread).len());
            offers.ended(&LaneName::Unread, well);
        }
        assert_eq!(widths, [64, 64, 8, 1, 1, 2]);
    }

    /// What nobody has read yet may be anybody's; what has been is its namespace's, and waits in a lane of its own.
    #[test]
    fn a_namespace_owes_until_its_last_commit_is_acknowledged() {
        let (mut offers, y) = (Offers::default(), Namespace::new("y"));
        let owe = |offers: &Offers| (offers.owes(&x()), offers.owes(&y));
        offers.put(commit(1), Left::All);
        assert_eq!(owe(&offers), (true, true));
        assert_eq!(offers.take(&LaneName::Unread).len(), 1);
        assert_eq!(owe(&offers), (true, true), "it is being offered");
        assert_eq!(offers.ended(&LaneName::Unread, true), [None]);
        offers.put(commit(1), runs(0..1));
        assert_eq!(owe(&offers), (true, false));
        assert_eq!(offers.ready(Instant::now()), [LaneName::Tasks(x())]);
        assert_eq!(offers.take(&LaneName::Tasks(x())).len(), 1);
        assert_eq!(offers.ended(&LaneName::Tasks(x()), true), [Some(BTreeSet::from([x()]))]);
        assert_eq!(owe(&offers), (false, false));
        assert!(offers.lanes.is_empty() && offers.owed.is_empty());
    }

    /// It waits by itself, seldom tried, and no timeout waits for it; once its run has been loaded it is tried at once.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_holds_up_nobody() {
        let mut offers = Offers::default();
        let run = RunId(uuid::Uuid::from_u128(9));
        let mut unreadable = Left::Nothing;
        unreadable.add_unreadable([run]);
        offers.put(commit(1), unreadable.clone());
        offers.put(commit(2), runs(0..1));
        assert_eq!(offers.ready(Instant::now()), [LaneName::Tasks(x())]);
        assert_eq!(offers.take(&LaneName::Tasks(x())).len(), 1);
        offers.ended(&LaneName::Tasks(x()), true);
        assert!(!offers.owes(&x()) && offers.is_unreadable(run));
        let mut tries = 0;
        for _ in 0..600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            if offers.ready(Instant::now()) == [LaneName::Unreadable] {
                tries += 1;
                assert_eq!(offers.take(&LaneName::Unreadable), [(commit(1), unreadable.clone())]);
                assert!(offers.is_unreadable(run), "nor while it is tried");
                offers.ended(&LaneName::Unreadable, false);
                offers.put(commit(1), unreadable.clone());
            }
        }
        assert!((10..=14).contains(&tries), "{tries} tries in ten minutes");
        offers.is_readable(run);
        assert_eq!(offers.ready(Instant::now()), [LaneName::Unreadable]);
        assert_eq!(offers.take(&LaneName::Unreadable).len(), 1);
        offers.ended(&LaneName::Unreadable, true);
        assert!(!offers.is_unreadable(run) && offers.lanes.is_empty() && offers.runs == 0);
    }

    #[test]
    fn a_first_publication_bounds_what_is_known_to_be_out() {
        let mut offers = Offers::default();
        offers.publishing(commit(1), Timestamp(10));
        offers.publishing(commit(2), Timestamp(20));
        assert_eq!(offers.published_to(), Timestamp(9));
        offers.was_published(commit(1));
        offers.was_published(commit(2));
        assert_eq!(offers.published_to(), Timestamp::MAX);
    }
}
