//! Starting runs: what an earlier run of the same id means, and what an un-keyed start is called.
//!
//! **Invariant:** uniqueness is decided here, before the commit, from what the store said and what has happened since;
//! the store's unique index is only the net.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use knarr_core::definition::duration;
use knarr_core::definition::plan::Plan;
use knarr_core::expression::{Scope, Template};
use knarr_core::ids::{Namespace, RunId, WorkflowId, WorkflowName};
use knarr_core::limit::PRIORITY;
use knarr_core::run::input::{AnswerOn, AnswerRequest, Input, Operation, Start, Terms};
use knarr_core::run::limits::RunLimits;
use knarr_core::run::{self};
use knarr_core::time::Timestamp;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::{code, header, subject};
use ring::rand::SecureRandom as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::apply::Applied;
use super::job::{Conflict, Job, JobKind, Reuse, StartRequest, UnkeyedStart};
use super::live::{IdInfo, IdKey, Live};
use super::outgoing::{self, RunRef};
use super::perform::{Step, unreadable};
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::run_loop::Loop;
use super::schedule;
use super::too_large;
use crate::bus::{Bus, Delivery, Outgoing};
use crate::store::{RunRow, Store, format};

/// What an earlier run of the id decides.
enum Verdict {
    Fresh,
    /// This very request has started it already.
    Repeat(RunRow),
    UseExisting(RunRow),
    Terminate(RunId),
    /// It waits until the open run has closed.
    Queue,
    /// The last run closes in the batch that is being built.
    ClosingNow,
    Refuse(Refusal),
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn start(&mut self, job: Job) -> Step {
        let JobKind::Start(request) = &job.kind else {
            return Step::Done;
        };
        let request = request.clone();
        let key: IdKey = (request.namespace.clone(), request.workflow_id.clone());
        // Also where something is known of the id: an older run may have been started by this very request, and the
        // definition may have a newer version.
        if self.live.id(&key).is_none() || !self.was_looked_up(&job) {
            return Step::Lacks(Box::new(job));
        }
        if self.continues_first(&key) || self.others_come_first(&key, Some(&request.request_id)) {
            return Step::Blocked(Box::new(job));
        }
        let verdict = self.verdict(&key, &request);
        let is_queued = matches!(verdict, Verdict::Queue);
        match verdict {
            Verdict::ClosingNow => return Step::Blocked(Box::new(job)),
            Verdict::Refuse(refusal) => self.refuse(&job.origin, &refusal),
            Verdict::Repeat(row) | Verdict::UseExisting(row) => {
                let Some(row) = self.last_attempt(&key, row) else {
                    return Step::Lacks(Box::new(job));
                };
                let open = row.closed_at.is_none();
                match &request.answer {
                    Some(AnswerRequest {
                        on: AnswerOn::Closed, ..
                    }) if open => {
                        if !self.live.contains(row.run_id) && !self.absent.contains_key(&row.run_id) {
                            return Step::Lacks(Box::new(job));
                        }
                        let applied = match request.answer.clone() {
                            Some(answer) => self.await_run(row.run_id, answer),
                            None => Applied::Nothing,
                        };
                        match applied {
                            Applied::Changed | Applied::Nothing => {}
                            Applied::Panicked => return self.poison(PoisonKey::of(&job)),
                            Applied::Rejected(refusal) => {
                                self.refuse(&job.origin, &refusal);
                                self.building.inputs += 1;
                                return Step::Done;
                            }
                        }
                    }
                    Some(answer) => {
                        let stage = if answer.on == AnswerOn::Closed {
                            AnswerStage::Closed
                        } else {
                            AnswerStage::Existing
                        };
                        if open {
                            let body = outgoing::answer_of_row(&row, stage);
                            self.building.answer(outgoing::answer(&answer.to, &body));
                        } else {
                            self.answer_of_closed(&row, &answer.to, stage);
                        }
                    }
                    None => {}
                }
                self.taken(&job.origin, None);
            }
            Verdict::Terminate(open) => {
                if !self.live.contains(open) {
                    if !self.absent.contains_key(&open) {
                        return Step::Lacks(Box::new(job));
                    }
                    let refusal = unreadable(open);
                    self.refuse(&job.origin, &refusal);
                    self.building.inputs += 1;
                    return Step::Done;
                }
                // Who cannot be started takes nobody's place.
                match self.would_begin(&request) {
                    Ok(true) => {}
                    Ok(false) => return self.poison(PoisonKey::of(&job)),
                    Err(refusal) => {
                        self.refuse(&job.origin, &refusal);
                        self.building.inputs += 1;
                        return Step::Done;
                    }
                }
                let operation = Operation {
                    request_id: Some(request.request_id.clone()),
                    by: None,
                    reason: Some(Arc::from("another start of the same workflow id asked for it")),
                };
                match self.apply(open, Input::Terminate(operation)) {
                    // The new run opens in the next batch: one statement must not close and open the same id.
                    Applied::Changed => {
                        self.in_line.goes_first(&key, &request.request_id);
                        return Step::Blocked(Box::new(job));
                    }
                    Applied::Panicked => return self.poison(PoisonKey::of(&job)),
                    Applied::Rejected(refusal) => self.refuse(&job.origin, &refusal),
                    // It would stay open however often this is tried, and everything behind it would wait.
                    Applied::Nothing => self.refuse(&job.origin, &id_open(open, &key)),
                }
            }
            Verdict::Queue | Verdict::Fresh => match self.begin_or_queue(&key, &request, is_queued) {
                Ok(Some(_)) => self.taken(&job.origin, None),
                Ok(None) => return self.poison(PoisonKey::of(&job)),
                Err(refusal) => match request.version {
                    // A version named for the first time has to be looked up by its number.
                    Some(_) if refusal.code.id == code::UNKNOWN_VERSION.id && !self.was_looked_up(&job) => {
                        return Step::Lacks(Box::new(job));
                    }
                    _ => self.refuse(&job.origin, &refusal),
                },
            },
        }
        if self.in_line.has_gone(&key, &request.request_id) {
            // Whether it has the id now or not, those in line are called when that is free.
            self.direct.push_back(Job::internal(JobKind::NextInLine(key)));
        }
        self.building.inputs += 1;
        Step::Done
    }

