//! What statements cost when there is much of everything.

use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowId};
use knarr_core::time::Timestamp;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use super::{prepared, scalar};
use crate::store::postgres::{PostgresStore, testing};
use crate::store::{CLOSED_LIMIT, DuePage, RunFilter, Store};

/// Buffers that the backends of a store have read in `runs` and its indexes, once they have ended.
async fn buffers_read(url: &str, store: PostgresStore) -> i64 {
    testing::kill(url, store).await;
    let pids =
        "select count(*) from pg_stat_activity where application_name = 'knarr' and datname = current_database()";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while scalar::<i64>(url, pids).await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "a backend lives on");
    }
    scalar::<i64>(
        url,
        "select (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
         from pg_statio_user_tables where relname = 'runs'",
    )
    .await
}

/// So many closed runs of one workflow id, every one with a request of its own, and a third of them in line until they had `left`
/// it; the last hundred are parked and open, of
/// other ids.
async fn many(url: &str, left: bool) {
    let mut admin = PgConnection::connect(url).await.unwrap();
    admin
        .execute(sqlx::AssertSqlSafe(format!(
            "insert into runs (run_id, retention_class, partition, version, namespace, workflow_id, workflow, definition,
                               status, started_at, closed_at, request_id, again, tenure)
             select ('00000000-0001-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 0, 0, 1, 'default',
                    case when n <= 30000 then 'busy' else 'id' || n end, 'order', 'd',
                    case when n <= 30000 then 'completed' when n % 1000 = 0 then 'parked' else 'running' end, now(),
                    case when n <= 30000 then now() end, 'r' || n, n between 2 and 30000,
                    case when {left} and n between 20001 and 30000
                         then ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid end
             from generate_series(1, 60000) n;
             analyze runs"
        )))
        .await
        .unwrap();
    // What this backend has done itself is reported, and forgotten.
    admin.execute("select pg_stat_force_next_flush()").await.unwrap();
    admin.execute("select pg_stat_reset()").await.unwrap();
}

fn busy(request: &str) -> (Namespace, WorkflowId, Option<RequestId>) {
    (
        Namespace::new("default"),
        WorkflowId::new("busy"),
        Some(RequestId::new(request)),
    )
}

#[tokio::test]
async fn a_start_does_not_read_all_runs_of_an_id_that_is_used_again_and_again() {
    for (request, found, left) in [
        ("r1", 2, false),
        ("r15000", 2, false),
        ("r30000", 1, false),
        ("new", 1, false),
        ("r1", 2, true),
        ("r30000", 2, true),
        ("r20000", 1, true),
    ] {
        // What a connection reads once, to plan, is in both.
        let mut read = [0; 2];
        for (times, read) in [1, 11].into_iter().zip(&mut read) {
            let (url, store) = prepared().await;
            many(&url, left).await;
            for _ in 0..times {
                let runs = store.find_runs(&[busy(request)]).await.unwrap().runs;
                assert_eq!(runs.len(), found, "{request}");
            }
            *read = buffers_read(&url, store).await;
        }
        let [once, often] = read;
        assert!(
            once > 0 && (often - once) / 10 < 25,
            "{request}: {once}, and {often} for eleven"
        );
    }
}

#[tokio::test]
async fn a_page_of_those_that_had_an_id_reads_what_it_tells() {
    for before in [None, Some("00000000-0001-7000-8000-000000003a98")] {
        let mut read = [0; 2];
        for (times, read) in [1, 11].into_iter().zip(&mut read) {
            let (url, store) = prepared().await;
            many(&url, false).await;
            for _ in 0..times {
                let before = before.map(|id| Uuid::parse_str(id).unwrap());
                let (namespace, id, _) = busy("r1");
                let runs = store.closed_runs(&namespace, &id, before).await.unwrap();
                assert_eq!(runs.len(), CLOSED_LIMIT);
            }
            *read = buffers_read(&url, store).await;
        }
        let [once, often] = read;
        assert!(
            once > 0 && (often - once) / 10 < 2 * CLOSED_LIMIT as i64,
            "{before:?}: {once}, and {often} for eleven"
        );
    }
}

