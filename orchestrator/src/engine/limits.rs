//! Limiters of the partitions served here: who asks for a permit, who gives one back, and who is told that it is granted.
//!
//! A limiter belongs to the partition of its address. Its rows are written with the batch that takes a message in, and read
//! once, when the partition is taken over: before that nothing of the partition's log is performed. So a limiter in memory is
//! what its rows say, and a new owner goes on where the last commit ended.
//!
//! What makes core panic is let go: a message, which is offered again in vain, or the limiter as a whole where it is time alone
//! that does. Then it stands still, as it is stored, until the partition is served anew; who asks it waits.
//!
//! **Invariant:** a grant is stored with the commit that makes it, and owed until it is published, so that no permit is out that
//! nobody hears of; should the log lose it, it is said again: when the run asks again, and of all that is out where the log was lost.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::{MessageNo, Namespace, RunId, WorkflowId, WorkflowName};
use knarr_core::limit::{Ask, Bound, Changes, Grant, LimitKind, LimitName, Limiter, Row, Setting};
use knarr_core::run::message::{Answer, Body, Sender};
use knarr_core::time::Timestamp;

use super::code::limits::LIMITER_STOPPED;
use super::definitions::Definitions;
use super::job::{Job, JobKind};
use super::outgoing;
use super::perform::Step;
use super::poison::PoisonKey;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{PermitId, PermitRow, PermitWrite, Store};
use crate::telemetry::metric;

/// After rows could not be read.
const PAUSE: Duration = Duration::from_millis(200);

/// A message to a limiter; its token has been verified.
#[derive(Debug, Clone)]
pub(super) struct LimitRequest {
    pub(super) namespace: Namespace,
    /// The limiter's.
    pub(super) address: WorkflowId,
    pub(super) from: Sender,
    pub(super) number: MessageNo,
    pub(super) said: Said,
}

