//! What the history of a schedule says of its occurrences, told by arithmetic of its interval: each nominal time is decided
//! once, in order, and whatever is not started is accounted for.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::RunId;
use crate::run::{Event, Transition};
use crate::schedule::state::{Backfill, Became, Due, Next, ScheduleEvent, Skip};
use crate::schedule::times::Source;
use crate::schedule::{Overlap, Spec};
use crate::time::Timestamp;

/// Missed occurrences that are counted at a time, at most.
const MOST_MISSED: i64 = 10_000;

#[derive(Debug, Default)]
pub struct Calendar {
    spec: Option<Spec>,
    decided_to: Timestamp,
    next: Option<Next>,
    paused: bool,
    remaining: Option<u32>,
    /// What has to be decided before the transition is over.
    pending: Option<Pending>,
    buffer: Vec<Due>,
    pub running: BTreeMap<RunId, Due>,
    /// All there ever were.
    pub started: Vec<RunId>,
    /// Of them those whose start was refused; one that was offered twice may have begun all the same, and is told to cancel.
    pub refused: BTreeSet<RunId>,
    /// And those whose nominal time another run has.
    pub others: BTreeSet<RunId>,
    /// In this transition, while nothing else was to be open.
    pub alone: Vec<RunId>,
    backfills: Vec<Backfill>,
    triggers: u32,
    parked: bool,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nominal { nominal: Timestamp, counted: bool },
    Trigger(u32),
}

impl Pending {
    fn is(self, due: &Due) -> bool {
        match self {
            Self::Nominal { nominal, counted } => (due.nominal, due.trigger, due.counted) == (nominal, None, counted),
            Self::Trigger(number) => due.trigger == Some(number) && !due.counted,
        }
    }
}

impl Calendar {
    pub fn take(&mut self, transition: &Transition) {
        let events = transition.events.iter();
        let events = events.filter_map(|event| match event {
            Event::Schedule(event) => Some(&**event),
            _ => None,
        });
        let is_set = events.clone().any(|event| matches!(event, ScheduleEvent::Set { .. }));
        self.alone.clear();
        for event in events {
            self.event(event, transition.at, is_set);
            assert!(!self.closed, "a schedule that is deleted says something");
        }
        let ends = |event: &Event| matches!(event, Event::RunCompleted { .. } | Event::RunTerminated { .. });
        self.closed |= transition.events.iter().any(ends);
        assert_eq!(self.pending, None, "an occurrence was passed and not decided");
        for event in &transition.events {
            match event {
                Event::RunParked { .. } => self.parked = true,
                Event::RunResumed { .. } => self.parked = false,
                _ => {}
            }
        }
        let waits = self.running.is_empty() && self.is_any_waiting();
        assert!(
            !waits || self.parked || self.closed,
            "{:?} wait for nobody",
            self.buffer
        );
    }

    fn interval(&self) -> (i64, i64) {
        let spec = self.spec.as_ref().expect("a schedule begins with what it is to do");
        match spec.times.sources[0] {
            Source::Interval { every, phase } => (every * 1_000_000, phase * 1_000_000),
            Source::Calendar(_) => panic!("only intervals are drawn"),
        }
    }

    /// Nominal times behind the one and not behind the other.
    fn count(&self, after: Timestamp, to: Timestamp) -> i64 {
        let (every, phase) = self.interval();
        let up_to = |at: Timestamp| (at.0 - phase).div_euclid(every);
        up_to(to) - up_to(after)
    }

    fn is_nominal(&self, at: Timestamp) -> bool {
        let (every, phase) = self.interval();
        (at.0 - phase).rem_euclid(every) == 0
    }

    fn is_active(&self) -> bool {
        self.spec.is_some() && !self.paused && self.remaining != Some(0)
    }

    /// Nothing is open, and what waits is held back by a pause.
    fn is_free(&self) -> bool {
        self.running.is_empty() && !self.is_any_waiting()
    }

    fn is_any_waiting(&self) -> bool {
        self.buffer.iter().any(|due| !due.counted || !self.paused)
    }

    fn expects(&mut self, next: Option<Next>, after: Timestamp) {
        let (every, phase) = self.interval();
        let nominal = ((after.0 - phase).div_euclid(every) + 1) * every + phase;
        assert_eq!(
            next.map(|next| next.nominal),
            Some(Timestamp(nominal)),
            "what comes after {after:?}"
        );
        self.next = next;
    }

    /// One that has just been passed, or that has waited.
    fn resolve(&mut self, due: &Due) {
        if self.pending.is_some_and(|pending| pending.is(due)) {
            self.pending = None;
            return;
        }
        let before = self.buffer.len();
        self.buffer.retain(|waiting| waiting != due);
        assert!(self.buffer.len() < before, "{due:?} was decided, and was not due");
    }

