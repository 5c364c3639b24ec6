//! Random asks, releases, repeats and take-overs of one limiter; what must hold is told from what was granted alone.

mod order;
mod places;

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
