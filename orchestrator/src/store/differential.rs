//! The same random operations on the model and on PostgreSQL: equal answers, and equal contents after each of them.
//!
//! `KNARR_SEED` replays a run, `KNARR_STEPS` makes it longer; both are printed when it fails.

use std::collections::BTreeMap;

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

use super::conformance::{
    MemoryRig, PARTITIONS, append, closed, deferred, definition, next, normalise, owed, permit, run, run_id,
};
use super::memory::MemoryStore;
use super::postgres::{PostgresStore, testing};
use super::{
    Batch, CommitError, CommitId, Cursor, CursorWrite, DeferredId, DefinitionFilter, DuePage, Forgotten,
    InheritedCommit, NamespaceRow, RunFilter, RunRow, RunWrite, Session, Share, Snapshot, Store, StoreError,
};
use crate::store::conformance::Rig;

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

    fn share(&self, share: Result<Share, StoreError>) -> Result<String, StoreError> {
        share.map(|share| {
            let mut inherited: Vec<_> = share
                .inherited
                .iter()
                .map(|commit| (self.name(commit.session), commit.batch_no))
                .collect();
            inherited.sort_unstable();
            format!(
                "{:?} {} {} {inherited:?} {:?}",
                share.gained, share.surplus, share.live_sessions, share.telling
            )
        })
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

    async fn open(&mut self) {
        let process = usize::try_from(self.random.below(2)).unwrap();
        let replica = self.random.pick(&["a", "b", "c"]);
        let there = &self.processes[process];
        let memory = there.memory.open_session(replica).await;
        let postgres = there.postgres.open_session(replica).await;
        match (memory, postgres) {
            (Ok(memory), Ok(postgres)) => {
                assert_eq!((memory.epoch, memory.batch_no), (postgres.epoch, postgres.batch_no));
                self.sessions.push(Pair {
                    process,
                    alive: true,
                    memory,
                    postgres,
                });
                self.count("open");
            }
            (memory, postgres) => assert_eq!(outcome(&memory.map(|_| ())), outcome(&postgres.map(|_| ()))),
        }
    }

    /// Everything that some commit owes, as far as this session is to publish it.
    async fn owed(&mut self, index: usize) {
        let pair = self.sessions[index];
        let commits = self.model.0.dump(|id| self.name(id)).commits;
        let ids = |of: fn(&Pair) -> Uuid| -> Vec<CommitId> {
            let id = |row: &super::conformance::CommitDump| CommitId {
                session: of(&self.sessions[row.session]),
                batch_no: row.batch_no,
            };
            commits.iter().map(id).collect()
        };
        let (in_memory, in_postgres) = (ids(|pair| pair.memory.id), ids(|pair| pair.postgres.id));
        let there = &self.processes[pair.process];
        let memory = there.memory.owed(&pair.memory, &in_memory).await.unwrap();
        let postgres = there.postgres.owed(&pair.postgres, &in_postgres).await.unwrap();
        let named = |owing: Vec<InheritedCommit>| {
            let owing = owing.into_iter();
            let mut named: Vec<_> = owing
                .map(|commit| ((self.name(commit.id.session), commit.id.batch_no), commit.owed))
                .collect();
            named.sort_by_key(|(name, _)| *name);
            named
        };
        let (memory, postgres) = (named(memory), named(postgres));
        assert_eq!(memory, postgres);
        if !memory.is_empty() {
            self.count("owed");
        }
    }

    async fn keep(&mut self) {
        let Some(index) = self.some_session() else { return };
        let pair = self.sessions[index];
        if !pair.alive {
            return;
        }
        let published = self.published(index);
        let there = &self.processes[pair.process];
        let memory = there.memory.keep(&pair.memory, &published.0).await;
        let postgres = there.postgres.keep(&pair.postgres, &published.1).await;
        if let Ok(share) = &memory {
            let (gained, inherited) = (!share.gained.is_empty(), !share.inherited.is_empty());
            if gained {
                self.count("keep gained");
            }
            if inherited {
                self.count("keep inherited");
            }
        }
        let (memory, postgres) = (self.share(memory), self.share(postgres));
        self.counted("keep", outcome(&memory), outcome(&postgres));
        self.owed(index).await;
    }

    /// Some of the commits that the session holds.
    fn published(&mut self, holder: usize) -> (Vec<CommitId>, Vec<CommitId>) {
        let held = self.model.0.dump(|id| self.name(id)).commits;
        let (mut memory, mut postgres) = (Vec::new(), Vec::new());
        for row in held {
            let wanted = if row.holder == holder { 3 } else { 20 };
            if self.random.one_in(wanted) {
                let pair = &self.sessions[row.session];
                let batch_no = row.batch_no;
                memory.push(CommitId {
                    session: pair.memory.id,
                    batch_no,
                });
                postgres.push(CommitId {
                    session: pair.postgres.id,
                    batch_no,
                });
            }
        }
        (memory, postgres)
    }

    async fn session_step(&mut self) {
        let Some(index) = self.some_session() else { return };
        let pair = self.sessions[index];
        let there = &self.processes[pair.process];
        let choice = if pair.alive { self.random.below(8) } else { 5 };
        match choice {
            0 => {
                let memory = there.memory.close_session(&pair.memory).await;
                let postgres = there.postgres.close_session(&pair.postgres).await;
                self.counted("close", outcome(&memory), outcome(&postgres));
            }
            1 | 2 => {
                let partitions: Vec<i16> = (0..self.random.below(4)).map(|_| self.random.partition()).collect();
                let memory = there.memory.release(&pair.memory, &partitions).await;
                let postgres = there.postgres.release(&pair.postgres, &partitions).await;
                self.counted("release", outcome(&memory), outcome(&postgres));
            }
            3 | 4 => {
                let memory = there.memory.recover(&pair.memory).await;
                let postgres = there.postgres.recover(&pair.postgres).await;
                if let (Ok(memory), Ok(postgres)) = (&memory, &postgres) {
                    self.sessions[index].memory = *memory;
                    self.sessions[index].postgres = *postgres;
                }
                let [memory, postgres] = [memory, postgres].map(|it| outcome(&it.map(|it| (it.epoch, it.batch_no))));
                self.counted("recover", memory, postgres);
            }
            5 | 6 => {
                self.model.lapse(pair.memory.id).await;
                testing::lapse(&self.url, pair.postgres.id).await;
                self.count("lapse");
            }
            _ => {
                let memory = there.memory.cursors(&pair.memory).await;
                let postgres = there.postgres.cursors(&pair.postgres).await;
                self.counted("cursors", outcome(&memory), outcome(&postgres));
            }
        }
    }

    async fn kill(&mut self) {
        if !self.random.one_in(2) {
            return;
        }
        let fresh = self.process().await;
        let index = usize::try_from(self.random.below(2)).unwrap();
        let dead = std::mem::replace(&mut self.processes[index], fresh);
        for pair in self.sessions.iter_mut().filter(|pair| pair.process == index) {
            pair.alive = false;
        }
        dead.memory.kill_process();
        testing::kill(&self.url, dead.postgres).await;
        self.count("kill");
    }

    fn some_run(&mut self) -> u64 {
        1 + self.random.below(40)
    }

    fn some_row(&mut self) -> RunRow {
        let n = self.some_run();
        let workflow_id = format!("w{}", self.random.below(12));
        let mut row = run(n, &workflow_id);
        if self.random.one_in(4) {
            row.namespace = Namespace::new("other");
        }
        if self.random.one_in(3) {
            row.workflow = WorkflowName::new("refund");
        } else if self.random.one_in(4) {
            row.workflow = WorkflowName::new("$schedule");
        } else if self.random.one_in(4) {
            row.workflow = WorkflowName::new("$trigger");
        }
        row.retention_class = i16::try_from(n % 3).unwrap();
        row.partition = self.random.partition();
        row.wake_at = (!self.random.one_in(3)).then(|| Timestamp(self.random.below(100).cast_signed()));
        row.request_id = self.random.one_in(2).then(|| RequestId::new(&format!("q{}", n % 5)));
        if self.random.one_in(6) {
            row.request_id = Some(RequestId::new(&format!("$schedule/s/{}", self.random.below(8))));
        }
        row.search_attributes = self
            .random
            .one_in(3)
            .then(|| format!("{{\"n\": {n}, \"a\": [\"x\", null]}}"));
        if self.random.one_in(3) {
            row = closed(row, 50);
        } else if self.random.one_in(4) {
            row.status = "parked".to_owned();
        }
        if self.random.one_in(40) {
            row.status = "lost".to_owned();
        }
        if self.random.one_in(5) {
            row.attempt = 2;
            row.begins_at = Some(Timestamp(70));
        }
        if self.random.one_in(8) {
            row = closed(row, 50);
            row.status = ["failed", "timed_out", "completed"][usize::try_from(n % 3).unwrap()].to_owned();
            row.retried_by = Some(run_id(n + 1));
        }
        row
    }

    /// Mostly something that can succeed: numbered on from what the model holds.
    fn some_batch(&mut self, index: usize) -> (Batch, Batch) {
        let there = self.model.0.dump(|id| self.name(id));
        let mut batch = Batch::default();
        for _ in 0..self.random.below(3) {
            let row = self.some_row();
            let known = there.runs.iter().find(|known| known.run_id == row.run_id);
            // To open a closed run again is not something a store has to allow.
            match known {
                Some(known) if known.closed_at.is_none() && self.random.one_in(10) => {
                    batch.runs.push(RunWrite::Migrate(row));
                }
                Some(known) if known.closed_at.is_none() || self.random.one_in(10) => {
                    batch.runs.push(RunWrite::Update(if known.closed_at.is_some() {
                        closed(row, 60)
                    } else {
                        row
                    }));
                }
                Some(_) if !self.random.one_in(10) => {}
                // Of two runs of an id the later one has the greater run id: they are minted in that order.
                _ if there.runs.iter().any(|known| {
                    let of_id = known.namespace == row.namespace && known.workflow_id == row.workflow_id;
                    of_id && known.run_id > row.run_id
                }) => {}
                _ => batch.runs.push(RunWrite::Insert(row)),
            }
        }
        for _ in 0..self.random.below(4) {
            let n = self.some_run();
            let last = there
                .events
                .iter()
                .filter(|event| event.run_id == run_id(n))
                .map(|event| event.transition.seq)
                .max();
            let seq = last.unwrap_or(0) + i32::from(!self.random.one_in(20));
            let mut event = append(n, seq, &format!("[{seq}]"));
            event.retention_class = i16::try_from(n % 3).unwrap();
            batch.appends.push(event);
            if self.random.one_in(4) {
                let body = format!("{{\"seq\":{seq}}}");
                let run_id = run_id(n);
                batch.snapshots.push(Snapshot {
                    run_id,
                    seq: seq.max(1),
                    body,
                });
            }
            if self.random.one_in(2) {
                batch.owed.spans.extend(owed(n, seq, seq).spans);
            }
        }
        if self.random.one_in(10) {
            batch.owed.messages = Some("[]".to_owned());
        }
        let owned: Vec<i16> = there
            .partitions
            .iter()
            .filter(|row| row.owner == Some(index))
            .map(|row| row.partition)
            .collect();
        for _ in 0..self.random.below(3) {
            let partition = if owned.is_empty() || self.random.one_in(20) {
                self.random.partition()
            } else {
                self.random.pick(&owned)
            };
            let cursor = Cursor {
                sequence: self.random.below(1_000),
                at: Timestamp(self.random.below(1_000_000_000).cast_signed()),
                stream: "s".to_owned(),
            };
            batch.cursors.push(CursorWrite { partition, cursor });
        }
        if self.random.one_in(2) {
            batch.partitions.clone_from(&owned);
        }
        if self.random.one_in(20) {
            batch.partitions.push(self.random.partition());
        }
        if self.random.one_in(4) {
            let partition = self.random.partition();
            let last = there.deferred.iter().filter(|input| input.partition == partition);
            let last = last.map(|input| input.no).max().unwrap_or(0);
            let no = last + i64::from(!self.random.one_in(10));
            batch.deferred.push(deferred(partition, no, self.random.below(6)));
        }
        if self.random.one_in(8) {
            let n = self.some_run();
            batch.forgotten.push(Forgotten {
                retention_class: i16::try_from(n % 3).unwrap(),
                run_id: run_id(n),
                up_to: i32::try_from(self.random.below(6)).unwrap(),
            });
        }
        if self.random.one_in(4) {
            let settled = there.deferred.iter().filter(|_| self.random.one_in(2));
            batch.settled.extend(settled.map(|input| DeferredId {
                partition: input.partition,
                no: input.no,
            }));
        }
        // Drawn apart: what seeds have found elsewhere they go on finding.
        let mut random = Random(self.random.0 ^ 0x9e37_79b9);
        if random.one_in(4) {
            let there = there.permits.iter().filter(|_| random.one_in(3));
            batch.permits = there
                .map(|row| permit(row.id.partition, &row.id.limiter, row.id.no, None))
                .collect();
            let (partition, no) = (random.partition(), random.below(6).cast_signed());
            let body = (!random.one_in(4)).then_some("{}");
            batch.permits.push(permit(partition, "limit-a", no, body));
        }
        let (memory, postgres) = self.published(index);
        (
            Batch {
                published: memory,
                ..batch.clone()
            },
            Batch {
                published: postgres,
                ..batch
            },
        )
    }

    async fn commit(&mut self) {
        let Some(index) = self.some_session() else { return };
        let (memory, postgres) = self.some_batch(index);
        let pair = self.sessions[index];
        let there = &self.processes[pair.process];
        let in_memory = there.memory.commit(&pair.memory, &memory).await;
        let in_postgres = there.postgres.commit(&pair.postgres, &postgres).await;
        let kind = commit_outcome(&in_memory);
        assert_eq!(
            kind,
            commit_outcome(&in_postgres),
            "{in_memory:?} {in_postgres:?} {postgres:?}"
        );
        self.count(kind);
        if in_memory.is_ok() && !memory.forgotten.is_empty() {
            self.count("forget");
        }
        // Now and then the next batch is numbered wrongly.
        if in_memory.is_ok() && !self.random.one_in(30) {
            let pair = &mut self.sessions[index];
            (pair.memory, pair.postgres) = (next(pair.memory), next(pair.postgres));
        }
    }

    async fn read_runs(&mut self) {
        let ids: Vec<RunId> = (0..self.random.below(5)).map(|_| run_id(self.some_run())).collect();
        let n = self.some_run();
        let asked: Vec<_> = (0..self.random.below(4))
            .map(|_| {
                let namespace = Namespace::new(self.random.pick(&["default", "other"]));
                let workflow_id = WorkflowId::new(&format!("w{}", self.random.below(12)));
                let request = self
                    .random
                    .one_in(2)
                    .then(|| RequestId::new(&format!("q{}", self.random.below(5))));
                (namespace, workflow_id, request)
            })
            .collect();
        let partitions = [self.random.partition(), self.random.partition()];
        let (until, limit) = (
            Timestamp(self.random.below(120).cast_signed()),
            u32::try_from(self.random.below(8)).unwrap(),
        );
        let (after, partitions) = (
            i32::try_from(self.random.below(4)).unwrap(),
            &partitions[..1 + usize::from(partitions[0] != partitions[1])],
        );
        let behind = self.random.one_in(2).then(|| self.random.below(120).cast_signed());
        let page = DuePage {
            after: behind.map(|at| (Timestamp(at), run_id(n))),
            until,
            limit: limit.max(1),
        };
        let there = &self.processes[0];

        for id in &ids {
            let mut rows = [
                there.memory.run_row(*id).await.unwrap(),
                there.postgres.run_row(*id).await.unwrap(),
            ];
            rows.iter_mut().flatten().for_each(normalise);
            assert_eq!(rows[0], rows[1]);
        }
        let mut memory = there.memory.load_runs(&ids).await.unwrap();
        let mut postgres = there.postgres.load_runs(&ids).await.unwrap();
        for runs in [&mut memory, &mut postgres] {
            runs.sort_by_key(|run| run.row.run_id);
            runs.iter_mut().for_each(|run| normalise(&mut run.row));
        }
        assert_eq!(memory, postgres, "load");

        let mut memory_found = there.memory.find_runs(&asked).await.unwrap();
        let mut postgres_found = there.postgres.find_runs(&asked).await.unwrap();
        for found in [&mut memory_found, &mut postgres_found] {
            found.runs.sort_by_key(|found| found.row.run_id);
            found.runs.iter_mut().for_each(|found| normalise(&mut found.row));
        }
        assert_eq!(memory_found, postgres_found, "find");

        let memory_history = there.memory.history(run_id(n), after, limit).await.unwrap();
        assert_eq!(
            memory_history,
            there.postgres.history(run_id(n), after, limit).await.unwrap(),
            "history"
        );
        let memory_due = there.memory.due(partitions, page).await.unwrap();
        assert_eq!(memory_due, there.postgres.due(partitions, page).await.unwrap(), "due");
        for (kind, there) in [
            ("load", !memory.is_empty()),
            ("find", !memory_found.runs.is_empty()),
            ("history", !memory_history.is_empty()),
            ("due", !memory_due.runs.is_empty()),
        ] {
            if there {
                self.count(kind);
            }
        }
    }

    async fn lists(&mut self) {
        let filter = RunFilter {
            workflow: self.random.one_in(3).then(|| WorkflowName::new("refund")),
            workflow_id: self.random.one_in(4).then(|| WorkflowId::new("w1")),
            status: self.random.one_in(3).then(|| "running".to_owned()),
            before: self.random.one_in(2).then(|| run_id(self.some_run())),
            limit: u32::try_from(self.random.below(30)).unwrap(),
        };
        let namespace = Namespace::new(self.random.pick(&["default", "other"]));
        let there = &self.processes[1];
        let mut memory = there.memory.list_runs(&namespace, &filter).await.unwrap();
        let mut postgres = there.postgres.list_runs(&namespace, &filter).await.unwrap();
        for rows in [&mut memory, &mut postgres] {
            rows.iter_mut().for_each(normalise);
        }
        assert_eq!(memory, postgres, "{filter:?}");
        if !memory.is_empty() {
            self.count("list");
        }
        let after = self.random.one_in(3).then(|| WorkflowId::new("w1"));
        let limit = u32::try_from(self.random.below(3)).unwrap();
        let there = &self.processes[1];
        let mut memory = there
            .memory
            .list_schedules(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        let mut postgres = there
            .postgres
            .list_schedules(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        for rows in [&mut memory, &mut postgres] {
            rows.iter_mut().for_each(normalise);
        }
        assert_eq!(memory, postgres, "schedules");
        if !memory.is_empty() {
            self.count("schedules");
        }
        let there = &self.processes[1];
        let mut memory = there
            .memory
            .list_triggers(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        let mut postgres = there
            .postgres
            .list_triggers(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        for rows in [&mut memory, &mut postgres] {
            rows.iter_mut().for_each(normalise);
        }
        assert_eq!(memory, postgres, "triggers");
        let partitions = [self.random.partition(), self.random.partition()];
        let memory = there.memory.triggers(&partitions).await.unwrap();
        assert_eq!(
            memory,
            there.postgres.triggers(&partitions).await.unwrap(),
            "{partitions:?}"
        );
        if !memory.is_empty() {
            self.count("triggers");
        }
    }

    async fn definitions(&mut self) {
        let workflow = self.random.pick(&["a", "b"]);
        let version = i32::try_from(self.random.below(4)).unwrap();
        let hash = format!("h{}", self.random.below(3));
        let mut wanted = definition(workflow, version, &hash);
        if self.random.one_in(3) {
            wanted.namespace = Namespace::new("shop");
        }
        let there = &self.processes[0];
        match self.random.below(4) {
            0 => {
                let memory = there.memory.register_definition(&wanted).await;
                let postgres = there.postgres.register_definition(&wanted).await;
                self.counted("register", outcome(&memory), outcome(&postgres));
            }
            1 => {
                let version = (version > 0).then_some(version);
                let memory = there
                    .memory
                    .definition(&wanted.namespace, &wanted.workflow, version)
                    .await
                    .unwrap();
                let postgres = there
                    .postgres
                    .definition(&wanted.namespace, &wanted.workflow, version)
                    .await
                    .unwrap();
                assert_eq!(memory, postgres);
                let hash = DefinitionHash(hash.into());
                let memory = there.memory.definition_by_hash(&hash).await.unwrap();
                assert_eq!(memory, there.postgres.definition_by_hash(&hash).await.unwrap());
                let filter = DefinitionFilter {
                    after: Some((wanted.workflow.clone(), wanted.version)),
                    limit: 3,
                    ..DefinitionFilter::default()
                };
                let (namespace, memory_store) = (&wanted.namespace, &there.memory);
                assert_eq!(
                    memory_store.list_definitions(namespace, &filter).await.unwrap(),
                    there.postgres.list_definitions(namespace, &filter).await.unwrap()
                );
                if memory.is_some() {
                    self.count("definition");
                }
            }
            2 => {
                let memory = there.memory.definition_heads().await;
                let postgres = there.postgres.definition_heads().await;
                self.counted("heads", outcome(&memory), outcome(&postgres));
            }
            _ => {
                let row = NamespaceRow {
                    name: Namespace::new(self.random.pick(&["default", "other", "shop", ""])),
                    retention_class: i16::try_from(self.random.below(4)).unwrap() - 1,
                    events: self.random.one_in(2),
                };
                let (name, events) = (row.name.clone(), self.random.one_in(2));
                let memory = there.memory.set_events(&name, events).await;
                let postgres = there.postgres.set_events(&name, events).await;
                assert_eq!(memory.unwrap(), postgres.unwrap());
                let memory = there.memory.create_namespace(&row).await;
                let postgres = there.postgres.create_namespace(&row).await;
                assert_eq!(
                    there.memory.namespaces().await.unwrap(),
                    there.postgres.namespaces().await.unwrap()
                );
                self.counted("namespace", outcome(&memory), outcome(&postgres));
            }
        }
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
