//! Batches of every kind, good and bad, and what commits still owe.

use knarr_core::ids::{Namespace, RequestId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

use super::{Pair, Random, World, commit_outcome};
use crate::store::conformance::{append, closed, deferred, next, owed, permit, run, run_id};
use crate::store::{
    Batch, CommitId, Cursor, CursorWrite, DeferredId, Forgotten, InheritedCommit, RunRow, RunWrite, Snapshot, Store,
};

impl World {
    /// Everything that some commit owes, as far as this session is to publish it.
    pub(super) async fn owed(&mut self, index: usize) {
        let pair = self.sessions[index];
        let commits = self.model.0.dump(|id| self.name(id)).commits;
        let ids = |of: fn(&Pair) -> Uuid| -> Vec<CommitId> {
            let id = |row: &crate::store::conformance::CommitDump| CommitId {
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

    /// Some of the commits that the session holds.
    pub(super) fn published(&mut self, holder: usize) -> (Vec<CommitId>, Vec<CommitId>) {
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
            let mut row = row;
            let ids = known.unwrap_or(&row);
            let is_first = !there.runs.iter().any(|other| {
                let of_id = other.namespace == ids.namespace && other.workflow_id == ids.workflow_id;
                of_id && other.run_id < ids.run_id
            });
            // Drawn apart: what seeds have found elsewhere they go on finding. The first run of an id has it before all others.
            let mut random = Random(self.random.0 ^ 0x7e2a_11c3);
            if !is_first && random.one_in(3) {
                let n = row.run_id.0.as_u128() >> 80;
                let at = match random.one_in(4) {
                    true => 0,
                    false => n + u128::from(random.below(20)),
                };
                row.tenure = Some(Uuid::from_u128((at << 80) | (0x7 << 76) | n));
            }
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

    pub(super) async fn commit(&mut self) {
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
}
