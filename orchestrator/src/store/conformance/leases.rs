//! Sessions, their partitions, and what they leave behind.

use super::*;

/// Whoever it was, and nothing else.
pub(super) async fn who_keeps_a_lease_hears_that_something_was_committed(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    let other = rig.another().await;
    let idle = other.open_session("b").await.unwrap();
    let heard = async || other.keep(&idle, &[]).await.unwrap().commits;
    let before = heard().await;
    store.keep(&session, &[]).await.unwrap();
    assert_eq!(heard().await, before);
    commit(store, &mut session, &inserts([run(1, "a")])).await;
    let after = heard().await;
    assert_ne!(after, before);
    assert_eq!(heard().await, after);
}

pub(super) async fn who_keeps_a_lease_hears_whose_events_are_on(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    let shop = NamespaceRow {
        name: Namespace::new("shop"),
        retention_class: 0,
        events: true,
    };
    store.create_namespace(&shop).await.unwrap();
    let default = Namespace::new("default");
    for on in [false, true] {
        assert!(store.set_events(&default, on).await.unwrap());
        assert!(!store.set_events(&Namespace::new("nowhere"), on).await.unwrap());
        assert_eq!(store.namespaces().await.unwrap()[0].events, on);
        let telling = store.keep(&session, &[]).await.unwrap().telling;
        let expected = [default.clone(), shop.name.clone()];
        assert_eq!(telling, expected[usize::from(!on)..]);
    }
    store.set_events(&shop.name, false).await.unwrap();
    assert_eq!(store.keep(&session, &[]).await.unwrap().telling, [default]);
}

pub(super) async fn a_lapsed_session_is_taken_over_as_a_whole(rig: impl Rig) {
    let dead = rig.another().await;
    let mut session = owner(&dead, "a").await;
    let batch = Batch {
        cursors: vec![cursor(1, 5)],
        owed: owed(1, 1, 1),
        ..inserts([run(1, "one")])
    };
    commit(&dead, &mut session, &batch).await;

    let store = rig.store();
    let heir = store.open_session("b").await.unwrap();
    let share = store.keep(&heir, &[]).await.unwrap();
    assert_eq!(
        (share.gained.len(), share.live_sessions, share.inherited.len()),
        (0, 2, 0)
    );
    rig.lapse(session.id).await;
    let share = store.keep(&heir, &[]).await.unwrap();
    assert_eq!(share.live_sessions, 1);
    assert_eq!(share.gained.len(), usize::from(PARTITIONS) + 1);
    assert_eq!(share.gained[1].cursor, cursor(1, 5).cursor);
    let id = CommitId {
        session: session.id,
        batch_no: 1,
    };
    assert_eq!(share.inherited, [id]);
    let stranger = CommitId { session: heir.id, ..id };
    let owed = store.owed(&heir, &[stranger, id]).await.unwrap();
    let owed: Vec<_> = owed.iter().map(|commit| (commit.id, &commit.owed)).collect();
    assert_eq!(owed, [(id, &batch.owed)]);
    assert_eq!(store.owed(&session, &[id]).await.unwrap(), []);

    // The dead one comes back too late for everything.
    assert!(matches!(
        commit_error(&dead, &session, &Batch::default()).await,
        CommitError::Fenced
    ));
    assert!(matches!(dead.keep(&session, &[]).await, Err(StoreError::Fenced)));
    assert!(matches!(dead.recover(&session).await, Err(StoreError::Fenced)));
    // Told once, and what was inherited can be reported as published.
    let share = store.keep(&heir, &[]).await.unwrap();
    assert_eq!((share.gained.len(), share.inherited.len()), (0, 0));
    let batch = Batch {
        cursors: vec![cursor(1, 6)],
        published: vec![id],
        ..Batch::default()
    };
    store.commit(&heir, &batch).await.unwrap();
    assert_eq!(rig.dump(|_| 0).await.commits, []);
}

pub(super) async fn a_lapsed_owner_may_renew(rig: impl Rig) {
    let mut session = owner(rig.store(), "a").await;
    let other = rig.another().await;
    let heir = other.open_session("b").await.unwrap();
    // By keeping, by committing and by recovering.
    rig.lapse(session.id).await;
    assert_eq!(rig.store().keep(&session, &[]).await.unwrap().gained, []);
    assert_eq!(other.keep(&heir, &[]).await.unwrap().live_sessions, 2);
    rig.lapse(session.id).await;
    commit(rig.store(), &mut session, &Batch::default()).await;
    assert_eq!(other.keep(&heir, &[]).await.unwrap().live_sessions, 2);
    rig.lapse(session.id).await;
    rig.store().recover(&session).await.unwrap();
    let share = other.keep(&heir, &[]).await.unwrap();
    assert_eq!((share.live_sessions, share.gained.len()), (2, 0));
}

