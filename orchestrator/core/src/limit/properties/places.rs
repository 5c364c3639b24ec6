//! Places of runs (`concurrency`): who is refused, who makes room for whom, and random runs of one key.

use super::*;

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