    /// The run whose end is that of this one, as far as it is open: who repeats a start waits for the last attempt. `None` = the
    /// open run has to be loaded, which knows of which it is an attempt.
    fn last_attempt(&self, key: &IdKey, row: RunRow) -> Option<RunRow> {
        let open = self.live.id(key).and_then(IdInfo::open);
        let (Some(_), Some(open)) = (row.retried_by, open) else {
            return Some(row);
        };
        match self.live.get(open.row.run_id) {
            Some(live) if live.state.first_attempt() == row.run_id => Some(open.row.clone()),
            None if !self.absent.contains_key(&open.row.run_id) => None,
            _ => Some(row),
        }
    }

    fn verdict(&self, key: &IdKey, request: &StartRequest) -> Verdict {
        let Some(info) = self.live.id(key) else {
            return Verdict::Fresh;
        };
        if let Some(known) = info.by_request(&request.request_id) {
            return Verdict::Repeat(known.row.clone());
        }
        if let Some(open) = info.open() {
            return match request.conflict {
                Conflict::Fail => Verdict::Refuse(id_open(open.row.run_id, key)),
                Conflict::UseExisting => Verdict::UseExisting(open.row.clone()),
                Conflict::TerminateExisting => Verdict::Terminate(open.row.run_id),
                Conflict::Queue => Verdict::Queue,
            };
        }
        let Some(closed) = info.newest_closed() else {
            return Verdict::Fresh;
        };
        let refused = match request.reuse {
            Reuse::AllowDuplicate => false,
            Reuse::FailedOnly => closed.row.status == "completed",
            Reuse::Reject => true,
        };
        if refused {
            return Verdict::Refuse(Refusal::new(
                &code::ID_REUSE,
                format!(
                    "the run {} with the workflow id `{}` is {}",
                    closed.row.run_id, key.1, closed.row.status
                ),
            ));
        }
        if info.closes_in(self.building.number) {
            return Verdict::ClosingNow;
        }
        Verdict::Fresh
    }

    /// Opens a run as it is asked for. `Ok(None)` = core panicked.
    pub(super) fn begin(&mut self, key: &IdKey, request: &StartRequest) -> Result<Option<RunId>, Refusal> {
        self.begin_or_queue(key, request, false)
    }

