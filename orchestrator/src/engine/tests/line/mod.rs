//! Store and bus as one replica reaches them: every call takes a while, can be lost, and the replica can die at any of them.

mod bus;
mod committed;
mod random;
mod store;
mod weather;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use knarr_core::ids::RunId;
use tokio::sync::Notify;

use crate::store::{StoreError, StoredTransition};

pub(crate) use self::bus::LineBus;
pub(crate) use self::committed::{Committed, events_of};
pub(crate) use self::random::Random;
pub(crate) use self::store::LineStore;
pub(crate) use self::weather::Weather;

/// The line from one replica to everything outside of it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) random: Random,
    pub(crate) weather: Arc<Weather>,
    crossings: AtomicU64,
    /// The replica dies at this crossing; 0 = never.
    pub(crate) dies_at: AtomicU64,
    dead: AtomicBool,
    stalls_until: Mutex<Option<tokio::time::Instant>>,
    pub(crate) died: Notify,
    pub(crate) commits: AtomicU64,
    pub(crate) keeps: AtomicU64,
    pub(crate) publications: AtomicU64,
    /// Partitions that were opened, each time.
    pub(crate) opened: AtomicU64,
    /// The most bytes of messages that one answer about owed commits had.
    pub(crate) most_owed: AtomicU64,
    /// Questions to the store, beside renewals and commits.
    pub(crate) reads: AtomicU64,
    /// Those of them that ask for deadlines.
    pub(crate) dues: AtomicU64,
    /// Runs that were asked for by their ids.
    pub(crate) loads: AtomicU64,
    /// What must never happen and did.
    pub(crate) crimes: Mutex<Vec<String>>,
}

impl Line {
    pub(crate) fn new(seed: u64, weather: Arc<Weather>) -> Arc<Self> {
        Arc::new(Self {
            random: Random::new(seed),
            weather,
            crossings: AtomicU64::new(0),
            dies_at: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            stalls_until: Mutex::default(),
            died: Notify::new(),
            commits: AtomicU64::new(0),
            keeps: AtomicU64::new(0),
            publications: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            most_owed: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            dues: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            crimes: Mutex::default(),
        })
    }

    /// From here on nothing of the replica reaches the outside, and nothing it waits for returns.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// Every call from now on takes until then.
    pub(crate) fn stall(&self, time: Duration) {
        *self.stalls_until.lock().unwrap() = Some(tokio::time::Instant::now() + time);
    }

    pub(crate) fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::SeqCst)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    async fn cross(&self) {
        let number = self.crossings.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.dies_at.load(Ordering::SeqCst) {
            self.die();
        }
        let stalls = *self.stalls_until.lock().unwrap();
        if let Some(end) = stalls {
            tokio::time::sleep_until(end).await;
        }
        let latency = self.weather.latency_ms.load(Ordering::SeqCst);
        if latency > 0 && !self.is_dead() {
            tokio::time::sleep(Duration::from_millis(self.random.below(latency + 1))).await;
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Stands in for a bug of store or bus.
    fn perhaps_panic(&self, call: &'static str) {
        let mut panics = self.weather.panics.lock().unwrap();
        if *panics == Some(call) {
            *panics = None;
            drop(panics);
            panic!("a panic in {call}, asked for by a test");
        }
    }

    async fn read<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.cross().await;
        if self.random.one_in(self.weather.fail_read.load(Ordering::SeqCst)) {
            return Err(StoreError::Unavailable("the line is down".to_owned()));
        }
        let answer = call.await;
        self.cross().await;
        answer
    }

    fn spoil(&self, run: RunId, transitions: &mut [StoredTransition]) {
        let all = self.weather.spoils_events.load(Ordering::SeqCst);
        if all || *self.weather.spoils_run.lock().unwrap() == Some(run) {
            for transition in transitions {
                "[{}]".clone_into(&mut transition.body);
            }
        }
    }

    fn crime(&self, what: String) {
        self.crimes.lock().unwrap().push(what);
    }
}
