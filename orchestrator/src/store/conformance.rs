//! What every store must do, run against the memory model and against PostgreSQL.

use std::collections::BTreeSet;

use knarr_core::ids::{DefinitionHash, MessageNo, Namespace, QueueName, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::limit::{Ask, Bound, LimitKind, LimitName, Permit, Row};
use knarr_core::run::message::Sender;
use knarr_core::time::{Span, Timestamp};
use uuid::Uuid;

use super::memory::MemoryStore;
use super::postgres::{PostgresStore, testing};
use super::{
    Append, Batch, CommitError, CommitId, Cursor, CursorWrite, DEFERRED_LIMIT, DefaultVersion, DeferredId,
    DeferredInput, DefinitionFilter, DuePage, EVENTS_BY_DEFAULT, FORMAT_LEVEL, FOUND_OUTCOME_BYTES, Forgotten,
    NamespaceRow, Owed, OwedSpan, PermitId, PermitRow, PermitWrite, QueueRate, QueueRow, Registered, RunFilter, RunRow,
    RunWrite, Session, Snapshot, Store, StoreError, StoredDefinition, StoredTransition,
};

pub(crate) const PARTITIONS: u16 = 4;

/// Everything a store holds that is not time; sessions go by the number a test gives them.
#[derive(Debug, PartialEq)]
pub(crate) struct Dump {
    pub(crate) sessions: Vec<SessionDump>,
    pub(crate) partitions: Vec<PartitionDump>,
    pub(crate) commits: Vec<CommitDump>,
    pub(crate) runs: Vec<RunRow>,
    pub(crate) events: Vec<Append>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) deferred: Vec<DeferredInput>,
    pub(crate) permits: Vec<PermitRow>,
    pub(crate) definitions: Vec<StoredDefinition>,
    pub(crate) definitions_epoch: i64,
    pub(crate) namespaces: Vec<(String, i16)>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct SessionDump {
    pub(crate) session: usize,
    pub(crate) replica: String,
    pub(crate) epoch: i64,
    pub(crate) batch_no: i64,
    pub(crate) claimed_by: Option<usize>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct PartitionDump {
    pub(crate) partition: i16,
    pub(crate) owner: Option<usize>,
    pub(crate) cursor: Cursor,
}

#[derive(Debug, PartialEq)]
pub(crate) struct CommitDump {
    pub(crate) session: usize,
    pub(crate) batch_no: i64,
    pub(crate) holder: usize,
    pub(crate) owed: Owed,
}

impl Dump {
    /// Orders what goes by names that are only known to the test, and `jsonb` as it is equal, not as it is written.
    pub(crate) fn normalised(mut self) -> Self {
        self.sessions.sort_by_key(|row| row.session);
        self.commits.sort_by_key(|row| (row.session, row.batch_no));
        for row in &mut self.runs {
            normalise(row);
        }
        self
    }
}

pub(crate) fn normalise(row: &mut RunRow) {
    if let Some(attributes) = &mut row.search_attributes {
        let value: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(attributes).unwrap();
        *attributes = serde_json::to_string(&value).unwrap();
    }
}

/// One kind of store, as a test handles it.
pub(crate) trait Rig: Sized {
    type Kind: Store;

    /// A prepared store.
    async fn start() -> Self;
    fn store(&self) -> &Self::Kind;
    /// The same store as another process sees it.
    async fn another(&self) -> Self::Kind;
    /// Another process whose binary reads storage formats up to this one.
    async fn reading(&self, format: i32) -> Self::Kind;
    /// That process dies.
    async fn kill(&self, process: Self::Kind);
    /// The session was not renewed in time.
    async fn lapse(&self, session: Uuid);
    async fn dump(&self, name: impl Fn(Uuid) -> usize) -> Dump;
}

pub(crate) struct MemoryRig(pub(crate) MemoryStore);

impl Rig for MemoryRig {
    type Kind = MemoryStore;

    async fn start() -> Self {
        let store = MemoryStore::new();
        store.prepare(PARTITIONS).await.unwrap();
        Self(store)
    }

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    async fn another(&self) -> MemoryStore {
        self.0.another_process()
    }

    async fn reading(&self, format: i32) -> MemoryStore {
        self.0.another_process().reading(format)
    }

    async fn kill(&self, process: MemoryStore) {
        process.kill_process();
    }

    async fn lapse(&self, session: Uuid) {
        self.0.lapse(session);
    }

    async fn dump(&self, name: impl Fn(Uuid) -> usize) -> Dump {
        self.0.dump(name)
    }
}

pub(crate) struct PostgresRig {
    pub(crate) url: String,
    store: PostgresStore,
}

impl Rig for PostgresRig {
    type Kind = PostgresStore;

    async fn start() -> Self {
        let url = testing::database().await;
        let store = testing::connect(&url).await;
        store.prepare(PARTITIONS).await.unwrap();
        Self { url, store }
    }

    fn store(&self) -> &PostgresStore {
        &self.store
    }

    async fn another(&self) -> PostgresStore {
        testing::connect(&self.url).await
    }

    async fn reading(&self, format: i32) -> PostgresStore {
        testing::reading(&self.url, format).await
    }

    async fn kill(&self, process: PostgresStore) {
        testing::kill(&self.url, process).await;
    }

    async fn lapse(&self, session: Uuid) {
        testing::lapse(&self.url, session).await;
    }

    async fn dump(&self, name: impl Fn(Uuid) -> usize) -> Dump {
        testing::dump(&self.url, name).await
    }
}

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<super::MemoryRig as super::Rig>::start().await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<super::PostgresRig as super::Rig>::start().await).await;
            })*
        }
    };
}

conformance!(
    a_cluster_is_founded_once,
    a_batch_is_there_as_a_whole,
    a_birth_is_read_as_it_was_written,
    an_old_epoch_writes_nothing,
    an_old_batch_number_writes_nothing,
    a_foreign_cursor_fences,
    a_foreign_partition_fences,
    bad_data_leaves_nothing,
    a_closed_run_may_wait_and_run_again,
    limits_of_values_are_accepted,
    one_open_run_a_workflow_id,
    who_is_queued_is_open_without_its_id,
    a_run_closes_and_its_id_opens_again_in_one_batch,
    found_are_open_newest_closed_and_requested,
    a_long_outcome_is_found_by_its_run_alone,
    zero_in_a_question_is_refused,
    loading_starts_at_the_snapshot,
    due_runs_come_earliest_first,
    lists_go_by_keyset,
    schedules_are_listed_by_themselves,
    triggers_are_listed_by_themselves_and_found_by_partition,
    an_occurrence_is_started_once,
    what_a_snapshot_of_a_schedule_has_taken_in_may_go,
    definitions_never_change,
    namespaces_exist_once,
    who_keeps_a_lease_hears_that_something_was_committed,
    who_keeps_a_lease_hears_whose_events_are_on,
    a_lapsed_session_is_taken_over_as_a_whole,
    a_lapsed_owner_may_renew,
    a_restarted_replica_inherits_at_once,
    a_namesake_is_refused_while_it_lives,
    shares_are_fair_and_released_ones_move,
    a_closed_session_leaves_its_commits,
    recovery_raises_the_epoch_and_may_be_repeated,
    recovery_after_a_takeover_is_fenced,
    published_commits_go,
    the_format_level_follows_the_oldest_session,
    deferred_inputs_stay_until_they_are_settled,
    a_batch_with_deferred_inputs_is_there_as_a_whole,
    rows_of_limiters_are_written_with_their_batch_or_not_at_all,
    what_is_said_of_a_queue_replaces_what_was_and_raises_the_epoch,
    limits_in_use_are_counted,
    sizes_are_those_of_what_is_loaded,
);

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

fn inserts(rows: impl IntoIterator<Item = RunRow>) -> Batch {
    Batch {
        runs: rows.into_iter().map(RunWrite::Insert).collect(),
        ..Batch::default()
    }
}

