//! A replica's engine: what it is made of, and how its loop begins.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use knarr_core::time::Timestamp;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::BatchBuilder;
use super::beats::Pulses;
use super::clock::Clock;
use super::config::EngineConfig;
use super::deadlines::Alarms;
use super::deferred_runs::Deferral;
use super::definitions::Definitions;
use super::fetch::Wanted;
use super::gate::Gate;
use super::in_line::InLine;
use super::job_reader::JobReader;
use super::limits::Limiters;
use super::live::LiveRuns;
use super::offers::Offers;
use super::partitions::Partitions;
use super::publication::{LOADED_TO_OFFER, Publisher};
use super::queue_limits::{self, KnownLimits};
use super::readers::Readers;
use super::run_loop::Loop;
use super::stored_answer::StoredAnswers;
use super::token::TokenKey;
use super::triggers::Triggers;
use super::upkeep::Heard;
use super::withdrawals::Withdrawals;
use crate::bus::Bus;
use crate::bus::inlet::Room;
use crate::store::{Store, StoreError};
use crate::telemetry::span::SpanSink;

/// Why an engine could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] crate::bus::BusError),
}

/// What readiness asks.
#[derive(Debug, Default)]
pub struct Health {
    store: AtomicBool,
    serving: AtomicBool,
}

impl Health {
    /// The store answered last time, and this replica holds a session.
    pub fn ready(&self) -> bool {
        self.store() && self.serving()
    }

    /// The store answered last time.
    pub fn store(&self) -> bool {
        self.store.load(Ordering::Relaxed)
    }

    /// This replica holds a session.
    pub fn serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    pub(super) fn set_store(&self, up: bool) {
        self.store.store(up, Ordering::Relaxed);
    }

    pub(super) fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
    }
}

/// A replica's engine, before it runs.
#[derive(Debug)]
pub struct Engine<S, B> {
    pub config: EngineConfig,
    pub store: Arc<S>,
    pub bus: Arc<B>,
    pub definitions: Arc<Definitions>,
    pub health: Arc<Health>,
    /// Where spans of runs go; `None` = nowhere.
    pub spans: Option<SpanSink>,
}

impl<S: Store, B: Bus> Engine<S, B> {
    pub fn new(config: EngineConfig, store: Arc<S>, bus: Arc<B>) -> Self {
        Self {
            config,
            store,
            bus,
            definitions: Arc::default(),
            health: Arc::default(),
            spans: None,
        }
    }

    /// Prepares store and bus, then runs until `shutdown`; hands its partitions over before it returns.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let cluster = self.store.prepare(self.config.partitions).await?;
        self.bus.prepare(cluster.id, cluster.partitions).await?;
        let session = self.store.open_session(&self.config.replica).await?;
        // Nothing may go out before it is known what may.
        let queue_limits = loop {
            match self.store.queues().await {
                Ok(rows) => break queue_limits::read(rows),
                Err(error @ StoreError::Unavailable(_)) => {
                    tracing::warn!(%error, "limits of queues cannot be read yet")
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        };
        let clock = Clock::new(self.store.now().await?, Instant::now());
        let tokens = Arc::new(TokenKey::new(&cluster.secret));
        let (intake, incoming) = mpsc::channel(self.config.intake);
        let (done, reports) = mpsc::unbounded_channel();
        let room = Room::new(self.config.intake_bytes, self.config.direct_bytes, cluster.partitions);
        let publications = CancellationToken::new();
        let upkeep = CancellationToken::new();
        let upkeep_ends = upkeep.clone().drop_guard();
        let heard = Heard {
            changes: Arc::new(AtomicU64::new(1)),
            ..Heard::default()
        };
        let kept_up = tokio::spawn(super::upkeep::run(
            Arc::clone(&self.store),
            Arc::clone(&self.bus),
            heard.clone(),
            upkeep,
        ));
        let run_loop = Loop {
            reader: JobReader::new(Arc::clone(&tokens), &self.config, self.bus.max_body()),
            stored_answers: StoredAnswers::new(),
            publisher: Publisher {
                bus: Arc::clone(&self.bus),
                tokens: Arc::clone(&tokens),
                spans: self.spans.clone(),
                stop: publications,
                loads: Arc::new(Semaphore::new(LOADED_TO_OFFER)),
            },
            alarms: Alarms::new(self.config.deadline_horizon),
            pulses: Pulses::default(),
            config: self.config,
            store: self.store,
            bus: self.bus,
            definitions: self.definitions,
            health: self.health,
            spans: self.spans,
            tokens,
            clock,
            cluster,
            session,
            random: ring::rand::SystemRandom::new(),
            minted: Timestamp(0),
            partitions: Partitions::default(),
            live: LiveRuns::default(),
            direct: VecDeque::new(),
            lacking: Vec::new(),
            wanted: Wanted::default(),
            absent: HashMap::new(),
            fetching: None,
            fetches: 0,
            fetches_done: 0,
            fetch_after: None,
            fetching_since: Instant::now(),
            deferral: Deferral::default(),
            limiters: Limiters::default(),
            in_line: InLine::default(),
            triggers: Triggers::default(),
            queue_limits: KnownLimits::new(queue_limits),
            fetch_readers: 0,
            fetch_committed: 0,
            building: BatchBuilder::new(1),
            committing: None,
            writing: Arc::new(Mutex::new(())),
            committed: 0,
            gate: Gate::default(),
            scanning: false,
            scan_readers: 0,
            scan_after: None,
            scan_from: Timestamp(i64::MIN),
            published: Vec::new(),
            held: HashMap::new(),
            offers: Offers::default(),
            withdrawals: Withdrawals::default(),
            continuing: HashMap::new(),
            owing_successors: HashMap::new(),
            given_up: HashSet::new(),
            restoring: HashSet::new(),
            poisoned: HashSet::new(),
            careful: 0,
            careful_until: None,
            unparkable: HashSet::new(),
            readers: Readers::default(),
            moved: HashMap::new(),
            keeping: false,
            heard: None,
            changes: heard.changes,
            epoch: heard.epoch,
            recovering: false,
            stopping: false,
            over: None,
            stop_by: None,
            life: 1,
            failed: 0,
            limbo: None,
            intake,
            room,
            publishing_bytes: 0,
            first: i16::MIN,
            done,
            tasks: TaskTracker::new(),
        };
        let ended = run_loop.run(incoming, reports, shutdown).await;
        drop(upkeep_ends);
        // A panic there has been logged; it must not hide that the engine has ended well.
        let _ = kept_up.await;
        Ok(ended?)
    }
}
