//! What workers say while they work: beats, kept in memory until somebody needs to know; silence; claims; *later*.
//!
//! A worker of the SDK promises with each beat when the next one comes. One that has missed three is lost: core is told, and
//! the gate sees to it that the log has been read as far, for its result may lie there. Silence does not count from before
//! this replica could hear, and nobody is silent before the bus has answered a question that was asked after the last beat was
//! due: while it cannot be reached, no beat can be heard.
//!
//! **Invariant:** beats are no events by themselves. Core is handed the last of a task before an outcome that another attempt may
//! follow, and where it says that the task has begun; those of tasks at work go along with a wake-up, and move a deadline in
//! memory alone. Core records what decides something.
//! **Invariant:** the last beats of a run outlive its stay in memory; where too many were left behind to be kept, nobody counts
//! as silent from before that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use knarr_core::ids::{RunId, TaskNo};
use knarr_core::json;
use knarr_core::run::input::{self, Input, TaskOutcome, WorkerError};
use knarr_core::run::{Known, OpenTask, State};
use knarr_core::time::{Span, Timestamp};
use knarr_schemas::body::{BeatAnswer, ClaimAnswer};
use knarr_schemas::code;
use serde::Serialize;
use serde_json::Value;

use super::apply::Applied;
use super::job::{BeatSaid, Job, JobKind, Origin};
use super::live::Live;
use super::outgoing;
use super::result;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{Store, format};

/// So many beats may be missing.
const MISSED: u64 = 3;
/// A worker is not held to more than that.
const SHORTEST_BEAT: Span = Span::from_secs(1);
/// However long a worker wants to be silent, its task is looked at: it may have ended.
const LONGEST_LOOK: Span = Span::from_secs(60);
/// After a worker was not heard of while it is not known whether it could have been.
const ASK_AGAIN: Span = Span::from_secs(1);
/// Of a beat beside its details, in bytes.
const OF_A_BEAT: usize = 256;

/// The last that was heard of a task's worker.
#[derive(Debug)]
pub(super) struct Beat {
    task: TaskNo,
    began: Timestamp,
    at: Timestamp,
    /// When the next one comes, if one was promised.
    every: Option<Span>,
    details: Option<Arc<Value>>,
    /// It is looked at when it should have come.
    watched: bool,
}

impl Beat {
    fn first(task: TaskNo, began: Timestamp) -> Self {
        Self {
            task,
            began,
            at: began,
            every: None,
            details: None,
            watched: false,
        }
    }

    fn said(&self, detailed: bool) -> input::Beat {
        input::Beat {
            began: self.began,
            at: self.at,
            details: self.details.clone().filter(|_| detailed),
        }
    }

    pub(super) fn task(&self) -> TaskNo {
        self.task
    }

    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    /// An upper estimate of its memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        let details = self.details.as_ref();
        OF_A_BEAT + details.map_or(0, |details| json::weight(details.to_string().as_bytes()))
    }

    /// When the worker is taken for lost, if nobody could hear it before `since`.
    fn lost_at(&self, since: Timestamp) -> Option<Timestamp> {
        let every = self.every?.max(SHORTEST_BEAT);
        Some(self.at.max(since).plus(Span(every.0.saturating_mul(MISSED))))
    }
}

/// When to look whether a promised beat has come.
#[derive(Debug, Default)]
pub(super) struct Pulses {
    heap: BinaryHeap<Reverse<(Timestamp, RunId, TaskNo)>>,
    /// Beats that came before then may have been forgotten.
    forgot_at: Timestamp,
}

