//! Runs by their ids: open, queued, closed, found, loaded and due.

use super::*;

/// Its messages are not answered yet; or its parent has undone it later.
pub(super) async fn a_closed_run_may_wait_and_run_again(rig: impl Rig) {
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
pub(super) async fn who_is_queued_is_open_without_its_id(rig: impl Rig) {
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

/// One had its id after another that started later; one never had it.
pub(super) async fn who_had_an_id_last_is_found_whatever_its_run_id(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let request = |row: RunRow| RunRow {
        request_id: Some(RequestId::new(&format!("r{}", row.started_at.0 / 1_000))),
        ..row
    };
    let queued = |n: u64| RunRow {
        status: "queued".to_owned(),
        ..request(run(n, "one"))
    };
    let rows = [
        request(closed(run(1, "one"), 5)),
        queued(2),
        request(closed(run(3, "one"), 7)),
        queued(4),
    ];
    commit(store, &mut session, &inserts(rows)).await;
    let tenure = |n: u128| Some(Uuid::from_u128((n << 80) | (0x7 << 76) | (0x8 << 60) | 1));
    let after = RunRow {
        tenure: tenure(3),
        ..closed(queued(2), 9)
    };
    let left = closed(queued(4), 8);
    let left = RunRow {
        tenure: Some(left.no_tenure()),
        ..left
    };
    let close = Batch {
        runs: vec![RunWrite::Update(after.clone()), RunWrite::Update(left.clone())],
        ..Batch::default()
    };
    commit(store, &mut session, &close).await;
    let find = async |request: Option<&str>| -> BTreeSet<u64> {
        let request = request.map(RequestId::new);
        let asked = (Namespace::new("default"), WorkflowId::new("one"), request);
        let found = store.find_runs(&[asked]).await.unwrap().runs.into_iter();
        found
            .map(|found| u64::try_from(found.row.run_id.0.as_u128() >> 80).unwrap())
            .collect()
    };
    assert_eq!(find(None).await, BTreeSet::from([2]));
    for n in [1, 2, 3, 4] {
        assert_eq!(find(Some(&format!("r{n}"))).await, BTreeSet::from([2, n]));
    }
    commit(
        store,
        &mut session,
        &inserts([RunRow {
            tenure: tenure(6),
            ..run(5, "one")
        }]),
    )
    .await;
    assert_eq!(find(None).await, BTreeSet::from([2, 5]));
    let one = RunFilter {
        workflow_id: Some(WorkflowId::new("one")),
        limit: 9,
        ..RunFilter::default()
    };
    for (before, limit, shown) in [
        (None, 9, &[5, 4, 3, 2, 1][..]),
        (None, 2, &[5, 4]),
        (Some(4), 2, &[3, 2]),
        (Some(2), 9, &[1]),
    ] {
        let filter = RunFilter {
            before: before.map(run_id),
            limit,
            ..one.clone()
        };
        let listed = store.list_runs(&Namespace::new("default"), &filter).await.unwrap();
        let shown: Vec<RunId> = shown.iter().map(|n| run_id(*n)).collect();
        assert_eq!(listed.iter().map(|row| row.run_id).collect::<Vec<_>>(), shown);
    }
    for row in [after, left] {
        let mut stored = store.run_row(row.run_id).await.unwrap().unwrap();
        normalise(&mut stored);
        assert_eq!(stored, row);
    }
}

/// In pages; neither the open one, nor one in line, nor those of other ids are among them.
pub(super) async fn who_had_an_id_is_told_from_the_last_to_the_first(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let limit = CLOSED_LIMIT as u64;
    let rows: Vec<RunRow> = (1..=limit + 3).map(|n| closed(run(n, "one"), n as i64 + 5)).collect();
    commit(store, &mut session, &inserts(rows)).await;
    // It had the id behind all of them.
    let late = RunRow {
        tenure: Some(run_id(900).0),
        ..closed(run(500, "one"), 90)
    };
    let queued = RunRow {
        status: "queued".to_owned(),
        ..run(700, "one")
    };
    let others = [late, run(600, "one"), queued, closed(run(800, "two"), 7)];
    commit(store, &mut session, &inserts(others)).await;
    let page = async |id: &str, before: Option<Uuid>| -> Vec<(RunId, i64)> {
        let (namespace, id) = (Namespace::new("default"), WorkflowId::new(id));
        let page = store.closed_runs(&namespace, &id, before).await.unwrap();
        page.iter().map(|run| (run.run_id, run.closed_at.0)).collect()
    };
    let expected = |from: u64, to: u64| (to..=from).rev().map(|n| (run_id(n), n as i64 + 5));
    let first: Vec<_> = [(run_id(500), 90)].into_iter().chain(expected(limit + 3, 5)).collect();
    assert_eq!(page("one", None).await, first);
    assert_eq!(page("one", Some(run_id(5).0)).await, expected(4, 1).collect::<Vec<_>>());
    assert_eq!(
        page("one", Some(run_id(900).0)).await,
        expected(limit + 3, 4).collect::<Vec<_>>()
    );
    assert_eq!(page("two", None).await, [(run_id(800), 7)]);
    assert_eq!(page("three", None).await, []);
    let (namespace, id) = (Namespace::new("other"), WorkflowId::new("one"));
    assert_eq!(store.closed_runs(&namespace, &id, None).await.unwrap(), []);
}

pub(super) async fn limits_of_values_are_accepted(rig: impl Rig) {
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

pub(super) async fn one_open_run_a_workflow_id(rig: impl Rig) {
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

pub(super) async fn a_run_closes_and_its_id_opens_again_in_one_batch(rig: impl Rig) {
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

pub(super) async fn found_are_open_newest_closed_and_requested(rig: impl Rig) {
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

pub(super) async fn a_long_outcome_is_found_by_its_run_alone(rig: impl Rig) {
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

pub(super) async fn zero_in_a_question_is_refused(rig: impl Rig) {
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

pub(super) async fn loading_starts_at_the_snapshot(rig: impl Rig) {
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

pub(super) async fn due_runs_come_earliest_first(rig: impl Rig) {
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