fn cursor(partition: i16, sequence: u64) -> CursorWrite {
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
async fn commit(store: &impl Store, session: &mut Session, batch: &Batch) {
    store.commit(session, batch).await.unwrap();
    *session = next(*session);
}

async fn commit_error(store: &impl Store, session: &Session, batch: &Batch) -> CommitError {
    store.commit(session, batch).await.unwrap_err()
}

/// A session that owns everything.
async fn owner(store: &impl Store, replica: &str) -> Session {
    let session = store.open_session(replica).await.unwrap();
    let share = store.keep(&session, &[]).await.unwrap();
    assert_eq!(share.gained.len(), usize::from(PARTITIONS) + 1);
    session
}

async fn a_cluster_is_founded_once(rig: impl Rig) {
    let first = rig.store().prepare(PARTITIONS).await.unwrap();
    let again = rig.another().await.prepare(PARTITIONS + 9).await.unwrap();
    assert_eq!(
        (first.id, first.secret, first.partitions),
        (again.id, again.secret, PARTITIONS)
    );
    assert_eq!(rig.dump(|_| 0).await.partitions.len(), usize::from(PARTITIONS) + 1);
    let none = rig.store().prepare(0).await.unwrap_err();
    assert!(matches!(none, StoreError::Rejected(_)));
    rig.store().ensure_partitions(Timestamp(0)).await.unwrap();
    rig.store().now().await.unwrap();
}

async fn a_batch_is_there_as_a_whole(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let mut first = run(1, "one");
    first.wake_at = Some(Timestamp(5_000_000));
    first.search_attributes = Some(r#"{"customer":"7"}"#.to_owned());
    first.request_id = Some(RequestId::new("r1"));
    let batch = Batch {
        partitions: vec![0],
        appends: vec![append(1, 1, "[1]"), append(1, 2, "[2]"), append(2, 1, "[\"\\u0000\"]")],
        runs: vec![RunWrite::Insert(first.clone()), RunWrite::Insert(run(2, "two"))],
        cursors: vec![cursor(0, 17), cursor(3, u64::try_from(i64::MAX).unwrap())],
        snapshots: vec![Snapshot {
            run_id: run_id(1),
            seq: 1,
            body: "{}".to_owned(),
        }],
        owed: Owed {
            messages: Some("[7]".to_owned()),
            ..owed(1, 1, 2)
        },
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;

    let dump = rig.dump(|_| 0).await;
    assert_eq!(dump.runs, [first.clone(), run(2, "two")]);
    assert_eq!(dump.events, batch.appends);
    assert_eq!(dump.snapshots, batch.snapshots);
    assert_eq!(
        dump.commits
            .iter()
            .map(|row| (row.batch_no, &row.owed))
            .collect::<Vec<_>>(),
        [(1, &batch.owed)]
    );
    assert_eq!(dump.sessions[0].batch_no, 1);
    let owned = store.cursors(&session).await.unwrap();
    assert_eq!(owned[0].cursor, batch.cursors[0].cursor);
    assert_eq!(owned[1].cursor, Cursor::default());
    assert_eq!(owned[3].cursor, batch.cursors[1].cursor);

    // An update writes what can change and nothing else.
    let mut changed = closed(run(1, "other"), 9_000_000);
    changed.workflow = WorkflowName::new("other");
    changed.search_attributes = Some("{}".to_owned());
    let batch = Batch {
        runs: vec![RunWrite::Update(changed)],
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    let mut expected = closed(first, 9_000_000);
    expected.search_attributes = Some("{}".to_owned());
    assert_eq!(rig.dump(|_| 0).await.runs[0], expected);

    // One that moves writes its version, too.
    let mut moved = expected.clone();
    moved.version = 7;
    moved.definition = DefinitionHash("h7".into());
    moved.workflow = WorkflowName::new("other");
    let batch = Batch {
        runs: vec![RunWrite::Migrate(moved)],
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    expected.version = 7;
    expected.definition = DefinitionHash("h7".into());
    assert_eq!(rig.dump(|_| 0).await.runs[0], expected);

    // Nothing at all is a batch as well.
    commit(store, &mut session, &Batch::default()).await;
    assert_eq!(rig.dump(|_| 0).await.sessions[0].batch_no, 4);
    assert_eq!(rig.dump(|_| 0).await.commits.len(), 1);
}

async fn a_birth_is_read_as_it_was_written(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "r1").await;
    let odd = "o\"d\\d\u{1}\né";
    let mut asked = run(2, odd);
    asked.request_id = Some(RequestId::new(odd));
    let mut batch = inserts([run(1, "a"), asked]);
    let birth = |n: u64, rest: &str| {
        let text = serde_json::to_string(odd).unwrap();
        let (workflow_id, request) = match n {
            1 => (r#""a""#.to_owned(), String::new()),
            _ => (text.clone(), format!(r#","request_id":{text}"#)),
        };
        let run_id = run_id(n).0;
        format!(
            r#"[{{"run_started":{{"run_id":"{run_id}","namespace":"default","workflow_id":{workflow_id},"workflow":"order"{request},"version":1,"definition":"d1"{rest}}}}}]"#
        )
    };
    let written = [birth(1, ""), birth(2, r#","input":{"run_id":null}"#)];
    batch.appends = vec![append(1, 1, &written[0]), append(2, 1, &written[1])];
    commit(store, &mut session, &batch).await;
    let mut loaded = store.load_runs(&[run_id(1), run_id(2)]).await.unwrap();
    loaded.sort_by_key(|run| run.row.run_id);
    for (n, body) in written.iter().enumerate() {
        assert_eq!(loaded[n].transitions[0].body, *body);
        let history = store.history(run_id(n as u64 + 1), 0, 10).await.unwrap();
        assert_eq!(history[0].body, *body);
    }
}

async fn an_old_epoch_writes_nothing(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    let before = rig.dump(|_| 0).await;
    for wrong in [
        Session { epoch: 2, ..session },
        Session { epoch: 0, ..session },
        Session {
            id: Uuid::from_u128(99),
            ..session
        },
    ] {
        let batch = Batch {
            appends: vec![append(1, 1, "[]")],
            cursors: vec![cursor(0, 1)],
            owed: owed(1, 1, 1),
            ..inserts([run(1, "one")])
        };
        assert!(matches!(commit_error(store, &wrong, &batch).await, CommitError::Fenced));
        assert!(matches!(store.keep(&wrong, &[]).await, Err(StoreError::Fenced)));
        assert!(matches!(store.release(&wrong, &[0]).await, Err(StoreError::Fenced)));
        assert!(matches!(store.close_session(&wrong).await, Err(StoreError::Fenced)));
        assert_eq!(store.cursors(&wrong).await.unwrap(), []);
    }
    assert_eq!(rig.dump(|_| 0).await, before);
}

async fn an_old_batch_number_writes_nothing(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    let batch = inserts([run(1, "one")]);
    store.commit(&session, &batch).await.unwrap();
    let before = rig.dump(|_| 0).await;
    for batch_no in [0, 2, -1] {
        let wrong = Session { batch_no, ..session };
        let error = commit_error(store, &wrong, &inserts([run(2, "two")])).await;
        assert!(matches!(error, CommitError::Fenced), "{error:?}");
    }
    assert_eq!(rig.dump(|_| 0).await, before);
}

async fn a_foreign_cursor_fences(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    store.release(&session, &[2]).await.unwrap();
    let before = rig.dump(|_| 0).await;
    for cursors in [
        vec![cursor(0, 1), cursor(2, 1)],
        vec![cursor(77, 1)],
        vec![cursor(0, 1), cursor(0, 2)],
    ] {
        let batch = Batch {
            cursors,
            appends: vec![append(1, 1, "[]")],
            ..inserts([run(1, "one")])
        };
        assert!(matches!(
            commit_error(store, &session, &batch).await,
            CommitError::Fenced
        ));
    }
    assert_eq!(rig.dump(|_| 0).await, before);
}

async fn a_foreign_partition_fences(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    store.release(&session, &[2]).await.unwrap();
    let before = rig.dump(|_| 0).await;
    for partitions in [vec![0, 2], vec![77], vec![2]] {
        let batch = Batch {
            partitions,
            appends: vec![append(1, 1, "[]")],
            ..inserts([run(1, "one")])
        };
        assert!(matches!(
            commit_error(store, &session, &batch).await,
            CommitError::Fenced
        ));
    }
    assert_eq!(rig.dump(|_| 0).await, before);
    let batch = Batch {
        partitions: vec![0, 1, 3, 4],
        ..inserts([run(1, "one")])
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(rig.dump(|_| 0).await.runs.len(), 1);
}

async fn bad_data_leaves_nothing(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let batch = Batch {
        appends: vec![append(1, 1, "[]")],
        ..inserts([run(1, "one"), run(9, "nine")])
    };
    commit(store, &mut session, &batch).await;
    let before = rig.dump(|_| 0).await;

    let with = |change: &dyn Fn(&mut RunRow)| {
        let mut row = run(2, "two");
        change(&mut row);
        inserts([row])
    };
    let attributes = |text: &'static str| with(&move |row| row.search_attributes = Some(text.to_owned()));
    let snapshot = |seq| Snapshot {
        run_id: run_id(1),
        seq,
        body: "{}".to_owned(),
    };
    let cases: Vec<(&str, Batch)> = vec![
        (
            "zero in a body",
            Batch {
                appends: vec![append(2, 1, "[\"\0\"]")],
                ..Batch::default()
            },
        ),
        ("zero in an id", with(&|row| row.workflow_id = WorkflowId::new("\0"))),
        ("zero in an outcome", with(&|row| row.outcome = Some("\0".to_owned()))),
        ("escaped zero in an attribute", attributes(r#"{"a":"\u0000"}"#)),
        ("escaped zero in a name", attributes(r#"{"a\u0000":1}"#)),
        ("attributes that are not JSON", attributes("{")),
        ("attributes that are no object", attributes("[1]")),
        ("a number beyond everything", attributes(r#"{"a":1e999999}"#)),
        ("a status nobody knows", with(&|row| row.status = "gone".to_owned())),
        ("open and completed", with(&|row| row.status = "completed".to_owned())),
        ("closed and running", with(&|row| row.closed_at = Some(Timestamp(1)))),
        ("before all time", with(&|row| row.started_at = Timestamp(i64::MIN))),
        ("a run that is there", inserts([run(1, "other")])),
        ("the same run twice", inserts([run(2, "two"), run(2, "three")])),
        (
            "a transition that is there",
            Batch {
                appends: vec![append(1, 1, "[2]")],
                ..Batch::default()
            },
        ),
        (
            "the same transition twice",
            Batch {
                appends: vec![append(1, 2, "[]"), append(1, 2, "[]")],
                ..Batch::default()
            },
        ),
        (
            "a transition numbered zero",
            Batch {
                appends: vec![append(1, 0, "[]")],
                ..Batch::default()
            },
        ),
        (
            "an update of nothing",
            Batch {
                runs: vec![RunWrite::Update(run(5, "five"))],
                ..Batch::default()
            },
        ),
        (
            "two updates of one run",
            Batch {
                runs: vec![RunWrite::Update(run(1, "one")), RunWrite::Update(run(1, "one"))],
                ..Batch::default()
            },
        ),
        (
            "an update of what the batch inserts",
            Batch {
                runs: vec![RunWrite::Insert(run(2, "two")), RunWrite::Update(run(2, "two"))],
                ..Batch::default()
            },
        ),
        (
            "two snapshots of one run",
            Batch {
                snapshots: vec![snapshot(1), snapshot(2)],
                ..Batch::default()
            },
        ),
        (
            "a cursor out of range",
            Batch {
                cursors: vec![cursor(0, u64::MAX)],
                ..Batch::default()
            },
        ),
    ];
    for (name, mut batch) in cases {
        // Something good beside it, which must not stay either.
        batch.appends.push(append(9, 1, "[]"));
        batch.cursors.push(cursor(1, 5));
        let error = commit_error(store, &session, &batch).await;
        assert!(matches!(error, CommitError::BadData(_)), "{name}: {error:?}");
        assert_eq!(rig.dump(|_| 0).await, before, "{name}");
    }
    commit(store, &mut session, &inserts([run(2, "two")])).await;
}

/// Its messages are not answered yet; or its parent has undone it later.
async fn a_closed_run_may_wait_and_run_again(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let mut row = closed(run(1, "one"), 1);
    row.wake_at = Some(Timestamp(2));
    commit(store, &mut session, &inserts([row.clone()])).await;
    assert_eq!(
        store.due(&[0], DuePage::first(Timestamp(9), 10)).await.unwrap().runs,
        [(run_id(1), Timestamp(2))]
    );
    for status in ["compensating", "parked", "compensated"] {
        row.status = status.to_owned();
        let update = Batch {
            runs: vec![RunWrite::Update(row.clone())],
            ..Batch::default()
        };
        commit(store, &mut session, &update).await;
        assert_eq!(rig.dump(|_| 0).await.runs, [row.clone()]);
    }
    // The id is free all the while.
    commit(store, &mut session, &inserts([run(2, "one")])).await;
}

/// Any number of them, beside the open run, found with it, and by their partition.
async fn who_is_queued_is_open_without_its_id(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let queued = |n: u64| RunRow {
        status: "queued".to_owned(),
        request_id: Some(RequestId::new(&format!("r{n}"))),
        ..run(n, "one")
    };
    commit(store, &mut session, &inserts([closed(run(1, "one"), 5)])).await;
    commit(store, &mut session, &inserts([run(2, "one"), queued(4), queued(3)])).await;
    commit(store, &mut session, &inserts([queued(5), run(6, "two")])).await;
    let find = async |request: Option<&str>| {
        let asked = (
            Namespace::new("default"),
            WorkflowId::new("one"),
            request.map(RequestId::new),
        );
        let found = store.find_runs(&[asked]).await.unwrap().runs.into_iter();
        let mut found: Vec<RunId> = found.map(|found| found.row.run_id).collect();
        found.sort();
        found
    };
    assert_eq!(find(None).await, [1, 2, 3, 4, 5].map(run_id));
    assert_eq!(find(Some("r4")).await, [1, 2, 3, 4, 5].map(run_id));
    let one = [(Namespace::new("default"), WorkflowId::new("one"))];
    assert_eq!(store.ids_queued_for(0).await.unwrap(), one);
    assert_eq!(store.ids_queued_for(1).await.unwrap(), []);
    let to_be_read = async || {
        let owned = store.all_cursors().await.unwrap().into_iter();
        let some = owned.filter(|owned| owned.permits).map(|owned| owned.partition);
        some.collect::<Vec<i16>>()
    };
    assert_eq!(to_be_read().await, [0]);
    let filter = RunFilter {
        workflow_id: Some(WorkflowId::new("one")),
        limit: 3,
        ..RunFilter::default()
    };
    let listed = store.list_runs(&Namespace::new("default"), &filter).await.unwrap();
    assert_eq!(
        listed.iter().map(|row| row.run_id).collect::<Vec<_>>(),
        [5, 4, 3].map(run_id)
    );

    let become_open = |n: u64, status: &str| Batch {
        runs: vec![RunWrite::Update(RunRow {
            status: status.to_owned(),
            ..queued(n)
        })],
        ..Batch::default()
    };
    // The id is taken.
    let refused = commit_error(store, &session, &become_open(3, "running")).await;
    assert!(matches!(refused, CommitError::BadData(_)), "{refused:?}");
    let close = Batch {
        runs: vec![RunWrite::Update(closed(run(2, "one"), 7))],
        ..Batch::default()
    };
    commit(store, &mut session, &close).await;
    assert_eq!(
        find(None).await,
        [2, 3, 4, 5].map(run_id),
        "of the closed ones the last"
    );
    commit(store, &mut session, &become_open(3, "waiting")).await;
    // One that waits for a place has its id.
    let refused = commit_error(store, &session, &become_open(4, "running")).await;
    assert!(matches!(refused, CommitError::BadData(_)), "{refused:?}");
    let skip = |n: u64| {
        RunWrite::Update(RunRow {
            status: "skipped".to_owned(),
            ..closed(queued(n), 9)
        })
    };
    let batch = Batch {
        runs: vec![skip(3), skip(4), skip(5)],
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(store.ids_queued_for(0).await.unwrap(), []);
    assert!(to_be_read().await.is_empty());
}

async fn limits_of_values_are_accepted(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let mut row = run(1, "é ü 漢字 % . *");
    row.wake_at = Some(Timestamp::MAX);
    row.started_at = Timestamp(-210_866_803_200_000_000);
    row.retention_class = 7;
    row.search_attributes = Some(r#"{"ключ":"значение"}"#.to_owned());
    row.outcome = Some(format!("\"{}\"", "x".repeat(2_000_000)));
    let mut event = append(1, i32::MAX, &format!("[\"{}\"]", "y".repeat(3_000_000)));
    // No namespace has this class, so there is no partition for it.
    event.retention_class = 7;
    let batch = Batch {
        appends: vec![event.clone()],
        ..inserts([row.clone()])
    };
    commit(store, &mut session, &batch).await;
    let loaded = store.load_runs(&[row.run_id]).await.unwrap();
    assert_eq!(loaded[0].transitions, [event.transition]);
    let mut stored = loaded[0].row.clone();
    normalise(&mut stored);
    assert_eq!(stored, row);
    // A class that turns up later takes over what has been waiting for it.
    store
        .create_namespace(&NamespaceRow {
            name: Namespace::new("late"),
            retention_class: 7,
            events: false,
        })
        .await
        .unwrap();
    assert_eq!(store.load_runs(&[row.run_id]).await.unwrap(), loaded);
}

async fn one_open_run_a_workflow_id(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    commit(store, &mut session, &inserts([run(1, "one")])).await;
    for batch in [inserts([run(2, "one")]), inserts([run(2, "two"), run(3, "two")])] {
        assert!(matches!(
            commit_error(store, &session, &batch).await,
            CommitError::BadData(_)
        ));
    }
    let mut elsewhere = run(2, "one");
    elsewhere.namespace = Namespace::new("other");
    commit(
        store,
        &mut session,
        &inserts([elsewhere, closed(run(3, "one"), 4), closed(run(4, "one"), 5)]),
    )
    .await;
    assert_eq!(rig.dump(|_| 0).await.runs.len(), 4);
}

async fn a_run_closes_and_its_id_opens_again_in_one_batch(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    commit(store, &mut session, &inserts([run(1, "one")])).await;
    for n in 2..20 {
        let batch = Batch {
            runs: vec![
                RunWrite::Insert(run(n, "one")),
                RunWrite::Update(closed(run(n - 1, "one"), 5)),
            ],
            ..Batch::default()
        };
        commit(store, &mut session, &batch).await;
    }
    let open: Vec<RunId> = rig
        .dump(|_| 0)
        .await
        .runs
        .iter()
        .filter(|row| row.closed_at.is_none())
        .map(|row| row.run_id)
        .collect();
    assert_eq!(open, [run_id(19)]);
}

async fn found_are_open_newest_closed_and_requested(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let request = |mut row: RunRow, id: &str| {
        row.request_id = Some(RequestId::new(id));
        row
    };
    let rows = [
        request(closed(run(1, "one"), 2), "first"),
        closed(run(2, "one"), 3),
        closed(run(3, "one"), 4),
        run(4, "one"),
        closed(run(5, "two"), 6),
        closed(run(6, "two"), 7),
        request(run(7, "three"), "third"),
    ];
    commit(store, &mut session, &inserts(rows)).await;
    let find = async |workflow_id: &str, request: Option<&str>| -> BTreeSet<RunId> {
        let id = (
            Namespace::new("default"),
            WorkflowId::new(workflow_id),
            request.map(RequestId::new),
        );
        // Asked for twice, answered once.
        let found = store.find_runs(&[id.clone(), id]).await.unwrap();
        let ids: BTreeSet<RunId> = found.runs.iter().map(|found| found.row.run_id).collect();
        assert_eq!(ids.len(), found.runs.len());
        ids
    };
    let ids = |of: &[u64]| of.iter().map(|n| run_id(*n)).collect::<BTreeSet<_>>();
    assert_eq!(find("one", None).await, ids(&[3, 4]));
    assert_eq!(find("one", Some("first")).await, ids(&[1, 3, 4]));
    assert_eq!(find("one", Some("third")).await, ids(&[3, 4]));
    assert_eq!(find("two", None).await, ids(&[6]));
    assert_eq!(find("three", Some("third")).await, ids(&[7]));
    assert_eq!(find("nobody", Some("first")).await, ids(&[]));
    assert_eq!(store.find_runs(&[]).await.unwrap().runs, []);
    let all = store
        .find_runs(&["one", "two"].map(|id| (Namespace::new("default"), WorkflowId::new(id), None)))
        .await
        .unwrap();
    assert_eq!(all.runs.len(), 3);
}

async fn a_long_outcome_is_found_by_its_run_alone(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let longest = FOUND_OUTCOME_BYTES;
    for (n, id, outcome) in [
        (1, "short", "é".repeat(longest / 2)),
        (2, "long", "é".repeat(longest / 2 + 1)),
    ] {
        let mut row = closed(run(n, id), 5);
        row.outcome = Some(outcome);
        commit(store, &mut session, &inserts([row])).await;
    }
    for (n, id, found_bytes, bytes) in [(1, "short", Some(longest), longest), (2, "long", None, longest + 2)] {
        let asked = (Namespace::new("default"), WorkflowId::new(id), None);
        let found = store.find_runs(&[asked]).await.unwrap();
        assert_eq!(found.runs[0].row.outcome.as_ref().map(String::len), found_bytes);
        let row = store.run_row(run_id(n)).await.unwrap().unwrap();
        assert_eq!(row.outcome.map(|outcome| outcome.len()), Some(bytes));
    }
}

async fn zero_in_a_question_is_refused(rig: impl Rig) {
    let store = rig.store();
    let (default, zero) = (Namespace::new("default"), Namespace::new("\0"));
    let refused = |error: StoreError| assert!(matches!(error, StoreError::Rejected(_)), "{error:?}");
    let good = (default.clone(), WorkflowId::new("a"), None);
    for bad in [
        (zero.clone(), WorkflowId::new("a"), None),
        (default.clone(), WorkflowId::new("a\0"), None),
        (default.clone(), WorkflowId::new("a"), Some(RequestId::new("\0"))),
    ] {
        refused(store.find_runs(&[good.clone(), bad]).await.unwrap_err());
    }
    let workflow = WorkflowName::new("a\0");
    refused(store.definition(&default, &workflow, Some(1)).await.unwrap_err());
    refused(
        store
            .list_definitions(&zero, &DefinitionFilter::default())
            .await
            .unwrap_err(),
    );
    let filter = RunFilter {
        workflow_id: Some(WorkflowId::new("\0")),
        limit: 1,
        ..RunFilter::default()
    };
    refused(store.list_runs(&default, &filter).await.unwrap_err());
}

async fn loading_starts_at_the_snapshot(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let snapshot = |seq, body: &str| Snapshot {
        run_id: run_id(1),
        seq,
        body: body.to_owned(),
    };
    let batch = Batch {
        appends: (1..=5)
            .map(|seq| append(1, seq, "[]"))
            .chain([append(2, 1, "[0]")])
            .collect(),
        snapshots: vec![snapshot(3, "{\"at\":3}")],
        ..inserts([run(1, "one"), run(2, "two")])
    };
    commit(store, &mut session, &batch).await;
    // An older one does not replace it.
    let older = Batch {
        snapshots: vec![snapshot(2, "{\"at\":2}")],
        ..Batch::default()
    };
    commit(store, &mut session, &older).await;
    let mut loaded = store
        .load_runs(&[run_id(2), run_id(77), run_id(1), run_id(1)])
        .await
        .unwrap();
    loaded.sort_by_key(|run| run.row.run_id);
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded[0].snapshot, Some(snapshot(3, "{\"at\":3}")));
    assert_eq!(
        loaded[0].transitions.iter().map(|there| there.seq).collect::<Vec<_>>(),
        [4, 5]
    );
    assert_eq!(loaded[1].snapshot, None);
    assert_eq!(loaded[1].transitions, [append(2, 1, "[0]").transition]);
    assert_eq!(store.load_runs(&[]).await.unwrap(), []);

    let seqs = async |after, limit| -> Vec<i32> {
        let history = store.history(run_id(1), after, limit).await.unwrap();
        history.iter().map(|there| there.seq).collect()
    };
    assert_eq!(seqs(0, 100).await, [1, 2, 3, 4, 5]);
    assert_eq!(seqs(2, 2).await, [3, 4]);
    assert_eq!(seqs(5, 2).await, [0; 0]);
    assert_eq!(store.history(run_id(77), 0, 10).await.unwrap(), []);
}

async fn due_runs_come_earliest_first(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let rows = (1..=12).map(|n| {
        let mut row = run(n, &format!("id{n}"));
        row.partition = i16::try_from(n % 3).unwrap();
        row.wake_at = (n != 7).then_some(Timestamp(1_000 * i64::try_from(13 - n).unwrap()));
        row
    });
    commit(store, &mut session, &inserts(rows)).await;
    let due = async |partitions: &[i16], until, limit| -> Vec<u64> {
        let mut page = DuePage::first(Timestamp(until), limit);
        let answer = store.due(partitions, page).await.unwrap();
        // What is behind it follows, one by one.
        let mut all = answer.runs.clone();
        let mut whole = answer.whole;
        while !whole {
            let (run, at) = *all.last().unwrap();
            (page.after, page.limit) = (Some((at, run)), 1);
            let next = store.due(partitions, page).await.unwrap();
            assert_eq!(next.runs.len(), 1);
            all.extend(next.runs);
            whole = next.whole;
        }
        assert_eq!(
            all,
            store
                .due(partitions, DuePage::first(Timestamp(until), 100))
                .await
                .unwrap()
                .runs
        );
        let due = answer.runs;
        assert!(due.is_sorted_by_key(|(_, at)| *at));
        due.iter()
            .map(|(_, at)| 13 - u64::try_from(at.0 / 1_000).unwrap())
            .collect()
    };
    assert_eq!(due(&[0, 1, 2], 4_000, 100).await, [12, 11, 10, 9]);
    assert_eq!(due(&[0, 1, 2], 3_999, 100).await, [12, 11, 10]);
    assert_eq!(due(&[0, 1, 2], 4_000, 2).await, [12, 11]);
    assert_eq!(due(&[1], i64::MAX, 100).await, [10, 4, 1]);
    assert_eq!(due(&[], i64::MAX, 100).await, [0; 0]);
    let close = Batch {
        runs: vec![RunWrite::Update(closed(run(10, "id10"), 5))],
        ..Batch::default()
    };
    commit(store, &mut session, &close).await;
    assert_eq!(due(&[1], i64::MAX, 100).await, [4, 1]);
}

async fn lists_go_by_keyset(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let rows = (1..=1_100).map(|n| {
        let mut row = run(n, &format!("id{n}"));
        if n % 2 == 0 {
            row.workflow = WorkflowName::new("even");
        }
        if n % 3 == 0 { closed(row, 9) } else { row }
    });
    commit(store, &mut session, &inserts(rows)).await;
    let default = Namespace::new("default");
    let list = async |filter: RunFilter| -> Vec<RunId> {
        let rows = store.list_runs(&default, &filter).await.unwrap();
        rows.iter().map(|row| row.run_id).collect()
    };
    let page = |limit, before: Option<u64>| RunFilter {
        limit,
        before: before.map(run_id),
        ..RunFilter::default()
    };
    assert_eq!(store.count_parked().await.unwrap(), 0);
    assert_eq!(list(page(3, None)).await, [1_100, 1_099, 1_098].map(run_id));
    assert_eq!(list(page(3, Some(1_098))).await, [1_097, 1_096, 1_095].map(run_id));
    assert_eq!(list(page(3, Some(1))).await, []);
    assert_eq!(list(page(0, None)).await, []);
    assert_eq!(list(page(u32::MAX, None)).await.len(), 1_000);
    let both = RunFilter {
        workflow: Some(WorkflowName::new("even")),
        status: Some("completed".to_owned()),
        ..page(2, None)
    };
    assert_eq!(list(both).await, [1_098, 1_092].map(run_id));
    let one = RunFilter {
        workflow_id: Some(WorkflowId::new("id5")),
        ..page(10, None)
    };
    assert_eq!(list(one).await, [run_id(5)]);
    let elsewhere = store
        .list_runs(&Namespace::new("other"), &page(10, None))
        .await
        .unwrap();
    assert_eq!(elsewhere, []);
    let parked = [1, 2].map(|n| RunRow {
        status: "parked".to_owned(),
        ..run(n, &format!("id{n}"))
    });
    let updates = parked.map(RunWrite::Update).to_vec();
    let batch = Batch {
        runs: updates,
        ..inserts([])
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(store.count_parked().await.unwrap(), 2);
}

fn schedule(n: u64, name: &str) -> RunRow {
    let mut row = run(n, &format!("$schedule/{name}"));
    row.workflow = WorkflowName::new("$schedule");
    row
}

async fn schedules_are_listed_by_themselves(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let mut elsewhere = schedule(4, "a");
    elsewhere.namespace = Namespace::new("other");
    let mut parked = schedule(6, "p");
    parked.status = "parked".to_owned();
    let rows = [
        schedule(1, "b"),
        schedule(2, "a"),
        closed(schedule(3, "c"), 9),
        elsewhere,
        run(5, "order-1"),
        parked,
    ];
    commit(store, &mut session, &inserts(rows)).await;
    let default = Namespace::new("default");
    let listed = async |after: Option<&str>, limit| -> Vec<RunId> {
        let after = after.map(WorkflowId::new);
        let rows = store.list_schedules(&default, after.as_ref(), limit).await.unwrap();
        rows.iter().map(|row| row.run_id).collect()
    };
    assert_eq!(listed(None, 10).await, [2, 1, 6].map(run_id));
    assert_eq!(listed(None, 1).await, [run_id(2)]);
    assert_eq!(listed(None, 0).await, []);
    assert_eq!(listed(Some("$schedule/a"), 10).await, [1, 6].map(run_id));
    let runs = async |filter: RunFilter| -> Vec<RunId> {
        let rows = store.list_runs(&default, &filter).await.unwrap();
        rows.iter().map(|row| row.run_id).collect()
    };
    let all = RunFilter {
        limit: 10,
        ..RunFilter::default()
    };
    assert_eq!(runs(all.clone()).await, [run_id(5)]);
    let of_status = RunFilter {
        status: Some("parked".to_owned()),
        ..all.clone()
    };
    assert_eq!(runs(of_status).await, []);
    let by_workflow = RunFilter {
        workflow: Some(WorkflowName::new("$schedule")),
        ..all.clone()
    };
    assert_eq!(runs(by_workflow).await, [6, 3, 2, 1].map(run_id));
    let by_id = RunFilter {
        workflow_id: Some(WorkflowId::new("$schedule/a")),
        ..all
    };
    assert_eq!(runs(by_id).await, [run_id(2)]);
}

async fn triggers_are_listed_by_themselves_and_found_by_partition(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let trigger = |n, name: &str, partition| {
        let mut row = run(n, &format!("$trigger/order/{name}"));
        row.workflow = WorkflowName::new("$trigger");
        row.partition = partition;
        row
    };
    let mut elsewhere = trigger(4, "a", 1);
    elsewhere.namespace = Namespace::new("other");
    let rows = [
        trigger(1, "b", 0),
        trigger(2, "a", 1),
        closed(trigger(3, "c", 0), 9),
        elsewhere,
        run(5, "order-1"),
        schedule(6, "s"),
    ];
    commit(store, &mut session, &inserts(rows)).await;
    let default = Namespace::new("default");
    let listed = async |after: Option<&str>, limit| -> Vec<RunId> {
        let after = after.map(WorkflowId::new);
        let rows = store.list_triggers(&default, after.as_ref(), limit).await.unwrap();
        rows.iter().map(|row| row.run_id).collect()
    };
    assert_eq!(listed(None, 10).await, [2, 1].map(run_id));
    assert_eq!(listed(None, 1).await, [run_id(2)]);
    assert_eq!(listed(Some("$trigger/order/a"), 10).await, [run_id(1)]);
    // Of all namespaces.
    assert_eq!(store.triggers(&[0]).await.unwrap(), [run_id(1)]);
    assert_eq!(store.triggers(&[0, 1, 2]).await.unwrap(), [1, 2, 4].map(run_id));
    assert_eq!(store.triggers(&[]).await.unwrap(), []);
    let all = RunFilter {
        limit: 10,
        ..RunFilter::default()
    };
    let runs = store.list_runs(&default, &all).await.unwrap();
    assert_eq!(runs.iter().map(|row| row.run_id).collect::<Vec<_>>(), [run_id(5)]);
    assert_eq!(store.format_level().await.unwrap(), FORMAT_LEVEL);
}

async fn an_occurrence_is_started_once(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let occurrence = |n, id: &str, request: &str| {
        let mut row = run(n, id);
        row.request_id = Some(RequestId::new(request));
        row
    };
    let first = closed(occurrence(1, "nightly-1", "$schedule/s/1"), 5);
    commit(store, &mut session, &inserts([first])).await;
    // Whatever its workflow id and its run, and though the first has closed.
    let again = inserts([occurrence(2, "other", "$schedule/s/1")]);
    let refused = commit_error(store, &session, &again).await;
    assert!(matches!(refused, CommitError::BadData(_)), "{refused}");
    let twice = inserts([
        occurrence(3, "nightly-2", "$schedule/s/2"),
        occurrence(4, "nightly-2b", "$schedule/s/2"),
    ]);
    assert!(matches!(
        commit_error(store, &session, &twice).await,
        CommitError::BadData(_)
    ));
    let next = inserts([
        occurrence(5, "nightly-2", "$schedule/s/2"),
        // The requests of others may repeat.
        occurrence(6, "x", "q"),
        occurrence(7, "y", "q"),
    ]);
    commit(store, &mut session, &next).await;
}

async fn what_a_snapshot_of_a_schedule_has_taken_in_may_go(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let batch = Batch {
        appends: (1..=5)
            .map(|seq| append(1, seq, "[]"))
            .chain([append(2, 1, "[]")])
            .collect(),
        ..inserts([schedule(1, "a"), run(2, "order-1")])
    };
    commit(store, &mut session, &batch).await;
    let forgets = Batch {
        appends: vec![append(1, 6, "[]")],
        snapshots: vec![Snapshot {
            run_id: run_id(1),
            seq: 6,
            body: "{}".to_owned(),
        }],
        forgotten: vec![Forgotten {
            retention_class: 0,
            run_id: run_id(1),
            up_to: 4,
        }],
        ..Batch::default()
    };
    commit(store, &mut session, &forgets).await;
    let left = store.history(run_id(1), 0, 10).await.unwrap();
    assert_eq!(left.iter().map(|transition| transition.seq).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(store.history(run_id(2), 0, 10).await.unwrap().len(), 1);
    let loaded = store.load_runs(&[run_id(1)]).await.unwrap();
    assert_eq!(loaded[0].snapshot.as_ref().unwrap().seq, 6);
    assert_eq!(loaded[0].transitions, []);
    // Fenced off, it forgets nothing.
    let stale = Session {
        batch_no: session.batch_no + 7,
        ..session
    };
    let all = Batch {
        forgotten: vec![Forgotten {
            retention_class: 0,
            run_id: run_id(2),
            up_to: 9,
        }],
        ..Batch::default()
    };
    assert!(matches!(commit_error(store, &stale, &all).await, CommitError::Fenced));
    assert_eq!(store.history(run_id(2), 0, 10).await.unwrap().len(), 1);
}

pub(crate) fn definition(workflow: &str, version: i32, hash: &str) -> StoredDefinition {
    StoredDefinition {
        namespace: Namespace::new("default"),
        workflow: WorkflowName::new(workflow),
        version,
        hash: DefinitionHash(hash.into()),
        body: format!("{{\"workflow\":\"{workflow}\"}}"),
        source: format!("workflow: {workflow}"),
        registered_at: Timestamp(1_700_000_000_000_001),
    }
}

async fn definitions_never_change(rig: impl Rig) {
    let store = rig.store();
    let epoch = async || store.find_runs(&[]).await.unwrap().definitions_epoch;
    let start = epoch().await;
    assert_eq!(
        store.register_definition(&definition("b", 1, "h1")).await.unwrap(),
        Registered::New
    );
    assert_eq!(
        store.register_definition(&definition("b", 1, "h1")).await.unwrap(),
        Registered::Unchanged
    );
    let conflict = store.register_definition(&definition("b", 1, "h2")).await.unwrap();
    assert_eq!(
        conflict,
        Registered::Conflict {
            hash: DefinitionHash("h1".into())
        }
    );
    assert_eq!(epoch().await, start + 1);
    for (workflow, version, hash) in [("b", 10, "h10"), ("b", 9, "h9"), ("a", 3, "h3")] {
        let registered = store
            .register_definition(&definition(workflow, version, hash))
            .await
            .unwrap();
        assert_eq!(registered, Registered::New);
    }
    let heads = store.definition_heads().await.unwrap();
    assert_eq!(heads.definitions_epoch, start + 4);
    assert_eq!(heads.definitions_epoch, epoch().await);
    let heads: Vec<_> = heads
        .heads
        .iter()
        .map(|head| (head.workflow.as_str(), head.version, &*head.hash.0))
        .collect();
    assert_eq!(heads, [("a", 3, "h3"), ("b", 10, "h10")]);

    let (default, b) = (Namespace::new("default"), WorkflowName::new("b"));
    let version = |version| DefaultVersion {
        version,
        at: Timestamp(1_700_000_000_000_002),
        by: Some("ann".to_owned()),
        reason: None,
    };
    let head = async || {
        let heads = store.definition_heads().await.unwrap();
        let head = heads.heads.iter().find(|head| head.workflow == b).unwrap();
        (head.version, heads.definitions_epoch)
    };
    let marked = async || -> Vec<i32> {
        let filter = DefinitionFilter {
            limit: 9,
            ..DefinitionFilter::default()
        };
        let rows = store.list_definitions(&default, &filter).await.unwrap();
        rows.iter().filter(|row| row.default).map(|row| row.version).collect()
    };
    assert!(
        store
            .set_default_version(&default, &b, Some(&version(9)))
            .await
            .unwrap()
    );
    assert_eq!((head().await, marked().await), ((9, start + 5), vec![9]));
    assert!(
        !store
            .set_default_version(&default, &b, Some(&version(2)))
            .await
            .unwrap()
    );
    assert_eq!(head().await, (9, start + 5));
    assert!(
        store
            .set_default_version(&default, &b, Some(&version(1)))
            .await
            .unwrap()
    );
    assert_eq!((head().await, marked().await), ((1, start + 6), vec![1]));
    for _ in 0..2 {
        assert!(store.set_default_version(&default, &b, None).await.unwrap());
        assert_eq!((head().await, marked().await), ((10, start + 7), vec![]));
    }
    let nobody = WorkflowName::new("nobody");
    assert!(!store.set_default_version(&default, &nobody, None).await.unwrap());
    let newest = store.definition(&default, &b, None).await.unwrap().unwrap();
    assert_eq!(*newest, definition("b", 10, "h10"));
    let ninth = store.definition(&default, &b, Some(9)).await.unwrap().unwrap();
    assert_eq!(*ninth, definition("b", 9, "h9"));
    assert_eq!(store.definition(&default, &b, Some(2)).await.unwrap(), None);
    let by_hash = store
        .definition_by_hash(&DefinitionHash("h3".into()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*by_hash, definition("a", 3, "h3"));
    assert_eq!(
        store.definition_by_hash(&DefinitionHash("h2".into())).await.unwrap(),
        None
    );
    let listed = async |workflow: Option<&str>, after: Option<(&str, i32)>, limit| -> Vec<i32> {
        let filter = DefinitionFilter {
            workflow: workflow.map(WorkflowName::new),
            after: after.map(|(workflow, version)| (WorkflowName::new(workflow), version)),
            limit,
        };
        let rows = store.list_definitions(&default, &filter).await.unwrap();
        rows.iter().map(|there| there.version).collect()
    };
    assert_eq!(listed(None, None, 9).await, [3, 1, 9, 10]);
    assert_eq!(listed(None, None, 3).await, [3, 1, 9]);
    assert_eq!(listed(None, Some(("a", 3)), 9).await, [1, 9, 10]);
    assert_eq!(listed(Some("b"), Some(("b", 1)), 1).await, [9]);
    let hashes = [newest.hash.clone(), DefinitionHash("nobody".into())];
    let bodies = store.definition_bodies(&hashes).await.unwrap();
    assert_eq!(bodies, [(newest.hash.clone(), newest.body.clone())]);

    let mut nowhere = definition("c", 1, "h");
    nowhere.namespace = Namespace::new("nowhere");
    for wrong in [nowhere, definition("c", 0, "h"), definition("c\0", 1, "h")] {
        let error = store.register_definition(&wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected(_)), "{error:?}");
    }
}

async fn namespaces_exist_once(rig: impl Rig) {
    let store = rig.store();
    let row = |name: &str, retention_class| NamespaceRow {
        name: Namespace::new(name),
        retention_class,
        events: EVENTS_BY_DEFAULT,
    };
    let epoch = async || store.find_runs(&[]).await.unwrap().definitions_epoch;
    let before = epoch().await;
    assert!(store.create_namespace(&row("shop", 2)).await.unwrap());
    assert!(!store.create_namespace(&row("shop", 3)).await.unwrap());
    assert_eq!(epoch().await, before + 1, "replicas have something to read");
    assert!(!store.create_namespace(&row("default", 3)).await.unwrap());
    assert!(matches!(
        store.create_namespace(&row("x", -1)).await,
        Err(StoreError::Rejected(_))
    ));
    assert_eq!(store.namespaces().await.unwrap(), [row("default", 0), row("shop", 2)]);
}

/// Whoever it was, and nothing else.
async fn who_keeps_a_lease_hears_that_something_was_committed(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let other = rig.another().await;
    let idle = other.open_session("b").await.unwrap();
    let heard = async || other.keep(&idle, &[]).await.unwrap().commits;
    let before = heard().await;
    store.keep(&session, &[]).await.unwrap();
    assert_eq!(heard().await, before);
    commit(store, &mut session, &inserts([run(1, "a")])).await;
    let after = heard().await;
    assert_ne!(after, before);
    assert_eq!(heard().await, after);
}

async fn who_keeps_a_lease_hears_whose_events_are_on(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    let shop = NamespaceRow {
        name: Namespace::new("shop"),
        retention_class: 0,
        events: true,
    };
    store.create_namespace(&shop).await.unwrap();
    let default = Namespace::new("default");
    for on in [false, true] {
        assert!(store.set_events(&default, on).await.unwrap());
        assert!(!store.set_events(&Namespace::new("nowhere"), on).await.unwrap());
        assert_eq!(store.namespaces().await.unwrap()[0].events, on);
        let telling = store.keep(&session, &[]).await.unwrap().telling;
        let expected = [default.clone(), shop.name.clone()];
        assert_eq!(telling, expected[usize::from(!on)..]);
    }
    store.set_events(&shop.name, false).await.unwrap();
    assert_eq!(store.keep(&session, &[]).await.unwrap().telling, [default]);
}

async fn a_lapsed_session_is_taken_over_as_a_whole(rig: impl Rig) {
    let dead = rig.another().await;
    let mut session = owner(&dead, "a").await;
    let batch = Batch {
        cursors: vec![cursor(1, 5)],
        owed: owed(1, 1, 1),
        ..inserts([run(1, "one")])
    };
    commit(&dead, &mut session, &batch).await;

    let store = rig.store();
    let heir = store.open_session("b").await.unwrap();
    let share = store.keep(&heir, &[]).await.unwrap();
    assert_eq!(
        (share.gained.len(), share.live_sessions, share.inherited.len()),
        (0, 2, 0)
    );
    rig.lapse(session.id).await;
    let share = store.keep(&heir, &[]).await.unwrap();
    assert_eq!(share.live_sessions, 1);
    assert_eq!(share.gained.len(), usize::from(PARTITIONS) + 1);
    assert_eq!(share.gained[1].cursor, cursor(1, 5).cursor);
    let id = CommitId {
        session: session.id,
        batch_no: 1,
    };
    assert_eq!(share.inherited, [id]);
    let stranger = CommitId { session: heir.id, ..id };
    let owed = store.owed(&heir, &[stranger, id]).await.unwrap();
    let owed: Vec<_> = owed.iter().map(|commit| (commit.id, &commit.owed)).collect();
    assert_eq!(owed, [(id, &batch.owed)]);
    assert_eq!(store.owed(&session, &[id]).await.unwrap(), []);

    // The dead one comes back too late for everything.
    assert!(matches!(
        commit_error(&dead, &session, &Batch::default()).await,
        CommitError::Fenced
    ));
    assert!(matches!(dead.keep(&session, &[]).await, Err(StoreError::Fenced)));
    assert!(matches!(dead.recover(&session).await, Err(StoreError::Fenced)));
    // Told once, and what was inherited can be reported as published.
    let share = store.keep(&heir, &[]).await.unwrap();
    assert_eq!((share.gained.len(), share.inherited.len()), (0, 0));
    let batch = Batch {
        cursors: vec![cursor(1, 6)],
        published: vec![id],
        ..Batch::default()
    };
    store.commit(&heir, &batch).await.unwrap();
    assert_eq!(rig.dump(|_| 0).await.commits, []);
}

async fn a_lapsed_owner_may_renew(rig: impl Rig) {
    let mut session = owner(rig.store(), "a").await;
    let other = rig.another().await;
    let heir = other.open_session("b").await.unwrap();
    // By keeping, by committing and by recovering.
    rig.lapse(session.id).await;
    assert_eq!(rig.store().keep(&session, &[]).await.unwrap().gained, []);
    assert_eq!(other.keep(&heir, &[]).await.unwrap().live_sessions, 2);
    rig.lapse(session.id).await;
    commit(rig.store(), &mut session, &Batch::default()).await;
    assert_eq!(other.keep(&heir, &[]).await.unwrap().live_sessions, 2);
    rig.lapse(session.id).await;
    rig.store().recover(&session).await.unwrap();
    let share = other.keep(&heir, &[]).await.unwrap();
    assert_eq!((share.live_sessions, share.gained.len()), (2, 0));
}

async fn a_restarted_replica_inherits_at_once(rig: impl Rig) {
    let first = rig.another().await;
    let mut session = owner(&first, "a").await;
    let batch = Batch {
        owed: owed(1, 1, 1),
        ..inserts([run(1, "one")])
    };
    commit(&first, &mut session, &batch).await;
    let bystander = rig.another().await;
    let other = bystander.open_session("b").await.unwrap();
    rig.kill(first).await;

    let second = rig.another().await;
    let heir = second.open_session("a").await.unwrap();
    // Already now the predecessor is fenced, and its lease keeps it from anybody but its heir.
    let error = commit_error(&bystander, &session, &Batch::default()).await;
    assert!(matches!(error, CommitError::Fenced));
    assert_eq!(bystander.keep(&other, &[]).await.unwrap().gained, []);
    let share = second.keep(&heir, &[]).await.unwrap();
    assert_eq!(share.gained.len(), usize::from(PARTITIONS) + 1);
    assert_eq!(share.inherited.len(), 1);
    assert_eq!(share.live_sessions, 2);
    assert_eq!(share.surplus, 2);

    // In one process the caller itself says that it has given up its session.
    let again = second.open_session("a").await.unwrap();
    let share = second.keep(&again, &[]).await.unwrap();
    assert_eq!(
        (share.gained.len(), share.inherited.len()),
        (usize::from(PARTITIONS) + 1, 1)
    );
    assert!(matches!(second.keep(&heir, &[]).await, Err(StoreError::Fenced)));
}

async fn a_namesake_is_refused_while_it_lives(rig: impl Rig) {
    let first = rig.another().await;
    let session = first.open_session("a").await.unwrap();
    let error = rig.store().open_session("a").await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NameTaken { .. }) && error.to_string().starts_with("KN0312"),
        "{error:?}"
    );
    // It holds its lock and does not renew: hung, or cut off. Its lease decides.
    rig.lapse(session.id).await;
    let heir = rig.store().open_session("a").await.unwrap();
    rig.store().keep(&heir, &[]).await.unwrap();
    assert!(matches!(first.keep(&session, &[]).await, Err(StoreError::Fenced)));
    rig.kill(first).await;
}

async fn shares_are_fair_and_released_ones_move(rig: impl Rig) {
    let store = rig.store();
    let first = owner(store, "a").await;
    let second = store.open_session("b").await.unwrap();
    assert_eq!(store.keep(&second, &[]).await.unwrap().gained, []);
    let share = store.keep(&first, &[]).await.unwrap();
    assert_eq!((share.gained.len(), share.surplus, share.live_sessions), (0, 2, 2));
    store.release(&first, &[1, 3, 99]).await.unwrap();
    let moved = Batch {
        cursors: vec![cursor(1, 1)],
        ..Batch::default()
    };
    assert!(matches!(commit_error(store, &first, &moved).await, CommitError::Fenced));
    let share = store.keep(&second, &[]).await.unwrap();
    assert_eq!(
        share.gained.iter().map(|owned| owned.partition).collect::<Vec<_>>(),
        [1, 3]
    );
    assert_eq!(store.keep(&first, &[]).await.unwrap().surplus, 0);
    store.commit(&second, &moved).await.unwrap();
    // What is released and comes back is gained again.
    store.release(&second, &[1]).await.unwrap();
    let share = store.keep(&second, &[]).await.unwrap();
    assert_eq!(share.gained.len(), 1);
    assert_eq!(share.gained[0].cursor, moved.cursors[0].cursor);
}

async fn a_closed_session_leaves_its_commits(rig: impl Rig) {
    let store = rig.store();
    let mut first = owner(store, "a").await;
    let second = store.open_session("b").await.unwrap();
    let batch = Batch {
        owed: owed(1, 1, 1),
        ..Batch::default()
    };
    commit(store, &mut first, &batch).await;
    store.close_session(&first).await.unwrap();
    assert!(matches!(commit_error(store, &first, &batch).await, CommitError::Fenced));
    assert!(matches!(store.close_session(&first).await, Err(StoreError::Fenced)));
    let share = store.keep(&second, &[]).await.unwrap();
    assert_eq!(
        (share.gained.len(), share.inherited.len(), share.live_sessions),
        (5, 1, 1)
    );
    store.keep(&second, &[share.inherited[0]]).await.unwrap();
    store.close_session(&second).await.unwrap();
    let dump = rig.dump(|_| 0).await;
    assert_eq!((dump.sessions, dump.commits), (vec![], vec![]));
    // The name is free for another process.
    let third = rig.another().await.open_session("b").await.unwrap();
    assert_eq!(third.batch_no, 0);
}

async fn recovery_raises_the_epoch_and_may_be_repeated(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    commit(store, &mut session, &Batch::default()).await;
    let recovered = store.recover(&session).await.unwrap();
    assert_eq!(
        recovered,
        Session {
            epoch: session.epoch + 1,
            ..session
        }
    );
    // As if its answer had been lost.
    let recovered = store.recover(&session).await.unwrap();
    assert_eq!(recovered.epoch, session.epoch + 2);
    assert!(matches!(
        commit_error(store, &session, &Batch::default()).await,
        CommitError::Fenced
    ));
    store.commit(&recovered, &Batch::default()).await.unwrap();
    assert_eq!(
        store.cursors(&recovered).await.unwrap().len(),
        usize::from(PARTITIONS) + 1
    );
}

async fn recovery_after_a_takeover_is_fenced(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    let heir = store.open_session("b").await.unwrap();
    rig.lapse(session.id).await;
    store.keep(&heir, &[]).await.unwrap();
    assert!(matches!(store.recover(&session).await, Err(StoreError::Fenced)));
}

async fn published_commits_go(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    for n in 1..=3 {
        let batch = Batch {
            owed: owed(n, 1, 1),
            ..Batch::default()
        };
        commit(store, &mut session, &batch).await;
    }
    let session_id = session.id;
    let id = move |batch_no| CommitId {
        session: session_id,
        batch_no,
    };
    let left = async || -> Vec<i64> { rig.dump(|_| 0).await.commits.iter().map(|row| row.batch_no).collect() };
    let batch = Batch {
        published: vec![id(2), id(77)],
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(left().await, [1, 3]);
    store.keep(&session, &[id(3)]).await.unwrap();
    assert_eq!(left().await, [1]);
    // Not somebody else's.
    let other = store.open_session("b").await.unwrap();
    store.keep(&other, &[id(1)]).await.unwrap();
    assert_eq!(left().await, [1]);
}

async fn the_format_level_follows_the_oldest_session(rig: impl Rig) {
    let (old, new) = (rig.reading(FORMAT_LEVEL).await, rig.reading(FORMAT_LEVEL + 1).await);
    let level = async |session: &Session| new.keep(session, &[]).await.unwrap().format_level;
    let old_session = old.open_session("old").await.unwrap();
    let session = new.open_session("new").await.unwrap();
    assert_eq!(level(&session).await, FORMAT_LEVEL);
    // An owner whose lease has ended may still renew it.
    rig.lapse(old_session.id).await;
    old.keep(&old_session, &[]).await.unwrap();
    assert_eq!(level(&session).await, FORMAT_LEVEL);

    old.close_session(&old_session).await.unwrap();
    assert_eq!(level(&session).await, FORMAT_LEVEL + 1);
    let too_old = |error: StoreError| matches!(error, StoreError::TooOld { level, reads } if level > reads);
    assert!(too_old(old.prepare(PARTITIONS).await.unwrap_err()));
    assert!(too_old(old.open_session("old").await.unwrap_err()));
    let newer = rig.reading(FORMAT_LEVEL + 2).await;
    newer.open_session("newer").await.unwrap();
    assert_eq!(newer.prepare(PARTITIONS).await.unwrap().format_level, FORMAT_LEVEL + 1);
    // It never falls.
    assert_eq!(level(&session).await, FORMAT_LEVEL + 1);
}

pub(crate) fn deferred(partition: i16, no: i64, run: u64) -> DeferredInput {
    DeferredInput {
        partition,
        no,
        run_id: run_id(run),
        cursor: cursor(partition, 40 + no.unsigned_abs()).cursor,
        subject: format!("knarr.in.{partition}.default.id{run}.result"),
        headers: r#"[["Knarr-Token","t"]]"#.to_owned(),
        body: vec![0, 255, 7],
    }
}

async fn deferred_inputs_stay_until_they_are_settled(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let inputs = [
        deferred(1, 1, 7),
        deferred(1, 2, 8),
        deferred(1, 3, 7),
        deferred(2, 1, 9),
    ];
    let batch = Batch {
        cursors: vec![cursor(1, 43), cursor(2, 41)],
        deferred: inputs.to_vec(),
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(rig.dump(|_| 0).await.deferred, inputs);
    let owned = store.cursors(&session).await.unwrap();
    let flags: Vec<bool> = owned.iter().map(|owned| owned.deferred).collect();
    assert_eq!(flags, [false, true, true, false, false]);
    let names = store.deferred_names(1).await.unwrap();
    let names: Vec<_> = names
        .iter()
        .map(|name| (name.no, name.run_id, &*name.subject))
        .collect();
    let expected = [&inputs[0], &inputs[1], &inputs[2]].map(|input| (input.no, input.run_id, &*input.subject));
    assert_eq!(names, expected);
    assert_eq!(
        store.deferred(1, run_id(7), 0).await.unwrap(),
        [inputs[0].clone(), inputs[2].clone()]
    );
    assert_eq!(store.deferred(1, run_id(7), 1).await.unwrap(), [inputs[2].clone()]);
    assert_eq!(store.deferred(2, run_id(7), 0).await.unwrap(), []);

    let batch = Batch {
        partitions: vec![1],
        settled: vec![DeferredId { partition: 1, no: 1 }, DeferredId { partition: 1, no: 2 }],
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(rig.dump(|_| 0).await.deferred, [inputs[2].clone(), inputs[3].clone()]);

    let many = i64::try_from(DEFERRED_LIMIT).unwrap() + 1;
    let batch = Batch {
        deferred: (1..=many).map(|no| deferred(3, no, 5)).collect(),
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(store.deferred(3, run_id(5), 0).await.unwrap().len(), DEFERRED_LIMIT);
}

async fn a_batch_with_deferred_inputs_is_there_as_a_whole(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let first = Batch {
        cursors: vec![cursor(1, 41)],
        deferred: vec![deferred(1, 1, 7)],
        ..Batch::default()
    };
    commit(store, &mut session, &first).await;
    let before = rig.dump(|_| 0).await;
    let good = Batch {
        cursors: vec![cursor(1, 42)],
        appends: vec![append(1, 1, "[]")],
        deferred: vec![deferred(1, 2, 7)],
        settled: vec![DeferredId { partition: 1, no: 1 }],
        ..inserts([run(1, "one")])
    };
    let bad = [
        Batch {
            settled: vec![DeferredId { partition: 1, no: 9 }],
            ..good.clone()
        },
        Batch {
            deferred: vec![deferred(1, 1, 8)],
            settled: Vec::new(),
            ..good.clone()
        },
        Batch {
            deferred: vec![deferred(1, 0, 8)],
            ..good.clone()
        },
        Batch {
            deferred: vec![DeferredInput {
                subject: "a\0b".to_owned(),
                ..deferred(1, 2, 8)
            }],
            ..good.clone()
        },
    ];
    for batch in bad {
        let error = commit_error(store, &session, &batch).await;
        assert!(matches!(error, CommitError::BadData(_)), "{error:?} {batch:?}");
        assert_eq!(rig.dump(|_| 0).await, before);
    }
    let old = Session {
        batch_no: session.batch_no - 1,
        ..session
    };
    assert!(matches!(commit_error(store, &old, &good).await, CommitError::Fenced));
    assert_eq!(rig.dump(|_| 0).await, before);
    commit(store, &mut session, &good).await;
    assert_eq!(rig.dump(|_| 0).await.deferred, [deferred(1, 2, 7)]);
}

pub(crate) fn permit(partition: i16, limiter: &str, no: i64, body: Option<&str>) -> PermitWrite {
    PermitWrite {
        id: PermitId {
            partition,
            namespace: Namespace::new("default"),
            limiter: limiter.to_owned(),
            no,
        },
        body: body.map(str::to_owned),
    }
}

async fn rows_of_limiters_are_written_with_their_batch_or_not_at_all(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let elsewhere = |mut write: PermitWrite| {
        write.id.namespace = Namespace::new("other");
        write
    };
    let first = Batch {
        partitions: vec![1, 2],
        permits: vec![
            permit(1, "limit-a", 0, Some("0")),
            permit(1, "limit-a", 1, Some("1")),
            elsewhere(permit(1, "limit-a", 1, Some("other"))),
            permit(2, "limit-b", 7, Some("7")),
            // Nothing there is nothing to remove.
            permit(2, "limit-b", 8, None),
        ],
        ..Batch::default()
    };
    commit(store, &mut session, &first).await;
    let owned = store.cursors(&session).await.unwrap();
    let flags: Vec<bool> = owned.iter().map(|owned| owned.permits).collect();
    assert_eq!(flags, [false, true, true, false, false]);
    let bodies = async |partition| {
        let rows = store.permits(partition).await.unwrap();
        rows.into_iter()
            .map(|row| format!("{} {} {}", row.id.namespace, row.id.no, row.body))
            .collect::<Vec<_>>()
    };
    assert_eq!(bodies(1).await, ["default 0 0", "default 1 1", "other 1 other"]);
    assert_eq!(bodies(2).await, ["default 7 7"]);

    let before = rig.dump(|_| 0).await;
    let good = Batch {
        permits: vec![
            permit(1, "limit-a", 1, Some("one")),
            permit(1, "limit-a", 0, None),
            permit(2, "limit-b", 7, None),
        ],
        appends: vec![append(1, 1, "[]")],
        ..inserts([run(1, "one")])
    };
    for bad in [
        permit(1, "limit-a", -1, Some("1")),
        permit(1, "limit-a", 2, Some("a\0b")),
        permit(1, "limit\0a", 2, Some("1")),
        permit(1, "limit-a", 1, Some("again")),
    ] {
        let mut batch = good.clone();
        batch.permits.push(bad);
        let error = commit_error(store, &session, &batch).await;
        assert!(matches!(error, CommitError::BadData(_)), "{error:?} {batch:?}");
        assert_eq!(rig.dump(|_| 0).await, before);
    }
    let old = Session {
        batch_no: session.batch_no - 1,
        ..session
    };
    assert!(matches!(commit_error(store, &old, &good).await, CommitError::Fenced));
    assert_eq!(rig.dump(|_| 0).await, before);
    commit(store, &mut session, &good).await;
    assert_eq!(bodies(1).await, ["default 1 one", "other 1 other"]);
    assert_eq!(bodies(2).await, Vec::<String>::new());
}

async fn what_is_said_of_a_queue_replaces_what_was_and_raises_the_epoch(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    let namespace = NamespaceRow {
        name: Namespace::new("default"),
        retention_class: 0,
        events: EVENTS_BY_DEFAULT,
    };
    store.create_namespace(&namespace).await.unwrap();
    let row = |namespace: &str, queue: &str, max_concurrent, rate: Option<(i32, u64)>| QueueRow {
        namespace: Namespace::new(namespace),
        queue: QueueName::new(queue),
        max_concurrent,
        rate: rate.map(|(limit, per)| QueueRate { limit, per: Span(per) }),
    };
    let epoch = async || store.keep(&session, &[]).await.unwrap().definitions_epoch;
    let before = epoch().await;
    let both = row("default", "orders", Some(10), Some((50, 1_000_000)));
    store.set_queue(&both).await.unwrap();
    let other = row("default", "mail", None, Some((1, 3_600_000_000)));
    store.set_queue(&other).await.unwrap();
    assert_eq!(store.queues().await.unwrap(), [other.clone(), both]);
    let one = row("default", "orders", Some(3), None);
    store.set_queue(&one).await.unwrap();
    assert_eq!(store.queues().await.unwrap(), [other.clone(), one]);
    store.set_queue(&row("default", "orders", None, None)).await.unwrap();
    store.set_queue(&row("default", "never", None, None)).await.unwrap();
    assert_eq!(store.queues().await.unwrap(), std::slice::from_ref(&other));
    assert_eq!(epoch().await, before + 5);
    for bad in [
        row("nowhere", "orders", Some(1), None),
        row("default", "orders", Some(0), None),
        row("default", "orders", None, Some((0, 1))),
        row("default", "orders", None, Some((1, 0))),
        row("default", "", Some(1), None),
    ] {
        let error = store.set_queue(&bad).await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected(_)), "{error:?} {bad:?}");
    }
    assert_eq!(store.queues().await.unwrap(), [other]);
    assert_eq!(epoch().await, before + 5);
}

async fn limits_in_use_are_counted(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let name = |key: &str| LimitName {
        kind: LimitKind::Activity,
        of: "charge".into(),
        key: key.into(),
    };
    let row = |key: &str, no: i64, asked_at: i64, granted: bool| {
        let permit = Row::Permit(Permit {
            from: Sender {
                run: run_id(no.unsigned_abs()),
                namespace: Namespace::new("default"),
                workflow_id: WorkflowId::new("w"),
            },
            number: MessageNo(1),
            ask: Ask {
                limit: name(key),
                bound: Bound::Concurrent(1),
                step: "a".into(),
                direction: Default::default(),
                priority: 3,
                fairness_key: "".into(),
                on_conflict: Default::default(),
            },
            turn: 1,
            asked_at: Timestamp(asked_at),
            granted_at: granted.then_some(Timestamp(asked_at)),
            instead_of: None,
        });
        permit_row(name(key).address().as_str(), no, &permit.to_json())
    };
    let pace = permit_row(name("x").address().as_str(), 0, &Row::Pace(Timestamp(9)).to_json());
    let batch = Batch {
        partitions: vec![1],
        permits: vec![
            row("x", 1, 10, true),
            row("x", 2, 20, true),
            row("y", 1, 40, false),
            row("y", 2, 30, false),
            pace,
        ],
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    let uses = store.limits_in_use(&Namespace::new("default")).await.unwrap();
    let uses: Vec<_> = uses
        .iter()
        .map(|used| (&*used.limit.key, used.held, used.waiting, used.since))
        .collect();
    assert_eq!(uses, [("y", 0, 2, Some(Timestamp(30))), ("x", 2, 0, None)]);
    assert_eq!(store.limits_in_use(&Namespace::new("other")).await.unwrap(), []);
}

fn permit_row(limiter: &str, no: i64, body: &str) -> PermitWrite {
    permit(1, limiter, no, Some(body))
}

async fn sizes_are_those_of_what_is_loaded(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let batch = Batch {
        appends: vec![
            append(1, 1, "[1]"),
            append(1, 2, "[22]"),
            append(1, 3, "[333]"),
            append(2, 1, "[]"),
        ],
        snapshots: vec![Snapshot {
            run_id: run_id(1),
            seq: 2,
            body: "{ }".to_owned(),
        }],
        ..inserts([run(1, "one"), run(2, "two")])
    };
    commit(store, &mut session, &batch).await;
    let mut sizes = store.run_sizes(&[run_id(1), run_id(3), run_id(2)]).await.unwrap();
    sizes.sort_by_key(|size| size.run_id);
    let sizes: Vec<_> = sizes
        .iter()
        .map(|size| (size.run_id, size.partition, size.bytes))
        .collect();
    assert_eq!(sizes, [(run_id(1), 0, 8), (run_id(2), 0, 2)]);
}
