//! What has to be done at the start and now and then, beside the loop: seeing to the task queues, letting the log forget
//! what is committed and keep room for results, and making partitions of `events` ahead of their days. Every replica does
//! it; doing it twice is harmless.
//!
//! It goes on while the store is away: then the log fills, and its head-room matters most.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use knarr_core::ids::Namespace;
use knarr_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{code, queues};
use crate::bus::Bus;
use crate::bus::head_room::Taken;
use crate::queues::KnownQueues;
use crate::store::{Store, StoreError};
use crate::telemetry::metric;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// The same while the log is fuller than [`BUSY_FROM`] percent: it takes starts as fast as they come.
const EVERY_WHEN_BUSY: Duration = Duration::from_millis(500);
const BUSY_FROM: u64 = 25;
/// Between two looks at the days of `events`.
const PARTITIONS_EVERY: Duration = Duration::from_secs(3_600);

/// What renewals of the lease have heard of.
#[derive(Debug, Default, Clone)]
pub(super) struct Heard {
    /// Counts what was new: while nothing is committed anywhere the store is not asked anything.
    pub(super) changes: Arc<AtomicU64>,
    /// The epoch of definitions, and of what operators allow queues; 0 = not heard of yet.
    pub(super) epoch: Arc<AtomicI64>,
}

pub(super) async fn run<S: Store, B: Bus>(store: Arc<S>, bus: Arc<B>, heard: Heard, stop: CancellationToken) {
    let mut upkeep = Upkeep {
        store,
        bus,
        known: KnownQueues::default(),
        queues_made: None,
        namespaces: Vec::new(),
        partitions_made: None,
    };
    let mut pause = EVERY;
    let mut followed = 0;
    upkeep.read_namespaces().await;
    loop {
        upkeep.make_queues(heard.epoch.load(Ordering::Relaxed)).await;
        upkeep.make_partitions().await;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let changes = heard.changes.load(Ordering::Relaxed);
        if changes != followed && upkeep.follow().await {
            followed = changes;
        }
        pause = upkeep.keep_head_room().await;
    }
}

struct Upkeep<S, B> {
    store: Arc<S>,
    bus: Arc<B>,
    known: KnownQueues,
    /// In which epoch of the definitions.
    queues_made: Option<i64>,
    /// Those that were there when the store last said so.
    namespaces: Vec<Namespace>,
    partitions_made: Option<tokio::time::Instant>,
}

impl<S: Store, B: Bus> Upkeep<S, B> {
    /// What follows from what has been committed; whether all of it has been done.
    async fn follow(&mut self) -> bool {
        let purged = self.purge_log().await;
        let counted = self.count_parked().await;
        let read = self.read_namespaces().await;
        purged && counted && read
    }

    async fn read_namespaces(&mut self) -> bool {
        let Ok(rows) = self.store.namespaces().await else {
            return false;
        };
        self.namespaces = rows.into_iter().map(|row| row.name).collect();
        true
    }

    /// Whichever replica was told something of them: it may have died before it said so to the bus, or another may have said
    /// last what it had read before.
    async fn make_queues(&mut self, epoch: i64) {
        if self.queues_made == Some(epoch) {
            return;
        }
        match queues::ensure_all(&*self.store, &*self.bus, &self.known).await {
            Ok(()) => self.queues_made = Some(epoch),
            Err(error) => tracing::warn!(%error, "the task queues cannot be made yet"),
        }
    }

    async fn make_partitions(&mut self) {
        if self.partitions_made.is_some_and(|at| at.elapsed() < PARTITIONS_EVERY) {
            return;
        }
        self.partitions_made = Some(tokio::time::Instant::now());
        let made: Result<(), StoreError> = async {
            let now: Timestamp = self.store.now().await?;
            self.store.ensure_partitions(now).await
        }
        .await;
        if let Err(error) = made {
            tracing::warn!(%error, "partitions of events cannot be made ahead; commits go on without them");
        }
    }

    async fn purge_log(&mut self) -> bool {
        let cursors = match self.store.all_cursors().await {
            Ok(cursors) => cursors,
            Err(error) => {
                tracing::debug!(%error, "the cursors cannot be read; the log is not purged this time");
                return false;
            }
        };
        let cursors: Vec<_> = cursors
            .into_iter()
            .map(|owned| (owned.partition, owned.cursor))
            .collect();
        match self.bus.purge_log(&cursors).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "the log is not purged this time");
                false
            }
        }
    }

    async fn count_parked(&self) -> bool {
        match self.store.count_parked().await {
            Ok(parked) => {
                metrics::gauge!(metric::RUNS_PARKED).set(parked as f64);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "how many runs are parked cannot be found out");
                false
            }
        }
    }

    /// Returns how long to wait until the next round.
    async fn keep_head_room(&mut self) -> Duration {
        let room = match self.bus.keep_head_room(&self.namespaces).await {
            Ok(room) => room,
            Err(error) => {
                tracing::debug!(%error, "how full the log is cannot be found out");
                return EVERY;
            }
        };
        let percent = room.fill.percent();
        metrics::gauge!(metric::LOG_FILL).set(percent as f64);
        if room.changed {
            match &room.taken {
                Taken::All => tracing::info!(percent, "the log has room again: it takes all starts"),
                Taken::Of(namespaces) => {
                    metrics::counter!(metric::STARTS_THROTTLED).increment(1);
                    tracing::warn!(
                        code = code::STARTS_THROTTLED.id,
                        percent,
                        taken = ?namespaces,
                        "the log fills: only starts of these namespaces are taken, so that results keep their room"
                    );
                }
            }
        }
        match percent >= BUSY_FROM || room.taken != Taken::All {
            true => EVERY_WHEN_BUSY,
            false => EVERY,
        }
    }
}
