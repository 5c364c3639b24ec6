//! Schedules and triggers.

use super::*;

pub(super) fn schedule(n: u64, name: &str) -> RunRow {
    let mut row = run(n, &format!("$schedule/{name}"));
    row.workflow = WorkflowName::new("$schedule");
    row
}

pub(super) async fn schedules_are_listed_by_themselves(rig: impl Rig) {
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

pub(super) async fn triggers_are_listed_by_themselves_and_found_by_partition(rig: impl Rig) {
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

pub(super) async fn an_occurrence_is_started_once(rig: impl Rig) {
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

pub(super) async fn what_a_snapshot_of_a_schedule_has_taken_in_may_go(rig: impl Rig) {
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
