//! Inputs that wait for their run.

use super::*;

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

pub(super) async fn deferred_inputs_stay_until_they_are_settled(rig: impl Rig) {
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

pub(super) async fn a_batch_with_deferred_inputs_is_there_as_a_whole(rig: impl Rig) {
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
