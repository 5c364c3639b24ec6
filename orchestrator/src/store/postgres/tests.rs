//! What only PostgreSQL can show: lost connections, waiting backends, partitions of events, plans and limits of its own.

use std::time::Duration;

use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowId};
use knarr_core::time::Timestamp;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::net::TcpListener;
use uuid::Uuid;

use self::proxy::{CUT_AFTER, CUT_BEFORE, CUT_DURING, Proxy};
use super::{PostgresStore, testing};
use crate::store::conformance::{PARTITIONS, append, closed, next, owed, run, run_id};
use crate::store::{
    Batch, CommitError, Cursor, CursorWrite, DuePage, FORMAT_LEVEL, RunWrite, Session, Store, StoreError,
};

mod outage;
mod plans;
mod pools;
mod proxy;

async fn prepared() -> (String, PostgresStore) {
    let url = testing::database().await;
    let store = testing::connect(&url).await;
    store.prepare(PARTITIONS).await.unwrap();
    (url, store)
}

async fn session(store: &PostgresStore) -> Session {
    let session = store.open_session("a").await.unwrap();
    store.keep(&session, &[]).await.unwrap();
    session
}

fn batch(n: u64) -> Batch {
    Batch {
        appends: vec![append(n, 1, "[]"), append(n, 2, "[]")],
        runs: vec![RunWrite::Insert(run(n, &format!("id{n}")))],
        owed: owed(n, 1, 2),
        ..Batch::default()
    }
}

async fn scalar<T>(url: &str, sql: &str) -> T
where
    T: for<'a> sqlx::Decode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut connection = PgConnection::connect(url).await.unwrap();
    let row = connection.fetch_one(AssertSqlSafe(sql)).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_cut_commit_is_told_apart_by_recovery() {
    let (url, store) = prepared().await;
    let proxy = Proxy::start(&url).await;
    let cut = testing::connect(&proxy.url).await;
    let mut session = session(&cut).await;
    // The statement is prepared on its connection, so that the next bytes are the batch.
    let warm = async |session: &mut Session| {
        cut.commit(session, &Batch::default()).await.unwrap();
        *session = next(*session);
    };
    let mut n = 0;
    for round in 0..24 {
        warm(&mut session).await;
        n += 1;
        let mode = [CUT_BEFORE, CUT_AFTER, CUT_DURING][round % 3];
        proxy.next(mode);
        let error = cut.commit(&session, &batch(n)).await.unwrap_err();
        assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
        let recovered = cut.recover(&session).await.unwrap();
        assert_eq!(recovered.epoch, session.epoch + 1);
        let landed = recovered.batch_no == session.batch_no + 1;
        assert!(landed || recovered.batch_no == session.batch_no);
        match mode {
            CUT_BEFORE => assert!(!landed),
            CUT_AFTER => assert!(landed),
            _ => {}
        }
        let stored = store.load_runs(&[run_id(n)]).await.unwrap();
        assert_eq!(stored.len(), usize::from(landed));
        // And the truth stays the truth: the old batch cannot land any more.
        assert!(matches!(
            cut.commit(&session, &batch(n)).await,
            Err(CommitError::Fenced)
        ));
        session = recovered;
        if !landed {
            cut.commit(&session, &batch(n)).await.unwrap();
            session = next(session);
        }
    }
}

#[tokio::test]
async fn recovery_waits_for_a_backend_that_still_executes() {
    let (url, _) = prepared().await;
    let mut config = testing::config(&url);
    config.commit_timeout = Duration::from_millis(500);
    let store = PostgresStore::connect(config).await.unwrap();
    let session = session(&store).await;
    store.commit(&session, &Batch::default()).await.unwrap();
    let session = next(session);

    let mut blocker = PgConnection::connect(&url).await.unwrap();
    // Behind this the commit waits when it has passed the fence.
    blocker
        .execute("begin; select from partitions where partition = 0 for update")
        .await
        .unwrap();
    let stuck = Batch {
        cursors: vec![CursorWrite {
            partition: 0,
            cursor: Cursor::default(),
        }],
        ..batch(1)
    };
    let error = store.commit(&session, &stuck).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
    let recovered = async { store.recover(&session).await.unwrap() };
    let unblock = async {
        // The moment at which recovery waits behind the commit's lock on the session.
        waiting_for_locks(&url, 2).await;
        blocker.execute("rollback").await.unwrap();
    };
    let (recovered, ()) = tokio::join!(recovered, unblock);
    assert_eq!(recovered.batch_no, session.batch_no + 1);
    assert_eq!(store.load_runs(&[run_id(1)]).await.unwrap().len(), 1);
}

