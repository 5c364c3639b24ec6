//! What a group commit costs: `cargo bench -p knarr --bench commit`, on a private PostgreSQL that syncs to disk.
//!
//! A batch of n transitions is that of order sagas in full flow: a fifth of them start a run, a fifth close one.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use knarr::dev::{Progress, ServerOptions, Servers};
use knarr::store::postgres::{PostgresConfig, PostgresStore};
use knarr::store::{
    Append, Batch, CommitId, Cursor, CursorWrite, OwedSpan, RunRow, RunWrite, Session, Store as _, StoredTransition,
};
use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use uuid::Uuid;

const PARTITIONS: u16 = 64;

struct Load {
    store: PostgresStore,
    session: Session,
    /// Milliseconds since the epoch, of the first run id.
    began: i64,
    runs: u64,
    open: Vec<RunRow>,
}

impl Load {
    async fn new(url: &str) -> Self {
        let store = PostgresStore::connect(PostgresConfig::new(url)).await.unwrap();
        store.prepare(PARTITIONS).await.unwrap();
        let now = store.now().await.unwrap();
        store.ensure_partitions(now).await.unwrap();
        let session = store.open_session("bench").await.unwrap();
        store.keep(&session, &[]).await.unwrap();
        Self {
            store,
            session,
            began: now.0 / 1_000,
            runs: 0,
            open: Vec::new(),
        }
    }

    fn new_run(&mut self) -> RunRow {
        self.runs += 1;
        let ms = u128::try_from(self.began).unwrap() + u128::from(self.runs / 8);
        let random = u128::from(self.runs.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 4);
        RunRow {
            run_id: RunId(Uuid::from_u128((ms << 80) | (0x7 << 76) | (0x8 << 60) | random)),
            retention_class: 0,
            namespace: Namespace::new("default"),
            workflow_id: WorkflowId::new(&format!("order-{}", self.runs)),
            workflow: WorkflowName::new("order"),
            version: 1,
            definition: DefinitionHash("0123456789abcdef".repeat(4).into()),
            partition: i16::try_from(self.runs % u64::from(PARTITIONS)).unwrap(),
            status: "running".to_owned(),
            started_at: Timestamp(self.began * 1_000),
            closed_at: None,
            wake_at: Some(Timestamp(self.began * 1_000 + 60_000_000)),
            request_id: Some(RequestId::new(&format!("request-{}", self.runs))),
            search_attributes: None,
            outcome: None,
            attempt: 1,
            begins_at: None,
            retried_by: None,
            tenure: None,
        }
    }

    fn batch(&mut self, transitions: usize) -> Batch {
        let starts = transitions.div_ceil(5);
        let started: Vec<RunRow> = (0..starts).map(|_| self.new_run()).collect();
        let mut batch = Batch::default();
        for index in 0..transitions {
            let body = format!(
                "[{{\"task_completed\":{{\"task\":1,\"output\":\"{}\"}}}}]",
                "x".repeat(250)
            );
            batch.appends.push(Append {
                retention_class: 0,
                run_id: started[index % starts].run_id,
                transition: StoredTransition {
                    seq: i32::try_from(1 + index / starts).unwrap(),
                    at: Timestamp(self.began * 1_000),
                    body,
                },
            });
        }
        for mut row in self.open.drain(..) {
            row.status = "completed".to_owned();
            row.closed_at = Some(row.started_at);
            row.wake_at = None;
            row.outcome = Some("{\"order_id\":\"o-1\",\"payment_id\":\"p-1\"}".to_owned());
            batch.runs.push(RunWrite::Update(row));
        }
        for row in &started {
            batch.owed.spans.push(OwedSpan {
                run_id: row.run_id,
                first_seq: 1,
                last_seq: 5,
            });
            batch.runs.push(RunWrite::Insert(row.clone()));
        }
        batch.partitions = (0..i16::try_from(starts.min(usize::from(PARTITIONS))).unwrap()).collect();
        batch.runs.sort_unstable_by_key(|write| write.row().run_id);
        let touched = starts.min(usize::from(PARTITIONS));
        batch.cursors = (0..i16::try_from(touched).unwrap())
            .map(|partition| CursorWrite {
                partition,
                cursor: Cursor {
                    sequence: self.runs,
                    at: Timestamp(self.began * 1_000),
                    stream: "2026-01-01T00:00:00Z".to_owned(),
                },
            })
            .collect();
        if self.session.batch_no > 0 {
            batch.published.push(CommitId {
                session: self.session.id,
                batch_no: self.session.batch_no,
            });
        }
        self.open = started;
        batch
    }

    async fn commit(&mut self, transitions: usize) -> Duration {
        let batch = self.batch(transitions);
        let began = Instant::now();
        self.store.commit(&self.session, &batch).await.unwrap();
        self.session.batch_no += 1;
        began.elapsed()
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let servers = runtime
        .block_on(Servers::start(ServerOptions::default(), &Progress::Silent))
        .unwrap();
    let mut load = runtime.block_on(Load::new(servers.postgres_url()));
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("commit");
    for transitions in [1, 50, 500] {
        group.throughput(Throughput::Elements(transitions as u64));
        group.bench_function(BenchmarkId::from_parameter(transitions), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    total += runtime.block_on(load.commit(transitions));
                }
                total
            });
        });
    }
    group.finish();
    criterion.final_summary();
    runtime.block_on(servers.stop());
}
