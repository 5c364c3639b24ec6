//! One cluster in one process, in stopped time: a store, a bus, replicas that die, workers that misbehave, services that
//! start sagas; and what must hold of all of it once it is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use knarr_core::definition;
use knarr_core::ids::{Namespace, QueueName, RunId};
use knarr_core::run::{Event, State};
use knarr_core::time::Timestamp;
use knarr_schemas::{body, header as names, subject};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Engine, EngineConfig, EngineError, fetch};
use super::line::{Committed, Line, LineBus, LineStore, Random, Weather, events_of};
use crate::bus::memory::{MemoryBus, PulledTask};
use crate::bus::{Bus, Headers, QueueSettings, header};
use crate::store::memory::MemoryStore;
use crate::store::{FORMAT_LEVEL, NamespaceRow, RunFilter, RunRow, Store, StoredDefinition};

pub(super) const ORDER: &str = r#"
workflow: order
version: 1
id: "${ input.order }"
defaults:
  queue: orders
  start_to_close: 5s
  retry: { initial_interval: 100ms, maximum_interval: 1s, maximum_attempts: 3 }
steps:
  - create:
      activity: create-order
      input: "${ input }"
      compensate: { activity: cancel-order }
  - payment:
      activity: process-payment
      compensate: { activity: refund-payment }
  - stock:
      activity: reserve-inventory
      compensate: { activity: release-inventory }
  - confirm:
      activity: send-confirmation
      no_undo: a message cannot be unsent
output: { payment: "${ steps.payment }" }
"#;

/// What a worker does with a delivery of a task.
#[derive(Debug, Clone, Default)]
pub(super) struct Act {
    /// The `Knarr-Outcome`; none = completed.
    pub(super) outcome: Option<&'static str>,
    pub(super) error_type: Option<&'static str>,
    /// Whether the step's effect has taken place, whatever is said of it.
    pub(super) effect: bool,
    pub(super) takes_ms: u64,
    pub(super) by_log: bool,
    /// Handed in so many times more.
    pub(super) repeats: u32,
    /// Says nothing and lets the lease end.
    pub(super) dies: bool,
    /// Says nothing, and the server is told that it is done.
    pub(super) forgets: bool,
    pub(super) output: Option<Value>,
}

pub(super) fn done() -> Act {
    Act {
        effect: true,
        ..Act::default()
    }
}

pub(super) fn failed() -> Act {
    Act {
        outcome: Some("failed"),
        error_type: Some("declined"),
        ..Act::default()
    }
}

/// A task as a script sees it.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    pub(super) workflow_id: &'a str,
    pub(super) activity: &'a str,
    pub(super) step: &'a str,
    pub(super) attempt: u32,
    pub(super) deliveries: u32,
    pub(super) random: &'a Random,
}

pub(super) type Script = Arc<dyn Fn(&Delivery<'_>) -> Act + Send + Sync>;

/// The world that sagas change: what was done and undone, by run and step.
type Effects = Arc<Mutex<BTreeMap<(String, String), BTreeSet<&'static str>>>>;

pub(super) struct Replica {
    pub(super) line: Arc<Line>,
    store: MemoryStore,
    bus: MemoryBus,
    shutdown: CancellationToken,
    pub(super) running: JoinHandle<Result<(), EngineError>>,
}

impl Replica {
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.running).await;
        match ended.expect("a replica stops in time") {
            Ok(ended) => ended.unwrap(),
            // Its line may have been told to die at a call that stopping makes: then it has crashed instead.
            Err(death) => assert!(death.is_cancelled(), "{death}"),
        }
        self.store.kill_process();
        self.bus.kill_process();
    }

    /// As SIGKILL does.
    pub(super) fn kill(&self) {
        self.line.die();
        self.running.abort();
        self.store.kill_process();
        self.bus.kill_process();
    }

    /// Itself if it is needed; otherwise it was never there.
    pub(super) fn checked(self, needed: bool) -> Option<Self> {
        if needed {
            return Some(self);
        }
        self.kill();
        None
    }

    pub(super) fn has_ended(&self) -> bool {
        self.running.is_finished()
    }
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) store: MemoryStore,
    committed: Arc<Committed>,
    pub(super) bus: MemoryBus,
    pub(super) weather: Arc<Weather>,
    pub(super) random: Arc<Random>,
    pub(super) config: EngineConfig,
    effects: Effects,
    lines: Vec<Arc<Line>>,
    /// Of the binaries of replicas that are started from here on.
    pub(super) reads_format: i32,
    longest_wait: Arc<AtomicU64>,
    /// How far the bus's clock is ahead of the store's, in microseconds.
    pub(super) bus_ahead: Arc<AtomicI64>,
    /// How far the store's clock has leapt, in microseconds.
    leapt: Arc<AtomicI64>,
    alive: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.alive.cancel();
        if std::thread::panicking() {
            eprintln!("the seed is {}", self.seed);
        }
    }
}

