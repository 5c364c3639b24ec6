//! The same random operations on the model and on PostgreSQL: equal answers, and equal contents after each of them.
//!
//! `KNARR_SEED` replays a run, `KNARR_STEPS` makes it longer; both are printed when it fails.

mod commits;
mod reads;
mod sessions;

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::store::conformance::{MemoryRig, PARTITIONS, Rig};
use crate::store::memory::MemoryStore;
use crate::store::postgres::{PostgresStore, testing};
use crate::store::{CommitError, Session, Store, StoreError};

/// Small and good enough: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn partition(&mut self) -> i16 {
        i16::try_from(self.below(u64::from(PARTITIONS) + 1)).unwrap()
    }
}

/// One session as each store knows it.
#[derive(Clone, Copy)]
struct Pair {
    process: usize,
    /// Its process lives; what a dead one may still do is to have a commit arrive late.
    alive: bool,
    memory: Session,
    postgres: Session,
}

struct Process {
    memory: MemoryStore,
    postgres: PostgresStore,
}

struct World {
    random: Random,
    url: String,
    model: MemoryRig,
    processes: Vec<Process>,
    sessions: Vec<Pair>,
    /// How often each kind of operation has succeeded.
    succeeded: BTreeMap<&'static str, usize>,
}

const KINDS: [&str; 26] = [
    "open",
    "keep",
    "keep gained",
    "keep inherited",
    "owed",
    "release",
    "close",
    "recover",
    "cursors",
    "lapse",
    "kill",
    "commit",
    "commit fenced",
    "commit refused",
    "find",
    "load",
    "history",
    "due",
    "list",
    "schedules",
    "triggers",
    "forget",
    "register",
    "definition",
    "heads",
    "namespace",
];

/// Answers are compared as text, with errors reduced to their kind and sessions to their number.
fn outcome<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(StoreError::Fenced) => "fenced".to_owned(),
        Err(StoreError::TooOld { .. }) => "too old".to_owned(),
        Err(StoreError::NameTaken { .. }) => "name taken".to_owned(),
        Err(StoreError::Rejected(_)) => "rejected".to_owned(),
        Err(error @ (StoreError::Unavailable(_) | StoreError::TooSlow)) => panic!("{error}"),
    }
}

fn commit_outcome(result: &Result<(), CommitError>) -> &'static str {
    match result {
        Ok(()) => "commit",
        Err(CommitError::Fenced) => "commit fenced",
        Err(CommitError::BadData(_)) => "commit refused",
        Err(CommitError::Unknown(text)) => panic!("unknown: {text}"),
    }
}

impl World {
    async fn start(seed: u64) -> Self {
        let url = testing::database().await;
        let mut world = Self {
            random: Random(seed),
            model: MemoryRig::start().await,
            url,
            processes: Vec::new(),
            sessions: Vec::new(),
            succeeded: BTreeMap::new(),
        };
        for _ in 0..2 {
            let process = world.process().await;
            world.processes.push(process);
        }
        world.processes[0].postgres.prepare(PARTITIONS).await.unwrap();
        world
    }

    async fn process(&self) -> Process {
        let mut config = testing::config(&self.url);
        config.replica_lock_wait = std::time::Duration::from_millis(20);
        Process {
            memory: self.model.0.another_process(),
            postgres: PostgresStore::connect(config).await.unwrap(),
        }
    }

    fn count(&mut self, kind: &'static str) {
        assert!(KINDS.contains(&kind));
        *self.succeeded.entry(kind).or_default() += 1;
    }

    fn counted(&mut self, kind: &'static str, memory: String, postgres: String) {
        assert_eq!(memory, postgres, "{kind}");
        if memory != "fenced" && memory != "rejected" {
            self.count(kind);
        }
    }

    fn name(&self, id: Uuid) -> usize {
        self.sessions
            .iter()
            .position(|pair| pair.memory.id == id || pair.postgres.id == id)
            .unwrap()
    }

    /// Mostly one of the last, whose owner may still be alive.
    fn some_session(&mut self) -> Option<usize> {
        let all = self.sessions.len() as u64;
        let recent = if self.random.one_in(8) { all } else { all.min(2) };
        (all > 0).then(|| usize::try_from(all - 1 - self.random.below(recent)).unwrap())
    }

    async fn step(&mut self) {
        match self.random.below(30) {
            0 => self.open().await,
            1 | 2 => self.session_step().await,
            3 | 4 => self.keep().await,
            5 => self.kill().await,
            6..18 => self.commit().await,
            18..22 => self.read_runs().await,
            22..24 => self.lists().await,
            _ => self.definitions().await,
        }
        let memory = self.model.dump(|id| self.name(id)).await;
        let postgres = testing::dump(&self.url, |id| self.name(id)).await;
        assert_eq!(memory, postgres);
    }

    fn some_run(&mut self) -> u64 {
        1 + self.random.below(40)
    }
}

#[tokio::test]
async fn the_model_and_postgresql_agree() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = setting("KNARR_SEED").unwrap_or(1);
    let steps = setting("KNARR_STEPS").unwrap_or(400);
    let mut world = World::start(seed).await;
    let mut step = 0;
    // Shown only if the test fails.
    while step < steps || KINDS.iter().any(|kind| !world.succeeded.contains_key(kind)) {
        println!("KNARR_SEED={seed} step {step}");
        assert!(step < steps.max(400) * 20, "never succeeded: {:?}", world.succeeded);
        world.step().await;
        step += 1;
    }
    println!("{:?}", world.succeeded);
}
