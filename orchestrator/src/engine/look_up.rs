//! What jobs lack, asked of the store beside the loop, and what becomes of the answers.

use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::RunId;
use knarr_core::run::message::Body;
use knarr_schemas::code;

use super::fetch::{self, Budget, Fetched, Loaded};
use super::in_line::lacked_in_line;
use super::job::{Job, JobKind, Verb};
use super::live::{IdInfo, IdKey, Live};
use super::message::receiver_of;
use super::outgoing::RunRef;
use super::places::GrantedPlace;
use super::refusal::Refusal;
use super::repeats::Question;
use super::report::Done;
use super::run_loop::Loop;
use super::spans;
use super::unaskable::Unaskable;
use super::warnings::Warned;
use crate::bus::Bus;
use crate::store::{Store, StoreError};

/// Why a run that was looked up is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It does not exist.
    Missing,
    /// It exists, and its history cannot be read.
    Unreadable,
    /// Its partition is not served here.
    Elsewhere,
}

/// Runs known not to be there; beyond that they are asked about again.
const MOST_ABSENT: usize = 10_000;

impl<S: Store, B: Bus> Loop<S, B> {
    /// Everything that the jobs of a queue will ask for, in one look-up.
    pub(super) fn want_queue(&mut self, partition: i16) {
        let Some(owned) = self.partitions.get_mut(partition) else {
            return;
        };
        let mut queue = std::mem::take(&mut owned.queue);
        for job in &mut queue {
            self.note_wants(job);
        }
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.queue = queue;
        }
    }

    /// Notes what a job lacks, unless a look-up that was asked for it has yet to return. What is known of an id may be forgotten
    /// while its run is loaded, and the other way round: a job that needs both asks for both whenever it lacks one.
    pub(super) fn note_wants(&mut self, job: &mut Job) {
        let done = self.fetches_done;
        if job.asked_in.max(job.asked_run).is_some_and(|fetch| fetch > done) {
            return;
        }
        let next = Some(self.fetches + 1);
        let (live, deferral, wanted) = (&self.live, &self.deferral, &mut self.wanted);
        // An id's open run, or that nothing is known of the id.
        let open_run = |key: &IdKey| {
            live.id(key).map(|info| {
                info.open()
                    .map(|open| open.row.run_id)
                    .filter(|run| !live.contains(*run))
            })
        };
        if let JobKind::Verb(verb) = &job.kind
            && let Verb::Migrate { workflow, version } = &verb.verb
            && job.asked_in.is_none_or(|fetch| fetch > done)
            && self
                .definitions
                .resolve(&verb.namespace, workflow, Some(*version))
                .is_none()
        {
            wanted.version(&verb.namespace, workflow, *version);
            job.asked_in = next;
        }
        if let JobKind::Schedule(schedule) = &job.kind
            && let Some((workflow, version)) = schedule.command.starts()
            && job.asked_in.is_none_or(|fetch| fetch > done)
            && self
                .definitions
                .resolve(&schedule.namespace, workflow, version)
                .is_none()
        {
            wanted.definitions();
            if let Some(version) = version {
                wanted.version(&schedule.namespace, workflow, version);
            }
            job.asked_in = next;
        }
        match &job.kind {
            JobKind::Start(start) => {
                let key: IdKey = (start.namespace.clone(), start.workflow_id.clone());
                let asked_in = job.asked_in.filter(|fetch| *fetch <= done);
                match open_run(&key).filter(|_| live.id_asked_in(&key, asked_in).is_some()) {
                    Some(open) => {
                        if let Some(run) = open.filter(|run| !deferral.holds(*run)) {
                            wanted.id(&key, Some(&start.request_id));
                            wanted.run(run);
                            (job.asked_in, job.asked_run) = (next, next);
                        }
                    }
                    None => {
                        wanted.id(&key, Some(&start.request_id));
                        job.asked_in = next;
                    }
                }
                if let Some(version) = start.version
                    && self
                        .definitions
                        .resolve(&start.namespace, &start.workflow, Some(version))
                        .is_none()
                {
                    wanted.version(&start.namespace, &start.workflow, version);
                    wanted.id(&key, Some(&start.request_id));
                    job.asked_in = next;
                }
            }
            JobKind::UnkeyedStart(start) => {
                wanted.definitions();
                if let Some(version) = start.version {
                    wanted.version(&start.namespace, &start.workflow, version);
                }
                job.asked_in = next;
            }
            JobKind::Verb(verb) if verb.run.is_some() => {
                if let Some(run) = verb.run
                    && !live.contains(run)
                    && !self.absent.contains_key(&run)
                    && !deferral.holds(run)
                {
                    wanted.run(run);
                    job.asked_run = next;
                }
            }
            JobKind::Verb(verb) => {
                let key: IdKey = (verb.namespace.clone(), verb.workflow_id.clone());
                match open_run(&key) {
                    None => {
                        wanted.open_run(&key);
                        (job.asked_in, job.asked_run) = (next, next);
                    }
                    Some(Some(run)) if deferral.holds(run) => {}
                    Some(Some(run)) => {
                        wanted.open_run(&key);
                        wanted.run(run);
                        (job.asked_in, job.asked_run) = (next, next);
                    }
                    Some(None) => {
                        if let Some(run) = live.id(&key).and_then(IdInfo::last_of_closed)
                            && !live.contains(run)
                            && !self.absent.contains_key(&run)
                            && !deferral.holds(run)
                        {
                            wanted.open_run(&key);
                            wanted.run(run);
                            (job.asked_in, job.asked_run) = (next, next);
                        }
                    }
                }
            }
            JobKind::Signal(signal) => {
                let key: IdKey = (signal.namespace.clone(), signal.workflow_id.clone());
                let lacks = |run: &RunId| !live.contains(*run) && !self.absent.contains_key(run);
                // Like a start it is asked about by its request, whatever is known of the id.
                let info = match &signal.start {
                    Some(_) => live.id_asked_in(&key, job.asked_in.filter(|fetch| *fetch <= done)),
                    None => live.id(&key),
                };
                let lacked = info.and_then(|info| {
                    let open = info.open().map(|open| open.row.run_id);
                    open.or_else(|| info.last_of_closed()).filter(lacks)
                });
                let held_back = lacked.is_some_and(|run| deferral.holds(run));
                if info.is_none() || lacked.is_some() && !held_back {
                    wanted.open_run(&key);
                    if let Some(start) = &signal.start {
                        wanted.id(&key, Some(&start.request_id));
                    }
                    lacked.into_iter().for_each(|run| wanted.run(run));
                    (job.asked_in, job.asked_run) = (next, next);
                }
            }
            JobKind::Schedule(schedule) => {
                let key: IdKey = (schedule.namespace.clone(), schedule.workflow_id.clone());
                match open_run(&key) {
                    Some(Some(run)) if deferral.holds(run) => {}
                    Some(Some(run)) => {
                        wanted.open_run(&key);
                        wanted.run(run);
                        wanted.id(&key, Some(&schedule.request_id));
                        (job.asked_in, job.asked_run) = (next, next);
                    }
                    Some(None) if live.id(&key).is_some_and(|info| info.open().is_some()) => {}
                    _ => {
                        wanted.open_run(&key);
                        wanted.id(&key, Some(&schedule.request_id));
                        (job.asked_in, job.asked_run) = (next, next);
                    }
                }
            }
            JobKind::Message(message) => {
                let key = message.key();
                if let Some(run) = receiver_of(live, message)
                    && !live.contains(run)
                    && !self.absent.contains_key(&run)
                    && !deferral.holds(run)
                {
                    wanted.run(run);
                    job.asked_run = next;
                }
                // One that has gone on often is found by the last that it has gone on as.
                let newest = live
                    .id(&key)
                    .filter(|_| job.asked_run == next && message.to_run.is_some());
                if let Some(newest) = newest.and_then(IdInfo::newest).map(|known| known.row.run_id)
                    && !live.contains(newest)
                    && !self.absent.contains_key(&newest)
                    && !deferral.holds(newest)
                {
                    wanted.run(newest);
                }
                // Whoever has the id is asked first.
                let repeat = Question::of(message).filter(|_| job.asked_run != next);
                let repeat = repeat.filter(|_| {
                    let info = live.id(&key);
                    info.is_some_and(|info| info.has_taken(live, message).is_none())
                });
                repeat.into_iter().for_each(|question| wanted.repeat(&key, question));
                let looked_up = job.asked_in.is_some_and(|fetch| fetch <= done);
                if !looked_up || live.id(&key).is_none() || repeat.is_some() || job.asked_run == next {
                    wanted.id(&key, None);
                    if let Body::StartChild(start) = &message.body
                        && let Some(version) = start.version
                    {
                        wanted.version(&message.namespace, &start.workflow, version);
                    }
                    job.asked_in = next;
                }
            }
            JobKind::NextInLine(key) => {
                let looked_up = job.asked_in.is_some_and(|fetch| fetch <= done);
                let lacked = lacked_in_line(live, &self.absent, key).filter(|run| !deferral.holds(*run));
                if !looked_up || live.id(key).is_none() || lacked.is_some() {
                    wanted.first_in_line(key);
                    lacked.into_iter().for_each(|run| wanted.run(run));
                    (job.asked_in, job.asked_run) = (next, next);
                }
            }
            JobKind::Continue { run_id, .. } => {
                let successor = live.get(*run_id).and_then(|closed| closed.state.successor());
                let lacked = successor.map_or(*run_id, |successor| successor.run_id);
                if !live.contains(lacked) && !self.absent.contains_key(&lacked) && !deferral.holds(lacked) {
                    wanted.run(lacked);
                    job.asked_run = next;
                }
                let closed = live.get(*run_id).map(|closed| &closed.row);
                let key = closed.map(|row| (row.namespace.clone(), row.workflow_id.clone()));
                if let Some(key) = key.filter(|key| live.id(key).is_none() || job.asked_run == next) {
                    wanted.id(&key, None);
                    job.asked_in = next;
                }
            }
            // Nobody is there who asked for a place: whoever has the id may have it.
            JobKind::Answered { run_id, .. }
                if self.absent.get(run_id) == Some(&Absent::Missing) && GrantedPlace::of(job).is_some() =>
            {
                let Some(key) = GrantedPlace::of(job).map(|place| place.key()) else {
                    return;
                };
                match open_run(&key) {
                    None => {
                        wanted.open_run(&key);
                        (job.asked_in, job.asked_run) = (next, next);
                    }
                    Some(Some(run)) if !self.absent.contains_key(&run) && !deferral.holds(run) => {
                        wanted.run(run);
                        job.asked_run = next;
                    }
                    Some(_) => {}
                }
            }
            JobKind::Answered { run_id, .. }
            | JobKind::Result { run_id, .. }
            | JobKind::Beat { run_id, .. }
            | JobKind::Claim { run_id, .. }
            | JobKind::Silent { run_id, .. }
            | JobKind::Withdrawn { run_id, .. }
            | JobKind::Wake { run_id }
            | JobKind::Read { run_id, .. }
            | JobKind::TaskLost { run_id, .. }
            | JobKind::Held { run_id, .. }
            | JobKind::Unpublishable { run_id, .. } => {
                // What is held back is loaded by itself.
                if !live.contains(*run_id) && !deferral.holds(*run_id) {
                    wanted.run(*run_id);
                    job.asked_run = next;
                }
            }
            JobKind::Gap { .. } | JobKind::Refused(_) | JobKind::Limit(_) | JobKind::LimiterWake(_) => {}
        }
    }

    /// Looks up what is wanted, beside the loop; one look-up at a time, so that an answer is never older than a change.
    pub(super) fn look_up(&mut self) {
        let now = tokio::time::Instant::now();
        if self.fetching.is_some() || self.wanted.is_empty() || self.fetch_after.is_some_and(|at| at > now) {
            return;
        }
        self.fetch_after = None;
        self.live.forget_ids(self.committed);
        self.fetches += 1;
        let number = self.fetches;
        self.fetching = Some(number);
        self.fetch_readers = self.partitions.newest_reader();
        self.fetch_committed = self.committed;
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.forget_runs(|run_id| self.live.contains(run_id));
        self.live.watch_leaving();
        let (store, definitions) = (Arc::clone(&self.store), Arc::clone(&self.definitions));
        let life = self.life;
        self.fetching_since = tokio::time::Instant::now();
        let budget = Budget {
            run: self.config.huge_run_bytes,
            all: self.config.look_up_bytes,
        };
        let panicked = Done::Fetched {
            life,
            number,
            result: Err(StoreError::Unavailable("the look-up panicked".to_owned())),
        };
        self.beside(panicked, async move {
            let result = fetch::fetch(&*store, &definitions, wanted, budget).await;
            Done::Fetched { life, number, result }
        });
    }

    pub(super) fn fetched(&mut self, number: u64, result: Result<Fetched, StoreError>) {
        self.fetching = None;
        let fetched = match result {
            Ok(fetched) => {
                self.health.set_store(true);
                fetched
            }
            Err(error) => {
                tracing::warn!(%error, "a look-up failed and is repeated");
                self.health.set_store(false);
                self.fetch_after = Some(tokio::time::Instant::now() + Duration::from_millis(100));
                self.forget_asked(number);
                return;
            }
        };
        if self.partitions.newest_reader() > self.fetch_readers {
            // Of partitions taken meanwhile it says what was true before: everything is asked again.
            self.forget_asked(number);
            return;
        }
        self.fetches_done = number;
        self.learn_queue_limits();
        for (key, rows) in fetched.ids {
            self.live.learn(key, rows, number);
        }
        for (key, answers) in fetched.repeats {
            self.live.learn_taken(key, answers, self.fetch_committed);
        }
        if !fetched.unaskable.is_empty() {
            self.refuse_unaskable(&fetched.unaskable);
        }
        if self.absent.len() > MOST_ABSENT {
            self.absent.clear();
        }
        let missing = fetched
            .missing
            .into_iter()
            // One that has begun and left meanwhile was asked about too early.
            .filter(|run_id| !self.live.contains(*run_id) && !self.live.has_left(*run_id));
        for run_id in missing {
            self.alarms.awake(run_id);
            self.absent.insert(run_id, Absent::Missing);
        }
        for run_id in fetched.unreadable {
            self.alarms.awake(run_id);
            if !self.live.contains(run_id) {
                self.absent.insert(run_id, Absent::Unreadable);
            }
        }
        for (run_id, partition) in fetched.huge {
            if self.partitions.serves(partition) {
                self.deferral.hold(run_id, partition, None);
            } else {
                self.absent.insert(run_id, Absent::Elsewhere);
            }
        }
        for loaded in fetched.runs {
            // One that was here while it was read, and perhaps left since, may have been read too early.
            if !self.live.has_left(loaded.row.run_id) {
                self.arrived(loaded);
            }
        }
        self.live.stop_watching();
        let lacking = std::mem::take(&mut self.lacking);
        self.direct.extend(lacking);
    }

    /// Jobs that ask what the store refuses to be asked would wait for ever.
    fn refuse_unaskable(&mut self, unaskable: &Unaskable) {
        let queues = self
            .partitions
            .iter_mut()
            .flat_map(|(_, partition)| &mut partition.queue);
        let jobs = queues.chain(self.deferral.read_back_mut());
        for job in jobs.filter(|job| unaskable.holds_up(&job.kind)) {
            let why = "the store refuses to look up what it names";
            job.kind = JobKind::Refused(Refusal::new(&code::POISON, why));
        }
    }

    /// Takes a run into memory, if it is ours.
    pub(super) fn arrived(&mut self, loaded: Loaded) {
        let Loaded {
            state,
            plan,
            row,
            weight,
        } = loaded;
        let (run_id, partition) = (row.run_id, row.partition);
        self.alarms.awake(run_id);
        if !self.partitions.serves(partition) {
            self.absent.insert(run_id, Absent::Elsewhere);
            return;
        }
        if self.live.contains(run_id) {
            return;
        }
        self.deferral.arrived(run_id);
        self.offers.is_readable(run_id);
        if let Some(reference) = RunRef::new(&state, partition) {
            let mut live = Live::new(state, plan, Arc::new(reference), row, weight);
            live.warned = Warned::before(&live.state);
            if self.spans.is_some() {
                spans::resume(&live.state, &mut live.attempts);
            }
            self.live.insert(run_id, live);
            let now = self.clock.now();
            self.raise_wake(run_id, now);
        }
    }

    /// A look-up that failed has told nothing: its jobs ask again.
    pub(super) fn forget_asked(&mut self, number: u64) {
        let forget = |job: &mut Job| {
            if job.asked_in == Some(number) {
                job.asked_in = None;
            }
            if job.asked_run == Some(number) {
                job.asked_run = None;
            }
        };
        self.lacking.iter_mut().for_each(forget);
        self.direct.iter_mut().for_each(forget);
        for (_, partition) in self.partitions.iter_mut() {
            partition.queue.iter_mut().for_each(forget);
        }
        // Numbers are compared with the last that returned.
        self.fetches_done = number;
        let numbers: Vec<i16> = self.partitions.served();
        for partition in numbers {
            self.want_queue(partition);
        }
        let mut lacking = std::mem::take(&mut self.lacking);
        for job in &mut lacking {
            self.note_wants(job);
        }
        self.lacking = lacking;
    }
}
