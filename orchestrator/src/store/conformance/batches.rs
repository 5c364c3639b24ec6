//! A batch is there as a whole or not at all, and only its owner's.

use super::*;

pub(super) async fn a_cluster_is_founded_once(rig: impl Rig) {
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

pub(super) async fn a_batch_is_there_as_a_whole(rig: impl Rig) {
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

pub(super) async fn a_birth_is_read_as_it_was_written(rig: impl Rig) {
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

pub(super) async fn an_old_epoch_writes_nothing(rig: impl Rig) {
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

pub(super) async fn an_old_batch_number_writes_nothing(rig: impl Rig) {
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

pub(super) async fn a_foreign_cursor_fences(rig: impl Rig) {
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

pub(super) async fn a_foreign_partition_fences(rig: impl Rig) {
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

pub(super) async fn bad_data_leaves_nothing(rig: impl Rig) {
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
