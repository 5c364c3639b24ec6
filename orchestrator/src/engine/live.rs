//! Runs in memory, and what is known of workflow ids: bounded, least recently used out, never one that an uncommitted
//! batch has touched.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use knarr_core::definition::plan::Plan;
use knarr_core::ids::{Namespace, RequestId, RunId, TaskNo, WorkflowId};
use knarr_core::run::{State, behind};
use knarr_core::time::Timestamp;
use uuid::Uuid;

use super::beats::Beat;
use super::outgoing::RunRef;
use super::repeats::{Question, Taken, Told, Took};
use super::warnings::Warned;
use crate::store::RunRow;

/// A run in memory.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) state: State,
    pub(super) plan: Arc<Plan>,
    /// What its messages say of it, made once.
    pub(super) reference: Arc<RunRef>,
    /// Its row as the last batch left it (or will).
    pub(super) row: RunRow,
    /// The last batch that touched it; it stays while that batch is not committed.
    pub(super) touched_in: u64,
    /// The batch in which it closed for the first time, if that was seen here.
    pub(super) closed_in: u64,
    /// The earliest deadline the heap knows of for it.
    pub(super) alarm: Option<Timestamp>,
    /// The last beats of open tasks, kept until somebody needs to know.
    pub(super) beats: Vec<Beat>,
    /// Limits that were warned of.
    pub(super) warned: Warned,
    /// Attempts whose spans have begun; empty where no spans are exported.
    pub(super) attempts: Vec<super::spans::Attempt>,
    /// An upper estimate of its memory, in bytes.
    weight: usize,
    used: u64,
}

/// Of one workflow id, whatever the look-ups do.
const MOST_RUNS_OF_ID: usize = 128;
/// Of a run beside what its events say.
const OF_A_RUN: usize = 2 << 10;
/// What is kept of workers whose runs had to leave the memory, in bytes.
const BEATS_LEFT_BEHIND: usize = 8 << 20;

impl Live {
    /// `loaded`: what it was read from weighs so much.
    pub(super) fn new(state: State, plan: Arc<Plan>, reference: Arc<RunRef>, row: RunRow, loaded: usize) -> Self {
        Self {
            state,
            plan,
            reference,
            row,
            touched_in: 0,
            closed_in: 0,
            alarm: None,
            beats: Vec::new(),
            warned: Warned::default(),
            attempts: Vec::new(),
            weight: OF_A_RUN + loaded,
            used: 0,
        }
    }

    /// It closed here in the batch before this one, for the first time.
    pub(super) fn closed_just_before(&self, batch: u64) -> bool {
        self.closed_in > 0 && self.closed_in + 1 == batch
    }

    /// Its earliest deadline, with what was heard of its workers since it was stored. Most of them beat without a timeout that
    /// depends on it.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        if self.beats.is_empty() {
            return self.state.wake_at();
        }
        let heard: OnceCell<HashMap<TaskNo, Timestamp>> = OnceCell::new();
        self.state.wake_if(|task| {
            let heard = heard.get_or_init(|| self.beats.iter().map(|beat| (beat.task(), beat.at())).collect());
            heard.get(&task).copied()
        })
    }
}

/// A workflow id within its namespace.
pub(super) type IdKey = (Namespace, WorkflowId);

/// What the last run under an id, or one started by a known request, looks like from outside.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) row: RunRow,
    /// The batch in which it closed, if that was seen here.
    pub(super) closed_in: u64,
    /// What it had taken by then of triggers; `None` = it is not known here.
    pub(super) took: Option<Took>,
}

/// Everything that decides about a start under an id.
#[derive(Debug, Default)]
pub(super) struct IdInfo {
    pub(super) runs: Vec<Known>,
    /// Of what may be repeats.
    pub(super) told: HashMap<Question, Told>,
    /// The last batch that changed it.
    pub(super) changed_in: u64,
    /// The look-up that made it whole. Until then it is what has happened here, of the run that it has happened to alone.
    whole_since: Option<u64>,
}