impl Pulses {
    fn put(&mut self, at: Timestamp, now: Timestamp, run: RunId, task: TaskNo) {
        let look = at.min(now.plus(LONGEST_LOOK));
        self.heap.push(Reverse((look, run, task)));
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<(RunId, TaskNo)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, run, task))| (run, task))
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }

    /// Beats have been forgotten.
    pub(super) fn forgot(&mut self, now: Timestamp) {
        self.forgot_at = now;
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn beat(&mut self, origin: &Origin, run_id: RunId, task: TaskNo, said: BeatSaid) {
        let now = self.clock.now();
        let answer = match self.live.get_mut(run_id) {
            None => BeatAnswer::Gone,
            Some(live) if !live.state.is_open(task) && live.state.is_abandoned(task) => BeatAnswer::Ok,
            Some(live) if !live.state.is_open(task) => BeatAnswer::Gone,
            Some(live) => {
                let state = &live.state;
                let known = live.beats.iter().position(|known| known.task == task);
                let mut beat = match known {
                    Some(place) => live.beats.swap_remove(place),
                    None => {
                        live.beats.retain(|known| state.is_open(known.task));
                        Beat::first(task, result::began(now, said.running))
                    }
                };
                beat.at = now;
                beat.every = said.every;
                beat.details = said.details.or(beat.details);
                if !beat.watched
                    && let Some(at) = beat.lost_at(now)
                {
                    beat.watched = true;
                    self.pulses.put(at, now, run_id, task);
                }
                live.beats.push(beat);
                if live.state.is_unwanted(task) {
                    BeatAnswer::Cancel
                } else {
                    BeatAnswer::Ok
                }
            }
        };
        self.answer_worker(origin, &answer);
    }

    /// A task is asked for, for good. While a replica cannot read that it was granted nothing is said, and the worker asks again.
    pub(super) fn claim(&mut self, origin: &Origin, run_id: RunId, task: TaskNo, by: Arc<str>) -> Applied {
        if !self.may_store(format::SECOND) {
            self.live.finish(run_id);
            return Applied::Nothing;
        }
        let input = Input::TaskClaimed {
            task,
            by: Arc::clone(&by),
        };
        let applied = self.apply(run_id, input);
        if !matches!(applied, Applied::Changed) {
            self.live.finish(run_id);
        }
        if matches!(applied, Applied::Panicked) {
            return applied;
        }
        let answer = self.live.get(run_id).map(|live| claim_answer(&live.state, task, &by));
        // While the run is parked nobody is told anything, and the worker asks again.
        if let Some(answer) = answer.unwrap_or(Some(ClaimAnswer::Gone)) {
            self.answer_worker(origin, &answer);
        }
        applied
    }

    /// With the commit that makes it true.
    pub(super) fn answer_worker(&mut self, origin: &Origin, answer: &impl Serialize) {
        if let Origin::Direct {
            confirm: Some(inbox), ..
        } = origin
        {
            let body = serde_json::to_vec(answer).unwrap_or_default();
            self.building.answer(outgoing::core(inbox.clone(), body));
        }
    }

    /// The last beats of workers that are known to be at work, and not known to be silent.
    pub(super) fn heard(&self, run_id: RunId) -> BTreeMap<TaskNo, input::Beat> {
        let detailed = self.may_store(format::SECOND);
        let Some(live) = self.live.get(run_id).filter(|live| !live.beats.is_empty()) else {
            return BTreeMap::new();
        };
        let of_task: HashMap<TaskNo, &Beat> = live.beats.iter().map(|beat| (beat.task, beat)).collect();
        let at_work = live.state.open_tasks().filter(|view| is_at_work(view.open));
        let heard = at_work.filter_map(|view| {
            let beat = of_task.get(&view.open.task)?;
            Some((view.open.task, beat.said(detailed)))
        });
        heard.collect()
    }

    /// Tells core of workers that have begun, or speak again.
    pub(super) fn hand_in_news(&mut self, run_id: RunId) -> Applied {
        let Some(live) = self.live.get(run_id).filter(|live| !live.beats.is_empty()) else {
            return Applied::Nothing;
        };
        let news = live.state.open_tasks().filter(|view| !is_at_work(view.open));
        let news: HashSet<TaskNo> = news.map(|view| view.open.task).collect();
        self.hand_in_beats(run_id, |task| news.contains(&task))
    }

    /// Tells core what was last heard of a task's worker.
    pub(super) fn hand_in_beat(&mut self, run_id: RunId, task: TaskNo) -> Applied {
        self.hand_in_beats(run_id, |of| of == task)
    }

    fn hand_in_beats(&mut self, run_id: RunId, which: impl Fn(TaskNo) -> bool) -> Applied {
        // Of workers an older replica knows that they have begun.
        let detailed = self.may_store(format::SECOND);
        let Some(live) = self.live.get_mut(run_id) else {
            return Applied::Nothing;
        };
        if live.beats.is_empty() {
            return Applied::Nothing;
        }
        let state = &live.state;
        live.beats.retain(|beat| state.is_open(beat.task));
        let beats = live.beats.iter().filter(|beat| which(beat.task));
        let beats = beats.map(|beat| Input::Heartbeat {
            task: beat.task,
            beat: beat.said(detailed),
        });
        for input in beats.collect::<Vec<_>>() {
            if matches!(self.apply(run_id, input), Applied::Panicked) {
                return Applied::Panicked;
            }
        }
        Applied::Nothing
    }

    /// The task's message is let go of; its worker promises nothing any more.
    pub(super) fn left(&mut self, run_id: RunId, task: TaskNo) -> Applied {
        if matches!(self.hand_in_beat(run_id, task), Applied::Panicked) {
            return Applied::Panicked;
        }
        if !self.may_store(format::SECOND) {
            return self.apply(
                run_id,
                Input::TaskEnded {
                    task,
                    outcome: unreadable(),
                },
            );
        }
        if let Some(live) = self.live.get_mut(run_id) {
            let of_task = live.beats.iter_mut().filter(|beat| beat.task == task);
            of_task.for_each(|beat| beat.every = None);
        }
        self.apply(run_id, Input::TaskLeft { task })
    }

    /// Looks whether promised beats have come.
    pub(super) fn listen(&mut self) {
        let now = self.clock.now();
        while let Some((run_id, task)) = self.pulses.pop_due(now) {
            let Some((partition, beat)) = self.live.beat(run_id, task) else {
                continue;
            };
            let lost_at = beat.lost_at(self.listening_since(partition));
            // One that is not in memory is loaded, to find out.
            let is_open = |live: &Live| live.state.is_open(task);
            let may_be_open = self.live.get(run_id).is_none_or(is_open);
            match lost_at {
                Some(at) if may_be_open && at > now => self.pulses.put(at, now, run_id, task),
                Some(_) if may_be_open => {
                    self.direct.push_back(Job::internal(JobKind::Silent { run_id, task }));
                }
                // It promises nothing any more. What was heard of it counts all the same.
                _ => self.watch_no_more(run_id, task),
            }
        }
    }

    fn watch_no_more(&mut self, run_id: RunId, task: TaskNo) {
        if let Some(beat) = self.live.beat_mut(run_id, task) {
            beat.watched = false;
        }
    }

    pub(super) fn silent(&mut self, run_id: RunId, task: TaskNo) -> Applied {
        // A beat may have come since, or the partition may have been away.
        let now = self.clock.now();
        let heard = self.live.get(run_id).and_then(|live| {
            let beat = live.beats.iter().find(|beat| beat.task == task)?;
            beat.lost_at(self.listening_since(live.row.partition))
        });
        match heard {
            Some(at) if at > now => {
                self.pulses.put(at, now, run_id, task);
                return Applied::Nothing;
            }
            None => {
                self.watch_no_more(run_id, task);
                return Applied::Nothing;
            }
            Some(at) if !self.could_hear(run_id, at) => {
                self.wait_at_gate(run_id, now);
                self.pulses.put(now.plus(ASK_AGAIN), now, run_id, task);
                return Applied::Nothing;
            }
            Some(_) => {}
        }
        if matches!(self.hand_in_beat(run_id, task), Applied::Panicked) {
            return Applied::Panicked;
        }
        self.forget_beat(run_id, task);
        if !self.may_store(format::SECOND) {
            // The server delivers its task again, later.
            return Applied::Nothing;
        }
        self.apply(run_id, Input::WorkerSilent { task })
    }

    /// Whether the bus could be reached at that time or since. Where it was away, beats count from its return.
    fn could_hear(&self, run_id: RunId, at: Timestamp) -> bool {
        let live = self.live.get(run_id);
        let partition = live.and_then(|live| self.partitions.get(live.row.partition));
        partition.is_some_and(|partition| partition.read_to >= at)
    }

    fn forget_beat(&mut self, run_id: RunId, task: TaskNo) {
        if let Some(live) = self.live.get_mut(run_id) {
            live.beats.retain(|beat| beat.task != task);
        }
    }

    /// Since when every beat of a partition has been heard, if there was any.
    pub(super) fn listening_since(&self, partition: i16) -> Timestamp {
        let partition = self.partitions.get(partition);
        let grace = i64::try_from(self.config.timeout_grace.0).unwrap_or(i64::MAX);
        let since = partition.map(|partition| Timestamp(partition.grace_until.0.saturating_sub(grace)));
        since.map_or(Timestamp::MAX, |since| since.max(self.pulses.forgot_at))
    }
}