const EPOCH: i64 = 1_700_000_000_000_000;

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        Self::of_level(seed, FORMAT_LEVEL).await
    }

    /// A cluster that was initialised by a binary that knows this storage format.
    pub(super) async fn of_level(seed: u64, level: i32) -> Self {
        let store = MemoryStore::new().reading(level);
        let began = tokio::time::Instant::now();
        let clock = move || Timestamp(EPOCH + i64::try_from(began.elapsed().as_micros()).unwrap());
        let bus_ahead = Arc::new(AtomicI64::new(0));
        let ahead = Arc::clone(&bus_ahead);
        let leapt = Arc::new(AtomicI64::new(0));
        let bus = MemoryBus::with_clock(move || Timestamp(clock().0 + ahead.load(Ordering::SeqCst)));
        store.set_now(clock());
        let mut config = EngineConfig::new("r0");
        config.partitions = 3;
        let world = Self {
            seed,
            committed: Committed::new(store.clone()),
            store,
            bus,
            weather: Arc::default(),
            random: Arc::new(Random::new(seed)),
            config,
            effects: Arc::default(),
            lines: Vec::new(),
            reads_format: level,
            longest_wait: Arc::default(),
            bus_ahead,
            leapt: Arc::clone(&leapt),
            alive: CancellationToken::new(),
        };
        let cluster = world.store.prepare(3).await.unwrap();
        world.bus.prepare(cluster.id, 3).await.unwrap();
        world.register(ORDER).await;
        let (alive, ticking) = (world.alive.clone(), world.store.clone());
        tokio::spawn(async move {
            while !alive.is_cancelled() {
                ticking.set_now(Timestamp(clock().0 + leapt.load(Ordering::SeqCst)));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        world
    }

    pub(super) async fn register(&self, text: &str) {
        self.register_in("default", text).await;
    }

    pub(super) async fn register_in(&self, namespace: &str, text: &str) {
        let namespace = Namespace::new(namespace);
        let row = NamespaceRow {
            name: namespace.clone(),
            retention_class: 1,
            events: false,
        };
        self.store.create_namespace(&row).await.unwrap();
        let checked = definition::read(text, &|_| Err("no files".to_owned())).unwrap();
        let definition = StoredDefinition {
            namespace: namespace.clone(),
            workflow: checked.plan.workflow.clone(),
            version: i32::try_from(checked.plan.version).unwrap(),
            hash: checked.hash.clone(),
            body: checked.canonical.clone(),
            source: text.to_owned(),
            registered_at: Timestamp(EPOCH),
        };
        self.store.register_definition(&definition).await.unwrap();
        let queues = checked.plan.queues().into_iter().chain([QueueName::new("orders")]);
        let settings = queues.map(|queue| QueueSettings {
            queue,
            ack_wait: Duration::from_secs(30),
        });
        let settings: Vec<_> = settings.collect();
        self.bus.ensure_queues(&namespace, &settings).await.unwrap();
    }

    /// Starts a replica; one that dies at a crossing of its line does so by itself.
    pub(super) fn replica(&mut self, name: &str) -> Replica {
        self.replica_dying_at(name, 0)
    }

    pub(super) fn replica_dying_at(&mut self, name: &str, crossing: u64) -> Replica {
        let line = Line::new(self.random.next(), Arc::clone(&self.weather));
        line.dies_at.store(crossing, Ordering::SeqCst);
        self.lines.push(Arc::clone(&line));
        let (store, bus) = (
            self.store.another_process().reading(self.reads_format),
            self.bus.another_process(),
        );
        let mut config = self.config.clone();
        config.replica = name.to_owned();
        let engine = Engine::new(
            config,
            Arc::new(LineStore {
                line: Arc::clone(&line),
                store: store.clone(),
            }),
            Arc::new(LineBus {
                line: Arc::clone(&line),
                bus: bus.clone(),
                truth: Arc::clone(&self.committed),
            }),
        );
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(engine.run(shutdown.clone()));
        let (abort, dying) = (running.abort_handle(), Arc::clone(&line));
        let (dying_store, dying_bus) = (store.clone(), bus.clone());
        tokio::spawn(async move {
            dying.died.notified().await;
            abort.abort();
            dying_store.kill_process();
            dying_bus.kill_process();
        });
        Replica {
            line,
            store,
            bus,
            shutdown,
            running,
        }
    }

    /// Notes the longest time, in milliseconds, that a worker waited for word of a result handed in.
    pub(super) fn watch_hand_in(&mut self, longest: &Arc<AtomicU64>) {
        self.longest_wait = Arc::clone(longest);
    }

    /// A pool of workers that pull everything of the queue `orders` and behave as the script says.
    pub(super) fn work(&self, script: Script) {
        self.work_at("orders", script);
    }

    pub(super) fn work_at(&self, queue: &'static str, script: Script) {
        let longest_wait = Arc::clone(&self.longest_wait);
        let (bus, effects, random, alive) = (
            self.bus.clone(),
            Arc::clone(&self.effects),
            Arc::clone(&self.random),
            self.alive.clone(),
        );
        tokio::spawn(async move {
            while let Some(tasks) = alive.run_until_cancelled(bus.next_tasks("default", queue, 10)).await {
                for task in tasks {
                    let act = {
                        let text = |name| header(&task.headers, name).unwrap();
                        let id = subject::decode_token(text(names::WORKFLOW_ID)).unwrap().into_owned();
                        script(&Delivery {
                            workflow_id: &id,
                            activity: text(names::ACTIVITY),
                            step: text(names::STEP),
                            attempt: text(names::ATTEMPT).parse().unwrap(),
                            deliveries: task.deliveries,
                            random: &random,
                        })
                    };
                    tokio::spawn(work_on(
                        bus.clone(),
                        task,
                        act,
                        Arc::clone(&effects),
                        Arc::clone(&longest_wait),
                    ));
                }
            }
        });
    }

    /// Publishes a start until it is stored, and returns its sequence.
    pub(super) async fn start(&self, id: &str, headers: &[(&str, &str)]) -> u64 {
        self.publish(
            &subject::start("default", id, "order").unwrap(),
            headers,
            json!({ "order": id }),
        )
        .await
    }

    pub(super) async fn publish(&self, subject: &str, headers: &[(&str, &str)], body: Value) -> u64 {
        publish(&self.bus, subject, &headers_of(headers), &body.to_string()).await
    }

    pub(super) async fn verb(&self, id: &str, verb: &str, headers: &[(&str, &str)]) -> u64 {
        self.verb_with(id, verb, headers, Value::Null).await
    }

    pub(super) async fn verb_with(&self, id: &str, verb: &str, headers: &[(&str, &str)], body: Value) -> u64 {
        let proof = format!("{verb} default");
        let mut all = vec![(names::VERB, proof.as_str())];
        all.extend_from_slice(headers);
        self.publish(&subject::run_verb("default", id, verb).unwrap(), &all, body)
            .await
    }

    /// The next answer at an inbox.
    pub(super) async fn answer(
        &self,
        inbox: &mut tokio::sync::mpsc::UnboundedReceiver<crate::bus::Outgoing>,
    ) -> body::Answer {
        self.perhaps_answer(inbox).await.unwrap_or_else(|| panic!("no answer"))
    }

    /// As long as anybody would wait for one.
    pub(super) async fn perhaps_answer(
        &self,
        inbox: &mut tokio::sync::mpsc::UnboundedReceiver<crate::bus::Outgoing>,
    ) -> Option<body::Answer> {
        let message = tokio::time::timeout(Duration::from_secs(100), inbox.recv()).await;
        let message = message.ok()?.unwrap();
        Some(serde_json::from_slice(&message.payload).unwrap())
    }

    pub(super) async fn format_level(&self) -> i32 {
        let newest = self.store.another_process().reading(i32::MAX);
        newest.prepare(3).await.unwrap().format_level
    }

    pub(super) fn rows(&self) -> Vec<RunRow> {
        self.rows_in("default")
    }

    pub(super) fn rows_in(&self, namespace: &str) -> Vec<RunRow> {
        let filter = RunFilter {
            limit: 1_000,
            ..RunFilter::default()
        };
        let rows = self.store.list_runs(&Namespace::new(namespace), &filter).now_or_never();
        rows.expect("the memory store does not wait").unwrap()
    }

    pub(super) fn rows_of(&self, id: &str) -> Vec<RunRow> {
        let mut rows = self.rows();
        rows.retain(|row| row.workflow_id.as_str() == id);
        rows.sort_by_key(|row| row.run_id);
        rows
    }

    pub(super) fn statuses(&self) -> BTreeMap<String, String> {
        let rows = self.rows();
        rows.into_iter()
            .map(|row| (row.workflow_id.to_string(), row.status))
            .collect()
    }

    pub(super) async fn state(&self, run: RunId) -> State {
        self.committed.of(run, |folded| folded.state.clone()).unwrap()
    }

    /// The same, without a copy.
    pub(super) fn look<T>(&self, run: RunId, look: impl FnOnce(&State) -> T) -> T {
        self.committed.of(run, |folded| look(&folded.state)).unwrap()
    }

    pub(super) async fn events(&self, run: RunId) -> Vec<Event> {
        events_of(&self.store, run).await
    }

    /// The database's clock leaps, by so many milliseconds.
    pub(super) fn leap(&self, ms: i64) {
        self.leapt.fetch_add(ms * 1_000, Ordering::SeqCst);
    }

    /// And NATS's with it.
    pub(super) fn leap_together(&self, ms: i64) {
        self.leap(ms);
        self.bus_ahead.fetch_add(ms * 1_000, Ordering::SeqCst);
    }

    /// What was done and undone of each step of a run.
    pub(super) fn effects_of(&self, run: RunId) -> Vec<(String, BTreeSet<&'static str>)> {
        let effects = self.effects.lock().unwrap();
        let of = effects.iter().filter(|((id, _), _)| *id == run.to_string());
        of.map(|((_, step), seen)| (step.clone(), seen.clone())).collect()
    }

    /// How often store and bus were called, by all replicas there were.
    pub(super) fn calls(&self) -> u64 {
        self.lines.iter().map(|line| line.crossings()).sum()
    }

    /// Waits, in the world's time, until something holds.
    pub(super) async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        self.within(Duration::from_secs(300), what, &mut holds).await;
    }

    pub(super) async fn within(&self, limit: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + limit;
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never: {what}\nseed {}\nruns: {:#?}\ncommits: {:?}",
                self.seed,
                self.statuses(),
                self.store.dump(|_| 0).commits
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn closed(&self) -> usize {
        self.rows().iter().filter(|row| row.closed_at.is_some()).count()
    }

    /// Nothing is owed, and every cursor has passed the last message of its partition.
    pub(super) fn is_quiet(&self) -> bool {
        let dump = self.store.dump(|_| 0);
        let ends = self.bus.log_ends();
        dump.commits.is_empty()
            && dump.deferred.is_empty()
            && dump
                .partitions
                .iter()
                .all(|row| row.cursor.sequence >= ends.get(&row.partition).copied().unwrap_or(0))
    }

    pub(super) async fn quiet(&self) {
        self.until("quiet", Self::is_quiet).await;
        self.check().await;
    }

    /// What must hold of the store once it is quiet, whatever has happened.
    pub(super) async fn check(&self) {
        for line in &self.lines {
            let crimes = line.crimes.lock().unwrap();
            assert!(crimes.is_empty(), "seed {}: {crimes:#?}", self.seed);
        }
        let mut open = BTreeSet::new();
        for row in self.rows() {
            let seed = self.seed;
            let run = row.run_id;
            let history = self.store.history(run, 0, 10_000).await.unwrap();
            for (index, transition) in history.iter().enumerate() {
                assert_eq!(
                    usize::try_from(transition.seq).unwrap(),
                    index + 1,
                    "seed {seed}: {run} has a gap"
                );
            }
            let folded = self.state(run).await;
            let stored = self.store.load_runs(&[run]).await.unwrap().remove(0);
            assert_eq!(
                fetch::rebuild(&stored).unwrap(),
                folded,
                "seed {seed}: a snapshot of {run} is wrong"
            );
            assert_eq!(folded.status().as_str(), row.status, "seed {seed}: the row of {run}");
            assert_eq!(folded.closed_at(), row.closed_at, "seed {seed}: the row of {run}");
            if let Some(wake) = folded.wake_at() {
                assert!(
                    row.wake_at.is_some_and(|stored| stored <= wake),
                    "seed {seed}: {run} would sleep too long"
                );
            }
            if row.has_id() {
                assert!(
                    open.insert(row.workflow_id.clone()),
                    "seed {seed}: two open runs of {}",
                    row.workflow_id
                );
            }
            let mut outcomes = BTreeMap::new();
            for event in self.events(run).await {
                if let Some(task) = outcome_of(&event) {
                    let count = outcomes.entry(task).or_insert(0);
                    *count += 1;
                    assert_eq!(*count, 1, "seed {seed}: task {task:?} of {run} has two outcomes");
                }
            }
            if row.workflow.as_str() == "order" {
                self.check_effects(&row, &folded);
            }
        }
    }

    /// A run that completed has done everything and undone nothing; one that was compensated has left nothing behind.
    fn check_effects(&self, row: &RunRow, state: &State) {
        let effects = self.effects.lock().unwrap();
        let of = |key: &str| {
            effects
                .get(&(row.run_id.to_string(), key.to_owned()))
                .cloned()
                .unwrap_or_default()
        };
        for step in ["create", "payment", "stock"] {
            let seen = of(step);
            match row.status.as_str() {
                "completed" => assert_eq!(
                    seen.iter().copied().collect::<Vec<_>>(),
                    ["do"],
                    "seed {}: {step} of the completed {}",
                    self.seed,
                    row.workflow_id
                ),
                "failed" | "compensated" | "cancelled" | "timed_out" => assert!(
                    !seen.contains("do") || seen.contains("undo"),
                    "seed {}: {step} of {} ({}) was done and is not undone: {state:#?}",
                    self.seed,
                    row.workflow_id,
                    row.status
                ),
                _ => {}
            }
        }
    }
}

fn outcome_of(event: &Event) -> Option<knarr_core::ids::TaskNo> {
    match event {
        Event::TaskCompleted { task, .. }
        | Event::TaskFailed { task, .. }
        | Event::TaskUnknown { task, .. }
        | Event::TaskCancelled { task }
        | Event::TaskDeferred { task, .. }
        | Event::TaskTimedOut { task, .. }
        | Event::TaskLost { task, .. } => Some(*task),
        _ => None,
    }
}

pub(super) fn headers_of(headers: &[(&str, &str)]) -> Headers {
    headers
        .iter()
        .map(|(name, value)| (Arc::from(*name), (*value).to_owned()))
        .collect()
}

async fn publish(bus: &MemoryBus, subject: &str, headers: &Headers, body: &str) -> u64 {
    loop {
        match bus.publish_to_log(subject, headers.clone(), Bytes::from(body.to_owned())) {
            Ok(sequence) => return sequence,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// One delivery, as the SDK handles it.
async fn work_on(bus: MemoryBus, task: PulledTask, act: Act, effects: Effects, longest_wait: Arc<AtomicU64>) {
    let text = |name| header(&task.headers, name).unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(act.takes_ms)).await;
    if act.effect {
        let direction = if text(names::DIRECTION) == "do" { "do" } else { "undo" };
        let step = text(names::STEP);
        effects
            .lock()
            .unwrap()
            .entry((text(names::RUN_ID), step))
            .or_default()
            .insert(direction);
    }
    if act.dies {
        tokio::time::sleep(Duration::from_secs(2)).await;
        bus.redeliver(&task);
        return;
    }
    if act.forgets {
        bus.acknowledge(&task);
        return;
    }
    let token = text(names::TOKEN);
    let inbox = format!("_INBOX.w.{}", task.sequence);
    let mut headers = headers_of(&[(names::TOKEN, &token), (names::CONFIRM, &inbox)]);
    for (name, value) in [(names::OUTCOME, act.outcome), (names::ERROR_TYPE, act.error_type)] {
        headers.extend(value.map(|value| (Arc::from(name), value.to_owned())));
    }
    let output = match act.outcome {
        None => act
            .output
            .unwrap_or_else(|| json!({ "by": text(names::TASK) }))
            .to_string(),
        Some(_) => String::new(),
    };
    let mut confirmations = bus.subscribe(&inbox);
    let direct = format!("{}.result", text(names::DIRECT));
    let mut confirmed = false;
    for _ in 0..if act.by_log { 0 } else { 2 } {
        let mut listens = false;
        for _ in 0..=act.repeats {
            listens |= bus.send_direct(&direct, headers.clone(), Bytes::from(output.clone()), None);
        }
        if !listens {
            break;
        }
        let handed_in = tokio::time::Instant::now();
        let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(1), confirmations.recv()).await else {
            longest_wait.fetch_max(1_000, Ordering::SeqCst);
            continue;
        };
        let waited = u64::try_from(handed_in.elapsed().as_millis()).unwrap();
        longest_wait.fetch_max(waited, Ordering::SeqCst);
        let confirmation: body::Confirmation = serde_json::from_slice(&message.payload).unwrap();
        confirmed = confirmation.results.iter().any(|result| result.token == token);
        if confirmed || confirmation.moved.contains(&token) {
            break;
        }
    }
    if !confirmed {
        for _ in 0..=act.repeats {
            publish(&bus, &text(names::REPLY), &headers, &output).await;
        }
    }
    bus.acknowledge(&task);
}