impl IdInfo {
    pub(super) fn open(&self) -> Option<&Known> {
        self.runs.iter().find(|known| known.row.has_id())
    }

    /// The one that had the id last.
    pub(super) fn newest_closed(&self) -> Option<&Known> {
        self.runs
            .iter()
            .filter(|known| known.row.closed_at.is_some())
            .max_by_key(|known| known.row.tenure())
    }

    /// Where none is open: the last one says whether it has taken what may be a repeat.
    pub(super) fn last_of_closed(&self) -> Option<RunId> {
        let closed = self.newest_closed().filter(|_| self.open().is_none());
        closed.map(|known| known.row.run_id)
    }

    /// Starts that wait for the id, the first one first.
    pub(super) fn queued(&self) -> impl Iterator<Item = RunId> {
        let queued = self.runs.iter().filter(|known| known.row.is_queued());
        let mut runs: Vec<RunId> = queued.map(|known| known.row.run_id).collect();
        runs.sort_unstable();
        runs.into_iter()
    }

    /// The greatest tenure that somebody has had, or has.
    fn last_tenure(&self) -> Option<Uuid> {
        let had = self.runs.iter().filter(|known| !known.row.is_queued());
        had.map(|known| known.row.tenure()).max()
    }

    /// Behind the id of every run there has been: in line, it is the last.
    pub(super) fn behind_all(&self, run: RunId) -> RunId {
        let greatest = self.runs.iter().map(|known| known.row.tenure().max(known.row.run_id.0));
        match greatest.max().filter(|greatest| run.0 <= *greatest) {
            Some(greatest) => behind(RunId(greatest), run),
            None => run,
        }
    }

    /// The open one, or the newest of the closed.
    pub(super) fn newest(&self) -> Option<&Known> {
        self.open().or_else(|| self.newest_closed())
    }

    /// Its newest run, if that has closed as continued as new or is tried again, and no successor is known.
    pub(super) fn continued(&self) -> Option<RunId> {
        let closed = self.newest_closed().filter(|_| self.open().is_none())?;
        let goes_on = closed.row.status == "continued_as_new" || closed.row.retried_by.is_some();
        goes_on.then_some(closed.row.run_id)
    }

    /// Its last run closes in this batch, in which no other may open.
    pub(super) fn closes_in(&self, batch: u64) -> bool {
        self.newest_closed().is_some_and(|closed| closed.closed_in == batch)
    }

    pub(super) fn by_request(&self, request: &RequestId) -> Option<&Known> {
        self.runs
            .iter()
            .find(|known| known.row.request_id.as_ref() == Some(request))
    }

    fn bytes(&self) -> usize {
        self.runs.iter().map(Known::bytes).sum()
    }

    /// Answers how many bytes more it has.
    fn put(&mut self, row: RunRow, took: Option<Took>, batch: u64) -> isize {
        self.changed_in = batch;
        let closed_in = if row.closed_at.is_some() { batch } else { 0 };
        let known = Known { row, closed_in, took };
        let bytes = known.bytes().cast_signed();
        match self.runs.iter_mut().find(|other| other.row.run_id == known.row.run_id) {
            Some(before) => bytes - std::mem::replace(before, known).bytes().cast_signed(),
            None => {
                self.runs.push(known);
                bytes
            }
        }
    }

    /// Forgets what is committed, where one id has had so many runs that every look at it takes long. The rest is not whole.
    fn thin(&mut self, committed: u64) {
        if self.runs.len() > MOST_RUNS_OF_ID {
            let is_needed = |known: &Known| known.row.closed_at.is_none() || known.closed_in > committed;
            self.runs.retain(is_needed);
            self.told.clear();
            self.whole_since = None;
        }
    }
}

impl Known {
    fn bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let ids = self.row.workflow_id.as_str().len() + self.row.workflow.as_str().len();
        size_of::<Self>()
            + ids
            + of(&self.row.outcome)
            + of(&self.row.search_attributes)
            + self.took.as_ref().map_or(0, Took::bytes)
    }
}

