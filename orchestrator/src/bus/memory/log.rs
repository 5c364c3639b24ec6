//! The log in memory: a stream with an identity, contiguous sequences and times that never go back.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use knarr_core::time::Timestamp;

use super::state::matches;
use crate::bus::Headers;
use crate::store::Cursor;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) partition: i16,
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
}

/// The log as it was at some moment.
#[derive(Debug, Clone)]
pub struct LogCopy(pub(super) Log);

#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) created: String,
    /// Sequence of the first entry, or of the next one when there is none.
    first: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Located {
    Continues,
    Gap { resumes_at: Cursor },
}

impl Log {
    pub(super) fn new(created: String) -> Self {
        Self {
            created,
            first: 1,
            entries: VecDeque::new(),
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Entry> {
        let offset = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.entries.get(offset)
    }

    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        self.last()
    }

    /// The partition's first entry after a sequence.
    pub(super) fn next_of(&self, partition: i16, after: u64) -> Option<(u64, &Entry)> {
        let start = (after + 1).max(self.first);
        let skip = usize::try_from(start - self.first).unwrap_or(usize::MAX);
        let mut entries = (start..).zip(self.entries.iter().skip(skip));
        entries.find(|(_, entry)| entry.partition == partition)
    }

    /// The first entry after a sequence whose subject matches.
    pub(super) fn next_matching(&self, filter: &str, after: u64) -> Option<(u64, &Entry)> {
        let start = (after + 1).max(self.first);
        let skip = usize::try_from(start - self.first).unwrap_or(usize::MAX);
        let mut entries = (start..).zip(self.entries.iter().skip(skip));
        entries.find(|(_, entry)| matches(filter, &entry.subject))
    }

    /// The sequence before the first entry of that time or later.
    pub(super) fn before(&self, at: Timestamp) -> u64 {
        let earlier = self.entries.partition_point(|entry| entry.at < at);
        self.first + earlier as u64 - 1
    }

    pub(super) fn last_of(&self, partition: i16) -> u64 {
        let last = self.entries.iter().rposition(|entry| entry.partition == partition);
        last.map_or(0, |offset| self.first + offset as u64)
    }

    pub(super) fn bytes(&self) -> u64 {
        let sizes = self
            .entries
            .iter()
            .map(|entry| entry.subject.len() + entry.payload.len());
        sizes.sum::<usize>() as u64
    }

    pub(super) fn bodies(&self, end: &str) -> Vec<Bytes> {
        let entries = self.entries.iter().filter(|entry| entry.subject.ends_with(end));
        entries.map(|entry| entry.payload.clone()).collect()
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.subject.as_str())
    }

    pub(super) fn ends(&self) -> BTreeMap<i16, u64> {
        let numbered = (self.first..).zip(&self.entries);
        numbered.map(|(sequence, entry)| (entry.partition, sequence)).collect()
    }

    /// Forgets what lies below `sequence`.
    pub(super) fn purge(&mut self, sequence: u64) {
        while self.first < sequence && self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }

    pub(super) fn cursor(&self, sequence: u64, otherwise: Timestamp) -> Cursor {
        Cursor {
            sequence,
            at: self.get(sequence).map_or(otherwise, |entry| entry.at),
            stream: self.created.clone(),
        }
    }

    /// Whether this is the log a cursor was made on; the same rules as over NATS.
    pub(super) fn locate(&self, cursor: &Cursor) -> Located {
        if cursor.sequence == 0 && (cursor.stream.is_empty() || cursor.stream == self.created) {
            return Located::Continues;
        }
        let resumes_at = if cursor.stream != self.created {
            self.cursor(0, Timestamp::default())
        } else if self.last() >= cursor.sequence && self.first > cursor.sequence + 1 {
            self.cursor(self.first - 1, cursor.at)
        } else if self.last() >= cursor.sequence && self.get(cursor.sequence).is_none_or(|entry| entry.at == cursor.at)
        {
            return Located::Continues;
        } else {
            let taken = self.entries.iter().take_while(|entry| entry.at <= cursor.at).count();
            self.cursor(self.first + taken as u64 - 1, cursor.at)
        };
        Located::Gap { resumes_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(times: &[i64]) -> Log {
        let mut log = Log::new("a".to_owned());
        for at in times {
            log.push(Entry {
                at: Timestamp(*at),
                partition: 0,
                subject: String::new(),
                headers: Headers::new(),
                payload: Bytes::new(),
            });
        }
        log
    }

    fn cursor(sequence: u64, at: i64, stream: &str) -> Cursor {
        Cursor {
            sequence,
            at: Timestamp(at),
            stream: stream.to_owned(),
        }
    }

    #[test]
    fn a_cursor_is_held_against_the_log() {
        let mut purged = log(&[10, 20, 30]);
        purged.purge(3);
        for (name, log, at, expected) in [
            ("none yet", log(&[10]), Cursor::default(), None),
            ("intact", log(&[10, 20]), cursor(2, 20, "a"), None),
            (
                "another stream",
                log(&[10, 20]),
                cursor(2, 20, "b"),
                Some(cursor(0, 0, "a")),
            ),
            ("shorter", log(&[10, 20]), cursor(3, 30, "a"), Some(cursor(2, 20, "a"))),
            ("emptied", log(&[]), cursor(3, 30, "a"), Some(cursor(0, 30, "a"))),
            (
                "regrown",
                log(&[10, 35, 40]),
                cursor(3, 30, "a"),
                Some(cursor(1, 10, "a")),
            ),
            ("purged to the cursor", purged.clone(), cursor(2, 20, "a"), None),
            ("purged beyond it", purged, cursor(1, 10, "a"), Some(cursor(2, 10, "a"))),
        ] {
            let expected = expected.map_or(Located::Continues, |resumes_at| Located::Gap { resumes_at });
            assert_eq!(log.locate(&at), expected, "{name}");
        }
    }
}