pub(super) async fn a_restarted_replica_inherits_at_once(rig: impl Rig) {
    let first = rig.another().await;
    let mut session = owner(&first, "a").await;
    let batch = Batch {
        owed: owed(1, 1, 1),
        ..inserts([run(1, "one")])
    };
    commit(&first, &mut session, &batch).await;
    let bystander = rig.another().await;
    let other = bystander.open_session("b").await.unwrap();
    rig.kill(first).await;

    let second = rig.another().await;
    let heir = second.open_session("a").await.unwrap();
    // Already now the predecessor is fenced, and its lease keeps it from anybody but its heir.
    let error = commit_error(&bystander, &session, &Batch::default()).await;
    assert!(matches!(error, CommitError::Fenced));
    assert_eq!(bystander.keep(&other, &[]).await.unwrap().gained, []);
    let share = second.keep(&heir, &[]).await.unwrap();
    assert_eq!(share.gained.len(), usize::from(PARTITIONS) + 1);
    assert_eq!(share.inherited.len(), 1);
    assert_eq!(share.live_sessions, 2);
    assert_eq!(share.surplus, 2);

    // In one process the caller itself says that it has given up its session.
    let again = second.open_session("a").await.unwrap();
    let share = second.keep(&again, &[]).await.unwrap();
    assert_eq!(
        (share.gained.len(), share.inherited.len()),
        (usize::from(PARTITIONS) + 1, 1)
    );
    assert!(matches!(second.keep(&heir, &[]).await, Err(StoreError::Fenced)));
}

pub(super) async fn a_namesake_is_refused_while_it_lives(rig: impl Rig) {
    let first = rig.another().await;
    let session = first.open_session("a").await.unwrap();
    let error = rig.store().open_session("a").await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NameTaken { .. }) && error.to_string().starts_with("KN0312"),
        "{error:?}"
    );
    // It holds its lock and does not renew: hung, or cut off. Its lease decides.
    rig.lapse(session.id).await;
    let heir = rig.store().open_session("a").await.unwrap();
    rig.store().keep(&heir, &[]).await.unwrap();
    assert!(matches!(first.keep(&session, &[]).await, Err(StoreError::Fenced)));
    rig.kill(first).await;
}

pub(super) async fn shares_are_fair_and_released_ones_move(rig: impl Rig) {
    let store = rig.store();
    let first = owner(store, "a").await;
    let second = store.open_session("b").await.unwrap();
    assert_eq!(store.keep(&second, &[]).await.unwrap().gained, []);
    let share = store.keep(&first, &[]).await.unwrap();
    assert_eq!((share.gained.len(), share.surplus, share.live_sessions), (0, 2, 2));
    store.release(&first, &[1, 3, 99]).await.unwrap();
    let moved = Batch {
        cursors: vec![cursor(1, 1)],
        ..Batch::default()
    };
    assert!(matches!(commit_error(store, &first, &moved).await, CommitError::Fenced));
    let share = store.keep(&second, &[]).await.unwrap();
    assert_eq!(
        share.gained.iter().map(|owned| owned.partition).collect::<Vec<_>>(),
        [1, 3]
    );
    assert_eq!(store.keep(&first, &[]).await.unwrap().surplus, 0);
    store.commit(&second, &moved).await.unwrap();
    // What is released and comes back is gained again.
    store.release(&second, &[1]).await.unwrap();
    let share = store.keep(&second, &[]).await.unwrap();
    assert_eq!(share.gained.len(), 1);
    assert_eq!(share.gained[0].cursor, moved.cursors[0].cursor);
}

