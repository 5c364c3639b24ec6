//! One limiter: who waits, who has a permit, and who is next.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{Ask, Bound};
use super::name::LimitName;
use super::permit::{Permit, Row};
use super::turns::Turns;
use crate::ids::{MessageNo, RunId};
use crate::run::effect::Direction;
use crate::run::message::Sender;
use crate::time::Timestamp;

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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub to: Sender,
    pub number: MessageNo,
    pub limit: LimitName,
    /// Since it was asked for; `None` = it was granted before and is said again.
    pub waited: Option<crate::time::Span>,
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
            Some(permit) if permit.granted_at.is_some() => changes.granted.push(Grant {
                to: permit.from.clone(),
                number,
                limit: permit.ask.limit.clone(),
                waited: None,
            }),
            Some(_) => {}
            None if self.waiting.len() >= most_waiting(&ask) => {}
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
                };
                changes.rows.insert(no, Some(Row::Permit(permit.clone())));
                self.insert(no, permit);
            }
        }
        self.grant(now, &mut changes);
        changes
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
                changes.granted.push(Grant {
                    to: permit.from.clone(),
                    number: permit.number,
                    limit: permit.ask.limit.clone(),
                    waited: Some(now.since(permit.asked_at)),
                });
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