/// A run that had to leave the memory with a deadline ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evicted {
    pub(super) run_id: RunId,
    pub(super) partition: i16,
    pub(super) wake_at: Timestamp,
}

/// What was last heard of the workers of a run that had to leave the memory.
#[derive(Debug)]
struct LeftBehind {
    partition: i16,
    beats: Vec<Beat>,
    bytes: usize,
}

/// The runs and ids in memory.
#[derive(Debug, Default)]
pub(super) struct LiveRuns {
    runs: HashMap<RunId, Live>,
    /// What they weigh.
    bytes: usize,
    /// Ids that were looked up or changed and not yet forgotten. An entry wins over what a look-up says.
    ids: HashMap<IdKey, IdInfo>,
    id_bytes: usize,
    /// One of them has more runs than should be looked through again and again.
    crowded: bool,
    recency: VecDeque<(RunId, u64)>,
    tick: u64,
    /// Runs that were dropped since the look-up under way was asked: what it says of them may be old.
    left: Option<HashSet<RunId>>,
    /// Closed ones that were loaded for a job, which has been done.
    finished: Vec<RunId>,
    /// Of runs that are not there, until they are loaded again.
    beats: HashMap<RunId, LeftBehind>,
    beat_bytes: usize,
    /// There was no room for some.
    forgot_beats: bool,
}

impl LiveRuns {
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// What is known of a workflow id that has been looked up.
    pub(super) fn id(&self, key: &IdKey) -> Option<&IdInfo> {
        self.ids.get(key).filter(|info| info.whole_since.is_some())
    }

    /// The same, with what was asked in this look-up: of a request nothing is known by one from before the id was last forgotten.
    pub(super) fn id_asked_in(&self, key: &IdKey, look_up: Option<u64>) -> Option<&IdInfo> {
        self.ids
            .get(key)
            .filter(|info| info.whole_since.is_some_and(|since| look_up >= Some(since)))
    }

    /// Whether something is kept of a workflow id, though it be of one of its runs alone.
    pub(super) fn keeps_id(&self, key: &IdKey) -> bool {
        self.ids.contains_key(key)
    }