/// Waits until so many statements of this database wait for a lock.
async fn waiting_for_locks(url: &str, count: i64) {
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    while scalar::<i64>(url, waiting).await < count {
        assert!(tokio::time::Instant::now() < deadline, "nobody waits");
    }
}

#[tokio::test]
async fn a_commit_that_waited_behind_a_release_is_fenced() {
    let (url, store) = prepared().await;
    let session = session(&store).await;
    store.commit(&session, &Batch::default()).await.unwrap();
    let session = next(session);
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    blocker
        .execute("begin; select from partitions where partition = 0 for update")
        .await
        .unwrap();
    // The release has the session's row and waits for the partition's; the commit has read what was owned, and waits.
    let release = store.release(&session, &[0]);
    let late = Batch {
        partitions: vec![0],
        ..batch(1)
    };
    let commit = async {
        waiting_for_locks(&url, 1).await;
        store.commit(&session, &late).await
    };
    let unblock = async {
        waiting_for_locks(&url, 2).await;
        blocker.execute("rollback").await.unwrap();
    };
    let (released, committed, ()) = tokio::join!(release, commit, unblock);
    released.unwrap();
    assert!(matches!(committed, Err(CommitError::Fenced)), "{committed:?}");
    assert_eq!(scalar::<i64>(&url, "select count(*) from runs").await, 0);
    let session = store.recover(&session).await.unwrap();
    assert_eq!(session.batch_no, 1);
}

