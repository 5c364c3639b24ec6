//! Random asks, releases, repeats and take-overs of one limiter; what must hold is told from what was granted alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::limiter::MAX_GRANTS;
use super::*;
use crate::ids::{MessageNo, RunId};
use crate::run::effect::Direction;
use crate::run::message::Sender;
use crate::time::{Span, Timestamp};

#[derive(Debug, Clone)]
enum Op {
    Ask {
        key: u8,
        priority: u8,
        undo: bool,
    },
    /// The message comes again, though it may have been given back since.
    Repeat(usize),
    Release(usize),
    TakeBack(usize),
    Wait(u64),
    /// The owner dies: all there is are the rows.
    TakeOver,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4_u8, 1..=5_u8, prop::bool::weighted(0.1)).prop_map(|(key, priority, undo)| Op::Ask { key, priority, undo }),
        1 => any::<usize>().prop_map(Op::Repeat),
        4 => any::<usize>().prop_map(Op::Release),
        1 => any::<usize>().prop_map(Op::TakeBack),
        2 => (0..400_000_u64).prop_map(Op::Wait),
        1 => Just(Op::TakeOver),
    ]
}

fn run(n: u32) -> RunId {
    RunId(uuid::Uuid::from_u128(u128::from(n)))
}

/// A limiter, its rows as the store has them, and what has been granted.
struct Rig {
    bound: Bound,
    limiter: Limiter,
    rows: BTreeMap<i64, Row>,
    now: Timestamp,
    asks: Vec<Ask>,
    waiting: BTreeSet<u32>,
    held: BTreeSet<u32>,
    /// Given back; a repeat that comes later is granted once more, and given back again.
    gone: BTreeSet<u32>,
    granted_at: Vec<Timestamp>,
    /// In the order of granting, with what waited then.
    order: Vec<(u32, BTreeSet<u32>)>,
    /// Granted after they were given back.
    ghosts: VecDeque<u32>,
}

impl Rig {
    fn new(bound: Bound) -> Self {
        Self {
            bound,
            limiter: Limiter::default(),
            rows: BTreeMap::new(),
            now: Timestamp(1_000_000),
            asks: vec![],
            waiting: BTreeSet::new(),
            held: BTreeSet::new(),
            gone: BTreeSet::new(),
            granted_at: vec![],
            order: vec![],
            ghosts: VecDeque::new(),
        }
    }

    fn ask(&mut self, key: u8, priority: u8, undo: bool) {
        let n = u32::try_from(self.asks.len()).unwrap();
        self.asks.push(Ask {
            limit: LimitName {
                kind: LimitKind::Activity,
                of: "charge".into(),
                key: "".into(),
            },
            bound: self.bound,
            step: "a".into(),
            direction: if undo { Direction::Undo } else { Direction::Do },
            priority,
            fairness_key: key.to_string().into(),
            on_conflict: OnConflict::Queue,
        });
        self.waiting.insert(n);
        self.send(n);
    }

    fn send(&mut self, n: u32) {
        let from = Sender {
            run: run(n),
            namespace: "default".into(),
            workflow_id: "w".into(),
        };
        let ask = self.asks[n as usize].clone();
        let changes = self.limiter.ask(from, MessageNo(1), ask, self.now);
        self.took(changes);
    }

    fn release(&mut self, n: u32) {
        self.waiting.remove(&n);
        self.held.remove(&n);
        self.gone.insert(n);
        let changes = self.limiter.release(run(n), MessageNo(1), self.now);
        self.took(changes);
    }

    fn took(&mut self, changes: Changes) {
        for (no, row) in changes.rows {
            match row {
                Some(row) => self.rows.insert(no, row),
                None => self.rows.remove(&no),
            };
        }
        for grant in changes.granted {
            let n = u32::try_from(grant.to.run.0.as_u128()).unwrap();
            if grant.waited.is_none() {
                assert!(self.held.contains(&n), "said again, and not held");
                continue;
            }
            if self.gone.contains(&n) {
                self.ghosts.push_back(n);
            } else {
                assert!(self.waiting.remove(&n), "granted, and did not wait");
                self.order.push((n, self.waiting.clone()));
                self.held.insert(n);
            }
            self.granted_at.push(self.now);
            if let Bound::Concurrent(limit) = self.bound {
                assert!(self.held.len() + self.ghosts.len() <= limit as usize, "above the limit");
            }
        }
        // As the run does.
        if let Some(n) = self.ghosts.pop_front() {
            let changes = self.limiter.release(run(n), MessageNo(1), self.now);
            return self.took(changes);
        }
        self.check();
    }

