//! Rows and batches as tests write them.

use super::*;

pub(crate) fn run_id(n: u64) -> RunId {
    RunId(Uuid::from_u128((u128::from(n) << 80) | (0x7 << 76) | (0x8 << 60)))
}

pub(crate) fn run(n: u64, workflow_id: &str) -> RunRow {
    RunRow {
        run_id: run_id(n),
        retention_class: 0,
        namespace: Namespace::new("default"),
        workflow_id: WorkflowId::new(workflow_id),
        workflow: WorkflowName::new("order"),
        version: 1,
        definition: DefinitionHash("d1".into()),
        partition: 0,
        status: "running".to_owned(),
        started_at: Timestamp(n.cast_signed() * 1_000),
        closed_at: None,
        wake_at: None,
        request_id: None,
        search_attributes: None,
        outcome: None,
        attempt: 1,
        begins_at: None,
        retried_by: None,
        tenure: None,
    }
}

pub(crate) fn closed(mut row: RunRow, at: i64) -> RunRow {
    row.status = "completed".to_owned();
    row.closed_at = Some(Timestamp(at));
    row.wake_at = None;
    row.outcome = Some("{}".to_owned());
    row
}

pub(crate) fn append(run: u64, seq: i32, body: &str) -> Append {
    Append {
        retention_class: 0,
        run_id: run_id(run),
        transition: StoredTransition {
            seq,
            at: Timestamp(1_700_000_000_000_001 + i64::from(seq)),
            body: body.to_owned(),
        },
    }
}

pub(super) fn inserts(rows: impl IntoIterator<Item = RunRow>) -> Batch {
    Batch {
        runs: rows.into_iter().map(RunWrite::Insert).collect(),
        ..Batch::default()
    }
}

pub(super) fn cursor(partition: i16, sequence: u64) -> CursorWrite {
    CursorWrite {
        partition,
        cursor: Cursor {
            sequence,
            at: Timestamp(1_700_000_000_123_456),
            stream: "2026-01-01T00:00:00Z".to_owned(),
        },
    }
}

pub(crate) fn owed(run: u64, first_seq: i32, last_seq: i32) -> Owed {
    Owed {
        spans: vec![OwedSpan {
            run_id: run_id(run),
            first_seq,
            last_seq,
        }],
        messages: None,
    }
}

pub(crate) fn next(session: Session) -> Session {
    Session {
        batch_no: session.batch_no + 1,
        ..session
    }
}

/// Commits, and moves the session on.
pub(super) async fn commit(store: &impl Store, session: &mut Session, batch: &Batch) {
    store.commit(session, batch).await.unwrap();
    *session = next(*session);
}

pub(super) async fn commit_error(store: &impl Store, session: &Session, batch: &Batch) -> CommitError {
    store.commit(session, batch).await.unwrap_err()
}

/// A session that owns everything.
pub(super) async fn owner(store: &impl Store, replica: &str) -> Session {
    let session = store.open_session(replica).await.unwrap();
    let share = store.keep(&session, &[]).await.unwrap();
    assert_eq!(share.gained.len(), usize::from(PARTITIONS) + 1);
    session
}
