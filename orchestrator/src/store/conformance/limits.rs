//! Rows of limiters, and what operators say of queues.

use super::*;

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

pub(super) async fn rows_of_limiters_are_written_with_their_batch_or_not_at_all(rig: impl Rig) {
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

pub(super) async fn what_is_said_of_a_queue_replaces_what_was_and_raises_the_epoch(rig: impl Rig) {
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
        ack_wait: None,
    };
    let leased = |queue: &str, ack_wait: u64| QueueRow {
        ack_wait: Some(Span(ack_wait)),
        ..row("default", queue, None, None)
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
    let lease = leased("orders", 1);
    store.set_queue(&lease).await.unwrap();
    assert_eq!(store.queues().await.unwrap(), [other.clone(), lease]);
    store.set_queue(&row("default", "orders", None, None)).await.unwrap();
    assert_eq!(epoch().await, before + 7);
    for bad in [
        leased("orders", 0),
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
    assert_eq!(epoch().await, before + 7);
}

pub(super) async fn limits_in_use_are_counted(rig: impl Rig) {
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

/// The order is the limiter's own, whatever it goes by.
pub(super) async fn who_waits_at_a_limit_knows_its_place(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let name = |of: &str| LimitName {
        kind: LimitKind::Workflow,
        of: of.into(),
        key: "".into(),
    };
    let namespace = Namespace::new("default");
    let mut limiter = Limiter::default();
    let mut rows = std::collections::BTreeMap::new();
    let (urgent, usual, late) = (1, 3, 5);
    // Priority, fairness key, and whether it undoes. The first two are let in; the first of them goes, and another comes in.
    for (n, (priority, key, undo)) in [
        (usual, "", false),
        (usual, "", false),
        (late, "", false),
        (usual, "a", false),
        (usual, "a", false),
        (usual, "b", false),
        (urgent, "", false),
        (late, "", true),
        (usual, "b", false),
    ]
    .into_iter()
    .enumerate()
    {
        let ask = Ask {
            limit: name("w"),
            bound: Bound::Concurrent(2),
            step: "".into(),
            direction: if undo { Direction::Undo } else { Direction::Do },
            priority,
            fairness_key: key.into(),
            on_conflict: Default::default(),
        };
        let from = Sender {
            run: run_id(n as u64 + 1),
            namespace: namespace.clone(),
            workflow_id: WorkflowId::new("w"),
        };
        rows.extend(limiter.ask(from, MessageNo(7), ask, Timestamp(n as i64)).rows);
    }
    rows.extend(limiter.release(run_id(1), MessageNo(7), Timestamp(100)).rows);
    let address = name("w").address();
    let permits = rows.iter().filter_map(|(no, row)| Some((*no, row.as_ref()?.to_json())));
    let mut permits: Vec<_> = permits
        .map(|(no, body)| permit_row(address.as_str(), no, &body))
        .collect();
    permits.push(permit_row(address.as_str(), 0, &Row::Pace(Timestamp(9)).to_json()));
    // Others at other limits, and in other namespaces, are not in the way.
    let mut strangers = vec![permit_row(
        name("v").address().as_str(),
        1,
        permits[1].body.as_deref().unwrap(),
    )];
    let mut elsewhere = permits[1].clone();
    elsewhere.id.namespace = Namespace::new("other");
    strangers.push(elsewhere);
    let batch = Batch {
        partitions: vec![1],
        permits: permits.into_iter().chain(strangers).collect(),
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;

    let line_of = async |run: u64, number: u32| {
        let asked = PlaceAsked {
            limit: name("w"),
            run: run_id(run),
            number: MessageNo(number),
        };
        let line = store.line_of(&namespace, &asked).await.unwrap();
        assert_eq!((line.held, line.waiting), (2, 6), "{run}");
        line.ahead
    };
    let mut places = std::collections::BTreeMap::new();
    for run in 1..=9 {
        let ahead = line_of(run, 7).await;
        let expected = limiter.ahead_of(run_id(run), MessageNo(7));
        assert_eq!(ahead, expected.map(|ahead| ahead as i64), "{run}");
        places.extend(ahead.map(|ahead| (ahead, run)));
    }
    // The undo has come in; then by priority, and key by key.
    assert_eq!(Vec::from_iter(places.into_values()), [7, 4, 6, 5, 9, 3]);
    assert_eq!(line_of(5, 8).await, None, "it has asked under another number");
    let nobody = PlaceAsked {
        limit: name("nothing"),
        run: run_id(5),
        number: MessageNo(7),
    };
    assert_eq!(store.line_of(&namespace, &nobody).await.unwrap(), LimitLine::default());
}

pub(super) fn permit_row(limiter: &str, no: i64, body: &str) -> PermitWrite {
    permit(1, limiter, no, Some(body))
}

pub(super) async fn sizes_are_those_of_what_is_loaded(rig: impl Rig) {
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