#[derive(Debug, Clone)]
pub(super) enum Said {
    Ask(Box<Ask>),
    /// What that message asked for, of the sender or of the run that it continues.
    Release(MessageNo, Option<RunId>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LimiterKey {
    pub(super) partition: i16,
    namespace: Namespace,
    address: WorkflowId,
}

impl LimitRequest {
    pub(super) fn key(&self, partition: i16) -> LimiterKey {
        LimiterKey {
            partition,
            namespace: self.namespace.clone(),
            address: self.address.clone(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Limiters {
    of: HashMap<LimiterKey, Limiter>,
    /// Entries are not removed when they move: what counts is the one that is noted.
    alarms: BinaryHeap<Reverse<(Timestamp, LimiterKey)>>,
    noted: HashMap<LimiterKey, Timestamp>,
    /// These stand still.
    stopped: HashSet<LimiterKey>,
    /// Messages that are taken and not looked at.
    let_go: HashSet<(LimiterKey, RunId, MessageNo)>,
    /// The epoch of the definitions that they go by.
    pub(super) knows: Option<i64>,
}

impl Limiters {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn clear(&mut self) {
        *self = Self {
            stopped: std::mem::take(&mut self.stopped),
            let_go: std::mem::take(&mut self.let_go),
            ..Self::default()
        };
    }

    /// Core panics whenever the limiter wakes.
    pub(super) fn stop(&mut self, key: &LimiterKey) {
        tracing::error!(
            code = LIMITER_STOPPED.id,
            namespace = %key.namespace,
            limit = ?self.of.get(key).and_then(Limiter::name),
            "{}",
            LIMITER_STOPPED.cause
        );
        metrics::counter!(metric::LIMITERS_STOPPED).increment(1);
        self.noted.remove(key);
        self.stopped.insert(key.clone());
    }

    /// Core panics whenever it takes this in.
    pub(super) fn let_go(&mut self, key: LimiterKey, request: &LimitRequest) {
        self.let_go.insert((key, request.from.run, request.number));
    }

    fn takes(&self, key: &LimiterKey, request: &LimitRequest) -> bool {
        if self.stopped.is_empty() && self.let_go.is_empty() {
            return true;
        }
        let this = (key.clone(), request.from.run, request.number);
        !self.stopped.contains(key) && !self.let_go.contains(&this)
    }

    pub(super) fn forget_partition(&mut self, partition: i16) {
        self.of.retain(|key, _| key.partition != partition);
        self.noted.retain(|key, _| key.partition != partition);
        self.stopped.retain(|key| key.partition != partition);
        self.let_go.retain(|(key, ..)| key.partition != partition);
    }

    fn load(&mut self, rows: Vec<PermitRow>) {
        let mut of: HashMap<LimiterKey, Vec<(i64, Row)>> = HashMap::new();
        for PermitRow { id, body } in rows {
            let key = LimiterKey {
                partition: id.partition,
                namespace: id.namespace,
                address: WorkflowId::new(&id.limiter),
            };
            match serde_json::from_str(&body) {
                Ok(row) => of.entry(key).or_default().push((id.no, row)),
                Err(error) => tracing::error!(limiter = %key.address, %error, "a permit cannot be read"),
            }
        }
        for (key, rows) in of {
            self.of.insert(key.clone(), Limiter::load(rows));
            self.note(key);
        }
    }

    /// Has it ring when it wants to, and forgets one of which nothing is left.
    fn note(&mut self, key: LimiterKey) {
        if self.stopped.contains(&key) {
            return;
        }
        let limiter = self.of.get(&key);
        match limiter.and_then(Limiter::wake_at) {
            Some(at) if self.noted.get(&key) == Some(&at) => {}
            Some(at) => {
                self.noted.insert(key.clone(), at);
                self.alarms.push(Reverse((at, key)));
            }
            None => {
                self.noted.remove(&key);
                if limiter.is_some_and(Limiter::is_empty) {
                    self.of.remove(&key);
                }
            }
        }
    }

    /// One that is due, once.
    fn pop_due(&mut self, now: Timestamp) -> Option<LimiterKey> {
        while self.next()? <= now {
            let Reverse((at, key)) = self.alarms.pop()?;
            if self.noted.get(&key) == Some(&at) {
                self.noted.remove(&key);
                return Some(key);
            }
        }
        None
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Turns alarms of limiters that are due into jobs.
    pub(super) fn ring_limiters(&mut self) {
        let now = self.clock.now();
        while let Some(key) = self.limiters.pop_due(now) {
            self.direct.push_back(Job::internal(JobKind::LimiterWake(key)));
        }
    }

    pub(super) fn limit(&mut self, job: &Job, request: &LimitRequest) -> Step {
        let Some(partition) = job.origin.message().map(|message| message.partition) else {
            return Step::Done;
        };
        let key = request.key(partition);
        if !self.limiters.takes(&key, request) {
            // Not answered, so that it is offered again to whoever can.
            self.taken(&job.origin, None);
            self.building.inputs += 1;
            return Step::Done;
        }
        let now = self.clock.now();
        let (from, number) = (request.from.clone(), request.number);
        let asked = match &request.said {
            Said::Ask(ask) => Some(ask.limit.clone()),
            Said::Release(..) => None,
        };
        let changed = self.change(&key, asked, |limiter| match &request.said {
            Said::Ask(ask) => limiter.ask(from, number, (**ask).clone(), now),
            Said::Release(ask, of) => limiter.release(of.unwrap_or(from.run), *ask, now),
        });
        if !changed {
            return self.poison(PoisonKey::of(job));
        }
        if let Said::Release(..) = request.said {
            // If this is lost it is given back again.
            let answer = outgoing::message_answer(&self.tokens, &request.from, number, &Answer::Accepted);
            answer.into_iter().for_each(|message| self.building.answer(message));
        }
        self.taken(&job.origin, None);
        self.building.inputs += 1;
        Step::Done
    }

    pub(super) fn limiter_wakes(&mut self, key: &LimiterKey) -> Step {
        if !self.partitions.serves(key.partition) || self.limiters.stopped.contains(key) {
            return Step::Done;
        }
        let now = self.clock.now();
        let woken = self.change(key, None, |limiter| {
            #[cfg(test)]
            super::tests::perhaps_panic_at_a_wake();
            limiter.wake(now)
        });
        if !woken {
            return self.poison(Some(PoisonKey::Limiter(key.clone())));
        }
        self.building.inputs += 1;
        Step::Done
    }

    /// `asked` is of which limit a limiter is that is empty. `false` = core panicked.
    fn change(
        &mut self,
        key: &LimiterKey,
        asked: Option<LimitName>,
        change: impl FnOnce(&mut Limiter) -> Changes,
    ) -> bool {
        let limiter = self.limiters.of.entry(key.clone()).or_default();
        if let Some(name) = limiter.name().cloned().or(asked) {
            let setting = match name.kind {
                // The version that starts take says how many are open, also to those who wait already.
                LimitKind::Workflow => of_runs(&self.definitions, &key.namespace, &name),
                _ => self.queue_limits.setting(&key.namespace, &name),
            };
            limiter.set(setting);
        }
        // A panic leaves it half changed; everything is dropped then and read again.
        let Ok(changes) = catch_unwind(AssertUnwindSafe(|| change(limiter))) else {
            tracing::error!(limiter = %key.address, "a limiter made core panic");
            return false;
        };
        self.limiters.note(key.clone());
        for (no, row) in changes.rows {
            self.building.permit(PermitWrite {
                id: PermitId {
                    partition: key.partition,
                    namespace: key.namespace.clone(),
                    limiter: key.address.to_string(),
                    no,
                },
                body: row.map(|row| row.to_json()),
            });
        }
        let tokens = Arc::clone(&self.tokens);
        for said in changes.said {
            if let Answer::Refused { .. } = said.answer {
                metrics::counter!(metric::STARTS_WITHOUT_ROOM).increment(1);
            }
            // If this is lost the ask is offered again, and answered again.
            let answer = outgoing::message_answer(&tokens, &said.to, said.number, &said.answer);
            answer.into_iter().for_each(|message| self.building.answer(message));
        }
        for grant in changes.granted {
            if let Some(waited) = grant.waited {
                metrics::counter!(metric::PERMITS_GRANTED).increment(1);
                metrics::histogram!(metric::PERMIT_WAIT_SECONDS).record(Duration::from(waited).as_secs_f64());
            }
            self.say_granted(grant);
        }
        true
    }

    fn say_granted(&mut self, grant: Grant) {
        let Grant {
            to, number, limit, at, ..
        } = grant;
        let message = outgoing::message_answer(&self.tokens, &to, number, &Answer::Granted { limit, at });
        message.into_iter().for_each(|message| self.building.message(message));
    }

    /// The log is another one, and what was granted may be lost with it, also to runs that ask for nothing any more: an old copy of
    /// an ask may have come behind its release. So all that is out is said again, and who has no use for it gives it back. Answers
    /// the last of them where there are more.
    pub(super) fn say_grants_again(
        &mut self,
        partition: i16,
        behind: Option<&(LimiterKey, i64)>,
    ) -> Option<(LimiterKey, i64)> {
        let of_partition = self.limiters.of.iter().filter(|(key, _)| key.partition == partition);
        let mut limiters: Vec<_> = of_partition
            .filter(|(key, _)| behind.is_none_or(|(last, _)| *key >= last))
            .collect();
        limiters.sort_unstable_by_key(|(key, _)| *key);
        let granted = limiters.into_iter().flat_map(|(key, limiter)| {
            let no = behind.filter(|(last, _)| last == key).map_or(0, |(_, no)| *no);
            limiter.granted_behind(no).map(move |(no, grant)| (key, no, grant))
        });
        let most = self.config.batch_inputs.max(1);
        let said: Vec<_> = granted.take(most).collect();
        let last = said.last().filter(|_| said.len() == most);
        let last = last.map(|(key, no, _)| ((*key).clone(), *no));
        let said: Vec<Grant> = said.into_iter().map(|(.., grant)| grant).collect();
        said.into_iter().for_each(|grant| self.say_granted(grant));
        last
    }

    /// An operator's word on a queue has changed, or a workflow has another version, or limiters have been read that do not
    /// know it.
    pub(super) fn wake_limiters(&mut self) {
        let waiting = self.limiters.of.iter().filter(|(_, limiter)| limiter.waiting() > 0);
        let follow = |kind: LimitKind| kind.is_of_queue() || kind == LimitKind::Workflow;
        let of_others = waiting.filter(|(_, limiter)| limiter.name().is_some_and(|name| follow(name.kind)));
        let wakes = of_others.map(|(key, _)| Job::internal(JobKind::LimiterWake(key.clone())));
        self.direct.extend(wakes);
    }

    /// A permit was granted to a run that is not there any more: it is given back in its name.
    pub(super) fn give_back_for(&mut self, from: Sender, ask: MessageNo, limit: LimitName) {
        let to = limit.address();
        let body = Body::Release { limit, ask, of: None };
        let message = outgoing::message_of(&self.tokens, &from, ask, (&to, None), &body);
        message.into_iter().for_each(|message| self.building.message(message));
    }

    /// What limiters of a partition that was taken over are made of comes first.
    pub(super) fn ask_for_permits(&self, partition: i16, reader: u64) {
        let (store, done) = (Arc::clone(&self.store), self.done.clone());
        let life = self.life;
        let found = move |rows, lines| Done::PermitsFound {
            life,
            partition,
            reader,
            rows,
            lines,
        };
        self.beside(found(None, Vec::new()), async move {
            loop {
                let lines = store.ids_queued_for(partition).await;
                let found_all = match (store.permits(partition).await, lines) {
                    (Ok(rows), Ok(lines)) => Ok((rows, lines)),
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
                match found_all {
                    Ok((rows, lines)) => return found(Some(rows), lines),
                    Err(error) => tracing::warn!(%error, partition, "permits cannot be read yet"),
                }
                if done.is_closed() {
                    return found(None, Vec::new());
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    pub(super) fn permits_found(
        &mut self,
        partition: i16,
        reader: u64,
        rows: Option<Vec<PermitRow>>,
        lines: Vec<(Namespace, WorkflowId)>,
    ) {
        let Some(owned) = self
            .partitions
            .get_mut(partition)
            .filter(|owned| owned.reader == reader)
        else {
            return;
        };
        let Some(rows) = rows else {
            self.ask_for_permits(partition, reader);
            return;
        };
        owned.unknown_permits = false;
        self.limiters.load(rows);
        self.wake_limiters();
        self.lines_found(partition, lines);
    }
}

/// What the version of a workflow that starts take says of how many runs are open.
fn of_runs(definitions: &Definitions, namespace: &Namespace, name: &LimitName) -> Setting {
    match definitions.resolve(namespace, &WorkflowName::new(&name.of), None) {
        None => Setting::AsAsked,
        Some(plan) => match plan.concurrency.as_deref() {
            None => Setting::Unlimited,
            Some(concurrency) => Setting::Bound(Bound::Concurrent(concurrency.limit)),
        },
    }
}