    fn check(&self) {
        assert!(self.limiter.waiting() >= self.waiting.len());
        if let Bound::Concurrent(limit) = self.bound {
            let idle = self.held.len() < limit as usize;
            assert!(!idle || self.waiting.is_empty(), "there is room, and somebody waits");
        }
        assert_eq!(self.limiter.is_empty(), self.rows.is_empty());
        // What the rows tell is what the limiter knows.
        let read = Limiter::load(self.rows.clone());
        assert_eq!(
            (read.waiting(), read.wake_at()),
            (self.limiter.waiting(), self.limiter.wake_at())
        );
    }

    fn step(&mut self, op: &Op) {
        let nth = |set: &BTreeSet<u32>, n: usize| set.iter().nth(n.checked_rem(set.len()).unwrap_or(0)).copied();
        match op {
            Op::Ask { key, priority, undo } => self.ask(*key, *priority, *undo),
            Op::Repeat(n) if !self.asks.is_empty() => self.send(u32::try_from(n % self.asks.len()).unwrap()),
            Op::Release(n) => {
                if let Some(n) = nth(&self.held, *n) {
                    self.release(n);
                }
            }
            Op::TakeBack(n) => {
                if let Some(n) = nth(&self.waiting, *n) {
                    self.release(n);
                }
            }
            Op::Wait(micros) => self.pass(*micros),
            Op::TakeOver => {
                let text: Vec<_> = self.rows.iter().map(|(no, row)| (*no, row.to_json())).collect();
                let rows = text.iter().map(|(no, text)| (*no, serde_json::from_str(text).unwrap()));
                self.limiter = Limiter::load(rows);
            }
            Op::Repeat(_) => {}
        }
    }

    /// Alarms ring when they are due.
    fn pass(&mut self, micros: u64) {
        let until = self.now.plus(Span(micros));
        while let Some(at) = self.limiter.wake_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let changes = self.limiter.wake(self.now);
            self.took(changes);
            assert!(
                self.limiter.wake_at().is_none_or(|next| next > self.now),
                "it rings for nothing"
            );
        }
        self.now = until;
    }

    /// Everything that was granted is given back, until nobody waits.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            match self.held.first().copied() {
                Some(n) => self.release(n),
                None if self.rows.is_empty() => return,
                None => self.pass(1_000_000),
            }
        }
        panic!("somebody waits for ever: {:?}", self.waiting);
    }
}

fn bound() -> impl Strategy<Value = Bound> {
    let rate = |(limit, per)| {
        Bound::Rate(Rate {
            limit,
            per: Span::from_millis(per),
        })
    };
    prop_oneof![
        (1..5_u32).prop_map(Bound::Concurrent),
        (1..30_u32, 100..3_000_u64).prop_map(rate)
    ]
}

proptest! {
    #[test]
    fn never_above_the_limit_and_everybody_is_served(bound in bound(), ops in prop::collection::vec(op(), 1..120)) {
        let mut rig = Rig::new(bound);
        for op in &ops {
            rig.step(op);
        }
        rig.drain();
        prop_assert!(rig.waiting.is_empty() && rig.limiter.is_empty());
        if let Bound::Rate(rate) = bound {
            let most = rate.limit as usize * 11 / 10 + 1;
            for (first, at) in rig.granted_at.iter().enumerate() {
                let within = rig.granted_at[first..].iter().take_while(|other| other.since(*at) < rate.per);
                prop_assert!(within.count() <= most);
            }
        }
    }

    /// Without take-overs, which forget whose turn it was last, and asks that are taken back, whose rounds stay empty.
    #[test]
    fn who_is_next_follows_rank_then_turns_of_keys_then_order(
        ops in prop::collection::vec(
            op().prop_filter("", |op| !matches!(op, Op::TakeOver | Op::Repeat(_) | Op::TakeBack(_))),
            1..120,
        ),
    ) {
        let mut rig = Rig::new(Bound::Concurrent(1));
        for op in &ops {
            rig.step(op);
        }
        rig.drain();
        // How often each key was passed over for others while it waited.
        let mut passed: BTreeMap<u32, BTreeMap<String, usize>> = BTreeMap::new();
        for (n, others) in &rig.order {
            let of = |n: u32| &rig.asks[n as usize];
            let (rank, key) = (of(*n).rank(), &of(*n).fairness_key);
            for other in others.iter().filter(|other| of(**other).rank() == rank) {
                if of(*other).fairness_key == *key {
                    prop_assert!(other > n, "{other} came before {n} under the same key");
                } else {
                    let first = others.iter().all(|older| {
                        older >= other || of(*older).fairness_key != of(*other).fairness_key || of(*older).rank() != rank
                    });
                    if first {
                        *passed.entry(*other).or_default().entry(key.to_string()).or_default() += 1;
                    }
                }
            }
            prop_assert!(others.iter().all(|other| of(*other).rank() >= rank));
        }
        // Who is first of a key sees another key served twice at most: once in the round under way, once in its own.
        for (n, keys) in passed {
            for (key, times) in keys {
                prop_assert!(times <= 2, "{n} was passed over {times} times for {key}");
            }
        }
    }
}

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