fn is_at_work(open: &OpenTask) -> bool {
    open.known == Known::Started && open.silent_at.is_none()
}

/// *later*, as a replica that does not know the word counts it.
fn unreadable() -> TaskOutcome {
    TaskOutcome::Unknown(WorkerError {
        error_type: Arc::from("bad_result"),
        message: Arc::from(code::OLDER_REPLICAS.cause),
        retryable: true,
        not_done: false,
        retry_after: None,
    })
}

/// `None` while nothing can be said.
fn claim_answer(state: &State, task: TaskNo, by: &Arc<str>) -> Option<ClaimAnswer> {
    if !state.is_open(task) {
        return Some(ClaimAnswer::Gone);
    }
    match state.claimed_by(task) {
        Some(holder) if holder == by => Some(ClaimAnswer::Granted),
        Some(_) => Some(ClaimAnswer::Taken),
        None if state.is_unwanted(task) => Some(ClaimAnswer::Cancel),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the tasks of a worker that promises a beat a year would be kept for as long, though they have ended.
    #[test]
    fn a_promise_is_looked_at_within_a_minute() {
        let mut pulses = Pulses::default();
        let (run, now) = (RunId(uuid::Uuid::from_u128(1)), Timestamp(5));
        for (promised, looked_at) in [(Span::from_secs(15), 15), (Span(u64::MAX), 60)] {
            pulses.put(now.plus(promised), now, run, TaskNo(1));
            let due = now.plus(Span::from_secs(looked_at));
            assert_eq!(pulses.next(), Some(due), "{promised:?}");
            assert_eq!(pulses.pop_due(Timestamp(due.0 - 1)), None);
            assert_eq!(pulses.pop_due(due), Some((run, TaskNo(1))));
        }
    }
}
