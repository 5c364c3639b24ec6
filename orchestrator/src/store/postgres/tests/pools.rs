//! Whose connections are used for what.

use std::time::Duration;

use knarr_core::ids::{DefinitionHash, Namespace, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;
use sqlx::{Connection, Executor, PgConnection};

use super::{batch, prepared, session};
use crate::store::conformance::{next, run_id};
use crate::store::postgres::pool::{Pool, Taken};
use crate::store::postgres::{PostgresConfig, PostgresStore, testing};
use crate::store::{DefinitionFilter, DuePage, RunFilter, Store, StoreError};

async fn store(url: &str) -> PostgresStore {
    let config = PostgresConfig {
        connect_timeout: Duration::from_millis(500),
        ..testing::config(url)
    };
    PostgresStore::connect(config).await.unwrap()
}

async fn drain(pool: &Pool) -> Vec<Taken> {
    let mut taken = Vec::new();
    while let Ok(connection) = pool.take().await {
        taken.push(connection);
    }
    taken
}

#[tokio::test]
async fn the_engine_goes_on_while_people_hold_all_their_connections() {
    let (url, _) = prepared().await;
    let store = store(&url).await;
    let session = session(&store).await;
    let held = drain(&store.people).await;
    assert_eq!(held.len(), 4);
    store.commit(&session, &batch(1)).await.unwrap();
    store.keep(&next(session), &[]).await.unwrap();
    store.now().await.unwrap();
    let id = (Namespace::new("default"), WorkflowId::new("id1"), None);
    assert_eq!(store.find_runs(&[id]).await.unwrap().runs.len(), 1);
    store.load_runs(&[run_id(1)]).await.unwrap();
    store.due(&[0], DuePage::first(Timestamp(9), 9)).await.unwrap();
    store.definition_heads().await.unwrap();
    store.namespaces().await.unwrap();
    store.definition_by_hash(&DefinitionHash("x".into())).await.unwrap();
    let (namespace, workflow) = (Namespace::new("default"), WorkflowName::new("x"));
    store.definition(&namespace, &workflow, None).await.unwrap();
    store.ensure_partitions(Timestamp(0)).await.unwrap();
    // And they themselves are told.
    let list = store.for_people().list_runs(&namespace, &RunFilter::default()).await;
    assert!(matches!(list, Err(StoreError::Unavailable(_))), "{list:?}");
}

#[tokio::test]
async fn a_question_of_people_that_takes_too_long_is_ended_by_the_server() {
    let (url, _) = prepared().await;
    let config = PostgresConfig {
        people_timeout: Duration::from_millis(100),
        ..testing::config(&url)
    };
    let store = PostgresStore::connect(config).await.unwrap();
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    blocker
        .execute("begin; lock table runs in access exclusive mode")
        .await
        .unwrap();
    let people = store.for_people();
    let list = people
        .list_runs(&Namespace::new("default"), &RunFilter::default())
        .await;
    assert!(matches!(list, Err(StoreError::TooSlow)), "{list:?}");
    blocker.execute("rollback").await.unwrap();
    assert!(store.load_runs(&[run_id(1)]).await.unwrap().is_empty());
}

#[tokio::test]
async fn people_are_answered_while_the_engine_holds_all_its_connections() {
    let (url, _) = prepared().await;
    let store = store(&url).await;
    let session = session(&store).await;
    store.commit(&session, &batch(1)).await.unwrap();
    let held = drain(&store.reads).await;
    assert_eq!(held.len(), 4);
    store.keep(&next(session), &[]).await.unwrap();
    let people = store.for_people();
    let namespace = Namespace::new("default");
    let id = (namespace.clone(), WorkflowId::new("id1"), None);
    assert_eq!(people.find_runs(&[id]).await.unwrap().runs.len(), 1);
    assert!(people.run_row(run_id(1)).await.unwrap().is_some());
    assert_eq!(people.history(run_id(1), 0, 9).await.unwrap().len(), 2);
    let filter = RunFilter {
        limit: 9,
        ..RunFilter::default()
    };
    assert_eq!(people.list_runs(&namespace, &filter).await.unwrap().len(), 1);
    people.now().await.unwrap();
    people.namespaces().await.unwrap();
    people
        .list_definitions(&namespace, &DefinitionFilter::default())
        .await
        .unwrap();
}