/// A run's ask, as its definition would have it.
fn of_run(on_conflict: OnConflict, priority: u8, limit: u32) -> Ask {
    Ask {
        limit: LimitName {
            kind: LimitKind::Workflow,
            of: "order".into(),
            key: "c1".into(),
        },
        bound: Bound::Concurrent(limit),
        step: "".into(),
        direction: Direction::Do,
        priority,
        fairness_key: "".into(),
        on_conflict,
    }
}

fn sender(n: u32) -> Sender {
    Sender {
        run: run(n),
        namespace: "default".into(),
        workflow_id: format!("w-{n}").as_str().into(),
    }
}

fn asks(limiter: &mut Limiter, n: u32, ask: Ask) -> (Vec<u128>, Vec<Said>) {
    let changes = limiter.ask(sender(n), MessageNo(1), ask, Timestamp(0));
    let granted = changes.granted.iter().map(|grant| grant.to.run.0.as_u128());
    (granted.collect(), changes.said)
}

fn occupied(n: u32) -> Vec<crate::run::message::Answer> {
    vec![crate::run::message::Answer::Occupied { by: sender(n) }]
}

#[test]
fn who_does_not_want_to_wait_is_refused_and_leaves_nothing() {
    for conflict in [OnConflict::Reject, OnConflict::Skip] {
        let mut limiter = Limiter::default();
        assert_eq!(asks(&mut limiter, 1, of_run(conflict, 3, 1)).0, [1]);
        let changes = limiter.ask(sender(2), MessageNo(1), of_run(conflict, 3, 1), Timestamp(0));
        assert!(changes.rows.is_empty() && changes.granted.is_empty());
        let [said] = changes.said.as_slice() else {
            panic!("{changes:?}")
        };
        assert!(matches!(
            &said.answer,
            crate::run::message::Answer::Refused { reason: crate::run::message::Refusal::NoPlace, message }
                if message.contains("`order` for `c1`") && message.contains("1 are open")
        ));
        assert_eq!(limiter.waiting(), 0);
        // A repeat is decided anew.
        limiter.release(run(1), MessageNo(1), Timestamp(0));
        assert_eq!(asks(&mut limiter, 2, of_run(conflict, 3, 1)).0, [2]);
    }
}

#[test]
fn each_that_cancels_names_another_the_oldest_first_and_then_those_that_wait() {
    let mut limiter = Limiter::default();
    let ask = || of_run(OnConflict::CancelRunning, 3, 2);
    assert_eq!(asks(&mut limiter, 1, ask()).0, [1]);
    assert_eq!(asks(&mut limiter, 2, ask()).0, [2]);
    let said = |limiter: &mut Limiter, n: u32| {
        let said = asks(limiter, n, ask()).1.into_iter();
        said.map(|said| said.answer).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut limiter, 3), occupied(1));
    assert_eq!(said(&mut limiter, 4), occupied(2));
    // A repeat is told the same, also by a new owner.
    assert_eq!(said(&mut limiter, 3), occupied(1));
    // What has not begun makes room as well, and there the newest wins.
    assert_eq!(said(&mut limiter, 5), occupied(3));
    assert_eq!(limiter.ahead_of(run(5), MessageNo(1)), Some(2));
    limiter.release(run(3), MessageNo(1), Timestamp(0));
    let granted = limiter.release(run(1), MessageNo(1), Timestamp(0)).granted;
    assert_eq!(granted.iter().map(|grant| grant.to.run).collect::<Vec<_>>(), [run(4)]);
    assert_eq!(limiter.ahead_of(run(5), MessageNo(1)), Some(0));
}

#[derive(Debug, Clone)]
enum RunOp {
    Start { conflict: u8, priority: u8 },
    Repeat(usize),
    Close(usize),
    GiveUp(usize),
    TakeOver,
}

fn run_op() -> impl Strategy<Value = RunOp> {
    prop_oneof![
        6 => (0..4_u8, 1..=5_u8).prop_map(|(conflict, priority)| RunOp::Start { conflict, priority }),
        2 => any::<usize>().prop_map(RunOp::Repeat),
        4 => any::<usize>().prop_map(RunOp::Close),
        1 => any::<usize>().prop_map(RunOp::GiveUp),
        1 => Just(RunOp::TakeOver),
    ]
}