    /// The same; one that is `queued` waits until the open run has closed.
    fn begin_or_queue(&mut self, key: &IdKey, request: &StartRequest, queued: bool) -> Result<Option<RunId>, Refusal> {
        if queued && let Some(refusal) = self.line_is_full(self.partition_of(&key.0, &key.1), key) {
            return Err(refusal);
        }
        let (plan, retention_class) = self.asked_for(request)?;
        let run_id = self.new_run_id(key);
        let start = Start {
            queued,
            ..start_of(request, run_id)
        };
        Ok(self.open(key, &plan, retention_class, start)?.then_some(run_id))
    }

    /// Behind all runs that there are of the workflow id, whatever the clock does: so who is in line stays in the order of coming.
    pub(super) fn new_run_id(&mut self, key: &IdKey) -> RunId {
        let now = self.clock.now();
        self.minted = Timestamp(now.0.max(self.minted.0.saturating_add(1)));
        let run_id = mint(self.minted, &self.random);
        self.live.id(key).map_or(run_id, |info| info.behind_all(run_id))
    }

    /// Why a run would not begin as it is asked for. `Ok(false)` = core panicked.
    fn would_begin(&mut self, request: &StartRequest) -> Result<bool, Refusal> {
        let (plan, _) = self.asked_for(request)?;
        let start = start_of(request, RunId(uuid::Uuid::nil()));
        let now = self.clock.now();
        self.older_replicas_could_not_read(&plan, &start, now)?;
        let queues = self.queue_limits.of(&request.namespace);
        let terms = self.terms();
        let Ok(started) = catch_unwind(AssertUnwindSafe(|| run::start_within(terms, &plan, start, now, queues))) else {
            return Ok(false);
        };
        started?;
        Ok(true)
    }

    /// What runs are begun under from now on.
    fn terms(&self) -> Terms {
        Terms {
            limits: match self.may_store(format::SECOND) {
                true => self.config.run_limits,
                false => RunLimits::default(),
            },
            withdraws: self.may_store(format::FOURTH),
        }
    }

    /// The definition that a start names, and the retention of its namespace.
    fn asked_for(&self, request: &StartRequest) -> Result<(Arc<Plan>, i16), Refusal> {
        let plan = self
            .definitions
            .resolve(&request.namespace, &request.workflow, request.version);
        match (plan, self.definitions.namespace(&request.namespace)) {
            (Some(plan), Some(retention_class)) => Ok((plan, retention_class)),
            _ => Err(self.not_there(&request.namespace, &request.workflow, request.version)),
        }
    }

    /// Which of them it is that is missing: the namespace, the definition, or the version of it.
    pub(super) fn not_there(&self, namespace: &Namespace, workflow: &WorkflowName, version: Option<u32>) -> Refusal {
        match version {
            _ if self.definitions.namespace(namespace).is_none() => {
                Refusal::new(&code::UNKNOWN_NAMESPACE, format!("there is no namespace `{namespace}`"))
            }
            Some(version) => Refusal::new(
                &code::UNKNOWN_VERSION,
                format!("`{workflow}` is not registered in version {version} in `{namespace}`"),
            ),
            None => Refusal::new(
                &code::UNKNOWN_WORKFLOW,
                format!("no definition `{workflow}` is registered in `{namespace}`"),
            ),
        }
    }

    /// A run is not begun that would store what belongs to a later format than all replicas read.
    fn older_replicas_could_not_read(&self, plan: &Plan, start: &Start, now: Timestamp) -> Result<(), Refusal> {
        let waits = plan.concurrency.is_some() || start.queued;
        let is_third = waits || plan.priority.is_some() || start.priority.is_some_and(|priority| priority != PRIORITY);
        let is_fourth = start.begins_at.is_some_and(|begins_at| begins_at > now);
        let third = is_third && start.continues.is_none() && !self.may_store(format::THIRD);
        if third || is_fourth && !self.may_store(format::FOURTH) {
            return Err(Refusal::new(&code::OLDER_REPLICAS, code::OLDER_REPLICAS.cause));
        }
        Ok(())
    }

