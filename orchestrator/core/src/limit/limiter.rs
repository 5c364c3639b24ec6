//! One limiter: who waits, who has a permit, and who is next.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{Ask, Bound, OnConflict};
use super::name::LimitName;
use super::permit::{Permit, Row};
use super::turns::Turns;
use crate::ids::{MessageNo, RunId};
use crate::run::effect::Direction;
use crate::run::message::{Answer, Refusal, Sender};
use crate::time::{Span, Timestamp};

/// Most asks that wait at one limiter. One more is not taken: it stays with its run, which offers it again. There is as much
/// room again for undos, which must not stand outside behind what may have to be undone.
pub const MAX_WAITING: usize = 100_000;
/// Most grants of one change; the others follow at once, so that a limit that is lifted makes no batch too large.
pub(super) const MAX_GRANTS: usize = 1_000;

/// The number of the row with the pace.
const PACE: i64 = 0;

#[derive(Debug, Default)]
pub struct Limiter {
    /// By the order of asking.
    permits: BTreeMap<i64, Permit>,
    by_asker: BTreeMap<(RunId, MessageNo), i64>,
    /// Rank, turn and number of those who wait: the first is next.
    waiting: BTreeSet<(u8, u64, i64)>,
    turns: Turns,
    /// Permits that count against a number at a time.
    held: u32,
    pace: Option<Timestamp>,
    setting: Setting,
}

/// What counts beside what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Setting {
    /// Nothing.
    #[default]
    AsAsked,
    /// An operator's word, as it is now.
    Bound(Bound),
    /// There is no limit any more.
    Unlimited,
}

/// What has to be stored, and whom to tell once it is.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// By number; `None` = the row goes.
    pub rows: BTreeMap<i64, Option<Row>>,
    pub granted: Vec<Grant>,
    pub said: Vec<Said>,
}

/// What an ask is told that is not granted.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub to: Sender,
    pub number: MessageNo,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub to: Sender,
    pub number: MessageNo,
    pub limit: LimitName,
    /// Since it was asked for; `None` = it was granted before and is said again.
    pub waited: Option<Span>,
    /// When, of a place.
    pub at: Option<Timestamp>,
}

impl Grant {
    fn of(permit: &Permit, waited: Option<Span>) -> Self {
        Self {
            to: permit.from.clone(),
            number: permit.number,
            limit: permit.ask.limit.clone(),
            waited,
            at: permit.granted_at.filter(|_| permit.ask.is_of_run()),
        }
    }
}

impl Limiter {
    /// As it was when these rows were stored.
    pub fn load(rows: impl IntoIterator<Item = (i64, Row)>) -> Self {
        let mut limiter = Self::default();
        for (no, row) in rows {
            match row {
                Row::Pace(point) => limiter.pace = Some(point),
                Row::Permit(permit) => limiter.insert(no, permit),
            }
        }
        limiter.turns.restore(limiter.permits.values());
        limiter
    }

    /// A message that asks; one that is known changes nothing.
    pub fn ask(&mut self, from: Sender, number: MessageNo, ask: Ask, now: Timestamp) -> Changes {
        let mut changes = Changes::default();
        let known = self
            .by_asker
            .get(&(from.run, number))
            .and_then(|no| self.permits.get(no));
        match known {
            Some(permit) if permit.granted_at.is_some() => changes.granted.push(Grant::of(permit, None)),
            // Whom it may ask to go is said again.
            Some(permit) => changes.said.extend(permit.instead_of.as_deref().map(|by| Said {
                to: permit.from.clone(),
                number,
                answer: Answer::Occupied { by: by.clone() },
            })),
            None if self.waiting.len() >= most_waiting(&ask) && !ask.on_conflict.is_decided_at_once() => {}
            None => {
                let turn = self.turns.next(ask.rank(), &ask.fairness_key);
                let no = self.permits.last_key_value().map_or(PACE, |(no, _)| *no) + 1;
                let permit = Permit {
                    from,
                    number,
                    ask,
                    turn,
                    asked_at: now,
                    granted_at: None,
                    instead_of: None,
                };
                changes.rows.insert(no, Some(Row::Permit(permit.clone())));
                self.insert(no, permit);
                self.grant(now, &mut changes);
                self.settle_conflict(no, &mut changes);
                return changes;
            }
        }
        self.grant(now, &mut changes);
        changes
    }