    /// Of a run that gets its workflow id, behind those that have had it and the one that it continues: what its row is to say
    /// where its run id does not.
    pub(super) fn tenure(&self, key: &IdKey, run: RunId, continues: Option<RunId>) -> Option<Uuid> {
        let before = self.ids.get(key).and_then(IdInfo::last_tenure);
        let continued = continues.and_then(|run| self.get(run)).map(|live| live.row.tenure());
        let last = before.max(continued).filter(|last| run.0 <= *last)?;
        Some(behind(RunId(last), run).0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A transition has added so much to a run.
    pub(super) fn grow(&mut self, id: RunId, by: usize) {
        if let Some(live) = self.runs.get_mut(&id) {
            live.weight += by;
            self.bytes += by;
        }
    }

    /// All of its state weighs so much: what transitions have added and taken away since it was last said.
    pub(super) fn weigh(&mut self, id: RunId, state: usize) {
        if let Some(live) = self.runs.get_mut(&id) {
            self.bytes -= live.weight;
            live.weight = OF_A_RUN + state;
            self.bytes += live.weight;
        }
    }

    pub(super) fn contains(&self, id: RunId) -> bool {
        self.runs.contains_key(&id)
    }

    pub(super) fn get(&self, id: RunId) -> Option<&Live> {
        self.runs.get(&id)
    }

    /// Marks it used.
    pub(super) fn get_mut(&mut self, id: RunId) -> Option<&mut Live> {
        self.tick += 1;
        let live = self.runs.get_mut(&id)?;
        live.used = self.tick;
        Some(live)
    }

    pub(super) fn insert(&mut self, id: RunId, mut live: Live) {
        self.tick += 1;
        live.used = self.tick;
        if let Some(left) = self.beats.remove(&id) {
            self.beat_bytes -= left.bytes;
            live.beats = left.beats;
        }
        self.recency.push_back((id, self.tick));
        self.bytes += live.weight;
        if let Some(before) = self.runs.insert(id, live) {
            self.bytes -= before.weight;
        }
    }

    /// A look-up begins.
    pub(super) fn watch_leaving(&mut self) {
        self.left = Some(HashSet::new());
    }

    /// It has returned.
    pub(super) fn stop_watching(&mut self) {
        self.left = None;
    }

    pub(super) fn has_left(&self, id: RunId) -> bool {
        self.left.as_ref().is_some_and(|left| left.contains(&id))
    }

    pub(super) fn remove(&mut self, id: RunId) -> Option<Live> {
        if let Some(left) = &mut self.left {
            left.insert(id);
        }
        let live = self.runs.remove(&id)?;
        self.bytes -= live.weight;
        Some(live)
    }

    /// Forgets everything: after a failed commit only the store is right.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the runs and ids of partitions that are given away.
    pub(super) fn forget_partition(&mut self, partition: i16) {
        let bytes = &mut self.bytes;
        self.runs.retain(|_, live| {
            let stays = live.row.partition != partition;
            if !stays {
                *bytes -= live.weight;
            }
            stays
        });
        self.ids
            .retain(|_, info| info.runs.iter().all(|known| known.row.partition != partition) && !info.runs.is_empty());
        let beat_bytes = &mut self.beat_bytes;
        self.beats.retain(|_, left| {
            let stays = left.partition != partition;
            if !stays {
                *beat_bytes -= left.bytes;
            }
            stays
        });
    }

    /// Forgets ids whose changes are all committed. Only while no look-up is under way: an answer that was read before
    /// a change must find the entry that knows better.
    pub(super) fn forget_ids(&mut self, committed: u64) {
        self.ids.retain(|_, info| info.changed_in > committed);
        self.ids.values_mut().for_each(|info| info.thin(committed));
        self.crowded = false;
        self.id_bytes = self.ids.values().map(IdInfo::bytes).sum();
    }

    /// Whether ids are to be forgotten, though nobody is about to ask about any.
    pub(super) fn knows_too_much(&self, bytes: usize) -> bool {
        self.crowded || self.id_bytes > bytes
    }

    /// What a batch says of a run from outside; of one that has closed, with what it had taken of triggers.
    pub(super) fn put_id(&mut self, key: IdKey, row: RunRow, batch: u64) {
        let live = self.runs.get(&row.run_id).filter(|_| row.closed_at.is_some());
        let took = live.and_then(|live| Took::by(&live.state));
        let info = self.ids.entry(key).or_default();
        self.id_bytes = self.id_bytes.saturating_add_signed(info.put(row, took, batch));
        self.crowded |= info.runs.len() > MOST_RUNS_OF_ID;
    }

    /// Takes in what a look-up found of an id. What happened here since it was asked is newer than what it read.
    pub(super) fn learn(&mut self, key: IdKey, rows: Vec<RunRow>, look_up: u64) {
        let info = self.ids.entry(key).or_default();
        info.whole_since.get_or_insert(look_up);
        for row in rows {
            if info.runs.iter().all(|known| known.row.run_id != row.run_id) {
                let row = self.runs.get(&row.run_id).map_or(row, |live| live.row.clone());
                let (closed_in, took) = (0, None);
                let known = Known { row, closed_in, took };
                self.id_bytes += known.bytes();
                info.runs.push(known);
            }
        }
    }

    /// Takes in what the store has told of what may be repeats, asked when these batches were committed.
    pub(super) fn learn_taken(&mut self, key: IdKey, answers: Vec<(Question, Taken)>, committed: u64) {
        let info = self.ids.entry(key).or_default();
        for (question, taken) in answers {
            info.tell(question, taken, committed);
        }
    }

    /// A job of a closed run is done: it is kept no longer than the batch, which may hold others of the same run.
    pub(super) fn finish(&mut self, id: RunId) {
        if self.runs.get(&id).is_some_and(|live| live.state.is_closed()) {
            self.finished.push(id);
        }
    }

    /// Drops closed runs that nothing is to be done to, and whose last batch is committed; answers which of them have
    /// messages pending.
    pub(super) fn drop_finished(&mut self, committed: u64) -> Vec<Evicted> {
        let mut left = Vec::new();
        for id in std::mem::take(&mut self.finished) {
            // One that this batch's successor has touched leaves with that.
            if self.runs.get(&id).is_some_and(|live| live.touched_in <= committed) {
                left.extend(self.evict(id));
            }
        }
        left
    }

    /// What was last heard of a task's worker, and the partition of its run, which may have left the memory.
    pub(super) fn beat(&self, id: RunId, task: TaskNo) -> Option<(i16, &Beat)> {
        let (partition, beats) = match self.runs.get(&id) {
            Some(live) => (live.row.partition, &live.beats),
            None => self.beats.get(&id).map(|left| (left.partition, &left.beats))?,
        };
        let beat = beats.iter().find(|beat| beat.task() == task)?;
        Some((partition, beat))
    }

    pub(super) fn beat_mut(&mut self, id: RunId, task: TaskNo) -> Option<&mut Beat> {
        let beats = match self.runs.get_mut(&id) {
            Some(live) => &mut live.beats,
            None => &mut self.beats.get_mut(&id)?.beats,
        };
        beats.iter_mut().find(|beat| beat.task() == task)
    }

    /// Whether beats have been forgotten since this was last asked.
    pub(super) fn forgot_beats(&mut self) -> bool {
        std::mem::take(&mut self.forgot_beats)
    }

    /// Silence would be counted from what is stored.
    fn leave_beats(&mut self, id: RunId, live: &mut Live) {
        let mut beats = std::mem::take(&mut live.beats);
        beats.retain(|beat| live.state.is_open(beat.task()));
        if beats.is_empty() {
            return;
        }
        let bytes = beats.iter().map(Beat::weight).sum();
        if self.beat_bytes.saturating_add(bytes) > BEATS_LEFT_BEHIND {
            self.forgot_beats = true;
            return;
        }
        self.beat_bytes += bytes;
        let partition = live.row.partition;
        self.beats.insert(
            id,
            LeftBehind {
                partition,
                beats,
                bytes,
            },
        );
    }

    fn evict(&mut self, id: RunId) -> Option<Evicted> {
        let mut live = self.remove(id)?;
        self.leave_beats(id, &mut live);
        // One that is overdue and waits at the gate is woken by that.
        let alarm = if live.state.is_closed() {
            live.state.wake_at()
        } else {
            live.alarm
        };
        Some(Evicted {
            run_id: id,
            partition: live.row.partition,
            wake_at: alarm?,
        })
    }

    /// Drops what was used least recently, above so many runs or bytes, among runs whose last batch is committed; answers
    /// which of them have a deadline. The others are bounded by what batches may hold.
    pub(super) fn shrink(&mut self, runs: usize, bytes: usize, committed: u64) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        // Once to see that it was used since, once to see that it was not used again.
        let mut looks = 2 * self.recency.len();
        while (self.runs.len() > runs || self.bytes > bytes) && looks > 0 {
            looks -= 1;
            let Some((id, tick)) = self.recency.pop_front() else {
                break;
            };
            match self.runs.get(&id) {
                None => {}
                Some(live) if live.used != tick || live.touched_in > committed => {
                    self.recency.push_back((id, live.used));
                }
                Some(_) => {
                    evicted.extend(self.evict(id));
                }
            }
        }
        // Entries of runs that are gone would pile up while the table stays below its limit.
        if self.recency.len() > 2 * self.runs.len() + 1_024 {
            let runs = &self.runs;
            self.recency.retain(|(id, _)| runs.contains_key(id));
        }
        evicted
    }
}