#[tokio::test]
async fn a_terminated_backend_is_an_unknown_outcome_and_the_next_commit_connects_anew() {
    let (url, store) = prepared().await;
    let session = session(&store).await;
    store.commit(&session, &batch(1)).await.unwrap();
    let mut admin = PgConnection::connect(&url).await.unwrap();
    admin
        .execute(
            // One that has yet to end holds its locks.
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
    let error = store.commit(&next(session), &batch(2)).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
    // The lease's connection is gone as well; its first use says so, the second is a new one.
    let session = match store.recover(&next(session)).await {
        Ok(session) => session,
        Err(StoreError::Unavailable(_)) => store.recover(&next(session)).await.unwrap(),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(session.batch_no, 1);
    store.commit(&session, &batch(2)).await.unwrap();
    // The new connection holds the session lock again.
    let mut config = testing::config(&url);
    config.replica_lock_wait = Duration::from_millis(10);
    let namesake = PostgresStore::connect(config).await.unwrap();
    assert!(matches!(
        namesake.open_session("a").await,
        Err(StoreError::NameTaken { .. })
    ));
}

#[tokio::test]
async fn an_answer_of_keep_that_was_lost_is_given_again() {
    let (url, store) = prepared().await;
    let proxy = Proxy::start(&url).await;
    let cut = testing::connect(&proxy.url).await;
    let session = cut.open_session("a").await.unwrap();
    // Wherever in its statements the round is cut, the next one that succeeds tells of every partition.
    for mode in [CUT_AFTER, CUT_DURING, CUT_BEFORE] {
        proxy.next(mode);
        let lost = cut.keep(&session, &[]).await.unwrap_err();
        assert!(matches!(lost, StoreError::Unavailable(_)), "{lost:?}");
    }
    let mut claimed = PgConnection::connect(&url).await.unwrap();
    sqlx::query("update partitions set owner = $1")
        .bind(session.id)
        .execute(&mut claimed)
        .await
        .unwrap();
    let share = cut.keep(&session, &[]).await.unwrap();
    assert_eq!(share.gained.len(), usize::from(PARTITIONS) + 1);
    drop(store);
}

/// A release takes effect and its answer is lost; where its partitions are taken again, their owner is told.
#[tokio::test]
async fn partitions_whose_release_was_not_heard_of_are_gained_when_they_are_taken_again() {
    let (url, _store) = prepared().await;
    let proxy = Proxy::start(&url).await;
    let cut = testing::connect(&proxy.url).await;
    let session = session(&cut).await;
    // The statement is prepared on its connection, so that the next bytes are the release.
    cut.release(&session, &[]).await.unwrap();
    proxy.next(CUT_AFTER);
    let lost = cut.release(&session, &[0, 1]).await.unwrap_err();
    assert!(matches!(lost, StoreError::Unavailable(_)), "{lost:?}");
    let free = "select count(*) from partitions where owner is null";
    assert_eq!(scalar::<i64>(&url, free).await, 2);
    let session = cut.recover(&session).await.unwrap();
    let share = cut.keep(&session, &[]).await.unwrap();
    let gained: Vec<i16> = share.gained.iter().map(|owned| owned.partition).collect();
    assert_eq!(gained, [0, 1]);
}

#[tokio::test]
async fn two_claimants_of_one_dead_session_do_not_both_get_it() {
    for _ in 0..10 {
        let (url, store) = prepared().await;
        let dead = session(&store).await;
        store.commit(&dead, &batch(1)).await.unwrap();
        let (b, c) = (testing::connect(&url).await, testing::connect(&url).await);
        let (first, second) = (b.open_session("b").await.unwrap(), c.open_session("c").await.unwrap());
        testing::lapse(&url, dead.id).await;
        let late = next(dead);
        let late_batch = batch(2);
        let (one, two, late) = tokio::join!(
            b.keep(&first, &[]),
            c.keep(&second, &[]),
            store.commit(&late, &late_batch)
        );
        let (mut one, mut two) = (one.unwrap(), two.unwrap());
        if late.is_ok() {
            // It renewed in time.
            continue;
        }
        // Whoever was second may find the row gone, or claimed and to be had at the next round.
        for _ in 0..2 {
            let more = b.keep(&first, &[]).await.unwrap();
            one.gained.extend(more.gained);
            one.inherited.extend(more.inherited);
            let more = c.keep(&second, &[]).await.unwrap();
            two.gained.extend(more.gained);
            two.inherited.extend(more.inherited);
        }
        let mut partitions: Vec<i16> = one
            .gained
            .iter()
            .chain(&two.gained)
            .map(|owned| owned.partition)
            .collect();
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 1, 2, 3, 4]);
        assert_eq!(one.inherited.len() + two.inherited.len(), 1);
        assert!(store.load_runs(&[run_id(2)]).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn events_go_to_the_day_of_their_run_and_are_moved_when_it_came_late() {
    let (url, store) = prepared().await;
    let session = session(&store).await;
    let now = store.now().await.unwrap();
    let today = |n: u64| {
        let ms = u128::from(u64::try_from(now.0 / 1_000).unwrap());
        RunId(Uuid::from_u128((ms << 80) | (0x7 << 76) | (0x8 << 60) | u128::from(n)))
    };
    let far = Timestamp(now.0 + 40 * 86_400_000_000);
    let later = RunId(Uuid::from_u128(
        (u128::from(u64::try_from(far.0 / 1_000).unwrap()) << 80) | 0x7 << 76,
    ));
    let mut batch = Batch::default();
    for id in [today(1), today(2), later] {
        let mut row = run(1, &id.to_string());
        row.run_id = id;
        let mut event = append(1, 1, r#"[{"type":"started"},{"type":"done"}]"#);
        event.run_id = id;
        batch.runs.push(RunWrite::Insert(row));
        batch.appends.push(event);
    }
    store.commit(&session, &batch).await.unwrap();
    let tables = "select string_agg(tableoid::regclass::text, ' ' order by run_id) from events";
    let before: String = scalar(&url, tables).await;
    assert!(
        before.ends_with("events_c0_default") && before.starts_with("events_c0_20"),
        "{before}"
    );

    store.ensure_partitions(far).await.unwrap();
    store.ensure_partitions(far).await.unwrap();
    let after: String = scalar(&url, tables).await;
    assert!(!after.contains("default"), "{after}");
    assert_eq!(store.load_runs(&[later]).await.unwrap()[0].transitions.len(), 1);
    assert_eq!(
        scalar::<i64>(&url, "select count(*) from event_rows where event ->> 'type' = 'done'").await,
        3
    );
    // Times that no day of a UUIDv7 has are not an error.
    store.ensure_partitions(Timestamp(0)).await.unwrap();
    store.ensure_partitions(Timestamp(-86_400_000_000 * 400)).await.unwrap();
}

/// A backup reads `events` for hours.
#[tokio::test]
async fn a_reader_of_events_keeps_nobody_from_starting() {
    let (url, store) = prepared().await;
    let leaves = "select count(*) from pg_class where relname ~ '^events_c0_2' and relkind = 'r'";
    assert_eq!(scalar::<i64>(&url, leaves).await, 9);
    let mut reader = PgConnection::connect(&url).await.unwrap();
    reader
        .execute(
            "do $$ begin
                 execute (select format('drop table %I', max(relname)) from pg_class
                          where relname ~ '^events_c0_2' and relkind = 'r');
             end $$",
        )
        .await
        .unwrap();
    reader.execute("begin; select count(*) from events").await.unwrap();
    store.prepare(PARTITIONS).await.unwrap();
    let session = session(&store).await;
    store.commit(&session, &batch(1)).await.unwrap();
    assert!(store.ensure_partitions(store.now().await.unwrap()).await.is_err());
    reader.execute("rollback").await.unwrap();
    store.prepare(PARTITIONS).await.unwrap();
    assert_eq!(scalar::<i64>(&url, leaves).await, 9);
}

#[tokio::test]
async fn hot_statements_use_their_indexes_before_anything_is_analyzed() {
    let (url, store) = prepared().await;
    let mut session = session(&store).await;
    for n in 1..=5 {
        let closing = (n > 1).then(|| RunWrite::Update(closed(run(n - 1, "id"), 9)));
        let mut opening = run(n, "id");
        opening.wake_at = Some(Timestamp(1));
        let batch = Batch {
            appends: vec![append(n, 1, "[]")],
            runs: closing.into_iter().chain([RunWrite::Insert(opening)]).collect(),
            ..Batch::default()
        };
        store.commit(&session, &batch).await.unwrap();
        session = next(session);
    }
    let id = (
        Namespace::new("default"),
        WorkflowId::new("id"),
        Some(RequestId::new("r")),
    );
    assert_eq!(store.find_runs(&[id]).await.unwrap().runs.len(), 2);
    assert_eq!(store.load_runs(&[run_id(1), run_id(2)]).await.unwrap().len(), 2);
    assert_eq!(
        store
            .due(&[0, 1], DuePage::first(Timestamp(9), 9))
            .await
            .unwrap()
            .runs
            .len(),
        1
    );
    // The backends report what they did when they end.
    testing::kill(&url, store).await;
    let scans = "select sum(seq_scan)::bigint from pg_stat_user_tables where relname in ('runs', 'snapshots')";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let used = "select count(*) from pg_stat_user_indexes where relname = 'runs' and idx_scan > 0";
    while scalar::<i64>(&url, used).await < 3 {
        assert!(tokio::time::Instant::now() < deadline, "an index of runs is not used");
    }
    assert_eq!(scalar::<i64>(&url, scans).await, 0);
    assert_eq!(
        scalar::<i64>(
            &url,
            "select idx_scan from pg_stat_user_indexes where indexrelname = 'runs_listed'"
        )
        .await,
        0
    );
}

/// Whether a workflow id was used before is asked of each start alone, however many runs there are.
#[tokio::test]
async fn a_start_does_not_read_the_runs_of_others() {
    let (url, store) = prepared().await;
    let mut session = session(&store).await;
    for round in 0..4 {
        let starts = || (1..=100).map(move |n| round * 100 + n);
        let batch = Batch {
            appends: starts().map(|n| append(n, 1, "[]")).collect(),
            runs: starts().map(|n| RunWrite::Insert(run(n, &format!("id-{n}")))).collect(),
            ..Batch::default()
        };
        store.commit(&session, &batch).await.unwrap();
        session = next(session);
    }
    testing::kill(&url, store).await;
    let index = "from pg_stat_user_indexes where indexrelname = 'runs_by_workflow_id'";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut asked = 0;
    while asked < 400 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the index is asked {asked} times"
        );
        asked = scalar::<i64>(&url, &format!("select idx_scan {index}")).await;
    }
    let read = scalar::<i64>(&url, &format!("select idx_tup_read {index}")).await;
    assert_eq!(read, 0, "rows of others were read");
}

/// A replica of the level before could not read it; people read it whole.
#[tokio::test]
async fn a_birth_is_kept_without_what_its_row_says_from_the_second_level_on() {
    const BIRTH: &str = r#"[{"run_started":{"run_id":"00000000-0001-7000-8000-000000000000","namespace":"default","workflow_id":"a","workflow":"order","request_id":"r","version":1,"definition":"d1"}}]"#;
    const KEPT: &str = r#"[{"run_started":{"version":1,"definition":"d1"}}]"#;
    for (level, kept) in [(1, BIRTH), (2, KEPT)] {
        let url = testing::database().await;
        let store = testing::reading(&url, level).await;
        store.prepare(PARTITIONS).await.unwrap();
        let session = store.open_session("r1").await.unwrap();
        store.keep(&session, &[]).await.unwrap();
        let mut row = run(1, "a");
        row.request_id = Some(RequestId::new("r"));
        let batch = Batch {
            runs: vec![RunWrite::Insert(row)],
            appends: vec![append(1, 1, BIRTH)],
            ..Batch::default()
        };
        store.commit(&session, &batch).await.unwrap();
        assert_eq!(scalar::<String>(&url, "select body from events").await, kept, "{level}");
        let shown: String = scalar(&url, "select event::text from event_rows").await;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let whole: serde_json::Value = serde_json::from_str(BIRTH).unwrap();
        assert_eq!(shown, whole[0], "{level}");
        // Whoever reads need not know of the level.
        let again = testing::connect(&url).await;
        assert_eq!(
            again.load_runs(&[run_id(1)]).await.unwrap()[0].transitions[0].body,
            BIRTH
        );
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_with_a_code() {
    let (url, store) = prepared().await;
    let mut admin = PgConnection::connect(&url).await.unwrap();
    admin.execute("update cluster set format_level = 99").await.unwrap();
    let error = store.prepare(PARTITIONS).await.unwrap_err().to_string();
    assert!(error.starts_with("KN0311") && error.contains("99"), "{error}");
}

/// Of a binary that begins and one that raises the level at the same moment, one sees the other.
#[tokio::test]
async fn a_level_is_not_raised_under_a_session_that_begins() {
    let (url, _) = prepared().await;
    let (old, new) = (
        testing::reading(&url, FORMAT_LEVEL).await,
        testing::reading(&url, FORMAT_LEVEL + 1).await,
    );
    let session = new.open_session("new").await.unwrap();
    let mut other = PgConnection::connect(&url).await.unwrap();
    other
        .execute(
            "begin; select from cluster for share;
             insert into sessions (id, replica, epoch, lease_until)
             values (gen_random_uuid(), 'beginning', 1, clock_timestamp() + interval '1 hour')",
        )
        .await
        .unwrap();
    let begun = async {
        waiting_for_locks(&url, 1).await;
        other.execute("commit").await.unwrap();
    };
    let (share, ()) = tokio::join!(new.keep(&session, &[]), begun);
    assert_eq!(share.unwrap().format_level, FORMAT_LEVEL);

    other
        .execute("delete from sessions where replica = 'beginning'")
        .await
        .unwrap();
    other
        .execute("begin; update cluster set format_level = format_level + 1")
        .await
        .unwrap();
    let raised = async {
        waiting_for_locks(&url, 1).await;
        other.execute("commit").await.unwrap();
    };
    let (opened, ()) = tokio::join!(old.open_session("old"), raised);
    assert!(
        matches!(opened, Err(StoreError::TooOld { level, reads: FORMAT_LEVEL }) if level > FORMAT_LEVEL),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_a_wrong_url_is_refused() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = PostgresStore::connect(testing::config(&format!("postgres://postgres@{unused}/x"))).await;
    assert!(matches!(nobody, Err(StoreError::Unavailable(_))));
    let wrong = PostgresStore::connect(testing::config("postgres"))
        .await
        .unwrap_err()
        .to_string();
    assert!(wrong.starts_with("KN0313"), "{wrong}");
}