    /// An ask that has just come and was not granted may not want to wait.
    fn settle_conflict(&mut self, no: i64, changes: &mut Changes) {
        let Some(permit) = self.permits.get(&no).filter(|permit| permit.granted_at.is_none()) else {
            return;
        };
        let (to, number) = (permit.from.clone(), permit.number);
        match permit.ask.on_conflict {
            OnConflict::Queue => {}
            OnConflict::Reject | OnConflict::Skip => {
                let message = self.no_room(permit);
                self.remove(no);
                changes.rows.remove(&no);
                let answer = Answer::refused(Refusal::NoPlace, &message);
                changes.said.push(Said { to, number, answer });
            }
            OnConflict::CancelRunning => {
                let Some(by) = self.to_go_for(no) else { return };
                if let Some(permit) = self.permits.get_mut(&no) {
                    permit.instead_of = Some(Box::new(by.clone()));
                    changes.rows.insert(no, Some(Row::Permit(permit.clone())));
                }
                let answer = Answer::Occupied { by };
                changes.said.push(Said { to, number, answer });
            }
        }
    }

    fn no_room(&self, permit: &Permit) -> String {
        let waiting = self.waiting.len().saturating_sub(1);
        let wait = match waiting {
            0 => String::new(),
            count => format!(", and {count} wait"),
        };
        format!("{} allows no more: {} are open{wait}", permit.ask.limit, self.held)
    }

    /// The oldest that nobody else waits for in this way: first of those that have a permit, then of those that wait.
    fn to_go_for(&self, asker: i64) -> Option<Sender> {
        let told: BTreeSet<RunId> = self
            .permits
            .values()
            .filter_map(|permit| permit.instead_of.as_ref().map(|by| by.run))
            .collect();
        let others = self
            .permits
            .iter()
            .filter(|(no, permit)| **no != asker && !told.contains(&permit.from.run));
        let oldest = others.min_by_key(|(no, permit)| (permit.granted_at.is_none(), permit.granted_at, **no));
        oldest.map(|(_, permit)| permit.from.clone())
    }

    /// Takes one out that waits.
    fn remove(&mut self, no: i64) {
        if let Some(permit) = self.permits.remove(&no) {
            self.by_asker.remove(&(permit.from.run, permit.number));
            self.waiting.remove(&(permit.ask.rank(), permit.turn, no));
            self.turns.left(&permit, false);
        }
    }

    /// A permit is given back, or an ask is taken back; one that is not known changes nothing.
    pub fn release(&mut self, run: RunId, number: MessageNo, now: Timestamp) -> Changes {
        let mut changes = Changes::default();
        if let Some(no) = self.by_asker.remove(&(run, number))
            && let Some(permit) = self.permits.remove(&no)
        {
            changes.rows.insert(no, None);
            if permit.granted_at.is_none() {
                self.waiting.remove(&(permit.ask.rank(), permit.turn, no));
                self.turns.left(&permit, false);
            } else if let Bound::Concurrent(_) = permit.ask.bound {
                self.held = self.held.saturating_sub(1);
            }
        }
        self.grant(now, &mut changes);
        changes
    }

    /// Permits that are out, behind that row, to be said again. Whoever asked for a place may be gone while the run that continues
    /// it has the place; then that run is asked ([`State::has_place`](crate::run::State::has_place)).
    pub fn granted_behind(&self, no: i64) -> impl Iterator<Item = (i64, Grant)> {
        let behind = self.permits.range(no.saturating_add(1)..);
        let granted = behind.filter(|(_, permit)| permit.granted_at.is_some());
        granted.map(|(no, permit)| (*no, Grant::of(permit, None)))
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Timestamp) -> Changes {
        let mut changes = Changes::default();
        self.grant(now, &mut changes);
        changes
    }

