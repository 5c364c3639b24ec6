//! Lanes: commits in the order in which they are offered again, as wide and as soon as goes well.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use knarr_core::ids::{Namespace, RunId};
use tokio::time::Instant;
use uuid::Uuid;

use super::left::{Left, Owing};
use crate::store::CommitId;

/// Commits offered in one go while all goes well.
pub(super) const WIDEST: usize = 64;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The same for what cannot be read, which is hardly ever repaired in a moment.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_UNREADABLE_PAUSE: Duration = Duration::from_secs(60);

/// Where a commit waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum LaneName {
    /// Nobody knows yet what it owes.
    Unread,
    /// It owes no task.
    Messages,
    Tasks(Namespace),
    /// Nobody can read what is left of it.
    Unreadable,
}

impl LaneName {
    pub(super) fn of(left: &Left) -> Self {
        match left.owing() {
            None => Self::Unread,
            Some(_) if *left != Left::Nothing && left.only_unreadable() => Self::Unreadable,
            Some(namespaces) => namespaces.first().cloned().map_or(Self::Messages, Self::Tasks),
        }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) order: VecDeque<CommitId>,
    /// What is being offered, and which runs of it could not be read before.
    pub(super) trying: Vec<(Owing, BTreeSet<RunId>)>,
    pub(super) under_way: bool,
    /// The sessions whose commits are being offered.
    pub(super) sessions: BTreeSet<Uuid>,
    /// The number of what is being offered.
    pub(super) number: u64,
    pub(super) width: usize,
    pub(super) pause: Duration,
    pub(super) pauses: (Duration, Duration),
    pub(super) not_before: Option<Instant>,
}

impl Lane {
    pub(super) fn new(name: &LaneName) -> Self {
        let (pauses, not_before) = match name {
            // It has just been tried.
            LaneName::Unreadable => (
                (UNREADABLE_PAUSE, LONGEST_UNREADABLE_PAUSE),
                Some(Instant::now() + UNREADABLE_PAUSE),
            ),
            LaneName::Unread | LaneName::Messages | LaneName::Tasks(_) => ((SHORTEST_PAUSE, LONGEST_PAUSE), None),
        };
        Self {
            order: VecDeque::new(),
            trying: Vec::new(),
            under_way: false,
            sessions: BTreeSet::new(),
            number: 0,
            width: WIDEST,
            pause: pauses.0,
            pauses,
            not_before,
        }
    }

    pub(super) fn waits(&self) -> bool {
        !self.order.is_empty() && !self.under_way
    }

    /// Goes on faster, or slower.
    pub(super) fn ended(&mut self, well: bool) {
        self.under_way = false;
        self.sessions.clear();
        if well {
            self.width = (self.width * 2).min(WIDEST);
            self.pause = self.pauses.0;
            self.not_before = None;
        } else {
            self.width = (self.width / 8).max(1);
            self.not_before = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(self.pauses.1);
        }
    }
}