    /// Opens a run, whoever has asked for it. `Ok(false)` = core panicked.
    pub(super) fn open(
        &mut self,
        key: &IdKey,
        plan: &Arc<Plan>,
        retention_class: i16,
        start: Start,
    ) -> Result<bool, Refusal> {
        let now = self.clock.now();
        self.older_replicas_could_not_read(plan, &start, now)?;
        let queued = start.queued;
        let continues = start.continues.as_ref().map(|continues| continues.run);
        let tenure = match queued {
            true => None,
            false => self.live.tenure(key, start.run_id, continues),
        };
        let (run_id, request_id) = (start.run_id, start.request_id.clone());
        let queues = self.queue_limits.of(&key.0);
        let terms = self.terms();
        let Ok(started) = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            super::tests::perhaps_panic_at_birth(&start);
            run::start_within(terms, plan, start, now, queues)
        })) else {
            return Ok(false);
        };
        let (state, transition) = started?;
        let (namespace, workflow_id) = key.clone();
        let partition = self.partition_of(&namespace, &workflow_id);
        let Some(reference) = RunRef::new(&state, partition) else {
            return Err(Refusal::new(&code::BAD_TOKEN, "the workflow id cannot be a subject"));
        };
        let row = RunRow {
            run_id,
            retention_class,
            namespace,
            workflow_id,
            workflow: state.workflow().clone(),
            version: i32::try_from(plan.version).unwrap_or(i32::MAX),
            definition: plan.hash.clone(),
            partition,
            status: state.status().as_str().to_owned(),
            started_at: transition.at,
            closed_at: None,
            wake_at: None,
            request_id,
            search_attributes: schedule::row_attributes(&state).or_else(|| attributes(state.search_attributes())),
            outcome: None,
            attempt: i32::try_from(state.attempt()).unwrap_or(i32::MAX),
            begins_at: state.paused_until(),
            retried_by: None,
            tenure,
        };
        if queued {
            self.in_line.add(partition, key.clone());
        }
        let number = self.building.number;
        self.live.put_id(key.clone(), row.clone(), number);
        // One that was fixed by its parent may have been asked about before it was there.
        self.absent.remove(&run_id);
        self.live
            .insert(run_id, Live::new(state, Arc::clone(plan), Arc::new(reference), row, 0));
        self.building.inserted(run_id, partition);
        self.record(run_id, transition, now);
        if !schedule::is_reserved(&key.1) {
            metrics::counter!(crate::telemetry::metric::RUNS_STARTED).increment(1);
        }
        Ok(true)
    }

    /// Finds the id of an un-keyed start and sends it on, keyed, once what was found is committed.
    pub(super) fn unkeyed_start(&mut self, job: Job) -> Step {
        let JobKind::UnkeyedStart(request) = &job.kind else {
            return Step::Done;
        };
        if !self.was_looked_up(&job) {
            return Step::Lacks(Box::new(job));
        }
        let now = self.clock.now();
        let result = self.forward(request, &job, now);
        match result {
            Ok(message) => {
                self.building.message(message);
                self.taken(&job.origin, None);
            }
            Err(refusal) => self.refuse(&job.origin, &refusal),
        }
        self.building.inputs += 1;
        Step::Done
    }

    pub(super) fn was_looked_up(&self, job: &Job) -> bool {
        job.asked_in.is_some_and(|fetch| fetch <= self.fetches_done)
    }

    fn forward(&self, request: &UnkeyedStart, job: &Job, now: Timestamp) -> Result<Outgoing, Refusal> {
        let Some(message) = job.origin.message() else {
            return Err(Refusal::new(&code::BAD_SUBJECT, "an un-keyed start comes by the log"));
        };
        let plan = self
            .definitions
            .resolve(&request.namespace, &request.workflow, request.version)
            .ok_or_else(|| self.not_there(&request.namespace, &request.workflow, request.version))?;
        let workflow_id = match (&request.workflow_id, &plan.id, &request.message_id) {
            (Some(id), ..) => id.clone(),
            (None, Some(expression), _) => workflow_id_of(expression, &request.input)
                .map_err(|problem| Refusal::new(&code::WORKFLOW_ID, problem))?,
            (None, None, Some(id)) => id.clone(),
            // The same message finds the same id, however often it is read.
            (None, None, None) => {
                let digest = Sha256::digest(format!("{}/{}", request.namespace, request.request_id));
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&digest[..16]);
                uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
            }
        };
        let subject = subject::start(request.namespace.as_str(), &workflow_id, request.workflow.as_str())
            .map_err(|error| Refusal::new(&code::WORKFLOW_ID, format!("the workflow id `{workflow_id}` {error}")))?;
        let own = [
            header::REQUEST_ID,
            header::VERSION,
            header::WORKFLOW_ID,
            header::NATS_MSG_ID,
            header::START_DELAY,
        ];
        let mut headers: crate::bus::Headers = message
            .headers
            .iter()
            .filter(|(name, _)| !name.starts_with("Nats-") && !own.contains(&name.as_ref()))
            .cloned()
            .collect();
        headers.push((header::REQUEST_ID.into(), request.request_id.to_string()));
        if let Some(begins_at) = request.begins_at {
            let left = begins_at.since(now);
            headers.push((header::START_DELAY.into(), duration::format(left)));
        }
        // The version is pinned now: a repeat of the forwarded message must not find a newer one.
        headers.push((header::VERSION.into(), plan.version.to_string()));
        let forwarded = Outgoing {
            subject,
            headers,
            payload: message.payload.clone(),
            delivery: Delivery::Stream,
        };
        match (forwarded.size(), self.bus.max_payload()) {
            // A larger body travels beside its message.
            (bytes, most) if bytes > most && forwarded.payload.len() <= subject::MAX_INLINE_BYTES => {
                Err(too_large::refusal(bytes, most))
            }
            _ => Ok(forwarded),
        }
    }

    pub(super) fn partition_of(&self, namespace: &knarr_core::ids::Namespace, workflow_id: &WorkflowId) -> i16 {
        // Both are tokens already: they came from a subject, or were checked when one was made of them.
        let namespace = subject::encode_token(namespace.as_str()).unwrap_or_default();
        let id = subject::encode_token(workflow_id.as_str()).unwrap_or_default();
        i16::try_from(subject::partition_of(&namespace, &id, self.cluster.partitions)).unwrap_or(i16::MAX)
    }
}