    /// Counts from the next change on.
    pub fn set(&mut self, setting: Setting) {
        self.setting = setting;
    }

    /// Of which limit it is; an empty one is of none.
    pub fn name(&self) -> Option<&LimitName> {
        self.permits.first_key_value().map(|(_, permit)| &permit.ask.limit)
    }

    /// When to be woken; lies in the past where more can be granted than one change does, and may do so right after
    /// [`Self::load`].
    pub fn wake_at(&self) -> Option<Timestamp> {
        match self.next().map(|(_, permit)| self.bound(permit)) {
            Some(Some(Bound::Rate(rate))) => Some(rate.from(self.pace)),
            Some(Some(Bound::Concurrent(limit))) if self.held < limit => Some(Timestamp(i64::MIN)),
            Some(None) => Some(Timestamp(i64::MIN)),
            // The row of the pace goes.
            Some(Some(Bound::Concurrent(_))) | None => self.pace,
        }
    }

    /// Nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.permits.is_empty() && self.pace.is_none()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Permits that are out.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// How many are served before an ask that waits.
    pub fn ahead_of(&self, run: RunId, number: MessageNo) -> Option<usize> {
        let no = *self.by_asker.get(&(run, number))?;
        self.waiting.iter().position(|(_, _, waiting)| *waiting == no)
    }

    /// What it is granted under; `None` = without more ado.
    fn bound(&self, permit: &Permit) -> Option<Bound> {
        match self.setting {
            Setting::AsAsked => Some(permit.ask.bound),
            Setting::Bound(bound) => Some(bound),
            Setting::Unlimited => None,
        }
    }

    fn next(&self) -> Option<(i64, &Permit)> {
        let (_, _, no) = self.waiting.first()?;
        Some((*no, self.permits.get(no)?))
    }

    fn insert(&mut self, no: i64, permit: Permit) {
        self.by_asker.insert((permit.from.run, permit.number), no);
        match (permit.granted_at, permit.ask.bound) {
            (None, _) => {
                self.waiting.insert((permit.ask.rank(), permit.turn, no));
            }
            (Some(_), Bound::Concurrent(_)) => self.held += 1,
            (Some(_), Bound::Rate(_)) => {}
        }
        self.permits.insert(no, permit);
    }

    /// Grants to who is next for as long as there is room.
    fn grant(&mut self, now: Timestamp, changes: &mut Changes) {
        let before = self.pace;
        while let Some((no, bound)) = self.next().map(|(no, permit)| (no, self.bound(permit))) {
            if changes.granted.len() >= MAX_GRANTS {
                break;
            }
            match bound {
                None => {}
                Some(Bound::Concurrent(limit)) if self.held < limit => {}
                Some(Bound::Concurrent(_)) => break,
                Some(Bound::Rate(rate)) => {
                    self.pace = self.pace.map(|point| rate.within_reach(point, now));
                    match rate.take(self.pace, now) {
                        Ok(point) => self.pace = Some(point),
                        Err(_) => break,
                    }
                }
            }
            self.waiting.pop_first();
            if let Some(permit) = self.permits.get_mut(&no) {
                permit.granted_at = Some(now);
                if let Bound::Concurrent(_) = permit.ask.bound {
                    self.held += 1;
                }
                self.turns.left(permit, true);
                changes
                    .granted
                    .push(Grant::of(permit, Some(now.since(permit.asked_at))));
                changes.rows.insert(no, Some(Row::Permit(permit.clone())));
            }
        }
        self.pace = self.pace.filter(|point| *point > now);
        if self.pace != before {
            changes.rows.insert(PACE, self.pace.map(Row::Pace));
        }
    }
}

fn most_waiting(ask: &Ask) -> usize {
    match ask.direction {
        Direction::Undo => 2 * MAX_WAITING,
        Direction::Do => MAX_WAITING,
    }
}
