//! Runs that are held back, and what is known of the inputs that wait for them; see [`super::deferral`].

use std::collections::{HashMap, VecDeque};

use knarr_core::ids::{Namespace, RunId, WorkflowId};
use knarr_schemas::subject::{LogSubject, parse_log_subject};
use tokio::time::Instant;

use super::job::{Job, JobKind};
use super::live::IdKey;

/// Bytes of what has been read back and is not applied, beside the page that was read last.
const MOST_READ_BACK: usize = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Deferral {
    pub(super) runs: HashMap<RunId, HeldBack>,
    /// Workflow ids with something deferred, and for which run.
    pub(super) ids: HashMap<IdKey, RunId>,
    /// The number given out last, by partition.
    pub(super) numbers: HashMap<i16, i64>,
    /// The run that is being loaded: one at a time, for each may be as large as all others together.
    pub(super) loading: Option<(RunId, u64)>,
    pub(super) loads: u64,
    pub(super) not_before: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct HeldBack {
    pub(super) partition: i16,
    /// Deferred and not yet applied.
    pub(super) inputs: usize,
    /// The batch that deferred the last of them.
    pub(super) deferred_in: u64,
    /// Read back, to be applied now.
    pub(super) queue: VecDeque<Job>,
    /// The number of the last that was read back.
    pub(super) read_to: i64,
    pub(super) reading: bool,
    /// The look-up that it was too slow for, which brings it all the same.
    pub(super) look_up: Option<u64>,
}

impl Deferral {
    pub(super) fn holds(&self, run: RunId) -> bool {
        !self.runs.is_empty() && self.runs.contains_key(&run)
    }

    /// Whether more may be read back: one page at a time, and none while much of earlier ones waits to be applied.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.runs.values().flat_map(|held| &held.queue);
        let bytes = waiting
            .filter_map(|job| job.origin.message())
            .map(|message| message.payload.len());
        self.runs.values().all(|held| !held.reading) && bytes.sum::<usize>() < MOST_READ_BACK
    }

    /// `look_up` is the one that will bring it; otherwise it is loaded by itself.
    pub(super) fn hold(&mut self, run: RunId, partition: i16, look_up: Option<u64>) {
        self.runs.entry(run).or_insert(HeldBack {
            partition,
            inputs: 0,
            deferred_in: 0,
            queue: VecDeque::new(),
            read_to: 0,
            reading: false,
            look_up,
        });
    }

    /// It is in memory: an answer that is still to come was read before what happens to it from here on.
    pub(super) fn arrived(&mut self, run: RunId) {
        self.loading = self.loading.filter(|(loading, _)| *loading != run);
    }

    /// The next moment at which something may be tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.runs.is_empty())
    }

    pub(super) fn forget_partition(&mut self, partition: i16) {
        self.runs.retain(|_, held| held.partition != partition);
        let runs = &self.runs;
        self.ids.retain(|_, run| runs.contains_key(run));
        self.numbers.remove(&partition);
        self.loading = self.loading.filter(|(run, _)| runs.contains_key(run));
    }

    /// Notes an input that is in the store, or in the batch that is being built.
    pub(super) fn add(&mut self, run: RunId, partition: i16, subject: &str, batch: u64) {
        self.hold(run, partition, None);
        if let Some(held) = self.runs.get_mut(&run) {
            held.inputs += 1;
            held.deferred_in = batch;
        }
        if let Some(key) = key_of(subject) {
            self.ids.insert(key, run);
        }
    }

    pub(super) fn next_number(&mut self, partition: i16) -> i64 {
        let number = self.numbers.entry(partition).or_default();
        *number += 1;
        *number
    }

    pub(super) fn release(&mut self, run: RunId) {
        self.runs.remove(&run);
        self.ids.retain(|_, held| *held != run);
        self.arrived(run);
    }

    /// What was read back and is to be applied.
    pub(super) fn read_back_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.runs.values_mut().flat_map(|held| held.queue.iter_mut())
    }

    pub(super) fn of_job(&self, job: &Job) -> Option<RunId> {
        if self.runs.is_empty() {
            return None;
        }
        match &job.kind {
            JobKind::Result { run_id, .. } | JobKind::Answered { run_id, .. } if self.runs.contains_key(run_id) => {
                return Some(*run_id);
            }
            // A refusal asks nothing of a run.
            JobKind::Gap { .. } | JobKind::Refused(_) => return None,
            _ => {}
        }
        let key = job.origin.message().and_then(|message| key_of(&message.subject))?;
        self.ids.get(&key).copied()
    }
}

fn key_of(subject: &str) -> Option<IdKey> {
    match parse_log_subject(subject).ok()? {
        LogSubject::Run(run) => Some((Namespace::new(&run.namespace), WorkflowId::new(&run.workflow_id))),
        LogSubject::UnkeyedStart { .. } => None,
    }
}
