//! A batch under construction: what one commit will make durable, and what may leave the replica once it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use knarr_core::ids::RunId;
use knarr_core::time::Timestamp;

use super::live::LiveRuns;
use super::outgoing::Publication;
use super::poison::PoisonKey;
use crate::bus::Outgoing;
use crate::store::{
    Append, Batch, CommitId, Cursor, CursorWrite, DeferredId, DeferredInput, Forgotten, Owed, OwedSpan, PermitId,
    PermitWrite, RunWrite, Snapshot,
};
use crate::telemetry::span::Ended;

/// Word to a worker that waits for its result to be durable.
#[derive(Debug)]
pub(super) struct Confirm {
    pub(super) inbox: String,
    pub(super) token: String,
    pub(super) refused: Option<knarr_schemas::body::ErrorBody>,
}

impl Confirm {
    /// Of what is said to its worker. A token that is none of ours is as long as its sender likes.
    pub(super) fn bytes(&self) -> usize {
        let refused = self.refused.as_ref();
        self.token.len() + refused.map_or(0, |error| error.message.len() + error.remedy.len())
    }
}

#[derive(Debug)]
struct Touched {
    partition: i16,
    insert: bool,
    row_changed: bool,
    /// It goes by another version of its definition.
    migrated: bool,
    /// Transitions with effects.
    owed: Option<(i32, i32)>,
}

#[derive(Debug)]
pub(super) struct BatchBuilder {
    /// Counts batches of this engine's life from 1, whether they are committed or dropped.
    pub(super) number: u64,
    /// No transition of it is older.
    pub(super) began: Timestamp,
    pub(super) inputs: usize,
    pub(super) bytes: usize,
    appends: Vec<Append>,
    touched: HashMap<RunId, Touched>,
    cursors: BTreeMap<i16, Cursor>,
    snapshots: HashMap<RunId, Snapshot>,
    publications: Vec<Publication>,
    confirms: Vec<Confirm>,
    /// Answers that are not a run's effect (refusals, repeats): to whoever listens, after the commit.
    answers: Vec<Outgoing>,
    /// Dead letters and forwarded starts: stored with the commit until they are published.
    messages: Vec<Outgoing>,
    published: Vec<CommitId>,
    deferred: Vec<DeferredInput>,
    settled: Vec<DeferredId>,
    forgotten: Vec<Forgotten>,
    /// As the rows are to stand.
    permits: BTreeMap<PermitId, Option<String>>,
    /// Of what has ended, where spans are exported.
    spans: Vec<Ended>,
    /// Inputs that were set aside.
    pub(super) set_aside: Vec<PoisonKey>,
}

/// A closed batch, on its way to the store.
#[derive(Debug)]
pub(super) struct SealedBatch {
    pub(super) number: u64,
    pub(super) began: Timestamp,
    pub(super) inputs: usize,
    pub(super) batch: Arc<Batch>,
    pub(super) runs: Vec<RunId>,
    pub(super) outbound: Outbound,
    pub(super) set_aside: Vec<PoisonKey>,
}

/// What a committed batch lets out, in this order.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pub(super) confirms: Vec<Confirm>,
    pub(super) answers: Vec<Outgoing>,
    pub(super) messages: Vec<Outgoing>,
    pub(super) publications: Vec<Publication>,
    pub(super) spans: Vec<Ended>,
    /// What the batch weighed, and with it these.
    pub(super) bytes: usize,
}

impl SealedBatch {
    /// Whether something of the partition is in it.
    pub(super) fn touches(&self, partition: i16) -> bool {
        self.batch.partitions.contains(&partition)
            || self.batch.cursors.iter().any(|write| write.partition == partition)
    }
}