fn start_of(request: &StartRequest, run_id: RunId) -> Start {
    Start {
        run_id,
        namespace: request.namespace.clone(),
        workflow_id: request.workflow_id.clone(),
        input: Arc::clone(&request.input),
        request_id: Some(request.request_id.clone()),
        search_attributes: request.search_attributes.clone(),
        answer: request.answer.clone(),
        traceparent: request.traceparent.clone(),
        parent: None,
        priority: request.priority,
        queued: false,
        begins_at: request.begins_at,
        continues: None,
    }
}

fn id_open(run_id: RunId, key: &IdKey) -> Refusal {
    let problem = format!("the run {run_id} with the workflow id `{}` is open", key.1);
    Refusal::new(&code::WORKFLOW_ID_OPEN, problem)
}

/// The input is all that an `id` expression can see: there is no run yet.
struct InputScope<'a>(&'a Arc<Value>);

impl Scope for InputScope<'_> {
    fn root(&self, _name: &str) -> Option<Cow<'_, Value>> {
        None
    }

    fn step(&self, _id: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        Some(self.0)
    }
}

fn workflow_id_of(expression: &Template, input: &Arc<Value>) -> Result<String, String> {
    match &*expression
        .evaluate(&InputScope(input))
        .map_err(|error| error.to_string())?
    {
        Value::String(id) => Ok(id.clone()),
        Value::Number(id) => Ok(id.to_string()),
        other => Err(format!(
            "the `id` expression gave {other}, which is neither a text nor a number"
        )),
    }
}

/// A UUIDv7 of this moment, by the database's clock. Microseconds stand where the format leaves room for a counter, so
/// that of two runs the later one has the greater id.
fn mint(now: Timestamp, random: &ring::rand::SystemRandom) -> RunId {
    let mut bytes = [0; 10];
    // Where the system has no randomness the nil bytes remain; the primary key is the net.
    let _ = random.fill(&mut bytes);
    let micros = u16::try_from(now.0.rem_euclid(1_000)).unwrap_or(0);
    let low = bytes[1] & 0b11;
    let [high, rest] = (micros << 2).to_be_bytes();
    (bytes[0], bytes[1]) = (high, rest | low);
    let ms = u64::try_from(now.0.div_euclid(1_000)).unwrap_or(0);
    RunId(uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
}

fn attributes(map: &BTreeMap<String, serde_json::Value>) -> Option<String> {
    if map.is_empty() {
        None
    } else {
        serde_json::to_string(map).ok()
    }
}
