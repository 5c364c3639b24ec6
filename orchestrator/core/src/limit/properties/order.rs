//! Who is next: turns of keys, ranks, limits that change, clocks that are put back.

use super::*;

#[test]
fn one_of_each_key_in_turn_however_long_a_backlog() {
    let mut rig = Rig::new(Bound::Concurrent(1));
    for _ in 0..50 {
        rig.ask(0, PRIORITY, false);
    }
    rig.ask(1, PRIORITY, false);
    rig.ask(1, PRIORITY, false);
    rig.drain();
    let keys: Vec<_> = rig
        .order
        .iter()
        .map(|(n, _)| &*rig.asks[*n as usize].fairness_key)
        .collect();
    assert_eq!(keys[..6], ["0", "0", "1", "0", "1", "0"]);
}

/// Most of a backlog is cancelled: who asks under its key from then on does not wait behind what is not there any more.
#[test]
fn what_is_taken_back_holds_up_nobody_of_its_key() {
    let mut rig = Rig::new(Bound::Concurrent(1));
    rig.ask(0, PRIORITY, false);
    for key in [1, 2] {
        for _ in 0..20 {
            rig.ask(key, PRIORITY, false);
        }
    }
    // Of the first key's, which are 1 to 20.
    for n in 2..=20 {
        rig.release(n);
    }
    rig.ask(1, PRIORITY, false);
    rig.drain();
    let order: Vec<u32> = rig.order.iter().map(|(n, _)| *n).collect();
    assert_eq!(order[..5], [0, 1, 21, 22, 41]);
}

/// An operator changes their mind: what waits goes by the word that counts now.
#[test]
fn an_operators_word_counts_for_who_waits_already() {
    let mut rig = Rig::new(Bound::Concurrent(1));
    for _ in 0..6 {
        rig.ask(0, PRIORITY, false);
    }
    let mut counts = |setting| {
        rig.limiter.set(setting);
        rig.limiter.wake(rig.now).granted.len()
    };
    assert_eq!(counts(Setting::Bound(Bound::Concurrent(1))), 0);
    assert_eq!(counts(Setting::Bound(Bound::Concurrent(3))), 2);
    assert_eq!(counts(Setting::Bound(Bound::Concurrent(2))), 0);
    assert_eq!(counts(Setting::Unlimited), 3);
    // Those that are out count when there is a limit again.
    rig.limiter.release(run(0), MessageNo(1), rig.now);
    rig.limiter.set(Setting::Bound(Bound::Concurrent(5)));
    let from = Sender {
        run: run(9),
        namespace: "default".into(),
        workflow_id: "w".into(),
    };
    let ask = rig.asks[0].clone();
    assert_eq!(rig.limiter.ask(from, MessageNo(1), ask, rig.now).granted.len(), 0);
}

/// Twice a day was said, and ten in a second is: nobody waits for half a day.
#[test]
fn what_a_slower_rate_owed_is_not_waited_for() {
    let rate = |limit, seconds| {
        Bound::Rate(Rate {
            limit,
            per: Span::from_secs(seconds),
        })
    };
    let mut rig = Rig::new(rate(2, 86_400));
    for _ in 0..3 {
        rig.ask(0, PRIORITY, false);
    }
    assert_eq!(rig.limiter.waiting(), 2);
    rig.limiter.set(Setting::Bound(rate(10, 1)));
    let changes = rig.limiter.wake(rig.now);
    assert!(changes.granted.is_empty());
    assert!(matches!(changes.rows[&0], Some(Row::Pace(_))), "it is stored");
    let at = rig.limiter.wake_at().unwrap();
    assert_eq!(at.since(rig.now), Span::from_millis(1_100));
    assert_eq!(rig.limiter.wake(at).granted.len(), 1);
    // From there on at its pace.
    let next = rig.limiter.wake_at().unwrap();
    assert_eq!(next.since(at), Span::from_millis(100));
}