impl BatchBuilder {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            began: Timestamp(i64::MIN),
            inputs: 0,
            bytes: 0,
            appends: Vec::new(),
            touched: HashMap::new(),
            cursors: BTreeMap::new(),
            snapshots: HashMap::new(),
            publications: Vec::new(),
            confirms: Vec::new(),
            answers: Vec::new(),
            messages: Vec::new(),
            published: Vec::new(),
            deferred: Vec::new(),
            settled: Vec::new(),
            forgotten: Vec::new(),
            permits: BTreeMap::new(),
            spans: Vec::new(),
            set_aside: Vec::new(),
        }
    }

    /// Whether there is something to make durable.
    pub(super) fn needs_commit(&self) -> bool {
        !self.touched.is_empty()
            || !self.cursors.is_empty()
            || !self.messages.is_empty()
            || !self.published.is_empty()
            || !self.settled.is_empty()
            || !self.permits.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.needs_commit() && self.confirms.is_empty() && self.answers.is_empty()
    }

    /// Whether something of the partition is in it.
    pub(super) fn touches(&self, partition: i16) -> bool {
        self.touched.values().any(|touched| touched.partition == partition)
            || self.cursors.contains_key(&partition)
            || self.settled.iter().any(|id| id.partition == partition)
            || self.permits.keys().any(|id| id.partition == partition)
    }

    /// `owes` says whether the transition has effects, which stand in `publications`.
    pub(super) fn append(&mut self, partition: i16, append: Append, owes: bool) {
        self.bytes += append.transition.body.len();
        let touched = self.touch(append.run_id, partition);
        if owes {
            let seq = append.transition.seq;
            touched.owed = Some(touched.owed.map_or((seq, seq), |(first, _)| (first, seq)));
        }
        self.appends.push(append);
    }

    /// Where effects of applied transitions go.
    pub(super) fn publications(&mut self) -> &mut Vec<Publication> {
        &mut self.publications
    }

    /// Those from there on have just been composed: events, messages and answers count as they stand; what a task is made
    /// of is in its run's events, which are counted.
    pub(super) fn count_publications(&mut self, from: usize) {
        let new = self.publications.get(from..).unwrap_or_default();
        self.bytes += new.iter().map(Publication::bytes).sum::<usize>();
    }

    pub(super) fn spans(&mut self) -> &mut Vec<Ended> {
        &mut self.spans
    }

    pub(super) fn row_changed(&mut self, run_id: RunId, partition: i16) {
        self.touch(run_id, partition).row_changed = true;
    }

    pub(super) fn migrated(&mut self, run_id: RunId, partition: i16) {
        self.touch(run_id, partition).migrated = true;
    }

    pub(super) fn inserted(&mut self, run_id: RunId, partition: i16) {
        self.touch(run_id, partition).insert = true;
    }

    fn touch(&mut self, run_id: RunId, partition: i16) -> &mut Touched {
        self.touched.entry(run_id).or_insert(Touched {
            partition,
            insert: false,
            row_changed: false,
            migrated: false,
            owed: None,
        })
    }

    pub(super) fn snapshot(&mut self, snapshot: Snapshot) {
        self.bytes += snapshot.body.len();
        self.snapshots.insert(snapshot.run_id, snapshot);
    }

    /// What the snapshot of a schedule has taken in.
    pub(super) fn forget(&mut self, forgotten: Forgotten) {
        self.forgotten.push(forgotten);
    }

    pub(super) fn cursor(&mut self, partition: i16, cursor: Cursor) {
        self.cursors.insert(partition, cursor);
    }

    /// The input waits for its run; its cursor has to be moved as well.
    pub(super) fn defer(&mut self, input: DeferredInput) {
        self.bytes += input.body.len();
        self.deferred.push(input);
    }

    /// A deferred input has taken effect, or has been refused.
    pub(super) fn settle(&mut self, id: DeferredId) {
        self.settled.push(id);
    }

    /// A row of a limiter; what is said last counts.
    pub(super) fn permit(&mut self, write: PermitWrite) {
        self.bytes += write.body.as_ref().map_or(0, String::len);
        self.permits.insert(write.id, write.body);
    }

    pub(super) fn confirm(&mut self, confirm: Confirm) {
        self.bytes += confirm.bytes();
        self.confirms.push(confirm);
    }

    pub(super) fn answer(&mut self, answer: Outgoing) {
        self.bytes += answer.payload.len();
        self.answers.push(answer);
    }

    pub(super) fn message(&mut self, message: Outgoing) {
        self.bytes += message.payload.len();
        self.messages.push(message);
    }

    pub(super) fn published(&mut self, commits: impl IntoIterator<Item = CommitId>) {
        self.published.extend(commits);
    }

    /// Closes the batch: rows are read from the runs as they stand now.
    pub(super) fn seal(self, live: &LiveRuns) -> SealedBatch {
        let mut runs = Vec::new();
        let mut spans = Vec::new();
        let mut partitions: BTreeSet<i16> = self.settled.iter().map(|id| id.partition).collect();
        partitions.extend(self.permits.keys().map(|id| id.partition));
        for (run_id, touched) in &self.touched {
            partitions.insert(touched.partition);
            if let Some((first_seq, last_seq)) = touched.owed {
                spans.push(OwedSpan {
                    run_id: *run_id,
                    first_seq,
                    last_seq,
                });
            }
            if let Some(live) = live.get(*run_id) {
                if touched.insert {
                    runs.push(RunWrite::Insert(live.row.clone()));
                } else if touched.migrated {
                    runs.push(RunWrite::Migrate(live.row.clone()));
                } else if touched.row_changed {
                    runs.push(RunWrite::Update(live.row.clone()));
                }
            }
        }
        // Rows in the order of their keys: neighbours in the index, and one lock order for every batch.
        runs.sort_unstable_by_key(|write| write.row().run_id);
        let owed = Owed {
            spans,
            messages: super::outgoing::encode(&self.messages),
        };
        SealedBatch {
            number: self.number,
            began: self.began,
            inputs: self.inputs,
            runs: self.touched.into_keys().collect(),
            set_aside: self.set_aside,
            batch: Arc::new(Batch {
                partitions: partitions.into_iter().collect(),
                appends: self.appends,
                runs,
                cursors: self
                    .cursors
                    .into_iter()
                    .map(|(partition, cursor)| CursorWrite { partition, cursor })
                    .collect(),
                snapshots: self.snapshots.into_values().collect(),
                owed,
                published: self.published,
                deferred: self.deferred,
                settled: self.settled,
                forgotten: self.forgotten,
                permits: self
                    .permits
                    .into_iter()
                    .map(|(id, body)| PermitWrite { id, body })
                    .collect(),
            }),
            outbound: Outbound {
                confirms: self.confirms,
                answers: self.answers,
                messages: self.messages,
                publications: self.publications,
                spans: self.spans,
                bytes: self.bytes,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_are_told_counts() {
        let mut batch = BatchBuilder::new(1);
        batch.confirm(Confirm {
            inbox: "_INBOX.a".to_owned(),
            token: "t".repeat(1_000),
            refused: None,
        });
        assert_eq!(batch.bytes, 1_000);
    }
}
