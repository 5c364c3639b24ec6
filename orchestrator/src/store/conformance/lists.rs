//! Lists for people.

use super::*;

pub(super) async fn lists_go_by_keyset(rig: impl Rig) {
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
