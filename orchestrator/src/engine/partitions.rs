//! The partitions this replica owns: each a queue of jobs from its log, in order, and the cursor they move.

use std::collections::{BTreeMap, VecDeque};

use knarr_core::time::Timestamp;

use super::job::Job;
use crate::store::Cursor;

#[derive(Debug)]
pub(super) struct Partition {
    /// Which opening of its reader counts; what an earlier one delivers is dropped.
    pub(super) reader: u64,
    /// Read and not yet applied, in order.
    pub(super) queue: VecDeque<Job>,
    /// The last message applied, committed or not.
    pub(super) applied: Cursor,
    /// The last message committed.
    pub(super) committed: Cursor,
    /// The head of the queue waits until this batch has been sealed: it must not share a statement with what it follows.
    pub(super) blocked_in: Option<u64>,
    /// Timeouts due up to here may fire: the log has been read that far.
    pub(super) read_to: Timestamp,
    /// Timeouts wait until then, so that workers can hand in first.
    pub(super) grace_until: Timestamp,
    /// What of it is deferred is not known yet: nothing of it is performed before.
    pub(super) unknown_deferred: bool,
    /// Neither before its limiters are there.
    pub(super) unknown_permits: bool,
    /// It is being given away: nothing more of it is taken; released once this batch is committed.
    pub(super) leaving_after: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Partitions {
    owned: BTreeMap<i16, Partition>,
    readers: u64,
}

impl Partitions {
    pub(super) fn len(&self) -> usize {
        self.owned.len()
    }

    pub(super) fn get(&self, number: i16) -> Option<&Partition> {
        self.owned.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: i16) -> Option<&mut Partition> {
        self.owned.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i16, &Partition)> {
        self.owned.iter().map(|(number, partition)| (*number, partition))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (i16, &mut Partition)> {
        self.owned.iter_mut().map(|(number, partition)| (*number, partition))
    }

    /// Owned and not being given away.
    pub(super) fn serves(&self, number: i16) -> bool {
        self.owned
            .get(&number)
            .is_some_and(|partition| partition.leaving_after.is_none())
    }

    /// Served, and its limiters are there.
    pub(super) fn knows_permits(&self, number: i16) -> bool {
        self.serves(number)
            && self
                .owned
                .get(&number)
                .is_some_and(|partition| !partition.unknown_permits)
    }

    /// Takes a partition over from its committed cursor; answers the number of its new reader.
    pub(super) fn open(&mut self, number: i16, cursor: Cursor, grace_until: Timestamp) -> u64 {
        self.readers += 1;
        self.owned.insert(
            number,
            Partition {
                reader: self.readers,
                queue: VecDeque::new(),
                applied: cursor.clone(),
                committed: cursor,
                blocked_in: None,
                read_to: Timestamp(i64::MIN),
                grace_until,
                unknown_deferred: false,
                unknown_permits: false,
                leaving_after: None,
            },
        );
        self.readers
    }

    pub(super) fn newest_reader(&self) -> u64 {
        self.readers
    }

    pub(super) fn remove(&mut self, number: i16) {
        self.owned.remove(&number);
    }

    /// Forgets all; reader numbers go on, so that stragglers of old readers are recognised.
    pub(super) fn clear(&mut self) {
        self.owned.clear();
    }

    /// Those that are served, beginning with that number and going round.
    pub(super) fn served_from(&self, first: i16) -> Vec<i16> {
        let mut served = self.served();
        let at = served.partition_point(|number| *number < first);
        served.rotate_left(at);
        served
    }

    /// Those that are served, by number.
    pub(super) fn served(&self) -> Vec<i16> {
        self.owned
            .iter()
            .filter(|(_, p)| p.leaving_after.is_none())
            .map(|(number, _)| *number)
            .collect()
    }
}