    fn event(&mut self, event: &ScheduleEvent, at: Timestamp, is_set: bool) {
        match event {
            ScheduleEvent::Set {
                spec,
                paused,
                remaining,
                decided_to,
                next,
                ..
            } => {
                if self.is_active() {
                    let left = self.count(self.decided_to, at);
                    assert_eq!(left, 0, "a change has dropped occurrences that were due");
                }
                assert_eq!(*decided_to, at);
                self.spec = Some(spec.clone());
                self.paused = paused.is_some();
                self.remaining = *remaining;
                self.decided_to = at;
                self.expects(*next, at);
            }
            ScheduleEvent::Passed { to, next, missed } => self.passed(*to, *next, i64::from(*missed), at, is_set),
            ScheduleEvent::Skipped { due, why } => {
                assert!(
                    *why != Skip::Overlap || !self.is_free(),
                    "skipped, and nothing was open"
                );
                self.resolve(due);
            }
            ScheduleEvent::NotStarted { due, .. } => self.resolve(due),
            ScheduleEvent::Buffered { due } => {
                assert!(self.pending.is_some_and(|pending| pending.is(due)));
                assert!(!matches!(due.overlap, Overlap::Skip | Overlap::AllowAll));
                self.pending = None;
                self.buffer.push(*due);
            }
            ScheduleEvent::Started { due, run, .. } => {
                self.resolve(due);
                if due.overlap != Overlap::AllowAll {
                    assert!(self.running.is_empty(), "{due:?} overlaps");
                    self.alone.push(*run);
                }
                if due.counted {
                    assert!(self.is_active(), "what is not active starts something by itself");
                    self.remaining = self.remaining.map(|left| left - 1);
                }
                self.running.insert(*run, *due);
                self.started.push(*run);
            }
            ScheduleEvent::StopAsked { run, .. } => assert!(self.running.contains_key(run)),
            ScheduleEvent::Ended { run, became } => {
                assert!(self.running.remove(run).is_some(), "{run} has ended twice");
                match became {
                    Became::NotStarted { .. } => drop(self.refused.insert(*run)),
                    Became::AlreadyStarted => drop(self.others.insert(*run)),
                    _ => {}
                }
            }
            ScheduleEvent::Paused { .. } => self.paused = true,
            ScheduleEvent::Resumed { decided_to, next, .. } => {
                if self.paused {
                    // What came due meanwhile is not made up for.
                    assert!(*decided_to == at && at >= self.decided_to);
                    self.expects(*next, at);
                } else {
                    assert_eq!((*decided_to, *next), (self.decided_to, self.next));
                }
                self.decided_to = *decided_to;
                self.paused = false;
            }
            ScheduleEvent::Triggered { number, .. } => {
                assert_eq!(*number, self.triggers + 1);
                self.triggers = *number;
                self.pending = Some(Pending::Trigger(*number));
            }
            ScheduleEvent::BackfillBegun { backfill, .. } => self.backfills.push(*backfill),
            ScheduleEvent::BackfillPassed { after, done } => self.filled(*after, *done),
        }
    }

    fn passed(&mut self, to: Timestamp, next: Option<Next>, missed: i64, at: Timestamp, is_set: bool) {
        assert!(self.is_active(), "what is not active passes something");
        assert_eq!(self.pending, None, "an occurrence was passed and not decided");
        assert!(to > self.decided_to, "decided twice");
        let (count, window) = (
            self.count(self.decided_to, to),
            self.spec.as_ref().unwrap().policy.catch_up_window,
        );
        let due = self.next.expect("nothing was due");
        if missed == 0 {
            assert!(count == 1 && self.is_nominal(to), "{count} were passed as one");
            assert!(at >= to && (is_set || at >= due.at), "an occurrence is early");
            assert!(at.since(due.at) <= window, "what is past its window is started");
            self.names(to, true);
        } else {
            assert!(
                missed == count || missed == MOST_MISSED && count > missed,
                "{missed} of {count} were counted as missed"
            );
            assert!(is_set || at.since(to) > window, "what is within its window was missed");
        }
        self.decided_to = to;
        match next {
            // A specification follows that names another.
            None if is_set => self.next = None,
            next => self.expects(next, to),
        }
    }

    fn filled(&mut self, after: Timestamp, done: bool) {
        let backfill = *self.backfills.first().expect("there is no backfill");
        if done {
            let left = self.count(backfill.after, backfill.until);
            assert_eq!(left, 0, "a backfill ends too early");
            self.backfills.remove(0);
            return;
        }
        assert!(after <= backfill.until && self.is_nominal(after));
        assert_eq!(self.count(backfill.after, after), 1, "a backfill jumps");
        self.backfills[0].after = after;
        self.names(after, false);
    }

    /// It is decided with that, unless another has named it and it is under way already.
    fn names(&mut self, nominal: Timestamp, counted: bool) {
        let mut under_way = self.buffer.iter().chain(self.running.values());
        if !under_way.any(|due| (due.nominal, due.trigger) == (nominal, None)) {
            self.pending = Some(Pending::Nominal { nominal, counted });
        }
    }

    /// Of one that is paused, when nothing is on its way.
    pub fn is_at_rest(&self) {
        assert!(self.running.is_empty(), "it waits for {:?}", self.running);
        assert!(self.backfills.is_empty(), "a backfill is not done");
        let held = self.buffer.iter().find(|due| !due.counted || !self.paused);
        assert_eq!(held, None, "an occurrence waits for nobody");
    }
}
