//! Inputs of runs that cannot be loaded at once: put into the store, so that their partition goes on, and applied when the
//! run is there.
//!
//! A run is *held back* from the moment that it turns out to be too large for a look-up, or that the look-up is slow, until
//! everything that was deferred for it has been applied. Meanwhile its inputs from the log, and what else the log has for the
//! same workflow id, are deferred behind each other; what no log orders waits in memory. Once the run is there, what was
//! deferred is read back and applied, and nothing that came later overtakes it.
//!
//! **Invariant:** a deferred input is committed with the cursor that passes it, and goes with the commit that applies it: it
//! takes effect exactly once, whoever owns the partition by then.

use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::{Namespace, RunId, WorkflowId};
use tokio::time::Instant;

use super::fetch::{self, Loaded};
use super::job::{Job, JobKind, Origin};
use super::look_up::Absent;
use super::message::receiver_of;
use super::perform::Step;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{DeferredInput, DeferredName, Store, StoreError};
use crate::telemetry::metric;

/// After something could not be read.
const PAUSE: Duration = Duration::from_millis(200);

/// What becomes of a job at the head of its partition's queue.
pub(super) enum Turn {
    /// Nothing before it waits.
    Its,
    /// It is deferred behind what waits for this run.
    Deferred(RunId),
    /// What was deferred is being applied: a moment.
    Waits,
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Before a job of the log is performed: whether it is its turn.
    pub(super) fn turn_of(&self, job: &Job) -> Turn {
        match self.deferral.of_job(job) {
            None => Turn::Its,
            Some(run) if self.is_known(run) => Turn::Waits,
            Some(run) => Turn::Deferred(run),
        }
    }

    /// The run that a job of the log lacks, if it is one that is not to be waited for.
    pub(super) fn not_to_be_waited_for(&mut self, job: &Job) -> Option<RunId> {
        let lacked = match &job.kind {
            JobKind::Result { run_id, .. } => *run_id,
            JobKind::Start(start) => self.open_run(&start.namespace, &start.workflow_id)?,
            JobKind::Verb(verb) => match verb.run {
                Some(run) => run,
                None => {
                    let key = (verb.namespace.clone(), verb.workflow_id.clone());
                    self.live.id(&key)?.newest()?.row.run_id
                }
            },
            JobKind::Signal(signal) => self.open_run(&signal.namespace, &signal.workflow_id)?,
            JobKind::Schedule(asked) => self.open_run(&asked.namespace, &asked.workflow_id)?,
            JobKind::Message(message) => receiver_of(&self.live, message)?,
            JobKind::Answered { run_id, .. } => *run_id,
            _ => return None,
        };
        if self.is_known(lacked) {
            return None;
        }
        if self.deferral.holds(lacked) {
            return Some(lacked);
        }
        let slow = self.fetching.is_some()
            && job.asked_run == self.fetching
            && self.fetching_since.elapsed() >= self.config.slow_look_up;
        let partition = job.origin.message().filter(|_| slow)?.partition;
        self.deferral.hold(lacked, partition, self.fetching);
        Some(lacked)
    }

    fn open_run(&self, namespace: &Namespace, workflow_id: &WorkflowId) -> Option<RunId> {
        let info = self.live.id(&(namespace.clone(), workflow_id.clone()))?;
        info.open().map(|open| open.row.run_id)
    }

    /// In memory, or known not to be there.
    fn is_known(&self, run: RunId) -> bool {
        self.live.contains(run) || self.absent.contains_key(&run)
    }

    /// The input goes to the store, and its cursor passes.
    pub(super) fn defer(&mut self, job: &Job, run_id: RunId) {
        let Origin::Log(message) = &job.origin else { return };
        let headers: Vec<(&str, &str)> = message
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let partition = message.partition;
        let input = DeferredInput {
            partition,
            no: self.deferral.next_number(partition),
            run_id,
            cursor: message.cursor.clone(),
            subject: message.subject.clone(),
            headers: serde_json::to_string(&headers).unwrap_or_default(),
            body: message.payload.to_vec(),
        };
        self.deferral
            .add(run_id, partition, &message.subject, self.building.number);
        self.building.defer(input);
        self.building.inputs += 1;
        metrics::counter!(metric::DEFERRED).increment(1);
        self.taken(&job.origin, None);
    }

    /// Loads what is held back, reads back what was deferred, and lets go of what is done.
    pub(super) fn tend_deferral(&mut self) {
        if self.deferral.runs.is_empty() || self.deferral.not_before.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let runs: Vec<RunId> = self.deferral.runs.keys().copied().collect();
        let mut may_read = self.deferral.has_room();
        for run in runs {
            let known = self.is_known(run);
            let Some(held) = self.deferral.runs.get_mut(&run) else {
                continue;
            };
            if !self.partitions.serves(held.partition) {
                continue;
            }
            if known && held.inputs == 0 {
                self.deferral.release(run);
                let lacking = std::mem::take(&mut self.lacking);
                self.direct.extend(lacking);
            } else if known && held.queue.is_empty() && held.deferred_in <= self.committed {
                if !std::mem::take(&mut may_read) {
                    continue;
                }
                held.reading = true;
                let (partition, after) = (held.partition, held.read_to);
                self.read_back(run, partition, after);
            } else if !known
                && self.deferral.loading.is_none()
                && held.look_up.is_none_or(|look_up| self.fetching != Some(look_up))
            {
                self.load_held(run);
            }
        }
    }

