//! A host that vanishes without a word, a server that restarts, a server that stalls.

use std::time::Duration;

use knarr_core::ids::{Namespace, WorkflowId};
use knarr_core::time::Timestamp;
use sqlx::{Connection, Executor, PgConnection};

use super::proxy::Proxy;
use super::{batch, prepared, scalar, session};
use crate::store::conformance::{next, run_id};
use crate::store::postgres::{PostgresConfig, PostgresStore, testing};
use crate::store::{CommitError, DuePage, Store, StoreError};

/// Every limit far below the one that the kernel has for a host that says nothing.
fn impatient(url: &str) -> PostgresConfig {
    PostgresConfig {
        renewal_timeout: Duration::from_millis(300),
        answer_timeout: Duration::from_secs(1),
        commit_timeout: Duration::from_millis(300),
        people_timeout: Duration::from_millis(300),
        ..testing::config(url)
    }
}

#[tokio::test]
async fn a_host_that_vanishes_is_given_up_and_the_new_one_serves() {
    let (url, _) = prepared().await;
    let proxy = Proxy::start(&url).await;
    let store = PostgresStore::connect(impatient(&proxy.url)).await.unwrap();
    let session = session(&store).await;
    store.commit(&session, &batch(1)).await.unwrap();
    let id = (Namespace::new("default"), WorkflowId::new("id1"), None);
    store.find_runs(std::slice::from_ref(&id)).await.unwrap();

    proxy.vanish();
    let unanswered = async {
        let commit = store.commit(&next(session), &batch(2)).await;
        assert!(matches!(commit, Err(CommitError::Unknown(_))), "{commit:?}");
        let kept = store.keep(&next(session), &[]).await;
        assert!(matches!(kept, Err(StoreError::Unavailable(_))), "{kept:?}");
        // A connection of the pool that has just been used is not asked whether it is well.
        let found = store.find_runs(std::slice::from_ref(&id)).await;
        assert!(matches!(found, Err(StoreError::Unavailable(_))), "{found:?}");
    };
    tokio::time::timeout(Duration::from_secs(5), unanswered).await.unwrap();

    let session = store.recover(&next(session)).await.unwrap();
    assert_eq!(session.batch_no, 1);
    assert_eq!(store.find_runs(&[id]).await.unwrap().runs.len(), 1);
    assert!(
        store
            .due(&[0], DuePage::first(Timestamp(9), 9))
            .await
            .unwrap()
            .runs
            .is_empty()
    );
    store.keep(&session, &[]).await.unwrap();
    store.commit(&session, &batch(2)).await.unwrap();
    assert_eq!(store.load_runs(&[run_id(2)]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_two_namesakes_one_ends_after_the_server_has_lost_their_lock() {
    let (url, _) = prepared().await;
    let mut config = testing::config(&url);
    config.replica_lock_wait = Duration::from_millis(10);
    let first = PostgresStore::connect(config.clone()).await.unwrap();
    let second = PostgresStore::connect(config).await.unwrap();
    let mut running = session(&first).await;
    assert!(matches!(
        second.open_session("a").await,
        Err(StoreError::NameTaken { .. })
    ));
    terminate_all(&url).await;
    // The second is the first to be back.
    let usurper = loop {
        match second.open_session("a").await {
            Ok(session) => break session,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    second.keep(&usurper, &[]).await.unwrap();
    let ended = loop {
        match first.keep(&running, &[]).await {
            Err(StoreError::Unavailable(_)) => {}
            Err(StoreError::Fenced) => match first.open_session("a").await {
                Ok(session) => running = session,
                Err(error) => break error,
            },
            other => panic!("{other:?}"),
        }
        second.keep(&usurper, &[]).await.unwrap();
    };
    assert!(matches!(ended, StoreError::NameTaken { .. }), "{ended:?}");
    second.keep(&usurper, &[]).await.unwrap();
}

/// The lock that a lost connection's backend still had is asked for until it is there.
#[tokio::test]
async fn a_name_is_locked_again_once_the_old_backend_has_gone() {
    let (url, _) = prepared().await;
    let store = testing::connect(&url).await;
    let session = session(&store).await;
    // As if its host did not know yet that the connection is gone.
    let old = store.lease.lock().await.connection.take().unwrap();
    store.keep(&session, &[]).await.unwrap();
    let held = "select count(*) from pg_locks where locktype = 'advisory' and granted and pid <> pg_backend_pid()
                and database = (select oid from pg_database where datname = current_database())";
    old.close().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while scalar::<i64>(&url, held).await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the old backend lives on");
    }
    store.keep(&session, &[]).await.unwrap();
    assert_eq!(scalar::<i64>(&url, held).await, 1);
}

/// A server that stalls lets leases end before they can be seen, and holds the row of whoever commits.
#[tokio::test]
async fn a_commit_that_outlives_its_lease_costs_nobody_anything() {
    let (url, _) = prepared().await;
    let config = PostgresConfig {
        lease: Duration::from_millis(300),
        silence: Duration::from_millis(200),
        ..testing::config(&url)
    };
    let mut stores = Vec::new();
    for name in ["a", "b", "c"] {
        let store = PostgresStore::connect(config.clone()).await.unwrap();
        let session = store.open_session(name).await.unwrap();
        store.keep(&session, &[]).await.unwrap();
        stores.push((store, session));
    }
    let mut admin = PgConnection::connect(&url).await.unwrap();
    admin
        .execute(
            "create function stall() returns trigger language plpgsql as
             $$ begin perform pg_sleep(1.5); return null; end $$;
             create trigger stall after insert on runs for each statement execute function stall()",
        )
        .await
        .unwrap();
    let (busy, session) = &stores[0];
    let stalled = batch(1);
    let commit = busy.commit(session, &stalled);
    tokio::pin!(commit);
    let mut committed = None;
    let mut renewals = tokio::time::interval(Duration::from_millis(50));
    let mut rounds_after = 0;
    // As long again as it takes to be taken for dead.
    while rounds_after < 10 {
        tokio::select! {
            result = &mut commit, if committed.is_none() => committed = Some(result),
            _ = renewals.tick() => {
                rounds_after += u32::from(committed.is_some());
                for (store, session) in &stores {
                    let began = tokio::time::Instant::now();
                    let share = store.keep(session, &[]).await.unwrap();
                    assert_eq!(share.live_sessions, 3);
                    assert!(began.elapsed() < Duration::from_secs(1), "a renewal waited");
                }
            }
        }
    }
    committed.unwrap().unwrap();
    assert_eq!(scalar::<i64>(&url, "select max(epoch) from sessions").await, 1);
    assert_eq!(scalar::<i64>(&url, "select count(*) from sessions").await, 3);
    // One who says nothing any more is taken over all the same.
    let dead = session.id;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let heir = loop {
        renewals.tick().await;
        assert!(tokio::time::Instant::now() < deadline, "nobody takes over");
        let mut heirs = Vec::new();
        for (store, session) in &stores[1..] {
            let share = store.keep(session, &[]).await.unwrap();
            heirs.extend(share.inherited.iter().map(|commit| commit.session));
        }
        if let Some(heir) = heirs.pop() {
            break heir;
        }
    };
    assert_eq!(heir, dead);
}

async fn terminate_all(url: &str) {
    let mut admin = PgConnection::connect(url).await.unwrap();
    admin
        .execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
}