/// The clock was a day ahead, and is right again.
#[test]
fn a_clock_that_is_put_back_keeps_nobody_waiting() {
    let second = Rate {
        limit: 1,
        per: Span::from_secs(1),
    };
    let mut rig = Rig::new(Bound::Rate(second));
    rig.now = rig.now.plus(Span::from_secs(86_400));
    rig.ask(0, PRIORITY, false);
    rig.ask(0, PRIORITY, false);
    let now = Timestamp(1_000_000);
    rig.limiter.wake(now);
    let at = rig.limiter.wake_at().unwrap();
    assert!(at.since(now) <= Span::from_secs(2), "{at:?}");
    assert_eq!(rig.limiter.wake(at).granted.len(), 1);
}

#[test]
fn undos_come_first_then_priorities() {
    let mut rig = Rig::new(Bound::Concurrent(1));
    for (priority, undo) in [(3, false), (5, false), (1, false), (5, true), (3, false)] {
        rig.ask(0, priority, undo);
    }
    rig.drain();
    let order: Vec<_> = rig.order.iter().map(|(n, _)| *n).collect();
    assert_eq!(order, [0, 3, 2, 4, 1]);
}

/// One batch could not carry them all, and a new owner goes on with the rest.
#[test]
fn who_waits_for_a_limit_that_is_lifted_goes_a_part_at_a_time() {
    let mut rig = Rig::new(Bound::Concurrent(1));
    rig.ask(0, PRIORITY, false);
    let ask = rig.asks[0].clone();
    let now = Timestamp(1);
    let mut limiter = Limiter::default();
    let mut rows = BTreeMap::new();
    for n in 0..2 * MAX_GRANTS + 2 {
        let from = Sender {
            run: run(u32::try_from(n).unwrap()),
            namespace: "default".into(),
            workflow_id: "w".into(),
        };
        rows.extend(limiter.ask(from, MessageNo(1), ask.clone(), now).rows);
    }
    assert_eq!((limiter.waiting(), limiter.wake_at()), (2 * MAX_GRANTS + 1, None));
    let many = Setting::Bound(Bound::Concurrent(10_000));
    limiter.set(many);
    let changes = limiter.wake(now);
    assert_eq!(changes.granted.len(), MAX_GRANTS);
    assert!(limiter.wake_at().is_some_and(|at| at <= now));
    rows.extend(changes.rows);
    let stored = rows.into_iter().filter_map(|(no, row)| Some((no, row?)));
    let mut heir = Limiter::load(stored);
    heir.set(Setting::Unlimited);
    assert!(heir.wake_at().is_some_and(|at| at <= now));
    assert_eq!(heir.wake(now).granted.len(), MAX_GRANTS);
    heir.set(many);
    assert!(heir.wake_at().is_some_and(|at| at <= now));
    assert_eq!(heir.wake(now).granted.len(), 1);
    assert_eq!(heir.wake_at(), None);
}

#[test]
fn no_more_than_so_many_wait() {
    let mut limiter = Limiter::default();
    let mut rig = Rig::new(Bound::Concurrent(1));
    rig.ask(0, PRIORITY, false);
    let ask = rig.asks[0].clone();
    let from = |n: usize| Sender {
        run: run(u32::try_from(n).unwrap()),
        namespace: "default".into(),
        workflow_id: "w".into(),
    };
    let mut asked = |n: usize| limiter.ask(from(n), MessageNo(1), ask.clone(), Timestamp(0)).rows.len();
    assert!((0..=MAX_WAITING).all(|n| asked(n) == 1));
    assert_eq!(asked(MAX_WAITING + 1), 0);
    // An undo is taken all the same, and is next.
    let undo = Ask {
        direction: Direction::Undo,
        ..ask.clone()
    };
    let now = Timestamp(0);
    let changes = limiter.ask(from(MAX_WAITING + 2), MessageNo(1), undo, now);
    assert_eq!(changes.rows.len(), 1);
    let changes = limiter.release(run(0), MessageNo(1), now);
    assert_eq!(changes.granted[0].to, from(MAX_WAITING + 2));
}