    fn load_held(&mut self, run: RunId) {
        self.deferral.loads += 1;
        let load = (run, self.deferral.loads);
        self.deferral.loading = Some(load);
        let (store, definitions) = (Arc::clone(&self.store), Arc::clone(&self.definitions));
        let (life, readers) = (self.life, self.partitions.newest_reader());
        let panicked = Done::HeldLoaded {
            life,
            readers,
            load,
            result: Err(StoreError::Unavailable("the load panicked".to_owned())),
        };
        self.beside(panicked, async move {
            let result = fetch::load(&*store, &definitions, &[run]).await;
            let result = result.map(|mut found| match found.runs.pop() {
                Some(loaded) => Ok(Box::new(loaded)),
                None if found.unreadable.is_empty() => Err(Absent::Missing),
                None => Err(Absent::Unreadable),
            });
            Done::HeldLoaded {
                life,
                readers,
                load,
                result,
            }
        });
    }

    pub(super) fn held_loaded(
        &mut self,
        readers: u64,
        load: (RunId, u64),
        result: Result<Result<Box<Loaded>, Absent>, StoreError>,
    ) {
        if self.deferral.loading != Some(load) {
            return;
        }
        self.deferral.loading = None;
        let (run, _) = load;
        match result {
            // Of partitions taken meanwhile it says what was true before.
            Ok(_) if self.partitions.newest_reader() > readers => {}
            Ok(Ok(loaded)) => self.arrived(*loaded),
            // One that a look-up was too slow for, and failed to find, need not be there: a child that is to be started.
            Ok(Err(absent)) => {
                self.alarms.awake(run);
                self.absent.insert(run, absent);
            }
            Err(error) => {
                tracing::warn!(%error, %run, "a large run cannot be loaded yet");
                self.deferral.not_before = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn read_back(&self, run: RunId, partition: i16, after: i64) {
        let store = Arc::clone(&self.store);
        let life = self.life;
        let panicked = Done::ReadBack {
            life,
            run,
            result: Err(StoreError::Unavailable("the question panicked".to_owned())),
        };
        self.beside(panicked, async move {
            let result = store.deferred(partition, run, after).await;
            Done::ReadBack { life, run, result }
        });
    }

    pub(super) fn was_read_back(&mut self, run: RunId, result: Result<Vec<DeferredInput>, StoreError>) {
        let Some(held) = self.deferral.runs.get_mut(&run) else {
            return;
        };
        held.reading = false;
        match result {
            Ok(inputs) => {
                if inputs.is_empty() {
                    tracing::error!(%run, "inputs that were deferred are not there");
                    held.inputs = 0;
                }
                self.reader.clock.pass(self.clock.now());
                for input in inputs {
                    held.read_to = input.no;
                    held.queue.push_back(self.reader.deferred(input));
                }
            }
            Err(error) => {
                tracing::warn!(%error, %run, "deferred inputs cannot be read yet");
                self.deferral.not_before = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Applies what was read back. `false` = everything has been dropped.
    pub(super) fn perform_deferred(&mut self) -> bool {
        if self.deferral.runs.is_empty() {
            return true;
        }
        let ready = self.deferral.runs.iter().filter(|(_, held)| !held.queue.is_empty());
        let ready: Vec<(RunId, i16)> = ready.map(|(run, held)| (*run, held.partition)).collect();
        for (run, partition) in ready {
            while self.partitions.knows_permits(partition) && !self.batch_is_full() {
                let Some(held) = self.deferral.runs.get_mut(&run) else {
                    break;
                };
                let Some(job) = held.queue.pop_front() else { break };
                match self.perform(job) {
                    Step::Done => {
                        if let Some(held) = self.deferral.runs.get_mut(&run) {
                            held.inputs = held.inputs.saturating_sub(1);
                        }
                    }
                    Step::Lacks(mut job) => {
                        self.note_wants(&mut job);
                        self.put_back(run, *job);
                        break;
                    }
                    Step::Blocked(job) => {
                        self.put_back(run, *job);
                        break;
                    }
                    Step::Reset => return false,
                }
            }
        }
        self.tend_deferral();
        true
    }

    fn put_back(&mut self, run: RunId, job: Job) {
        if let Some(held) = self.deferral.runs.get_mut(&run) {
            held.queue.push_front(job);
        }
    }

    /// What is deferred of a partition that was taken over comes first.
    pub(super) fn ask_for_deferred(&self, partition: i16, reader: u64) {
        let (store, done) = (Arc::clone(&self.store), self.done.clone());
        let life = self.life;
        let panicked = Done::DeferredFound {
            life,
            partition,
            reader,
            names: None,
        };
        self.beside(panicked, async move {
            loop {
                match store.deferred_names(partition).await {
                    Ok(names) => {
                        return Done::DeferredFound {
                            life,
                            partition,
                            reader,
                            names: Some(names),
                        };
                    }
                    Err(error) => tracing::warn!(%error, partition, "what is deferred cannot be read yet"),
                }
                if done.is_closed() {
                    return Done::DeferredFound {
                        life,
                        partition,
                        reader,
                        names: None,
                    };
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    pub(super) fn deferred_found(&mut self, partition: i16, reader: u64, names: Option<Vec<DeferredName>>) {
        let Some(owned) = self
            .partitions
            .get_mut(partition)
            .filter(|owned| owned.reader == reader)
        else {
            return;
        };
        let Some(names) = names else {
            self.ask_for_deferred(partition, reader);
            return;
        };
        owned.unknown_deferred = false;
        tracing::info!(
            partition,
            count = names.len(),
            "inputs were deferred by an earlier owner"
        );
        for DeferredName { no, run_id, subject } in names {
            self.deferral.add(run_id, partition, &subject, 0);
            self.deferral.numbers.insert(partition, no);
        }
    }
}