pub(super) async fn a_closed_session_leaves_its_commits(rig: impl Rig) {
    let store = rig.store();
    let mut first = owner(store, "a").await;
    let second = store.open_session("b").await.unwrap();
    let batch = Batch {
        owed: owed(1, 1, 1),
        ..Batch::default()
    };
    commit(store, &mut first, &batch).await;
    store.close_session(&first).await.unwrap();
    assert!(matches!(commit_error(store, &first, &batch).await, CommitError::Fenced));
    assert!(matches!(store.close_session(&first).await, Err(StoreError::Fenced)));
    let share = store.keep(&second, &[]).await.unwrap();
    assert_eq!(
        (share.gained.len(), share.inherited.len(), share.live_sessions),
        (5, 1, 1)
    );
    store.keep(&second, &[share.inherited[0]]).await.unwrap();
    store.close_session(&second).await.unwrap();
    let dump = rig.dump(|_| 0).await;
    assert_eq!((dump.sessions, dump.commits), (vec![], vec![]));
    // The name is free for another process.
    let third = rig.another().await.open_session("b").await.unwrap();
    assert_eq!(third.batch_no, 0);
}

pub(super) async fn recovery_raises_the_epoch_and_may_be_repeated(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    commit(store, &mut session, &Batch::default()).await;
    let recovered = store.recover(&session).await.unwrap();
    assert_eq!(
        recovered,
        Session {
            epoch: session.epoch + 1,
            ..session
        }
    );
    // As if its answer had been lost.
    let recovered = store.recover(&session).await.unwrap();
    assert_eq!(recovered.epoch, session.epoch + 2);
    assert!(matches!(
        commit_error(store, &session, &Batch::default()).await,
        CommitError::Fenced
    ));
    store.commit(&recovered, &Batch::default()).await.unwrap();
    assert_eq!(
        store.cursors(&recovered).await.unwrap().len(),
        usize::from(PARTITIONS) + 1
    );
}

pub(super) async fn recovery_after_a_takeover_is_fenced(rig: impl Rig) {
    let store = rig.store();
    let session = owner(store, "a").await;
    let heir = store.open_session("b").await.unwrap();
    rig.lapse(session.id).await;
    store.keep(&heir, &[]).await.unwrap();
    assert!(matches!(store.recover(&session).await, Err(StoreError::Fenced)));
}

pub(super) async fn published_commits_go(rig: impl Rig) {
    let store = rig.store();
    let mut session = owner(store, "a").await;
    for n in 1..=3 {
        let batch = Batch {
            owed: owed(n, 1, 1),
            ..Batch::default()
        };
        commit(store, &mut session, &batch).await;
    }
    let session_id = session.id;
    let id = move |batch_no| CommitId {
        session: session_id,
        batch_no,
    };
    let left = async || -> Vec<i64> { rig.dump(|_| 0).await.commits.iter().map(|row| row.batch_no).collect() };
    let batch = Batch {
        published: vec![id(2), id(77)],
        ..Batch::default()
    };
    commit(store, &mut session, &batch).await;
    assert_eq!(left().await, [1, 3]);
    store.keep(&session, &[id(3)]).await.unwrap();
    assert_eq!(left().await, [1]);
    // Not somebody else's.
    let other = store.open_session("b").await.unwrap();
    store.keep(&other, &[id(1)]).await.unwrap();
    assert_eq!(left().await, [1]);
}

pub(super) async fn the_format_level_follows_the_oldest_session(rig: impl Rig) {
    let (old, new) = (rig.reading(FORMAT_LEVEL).await, rig.reading(FORMAT_LEVEL + 1).await);
    let level = async |session: &Session| new.keep(session, &[]).await.unwrap().format_level;
    let old_session = old.open_session("old").await.unwrap();
    let session = new.open_session("new").await.unwrap();
    assert_eq!(level(&session).await, FORMAT_LEVEL);
    // An owner whose lease has ended may still renew it.
    rig.lapse(old_session.id).await;
    old.keep(&old_session, &[]).await.unwrap();
    assert_eq!(level(&session).await, FORMAT_LEVEL);

    old.close_session(&old_session).await.unwrap();
    assert_eq!(level(&session).await, FORMAT_LEVEL + 1);
    let too_old = |error: StoreError| matches!(error, StoreError::TooOld { level, reads } if level > reads);
    assert!(too_old(old.prepare(PARTITIONS).await.unwrap_err()));
    assert!(too_old(old.open_session("old").await.unwrap_err()));
    let newer = rig.reading(FORMAT_LEVEL + 2).await;
    newer.open_session("newer").await.unwrap();
    assert_eq!(newer.prepare(PARTITIONS).await.unwrap().format_level, FORMAT_LEVEL + 1);
    // It never falls.
    assert_eq!(level(&session).await, FORMAT_LEVEL + 1);
}