/// Runs of one key, as their limiter and they themselves see them.
#[derive(Default)]
struct Runs {
    limiter: Limiter,
    rows: BTreeMap<i64, Row>,
    asks: Vec<Ask>,
    /// By rank and arrival.
    waiting: BTreeSet<(u8, u32)>,
    open: BTreeSet<u32>,
    begun: BTreeSet<u32>,
    limit: u32,
}

impl Runs {
    fn took(&mut self, changes: Changes, asker: Option<u32>) {
        for (no, row) in changes.rows {
            match row {
                Some(row) => self.rows.insert(no, row),
                None => self.rows.remove(&no),
            };
        }
        for grant in changes.granted {
            let n = u32::try_from(grant.to.run.0.as_u128()).unwrap();
            if grant.waited.is_none() {
                assert!(self.open.contains(&n));
                continue;
            }
            // By priority, then by arrival.
            assert_eq!(self.waiting.pop_first(), Some((self.asks[n as usize].priority, n)));
            assert!(self.begun.insert(n), "{n} begins twice");
            self.open.insert(n);
            assert!(self.open.len() <= self.limit as usize, "above the limit");
        }
        for said in changes.said {
            match said.answer {
                crate::run::message::Answer::Refused { .. } => {
                    let n = asker.expect("only who asks is refused");
                    assert!(self.open.len() == self.limit as usize || !self.waiting.is_empty());
                    self.waiting.remove(&(self.asks[n as usize].priority, n));
                }
                crate::run::message::Answer::Occupied { by } => {
                    let by = u32::try_from(by.run.0.as_u128()).unwrap();
                    let is_there = self.open.contains(&by) || self.waiting.iter().any(|(_, n)| *n == by);
                    // One that has closed since is named again, and nothing comes of it.
                    assert!(is_there || asker.is_some());
                }
                other => panic!("{other:?}"),
            }
        }
        let read = Limiter::load(self.rows.clone());
        assert_eq!(
            (read.waiting(), read.held()),
            (self.limiter.waiting(), self.limiter.held())
        );
        assert_eq!(
            (self.limiter.waiting(), self.limiter.held() as usize),
            (self.waiting.len(), self.open.len())
        );
    }

    fn send(&mut self, n: u32) {
        let changes = self
            .limiter
            .ask(sender(n), MessageNo(1), self.asks[n as usize].clone(), Timestamp(0));
        self.took(changes, Some(n));
    }

    fn release(&mut self, n: u32) {
        self.open.remove(&n);
        self.waiting.remove(&(self.asks[n as usize].priority, n));
        let changes = self.limiter.release(run(n), MessageNo(1), Timestamp(0));
        self.took(changes, None);
    }

    fn step(&mut self, op: &RunOp) {
        match op {
            RunOp::Start { conflict, priority } => {
                let conflicts = [
                    OnConflict::Queue,
                    OnConflict::Reject,
                    OnConflict::CancelRunning,
                    OnConflict::Skip,
                ];
                let n = u32::try_from(self.asks.len()).unwrap();
                self.asks
                    .push(of_run(conflicts[*conflict as usize], *priority, self.limit));
                self.waiting.insert((*priority, n));
                self.send(n);
            }
            RunOp::Repeat(n) => {
                let there: Vec<u32> = self
                    .open
                    .iter()
                    .copied()
                    .chain(self.waiting.iter().map(|(_, n)| *n))
                    .collect();
                if let Some(n) = there.get(n.checked_rem(there.len()).unwrap_or(0)) {
                    self.send(*n);
                }
            }
            RunOp::Close(n) => {
                if let Some(n) = self
                    .open
                    .iter()
                    .nth(n.checked_rem(self.open.len()).unwrap_or(0))
                    .copied()
                {
                    self.release(n);
                }
            }
            RunOp::GiveUp(n) => {
                let nth = n.checked_rem(self.waiting.len()).unwrap_or(0);
                if let Some((_, n)) = self.waiting.iter().nth(nth).copied() {
                    self.release(n);
                }
            }
            RunOp::TakeOver => self.limiter = Limiter::load(self.rows.clone()),
        }
    }
}

proptest! {
    #[test]
    fn never_more_runs_than_the_limit_each_begins_once_by_priority_and_arrival(
        limit in 1..4_u32,
        ops in prop::collection::vec(run_op(), 1..150),
    ) {
        let mut runs = Runs { limit, ..Runs::default() };
        for op in &ops {
            runs.step(op);
        }
        while let Some(n) = runs.open.first().copied() {
            runs.release(n);
        }
        prop_assert!(runs.waiting.is_empty() && runs.rows.is_empty() && runs.limiter.is_empty());
    }
}