#[tokio::test]
async fn a_list_with_a_filter_reads_what_it_shows() {
    let namespace = Namespace::new("default");
    let page = RunFilter {
        limit: 10,
        ..RunFilter::default()
    };
    let by_id = |id: &str| RunFilter {
        workflow_id: Some(WorkflowId::new(id)),
        ..page.clone()
    };
    let by_status = |status: &str| RunFilter {
        status: Some(status.to_owned()),
        ..page.clone()
    };
    let before = RunFilter {
        before: Some(RunId(
            uuid::Uuid::parse_str("00000000-0001-7000-8000-000000000064").unwrap(),
        )),
        ..by_id("busy")
    };
    for (filter, shown, left) in [
        (by_id("id30001"), 1, false),
        (by_id("nobody"), 0, false),
        (by_id("busy"), 10, false),
        (by_id("busy"), 10, true),
        (before.clone(), 10, false),
        (before, 10, true),
        (by_status("parked"), 10, false),
        (by_status("timed_out"), 0, false),
        (page.clone(), 10, false),
    ] {
        let (url, store) = prepared().await;
        many(&url, left).await;
        let rows = store.for_people().list_runs(&namespace, &filter).await.unwrap();
        assert_eq!(rows.len(), shown, "{filter:?}");
        assert!(rows.windows(2).all(|pair| pair[0].run_id > pair[1].run_id));
        let read = buffers_read(&url, store).await;
        assert!(read > 0 && read < 40, "{filter:?}: {read}");
    }
}

/// However many days there are, a run is read from its own.
#[tokio::test]
async fn a_load_touches_the_days_of_its_runs_alone() {
    let (url, store) = prepared().await;
    let mut admin = PgConnection::connect(&url).await.unwrap();
    // 108 days of a class, a run in each of them, every second one with a snapshot.
    admin
        .execute(
            "do $$ begin
                 for n in 0..11 loop
                     perform ensure_event_partitions(timestamptz '2023-11-15 00:00Z' + n * interval '9 days');
                 end loop;
             end $$;
             insert into runs (run_id, retention_class, partition, version, namespace, workflow_id, workflow, definition,
                               status, started_at)
             select (lpad(to_hex((1699920000000 + d::bigint * 86400000)), 12, '0') || '70008000000000000000')::uuid,
                    (select min(retention_class) from namespaces), 0, 1, 'default', 'id' || d, 'order', 'd', 'running', now()
             from generate_series(0, 107) d;
             insert into events (retention_class, seq, run_id, at, body)
             select r.retention_class, s, r.run_id, now(), '[1,2]' from runs r, generate_series(1, 3) s;
             insert into snapshots (run_id, seq, body)
             select run_id, 2, '{}' from runs where substr(workflow_id, 3)::integer % 2 = 1;
             select pg_stat_force_next_flush()",
        )
        .await
        .unwrap();
    let id = |day: u64| {
        let millis = 1_699_920_000_000 + day * 86_400_000;
        RunId(Uuid::from_u128((u128::from(millis) << 80) | 0x7000_8000_0000_0000_0000))
    };
    let touched = "select count(*) from pg_statio_user_tables
         where relname ~ '^events_c' and heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit > 0";
    testing::kill(&url, store).await;
    for (days, leaves) in [(vec![50, 51, 3], 3), (vec![70], 1)] {
        admin.execute("select pg_stat_reset()").await.unwrap();
        let store = testing::connect(&url).await;
        let ids: Vec<_> = days.iter().map(|day| id(*day)).collect();
        for _ in 0..7 {
            let mut loaded = store.load_runs(&ids).await.unwrap();
            loaded.sort_by_key(|run| run.row.run_id);
            let read: Vec<_> = loaded
                .iter()
                .map(|run| (run.row.run_id, run.transitions.len()))
                .collect();
            let mut expected: Vec<_> = days
                .iter()
                .map(|day| (id(*day), if day % 2 == 1 { 1 } else { 3 }))
                .collect();
            expected.sort();
            assert_eq!(read, expected);
            let mut sizes = store.run_sizes(&ids).await.unwrap();
            sizes.sort_by_key(|size| size.run_id);
            let sizes: Vec<_> = sizes.iter().map(|size| (size.run_id, size.bytes)).collect();
            let bytes = |count: usize| if count == 1 { 7 } else { 15 };
            let expected: Vec<_> = expected.iter().map(|(id, count)| (*id, bytes(*count))).collect();
            assert_eq!(sizes, expected);
        }
        buffers_read(&url, store).await;
        assert_eq!(scalar::<i64>(&url, touched).await, leaves);
        let days = scalar::<i64>(
            &url,
            "select count(*) from pg_class where relname ~ '^events_c[0-9]+_[0-9]+$'",
        )
        .await;
        assert!(days > 100, "{days} days");
    }
}

/// However many others there are of its day: a table that grows has not been looked at by the planner yet.
#[tokio::test]
async fn a_load_reads_what_it_loads() {
    let (url, store) = prepared().await;
    let mut admin = PgConnection::connect(&url).await.unwrap();
    // A million milliseconds of one day, a run in each fiftieth.
    admin
        .execute(
            "select ensure_event_partitions(timestamptz '2023-11-15 00:00Z');
             insert into runs (run_id, retention_class, partition, version, namespace, workflow_id, workflow, definition,
                               status, started_at)
             select (lpad(to_hex(1700006400000 + n::bigint * 50), 12, '0') || '70008000000000000000')::uuid,
                    (select min(retention_class) from namespaces), 0, 1, 'default', 'id' || n, 'order', 'd', 'running', now()
             from generate_series(0, 19999) n;
             insert into events (retention_class, seq, run_id, at, body)
             select retention_class, 1, run_id, now(), to_json(repeat('x', 300)) from runs;
             analyze runs;
             select pg_stat_force_next_flush()",
        )
        .await
        .unwrap();
    testing::kill(&url, store).await;
    admin.execute("select pg_stat_reset()").await.unwrap();
    let store = testing::connect(&url).await;
    let id = |n: u64| {
        let millis = 1_700_006_400_000 + n * 50;
        RunId(Uuid::from_u128((u128::from(millis) << 80) | 0x7000_8000_0000_0000_0000))
    };
    let ids: Vec<_> = (0..20).map(|n| id(n * 1_000)).collect();
    let loaded = store.load_runs(&ids).await.unwrap();
    assert!(loaded.len() == 20 && loaded.iter().all(|run| run.transitions.len() == 1));
    buffers_read(&url, store).await;
    let of_events = "select sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
         from pg_statio_user_tables where relname ~ '^events_c'";
    let read = scalar::<i64>(&url, of_events).await;
    assert!(read > 0 && read < 20 * 8, "{read}");
}

/// However many deadlines have come due, and of however many partitions, a page costs what it shows.
#[tokio::test]
async fn a_page_of_deadlines_reads_what_it_shows() {
    let (url, store) = prepared().await;
    let mut admin = PgConnection::connect(&url).await.unwrap();
    admin
        .execute(
            "insert into runs (run_id, retention_class, partition, version, namespace, workflow_id, workflow, definition,
                               status, started_at, wake_at)
             select ('00000000-0001-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 0, n % 64, 1, 'default', 'id' || n,
                    'sleep', 'd', 'running', now(), to_timestamp(n / 100)
             from generate_series(1, 200000) n",
        )
        .await
        .unwrap();
    // Nobody is left who might still see the table as it was: every page is marked as visible to all, and none is looked at.
    testing::kill(&url, store).await;
    admin.execute("vacuum analyze runs").await.unwrap();
    let unseen = "select (relpages - relallvisible)::bigint from pg_class where relname = 'runs'";
    assert_eq!(scalar::<i64>(&url, unseen).await, 0);
    admin.execute("select pg_stat_force_next_flush()").await.unwrap();
    admin.execute("select pg_stat_reset()").await.unwrap();
    let store = testing::connect(&url).await;
    let partitions: Vec<i16> = (0..64).collect();
    let mut page = DuePage::first(Timestamp::MAX, 1_000);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let due = store.due(&partitions, page).await.unwrap();
        assert!(
            !due.whole && (900..=1_000).contains(&due.runs.len()),
            "{}",
            due.runs.len()
        );
        page.after = due.runs.last().map(|(run, at)| (*at, *run));
        seen.extend(due.runs);
    }
    let ids: Vec<_> = (1..=seen.len() as u128)
        .map(|n| 0x0001_7000_8000_0000_0000_0000 + n)
        .collect();
    assert_eq!(seen.iter().map(|(run, _)| run.0.as_u128()).collect::<Vec<_>>(), ids);
    let read = buffers_read(&url, store).await;
    // An index page has about 150 of them; each of 64 partitions is looked up in three levels.
    assert!(read > 0 && read < 3 * (64 * 8 + 400), "{read}");
}
